// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is expected broken is green only when it was shown, and nothing else is excused with it.

use super::*;
use crate::report::ClauseState;

const BROKEN: &str = "expect_broken: {unguarded: {blocks: nobody waits, oracle/pins: the pin stays}}\n";

/// A plan whose case is expected to show two breakages, and a record in which it does.
fn shown() -> (Plan, Record) {
    let plan = broken_plan();
    let mut record = good(&plan.cases[1]);
    for step in ["watch", "done"] {
        record.facts.get_mut(step).unwrap().outcome = Outcome::Returned(0);
    }
    oracles(&mut record).pins_after.released = 8;
    (plan, record)
}

fn broken_plan() -> Plan {
    // `done` proves that it blocks by coming late, which has no opposite.
    plan_of(&CASE.replace(", not_after_ms: 5000, proves: [blocks]", ""), &["unguarded"], BROKEN)
}

fn judged(change: impl Fn(&mut Record)) -> CaseResult {
    let (plan, mut record) = shown();
    change(&mut record);
    judge(&plan.cases[1], &plan.contracts["unguarded"], &record)
}

#[test]
fn a_breakage_that_is_shown_is_green() {
    let result = judged(|_| {});
    assert_eq!((result.verdict.kind, result.green), (Kind::Pass, true), "{:?}", result.verdict);
    assert_eq!(result.broken["blocks"], "nobody waits");
    assert_eq!(result.broken["pins-balanced"], "the pin stays");
    assert!(result.clauses.is_empty(), "{:?}", result.clauses);
    let watch = result.steps.iter().find(|step| step.id == "watch").unwrap();
    assert_eq!(watch.status, StepStatus::BrokenAsExpected);
}

#[test]
fn a_kernel_that_keeps_the_promise_after_all_is_noticed() {
    let held = judged(|record| record.facts.get_mut("watch").unwrap().outcome = blocked());
    assert_eq!((held.verdict.kind, held.verdict.step.as_deref()), (Kind::Fail, Some("watch")));
    assert!(held.verdict.got.as_ref().unwrap().contains("the promise was kept, but blocks is expected broken"));
    assert!(held.clauses.is_empty() && held.broken.is_empty(), "neither broken nor proved");
    let clean = judged(|record| oracles(record).pins_after.released = 9);
    assert_eq!(clean.verdict.step.as_deref(), Some("oracle/pins"), "{:?}", clean.verdict);
    assert!(clean.verdict.expected.unwrap().contains("expected broken (the pin stays)"));
}

#[test]
fn no_other_red_is_excused() {
    type Change = fn(&mut Record);
    let table: [(&str, &str, Change); 6] = [
        ("another errno", "watch", |r| r.facts.get_mut("watch").unwrap().outcome = Outcome::Errno(5)),
        ("a killed actor", "watch", |r| {
            r.facts.get_mut("watch").unwrap().outcome = Outcome::Killed("SIGBUS".into())
        }),
        ("nothing", "watch", |r| drop(r.facts.remove("watch"))),
        ("another step", "free", |r| r.facts.get_mut("free").unwrap().outcome = Outcome::Errno(5)),
        ("another oracle", "oracle/regions", |r| oracles(r).regions_left = 1),
        ("an oracle nobody asked", "oracle/umount", |r| oracles(r).umount.clear()),
    ];
    for (what, step, change) in table {
        let result = judged(change);
        assert_eq!(
            (result.green, result.verdict.step.as_deref()),
            (false, Some(step)),
            "{what}: {:?}",
            result.verdict
        );
        assert!(result.broken.is_empty(), "{what}");
    }
}

#[test]
fn an_oracle_that_was_not_asked_everything_shows_no_breakage() {
    let plan = plan_of(
        CASE,
        &["unguarded"],
        "expect_broken: {unguarded: {oracle/umount: busy, oracle/fsck: damaged}}\n",
    );
    let green = |change: &dyn Fn(&mut Record)| {
        let mut record = good(&plan.cases[1]);
        oracles(&mut record).umount[0].errno = 16;
        record.fsck[0].status = Some(4);
        change(&mut record);
        judge(&plan.cases[1], &plan.contracts["unguarded"], &record).green
    };
    assert!(green(&|_| {}));
    assert!(!green(&|record| oracles(record).umount[0].errno = 0));
    assert!(!green(&|record| oracles(record).umount.truncate(1)));
    assert!(!green(&|record| record.fsck[0].status = Some(0)));
    assert!(!green(&|record| record.fsck[1].status = None));
    assert!(!green(&|record| record.fsck.truncate(1)));
}

#[test]
fn every_altered_fact_turns_a_shown_breakage_red() {
    let (plan, record) = shown();
    let records = vec![good(&plan.cases[0]), record];
    assert!(judge_all(&plan, &records)[1].green);
    let flipped = flip(&plan, &records);
    assert_eq!(flipped.vacuous, []);
    assert!(flipped.tried > 40, "{}", flipped.tried);
}

#[test]
fn a_table_says_broken_as_expected_and_broken_where_it_is_not() {
    let (plan, record) = shown();
    let state = |record: Record| {
        let cases = judge_all(&plan, &[good(&plan.cases[0]), record]);
        crate::report::clause_states(&plan, &cases)["unguarded-k"].clone()
    };
    assert_eq!(state(record.clone())["blocks"], ClauseState::BrokenAsExpected);
    let held = Record { facts: good(&plan.cases[1]).facts, ..record.clone() };
    assert_eq!(state(held)["blocks"], ClauseState::Inconclusive);
    let mut lost = record.clone();
    lost.files[0].map_sync = false;
    assert_eq!(state(lost)["blocks"], ClauseState::Inconclusive);
    let mut control = judge_all(&plan, &[Record::empty(End::Cancelled), record]);
    assert!(control.pop().unwrap().broken.is_empty(), "without its control it shows nothing");
    // Nothing of this run was to prove it.
    let plan = plan_of(&CASE.replace(", proves: [blocks]", ""), &["unguarded"], "");
    let cases = judge_all(&plan, &[good(&plan.cases[0]), good(&plan.cases[1])]);
    assert_eq!(crate::report::clause_states(&plan, &cases)["unguarded-k"]["blocks"], ClauseState::NotExercised);
}
