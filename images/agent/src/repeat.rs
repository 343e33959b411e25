// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations that an actor does over and over, each counted by itself: what they cost.
//!
//! The session and the host have no part in it meanwhile: what they do would be counted as well.

use holdfast_protocol::Outcome;

use crate::actor::{Actor, Stop};
use crate::procfs::idle_ns;
use crate::sys::ticks;
use crate::wire::{Choice, More};

/// Repeats a body; what its operations took, or why it was broken off.
pub(crate) fn run(actor: &Actor, body: &[Choice], times: u32) -> (Outcome, More) {
    let mut taken = vec![Vec::with_capacity(times as usize); body.len()];
    let idle_before = idle_ns();
    for nr in 1..=times {
        for (Choice { step, op, aid, .. }, taken) in body.iter().zip(&mut taken) {
            let op = op.clone();
            let before = ticks();
            let result = actor.issue(op, aid, step);
            taken.push(ticks().wrapping_sub(before));
            match result {
                Ok(done) => actor.keep(step, done.thing),
                Err(Stop(outcome)) => {
                    let why = format!("repetition {nr} of {step} came to {outcome:?}");
                    return (Outcome::NotIssued { why }, More::Nothing);
                }
            }
        }
    }
    let idle_ns = idle_ns().zip(idle_before).map(|(after, before)| after - before);
    (Outcome::Returned(times.into()), More::Repeated { ticks: taken, idle_ns })
}
