// SPDX-License-Identifier: MIT OR Apache-2.0
//! Issuing steps and waiting for them.

use std::time::Duration;

use holdfast_protocol::{Fact, Op, Outcome, Place, Violation};

use super::cast::{End, Heard};
use super::{Pending, Session};
use crate::clock::now_ms;
use crate::procfs;
use crate::progress::{Limit, Watch};
use crate::wire::{Aid, Answer, Call, More};

impl Session {
    /// Issues a step: afterwards it is pending, or settled because it could not be issued.
    pub(super) fn issue(&mut self, step: &str, actor: &str, op: Op) -> Result<(), String> {
        if self.pending.contains_key(step) {
            return Err(format!("step {step} is still on its way"));
        }
        self.settled.remove(step);
        if let Some(why) = self.absent(actor) {
            self.settle_now(step, actor, Outcome::NotIssued { why });
            return Ok(());
        }
        if let Op::Connect { to } = op {
            self.connect(step, actor, &to);
            return Ok(());
        }
        if let Op::Violate { what: what @ (Violation::CorruptExt4 | Violation::CorruptXfs) } = op {
            self.corrupt.push(if what == Violation::CorruptExt4 { Place::Ext4 } else { Place::Xfs });
            self.settle_now(step, actor, Outcome::Returned(0));
            return Ok(());
        }
        match self.aid(&op) {
            Ok(aid) => {
                let call = Call::Do { tag: step.to_owned(), op, aid };
                // Before the actor hears of it: no time of the step's may go unwatched.
                let watch = self.progress.watch();
                if self.cast.tell(actor, &call) {
                    self.begin(step, actor, watch);
                } else {
                    let why = format!("actor {actor} cannot be reached");
                    self.settle_now(step, actor, Outcome::NotIssued { why });
                }
            }
            Err(why) => self.settle_now(step, actor, Outcome::NotIssued { why }),
        }
        Ok(())
    }

    fn begin(&mut self, step: &str, actor: &str, watch: Watch) {
        let pending = Pending { actor: actor.to_owned(), at_ms: now_ms(), _watch: watch };
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

    fn aid(&self, op: &Op) -> Result<Aid, String> {
        let mut aid = Aid::default();
        match op {
            Op::Kill { actor, .. } => {
                let player =
                    self.cast.players.get(actor).ok_or_else(|| format!("there is no actor {actor}"))?;
                if player.end.is_some() {
                    return Err(format!("actor {actor} is gone"));
                }
                aid.pid = Some(player.pid());
            }
            Op::RdmaWrite { mr, .. } | Op::RdmaRead { mr, .. } => {
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
        if let Some(pending) = self.pending.get(step) {
            let actor = pending.actor.clone();
            self.listen(step, &actor, &self.progress.within(Duration::from_millis(wait_ms)));
        }
        if let Some(fact) = self.settled.get(step) {
            return Ok(fact.clone());
        }
        let pending = self.pending.get(step).ok_or_else(|| format!("step {step} was never issued"))?;
        let pid = self.cast.players.get(&pending.actor).map_or(0, super::cast::Player::pid);
        let procfs::Whereabouts { state, wchan, stack } = procfs::whereabouts(pid);
        let outcome = Outcome::Blocked { state, wchan, stack };
        let took_ms = now_ms().saturating_sub(pending.at_ms);
        Ok(self.fact(step, &pending.actor, outcome, pending.at_ms, took_ms))
    }

    /// Listens to an actor until its step is settled or the time is over.
    fn listen(&mut self, step: &str, actor: &str, limit: &Limit) {
        loop {
            match self.cast.hear(actor, limit) {
                Heard::Answer(answer) if answer.tag == step => {
                    self.take(step, actor, answer);
                    return;
                }
                // A late answer to a call that was given up.
                Heard::Answer(_) => {}
                Heard::Gone(End { outcome, at_ms: end_ms }) => {
                    let at_ms = self.pending.get(step).map_or(end_ms, |pending| pending.at_ms);
                    let took_ms = end_ms.saturating_sub(at_ms);
                    let fact = self.fact(step, actor, outcome, at_ms, took_ms);
                    self.settle(step, fact);
                    return;
                }
                Heard::Silence => return,
            }
        }
    }

    fn take(&mut self, step: &str, actor: &str, answer: Answer) {
        let Answer { tag: _, outcome, at_ms, took_ms, more } = answer;
        match more {
            More::Region(region) => {
                self.regions.insert(step.to_owned(), region);
            }
            More::Keeper(pid) => self.keepers.push(pid),
            More::Nothing | More::Pair(_) => {}
        }
        if let Some(player) = self.cast.players.get_mut(actor) {
            player.busy = None;
        }
        let fact = self.fact(step, actor, outcome, at_ms, took_ms);
        self.settle(step, fact);
    }

    /// A fact about a stretch of time that was watched.
    pub(super) fn fact(&self, step: &str, actor: &str, outcome: Outcome, at_ms: u64, took_ms: u64) -> Fact {
        let stalled_ms = self.progress.stalled_ms(at_ms, took_ms);
        Fact { step: step.to_owned(), actor: actor.to_owned(), outcome, at_ms, took_ms, stalled_ms }
    }
}
