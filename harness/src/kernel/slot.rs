// SPDX-License-Identifier: MIT OR Apache-2.0
//! Work slots: one source tree with its objects per series or person's tree, kept so that a build
//! compiles only what is new.
//!
//! make goes by time stamps; the world changes by content. The bridge is the rule of [`sync`]: a
//! file whose content differs from what its objects were compiled from is replaced and so gets
//! today's time; every other file keeps its own. That is also why objects can be cloned from a
//! relative: what differs between the two trees gets today's time, the rest is older than any object.
//!
//! The object folder lies directly in the source tree: then kbuild calls the tree `..` (top
//! Makefile, "building in a subdirectory"), and no object's command line holds an absolute path.

use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::files::{self, Entry, Files, Kind};
use super::tools;
use crate::scratch::{self, Scratch};

/// The object folder's name in a slot's tree; one that nobody's source tree uses.
pub(super) const OBJECTS: &str = "holdfast-objects";
/// What a relative with another configuration counts as, in differing files: nearly everything is
/// compiled again, yet host tools are spared.
const OTHER_CONFIG: usize = 1_000_000;
/// Cloning takes a few seconds: so many files fewer to compile are worth it.
const WORTH_CLONING: usize = 200;
/// What a killed build may have left half-written, before the last sign of life of that build.
const TORN: Duration = Duration::from_secs(10);

/// A slot this process holds the lock of.
pub(super) struct Slot {
    dir: PathBuf,
    _lock: File,
}

/// What a slot is for and how far it is; beside the tree.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct State {
    /// The kernel's name or the person's tree; for `prune`.
    pub(super) owner: String,
    /// The person's tree or series, if it is one: the slot is an orphan when that is gone.
    pub(super) origin: Option<PathBuf>,
    /// True when all objects are those of the listed files and of the configuration.
    pub(super) built: bool,
    /// Identity of the configuration the objects were last compiled with.
    pub(super) config: String,
}

/// The tree that is wanted, and where the content of its files lies.
pub(super) struct Wanted<'a> {
    pub(super) files: Files,
    /// Where most of them are.
    pub(super) root: &'a Path,
    /// A tree in the cache may be linked into the slot; somebody's own tree must be copied.
    pub(super) may_link: bool,
    /// Files changed by a series, and where they are instead.
    pub(super) patched: BTreeSet<String>,
    pub(super) patched_root: Option<&'a Path>,
}

/// What was done to make a slot hold what is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Synced {
    /// The slot whose objects were cloned.
    pub(super) cloned_from: Option<String>,
    /// Files that got another content, or went.
    pub(super) changed: usize,
}

impl Slot {
    /// Where slots live.
    pub(super) fn root(cache: &Path) -> PathBuf {
        cache.join("work")
    }

    /// The name of a slot's lock.
    pub(super) fn lock_name(name: &str) -> String {
        format!("slot-{name}")
    }

    /// A slot whose lock the caller took.
    pub(super) fn open(cache: &Path, name: &str, lock: File) -> Self {
        Self { dir: Self::root(cache).join(name), _lock: lock }
    }

    /// The source tree.
    pub(super) fn tree(&self) -> PathBuf {
        self.dir.join("tree")
    }

    /// The object folder in it.
    pub(super) fn objects(&self) -> PathBuf {
        self.tree().join(OBJECTS)
    }

    pub(super) fn state(&self) -> State {
        state_in(&self.dir)
    }

    pub(super) fn set_state(&self, state: &State) -> Result<()> {
        let path = self.dir.join("state.json");
        fs::write(&path, serde_json::to_vec_pretty(state)?)
            .with_context(|| format!("{} cannot be written", path.display()))
    }

    /// Makes the slot hold exactly the wanted files.
    ///
    /// # Errors
    /// When the cache cannot be written, or a person's file changed while it was read.
    pub(super) fn sync(&self, cache: &Path, wanted: &Wanted<'_>, config: &str) -> Result<Synced> {
        let Some(present) = files_in(&self.dir) else {
            return self.create(cache, wanted, nearest(cache, &self.dir, &wanted.files, config));
        };
        // What is here is often not the nearest: fragments that changed are built for one kernel, and
        // all others need not compile everything once more.
        let own = distance(&self.state(), &present, &wanted.files, config);
        let other = if own > WORTH_CLONING { nearest(cache, &self.dir, &wanted.files, config) } else { None };
        match other.filter(|other| other.distance + WORTH_CLONING < own) {
            Some(other) => self.create(cache, wanted, Some(other)),
            None => self.update(&present, wanted),
        }
    }

