// SPDX-License-Identifier: MIT OR Apache-2.0
//! Contracts: named sets of clauses that a kernel claims to keep.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::outcome::bad_input;
use crate::path;
use crate::scenario::CONTRACTS;
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
    /// Reads the `contracts.yaml` of each folder that has one. A later folder adds contracts, and clauses
    /// and splats to those of an earlier one; it changes nothing.
    ///
    /// # Errors
    /// Bad input with file, line and column.
    pub fn load(folders: impl Iterator<Item = PathBuf>) -> Result<Self> {
        let mut all = Self(BTreeMap::new());
        for (nr, folder) in folders.enumerate() {
            let path = folder.join(CONTRACTS);
            // A person's own folder need not have any.
            if nr == 0 || path.is_file() {
                let document = Document::read(&path)?;
                all.add(document.load()?, &document)?;
            }
        }
        Ok(all)
    }

    fn add(&mut self, more: Self, document: &Document) -> Result<()> {
        for (name, contract) in more.0 {
            let Some(known) = self.0.get_mut(&name) else {
                self.0.insert(name, contract);
                continue;
            };
            for (clause, promise) in contract.clauses {
                if known.clauses.contains_key(&clause) {
                    let path = path![name.as_str(), "clauses", clause.as_str()];
                    let message = format!("the contract {name} has a clause `{clause}` already: rename it");
                    return Err(document.fault(&path, None, &message));
                }
                known.clauses.insert(clause, promise);
            }
            known.splats.extend(contract.splats);
        }
        Ok(())
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
