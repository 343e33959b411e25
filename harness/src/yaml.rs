// SPDX-License-Identifier: MIT OR Apache-2.0
//! YAML at the edge: typed, strict, and every fault with file, line and column.
//!
//! Types lose positions, and a matrix changes values before they are typed. So a fault is known by
//! its *path* in the document (`steps[3].do.mmap`), and one function finds that path's place in
//! the text again.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use saphyr::{LoadableYamlNode, MarkedYaml, YamlData};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use crate::outcome::bad_input;

/// A YAML file as it was read.
#[derive(Clone, Debug)]
pub struct Document {
    /// The file's name as messages print it.
    pub file: String,
    /// Its text.
    pub text: String,
}

/// The largest file that is read: everything written by hand is far below.
pub const MOST_KIB: u64 = 256;
/// The deepest nesting: a step of a group of a scenario needs 8.
pub const MOST_DEEP: usize = 16;

/// The path of a value that lies deeper than `left`, if one does.
fn too_deep(value: &Value, left: usize) -> Option<Vec<Key>> {
    let below = |key: Key, value: &Value| {
        let mut path = if left == 0 { Vec::new() } else { too_deep(value, left - 1)? };
        path.insert(0, key);
        Some(path)
    };
    match value {
        Value::Array(items) => items.iter().enumerate().find_map(|(nr, item)| below(nr.into(), item)),
        Value::Object(map) => map.iter().find_map(|(name, item)| below(name.as_str().into(), item)),
        _ => None,
    }
}

/// One step down into a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// Into a mapping.
    Name(String),
    /// Into a sequence.
    Index(usize),
}

impl From<&str> for Key {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<usize> for Key {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, ".{name}"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A path into a document: `path!["steps", 3, "by"]`.
#[macro_export]
macro_rules! path {
    ($($key:expr),* $(,)?) => { [$($crate::yaml::Key::from($key)),*] };
}

impl Document {
    /// Reads a file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let size = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
        if size > MOST_KIB * 1024 {
            let file = shown(path);
            return Err(bad_input(format!(
                "{file}:1:1: the file has {} KiB; at most {MOST_KIB} are read",
                size.div_ceil(1024)
            )));
        }
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self { file: shown(path), text })
    }

    /// Parses the text, without typing it yet.
    ///
    /// # Errors
    /// Bad input, with the place, when it is not YAML or a key stands twice.
    pub fn parse(&self) -> Result<Value> {
        let value: serde_yaml::Value = serde_yaml::from_str(&self.text).map_err(|error| {
            let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
            let text = error.to_string();
            let reason = text.split(" at line ").next().unwrap_or(&text);
            bad_input(format!("{}:{line}:{column}: {reason}", self.file))
        })?;
        if value.is_null() {
            return Err(bad_input(format!("{}:1:1: there is nothing in it", self.file)));
        }
        let value = serde_json::to_value(value)
            .map_err(|error| bad_input(format!("{}:1:1: keys must be plain words: {error}", self.file)))?;
        if let Some(path) = too_deep(&value, MOST_DEEP) {
            let message = format!("it is nested more than {MOST_DEEP} deep");
            return Err(self.fault(&path, None, &message));
        }
        Ok(value)
    }

    /// Types a value that came from this document, possibly changed since.
    ///
    /// # Errors
    /// Bad input, with the place and the nearest valid word, when the value does not fit `T`.
    pub fn typed<T: DeserializeOwned>(&self, value: Value) -> Result<T> {
        self.typed_at(&[], value)
    }

    /// As [`typed`](Self::typed), of the value that stands at `place`.
    ///
    /// # Errors
    /// As [`typed`](Self::typed).
    pub fn typed_at<T: DeserializeOwned>(&self, place: &[Key], value: Value) -> Result<T> {
        serde_path_to_error::deserialize(value).map_err(|error| {
            let mut path: Vec<Key> = place.to_vec();
            path.extend(error.path().iter().filter_map(key_of));
            let message = error.inner().to_string();
            let (word, message) = explain(&message);
            // The path of an unknown word ends with the word itself; its container is the place.
            path.pop_if(|last| matches!((last, &word), (Key::Name(name), Some(word)) if name == word));
            self.fault(&path, word.as_deref(), &message)
        })
    }

