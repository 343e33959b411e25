// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making room: kernels nobody asked for in a while, work slots of nobody.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::slot::{self, Slot};
use super::{scratch, spec, store};
use crate::home::Home;

/// What may go.
#[derive(Clone, Debug, Default)]
pub struct Pruning {
    /// Kernels not asked for in that many days. Zero takes all.
    pub unused_days: Option<u64>,
    /// Kernels whose name is not one of these. Empty: names do not matter.
    pub keep: Vec<String>,
    /// Also the unpacked sources and every work slot: the next build is a cold one.
    pub sources: bool,
    /// Only say what would go.
    pub dry_run: bool,
}

/// Something that went, or would go.
#[derive(Clone, Debug)]
pub struct Pruned {
    /// What it was.
    pub what: String,
    /// Where it was.
    pub path: PathBuf,
    /// Bytes of disk it took.
    pub bytes: u64,
}

/// Removes what [`Pruning`] allows, and always work slots without an owner: of kernels that are no
/// longer described, of trees that are gone.
///
/// # Errors
/// When something cannot be removed. What a live process works in is left alone.
pub fn prune(home: &Home, pruning: &Pruning) -> Result<Vec<Pruned>> {
    let mut pruned = kernels(home, pruning)?;
    pruned.extend(slots(home, pruning)?);
    if pruning.sources {
        pruned.extend(sources(home, pruning)?);
    }
    Ok(pruned)
}

fn kernels(home: &Home, pruning: &Pruning) -> Result<Vec<Pruned>> {
    let mut pruned = Vec::new();
    for built in store::all(&home.cache) {
        let day = Duration::from_secs(24 * 60 * 60);
        let is_old = pruning
            .unused_days
            .is_some_and(|days| u32::try_from(days).is_ok_and(|days| store::unused_for(&built) >= day * days));
        let is_other = !pruning.keep.is_empty() && !pruning.keep.contains(&built.manifest.name);
        let is_kept = pruning.keep.contains(&built.manifest.name);
        if (is_old && !is_kept) || (is_other && pruning.unused_days.is_none()) {
            let what = format!("kernel {} {}", built.manifest.name, built.manifest.key);
            pruned.extend(remove(home, what, built.dir, &format!("kernel-{}", built.manifest.key), pruning)?);
        }
    }
    Ok(pruned)
}

fn slots(home: &Home, pruning: &Pruning) -> Result<Vec<Pruned>> {
    let described: Vec<String> = spec::list(home)?.into_iter().map(|spec| spec.name).collect();
    let mut pruned = Vec::new();
    let Ok(entries) = fs::read_dir(Slot::root(&home.cache)) else { return Ok(pruned) };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let state = slot::describe(&entry.path());
        let is_orphan = match &state.origin {
            Some(tree) => !tree.exists(),
            // A series on a kernel of ours: its slot's name begins with that kernel's.
            None => !described.iter().any(|known| name.starts_with(known.as_str())),
        };
        if is_orphan || pruning.sources {
            let what = format!("work folder of {}", if state.owner.is_empty() { &name } else { &state.owner });
            pruned.extend(remove(home, what, entry.path(), &Slot::lock_name(&name), pruning)?);
        }
    }
    Ok(pruned)
}

fn sources(home: &Home, pruning: &Pruning) -> Result<Vec<Pruned>> {
    let mut pruned = Vec::new();
    let Ok(entries) = fs::read_dir(home.cache.join("sources")) else { return Ok(pruned) };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let package = name.split('_').next().unwrap_or(&name);
        pruned.extend(remove(
            home,
            format!("source {name}"),
            entry.path(),
            &format!("source-{package}"),
            pruning,
        )?);
    }
    Ok(pruned)
}

fn remove(home: &Home, what: String, path: PathBuf, lock: &str, pruning: &Pruning) -> Result<Option<Pruned>> {
    let Some(_lock) = scratch::try_lock(&home.cache, lock) else { return Ok(None) };
    let bytes = scratch::freed_by_removing(&path);
    if !pruning.dry_run {
        scratch::remove_tree(&path)?;
    }
    Ok(Some(Pruned { what, path, bytes }))
}