    fn create(&self, cache: &Path, wanted: &Wanted<'_>, relative: Option<Relative>) -> Result<Synced> {
        let work = Scratch::new(cache, "slot")?;
        let tree = work.path().join("tree");
        let mut synced = Synced::default();
        for (path, entry) in &wanted.files {
            let is_old = relative.as_ref().is_none_or(|relative| relative.files.get(path) == Some(entry));
            synced.changed += usize::from(!is_old);
            place(wanted, path, *entry, &tree.join(path), is_old)?;
        }
        if let Some(relative) = relative {
            clone_objects(&relative.dir.join("tree").join(OBJECTS), &tree.join(OBJECTS))?;
            move_paths(&tree.join(OBJECTS), &relative.dir.join("tree"), &self.tree())?;
            synced.cloned_from = relative.dir.file_name().map(tools::show);
        }
        fs::write(work.path().join("files"), files::encode(&wanted.files))?;
        scratch::create_dir(&Self::root(cache))?;
        // What stands here without a list was never finished.
        scratch::remove_tree(&self.dir)?;
        fs::rename(work.path(), &self.dir)
            .with_context(|| format!("{} could not be published", self.dir.display()))?;
        Ok(synced)
    }

    fn update(&self, present: &Files, wanted: &Wanted<'_>) -> Result<Synced> {
        let pending_path = self.dir.join("pending");
        let mut changed: BTreeSet<String> =
            files::differing(present, &wanted.files).into_iter().map(ToOwned::to_owned).collect();
        // A killed sync may have replaced any of these; their content is not what the list says.
        if let Ok(pending) = fs::read_to_string(&pending_path) {
            changed.extend(pending.split_terminator('\0').map(ToOwned::to_owned));
        }
        if changed.is_empty() {
            return Ok(Synced::default());
        }
        self.set_state(&State { built: false, ..self.state() })?;
        let pending: String = changed.iter().flat_map(|path| [path.as_str(), "\0"]).collect();
        fs::write(&pending_path, pending)?;
        for path in &changed {
            let to = self.tree().join(path);
            remove(&to)?;
            match wanted.files.get(path) {
                Some(entry) => place(wanted, path, *entry, &to, false)?,
                None => remove_empty_parents(&self.tree(), &to),
            }
        }
        replace(&self.dir.join("files"), &files::encode(&wanted.files))?;
        fs::remove_file(&pending_path)?;
        Ok(Synced { changed: changed.len(), ..Synced::default() })
    }

    /// Notes that a build begins; [`Self::end_build`] takes the note away. A note found here means
    /// that the build before was killed: targets written in its last seconds may be torn (a linker
    /// killed by SIGKILL removes nothing), so they go.
    pub(super) fn begin_build(&self, config: &str) -> Result<()> {
        let note = self.dir.join("building");
        if note.exists() {
            remove_torn(&self.objects())?;
        }
        self.set_state(&State { built: false, config: config.to_owned(), ..self.state() })?;
        fs::write(&note, "").with_context(|| format!("{} cannot be written", note.display()))
    }

    /// Notes that make ended by itself; only after a success the objects are those of the files.
    pub(super) fn end_build(&self, is_success: bool) -> Result<()> {
        self.set_state(&State { built: is_success, ..self.state() })?;
        fs::remove_file(self.dir.join("building"))?;
        Ok(())
    }
}

fn state_in(dir: &Path) -> State {
    let text = fs::read(dir.join("state.json")).ok();
    text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

fn files_in(dir: &Path) -> Option<Files> {
    files::decode(&fs::read(dir.join("files")).ok()?)
}

/// What a slot is for, by its folder.
pub(super) fn describe(dir: &Path) -> State {
    state_in(dir)
}

struct Relative {
    dir: PathBuf,
    files: Files,
    distance: usize,
    _lock: File,
}

/// How much there is to compile, in differing files.
fn distance(state: &State, files: &Files, wanted: &Files, config: &str) -> usize {
    files::differing(files, wanted).len() + if state.config == config { 0 } else { OTHER_CONFIG }
}

/// The finished slot that differs least; none that somebody works in.
fn nearest(cache: &Path, own: &Path, wanted: &Files, config: &str) -> Option<Relative> {
    let mut best: Option<Relative> = None;
    for entry in fs::read_dir(Slot::root(cache)).ok()?.flatten() {
        let dir = entry.path();
        if dir == own {
            continue;
        }
        let name = entry.file_name();
        let Some(lock) = scratch::try_lock(cache, &Slot::lock_name(&name.to_string_lossy())) else { continue };
        let state = state_in(&dir);
        let Some(files) = files_in(&dir).filter(|_| state.built) else { continue };
        let distance = distance(&state, &files, wanted, config);
        if best.as_ref().is_none_or(|best| distance < best.distance) {
            best = Some(Relative { dir, files, distance, _lock: lock });
        }
    }
    best
}

/// Puts one file into a slot. An old one is older than any object; otherwise it gets today's time.
fn place(wanted: &Wanted<'_>, path: &str, entry: Entry, to: &Path, is_old: bool) -> Result<()> {
    let (root, may_link) = match wanted.patched_root.filter(|_| wanted.patched.contains(path)) {
        Some(root) => (root, false),
        None => (wanted.root, wanted.may_link),
    };
    let from = root.join(path);
    if may_link && is_old && link(&from, to)? {
        return Ok(());
    }
    let (found, content) = files::read_entry(&from)?;
    if found != entry {
        bail!("{} changed while it was read: run again", from.display());
    }
    write(to, entry.kind, &content, is_old)
}

/// True when it is linked; false when this file system refuses to, and a copy must do.
fn link(from: &Path, to: &Path) -> Result<bool> {
    match with_parent(to, || fs::hard_link(from, to)) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            ErrorKind::TooManyLinks | ErrorKind::CrossesDevices | ErrorKind::PermissionDenied => Ok(false),
            _ => Err(error).with_context(|| format!("{} cannot be linked to {}", from.display(), to.display())),
        },
    }
}