    /// Parses and types the whole document.
    ///
    /// # Errors
    /// As [`parse`](Self::parse) and [`typed`](Self::typed).
    pub fn load<T: DeserializeOwned>(&self) -> Result<T> {
        self.typed(self.parse()?)
    }

    /// A bad-input error at the place of `path`, or of `word` directly below it.
    #[must_use]
    pub fn fault(&self, path: &[Key], word: Option<&str>, message: &str) -> anyhow::Error {
        bad_input(format!("{}: {message}", self.place_of(path, word)))
    }

    /// `FILE:LINE:COLUMN: PATH`, for a fault that is found later.
    #[must_use]
    pub fn place(&self, path: &[Key]) -> String {
        self.place_of(path, None)
    }

    fn place_of(&self, path: &[Key], word: Option<&str>) -> String {
        let (line, column) = self.locate(path, word);
        let shown: String = path.iter().map(Key::to_string).collect();
        let shown = shown.trim_start_matches('.');
        let shown = if shown.is_empty() { String::new() } else { format!(": {shown}") };
        format!("{}:{line}:{column}{shown}", self.file)
    }

    /// Line and column, both from 1, of a path; of the deepest part of it that exists.
    fn locate(&self, path: &[Key], word: Option<&str>) -> (usize, usize) {
        let Ok(documents) = MarkedYaml::load_from_str(&self.text) else { return (1, 1) };
        let Some(root) = documents.first() else { return (1, 1) };
        let mut node = root;
        let mut marker = root.span.start;
        for key in path {
            let next = match (&node.data, key) {
                (YamlData::Sequence(items), Key::Index(index)) => items.get(*index).map(|item| (item, item)),
                (YamlData::Mapping(map), Key::Name(name)) => entry(map.iter(), name),
                _ => None,
            };
            let Some((_, value)) = next else { break };
            node = value;
            marker = value.span.start;
        }
        if let Some(word) = word {
            match &node.data {
                YamlData::Mapping(map) => {
                    if let Some((key, _)) = entry(map.iter(), word) {
                        marker = key.span.start;
                    } else if let Some((_, value)) = map.iter().find(|(_, value)| is_word(value, word)) {
                        marker = value.span.start;
                    }
                }
                YamlData::Sequence(items) => {
                    if let Some(item) = items.iter().find(|item| is_word(item, word)) {
                        marker = item.span.start;
                    }
                }
                _ => {}
            }
        }
        (marker.line(), marker.col() + 1)
    }
}

/// A value on one line, as a person would write it: words are quoted only where they must be.
#[must_use]
pub fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => {
            // In a list it must be one word, and the same; digits are no word to other readers of YAML.
            let alone = serde_yaml::from_str::<Vec<serde_yaml::Value>>(&format!("[{text}]"));
            let plain = alone.is_ok_and(|read| matches!(&read[..], [one] if one.as_str() == Some(text)))
                && !text.starts_with(|first: char| first.is_ascii_digit());
            if plain { text.clone() } else { quoted(value) }
        }
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let entry =
                |(name, item): (&String, &Value)| format!("{}: {}", flow(&name.as_str().into()), flow(item));
            format!("{{{}}}", map.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// Text as JSON has it, which YAML reads as it is meant but for what it does not take unescaped.
fn quoted(text: &Value) -> String {
    let escaped =
        |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}');
    let text = text.to_string();
    text.chars().map(|c| if escaped(c) { format!("\\u{:04x}", u32::from(c)) } else { c.into() }).collect()
}

fn entry<'a, 'input: 'a>(
    mut entries: impl Iterator<Item = (&'a MarkedYaml<'input>, &'a MarkedYaml<'input>)>,
    name: &str,
) -> Option<(&'a MarkedYaml<'input>, &'a MarkedYaml<'input>)> {
    entries.find(|(key, _)| is_word(key, name))
}

fn is_word(node: &MarkedYaml<'_>, word: &str) -> bool {
    node.data.as_str() == Some(word)
}

