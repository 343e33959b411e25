// SPDX-License-Identifier: MIT OR Apache-2.0
//! `bench`: measurements as ratios within one run; never a test.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::Result;
use clap::{Args, Subcommand};
use holdfast::bench::{Amount, Much, SHORT, Side, boots, costs, machines, peers};
use holdfast::home::Home;
use holdfast::kernel::{DEFAULT_BASE, Request, Variant};
use holdfast::machine::accel::{Kind, Wish};
use holdfast::outcome::{Exit, bad_input};
use holdfast::plan::Plan;
use holdfast::progress::Progress;
use holdfast::run::{Interrupt, Settings, machine_of};
use holdfast::{doctor, image};
use serde::Serialize;

use crate::choice::{Kernels, catalogue};
use crate::run::{Accel, How};

/// The kernel that is measured where none is named.
const MEASURED: &str = "rfc-v1-6.12";

/// Measure this machine, or what a kernel costs
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
    /// What a kernel costs those who do not ask for what is new in it, in instructions of the guest
    Kernel {
        #[command(flatten)]
        kernels: Box<Kernels>,
        /// The kernel it is measured against
        #[arg(long, value_name = "NAME", default_value = DEFAULT_BASE)]
        against: String,
        /// Machines of each kernel; how far those of one are apart is the control
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=20))]
        machines: u32,
        /// Rounds on each machine
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: u32,
        /// Repetitions in a round
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        times: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        how: How,
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
    /// `uname -r` by virtme-ng, without KVM on both sides, against a cold boot and a restore on the same kernel
    Peers {
        /// The kernel; built with what virtme-ng needs beside, as NAME-peers
        #[arg(long, default_value = DEFAULT_BASE)]
        kernel: String,
        /// Rounds, each of them one of each
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
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
        What::Boot { how, .. }
        | What::Kernel { how, .. }
        | What::Machines { how, .. }
        | What::Peers { how, .. } => how,
        What::Check { rounds, json } => return print(&check(home, *rounds)?, *json),
    };
    let progress = Progress::new(how.quiet);
    doctor::provide(false, false, &progress)?;
    let interrupt = Interrupt::listen(&progress)?;
    let settings = how.settings();
    match &bench.what {
        What::Boot { kernel, rounds, json, .. } => {
            let (machine, _) = machine_of(home, &Request::named(kernel), &settings, &progress, &interrupt)?;
            let floor = image::Parts::collect(home, image::FLOOR, how.offline)?.with(home, &[], &[])?;
            let measured = boots(home, &machine, &floor.path, kernel, *rounds, &progress, &interrupt)?;
            print(&measured, *json)
        }
        What::Peers { kernel, rounds, json, .. } => {
            if how.accel == Accel::Kvm {
                return Err(bad_input("the comparison is one without KVM: leave --accel out"));
            }
            let settings = Settings { accelerator: Wish::Only(Kind::Tcg), ..settings };
            let request = Request { variant: Some(Variant::Peers), ..Request::named(kernel) };
            let (machine, built) = machine_of(home, &request, &settings, &progress, &interrupt)?;
            let floor = image::Parts::collect(home, image::FLOOR, how.offline)?.with(home, &[], &[])?;
            let (progress, interrupt) = (&progress, &interrupt);
            let measured =
                peers(home, &machine, &built, &floor.path, *rounds, how.offline, progress, interrupt)?;
            print(&measured, *json)
        }
        What::Kernel { kernels, against, machines, rounds, times, json, .. } => {
            if how.accel == Accel::Kvm {
                return Err(bad_input("KVM does not count instructions: leave --accel out"));
            }
            let (contracts, _) = catalogue(home)?;
            let (_, requests) = kernels.resolve(home, &contracts, &[MEASURED.to_owned()])?;
            let Some((name, request)) = requests.first_key_value().filter(|_| requests.len() == 1) else {
                return Err(bad_input("one kernel is measured, against another one: --kernel A --against B"));
            };
            let settings = Settings { accelerator: Wish::Only(Kind::Tcg), ..settings };
            let base = Request::named(against);
            let [(base, _), (machine, _)] = [
                machine_of(home, &base, &settings, &progress, &interrupt)?,
                machine_of(home, request, &settings, &progress, &interrupt)?,
            ];
            let (kernel, against) = (Side { name, machine: &machine }, Side { name: against, machine: &base });
            let much = Much { machines: *machines, rounds: *rounds, times: *times };
            print(&costs(home, kernel, against, much, &progress, &interrupt)?, *json)
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
