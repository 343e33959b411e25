// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a case's plan and its recorded facts to a verdict. Pure: no clock, no file, no VM, so that
//! stored facts can be judged again, and altered facts too.

mod broken;
mod features;
mod lives;
mod oracles;
mod results;
mod steps;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use oracles::{ORACLES, OracleResult};
pub use results::ProgramResult;
pub use steps::{StepResult, StepStatus, by_whole_paces, scaled};

use holdfast_protocol::{FileFact, Hello, Leaks, Oracles, Place, Provider};

use crate::contract::{Contract, NO_STALE_READ, NO_STALE_WRITE, PINS_BALANCED};
use crate::outcome::Kind;
use crate::plan::{Plan, PlannedCase, round};
use crate::record::{End, Origin, Record};
use crate::splat;

/// What the host makes of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// One of the closed list.
    pub kind: Kind,
    /// The step, or the oracle as `oracle/NAME`, it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The title of a kernel bug.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What should have come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What came back, or why there is no verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub got: Option<String>,
}

impl Verdict {
    fn of(kind: Kind) -> Self {
        Self { kind, step: None, title: None, expected: None, got: None }
    }

    fn because(kind: Kind, got: impl Into<String>) -> Self {
        Self { got: Some(got.into()), ..Self::of(kind) }
    }
}

/// A case with its verdict: one row of the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseResult {
    /// Stable id.
    pub id: String,
    /// The kernel's name.
    pub kernel: String,
    /// The contract it was judged by.
    pub contract: String,
    /// It carries every green row of its kernel.
    pub control: bool,
    /// The verdict.
    pub verdict: Verdict,
    /// It is exactly the verdict that was expected.
    pub green: bool,
    /// Every step, played or not.
    pub steps: Vec<StepResult>,
    /// Every standing oracle that was consulted.
    pub oracles: Vec<OracleResult>,
    /// Clauses this case says something about; true when proved, false when broken.
    pub clauses: BTreeMap<String, bool>,
    /// Clauses it has shown to be broken as its scenario expects, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub broken: BTreeMap<String, String>,
    /// What was seen and expected, but should not go unsaid.
    pub notes: Vec<String>,
    /// How its machine came to be.
    pub machine: Origin,
    /// What its guest's random numbers were drawn from.
    pub seed: u64,
    /// The whole case, in milliseconds of the host.
    pub took_ms: u64,
}

/// Judges one case by itself.
#[must_use]
pub fn judge(case: &PlannedCase, contract: &Contract, record: &Record) -> CaseResult {
    let steps = steps::judge(case, record);
    let oracles = record
        .oracles
        .as_ref()
        .map(|seen| oracles::judge(seen, &record.fsck, &case.broken_oracles, case.setup.provider))
        .unwrap_or_default();
    let (undeclared, notes) = splats(contract, record);
    let verdict = verdict(case, record, &steps, &oracles, undeclared);
    let green = match &case.ends {
        _ if case.excluded.is_some() => true,
        Some(ends) => verdict.kind == ends.verdict && verdict.step == ends.step && verdict.title == ends.title,
        None => matches!(verdict.kind, Kind::Pass | Kind::NotApplicable),
    };
    // A declared end that did not come is red even though nothing else was wrong.
    let verdict = match (&case.ends, verdict.kind) {
        (Some(ends), Kind::Pass) => Verdict {
            kind: Kind::Fail,
            step: ends.step.clone(),
            expected: Some(format!("the declared end: {}", ends.verdict.name())),
            got: Some("every step and oracle was as in a good case".to_owned()),
            ..verdict
        },
        _ => verdict,
    };
    let clauses = clauses(case, contract, &steps, &oracles, &verdict);
    let broken = broken::shown(case, contract, &steps, &oracles, &verdict);
    CaseResult {
        id: case.id.clone(),
        kernel: case.kernel.clone(),
        contract: case.contract.clone(),
        control: case.control,
        verdict,
        green,
        steps,
        oracles,
        clauses,
        broken,
        notes,
        machine: record.machine,
        seed: record.seed,
        took_ms: record.took_ms,
    }
}

