// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a program came to and said, line by line.

use holdfast_protocol::{ProgramEnd, Ran};

use super::*;

const PROGRAM: &str = "
about: t
because: t
contracts: [mainline, unguarded]
actors: {a: {}}
steps:
  - {id: run, by: a, do: {program: {name: tests}}, expect_by: {mainline: exited 1, else: ok}, results: {at_least: 2, not_ok_by: {mainline: [b], else: []}, skipped: ['c*']}}
";

/// Good on mainline: `b` is known not to work there.
const SAID: &str = "TAP version 13\n1..3\nok 1 - a\nnot ok 2 - b\nok 3 - c # SKIP no device\n";

fn judged(end: ProgramEnd, said: &str, dropped: u64) -> CaseResult {
    let plan = plan_of(PROGRAM, &["mainline"], "");
    let (case, outcome) = (
        &plan.cases[1],
        Outcome::Ran(Box::new(Ran { end, output: said.into(), dropped, errors: String::new(), left: 0 })),
    );
    judge(case, &plan.contracts[&case.contract], &with(case, outcome))
}

fn with(case: &PlannedCase, outcome: Outcome) -> Record {
    let mut record = good(case);
    record.facts.get_mut("run").unwrap().outcome = outcome;
    record
}

fn exited(said: &str) -> (Kind, String) {
    let verdict = judged(ProgramEnd::Exited(1), said, 0).verdict;
    (verdict.kind, verdict.got.unwrap_or_default())
}

#[test]
fn each_result_is_a_line_of_the_report() {
    let result = judged(ProgramEnd::Exited(1), SAID, 0);
    assert_eq!(result.verdict.kind, Kind::Pass, "{:?}", result.verdict);
    let lines: Vec<(&str, StepStatus, &str)> =
        result.steps[0].results.iter().map(|one| (one.name.as_str(), one.status, one.got.as_str())).collect();
    let want = [
        ("a", StepStatus::AsExpected, "ok"),
        ("b", StepStatus::AsExpected, "not ok"),
        ("c", StepStatus::NotApplicable, "skipped (no device)"),
    ];
    assert_eq!(lines, want);
    assert!(result.steps[0].got.ends_with("1 ok, 1 not ok, 1 skipped"), "{}", result.steps[0].got);
}

#[test]
fn a_kselftest_that_gives_up_behind_its_last_result_has_told_all() {
    let result = judged(ProgramEnd::Exited(1), &format!("{SAID}Bail out! 1 out of 3 tests failed\n"), 0);
    assert_eq!(result.verdict.kind, Kind::Pass, "{:?}", result.verdict);
}

#[test]
fn what_is_not_as_expected_is_red_and_named() {
    let table = [
        (SAID.replace("ok 1 - a", "not ok 1 - a"), "`a` is not ok, ok was expected"),
        (SAID.replace("not ok 2 - b", "ok 2 - b"), "`b` is ok, not ok was expected"),
        (SAID.replace("ok 3 - c # SKIP no device", "ok 3 - c"), "`c` is ok, skipped was expected"),
    ];
    for (said, want) in table {
        let (kind, got) = exited(&said);
        assert_eq!(kind, Kind::Fail, "{said}");
        assert!(got.contains(want), "{got}");
    }
}

#[test]
fn what_says_nothing_is_inconclusive() {
    let table = [
        ("TAP version 13\n1..24\n".to_owned(), "24 tests were announced, 0 told of"),
        (String::new(), "no test is told of"),
        ("hello\n".to_owned(), "no test is told of"),
        (SAID.replace("1..3", "1..4"), "4 tests were announced, 3 told of"),
        (SAID.replace("ok 3", "ok 7"), "number 7 where 3 was to come"),
        (SAID.replace("ok 3", "Bail out! no memory\nok 3"), "it gave up: no memory"),
        (SAID.replace("1..3\n", "") + "Bail out! no memory\n", "it gave up: no memory"),
        ("1..0 # SKIP no such device\n".to_owned(), "it skipped everything: no such device"),
        ("1..1\nnot ok 1 - b\n".to_owned(), "1 results, and fewer than 2 show nothing"),
        (SAID.replace("ok 1 - a", "ok 1 - a # SKIP too slow"), "`a` was skipped: too slow"),
        (SAID.replace("- b", "- bb # TODO"), "no result that is called `b` came not ok"),
        (SAID.replace("- b", "- b # TODO"), "no result that is called `b` came not ok"),
        ("1..2\nok 1 c1 # SKIP\nok 2 c2 # SKIP\n".to_owned(), "no test of it was run"),
    ];
    for (said, want) in table {
        let (kind, got) = exited(&said);
        assert_eq!(kind, Kind::Inconclusive, "{said}: {got}");
        assert!(got.contains(want), "{said}: {got}");
    }
    let verdict = judged(ProgramEnd::Exited(1), SAID, 5).verdict;
    assert_eq!(verdict.kind, Kind::Inconclusive);
    assert!(verdict.got.unwrap().contains("5 bytes of what it printed are not kept"));
}

