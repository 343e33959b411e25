// SPDX-License-Identifier: MIT OR Apache-2.0
//! `bench`: measurements as ratios within one run; never a test.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::Result;
use clap::{Args, Subcommand};
use holdfast::bench::{Amount, SHORT, boots, machines};
use holdfast::home::Home;
use holdfast::kernel::{DEFAULT_BASE, Request};
use holdfast::outcome::Exit;
use holdfast::plan::Plan;
use holdfast::progress::Progress;
use holdfast::run::{Interrupt, machine_of};
use holdfast::{doctor, image};
use serde::Serialize;

use crate::choice::{Kernels, catalogue};
use crate::run::How;

/// Measure this machine
#[derive(Args, Debug)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// From starting QEMU to a ready guest, against a kernel whose init powers off
    Boot {
        /// The kernel
        #[arg(long, default_value = DEFAULT_BASE)]
        kernel: String,
        /// Boots of each kind
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        how: How,
    },
    /// Reading and checking all scenarios; build with --release to compare with the goal of 100 ms
    Check {
        /// Readings
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Saved machines: floor, cold boot, save, restore, short cases a minute, memory
    Machines {
        /// The kernel
        #[arg(long, default_value = DEFAULT_BASE)]
        kernel: String,
        /// Floors, cold boots, saves and restores
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Short cases on each file system
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        cases: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        how: How,
    },
}

/// Measures and prints.
pub(crate) fn main(bench: &Bench, home: &Home) -> Result<Exit> {
    let how = match &bench.what {
        What::Boot { how, .. } | What::Machines { how, .. } => how,
        What::Check { rounds, json } => return print(&check(home, *rounds)?, *json),
    };
    let progress = Progress::new(how.quiet);
    doctor::provide(false, &progress)?;
    let interrupt = Interrupt::listen(&progress)?;
    let settings = how.settings();
    match &bench.what {
        What::Boot { kernel, rounds, json, .. } => {
            let (machine, _) = machine_of(home, &Request::named(kernel), &settings, &progress, &interrupt)?;
            let floor = image::ensure(home, image::FLOOR, how.offline)?;
            let measured = boots(home, &machine, &floor.path, kernel, *rounds, &progress, &interrupt)?;
            print(&measured, *json)
        }
        // Answered above: it needs no machine.
        What::Check { .. } => Ok(Exit::AsExpected),
        What::Machines { kernel, rounds, cases, json, .. } => {
            let (contracts, scenarios) = catalogue(home)?;
            let (kernels, requests) =
                Kernels::default().resolve(home, &contracts, std::slice::from_ref(kernel))?;
            let plan = Plan::make(&scenarios, &contracts, &kernels, &[SHORT.to_owned()])?;
            let amount = Amount { rounds: *rounds, cases: *cases as usize };
            let request = &requests[kernel];
            let measured = machines(home, &plan, request, &settings, amount, &progress, &interrupt)?;
            print(&measured, *json)
        }
    }
}

/// What reading and checking costs.
#[derive(Debug, Serialize)]
struct Checked {
    scenarios: usize,
    cases: usize,
    rounds: u32,
    /// The median, in milliseconds.
    median_ms: f64,
    /// The slowest, in milliseconds.
    worst_ms: f64,
}

impl std::fmt::Display for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { scenarios, cases, rounds, median_ms, worst_ms } = self;
        let built = if cfg!(debug_assertions) { " (a debug build)" } else { "" };
        write!(
            f,
            "{scenarios} scenarios, {cases} cases: read and checked in {median_ms:.1} ms, at worst {worst_ms:.1} ms, of {rounds}{built}"
        )
    }
}

fn check(home: &Home, rounds: u32) -> Result<Checked> {
    let mut times = Vec::new();
    let mut cases = Vec::new();
    for _ in 0..rounds {
        let begun = Instant::now();
        cases = catalogue(home)?.1;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    let files: BTreeSet<_> = cases.iter().map(|case| &case.file).collect();
    Ok(Checked {
        scenarios: files.len(),
        cases: cases.len(),
        rounds,
        median_ms: times[times.len() / 2],
        worst_ms: times.last().copied().unwrap_or_default(),
    })
}

fn print<T: Serialize + std::fmt::Display>(measured: &T, json: bool) -> Result<Exit> {
    if json {
        outln!("{}", serde_json::to_string_pretty(measured)?);
    } else {
        outln!("{measured}");
    }
    Ok(Exit::AsExpected)
}
