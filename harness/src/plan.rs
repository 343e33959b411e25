// SPDX-License-Identifier: MIT OR Apache-2.0
//! The plan: kernels x scenarios, with everything a contract decides already decided.
//!
//! What a contract rules out is not-applicable here, before anything boots; never later, by what a
//! step returned.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use globset::{GlobBuilder, GlobMatcher};
use holdfast_protocol::{Op, Provider, Setup, Violation};
use serde::{Deserialize, Serialize};

use crate::contract::{Contract, Contracts, PINS_BALANCED};
use crate::outcome::bad_input;
use crate::path;
use crate::scenario::{
    Action, Broken, Ending, Expect, PLANS, Results, Scenario, Under, Written, broken_oracles, excluded,
    same_ids, written,
};
use crate::yaml::{Document, nearest, unknown_word};

/// Waits of a `do` or `await` step without `within_ms`, in unscaled milliseconds.
pub const DEFAULT_WAIT_MS: u64 = 2_000;

/// Everything a run will do. Stored in the run folder; the reports are made from it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Version of this form.
    pub format: u32,
    /// The kernels, in order.
    pub kernels: Vec<PlannedKernel>,
    /// The contracts the kernels are judged by.
    pub contracts: BTreeMap<String, Contract>,
    /// Every row of the report.
    pub cases: Vec<PlannedCase>,
}

/// A kernel and what it is judged by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedKernel {
    /// Its name.
    pub name: String,
    /// The contract, claimed or asked for.
    pub contract: String,
    /// Features it declares.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// Programs that its guests are to have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<String>,
    /// What others have and it has not: options, and programs as `program NAME`. What needs one of them is not
    /// applicable.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub lacks: BTreeSet<String>,
}

/// One case on one kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlannedCase {
    /// Stable id of the scenario and its matrix combination.
    pub id: String,
    /// The kernel's name.
    pub kernel: String,
    /// The contract's name.
    pub contract: String,
    /// One sentence about it.
    pub about: String,
    /// The scenario's file.
    pub file: PathBuf,
    /// It carries every green row of its kernel.
    pub control: bool,
    /// Virtual processors of its machine.
    pub cpus: u32,
    /// Features of the kernel and its contract.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// Why the contract or a feature rules it out, if it does.
    pub excluded: Option<String>,
    /// What must exist before the first step.
    pub setup: Setup,
    /// Trace events to record, as `SUBSYSTEM:EVENT` or `SUBSYSTEM:*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<String>,
    /// What is done.
    pub steps: Vec<PlannedStep>,
    /// Standing oracles that are expected to find something, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub broken_oracles: BTreeMap<String, String>,
    /// The red verdict that is the expected one.
    pub ends: Option<Ending>,
}

/// One step under one contract.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlannedStep {
    /// Its id.
    pub id: String,
    /// What is done.
    pub action: Action,
    /// What must come back.
    pub expect: Expect,
    /// How long to wait for it, in unscaled milliseconds.
    pub wait_ms: u64,
    /// It must not have come back before, in unscaled milliseconds.
    pub not_before_ms: Option<u64>,
    /// It must have come back by then, in unscaled milliseconds.
    pub not_after_ms: Option<u64>,
    /// The awaited operation must not have returned before this step was issued.
    #[serde(default)]
    pub after: Option<String>,
    /// Clauses of this contract that it proves.
    pub proves: Vec<String>,
    /// The step that must have succeeded for a refusal to count.
    pub twin: Option<String>,
    /// Why it is not applicable under this contract, if it is not.
    pub excluded: Option<String>,
    /// What it proves is expected broken: it must come out so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<Broken>,
    /// The phrase it is the operation of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phrase: Option<String>,
    /// The first id of the group that begins at the same moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub together: Option<String>,
    /// What a drawn operation must have come to at least once for the case to say anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reaches: Option<Expect>,
    /// What is expected of the results that its program prints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<Results>,
}

/// A plan file: which kernels and which cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    /// What it is for.
    pub about: String,
    /// Kernel names.
    pub kernels: Vec<String>,
    /// Globs over case ids.
    pub cases: Vec<String>,
    /// What is not played on one of the kernels, by its name: globs over case ids.
    #[serde(default)]
    pub leave_out: BTreeMap<String, Vec<String>>,
}

impl PlanFile {
    /// Reads `plans/NAME.yaml`.
    ///
    /// # Errors
    /// Bad input, with the nearest plan when there is none of that name.
    pub fn load(scenarios: &Path, name: &str) -> Result<Self> {
        let folder = scenarios.join(PLANS);
        let path = folder.join(format!("{name}.yaml"));
        if !path.is_file() {
            let entries =
                std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
            let names: Vec<String> = entries
                .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_string_lossy().into_owned()))
                .collect();
            return Err(bad_input(unknown_word("plan", name, names.iter().map(String::as_str))));
        }
        let document = Document::read(&path)?;
        let file: Self = document.load()?;
        if let Some(name) = file.leave_out.keys().find(|name| !file.kernels.contains(name)) {
            let message = unknown_word("kernel of this plan", name, file.kernels.iter().map(String::as_str));
            return Err(document.fault(&path!["leave_out", name.as_str()], None, &message));
        }
        Ok(file)
    }
}

