// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an operation refers to, and what it results in. One table, so that a new operation has one
//! place to say so.

use holdfast_protocol::{Handle, Op};

/// What kind of thing a step results in, or an operation wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thing {
    Descriptor,
    Mapping,
    Region,
    Pipe,
}

impl Thing {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Descriptor => "a descriptor",
            Self::Mapping => "a mapping",
            Self::Region => "a memory region",
            Self::Pipe => "a pipe",
        }
    }
}

/// What one operation refers to.
#[derive(Default)]
pub(super) struct Uses<'a> {
    pub(super) handles: Vec<(&'a Handle, Thing)>,
    pub(super) file: Option<&'a str>,
    pub(super) actor: Option<&'a str>,
    pub(super) signal: Option<&'a str>,
    pub(super) result: Option<Thing>,
    /// The acting actor needs `rdma: true`.
    pub(super) rdma: bool,
    /// The handle may be another actor's.
    pub(super) foreign: bool,
    /// Fields that exclude each other are not as they must be.
    pub(super) fault: Option<&'static str>,
}

/// Names of the handles an operation uses.
#[must_use]
pub fn handles_of(op: &Op) -> Vec<&str> {
    uses(op).handles.iter().map(|(handle, _)| handle.id()).collect()
}

pub(super) fn uses(op: &Op) -> Uses<'_> {
    use Thing::{Descriptor, Mapping, Pipe, Region};
    let none = Uses::default();
    match op {
        Op::Open { file, .. } => Uses { file: Some(file), result: Some(Descriptor), ..none },
        Op::Close { fd } => Uses { handles: vec![(fd, Descriptor)], ..none },
        Op::Mmap { fd, .. } => {
            Uses { handles: fd.iter().map(|fd| (fd, Descriptor)).collect(), result: Some(Mapping), ..none }
        }
        Op::Munmap { map } | Op::Store { map, .. } | Op::GupPin { map, .. } => {
            Uses { handles: vec![(map, Mapping)], ..none }
        }
        Op::Truncate { file, fd, .. } => Uses {
            file: file.as_deref(),
            handles: fd.iter().map(|fd| (fd, Descriptor)).collect(),
            fault: (file.is_some() == fd.is_some()).then_some("give either `file` or `fd`"),
            ..none
        },
        Op::Fallocate { file, .. } | Op::Cut { file, .. } | Op::Size { file } => {
            Uses { file: Some(file), ..none }
        }
        Op::Compare { file, map, .. } => Uses {
            file: file.as_deref(),
            handles: map.iter().map(|map| (map, Mapping)).collect(),
            fault: (file.is_some() == map.is_some()).then_some("give either `file` or `map`"),
            ..none
        },
        Op::RegMr { map, .. } => {
            Uses { handles: vec![(map, Mapping)], result: Some(Region), rdma: true, ..none }
        }
        Op::DeregMr { mr } => Uses { handles: vec![(mr, Region)], rdma: true, ..none },
        Op::Connect { to } => Uses { actor: Some(to), rdma: true, ..none },
        Op::RdmaWrite { mr, .. } | Op::RdmaRead { mr, .. } => {
            Uses { handles: vec![(mr, Region)], rdma: true, foreign: true, ..none }
        }
        Op::Pipe {} => Uses { result: Some(Pipe), ..none },
        Op::Vmsplice { map, pipe, .. } => Uses { handles: vec![(map, Mapping), (pipe, Pipe)], ..none },
        Op::ClosePipe { pipe } => Uses { handles: vec![(pipe, Pipe)], ..none },
        Op::Kill { actor, signal } => Uses { actor: Some(actor), signal: Some(signal), ..none },
        Op::GupRead { .. } | Op::GupUnpin {} | Op::Exit { .. } | Op::Violate { .. } => none,
    }
}

/// The operation's name as a scenario writes it.
#[must_use]
pub fn name(op: &Op) -> String {
    match serde_json::to_value(op) {
        Ok(serde_json::Value::Object(map)) => map.keys().next().cloned().unwrap_or_default(),
        _ => String::new(),
    }
}