fn key_of(segment: &Segment) -> Option<Key> {
    match segment {
        Segment::Seq { index } => Some(Key::Index(*index)),
        Segment::Map { key } => Some(Key::Name(key.clone())),
        Segment::Enum { variant } => Some(Key::Name(variant.clone())),
        Segment::Unknown => None,
    }
}

/// From serde's message the offending word, and the message with the nearest valid word added.
fn explain(message: &str) -> (Option<String>, String) {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    let Some((word, valid)) = quoted.split_first().filter(|_| unknown) else {
        return (None, message.to_owned());
    };
    let what = match message.starts_with("unknown field") {
        true => "field",
        // What a matrix has put in its place is no parameter any more.
        false if word.starts_with('$') => {
            let message = format!("`{word}` is no parameter of the matrix, and no result can stand here");
            return (Some((*word).to_owned()), message);
        }
        false => "word",
    };
    (Some((*word).to_owned()), unknown_word(what, word, valid.iter().copied()))
}

/// "unknown op `trucate`; did you mean `truncate`? (valid: …)".
#[must_use]
pub fn unknown_word<'a>(what: &str, word: &str, valid: impl IntoIterator<Item = &'a str>) -> String {
    let valid: Vec<&str> = valid.into_iter().collect();
    let near = nearest(word, valid.iter().copied());
    let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    let list = match valid.len() {
        0 => " (there is none)".to_owned(),
        1..=24 => format!(" (valid: {})", valid.join(", ")),
        _ => String::new(),
    };
    format!("unknown {what} `{word}`{hint}{list}")
}

/// Letters of a word that may be a slip of the finger: a case's id is the longest there is. To tell how alike two
/// words are takes the product of their lengths, and a whole file may be one word.
const LONGEST_SLIP: usize = 160;

