// SPDX-License-Identifier: MIT OR Apache-2.0
//! `bench`: measurements as ratios within one run; never a test.

use anyhow::Result;
use clap::{Args, Subcommand};
use holdfast::bench::boots;
use holdfast::home::Home;
use holdfast::kernel::{DEFAULT_BASE, Request};
use holdfast::outcome::Exit;
use holdfast::progress::Progress;
use holdfast::run::{Interrupt, machine_of};
use holdfast::{doctor, image};

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
}

/// Measures and prints.
pub(crate) fn main(bench: &Bench, home: &Home) -> Result<Exit> {
    let What::Boot { kernel, rounds, json, how } = &bench.what;
    let progress = Progress::new(how.quiet);
    doctor::provide(false, &progress)?;
    let interrupt = Interrupt::listen(&progress)?;
    let machine = machine_of(home, &Request::named(kernel), &how.settings(), &progress, &interrupt)?;
    let floor = image::ensure(home, image::FLOOR, how.offline)?;
    let measured = boots(home, &machine, &floor.path, kernel, *rounds, &progress, &interrupt)?;
    if *json {
        outln!("{}", serde_json::to_string_pretty(&measured)?);
    } else {
        outln!("{measured}");
    }
    Ok(Exit::AsExpected)
}
