// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a program says of its own tests against what is expected of each.

use holdfast_protocol::{NO_PROGRAM, Op, Outcome, ProgramEnd, Ran};
use serde::{Deserialize, Serialize};

use super::steps::StepStatus;
use crate::plan::{PlannedCase, PlannedStep};
use crate::record::Record;
use crate::scenario::{Action, Results, result_glob};
use crate::tap::{self, Status};

/// One result of a program: a line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramResult {
    /// The names of the tests above it, and its own.
    pub name: String,
    /// What became of it.
    pub status: StepStatus,
    /// What should have come.
    pub expected: String,
    /// What came.
    pub got: String,
}

const OK: &str = "ok";
const NOT_OK: &str = "not ok";
const SKIPPED: &str = "skipped";

/// What is to be said of a program's output.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) results: Vec<ProgramResult>,
    /// The first that is not as expected.
    pub(super) red: Option<String>,
    /// Why nothing can be said, where no result is red.
    pub(super) doubt: Option<String>,
    /// How many came to what.
    pub(super) summary: String,
}

/// Reads the output of a step's program; `None` where nobody wants its results, or it did not run.
pub(super) fn of_step(step: &PlannedStep, outcome: &Outcome) -> Option<Said> {
    match (&step.results, outcome) {
        (Some(expected), Outcome::Ran(ran)) => Some(read(expected, ran)),
        _ => None,
    }
}

fn read(expected: &Results, ran: &Ran) -> Said {
    let report = tap::read(&ran.output);
    let counts = report.counts();
    let globs = |list: &[String]| list.iter().filter_map(|glob| result_glob(glob).ok()).collect::<Vec<_>>();
    let (not_ok, skipped) = (globs(&expected.not_ok), globs(&expected.skipped));
    let mut results = Vec::new();
    let mut strange = None;
    for (name, test) in report.results() {
        let want_not_ok = not_ok.iter().any(|glob| glob.is_match(&name));
        let want_skipped = skipped.iter().any(|glob| glob.is_match(&name));
        let want = match (want_not_ok, want_skipped) {
            (true, _) => NOT_OK,
            (_, true) => SKIPPED,
            _ => OK,
        };
        let (got, status) = match test.status {
            Status::Ok => (OK, as_expected(want == OK)),
            Status::NotOk => (NOT_OK, as_expected(want == NOT_OK)),
            Status::Skipped => {
                if want != SKIPPED {
                    strange.get_or_insert_with(|| format!("`{name}` was skipped: {}", test.reason));
                }
                (SKIPPED, StepStatus::NotApplicable)
            }
            Status::Known => ("known not to work", StepStatus::NotApplicable),
            Status::Lost => ("no result", StepStatus::NotRun),
            Status::Empty => ("no test", StepStatus::NotRun),
        };
        let reason = if test.reason.is_empty() { String::new() } else { format!(" ({})", test.reason) };
        results.push(ProgramResult { name, status, expected: want.to_owned(), got: format!("{got}{reason}") });
    }
    let is_red = |one: &&ProgramResult| one.status == StepStatus::NotAsExpected;
    let reds = results.iter().filter(is_red).count();
    let red = results.iter().find(is_red).map(|one| {
        let more = if reds > 1 { format!(", and {} more", reds - 1) } else { String::new() };
        format!("`{}` is {}, {} was expected{more}", one.name, one.got, one.expected)
    });
    // What is named must have come so: a TODO may come out either way, and shows nothing.
    let unseen = |globs: &[String], how: &'static str| {
        let came = |glob: &&String| {
            let came = |one: &ProgramResult| one.got == how || one.got.starts_with(&format!("{how} ("));
            let Ok(glob) = result_glob(glob) else { return false };
            results.iter().any(|one| came(one) && glob.is_match(&one.name))
        };
        globs
            .iter()
            .find(|glob| !came(glob))
            .map(|glob| format!("no result that is called `{glob}` came {how}"))
    };
    let unmatched = unseen(&expected.not_ok, NOT_OK).or_else(|| unseen(&expected.skipped, SKIPPED));
    let total = results.len() as u64;
    let doubt = if ran.dropped > 0 {
        Some(format!("{} bytes of what it printed are not kept, and results with them", ran.dropped))
    } else if let (Some(why), true) = (&report.bailed_out, gave_up_early(&report.tests)) {
        Some(format!("it gave up: {why}"))
    } else if let Some(why) = &report.skipped {
        Some(format!("it skipped everything: {why}"))
    } else if let Some(fault) = report.faults.first() {
        Some(format!("line {} of its output: {}", fault.line, fault.what))
    } else if total < expected.at_least {
        Some(format!("{total} results, and fewer than {} show nothing", expected.at_least))
    } else if report.tests.plan.is_none() && expected.at_least == 0 {
        Some("it announced no plan, and no `at_least` says how many results must come".to_owned())
    } else if strange.is_some() {
        strange
    } else if counts.ok + counts.not_ok == 0 {
        Some("no test of it was run".to_owned())
    } else {
        unmatched
    };
    let parts = [
        (counts.ok, "ok"),
        (counts.not_ok, "not ok"),
        (counts.skipped, "skipped"),
        (counts.known, "known not to work"),
        (counts.lost, "without a result"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    let summary = if parts.is_empty() { "no results".to_owned() } else { parts.join(", ") };
    Said { results, red, doubt, summary }
}

/// Kselftests also say that they give up behind the last result, where one of all was not ok (kselftest.h
/// ksft_exit_fail_msg()).
fn gave_up_early(tests: &tap::Tests) -> bool {
    tests.plan.is_none() || tests.missing() > 0
}

fn as_expected(is: bool) -> StepStatus {
    if is { StepStatus::AsExpected } else { StepStatus::NotAsExpected }
}

/// A program that could not be run for want of it, or whose results say nothing, and why.
pub(super) fn doubt(case: &PlannedCase, record: &Record) -> Option<String> {
    case.steps.iter().filter(|step| step.excluded.is_none()).find_map(|step| {
        let outcome = &record.facts.get(&step.id)?.outcome;
        of_step(step, outcome)?.doubt.map(|why| format!("step {} ({}): {why}", step.id, step.label()))
    })
}

/// The step, if it is one whose outcome is a program's: it ran it, or waited for it.
fn program_step<'p>(case: &'p PlannedCase, id: &str) -> Option<&'p PlannedStep> {
    let runs = |step: &PlannedStep| {
        matches!(&step.action, Action::Do { op: Op::Program(_), .. } | Action::Start { op: Op::Program(_), .. })
    };
    let step = case.steps.iter().find(|step| step.id == id)?;
    case.steps.iter().any(|one| one.id == step.source() && runs(one)).then_some(step)
}

/// A program that this guest does not have.
pub(super) fn absent(case: &PlannedCase, record: &Record) -> Option<String> {
    record.facts.iter().find_map(|(id, fact)| match &fact.outcome {
        Outcome::NotIssued { why } if why.starts_with(NO_PROGRAM) && program_step(case, id).is_some() => {
            Some(format!("step {id}: {why}"))
        }
        _ => None,
    })
}

/// A program whose time was over, whether or not it could be ended.
pub(super) fn is_overdue(case: &PlannedCase, record: &Record, id: &str) -> bool {
    let watches = |step: &PlannedStep| matches!(step.action, Action::Still { .. });
    match record.facts.get(id).map(|fact| &fact.outcome) {
        Some(Outcome::Ran(ran)) => matches!(ran.end, ProgramEnd::Overdue { .. }),
        Some(Outcome::Blocked { .. }) => program_step(case, id).is_some_and(|step| !watches(step)),
        _ => false,
    }
}
