// SPDX-License-Identifier: MIT OR Apache-2.0
//! Patch series: a folder of patches or an mbox, put onto a source with `git am`.
//!
//! Applied in a small repository that holds only the files the series touches, never in a source
//! or a work slot: a series that fails leaves nothing half-applied anywhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

use super::files::{self, Files};
use super::spec::patch_files;
use super::tools;
use crate::outcome::bad_input;
use crate::scratch::Scratch;

/// One patch of a series.
#[derive(Clone, Debug)]
pub(super) struct Patch {
    /// File name, or the mbox and the number of the mail in it.
    pub(super) name: String,
    /// Its subject, without the `[PATCH]`.
    pub(super) subject: String,
    /// The mail.
    pub(super) text: Vec<u8>,
}

impl Patch {
    fn new(name: String, text: Vec<u8>) -> Self {
        let subject = subject_of(&String::from_utf8_lossy(&text)).unwrap_or_else(|| name.clone());
        Self { name, subject, text }
    }

    pub(super) fn hash(&self) -> String {
        files::hex(&Sha256::digest(&self.text))
    }
}

/// The patches of the named files, in that order.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<Patch>> {
    let mut patches = Vec::new();
    for path in paths {
        let text = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let name = path.file_name().map(tools::show).unwrap_or_default();
        patches.push(Patch::new(name, text));
    }
    Ok(patches)
}

/// A person's series: a folder of `*.patch`, an mbox as b4 writes it, or a single patch. Mails
/// without a diff (cover letters) are left out.
///
/// # Errors
/// Bad input when there is no patch in it.
pub(super) fn read_series(cache: &Path, path: &Path) -> Result<Vec<Patch>> {
    let patches = if path.is_dir() {
        read(&patch_files(path)?)?
    } else if path.is_file() {
        split_mbox(cache, path)?
    } else {
        return Err(bad_input(format!("--series {}: no such file or folder", path.display())));
    };
    let patches: Vec<Patch> =
        patches.into_iter().filter(|patch| has_diff(&String::from_utf8_lossy(&patch.text))).collect();
    if patches.is_empty() {
        return Err(bad_input(format!(
            "--series {}: no patch in it (a folder of *.patch files, or an mbox, is expected)",
            path.display()
        )));
    }
    Ok(patches)
}

fn split_mbox(cache: &Path, path: &Path) -> Result<Vec<Patch>> {
    let bytes = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let name = path.file_name().map(tools::show).unwrap_or_default();
    if !bytes.starts_with(b"From ") {
        return Ok(vec![Patch::new(name, bytes)]);
    }
    let work = Scratch::new(cache, "mbox")?;
    let shell = tools::shell(work.path())?;
    let folder = format!("-o{}", work.path().display());
    let mbox = std::path::absolute(path)?;
    tools::read(tools::git(&shell).arg("mailsplit").arg(folder).arg(mbox))?;
    let mut mails = files::walk(work.path())?;
    mails.sort();
    let single = mails.len() == 1;
    let mut patches = Vec::new();
    for mail in mails {
        let text = fs::read(work.path().join(&mail))?;
        let name = if single { name.clone() } else { format!("{name} mail {}", mail.trim_start_matches('0')) };
        patches.push(Patch::new(name, text));
    }
    Ok(patches)
}

fn has_diff(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("diff --git ") || line.starts_with("--- a/"))
}

/// The subject line of a mail, unfolded, without `[PATCH v2 1/3]`.
fn subject_of(text: &str) -> Option<String> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with("Subject:"));
    let mut subject = lines.next()?.trim_start_matches("Subject:").trim().to_owned();
    for folded in lines.take_while(|line| line.starts_with([' ', '\t'])) {
        subject.push(' ');
        subject.push_str(folded.trim());
    }
    let bare =
        subject.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(_, bare)| bare.trim().to_owned());
    Some(bare.unwrap_or(subject))
}

/// Each file a series may read, write, make or remove. A line of a hunk can look like a file header;
/// one name too many does no harm.
fn touched<'a>(texts: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for line in texts.flat_map(str::lines) {
        let side = ["--- a/", "+++ b/"].iter().find_map(|prefix| line.strip_prefix(prefix));
        let moved = ["rename from ", "rename to ", "copy from ", "copy to "]
            .iter()
            .find_map(|prefix| line.strip_prefix(prefix));
        paths.extend(side.or(moved).map(|path| path.split('\t').next().unwrap_or(path).to_owned()));
        // A pure mode change or a binary patch has no other line that names the file.
        let same = line.strip_prefix("diff --git a/").and_then(|rest| {
            let half = rest.len().checked_sub(" b/".len())? / 2;
            rest.get(..half).filter(|path| rest.get(half..).is_some_and(|other| other == format!(" b/{path}")))
        });
        paths.extend(same.map(ToOwned::to_owned));
    }
    paths
}

