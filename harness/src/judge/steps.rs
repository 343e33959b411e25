// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each step's fact against its expectation and its bounds in time.

use std::borrow::Cow;

use holdfast_protocol::{Count, Fact, Outcome, Provider};
use serde::{Deserialize, Serialize};

use super::lives;
use super::results::{self, ProgramResult};
use crate::plan::{PlannedCase, PlannedStep};
use crate::record::Record;
use crate::scenario::{Action, describe};

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepStatus {
    /// It came back as expected.
    AsExpected,
    /// It came back otherwise.
    NotAsExpected,
    /// It showed the breakage that is expected of it.
    BrokenAsExpected,
    /// The contract rules it out.
    NotApplicable,
    /// It was planned and could not be issued, or was never reached.
    NotRun,
    /// It came back otherwise, and why is nothing that can be told: a connection that the guest lost while it stood
    /// still.
    Undecided,
}

impl StepStatus {
    /// It makes its case red.
    #[must_use]
    pub const fn is_red(self) -> bool {
        matches!(self, Self::NotAsExpected | Self::NotRun)
    }
}

/// One step of one case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepResult {
    /// Its id.
    pub id: String,
    /// What it does, in a few words.
    pub label: String,
    /// What became of it.
    pub status: StepStatus,
    /// What should have come back.
    pub expected: String,
    /// What came back, or why it did not run.
    pub got: String,
    /// From issue to return, in milliseconds of the guest.
    pub took_ms: u64,
    /// It compares a result (a `start` does not).
    pub checked: bool,
    /// What its program said of its tests, where that was read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<ProgramResult>,
}

/// All steps of a case, played or not.
pub(super) fn judge(case: &PlannedCase, record: &Record) -> Vec<StepResult> {
    let mut results: Vec<StepResult> = case.steps.iter().map(|step| one(step, record)).collect();
    // A connection is gone for good, also for the steps behind the one in which the guest stood still, and for those
    // that were drawn beside it.
    let given_up: Vec<Option<u64>> = case
        .steps
        .iter()
        .zip(&results)
        .map(|(step, result)| {
            let fact = record.facts.get(&step.id).filter(|_| result.status == StepStatus::NotAsExpected)?;
            given_up_after(step, fact, record, case.setup.provider)
        })
        .collect();
    let stood = |nr: &usize| {
        let ms = given_up[*nr].unwrap_or(0).min(stood_ms(&case.steps[*nr], record));
        ms >= TRANSPORT_PATIENCE_MS
    };
    if let Some(lost_in) = (0..results.len()).find(stood) {
        let step = &case.steps[lost_in];
        let beside = |other: &PlannedStep| step.group().is_some() && other.group() == step.group();
        let why =
            format!("step {}, while which the guest stood still for {} ms", step.id, stood_ms(step, record));
        for (nr, result) in results.iter_mut().enumerate() {
            if given_up[nr].is_some() && (nr >= lost_in || beside(&case.steps[nr])) {
                result.status = StepStatus::Undecided;
                result.got = format!("{}: the connection did not outlive {why}", result.got);
            }
        }
    }
    // A refusal counts only next to its twin.
    for nr in 0..results.len() {
        let Some(twin) = &case.steps[nr].twin else { continue };
        let shown = results.iter().any(|step| step.id == *twin && step.status == StepStatus::AsExpected);
        if results[nr].status == StepStatus::AsExpected && !shown {
            results[nr].status = StepStatus::NotRun;
            results[nr].got = format!("{}, but its twin `{twin}` did not succeed", results[nr].got);
        }
    }
    results
}

