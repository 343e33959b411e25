// SPDX-License-Identifier: MIT OR Apache-2.0
//! Scenarios: actors, steps, expectations. From YAML files to checked values; nothing runs here.

mod actors;
mod broken;
mod cast;
mod check;
mod claims;
mod compose;
mod expect;
mod explain;
mod faults;
mod form;
mod head;
pub mod limits;
mod matrix;
mod names;
mod outcomes;
mod pins;
mod played;
mod reference;
mod results;
mod schema;
mod template;
#[cfg(test)]
mod tests;
mod under;
mod uses;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use holdfast_protocol::{FileSetup, Op, Provider};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use actors::{Actor, Handler, Run};
pub use broken::{Break, Broken, oracles as broken_oracles};
pub use expect::{Expect, describe};
pub use explain::explain;
pub use names::errno_name;
pub use reference::operations;
pub use results::{Results, ResultsForm, result_glob};
pub use schema::schema;
pub use template::{TEMPLATES, write_template};
pub use under::{Under, Written, excluded, split as split_key, written};
pub use uses::{handles_of, name as op_name};

use crate::contract::Contracts;
use crate::outcome::{Kind, bad_input};
use crate::yaml::Document;
use faults::Faults;

/// A scenario with one combination of its matrix filled in.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Path below the scenarios' folder without `.yaml`, and the combination: `pin/x[fs=xfs]`.
    pub id: String,
    /// The file it stands in.
    pub file: PathBuf,
    /// One sentence: what happens, and what must come of it.
    pub about: String,
    /// Where the claim comes from.
    pub because: String,
    /// The contracts it says something about, also as `CONTRACT+feature`.
    pub contracts: Vec<String>,
    /// Features without which it says nothing.
    pub needs_features: Vec<String>,
    /// It carries every green row of its kernel.
    pub control: bool,
    /// Virtual processors of its machine.
    pub cpus: u32,
    /// Whose soft RDMA device its actors open.
    pub provider: Provider,
    /// sysctls to set before the first step.
    pub sysctl: BTreeMap<String, String>,
    /// Files to make before the first step.
    pub files: BTreeMap<String, FileSetup>,
    /// Processes to start before the first step.
    pub actors: BTreeMap<String, Actor>,
    /// What is done.
    pub steps: Vec<Step>,
    /// By contract the clauses, and oracles as `oracle/NAME`, that are expected broken.
    pub expect_broken: BTreeMap<String, BTreeMap<String, Break>>,
    /// The red verdict that is the expected one.
    pub ends: Option<Ending>,
}

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its id; the number of the step (`#3`) when it was given none.
    pub id: String,
    /// What is done.
    pub action: Action,
    /// What must come back, by contract; `else` for the others.
    pub expect: BTreeMap<String, Expect>,
    /// How long to wait for it, in unscaled milliseconds.
    pub within_ms: Option<u64>,
    /// It must not have come back before, in unscaled milliseconds since it was issued.
    pub not_before_ms: Option<u64>,
    /// It must have come back by then, in unscaled milliseconds since it was issued.
    pub not_after_ms: Option<u64>,
    /// The awaited operation must not have returned before this step was issued.
    pub after: Option<String>,
    /// Clauses of its contracts that this step proves.
    pub proves: Vec<String>,
    /// The step that shows that the same call succeeds where the clause's condition does not hold.
    pub twin: Option<String>,
    /// Steps without which this one says nothing.
    pub needs: Vec<String>,
    /// What is expected of the results that its program prints.
    pub results: Option<ResultsForm>,
    /// The first id of the group it is started with.
    pub together: Option<String>,
    /// What a drawn operation must have come to at least once.
    pub reaches: Option<Expect>,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Issue an operation and wait for it.
    Do {
        /// The actor.
        by: String,
        /// The operation.
        op: Op,
    },
    /// Issue an operation without waiting.
    Start {
        /// The actor.
        by: String,
        /// The operation.
        op: Op,
    },
    /// One of the operations that an actor draws at random, for as long as the stress lasts.
    Draw {
        /// The actor.
        by: String,
        /// The operation.
        op: Op,
        /// Id of the stress; all its operations stand next to each other.
        of: String,
        /// How long it lasts, in unscaled milliseconds.
        for_ms: u64,
        /// The choice whose result must not be there all the time that this one takes to succeed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        never_within: Option<String>,
        /// The choice that has succeeded before, with all that it used still there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
    },
    /// Do what a phrase stands for. A plan has it written out; only where it stands for nothing it is
    /// left, and not applicable.
    Use {
        /// The actor.
        by: String,
        /// The phrase.
        phrase: String,
        /// Its parameters.
        with: BTreeMap<String, Value>,
    },
    /// Collect a step that was started or blocks.
    Await {
        /// Its id.
        step: String,
    },
    /// Kill the machine and boot it again with what its NVDIMMs hold. Actors are started anew, and no result of an
    /// earlier step is there any more; calls that were on their way never come back.
    PowerCut,
    /// Assert that a started step has not returned for a while.
    Still {
        /// Its id.
        step: String,
        /// How long to watch, in unscaled milliseconds.
        for_ms: u64,
    },
}

