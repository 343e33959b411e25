// SPDX-License-Identifier: MIT OR Apache-2.0
//! A person's own tree: what is in it now, read without leaving a trace.
//!
//! Git says which files are source (tracked, or new and not ignored), so objects of an in-tree build
//! stay where they are. Nothing is written below the tree, `.git` included: no worktree, no index
//! refresh, no objects.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

use super::files::{self, Files, Kind};
use super::{scratch, slot, tools};
use crate::outcome::bad_input;

/// A file may change twice within one tick of a coarse clock and keep its time: what is younger than
/// this when it is hashed is hashed again next time.
const RACY: Duration = Duration::from_secs(2);

/// The top folder of a kernel tree in git.
///
/// # Errors
/// Bad input when it is anything else: what it is, and what would be right.
pub(super) fn canonical(path: &Path) -> Result<PathBuf> {
    let wrong = |what: &str| bad_input(format!("--tree {}: {what}", path.display()));
    let tree = path.canonicalize().map_err(|error| wrong(&error.to_string()))?;
    if !tools::is_on_path("git") {
        tools::missing_tools(&[&("git", "git")])?;
    }
    let shell = tools::shell(Path::new("/"))?;
    let output = tools::try_run(tools::git_reader(&shell, &tree).args(["rev-parse", "--show-toplevel"]))?;
    if !output.status.success() {
        return Err(wrong(&format!(
            "not a git tree, so source and build products cannot be told apart; `git init && git add . && git commit` in a copy makes it one ({})",
            tools::said(&output)
        )));
    }
    let top = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n'));
    if top != tree {
        return Err(wrong(&format!("not the top of its git tree; {} is", top.display())));
    }
    Ok(tree)
}

/// Refuses a tree that has no kernel in it.
pub(super) fn check_is_kernel(files: &Files, label: &str) -> Result<()> {
    if files.contains_key("Kconfig") && files.contains_key("arch/x86/Kconfig") {
        return Ok(());
    }
    Err(bad_input(format!("{label}: no Linux source (neither Kconfig nor arch/x86/Kconfig)")))
}

/// Every source file of the tree as it is now: changed and new ones, not the deleted ones.
///
/// # Errors
/// When git or a file cannot be read.
pub(super) fn scan(cache: &Path, tree: &Path) -> Result<Files> {
    let paths = listed(tree)?;
    let memory = Memory::load(cache, tree);
    let mut known = Files::new();
    let mut unknown = Vec::new();
    let mut seen = BTreeMap::new();
    for path in paths {
        let full = tree.join(&path);
        // Deleted but still tracked; or a submodule.
        let Ok(meta) = fs::symlink_metadata(&full) else { continue };
        if meta.is_dir() {
            continue;
        }
        let stamp = Stamp::of(&meta);
        match memory.files.get(&path).filter(|(old, _)| *old == stamp) {
            Some((_, hash)) => {
                known.insert(path.clone(), files::Entry { kind: Kind::of(&meta), hash: *hash });
            }
            None => unknown.push(path.clone()),
        }
        seen.insert(path, stamp);
    }
    let entries = files::hash_all(tree, &unknown)?;
    known.extend(unknown.into_iter().zip(entries));
    memory.store(&known, &seen)?;
    Ok(known)
}

fn listed(tree: &Path) -> Result<Vec<String>> {
    let shell = tools::shell(Path::new("/"))?;
    let git =
        tools::git_reader(&shell, tree).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = tools::read(git)?;
    let mut paths = Vec::new();
    for path in output.split(|byte| *byte == 0).filter(|path| !path.is_empty()) {
        paths.push(files::utf8(path).with_context(|| format!("{}", tree.display()))?);
    }
    paths.sort();
    // A conflicted file is listed once per stage.
    paths.dedup();
    Ok(paths)
}

/// What tells that a file was not written since it was hashed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    mode: u32,
    size: u64,
    inode: u64,
    modified_ns: i128,
    changed_ns: i128,
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Self {
            mode: meta.mode(),
            size: meta.size(),
            inode: meta.ino(),
            modified_ns: nanoseconds(meta.mtime(), meta.mtime_nsec()),
            changed_ns: nanoseconds(meta.ctime(), meta.ctime_nsec()),
        }
    }

    fn is_racy(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let safe = now.saturating_sub(RACY).as_nanos();
        self.modified_ns.max(self.changed_ns) >= i128::try_from(safe).unwrap_or(i128::MAX)
    }
}

/// Hashes of an earlier scan, with the stamps they were taken at; in the cache, one per tree.
struct Memory {
    path: PathBuf,
    began: SystemTime,
    files: BTreeMap<String, (Stamp, [u8; 32])>,
}

impl Memory {
    fn load(cache: &Path, tree: &Path) -> Self {
        let name = files::hex(&Sha256::digest(tree.as_os_str().as_encoded_bytes()));
        let path = cache.join("trees").join(name);
        let text = fs::read(&path).unwrap_or_default();
        Self { files: decode(&text).unwrap_or_default(), path, began: SystemTime::now() }
    }

    fn store(&self, files: &Files, seen: &BTreeMap<String, Stamp>) -> Result<()> {
        let mut text = Vec::new();
        for (path, entry) in files {
            if let Some(stamp) = seen.get(path).filter(|stamp| !stamp.is_racy(self.began)) {
                let Stamp { mode, size, inode, modified_ns, changed_ns } = stamp;
                let hash = files::hex(&entry.hash);
                text.extend(
                    format!("{hash} {mode} {size} {inode} {modified_ns} {changed_ns} {path}\0").into_bytes(),
                );
            }
        }
        if let Some(parent) = self.path.parent() {
            scratch::create_dir(parent)?;
        }
        slot::replace(&self.path, &text)
    }
}

fn decode(text: &[u8]) -> Option<BTreeMap<String, (Stamp, [u8; 32])>> {
    let mut found = BTreeMap::new();
    for record in str::from_utf8(text).ok()?.split_terminator('\0') {
        let mut parts = record.splitn(7, ' ');
        let hash = files::unhex(parts.next()?)?;
        let stamp = Stamp {
            mode: parts.next()?.parse().ok()?,
            size: parts.next()?.parse().ok()?,
            inode: parts.next()?.parse().ok()?,
            modified_ns: parts.next()?.parse().ok()?,
            changed_ns: parts.next()?.parse().ok()?,
        };
        found.insert(parts.next()?.to_owned(), (stamp, hash));
    }
    Some(found)
}