fn one(step: &PlannedStep, record: &Record) -> StepResult {
    let fact = record.facts.get(&step.id);
    let expected = expected(step, record.pace);
    let (mut status, mut got) = match (&step.excluded, fact) {
        (Some(why), _) => (StepStatus::NotApplicable, why.clone()),
        (None, _) if step.action == Action::PowerCut => lives::came_back(step, record),
        (None, None) => (StepStatus::NotRun, "never reached".to_owned()),
        (None, Some(fact)) => compare(step, fact, record),
    };
    let said = fact.and_then(|fact| results::of_step(step, &fact.outcome)).unwrap_or_default();
    if !said.summary.is_empty() {
        got = format!("{got}; {}", said.summary);
    }
    if let (Some(red), StepStatus::AsExpected) = (&said.red, status) {
        status = StepStatus::NotAsExpected;
        got = format!("{red}; {}", said.summary);
    }
    StepResult {
        id: step.id.clone(),
        label: step.label(),
        status,
        expected,
        got,
        took_ms: fact.map_or_else(|| lives::took_ms(step, record), |fact| fact.took_ms),
        checked: !matches!(step.action, Action::Start { .. }),
        results: said.results,
    }
}

fn expected(step: &PlannedStep, pace: f64) -> String {
    let mut text = match &step.action {
        Action::Start { .. } => "issued".to_owned(),
        Action::PowerCut => lives::EXPECTED.to_owned(),
        Action::Still { for_ms, .. } => format!("blocks for {} ms", scaled(*for_ms, pace)),
        _ => step.expect.to_string(),
    };
    if step.results.is_some() {
        text += ", and its results";
    }
    if let Some(broken) = &step.broken {
        text = format!("{}, because {}", broken.shown, broken.in_words());
    }
    if let Some(bound) = step.not_before_ms {
        text += &format!(", not before {} ms", by_whole_paces(bound, pace));
    }
    if let Some(after) = &step.after {
        text += &format!(", not before {after}");
    }
    if let Some(bound) = step.not_after_ms {
        text += &format!(", within {} ms", scaled(bound, pace));
    }
    text
}

fn compare(step: &PlannedStep, fact: &Fact, record: &Record) -> (StepStatus, String) {
    let pace = record.pace;
    let got = match &fact.outcome {
        Outcome::Returned(value) if step.expect.names_a_value() => format!("ok {value}"),
        outcome => describe(outcome),
    };
    if matches!(fact.outcome, Outcome::NotIssued { .. }) {
        return (StepStatus::NotRun, got);
    }
    let admitted = match &step.action {
        Action::Start { .. } => true,
        Action::Still { for_ms, .. } => {
            // The call must have been watched for as long as the step says.
            matches!(fact.outcome, Outcome::Blocked { .. }) && watched_for(fact, scaled(*for_ms, pace))
        }
        // Never a fact of its own.
        Action::PowerCut => false,
        Action::Draw { .. } => foreign(step, fact, record).is_none(),
        Action::Do { .. } | Action::Await { .. } | Action::Use { .. } => {
            let watched = fact.outcome != Outcome::NoSignal || watched_for(fact, scaled(step.wait_ms, pace));
            watched && step.expect.admits(&fact.outcome, &|id| returned(record, id))
        }
    };
    // Late even if every stall is believed; `undecided` looks at those that the host did not see.
    let late = latest(step, fact, pace).is_some_and(|bound| fact.ran_ms() > bound);
    let early = early_by(step, fact, pace).is_some_and(|early_ms| early_ms > lost_ms(step, record));
    // What lets the call return must have been done before it returned.
    let cause = step.after.as_ref().map(|id| done_at(record, id).unwrap_or(u64::MAX));
    let early = early || cause.is_some_and(|cause_ms| fact.at_ms.saturating_add(fact.took_ms) < cause_ms);
    let held = admitted && !early && !late;
    match &step.broken {
        None if held => (StepStatus::AsExpected, got),
        Some(broken) if held => {
            (StepStatus::NotAsExpected, format!("{got}: the promise was kept, but {}", broken.in_words()))
        }
        // A bound in time from above holds for the breakage too.
        Some(broken) if broken.shown.admits(&fact.outcome, &|id| returned(record, id)) && !late => {
            (StepStatus::BrokenAsExpected, got)
        }
        _ => match foreign(step, fact, record) {
            Some(count) => (StepStatus::NotAsExpected, at_draw(&count, &got)),
            None => (StepStatus::NotAsExpected, format!("{got} after {} ms", fact.took_ms)),
        },
    }
}

