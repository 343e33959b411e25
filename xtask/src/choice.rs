// SPDX-License-Identifier: MIT OR Apache-2.0
//! The flags that say which kernels and which cases, shared by the subcommands that take them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use holdfast::contract::Contracts;
use holdfast::home::Home;
use holdfast::image;
use holdfast::kernel::{self, Given, Options, Prebuilt, Request, TreeRequest, Variant};
use holdfast::outcome::{Exit, bad_input};
use holdfast::path;
use holdfast::plan::{PROGRAM, PlannedKernel, select};
use holdfast::progress::Progress;
use holdfast::run::{Interrupt, Requests};
use holdfast::scenario::{self, Scenario};
use holdfast::yaml::{Document, unknown_word};

/// What says which kernel is built here, and how: nothing of that can be said of one that comes as it is.
const BUILT: [&str; 7] = ["kernel", "tree", "rev", "config", "series", "base", "debug"];

/// Which kernels.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Kernels {
    /// A kernel of kernel-configs; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub(crate) kernel: Vec<String>,
    /// A Debian package of a kernel as it is, or the one that stands for the newest: linux-image-amd64
    #[arg(long, value_name = "NAME", conflicts_with_all = BUILT)]
    pub(crate) package: Option<String>,
    /// A kernel that was built elsewhere: /boot/vmlinuz-RELEASE, arch/x86/boot/bzImage
    #[arg(long, value_name = "FILE", conflicts_with_all = BUILT, conflicts_with = "package")]
    pub(crate) vmlinuz: Option<PathBuf>,
    /// Its modules: lib/modules/RELEASE, or a folder above; a kernel in one piece needs none
    #[arg(long, value_name = "DIR", requires = "vmlinuz")]
    pub(crate) modules: Option<PathBuf>,
    /// What it was built with [default: config-RELEASE beside it, or the .config of its build]
    #[arg(long, value_name = "FILE", requires = "vmlinuz")]
    pub(crate) vmlinuz_config: Option<PathBuf>,
    /// Build what is in this kernel tree now, uncommitted and new files included
    #[arg(long, value_name = "PATH", conflicts_with = "kernel")]
    pub(crate) tree: Option<PathBuf>,
    /// Build this commit of the tree instead
    #[arg(long, requires = "tree")]
    pub(crate) rev: Option<String>,
    /// A .config to put Holdfast's fragments on
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Patches on top: a folder, an mbox as b4 writes it, or one patch
    #[arg(long, value_name = "PATH", conflicts_with = "kernel")]
    pub(crate) series: Option<PathBuf>,
    /// The kernel of kernel-configs that gives a tree or series its fragments and contract
    #[arg(long, value_name = "NAME", conflicts_with = "kernel")]
    pub(crate) base: Option<String>,
    /// With KASAN, lockdep, kmemleak and the like, stored apart as NAME-debug; ten seconds more a case
    #[arg(long)]
    pub(crate) debug: bool,
    /// Built so that it can be traced.
    #[arg(skip)]
    pub(crate) traced: bool,
    /// Judge by this contract instead of the one the kernel claims
    #[arg(long, value_name = "NAME")]
    pub(crate) contract: Option<String>,
}

impl Kernels {
    /// A debug kernel can be traced as well.
    fn variant(&self) -> Option<Variant> {
        self.debug.then_some(Variant::Debug).or_else(|| self.traced.then_some(Variant::Trace))
    }

    /// The kernels named here, or `others` where none is.
    pub(crate) fn resolve(
        &self,
        home: &Home,
        contracts: &Contracts,
        others: &[String],
    ) -> Result<(Vec<PlannedKernel>, Requests)> {
        if let Some(contract) = &self.contract {
            contracts.find(contract)?;
        }
        let variant = self.variant();
        let mut requests: Vec<Request> = Vec::new();
        if let Some(prebuilt) = self.prebuilt() {
            requests.push(Request::prebuilt(prebuilt));
        } else if self.tree.is_some() || self.series.is_some() || self.base.is_some() {
            let base = self.base.clone().unwrap_or_else(|| kernel::DEFAULT_BASE.to_owned());
            let tree = self.tree.clone().map(|path| TreeRequest { path, rev: self.rev.clone() });
            let (config, series) = (self.config.clone(), self.series.clone());
            requests.push(Request { tree, config, series, variant, ..Request::named(base) });
        } else {
            let names = if self.kernel.is_empty() { others } else { &self.kernel };
            let named = |name| Request { config: self.config.clone(), variant, ..Request::named(name) };
            requests.extend(names.iter().map(named));
        }
        let (tools, selftests) = (image::programs(home, image::DEFAULT)?, kernel::selftests(home)?);
        let mut planned = Vec::new();
        let mut by_name = Requests::new();
        for request in requests {
            let spec = kernel::spec(home, &request.base)?;
            let claimed = spec.contract;
            let unknown = spec.features.iter().find(|feature| contracts.feature(feature).is_none());
            if let Some(feature) = unknown {
                let message = unknown_word("feature", feature, contracts.features());
                return Err(in_description(home, &request.base, "features", Some(feature), &message));
            }
            if contracts.get(&claimed).is_none() {
                let message = unknown_word("contract", &claimed, contracts.names());
                return Err(in_description(home, &request.base, "contract", None, &message));
            }
            let contract = self.contract.clone().unwrap_or(claimed);
            let name = request.name();
            let (programs, lacks) = match kernel::is_prebuilt(home, &request)? {
                false => ([tools.as_slice(), &selftests].concat(), BTreeSet::new()),
                true => (tools.clone(), selftests.iter().map(|name| format!("{PROGRAM}{name}")).collect()),
            };
            if by_name.insert(name.clone(), request).is_some() {
                return Err(bad_input(format!("the kernel {name} was named twice")));
            }
            planned.push(PlannedKernel { name, contract, features: spec.features, programs, lacks });
        }
        Ok((planned, by_name))
    }
}

