// SPDX-License-Identifier: MIT OR Apache-2.0
//! Housekeeping: folders of a live process, locks, free space.
//!
//! Everything is made in a scratch folder and published by a rename in the same file system. A
//! scratch folder belongs to a process as long as that holds the folder's lock; what a killed
//! process left behind has no such lock and is removed by the next command.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::outcome::Interrupted;
use crate::progress::Progress;

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A folder in the cache that goes away with its owner.
pub struct Scratch {
    dir: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes one, after removing what killed processes left.
    ///
    /// # Errors
    /// When the cache folder cannot be written.
    pub fn new(cache: &Path, what: &str) -> Result<Self> {
        let tmp = cache.join("tmp");
        create_dir(&tmp)?;
        // Nobody may take a new lock file for a forgotten one between its creation and its locking.
        let _making = lock(&tmp.join(".making"))?;
        remove_leftovers(&tmp)?;
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{what}-{}-{number}", std::process::id());
        let lock_path = tmp.join(format!("{name}.lock"));
        let lock = lock(&lock_path)?;
        let dir = tmp.join(name);
        if dir.exists() {
            remove_tree(&dir)?;
        }
        create_dir(&dir)?;
        Ok(Self { dir, lock_path, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next command.
        let _ = fs::remove_dir_all(&self.dir);
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// Removes what killed processes left; without a cache folder there is nothing.
pub fn tidy(cache: &Path) -> Result<()> {
    let tmp = cache.join("tmp");
    if !tmp.is_dir() {
        return Ok(());
    }
    let _making = lock(&tmp.join(".making"))?;
    remove_leftovers(&tmp)
}

fn remove_leftovers(tmp: &Path) -> Result<()> {
    for entry in fs::read_dir(tmp).with_context(|| format!("{} cannot be read", tmp.display()))? {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        let lock_path = PathBuf::from(format!("{}.lock", path.display()));
        let owned = match File::open(&lock_path) {
            Ok(file) => matches!(file.try_lock(), Err(TryLockError::WouldBlock)),
            Err(_) => false,
        };
        if !owned {
            remove_tree(&path)?;
            let _ = fs::remove_file(&lock_path);
        }
    }
    Ok(())
}

/// Makes a folder and its parents.
pub fn create_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| {
        format!("the cache folder {} cannot be written; set HOLDFAST_CACHE to one that can", dir.display())
    })
}

/// Removes a folder and what is below; a folder that is not there is fine.
pub fn remove_tree(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed", dir.display()))
        }
        _ => Ok(()),
    }
}

fn open_lock(path: &Path) -> Result<File> {
    if let Some(parent) = path.parent() {
        create_dir(parent)?;
    }
    OpenOptions::new().create(true).truncate(false).write(true).open(path).with_context(|| {
        format!("{} cannot be written; set HOLDFAST_CACHE to a folder that can", path.display())
    })
}

/// Takes a lock, waiting as long as it takes. It is released when the file is dropped, or when the
/// process ends in whatever way.
pub fn lock(path: &Path) -> Result<File> {
    let file = open_lock(path)?;
    file.lock().with_context(|| format!("{} cannot be locked", path.display()))?;
    Ok(file)
}

/// Takes a lock, and says for what another process makes us wait.
pub fn lock_and_say(
    cache: &Path,
    name: &str,
    what: &str,
    progress: &Progress,
    cancel: &AtomicBool,
) -> Result<File> {
    let path = lock_path(cache, name);
    let file = open_lock(&path)?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => progress.say(format!("waiting: another process {what}")),
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("{} cannot be locked", path.display()));
        }
    }
    while !cancel.load(Ordering::Relaxed) {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => thread::sleep(POLL),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("{} cannot be locked", path.display()));
            }
        }
    }
    Err(Interrupted.into())
}

/// How often a wait looks whether the user still wants it.
const POLL: Duration = Duration::from_millis(50);

/// Takes a lock only if nobody holds it.
pub fn try_lock(cache: &Path, name: &str) -> Option<File> {
    let file = open_lock(&lock_path(cache, name)).ok()?;
    file.try_lock().ok().map(|()| file)
}

fn lock_path(cache: &Path, name: &str) -> PathBuf {
    cache.join("locks").join(format!("{name}.lock"))
}

/// Fails early when the folder's file system has less than `needed_mib` left.
///
/// # Errors
/// When it has less, or cannot be looked at.
pub fn check_space(folder: &Path, needed_mib: u64, what: &str) -> Result<()> {
    let stat = nix::sys::statvfs::statvfs(folder)
        .with_context(|| format!("{} cannot be looked at", folder.display()))?;
    let free_mib = stat.blocks_available() * stat.fragment_size() / (1 << 20);
    if free_mib < needed_mib {
        bail!(
            "{what} needs about {needed_mib} MiB in {}, {free_mib} MiB are free; \
             `clean` and `kernel prune` make room, HOLDFAST_CACHE and --results name another place",
            folder.display()
        );
    }
    Ok(())
}

/// Bytes below a folder; a file linked into several places is counted once, and one that is also
/// linked from elsewhere not at all: removing this folder would not free it.
pub fn freed_by_removing(dir: &Path) -> u64 {
    use std::collections::HashMap;
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    let mut links: HashMap<u64, (u64, u64)> = HashMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            let size = meta.blocks() * 512;
            if meta.is_dir() {
                folders.push(entry.path());
                bytes += size;
            } else if meta.nlink() == 1 {
                bytes += size;
            } else {
                links.entry(meta.ino()).or_insert((meta.nlink(), size)).0 -= 1;
            }
        }
    }
    bytes + links.values().filter(|(left, _)| *left == 0).map(|(_, size)| size).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_go_and_folders_of_the_living_stay() {
        let cache = tempfile::tempdir().unwrap();
        let alive = Scratch::new(cache.path(), "alive").unwrap();
        let tmp = cache.path().join("tmp");
        for dead in ["dead-with-lock", "dead-without"] {
            fs::create_dir(tmp.join(dead)).unwrap();
        }
        fs::write(tmp.join("dead-with-lock.lock"), "").unwrap();
        tidy(cache.path()).unwrap();
        assert!(alive.path().is_dir());
        assert!(!tmp.join("dead-with-lock").exists() && !tmp.join("dead-without").exists());
        let path = alive.path().to_owned();
        drop(alive);
        assert!(!path.exists());
    }

    #[test]
    fn too_little_space_is_told_before_anything_is_done() {
        let cache = tempfile::tempdir().unwrap();
        check_space(cache.path(), 1, "x").unwrap();
        let error = check_space(cache.path(), u64::MAX, "building").unwrap_err().to_string();
        assert!(error.contains("building needs") && error.contains("MiB are free"), "{error}");
    }

    #[test]
    fn shared_files_count_only_when_the_last_name_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for folder in [&a, &b] {
            fs::create_dir(folder).unwrap();
        }
        fs::write(a.join("own"), vec![1; 100_000]).unwrap();
        fs::write(a.join("shared"), vec![1; 1_000_000]).unwrap();
        fs::hard_link(a.join("shared"), b.join("shared")).unwrap();
        let bytes = freed_by_removing(&a);
        assert!((100_000..200_000).contains(&bytes), "{bytes}");
        assert!(freed_by_removing(dir.path()) > 1_000_000);
    }
}
