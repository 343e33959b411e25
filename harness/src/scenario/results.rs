// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a step expects of the results that a program prints as TAP or KTAP.

use std::collections::BTreeMap;

use anyhow::Result;
use globset::{GlobBuilder, GlobMatcher};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Checker;
use super::expect::Expect;
use super::form::StepForm;
use super::under::Under;
use super::{ELSE, uses};
use crate::path;

/// As it is written. Every result is to be ok but those that are named here; a result is named by a glob over
/// the names of the tests above it and its own, `suite/case`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResultsForm {
    /// Fewer results show nothing.
    #[serde(default)]
    pub at_least: u64,
    /// Results that are not ok.
    #[serde(default)]
    pub not_ok: Vec<String>,
    /// The same by CONTRACT or CONTRACT+feature; `else` for the others.
    #[serde(default)]
    pub not_ok_by: BTreeMap<String, Vec<String>>,
    /// Results that are skipped.
    #[serde(default)]
    pub skipped: Vec<String>,
    /// The same by CONTRACT or CONTRACT+feature; `else` for the others.
    #[serde(default)]
    pub skipped_by: BTreeMap<String, Vec<String>>,
}

/// The same under one contract.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Results {
    /// Fewer results show nothing.
    pub at_least: u64,
    /// Globs over results that are not ok.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_ok: Vec<String>,
    /// Globs over results that are skipped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
}

impl ResultsForm {
    /// What is expected under a contract.
    pub(super) fn under(&self, under: &Under<'_>) -> Results {
        let of = |all: &[String], by: &BTreeMap<String, Vec<String>>| {
            let more = under.pick(by).or_else(|| by.get(ELSE)).cloned().unwrap_or_default();
            [all, &more].concat()
        };
        Results {
            at_least: self.at_least,
            not_ok: of(&self.not_ok, &self.not_ok_by),
            skipped: of(&self.skipped, &self.skipped_by),
        }
    }

    fn lists(&self) -> impl Iterator<Item = (&'static str, Option<&String>, &Vec<String>)> {
        let plain = [("not_ok", None, &self.not_ok), ("skipped", None, &self.skipped)];
        let not_ok = self.not_ok_by.iter().map(|(key, list)| ("not_ok_by", Some(key), list));
        let skipped = self.skipped_by.iter().map(|(key, list)| ("skipped_by", Some(key), list));
        plain.into_iter().chain(not_ok).chain(skipped)
    }
}

/// A glob over results; brackets are letters like others, as in a case's id.
///
/// # Errors
/// What is wrong with it.
pub fn result_glob(text: &str) -> Result<GlobMatcher, String> {
    let escaped = text.replace('[', "\\[").replace(']', "\\]").replace('{', "\\{").replace('}', "\\}");
    let glob = GlobBuilder::new(&escaped).backslash_escape(true).build();
    glob.map(|glob| glob.compile_matcher()).map_err(|error| format!("`{text}` is no glob: {error}"))
}

impl Checker<'_> {
    /// Results are those of a program.
    pub(super) fn results(&self, nr: usize, step: &StepForm) -> Result<()> {
        let is_program = |does: Option<String>| does.as_deref() == Some("program");
        let collected = step.collect.as_ref().and_then(|id| self.done.get(id));
        let runs = is_program(step.issue.as_ref().map(uses::name))
            || collected.is_some_and(|made| is_program(made.does.clone()));
        if runs && step.all_expectations().any(Expect::may_block) {
            let message =
                "a program does not block: when its time is over it is ended, and that is a `timeout`";
            return Err(self.fault(
                nr,
                &path![if step.expect.is_some() { "expect" } else { "expect_by" }],
                message,
            ));
        }
        let Some(results) = &step.results else { return Ok(()) };
        if !runs && !collected.is_some_and(|made| made.unknown) {
            let message = "only a `program` prints results: this goes with its `do`, or with its `await`";
            return Err(self.fault(nr, &path!["results"], message));
        }
        for (field, key, globs) in results.lists() {
            if let Some((key, message)) = key.and_then(|key| Some((key, self.not_of_this(key)?.1))) {
                return Err(self.word_fault(nr, &path!["results", field], Some(key), &message));
            }
            if let Some((glob, why)) = globs.iter().find_map(|glob| Some((glob, result_glob(glob).err()?))) {
                return Err(self.word_fault(nr, &path!["results", field], Some(glob), &why));
            }
        }
        Ok(())
    }
}
