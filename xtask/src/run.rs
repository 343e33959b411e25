// SPDX-License-Identifier: MIT OR Apache-2.0
//! `run`: kernels, machines, cases, verdicts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use holdfast::contract::Contracts;
use holdfast::doctor;
use holdfast::home::Home;
use holdfast::image::Extra;
use holdfast::jobs::Jobs;
use holdfast::kernel::Request;
use holdfast::machine::Inside;
use holdfast::machine::accel::{Kind, Wish};
use holdfast::outcome::{Exit, bad_input};
use holdfast::plan::{Plan, PlanFile, PlannedKernel};
use holdfast::progress::Progress;
use holdfast::report::render;
use holdfast::run::{self as library, Interrupt, Requests, Settings, run};
use holdfast::runs;
use holdfast::scenario::Scenario;

use crate::choice::{Kernels, catalogue, look, own_files};
use crate::exit;

/// Build kernels, boot them, play cases, judge what came back
#[derive(Args, Debug)]
pub(crate) struct Run {
    /// A scenario's path, a glob over case ids, or clause:CONTRACT/CLAUSE; behind a `!` it leaves out; of several the last one counts
    #[arg(value_name = "CASE")]
    cases: Vec<String>,
    /// Every case there is
    #[arg(long, conflicts_with_all = ["cases", "plan"])]
    all: bool,
    /// A plan of scenarios/plans
    #[arg(long, value_name = "NAME", conflicts_with = "cases")]
    plan: Option<String>,
    #[command(flatten)]
    kernels: Kernels,
    #[command(flatten)]
    how: How,
    /// Install missing Debian packages first (needs root)
    #[arg(long)]
    install: bool,
    /// Play every case this many times; the table tells how often each verdict was given
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Trace events to record in each case (`filelock:*,fs_dax:dax_pmd_fault`), on a kernel that is stored apart as
    /// NAME-trace
    #[arg(long, value_name = "EVENTS", value_delimiter = ',')]
    trace: Vec<String>,
    /// Let a debugger look into each case's guest: QEMU's gdb stub on a socket, the line to type printed, no deadlines
    #[arg(long)]
    gdb: bool,
    /// Keep a guest where a step did not come back as expected, with a shell on a socket
    #[arg(long)]
    pause_on_fail: bool,
    /// Print each event as a line of JSON, and nothing else (docs/results.md)
    #[arg(long, conflicts_with_all = ["quiet", "dry_run"])]
    json_stream: bool,
    /// Show what would be run, and run nothing
    #[arg(long)]
    dry_run: bool,
}

/// How guests are run.
#[derive(Args, Clone, Debug)]
pub(crate) struct How {
    /// Where the run's folder goes
    #[arg(long, value_name = "DIR")]
    pub(crate) results: Option<PathBuf>,
    /// Never use the network; say what would have been fetched
    #[arg(long)]
    pub(crate) offline: bool,
    /// Kernel arguments to add
    #[arg(long, value_name = "ARGS", default_value = "", allow_hyphen_values = true)]
    pub(crate) append: String,
    /// A program of yours for scenarios to run, with the libraries it loads; NAME is the file's unless given
    #[arg(long, value_name = "[NAME=]FILE", value_parser = program)]
    pub(crate) program: Vec<Extra>,
    /// Cases at the same time [default: one a core, as far as free memory reaches]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) jobs: Option<u16>,
    /// Keep the pmem images of passes too
    #[arg(long)]
    pub(crate) keep: bool,
    /// Boot a machine for every case instead of copying a saved one
    #[arg(long)]
    pub(crate) cold: bool,
    /// What the guests' random numbers come from [default: another one each time]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// What QEMU executes with
    #[arg(long, value_enum, default_value_t = Accel::Auto)]
    pub(crate) accel: Accel,
    /// No progress, only what is worth a line and the results
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// What QEMU executes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accel {
    /// KVM where it works, TCG elsewhere
    Auto,
    /// The host's processor
    Kvm,
    /// Translation
    Tcg,
}

impl How {
    /// What was asked for is obeyed; otherwise what fits.
    pub(crate) fn jobs(&self) -> Jobs {
        self.jobs.map_or_else(Jobs::usual, |jobs| Jobs { count: jobs.into(), why: None })
    }

    /// Tells each kernel's guests of the programs that they are to have.
    ///
    /// # Errors
    /// Bad input for a name that is taken.
    pub(crate) fn bring(&self, kernels: &mut [PlannedKernel]) -> Result<()> {
        for program in &self.program {
            for kernel in &mut *kernels {
                if kernel.programs.contains(&program.name) {
                    let name = &program.name;
                    return Err(bad_input(format!(
                        "--program: there is a program `{name}` already; call yours something else: NAME=FILE"
                    )));
                }
                kernel.programs.push(program.name.clone());
            }
        }
        Ok(())
    }

    /// As the library takes it.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            results: self.results.clone(),
            offline: self.offline,
            jobs: self.jobs().count,
            keep: self.keep,
            cold: self.cold,
            seed: self.seed.unwrap_or_else(seed_of_now),
            inside: Inside::default(),
            append: self.append.clone(),
            programs: self.program.clone(),
            accelerator: match self.accel {
                Accel::Auto => Wish::Auto,
                Accel::Kvm => Wish::Only(Kind::Kvm),
                Accel::Tcg => Wish::Only(Kind::Tcg),
            },
            command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        }
    }
}

