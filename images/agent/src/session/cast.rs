// SPDX-License-Identifier: MIT OR Apache-2.0
//! The actors as processes: started (ahead, where possible), written to, listened to, reaped.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use holdfast_protocol::{Outcome, read_frame, write_frame};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::clock::now_ms;
use crate::progress::Limit;
use crate::signals;
use crate::sys::{self, Ended};
use crate::wire::{Answer, Call, Part, SPARE_TAG};

/// One actor as its session sees it.
pub(super) struct Player {
    /// The step it is in.
    pub(super) busy: Option<String>,
    /// How it ended.
    pub(super) end: Option<End>,
    process: Process,
    /// The thread that plays it, where that is not the first of its process.
    thread: Option<i32>,
    /// It was started before it had a part.
    pub(super) was_spare: bool,
    /// Its end of the stream is closed: only the process is left to wait for.
    hung_up: bool,
}

impl Player {
    /// Its process.
    pub(super) const fn pid(&self) -> i32 {
        self.process.pid
    }

    /// Its thread: the first of its process, unless it is another.
    pub(super) const fn tid(&self) -> i32 {
        match self.thread {
            Some(tid) => tid,
            None => self.process.pid,
        }
    }
}

/// A process in the role of an actor, whether it plays already or not.
struct Process {
    pid: i32,
    pidfd: OwnedFd,
    stream: File,
}

/// How an actor ended, and when.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) outcome: Outcome,
    /// Uptime, in milliseconds.
    pub(super) at_ms: u64,
}

/// What a wait for an actor came to.
#[derive(Debug)]
pub(super) enum Heard {
    /// It answered.
    Answer(Answer),
    /// It is gone; how it ended.
    Gone(End),
    /// Nothing yet.
    Silence,
}

/// All actors by name, and the ends of processes that were reaped.
#[derive(Default)]
pub(super) struct Cast {
    pub(super) players: BTreeMap<String, Player>,
    /// Processes that have no part yet: nobody's actor, and seen by no oracle.
    spares: Vec<Process>,
    ends: BTreeMap<i32, Outcome>,
}

impl Cast {
    /// Starts processes that wait for a part, so that a case need not, and waits until they do. What
    /// cannot be had ahead is started when it is wanted.
    pub(super) fn stock(&mut self, spares: usize, limit: &Limit) -> io::Result<()> {
        let started: Vec<Process> = (0..spares).map(|_| self.spawn()).collect::<io::Result<_>>()?;
        for mut spare in started {
            let ready = wait_readable(spare.stream.as_fd(), limit);
            // It says once that it waits, and is not heard again before it plays.
            if ready && read_frame::<Answer>(&mut spare.stream).is_ok_and(|answer| answer.tag == SPARE_TAG) {
                self.spares.push(spare);
            }
        }
        Ok(())
    }

    /// Gives a part to a spare process or, where none is left, to a new one. It answers when it is ready;
    /// see [`Cast::hear`].
    pub(super) fn start(&mut self, part: Part) -> Result<(), String> {
        let name = part.name.clone();
        let call = Call::Play(part);
        self.reap();
        let mut process = None;
        while let Some(mut spare) = self.spares.pop() {
            // One that died while it waited does not count.
            if !self.ends.contains_key(&spare.pid) && write_frame(&mut spare.stream, &call).is_ok() {
                process = Some(spare);
                break;
            }
        }
        let Some(process) = process else { return self.start_new(name, &call) };
        let player = Player { busy: None, end: None, process, thread: None, was_spare: true, hung_up: false };
        self.players.insert(name, player);
        Ok(())
    }

    fn start_new(&mut self, name: String, call: &Call) -> Result<(), String> {
        let mut process = self.spawn().map_err(|error| format!("starting actor {name}: {error}"))?;
        write_frame(&mut process.stream, call).map_err(|error| format!("actor {name}: {error}"))?;
        let player = Player { busy: None, end: None, process, thread: None, was_spare: false, hung_up: false };
        self.players.insert(name, player);
        Ok(())
    }

    fn spawn(&mut self) -> io::Result<Process> {
        let (ours, theirs) = UnixStream::pair()?;
        let child = Command::new(std::env::current_exe()?)
            .arg("actor")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        let pid = child.id().cast_signed();
        // A number that was used before.
        self.ends.remove(&pid);
        let pidfd = sys::pidfd_open(pid)?;
        Ok(Process { pid, pidfd, stream: File::from(OwnedFd::from(ours)) })
    }

    /// Sends a call. `false` when the actor is gone.
    pub(super) fn tell(&mut self, name: &str, call: &Call) -> bool {
        self.players.get_mut(name).is_some_and(|player| write_frame(&mut player.process.stream, call).is_ok())
    }

    /// Sends a descriptor behind a call that announced it. `false` when the actor is gone.
    pub(super) fn pass(&mut self, name: &str, fd: BorrowedFd<'_>) -> bool {
        let player = self.players.get(name);
        player.is_some_and(|player| sys::send_fd(player.process.stream.as_fd(), fd).is_ok())
    }

    /// Takes in an actor that another one has made by a fork.
    pub(super) fn adopt(&mut self, name: String, pid: i32, stream: UnixStream) -> io::Result<()> {
        // One that has ended already was reaped, or will be: its number is its own until then.
        let pidfd = match sys::pidfd_open(pid) {
            Ok(pidfd) => pidfd,
            Err(errno) if self.ends.contains_key(&pid) => {
                sys::pidfd_open(std::process::id().cast_signed()).map_err(|_| io::Error::from(errno))?
            }
            Err(errno) => return Err(errno.into()),
        };
        let end = self.ends.get(&pid).map(|outcome| End { outcome: outcome.clone(), at_ms: now_ms() });
        let process = Process { pid, pidfd, stream: File::from(OwnedFd::from(stream)) };
        self.players
            .insert(name, Player { busy: None, end, process, thread: None, was_spare: false, hung_up: false });
        Ok(())
    }

