// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reports: results as stored, and as a person reads them. Made from values, never from a live run,
//! so that an old run can be rendered again.

mod terminal;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use terminal::render;
pub(crate) use terminal::{DIM, GREEN, RED, YELLOW, word};

use crate::judge::CaseResult;
use crate::kernel::{Manifest, Program};
use crate::machine::accel::Accelerator;
use crate::outcome::Exit;
use crate::plan::{Plan, PlannedCase, PlannedKernel};
use crate::record::Record;
use crate::run::Settings;

/// Everything a run found out: `results.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// Version of this form; fields may be added under the same number.
    pub format: u32,
    /// When the results were written, RFC 3339.
    pub date: String,
    /// What was typed.
    pub command: String,
    /// The host's side: cores, memory, QEMU.
    pub host: Host,
    /// The kernels used.
    pub kernels: Vec<KernelUsed>,
    /// Programs of the person's own that the guests had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<Program>,
    /// Every planned row.
    pub cases: Vec<CaseResult>,
    /// By kernel and clause.
    pub clauses: BTreeMap<String, BTreeMap<String, ClauseState>>,
    /// What the cases' seeds were made of.
    pub seed: u64,
    /// The whole run, in seconds.
    pub took_s: f64,
    /// The part of it in which cases were played, in seconds.
    pub playing_s: f64,
    /// The user ended it.
    pub interrupted: bool,
    /// The exit code of the command.
    pub exit: u8,
}

/// What the guests ran on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Host {
    /// Processors.
    pub cpus: usize,
    /// Cases at the same time.
    pub jobs: usize,
    /// The first line of `qemu-system-x86_64 --version`.
    pub qemu: String,
    /// How QEMU executed, and why so.
    pub accelerator: Accelerator,
    /// The slowest guest's pace against the reference; every wait was multiplied with the case's own.
    pub slowest_pace: f64,
}

/// A kernel as it was used.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KernelUsed {
    /// Its name.
    pub name: String,
    /// The contract it was judged by.
    pub judged_by: String,
    /// The contract it claims.
    pub claims: String,
    /// `uname -r`.
    pub release: String,
    /// The source really used.
    pub source: String,
    /// The key it is stored under.
    pub key: String,
    /// Files and subjects of its patches.
    pub patches: Vec<String>,
    /// Programs of its own tests, and what they are: SHA-256, or why there is none.
    #[serde(default)]
    pub selftests: Vec<Program>,
}

/// What a run says of a clause on a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClauseState {
    /// Proved at least once, broken never.
    Holds,
    /// Proved at least once, but another case that was to prove it has no verdict.
    Partly,
    /// Broken at least once.
    Broken,
    /// Broken where a scenario expects it, and never elsewhere: the breakage was shown.
    BrokenAsExpected,
    /// Cases were to prove it, and none of them has a verdict on it.
    Inconclusive,
    /// No case of the run was to prove it.
    NotExercised,
}

impl KernelUsed {
    /// From what was planned and what was built.
    #[must_use]
    pub fn new(planned: &PlannedKernel, manifest: &Manifest) -> Self {
        Self {
            name: planned.name.clone(),
            judged_by: planned.contract.clone(),
            claims: manifest.contract.clone(),
            release: manifest.release.clone(),
            source: manifest.source.clone(),
            key: manifest.key.clone(),
            selftests: manifest.selftests.clone(),
            patches: manifest
                .patches
                .iter()
                .map(|patch| format!("{}: {}", patch.name, patch.subject))
                .collect(),
        }
    }
}

/// What a run knows beside its rows.
#[derive(Clone, Debug)]
pub struct Circumstances<'a> {
    /// The kernels used.
    pub kernels: Vec<KernelUsed>,
    /// QEMU's version.
    pub qemu: String,
    /// How QEMU executed.
    pub accelerator: Accelerator,
    /// How the run was done.
    pub settings: &'a Settings,
    /// The whole run.
    pub took: Duration,
    /// Playing its cases.
    pub playing: Duration,
    /// The user ended it.
    pub interrupted: bool,
}

/// Puts the results of a run together.
#[must_use]
pub fn results(plan: &Plan, cases: Vec<CaseResult>, records: &[Record], of: Circumstances<'_>) -> Results {
    let slowest_pace = records.iter().map(|record| record.pace).fold(1.0, f64::max);
    let mut results = Results {
        format: 2,
        date: jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        command: of.settings.command.clone(),
        host: Host {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            jobs: of.settings.jobs,
            qemu: of.qemu,
            accelerator: of.accelerator,
            slowest_pace,
        },
        kernels: of.kernels,
        programs: of.settings.programs.iter().map(Program::of).collect(),
        cases: Vec::new(),
        clauses: BTreeMap::new(),
        seed: of.settings.seed,
        took_s: of.took.as_secs_f64(),
        playing_s: of.playing.as_secs_f64(),
        interrupted: of.interrupted,
        exit: 0,
    };
    results.renew(plan, cases);
    results
}

impl Results {
    /// Puts newly judged rows in, with all that follows from them.
    pub fn renew(&mut self, plan: &Plan, cases: Vec<CaseResult>) {
        self.clauses = clause_states(plan, &cases);
        self.exit = if self.interrupted {
            Exit::Interrupted.code()
        } else {
            Exit::of_rows(cases.iter().map(|case| (case.verdict.kind, case.green))).code()
        };
        self.cases = cases;
    }
}

/// What rows say of every clause, by kernel.
pub(crate) fn clause_states(
    plan: &Plan,
    cases: &[CaseResult],
) -> BTreeMap<String, BTreeMap<String, ClauseState>> {
    plan.kernels.iter().map(|kernel| (kernel.name.clone(), clauses(plan, kernel, cases))).collect()
}

fn clauses(plan: &Plan, kernel: &PlannedKernel, cases: &[CaseResult]) -> BTreeMap<String, ClauseState> {
    let said = |clause: &String| {
        let here = || plan.cases.iter().zip(cases).filter(|(planned, _)| planned.kernel == kernel.name);
        if here().any(|(_, case)| case.clauses.get(clause) == Some(&false)) {
            return ClauseState::Broken;
        }
        if here().any(|(_, case)| case.broken.contains_key(clause)) {
            return ClauseState::BrokenAsExpected;
        }
        let proved = here().any(|(_, case)| case.clauses.get(clause) == Some(&true));
        let was_to_prove = |planned: &PlannedCase| {
            planned.steps.iter().any(|step| step.excluded.is_none() && step.proves.contains(clause))
        };
        let missing =
            here().any(|(planned, case)| was_to_prove(planned) && case.clauses.get(clause) != Some(&true));
        match (proved, missing) {
            (true, false) => ClauseState::Holds,
            (true, true) => ClauseState::Partly,
            (false, true) => ClauseState::Inconclusive,
            (false, false) => ClauseState::NotExercised,
        }
    };
    plan.contracts[&kernel.contract].clauses.keys().map(|clause| (clause.clone(), said(clause))).collect()
}
