// SPDX-License-Identifier: MIT OR Apache-2.0
//! The JSON Schema of a scenario, for editors: the form with its words for people, the operations as the
//! protocol reads them. What a schema cannot say (names, handles, twins) `scenario check` does.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::expect::Expect;
use super::form::{BrokenForm, Form, StepForm, StressForm, TogetherForm};

/// The schema, as `cargo xtask scenario schema` prints it.
#[must_use]
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Form).to_value();
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".into(), "A scenario of Holdfast".into());
    }
    // A parameter of the matrix may stand for any value; not for a name or a list of steps.
    parameters(&mut schema, false);
    schema
}

/// Lets `$name` stand where a number, a truth or a word of a list is wanted.
fn parameters(schema: &mut Value, wrap: bool) {
    let Value::Object(map) = schema else { return };
    for (key, value) in map.iter_mut() {
        match (key.as_str(), value) {
            ("properties" | "$defs", Value::Object(all)) => {
                all.iter_mut().for_each(|(name, one)| parameters(one, name != "matrix"));
            }
            ("items" | "additionalProperties", one) => parameters(one, true),
            ("anyOf", Value::Array(all)) => all.iter_mut().for_each(|one| parameters(one, wrap)),
            ("oneOf", Value::Array(all)) => all.iter_mut().for_each(|one| parameters(one, false)),
            _ => {}
        }
    }
    let kind = map.get("type");
    let kinds: Vec<&str> = match kind {
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        kind => kind.and_then(Value::as_str).into_iter().collect(),
    };
    // Words that are explained one by one.
    let words = map.get("oneOf").and_then(Value::as_array);
    let words = words.is_some_and(|all| all.iter().all(|one| one.get("const").is_some()));
    let plain =
        words || map.contains_key("enum") || kinds.iter().any(|kind| ["integer", "boolean"].contains(kind));
    if wrap && plain {
        let mut outer = Map::new();
        if let Some(about) = map.remove("description") {
            outer.insert("description".into(), about);
        }
        let parameter = json!({"type": "string", "pattern": "^\\$[A-Za-z0-9_]+$"});
        outer.insert("anyOf".into(), json!([std::mem::take(map), parameter]));
        *map = outer;
    }
}

fn known(value: Value) -> Schema {
    Schema::try_from(value).unwrap_or_default()
}

/// By contract and clause a reason, or a reason and what shows the breakage.
pub(super) fn broken(generator: &mut SchemaGenerator) -> Schema {
    let one = generator.subschema_for::<BrokenForm>();
    let one = json!({"anyOf": [{"type": "string"}, one]});
    known(json!({"type": "object", "additionalProperties": {"type": "object", "additionalProperties": one}}))
}

/// Steps and groups of them.
pub(super) fn steps(generator: &mut SchemaGenerator) -> Schema {
    let (step, together) = (generator.subschema_for::<StepForm>(), generator.subschema_for::<TogetherForm>());
    let stress = generator.subschema_for::<StressForm>();
    let written = json!({"anyOf": [step, together]});
    let repeat = json!({
        "type": "object",
        "description": "A group of steps that is played several times.",
        "properties": {"repeat": {"type": "integer"}, "steps": {"type": "array", "items": written}},
        "required": ["repeat", "steps"],
        "additionalProperties": false,
    });
    known(json!({"type": "array", "items": {"anyOf": [step, together, stress, repeat]}}))
}

impl JsonSchema for Expect {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Outcome".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one =
            r"(ok( \d+)?|E[A-Z0-9]+|[A-Z_]+_ERR|TIMEOUT|differs|blocks|killed SIG\S+|exited \d+|[a-z_]+( .*)?)";
        known(json!({
            "type": "string",
            "description": "ok, ok NUMBER, an errno, differs, blocks, killed SIGNAL, exited NUMBER; or `one of: A, B`.",
            "pattern": format!(r"^(one of:)?\s*{one}(\s*,\s*{one})*\s*$|^\$[A-Za-z0-9_]+$"),
        }))
    }
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::Op;

    use super::*;
    use crate::scenario::files_of;
    use crate::yaml::Document;

    #[test]
    fn every_scenario_of_the_repository_fits() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
        let schema = jsonschema::validator_for(&schema()).unwrap();
        let files = files_of(&folder).unwrap();
        assert!(files.len() > 20);
        for file in files {
            let value = Document::read(&file).unwrap().parse().unwrap();
            let wrong = schema.iter_errors(&value).next();
            assert!(wrong.is_none(), "{}: {}", file.display(), wrong.unwrap());
        }
    }

    #[test]
    fn a_broken_scenario_does_not() {
        let good = "about: a\nbecause: b\ncontracts: [c]\nactors: {a: {rdma: true}}\nfiles: {f: {on: $fs, size_kib: $n, pattern: 1}}\nsteps:\n  - {by: a, do: {mmap: {len_kib: $n, flags: [MAP_SHARED]}}, within_ms: 5, expect: ok}\n  - {repeat: 2, steps: [{by: a, use: opt-in, with: {fd: $fd}}]}\n  - together: [{id: x, by: a, do: {pipe: {}}}, {id: y, by: b, do: {pipe: {}}}]\nexpect_broken: {c: {d: reason, e: {reason: r, as: differs}}}\n";
        let schema = jsonschema::validator_for(&schema()).unwrap();
        let fits = |text: &str| {
            let value = Document { file: "s.yaml".into(), text: text.into() }.parse().unwrap();
            schema.is_valid(&value)
        };
        assert!(fits(good));
        let table = [
            ("about: a\n", ""),
            ("about", "abuot"),
            ("rdma: true", "rdma: 1"),
            ("on: $fs", "on: ext5"),
            ("size_kib: $n", "size_kib: many"),
            ("mmap", "mnap"),
            ("MAP_SHARED", "MAP_SHARD"),
            (", flags: [MAP_SHARED]", ""),
            ("within_ms: 5", "within_ms: soon"),
            ("expect: ok", "expect: OK!"),
            ("repeat: 2", "repeat: two!"),
            ("id: x", "idd: x"),
            ("e: {reason: r, as", "e: {raison: r, as"),
        ];
        for (from, to) in table {
            let changed = good.replacen(from, to, 1);
            assert_ne!(changed, good, "{from}");
            assert!(!fits(&changed), "{to}");
        }
    }

    #[test]
    fn the_operations_that_are_known_by_name_exist() {
        let all = schemars::schema_for!(Op).to_value().to_string();
        let named = crate::scenario::pins::LOOKING.into_iter().chain(crate::scenario::broken::COMPARING);
        for name in named.chain(["dereg_mr", "gup_unpin", "rdma_write", "exit"]) {
            assert!(all.contains(&format!("\"{name}\"")), "{name}");
        }
    }
}
