// SPDX-License-Identifier: MIT OR Apache-2.0
//! `scenario`: what can be said of scenarios without a machine.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, Subcommand};
use holdfast::contract::Contracts;
use holdfast::home::Home;
use holdfast::outcome::{BadInput, Exit, bad_input};
use holdfast::scenario::{self, Scenario as Case, TEMPLATES, explain, files_of, load_file, write_template};

use crate::choice::selected;

/// Check and explain scenarios; no machine is started
#[derive(Args, Debug)]
pub(crate) struct Scenario {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Say everything that is wrong with scenarios; exit 2 if anything is
    Check {
        /// Scenario files [default: all there are]
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Write a scenario to begin with
    New {
        /// The file, as mine.yaml; or the id of its cases, as truncate/mine, below Holdfast's scenarios or yours
        #[arg(value_name = "NAME")]
        name: String,
        /// What it is to begin with
        #[arg(long, value_parser = PossibleValuesParser::new(template_names()), default_value = "pin")]
        of: String,
        /// One sentence: what happens, and what must come of it
        #[arg(long, default_value = "Say in one sentence what happens, and what must come of it.")]
        about: String,
    },
    /// Print the JSON Schema of a scenario, for editors (docs/scenarios.md)
    Schema,
    /// Print the page of operations (docs/operations.md) from the types and Holdfast's own scenarios
    Operations,
    /// Say in words what cases do, what must come back, and what that proves
    Explain {
        /// A scenario's path, a case's id, or a glob over ids
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
}

/// Checks or explains.
pub(crate) fn main(args: &Scenario, home: &Home) -> Result<Exit> {
    match &args.what {
        What::Check { files } => check(files, home),
        What::New { name, of, about } => new(name, of, about, home),
        What::Schema => {
            outln!("{:#}", scenario::schema());
            Ok(Exit::AsExpected)
        }
        What::Operations => {
            outln!("{}", scenario::operations(&home.scenarios())?.trim_end());
            Ok(Exit::AsExpected)
        }
        What::Explain { names } => {
            let (contracts, cases) = selected(home, names)?;
            for case in &cases {
                outln!("{}", explain(case, &contracts));
            }
            Ok(Exit::AsExpected)
        }
    }
}

fn check(named: &[PathBuf], home: &Home) -> Result<Exit> {
    // Without them nothing can be said of a scenario.
    let contracts = match Contracts::load(home.scenario_folders()) {
        Ok(contracts) => contracts,
        Err(error) => return faults(&[error]),
    };
    let files = files(named, home)?;
    let mut cases: Vec<Case> = Vec::new();
    let mut wrong = Vec::new();
    for (folder, file) in &files {
        match load_file(folder, file, &contracts) {
            Ok(more) => cases.extend(more),
            Err(error) => wrong.push(error),
        }
    }
    wrong.extend(scenario::same_ids(&cases));
    if wrong.is_empty() {
        outln!("{} scenarios, {} cases, good", files.len(), cases.len());
        return Ok(Exit::AsExpected);
    }
    faults(&wrong)
}

/// Their names, with what they are about.
fn template_names() -> Vec<PossibleValue> {
    TEMPLATES.iter().map(|(name, about, _)| PossibleValue::new(*name).help(*about)).collect()
}

fn new(name: &str, of: &str, about: &str, home: &Home) -> Result<Exit> {
    let path = match name.strip_suffix(".yaml") {
        Some(_) => PathBuf::from(name),
        None => home.own.scenarios.clone().unwrap_or_else(|| home.scenarios()).join(format!("{name}.yaml")),
    };
    let template = TEMPLATES.iter().find(|(one, ..)| *one == of).map_or("", |(.., text)| *text);
    write_template(template, about, &path)?;
    outln!("{}: change it, then `scenario check`, `scenario explain` and `run` it", path.display());
    Ok(Exit::AsExpected)
}

/// Each file with the folder that its ids are relative to.
fn files(named: &[PathBuf], home: &Home) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut files = Vec::new();
    for path in named {
        let found = path.canonicalize().ok().filter(|path| path.is_file());
        let found = found.ok_or_else(|| bad_input(format!("cannot open the scenario {}", path.display())))?;
        let ours = home.scenario_folders().find(|folder| found.starts_with(folder));
        let folder = ours.unwrap_or_else(|| found.parent().unwrap_or(Path::new("/")).to_owned());
        files.push((folder, found));
    }
    if named.is_empty() {
        for folder in home.scenario_folders() {
            files.extend(files_of(&folder)?.into_iter().map(|file| (folder.clone(), file)));
        }
    }
    Ok(files)
}

fn faults(wrong: &[anyhow::Error]) -> Result<Exit> {
    let mut exit = Exit::BadInput;
    for error in wrong {
        outln!("{error:#}");
        // A file that cannot be read is no fault of what is in it.
        if !error.is::<BadInput>() {
            exit = Exit::NoVerdict;
        }
    }
    Ok(exit)
}
