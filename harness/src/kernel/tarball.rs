// SPDX-License-Identifier: MIT OR Apache-2.0
//! A source that is a file of this machine: `linux-X.Y.tar.xz` as it was published, known by its SHA-256.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::source::{self, Label, Pristine};
use super::spec::Given;
use super::{files, tools};
use crate::outcome::bad_input;
use crate::progress::Progress;
use crate::scratch::{self, Scratch};

/// What is in the cache of tarballs begins so.
const PREFIX: &str = "tarball";

/// The source of that sum, unpacked unless it is in the cache: then the file may be gone.
///
/// # Errors
/// Bad input when the file is another one, or holds no kernel; an ordinary error when it is not there.
pub(super) fn unpacked(cache: &Path, file: &Given, sha256: &str, progress: &Progress) -> Result<Pristine> {
    let name = format!("{PREFIX}_{sha256}");
    if let Some(found) = source::cached(cache, &name) {
        return Ok(found);
    }
    let what = format!("unpacks {}", file.text);
    let _lock = scratch::lock_and_say(cache, &format!("source-{PREFIX}"), &what, progress, &source::NEVER)?;
    if let Some(found) = source::cached(cache, &name) {
        return Ok(found);
    }
    let path = file.path()?;
    let place = &file.place;
    let got = files::sum(&path).context(place.clone())?;
    if got != sha256 {
        return Err(bad_input(format!(
            "{place}: {} is another file\n  sha256 expected {sha256}\n  sha256 found    {got}",
            path.display()
        )));
    }
    scratch::check_space(cache, source::SOURCE_MIB, "unpacking a kernel source")?;
    progress.say(format!("unpacking {}", path.display()));
    let work = Scratch::new(cache, "source")?;
    let tree = work.path().join("tree");
    fs::create_dir(&tree)?;
    let wrong = |why: String| bad_input(format!("{place}: {}: {why}", path.display()));
    unpack(&path, &tree).map_err(|error| wrong(format!("{error:#}")))?;
    let makefile = fs::read_to_string(tree.join("Makefile")).unwrap_or_default();
    if source::release_of(&makefile).is_none() {
        let why = "no kernel's source: below the one folder at its top there is no Makefile with a VERSION";
        return Err(wrong(why.to_owned()));
    }
    let shown = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let label = Label { identity: format!("sha256 {sha256}"), named: format!("tarball {shown}") };
    source::publish(cache, work, &name, &label)
}

/// tar finds out by itself how it is packed, and runs xz, gzip or zstd.
fn unpack(path: &Path, tree: &Path) -> Result<()> {
    let shell = tools::shell(Path::new("/"))?;
    let tar = tools::clean(&shell, "tar");
    let tar = tar.args(["--extract", "--strip-components=1", "--no-same-owner", "--directory"]);
    let output = tools::try_run(tar.arg(tree).arg("--file").arg(path))?;
    if !output.status.success() {
        let said = tools::said(&output);
        bail!("tar cannot unpack it: {}", said.lines().next().unwrap_or("it says nothing"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;
    use crate::outcome::BadInput;

    fn given(path: &Path) -> Given {
        Given { text: path.display().to_string(), folder: PathBuf::new(), place: "k.yaml:4:5".to_owned() }
    }

    fn packed(folder: &Path, name: &str, makefile: &str) -> (PathBuf, String) {
        let tree = folder.join("linux-6.12.1");
        fs::create_dir_all(tree.join("mm")).unwrap();
        fs::write(tree.join("Makefile"), makefile).unwrap();
        fs::write(tree.join("mm/gup.c"), "int x;\n").unwrap();
        let path = folder.join(name);
        let status = Command::new("tar")
            .args(["--create", "--auto-compress", "--directory"])
            .arg(folder)
            .arg("--file")
            .arg(&path)
            .arg("linux-6.12.1")
            .status();
        assert!(status.unwrap().success());
        let sha256 = files::sum(&path).unwrap();
        (path, sha256)
    }

    const MAKEFILE: &str = "VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 1\nEXTRAVERSION =\n";

    #[test]
    fn a_tarball_becomes_a_source_and_need_not_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, progress) = (dir.path().join("cache"), Progress::new(true));
        for name in ["linux.tar.xz", "linux.tar.gz"] {
            let (path, sha256) = packed(dir.path(), name, MAKEFILE);
            let source = unpacked(&cache, &given(&path), &sha256, &progress).unwrap();
            assert_eq!(source.identity, format!("sha256 {sha256}"));
            assert_eq!(source.named, format!("tarball {name}"));
            assert_eq!(fs::read_to_string(source.tree().join("mm/gup.c")).unwrap(), "int x;\n");
            fs::remove_file(&path).unwrap();
            unpacked(&cache, &given(&path), &sha256, &progress).unwrap();
        }
    }

    #[test]
    fn what_is_wrong_with_a_tarball_is_told_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, progress) = (dir.path().join("cache"), Progress::new(true));
        let check = |path: &Path, sha256: &str, is_bad: bool, words: &[&str]| {
            let error = unpacked(&cache, &given(path), sha256, &progress).err().unwrap();
            assert_eq!(error.is::<BadInput>(), is_bad, "{error:#}");
            for word in [&["k.yaml:4:5: ", path.to_str().unwrap()], words].concat() {
                assert!(format!("{error:#}").contains(word), "{error:#} lacks {word}");
            }
            assert!(!cache.join("sources").exists());
        };
        let (path, sha256) = packed(dir.path(), "linux.tar.gz", MAKEFILE);
        let other = "0".repeat(64);
        check(&path, &other, true, &["another file", &other, &sha256]);
        check(&dir.path().join("none.tar"), &other, false, &["No such file"]);
        let plain = dir.path().join("plain.tar.xz");
        fs::write(&plain, "no tar at all\n".repeat(100)).unwrap();
        check(&plain, &files::sum(&plain).unwrap(), true, &["tar cannot unpack it"]);
        let (path, sha256) = packed(dir.path(), "book.tar.gz", "all:\n");
        check(&path, &sha256, true, &["no kernel's source"]);
    }
}
