// SPDX-License-Identifier: MIT OR Apache-2.0
//! A stress that fails, made smaller while it fails the same way: fewer operations to draw from, less time.
//!
//! What actors meet is not drawn, so a smaller stress may fail more rarely: each is tried several times, and one that
//! did not fail then is taken for one that does not. What is left is one that failed, not the smallest there is.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Error, Result};

use crate::judge::Verdict;
use crate::plan::{PlannedCase, PlannedStep};
use crate::scenario::limits::SHORTEST_STRESS_MS;
use crate::scenario::{Action, handles_of};

/// What became of shrinking a case.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The smallest that failed.
    pub case: PlannedCase,
    /// Operations to draw from, before and after.
    pub choices: (usize, usize),
    /// How many smaller ones were tried.
    pub tried: usize,
}

/// True if a failure is the one that is looked for: of the same kind, at the same step, with the same title.
#[must_use]
pub fn is_same(wanted: &Verdict, got: &Verdict) -> bool {
    (wanted.kind, &wanted.step, &wanted.title) == (got.kind, &got.step, &got.title)
}

/// Makes a case smaller as long as `fails` says that it still fails the same way. Where that is an error, that error
/// and what there was until then: it has cost minutes.
pub fn shrink(
    case: &PlannedCase,
    mut fails: impl FnMut(&PlannedCase) -> Result<bool>,
) -> (Shrunk, Option<Error>) {
    let mut shrunk = Shrunk { case: case.clone(), choices: (choices(case).count(), 0), tried: 0 };
    let ended = reduce(&mut shrunk.case, &mut shrunk.tried, &mut fails).err();
    shrunk.choices.1 = choices(&shrunk.case).count();
    (shrunk, ended)
}

fn reduce(
    case: &mut PlannedCase,
    tried: &mut usize,
    fails: &mut dyn FnMut(&PlannedCase) -> Result<bool>,
) -> Result<()> {
    let mut attempt = |smaller: &PlannedCase| {
        *tried += 1;
        fails(smaller)
    };
    // Shorter first: everything after it is quicker.
    while let Some(shorter) = shorter(case) {
        if !attempt(&shorter)? {
            break;
        }
        *case = shorter;
    }
    // What is left out may let another be left out that could not be before.
    let mut go_on = true;
    while go_on {
        go_on = false;
        for id in choices(case).map(|step| step.id.clone()).collect::<Vec<_>>() {
            let smaller = without(case, &id);
            let left = choices(&smaller).count();
            if left == 0 || left == choices(case).count() {
                continue;
            }
            if attempt(&smaller)? {
                (*case, go_on) = (smaller, true);
            }
        }
    }
    Ok(())
}

/// The steps that are drawn.
fn choices(case: &PlannedCase) -> impl Iterator<Item = &PlannedStep> {
    case.steps.iter().filter(|step| step.excluded.is_none() && matches!(step.action, Action::Draw { .. }))
}

/// The case without one choice and whatever needs it.
fn without(case: &PlannedCase, id: &str) -> PlannedCase {
    let mut gone: BTreeSet<String> = [id.to_owned()].into();
    loop {
        let needs = |step: &&PlannedStep| match &step.action {
            Action::Draw { op, after, .. } => {
                handles_of(op).into_iter().chain(after.as_deref()).any(|used| gone.contains(used))
            }
            _ => false,
        };
        let more: Vec<String> =
            choices(case).filter(needs).map(|step| step.id.clone()).filter(|id| !gone.contains(id)).collect();
        if more.is_empty() {
            break;
        }
        gone.extend(more);
    }
    let mut smaller = case.clone();
    smaller.steps.retain(|step| !gone.contains(&step.id));
    for step in &mut smaller.steps {
        // Nothing can be within what is not there.
        if let Action::Draw { never_within, .. } = &mut step.action {
            *never_within = never_within.take().filter(|other| !gone.contains(other));
        }
        // It may come to less now; that is not what is looked for.
        step.reaches = None;
    }
    smaller
}

/// Half as long; nothing where it is as short as it can be.
fn shorter(case: &PlannedCase) -> Option<PlannedCase> {
    let mut shorter = case.clone();
    let mut any = false;
    for step in &mut shorter.steps {
        if let Action::Draw { for_ms, .. } = &mut step.action
            && *for_ms >= 2 * SHORTEST_STRESS_MS
        {
            (*for_ms, any) = (*for_ms / 2, true);
        }
    }
    any.then_some(shorter)
}

