// SPDX-License-Identifier: MIT OR Apache-2.0
//! `kernel`: the kernels there are, built or not.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::{Args, Subcommand};
use holdfast::contract::Contracts;
use holdfast::home::Home;
use holdfast::kernel::{self, Built, Options, Pruning, Request};
use holdfast::machine::saved;
use holdfast::outcome::Exit;
use holdfast::progress::Progress;
use holdfast::run::Interrupt;

use crate::choice::Kernels;

/// List, build, find or remove kernels
#[derive(Args, Debug)]
pub(crate) struct Kernel {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the kernels of kernel-configs, and what is built
    List,
    /// Build kernels, or fetch them, unless they are in the cache already [default: all of kernel-configs]
    Build(Build),
    /// Print the folder of a built kernel (bzImage, config, manifest.json; vmlinux and build.log where it was
    /// built here, modules where they come along)
    Path(Which),
    /// Remove kernels and saved machines that were not used for long, and work folders of nobody
    Prune(Prune),
}

#[derive(Args, Debug)]
struct Build {
    #[command(flatten)]
    which: Which,
    /// Never use the network; say what would have been fetched
    #[arg(long)]
    offline: bool,
    /// Compilers at the same time [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// No progress, only what is worth a line
    #[arg(long)]
    quiet: bool,
}

#[derive(Args, Debug)]
struct Which {
    /// Kernels of kernel-configs
    #[arg(value_name = "NAME", conflicts_with_all = ["tree", "series", "base", "kernel", "package", "vmlinuz"])]
    names: Vec<String>,
    #[command(flatten)]
    kernels: Kernels,
}

#[derive(Args, Debug)]
struct Prune {
    /// Remove kernels not used for this many days
    #[arg(long, value_name = "N", default_value = "30")]
    unused_days: u64,
    /// Remove every kernel but these; may be given more than once
    #[arg(long, value_name = "NAME", conflicts_with = "unused_days")]
    keep: Vec<String>,
    /// Remove sources and all work folders too: the next build is a cold one
    #[arg(long)]
    sources: bool,
    /// Show what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

/// Does what was asked for.
pub(crate) fn main(kernel: &Kernel, home: &Home) -> Result<Exit> {
    match &kernel.action {
        Action::List => list(home),
        Action::Build(build) => build_all(build, home),
        Action::Path(which) => path(which, home),
        Action::Prune(prune) => remove(prune, home),
    }
}

impl Which {
    fn requests(&self, home: &Home) -> Result<Vec<Request>> {
        let contracts = Contracts::load(home.scenario_folders())?;
        let others = match self.names.as_slice() {
            [] => kernel::list(home)?.into_iter().map(|spec| spec.name).collect(),
            names => names.to_vec(),
        };
        let (planned, mut requests) = self.kernels.resolve(home, &contracts, &others)?;
        Ok(planned.iter().filter_map(|kernel| requests.remove(&kernel.name)).collect())
    }
}

fn list(home: &Home) -> Result<Exit> {
    let mut built = kernel::built(home);
    for spec in kernel::list(home)? {
        outln!("{:20} {} (claims {})", spec.name, spec.about, spec.contract);
        let (own, others): (Vec<Built>, Vec<Built>) =
            built.into_iter().partition(|built| built.manifest.name == spec.name);
        let progress = Progress::new(true);
        let now = kernel::find(home, &Request::named(&spec.name), &progress).ok().flatten();
        let now = now.map(|built| built.manifest.key);
        own.iter().for_each(|built| show(built, Some(&built.manifest.key) == now.as_ref()));
        if now.is_none() {
            outln!("  not built as it is described now");
        }
        built = others;
    }
    for other in built {
        outln!("{:20} {}", other.manifest.name, other.manifest.source);
        show(&other, true);
    }
    Ok(Exit::AsExpected)
}

/// A line for a built kernel; one that is not current was built from an earlier description.
fn show(built: &Built, current: bool) {
    let manifest = &built.manifest;
    let patches = match manifest.patches.len() {
        0 => "no patch".to_owned(),
        1 => "1 patch".to_owned(),
        count => format!("{count} patches"),
    };
    outln!(
        "  {} {} from {}, {patches}, built {}{}",
        manifest.key,
        manifest.release,
        manifest.source,
        manifest.date,
        if current { "" } else { " (from an earlier description)" }
    );
}

fn build_all(build: &Build, home: &Home) -> Result<Exit> {
    let requests = build.which.requests(home)?;
    let progress = Progress::new(build.quiet);
    let interrupt = Interrupt::listen(&progress)?;
    let options = Options { offline: build.offline, jobs: build.jobs.map(usize::from) };
    for request in &requests {
        let built = kernel::ensure(home, request, &options, &progress, interrupt.flag())?;
        outln!("{:20} {} {}", built.manifest.name, built.manifest.release, built.dir.display());
    }
    Ok(Exit::AsExpected)
}

fn path(which: &Which, home: &Home) -> Result<Exit> {
    let progress = Progress::new(true);
    let requests = which.requests(home)?;
    let find = |request: &Request| -> Result<PathBuf> {
        let found = kernel::find(home, request, &progress)?;
        found.map(|built| built.dir).ok_or_else(|| {
            anyhow!("{} is not built as it is described now; `cargo xtask kernel build` does", request.name())
        })
    };
    let dirs: Vec<PathBuf> = requests.iter().map(find).collect::<Result<_>>()?;
    for dir in dirs {
        outln!("{}", dir.display());
    }
    Ok(Exit::AsExpected)
}

fn remove(prune: &Prune, home: &Home) -> Result<Exit> {
    let unused_days = prune.keep.is_empty().then_some(prune.unused_days);
    for name in &prune.keep {
        let is_built = kernel::built(home).iter().any(|built| built.manifest.name == *name);
        if !is_built {
            // A typo here would remove what was meant to be kept.
            kernel::spec(home, name)?;
        }
    }
    let pruning =
        Pruning { unused_days, keep: prune.keep.clone(), sources: prune.sources, dry_run: prune.dry_run };
    let mut pruned = kernel::prune(home, &pruning)?;
    pruned.extend(saved::prune(home, unused_days, prune.dry_run));
    let verb = if prune.dry_run { "would remove" } else { "removed" };
    for pruned in &pruned {
        outln!("{verb} {} ({} MiB): {}", pruned.what, pruned.bytes >> 20, pruned.path.display());
    }
    outln!("{} MiB in all", pruned.iter().map(|pruned| pruned.bytes).sum::<u64>() >> 20);
    Ok(Exit::AsExpected)
}