#[test]
fn how_it_ended_counts_first() {
    let overdue = ProgramEnd::Overdue {
        state: "S".into(),
        wchan: "x".into(),
        stack: vec!["[<0>] do_wait+0x1/0x2".into()],
    };
    let table = [
        (ProgramEnd::Killed("SIGSEGV".into()), Kind::Fail, "killed SIGSEGV"),
        (ProgramEnd::Exited(0), Kind::Fail, "exited 0"),
        (overdue, Kind::Timeout, "it was (S) in do_wait"),
    ];
    let plan = plan_of(PROGRAM, &["mainline"], "");
    let result = judge(&plan.cases[1], &plan.contracts["mainline"], &with(&plan.cases[1], blocked()));
    assert_eq!(result.verdict.kind, Kind::Timeout, "one that could not be ended");
    for (end, kind, want) in table {
        let result = judged(end, "1..3\nok 1 - a\n", 0);
        assert_eq!((result.verdict.kind, result.verdict.step.as_deref()), (kind, Some("run")));
        assert!(result.verdict.got.as_ref().unwrap().contains(want), "{:?}", result.verdict);
        assert_eq!(result.steps[0].results[0].name, "a", "what it said until then is there");
    }
}

#[test]
fn a_guest_without_the_program_has_no_verdict() {
    let plan = plan_of(PROGRAM, &["mainline"], "");
    let why = "this guest has no program `tests`".to_owned();
    let result =
        judge(&plan.cases[1], &plan.contracts["mainline"], &with(&plan.cases[1], Outcome::NotIssued { why }));
    assert_eq!(result.verdict.kind, Kind::Inconclusive);
}

#[test]
fn a_program_that_is_started_has_the_same_verdicts_where_it_is_awaited() {
    let started = "  - {id: it, by: a, start: {program: {name: tests}}}\n  - {id: run, await: it, expect: ok, results: {at_least: 1}}\n";
    let (head, _) = PROGRAM.split_once("  - {id: run").unwrap();
    let plan = plan_of(&format!("{head}{started}"), &["mainline"], "");
    let kind = |outcome| {
        judge(&plan.cases[1], &plan.contracts["mainline"], &with(&plan.cases[1], outcome)).verdict.kind
    };
    let absent = Outcome::NotIssued { why: "this guest has no program `tests`".into() };
    assert_eq!(kind(absent), Kind::Inconclusive);
    assert_eq!(kind(blocked()), Kind::Timeout);
    let ran = |said: &str| {
        let (end, output, errors) = (ProgramEnd::Exited(0), said.to_owned(), String::new());
        Outcome::Ran(Box::new(Ran { end, output, dropped: 0, errors, left: 0 }))
    };
    assert_eq!(kind(ran("1..1\nok 1\n")), Kind::Pass);
    assert_eq!(kind(ran("ok 1\n")), Kind::Pass, "somebody says how many");
}

#[test]
fn without_a_plan_and_a_number_nothing_is_shown() {
    let case = PROGRAM.replace("at_least: 2, ", "");
    let plan = plan_of(&case, &["mainline"], "");
    let (end, output, errors) = (ProgramEnd::Exited(1), SAID.replace("1..3\n", ""), String::new());
    let ran = Outcome::Ran(Box::new(Ran { end, output, dropped: 0, errors, left: 0 }));
    let result = judge(&plan.cases[1], &plan.contracts["mainline"], &with(&plan.cases[1], ran));
    assert_eq!(result.verdict.kind, Kind::Inconclusive);
    assert!(result.verdict.got.unwrap().contains("announced no plan"));
}

#[test]
fn every_alteration_of_what_it_said_is_noticed() {
    let plan = plan_of(
        &PROGRAM.replace("skipped: ['c*']}", "skipped: ['c*']}, proves: [longterm-refused]"),
        &["mainline"],
        "",
    );
    let outcome = Outcome::Ran(Box::new(Ran {
        end: ProgramEnd::Exited(1),
        output: SAID.into(),
        dropped: 0,
        errors: String::new(),
        left: 0,
    }));
    let flipped = flip(&plan, &[good(&plan.cases[0]), with(&plan.cases[1], outcome)]);
    assert!(flipped.vacuous.is_empty(), "{:?}", flipped.vacuous);
    assert!(flipped.tried > 20);
}
