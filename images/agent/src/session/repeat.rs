// SPDX-License-Identifier: MIT OR Apache-2.0
//! Having an actor repeat a body of operations.

use std::time::Duration;

use holdfast_protocol::{Issue, Outcome, Reply};

use super::Session;
use super::cast::Heard;
use crate::wire::{Answer, Call, Choice, More};

/// Longer than anybody waits for the reply.
const TIMEOUT: Duration = Duration::from_secs(3600);

/// Tag of the call. No step's id holds a blank.
const TAG: &str = "a body that is repeated";

impl Session {
    /// Has an actor repeat a body; what it took.
    pub(super) fn repeat(&mut self, body: Vec<Issue>, times: u32) -> Result<Reply, String> {
        let actor = body.first().ok_or("nothing is to be repeated")?.actor.clone();
        if let Some(other) = body.iter().find(|issue| issue.actor != actor) {
            return Err(format!("{} is for {}, what is before it for {actor}", other.step, other.actor));
        }
        if let Some(why) = self.absent(&actor) {
            return Err(why);
        }
        let mut choices = Vec::new();
        for Issue { step, op, .. } in body {
            self.link_for(&actor, &op)?;
            let aid = self.aid(&op)?;
            choices.push(Choice { step, op, aid, after: None, spans: false });
        }
        if !self.cast.tell(&actor, &Call::Repeat { tag: TAG.to_owned(), body: choices, times }) {
            return Err(format!("actor {actor} cannot be reached"));
        }
        let limit = self.progress.unwatched(TIMEOUT);
        loop {
            match self.cast.hear(&actor, &limit) {
                Heard::Answer(Answer { tag, outcome, more, .. }) if tag == TAG => {
                    return match (outcome, more) {
                        (_, More::Repeated { ticks, idle_ns }) => Ok(Reply::Repeated { ticks, idle_ns }),
                        (Outcome::NotIssued { why }, _) => Err(why),
                        (other, _) => Err(format!("actor {actor} came back with {other:?}")),
                    };
                }
                Heard::Answer(answer) => self.sort(&actor, answer),
                Heard::Gone(end) => return Err(format!("actor {actor} ended: {:?}", end.outcome)),
                Heard::Silence => return Err(format!("actor {actor} did not come back")),
            }
        }
    }
}
