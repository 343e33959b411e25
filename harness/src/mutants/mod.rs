// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mutants: a kernel's series with one thing taken out of it. Cases that prove a clause must see when it is
//! broken, so each mutant names the clauses that it breaks, and must break exactly those.
//!
//! A mutant is a patch, `kernel-configs/mutants/BASE/NAME.patch`, on top of the series of BASE. What it
//! breaks stands in its commit message, so that it is written down before anybody has run it:
//!
//! ```text
//! Breaks: gup-needs-lease, unlock-stops,
//!  break-expires
//! ```
//!
//! Reading them and planning is here; [`verdict`] judges, [`table`] shows.

mod table;
mod verdict;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::contract::{Contract, Contracts};
use crate::home::Home;
use crate::kernel::{Request, patch_files};
use crate::outcome::bad_input;
use crate::plan::{Plan, PlannedKernel};
use crate::run::Requests;
use crate::scenario::Scenario;
use crate::yaml::unknown_word;

pub use table::render;
pub use verdict::{Found, Mutation, Report};

/// The report on a run's mutants, in its folder.
const MUTANTS: &str = "mutants.json";
/// The folder of all mutants, beside those of the kernels.
const FOLDER: &str = "mutants";
/// The trailer that names clauses.
const BREAKS: &str = "Breaks:";

/// One mutant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mutant {
    /// Name of its file, without `.patch`.
    pub name: String,
    /// The kernel it is played as.
    pub kernel: String,
    /// The patch.
    pub patch: PathBuf,
    /// Clauses it breaks, by its own word.
    pub breaks: BTreeSet<String>,
}

/// A kernel and its mutants, with what is to be built for each.
#[derive(Debug)]
pub struct Brood {
    /// The kernel that is mutated.
    pub base: PlannedKernel,
    /// Its mutants, by name.
    pub mutants: Vec<Mutant>,
    requests: Requests,
}

/// The kernels that have mutants.
///
/// # Errors
/// When a folder cannot be read.
pub fn bases(home: &Home) -> Result<BTreeSet<String>> {
    let mut bases = BTreeSet::new();
    for folder in home.kernel_folders().map(|dir| dir.join(FOLDER)).filter(|dir| dir.is_dir()) {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let entry = entry?;
            if entry.path().is_dir() {
                bases.insert(entry.file_name().to_string_lossy().into_owned());
            }
        }
    }
    Ok(bases)
}

impl Brood {
    /// The mutants of a kernel, or those that are named: by their whole name or the word it begins with.
    /// `request` is how the kernel itself is built.
    ///
    /// # Errors
    /// Bad input for a header that does not say what the mutant breaks, or an unknown name.
    pub fn load(
        home: &Home,
        base: &PlannedKernel,
        request: &Request,
        contract: &Contract,
        only: &[String],
    ) -> Result<Self> {
        let mut patches = Vec::new();
        for dir in home.kernel_folders() {
            patches.extend(patch_files(&dir.join(FOLDER).join(&request.base))?);
        }
        let mut requests = Requests::from([(base.name.clone(), request.clone())]);
        let mut mutants = Vec::new();
        for patch in patches {
            let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            // They differ by a few files and are built in turn: objects of their own would be 2 GB each.
            let slot = Some(format!("{}-mutants", base.name));
            let request = Request { series: Some(patch.clone()), slot, ..request.clone() };
            let text =
                fs::read_to_string(&patch).with_context(|| format!("cannot read {}", patch.display()))?;
            let breaks = breaks(&text, &patch, &base.contract, contract)?;
            let mutant = Mutant { name, kernel: request.name(), patch, breaks };
            if requests.insert(mutant.kernel.clone(), request).is_some() {
                return Err(bad_input(format!("{}: there is a mutant of that name", mutant.patch.display())));
            }
            mutants.push(mutant);
        }
        if mutants.is_empty() {
            let known: Vec<String> = bases(home)?.into_iter().collect();
            let known = if known.is_empty() { "no kernel has any".to_owned() } else { known.join(", ") };
            return Err(bad_input(format!("{} has no mutants (who has: {known})", request.base)));
        }
        let unknown = only.iter().find(|name| !mutants.iter().any(|mutant| mutant.is_called(name)));
        if let Some(name) = unknown {
            let names = mutants.iter().map(|mutant| mutant.name.as_str());
            return Err(bad_input(unknown_word("mutant", name, names)));
        }
        mutants.retain(|mutant| only.is_empty() || only.iter().any(|name| mutant.is_called(name)));
        Ok(Self { base: base.clone(), mutants, requests })
    }

