// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the session and an actor say to each other, in the protocol's frames over the actor's
//! standard input, which is one end of a socket pair.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use holdfast_protocol::{ActorSetup, Count, Op, Outcome, Place, Provider};
use serde::{Deserialize, Serialize};

use crate::survey::{Found, Survey};

/// Tag of what an actor says before it has a part: it has started and waits for [`Call::Play`]. No step's
/// id holds a blank.
pub(crate) const SPARE_TAG: &str = "waits for a part";

/// A declared file, as an actor finds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DeclaredFile {
    /// Its path.
    pub(crate) path: PathBuf,
    /// Where it lives.
    pub(crate) on: Place,
}

/// What an actor is told first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Its name.
    pub(crate) name: String,
    /// Its part of the scenario.
    pub(crate) setup: ActorSetup,
    /// All declared files by name.
    pub(crate) files: BTreeMap<String, DeclaredFile>,
    /// Where the places are: a folder and the block device below it, if it is mounted.
    pub(crate) places: BTreeMap<Place, (PathBuf, Option<PathBuf>)>,
    /// Where the programs are that scenarios run.
    pub(crate) programs: Vec<PathBuf>,
    /// The RDMA link of the case, when the machine has it.
    pub(crate) rdma: Option<Link>,
}

/// An RDMA link that is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Link {
    /// Its driver.
    pub(crate) provider: Provider,
    /// The device.
    pub(crate) device: String,
    /// The index of the GID to use.
    pub(crate) gid_index: u32,
}

/// The public part of a memory region: what a peer needs to reach it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RemoteRegion {
    /// The actor that registered it.
    pub(crate) owner: String,
    /// Its key.
    pub(crate) rkey: u32,
    /// Its first address.
    pub(crate) address: u64,
    /// Its length in bytes.
    pub(crate) len: u64,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct PairEnd {
    /// Number of the queue pair.
    pub(crate) number: u32,
    /// Its first packet sequence number.
    pub(crate) psn: u32,
    /// The GID of its port.
    pub(crate) gid: [u8; 16],
}

/// What the session knows and the acting actor needs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Aid {
    /// The process of the actor that the operation names.
    pub(crate) pid: Option<i32>,
    /// The mark in the kernel log where the case begins.
    pub(crate) mark: Option<String>,
    /// The part of the actor that a fork makes.
    pub(crate) child: Option<ActorSetup>,
    /// The region that a transfer names, where another process has it.
    pub(crate) region: Option<RemoteRegion>,
    /// The results that it uses of other choices of its stress.
    pub(crate) uses: Vec<String>,
}

/// What the session asks of an actor. The tag comes back with the answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    /// Be somebody; always first.
    Play(Part),
    /// Do one operation.
    Do {
        /// Id of the step, which names the result.
        tag: String,
        /// What is done.
        op: Op,
        /// What the session adds.
        aid: Aid,
    },
    /// Take one end of a socket pair that leads to this peer. It follows the frame, with one byte.
    Link {
        /// Comes back with the answer.
        tag: String,
        /// The other actor.
        peer: String,
    },
    /// Become two: a second thread plays this actor. Its stream follows the frame, with one byte.
    Thread {
        /// Comes back with the answer.
        tag: String,
        /// The other actor.
        name: String,
    },
    /// What the session adds to an operation that a handler will do.
    Aid {
        /// Comes back with the answer.
        tag: String,
        /// The step under which it is known.
        step: String,
        /// What is added.
        aid: Aid,
    },
    /// The next call is to begin together with those of other actors: take it, say [`GATE_TAG`], and wait
    /// until the other end of the pipe is closed whose end follows this frame, with one byte.
    Gate,
    /// Do operations at random.
    Stress {
        /// Comes back with the answer.
        tag: String,
        /// What is drawn from.
        choices: Vec<Choice>,
        /// What the draws follow from.
        seed: u64,
        /// How long, in milliseconds of the guest's clock.
        for_ms: u64,
    },
    /// Do operations over and over.
    Repeat {
        /// Comes back with the answer.
        tag: String,
        /// What is done, in this order.
        body: Vec<Choice>,
        /// How often.
        times: u32,
    },
    /// Look at files, make new ones.
    Survey {
        /// Comes back with the answer.
        tag: String,
        /// What is asked.
        what: Survey,
    },
    /// Make a queue pair for this peer; an older one goes.
    MakePair {
        /// Comes back with the answer.
        tag: String,
        /// The other actor.
        peer: String,
    },
    /// Connect that queue pair with the peer's.
    JoinPair {
        /// Comes back with the answer.
        tag: String,
        /// The other actor.
        peer: String,
        /// Its end.
        end: PairEnd,
    },
}