/// The valid word most like `word`, if one is like it at all.
#[must_use]
pub fn nearest<'a>(word: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.chars().nth(LONGEST_SLIP).is_some() {
        return None;
    }
    let folded = word.to_lowercase();
    valid
        .into_iter()
        .map(|candidate| (likeness(&folded, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// From 0 to 1. One slip of the finger is alike even where a word of two letters is half wrong by it.
fn likeness(word: &str, candidate: &str) -> f64 {
    let slip = strsim::damerau_levenshtein(word, candidate) <= 1;
    strsim::jaro_winkler(word, candidate).max(if slip { 0.8 } else { 0.0 })
}

/// A path as messages print it: relative to the working directory where that is shorter.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    use crate::contract::Contracts;
    use crate::home::{Home, Own};
    use crate::plan::PlanFile;
    use crate::scenario::load_file;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "snake_case")]
    enum Act {
        #[expect(dead_code, reason = "only its shape is tested")]
        Truncate { size_kib: u64 },
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Doc {
        #[expect(dead_code, reason = "only its shape is tested")]
        steps: Vec<Act>,
    }

    fn fault(text: &str) -> String {
        Document { file: "f.yaml".into(), text: text.into() }.load::<Doc>().unwrap_err().to_string()
    }

    #[test]
    fn faults_have_place_and_nearest_word() {
        let unknown_field = fault("steps:\n  - truncate: {size_kb: 1}\n");
        assert_eq!(
            unknown_field,
            "f.yaml:2:16: steps[0].truncate: unknown field `size_kb`; did you mean `size_kib`? (valid: size_kib)"
        );
        let unknown_op = fault("steps:\n  - trucate: {size_kib: 1}\n");
        assert_eq!(
            unknown_op,
            "f.yaml:2:5: steps[0]: unknown word `trucate`; did you mean `truncate`? (valid: truncate)"
        );
        let wrong_type = fault("steps:\n  - truncate:\n      size_kib: many\n");
        assert!(
            wrong_type.starts_with("f.yaml:3:17: steps[0].truncate.size_kib: invalid type"),
            "{wrong_type}"
        );
        assert!(fault("steps: [}\n").starts_with("f.yaml:1:9: "), "{}", fault("steps: [}\n"));
        assert!(fault("steps: []\nsteps: []\n").contains("duplicate"));
    }

    #[test]
    fn a_word_that_is_a_whole_file_is_like_none() {
        assert_eq!(nearest("killedd", ["killed"]), Some("killed"));
        let [most, more] = [LONGEST_SLIP, LONGEST_SLIP + 1].map(|letters| "x".repeat(letters));
        assert_eq!(nearest(&most, [more.as_str()]), Some(more.as_str()));
        assert_eq!(nearest(&more, [most.as_str()]), None);
    }

    /// Any value that YAML and JSON both have, three deep.
    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            "(?s).{0,12}".prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z$#:-]{1,6}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_as_yaml_is_read_as_it_was(value in values()) {
            let text = serde_yaml::to_string(&serde_json::json!({"top": value})).unwrap();
            let read = Document { file: "f.yaml".into(), text }.parse().unwrap();
            prop_assert_eq!(&read["top"], &value);
        }

        #[test]
        fn what_is_written_on_one_line_is_read_as_it_was(value in values()) {
            let text = format!("top: {}\n", flow(&value));
            prop_assert_eq!(text.lines().count(), 1);
            let read = Document { file: "f.yaml".into(), text }.parse().unwrap();
            prop_assert_eq!(&read["top"], &value);
        }

        #[test]
        fn no_text_makes_the_reader_fall_over(text in "[a-z0-9:{}\\[\\],&*#|>'\" \n-]{0,80}") {
            let document = Document { file: "f.yaml".into(), text };
            if let Err(error) = document.load::<Doc>() {
                prop_assert!(error.is::<crate::outcome::BadInput>(), "{error}");
                prop_assert!(error.to_string().starts_with("f.yaml:"), "{error}");
            }
        }
    }

    #[test]
    fn what_is_too_large_or_too_deep_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.yaml");
        let most = usize::try_from(MOST_KIB).unwrap() * 1024;
        fs::write(&path, format!("a: b\n{}", "#".repeat(most - 5))).unwrap();
        Document::read(&path).unwrap().parse().unwrap();
        fs::write(&path, format!("a: b\n{}", "#".repeat(most - 4))).unwrap();
        let error = Document::read(&path).unwrap_err();
        assert!(error.to_string().contains("large.yaml:1:1: the file has 257 KiB; at most 256"), "{error}");
        assert!(error.is::<crate::outcome::BadInput>());

        let nested = |deep| Document {
            file: "f.yaml".into(),
            text: format!("a: {}1{}\n", "[".repeat(deep - 1), "]".repeat(deep - 1)),
        };
        nested(MOST_DEEP).parse().unwrap();
        let error = nested(MOST_DEEP + 1).parse().unwrap_err().to_string();
        assert!(error.starts_with("f.yaml:1:"), "{error}");
        assert!(error.ends_with("nested more than 16 deep"), "{error}");
    }

    #[test]
    fn no_reader_takes_a_file_that_is_too_large() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let most = usize::try_from(MOST_KIB).unwrap() * 1024;
        for path in ["contracts.yaml", "s.yaml", "plans/p.yaml", "kernel-configs/k/kernel.yaml"] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "#".repeat(most + 1)).unwrap();
        }
        let home = Home {
            data: root.to_owned(),
            is_clone: true,
            cache: root.join("cache"),
            runs: root.join("runs"),
            own: Own::default(),
        };
        let readers = [
            ("contracts.yaml", Contracts::load([root.to_owned()].into_iter()).map(drop)),
            ("s.yaml", load_file(root, &root.join("s.yaml"), &Contracts::default()).map(drop)),
            ("p.yaml", PlanFile::load(root, "p").map(drop)),
            ("kernel.yaml", crate::kernel::spec(&home, "k").map(drop)),
        ];
        for (file, read) in readers {
            let message = read.expect_err(file).to_string();
            assert!(
                message.ends_with(&format!("{file}:1:1: the file has 257 KiB; at most 256 are read")),
                "{message}"
            );
        }
    }

    #[test]
    fn nothing_alike_is_not_suggested() {
        assert_eq!(nearest("zzz", ["open", "close"]), None);
        assert_eq!(nearest("ETXBUSY", ["EBUSY", "ETXTBSY", "EIO"]), Some("ETXTBSY"));
    }
}