/// What a drawn operation came to and should not have.
fn foreign<'f>(step: &PlannedStep, fact: &'f Fact, record: &Record) -> Option<Cow<'f, Count>> {
    let admitted = |outcome: &Outcome| step.expect.admits(outcome, &|id| returned(record, id));
    match (&step.action, &fact.outcome) {
        (Action::Draw { .. }, Outcome::Tally(counts)) => {
            counts.iter().find(|count| !admitted(&count.outcome)).map(Cow::Borrowed)
        }
        // Its actor did not come back from the stress.
        (Action::Draw { .. }, outcome) if !admitted(outcome) => Some(Cow::Owned(Count {
            outcome: outcome.clone(),
            times: 1,
            first_draw: 0,
            longest_ms: fact.took_ms,
        })),
        _ => None,
    }
}

/// How long rxe goes on with a peer that does not answer: its retries of hf_connect_qp(), images/agent/src/verbs.c. A
/// guest that stood still as long finds its timers over before any answer.
const TRANSPORT_PATIENCE_MS: u64 = 1_600;

/// How long a guest stood still while a step went on, as far as it and its host agree, in milliseconds; of a stress all
/// in all.
fn stood_ms(step: &PlannedStep, record: &Record) -> u64 {
    record.facts.get(&step.id).map_or(0, |fact| fact.stalled_ms.min(lost_ms(step, record)))
}

/// Where all that a step came to and should not have is that a connection of rxe was given up: the longest that one of
/// those transfers took, in milliseconds. What it could not send, or not again, rxe completes as flushed
/// (flush_send_wqe(), drivers/infiniband/sw/rxe/rxe_comp.c); TCP, below siw, waits.
fn given_up_after(step: &PlannedStep, fact: &Fact, record: &Record, provider: Provider) -> Option<u64> {
    let given_up = |outcome: &Outcome| match outcome {
        Outcome::Completion(status) => ["RETRY_EXC_ERR", "WR_FLUSH_ERR", "TIMEOUT"].contains(&status.as_str()),
        _ => false,
    };
    let admitted = |outcome: &Outcome| step.expect.admits(outcome, &|id| returned(record, id));
    let one = [(&fact.outcome, fact.took_ms)];
    let all: Vec<(&Outcome, u64)> = match &fact.outcome {
        Outcome::Tally(counts) => counts.iter().map(|count| (&count.outcome, count.longest_ms)).collect(),
        _ => one.into(),
    };
    let foreign: Vec<(&Outcome, u64)> = all.into_iter().filter(|(outcome, _)| !admitted(outcome)).collect();
    let only = provider.is_rxe() && foreign.iter().all(|(outcome, _)| given_up(outcome));
    foreign.iter().map(|(_, longest_ms)| *longest_ms).max().filter(|_| only)
}

fn at_draw(count: &Count, got: &str) -> String {
    let what = describe(&count.outcome);
    match count.first_draw {
        0 => format!("{what} when the stress was over"),
        draw => format!("{what} at draw {draw} of its actor; in all {got}"),
    }
}

/// A drawn operation that did not come to what makes the stress worth something, and what that is.
pub(super) fn unreached(case: &PlannedCase, record: &Record) -> Option<String> {
    case.steps.iter().filter(|step| step.excluded.is_none()).find_map(|step| {
        let Outcome::Tally(counts) = &record.facts.get(&step.id)?.outcome else { return None };
        let never = |what: String| Some(format!("step {} ({}) {what}", step.id, step.label()));
        if counts.is_empty() {
            return never("was never drawn".to_owned());
        }
        let reaches = step.reaches.as_ref()?;
        let reached = counts.iter().any(|count| reaches.admits(&count.outcome, &|id| returned(record, id)));
        if reached { None } else { never(format!("never came to {reaches}")) }
    })
}

/// When a step was issued: one of the case's, or one that a handler ran and that was awaited.
fn done_at(record: &Record, id: &str) -> Option<u64> {
    let fact = record.facts.get(id).or_else(|| record.facts.values().find(|fact| fact.step == id));
    fact.map(|fact| fact.at_ms)
}

