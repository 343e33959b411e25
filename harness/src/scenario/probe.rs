// SPDX-License-Identifier: MIT OR Apache-2.0
//! The schema of a type from nothing but how it is read: serde names the fields, the words and the kind of
//! value it would have taken.
//!
//! For the types of the protocol, whose crate goes into the guest and carries nothing for editors.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// A value within its document.
type Within<'a> = &'a dyn Fn(Value) -> Value;
/// Reads a document, and says why not.
type Read<'a> = &'a dyn Fn(Value) -> Result<(), String>;

/// No type here is nested deeper.
const MOST_DEEP: usize = 6;

/// The schema of a type.
pub(super) fn schema_of<T: DeserializeOwned>() -> Value {
    let read = |value: Value| serde_json::from_value::<T>(value).map(drop).map_err(|error| error.to_string());
    of(&read, &|value| value, MOST_DEEP)
}

fn of(read: Read<'_>, within: Within<'_>, left: usize) -> Value {
    if left == 0 {
        return json!({});
    }
    let said = read(within("?".into())).err().unwrap_or_default();
    if said.starts_with("unknown variant") {
        return variants(read, within, &words(&said), left);
    }
    if said.contains("is not a handle") {
        return handle();
    }
    let Some((_, expected)) = said.split_once("invalid type: string \"?\", expected ") else {
        // It was taken, or something else is missing.
        return json!({"type": "string"});
    };
    match expected.split([' ', ',']).next().unwrap_or_default() {
        "a" if expected.starts_with("a boolean") => json!({"type": "boolean"}),
        "a" if expected.starts_with("a sequence") => {
            json!({"type": "array", "items": of(read, &|item| within(json!([item])), left - 1)})
        }
        "a" if expected.starts_with("a map") => {
            let below = |item: Value| within(json!({"x": item}));
            json!({"type": "object", "additionalProperties": of(read, &below, left - 1)})
        }
        "struct" => object(read, within, left),
        number if number.starts_with(['u', 'i']) => json!({"type": "integer"}),
        _ => json!({}),
    }
}

/// A result of an earlier step.
fn handle() -> Value {
    json!({"type": "string", "pattern": "^\\$[A-Za-z0-9_.]+$"})
}

/// An enum: plain words, or each an object of its own.
fn variants(read: Read<'_>, within: Within<'_>, names: &[String], left: usize) -> Value {
    // `{word: {}}` in place of a plain word is answered with its type.
    let plain = |name: &String| {
        let said = read(within(json!({name.as_str(): {}}))).err().unwrap_or_default();
        said.contains("expected unit")
    };
    if names.iter().all(plain) {
        return json!({"enum": names});
    }
    let each = names.iter().map(|name| {
        let own = of_variant(read, &|value| within(json!({name.as_str(): value})), left - 1);
        (name.clone(), own)
    });
    let each: Map<String, Value> = each.collect();
    json!({"type": "object", "minProperties": 1, "maxProperties": 1, "properties": each, "additionalProperties": false})
}

/// The fields of a variant; that it has any is known only when one is tried.
fn of_variant(read: Read<'_>, within: Within<'_>, left: usize) -> Value {
    match read(within(json!({"?": null}))) {
        Err(said) if said.starts_with("unknown field") => object(read, within, left),
        _ => of(read, within, left),
    }
}

/// A struct: its fields by what it knows, those it must have by what it misses.
fn object(read: Read<'_>, within: Within<'_>, left: usize) -> Value {
    let said = read(within(json!({"?": null}))).err().unwrap_or_default();
    let fields = words(&said);
    let properties: Map<String, Value> = fields
        .iter()
        .map(|name| {
            let field = |value: Value| within(json!({name.as_str(): value}));
            (name.clone(), of(read, &field, left - 1))
        })
        .collect();
    let mut required = Vec::new();
    let mut sample = Map::new();
    for _ in &fields {
        let said = read(within(Value::Object(sample.clone()))).err().unwrap_or_default();
        let Some(name) = said.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) else {
            break;
        };
        sample.insert(name.to_owned(), sample_of(&properties[name]));
        required.push(name.to_owned());
    }
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

/// Some value of a schema that was found here.
fn sample_of(schema: &Value) -> Value {
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return words[0].clone();
    }
    if schema.get("pattern").is_some() {
        return "$x".into();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("integer") => 1.into(),
        Some("boolean") => true.into(),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ => "x".into(),
    }
}

/// What serde would have taken: all that is quoted behind the first.
fn words(said: &str) -> Vec<String> {
    let (_, valid) = said.split_once("expected").unwrap_or_default();
    valid.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_protocol::{ActorSetup, FileSetup, Op};

    #[test]
    fn every_operation_is_known_with_its_fields() {
        let schema = schema_of::<Op>();
        let of = |op: &str| schema["properties"][op].clone();
        let open = of("open");
        assert_eq!(open["required"], json!(["file", "flags"]));
        assert_eq!(open["properties"]["file"], json!({"type": "string"}));
        assert_eq!(open["properties"]["flags"]["items"]["enum"][0], "O_RDONLY");
        assert_eq!(of("mmap")["properties"]["fd"], handle());
        assert_eq!(of("mmap")["properties"]["len_kib"], json!({"type": "integer"}));
        assert_eq!(of("gup_pin")["properties"]["write"], json!({"type": "boolean"}));
        assert_eq!(of("pipe")["additionalProperties"], json!(false));
        assert!(schema["properties"].as_object().unwrap().len() > 20);
    }

    #[test]
    fn files_and_actors_are_known() {
        let file = schema_of::<FileSetup>();
        assert_eq!(file["required"], json!(["on", "size_kib", "pattern"]));
        assert_eq!(file["properties"]["on"], json!({"enum": ["ext4", "xfs", "devdax"]}));
        let actor = schema_of::<ActorSetup>();
        assert_eq!(actor["required"], json!([]));
        let handler = &actor["properties"]["on_signal"]["additionalProperties"];
        assert_eq!(handler["required"], json!(["signal", "restart"]));
    }
}
