// SPDX-License-Identifier: MIT OR Apache-2.0
//! `completions`: what a shell needs to complete subcommands and flags.

use anyhow::Result;
use clap::{Args, Command};
use clap_complete::{Shell, generate};
use holdfast::outcome::Exit;

/// Print the completions of the installed program for a shell
#[derive(Args, Debug)]
#[command(
    after_help = "For bash: holdfast completions bash > ~/.local/share/bash-completion/completions/holdfast"
)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints them.
pub(crate) fn main(completions: &Completions, mut command: Command) -> Result<Exit> {
    let mut text = Vec::new();
    generate(completions.shell, &mut command, "holdfast", &mut text);
    outln!("{}", String::from_utf8_lossy(&text).trim_end());
    Ok(Exit::AsExpected)
}
