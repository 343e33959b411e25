// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations of several actors that begin at the same moment: single ones, and stress.
//!
//! Each actor takes its call, says that it is at the gate, and waits there. The gate is a pipe that all of
//! them poll; when the session closes its end they are woken by one call, none before all are there.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use holdfast_protocol::{Count, Fact, Issue, Outcome, Stress};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use super::Session;
use super::cast::Heard;
use crate::clock::now_ms;
use crate::progress::Limit;
use crate::stress::within;
use crate::wire::{Aid, Answer, Call, Choice, GATE_TAG, More, Tally};

/// How long an actor may take to come to the gate: less than the host waits for the answer.
const GATE_TIMEOUT: Duration = Duration::from_secs(5);

/// A pipe that nobody writes to: its reading end is readable when the other one is closed.
pub(super) struct Gate {
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
    pub(super) fn send_to(&mut self, gate: &mut Gate, actor: &str) -> Result<(), String> {
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
        for Issue { step, actor, op, .. } in issues {
            self.issue(&step, &actor, op, None, Some(&mut gate))?;
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
        // By actor why it does not begin, or how it ended instead of coming back.
        let mut lost: BTreeMap<&str, Outcome> = BTreeMap::new();
        for (nr, actor) in actors.iter().copied().enumerate() {
            let choices = match self.absent(actor).map_or_else(|| self.choices_of(&stress, actor), Err) {
                Ok(choices) => choices,
                Err(why) => {
                    lost.insert(actor, Outcome::NotIssued { why });
                    continue;
                }
            };
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
        let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
        for actor in actors {
            if !lost.contains_key(actor) {
                match self.back_from(actor, &tag, &limit) {
                    Ok(more) => tallies.extend(more),
                    Err(outcome) => drop(lost.insert(actor, outcome)),
                }
            }
        }
        for choice in
            stress.choices.iter().filter(|one| matches!(lost.get(&*one.actor), Some(Outcome::Blocked { .. })))
        {
            self.unfinished.push((choice.actor.clone(), choice.op.clone()));
            if let Some(player) = self.cast.players.get_mut(&choice.actor) {
                player.busy = Some(tag.clone());
            }
        }
        let took_ms = now_ms().saturating_sub(at_ms);
        let outcome =
            |choice: &Issue| lost.get(&*choice.actor).cloned().unwrap_or_else(|| came_to(choice, &tallies));
        let facts = stress
            .choices
            .iter()
            .map(|choice| self.fact(&choice.step, &choice.actor, outcome(choice), at_ms, took_ms));
        let facts = facts.collect();
        self.look_everywhere(&stress.id, true);
        Ok(facts)
    }

    /// What an actor brings back from a stress, or how it is kept from coming.
    fn back_from(&mut self, actor: &str, tag: &str, limit: &Limit) -> Result<BTreeMap<String, Tally>, Outcome> {
        loop {
            match self.cast.hear(actor, limit) {
                Heard::Answer(Answer { tag: of, more: More::Tallies(tallies), .. }) if of == tag => {
                    return Ok(tallies);
                }
                Heard::Answer(answer) => self.sort(actor, answer),
                Heard::Gone(end) => return Err(end.outcome),
                Heard::Silence => return Err(self.blocked(actor)),
            }
        }
    }

    /// What an actor draws from, with what the session adds.
    fn choices_of(&mut self, stress: &Stress, actor: &str) -> Result<Vec<Choice>, String> {
        let made: Vec<&str> = stress.choices.iter().map(|choice| choice.step.as_str()).collect();
        let mut choices = Vec::new();
        for Issue { step, op, never_within, after, .. } in
            stress.choices.iter().filter(|choice| choice.actor == actor)
        {
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
            let named = stress.choices.iter().any(|other| other.never_within.as_deref() == Some(step));
            let spans = never_within.is_some() || named;
            choices.push(Choice { step: step.clone(), op: op.clone(), aid, after: after.clone(), spans });
        }
        Ok(choices)
    }
}

/// The tally of a choice; what succeeded within the life of what it must not is a kind of its own.
fn came_to(choice: &Issue, tallies: &BTreeMap<String, Tally>) -> Outcome {
    let Some(tally) = tallies.get(&choice.step) else { return Outcome::Tally(Vec::new()) };
    let mut counts = tally.counts.clone();
    let other = choice.never_within.as_ref().and_then(|other| Some((other, tallies.get(other)?)));
    if let Some((other, there)) = other {
        let draws = within(&tally.spans, &there.spans);
        counts.extend(draws.first().map(|first_draw| Count {
            outcome: Outcome::Within(other.clone()),
            times: draws.len() as u64,
            first_draw: *first_draw,
            longest_ms: 0,
        }));
    }
    Outcome::Tally(counts)
}
