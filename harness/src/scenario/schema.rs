// SPDX-License-Identifier: MIT OR Apache-2.0
//! The JSON Schema of a scenario, for editors: the form with its words for people, the operations as the
//! protocol reads them. What a schema cannot say (names, handles, twins) `scenario check` does.

use holdfast_protocol::{ActorSetup, FileSetup, Op};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::expect::Expect;
use super::form::{BrokenForm, Form, StepForm, TogetherForm};
use super::probe::schema_of;
use crate::outcome::Kind;

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
            ("anyOf" | "oneOf", Value::Array(all)) => all.iter_mut().for_each(|one| parameters(one, false)),
            _ => {}
        }
    }
    let kind = map.get("type");
    let kinds: Vec<&str> = match kind {
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        kind => kind.and_then(Value::as_str).into_iter().collect(),
    };
    let plain = map.contains_key("enum") || kinds.iter().any(|kind| ["integer", "boolean"].contains(kind));
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

/// An operation.
pub(super) fn op(_: &mut SchemaGenerator) -> Schema {
    known(schema_of::<Op>())
}

/// Declared files by name.
pub(super) fn files(_: &mut SchemaGenerator) -> Schema {
    known(json!({"type": "object", "additionalProperties": schema_of::<FileSetup>()}))
}

/// Actors by name.
pub(super) fn actors(_: &mut SchemaGenerator) -> Schema {
    known(json!({"type": "object", "additionalProperties": schema_of::<ActorSetup>()}))
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
    let written = json!({"anyOf": [step, together]});
    let repeat = json!({
        "type": "object",
        "description": "A group of steps that is played several times.",
        "properties": {"repeat": {"type": "integer"}, "steps": {"type": "array", "items": written}},
        "required": ["repeat", "steps"],
        "additionalProperties": false,
    });
    known(json!({"type": "array", "items": {"anyOf": [step, together, repeat]}}))
}

impl JsonSchema for Expect {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Outcome".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = r"(ok( \d+)?|E[A-Z0-9]+|[A-Z_]+_ERR|TIMEOUT|differs|blocks|killed SIG\S+|exited \d+|[a-z_]+( \S+)*)";
        known(json!({
            "type": "string",
            "description": "ok, ok NUMBER, an errno, differs, blocks, killed SIGNAL, exited NUMBER; or `one of: A, B`.",
            "pattern": format!(r"^(one of:)?\s*{one}(\s*,\s*{one})*\s*$|^\$[A-Za-z0-9_]+$"),
        }))
    }
}