/// Judges a whole run; a kernel whose controls did not pass has no green row, and none of a provider whose own
/// controls did not. In a plan of several rounds each has controls of its own.
#[must_use]
pub fn judge_all(plan: &Plan, records: &[Record]) -> Vec<CaseResult> {
    let mut results: Vec<CaseResult> = plan
        .cases
        .iter()
        .zip(records)
        .map(|(case, record)| judge(case, &plan.contracts[&case.contract], record))
        .collect();
    let ground = |case: &PlannedCase| (case.kernel.clone(), round(&case.id).to_owned(), case.setup.provider);
    let grounds: BTreeSet<_> = plan.cases.iter().map(ground).collect();
    let judged = |(kernel, round, provider): &(String, String, Provider)| {
        no_ground(plan, &results, (kernel, round), *provider)
    };
    let groundless: BTreeMap<_, String> =
        grounds.into_iter().filter_map(|on| judged(&on).map(|why| (on, why))).collect();
    for (case, result) in plan.cases.iter().zip(&mut results) {
        if let Some(why) = groundless.get(&ground(case))
            && result.green
            && result.verdict.kind != Kind::NotApplicable
        {
            result.verdict = Verdict::because(Kind::Inconclusive, why.clone());
            result.green = false;
            result.clauses.retain(|_, proved| !*proved);
            result.broken.clear();
        }
    }
    results
}

/// Why no case with that provider can be green on a kernel in a round, if none can. The controls of the ordinary one are
/// about pins of the kernel, and carry every case; those of another one, where there are any, its own besides.
fn no_ground(
    plan: &Plan,
    results: &[CaseResult],
    (kernel, in_round): (&str, &str),
    provider: Provider,
) -> Option<String> {
    // One that was ruled out by plan has shown nothing.
    let mut of_kernel = plan.cases.iter().zip(results).filter(|(case, result)| {
        let here = case.kernel == kernel && round(&case.id) == in_round;
        case.control && here && result.verdict.kind != Kind::NotApplicable
    });
    let mut any = false;
    let bad = of_kernel.find(|(case, result)| {
        let ordinary = case.setup.provider.is_rxe();
        any |= ordinary;
        !result.green && (ordinary || case.setup.provider == provider)
    });
    match bad {
        Some((_, bad)) => Some(format!("the control {} did not pass ({})", bad.id, bad.verdict.kind.name())),
        None => (!any).then(|| "no control of this kernel was run".to_owned()),
    }
}

fn verdict(
    case: &PlannedCase,
    record: &Record,
    steps: &[StepResult],
    oracles: &[OracleResult],
    undeclared: Option<String>,
) -> Verdict {
    if let Some(why) = &case.excluded {
        return Verdict::because(Kind::NotApplicable, why.clone());
    }
    match &record.end {
        End::Cancelled => return Verdict::because(Kind::NotRun, "the run was ended before"),
        End::NotTried { why } => return Verdict::because(Kind::NotRun, why.clone()),
        End::Unknown { why } if undeclared.is_none() => return Verdict::because(Kind::Infra, why.clone()),
        // A fault of the host is none of the kernel's; but a splat before it is. A guest that was not ready has
        // refused what it could not do, and why it was not is what a person wants to know.
        End::Fault { why } if undeclared.is_none() => {
            return match record.hello.as_ref().and_then(|hello| {
                let lives = record.lives.iter().map(|life| &life.hello);
                [hello].into_iter().chain(lives).find_map(|hello| unready(hello, case.setup.provider))
            }) {
                Some(why) => Verdict::because(Kind::Inconclusive, why),
                None => Verdict::because(Kind::Infra, why.clone()),
            };
        }
        _ => {}
    }
    if record.hello.is_none()
        && let Some(why) = unbooted(record, undeclared.as_deref())
    {
        return Verdict::because(Kind::Inconclusive, why);
    }
    if let Some(title) = undeclared {
        return Verdict { title: Some(title), ..Verdict::of(Kind::KernelBug) };
    }
    match &record.end {
        End::QemuEnded { how, during } => {
            return Verdict {
                step: Some(during.clone()),
                ..Verdict::because(Kind::Lost, format!("QEMU ended: {how}"))
            };
        }
        End::Deadline { during, after_ms, qemu } => {
            let says = if qemu.is_empty() { "nothing" } else { qemu };
            let got = format!("no answer within {:.1} s; QEMU says: {says}", *after_ms as f64 / 1000.0);
            return Verdict { step: Some(during.clone()), ..Verdict::because(Kind::Timeout, got) };
        }
        _ => {}
    }
    if let Some(why) = precondition(case, record) {
        return Verdict::because(Kind::Inconclusive, why);
    }
    if let Some(why) = results::absent(case, record) {
        return Verdict::because(Kind::Inconclusive, why);
    }
    // What comes behind a step that cannot be decided may follow from it.
    let undecided = |step: &&StepResult| step.status == StepStatus::Undecided;
    if let Some(bad) = steps.iter().find(|step| step.status.is_red() || undecided(step)) {
        if undecided(&bad) {
            return Verdict::because(
                Kind::Inconclusive,
                format!("step {} ({}): {}", bad.id, bad.label, bad.got),
            );
        }
        let kind = if results::is_overdue(case, record, &bad.id) { Kind::Timeout } else { Kind::Fail };
        return Verdict {
            step: Some(bad.id.clone()),
            expected: Some(bad.expected.clone()),
            ..Verdict::because(kind, bad.got.clone())
        };
    }
    if let Some(bad) = oracles.iter().find(|oracle| oracle.is_red()) {
        return Verdict {
            step: Some(format!("oracle/{}", bad.name)),
            expected: Some(bad.expected.clone()),
            ..Verdict::because(Kind::Fail, bad.got.clone())
        };
    }
    if let Some(why) =
        record.oracles.as_ref().and_then(|seen| oracles::damage_unknown(&seen.damage, case.setup.provider))
    {
        return Verdict::because(Kind::Inconclusive, why);
    }
    let unsure = results::doubt(case, record).or_else(|| steps::unreached(case, record));
    if let Some(why) = unsure.or_else(|| steps::undecided(case, record)) {
        return Verdict::because(Kind::Inconclusive, why);
    }
    let shown = [StepStatus::AsExpected, StepStatus::BrokenAsExpected];
    if !steps.iter().any(|step| shown.contains(&step.status) && step.checked) {
        return Verdict::because(Kind::Inconclusive, "no step that expects something was applicable");
    }
    Verdict::of(Kind::Pass)
}

