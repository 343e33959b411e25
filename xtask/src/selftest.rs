// SPDX-License-Identifier: MIT OR Apache-2.0
//! `selftest`: does Holdfast notice when something else comes back?

use anyhow::Result;
use clap::{Args, Subcommand};
use holdfast::flip::{Flipped, flip};
use holdfast::home::Home;
use holdfast::outcome::Exit;
use holdfast::{run, runs};

/// Tests of Holdfast by Holdfast
#[derive(Args, Debug)]
pub(crate) struct Selftest {
    #[command(subcommand)]
    which: Which,
}

#[derive(Debug, Subcommand)]
enum Which {
    /// Alter each fact behind a claim of a stored run; every alteration must turn its case red
    Flip {
        /// A run's folder, its name or the beginning of it, or `latest`
        #[arg(default_value = "latest")]
        run: String,
        /// Where the run's folder is, when not in the usual place
        #[arg(long, value_name = "DIR")]
        results: Option<std::path::PathBuf>,
    },
}

/// Runs a self-test.
pub(crate) fn main(selftest: &Selftest, home: &Home) -> Result<Exit> {
    let Which::Flip { run, results } = &selftest.which;
    let (plan, records) = run::stored(&runs::find(results.as_deref().unwrap_or(&home.runs), run)?)?;
    let flipped = flip(&plan, &records);
    Ok(tell(&flipped))
}

/// Prints what came of altered facts.
pub(crate) fn tell(flipped: &Flipped) -> Exit {
    for vacuous in &flipped.vacuous {
        outln!("vacuous  {vacuous}");
    }
    for idle in &flipped.idle {
        outln!("idle     {idle}: no fact to alter");
    }
    outln!("{} alterations, {} stayed green", flipped.tried, flipped.vacuous.len());
    match (flipped.tried, flipped.vacuous.is_empty() && flipped.idle.is_empty()) {
        (0, _) => Exit::NoVerdict,
        (_, true) => Exit::AsExpected,
        (_, false) => Exit::NotAsExpected,
    }
}
