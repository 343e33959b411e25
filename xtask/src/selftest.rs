// SPDX-License-Identifier: MIT OR Apache-2.0
//! `selftest`: does Holdfast notice when something else comes back?

use anyhow::Result;
use clap::{Args, Subcommand};
use holdfast::flip::flip;
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
    },
}

/// Runs a self-test.
pub(crate) fn main(selftest: &Selftest, home: &Home) -> Result<Exit> {
    let Which::Flip { run } = &selftest.which;
    let (plan, records) = run::stored(&runs::find(&home.runs, run)?)?;
    let flipped = flip(&plan, &records);
    for vacuous in &flipped.vacuous {
        anstream::println!("vacuous  {vacuous}");
    }
    for idle in &flipped.idle {
        anstream::println!("idle     {idle}: no fact to alter");
    }
    anstream::println!("{} alterations, {} stayed green", flipped.tried, flipped.vacuous.len());
    Ok(match (flipped.tried, flipped.vacuous.is_empty() && flipped.idle.is_empty()) {
        (0, _) => Exit::NoVerdict,
        (_, true) => Exit::AsExpected,
        (_, false) => Exit::NotAsExpected,
    })
}