/// Why there was no hello: a kernel that does not boot is skipped by a bisection, not blamed.
fn unbooted(record: &Record, title: Option<&str>) -> Option<String> {
    let how = match &record.end {
        End::QemuEnded { how, .. } => format!("QEMU ended: {how}"),
        End::Deadline { after_ms, .. } => format!("no hello within {:.0} s", *after_ms as f64 / 1000.0),
        _ => return None,
    };
    let known = title.into_iter().chain(record.complaints.iter().map(String::as_str));
    let known: String = known.map(|one| format!("{one}; ")).collect();
    Some(format!("the guest did not boot: {known}{how}; see console.log and qemu.log"))
}

/// What had to be so before any result says anything; `None` when all of it was.
fn precondition(case: &PlannedCase, record: &Record) -> Option<String> {
    if let Some(bad) = record.config.first() {
        return Some(format!(
            "the running kernel has CONFIG_{}={}, {} was requested",
            bad.option, bad.got, bad.want
        ));
    }
    let Some(hello) = &record.hello else { return Some("the guest never said hello".to_owned()) };
    if hello.kernel != record.release {
        return Some(format!("the guest runs {}, not {}", hello.kernel, record.release));
    }
    if let Some(why) = unready(hello, case.setup.provider) {
        return Some(why);
    }
    if let Some(why) = features::unconfirmed(case, hello) {
        return Some(why);
    }
    if let Some(life) = record.lives.iter().find(|life| life.hello.kernel != record.release) {
        return Some(format!(
            "after {} the guest runs {}, not {}",
            life.step, life.hello.kernel, record.release
        ));
    }
    let lives = record.lives.iter();
    if let Some(why) = lives.filter_map(|life| unlinked(&life.hello, case.setup.provider)).next() {
        return Some(format!("when it had lost its power {why}"));
    }
    if hello.cpus != case.cpus {
        return Some(format!("the guest has {} processors, not {}", hello.cpus, case.cpus));
    }
    for (name, _) in case.setup.files.iter().filter(|(_, file)| !file.absent) {
        if !record.files.iter().any(|file| file.name == *name) {
            return Some(format!("nothing is known of file `{name}`"));
        }
    }
    if let Some(why) = record.files.iter().find_map(unproved) {
        return Some(why);
    }
    match &record.oracles {
        Some(oracles) if !oracles.log_mark_found => Some(
            "the mark of this case is gone from the kernel log: splats may have been overwritten".to_owned(),
        ),
        Some(Oracles { leaks: Leaks::Unknown { why }, .. }) => {
            Some(format!("nobody knows whether the kernel lost memory: {why}"))
        }
        Some(_) => None,
        // Nothing could be played any more, and the step that says so is red.
        None if lives::is_lost(record) => None,
        None => Some("the standing oracles were not consulted".to_owned()),
    }
}

/// Why a file that was made is not what every case relies on: DAX, and filled.
pub(crate) fn unproved(file: &FileFact) -> Option<String> {
    let FileFact { name, statx_dax, map_sync, filled, .. } = file;
    if !(*statx_dax && *map_sync) {
        return Some(format!("file `{name}` is not DAX (statx {statx_dax}, MAP_SYNC {map_sync})"));
    }
    (!filled).then(|| format!("file `{name}` does not hold its pattern before the first step"))
}

