// SPDX-License-Identifier: MIT OR Apache-2.0
//! An actor: a process that does one operation after the other, as it is told.
//!
//! A process of its own because a call may block for ever or be killed, and both are results. It
//! has one thread, so `/proc/PID/stack` is where its call waits.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;

use holdfast_protocol::{Handle, Op, Outcome, read_frame, write_frame};
use nix::errno::Errno;

use crate::clock::now_ms;
use crate::ops;
use crate::signals;
use crate::sys::{self, Mapping};
use crate::verbs::{self, Device, QueuePair, Region};
use crate::wire::{Answer, Call, More, Part, Patient, SPARE_TAG};

/// Exit status of an actor whose session went away or spoke nonsense.
const EXIT_NO_SESSION: i32 = 70;

/// A result that later steps may name.
#[derive(Debug)]
pub(crate) enum Thing {
    /// A descriptor.
    Fd(OwnedFd),
    /// A mapping.
    Map(Mapping),
    /// A memory region.
    Region(Region),
    /// A pipe: read end, write end.
    Pipe(OwnedFd, OwnedFd),
}

/// What an operation came to instead of success.
#[derive(Debug)]
pub(crate) struct Stop(pub(crate) Outcome);

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self(Outcome::Errno(errno as i32))
    }
}

/// The operation was not issued, and why.
pub(crate) fn not_issued(why: impl Into<String>) -> Stop {
    Stop(Outcome::NotIssued { why: why.into() })
}

/// What an operation gives: its value and what the session keeps of it.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// The returned value.
    pub(crate) value: i64,
    /// For the session.
    pub(crate) more: More,
    /// The result that the step's id names.
    pub(crate) thing: Option<Thing>,
}

impl Done {
    /// Success with a value.
    pub(crate) fn value(value: i64) -> Self {
        Self { value, ..Self::default() }
    }

    /// Success with a result that later steps may name.
    pub(crate) fn thing(thing: Thing) -> Self {
        Self { thing: Some(thing), ..Self::default() }
    }
}

/// Everything an actor holds.
pub(crate) struct Actor {
    /// Its part.
    pub(crate) part: Part,
    /// Results by id of the step.
    pub(crate) things: BTreeMap<String, Thing>,
    /// The RDMA device, open from the start when the part says so.
    pub(crate) device: Option<Device>,
    /// Queue pairs by peer, with our packet sequence number.
    pub(crate) pairs: BTreeMap<String, (QueuePair, u32)>,
    /// debugfs `gup_test` and the length of the pin: opened once and never closed, because closing
    /// any descriptor of it drops the system's one pin set.
    pub(crate) gup: Option<(OwnedFd, usize)>,
}

/// The life of an actor; its session is at the other end of `stream`.
pub(crate) fn run(stream: OwnedFd) -> ! {
    // Nobody is left to collect what an actor without a session does.
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
    let mut stream = Patient(File::from(stream));
    // What is the same for every part is done before there is one: most actors are started ahead.
    verbs::look_around();
    say(&mut stream, SPARE_TAG, Outcome::Returned(0));
    let Ok(Call::Play(part)) = read_frame::<Call>(&mut stream) else { sys::exit_now(EXIT_NO_SESSION) };
    // The kernel's splats name the task: let them name the actor.
    if let Ok(name) = CString::new(part.name.as_str()) {
        let _ = nix::sys::prctl::set_name(&name);
    }
    let (mut actor, outcome) = Actor::new(part);
    say(&mut stream, "", outcome);
    loop {
        let Ok(call) = read_frame::<Call>(&mut stream) else { sys::exit_now(EXIT_NO_SESSION) };
        let answer = actor.answer(call);
        if write_frame(&mut stream.0, &answer).is_err() {
            sys::exit_now(EXIT_NO_SESSION);
        }
    }
}

/// Says something that is no answer to a step.
fn say(stream: &mut Patient<File>, tag: &str, outcome: Outcome) {
    let more = More::Nothing;
    let answer = Answer { tag: tag.to_owned(), outcome, at_ms: now_ms(), took_ms: 0, more };
    if write_frame(&mut stream.0, &answer).is_err() {
        sys::exit_now(EXIT_NO_SESSION);
    }
}

impl Actor {
    fn new(part: Part) -> (Self, Outcome) {
        let mut actor = Self { part, things: BTreeMap::new(), device: None, pairs: BTreeMap::new(), gup: None };
        let outcome = match actor.get_ready() {
            Ok(()) => Outcome::Returned(0),
            Err(why) => Outcome::NotIssued { why },
        };
        (actor, outcome)
    }

    fn get_ready(&mut self) -> Result<(), String> {
        for (name, handler) in &self.part.setup.on_signal {
            let number = signals::number(&handler.signal)
                .ok_or_else(|| format!("handler {name}: {} is no signal", handler.signal))?;
            sys::record_signal(number, handler.restart)
                .map_err(|errno| format!("handler {name}: sigaction {}: {errno}", handler.signal))?;
        }
        if self.part.setup.rdma {
            let (device, _) = self.part.rdma.as_ref().ok_or("this machine has no RDMA device that is ready")?;
            self.device = Some(Device::open(device).map_err(|errno| format!("opening {device}: {errno}"))?);
        }
        Ok(())
    }