fn write(to: &Path, kind: Kind, content: &[u8], is_old: bool) -> Result<()> {
    let put = || -> std::io::Result<()> {
        if kind == Kind::Link {
            return with_parent(to, || std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(content), to));
        }
        with_parent(to, || fs::write(to, content))?;
        let mode = if kind == Kind::Executable { 0o755 } else { 0o644 };
        fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
        if is_old {
            files::set_old(to)?;
        }
        Ok(())
    };
    put().with_context(|| format!("{} cannot be written", to.display()))
}

/// Does it, making the folders above only when they are missing: they rarely are.
fn with_parent(to: &Path, act: impl Fn() -> std::io::Result<()>) -> std::io::Result<()> {
    match (act(), to.parent()) {
        (Err(error), Some(parent)) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(parent)?;
            act()
        }
        (done, _) => done,
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::IsADirectory => scratch::remove_tree(path),
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(error).with_context(|| format!("{} cannot be removed", path.display()))
        }
        _ => Ok(()),
    }
}

fn remove_empty_parents(tree: &Path, path: &Path) {
    for folder in path.ancestors().skip(1).take_while(|folder| *folder != tree) {
        if fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

/// Writes a file so that it is either the old or the new one.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}", std::process::id()));
    let write = || fs::write(&new, content).and_then(|()| fs::rename(&new, path));
    write().with_context(|| format!("{} cannot be written", path.display()))
}

fn clone_objects(from: &Path, to: &Path) -> Result<()> {
    let shell = tools::shell(Path::new("/"))?;
    tools::read(tools::clean(&shell, "cp").args(["-a", "--reflink=auto"]).arg(from).arg(to)).map(|_| ())
}

/// Host tools (`tools/objtool`) are built with absolute paths, and a rebuilt objtool makes every
/// object that it looked at out of date. So the paths in their dependency files move along.
fn move_paths(objects: &Path, old: &Path, new: &Path) -> Result<()> {
    let tools_dir = objects.join("tools");
    if !tools_dir.is_dir() {
        return Ok(());
    }
    let (old, new) = (old.to_string_lossy(), new.to_string_lossy());
    for path in files::walk(&tools_dir)? {
        let path = tools_dir.join(path);
        if !path.extension().is_some_and(|extension| extension == "cmd" || extension == "d") {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        if text.contains(&*old) {
            let modified = path.metadata()?.modified()?;
            fs::write(&path, text.replace(&*old, &new))?;
            File::options().write(true).open(&path)?.set_times(FileTimes::new().set_modified(modified))?;
        }
    }
    Ok(())
}

fn remove_torn(objects: &Path) -> Result<()> {
    if !objects.is_dir() {
        return Ok(());
    }
    let mut written = Vec::new();
    for path in files::walk(objects)? {
        let path = objects.join(path);
        if let Ok(modified) = path.symlink_metadata().and_then(|meta| meta.modified()) {
            written.push((modified, path));
        }
    }
    let Some(last) = written.iter().map(|(modified, _)| *modified).max() else { return Ok(()) };
    let since = last.checked_sub(TORN).unwrap_or(SystemTime::UNIX_EPOCH);
    written.iter().filter(|(modified, _)| *modified >= since).try_for_each(|(_, path)| remove(path))
}

#[cfg(test)]
mod tests;
