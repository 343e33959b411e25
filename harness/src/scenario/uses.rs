// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an operation refers to, and what it results in. One table, so that a new operation has one
//! place to say so.

use holdfast_protocol::op::Arg;
use holdfast_protocol::{Handle, Op};

/// What kind of thing a step results in, or an operation wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thing {
    Descriptor,
    Mapping,
    Region,
    Pipe,
    /// Of a raw call: whatever has a number or an address.
    Any,
}

impl Thing {
    /// True if a step that results in `made` gives what is wanted here.
    pub(super) fn is_met_by(self, made: Option<Self>) -> bool {
        match self {
            Self::Any => matches!(made, Some(Self::Descriptor | Self::Mapping)),
            wanted => made == Some(wanted),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Descriptor => "a descriptor",
            Self::Mapping => "a mapping",
            Self::Region => "a memory region",
            Self::Pipe => "a pipe",
            Self::Any => "a descriptor or a mapping",
        }
    }
}

/// What one operation refers to.
#[derive(Default)]
pub(super) struct Uses<'a> {
    pub(super) handles: Vec<(&'a Handle, Thing)>,
    pub(super) files: Vec<&'a str>,
    pub(super) actor: Option<&'a str>,
    pub(super) signal: Option<&'a str>,
    /// A handler of the acting actor.
    pub(super) handler: Option<&'a str>,
    pub(super) result: Option<Thing>,
    /// The acting actor, and the one it names, need `rdma: true`.
    pub(super) rdma: bool,
    /// The handle may be another actor's.
    pub(super) foreign: bool,
    /// The actor it names is made by it.
    pub(super) forks: bool,
    /// The session does it, so that it cannot be started and awaited, nor run by a handler.
    pub(super) by_session: bool,
    /// Fields that exclude each other are not as they must be.
    pub(super) fault: Option<&'static str>,
}

/// Names of the handles an operation uses.
#[must_use]
pub fn handles_of(op: &Op) -> Vec<&str> {
    uses(op).handles.iter().map(|(handle, _)| handle.id()).collect()
}

/// What is wrong with the name of a program.
fn nameless(name: &str) -> Option<&'static str> {
    let is_name = !name.is_empty() && name != "." && name != ".." && !name.contains('/');
    (!is_name).then_some("a program is called by its name, without a folder")
}

/// What is wrong unless exactly one of two fields is given.
fn either(one: bool, other: bool, fault: &'static str) -> Option<&'static str> {
    (one == other).then_some(fault)
}

pub(super) fn uses(op: &Op) -> Uses<'_> {
    use Thing::{Descriptor, Mapping};
    let none = Uses::default();
    let on_map = |map| Uses { handles: vec![(map, Mapping)], ..Uses::default() };
    match op {
        Op::Memfd(_) => Uses { result: Some(Descriptor), ..none },
        Op::Mmap(op) => {
            let fd = op.fd.iter().map(|fd| (fd, Descriptor));
            let over = op.over.iter().map(|map| (map, Mapping));
            Uses { handles: fd.chain(over).collect(), result: Some(Mapping), ..none }
        }
        Op::Munmap(op) => on_map(&op.map),
        Op::Store(op) => on_map(&op.map),
        Op::Mprotect(op) => on_map(&op.map),
        Op::Madvise(op) => on_map(&op.map),
        Op::Load(op) => on_map(&op.map),
        Op::SetLease(_)
        | Op::GetLease(_)
        | Op::SetOwn(_)
        | Op::SetOwnEx(_)
        | Op::GetOwn(_)
        | Op::SetSig(_)
        | Op::GetSig(_)
        | Op::Received(_) => of_leases(op),
        Op::Kill(_)
        | Op::Exit(_)
        | Op::Wait(_)
        | Op::SetGroup(_)
        | Op::Fork(_)
        | Op::Execve(_)
        | Op::Setuid(_)
        | Op::DropCaps(_)
        | Op::Rlimit(_)
        | Op::SendFd(_)
        | Op::ReceiveFd(_)
        | Op::Violate(_) => of_processes(op),
        Op::RegMr(_)
        | Op::DeregMr(_)
        | Op::Connect(_)
        | Op::RdmaWrite(_)
        | Op::RdmaRead(_)
        | Op::RdmaSend(_)
        | Op::RdmaReceive(_)
        | Op::AsyncEvent(_)
        | Op::UverbsFd(_)
        | Op::RdmaClose(_)
        | Op::RdmaOpen(_) => of_rdma(op),
        Op::LinkDelete(_) | Op::LinkAdd(_) => none,
        Op::GupPin(op) => on_map(&op.map),
        Op::Pipe(_)
        | Op::Vmsplice(_)
        | Op::ClosePipe(_)
        | Op::GupRead(_)
        | Op::GupUnpin(_)
        | Op::Uring(_)
        | Op::UringRegister(_)
        | Op::UringUnregister(_) => of_pins(op),
        Op::Locks(op) => Uses { files: op.file.iter().map(String::as_str).collect(), ..none },
        Op::Fds(op) => Uses { actor: Some(&op.of), ..none },
        Op::Maps(op) => Uses { actor: Some(&op.of), ..none },
        Op::FilePins(op) => Uses { actor: Some(&op.of), ..none },
        Op::Mrs(op) => Uses { actor: op.of.as_deref(), ..none },
        Op::Vmstat(_) | Op::ReadFile(_) | Op::Dmesg(_) => none,
        Op::Command(op) => Uses { fault: op.argv.is_empty().then_some("a command has a program"), ..none },
        Op::Program(op) => Uses { fault: nameless(&op.name), ..none },
        Op::Fcntl(_) | Op::Ioctl(_) | Op::Syscall(_) => of_raw(op),
        op => of_files(op),
    }
}

