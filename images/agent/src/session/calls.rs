// SPDX-License-Identifier: MIT OR Apache-2.0
//! Issuing steps and waiting for them.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use holdfast_protocol::op::{OwnerKind, RdmaRead, RdmaWrite, ReceiveFd, SendFd, Violate};
use holdfast_protocol::{Fact, Op, Outcome, Place, ProgramEnd, Violation};

use super::cast::{End, Heard};
use super::together::Gate;
use super::{Pending, Session};
use crate::clock::now_ms;
use crate::progress::{Limit, Watch};
use crate::wire::{Aid, Answer, Call, More, RemoteRegion, SIGNAL_TAG};
use crate::{procfs, sys};

/// How long a fork's child may take to be ready; a debug kernel under emulation needs seconds.
const CHILD_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a program that was killed may take to be gone, and the actor that ran it to say so.
const KILLED_TIMEOUT: Duration = Duration::from_secs(5);

/// How long is waited before what it runs is killed again.
const KILL_AGAIN: Duration = Duration::from_millis(100);

impl Session {
    /// Issues a step: afterwards it is pending, or settled: because it could not be issued, or because it is
    /// one that the session does itself, for which it takes as long as `wait_ms` says. With a gate the actor
    /// begins when that opens.
    pub(super) fn issue(
        &mut self,
        step: &str,
        actor: &str,
        op: Op,
        wait_ms: Option<u64>,
        gate: Option<&mut Gate>,
    ) -> Result<(), String> {
        if self.pending.contains_key(step) {
            return Err(format!("step {step} is still on its way"));
        }
        self.settled.remove(step);
        if let Op::Received(op) = &op {
            self.receive(step, actor, &op.handler, wait_ms);
            return Ok(());
        }
        if let Some(why) = self.absent(actor) {
            self.settle_now(step, actor, Outcome::NotIssued { why });
            return Ok(());
        }
        match op {
            Op::Connect(op) => self.connect(step, actor, &op.to),
            Op::Wait(op) => self.wait_for_end(step, actor, &op.actor, wait_ms),
            Op::Violate(Violate { what: what @ (Violation::CorruptExt4 | Violation::CorruptXfs) }) => {
                self.corrupt.push(if what == Violation::CorruptExt4 { Place::Ext4 } else { Place::Xfs });
                self.settle_now(step, actor, Outcome::Returned(0));
            }
            op => {
                if let Err(why) = self.hand_over(step, actor, op, gate) {
                    self.settle_now(step, actor, Outcome::NotIssued { why });
                }
            }
        }
        Ok(())
    }

    /// Tells an actor to do an operation.
    fn hand_over(&mut self, step: &str, actor: &str, op: Op, gate: Option<&mut Gate>) -> Result<(), String> {
        self.link_for(actor, &op)?;
        let aid = self.aid(&op)?;
        let cradle = match &op {
            Op::Fork(op) => Some((op.into.clone(), UnixStream::pair().map_err(|error| error.to_string())?)),
            _ => None,
        };
        let call = Call::Do { tag: step.to_owned(), op: op.clone(), aid };
        // Nothing fails any more but the actor itself: whoever goes to the gate gets a call.
        if let Some(gate) = gate {
            self.send_to(gate, actor)?;
        }
        // Before the actor hears of it: no time of the step's may go unwatched.
        let watch = self.progress.watch();
        let mut told = self.cast.tell(actor, &call);
        if let Some((child, (ours, theirs))) = cradle {
            told = told && self.cast.pass(actor, theirs.as_fd());
            self.cradles.insert(child, ours);
        }
        if !told {
            return Err(format!("actor {actor} cannot be reached"));
        }
        self.begin(step, actor, op, watch);
        Ok(())
    }

