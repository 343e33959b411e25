// SPDX-License-Identifier: MIT OR Apache-2.0
//! `report`: renders stored results again.

use anyhow::Result;
use clap::Args;
use holdfast::home::Home;
use holdfast::outcome::Exit;
use holdfast::report::render;
use holdfast::{mutants, run, runs};

use crate::exit;
use crate::mutants::tell;

/// Render the stored results of a run again, judged anew from its facts
#[derive(Args, Debug)]
pub(crate) struct Report {
    /// A run's folder, its name or the beginning of it, or `latest`
    #[arg(default_value = "latest")]
    run: String,
    /// Where the run's folder is, when not in the usual place
    #[arg(long, value_name = "DIR")]
    results: Option<std::path::PathBuf>,
    /// Print results.json (of mutants: mutants.json) instead of the tables
    #[arg(long)]
    json: bool,
}

/// Prints a report; the exit is that of the verdicts.
pub(crate) fn main(report: &Report, home: &Home) -> Result<Exit> {
    let folder = runs::find(report.results.as_deref().unwrap_or(&home.runs), &report.run)?;
    let results = run::judged_again(&folder)?;
    if let Some(stored) = mutants::stored(&folder)? {
        return tell(&stored.again(&results), &folder, report.json);
    }
    if report.json {
        outln!("{}", serde_json::to_string_pretty(&results)?);
    } else {
        outln!("{}", render(&results, &folder));
    }
    Ok(exit(results.exit))
}
