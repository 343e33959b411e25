// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask`, and `holdfast` once installed: flags and dispatch, one file per subcommand, no
//! logic.

/// Prints a line. A reader that has seen enough (`| head`) is no error.
macro_rules! outln {
    ($($text:tt)*) => { $crate::print_line(format_args!($($text)*)) };
}

mod bench;
mod choice;
mod clean;
mod completions;
mod doctor;
mod install;
mod kernel;
mod list;
mod mutants;
mod report;
mod run;
mod scenario;
mod selftest;
mod shell;
mod shrink;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use holdfast::home::{Home, Own};
use holdfast::outcome::Exit;
use holdfast::progress::print;

/// See on a real kernel what happens when a file whose DAX pages a device has pinned is truncated.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, max_term_width = 100)]
struct Cli {
    /// A folder with scenarios and contracts of your own, beside Holdfast's
    #[arg(long, global = true, value_name = "PATH")]
    scenarios: Option<PathBuf>,
    /// A folder with kernels of your own, laid out as kernel-configs
    #[arg(long, global = true, value_name = "PATH")]
    kernels: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    List(list::List),
    Scenario(scenario::Scenario),
    Report(report::Report),
    Doctor(doctor::Doctor),
    Kernel(kernel::Kernel),
    Clean(clean::Clean),
    Shell(shell::Shell),
    Mutants(mutants::Mutants),
    Shrink(shrink::Shrink),
    Selftest(selftest::Selftest),
    Bench(bench::Bench),
    Test(test::Test),
    Install(install::Install),
    Completions(completions::Completions),
}

fn main() -> ExitCode {
    // Under its own name once installed; before that by cargo's alias.
    let installed = std::env::args().next().is_some_and(|name| name.ends_with("holdfast"));
    let name = if installed { "holdfast" } else { "cargo xtask" };
    let matches = Cli::command().bin_name(name).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let result = Home::find().and_then(|mut home| {
        home.own = Own::new(cli.scenarios.as_deref(), cli.kernels.as_deref())?;
        // What only a live process could remove is removed by the next command.
        holdfast::runs::tidy(&home.runs);
        // Nothing hangs on it: a cache that cannot be written has nothing to tidy.
        let _ = holdfast::scratch::tidy(&home.cache);
        dispatch(&cli.command, &home)
    });
    let exit = result.unwrap_or_else(|error| {
        print(&format!("error: {error:#}"));
        Exit::of_error(&error)
    });
    ExitCode::from(exit.code())
}

fn dispatch(command: &Command, home: &Home) -> anyhow::Result<Exit> {
    match command {
        Command::Run(args) => run::main(args, home),
        Command::List(args) => list::main(args, home),
        Command::Scenario(args) => scenario::main(args, home),
        Command::Report(args) => report::main(args, home),
        Command::Doctor(args) => doctor::main(args, home),
        Command::Kernel(args) => kernel::main(args, home),
        Command::Clean(args) => clean::main(args, home),
        Command::Shell(args) => shell::main(args, home),
        Command::Mutants(args) => mutants::main(args, home),
        Command::Shrink(args) => shrink::main(args, home),
        Command::Selftest(args) => selftest::main(args, home),
        Command::Bench(args) => bench::main(args, home),
        Command::Test(args) => test::main(args, home),
        Command::Install(args) => install::main(args, home),
        Command::Completions(args) => completions::main(args, Cli::command()),
    }
}

fn print_line(text: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// The exit of a stored code.
fn exit(code: u8) -> Exit {
    let all = [Exit::AsExpected, Exit::NotAsExpected, Exit::NoVerdict, Exit::BadInput, Exit::Interrupted];
    all.into_iter().find(|exit| exit.code() == code).unwrap_or(Exit::NoVerdict)
}
