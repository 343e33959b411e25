// SPDX-License-Identifier: MIT OR Apache-2.0
//! `shrink`: a stress that fails, with fewer operations.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use holdfast::doctor;
use holdfast::home::Home;
use holdfast::judge::{self, Verdict};
use holdfast::outcome::{Exit, Kind, bad_input};
use holdfast::plan::{Plan, PlannedCase};
use holdfast::progress::Progress;
use holdfast::run::{self as library, Interrupt, Requests, Settings, run};
use holdfast::scenario::Action;
use holdfast::shrink::{as_step, is_same, shrink};

use crate::choice::{Kernels, catalogue, look, own_files};
use crate::run::How;

/// Play a stress that fails again and again, with fewer operations and for less time, as long as it fails the same way
#[derive(Args, Debug)]
pub(crate) struct Shrink {
    /// A case with a stress: its id, or a scenario's path
    #[arg(value_name = "CASE")]
    case: String,
    /// How often a smaller one is played before it is taken for one that does not fail
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    tries: u32,
    #[command(flatten)]
    kernels: Kernels,
    #[command(flatten)]
    how: How,
}

/// Plays, shrinks and prints what is left.
pub(crate) fn main(args: &Shrink, home: &Home) -> Result<Exit> {
    let (contracts, mut scenarios) = catalogue(home)?;
    let named = [args.case.clone()];
    own_files(&named, home, &contracts, &mut scenarios)?;
    let (mut kernels, requests) = args.kernels.resolve(home, &contracts, &[])?;
    args.how.bring(&mut kernels)?;
    if kernels.len() != 1 {
        return Err(bad_input("a stress fails on one kernel: name it with --kernel"));
    }
    // What was mistyped is told before anything is fetched.
    chosen(&Plan::make(&scenarios, &contracts, &kernels, &named)?, &args.case)?;
    let progress = Progress::new(args.how.quiet);
    doctor::provide(false, false, &progress)?;
    let interrupt = Interrupt::listen(&progress)?;
    look(&mut kernels, &requests, home, args.how.offline, &progress, &interrupt)?;
    let plan = Plan::make(&scenarios, &contracts, &kernels, &named)?;
    let case = chosen(&plan, &args.case)?;
    // The same seed throughout: every actor draws what is left of the same sequence.
    let settings = Settings { jobs: 1, ..args.how.settings() };
    let game =
        Game { home, plan: &plan, requests: &requests, settings: &settings, progress: &progress, interrupt };
    let (first, folder) = game.play(case)?;
    if !matches!(first.kind, Kind::Fail | Kind::KernelBug | Kind::Timeout | Kind::Lost) {
        outln!(
            "{} came out as {}: there is nothing to shrink (seed {})",
            case.id,
            first.kind.name(),
            settings.seed
        );
        return Ok(if first.kind == Kind::Pass { Exit::AsExpected } else { Exit::NoVerdict });
    }
    let mut evidence = folder;
    let (shrunk, ended) = shrink(case, |smaller| {
        for _ in 0..args.tries {
            let (verdict, folder) = game.play(smaller)?;
            if is_same(&first, &verdict) {
                evidence = folder;
                return Ok(true);
            }
            // It must not push a real run out.
            fs::remove_dir_all(folder)?;
        }
        Ok(false)
    });
    let (before, after) = shrunk.choices;
    outln!("{} on {}: {}", case.id, case.kernel, in_words(&first));
    outln!(
        "{before} operations to draw from became {after}; {} smaller ones were tried; seed {}",
        shrunk.tried,
        settings.seed
    );
    outln!("{}", as_step(&shrunk.case).trim_end());
    outln!("evidence  {}", evidence.display());
    match ended {
        None => Ok(Exit::NotAsExpected),
        Some(error) => Err(error.context("it may become smaller still")),
    }
}

/// The one case with a stress that was meant.
fn chosen<'a>(plan: &'a Plan, named: &str) -> Result<&'a PlannedCase> {
    let drawn = |case: &&PlannedCase| case.steps.iter().any(|step| matches!(step.action, Action::Draw { .. }));
    let selected: Vec<&PlannedCase> = plan.cases.iter().filter(|case| !case.control && drawn(case)).collect();
    // A whole id is that case, also where it is the beginning of others.
    let whole: Vec<&PlannedCase> = selected.iter().copied().filter(|case| case.id == named).collect();
    let selected = if whole.is_empty() { selected } else { whole };
    match selected.as_slice() {
        [case] => Ok(case),
        [] => {
            let others: Vec<&PlannedCase> = plan.cases.iter().filter(|case| !case.control).collect();
            let why = match others.as_slice() {
                [one] => one.excluded.as_deref().map(|why| format!(": {why}")).unwrap_or_default(),
                _ => String::new(),
            };
            Err(bad_input(format!("one case with a stress is shrunk; `{named}` names none{why}")))
        }
        several => {
            let ids: Vec<&str> = several.iter().map(|case| case.id.as_str()).collect();
            let ids = ids.join(", ");
            Err(bad_input(format!("one case with a stress is shrunk; `{named}` names {ids}")))
        }
    }
}

fn in_words(verdict: &Verdict) -> String {
    let parts = [&verdict.step, &verdict.title, &verdict.got].into_iter().flatten();
    format!("{}: {}", verdict.kind.name(), parts.cloned().collect::<Vec<_>>().join(": "))
}

struct Game<'a> {
    home: &'a Home,
    plan: &'a Plan,
    requests: &'a Requests,
    settings: &'a Settings,
    progress: &'a Progress,
    interrupt: Interrupt,
}

impl Game<'_> {
    /// One run of the case alone; its verdict and the run's folder.
    fn play(&self, case: &PlannedCase) -> Result<(Verdict, PathBuf)> {
        let plan = &Plan { cases: vec![case.clone()], ..self.plan.clone() };
        let Self { home, requests, settings, progress, interrupt, .. } = self;
        let (_, folder) = run(library::Run { home, plan, requests, settings, progress, interrupt })?;
        if let Err(ended) = self.interrupt.check() {
            fs::remove_dir_all(folder)?;
            return Err(ended);
        }
        let (plan, records) = library::stored(&folder)?;
        let judged = judge::judge(&plan.cases[0], &plan.contracts[&case.contract], &records[0]);
        Ok((judged.verdict, folder))
    }
}