/// The outcome of a series: a folder with the files it changed.
pub(super) struct Applied {
    work: Scratch,
    touched: BTreeSet<String>,
}

impl Applied {
    /// Where the changed files lie.
    pub(super) fn root(&self) -> &Path {
        self.work.path()
    }

    /// The tree's list with the series on it, and the paths whose content lies in [`Self::root`].
    pub(super) fn onto(&self, mut tree: Files) -> Result<(Files, BTreeSet<String>)> {
        let mut ours = BTreeSet::new();
        for path in &self.touched {
            match files::entry_at(&self.root().join(path))? {
                Some(entry) => {
                    if tree.insert(path.clone(), entry) != Some(entry) {
                        ours.insert(path.clone());
                    }
                }
                None => {
                    tree.remove(path);
                }
            }
        }
        Ok((tree, ours))
    }
}

/// Applies a series to the files of a source.
///
/// # Errors
/// When a patch does not apply: which, at which hunk of which file.
pub(super) fn apply(cache: &Path, source: &Path, patches: &[Patch]) -> Result<Applied> {
    let texts: Vec<_> = patches.iter().map(|patch| String::from_utf8_lossy(&patch.text)).collect();
    let touched = touched(texts.iter().map(AsRef::as_ref));
    let work = Scratch::new(cache, "series")?;
    let mails = Scratch::new(cache, "mails")?;
    for path in &touched {
        copy_if_there(&source.join(path), &work.path().join(path))?;
    }
    let shell = tools::shell(work.path())?;
    tools::read(tools::git(&shell).args(["init", "--quiet"]))?;
    tools::read(tools::git(&shell).args(["add", "--all", "--force"]))?;
    tools::read(tools::git(&shell).args(["commit", "--quiet", "--allow-empty", "--message=base"]))?;
    for (index, patch) in patches.iter().enumerate() {
        let mail = mails.path().join(format!("{index:04}.patch"));
        fs::write(&mail, &patch.text)?;
        let output = tools::try_run(tools::git(&shell).args(["am", "--quiet", "--keep-cr"]).arg(&mail))?;
        if !output.status.success() {
            let probe = tools::try_run(tools::git(&shell).args(["apply", "--reject", "--verbose"]).arg(&mail))?;
            let what = rejected(&String::from_utf8_lossy(&probe.stderr), &texts[index]);
            let what = if what.is_empty() { tools::said(&output) } else { what.join("\n") };
            bail!("patch {} of {} does not apply: {}\n{what}", index + 1, patches.len(), patch.name);
        }
    }
    Ok(Applied { work, touched })
}

fn copy_if_there(from: &Path, to: &Path) -> Result<()> {
    let Ok(meta) = fs::symlink_metadata(from) else { return Ok(()) };
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    if meta.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from)?, to)?;
    } else if meta.is_file() {
        fs::copy(from, to).with_context(|| format!("{} cannot be copied", from.display()))?;
    }
    Ok(())
}

/// `  FILE: hunk N of it does not match: @@ ... @@`, out of what `git apply --reject --verbose` says.
fn rejected(said: &str, patch: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut file = String::new();
    for line in said.lines() {
        if let Some(rest) = line.strip_prefix("Checking patch ") {
            file = rest.trim_end_matches("...").rsplit(" => ").next().unwrap_or(rest).to_owned();
        } else if let Some(rest) = line.strip_prefix("Applying patch ") {
            file = rest.split(" with ").next().unwrap_or(rest).to_owned();
        } else if let Some(number) =
            line.strip_prefix("Rejected hunk #").and_then(|rest| rest.trim_end_matches('.').parse().ok())
        {
            let header = hunk_header(patch, &file, number).unwrap_or_default();
            found.push(format!("  {file}: hunk {number} does not match: {header}"));
        } else if let Some(rest) =
            line.strip_prefix("error: ").filter(|rest| !rest.starts_with("while searching for"))
        {
            // `patch failed: FILE:LINE` comes with a rejected hunk; the others (no such file,
            // already exists) stand alone.
            if !rest.starts_with("patch failed") {
                found.push(format!("  {rest}"));
            }
        }
    }
    found
}

