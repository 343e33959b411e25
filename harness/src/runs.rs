// SPDX-License-Identifier: MIT OR Apache-2.0
//! Run folders: where evidence lives, how long, and what a dead run left behind.
//!
//! A run holds a lock on its folder while it lives. A folder without a result file whose lock is
//! free is a run that died; the next command takes away what only a live process could remove.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::outcome::bad_input;

/// The result of a run, in its folder.
pub const RESULTS: &str = "results.json";
/// The plan of a run.
pub const PLAN: &str = "plan.json";
/// Facts of a case, in the case's folder.
pub const RECORD: &str = "record.json";
/// The folder of the cases.
pub const CASES: &str = "cases";
/// Link to the newest run.
const LATEST: &str = "latest";
const LOCK: &str = ".lock";
/// Runs that stay.
const KEPT: usize = 20;

/// A folder of a run that is going on.
#[derive(Debug)]
pub struct RunFolder {
    /// Its path.
    pub path: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Makes a new run folder, named by the time.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn create(runs: &Path) -> Result<Self> {
        fs::create_dir_all(runs).with_context(|| format!("cannot make {}", runs.display()))?;
        let runs = runs.canonicalize().with_context(|| format!("cannot open {}", runs.display()))?;
        let name = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
        let path = runs.join(format!("{name}-{:05}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let lock = lock_file(&path)?;
        lock.try_lock().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(Self { path, _lock: lock })
    }

    /// Points `latest` at this run: it has results.
    ///
    /// # Errors
    /// When the link cannot be made.
    pub fn publish(&self) -> Result<()> {
        let latest = self.path.with_file_name(LATEST);
        let fresh = self.path.join(LATEST);
        let link = || -> std::io::Result<()> {
            symlink(self.path.file_name().unwrap_or_default(), &fresh)?;
            // Two runs that end at once: a rename replaces, and one of them is the latest.
            fs::rename(&fresh, &latest)
        };
        link().with_context(|| format!("cannot make {}", latest.display()))
    }

    /// Takes the folder away again: nothing came of the run.
    pub fn discard(self) {
        let _ = fs::remove_dir_all(&self.path);
    }

    /// Folder of a case on a kernel; made if it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn case(&self, kernel: &str, id: &str) -> Result<PathBuf> {
        let path = case_folder(&self.path, kernel, id);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }
}

/// Folder of a case on a kernel within a run's folder.
#[must_use]
pub fn case_folder(run: &Path, kernel: &str, id: &str) -> PathBuf {
    run.join(CASES).join(kernel).join(id.replace('/', "."))
}

/// The runs of a folder, oldest first.
#[must_use]
pub fn list(runs: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(runs) else { return Vec::new() };
    let mut all: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir() && !path.is_symlink() && path.join(LOCK).exists())
        .collect();
    all.sort();
    all
}

/// A run by what the user calls it: a path, a name or the beginning of one, `latest`.
///
/// # Errors
/// Bad input when there is no such run, or more than one.
pub fn find(runs: &Path, name: &str) -> Result<PathBuf> {
    let as_path = Path::new(name);
    if as_path.join(PLAN).is_file() {
        return Ok(as_path.to_owned());
    }
    if name == LATEST {
        let latest = runs.join(LATEST);
        return latest.canonicalize().map_err(|_| bad_input(format!("there is no run in {}", runs.display())));
    }
    let all = list(runs);
    let matching: Vec<&PathBuf> = all.iter().filter(|path| file_name(path).starts_with(name)).collect();
    match matching.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(bad_input(format!("no run `{name}` in {}: there are {}", runs.display(), names(&all)))),
        more => {
            Err(bad_input(format!("`{name}` is the beginning of {} runs; give more of the name", more.len())))
        }
    }
}