impl Plan {
    /// Plans the selected scenarios for every kernel, its controls first: those of the ordinary provider, and of
    /// others where a case has them.
    ///
    /// # Errors
    /// Bad input when a selector matches nothing or a contract is unknown.
    pub fn make(
        scenarios: &[Scenario],
        contracts: &Contracts,
        kernels: &[PlannedKernel],
        selectors: &[String],
    ) -> Result<Self> {
        if let Some(twice) = same_ids(scenarios).into_iter().next() {
            return Err(twice);
        }
        let selected = select(scenarios, contracts, selectors)?;
        known_programs(&selected, kernels)?;
        let mut cases = Vec::new();
        let mut judged_by = BTreeMap::new();
        for kernel in kernels {
            let contract = contracts.find(&kernel.contract)?;
            judged_by.insert(kernel.contract.clone(), contract.clone());
            let under = Under::new(&kernel.contract, contract, kernel.features.iter().cloned());
            let applies = |scenario: &Scenario| excluded(scenario, &under).is_none();
            let plan_it = |scenario: &Scenario| plan_case(scenario, kernel, &under);
            let is_control = |one: &Scenario| one.control && applies(one);
            let others: Vec<PlannedCase> =
                selected.iter().filter(|one| !is_control(one)).map(|one| plan_it(one)).collect();
            let used = |provider: Provider| {
                let plays = |case: &PlannedCase| case.excluded.is_none() && case.setup.provider == provider;
                let named = |one: &Scenario| is_control(one) && one.provider == provider;
                provider.is_rxe() || others.iter().any(plays) || selected.iter().any(|one| named(one))
            };
            let controls = scenarios.iter().filter(|one| is_control(one) && used(one.provider));
            cases.extend(controls.map(plan_it));
            cases.extend(others);
        }
        if cases.iter().all(|case| case.excluded.is_some()) {
            let names: Vec<&str> = kernels.iter().map(|kernel| kernel.contract.as_str()).collect();
            return Err(bad_input(format!(
                "nothing of what was selected applies to contract {}: see `list`",
                names.join(", ")
            )));
        }
        Ok(Self { format: 1, kernels: kernels.to_vec(), contracts: judged_by, cases })
    }

    /// Leaves out what a plan file does, but for controls.
    ///
    /// # Errors
    /// Bad input for a selector that matches nothing.
    pub fn without(
        mut self,
        leave_out: &BTreeMap<String, Vec<String>>,
        scenarios: &[Scenario],
        contracts: &Contracts,
    ) -> Result<Self> {
        for (kernel, selectors) in leave_out.iter().filter(|(_, selectors)| !selectors.is_empty()) {
            let out = select(scenarios, contracts, selectors)?;
            let is_out = |case: &PlannedCase| out.iter().any(|scenario| scenario.id == case.id);
            self.cases.retain(|case| case.control || case.kernel != *kernel || !is_out(case));
        }
        Ok(self)
    }

    /// Has every case record these trace events.
    #[must_use]
    pub fn traced(mut self, events: &[String]) -> Self {
        self.cases.iter_mut().for_each(|case| case.trace = events.to_vec());
        self
    }

    /// Plans everything that can be played `times` times: rounds, each of them kernel by kernel with its
    /// controls first, because a case that is repeated at once meets the host in the same state. From
    /// the second round on an id ends in `#2`, `#3`: a row and a folder of its own.
    #[must_use]
    pub fn repeated(self, times: u32) -> Self {
        let mut cases = Vec::new();
        for kernel in &self.kernels {
            let own = || self.cases.iter().filter(|case| case.kernel == kernel.name);
            cases.extend(own().cloned());
            for round in 2..=times {
                cases.extend(own().filter(|case| case.excluded.is_none()).map(|case| {
                    let id = format!("{}#{round}", case.id);
                    PlannedCase { setup: Setup { case: id.clone(), ..case.setup.clone() }, id, ..case.clone() }
                }));
            }
        }
        Self { cases, ..self }
    }
}

/// The id without the round of [`Plan::repeated`].
#[must_use]
pub fn scenario_id(id: &str) -> &str {
    id_and_round(id).0
}

/// The round of an id, `2` of `a#2`; empty in the first.
#[must_use]
pub fn round(id: &str) -> &str {
    id_and_round(id).1
}

