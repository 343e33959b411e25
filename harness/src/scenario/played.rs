// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which steps of the scenarios play which operations, for the page of operations. A case runs each of them on
//! a real machine, so what stands there works.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::compose::Sources;
use super::{SHARED, files_of, matrix};
use crate::yaml::{Document, flow};

/// A step that plays an operation.
pub(super) struct Example {
    /// It is not a step's but a handler's.
    handler: bool,
    /// It shows a failure, or differs between contracts.
    special: bool,
    /// As it is written, on one line.
    line: String,
    /// Its file, below the scenarios' folder.
    path: String,
}

impl Example {
    pub(super) fn show(&self, page: &mut String) {
        let (path, line) = (&self.path, &self.line);
        let by = if self.handler { "Run by a handler in" } else { "From" };
        let _ = writeln!(page, "\n{by} [{path}](../scenarios/{path}):\n\n    {line}");
    }

    fn rank(&self) -> (bool, bool, usize) {
        (self.handler, self.special, self.line.chars().count())
    }
}

/// For each operation that is played the best example; of equals the first, in the order of the files.
pub(super) fn examples(folder: &Path) -> Result<BTreeMap<String, Example>> {
    let mut best: BTreeMap<String, Example> = BTreeMap::new();
    for file in files_of(folder)? {
        let document = Document::read(&file)?;
        let sources = Sources::read(&document, &[folder])?;
        // What no kernel here has was played by nobody.
        if sources.value.get("needs_features").is_some() {
            continue;
        }
        let combinations = matrix::combinations(&document, &sources.value)?;
        let first = combinations.first().context("a matrix has a combination")?;
        let own = file.strip_prefix(folder).unwrap_or(&file).display().to_string();
        for (shared, value) in sources.filled(first) {
            let path = shared.map_or_else(|| own.clone(), |name| format!("{SHARED}/{name}.yaml"));
            for (handler, step) in played(&value) {
                let Some(name) = operation_of(step) else { continue };
                let special = step.get("expect_by").is_some()
                    || step["expect"].as_str().is_some_and(|text| !text.starts_with("ok"));
                let one = Example { handler, special, line: flow(step), path: path.clone() };
                if best.get(name).is_none_or(|known| one.rank() < known.rank()) {
                    best.insert(name.to_owned(), one);
                }
            }
        }
    }
    Ok(best)
}

/// Everything in a file that plays an operation, and whether a handler does.
fn played(value: &Value) -> Vec<(bool, &Value)> {
    let below = |key: &str| value[key].as_array().into_iter().flatten();
    let mut all: Vec<(bool, &Value)> = below("steps")
        .chain(below("together"))
        .flat_map(|step| [vec![(false, step)], played(step)].concat())
        .collect();
    let actors = value["actors"].as_object().into_iter().flatten();
    let handlers = actors.flat_map(|(_, actor)| actor["on_signal"].as_object().into_iter().flatten());
    let runs = handlers.flat_map(|(_, handler)| handler["run"].as_array().into_iter().flatten());
    all.extend(runs.map(|run| (true, run)));
    all
}

fn operation_of(step: &Value) -> Option<&str> {
    let op = step.get("do").or_else(|| step.get("start"))?.as_object()?;
    op.keys().next().map(String::as_str)
}