fn names(runs: &[PathBuf]) -> String {
    let names: Vec<String> = runs.iter().rev().take(5).map(|path| file_name(path)).collect();
    if names.is_empty() { "none".to_owned() } else { format!("{} …", names.join(", ")) }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Takes away what dead runs left, and all but the newest [`KEPT`] runs. Says how many went.
pub fn tidy(runs: &Path) -> usize {
    let all = list(runs);
    for run in all.iter().filter(|run| !run.join(RESULTS).exists() && is_dead(run)) {
        strip(run);
    }
    let mut dead: Vec<&PathBuf> = all.iter().filter(|run| is_dead(run)).collect();
    // Runs without results go first, then the oldest.
    dead.sort_by_key(|run| run.join(RESULTS).exists());
    let surplus = all.len().saturating_sub(KEPT);
    dead.into_iter().take(surplus).filter(|run| fs::remove_dir_all(run).is_ok()).count()
}

/// Nobody holds the run's lock.
#[must_use]
pub fn is_dead(run: &Path) -> bool {
    File::open(run.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok())
}

fn lock_file(run: &Path) -> Result<File> {
    let path = run.join(LOCK);
    File::create(&path).with_context(|| format!("cannot write {}", path.display()))
}

/// Sockets and pmem images of cases that a run's death cut short. A case with a record was played to
/// its end and has only what it is to keep.
fn strip(folder: &Path) {
    if folder.join(RECORD).exists() {
        return;
    }
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() && !path.is_symlink() {
            strip(&path);
        }
    }
    remove_images(folder);
}

/// Removes a case's pmem images, and the sockets of a machine that is no more.
pub fn remove_images(case: &Path) {
    let Ok(entries) = fs::read_dir(case) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if matches!(path.extension().and_then(OsStr::to_str), Some("img" | "sock")) {
            let _ = fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_runs_lose_what_nobody_needs_and_live_ones_nothing() {
        let runs = tempfile::tempdir().unwrap();
        let live = RunFolder::create(runs.path()).unwrap();
        let case = live.case("k", "a/b[fs=xfs]").unwrap();
        fs::write(case.join("pmem-xfs.img"), "x").unwrap();
        fs::write(case.join("console.log"), "x").unwrap();
        tidy(runs.path());
        assert!(case.join("pmem-xfs.img").exists());
        let judged = live.case("k", "judged").unwrap();
        fs::write(judged.join("pmem-xfs.img"), "x").unwrap();
        fs::write(judged.join(RECORD), "{}").unwrap();
        assert!(find(runs.path(), LATEST).is_err(), "it has no results yet");
        live.publish().unwrap();
        fs::write(live.path.join(PLAN), "{}").unwrap();
        assert_eq!(find(runs.path(), LATEST).unwrap(), live.path);
        drop(live);
        tidy(runs.path());
        assert!(!case.join("pmem-xfs.img").exists());
        assert!(case.join("console.log").exists());
        assert!(judged.join("pmem-xfs.img").exists(), "a failure keeps its images");
    }

    #[test]
    fn only_the_newest_runs_stay() {
        let runs = tempfile::tempdir().unwrap();
        for nr in 0..KEPT + 3 {
            let run = runs.path().join(format!("2026-{nr:03}"));
            fs::create_dir(&run).unwrap();
            drop(lock_file(&run).unwrap());
            // One of them died.
            if nr != 7 {
                fs::write(run.join(RESULTS), "{}").unwrap();
            }
        }
        let held = File::open(runs.path().join("2026-000").join(LOCK)).unwrap();
        held.try_lock().unwrap();
        assert_eq!(tidy(runs.path()), 3);
        let left: Vec<String> = list(runs.path()).iter().map(|run| file_name(run)).collect();
        assert_eq!(left.len(), KEPT);
        // The living one stays, the one without results went first, then the oldest.
        assert_eq!(left[..3], ["2026-000", "2026-003", "2026-004"].map(String::from));
        assert!(!left.contains(&"2026-007".to_owned()));
        assert!(find(runs.path(), "2026-01").is_err(), "an ambiguous name");
        assert!(find(runs.path(), "2026-005").is_ok());
    }
}
