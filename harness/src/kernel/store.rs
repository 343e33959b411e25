// SPDX-License-Identifier: MIT OR Apache-2.0
//! Built kernels: `CACHE/kernels/KEY/`, found by the content of every input.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use holdfast_protocol::Provider;
use serde::{Deserialize, Serialize};

use super::selftests::{self, Program};
use crate::image::{Extra, Module};
use crate::scratch::{self, Scratch};

/// Folder of the modules, in a kernel's own.
pub(super) const MODULES: &str = "modules";

/// The note in a kernel's folder whose time says when it was last asked for.
const USED: &str = "used";

/// What a built kernel is and what it was made of.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Manifest {
    /// The kernel's name in `kernel-configs`, or one made of the person's tree or series.
    pub name: String,
    /// The key it is stored under.
    pub key: String,
    /// What `uname -r` says on it.
    pub release: String,
    /// The source really used, for people.
    pub source: String,
    /// The point release of that source, from its Makefile.
    pub version: String,
    /// The point release the kernel's description was tried on, if it is one of ours.
    pub tested: Option<String>,
    /// The contract the kernel claims.
    pub contract: String,
    /// The series.
    pub patches: Vec<PatchNote>,
    /// Every configuration request, as option and value (`n` when it must be absent): the guest
    /// compares them with its own `/proc/config.gz`. None for a kernel that does not carry one.
    pub requests: Vec<(String, String)>,
    /// Options that some operations want and that this kernel was built without; nobody has looked where it
    /// was built here.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub lacks: BTreeSet<String>,
    /// Modules that its guests load, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<ModuleNote>,
    /// Arguments that this kernel is given in addition.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub arguments: String,
    /// Compiler and linker.
    pub compiler: String,
    /// Programs of the kernel's own tests, compiled from the same source.
    #[serde(default)]
    pub selftests: Vec<Program>,
    /// Steps make took for this image; a rebuild takes fewer.
    pub steps: u64,
    /// How long the build took, in seconds.
    pub build_s: f64,
    /// When, as RFC 3339.
    pub date: String,
}

impl Manifest {
    /// The soft RDMA drivers that it has.
    #[must_use]
    pub fn providers(&self) -> Vec<Provider> {
        Provider::ALL.into_iter().filter(|provider| !self.lacks.contains(provider.option())).collect()
    }
}

/// One patch of a built kernel.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct PatchNote {
    /// Its file.
    pub name: String,
    /// Its subject line.
    pub subject: String,
}

/// A module of a kernel that is not in one piece.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct ModuleNote {
    /// Its name.
    pub name: String,
    /// Nobody misses it where it does not load.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub if_possible: bool,
}

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub struct Built {
    /// Its folder in the cache.
    pub dir: PathBuf,
    /// What it is.
    pub manifest: Manifest,
}

impl Built {
    /// The programs that were compiled from its source.
    pub fn programs(&self) -> impl Iterator<Item = Extra> {
        self.manifest.selftests.iter().filter_map(|program| {
            let (name, path) = (program.name.clone(), self.dir.join(selftests::FOLDER).join(&program.name));
            Some(Extra { name, path, sha256: program.sha256.clone()? })
        })
    }

    /// The kernel with its symbols, for a debugger.
    #[must_use]
    pub fn vmlinux(&self) -> PathBuf {
        self.dir.join("vmlinux")
    }

    /// The modules that go into its guests, in the order in which they are loaded.
    #[must_use]
    pub fn modules(&self) -> Vec<Module> {
        let module = |note: &ModuleNote| Module {
            path: self.dir.join(MODULES).join(format!("{}.ko", note.name)),
            name: note.name.clone(),
            if_possible: note.if_possible,
        };
        self.manifest.modules.iter().map(module).collect()
    }

    /// The image to boot.
    #[must_use]
    pub fn bzimage(&self) -> PathBuf {
        self.dir.join("bzImage")
    }
}

fn root(cache: &Path) -> PathBuf {
    cache.join("kernels")
}

/// The kernel of that key, if it is there, marked as used today.
pub(super) fn find(cache: &Path, key: &str) -> Option<Built> {
    let dir = root(cache).join(key);
    let manifest = serde_json::from_slice(&fs::read(dir.join("manifest.json")).ok()?).ok()?;
    // A cache that cannot be written still serves what it holds.
    let _ = File::create(dir.join(USED));
    Some(Built { dir, manifest })
}

/// All kernels in the cache.
pub(super) fn all(cache: &Path) -> Vec<Built> {
    let Ok(entries) = fs::read_dir(root(cache)) else { return Vec::new() };
    let read = |dir: PathBuf| {
        let manifest = serde_json::from_slice(&fs::read(dir.join("manifest.json")).ok()?).ok()?;
        Some(Built { dir, manifest })
    };
    let mut all: Vec<Built> = entries.flatten().filter_map(|entry| read(entry.path())).collect();
    all.sort_by(|a, b| (&a.manifest.name, &a.manifest.date).cmp(&(&b.manifest.name, &b.manifest.date)));
    all
}

/// How long ago a kernel was last asked for.
pub(super) fn unused_for(built: &Built) -> Duration {
    let used = fs::metadata(built.dir.join(USED))
        .or_else(|_| fs::metadata(&built.dir))
        .and_then(|meta| meta.modified());
    used.ok().and_then(|used| SystemTime::now().duration_since(used).ok()).unwrap_or_default()
}

/// Puts a kernel into the store, with the files that `work` holds; it is there as a whole or not at all.
pub(super) fn publish(cache: &Path, work: Scratch, manifest: Manifest) -> Result<Built> {
    fs::write(work.path().join("manifest.json"), serde_json::to_vec_pretty(&manifest)?)?;
    File::create(work.path().join(USED))?;
    scratch::create_dir(&root(cache))?;
    let dir = root(cache).join(&manifest.key);
    // A damaged predecessor (no manifest) is in the way of the rename.
    scratch::remove_tree(&dir)?;
    fs::rename(work.path(), &dir).with_context(|| format!("{} could not be published", dir.display()))?;
    Ok(Built { dir, manifest })
}
