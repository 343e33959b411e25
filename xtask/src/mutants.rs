// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mutants`: do the cases notice when a clause is broken?

use std::path::Path;

use anyhow::Result;
use clap::Args;
use holdfast::doctor;
use holdfast::home::Home;
use holdfast::mutants::{Brood, Report, bases, render, store};
use holdfast::outcome::{Exit, bad_input};
use holdfast::progress::Progress;
use holdfast::run::{self as library, Interrupt, Settings, run};
use holdfast::runs;

use crate::choice::{Kernels, catalogue, own_files};
use crate::exit;
use crate::run::How;

/// Build the mutants of a kernel and see whether each breaks the clauses it names, and no other
#[derive(Args, Debug)]
pub(crate) struct Mutants {
    /// The kernel whose mutants they are, where more than one has some; then cases, as `run` takes them
    /// [default: every case that proves a clause of the kernel's contract]
    #[arg(value_name = "[BASE] [CASE]")]
    words: Vec<String>,
    /// Only this mutant; may be given more than once
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Do not play the kernel itself, on which every clause must hold
    #[arg(long)]
    without_base: bool,
    /// Mutate the kernel with KASAN, lockdep, kmemleak and the like
    #[arg(long)]
    debug: bool,
    #[command(flatten)]
    how: How,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Show what would be run, and run nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs and prints the report; the exit is that of the mutants.
pub(crate) fn main(mutants: &Mutants, home: &Home) -> Result<Exit> {
    let how = &mutants.how;
    if let Some(results) = &how.results {
        runs::tidy(results);
    }
    let (contracts, mut scenarios) = catalogue(home)?;
    let (base, cases) = split(&mutants.words, home)?;
    own_files(cases, home, &contracts, &mut scenarios)?;
    let kernels = Kernels { kernel: vec![base], debug: mutants.debug, ..Kernels::default() };
    let (mut planned, requests) = kernels.resolve(home, &contracts, &[])?;
    how.bring(&mut planned)?;
    let base = &planned[0];
    let contract = contracts.find(&base.contract)?;
    let brood = Brood::load(home, base, &requests[&base.name], contract, &mutants.only)?;
    let (plan, requests) = brood.plan(&scenarios, &contracts, cases, !mutants.without_base)?;
    if mutants.dry_run {
        for case in &plan.cases {
            outln!("{:16} {}", case.kernel, case.id);
        }
        return Ok(Exit::AsExpected);
    }
    let progress = &Progress::new(how.quiet);
    doctor::provide(false, false, progress)?;
    let interrupt = &Interrupt::listen(progress)?;
    let jobs = how.jobs();
    if let Some(why) = jobs.why {
        progress.say(why);
    }
    let settings = &Settings { jobs: jobs.count, ..how.settings() };
    let (plan, requests) = (&plan, &requests);
    let (results, folder) = run(library::Run { home, plan, requests, settings, progress, interrupt })?;
    let report = Report::new(&base.name, &base.contract, &brood.mutants, &results);
    store(&report, &folder)?;
    tell(&report, &folder, mutants.json)
}

/// Prints a report.
pub(crate) fn tell(report: &Report, folder: &Path, json: bool) -> Result<Exit> {
    if json {
        outln!("{}", serde_json::to_string_pretty(report)?);
    } else {
        outln!("{}", render(report, folder));
    }
    Ok(exit(report.exit))
}

/// The kernel, which no word of a case can be taken for, and the cases.
fn split<'a>(words: &'a [String], home: &Home) -> Result<(String, &'a [String])> {
    let is_case = |word: &String| word.contains(['/', '*', ':']) || word.ends_with(".yaml");
    if let [base, cases @ ..] = words
        && !is_case(base)
    {
        return Ok((base.clone(), cases));
    }
    let known = bases(home)?;
    match (known.first(), known.len()) {
        (Some(only), 1) => Ok((only.clone(), words)),
        (None, _) => Err(bad_input("no kernel has mutants: kernel-configs/mutants/BASE/NAME.patch is one")),
        (Some(_), _) => {
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            Err(bad_input(format!("several kernels have mutants, name one: {known}")))
        }
    }
}
