// SPDX-License-Identifier: MIT OR Apache-2.0
//! `shell`: the same guest, with a person at its console.

use anyhow::Result;
use clap::Args;
use holdfast::doctor;
use holdfast::home::Home;
use holdfast::kernel;
use holdfast::machine::interactive;
use holdfast::outcome::{Exit, bad_input};
use holdfast::progress::Progress;
use holdfast::run::{Interrupt, machine_of};

use crate::choice::{Kernels, catalogue};
use crate::run::How;

/// Boot the guest of a case with a shell on its console (leave with `exit` or ctrl-a x)
#[derive(Args, Debug)]
pub(crate) struct Shell {
    #[command(flatten)]
    kernels: Kernels,
    #[command(flatten)]
    how: How,
}

/// Boots and waits until the guest is powered off.
pub(crate) fn main(shell: &Shell, home: &Home) -> Result<Exit> {
    let (contracts, _) = catalogue(home)?;
    let default = [kernel::DEFAULT_BASE.to_owned()];
    let (_, requests) = shell.kernels.resolve(home, &contracts, &default)?;
    let Some((_, request)) = requests.first_key_value().filter(|_| requests.len() == 1) else {
        return Err(bad_input("a shell runs on one kernel: name it with --kernel"));
    };
    let progress = Progress::new(shell.how.quiet);
    doctor::provide(false, false, &progress)?;
    let interrupt = Interrupt::listen(&progress)?;
    let (machine, _) = machine_of(home, request, &shell.how.settings(), &progress, &interrupt)?;
    interactive(home, &machine)?;
    Ok(Exit::AsExpected)
}
