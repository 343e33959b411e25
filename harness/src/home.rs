// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where things live: the data Holdfast reads, the cache it may lose, the runs it keeps.
//!
//! Separate because a clone and an installed `holdfast` differ in nothing but these paths.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::outcome::bad_input;

/// The folders of this user and this installation.
#[derive(Clone, Debug)]
pub struct Home {
    /// Holds `kernel-configs`, `scenarios` and `images`: the clone, or the installed copy of it.
    pub data: PathBuf,
    /// True in a clone, where the agent can be built from its source; an installed copy brings it built.
    pub is_clone: bool,
    /// What can be made again: sources, kernels, initramfs images, probe results.
    pub cache: PathBuf,
    /// Where run folders go.
    pub runs: PathBuf,
    /// What a person brings along.
    pub own: Own,
}

/// Folders of a person's own, beside Holdfast's: for a proposal that nobody has posted yet.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// Scenarios, and contracts in a `contracts.yaml`.
    pub scenarios: Option<PathBuf>,
    /// Kernels, and fragments in `fragments/`, as in `kernel-configs`.
    pub kernels: Option<PathBuf>,
}

impl Own {
    /// Folders a person named.
    ///
    /// # Errors
    /// Bad input when one is not there.
    pub fn new(scenarios: Option<&Path>, kernels: Option<&Path>) -> Result<Self> {
        let folder = |path: Option<&Path>, what: &str| -> Result<Option<PathBuf>> {
            let Some(path) = path else { return Ok(None) };
            let found = path.canonicalize().ok().filter(|path| path.is_dir());
            found
                .map(Some)
                .ok_or_else(|| bad_input(format!("--{what} {}: there is no such folder", path.display())))
        };
        Ok(Self { scenarios: folder(scenarios, "scenarios")?, kernels: folder(kernels, "kernels")? })
    }
}

impl Home {
    /// Finds the folders: `HOLDFAST_CACHE` before `$XDG_CACHE_HOME/holdfast` for the cache,
    /// `HOLDFAST_DATA` before `$XDG_DATA_HOME/holdfast` for an installed copy's data.
    ///
    /// # Errors
    /// When neither a clone nor an installed copy is found, or `HOME` is not set.
    pub fn find() -> Result<Self> {
        let cache = match env::var_os("HOLDFAST_CACHE") {
            // Tools are run in folders elsewhere; a relative path means a folder here.
            Some(path) => std::path::absolute(path).context("cannot tell the working directory")?,
            None => xdg("XDG_CACHE_HOME", ".cache")?.join("holdfast"),
        };
        let text = cache.to_string_lossy();
        if text.contains(|c: char| c.is_whitespace() || c == ':') {
            return Err(bad_input(format!(
                "the cache folder `{text}` has a space or a colon in its path, which the kernel's makefiles cannot take; set HOLDFAST_CACHE to another"
            )));
        }
        // `cargo run` names the package's folder; an installed program has no such variable.
        let clone =
            env::var_os("CARGO_MANIFEST_DIR").and_then(|dir| Path::new(&dir).parent().map(Path::to_owned));
        if let Some(clone) = clone.filter(|dir| is_data(dir)) {
            let runs = clone.join("target/holdfast/runs");
            return Ok(Self { data: clone, is_clone: true, cache, runs, own: Own::default() });
        }
        let data = Self::installed_data()?;
        if !is_data(&data) {
            return Err(bad_input(format!(
                "{} holds no kernel-configs: run `cargo xtask install` in a clone of Holdfast, or set HOLDFAST_DATA to one",
                data.display()
            )));
        }
        let runs = xdg("XDG_STATE_HOME", ".local/state")?.join("holdfast/runs");
        Ok(Self { data, is_clone: false, cache, runs, own: Own::default() })
    }

    /// Where an installed copy has its data.
    ///
    /// # Errors
    /// When `HOME` is not set.
    pub fn installed_data() -> Result<PathBuf> {
        match env::var_os("HOLDFAST_DATA") {
            Some(path) => Ok(PathBuf::from(path)),
            None => Ok(xdg("XDG_DATA_HOME", ".local/share")?.join("holdfast")),
        }
    }

    /// Folder of the kernels' descriptions.
    #[must_use]
    pub fn kernel_configs(&self) -> PathBuf {
        self.data.join("kernel-configs")
    }

    /// Folder of the scenarios, contracts and plans.
    #[must_use]
    pub fn scenarios(&self) -> PathBuf {
        self.data.join("scenarios")
    }

    /// Folders of scenarios: Holdfast's, then the person's own.
    pub fn scenario_folders(&self) -> impl Iterator<Item = PathBuf> {
        [self.scenarios()].into_iter().chain(self.own.scenarios.clone())
    }

    /// Folders of kernels: Holdfast's, then the person's own.
    pub fn kernel_folders(&self) -> impl Iterator<Item = PathBuf> {
        [self.kernel_configs()].into_iter().chain(self.own.kernels.clone())
    }

    /// Folder of what is inside the guest.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.data.join("images")
    }
}

fn is_data(dir: &Path) -> bool {
    dir.join("kernel-configs").is_dir() && dir.join("scenarios").is_dir()
}

fn xdg(variable: &str, below_home: &str) -> Result<PathBuf> {
    if let Some(path) = env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute()) {
        return Ok(path);
    }
    let home = env::var_os("HOME").with_context(|| format!("neither {variable} nor HOME is set"))?;
    Ok(Path::new(&home).join(below_home))
}