/// The `@@` line of a file's nth hunk (from 1).
fn hunk_header(patch: &str, file: &str, number: usize) -> Option<String> {
    let marker = format!("+++ b/{file}");
    let mut lines = patch.lines().skip_while(|line| line.split('\t').next() != Some(&marker)).skip(1);
    let own = lines.by_ref().take_while(|line| !line.starts_with("diff --git ") && !line.starts_with("+++ "));
    own.filter(|line| line.starts_with("@@ ")).nth(number.checked_sub(1)?).map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str = "From 0 Mon Sep 17 00:00:00 2001\nFrom: A <a@b>\nSubject: [PATCH 1/2] Move\n the thing\n\nWhy.\n---\n\
        diff --git a/one.c b/one.c\n--- a/one.c\n+++ b/one.c\n@@ -1,3 +1,3 @@ first\n 1\n-2\n+two\n 3\n@@ -11,3 +11,3 @@ second\n 11\n-12\n+twelve\n 13\n\
        diff --git a/old b/new\nsimilarity index 100%\nrename from old\nrename to new\n\
        diff --git a/run.sh b/run.sh\nold mode 100644\nnew mode 100755\n\
        diff --git a/fresh.c b/fresh.c\nnew file mode 100644\n--- /dev/null\n+++ b/fresh.c\n@@ -0,0 +1 @@\n+x\n-- \n2.39\n";

    fn numbers(change: Option<(usize, &str)>) -> String {
        let line = |n| match change {
            Some((at, text)) if at == n => format!("{text}\n"),
            _ => format!("{n}\n"),
        };
        (1..=20).map(line).collect()
    }

    fn source(dir: &Path, one: &str) {
        fs::write(dir.join("one.c"), one).unwrap();
        fs::write(dir.join("old"), "x\n").unwrap();
        fs::write(dir.join("run.sh"), "true\n").unwrap();
        fs::write(dir.join("untouched"), "u\n").unwrap();
    }

    #[test]
    fn every_file_of_a_series_is_known_beforehand() {
        let paths: Vec<String> = touched([PATCH].into_iter()).into_iter().collect();
        assert_eq!(paths, ["fresh.c", "new", "old", "one.c", "run.sh"]);
    }

    #[test]
    fn subjects_are_unfolded_and_bare() {
        assert_eq!(subject_of(PATCH).unwrap(), "Move the thing");
        assert_eq!(subject_of("Subject: plain\n\n").unwrap(), "plain");
        assert_eq!(subject_of("no mail"), None);
    }

    #[test]
    fn a_series_changes_the_list_and_not_the_source() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, tree) = (dir.path().join("cache"), dir.path().join("tree"));
        fs::create_dir(&tree).unwrap();
        source(&tree, &numbers(None));
        let before = files::scan(&tree).unwrap();
        let patch = Patch::new("0001.patch".into(), PATCH.into());
        let applied = apply(&cache, &tree, &[patch]).unwrap();
        let (after, ours) = applied.onto(before.clone()).unwrap();
        assert_eq!(files::scan(&tree).unwrap(), before);
        let mut changed = files::differing(&before, &after);
        changed.sort_unstable();
        assert_eq!(changed, ["fresh.c", "new", "old", "one.c", "run.sh"]);
        assert_eq!(after["run.sh"].kind, files::Kind::Executable);
        assert!(!after.contains_key("old"));
        assert_eq!(ours.into_iter().collect::<Vec<_>>(), ["fresh.c", "new", "one.c", "run.sh"]);
    }

    #[test]
    fn a_patch_that_does_not_apply_is_named_with_hunk_and_file() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, tree) = (dir.path().join("cache"), dir.path().join("tree"));
        fs::create_dir(&tree).unwrap();
        source(&tree, &numbers(Some((12, "zwoelf"))));
        let patch = Patch::new("0007-x.patch".into(), PATCH.into());
        let error = apply(&cache, &tree, &[patch]).err().unwrap().to_string();
        assert!(error.contains("0007-x.patch"), "{error}");
        assert!(error.contains("one.c: hunk 2 does not match: @@ -11,3 +11,3 @@ second"), "{error}");
        assert!(!error.contains("hunk 1"), "{error}");
        // Nothing is left but the empty scratch folder.
        let left =
            fs::read_dir(cache.join("tmp")).unwrap().flatten().filter(|entry| entry.path().is_dir()).count();
        assert_eq!(left, 0);
    }

    #[test]
    fn a_patch_for_a_missing_file_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let text = "Subject: x\n\n---\ndiff --git a/none.c b/none.c\n--- a/none.c\n+++ b/none.c\n@@ -1 +1 @@\n-a\n+b\n";
        let error = apply(&dir.path().join("cache"), &tree, &[Patch::new("p".into(), text.into())])
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("none.c"), "{error}");
    }

    #[test]
    fn an_mbox_loses_its_cover_letter() {
        let dir = tempfile::tempdir().unwrap();
        let mbox = dir.path().join("v1.mbx");
        let cover = "From mboxrd@z Thu Jan  1 00:00:00 1970\nFrom: A <a@b>\nSubject: [PATCH 0/1] Cover\nDate: Thu, 1 Jan 2026 00:00:00 +0000\n\nHello.\n\n";
        fs::write(&mbox, format!("{cover}{PATCH}\n")).unwrap();
        let patches = read_series(&dir.path().join("cache"), &mbox).unwrap();
        assert_eq!(patches.len(), 1);
        assert_eq!(patches[0].subject, "Move the thing");
        assert_eq!(patches[0].name, "v1.mbx mail 2");
        fs::write(&mbox, cover).unwrap();
        assert!(read_series(&dir.path().join("cache"), &mbox).is_err());
    }
}