    /// Sees to it that a descriptor can be passed, where that is what an operation does.
    pub(super) fn link_for(&mut self, actor: &str, op: &Op) -> Result<(), String> {
        match op {
            Op::SendFd(SendFd { to: peer, .. }) | Op::ReceiveFd(ReceiveFd { from: peer }) => {
                self.link(actor, peer)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn begin(&mut self, step: &str, actor: &str, op: Op, watch: Watch) {
        self.ran_programs |= matches!(op, Op::Program(_) | Op::Command(_));
        let pending = Pending { actor: actor.to_owned(), at_ms: now_ms(), op, _watch: watch };
        self.pending.insert(step.to_owned(), pending);
        if let Some(player) = self.cast.players.get_mut(actor) {
            player.busy = Some(step.to_owned());
        }
    }

    /// Why an actor cannot take a step now.
    pub(super) fn absent(&mut self, actor: &str) -> Option<String> {
        // A step that has returned since leaves its actor free, awaited or not.
        if let Some(step) = self.cast.players.get(actor).and_then(|player| player.busy.clone()) {
            self.listen(&step, actor, &self.progress.within(Duration::ZERO));
        }
        let Some(player) = self.cast.players.get(actor) else {
            return Some(format!("there is no actor {actor}"));
        };
        match (player.end.as_ref().map(|end| &end.outcome), &player.busy) {
            (Some(Outcome::Killed(signal)), _) => Some(format!("actor {actor} was killed by {signal}")),
            (Some(_), _) => Some(format!("actor {actor} has exited")),
            (None, Some(step)) => Some(format!("actor {actor} is still in step {step}")),
            (None, None) => None,
        }
    }

    pub(super) fn aid(&self, op: &Op) -> Result<Aid, String> {
        let mut aid = Aid::default();
        if let Some(actor) = named_actor(op) {
            let player = self.cast.players.get(actor).ok_or_else(|| format!("there is no actor {actor}"))?;
            if player.end.is_some() {
                return Err(format!("actor {actor} is gone"));
            }
            let thread = matches!(op, Op::SetOwnEx(op) if op.kind == OwnerKind::F_OWNER_TID);
            aid.pid = Some(if thread { player.tid() } else { player.pid() });
        }
        match op {
            Op::Dmesg(_) => aid.mark = self.before.as_ref().map(|before| before.mark.clone()),
            Op::Fork(op) => {
                if self.cast.players.contains_key(&op.into) {
                    return Err(format!("actor {} is there already", op.into));
                }
                let setup = self.unborn.get(&op.into);
                aid.child = Some(setup.ok_or_else(|| format!("no actor {} is to be forked", op.into))?.clone());
            }
            Op::RdmaWrite(RdmaWrite { mr, .. }) | Op::RdmaRead(RdmaRead { mr, .. }) => {
                let region = self.regions.get(mr.id());
                aid.region =
                    Some(region.ok_or_else(|| format!("${} is not a memory region", mr.id()))?.clone());
            }
            _ => {}
        }
        Ok(aid)
    }

    /// Waits for a step; its fact says `Blocked` when it has not returned by then.
    pub(super) fn wait(&mut self, step: &str, wait_ms: u64) -> Result<Fact, String> {
        let begin_ms = now_ms();
        let of_handler = self.handled.get(step).map(|(actor, _)| actor.clone());
        let (actor, at_ms) = match (self.pending.get(step), of_handler) {
            (Some(pending), _) => (pending.actor.clone(), pending.at_ms),
            (None, Some(actor)) => (actor, begin_ms),
            (None, None) => {
                let fact = self.settled.get(step).cloned();
                return fact.ok_or_else(|| format!("step {step} was never issued"));
            }
        };
        self.listen(step, &actor, &self.progress.within(Duration::from_millis(wait_ms)));
        if let Some(fact) = self.settled.get(step) {
            return Ok(fact.clone());
        }
        let outcome = self.blocked(&actor);
        let took_ms = now_ms().saturating_sub(at_ms);
        Ok(self.fact(step, &actor, outcome, at_ms, took_ms))
    }

    /// Like [`wait`](Self::wait), but a program that has not ended by then is killed: what it printed is told.
    pub(super) fn wait_or_end(&mut self, step: &str, wait_ms: u64) -> Result<Fact, String> {
        let fact = self.wait(step, wait_ms)?;
        let Some(Pending { op: Op::Program(_), actor, .. }) = self.pending.get(step) else { return Ok(fact) };
        let actor = actor.clone();
        let end = self.end_programs(step, &actor);
        // One that does not die blocks like any other call.
        let Some(settled) = self.settled.get_mut(step) else { return Ok(fact) };
        if let (Outcome::Ran(ran), Some(end)) = (&mut settled.outcome, end) {
            ran.end = end;
        }
        Ok(settled.clone())
    }

    /// Kills what an actor runs, and again what comes after that, until it says what became of it. Where it was
    /// first found.
    fn end_programs(&mut self, step: &str, actor: &str) -> Option<ProgramEnd> {
        let mut end = None;
        let limit = self.progress.within(KILLED_TIMEOUT);
        while !self.settled.contains_key(step) && !limit.is_over() {
            let pid = self.cast.players.get(actor).map_or(0, super::cast::Player::pid);
            for (program, _) in procfs::children(pid) {
                let procfs::Whereabouts { state, wchan, stack } = procfs::whereabouts(program);
                end.get_or_insert(ProgramEnd::Overdue { state, wchan, stack });
                // It is the first of its group.
                let _ = sys::kill(-program, libc::SIGKILL);
                let _ = sys::kill(program, libc::SIGKILL);
            }
            self.listen(step, actor, &self.progress.within(KILL_AGAIN));
        }
        end
    }

    /// Where an actor is that has not come back.
    pub(super) fn blocked(&self, actor: &str) -> Outcome {
        let pid = self.cast.players.get(actor).map_or(0, super::cast::Player::tid);
        let procfs::Whereabouts { state, wchan, stack } = procfs::whereabouts(pid);
        Outcome::Blocked { state, wchan, stack }
    }

    /// Listens to an actor until its step is settled or the time is over.
    fn listen(&mut self, step: &str, actor: &str, limit: &Limit) {
        while !self.settled.contains_key(step) {
            match self.cast.hear(actor, limit) {
                Heard::Answer(answer) => self.sort(actor, answer),
                Heard::Gone(End { outcome, at_ms: end_ms }) => {
                    let at_ms = self.pending.get(step).map_or(end_ms, |pending| pending.at_ms);
                    let took_ms = end_ms.saturating_sub(at_ms);
                    let fact = self.fact(step, actor, outcome, at_ms, took_ms);
                    self.settle(step, fact);
                    // What it had open and mapped went with it.
                    self.look_everywhere(step, true);
                }
                Heard::Silence => return,
            }
        }
    }

    /// Asks an actor that is idle; other answers that come meanwhile go where they belong.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    pub(super) fn ask(
        &mut self,
        actor: &str,
        call: &Call,
        tag: &str,
        timeout: Duration,
    ) -> Result<Answer, String> {
        if !self.cast.tell(actor, call) {
            return Err(format!("actor {actor} cannot be reached"));
        }
        let limit = self.progress.within(timeout);
        loop {
            match self.cast.hear(actor, &limit) {
                Heard::Answer(answer) if answer.tag == tag => return Ok(answer),
                Heard::Answer(answer) => self.sort(actor, answer),
                Heard::Gone(_) => return Err(format!("actor {actor} ended meanwhile")),
                Heard::Silence => return Err(format!("actor {actor} did not answer within {timeout:?}")),
            }
        }
    }

    /// Puts an answer where it belongs: a step's, a handler's, or that of a call that was given up.
    pub(super) fn sort(&mut self, actor: &str, answer: Answer) {
        if let Some(handler) = answer.tag.strip_prefix(SIGNAL_TAG) {
            if let Outcome::Signalled(signal) = answer.outcome {
                let key = (actor.to_owned(), handler.to_owned());
                self.signals.entry(key).or_default().push_back((signal, answer.at_ms));
            }
        } else if self.pending.contains_key(&answer.tag) {
            if let Some(player) = self.cast.players.get_mut(actor) {
                player.busy = None;
            }
            self.take(actor, answer);
        } else if self.handled.contains_key(&answer.tag) {
            self.take(actor, answer);
        } else if let Some(player) =
            self.cast.players.get_mut(actor).filter(|player| player.busy.as_deref() == Some(&answer.tag))
        {
            // It came back from a stress after all.
            player.busy = None;
            self.unfinished.retain(|(other, _)| other != actor);
        }
    }

    fn take(&mut self, actor: &str, answer: Answer) {
        let Answer { tag: step, mut outcome, at_ms, took_ms, more } = answer;
        match more {
            More::Region(region) => {
                // Peers are connected with the actor, whoever else plays in its process.
                self.regions.insert(step.clone(), RemoteRegion { owner: actor.to_owned(), ..region });
            }
            More::Keeper(pid) => self.keepers.push(pid),
            More::Child(name, pid) => {
                if let Err(why) = self.greet(&name, pid) {
                    outcome = Outcome::NotIssued { why };
                }
            }
            More::Nothing | More::Pair(_) | More::Found(_) | More::Tallies(_) | More::Repeated { .. } => {}
        }
        let fact = self.fact(&step, actor, outcome, at_ms, took_ms);
        let issued = self.pending.get(&step).map(|pending| pending.op.clone());
        let op = issued.or_else(|| self.handled.get(&step).map(|(_, op)| op.clone()));
        let succeeded = matches!(fact.outcome, Outcome::Returned(_) | Outcome::Ran(_));
        self.settle(&step, fact);
        if let Some(op) = op.filter(|_| succeeded) {
            self.after_success(&step, actor, &op);
        }
    }

    /// Takes in the child of a fork and waits until it is ready.
    fn greet(&mut self, name: &str, pid: i32) -> Result<(), String> {
        let stream = self.cradles.remove(name).ok_or_else(|| format!("nobody was to become {name}"))?;
        self.cast.adopt(name.to_owned(), pid, stream).map_err(|error| format!("child {name}: {error}"))?;
        match self.cast.hear(name, &self.progress.within(CHILD_TIMEOUT)) {
            Heard::Answer(Answer { outcome: Outcome::NotIssued { why }, .. }) => Err(why),
            Heard::Answer(_) | Heard::Gone(_) => Ok(()),
            Heard::Silence => Err(format!("child {name} is not ready after {CHILD_TIMEOUT:?}")),
        }
    }

    /// A fact about a stretch of time that was watched.
    pub(super) fn fact(&self, step: &str, actor: &str, outcome: Outcome, at_ms: u64, took_ms: u64) -> Fact {
        let stalled_ms = self.progress.stalled_ms(at_ms, took_ms);
        Fact { step: step.to_owned(), actor: actor.to_owned(), outcome, at_ms, took_ms, stalled_ms }
    }
}

/// The other actor, whose process an operation is about.
fn named_actor(op: &Op) -> Option<&str> {
    match op {
        Op::Kill(op) => Some(&op.actor),
        Op::SetOwn(op) => op.actor.as_deref().or(op.group.as_deref()),
        Op::SetOwnEx(op) => Some(&op.actor),
        Op::SetGroup(op) => op.join.as_deref(),
        Op::Fds(op) => Some(&op.of),
        Op::Maps(op) => Some(&op.of),
        Op::FilePins(op) => Some(&op.of),
        Op::Mrs(op) => op.of.as_deref(),
        _ => None,
    }
}
