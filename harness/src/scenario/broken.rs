// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a scenario expects broken under a contract: the step that states the promise must come out as the
//! breakage looks, or the case is red. A kernel that keeps the promise after all is noticed, and no other
//! way to go wrong is excused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Action, Expect, Scenario, Under, op_name};
use crate::judge::ORACLES;
use crate::plan::PlannedStep;

/// A breakage as a scenario declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// Why it is expected.
    pub reason: String,
    /// What the step then comes out with, where it is not plainly the opposite.
    pub shown: Option<Expect>,
}

/// A step that is to show a breakage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// The clauses that it states and the kernel breaks.
    pub clauses: Vec<String>,
    /// Why.
    pub reason: String,
    /// What shows it.
    pub shown: Expect,
}

/// Before the name of an oracle.
pub(super) const ORACLE: &str = "oracle/";

/// Operations that compare bytes: they show a breakage by `differs` and by nothing else.
pub(super) const COMPARING: [&str; 3] = ["compare", "rdma_read", "gup_read"];

/// All that is declared broken under a contract, clauses and oracles.
fn declared<'a>(scenario: &'a Scenario, under: &Under<'_>) -> BTreeMap<&'a str, &'a Break> {
    let here = scenario.expect_broken.iter().filter(|(key, _)| under.admits(key));
    here.flat_map(|(_, breaks)| breaks.iter().map(|(name, one)| (name.as_str(), one))).collect()
}

/// The standing oracles that are expected to find something, and why.
#[must_use]
pub fn oracles(scenario: &Scenario, under: &Under<'_>) -> BTreeMap<String, String> {
    let named = declared(scenario, under).into_iter();
    let named = named.filter_map(|(name, one)| Some((name.strip_prefix(ORACLE)?, one.reason.clone())));
    named.filter(|(name, _)| ORACLES.contains(name)).map(|(name, why)| (name.to_owned(), why)).collect()
}

/// What a step is to show; `None` where nothing it proves is expected broken, or nothing could show it.
pub(super) fn of(scenario: &Scenario, under: &Under<'_>, step: &PlannedStep) -> Option<Broken> {
    let declared = declared(scenario, under);
    let clauses: Vec<&String> =
        step.proves.iter().filter(|clause| declared.contains_key(clause.as_str())).collect();
    let first = declared.get(clauses.first()?.as_str())?;
    let shown = first.shown.clone().or_else(|| opposite(scenario, step))?;
    Some(Broken { clauses: clauses.into_iter().cloned().collect(), reason: first.reason.clone(), shown })
}

/// What the opposite of a promise looks like: bytes that differ, a call that succeeds instead of being
/// refused or held up. A call that is to succeed can fail in too many ways to have an opposite.
fn opposite(scenario: &Scenario, step: &PlannedStep) -> Option<Expect> {
    let differs = || "differs".parse().ok();
    match &step.action {
        Action::Still { .. } => Some(Expect::ok()),
        _ if step.expect.is_refusal() || step.expect.may_block() => Some(Expect::ok()),
        _ if !step.expect.admits_success() => (step.expect.to_string() == "differs").then(Expect::ok),
        Action::Do { op, .. } => COMPARING.contains(&op_name(op).as_str()).then(differs)?,
        Action::Await { step: awaited } => {
            let started = scenario.steps.iter().find(|one| one.id == *awaited)?;
            let (Action::Do { op, .. } | Action::Start { op, .. }) = &started.action else { return None };
            COMPARING.contains(&op_name(op).as_str()).then(differs)?
        }
        _ => None,
    }
}

/// Something wrong with what is declared broken: the key of the contract, the clause or oracle, and what.
pub(super) type Fault = (String, String, String);

/// Checks what one contract's declarations say against its steps.
pub(super) fn check(scenario: &Scenario, under: &Under<'_>, steps: &[PlannedStep]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (key, breaks) in scenario.expect_broken.iter().filter(|(key, _)| under.admits(key)) {
        for name in breaks.keys().filter(|name| !name.starts_with(ORACLE)) {
            let proving = || steps.iter().filter(|step| step.excluded.is_none() && step.proves.contains(name));
            let mut say = |message: String| faults.push((key.clone(), name.clone(), message));
            if proving().next().is_none() {
                say(format!(
                    "no step proves `{name}` under {}: nothing could show that it is broken",
                    under.label()
                ));
            }
            for step in proving() {
                let Some(broken) = &step.broken else {
                    say(format!(
                        "step `{}` expects `{}`, which has no plain opposite: say `{{reason: .., as: OUTCOME}}`",
                        step.id, step.expect
                    ));
                    continue;
                };
                if let Some(other) = step.proves.iter().find(|clause| !broken.clauses.contains(clause)) {
                    say(format!(
                        "step `{}` proves `{other}` too, which is to hold: no outcome can be right for both",
                        step.id
                    ));
                }
                if !matches!(step.action, Action::Still { .. }) && overlap(&broken.shown, &step.expect) {
                    say(format!("`{}` would not show it: step `{}` expects that", broken.shown, step.id));
                }
            }
        }
    }
    faults
}

fn overlap(shown: &Expect, expect: &Expect) -> bool {
    let members = |set: &Expect| -> Vec<String> {
        let text = set.to_string();
        text.trim_start_matches("one of: ").split(", ").map(str::to_owned).collect()
    };
    let expected = members(expect);
    members(shown).iter().any(|one| expected.contains(one))
        || (shown.admits_success() && expect.admits_success())
}
