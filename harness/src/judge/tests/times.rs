// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls that are too late, or too early, and guests that stood still meanwhile.

use super::*;

/// The verdict when the last step took so long, stood still for so long by the guest's word, and its QEMU
/// could not use so much of it.
fn timed(bound: fn(&mut PlannedStep), took_ms: u64, stalled_ms: u64, lost_ms: u64) -> Kind {
    let plan = plan(&["unguarded"], "");
    let mut case = plan.cases[1].clone();
    case.steps.iter_mut().filter(|step| step.id == "done").for_each(bound);
    let mut record = good(&case);
    let fact = record.facts.get_mut("done").unwrap();
    (fact.took_ms, fact.stalled_ms) = (took_ms, stalled_ms);
    record.lost_ms.insert("done".into(), lost_ms);
    judge(&case, &plan.contracts["unguarded"], &record).verdict.kind
}

#[test]
fn a_call_is_late_unless_guest_and_host_agree_that_it_could_not_run() {
    let late = |took_ms, stalled_ms, lost_ms| timed(|_| {}, took_ms, stalled_ms, lost_ms);
    // The bound is 5 s.
    assert_eq!(late(4000, 0, 0), Kind::Pass);
    assert_eq!(late(9000, 0, 0), Kind::Fail);
    assert_eq!(late(9000, 8000, 7900), Kind::Pass);
    assert_eq!(late(9000, 3000, 9000), Kind::Fail);
    // A kernel that is busy without a break looks to its guest like a host that is.
    assert_eq!(late(9000, 8000, 50), Kind::Inconclusive);
}

#[test]
fn a_call_waited_long_enough_unless_the_guest_stood_still() {
    let bound = |step: &mut PlannedStep| (step.not_before_ms, step.not_after_ms) = (Some(5000), None);
    let early = |took_ms, stalled_ms, lost_ms| timed(bound, took_ms, stalled_ms, lost_ms);
    assert_eq!(early(6000, 0, 0), Kind::Pass);
    assert_eq!(early(4000, 0, 0), Kind::Fail);
    // Ticks that come late come all at once.
    assert_eq!(early(4800, 0, 199), Kind::Fail);
    assert_eq!(early(4800, 0, 200), Kind::Inconclusive);
    assert_eq!(early(6000, 4000, 4000), Kind::Inconclusive);
    assert_eq!(early(6000, 4000, 10), Kind::Pass);
    assert_eq!(early(9000, 4000, 4000), Kind::Pass);
}

#[test]
fn a_bound_from_below_is_what_a_kernel_that_counts_in_seconds_can_keep() {
    let plan = plan(&["unguarded"], "");
    let judged = |pace: f64, took_ms: u64| {
        let mut case = plan.cases[1].clone();
        let done = case.steps.iter_mut().find(|step| step.id == "done").unwrap();
        done.not_before_ms = Some(1000);
        let mut record = good(&case);
        record.pace = pace;
        record.facts.values_mut().for_each(|fact| fact.took_ms = took_ms);
        let steps = judge(&case, &plan.contracts["unguarded"], &record).steps;
        steps.into_iter().find(|step| step.id == "done").unwrap()
    };
    for (pace, took_ms, status) in [
        (1.0, 999, StepStatus::NotAsExpected),
        (1.9, 1000, StepStatus::AsExpected),
        (5.7, 4999, StepStatus::NotAsExpected),
        (5.7, 5000, StepStatus::AsExpected),
    ] {
        let done = judged(pace, took_ms);
        assert_eq!(done.status, status, "{pace} {took_ms}: {}", done.expected);
    }
    assert!(judged(5.7, 1).expected.contains("not before 5000 ms, not before free, within 28500 ms"));
}