    fn answer(&mut self, call: Call) -> Answer {
        let at_ms = now_ms();
        let (tag, result) = match call {
            Call::Play(_) => (String::new(), Err(not_issued("this actor already plays"))),
            Call::Do { tag, op, aid } => {
                let result = self.issue(op, &aid);
                (tag, result)
            }
            Call::MakePair { tag, peer } => (tag, ops::rdma::make_pair(self, peer)),
            Call::JoinPair { tag, peer, end } => (tag, ops::rdma::join_pair(self, &peer, end)),
        };
        let took_ms = now_ms() - at_ms;
        let (outcome, more) = match result {
            Ok(done) => {
                if let Some(thing) = done.thing {
                    self.things.insert(tag.clone(), thing);
                }
                (Outcome::Returned(done.value), done.more)
            }
            Err(Stop(outcome)) => (outcome, More::Nothing),
        };
        Answer { tag, outcome, at_ms, took_ms, more }
    }

    fn issue(&mut self, op: Op, aid: &crate::wire::Aid) -> Result<Done, Stop> {
        use ops::{files, gup, memory, pipes, process, rdma, violate};
        match op {
            Op::Open { file, flags } => files::open(self, &file, &flags),
            Op::Close { fd } => files::close(self, &fd),
            Op::Truncate { file, fd, size_kib } => {
                files::truncate(self, file.as_deref(), fd.as_ref(), size_kib)
            }
            Op::Fallocate { file, mode, at_kib, len_kib } => {
                files::fallocate(self, &file, files::fallocate_flags(&mode), at_kib, len_kib)
            }
            Op::Cut { file, how, at_kib, len_kib } => files::cut(self, &file, how, at_kib, len_kib),
            Op::Size { file } => files::size(self, &file),
            Op::Mmap { fd, at_kib, len_kib, flags } => memory::mmap(self, fd.as_ref(), at_kib, len_kib, &flags),
            Op::Munmap { map } => memory::munmap(self, &map),
            Op::Store { map, at_kib, len_kib, pattern } => memory::store(self, &map, at_kib, len_kib, pattern),
            Op::Compare { file: Some(file), map: None, at_kib, len_kib, pattern } => {
                files::compare(self, &file, at_kib, len_kib, pattern)
            }
            Op::Compare { file: None, map: Some(map), at_kib, len_kib, pattern } => {
                memory::compare(self, &map, at_kib, len_kib, pattern)
            }
            Op::Compare { .. } => Err(not_issued("compare wants either a file or a mapping")),
            Op::RegMr { map, access } => rdma::reg_mr(self, &map, &access),
            Op::DeregMr { mr } => rdma::dereg_mr(self, &mr),
            Op::Connect { .. } => Err(not_issued("the session connects, not the actor")),
            Op::RdmaWrite { mr: _, at_kib, len_kib, pattern } => {
                rdma::write(self, aid, at_kib, len_kib, pattern)
            }
            Op::RdmaRead { mr: _, at_kib, len_kib, pattern } => rdma::read(self, aid, at_kib, len_kib, pattern),
            Op::GupPin { map, at_kib, len_kib, write } => gup::pin(self, &map, at_kib, len_kib, write),
            Op::GupRead { at_kib, len_kib, pattern } => gup::read(self, at_kib, len_kib, pattern),
            Op::GupUnpin {} => gup::unpin(self),
            Op::Pipe {} => pipes::pipe(),
            Op::Vmsplice { map, pipe, at_kib } => pipes::vmsplice(self, &map, &pipe, at_kib),
            Op::ClosePipe { pipe } => pipes::close(self, &pipe),
            Op::Kill { actor: _, signal } => process::kill(aid, &signal),
            Op::Exit { code } => process::exit(code),
            Op::Violate { what } => violate::violate(self, what),
        }
    }

    /// The mapping that a handle names.
    pub(crate) fn map(&self, handle: &Handle) -> Result<Mapping, Stop> {
        match self.things.get(handle.id()) {
            Some(Thing::Map(map)) => Ok(*map),
            other => Err(wrong_thing(handle, other, "mapping")),
        }
    }

    /// The descriptor that a handle names.
    pub(crate) fn fd(&self, handle: &Handle) -> Result<&OwnedFd, Stop> {
        match self.things.get(handle.id()) {
            Some(Thing::Fd(fd)) => Ok(fd),
            other => Err(wrong_thing(handle, other, "descriptor")),
        }
    }

    /// The write end of the pipe that a handle names.
    pub(crate) fn pipe(&self, handle: &Handle) -> Result<&OwnedFd, Stop> {
        match self.things.get(handle.id()) {
            Some(Thing::Pipe(_, write)) => Ok(write),
            other => Err(wrong_thing(handle, other, "pipe")),
        }
    }

    /// The RDMA device.
    pub(crate) fn device(&self) -> Result<&Device, Stop> {
        self.device.as_ref().ok_or_else(|| not_issued(format!("actor {} has no `rdma: true`", self.part.name)))
    }
}

/// Why a handle does not fit, for the step's fact.
pub(crate) fn wrong_thing(handle: &Handle, found: Option<&Thing>, want: &str) -> Stop {
    not_issued(match found {
        None => format!("${} is not there in this actor; a {want} was wanted", handle.id()),
        Some(Thing::Fd(_)) => format!("${} is a descriptor, not a {want}", handle.id()),
        Some(Thing::Map(_)) => format!("${} is a mapping, not a {want}", handle.id()),
        Some(Thing::Region(_)) => format!("${} is a memory region, not a {want}", handle.id()),
        Some(Thing::Pipe(..)) => format!("${} is a pipe, not a {want}", handle.id()),
    })
}
