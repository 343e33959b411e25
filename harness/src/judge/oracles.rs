// SPDX-License-Identifier: MIT OR Apache-2.0
//! The standing oracles: what must be so after every case, without being asked.
//!
//! Splats are not among them: a kernel bug is a verdict of its own.

use std::fmt::Write as _;

use holdfast_protocol::{DamageFact, Oracles, Outcome, Place, Victim};
use serde::{Deserialize, Serialize};

use crate::contract::{NO_STALE_READ, NO_STALE_WRITE};
use crate::fsck::FsckFact;
use crate::scenario::{describe, errno_name};

/// What one standing oracle says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OracleResult {
    /// `pins`, `regions`, `leases`, `stuck`, `umount`, `fsck`.
    pub name: String,
    /// All is as it must be.
    pub clean: bool,
    /// What must be so.
    pub expected: String,
    /// What is so.
    pub got: String,
    /// It belongs to the clause `pins-balanced`.
    pub balance: bool,
}

/// The file systems that an oracle says nothing of.
fn unseen(seen: impl Iterator<Item = Place>) -> impl Iterator<Item = Place> {
    let seen: Vec<Place> = seen.collect();
    [Place::Ext4, Place::Xfs].into_iter().filter(move |place| !seen.contains(place))
}

/// In the order in which one trouble causes another: a stuck task holds a
/// region, a region holds pins, pins hold a mount.
pub(super) fn judge(seen: &Oracles, fsck: &[FsckFact]) -> Vec<OracleResult> {
    let mut results = Vec::new();
    let mut say = |name: &str, balance: bool, expected: &str, trouble: Option<String>| {
        results.push(OracleResult {
            name: name.to_owned(),
            clean: trouble.is_none(),
            expected: expected.to_owned(),
            got: trouble.unwrap_or_else(|| "so".to_owned()),
            balance,
        });
    };
    let stuck = seen.stuck.iter().fold(String::new(), |mut text, task| {
        let calls: Vec<&str> = task.stack.iter().map(|line| line.trim()).take(4).collect();
        let _ =
            write!(text, "{} is left ({}) in {}: {} ", task.actor, task.state, task.wchan, calls.join(" < "));
        text
    });
    say("stuck", true, "no actor outlives SIGKILL", (!seen.stuck.is_empty()).then_some(stuck));
    let regions = format!("{} left", seen.regions_left);
    say("regions", true, "no memory region left", (seen.regions_left != 0).then_some(regions));
    let taken = seen.pins_after.acquired.saturating_sub(seen.pins_before.acquired);
    let released = seen.pins_after.released.saturating_sub(seen.pins_before.released);
    let pins = format!("{taken} pages pinned, {released} released");
    say("pins", true, "as many pages released as pinned", (taken != released).then_some(pins));
    say("leases", true, "no lease left", (!seen.leases_left.is_empty()).then(|| seen.leases_left.join("; ")));
    let umount: Vec<String> = seen
        .umount
        .iter()
        .filter(|one| one.errno != 0)
        .map(|one| format!("{:?}: {}", one.on, errno_name(one.errno)))
        .collect();
    let mut umount = umount;
    umount.extend(unseen(seen.umount.iter().map(|one| one.on)).map(|on| format!("{on:?}: not tried")));
    say("umount", false, "both file systems unmount", (!umount.is_empty()).then(|| umount.join("; ")));
    let troubles: Vec<String> = fsck
        .iter()
        .filter(|one| one.status != Some(0))
        .map(|one| {
            let status = one.status.map_or("did not run".to_owned(), |status| format!("status {status}"));
            format!("{} on {:?}: {status}: {}", one.command, one.on, one.output.trim())
        })
        .collect();
    let mut troubles = troubles;
    troubles.extend(unseen(fsck.iter().map(|one| one.on)).map(|on| format!("{on:?}: no checker ran")));
    say("fsck", false, "both file systems check clean", (!troubles.is_empty()).then(|| troubles.join("; ")));
    let tried = |what: fn(&Victim) -> &Option<Outcome>| {
        seen.damage.iter().filter_map(|fact| fact.victim.as_ref()).any(|victim| what(victim).is_some())
    };
    let (writes, reads) = damage(&seen.damage);
    if tried(|victim| &victim.write) {
        say(NO_STALE_WRITE, false, "no RDMA write reaches a block that is another file's by now", writes);
    }
    if tried(|victim| &victim.read) {
        say(NO_STALE_READ, false, "no RDMA read brings what is in another file", reads);
    }
    results
}

/// What was seen of blocks that were given away under a device: written into, read out of.
fn damage(facts: &[DamageFact]) -> (Option<String>, Option<String>) {
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    for (fact, victim) in facts.iter().filter_map(|fact| Some((fact, fact.victim.as_ref()?))) {
        let place = format!("after {}, through ${} at byte {}", fact.after, fact.region, victim.region_offset);
        match &victim.bytes {
            Outcome::Returned(_) => {}
            Outcome::Differs { at, want, got } => {
                writes.push(format!("{place}: {} at byte {at} was {want:#04x} and is {got:#04x}", victim.file))
            }
            other => writes.push(format!("{place}: {} cannot be read: {}", victim.file, describe(other))),
        }
        if matches!(victim.read, Some(Outcome::Returned(_))) {
            reads.push(format!("{place}: it brought the bytes of {} at byte {}", victim.file, victim.offset));
        }
    }
    let text = |all: Vec<String>| (!all.is_empty()).then(|| all.join("; "));
    (text(writes), text(reads))
}

/// Why it is not known what a device reaches; `None` where that was shown, or no block was given away.
pub(super) fn damage_unknown(facts: &[DamageFact]) -> Option<String> {
    let fact = facts.iter().find(|fact| fact.victim.is_none())?;
    Some(format!(
        "after {} {} KiB that ${} pins were not the file's any more, and what a device reaches there could not be shown: {}",
        fact.after, fact.lost_kib, fact.region, fact.trouble
    ))
}