fn of_files(op: &Op) -> Uses<'_> {
    use Thing::{Descriptor, Mapping};
    let none = Uses::default();
    let on_fd = |fd| Uses { handles: vec![(fd, Descriptor)], ..Uses::default() };
    let on_file = |file| Uses { files: vec![file], ..Uses::default() };
    match op {
        Op::Open(op) => Uses { result: Some(Descriptor), ..on_file(&op.file) },
        Op::Close(op) => on_fd(&op.fd),
        Op::Dup(op) => Uses { result: Some(Descriptor), ..on_fd(&op.fd) },
        Op::Dup2(op) => Uses { handles: vec![(&op.fd, Descriptor), (&op.onto, Descriptor)], ..none },
        Op::Dup3(op) => Uses { handles: vec![(&op.fd, Descriptor), (&op.onto, Descriptor)], ..none },
        Op::Truncate(op) => Uses {
            files: op.file.iter().map(String::as_str).collect(),
            handles: op.fd.iter().map(|fd| (fd, Descriptor)).collect(),
            fault: either(op.file.is_some(), op.fd.is_some(), "give either `file` or `fd`"),
            ..none
        },
        Op::Fallocate(op) => Uses {
            files: op.file.iter().map(String::as_str).collect(),
            handles: op.fd.iter().map(|fd| (fd, Descriptor)).collect(),
            fault: either(op.file.is_some(), op.fd.is_some(), "give either `file` or `fd`"),
            ..none
        },
        Op::Cut(op) => on_file(&op.file),
        Op::Size(op) => on_file(&op.file),
        Op::Compare(op) => Uses {
            files: op.file.iter().map(String::as_str).collect(),
            handles: op.map.iter().map(|map| (map, Mapping)).collect(),
            fault: either(op.file.is_some(), op.map.is_some(), "give either `file` or `map`"),
            ..none
        },
        Op::Read(op) => on_fd(&op.fd),
        Op::Write(op) => on_fd(&op.fd),
        Op::Fsync(op) => on_fd(&op.fd),
        Op::Fdatasync(op) => on_fd(&op.fd),
        Op::Syncfs(op) => on_fd(&op.fd),
        Op::Unlink(op) => on_file(&op.file),
        Op::Rename(op) => Uses { files: vec![&op.file, &op.to], ..none },
        Op::Link(op) => Uses { files: vec![&op.file, &op.to], ..none },
        Op::Clone(op) => Uses { files: vec![&op.file, &op.to], ..none },
        Op::Dedupe(op) => Uses { files: vec![&op.file, &op.to], ..none },
        Op::ExchangeRange(op) => Uses { files: vec![&op.file, &op.to], ..none },
        Op::SwapExtents(op) => Uses { files: vec![&op.file, &op.to], ..none },
        Op::Fiemap(op) => on_file(&op.file),
        Op::Statx(op) => on_file(&op.file),
        Op::Fill(op) => on_file(&op.file),
        Op::FillFree(op) => on_file(&op.file),
        _ => none,
    }
}

fn of_raw(op: &Op) -> Uses<'_> {
    let none = Uses::default();
    match op {
        Op::Fcntl(op) => Uses { handles: vec![(&op.fd, Thing::Descriptor)], ..none },
        Op::Ioctl(op) => Uses { handles: vec![(&op.fd, Thing::Descriptor)], ..none },
        Op::Syscall(op) => {
            let fault = match op.show {
                _ if op.args.len() > 6 => Some("a system call has at most six arguments"),
                Some(index) if !matches!(op.args.get(index), Some(Arg::Buffer(_))) => {
                    Some("`show` is the index of an argument that is bytes")
                }
                _ => None,
            };
            let handles = op.args.iter().filter_map(|arg| match arg {
                Arg::Of(handle) => Some((handle, Thing::Any)),
                _ => None,
            });
            Uses { handles: handles.collect(), fault, ..none }
        }
        _ => none,
    }
}

