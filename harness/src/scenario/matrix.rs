// SPDX-License-Identifier: MIT OR Apache-2.0
//! Expands a scenario's matrix into named cases.
//!
//! `$name` stands for a matrix parameter or an earlier result and for nothing else: there are no
//! expressions.

use anyhow::Result;
use holdfast_protocol::Provider;
use serde_json::{Map, Value};

use super::limits::MOST_CASES_PER_FILE;
use crate::path;
use crate::yaml::Document;

/// Keys of a scenario that a parameter of their name sets, and what each is where nothing is said of it: ids
/// leave that out, so that a scenario which gets the parameter keeps the cases it had.
const KEYS: [(&str, &str); 1] = [("provider", "rxe")];

/// What stands, as `$refusal`, for the completion that a transfer comes to which its target refuses: with siw the
/// connection is gone then.
const REFUSAL: &str = "refusal";

/// One combination of a matrix.
pub(super) struct Combination {
    /// The part of the case's id: `[fs=ext4,cut=punch]`, empty where nothing is to be said.
    pub(super) suffix: String,
    chosen: Vec<(String, Value)>,
}

/// All combinations, in the order of the file. At most [`MOST_CASES_PER_FILE`].
///
/// # Errors
/// Bad input when the matrix is not lists of plain values, or too large.
pub(super) fn combinations(document: &Document, value: &Value) -> Result<Vec<Combination>> {
    let empty = Map::new();
    let matrix = match value.get("matrix") {
        None => &empty,
        Some(Value::Object(matrix)) => matrix,
        Some(_) => {
            return Err(document.fault(&path!["matrix"], None, "a matrix maps names to lists of values"));
        }
    };
    let mut combinations: Vec<Vec<(String, Value)>> = vec![Vec::new()];
    for (name, values) in matrix {
        let values = match values {
            Value::Array(values) if !values.is_empty() && values.iter().all(is_plain) => values,
            _ => {
                let why = "a matrix parameter is a non-empty list of words or numbers";
                return Err(document.fault(&path!["matrix", name.as_str()], None, why));
            }
        };
        if combinations.len() * values.len() > MOST_CASES_PER_FILE {
            let why = format!("the matrix makes more than {MOST_CASES_PER_FILE} cases");
            return Err(document.fault(&path!["matrix"], None, &why));
        }
        let with = |so_far: &Vec<(String, Value)>, value: &Value| {
            so_far.iter().cloned().chain([(name.clone(), value.clone())]).collect()
        };
        combinations = combinations
            .iter()
            .flat_map(|so_far| values.iter().map(move |value| with(so_far, value)))
            .collect();
    }
    Ok(combinations.into_iter().map(Combination::new).collect())
}

impl Combination {
    fn new(mut chosen: Vec<(String, Value)>) -> Self {
        let said = chosen.iter().map(|(name, value)| (name.as_str(), plain(value)));
        let parts: Vec<String> = said
            .filter(|(name, value)| !KEYS.contains(&(name, value)))
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let suffix = if parts.is_empty() { String::new() } else { format!("[{}]", parts.join(",")) };
        let is_siw = chosen.iter().any(|(name, value)| name == "provider" && value == "siw");
        chosen.push((REFUSAL.to_owned(), Value::from(if is_siw { "WR_FLUSH_ERR" } else { "REM_ACCESS_ERR" })));
        Self { suffix, chosen }
    }

    /// It has a parameter of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.chosen.iter().any(|(known, _)| known == name)
    }

    /// Sets the keys of a scenario that parameters are named as. What the matrix says once is not said again.
    pub(super) fn set_keys(&self, document: &Document, scenario: &mut Value) -> Result<()> {
        for (key, value) in self.chosen.iter().filter(|(name, _)| KEYS.iter().any(|(key, _)| key == name)) {
            let Value::Object(map) = &mut *scenario else { continue };
            document.typed_at::<Provider>(&path!["matrix", key.as_str()], value.clone())?;
            if map.insert(key.clone(), value.clone()).is_some() {
                let why = format!("`{key}` is a matrix parameter already, and that sets it");
                return Err(document.fault(&path![key.as_str()], None, &why));
            }
        }
        Ok(())
    }

    /// A document with the combination filled in.
    pub(super) fn fill(&self, value: &Value) -> Value {
        let mut value = value.clone();
        if let Value::Object(map) = &mut value {
            for (name, part) in map.iter_mut() {
                if name != "matrix" {
                    substitute(part, &self.chosen);
                }
            }
        }
        value
    }
}

fn substitute(value: &mut Value, chosen: &[(String, Value)]) {
    match value {
        Value::String(text) => {
            let parameter =
                text.strip_prefix('$').and_then(|name| chosen.iter().find(|(known, _)| *known == name));
            if let Some((_, chosen)) = parameter {
                *value = chosen.clone();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| substitute(item, chosen)),
        Value::Object(map) => map.values_mut().for_each(|item| substitute(item, chosen)),
        _ => {}
    }
}

fn is_plain(value: &Value) -> bool {
    matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases(text: &str) -> Result<Vec<(String, Value)>> {
        let document = Document { file: "m.yaml".into(), text: text.into() };
        let value = document.parse()?;
        let all = combinations(&document, &value)?;
        Ok(all.into_iter().map(|one| (one.suffix.clone(), one.fill(&value))).collect())
    }

    #[test]
    fn every_combination_once_with_handles_left_alone() {
        let all = cases("matrix: {fs: [ext4, xfs], n: [1, 2]}\nsteps: [{on: $fs, n: $n, fd: $fd}]\n").unwrap();
        let ids: Vec<&str> = all.iter().map(|(suffix, _)| suffix.as_str()).collect();
        assert_eq!(ids, ["[fs=ext4,n=1]", "[fs=ext4,n=2]", "[fs=xfs,n=1]", "[fs=xfs,n=2]"]);
        assert_eq!(all[3].1["steps"][0], serde_json::json!({"on": "xfs", "n": 2, "fd": "$fd"}));
        assert_eq!(cases("steps: []\n").unwrap()[0].0, "");
    }

    #[test]
    fn a_parameter_that_sets_a_key_leaves_the_ids_that_there_were_before_it() {
        let ids = |text: &str| cases(text).unwrap().into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        let both = ids("matrix: {fs: [ext4], provider: [rxe, siw]}\n");
        assert_eq!(both, ["[fs=ext4]", "[fs=ext4,provider=siw]"]);
        assert_eq!(ids("matrix: {provider: [rxe, siw]}\n"), ["", "[provider=siw]"]);
    }

    #[test]
    fn a_matrix_of_something_else_is_refused_with_its_place() {
        assert!(cases("matrix: {fs: ext4}\n").unwrap_err().to_string().starts_with("m.yaml:1:14: matrix.fs: "));
        assert!(cases("matrix: {fs: []}\n").is_err());
        let large = "matrix: {a: [1,2,3,4,5], b: [1,2,3,4,5], c: [1,2,3,4,5]}\n";
        assert!(cases(large).unwrap_err().to_string().contains("more than 64"));
    }
}