/// The number that a step returned.
fn returned(record: &Record, id: &str) -> Option<i64> {
    match record.facts.get(id)?.outcome {
        Outcome::Returned(value) => Some(value),
        _ => None,
    }
}

/// True if the guest ran for as long as a watch is to last.
fn watched_for(fact: &Fact, ms: u64) -> bool {
    fact.ran_ms() + fact.stalled_ms.min(STALL_GRAIN_MS) >= ms
}

/// By when a step must have come back, in milliseconds since its operation was issued.
fn latest(step: &PlannedStep, fact: &Fact, pace: f64) -> Option<u64> {
    let blocked = matches!(fact.outcome, Outcome::Blocked { .. });
    let waited = matches!(step.action, Action::Do { .. }) && !blocked;
    let waited = waited.then(|| scaled(step.wait_ms, pace) + CLOCK_SLACK_MS);
    let bound = step.not_after_ms.map(|bound| scaled(bound, pace));
    waited.into_iter().chain(bound).min()
}

/// How much too early a step came back, in milliseconds.
fn early_by(step: &PlannedStep, fact: &Fact, pace: f64) -> Option<u64> {
    let bound = by_whole_paces(step.not_before_ms?, pace);
    bound.checked_sub(fact.took_ms).filter(|early_ms| *early_ms > 0)
}

/// How long the host kept the guest waiting while a step went on, in milliseconds.
fn lost_ms(step: &PlannedStep, record: &Record) -> u64 {
    record.lost_ms.get(&step.id).copied().unwrap_or(0)
}

/// How long a call took of what both sides count as the guest's time. The guest alone cannot tell a kernel
/// that is busy from a host that keeps it waiting, so its stalls excuse no more than the host saw.
fn ran_ms(step: &PlannedStep, fact: &Fact, record: &Record) -> u64 {
    fact.took_ms.saturating_sub(fact.stalled_ms.min(lost_ms(step, record)))
}

/// A step whose bounds in time nothing can be said of, and why: it is early or late only if the guest did
/// not stand still, and the two sides do not agree on that.
pub(super) fn undecided(case: &PlannedCase, record: &Record) -> Option<String> {
    case.steps.iter().find_map(|step| {
        let fact = record.facts.get(&step.id)?;
        let ran_ms = ran_ms(step, fact, record);
        let early = step.not_before_ms.map(|bound| by_whole_paces(bound, record.pace));
        let early = early.is_some_and(|bound| fact.took_ms >= bound && ran_ms < bound);
        // The kernel counts its own times in ticks. A guest that was kept waiting gets those late and all at once,
        // and a time that began before is over so much earlier.
        let caught_up = early_by(step, fact, record.pace).is_some_and(|ms| ms <= lost_ms(step, record));
        let early = early || caught_up;
        let late = latest(step, fact, record.pace);
        let late = late.is_some_and(|bound| ran_ms > bound && fact.ran_ms() <= bound);
        (early || late).then(|| {
            format!(
                "step {}: of {} ms the guest says that it stood still for {} ms, the host that it kept it waiting for {} ms",
                step.id,
                fact.took_ms,
                fact.stalled_ms,
                record.lost_ms.get(&step.id).copied().unwrap_or(0)
            )
        })
    })
}

/// A stall ends within a tick of the guest's own count and its slack (images/agent/src/progress.rs).
const STALL_GRAIN_MS: u64 = 12;

/// Between the wait of the guest's session and the time stamp it takes lie a few system calls.
const CLOCK_SLACK_MS: u64 = 200;

/// A time of a scenario on this machine and kernel.
#[must_use]
pub fn scaled(ms: u64, pace: f64) -> u64 {
    (ms as f64 * pace).round() as u64
}

/// A time that the kernel keeps, on this machine and kernel, in its own unit or a bound from below on it. It
/// counts in whole seconds and knows nothing of paces: what it is told is multiplied by a whole number, and
/// what is expected of it by the same.
#[must_use]
pub fn by_whole_paces(time: u64, pace: f64) -> u64 {
    time * (pace.floor() as u64).max(1)
}
