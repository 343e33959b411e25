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
use super::{slot, tools};
use crate::doctor::{self, Stage};
use crate::outcome::bad_input;
use crate::scratch;

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
    doctor::require(Stage::Kernel)?;
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
    Err(bad_input(format!(
        "{label}: no Linux source (neither Kconfig nor arch/x86/Kconfig among the files git knows or does not \
         ignore; Debian's source package ignores them all: `git add -f .`)"
    )))
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::process::Command;

    use super::*;

    fn git(tree: &Path, arguments: &[&str]) {
        let status = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgSign=false", "-C"])
            .arg(tree)
            .args(arguments)
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// A git tree in which somebody has worked and built.
    fn dirty_tree(dir: &Path) -> PathBuf {
        let tree = dir.join("linux");
        fs::create_dir_all(tree.join("mm")).unwrap();
        git(dir, &["init", "--quiet", "linux"]);
        let write = |path: &str, text: &str| fs::write(tree.join(path), text).unwrap();
        write(".gitignore", "*.o\n.config\n");
        write("Makefile", "VERSION = 6\n");
        write("mm/gup.c", "committed\n");
        write("mm/gone.c", "deleted later\n");
        write("run.sh", "true\n");
        fs::set_permissions(tree.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("mm/gup.c", tree.join("link")).unwrap();
        git(&tree, &["add", "--all"]);
        git(&tree, &["commit", "--quiet", "--message=base"]);
        write("mm/gup.c", "uncommitted\n");
        write("mm/new.c", "new\n");
        fs::remove_file(tree.join("mm/gone.c")).unwrap();
        write("mm/gup.o", "an object of an in-tree build");
        write(".config", "CONFIG_X=y\n");
        tree
    }

    /// Every file and folder below, `.git` included: mode, size, times of content and of inode.
    fn snapshot(tree: &Path) -> Vec<(PathBuf, u32, u64, i64, i64, i64, i64)> {
        let mut all = Vec::new();
        let mut folders = vec![tree.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
            for path in entries.chain([folder.clone()]) {
                let meta = fs::symlink_metadata(&path).unwrap();
                if meta.is_dir() && path != folder {
                    folders.push(path.clone());
                }
                let times = (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
                all.push((path, meta.mode(), meta.size(), times.0, times.1, times.2, times.3));
            }
        }
        all.sort();
        all
    }

    #[test]
    fn what_is_there_now_is_taken_and_nothing_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dirty_tree(dir.path());
        let cache = dir.path().join("cache");
        // A stale index is what a careless `git status` would refresh on disk.
        fs::write(tree.join("run.sh"), "true\n").unwrap();
        let before = snapshot(&tree);
        let canonical = canonical(&tree).unwrap();
        let files = scan(&cache, &canonical).unwrap();
        let unpacked = dir.path().join("unpacked");
        let commit = super::super::source::commit_of(&canonical, "HEAD").unwrap();
        super::super::source::archive(&canonical, &commit, &unpacked).unwrap();
        assert_eq!(snapshot(&tree), before);

        let paths: Vec<&str> = files.keys().map(String::as_str).collect();
        assert_eq!(paths, [".gitignore", "Makefile", "link", "mm/gup.c", "mm/new.c", "run.sh"]);
        assert_eq!(files["run.sh"].kind, Kind::Executable);
        assert_eq!(files["link"].kind, Kind::Link);
        assert_eq!(files["mm/gup.c"].hash, <[u8; 32]>::from(Sha256::digest("uncommitted\n")));
        assert_eq!(fs::read_to_string(unpacked.join("mm/gup.c")).unwrap(), "committed\n");
    }

    #[test]
    fn a_second_look_rehashes_only_what_was_touched_or_young() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dirty_tree(dir.path());
        let cache = dir.path().join("cache");
        let first = scan(&cache, &tree).unwrap();
        // All files are younger than the clock's grain: none may be remembered.
        assert!(Memory::load(&cache, &tree).files.is_empty());
        std::thread::sleep(RACY + Duration::from_millis(100));
        assert_eq!(scan(&cache, &tree).unwrap(), first);
        let memory = Memory::load(&cache, &tree);
        assert_eq!(memory.files.len(), first.len());

        // What is remembered is believed: a wrong hash in the memory comes back, so nothing was read.
        let text = fs::read_to_string(&memory.path).unwrap();
        let hash = files::hex(&first["Makefile"].hash);
        fs::write(&memory.path, text.replace(&hash, &"0".repeat(64))).unwrap();
        fs::write(tree.join("mm/gup.c"), "UNCOMMITTED\n").unwrap();
        let third = scan(&cache, &tree).unwrap();
        assert_eq!(third["Makefile"].hash, [0; 32]);
        assert_eq!(third["mm/gup.c"].hash, <[u8; 32]>::from(Sha256::digest("UNCOMMITTED\n")));
    }

    #[test]
    fn what_is_no_git_tree_is_refused_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let error = canonical(dir.path()).unwrap_err().to_string();
        assert!(error.contains("not a git tree") && error.contains("git init"), "{error}");
        let tree = dirty_tree(dir.path());
        let error = canonical(&tree.join("mm")).unwrap_err().to_string();
        assert!(error.contains("not the top") && error.contains("linux is"), "{error}");
        assert!(canonical(&dir.path().join("nowhere")).is_err());
        assert!(check_is_kernel(&Files::new(), "x").is_err());
    }
}
