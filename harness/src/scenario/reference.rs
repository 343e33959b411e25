// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page of operations, docs/operations.md: what the types say of each, in words, and a step of a scenario
//! that plays it. Separate from `schema.rs`, which says the same to editors and looks at no scenario.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use holdfast_protocol::Op;
use serde_json::{Map, Value, json};

use super::played::examples;
use super::uses::uses;
use crate::outcome::bad_input;

const HEAD: &str = "\
<!-- SPDX-License-Identifier: MIT OR Apache-2.0 -->
<!-- Generated from the types and the scenarios: cargo xtask scenario operations > docs/operations.md -->
# Operations

What an actor can do, in a step's `do` or `start` or in what a handler runs ([scenarios.md](scenarios.md)).
A field is required unless it is said to be optional. `file` is the name of a declared file, `actor` that of an
actor; a descriptor, mapping, region or pipe is a handle, `$ID` of the step that made it. Each example is a step
of a scenario as it is played, the shortest that succeeds where one does; where it says nothing of what must come
back, that is `ok`.
";

/// The page, from the types and from the scenarios of a folder.
///
/// # Errors
/// Bad input when a file cannot be read, or when no scenario plays an operation.
pub fn operations(folder: &Path) -> Result<String> {
    let types = Types::new();
    let examples = examples(folder)?;
    let unplayed: Vec<&str> =
        types.names.values().map(String::as_str).filter(|name| !examples.contains_key(*name)).collect();
    if !unplayed.is_empty() {
        return Err(bad_input(format!(
            "no scenario plays {}: each operation is used by a case that runs on a real machine",
            unplayed.join(", ")
        )));
    }
    let mut page = HEAD.to_owned();
    for (group, kinds) in Op::GROUPS {
        let _ = writeln!(page, "\n## {group}");
        for kind in *kinds {
            let name = &types.names[*kind];
            types.operation(&mut page, name, kind);
            examples[name].show(&mut page);
        }
    }
    Ok(page)
}

/// What the schema says.
struct Types {
    defs: Map<String, Value>,
    /// Operations by the names of their argument structures.
    names: BTreeMap<String, String>,
}

const DEFS: &str = "#/$defs/";
/// What text is that names nothing.
const TEXT: &str = "text";

impl Types {
    fn new() -> Self {
        let schema = schemars::schema_for!(Op).to_value();
        let defs = schema["$defs"].as_object().cloned().unwrap_or_default();
        let kinds = schema["oneOf"].as_array().into_iter().flatten();
        let fields = kinds.filter_map(|kind| kind["properties"].as_object()).flatten();
        let named = fields.filter_map(|(name, arguments)| {
            Some((arguments["$ref"].as_str()?.strip_prefix(DEFS)?.to_owned(), name.clone()))
        });
        Self { names: named.collect(), defs }
    }

    fn operation(&self, page: &mut String, name: &str, kind: &str) {
        let arguments = &self.defs[kind];
        let _ = writeln!(page, "\n### `{name}`\n\n{}", self.about(arguments));
        let fields = arguments["properties"].as_object();
        for (nr, (field, schema)) in fields.into_iter().flatten().enumerate() {
            let optional = if required(arguments).any(|one| one == field) { "" } else { "optional " };
            let gap = if nr == 0 { "\n" } else { "" };
            let words = self.words(schema, self.named(name, arguments, field));
            let words = if field.ends_with("_kib") { "KiB".to_owned() } else { words };
            let about = self.about(schema);
            // What only repeats the kind is left out.
            let about = match about == format!("The {words}.") || about == format!("The declared {words}.") {
                true => String::new(),
                false => format!(": {about}"),
            };
            let _ = writeln!(page, "{gap}- `{field}`, {optional}{words}{about}");
            for (word, about) in self.explained(schema) {
                let _ = writeln!(page, "  - `{word}`: {about}");
            }
        }
    }

    /// A doc comment as plain text, with the operations it links to under their own names.
    fn about(&self, schema: &Value) -> String {
        let mut text = schema["description"].as_str().unwrap_or_default().replace('\n', " ");
        for (kind, name) in &self.names {
            text = text.replace(&format!("[`{kind}`]"), &format!("`{name}`"));
        }
        text
    }

    fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let name = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix(DEFS));
        name.and_then(|name| self.defs.get(name)).unwrap_or(schema)
    }

    /// What may stand there. `named` is what a handle or a name is one of.
    fn words(&self, schema: &Value, named: &str) -> String {
        let all = self.listed(schema);
        if !all.is_empty() {
            let all: Vec<String> = all.iter().map(|(word, _)| format!("`{word}`")).collect();
            return format!("one of {}", all.join(", "));
        }
        match schema["$ref"].as_str().and_then(|reference| reference.strip_prefix(DEFS)) {
            Some("Hex") => return "bytes in hexadecimal".to_owned(),
            Some("Handle") if named == TEXT => return "handle".to_owned(),
            _ => {}
        }
        let schema = self.resolved(schema);
        if let Some(any) = schema["anyOf"].as_array() {
            let any = any.iter().filter(|one| one["type"] != "null");
            return any.map(|one| self.words(one, named)).collect::<Vec<_>>().join(" or ");
        }
        let kind = schema["type"].as_array().map_or(&schema["type"], |kinds| &kinds[0]);
        match kind.as_str() {
            Some("array") => {
                let items = self.words(&schema["items"], named);
                format!("list of {}", items.trim_start_matches("one of "))
            }
            Some("boolean") => "`true` or `false`".to_owned(),
            Some("integer") => match schema["maximum"].as_u64() {
                Some(most) => format!("number from 0 to {most}"),
                None => "number".to_owned(),
            },
            Some("object") => {
                let fields = schema["properties"].as_object().into_iter().flatten();
                let fields = fields.map(|(name, one)| format!("{name}: {}", self.words(one, named)));
                format!("`{{{}}}`", fields.collect::<Vec<_>>().join(", "))
            }
            _ => named.to_owned(),
        }
    }

    /// Words of a closed list, each with what is said of it.
    fn listed(&self, schema: &Value) -> Vec<(String, String)> {
        let schema = self.resolved(schema);
        if let Some(word) = schema["const"].as_str() {
            return vec![(word.to_owned(), self.about(schema))];
        }
        if let Some(words) = schema["enum"].as_array() {
            return words.iter().filter_map(|word| Some((word.as_str()?.to_owned(), String::new()))).collect();
        }
        schema["oneOf"].as_array().into_iter().flatten().flat_map(|one| self.listed(one)).collect()
    }

    /// The explained ones of the words that may stand there, or in a list there.
    fn explained(&self, schema: &Value) -> Vec<(String, String)> {
        let items = schema.get("items").unwrap_or(schema);
        self.listed(items).into_iter().filter(|(_, about)| !about.is_empty()).collect()
    }

    /// What a field's text names, as `scenario check` sees it: the operation is made with that field and as
    /// little else as it can have, and asked.
    fn named(&self, name: &str, arguments: &Value, field: &str) -> &'static str {
        let fields = arguments["properties"].as_object().into_iter().flatten();
        let given = fields.filter(|(one, _)| *one == field || required(arguments).any(|other| other == *one));
        let probe: Map<String, Value> =
            given.map(|(one, schema)| (one.clone(), self.probe(one, schema))).collect();
        let Ok(op) = serde_json::from_value::<Op>(json!({ name: probe })) else { return TEXT };
        let uses = uses(&op);
        let handle = uses.handles.iter().find(|(handle, _)| handle.id() == field);
        match handle {
            Some((_, thing)) => thing.name().trim_start_matches("a "),
            None if uses.files.contains(&field) => "file",
            None if uses.actor == Some(field) => "actor",
            None if uses.signal == Some(field) => "signal",
            None if uses.handler == Some(field) => "handler",
            None => TEXT,
        }
    }

    /// A value that fits, and says the field's name where it can.
    fn probe(&self, field: &str, schema: &Value) -> Value {
        if let Some((word, _)) = self.listed(schema).first() {
            return word.as_str().into();
        }
        let resolved = self.resolved(schema);
        if let Some(any) = resolved["anyOf"].as_array() {
            return self.probe(field, &any[0]);
        }
        let kind = resolved["type"].as_array().map_or(&resolved["type"], |kinds| &kinds[0]);
        match kind.as_str() {
            Some("array") => json!([]),
            Some("boolean") => json!(false),
            Some("integer") => json!(0),
            _ if schema["$ref"] == format!("{DEFS}Handle") => format!("${field}").into(),
            _ if schema["$ref"].is_string() || resolved["pattern"].is_string() => "".into(),
            _ => field.into(),
        }
    }
}

fn required(arguments: &Value) -> impl Iterator<Item = &str> {
    arguments["required"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenarios() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios")
    }

    #[test]
    fn the_page_is_what_the_types_and_the_scenarios_say() {
        let page = std::fs::read_to_string(scenarios().join("../docs/operations.md")).unwrap_or_default();
        assert!(
            operations(&scenarios()).unwrap() == page,
            "docs/operations.md is not what the types say: run `cargo xtask scenario operations > docs/operations.md`"
        );
    }

    #[test]
    fn an_operation_that_no_scenario_plays_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let steps = "actors: {a: {on_signal: {s: {run: [{id: x, do: {pipe: {}}}]}}}}\nsteps: [{repeat: 2, steps: [{together: [{do: {sync: {}}}]}]}]\n";
        std::fs::write(folder.path().join("s.yaml"), steps).unwrap();
        let unplayed = operations(folder.path()).unwrap_err();
        assert!(unplayed.is::<crate::outcome::BadInput>());
        let message = unplayed.to_string();
        let named =
            |name: &str| message.contains(&format!(" {name},")) || message.contains(&format!(" {name}:"));
        assert!(named("open") && named("syscall"), "{message}");
        assert!(!named("pipe") && !named("sync"), "{message}");
    }

    #[test]
    fn the_checker_knows_every_handle_by_what_it_is() {
        let types = Types::new();
        for (kind, name) in &types.names {
            let arguments = &types.defs[kind];
            for (field, schema) in arguments["properties"].as_object().into_iter().flatten() {
                let words = types.words(schema, types.named(name, arguments, field));
                assert_ne!(words, "handle", "`uses` says nothing of `{field}` of `{name}`");
            }
        }
    }
}
