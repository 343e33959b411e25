// SPDX-License-Identifier: MIT OR Apache-2.0
//! The form of a scenario file: exactly what a person may write, before it means anything.

use std::collections::BTreeMap;

use holdfast_protocol::{ActorSetup, FileSetup, Op};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::Ending;
use super::expect::Expect;

/// A scenario file, one combination of its matrix filled in. Its steps are typed one by one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Form {
    /// One sentence: what happens, and what must come of it.
    pub(super) about: String,
    /// Where the claim comes from: a mail, a kernel function, a man page.
    pub(super) because: String,
    /// The contracts it says something about, also as `CONTRACT+feature`.
    pub(super) contracts: Vec<String>,
    /// Features without which it says nothing.
    #[serde(default)]
    pub(super) needs_features: Vec<String>,
    /// It carries every green row of its kernel.
    #[serde(default)]
    pub(super) control: bool,
    /// Virtual processors of its machine.
    #[serde(default = "one")]
    pub(super) cpus: u32,
    #[serde(default)]
    pub(super) matrix: Map<String, Value>,
    #[serde(default)]
    pub(super) sysctl: BTreeMap<String, Value>,
    #[expect(dead_code, reason = "that it is a list of words is checked here; it is read before the form is")]
    /// Files of `shared/` whose files, actors and steps come before its own.
    #[serde(default)]
    include: Vec<String>,
    #[serde(default)]
    pub(super) files: BTreeMap<String, FileSetup>,
    #[serde(default)]
    pub(super) actors: BTreeMap<String, ActorSetup>,
    #[expect(dead_code, reason = "that it is a list is checked here, what is in it elsewhere")]
    steps: Vec<IgnoredAny>,
    /// By contract the clauses and oracles that are expected broken, each with its reason.
    #[serde(default)]
    pub(super) expect_broken: BTreeMap<String, BTreeMap<String, Value>>,
    /// The red verdict that is the expected one (an oracle's own test).
    #[serde(default)]
    pub(super) ends: Option<Ending>,
}

fn one() -> u32 {
    1
}

/// A file of `shared/`: what several scenarios begin with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SharedForm {
    /// One sentence.
    #[expect(dead_code, reason = "for people; it must be there")]
    pub(super) about: String,
    /// Parameters that the including scenario's matrix must have.
    #[expect(dead_code, reason = "that it is a list of words is checked here; it is looked at before")]
    #[serde(default)]
    parameters: Vec<String>,
    #[serde(default)]
    pub(super) files: BTreeMap<String, FileSetup>,
    #[serde(default)]
    pub(super) actors: BTreeMap<String, ActorSetup>,
    #[expect(dead_code, reason = "that it is a list is checked here, what is in it elsewhere")]
    steps: Vec<IgnoredAny>,
}

/// Why something is expected broken, and what shows it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BrokenForm {
    pub(super) reason: String,
    #[serde(default, rename = "as")]
    pub(super) shown: Option<Expect>,
}

/// A group of steps that is played several times.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RepeatForm {
    pub(super) repeat: usize,
    #[expect(dead_code, reason = "that it is a list is checked here, what is in it elsewhere")]
    steps: Vec<IgnoredAny>,
}

/// Operations of different actors that are started one directly after the other.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TogetherForm {
    pub(super) together: Vec<TogetherEntry>,
}

/// One of them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TogetherEntry {
    pub(super) id: String,
    pub(super) by: String,
    #[serde(rename = "do")]
    pub(super) issue: Op,
}

/// One step as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StepForm {
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) by: Option<String>,
    #[serde(default, rename = "do")]
    pub(super) issue: Option<Op>,
    #[serde(default)]
    pub(super) start: Option<Op>,
    #[serde(default, rename = "use")]
    pub(super) phrase: Option<String>,
    #[serde(default)]
    pub(super) with: Option<BTreeMap<String, Value>>,
    #[serde(default, rename = "await")]
    pub(super) collect: Option<String>,
    #[serde(default)]
    pub(super) still: Option<String>,
    #[serde(default)]
    pub(super) for_ms: Option<u64>,
    #[serde(default)]
    pub(super) expect: Option<Expect>,
    #[serde(default)]
    pub(super) expect_by: Option<BTreeMap<String, Expect>>,
    #[serde(default)]
    pub(super) within_ms: Option<u64>,
    #[serde(default)]
    pub(super) not_before_ms: Option<u64>,
    #[serde(default)]
    pub(super) not_after_ms: Option<u64>,
    #[serde(default)]
    pub(super) after: Option<String>,
    #[serde(default)]
    pub(super) proves: Vec<String>,
    #[serde(default)]
    pub(super) twin: Option<String>,
    #[serde(default)]
    pub(super) needs: Vec<String>,
}

impl StepForm {
    /// Every expectation it states.
    pub(super) fn all_expectations(&self) -> impl Iterator<Item = &Expect> {
        self.expect.iter().chain(self.expect_by.iter().flat_map(BTreeMap::values))
    }

    /// What it does, as a word that tells whether two steps do the same.
    pub(super) fn does(&self) -> Option<String> {
        let op = self.issue.as_ref().or(self.start.as_ref()).map(super::uses::name);
        op.or_else(|| self.phrase.as_ref().map(|phrase| format!("use {phrase}")))
    }
}
