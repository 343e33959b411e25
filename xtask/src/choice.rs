// SPDX-License-Identifier: MIT OR Apache-2.0
//! The flags that say which kernels and which cases, shared by the subcommands that take them.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use holdfast::contract::Contracts;
use holdfast::home::Home;
use holdfast::kernel::{self, Request, TreeRequest};
use holdfast::outcome::bad_input;
use holdfast::path;
use holdfast::plan::PlannedKernel;
use holdfast::run::Requests;
use holdfast::scenario::{self, Scenario};
use holdfast::yaml::{Document, unknown_word};

/// Which kernels.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Kernels {
    /// A kernel of kernel-configs; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub(crate) kernel: Vec<String>,
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
    /// Judge by this contract instead of the one the kernel claims
    #[arg(long, value_name = "NAME")]
    pub(crate) contract: Option<String>,
}

impl Kernels {
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
        let mut requests: Vec<Request> = Vec::new();
        if self.tree.is_some() || self.series.is_some() || self.base.is_some() {
            let base = self.base.clone().unwrap_or_else(|| kernel::DEFAULT_BASE.to_owned());
            let tree = self.tree.clone().map(|path| TreeRequest { path, rev: self.rev.clone() });
            requests.push(Request { base, tree, config: self.config.clone(), series: self.series.clone() });
        } else {
            let names = if self.kernel.is_empty() { others } else { &self.kernel };
            requests.extend(
                names.iter().map(|name| Request { config: self.config.clone(), ..Request::named(name) }),
            );
        }
        let mut planned = Vec::new();
        let mut by_name = Requests::new();
        for request in requests {
            let claimed = kernel::spec(home, &request.base)?.contract;
            if contracts.get(&claimed).is_none() {
                return Err(claims_nothing_known(home, &request.base, &claimed, contracts));
            }
            let contract = self.contract.clone().unwrap_or(claimed);
            let name = request.name();
            if by_name.insert(name.clone(), request).is_some() {
                return Err(bad_input(format!("the kernel {name} was named twice")));
            }
            planned.push(PlannedKernel { name, contract });
        }
        Ok((planned, by_name))
    }
}

/// A kernel's description that claims a contract nobody knows, with its place.
fn claims_nothing_known(home: &Home, kernel: &str, contract: &str, contracts: &Contracts) -> anyhow::Error {
    let message = unknown_word("contract", contract, contracts.names());
    match Document::read(&kernel::folder(home, kernel).join("kernel.yaml")) {
        Ok(document) => document.fault(&path!["contract"], None, &message),
        Err(error) => error.context(message),
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