fn id_and_round(id: &str) -> (&str, &str) {
    match id.rsplit_once('#') {
        Some((id, round)) if round.bytes().all(|byte| byte.is_ascii_digit()) => (id, round),
        _ => (id, ""),
    }
}

/// The scenarios that the selectors name; all of them when there are none. A selector behind a `!` leaves out
/// what it names, and of several that name a scenario the last one counts.
///
/// # Errors
/// Bad input for a selector that matches nothing.
pub fn select<'a>(
    scenarios: &'a [Scenario],
    contracts: &Contracts,
    selectors: &[String],
) -> Result<Vec<&'a Scenario>> {
    let mut read = Vec::new();
    for selector in selectors {
        let (text, chooses) = match selector.strip_prefix('!') {
            Some(text) => (text, false),
            None => (selector.as_str(), true),
        };
        let selector = Selector::parse(text, contracts)?;
        if !scenarios.iter().any(|scenario| selector.admits(scenario)) {
            let stems = scenarios.iter().map(|scenario| stem(&scenario.id));
            let hint = nearest(text, stems).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            return Err(bad_input(format!("no case is called `{text}`{hint} (`list` shows all)")));
        }
        read.push((selector, chooses));
    }
    let unless_named = !read.iter().any(|(_, chooses)| *chooses);
    let admitted = |scenario: &&Scenario| {
        let last = read.iter().rev().find(|(selector, _)| selector.admits(scenario));
        last.map_or(unless_named, |(_, chooses)| *chooses)
    };
    let admitted: Vec<&Scenario> = scenarios.iter().filter(admitted).collect();
    if admitted.is_empty() && !read.is_empty() {
        return Err(bad_input("every case that is named is left out again by a `!`"));
    }
    Ok(admitted)
}

/// What a person may write for CASE.
enum Selector {
    /// A glob over ids and their stems.
    Glob(GlobMatcher),
    /// A scenario's file.
    File(PathBuf),
    /// Every case with a step that proves this clause.
    Clause { contract: String, clause: String },
}

impl Selector {
    fn parse(text: &str, contracts: &Contracts) -> Result<Self> {
        if let Some(name) = text.strip_prefix("clause:") {
            let (contract, clause) = name
                .split_once('/')
                .ok_or_else(|| bad_input(format!("`{text}`: a clause is written clause:CONTRACT/CLAUSE")))?;
            let known = contracts.find(contract)?;
            if !known.clauses.contains_key(clause) {
                let valid = known.clauses.keys().map(String::as_str);
                return Err(bad_input(format!("{text}: {}", unknown_word("clause", clause, valid))));
            }
            return Ok(Self::Clause { contract: contract.to_owned(), clause: clause.to_owned() });
        }
        let path = Path::new(text);
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let path = path
                .canonicalize()
                .map_err(|error| bad_input(format!("cannot open the scenario {text}: {error}")))?;
            return Ok(Self::File(path));
        }
        // The brackets of a case's id are no character class.
        let escaped = text.replace('[', "\\[").replace(']', "\\]");
        let glob = GlobBuilder::new(&escaped).literal_separator(true).backslash_escape(true).build();
        let glob = glob.map_err(|error| bad_input(format!("`{text}` is no case and no glob: {error}")))?;
        Ok(Self::Glob(glob.compile_matcher()))
    }

    fn admits(&self, scenario: &Scenario) -> bool {
        match self {
            Self::Glob(glob) => glob.is_match(&scenario.id) || glob.is_match(stem(&scenario.id)),
            Self::File(path) => scenario.file.canonicalize().is_ok_and(|file| file == *path),
            Self::Clause { contract, clause } => {
                // The standing oracles prove the one after every case.
                scenario.is_about(contract)
                    && (clause == PINS_BALANCED
                        || scenario.steps.iter().any(|step| step.proves.contains(clause)))
            }
        }
    }
}

/// A program that no kernel's guests have is a mistake, not a reason to leave a case out.
fn known_programs(scenarios: &[&Scenario], kernels: &[PlannedKernel]) -> Result<()> {
    let missing = |kernel: &PlannedKernel| -> Vec<String> {
        kernel.lacks.iter().filter_map(|one| Some(one.strip_prefix(PROGRAM)?.to_owned())).collect()
    };
    let known: BTreeSet<String> =
        kernels.iter().flat_map(|kernel| [kernel.programs.clone(), missing(kernel)].concat()).collect();
    let known: BTreeSet<&str> = known.iter().map(String::as_str).collect();
    for scenario in scenarios {
        if let Some(name) = scenario.programs().find(|name| !known.contains(name)) {
            let message =
                format!("{}; --program {name}=FILE brings one of yours", unknown_word("program", name, known));
            return Err(Document::read(&scenario.file)?.fault(&path!["steps"], Some(name), &message));
        }
    }
    Ok(())
}