/// One operation that a stress may draw, or of a body that is repeated.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Choice {
    /// Id of the step, which names the result.
    pub(crate) step: String,
    /// What is done.
    pub(crate) op: Op,
    /// What the session adds.
    pub(crate) aid: Aid,
    /// Of a stress: the choice that has succeeded before, with all that it used still there.
    pub(crate) after: Option<String>,
    /// Its spans are wanted; of a stress.
    pub(crate) spans: bool,
}

/// What a choice of a stress came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// How often what came back.
    pub(crate) counts: Vec<Count>,
    /// How long its result was there, each time, or, of an operation without one, when it succeeded.
    pub(crate) spans: Vec<Span>,
}

/// A stretch of uptime in microseconds, and the draw it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    pub(crate) from_us: u64,
    pub(crate) to_us: u64,
    pub(crate) draw: u64,
}

/// What an actor answers to each call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Of the call.
    pub(crate) tag: String,
    /// What came back.
    pub(crate) outcome: Outcome,
    /// Uptime when the operation was issued, in milliseconds.
    pub(crate) at_ms: u64,
    /// How long it took, in milliseconds.
    pub(crate) took_ms: u64,
    /// What else the session must know.
    pub(crate) more: More,
}

impl Answer {
    /// What is said unasked, now.
    pub(crate) fn about(tag: &str, outcome: Outcome) -> Self {
        let more = More::Nothing;
        Self { tag: tag.to_owned(), outcome, at_ms: crate::clock::now_ms(), took_ms: 0, more }
    }
}

/// What the session keeps of a result.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) enum More {
    /// Nothing.
    #[default]
    Nothing,
    /// A memory region was registered.
    Region(RemoteRegion),
    /// A queue pair was made.
    Pair(PairEnd),
    /// What a survey found.
    Found(Found),
    /// A keeper process was left behind.
    Keeper(i32),
    /// A fork made the actor of this name, in this process.
    Child(String, i32),
    /// What each choice of a stress came to; nothing for those that were never drawn.
    Tallies(BTreeMap<String, Tally>),
    /// What was counted of a body that was repeated, as [`holdfast_protocol::Reply::Repeated`] has it.
    Repeated { ticks: Vec<Vec<u64>>, idle_ns: Option<u64> },
}

/// Tag of what a handler says when its signal came; its name is behind it. No step's id holds a blank.
pub(crate) const SIGNAL_TAG: &str = "signal ";

/// Tag of what an actor says at the gate.
pub(crate) const GATE_TAG: &str = "at the gate";

/// Tag of the answer to [`Call::Link`].
pub(crate) const LINK_TAG: &str = "a link";

/// The step under which a handler's operation is known.
pub(crate) fn handler_step(handler: &str, id: &str) -> String {
    format!("{handler}.{id}")
}

/// A stream whose reads carry on when a signal interrupts it: an actor may have handlers without
/// SA_RESTART, and a frame must not be cut by one.
#[derive(Debug)]
pub(crate) struct Patient<R>(pub(crate) R);

impl<R: Read> Read for Patient<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

impl<F: AsFd> AsFd for Patient<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<W: Write> Write for Patient<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
