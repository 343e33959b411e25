// SPDX-License-Identifier: MIT OR Apache-2.0
//! The form of a scenario file: exactly what a person may write, before it means anything.

use std::collections::BTreeMap;

use holdfast_protocol::{ActorSetup, FileSetup, Op};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Ending;
use super::expect::Expect;

/// A scenario file, after its matrix was expanded.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Form {
    /// One sentence: what happens, and what must come of it.
    pub(super) about: String,
    /// Where the claim comes from: a mail, a kernel function, a man page.
    pub(super) because: String,
    /// The contracts it says something about.
    pub(super) contracts: Vec<String>,
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
    #[serde(default)]
    pub(super) files: BTreeMap<String, FileSetup>,
    pub(super) actors: BTreeMap<String, ActorSetup>,
    pub(super) steps: Vec<StepForm>,
    /// The red verdict that is the expected one (an oracle's own test).
    #[serde(default)]
    pub(super) ends: Option<Ending>,
}

fn one() -> u32 {
    1
}

/// One step as it is written.
#[derive(Debug, Deserialize)]
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
