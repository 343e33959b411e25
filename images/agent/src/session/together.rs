// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations of several actors that begin at the same moment: single ones, and stresss.
//!
//! Each actor takes its call, says that it is at the gate, and waits there. The gate is a pipe that all of
//! them poll; when the session closes its end they are woken by one call, none before all are there.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use holdfast_protocol::{Fact, Issue, Op, Outcome, Stress};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use super::Session;
use super::cast::Heard;
use crate::clock::now_ms;
use crate::wire::{Aid, Answer, Call, Choice, GATE_TAG, More};

/// How long an actor may take to come to the gate.
const GATE_TIMEOUT: Duration = Duration::from_secs(20);

/// A pipe that nobody writes to: its reading end is readable when the other one is closed.
struct Gate {
    read: OwnedFd,
    write: OwnedFd,
    /// Who was sent to it.
    actors: Vec<String>,
}

impl Session {
    fn gate(&self) -> Result<Gate, String> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| format!("a gate: {errno}"))?;
        Ok(Gate { read, write, actors: Vec::new() })
    }

    /// The next call of an actor begins when the gate opens.
    fn send_to(&mut self, gate: &mut Gate, actor: &str) -> Result<(), String> {
        if !self.cast.tell(actor, &Call::Gate) || !self.cast.pass(actor, gate.read.as_fd()) {
            return Err(format!("actor {actor} cannot be reached"));
        }
        gate.actors.push(actor.to_owned());
        Ok(())
    }

    /// Waits until all are there, and opens; when that was.
    fn open(&mut self, gate: Gate) -> Result<u64, String> {
        let limit = self.progress.within(GATE_TIMEOUT);
        for actor in &gate.actors {
            loop {
                match self.cast.hear(actor, &limit) {
                    Heard::Answer(answer) if answer.tag == GATE_TAG => break,
                    Heard::Answer(answer) => self.sort(actor, answer),
                    // It ended at the gate: its step will say so.
                    Heard::Gone(_) => break,
                    Heard::Silence => return Err(format!("actor {actor} did not come to the gate")),
                }
            }
        }
        let at_ms = now_ms();
        drop(gate.write);
        Ok(at_ms)
    }

    /// Issues operations of different actors at the same moment; when that was.
    pub(super) fn together(&mut self, issues: Vec<Issue>) -> Result<u64, String> {
        let mut gate = self.gate()?;
        let mut steps = Vec::new();
        for Issue { step, actor, op } in issues {
            let gated = !matches!(op, Op::Connect(_) | Op::Violate(_)) && self.absent(&actor).is_none();
            if gated && !self.pending.contains_key(&step) {
                self.send_to(&mut gate, &actor)?;
            }
            self.issue(&step, &actor, op, None)?;
            steps.push(step);
        }
        let at_ms = self.open(gate)?;
        for step in steps {
            if let Some(pending) = self.pending.get_mut(&step) {
                pending.at_ms = at_ms;
            }
        }
        Ok(at_ms)
    }

    /// Lets actors do operations at random; what each choice came to.
    pub(super) fn stress(&mut self, stress: Stress) -> Result<Vec<Fact>, String> {
        let _watch = self.progress.watch();
        let mut actors: Vec<&str> = stress.choices.iter().map(|choice| choice.actor.as_str()).collect();
        actors.sort_unstable();
        actors.dedup();
        // No step's id holds a blank.
        let tag = format!("stress {}", stress.id);
        let mut gate = self.gate()?;
        for (nr, actor) in actors.iter().enumerate() {
            if let Some(why) = self.absent(actor) {
                return Err(why);
            }
            let choices = self.choices_of(&stress, actor)?;
            self.send_to(&mut gate, actor)?;
            // Every actor draws for itself.
            let seed = stress.seed.wrapping_add((nr as u64).wrapping_mul(0xd134_2543_de82_ef95));
            let call = Call::Stress { tag: tag.clone(), choices, seed, for_ms: stress.for_ms };
            if !self.cast.tell(actor, &call) {
                return Err(format!("actor {actor} cannot be reached"));
            }
        }
        let at_ms = self.open(gate)?;
        let limit = self.progress.within(Duration::from_millis(stress.for_ms + stress.grace_ms));
        let mut facts = Vec::new();
        for actor in actors {
            let came = loop {
                match self.cast.hear(actor, &limit) {
                    Heard::Answer(answer) if answer.tag == tag => break Ok(answer),
                    Heard::Answer(answer) => self.sort(actor, answer),
                    Heard::Gone(end) => break Err(end.outcome),
                    Heard::Silence => break Err(self.blocked(actor)),
                }
            };
            let mut tallies = match &came {
                Ok(Answer { more: More::Tallies(tallies), .. }) => tallies.clone(),
                _ => std::collections::BTreeMap::new(),
            };
            for choice in stress.choices.iter().filter(|choice| choice.actor == actor) {
                let outcome = match &came {
                    Ok(_) => Outcome::Tally(tallies.remove(&choice.step).unwrap_or_default()),
                    Err(outcome) => outcome.clone(),
                };
                let took_ms = now_ms().saturating_sub(at_ms);
                let fact = self.fact(&choice.step, actor, outcome, at_ms, took_ms);
                facts.push(fact);
            }
        }
        self.look_everywhere(&stress.id);
        Ok(facts)
    }

    /// What an actor draws from, with what the session adds.
    fn choices_of(&mut self, stress: &Stress, actor: &str) -> Result<Vec<Choice>, String> {
        let made: Vec<&str> = stress.choices.iter().map(|choice| choice.step.as_str()).collect();
        let mut choices = Vec::new();
        for Issue { step, op, .. } in stress.choices.iter().filter(|choice| choice.actor == actor) {
            self.link_for(actor, op)?;
            let fields = serde_json::to_value(op).map_err(|error| error.to_string())?;
            let fields = fields.as_object().and_then(|map| map.values().next()?.as_object().cloned());
            let named = fields.unwrap_or_default().into_iter().filter_map(|(_, value)| {
                value.as_str().and_then(|text| text.strip_prefix('$')).map(str::to_owned)
            });
            let uses: Vec<String> = named.filter(|id| made.contains(&id.as_str())).collect();
            let aid = match self.aid(op) {
                Ok(aid) => Aid { uses, ..aid },
                // A region that another choice makes is known to its process alone.
                Err(_) if !uses.is_empty() => Aid { uses, ..Aid::default() },
                Err(why) => return Err(why),
            };
            choices.push(Choice { step: step.clone(), op: op.clone(), aid });
        }
        Ok(choices)
    }
}
