// SPDX-License-Identifier: MIT OR Apache-2.0
//! Contracts: named sets of clauses that a kernel claims to keep.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::outcome::bad_input;
use crate::yaml::{Document, unknown_word};

/// All contracts, by name.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct Contracts(BTreeMap<String, Contract>);

/// What one kind of kernel promises.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// What it stands for, in a sentence.
    pub about: String,
    /// Clause ids and what each promises.
    pub clauses: BTreeMap<String, String>,
    /// Splats that kernels under it are known to print.
    #[serde(default)]
    pub splats: Vec<DeclaredSplat>,
}

/// A splat that is expected, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredSplat {
    /// Its title, as reports print it.
    pub title: String,
    /// Why a kernel under this contract prints it.
    pub reason: String,
}

/// The clause that the standing oracles prove after every case, if the contract has it.
pub const PINS_BALANCED: &str = "pins-balanced";

impl Contracts {
    /// Reads `contracts.yaml`.
    ///
    /// # Errors
    /// Bad input with file, line and column.
    pub fn load(path: &Path) -> Result<Self> {
        Document::read(path)?.load()
    }

    /// A contract by its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Contract> {
        self.0.get(name)
    }

    /// A contract by a name the user gave.
    ///
    /// # Errors
    /// Bad input with the nearest name.
    pub fn find(&self, name: &str) -> Result<&Contract> {
        self.get(name).ok_or_else(|| bad_input(unknown_word("contract", name, self.names())))
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Self {
        Document { file: "contracts.yaml".into(), text: text.into() }.load().expect("a test's contracts")
    }
}
