// SPDX-License-Identifier: MIT OR Apache-2.0
//! The session: takes orders of the host, plays them through actors, answers each with one reply.
//!
//! It never does an operation itself: what may block or die is an actor's business.

mod calls;
mod cast;
mod connect;
mod finish;
mod prepare;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use holdfast_protocol::{Fact, FrameError, Oracles, Order, Outcome, Place, Reply, read_frame, write_frame};

use crate::clock::now_ms;
use crate::procfs;
use crate::wire::{DeclaredFile, RemoteRegion};
use cast::Cast;

/// Where a place of the protocol is in this guest (or in the folder a test gives).
#[derive(Clone, Debug, Default)]
pub(crate) struct Stage {
    /// Folder of a file system, or the device-DAX node.
    pub(crate) places: BTreeMap<Place, PathBuf>,
    /// Block device below each mounted file system; empty in a test, where nothing is mounted.
    pub(crate) devices: BTreeMap<Place, PathBuf>,
    /// The RDMA device and the index of its GID, when ready.
    pub(crate) rdma: Option<(String, u32)>,
    /// This is the guest and not a test: sysctls may be set, kernel state read.
    pub(crate) in_guest: bool,
}

/// What a session remembers between orders.
pub(crate) struct Session {
    stage: Stage,
    cast: Cast,
    files: BTreeMap<String, DeclaredFile>,
    /// Steps that were issued and have not been reported as returned.
    pending: BTreeMap<String, Pending>,
    /// Steps that have returned: an `await` of one of them is answered again.
    settled: BTreeMap<String, Fact>,
    /// Public parts of memory regions by the step that made them.
    regions: BTreeMap<String, RemoteRegion>,
    /// Processes that hold on purpose what an oracle must find.
    keepers: Vec<i32>,
    /// File systems whose metadata is to be damaged before the checker runs.
    corrupt: Vec<Place>,
    /// What was counted before the first step; `None` before `Prepare`.
    before: Option<Before>,
}

/// The base line of the oracles.
struct Before {
    oracles: Oracles,
    mark: String,
}

/// A step on its way.
struct Pending {
    actor: String,
    at_ms: u64,
}

/// Why a session stopped listening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The other side closed the stream.
    Closed,
    /// The machine is to go off.
    PowerOff,
}

impl Session {
    /// A session that nobody has prepared.
    #[must_use]
    pub(crate) fn new(stage: Stage) -> Self {
        Self {
            stage,
            cast: Cast::default(),
            files: BTreeMap::new(),
            pending: BTreeMap::new(),
            settled: BTreeMap::new(),
            regions: BTreeMap::new(),
            keepers: Vec::new(),
            corrupt: Vec::new(),
            before: None,
        }
    }

    /// Reads orders and answers them until the machine is to go off or the stream ends.
    ///
    /// # Errors
    /// When a reply cannot be written, or when it is not known any more where the next frame begins.
    pub(crate) fn serve(&mut self, stream: &mut (impl Read + Write)) -> io::Result<Next> {
        loop {
            let order = match read_frame::<Order>(stream) {
                Ok(order) => order,
                Err(FrameError::Closed) => return Ok(Next::Closed),
                Err(error) => {
                    write_frame(stream, &Reply::Refused { why: error.to_string() })?;
                    if matches!(error, FrameError::Garbled(..)) {
                        continue;
                    }
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            };
            if matches!(order, Order::PowerOff) {
                return Ok(Next::PowerOff);
            }
            let reply = self.obey(order);
            match write_frame(stream, &reply) {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    write_frame(stream, &Reply::Refused { why: format!("the reply is too long: {error}") })?;
                }
                other => other?,
            }
            self.cast.reap();
        }
    }

    /// Carries one order out.
    pub(crate) fn obey(&mut self, order: Order) -> Reply {
        self.cast.reap();
        let reply = match order {
            Order::CheckConfig { requests } => procfs::config_mismatches(&requests).map(Reply::Config),
            Order::Prepare(setup) => self.prepare(setup).map(Reply::Prepared),
            Order::Do { step, actor, op, wait_ms } => {
                self.issue(&step, &actor, op).and_then(|()| self.wait(&step, wait_ms)).map(Reply::Fact)
            }
            Order::Start { step, actor, op } => self.issue(&step, &actor, op).map(|()| {
                let started = self.pending.get(&step).map(|pending| pending.at_ms);
                let settled = self.settled.get(&step).map(|fact| fact.at_ms);
                Reply::Started { at_ms: started.or(settled).unwrap_or_else(now_ms) }
            }),
            Order::Await { step, wait_ms } => self.wait(&step, wait_ms).map(Reply::Fact),
            Order::Still { step, for_ms } => self.wait(&step, for_ms).map(Reply::Fact),
            Order::Finish { settle_ms } => self.finish(settle_ms).map(Reply::Finished),
            Order::PowerOff => Err("powering off has no reply".to_owned()),
        };
        reply.unwrap_or_else(|why| Reply::Refused { why })
    }

    /// Notes that a step is over.
    fn settle(&mut self, step: &str, fact: Fact) {
        self.pending.remove(step);
        self.settled.insert(step.to_owned(), fact);
    }

    /// Notes that a step was over before it began.
    fn settle_now(&mut self, step: &str, actor: &str, outcome: Outcome) {
        let fact =
            Fact { step: step.to_owned(), actor: actor.to_owned(), outcome, at_ms: now_ms(), took_ms: 0 };
        self.settle(step, fact);
    }
}
