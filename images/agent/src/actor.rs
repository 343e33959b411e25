// SPDX-License-Identifier: MIT OR Apache-2.0
//! An actor: a process that does one operation after the other, as it is told.
//!
//! A process of its own because a call may block for ever or be killed, and both are results. It has one
//! thread, unless its part asks for more: `/proc/TID/stack` is where a call waits.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};

use holdfast_protocol::{Handle, Op, Outcome, read_frame, write_frame};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd;

use crate::clock::now_ms;
use crate::handlers::Handlers;
use crate::ops;
use crate::survey::survey;
use crate::sys::{self, Mapping, Number, exposed};
use crate::verbs::{self, Device, QueuePair, Region};
use crate::wire::{Aid, Answer, Call, GATE_TAG, More, Part, Patient, RemoteRegion, SPARE_TAG};

/// Exit status of an actor whose session went away or spoke nonsense.
pub(crate) const EXIT_NO_SESSION: i32 = 70;

/// A result that later steps may name.
#[derive(Clone, Debug)]
pub(crate) enum Thing {
    /// A descriptor.
    Fd(Number),
    /// A mapping.
    Map(Mapping),
    /// A memory region, and what a peer needs to reach it.
    Region(Region, RemoteRegion),
    /// A pipe: read end, write end.
    Pipe(Number, Number),
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
    /// What came back, where it is no value.
    pub(crate) outcome: Option<Outcome>,
    /// For the session.
    pub(crate) more: More,
    /// The result that the step's id names.
    pub(crate) thing: Option<Thing>,
    /// Somebody else answers: this is a fork's child.
    pub(crate) quiet: bool,
}

impl Done {
    /// Success with a value.
    pub(crate) fn value(value: i64) -> Self {
        Self { value, ..Self::default() }
    }

    /// Success with a descriptor, whose number is the value.
    pub(crate) fn fd(fd: impl Into<Number>) -> Self {
        let fd = fd.into();
        Self { value: fd.raw().into(), thing: Some(Thing::Fd(fd)), ..Self::default() }
    }

    /// Success with a result that later steps may name.
    pub(crate) fn thing(thing: Thing) -> Self {
        Self { thing: Some(thing), ..Self::default() }
    }
}

/// Everything an actor holds. Shared with handlers, so all that changes is in cells; nothing stays borrowed
/// over [`exposed`].
pub(crate) struct Actor {
    /// Its part; the name changes in a fork's child.
    pub(crate) part: Part,
    /// Its name.
    pub(crate) name: RefCell<String>,
    /// Results by id of the step.
    pub(crate) things: RefCell<BTreeMap<String, Thing>>,
    /// The RDMA device, open from the start when the part says so.
    pub(crate) device: RefCell<Option<Device>>,
    /// Queue pairs by peer, with our packet sequence number.
    pub(crate) pairs: RefCell<BTreeMap<String, (QueuePair, u32)>>,
    /// debugfs `gup_test` and the length of the pin: opened once and never closed, because closing
    /// any descriptor of it drops the system's one pin set.
    pub(crate) gup: RefCell<Option<(Number, usize)>>,
    /// Sockets that lead to other actors.
    pub(crate) links: RefCell<BTreeMap<String, Number>>,
    /// What is done about signals.
    pub(crate) handlers: Handlers,
}

/// The stream to the session: standard input, in this process and in every one that it becomes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Control(Number);

impl Control {
    /// The stream.
    pub(crate) const fn new() -> Self {
        Self(Self::number())
    }

    /// The stream as a descriptor.
    pub(crate) const fn number() -> Number {
        Number::STDIN
    }

    /// Waits for the next call, with signals let in.
    fn wait(self) {
        loop {
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            if exposed(|| poll(&mut fds, PollTimeout::NONE)) != Err(Errno::EINTR) {
                return;
            }
        }
    }
}

impl Read for Control {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(unistd::read(self.0, buffer)?)
    }
}

