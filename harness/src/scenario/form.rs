// SPDX-License-Identifier: MIT OR Apache-2.0
//! The form of a scenario file: exactly what a person may write, before it means anything.

use std::collections::BTreeMap;

use holdfast_protocol::{FileSetup, Op, Provider};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::actors::Actor;
use super::expect::Expect;
use super::results::ResultsForm;
use super::{Ending, schema};

/// A scenario file, one combination of its matrix filled in. Its steps are typed one by one.
#[derive(Debug, Deserialize, JsonSchema)]
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
    /// Whose soft RDMA device its actors open.
    #[serde(default)]
    pub(super) provider: Provider,
    /// Parameters and their values: one case a combination.
    #[serde(default)]
    pub(super) matrix: Map<String, Value>,
    /// sysctls to set before the first step.
    #[serde(default)]
    pub(super) sysctl: BTreeMap<String, Value>,
    /// Files of `shared/` whose files, actors and steps come before its own.
    #[expect(dead_code, reason = "that it is a list of words is checked here; it is read before the form is")]
    #[serde(default)]
    include: Vec<String>,
    /// Files that are made, filled and proved DAX before the first step.
    #[serde(default)]
    pub(super) files: BTreeMap<String, FileSetup>,
    /// Processes that are started before the first step.
    #[serde(default)]
    pub(super) actors: BTreeMap<String, Actor>,
    /// What is done, in order.
    #[expect(dead_code, reason = "that it is a list is checked here, what is in it elsewhere")]
    #[schemars(schema_with = "schema::steps")]
    steps: Vec<IgnoredAny>,
    /// By contract the clauses and oracles that are expected broken, each with its reason.
    #[serde(default)]
    #[schemars(schema_with = "schema::broken")]
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
    pub(super) actors: BTreeMap<String, Actor>,
    #[expect(dead_code, reason = "that it is a list is checked here, what is in it elsewhere")]
    steps: Vec<IgnoredAny>,
}

/// Why something is expected broken, and what shows it.
#[derive(Debug, Deserialize, JsonSchema)]
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

/// Operations of different actors that begin at the same moment.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TogetherForm {
    pub(super) together: Vec<TogetherEntry>,
}

/// One of them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TogetherEntry {
    pub(super) id: String,
    pub(super) by: String,
    #[serde(rename = "do")]
    pub(super) issue: Op,
}

/// Operations that actors draw at random, all of them at the same time.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StressForm {
    /// Its id.
    pub(super) stress: String,
    /// For how long they draw.
    pub(super) for_ms: u64,
    /// What each actor draws from.
    pub(super) actors: BTreeMap<String, Vec<ChoiceForm>>,
}

/// One of the operations that an actor draws from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChoiceForm {
    /// Names it, and its result: while that is there it is passed over, and so is what needs one that is not.
    pub(super) id: String,
    #[serde(rename = "do")]
    pub(super) issue: Op,
    /// What it may come to, every time.
    #[serde(default)]
    pub(super) expect: Option<Expect>,
    /// The same by CONTRACT or CONTRACT+feature; `else` for the others.
    #[serde(default)]
    pub(super) expect_by: Option<BTreeMap<String, Expect>>,
    /// What it must have come to at least once, where that is expected at all.
    #[serde(default)]
    pub(super) reaches: Option<Expect>,
    /// The choice of another actor whose result must not be there all the time that this one takes to succeed.
    #[serde(default)]
    pub(super) never_within: Option<String>,
    /// The choice of the same actor that has succeeded before, with all that it used still there.
    #[serde(default)]
    pub(super) after: Option<String>,
    /// Clauses that it proves.
    #[serde(default)]
    pub(super) proves: Vec<String>,
}

/// What is done to a machine as a whole.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Power {
    /// It loses its power, and boots again with what its NVDIMMs hold.
    Cut,
}

/// The stress that a step is a choice of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Drawn {
    pub(super) of: String,
    pub(super) for_ms: u64,
    pub(super) reaches: Option<Expect>,
    pub(super) never_within: Option<String>,
    pub(super) after: Option<String>,
}

/// One step as it is written.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StepForm {
    /// Names the step, and its result as `$id`.
    #[serde(default)]
    pub(super) id: Option<String>,
    /// The actor.
    #[serde(default)]
    pub(super) by: Option<String>,
    /// Issue an operation and wait for it.
    #[serde(default, rename = "do")]
    pub(super) issue: Option<Op>,
    /// Issue an operation and go on.
    #[serde(default)]
    pub(super) start: Option<Op>,
    /// Do what the contract calls by this phrase.
    #[serde(default, rename = "use")]
    pub(super) phrase: Option<String>,
    /// The phrase's parameters.
    #[serde(default)]
    pub(super) with: Option<BTreeMap<String, Value>>,
    /// Collect a step that was started or blocks.
    #[serde(default, rename = "await")]
    pub(super) collect: Option<String>,
    /// Assert that a started step has not returned.
    #[serde(default)]
    pub(super) still: Option<String>,
    /// How long to watch it.
    #[serde(default)]
    pub(super) for_ms: Option<u64>,
    /// What is done to the machine as a whole.
    #[serde(default)]
    pub(super) power: Option<Power>,
    /// What must come back; `ok` when nothing is said.
    #[serde(default)]
    pub(super) expect: Option<Expect>,
    /// What must come back, by CONTRACT or CONTRACT+feature; `else` for the others.
    #[serde(default)]
    pub(super) expect_by: Option<BTreeMap<String, Expect>>,
    /// What is expected of the results that a program prints; without it they are not read.
    #[serde(default)]
    pub(super) results: Option<ResultsForm>,
    /// How long to wait for it.
    #[serde(default)]
    pub(super) within_ms: Option<u64>,
    /// It must not have come back before.
    #[serde(default)]
    pub(super) not_before_ms: Option<u64>,
    /// It must have come back by then.
    #[serde(default)]
    pub(super) not_after_ms: Option<u64>,
    /// The awaited operation must not have returned before this step.
    #[serde(default)]
    pub(super) after: Option<String>,
    /// Clauses that this step proves.
    #[serde(default)]
    pub(super) proves: Vec<String>,
    /// The same call of the same actor that succeeds: without it a refusal proves nothing.
    #[serde(default)]
    pub(super) twin: Option<String>,
    /// Steps without which this one says nothing.
    #[serde(default)]
    pub(super) needs: Vec<String>,
    /// It is drawn at random; never written in a step itself.
    #[serde(skip)]
    pub(super) drawn: Option<Drawn>,
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
