// SPDX-License-Identifier: MIT OR Apache-2.0
//! From `kernel-configs/NAME/kernel.yaml`, or a person's own tree or series, to a built kernel in the
//! cache.
//!
//! [`ensure`] is the one way in: it finds all inputs, makes a key of them, and builds only what the
//! store does not hold yet. In data order: [`spec`] reads what is written down, `source` and `tree`
//! find the source, `series` and `config` put patches and fragments on it, `slot` keeps the objects,
//! `make` builds, `store` keeps the result. A kernel that somebody else has built takes a short cut,
//! `prebuilt`, to the same store.

mod build;
mod config;
mod debian;
mod files;
mod kconfig;
mod make;
mod plan;
mod prebuilt;
mod prune;
mod selftests;
mod series;
mod slot;
mod source;
mod spec;
mod store;
mod tarball;
mod tools;
mod tree;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Error, Result};

use crate::home::Home;
use crate::outcome::Interrupted;
use crate::progress::Progress;

pub use prune::{Pruned, Pruning, prune};
pub use selftests::{Program, names as selftests};
pub(crate) use spec::patch_files;
pub use spec::{Base, Given, Made, Origin, Prebuilt, Recipe, Source, Spec, folder, list, spec};
pub use store::{Built, Manifest, ModuleNote, PatchNote};

/// The kernel whose fragments and contract a person's own tree gets unless another is named.
pub const DEFAULT_BASE: &str = "mainline-6.12";

/// A kernel with a fragment more, behind all others: another kernel, with a name and a slot of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// One that looks after itself, and can be traced.
    Debug,
    /// One that can be traced, and is as fast as without it while it is not.
    Trace,
    /// One that others than Holdfast can boot as well.
    Peers,
}

impl Variant {
    /// Name of the fragment, and of what it makes: `NAME-debug`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Trace => "trace",
            Self::Peers => "peers",
        }
    }
}

/// Which kernel is wanted.
#[derive(Clone, Debug)]
pub struct Request {
    /// A kernel of ours. Alone it is the kernel; with a tree it gives the fragments and the contract;
    /// with a series alone it is what the series is put on, after its own patches.
    pub base: String,
    /// A kernel that somebody else has built, instead of one that is described; the base gives it its
    /// contract.
    pub prebuilt: Option<Prebuilt>,
    /// A person's own tree instead of the base's sources and patches.
    pub tree: Option<TreeRequest>,
    /// A configuration the fragments are put on, instead of the base's.
    pub config: Option<PathBuf>,
    /// Patches on top: a folder of `*.patch`, an mbox, or one patch.
    pub series: Option<PathBuf>,
    /// With a fragment more.
    pub variant: Option<Variant>,
    /// The work slot, for kernels that differ so little that they take turns in one; else one of its own.
    pub slot: Option<String>,
}

/// A person's own tree.
#[derive(Clone, Debug)]
pub struct TreeRequest {
    /// The top folder of a git tree.
    pub path: PathBuf,
    /// A commit of it, instead of what is in the folder now.
    pub rev: Option<String>,
}

impl Request {
    /// A kernel of ours as it is.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        let base = name.into();
        Self { base, prebuilt: None, tree: None, config: None, series: None, variant: None, slot: None }
    }

    /// A kernel that somebody else has built.
    #[must_use]
    pub fn prebuilt(prebuilt: Prebuilt) -> Self {
        Self { prebuilt: Some(prebuilt), ..Self::named(DEFAULT_BASE) }
    }

    /// What the kernel is called in reports: fits into a file name, and is the same for the same
    /// request.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.name_without_rev();
        let rev = self.tree.as_ref().and_then(|tree| tree.rev.as_deref());
        rev.map_or(name.clone(), |rev| format!("{name}@{}", word(rev)))
    }

    fn name_without_rev(&self) -> String {
        let mut name = match (&self.prebuilt, &self.tree) {
            (Some(Prebuilt::Package { name, .. }), _) => word(name),
            (Some(Prebuilt::Files { vmlinuz, .. }), _) => {
                let name =
                    vmlinuz.path().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
                word(&name.unwrap_or_else(|| vmlinuz.text.clone()))
            }
            (None, Some(tree)) => {
                let path = tree.path.canonicalize().unwrap_or_else(|_| tree.path.clone());
                format!("tree-{}", last_word(&path))
            }
            (None, None) => self.base.clone(),
        };
        if let Some(variant) = self.variant {
            name = format!("{name}-{}", variant.name());
        }
        for (sign, path) in [("+", &self.series), ("~", &self.config)] {
            if let Some(path) = path {
                name = format!("{name}{sign}{}", last_word(path));
            }
        }
        name
    }
}

fn last_word(path: &Path) -> String {
    word(&path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy())
}

fn word(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '-' }).collect()
}

/// How to build.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Never use the network; an error says what it would have fetched.
    pub offline: bool,
    /// Parallel compilers; by default one per core.
    pub jobs: Option<usize>,
}

/// Gives the kernel, building it unless it is in the store already.
///
/// `cancel` is looked at while make runs; set, it ends the build with an error and no process left.
///
/// # Errors
/// Bad input for what the user can put right before anything is built; anything else (a patch that
/// does not apply, a dropped option, a failing compiler, no network) as an ordinary error.
pub fn ensure(
    home: &Home,
    request: &Request,
    options: &Options,
    progress: &Progress,
    cancel: &AtomicBool,
) -> Result<Built> {
    let get = || {
        if let Some(prebuilt) = prebuilt::asked(home, request)? {
            return prebuilt::get(home, request, &prebuilt, options, progress, cancel);
        }
        let plan = plan::plan(home, request, options, progress)?;
        let built = match store::find(&home.cache, &plan.key) {
            Some(built) => built,
            None => build::build(home, &plan, options, progress, cancel)?,
        };
        Ok(plan.label(built))
    };
    let found = get();
    // Ctrl-C also reaches what runs in our own process group (apt-get, tar): their failure is not
    // the cause.
    match found {
        Err(error) if cancel.load(Ordering::Relaxed) && !error.is::<Interrupted>() => {
            Err(Error::new(Interrupted).context(error))
        }
        found => found,
    }
}

/// The kernel if it is built already; nothing is fetched or built.
///
/// # Errors
/// Bad input as [`ensure`] has it; also when the inputs cannot be found without a network.
pub fn find(home: &Home, request: &Request, progress: &Progress) -> Result<Option<Built>> {
    let options = Options { offline: true, jobs: None };
    if let Some(prebuilt) = prebuilt::asked(home, request)? {
        // It takes no longer to put one into the store than to look for it.
        return prebuilt::get(home, request, &prebuilt, &options, progress, &AtomicBool::new(false)).map(Some);
    }
    let plan = plan::plan(home, request, &options, progress)?;
    Ok(store::find(&home.cache, &plan.key).map(|built| plan.label(built)))
}

/// Whether the kernel comes as somebody else has built it.
///
/// # Errors
/// Bad input for an unknown kernel, or one of which more is asked than such a kernel can give.
pub fn is_prebuilt(home: &Home, request: &Request) -> Result<bool> {
    Ok(prebuilt::asked(home, request)?.is_some())
}

/// Every kernel in the store, by name and date.
#[must_use]
pub fn built(home: &Home) -> Vec<Built> {
    store::all(&home.cache)
}