/// A verdict.
pub(super) fn kind(_: &mut SchemaGenerator) -> Schema {
    known(schema_of::<Kind>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::files_of;
    use crate::yaml::Document;

    /// Why a value does not fit. Of JSON Schema only what is used here; a keyword it does not know fails,
    /// so that it can be no laxer than an editor.
    fn misfit(value: &Value, schema: &Value, root: &Value) -> Option<String> {
        let Value::Object(schema) = schema else {
            return (*schema != json!(true)).then(|| format!("{value}: nothing may stand here"));
        };
        let fits = |schema: &Value| misfit(value, schema, root).is_none();
        schema.iter().find_map(|(keyword, wanted)| {
            let no = |why: String| Some(format!("{value}: {why}"));
            match (keyword.as_str(), wanted, value) {
                ("$schema" | "$defs" | "title" | "description" | "default" | "format", ..) => None,
                // The bounds of the machine's words that are read.
                ("minimum" | "maximum", bound, Value::Number(number)) => {
                    let (number, bound) = (number.as_f64()?, bound.as_f64()?);
                    let out = if keyword == "minimum" { number < bound } else { number > bound };
                    out.then(|| format!("{number}: out of {bound}"))
                }
                ("$ref", Value::String(to), _) => {
                    misfit(value, root.pointer(to.trim_start_matches('#')).unwrap(), root)
                }
                ("anyOf", Value::Array(all), _) => match all.iter().any(fits) {
                    true => None,
                    false => no("none of the forms".into()),
                },
                ("enum", Value::Array(all), _) if !all.contains(value) => no("no such word".into()),
                ("type", kinds, _) => {
                    let kinds = kinds.as_array().map_or(std::slice::from_ref(kinds), Vec::as_slice);
                    let is = match value {
                        Value::Null => "null",
                        Value::Bool(_) => "boolean",
                        Value::Number(_) => "integer",
                        Value::String(_) => "string",
                        Value::Array(_) => "array",
                        Value::Object(_) => "object",
                    };
                    if kinds.contains(&is.into()) { None } else { no(format!("{is} is not {kinds:?}")) }
                }
                ("pattern", Value::String(pattern), Value::String(text)) => {
                    let fits = regex::Regex::new(pattern).unwrap().is_match(text);
                    if fits { None } else { no(format!("is not {pattern}")) }
                }
                ("items", schema, Value::Array(items)) => {
                    items.iter().find_map(|item| misfit(item, schema, root))
                }
                (_, _, Value::Object(map)) if MAPS.contains(&keyword.as_str()) => {
                    misfit_of_map(map, keyword, wanted, schema, root)
                }
                (known, ..) if WORDS.contains(&known) || MAPS.contains(&known) => None,
                (other, ..) => panic!("a keyword nobody checks: {other}"),
            }
        })
    }

    /// Keywords about what an object has in it.
    const MAPS: [&str; 5] =
        ["required", "minProperties", "maxProperties", "properties", "additionalProperties"];
    /// Keywords about other values, which say nothing where a value is of another kind.
    const WORDS: [&str; 5] = ["enum", "pattern", "items", "minimum", "maximum"];

    fn misfit_of_map(
        map: &Map<String, Value>,
        keyword: &str,
        wanted: &Value,
        schema: &Map<String, Value>,
        root: &Value,
    ) -> Option<String> {
        let count = map.len() as u64;
        let wrong = match (keyword, wanted) {
            ("required", Value::Array(names)) => {
                let missing = names.iter().filter_map(Value::as_str).find(|name| !map.contains_key(*name));
                return missing.map(|name| format!("{name} is missing"));
            }
            ("minProperties", least) => count < least.as_u64()?,
            ("maxProperties", most) => count > most.as_u64()?,
            ("properties", Value::Object(known)) => {
                return map.iter().find_map(|(name, item)| misfit(item, known.get(name)?, root));
            }
            ("additionalProperties", other) => {
                let known = schema.get("properties").and_then(Value::as_object);
                let mut more = map.iter().filter(|(name, _)| known.is_none_or(|all| !all.contains_key(*name)));
                return more
                    .find_map(|(name, item)| misfit(item, other, root).map(|why| format!("{name}: {why}")));
            }
            _ => false,
        };
        wrong.then(|| format!("{count} fields, {keyword} {wanted}"))
    }

    #[test]
    fn every_scenario_of_the_repository_fits() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
        let schema = schema();
        let files = files_of(&folder).unwrap();
        assert!(files.len() > 20);
        for file in files {
            let value = Document::read(&file).unwrap().parse().unwrap();
            let wrong = misfit(&value, &schema, &schema);
            assert!(wrong.is_none(), "{}: {}", file.display(), wrong.unwrap());
        }
    }

    #[test]
    fn a_broken_scenario_does_not() {
        let good = "about: a\nbecause: b\ncontracts: [c]\nactors: {a: {rdma: true}}\nfiles: {f: {on: $fs, size_kib: $n, pattern: 1}}\nsteps:\n  - {by: a, do: {mmap: {len_kib: $n, flags: [MAP_SHARED]}}, within_ms: 5, expect: ok}\n  - {repeat: 2, steps: [{by: a, use: opt-in, with: {fd: $fd}}]}\n  - together: [{id: x, by: a, do: {pipe: {}}}, {id: y, by: b, do: {pipe: {}}}]\nexpect_broken: {c: {d: reason, e: {reason: r, as: differs}}}\n";
        let schema = schema();
        let fits = |text: &str| {
            let value = Document { file: "s.yaml".into(), text: text.into() }.parse().unwrap();
            misfit(&value, &schema, &schema).is_none()
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
        let all = schema_of::<Op>();
        let named = crate::scenario::pins::LOOKING.into_iter().chain(crate::scenario::broken::COMPARING);
        for name in named.chain(["dereg_mr", "gup_unpin", "rdma_write", "exit"]) {
            assert!(all["properties"].get(name).is_some(), "{name}");
        }
    }
}