/// The stress as a scenario's step, to be put in place of the one it was made of.
#[must_use]
pub fn as_step(case: &PlannedCase) -> String {
    let mut text = String::new();
    let (mut stress, mut actor) = ("", "");
    for step in choices(case) {
        let Action::Draw { by, op, of, for_ms, never_within, after } = &step.action else { continue };
        if stress != of {
            let _ = writeln!(text, "  - stress: {of}\n    for_ms: {for_ms}\n    actors:");
            (stress, actor) = (of, "");
        }
        if actor != by {
            let _ = writeln!(text, "      {by}:");
            actor = by;
        }
        let op = serde_json::to_string(op).unwrap_or_default();
        let mut more = String::new();
        for (key, id) in [("never_within", never_within), ("after", after)] {
            if let Some(id) = id {
                let _ = write!(more, ", {key}: {id}");
            }
        }
        let _ = writeln!(text, "        - {{id: {}, do: {op}{more}, expect: \"{}\"}}", step.id, step.expect);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Contracts;
    use crate::plan::{Plan, PlannedKernel};
    use crate::scenario;

    const CASE: &str = "
about: t
because: t
contracts: [m]
control: true
files: {data: {on: ext4, size_kib: 64, pattern: 1}}
actors: {owner: {rdma: true}, peer: {rdma: true}, other: {}}
steps:
  - {id: fd, by: owner, do: {open: {file: data, flags: [O_RDWR]}}}
  - {id: map, by: owner, do: {mmap: {fd: $fd, len_kib: 64, flags: [MAP_SHARED]}}}
  - stress: rush
    for_ms: 4000
    actors:
      owner:
        - {id: mr, do: {reg_mr: {map: $map, access: [REMOTE_READ]}}, expect: ok}
        - {id: let_go, do: {dereg_mr: {mr: $mr}}, expect: ok}
        - {id: look, do: {size: {file: data}}, after: mr, expect: ok 65536}
      other:
        - {id: cut, do: {truncate: {file: data, size_kib: 0}}, never_within: mr, expect: ok}
        - {id: grow, do: {truncate: {file: data, size_kib: 64}}, expect: ok}
";

    fn case() -> PlannedCase {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("case.yaml");
        std::fs::write(&path, CASE).unwrap();
        let contracts = Contracts::of("m: {about: m, clauses: {c: p}}\n");
        let scenarios = scenario::load_file(folder.path(), &path, &contracts).unwrap();
        let kernel = PlannedKernel {
            name: "k".into(),
            contract: "m".into(),
            features: Vec::new(),
            programs: Vec::new(),
            lacks: Default::default(),
        };
        Plan::make(&scenarios, &contracts, &[kernel], &[]).unwrap().cases.remove(0)
    }

    fn ids(case: &PlannedCase) -> Vec<&str> {
        choices(case).map(|step| step.id.as_str()).collect()
    }

    #[test]
    fn what_the_failure_does_not_need_is_left_out() {
        let case = case();
        let needs = |wanted: &'static [&'static str], least_ms: u64| {
            move |case: &PlannedCase| {
                let long = |step: &PlannedStep| matches!(step.action, Action::Draw { for_ms, .. } if for_ms >= least_ms);
                Ok(wanted.iter().all(|id| choices(case).any(|step| step.id == *id && long(step))))
            }
        };
        let (shrunk, ended) = shrink(&case, needs(&["cut", "grow"], 1000));
        assert!(ended.is_none());
        assert_eq!(ids(&shrunk.case), ["cut", "grow"]);
        assert_eq!(shrunk.choices, (5, 2));
        assert!(as_step(&shrunk.case).contains("for_ms: 1000"), "{}", as_step(&shrunk.case));
        assert!(!as_step(&shrunk.case).contains("never_within"), "the region is not there");
        // Whatever uses a region goes with it.
        assert_eq!(ids(&shrink(&case, needs(&["let_go"], 1)).0.case), ["mr", "let_go"]);
        // Steps that are no draws stay.
        assert_eq!(shrunk.case.steps.iter().filter(|step| matches!(step.action, Action::Do { .. })).count(), 2);
    }

    #[test]
    fn what_needs_all_of_it_stays_as_it_is() {
        let case = case();
        let (shrunk, ended) = shrink(&case, |_| Ok(false));
        assert_eq!(ids(&shrunk.case), ids(&case));
        assert_eq!((shrunk.tried, ended.is_none()), (1 + 5, true));
    }

    #[test]
    fn what_was_found_before_the_end_is_kept() {
        let mut left = 2;
        let (shrunk, ended) = shrink(&case(), |_| match left {
            0 => Err(anyhow::anyhow!("enough")),
            _ => {
                left -= 1;
                Ok(true)
            }
        });
        assert_eq!((shrunk.tried, ended.unwrap().to_string()), (3, "enough".to_owned()));
        assert!(as_step(&shrunk.case).contains("for_ms: 1000"), "twice halved: {}", as_step(&shrunk.case));
        assert_eq!(shrunk.choices, (5, 5));
    }
}
