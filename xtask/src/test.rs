// SPDX-License-Identifier: MIT OR Apache-2.0
//! `test`: everything, the fast first.

use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;
use holdfast::doctor;
use holdfast::flip::flip;
use holdfast::home::Home;
use holdfast::outcome::{Exit, bad_input};
use holdfast::progress::{Progress, print};

use crate::run::{How, Run};
use crate::selftest::tell;

/// Format, lints, unit tests, then the plan `ci` (of `--full`: `nightly`) on real machines
#[derive(Args, Debug)]
pub(crate) struct Test {
    /// Install missing Debian packages first (needs root)
    #[arg(long)]
    install: bool,
    /// Also what takes too long for every change: the plan `nightly`, tests that build kernels
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    how: How,
}

/// Tells the tests that boot machines to do all they can.
const FULL: &str = "HOLDFAST_FULL";

/// The module of tests that take too long for every change.
const LONG: &str = "long::";

/// Stops at the first stage that fails.
pub(crate) fn main(test: &Test, home: &Home) -> Result<Exit> {
    if !home.is_clone {
        return Err(bad_input("test works in a clone of Holdfast: run `cargo xtask test` there"));
    }
    let progress = Progress::new(test.how.quiet);
    doctor::provide(test.install && !test.how.offline, true, &progress)?;
    let stages: [(&str, &[&str]); 3] = [
        ("format", &["fmt", "--all", "--check"]),
        ("lints", &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        ("unit tests", &["test", "--quiet", "--workspace"]),
    ];
    // It compiles all of Holdfast a second time, and a fuzzer.
    let fuzz = ["check", "--quiet", "--locked", "--manifest-path", "harness/fuzz/Cargo.toml"];
    let fuzz: Option<(&str, &[&str])> = test.full.then_some(("fuzz targets", &fuzz));
    for (name, arguments) in stages.into_iter().chain(fuzz) {
        if !cargo(home, name, arguments, test)? {
            return Ok(Exit::NotAsExpected);
        }
    }
    let plan = if test.full { "nightly" } else { "ci" };
    heading(&format!("plan {plan} on real machines"));
    let run = Run::of_plan(plan, How { keep: false, ..test.how.clone() });
    let (exit, folder) = crate::run::play(&run, home)?;
    if exit != Exit::AsExpected {
        return Ok(exit);
    }
    heading("altered facts");
    let (plan, records) = holdfast::run::stored(&folder)?;
    let flipped = flip(&plan, &records);
    let exit = tell(&flipped);
    if exit != Exit::AsExpected {
        return Ok(exit);
    }
    let mut machines =
        vec!["test", "--package", "xtask", "--test", "machines", "--", "--ignored", "--test-threads=1"];
    if !test.full {
        machines.extend(["--skip", LONG]);
    }
    Ok(match cargo(home, "tests on real machines", &machines, test)? {
        true => Exit::AsExpected,
        false => Exit::NotAsExpected,
    })
}

/// Runs a stage; false when it fails.
fn cargo(home: &Home, name: &str, arguments: &[&str], test: &Test) -> Result<bool> {
    heading(name);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(&home.data);
    if test.full {
        command.env(FULL, "1");
    }
    if test.how.offline {
        command.env("CARGO_NET_OFFLINE", "true");
    }
    let status = command.status().context("cannot run cargo")?;
    if !status.success() {
        print(&format!("error: {name}: cargo {}: {status}", arguments.join(" ")));
    }
    Ok(status.success())
}

fn heading(name: &str) {
    outln!("\n== {name}");
}
