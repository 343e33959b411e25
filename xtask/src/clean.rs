// SPDX-License-Identifier: MIT OR Apache-2.0
//! `clean`: gives back the room that runs and the cache take.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use holdfast::home::Home;
use holdfast::kernel::{self, Pruning};
use holdfast::machine::saved;
use holdfast::outcome::Exit;
use holdfast::runs;
use holdfast::scratch::freed_by_removing;

/// Remove stored runs (the default), kernels, or everything Holdfast keeps
#[derive(Args, Debug)]
pub(crate) struct Clean {
    /// Stored runs
    #[arg(long)]
    runs: bool,
    /// Built kernels, their object folders, sources and saved machines
    #[arg(long)]
    kernels: bool,
    /// Runs and everything in the cache
    #[arg(long)]
    all: bool,
    /// Show what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

/// What the cache holds beside kernels. Nothing else is ever removed: the folder may be one that
/// somebody uses for other things as well.
const OTHERS: [&str; 4] = ["images", "steps", "trees", "accelerator.json"];
/// Folders that are removed when nothing is left in them.
const FRAMES: [&str; 6] = ["machines", "kernels", "work", "sources", "failed", "tmp"];

/// Removes, and says what and how much.
pub(crate) fn main(clean: &Clean, home: &Home) -> Result<Exit> {
    let verb = if clean.dry_run { "would remove" } else { "removed" };
    let mut total = 0;
    let mut say = |what: &str, path: &Path, bytes: u64| {
        total += bytes;
        outln!("{verb} {what} {} ({} MiB)", path.display(), bytes >> 20);
    };
    if clean.kernels || clean.all {
        let everything =
            Pruning { unused_days: Some(0), sources: true, dry_run: clean.dry_run, ..Pruning::default() };
        let machines = saved::prune(home, Some(0), clean.dry_run);
        for pruned in kernel::prune(home, &everything)?.into_iter().chain(machines) {
            say(&pruned.what, &pruned.path, pruned.bytes);
        }
    }
    let mut targets: Vec<(&str, PathBuf)> = Vec::new();
    if clean.runs || clean.all || !clean.kernels {
        let dead = runs::list(&home.runs).into_iter().filter(|run| runs::is_dead(run));
        targets.extend(dead.map(|run| ("run", run)));
    }
    if clean.all {
        targets.extend(OTHERS.map(|name| ("cached", home.cache.join(name))));
    }
    for (what, target) in targets.iter().filter(|(_, target)| target.exists()) {
        let bytes = freed_by_removing(target);
        if !clean.dry_run {
            let removed = if target.is_dir() { fs::remove_dir_all(target) } else { fs::remove_file(target) };
            removed.with_context(|| format!("cannot remove {}", target.display()))?;
        }
        say(what, target, bytes);
    }
    if clean.all && !clean.dry_run {
        for frame in FRAMES {
            // One that is not empty belongs to a live process, or to somebody else.
            let _ = fs::remove_dir(home.cache.join(frame));
        }
    }
    outln!("{} MiB in all", total >> 20);
    Ok(Exit::AsExpected)
}
