// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs of the kernel's own tests, compiled from the source under test: `kernel-configs/selftests.yaml`.
//!
//! Compiled by hand and not by the tests' own makefiles, which build whole folders, look for libraries of the
//! host and write beside the sources. Static: nothing of the host goes with them into the guest.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::make::Make;
use super::{files, tools};
use crate::home::Home;
use crate::image::Extra;
use crate::outcome::Interrupted;
use crate::path;
use crate::progress::Progress;
use crate::yaml::Document;

const FILE_NAME: &str = "selftests.yaml";

/// Folder of the programs, in a built kernel's own.
pub(super) const FOLDER: &str = "selftests";

/// How each is compiled; the kselftests' own lib.mk and Makefiles ask for no more. Part of a kernel's key.
pub(super) const FLAGS: [&str; 4] = ["-static", "-O2", "-D_GNU_SOURCE=", "-w"];

/// A program as it is described.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Selftest {
    /// What it is good for.
    #[serde(rename = "for")]
    reason: String,
    /// Where it is compiled: messages and temporary files of a test are named after its source.
    folder: String,
    /// Its sources, in that folder.
    sources: Vec<String>,
}

/// All that are described, by name.
pub(super) type Selftests = BTreeMap<String, Selftest>;

/// A program of a built kernel.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// SHA-256 of the program, in hexadecimal digits; nothing when there is none.
    pub sha256: Option<String>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trouble: String,
}

impl Program {
    /// One that is there.
    #[must_use]
    pub fn of(extra: &Extra) -> Self {
        Self { name: extra.name.clone(), sha256: Some(extra.sha256.clone()), trouble: String::new() }
    }
}

/// Reads the descriptions of Holdfast, and of a person's own kernels.
///
/// # Errors
/// Bad input when one does not parse.
pub(super) fn read(home: &Home) -> Result<Selftests> {
    let mut all = Selftests::new();
    for path in home.kernel_folders().map(|dir| dir.join(FILE_NAME)).filter(|path| path.is_file()) {
        let document = Document::read(&path)?;
        let described: Selftests = document.load()?;
        for (name, one) in &described {
            let fault = |field: &str, what: &str| document.fault(&path![name.as_str(), field], None, what);
            if one.sources.is_empty() {
                return Err(fault("sources", "at least one is needed"));
            }
            let inside = |path: &String| !path.starts_with('/') && !path.split('/').any(|part| part == "..");
            if !inside(&one.folder) || !one.sources.iter().all(inside) {
                return Err(fault("sources", "a source lies in the kernel's tree"));
            }
        }
        all.extend(described);
    }
    Ok(all)
}

/// Names of all that are described.
///
/// # Errors
/// As [`read`].
pub fn names(home: &Home) -> Result<Vec<String>> {
    Ok(read(home)?.into_keys().collect())
}

/// Compiles each of them into [`FOLDER`] below `work`. One that this source does not have, or that does not
/// compile, is noted: a kernel can be good without.
pub(super) fn compile(
    all: &Selftests,
    make: &Make<'_>,
    work: &Path,
    progress: &Progress,
) -> Result<Vec<Program>> {
    let (into, config) = (work.join(FOLDER), work.join("config"));
    fs::create_dir_all(&into)?;
    // What the tests' makefiles write there: which libraries the host has. None is used.
    fs::create_dir_all(&config)?;
    fs::write(config.join("local_config.h"), "")?;
    if all.is_empty() {
        return Ok(Vec::new());
    }
    make.quick(&[], "headers")?;
    let mut programs = Vec::new();
    for (name, one) in all {
        let path = into.join(name);
        let trouble = one.compile(make, &config, &path)?;
        // What is noted is stored: a compiler that Ctrl-C has reached says nothing of the source.
        if make.cancel.load(Ordering::Relaxed) {
            return Err(Interrupted.into());
        }
        let sha256 = match trouble.lines().next() {
            None => Some(files::hex(&files::read_entry(&path)?.0.hash)),
            Some(first) => {
                progress.say(format!("no selftest {name} of this source: {first}"));
                None
            }
        };
        programs.push(Program { name: name.clone(), sha256, trouble });
    }
    Ok(programs)
}

impl Selftest {
    /// Why the source does not give the program; nothing when it did.
    fn compile(&self, make: &Make<'_>, config: &Path, into: &Path) -> Result<String> {
        let folder = make.tree.join(&self.folder);
        if let Some(missing) = self.sources.iter().find(|source| !folder.join(source).is_file()) {
            return Ok(format!("it has no {}/{missing}", self.folder));
        }
        let headers: PathBuf = make.tree.join(make.objects).join("usr/include");
        let shell = tools::shell(&folder)?;
        let gcc = tools::clean(&shell, "gcc").args(FLAGS).arg("-isystem").arg(headers);
        let gcc = gcc.arg("-I").arg(config).args(&self.sources).arg("-o").arg(into);
        let output = tools::try_run(gcc)?;
        match output.status.code() {
            Some(0) => Ok(String::new()),
            Some(_) => Ok(format!("it does not compile: {}", tools::said(&output))),
            None => bail!("compiling {}: gcc ended with {}", into.display(), output.status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptions_of_this_repository_are_sound() {
        let text = include_str!("../../../kernel-configs/selftests.yaml");
        let document = Document { file: "selftests.yaml".into(), text: text.into() };
        let all: Selftests = document.load().unwrap();
        assert!(all["gup_longterm"].sources.contains(&"gup_longterm.c".to_owned()));
    }
}
