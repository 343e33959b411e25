// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clauses that a case has shown to be broken as its scenario expects.

use std::collections::BTreeMap;

use super::{OracleResult, StepResult, StepStatus, Verdict};
use crate::contract::{Contract, NO_STALE_READ, NO_STALE_WRITE, PINS_BALANCED};
use crate::outcome::Kind;
use crate::plan::PlannedCase;

/// By clause the reason; nothing where the case did not pass, because then something else was wrong too.
pub(super) fn shown(
    case: &PlannedCase,
    contract: &Contract,
    steps: &[StepResult],
    oracles: &[OracleResult],
    verdict: &Verdict,
) -> BTreeMap<String, String> {
    let mut shown = BTreeMap::new();
    if verdict.kind != Kind::Pass {
        return shown;
    }
    for (planned, step) in case.steps.iter().zip(steps) {
        if let (Some(broken), StepStatus::BrokenAsExpected) = (&planned.broken, step.status) {
            shown.extend(broken.clauses.iter().map(|clause| (clause.clone(), broken.reason.clone())));
        }
    }
    let unbalanced = oracles.iter().find(|oracle| oracle.balance && !oracle.clean);
    if let Some(why) = unbalanced.and_then(|oracle| oracle.broken.clone())
        && contract.clauses.contains_key(PINS_BALANCED)
    {
        shown.insert(PINS_BALANCED.to_owned(), why);
    }
    for name in [NO_STALE_WRITE, NO_STALE_READ] {
        let oracle = oracles.iter().find(|oracle| oracle.name == name && !oracle.clean);
        if let Some(why) = oracle.and_then(|oracle| oracle.broken.clone())
            && contract.clauses.contains_key(name)
        {
            shown.insert(name.to_owned(), why);
        }
    }
    shown
}
