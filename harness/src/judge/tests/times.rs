// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls that are too late, or too early, and guests that stood still meanwhile.

use super::*;

/// The case's transfer came to this, in a step of so much time in which the guest stood still, by its own count and the
/// host's.
fn transferred(provider: Provider, outcome: Outcome, stalled_ms: u64, lost_ms: u64) -> (Kind, Option<String>) {
    let mut plan = plan(&["unguarded"], "");
    let case = &mut plan.cases[1];
    case.setup.provider = provider;
    let mut record = good(case);
    let live = record.facts.get_mut("live").unwrap();
    (live.outcome, live.took_ms, live.stalled_ms) = (outcome, 8_000, stalled_ms);
    record.lost_ms.insert("live".into(), lost_ms);
    let result = judge(case, &plan.contracts["unguarded"], &record);
    (result.verdict.kind, result.verdict.got)
}

#[test]
fn a_connection_that_a_guest_lost_while_it_stood_still_shows_nothing() {
    let status = |name: &str| Outcome::Completion(name.into());
    let kind = |provider, outcome, stalled, lost| transferred(provider, outcome, stalled, lost).0;
    for name in ["RETRY_EXC_ERR", "WR_FLUSH_ERR", "TIMEOUT"] {
        let (kind, why) = transferred(Provider::Rxe, status(name), 7_000, 7_000);
        assert_eq!(kind, Kind::Inconclusive, "{name}");
        assert!(why.as_ref().is_some_and(|why| why.contains("stood still for 7000 ms")), "{why:?}");
    }
    let flushed = || status("WR_FLUSH_ERR");
    assert_eq!(kind(Provider::Rxe, flushed(), 1_599, 7_000), Kind::Fail, "the guest ran");
    assert_eq!(kind(Provider::Rxe, flushed(), 7_000, 1_599), Kind::Fail, "the host let it");
    assert_eq!(kind(Provider::Rxe, status("REM_ACCESS_ERR"), 7_000, 7_000), Kind::Fail, "it was answered");
    assert_eq!(kind(Provider::Siw, flushed(), 7_000, 7_000), Kind::Fail, "so does siw answer");
    let mut plan = plan(&["unguarded"], "");
    let case = &mut plan.cases[1];
    let mut record = good(case);
    let live = record.facts.get_mut("live").unwrap();
    (live.outcome, live.took_ms, live.stalled_ms) = (flushed(), 1_599, 7_000);
    record.lost_ms.insert("live".into(), 7_000);
    let verdict = judge(case, &plan.contracts["unguarded"], &record).verdict;
    assert_eq!(verdict.kind, Kind::Fail, "the transfer itself was not waited for so long");
    assert_eq!(kind(Provider::Rxe, Outcome::Errno(14), 7_000, 7_000), Kind::Fail);
}

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
