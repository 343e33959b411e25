// SPDX-License-Identifier: MIT OR Apache-2.0
//! The actors as processes: started, written to, listened to, reaped.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdfast_protocol::{Outcome, read_frame, write_frame};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::clock::now_ms;
use crate::signals;
use crate::sys::{self, Ended};
use crate::wire::{Answer, Call, Part};

/// One actor as its session sees it.
pub(super) struct Player {
    /// Its process.
    pub(super) pid: i32,
    /// The step it is in.
    pub(super) busy: Option<String>,
    /// How it ended.
    pub(super) end: Option<End>,
    stream: File,
    pidfd: OwnedFd,
    /// Uptime at its end, in milliseconds; 0 before.
    ended_ms: Arc<AtomicU64>,
    /// Its end of the stream is closed: only the process is left to wait for.
    hung_up: bool,
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
    ends: HashMap<i32, Outcome>,
}

impl Cast {
    /// Starts an actor and tells it its part. It answers when it is ready; see [`Cast::hear`].
    pub(super) fn start(&mut self, part: Part) -> Result<(), String> {
        let trouble = |error: std::io::Error| format!("starting actor {}: {error}", part.name);
        let (ours, theirs) = UnixStream::pair().map_err(trouble)?;
        let program = std::env::current_exe().map_err(trouble)?;
        let child = Command::new(program)
            .args(["actor", &part.name])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .map_err(trouble)?;
        let pid = child.id().cast_signed();
        // A number that was used before.
        self.ends.remove(&pid);
        let pidfd = sys::pidfd_open(pid).map_err(|errno| trouble(errno.into()))?;
        let ended_ms = note_end(pidfd.try_clone().map_err(trouble)?).map_err(trouble)?;
        let mut stream = File::from(OwnedFd::from(ours));
        let name = part.name.clone();
        write_frame(&mut stream, &Call::Play(part)).map_err(|error| format!("actor {name}: {error}"))?;
        let player = Player { pid, busy: None, end: None, stream, pidfd, ended_ms, hung_up: false };
        self.players.insert(name, player);
        Ok(())
    }

    /// Sends a call. `false` when the actor is gone.
    pub(super) fn tell(&mut self, name: &str, call: &Call) -> bool {
        self.players.get_mut(name).is_some_and(|player| write_frame(&mut player.stream, call).is_ok())
    }

    /// Waits for an actor's next answer or its end.
    pub(super) fn hear(&mut self, name: &str, wait: Duration) -> Heard {
        let until = Instant::now() + wait;
        loop {
            self.reap();
            let Some(player) = self.players.get_mut(name) else {
                let outcome = Outcome::NotIssued { why: format!("there is no actor {name}") };
                return Heard::Gone(End { outcome, at_ms: now_ms() });
            };
            let left = until.saturating_duration_since(Instant::now());
            // An answer that was sent before the end comes first.
            if player.readable(left) {
                match read_frame::<Answer>(&mut player.stream) {
                    Ok(answer) => return Heard::Answer(answer),
                    Err(_) => player.hung_up = true,
                }
                continue;
            }
            if let Some(end) = &player.end {
                return Heard::Gone(end.clone());
            }
            if left.is_zero() {
                return Heard::Silence;
            }
        }
    }

    /// Collects ended processes: actors, and orphans that came to PID 1.
    pub(super) fn reap(&mut self) {
        while let Some((pid, end)) = sys::reap() {
            let outcome = match end {
                Ended::Exited(code) => Outcome::Exited(code),
                Ended::Killed(signal) => Outcome::Killed(signals::name(signal)),
            };
            self.ends.insert(pid, outcome);
        }
        for player in self.players.values_mut().filter(|player| player.end.is_none()) {
            player.end = self.ends.get(&player.pid).map(|outcome| {
                let noted_ms = player.ended_ms.load(Ordering::Acquire);
                let at_ms = if noted_ms == 0 { now_ms() } else { noted_ms };
                End { outcome: outcome.clone(), at_ms }
            });
        }
    }

    /// How a process that is no actor ended; tells once.
    pub(super) fn end_of(&mut self, pid: i32) -> Option<Outcome> {
        self.reap();
        self.ends.remove(&pid)
    }
}

/// Notes when a process ends, whatever the session is doing then: between two orders it sleeps in
/// a read of its port.
fn note_end(pidfd: OwnedFd) -> std::io::Result<Arc<AtomicU64>> {
    let ended_ms = Arc::new(AtomicU64::new(0));
    let note = Arc::clone(&ended_ms);
    std::thread::Builder::new().name("note-end".to_owned()).spawn(move || {
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        while poll(&mut fds, PollTimeout::NONE) == Err(Errno::EINTR) {}
        note.store(now_ms(), Ordering::Release);
    })?;
    Ok(ended_ms)
}

impl Player {
    /// Waits until there is something to read, the process has ended, or the time is over. `true`
    /// when there is something to read (the end of the stream included).
    fn readable(&self, wait: Duration) -> bool {
        let flags = PollFlags::POLLIN;
        let mut fds = vec![PollFd::new(self.pidfd.as_fd(), flags)];
        if !self.hung_up {
            fds.push(PollFd::new(self.stream.as_fd(), flags));
        }
        // A process that was reaped keeps its pidfd readable: do not wait for it again.
        let wait = if self.end.is_some() { Duration::ZERO } else { wait };
        let timeout = PollTimeout::try_from(wait.as_millis().min(60_000) as i32 + i32::from(!wait.is_zero()))
            .unwrap_or(PollTimeout::MAX);
        if poll(&mut fds, timeout).is_err() {
            return false;
        }
        fds.get(1).is_some_and(|fd| fd.any().unwrap_or(false))
    }
}