/// What stands behind `--program`.
fn program(text: &str) -> Result<Extra, String> {
    let (name, path) = match text.split_once('=') {
        Some((name, path)) => (name.to_owned(), PathBuf::from(path)),
        None => {
            let path = PathBuf::from(text);
            let name = path.file_name().ok_or("a program is a file")?.to_string_lossy().into_owned();
            (name, path)
        }
    };
    if name.is_empty() || name.contains('/') {
        return Err(format!("`{name}` is no name of a program: say NAME=FILE"));
    }
    if !path.is_file() {
        return Err(format!("there is no file {}", path.display()));
    }
    Extra::of_file(name, path.clone()).map_err(|error| format!("{}: {error}", path.display()))
}

/// A seed that no other run has had.
fn seed_of_now() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    // What the standard library draws for its maps; short enough to be typed again.
    RandomState::new().hash_one(()) >> 32
}

impl Run {
    /// A person looks at one guest at a time. One that a debugger is to see from its first instruction on boots.
    fn settings(&self, progress: &Progress) -> Settings {
        let inside = Inside { gdb: self.gdb, shell: self.pause_on_fail };
        let settings = Settings { inside, ..self.how.settings() };
        if inside != Inside::default() {
            return Settings { jobs: 1, cold: settings.cold || self.gdb, ..settings };
        }
        let jobs = self.how.jobs();
        if let Some(why) = jobs.why {
            progress.say(why);
        }
        Settings { jobs: jobs.count, ..settings }
    }

    /// A run of a plan, as `test` does it.
    pub(crate) fn of_plan(name: &str, how: How) -> Self {
        Self {
            cases: Vec::new(),
            all: false,
            plan: Some(name.to_owned()),
            kernels: Kernels::default(),
            how,
            install: false,
            repeat: 1,
            trace: Vec::new(),
            gdb: false,
            pause_on_fail: false,
            json_stream: false,
            dry_run: false,
        }
    }
}

/// Runs and prints the report; the exit is that of the verdicts.
pub(crate) fn main(run: &Run, home: &Home) -> Result<Exit> {
    if let Some(results) = &run.how.results {
        runs::tidy(results);
    }
    if !run.dry_run {
        return Ok(play(run, home)?.0);
    }
    let mut asked = Asked::read(run, home)?;
    let progress = Progress::new(true);
    look(&mut asked.kernels, &asked.requests, home, true, &progress, &Interrupt::listen(&progress)?)?;
    let (plan, _) = asked.plan(run)?;
    for case in plan.cases.iter().filter(|case| case.excluded.is_none()) {
        outln!("{:16} {}", case.kernel, case.id);
    }
    Ok(Exit::AsExpected)
}

/// What was asked for, read and found to be there.
struct Asked {
    contracts: Contracts,
    scenarios: Vec<Scenario>,
    kernels: Vec<PlannedKernel>,
    requests: Requests,
    selectors: Vec<String>,
    leave_out: BTreeMap<String, Vec<String>>,
}

impl Asked {
    fn read(run: &Run, home: &Home) -> Result<Self> {
        let (contracts, mut scenarios) = catalogue(home)?;
        own_files(&run.cases, home, &contracts, &mut scenarios)?;
        let kernels = Kernels { traced: !run.trace.is_empty(), ..run.kernels.clone() };
        let plan_file = PlanFile::load(&home.scenarios(), run.plan.as_deref().unwrap_or("default"))?;
        let (mut kernels, requests) = kernels.resolve(home, &contracts, &plan_file.kernels)?;
        run.how.bring(&mut kernels)?;
        let (selectors, leave_out) = match (run.all, run.cases.is_empty()) {
            (true, _) => Default::default(),
            (false, true) => (plan_file.cases, plan_file.leave_out),
            (false, false) => (run.cases.clone(), BTreeMap::new()),
        };
        Ok(Self { contracts, scenarios, kernels, requests, selectors, leave_out })
    }

    fn plan(&self, run: &Run) -> Result<(Plan, Requests)> {
        let Self { scenarios, contracts, kernels, .. } = self;
        let plan = Plan::make(scenarios, contracts, kernels, &self.selectors)?;
        // A variant of a kernel is named otherwise; a person's tree or series is another kernel, and plays all.
        let of_base = |kernel: &PlannedKernel| {
            let plain = Request { variant: None, ..self.requests[&kernel.name].clone() };
            Some((kernel.name.clone(), self.leave_out.get(&plain.name())?.clone()))
        };
        let leave_out = kernels.iter().filter_map(of_base).collect();
        let plan = plan.without(&leave_out, scenarios, contracts)?;
        Ok((plan.repeated(run.repeat).traced(&run.trace), self.requests.clone()))
    }
}

/// Runs, prints the report, and says where the run's folder is.
pub(crate) fn play(run_args: &Run, home: &Home) -> Result<(Exit, PathBuf)> {
    let mut asked = Asked::read(run_args, home)?;
    // What was mistyped is told before anything is installed or fetched.
    asked.plan(run_args)?;
    let progress =
        if run_args.json_stream { Progress::json_stream() } else { Progress::new(run_args.how.quiet) };
    doctor::provide(run_args.install && !run_args.how.offline, false, &progress)?;
    let interrupt = Interrupt::listen(&progress)?;
    look(&mut asked.kernels, &asked.requests, home, run_args.how.offline, &progress, &interrupt)?;
    let (plan, requests) = asked.plan(run_args)?;
    let settings = &run_args.settings(&progress);
    let (plan, requests, progress, interrupt) = (&plan, &requests, &progress, &interrupt);
    let (results, folder) = run(library::Run { home, plan, requests, settings, progress, interrupt })?;
    if !run_args.json_stream {
        outln!("{}", render(&results, &folder));
    }
    Ok((exit(results.exit), folder))
}