/// What is before a program's name in [`PlannedKernel::lacks`].
pub const PROGRAM: &str = "program ";

/// Why a case cannot be played on a kernel that is not built here, if it cannot: what one of its steps needs.
fn lacking(written: &Written, provider: Provider, kernel: &PlannedKernel) -> Option<String> {
    let steps = written.steps.iter().filter(|step| step.excluded.is_none()).filter_map(|step| step.action.op());
    let handlers = written.actors.values().flat_map(|actor| actor.on_signal.values());
    let needed =
        steps.chain(handlers.flat_map(|handler| handler.run.iter().map(|run| &run.op))).filter_map(need);
    let missing = needed.chain([provider.option().to_owned()]).find(|need| kernel.lacks.contains(need))?;
    Some(match missing.strip_prefix(PROGRAM) {
        Some(name) => format!("it runs {name}, which is compiled from a kernel's source, and this one was not"),
        None => format!("it needs {missing}, which this kernel was built without"),
    })
}

/// What an operation needs of a kernel that not every one has.
fn need(op: &Op) -> Option<String> {
    let option = match op {
        Op::GupPin(_) | Op::GupRead(_) | Op::GupUnpin(_) => "CONFIG_GUP_TEST",
        Op::Violate(op) => match op.what {
            Violation::LeakPin => "CONFIG_GUP_TEST",
            Violation::Warn | Violation::Panic | Violation::Hang | Violation::StickTask => "CONFIG_LKDTM",
            Violation::LeaveRegion
            | Violation::LeaveLease
            | Violation::HoldMount
            | Violation::CorruptExt4
            | Violation::CorruptXfs => return None,
        },
        Op::Memfd(op) if op.hugetlb => "CONFIG_HUGETLBFS",
        Op::Program(op) => return Some(format!("{PROGRAM}{}", op.name)),
        _ => return None,
    };
    Some(option.to_owned())
}

fn stem(id: &str) -> &str {
    id.split('[').next().unwrap_or(id)
}

fn plan_case(scenario: &Scenario, kernel: &PlannedKernel, under: &Under<'_>) -> PlannedCase {
    let mut excluded = excluded(scenario, under);
    let mut as_written = Written::default();
    if excluded.is_none() {
        let written = written(scenario, under);
        excluded = lacking(&written, scenario.provider, kernel);
        if excluded.is_none() {
            as_written = written;
        }
    }
    let applies = excluded.is_none();
    let Written { steps, actors } = as_written;
    PlannedCase {
        id: scenario.id.clone(),
        kernel: kernel.name.clone(),
        contract: kernel.contract.clone(),
        about: scenario.about.clone(),
        file: scenario.file.clone(),
        control: scenario.control,
        cpus: scenario.cpus,
        features: under.features.iter().cloned().collect(),
        setup: Setup {
            case: scenario.id.clone(),
            files: scenario.files.clone(),
            actors,
            sysctl: scenario.sysctl.clone(),
            provider: scenario.provider,
            ..Setup::default()
        },
        trace: Vec::new(),
        steps,
        broken_oracles: if applies { broken_oracles(scenario, under) } else { BTreeMap::new() },
        excluded,
        ends: scenario.ends.clone(),
    }
}

impl PlannedStep {
    /// The step that issued the operation this one is about: itself, or the one it waits for.
    #[must_use]
    pub fn source(&self) -> &str {
        match &self.action {
            Action::Do { .. }
            | Action::Start { .. }
            | Action::Draw { .. }
            | Action::Use { .. }
            | Action::PowerCut => &self.id,
            Action::Await { step } | Action::Still { step, .. } => step,
        }
    }

    /// What it begins together with: the first id of its group, or its stress.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        match &self.action {
            Action::Draw { of, .. } => Some(of),
            _ => self.together.as_deref(),
        }
    }

    /// What the step does, in a few words: `owner: reg_mr`, `await cut`.
    #[must_use]
    pub fn label(&self) -> String {
        match &self.action {
            Action::Do { by, op } => {
                let of = self.phrase.as_ref().map(|phrase| format!(" ({phrase})")).unwrap_or_default();
                format!("{by}: {}{of}", crate::scenario::op_name(op))
            }
            Action::Draw { by, op, of, .. } => {
                format!("{by}: {} (drawn in {of})", crate::scenario::op_name(op))
            }
            Action::Use { by, phrase, .. } => format!("{by}: {phrase}"),
            Action::Start { by, op } => format!("{by}: start {}", crate::scenario::op_name(op)),
            Action::PowerCut => "power cut".to_owned(),
            Action::Await { step } => format!("await {step}"),
            Action::Still { step, .. } => format!("still {step}"),
        }
    }
}

#[cfg(test)]
mod tests;
