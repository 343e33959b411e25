// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the session does itself because the actor may be inside a call, or gone: waiting for a signal of a
//! handler, and for an actor's end; the sockets between actors.

use std::os::fd::AsFd;
use std::time::Duration;

use holdfast_protocol::Outcome;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::Session;
use super::cast::{End, Heard};
use crate::clock::now_ms;
use crate::wire::{Call, LINK_TAG};

impl Session {
    /// Waits for a signal that a handler has got and no step was given.
    pub(super) fn receive(&mut self, step: &str, actor: &str, handler: &str, wait_ms: Option<u64>) {
        let _watch = self.progress.watch();
        let at_ms = now_ms();
        let key = (actor.to_owned(), handler.to_owned());
        let limit = self.progress.within(Duration::from_millis(wait_ms.unwrap_or(0)));
        let outcome = loop {
            if let Some((signal, _)) =
                self.signals.get_mut(&key).and_then(std::collections::VecDeque::pop_front)
            {
                break Outcome::Signalled(signal);
            }
            match self.cast.hear(actor, &limit) {
                Heard::Answer(answer) => self.sort(actor, answer),
                Heard::Gone(End { outcome, .. }) => break outcome,
                Heard::Silence => break Outcome::NoSignal,
            }
        };
        let fact = self.fact(step, actor, outcome, at_ms, now_ms().saturating_sub(at_ms));
        self.settle(step, fact);
    }

    /// Waits until an actor has ended.
    pub(super) fn wait_for_end(&mut self, step: &str, actor: &str, whom: &str, wait_ms: Option<u64>) {
        let _watch = self.progress.watch();
        let at_ms = now_ms();
        let limit = self.progress.within(Duration::from_millis(wait_ms.unwrap_or(0)));
        let outcome = loop {
            match self.cast.hear(whom, &limit) {
                Heard::Answer(answer) => self.sort(whom, answer),
                Heard::Gone(End { outcome, .. }) => break outcome,
                Heard::Silence => break self.blocked(whom),
            }
        };
        let fact = self.fact(step, actor, outcome, at_ms, now_ms().saturating_sub(at_ms));
        self.settle(step, fact);
        self.look_everywhere(step, true);
    }

    /// Sees to it that a pair of sockets joins two actors. Neither is waited for: the end lies in its stream
    /// until it takes it.
    pub(super) fn link(&mut self, one: &str, other: &str) -> Result<(), String> {
        if one == other {
            return Err("an actor sends nothing to itself".to_owned());
        }
        let key = if one < other { (one, other) } else { (other, one) };
        let key = (key.0.to_owned(), key.1.to_owned());
        if self.links.contains(&key) {
            return Ok(());
        }
        for name in [one, other] {
            let player = self.cast.players.get(name);
            if player.is_none_or(|player| player.end.is_some()) {
                return Err(format!("actor {name} is not there"));
            }
        }
        let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
        let (ours, theirs) = pair.map_err(|errno| format!("a pair of sockets: {errno}"))?;
        for (name, peer, end) in [(one, other, ours), (other, one, theirs)] {
            let call = Call::Link { tag: LINK_TAG.to_owned(), peer: peer.to_owned() };
            if !self.cast.tell(name, &call) || !self.cast.pass(name, end.as_fd()) {
                return Err(format!("actor {name} cannot be reached"));
            }
        }
        self.links.insert(key);
        Ok(())
    }
}
