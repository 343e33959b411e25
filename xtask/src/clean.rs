// SPDX-License-Identifier: MIT OR Apache-2.0
//! `clean`: gives back the room that runs and the cache take.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use holdfast::home::Home;
use holdfast::outcome::Exit;
use holdfast::runs;
use holdfast::scratch::freed_by_removing;

/// Remove stored runs (the default), kernels, or everything Holdfast keeps
#[derive(Args, Debug)]
pub(crate) struct Clean {
    /// Stored runs
    #[arg(long)]
    runs: bool,
    /// Built kernels, their object folders and sources
    #[arg(long)]
    kernels: bool,
    /// Runs and the whole cache
    #[arg(long)]
    all: bool,
    /// Show what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

/// Folders of the cache that belong to kernels.
const KERNEL_FOLDERS: [&str; 4] = ["kernels", "work", "sources", "failed"];

/// Removes, and says what and how much.
pub(crate) fn main(clean: &Clean, home: &Home) -> Result<Exit> {
    let mut targets: Vec<PathBuf> = Vec::new();
    if clean.runs || clean.all || !clean.kernels {
        targets.extend(runs::list(&home.runs).into_iter().filter(|run| runs::is_dead(run)));
    }
    if clean.all {
        targets.push(home.cache.clone());
    } else if clean.kernels {
        targets.extend(KERNEL_FOLDERS.map(|name| home.cache.join(name)));
    }
    let mut total = 0;
    for target in targets.iter().filter(|target| target.exists()) {
        let bytes = freed_by_removing(target);
        total += bytes;
        let verb = if clean.dry_run { "would remove" } else { "removing" };
        anstream::println!("{verb} {} ({} MiB)", target.display(), bytes >> 20);
        if !clean.dry_run {
            fs::remove_dir_all(target).with_context(|| format!("cannot remove {}", target.display()))?;
        }
    }
    anstream::println!("{} MiB in all", total >> 20);
    Ok(Exit::AsExpected)
}
