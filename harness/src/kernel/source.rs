// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a kernel's source comes from: a Debian source package, a commit of a git tree, or a tarball.
//!
//! A source in the cache is never edited: work slots link its files and replace, never write, them.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::files::{self, Files};
use super::spec::{Origin, Source};
use super::{debian, slot, tarball, tools};
use crate::outcome::{BadInput, bad_input};
use crate::progress::Progress;
use crate::scratch::{self, Scratch};

/// Unpacked source, its list of files, the package beside it.
pub(super) const SOURCE_MIB: u64 = 2_500;

/// A source in the cache.
pub(super) struct Pristine {
    /// What it is, for keys: never the same for other content.
    pub(super) identity: String,
    /// What it is, for people.
    pub(super) named: String,
    dir: PathBuf,
}

#[derive(Deserialize, Serialize)]
pub(super) struct Label {
    /// See [`Pristine`].
    pub(super) identity: String,
    pub(super) named: String,
}

impl Pristine {
    /// The source tree; not to be written.
    pub(super) fn tree(&self) -> PathBuf {
        self.file("tree")
    }

    /// Something else of its folder.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Its files, as listed when it was unpacked; listed again when that list is damaged.
    pub(super) fn files(&self) -> Result<Files> {
        let path = self.dir.join("files");
        if let Some(listed) = fs::read(&path).ok().and_then(|bytes| files::decode(&bytes)) {
            return Ok(listed);
        }
        let listed = files::scan(&self.tree())?;
        slot::replace(&path, &files::encode(&listed))?;
        Ok(listed)
    }

    fn open(dir: PathBuf) -> Option<Self> {
        let label: Label = serde_json::from_slice(&fs::read(dir.join("source.json")).ok()?).ok()?;
        Some(Self { identity: label.identity, named: label.named, dir })
    }
}

/// Takes the first source this host can use, fetching it when it is not in the cache.
///
/// # Errors
/// When none can be used: why, for each.
pub(super) fn first_usable(
    cache: &Path,
    sources: &[Source],
    offline: bool,
    progress: &Progress,
) -> Result<(Pristine, String)> {
    let mut reasons = Vec::new();
    for source in sources {
        let usable = match &source.origin {
            Origin::Debian(package) => debian_source(cache, package, offline, progress),
            Origin::Git { tree, rev } => configured_git(cache, tree, rev, progress),
            Origin::Tarball { file, sha256 } => tarball::unpacked(cache, file, sha256, progress),
        };
        match usable {
            Ok(pristine) => return Ok((pristine, source.tested.clone())),
            // Wrong, and not only absent: another source would hide it.
            Err(error) if error.is::<BadInput>() => return Err(error),
            Err(reason) => reasons.push(format!("  {reason:#}")),
        }
    }
    Err(anyhow!("no source can be used here:\n{}", reasons.join("\n")))
}

/// Another process fetches for seconds only, and Ctrl-C ends its tools with it.
pub(super) static NEVER: AtomicBool = AtomicBool::new(false);

fn debian_source(cache: &Path, package: &str, offline: bool, progress: &Progress) -> Result<Pristine> {
    if let Some(found) = cached(cache, &format!("{package}_")) {
        return Ok(found);
    }
    if offline {
        bail!(
            "{package}: not in the cache; without --offline `apt-get download {package}` would fetch it (150 MB)"
        );
    }
    debian::check_tools(package)?;
    let what = format!("fetches {package}");
    let _lock = scratch::lock_and_say(cache, &format!("source-{package}"), &what, progress, &NEVER)?;
    if let Some(found) = cached(cache, &format!("{package}_")) {
        return Ok(found);
    }
    scratch::check_space(cache, SOURCE_MIB, "unpacking a kernel source")?;
    let work = Scratch::new(cache, "source")?;
    let deb = debian::download(work.path(), package, "150 MB", progress)?;
    let version = debian::field(&deb, "Version")?;
    progress.say(format!("unpacking {package} {version}"));
    let tree = work.path().join("tree");
    unpack_deb(&deb, package, &tree)?;
    let hash = files::sum(&deb)?;
    fs::remove_file(&deb)?;
    let label =
        Label { identity: format!("debian {package} {version} {hash}"), named: format!("{package} {version}") };
    publish(cache, work, &format!("{package}_{}", file_name(&version)), &label)
}

/// The newest source in the cache whose folder name begins so.
pub(super) fn cached(cache: &Path, prefix: &str) -> Option<Pristine> {
    let found = fs::read_dir(cache.join("sources"))
        .ok()?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    let newest = found.max_by_key(|entry| entry.metadata().and_then(|meta| meta.modified()).ok())?;
    Pristine::open(newest.path())
}

/// The package holds one `/usr/src/PACKAGE.tar.xz` with everything below one folder.
fn unpack_deb(deb: &Path, package: &str, tree: &Path) -> Result<()> {
    fs::create_dir(tree)?;
    let member = format!("./usr/src/{package}.tar.xz");
    let mut outer = Command::new("dpkg-deb");
    outer.arg("--fsys-tarfile").arg(deb);
    let mut inner = Command::new("tar");
    inner.args(["--extract", "--to-stdout", &member]);
    let mut last = Command::new("tar");
    last.args(["--extract", "--xz", "--strip-components=1", "--no-same-owner", "--directory"]).arg(tree);
    tools::pipeline(vec![outer, inner, last])
        .with_context(|| format!("{} could not be unpacked", deb.display()))
}