impl Write for Control {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(unistd::write(self.0, buffer)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The life of an actor; its session is at the other end of standard input.
pub(crate) fn run() -> ! {
    // Nobody is left to collect what an actor without a session does.
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
    sys::close_to_signals();
    for signal in [libc::SIGBUS, libc::SIGSEGV] {
        // Without it the signal ends the actor, which is a result as well.
        let _ = sys::guard(signal);
    }
    let mut control = Control::new();
    // What is the same for every part is done before there is one: most actors are started ahead.
    verbs::look_around();
    say(control, &Answer::about(SPARE_TAG, Outcome::Returned(0)));
    control.wait();
    let Ok(Call::Play(part)) = read_frame::<Call>(&mut Patient(&mut control)) else {
        sys::exit_now(EXIT_NO_SESSION)
    };
    let actor: &'static Actor = Box::leak(Box::new(Actor::new(part)));
    actor.show_name();
    sys::share(actor);
    let outcome = match actor.get_ready() {
        Ok(()) => Outcome::Returned(0),
        Err(why) => Outcome::NotIssued { why },
    };
    actor.say(&Answer::about("", outcome));
    actor.play(control)
}

fn say(mut control: Control, answer: &Answer) {
    if write_frame(&mut control, answer).is_err() {
        sys::exit_now(EXIT_NO_SESSION);
    }
}

impl Actor {
    /// Somebody of this part who holds nothing yet.
    pub(crate) fn new(part: Part) -> Self {
        Self {
            name: RefCell::new(part.name.clone()),
            part,
            things: RefCell::default(),
            device: RefCell::default(),
            pairs: RefCell::default(),
            gup: RefCell::default(),
            links: RefCell::default(),
            handlers: Handlers::default(),
        }
    }

    /// The kernel's splats name the task: lets them name the actor.
    pub(crate) fn show_name(&self) {
        if let Ok(name) = CString::new(self.name.borrow().as_str()) {
            let _ = nix::sys::prctl::set_name(&name);
        }
    }

    fn get_ready(&self) -> Result<(), String> {
        if self.part.setup.rdma {
            let link = self.part.rdma.as_ref().ok_or("this machine has no RDMA device that is ready")?;
            let device = &link.device;
            *self.device.borrow_mut() =
                Some(Device::open(device).map_err(|errno| format!("opening {device}: {errno}"))?);
        }
        self.handlers.install(&self.part.setup)
    }

    /// Takes calls and answers them until the session goes away.
    pub(crate) fn play(&'static self, mut control: Control) -> ! {
        let mut gate = None;
        loop {
            control.wait();
            let Ok(call) = read_frame::<Call>(&mut Patient(&mut control)) else {
                sys::exit_now(EXIT_NO_SESSION)
            };
            let answer = match call {
                Call::Gate => {
                    gate = sys::receive_fd(control.0.as_fd()).ok();
                    None
                }
                Call::Thread { tag, name } => Some(Self::divide(tag, name, control)),
                call => {
                    if let Some(gate) = gate.take() {
                        say(control, &Answer::about(GATE_TAG, Outcome::Returned(0)));
                        // Readable when the other end is closed.
                        Number::of(gate.as_raw_fd()).into_iter().for_each(|gate| Control(gate).wait());
                    }
                    self.answer(call)
                }
            };
            if let Some(answer) = answer {
                say(control, &answer);
            }
        }
    }

    /// A second thread plays `name`, on a stream of its own.
    fn divide(tag: String, name: String, control: Control) -> Answer {
        let outcome = match sys::receive_fd(control.0.as_fd()) {
            Ok(stream) => {
                let control = Control(stream.into());
                let life = move |actor: &'static Self| {
                    say(control, &Answer::about("", Outcome::Returned(unistd::gettid().as_raw().into())));
                    actor.play(control)
                };
                match sys::play_by_thread(name, life) {
                    Ok(()) => Outcome::Returned(0),
                    Err(error) => Outcome::NotIssued { why: format!("a thread: {error}") },
                }
            }
            Err(errno) => Outcome::Errno(errno as i32),
        };
        Answer::about(&tag, outcome)
    }

    /// Tells the session something.
    pub(crate) fn say(&self, answer: &Answer) {
        say(Control::new(), answer);
    }

    /// Does what a call asks for; the answer, unless somebody else gives it.
    pub(crate) fn answer(&self, call: Call) -> Option<Answer> {
        let at_ms = now_ms();
        let (tag, result) = match call {
            Call::Play(_) => (String::new(), Err(not_issued("this actor already plays"))),
            Call::Do { tag, op, aid } => {
                let result = self.issue(op, &aid, &tag);
                (tag, result)
            }
            Call::Link { tag, peer } => (tag, ops::passing::take_link(self, peer)),
            Call::Aid { tag, step, aid } => {
                self.handlers.take_aid(step, aid);
                (tag, Ok(Done::default()))
            }
            Call::Stress { tag, choices, seed, for_ms } => {
                let tallies = crate::stress::run(self, &choices, seed, for_ms);
                let more = More::Tallies(tallies);
                return Some(Answer { outcome: Outcome::Returned(0), more, ..self.over(tag, at_ms) });
            }
            Call::Repeat { tag, body, times } => {
                let (outcome, more) = crate::repeat::run(self, &body, times);
                return Some(Answer { outcome, more, ..self.over(tag, at_ms) });
            }
            // Read and answered in `play`: no handler has one.
            Call::Gate | Call::Thread { .. } => return None,
            Call::Survey { tag, what } => {
                let (outcome, found) = survey(what);
                return Some(Answer { outcome, more: More::Found(found), ..self.over(tag, at_ms) });
            }
            Call::MakePair { tag, peer } => (tag, ops::rdma::make_pair(self, peer)),
            Call::JoinPair { tag, peer, end } => (tag, ops::rdma::join_pair(self, &peer, end)),
        };
        let took_ms = now_ms() - at_ms;
        let (outcome, more) = match result {
            Ok(done) if done.quiet => return None,
            Ok(done) => {
                self.keep(&tag, done.thing);
                (done.outcome.unwrap_or(Outcome::Returned(done.value)), done.more)
            }
            Err(Stop(outcome)) => (outcome, More::Nothing),
        };
        Some(Answer { tag, outcome, at_ms, took_ms, more })
    }

    /// An answer to what began at `at_ms`.
    fn over(&self, tag: String, at_ms: u64) -> Answer {
        Answer { at_ms, took_ms: now_ms() - at_ms, ..Answer::about(&tag, Outcome::Returned(0)) }
    }

    /// Does an operation; what it makes is for the caller to keep.
    pub(crate) fn issue(&self, op: Op, aid: &Aid, tag: &str) -> Result<Done, Stop> {
        use ops::{gup, leases, look, memory, passing, pipes, process, program, raw, rdma, uring, violate};
        match op {
            Op::Memfd(op) => memory::memfd(&op),
            Op::Mmap(op) => memory::mmap(self, &op),
            Op::Munmap(op) => memory::munmap(self, &op),
            Op::Mprotect(op) => memory::mprotect(self, &op),
            Op::Madvise(op) => memory::madvise(self, &op),
            Op::Load(op) => memory::load(self, &op),
            Op::Store(op) => memory::store(self, &op),
            Op::SetLease(op) => leases::set_lease(self, &op),
            Op::GetLease(op) => leases::get_lease(self, &op),
            Op::SetOwn(op) => leases::set_own(self, &op, aid),
            Op::SetOwnEx(op) => leases::set_own_ex(self, &op, aid),
            Op::GetOwn(op) => leases::get_own(self, &op),
            Op::SetSig(op) => leases::set_sig(self, &op),
            Op::GetSig(op) => leases::get_sig(self, &op),
            Op::RegMr(op) => rdma::reg_mr(self, &op),
            Op::DeregMr(op) => rdma::dereg_mr(self, &op),
            Op::RdmaWrite(op) => rdma::write(self, aid, &op),
            Op::RdmaRead(op) => rdma::read(self, aid, &op),
            Op::RdmaSend(op) => rdma::send(self, &op),
            Op::RdmaReceive(op) => rdma::receive(self, &op),
            Op::AsyncEvent(_) => rdma::async_event(self),
            Op::UverbsFd(_) => rdma::uverbs_fd(self),
            Op::RdmaClose(_) => rdma::close(self),
            Op::RdmaOpen(_) => rdma::open(self),
            Op::LinkDelete(_) => rdma::link_delete(self),
            Op::LinkAdd(_) => rdma::link_add(self),
            Op::GupPin(op) => gup::pin(self, &op),
            Op::GupRead(op) => gup::read(self, &op),
            Op::GupUnpin(_) => gup::unpin(self),
            Op::Pipe(_) => pipes::pipe(),
            Op::Vmsplice(op) => pipes::vmsplice(self, &op),
            Op::ClosePipe(op) => pipes::close(self, &op),
            Op::Uring(_) => uring::setup(),
            Op::UringRegister(op) => uring::register(self, &op),
            Op::UringUnregister(op) => uring::unregister(self, &op),
            Op::SendFd(op) => passing::send_fd(self, &op),
            Op::ReceiveFd(op) => passing::receive_fd(self, &op),
            Op::Kill(op) => process::kill(aid, &op),
            Op::Exit(op) => process::exit(&op),
            Op::SetGroup(op) => process::set_group(&op, aid),
            Op::Fork(op) => process::fork(self, &op, aid),
            Op::Execve(_) => process::execve(self, tag),
            Op::Setuid(op) => process::setuid(&op),
            Op::DropCaps(op) => process::drop_caps(&op),
            Op::Rlimit(op) => process::rlimit(&op),
            Op::Program(op) => program::program(self, &op, tag),
            Op::Violate(op) => violate::violate(self, op.what),
            Op::Connect(_) | Op::Received(_) | Op::Wait(_) => {
                Err(not_issued("the session does that, not the actor"))
            }
            Op::Locks(op) => look::locks(self, &op),
            Op::Fds(_) => look::fds(aid),
            Op::Maps(_) => look::of_process(aid, "maps"),
            Op::FilePins(_) => look::of_process(aid, "file_pins"),
            Op::Mrs(op) => look::mrs(self, aid, &op),
            Op::Vmstat(op) => look::vmstat(&op),
            Op::ReadFile(op) => look::read_file(&op),
            Op::Dmesg(_) => look::dmesg(aid),
            Op::Command(op) => look::command(&op),
            Op::Fcntl(op) => raw::fcntl(self, &op),
            Op::Ioctl(op) => raw::ioctl(self, &op),
            Op::Syscall(op) => raw::syscall(self, &op),
            op => self.issue_on_files(op),
        }
    }

    fn issue_on_files(&self, op: Op) -> Result<Done, Stop> {
        use ops::{blocks, files, memory, transfer};
        match op {
            Op::Open(op) => files::open(self, &op),
            Op::Close(op) => files::close(self, &op),
            Op::Dup(op) => files::dup(self, &op),
            Op::Dup2(op) => files::dup_onto(self, &op.fd, &op.onto, None),
            Op::Dup3(op) => files::dup_onto(self, &op.fd, &op.onto, Some(libc::O_CLOEXEC)),
            Op::Truncate(op) => files::truncate(self, &op),
            Op::Fallocate(op) => files::fallocate(self, &op),
            Op::Cut(op) => files::cut(self, op),
            Op::Size(op) => files::size(self, &op),
            Op::Compare(op) => match (&op.file, &op.map) {
                (Some(file), None) => files::compare(self, file, &op),
                (None, Some(map)) => memory::compare(self, map, &op),
                _ => Err(not_issued("compare wants either a file or a mapping")),
            },
            Op::Read(op) => transfer::read(self, &op),
            Op::Write(op) => transfer::write(self, &op),
            Op::Fsync(op) => transfer::fsync(self, &op.fd, false),
            Op::Fdatasync(op) => transfer::fsync(self, &op.fd, true),
            Op::Sync(_) => Ok(transfer::sync()),
            Op::Syncfs(op) => transfer::syncfs(self, &op),
            Op::Unlink(op) => transfer::unlink(self, &op),
            Op::Rename(op) => transfer::rename(self, &op),
            Op::Link(op) => transfer::link(self, &op),
            Op::Clone(op) => blocks::clone(self, &op),
            Op::Dedupe(op) => blocks::dedupe(self, &op),
            Op::ExchangeRange(op) => blocks::exchange_range(self, &op),
            Op::SwapExtents(op) => blocks::swap_extents(self, &op),
            Op::Fiemap(op) => blocks::fiemap(self, &op),
            Op::Statx(op) => blocks::statx(self, &op),
            Op::Fill(op) => blocks::fill(self, &op),
            Op::FillFree(op) => blocks::fill_free(self, &op),
            Op::Mount(op) => blocks::mount(self, &op),
            Op::Remount(op) => blocks::remount(self, &op),
            Op::Umount(op) => blocks::umount(self, &op),
            other => Err(not_issued(format!("nobody knows how to do {other:?}"))),
        }
    }

    /// The mapping that a handle names.
    pub(crate) fn map(&self, handle: &Handle) -> Result<Mapping, Stop> {
        match self.things.borrow().get(handle.id()) {
            Some(Thing::Map(map)) => Ok(*map),
            other => Err(wrong_thing(handle, other, "mapping")),
        }
    }

    /// The descriptor that a handle names.
    pub(crate) fn fd(&self, handle: &Handle) -> Result<Number, Stop> {
        match self.things.borrow().get(handle.id()) {
            Some(Thing::Fd(fd)) => Ok(*fd),
            other => Err(wrong_thing(handle, other, "descriptor")),
        }
    }

    /// Both ends of the pipe that a handle names.
    pub(crate) fn pipe(&self, handle: &Handle) -> Result<(Number, Number), Stop> {
        match self.things.borrow().get(handle.id()) {
            Some(Thing::Pipe(read, write)) => Ok((*read, *write)),
            other => Err(wrong_thing(handle, other, "pipe")),
        }
    }

    /// The RDMA device.
    pub(crate) fn device(&self) -> Result<Device, Stop> {
        let device = *self.device.borrow();
        device.ok_or_else(|| not_issued(format!("actor {} has no `rdma: true`", self.name.borrow())))
    }

    /// Remembers what an operation has made, if it has, under its step's id.
    pub(crate) fn keep(&self, step: &str, thing: Option<Thing>) {
        if let Some(thing) = thing {
            self.things.borrow_mut().insert(step.to_owned(), thing);
        }
    }

    /// Gives up a handle.
    pub(crate) fn forget(&self, handle: &Handle) {
        self.things.borrow_mut().remove(handle.id());
    }
}

/// Why a handle does not fit, for the step's fact.
pub(crate) fn wrong_thing(handle: &Handle, found: Option<&Thing>, want: &str) -> Stop {
    not_issued(match found {
        None => format!("${} is not there in this actor; a {want} was wanted", handle.id()),
        Some(Thing::Fd(_)) => format!("${} is a descriptor, not a {want}", handle.id()),
        Some(Thing::Map(_)) => format!("${} is a mapping, not a {want}", handle.id()),
        Some(Thing::Region(..)) => format!("${} is a memory region, not a {want}", handle.id()),
        Some(Thing::Pipe(..)) => format!("${} is a pipe, not a {want}", handle.id()),
    })
}
