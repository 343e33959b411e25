// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making room: kernels nobody asked for in a while, work slots of nobody.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::slot::{self, Slot};
use super::{spec, store};
use crate::home::Home;
use crate::scratch;

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
    pruned.extend(notes(home, pruning)?);
    if pruning.sources {
        pruned.extend(sources(home, pruning)?);
    }
    Ok(pruned)
}

/// Logs of failed builds, and what is remembered of persons' trees.
fn notes(home: &Home, pruning: &Pruning) -> Result<Vec<Pruned>> {
    let mut pruned = Vec::new();
    let Some(days) = pruning.unused_days else { return Ok(pruned) };
    for (folder, what) in [("failed", "log of a failed build"), ("trees", "memory of a tree")] {
        let Ok(entries) = fs::read_dir(home.cache.join(folder)) else { continue };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            let age = meta.modified().ok().and_then(|modified| modified.elapsed().ok()).unwrap_or_default();
            if age < days_of(days) {
                continue;
            }
            if !pruning.dry_run {
                fs::remove_file(entry.path())
                    .with_context(|| format!("{} cannot be removed", entry.path().display()))?;
            }
            pruned.push(Pruned { what: what.to_owned(), path: entry.path(), bytes: meta.len() });
        }
    }
    Ok(pruned)
}

fn days_of(days: u64) -> Duration {
    Duration::from_secs(days.saturating_mul(24 * 60 * 60))
}

fn kernels(home: &Home, pruning: &Pruning) -> Result<Vec<Pruned>> {
    let mut pruned = Vec::new();
    for built in store::all(&home.cache) {
        let is_old = pruning.unused_days.is_some_and(|days| store::unused_for(&built) >= days_of(days));
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
            Some(path) => !path.exists(),
            // A person's configuration on a kernel of ours: the slot's name begins with the kernel's.
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

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};
    use std::path::Path;
    use std::time::SystemTime;

    use super::*;

    fn kernel(home: &Home, name: &str, key: &str, unused_days: u64) {
        let dir = home.cache.join("kernels").join(key);
        fs::create_dir_all(&dir).unwrap();
        let manifest = store::Manifest {
            name: name.into(),
            key: key.into(),
            release: String::new(),
            source: String::new(),
            version: String::new(),
            tested: None,
            contract: String::new(),
            patches: Vec::new(),
            requests: Vec::new(),
            lacks: Default::default(),
            modules: Vec::new(),
            arguments: String::new(),
            compiler: String::new(),
            selftests: Vec::new(),
            steps: 0,
            build_s: 0.0,
            date: String::new(),
        };
        fs::write(dir.join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
        let used = SystemTime::now() - days_of(unused_days);
        File::create(dir.join("used")).unwrap().set_times(FileTimes::new().set_modified(used)).unwrap();
    }

    fn home(dir: &Path) -> Home {
        fs::create_dir_all(dir.join("kernel-configs")).unwrap();
        let home = Home {
            data: dir.to_owned(),
            is_clone: true,
            cache: dir.join("cache"),
            runs: dir.join("runs"),
            own: crate::home::Own::default(),
        };
        kernel(&home, "mainline", "a", 40);
        kernel(&home, "unguarded", "b", 1);
        for slot in ["tree-gone", "of-nobody"] {
            fs::create_dir_all(home.cache.join("work").join(slot)).unwrap();
        }
        home
    }

    fn check(pruning: &Pruning, expect: &[&str]) {
        let dir = tempfile::tempdir().unwrap();
        let home = home(dir.path());
        let pruned = prune(&home, pruning).unwrap();
        let mut names: Vec<&str> =
            pruned.iter().map(|one| one.path.file_name().unwrap().to_str().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, expect);
        assert!(pruned.iter().all(|one| one.path.exists() == pruning.dry_run));
    }

    #[test]
    fn only_what_may_go_goes() {
        let none = Pruning::default();
        check(&none, &["of-nobody", "tree-gone"]);
        check(&Pruning { unused_days: Some(30), ..none.clone() }, &["a", "of-nobody", "tree-gone"]);
        check(&Pruning { unused_days: Some(0), ..none.clone() }, &["a", "b", "of-nobody", "tree-gone"]);
        check(&Pruning { keep: vec!["mainline".into()], ..none.clone() }, &["b", "of-nobody", "tree-gone"]);
        check(&Pruning { unused_days: Some(30), dry_run: true, ..none }, &["a", "of-nobody", "tree-gone"]);
    }

    #[test]
    fn what_a_live_process_works_in_stays() {
        let dir = tempfile::tempdir().unwrap();
        let home = home(dir.path());
        let _lock = scratch::try_lock(&home.cache, &Slot::lock_name("tree-gone")).unwrap();
        prune(&home, &Pruning::default()).unwrap();
        assert!(home.cache.join("work/tree-gone").exists());
        assert!(!home.cache.join("work/of-nobody").exists());
    }
}