/// What a guest that introduced itself lacks; `None` when it has all its modules, all three NVDIMMs and the
/// provider's RDMA link.
#[must_use]
pub fn unready(hello: &Hello, provider: Provider) -> Option<String> {
    // The first one: what uses it fails for want of it.
    if let Some(module) = hello.unloaded.first() {
        return Some(format!("the guest's kernel did not load its module {}: {}", module.name, module.why));
    }
    for place in [Place::Ext4, Place::Xfs, Place::Devdax] {
        if !hello.pmem.iter().any(|pmem| pmem.place == place) {
            return Some(format!("the guest has no {place:?}"));
        }
    }
    let bad = hello.pmem.iter().find(|pmem| !pmem.trouble.is_empty());
    let bad = bad.map(|pmem| {
        format!("the guest's {} is not ready: {}", format!("{:?}", pmem.place).to_lowercase(), pmem.trouble)
    });
    bad.or_else(|| unlinked(hello, provider))
}

/// Why a guest cannot use the provider's RDMA link.
fn unlinked(hello: &Hello, provider: Provider) -> Option<String> {
    let name = provider.name();
    match hello.rdma.iter().find(|link| link.provider == provider) {
        None => Some(format!("the guest has no {name} link")),
        Some(link) if !link.trouble.is_empty() => {
            Some(format!("the guest's {name} link is not ready: {}", link.trouble))
        }
        Some(_) => None,
    }
}

/// The first splat (or object that kmemleak lists) the contract does not declare, and a note for each that it does.
fn splats(contract: &Contract, record: &Record) -> (Option<String>, Vec<String>) {
    let log = record.oracles.iter().flat_map(|oracles| oracles.log.iter().map(|line| line.text.as_str()));
    let listed = record.oracles.iter().flat_map(|oracles| match &oracles.leaks {
        Leaks::Listed(lines) => lines.as_slice(),
        _ => &[],
    });
    let leaks = splat::leaks(listed.map(String::as_str));
    let seen = splat::splats(log).into_iter().chain(record.console.iter().cloned()).chain(leaks);
    let mut undeclared = None;
    let mut notes = Vec::new();
    for splat in seen {
        match contract.splats.iter().find(|declared| declared.title == splat.title) {
            Some(declared) => {
                let note = format!("declared: {} ({})", declared.title, declared.reason);
                if !notes.contains(&note) {
                    notes.push(note);
                }
            }
            None => undeclared = undeclared.or(Some(splat.title)),
        }
    }
    (undeclared, notes)
}

fn clauses(
    case: &PlannedCase,
    contract: &Contract,
    steps: &[StepResult],
    oracles: &[OracleResult],
    verdict: &Verdict,
) -> BTreeMap<String, bool> {
    let mut clauses = BTreeMap::new();
    // Where there is no verdict nothing is broken either.
    if matches!(verdict.kind, Kind::Inconclusive | Kind::NotRun | Kind::NotApplicable | Kind::Infra) {
        return clauses;
    }
    let passed = verdict.kind == Kind::Pass;
    for (planned, step) in case.steps.iter().zip(steps) {
        for clause in &planned.proves {
            match step.status {
                // A promise that was kept, or broken in another way, where its breakage was to be shown.
                StepStatus::NotAsExpected if planned.broken.is_some() => {}
                StepStatus::NotAsExpected => {
                    clauses.insert(clause.clone(), false);
                }
                StepStatus::AsExpected if passed => {
                    clauses.entry(clause.clone()).or_insert(true);
                }
                _ => {}
            }
        }
    }
    if contract.clauses.contains_key(PINS_BALANCED) && case.ends.is_none() {
        let balance: Vec<&OracleResult> = oracles.iter().filter(|oracle| oracle.balance).collect();
        if balance.iter().any(|oracle| !oracle.clean && oracle.broken.is_none()) {
            clauses.insert(PINS_BALANCED.to_owned(), false);
        } else if passed && !balance.is_empty() && balance.iter().all(|oracle| oracle.clean) {
            clauses.insert(PINS_BALANCED.to_owned(), true);
        }
    }
    let looked = oracles.iter().filter(|oracle| [NO_STALE_WRITE, NO_STALE_READ].contains(&&*oracle.name));
    for oracle in looked.filter(|oracle| contract.clauses.contains_key(&oracle.name) && oracle.broken.is_none())
    {
        if !oracle.clean || passed {
            clauses.insert(oracle.name.clone(), oracle.clean);
        }
    }
    clauses
}
