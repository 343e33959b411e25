// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask`, and `holdfast` once installed: flags and dispatch, one file per subcommand, no
//! logic.

mod choice;
mod clean;
mod doctor;
mod list;
mod report;
mod run;
mod selftest;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use holdfast::home::Home;
use holdfast::outcome::Exit;

/// See on a real kernel what happens when a file whose DAX pages a device has pinned is truncated.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    List(list::List),
    Report(report::Report),
    Doctor(doctor::Doctor),
    Clean(clean::Clean),
    Selftest(selftest::Selftest),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = Home::find().and_then(|home| match &cli.command {
        Command::Run(args) => run::main(args, &home),
        Command::List(args) => list::main(args, &home),
        Command::Report(args) => report::main(args, &home),
        Command::Doctor(args) => doctor::main(args, &home),
        Command::Clean(args) => clean::main(args, &home),
        Command::Selftest(args) => selftest::main(args, &home),
    });
    let exit = result.unwrap_or_else(|error| {
        anstream::eprintln!("error: {error:#}");
        Exit::of_error(&error)
    });
    ExitCode::from(exit.code())
}

/// The exit of a stored code.
fn exit(code: u8) -> Exit {
    let all = [Exit::AsExpected, Exit::NotAsExpected, Exit::NoVerdict, Exit::BadInput, Exit::Interrupted];
    all.into_iter().find(|exit| exit.code() == code).unwrap_or(Exit::NoVerdict)
}
