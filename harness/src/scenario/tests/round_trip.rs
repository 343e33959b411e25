// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any operation survives being written and read: as the YAML of a scenario and as the JSON of the wire. What
//! is made up comes from the schema, so that a new operation needs no line here, and so that the schema is
//! shown to admit nothing that the reader refuses.

use holdfast_protocol::{read_frame, write_frame};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;
use proptest::string::string_regex;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, json};

use super::*;
use crate::path;
use crate::yaml::flow;

/// Words that mean something else to one reader of YAML or another, or need care to be written.
const DELICATE: [&str; 22] = [
    "",
    " ",
    "~",
    "null",
    "yes",
    "off",
    "True",
    "0x10",
    "0o7",
    "007",
    "1e3",
    ".inf",
    "-",
    "- a",
    "a: b",
    "#a",
    "a #b",
    "*a",
    "&a !b",
    "'",
    "two\nlines\n",
    "\ttab\"\\",
];

fn text() -> BoxedStrategy<Value> {
    prop_oneof![select(&DELICATE[..]).prop_map(Value::from), "(?s).{0,12}".prop_map(Value::from)].boxed()
}

/// Numbers of a type, its ends among them.
macro_rules! numbers {
    ($kind:ty) => {
        prop_oneof![any::<$kind>(), Just(<$kind>::MIN), Just(<$kind>::MAX)].prop_map(Value::from).boxed()
    };
}

fn integers(schema: &Value) -> BoxedStrategy<Value> {
    match schema["format"].as_str() {
        Some("uint8") => numbers!(u8),
        Some("int32") => numbers!(i32),
        Some("uint32") => numbers!(u32),
        Some("int64") => numbers!(i64),
        Some("uint64" | "uint") => numbers!(u64),
        other => panic!("a number of the format {other:?}: say here what it can be"),
    }
}

/// Any value that a schema admits.
fn admitted(defs: &Value, schema: &Value) -> BoxedStrategy<Value> {
    let any_of = |all: &[Value]| Union::new(all.iter().map(|one| admitted(defs, one))).boxed();
    if let Some(name) = schema["$ref"].as_str() {
        return admitted(defs, &defs[name.rsplit('/').next().unwrap()]);
    }
    if let Some(one) = schema.get("const") {
        return Just(one.clone()).boxed();
    }
    if let Some(all) = schema["enum"].as_array() {
        return select(all.clone()).boxed();
    }
    if let Some(all) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        return any_of(all);
    }
    if let Some(kinds) = schema["type"].as_array() {
        let of = |kind: &Value| {
            let mut one = schema.clone();
            one["type"] = kind.clone();
            one
        };
        return any_of(&kinds.iter().map(of).collect::<Vec<_>>());
    }
    match schema["type"].as_str() {
        Some("null") => Just(Value::Null).boxed(),
        Some("boolean") => any::<bool>().prop_map(Value::from).boxed(),
        Some("integer") => integers(schema),
        Some("array") => {
            prop::collection::vec(admitted(defs, &schema["items"]), 0..4).prop_map(Value::from).boxed()
        }
        Some("string") => match schema["pattern"].as_str() {
            Some(pattern) => {
                let inner = pattern.trim_start_matches('^').trim_end_matches('$');
                string_regex(inner).unwrap().prop_map(Value::from).boxed()
            }
            None => text(),
        },
        Some("object") => fields(defs, schema),
        _ => panic!("a schema of a new kind: {schema}"),
    }
}

fn fields(defs: &Value, schema: &Value) -> BoxedStrategy<Value> {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let fields = schema["properties"].as_object().cloned().unwrap_or_default();
    let fields: Vec<BoxedStrategy<Option<(String, Value)>>> = fields
        .into_iter()
        .map(|(name, one)| {
            let required = required.contains(&Value::from(name.as_str()));
            let entry = admitted(defs, &one).prop_map(move |value| (name.clone(), value));
            if required { entry.prop_map(Some).boxed() } else { prop::option::of(entry).boxed() }
        })
        .collect();
    fields.prop_map(|all| Value::Object(all.into_iter().flatten().collect::<Map<_, _>>())).boxed()
}

/// The operation that a scenario's reader makes of a text.
fn read(text: String) -> Result<Op> {
    let document = Document { file: "f.yaml".into(), text };
    let value = document.parse()?;
    document.typed_at(&path!["do"], value["do"].clone())
}

#[test]
fn any_operation_is_read_as_it_was_written() {
    let schema = schemars::schema_for!(Op).to_value();
    for kind in schema["oneOf"].as_array().unwrap() {
        let mut runner = TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
        let outcome = runner.run(&admitted(&schema["$defs"], kind), |value| {
            let refused = |error: anyhow::Error| TestCaseError::fail(error.to_string());
            let op: Op = serde_json::from_value(value).map_err(|error| refused(error.into()))?;
            let mut wire = Vec::new();
            write_frame(&mut wire, &op).map_err(|error| refused(error.into()))?;
            let back = read_frame::<Op>(&mut wire.as_slice()).map_err(|error| refused(error.into()))?;
            prop_assert_eq!(&back, &op);
            let written = json!({"do": &op});
            let lines = serde_yaml::to_string(&written).map_err(|error| refused(error.into()))?;
            for text in [lines, format!("{}\n", flow(&written))] {
                prop_assert_eq!(&read(text).map_err(refused)?, &op);
            }
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{}: {error}", kind["required"]));
    }
}
