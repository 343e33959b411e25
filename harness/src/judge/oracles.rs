// SPDX-License-Identifier: MIT OR Apache-2.0
//! The standing oracles: what must be so after every case, without being asked.
//!
//! Splats are not among them: a kernel bug is a verdict of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use holdfast_protocol::{DamageFact, Oracles, Outcome, Place, Provider, Victim};
use serde::{Deserialize, Serialize};

use crate::contract::{NO_STALE_READ, NO_STALE_WRITE};
use crate::fsck::FsckFact;
use crate::scenario::{describe, errno_name};

/// The names of all standing oracles, in the order in which they are judged.
pub const ORACLES: [&str; 8] =
    ["stuck", "regions", "pins", "leases", "umount", "fsck", NO_STALE_WRITE, NO_STALE_READ];

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
    /// Something was not looked at: what was found is no finding.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub incomplete: bool,
    /// Why it is expected to find something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

impl OracleResult {
    /// It makes its case red: it found something, or nothing where a finding is expected.
    #[must_use]
    pub fn is_red(&self) -> bool {
        self.broken.is_some() != (!self.clean && !self.incomplete) || self.incomplete
    }
}

/// The file systems that an oracle says nothing of.
fn unseen(seen: impl Iterator<Item = Place>) -> impl Iterator<Item = Place> {
    let seen: Vec<Place> = seen.collect();
    [Place::Ext4, Place::Xfs].into_iter().filter(move |place| !seen.contains(place))
}

/// In the order in which one trouble causes another: a stuck task holds a
/// region, a region holds pins, pins hold a mount.
pub(super) fn judge(
    seen: &Oracles,
    fsck: &[FsckFact],
    broken: &BTreeMap<String, String>,
    provider: Provider,
) -> Vec<OracleResult> {
    let mut results = Vec::new();
    let mut say = |name: &str, balance: bool, expected: &str, trouble: Option<String>| {
        results.push(OracleResult {
            name: name.to_owned(),
            clean: trouble.is_none(),
            expected: expected.to_owned(),
            got: trouble.unwrap_or_else(|| "so".to_owned()),
            balance,
            incomplete: false,
            broken: broken.get(name).cloned(),
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
        let victims = seen.damage.iter().filter_map(|fact| fact.victim.as_ref());
        victims.filter_map(|victim| what(victim).as_ref()).any(|transfer| decided(provider, transfer))
    };
    let (writes, reads) = damage(&seen.damage);
    // Where it is expected broken it is asked too: nobody looked is no breakage.
    if tried(|victim| &victim.write) || broken.contains_key(NO_STALE_WRITE) {
        say(NO_STALE_WRITE, false, "no RDMA write reaches a block that is another file's by now", writes);
    }
    if tried(|victim| &victim.read) || broken.contains_key(NO_STALE_READ) {
        say(NO_STALE_READ, false, "no RDMA read brings what is in another file", reads);
    }
    let unseen_umount = unseen(seen.umount.iter().map(|one| one.on)).next().is_some();
    let unchecked = unseen(fsck.iter().map(|one| one.on)).next().is_some();
    let unchecked = unchecked || fsck.iter().any(|one| one.status.is_none());
    for (name, incomplete) in [("umount", unseen_umount), ("fsck", unchecked)] {
        results.iter_mut().filter(|one| one.name == name).for_each(|one| one.incomplete = incomplete);
    }
    for one in results.iter_mut().filter(|one| one.is_red()) {
        if let Some(why) = &one.broken {
            one.expected = format!("not `{}`, because that is expected broken ({why})", one.expected);
        }
    }
    results
}

/// A transfer that shows what a device reaches: it went through, or the region was refused. Anything else,
/// a flushed request of rxe or one that was never posted, is as if nobody had tried.
fn decided(provider: Provider, transfer: &Outcome) -> bool {
    match transfer {
        Outcome::Returned(_) | Outcome::Differs { .. } => true,
        Outcome::Completion(status) => status == refusal(provider),
        _ => false,
    }
}

/// What a request comes to that the target refuses. Over iWARP the target ends the connection, and the guest
/// posts no request on one that has ended before (images/agent/src/verbs.c, hf_transfer()).
fn refusal(provider: Provider) -> &'static str {
    match provider {
        Provider::Rxe => "REM_ACCESS_ERR",
        Provider::Siw => "WR_FLUSH_ERR",
    }
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
pub(super) fn damage_unknown(facts: &[DamageFact], provider: Provider) -> Option<String> {
    let (fact, trouble) = facts.iter().find_map(|fact| Some((fact, why_not_shown(fact, provider)?)))?;
    let lost = match fact.lost_kib {
        0 => String::new(),
        lost => format!(", where {lost} KiB are not the file's any more,"),
    };
    Some(format!("what ${} reaches after {}{lost} could not be shown: {trouble}", fact.region, fact.after))
}

fn why_not_shown(fact: &DamageFact, provider: Provider) -> Option<String> {
    let Some(victim) = &fact.victim else { return Some(fact.trouble.clone()) };
    let tried = [("read", &victim.read), ("write", &victim.write)];
    let mut tried = tried.into_iter().filter_map(|(what, outcome)| Some((what, outcome.as_ref()?))).peekable();
    if tried.peek().is_none() {
        return Some("nothing was transferred".to_owned());
    }
    let (what, outcome) = tried.find(|(_, outcome)| !decided(provider, outcome))?;
    Some(format!("the {what} ended with {}", describe(outcome)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_oracle_has_a_name_a_scenario_can_say() {
        let results = judge(&Oracles::default(), &[], &BTreeMap::new(), Provider::Rxe);
        let names: Vec<&str> = results.iter().map(|one| one.name.as_str()).collect();
        // The last two are asked only where blocks were given away.
        assert_eq!(names, ORACLES[..6]);
    }
}