impl Kernels {
    /// The kernel that comes as it is, if one is named.
    fn prebuilt(&self) -> Option<Prebuilt> {
        if let Some(name) = &self.package {
            return Some(Prebuilt::Package { name: name.clone(), place: "--package".to_owned() });
        }
        let given = |path: &Option<PathBuf>, place| path.as_deref().map(|path| Given::of(path, place));
        Some(Prebuilt::Files {
            vmlinuz: given(&self.vmlinuz, "--vmlinuz")?,
            modules: given(&self.modules, "--modules"),
            config: given(&self.vmlinuz_config, "--vmlinuz-config"),
        })
    }
}

/// A fault of a kernel's description, with its place.
fn in_description(home: &Home, kernel: &str, field: &str, word: Option<&str>, message: &str) -> anyhow::Error {
    match Document::read(&kernel::folder(home, kernel).join("kernel.yaml")) {
        Ok(document) => document.fault(&path![field], word, message),
        Err(error) => error.context(message.to_owned()),
    }
}

/// Contracts and scenarios, read and checked.
pub(crate) fn catalogue(home: &Home) -> Result<(Contracts, Vec<Scenario>)> {
    let contracts = Contracts::load(home.scenario_folders())?;
    let mut scenarios = Vec::new();
    for folder in home.scenario_folders() {
        scenarios.extend(scenario::load_all(&folder, &contracts)?);
    }
    Ok((contracts, scenarios))
}

/// The contracts, and the cases that are named: by path, by id or by a glob.
pub(crate) fn selected(home: &Home, names: &[String]) -> Result<(Contracts, Vec<Scenario>)> {
    let (contracts, mut scenarios) = catalogue(home)?;
    own_files(names, home, &contracts, &mut scenarios)?;
    let selected = select(&scenarios, &contracts, names)?.into_iter().cloned().collect();
    Ok((contracts, selected))
}

/// Adds scenarios named by path that lie outside Holdfast's own folder.
pub(crate) fn own_files(
    cases: &[String],
    home: &Home,
    contracts: &Contracts,
    all: &mut Vec<Scenario>,
) -> Result<()> {
    for case in cases.iter().filter(|case| case.ends_with(".yaml")) {
        let missing = |error| bad_input(format!("cannot open the scenario {case}: {error}"));
        let path = Path::new(case).canonicalize().map_err(missing)?;
        let known = home.scenario_folders().filter_map(|folder| folder.canonicalize().ok());
        if !known.into_iter().any(|folder| path.starts_with(folder)) {
            let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
            all.extend(scenario::load_file(&folder, &path, contracts)?);
        }
    }
    Ok(())
}

/// Learns what kernels lack that are not built here: only their own configurations tell. Of a package that cannot be
/// had nothing is learnt.
///
/// # Errors
/// What is wrong with a kernel that was given.
pub(crate) fn look(
    kernels: &mut [PlannedKernel],
    requests: &Requests,
    home: &Home,
    offline: bool,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<()> {
    let options = Options { offline, jobs: None };
    for planned in kernels {
        let request = &requests[&planned.name];
        if kernel::is_prebuilt(home, request)? {
            match kernel::ensure(home, request, &options, progress, interrupt.flag()) {
                Ok(built) => planned.lacks.extend(built.manifest.lacks),
                Err(error) if Exit::of_error(&error) != Exit::NoVerdict => return Err(error),
                // It is met again where its cases get their rows.
                Err(_) => {}
            }
        }
    }
    Ok(())
}