fn of_leases(op: &Op) -> Uses<'_> {
    let on_fd = |fd| Uses { handles: vec![(fd, Thing::Descriptor)], ..Uses::default() };
    match op {
        Op::SetLease(op) => on_fd(&op.fd),
        Op::GetLease(op) => on_fd(&op.fd),
        Op::SetOwn(op) => Uses {
            actor: op.actor.as_deref().or(op.group.as_deref()),
            fault: either(op.actor.is_some(), op.group.is_some(), "give either `actor` or `group`"),
            ..on_fd(&op.fd)
        },
        Op::SetOwnEx(op) => Uses { actor: Some(&op.actor), ..on_fd(&op.fd) },
        Op::GetOwn(op) => on_fd(&op.fd),
        Op::SetSig(op) => Uses { signal: op.signal.as_deref(), ..on_fd(&op.fd) },
        Op::GetSig(op) => on_fd(&op.fd),
        Op::Received(op) => Uses { handler: Some(&op.handler), by_session: true, ..Uses::default() },
        _ => Uses::default(),
    }
}

fn of_processes(op: &Op) -> Uses<'_> {
    let none = Uses::default();
    match op {
        Op::Kill(op) => Uses { actor: Some(&op.actor), signal: Some(&op.signal), ..none },
        Op::Wait(op) => Uses { actor: Some(&op.actor), by_session: true, ..none },
        Op::SetGroup(op) => Uses { actor: op.join.as_deref(), ..none },
        Op::Fork(op) => Uses { actor: Some(&op.into), forks: true, ..none },
        Op::SendFd(op) => Uses { actor: Some(&op.to), handles: vec![(&op.fd, Thing::Descriptor)], ..none },
        Op::ReceiveFd(op) => Uses { actor: Some(&op.from), result: Some(Thing::Descriptor), ..none },
        _ => none,
    }
}

fn of_rdma(op: &Op) -> Uses<'_> {
    let rdma = Uses { rdma: true, ..Uses::default() };
    match op {
        Op::RegMr(op) => Uses { handles: vec![(&op.map, Thing::Mapping)], result: Some(Thing::Region), ..rdma },
        Op::DeregMr(op) => Uses { handles: vec![(&op.mr, Thing::Region)], ..rdma },
        Op::Connect(op) => Uses { actor: Some(&op.to), ..rdma },
        Op::RdmaWrite(op) => Uses { handles: vec![(&op.mr, Thing::Region)], foreign: true, ..rdma },
        Op::RdmaRead(op) => Uses { handles: vec![(&op.mr, Thing::Region)], foreign: true, ..rdma },
        Op::RdmaSend(op) => Uses { actor: Some(&op.to), ..rdma },
        Op::RdmaReceive(op) => Uses { actor: Some(&op.from), handles: vec![(&op.mr, Thing::Region)], ..rdma },
        Op::UverbsFd(_) => Uses { result: Some(Thing::Descriptor), ..rdma },
        _ => rdma,
    }
}

fn of_pins(op: &Op) -> Uses<'_> {
    let none = Uses::default();
    match op {
        Op::Pipe(_) => Uses { result: Some(Thing::Pipe), ..none },
        Op::Vmsplice(op) => Uses { handles: vec![(&op.map, Thing::Mapping), (&op.pipe, Thing::Pipe)], ..none },
        Op::ClosePipe(op) => Uses { handles: vec![(&op.pipe, Thing::Pipe)], ..none },
        Op::Uring(_) => Uses { result: Some(Thing::Descriptor), ..none },
        Op::UringRegister(op) => {
            Uses { handles: vec![(&op.ring, Thing::Descriptor), (&op.map, Thing::Mapping)], ..none }
        }
        Op::UringUnregister(op) => Uses { handles: vec![(&op.ring, Thing::Descriptor)], ..none },
        _ => none,
    }
}

/// The operation's name as a scenario writes it: that of its arguments in small letters.
#[must_use]
pub fn name(op: &Op) -> String {
    let mut name = String::new();
    for letter in op.arguments().chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_called_as_it_is_written() {
        for text in [
            r#"{"open":{"file":"f","flags":[]}}"#,
            r#"{"dup2":{"fd":"$a","onto":"$b"}}"#,
            r#"{"rdma_close":{}}"#,
        ] {
            let op: Op = serde_json::from_str(text).unwrap();
            assert!(text.starts_with(&format!("{{\"{}\":", name(&op))), "{} is {text}", name(&op));
        }
    }
}