    /// What is to be played: the kernel itself unless it is left out, then its mutants; of the cases those
    /// that are named, else those that prove something with the ordinary provider: whose device it is that pins
    /// is nothing that a mutant changes. What does not apply is left out.
    ///
    /// # Errors
    /// Bad input when a selector matches nothing.
    pub fn plan(
        &self,
        scenarios: &[Scenario],
        contracts: &Contracts,
        selectors: &[String],
        with_base: bool,
    ) -> Result<(Plan, Requests)> {
        let as_base = |mutant: &Mutant| PlannedKernel { name: mutant.kernel.clone(), ..self.base.clone() };
        let mutants = self.mutants.iter().map(as_base);
        let kernels: Vec<PlannedKernel> =
            with_base.then(|| self.base.clone()).into_iter().chain(mutants).collect();
        let mut plan = Plan::make(scenarios, contracts, &kernels, selectors)?;
        plan.cases.retain(|case| {
            let proves = || case.steps.iter().any(|step| step.excluded.is_none() && !step.proves.is_empty());
            let chosen = !selectors.is_empty() || (case.setup.provider.is_rxe() && (case.control || proves()));
            case.excluded.is_none() && chosen
        });
        let mut requests = self.requests.clone();
        requests.retain(|name, _| kernels.iter().any(|kernel| kernel.name == *name));
        Ok((plan, requests))
    }
}

impl Mutant {
    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.short() == name
    }

    /// What it is called where there is no room: `M1` of `M1-pin-check-gone`.
    fn short(&self) -> &str {
        self.name.split('-').next().unwrap_or(&self.name)
    }
}

/// Puts the report into a run's folder.
///
/// # Errors
/// When it cannot be written.
pub fn store(report: &Report, folder: &Path) -> Result<()> {
    let path = folder.join(MUTANTS);
    fs::write(&path, serde_json::to_vec_pretty(report)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The report in a run's folder; `None` when the run was not one of mutants.
///
/// # Errors
/// When it is of another format.
pub fn stored(folder: &Path) -> Result<Option<Report>> {
    let path = folder.join(MUTANTS);
    let Ok(text) = fs::read(&path) else { return Ok(None) };
    let report =
        serde_json::from_slice(&text).with_context(|| format!("{} is of another format", path.display()))?;
    Ok(Some(report))
}

/// The clauses that a patch's commit message names. A trailer goes on in lines that begin with a blank.
fn breaks(text: &str, patch: &Path, name: &str, contract: &Contract) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut in_trailer = false;
    // The mail's own header ends with the first empty line, its message where the diff begins.
    let end = text.lines().position(|line| line == "---" || line.starts_with("diff --git "));
    let end = end.unwrap_or(text.lines().count());
    let lines = text.lines().enumerate().take(end).skip_while(|(_, line)| !line.is_empty());
    for (nr, line) in lines {
        let list = match line.strip_prefix(BREAKS) {
            Some(list) => list,
            None if in_trailer && line.starts_with([' ', '\t']) => line,
            None => {
                in_trailer = false;
                continue;
            }
        };
        in_trailer = true;
        for clause in list.split(',').map(str::trim).filter(|clause| !clause.is_empty()) {
            if !contract.clauses.contains_key(clause) {
                let message = unknown_word("clause", clause, contract.clauses.keys().map(String::as_str));
                let place = format!("{}:{}", patch.display(), nr + 1);
                return Err(bad_input(format!("{place}: contract {name}: {message}")));
            }
            found.insert(clause.to_owned());
        }
    }
    if found.is_empty() {
        return Err(bad_input(format!(
            "{}:{}: the commit message ends here and does not say which clauses the mutant breaks: \
             `{BREAKS} CLAUSE, CLAUSE` on a line of its own",
            patch.display(),
            end + 1
        )));
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
