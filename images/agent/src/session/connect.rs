// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connecting two actors: each makes a queue pair; the session carries the ends across, or, over iWARP, makes
//! the connection itself.

use std::time::Duration;

use holdfast_protocol::{Outcome, Provider};

use super::Session;
use crate::boot::rdma_link::address;
use crate::clock::now_ms;
use crate::iwarp;
use crate::wire::{Answer, Call, Link, More, PairEnd};

/// How long one of the four halves of a connection may take, or one that the session makes.
const HALF_TIMEOUT: Duration = Duration::from_secs(20);

/// Where connections over iWARP are listened for, each at a port of its own.
const FIRST_PORT: u16 = 7471;

impl Session {
    /// Connects `actor` with `to`; the step is settled afterwards.
    pub(super) fn connect(&mut self, step: &str, actor: &str, to: &str) {
        let _watch = self.progress.watch();
        let at_ms = now_ms();
        let outcome = match self.try_connect(step, actor, to) {
            Ok(()) => Outcome::Returned(0),
            Err(outcome) => outcome,
        };
        let fact = self.fact(step, actor, outcome, at_ms, now_ms() - at_ms);
        if matches!(fact.outcome, Outcome::Returned(_)) {
            self.connected(actor, to);
        }
        self.settle(step, fact);
    }

    fn try_connect(&mut self, step: &str, actor: &str, to: &str) -> Result<(), Outcome> {
        if actor == to {
            return Err(not_issued("an actor cannot be connected with itself"));
        }
        if let Some(why) = self.absent(to) {
            return Err(not_issued(why));
        }
        let ours = self.half(actor, |tag| Call::MakePair { tag, peer: to.to_owned() }, step)?;
        let theirs = self.half(to, |tag| Call::MakePair { tag, peer: actor.to_owned() }, step)?;
        let (Some(ours), Some(theirs)) = (ours, theirs) else {
            return Err(not_issued("no queue pair came back"));
        };
        if let Some(Link { provider: Provider::Siw, .. }) = self.link {
            let port = FIRST_PORT.saturating_add(u16::try_from(self.connections.len()).unwrap_or(u16::MAX));
            let (pairs, limit) = ((ours.number, theirs.number), self.progress.within(HALF_TIMEOUT));
            let connection = iwarp::connect(address(Provider::Siw), port, pairs, &limit).map_err(not_issued)?;
            self.connections.push(connection);
            return Ok(());
        }
        self.half(to, |tag| Call::JoinPair { tag, peer: actor.to_owned(), end: ours }, step)?;
        self.half(actor, |tag| Call::JoinPair { tag, peer: to.to_owned(), end: theirs }, step)?;
        Ok(())
    }

    fn half(
        &mut self,
        name: &str,
        call: impl FnOnce(String) -> Call,
        step: &str,
    ) -> Result<Option<PairEnd>, Outcome> {
        // No step id holds a blank, so a late answer cannot be taken for a step's.
        let want = format!("{step} / connect");
        let call = call(want.clone());
        let Answer { outcome, more, .. } = self.ask(name, &call, &want, HALF_TIMEOUT).map_err(not_issued)?;
        match (outcome, more) {
            (Outcome::Returned(_), More::Pair(end)) => Ok(Some(end)),
            (Outcome::Returned(_), _) => Ok(None),
            (other, _) => Err(other),
        }
    }
}

fn not_issued(why: impl Into<String>) -> Outcome {
    Outcome::NotIssued { why: why.into() }
}