fn configured_git(cache: &Path, tree: &str, rev: &str, progress: &Progress) -> Result<Pristine> {
    let path = match tree.strip_prefix('$') {
        Some(variable) => match env::var_os(variable).filter(|value| !value.is_empty()) {
            Some(value) => PathBuf::from(value),
            None => {
                bail!("git tree {tree}: the variable is not set; it may name a kernel git tree that has {rev}")
            }
        },
        None => PathBuf::from(tree),
    };
    let commit = commit_of(&path, rev)?;
    let name = format!("git_{commit}");
    if let Some(found) = cached(cache, &name) {
        return Ok(found);
    }
    let _lock =
        scratch::lock_and_say(cache, &format!("source-{name}"), "unpacks this commit", progress, &NEVER)?;
    if let Some(found) = cached(cache, &name) {
        return Ok(found);
    }
    scratch::check_space(cache, SOURCE_MIB, "unpacking a kernel source")?;
    progress.say(format!("unpacking {rev} of {}", path.display()));
    let work = Scratch::new(cache, "source")?;
    archive(&path, &commit, &work.path().join("tree"))?;
    let label = Label { identity: git_identity(&commit), named: format!("git {rev} ({})", short(&commit)) };
    publish(cache, work, &name, &label)
}

/// What a commit is, for keys.
pub(super) fn git_identity(commit: &str) -> String {
    format!("git {commit}")
}

/// A commit's id as people quote it.
pub(super) fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

/// The full id of a revision.
///
/// # Errors
/// Bad input when the path is no git tree or knows no such revision.
pub(super) fn commit_of(tree: &Path, rev: &str) -> Result<String> {
    let shell = tools::shell(Path::new("/"))?;
    let asked = format!("{rev}^{{commit}}");
    let output = tools::try_run(tools::git_reader(&shell, tree).args([
        "rev-parse",
        "--verify",
        "--end-of-options",
        &asked,
    ]))?;
    if !output.status.success() {
        return Err(bad_input(format!(
            "git tree {}: no revision `{rev}`: {}",
            tree.display(),
            tools::said(&output)
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Writes a commit's files into a new folder, without touching the tree it comes from.
pub(super) fn archive(tree: &Path, commit: &str, into: &Path) -> Result<()> {
    fs::create_dir_all(into)?;
    let mut git = Command::new("git");
    let safe = format!("safe.directory={}", tree.display());
    git.args(["--no-optional-locks", "-c", &safe, "-C"]).arg(tree).args(["archive", "--format=tar", commit]);
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--no-same-owner", "--directory"]).arg(into);
    tools::pipeline(vec![git, tar])
        .with_context(|| format!("{commit} of {} could not be unpacked", tree.display()))
}

pub(super) fn publish(cache: &Path, work: Scratch, name: &str, label: &Label) -> Result<Pristine> {
    files::age(&work.path().join("tree"))?;
    let listed = files::scan(&work.path().join("tree"))?;
    fs::write(work.path().join("files"), files::encode(&listed))?;
    put(cache, work, name, label)
}

/// Puts a folder with whatever it holds among the sources.
pub(super) fn put(cache: &Path, work: Scratch, name: &str, label: &Label) -> Result<Pristine> {
    fs::write(work.path().join("source.json"), serde_json::to_vec_pretty(label)?)?;
    let sources = cache.join("sources");
    scratch::create_dir(&sources)?;
    let dir = sources.join(name);
    // A damaged predecessor (no label) is in the way of the rename.
    scratch::remove_tree(&dir)?;
    fs::rename(work.path(), &dir).with_context(|| format!("{} could not be published", dir.display()))?;
    Pristine::open(dir.clone()).with_context(|| format!("{} is damaged", dir.display()))
}

/// A version as part of a file name: epochs and such hold characters a path may not.
pub(super) fn file_name(version: &str) -> String {
    version.chars().map(|c| if c.is_ascii_alphanumeric() || ".+~-".contains(c) { c } else { '_' }).collect()
}

/// `6.12.117` of a kernel's top Makefile.
pub(super) fn release_of(makefile: &str) -> Option<String> {
    let value = |key: &str| {
        let line = makefile
            .lines()
            .take(20)
            .find(|line| line.split('=').next().is_some_and(|name| name.trim() == key))?;
        line.split_once('=').map(|(_, value)| value.trim().to_owned())
    };
    let (version, patch, sub) = (value("VERSION")?, value("PATCHLEVEL")?, value("SUBLEVEL")?);
    Some(format!("{version}.{patch}.{sub}{}", value("EXTRAVERSION").unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_from_the_makefile() {
        let check = |text: &str, expect: Option<&str>| assert_eq!(release_of(text).as_deref(), expect);
        check("# SPDX\nVERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 117\nEXTRAVERSION =\n", Some("6.12.117"));
        check("VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 0\nEXTRAVERSION = -rc2\n", Some("7.3.0-rc2"));
        check("all:\n\tcc x.c\n", None);
    }

    #[test]
    fn versions_become_file_names() {
        assert_eq!(file_name("6.12.117-1~deb12u1"), "6.12.117-1~deb12u1");
        assert_eq!(file_name("1:2/3"), "1_2_3");
    }
}
