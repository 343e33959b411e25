// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debian packages: fetched and taken apart, never installed, without root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::tools;
use crate::doctor::{self, Stage};
use crate::progress::Progress;

/// Fails for a package that cannot be fetched here.
pub(super) fn check_tools(package: &str) -> Result<()> {
    let missing = doctor::missing_for(Stage::Source);
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|need| need.what).collect();
    bail!("{package}: {} missing here", names.join(", "))
}

/// Fetches a package into an empty folder; `size` is what people are told.
pub(super) fn download(dir: &Path, package: &str, size: &str, progress: &Progress) -> Result<PathBuf> {
    progress.say(format!("fetching {package} (about {size})"));
    let mut apt = Command::new("apt-get");
    // The proxies and certificates of the user's environment are wanted here, and only here.
    apt.current_dir(dir).env("LC_ALL", "C").stdin(Stdio::null());
    if nix::unistd::Uid::effective().is_root() {
        // Otherwise apt warns that its sandbox user cannot write into our folder.
        apt.args(["-o", "APT::Sandbox::User=root"]);
    }
    let output = apt.args(["-q", "download", package]).output().context("apt-get could not be run")?;
    if !output.status.success() {
        let said = tools::said(&output);
        if said.contains("Unable to locate package") || said.contains("Can't select candidate version") {
            bail!(
                "{package}: apt knows no such package; run `apt-get update` as root, then try again. \
                 Debian 12 has it in bookworm-security, which apt's sources must name"
            );
        }
        bail!("{package}: `apt-get download {package}` failed (is there a network?): {said}");
    }
    let entries = fs::read_dir(dir)?.flatten().map(|entry| entry.path());
    let mut debs = entries.filter(|path| path.extension().is_some_and(|extension| extension == "deb"));
    debs.next().with_context(|| format!("`apt-get download {package}` left no .deb file"))
}

/// A field of a package's control file.
pub(super) fn field(deb: &Path, field: &str) -> Result<String> {
    let shell = tools::shell(Path::new("/"))?;
    tools::read_text(tools::clean(&shell, "dpkg-deb").arg("--field").arg(deb).arg(field))
}

/// Unpacks all files of a package.
pub(super) fn unpack(deb: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into)?;
    let mut outer = Command::new("dpkg-deb");
    outer.arg("--fsys-tarfile").arg(deb);
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--no-same-owner", "--directory"]).arg(into);
    tools::pipeline(vec![outer, tar]).with_context(|| format!("{} could not be unpacked", deb.display()))
}

/// What apt knows of a package: the fields of its newest version, as `Name: value` lines. Nothing for one
/// that it does not know.
pub(super) fn known(package: &str) -> Result<Option<String>> {
    let shell = tools::shell(Path::new("/"))?;
    let output =
        tools::try_run(tools::clean(&shell, "apt-cache").args(["show", "--no-all-versions", "--", package]))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(output.status.success().then_some(text).filter(|text| !text.trim().is_empty()))
}

/// Names of all packages that apt knows which begin so.
pub(super) fn names(prefix: &str) -> Vec<String> {
    let Ok(shell) = tools::shell(Path::new("/")) else { return Vec::new() };
    let listed = tools::read_text(tools::clean(&shell, "apt-cache").args(["pkgnames", prefix]));
    listed.unwrap_or_default().lines().map(str::to_owned).collect()
}