    /// Makes a second thread of an actor's process play another one. It says its number when it is ready.
    pub(super) fn divide(&mut self, name: &str, of: &str) -> io::Result<()> {
        let gone = || io::Error::other(format!("actor {of} cannot be reached"));
        let (ours, theirs) = UnixStream::pair()?;
        let call = Call::Thread { tag: SPARE_TAG.to_owned(), name: name.to_owned() };
        if !self.tell(of, &call) || !self.pass(of, theirs.as_fd()) {
            return Err(gone());
        }
        let process = &self.players.get(of).ok_or_else(gone)?.process;
        let process = Process {
            pid: process.pid,
            pidfd: process.pidfd.try_clone()?,
            stream: File::from(OwnedFd::from(ours)),
        };
        let player = Player { busy: None, end: None, process, thread: None, was_spare: false, hung_up: false };
        self.players.insert(name.to_owned(), player);
        Ok(())
    }

    /// What a new thread has said of itself.
    pub(super) fn is_thread(&mut self, name: &str, tid: i32) {
        if let Some(player) = self.players.get_mut(name) {
            player.thread = Some(tid);
        }
    }

    /// Waits for an actor's next answer or its end.
    pub(super) fn hear(&mut self, name: &str, limit: &Limit) -> Heard {
        self.reap();
        loop {
            let Some(player) = self.players.get(name) else {
                let outcome = Outcome::NotIssued { why: format!("there is no actor {name}") };
                return Heard::Gone(End { outcome, at_ms: now_ms() });
            };
            let had_ended = player.end.is_some();
            // Nothing more can come than is there.
            let left = if had_ended { Duration::ZERO } else { limit.left() };
            let stream = (!player.hung_up).then(|| player.process.stream.as_fd());
            let ready = self.poll(stream, Some(left));
            if ready.ended {
                self.reap();
            }
            let Some(player) = self.players.get_mut(name) else { continue };
            if ready.readable {
                match read_frame::<Answer>(&mut player.process.stream) {
                    Ok(answer) if answer.tag == SPARE_TAG => {}
                    Ok(answer) => return Heard::Answer(answer),
                    Err(_) => player.hung_up = true,
                }
                continue;
            }
            match &player.end {
                // An answer that was sent before the end comes first: it was looked for after it.
                Some(end) if had_ended => return Heard::Gone(end.clone()),
                None if left.is_zero() => return Heard::Silence,
                _ => {}
            }
        }
    }

    /// Waits until there is something to read, noting the ends of actors meanwhile.
    pub(super) fn until_readable(&mut self, fd: BorrowedFd<'_>) {
        loop {
            let ready = self.poll(Some(fd), None);
            if ready.ended {
                self.reap();
            }
            if ready.readable {
                return;
            }
        }
    }

    /// Waits until every actor has ended, or the time is over.
    pub(super) fn until_ended(&mut self, limit: &Limit) {
        loop {
            self.reap();
            if self.players.values().all(|player| player.end.is_some()) || limit.is_over() {
                return;
            }
            self.poll(None, Some(limit.left()));
        }
    }

    /// Waits until there is something to read (the end of a stream included), an actor has ended or the
    /// time is over.
    fn poll(&self, fd: Option<BorrowedFd<'_>>, wait: Option<Duration>) -> Ready {
        // A process that was reaped keeps its pidfd readable: do not wait for it again.
        let alive = self.players.values().filter(|player| player.end.is_none());
        let watched = fd.into_iter().chain(alive.map(|player| player.process.pidfd.as_fd()));
        let mut fds: Vec<PollFd<'_>> = watched.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        if poll(&mut fds, timeout(wait)).is_err() {
            return Ready::default();
        }
        let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(false));
        let readable = fd.is_some() && ready.next().unwrap_or(false);
        Ready { readable, ended: ready.any(|ready| ready) }
    }

    /// Collects ended processes: actors, and orphans that came to PID 1.
    pub(super) fn reap(&mut self) {
        let mut any = false;
        while let Some((pid, end)) = sys::reap() {
            let outcome = match end {
                Ended::Exited(code) => Outcome::Exited(code),
                Ended::Killed(signal) => Outcome::Killed(signals::name(signal)),
            };
            self.ends.insert(pid, outcome);
            any = true;
        }
        if !any {
            return;
        }
        for player in self.players.values_mut().filter(|player| player.end.is_none()) {
            let outcome = self.ends.get(&player.process.pid).cloned();
            player.end = outcome.map(|outcome| End { outcome, at_ms: now_ms() });
        }
    }
}

/// What a poll found.
#[derive(Clone, Copy, Debug, Default)]
struct Ready {
    readable: bool,
    /// An actor has ended and can be reaped.
    ended: bool,
}

/// Waits until there is something to read; `false` when the time is over before.
pub(super) fn wait_readable(fd: BorrowedFd<'_>, limit: &Limit) -> bool {
    loop {
        let left = limit.left();
        let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
        if poll(&mut fds, timeout(Some(left))).is_ok_and(|ready| ready > 0) {
            return true;
        }
        if left.is_zero() {
            return false;
        }
    }
}

/// Rounded up: who is woken early would only have to wait again.
fn timeout(wait: Option<Duration>) -> PollTimeout {
    let Some(wait) = wait else { return PollTimeout::NONE };
    PollTimeout::try_from(wait.as_micros().div_ceil(1000).min(60_000)).unwrap_or(PollTimeout::MAX)
}