/// The red verdict a case is declared to end with; green only with exactly this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ending {
    /// `fail`, `kernel-bug`, `timeout` or `lost`.
    pub verdict: Kind,
    /// The step, or the oracle as `oracle/NAME`, of a fail or timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The title of a kernel bug.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

impl Scenario {
    /// Names of the programs that it runs.
    pub fn programs(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter_map(|step| match &step.action {
            Action::Do { op: Op::Program(op), .. } | Action::Start { op: Op::Program(op), .. } => {
                Some(op.name.as_str())
            }
            _ => None,
        })
    }

    /// It says something about a contract, with whatever features.
    #[must_use]
    pub fn is_about(&self, contract: &str) -> bool {
        self.contracts.iter().any(|key| under::split(key).0 == contract)
    }
}

impl Action {
    /// The operation that it issues.
    #[must_use]
    pub fn op(&self) -> Option<&Op> {
        match self {
            Self::Do { op, .. } | Self::Start { op, .. } | Self::Draw { op, .. } => Some(op),
            Self::Use { .. } | Self::Await { .. } | Self::Still { .. } | Self::PowerCut => None,
        }
    }
}

/// Stands for every contract that is not named.
pub const ELSE: &str = "else";

/// A watch that is to prove that something blocks lasts at least this long, in unscaled milliseconds.
pub const SHORTEST_PROOF_MS: u64 = 250;

/// Default of `still: ID` without `for_ms`, in unscaled milliseconds: long against any truncate of
/// a few MiB (under 50 ms in an emulated guest).
pub const DEFAULT_STILL_MS: u64 = 1_000;

/// All scenarios of a folder, checked, ordered by id.
///
/// # Errors
/// Bad input with file, line and column of everything that is wrong, a line each.
pub fn load_all(folder: &Path, contracts: &Contracts) -> Result<Vec<Scenario>> {
    let mut all = Vec::new();
    let mut faults = Faults::default();
    for file in files_of(folder)? {
        all.extend(faults.keep(load_file(folder, &file, contracts)).unwrap_or_default());
    }
    faults.into_result().map(|()| all)
}

/// What is wrong where two files have a case of the same id.
#[must_use]
pub fn same_ids(all: &[Scenario]) -> Vec<anyhow::Error> {
    let mut files: BTreeMap<&str, &Path> = BTreeMap::new();
    let twice = all.iter().filter_map(|one| {
        let other = files.insert(&one.id, &one.file)?;
        let (other, file) = (other.display(), one.file.display());
        Some(bad_input(format!("{other} and {file} have the same id `{}`: rename one", one.id)))
    });
    twice.collect()
}

/// The scenario files of a folder, in order.
///
/// # Errors
/// When a folder cannot be listed.
pub fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    collect(folder, &mut files)?;
    files.sort();
    Ok(files)
}

/// The cases of one file.
///
/// # Errors
/// As [`load_all`].
pub fn load_file(folder: &Path, file: &Path, contracts: &Contracts) -> Result<Vec<Scenario>> {
    let relative = file.strip_prefix(folder).unwrap_or(file).with_extension("");
    load_document(&Document::read(file)?, file, &relative.to_string_lossy(), contracts)
}

/// The cases of a document that was read; `stem` is what their ids begin with, and what it includes is looked for
/// beside `file`.
///
/// # Errors
/// As [`load_all`].
pub fn load_document(
    document: &Document,
    file: &Path,
    stem: &str,
    contracts: &Contracts,
) -> Result<Vec<Scenario>> {
    check::scenarios(document, file, stem, contracts)
}

/// Folder of the plans, next to the scenarios but no scenarios themselves.
pub const PLANS: &str = "plans";
/// Folder of the steps that scenarios include, next to the scenarios but no scenarios themselves.
pub const SHARED: &str = "shared";
/// File of the contracts.
pub const CONTRACTS: &str = "contracts.yaml";

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != PLANS && name != SHARED {
                collect(&path, files)?;
            }
        } else if name.ends_with(".yaml") && name != CONTRACTS {
            files.push(path);
        }
    }
    Ok(())
}
