// SPDX-License-Identifier: MIT OR Apache-2.0
//! Contracts: named sets of clauses that a kernel claims to keep, and the words scenarios share: phrases,
//! which each contract says in operations of its own, and features, which a kernel has or has not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
use holdfast_protocol::Op;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::outcome::bad_input;
use crate::path;
use crate::scenario::CONTRACTS;
use crate::yaml::{Document, unknown_word};

/// All contracts by name, and the features that kernels may have.
#[derive(Clone, Debug, Default)]
pub struct Contracts {
    by_name: BTreeMap<String, Contract>,
    features: BTreeMap<String, String>,
    phrases: BTreeMap<String, Phrase>,
    /// Clauses that several contracts have.
    common: BTreeMap<String, BTreeMap<String, String>>,
    /// By list of common clauses the contracts that have it.
    having: BTreeMap<String, BTreeSet<String>>,
    folders: Vec<PathBuf>,
}

/// What proposals call differently.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Phrase {
    #[expect(dead_code, reason = "for people; it must be there")]
    about: String,
    /// What a step that uses it gives in `with`, whether its contract needs it or not.
    #[serde(default)]
    parameters: BTreeSet<String>,
}

/// What one kind of kernel promises.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// What it stands for, in a sentence.
    pub about: String,
    /// Clause ids and what each promises.
    #[serde(default)]
    pub clauses: BTreeMap<String, String>,
    /// Names of common clauses that it has as well; written out when it is read.
    #[serde(default, skip_serializing)]
    has: Vec<String>,
    /// Splats that kernels under it are known to print.
    #[serde(default)]
    pub splats: Vec<DeclaredSplat>,
    /// Features that every kernel under it has.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub features: BTreeSet<String>,
    /// What a step `use: NAME` does under it: operations, in which `$name` is a parameter of the phrase.
    /// One that is absent, or an empty list, says that there is nothing to do.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub phrases: BTreeMap<String, Vec<Value>>,
}

/// A splat that is expected, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredSplat {
    /// Its title, as reports print it.
    pub title: String,
    /// Why a kernel under this contract prints it.
    pub reason: String,
}

/// The clause that a look for damage proves, if the contract has it: nothing is written into another file.
pub const NO_STALE_WRITE: &str = "no-stale-write";
/// Nor read out of it.
pub const NO_STALE_READ: &str = "no-stale-read";
/// The clause that the standing oracles prove after every case, if the contract has it.
pub const PINS_BALANCED: &str = "pins-balanced";
/// The keys of `contracts.yaml` that are no contracts.
const FEATURES: &str = "features";
const PHRASES: &str = "phrases";
const COMMON: &str = "common";
/// An opt-in of more calls than this is a scenario.
pub const MOST_OPS_OF_A_PHRASE: usize = 8;

impl Contracts {
    /// Reads the `contracts.yaml` of each folder that has one. A later folder adds contracts and features,
    /// and clauses, splats and phrases to contracts of an earlier one; it changes nothing.
    ///
    /// # Errors
    /// Bad input with file, line and column.
    pub fn load(folders: impl Iterator<Item = PathBuf>) -> Result<Self> {
        let mut all = Self::default();
        for (nr, folder) in folders.enumerate() {
            let path = folder.join(CONTRACTS);
            // A person's own folder need not have any.
            if nr == 0 || path.is_file() {
                all.add(&Document::read(&path)?)?;
            }
            all.folders.push(folder);
        }
        Ok(all)
    }

    fn add(&mut self, document: &Document) -> Result<()> {
        let mut value = document.parse()?;
        let mut take = |key: &str| value.as_object_mut().and_then(|map| map.shift_remove(key));
        let (features, phrases, common) = (take(FEATURES), take(PHRASES), take(COMMON));
        declare(&mut self.features, features, (FEATURES, "feature"), document)?;
        declare(&mut self.phrases, phrases, (PHRASES, "phrase"), document)?;
        declare(&mut self.common, common, (COMMON, "list of clauses"), document)?;
        let more: BTreeMap<String, Contract> = document.typed(value)?;
        for (name, mut contract) in more {
            self.check(&name, &contract, document)?;
            self.write_out(&name, &mut contract, document)?;
            let Some(known) = self.by_name.get_mut(&name) else {
                self.by_name.insert(name, contract);
                continue;
            };
            let twice = |what: &str, list: &str, word: &str| {
                let message = format!("the contract {name} has a {what} `{word}` already: rename it");
                document.fault(&path![name.as_str(), list, word], None, &message)
            };
            for (clause, promise) in contract.clauses {
                if known.clauses.contains_key(&clause) {
                    return Err(twice("clause", "clauses", &clause));
                }
                known.clauses.insert(clause, promise);
            }
            for (phrase, ops) in contract.phrases {
                if known.phrases.contains_key(&phrase) {
                    return Err(twice("phrase", "phrases", &phrase));
                }
                known.phrases.insert(phrase, ops);
            }
            known.splats.extend(contract.splats);
            known.features.extend(contract.features);
        }
        Ok(())
    }

    /// Adds the common clauses that a contract has.
    fn write_out(&mut self, name: &str, contract: &mut Contract, document: &Document) -> Result<()> {
        for list in std::mem::take(&mut contract.has) {
            self.having.entry(list.clone()).or_default().insert(name.to_owned());
            let Some(common) = self.common.get(&list) else {
                let message = unknown_word("list of clauses", &list, self.common.keys().map(String::as_str));
                return Err(document.fault(&path![name, "has"], Some(&list), &message));
            };
            if let Some(twice) = common.keys().find(|clause| contract.clauses.contains_key(*clause)) {
                let message = format!("`{list}` has the clause `{twice}` already: rename it");
                return Err(document.fault(&path![name, "clauses", twice.as_str()], None, &message));
            }
            contract.clauses.extend(common.clone());
        }
        Ok(())
    }

    /// The contracts that a scenario's words mean: a list of common clauses stands for every contract that has it,
    /// those of a person's own among them.
    #[must_use]
    pub fn meant(&self, keys: &[String]) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for key in keys {
            let (name, features) = key.split_at(key.find('+').unwrap_or(key.len()));
            let list = self.having.get(name).filter(|_| !self.by_name.contains_key(name));
            let meant = match list {
                Some(having) => having.iter().map(|one| format!("{one}{features}")).collect(),
                None => vec![key.clone()],
            };
            all.extend(meant);
        }
        let mut seen = BTreeSet::new();
        all.retain(|key| seen.insert(key.clone()));
        all
    }

    /// Lists of common clauses that some contract has, by name.
    pub fn lists(&self) -> impl Iterator<Item = &str> {
        self.having.keys().map(String::as_str)
    }

    fn check(&self, name: &str, contract: &Contract, document: &Document) -> Result<()> {
        if name.contains('+') {
            let message = "`+` joins a contract and a feature, and stands in no name";
            return Err(document.fault(&path![name], None, message));
        }
        if self.common.contains_key(name) {
            let message = format!("`{name}` is a list of clauses already: rename it");
            return Err(document.fault(&path![name], None, &message));
        }
        if let Some(feature) = contract.features.iter().find(|one| !self.features.contains_key(*one)) {
            let message = unknown_word("feature", feature, self.features());
            return Err(document.fault(&path![name, FEATURES], Some(feature), &message));
        }
        for (phrase, ops) in &contract.phrases {
            let at = path![name, "phrases", phrase.as_str()];
            if ops.len() > MOST_OPS_OF_A_PHRASE {
                let message = format!("a phrase is at most {MOST_OPS_OF_A_PHRASE} operations");
                return Err(document.fault(&at, None, &message));
            }
            for (nr, op) in ops.iter().enumerate() {
                let place = [&at[..], &path![nr]].concat();
                // What a parameter stands for is known where the phrase is used.
                let typed = document.typed_at::<Op>(&place, op.clone());
                typed.map(drop).or_else(|fault| match fault.to_string().contains('$') {
                    true => Ok(()),
                    false => Err(fault),
                })?;
            }
        }
        Ok(())
    }

    /// A contract by its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Contract> {
        self.by_name.get(name)
    }

    /// A contract by a name the user gave.
    ///
    /// # Errors
    /// Bad input with the nearest name.
    pub fn find(&self, name: &str) -> Result<&Contract> {
        self.get(name).ok_or_else(|| bad_input(unknown_word("contract", name, self.names())))
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Names of all features.
    pub fn features(&self) -> impl Iterator<Item = &str> {
        self.features.keys().map(String::as_str)
    }

    /// What a feature is, in a sentence.
    #[must_use]
    pub fn feature(&self, name: &str) -> Option<&str> {
        self.features.get(name).map(String::as_str)
    }

    /// Names of all phrases.
    #[must_use]
    pub fn phrases(&self) -> BTreeSet<&str> {
        let said = self.by_name.values().flat_map(|one| one.phrases.keys());
        said.chain(self.phrases.keys()).map(String::as_str).collect()
    }

    /// Names of a phrase's parameters: those that were declared and those that contracts use.
    #[must_use]
    pub fn parameters(&self, phrase: &str) -> BTreeSet<String> {
        let mut names = self.phrases.get(phrase).map(|one| one.parameters.clone()).unwrap_or_default();
        let said = self.by_name.values().filter_map(|one| one.phrases.get(phrase));
        said.flatten().for_each(|op| parameters(op, &mut names));
        names
    }

    /// The folders they were read from, in order: also where shared steps lie.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        self.folders.iter().map(PathBuf::as_path)
    }

    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Self {
        let mut all = Self::default();
        let document = Document { file: "contracts.yaml".into(), text: text.into() };
        all.add(&document).expect("a test's contracts");
        all
    }
}

impl Contract {
    /// The operations a phrase stands for, each `$name` of its own replaced; none where the contract does
    /// not know the phrase.
    ///
    /// # Errors
    /// A message when a parameter is missing or a value does not fit.
    pub fn phrase(&self, name: &str, with: &BTreeMap<String, Value>) -> Result<Vec<Op>, String> {
        let replaced = |op: &Value| {
            let mut op = op.clone();
            replace(&mut op, with).map_err(|missing| format!("`{missing}` is missing in `with`"))?;
            let shown = op.clone();
            serde_path_to_error::deserialize(op).map_err(|error| format!("{shown}: {}", error.inner()))
        };
        self.phrases.get(name).map_or(&[][..], Vec::as_slice).iter().map(replaced).collect()
    }
}

/// Adds what a key of the file declares; nothing may be there already.
fn declare<T: DeserializeOwned>(
    known: &mut BTreeMap<String, T>,
    value: Option<Value>,
    (key, what): (&str, &str),
    document: &Document,
) -> Result<()> {
    let Some(value) = value else { return Ok(()) };
    let more: BTreeMap<String, T> = document.typed_at(&path![key], value)?;
    if let Some(twice) = more.keys().find(|name| known.contains_key(*name)) {
        let message = format!("there is a {what} `{twice}` already: rename it");
        return Err(document.fault(&path![key, twice.as_str()], None, &message));
    }
    known.extend(more);
    Ok(())
}

fn replace(value: &mut Value, with: &BTreeMap<String, Value>) -> Result<(), String> {
    match value {
        Value::String(text) => {
            if let Some(name) = text.strip_prefix('$') {
                *value = with.get(name).ok_or(name)?.clone();
            }
            Ok(())
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| replace(item, with)),
        Value::Object(map) => map.values_mut().try_for_each(|item| replace(item, with)),
        _ => Ok(()),
    }
}

fn parameters(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => names.extend(text.strip_prefix('$').map(str::to_owned)),
        Value::Array(items) => items.iter().for_each(|item| parameters(item, names)),
        Value::Object(map) => map.values().for_each(|item| parameters(item, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
features: {odp: pages are faulted in when they are used}
phrases: {opt-in: {about: x, parameters: [map]}, opt-out: {about: x}}
common: {all: {c: d}}
mine:
  about: a proposal
  features: [odp]
  clauses: {a: b}
  phrases:
    opt-in: [{truncate: {fd: $fd, size_kib: $size}}, {close: {fd: $fd}}]
    nothing: []
";

    fn fault(text: &str) -> String {
        let document = Document { file: "c.yaml".into(), text: text.into() };
        Contracts::default().add(&document).unwrap_err().to_string()
    }

    #[test]
    fn a_phrase_is_said_with_its_parameters() {
        let all = Contracts::of(GOOD);
        let mine = all.get("mine").unwrap();
        assert_eq!(all.parameters("opt-in").into_iter().collect::<Vec<_>>(), ["fd", "map", "size"]);
        assert!(all.phrases().contains("opt-out"), "declared, and said by no contract");
        let with = |values: &[(&str, Value)]| -> BTreeMap<String, Value> {
            values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
        };
        let ops = mine.phrase("opt-in", &with(&[("fd", "$f".into()), ("size", 4.into())])).unwrap();
        let shown = serde_json::to_string(&ops).unwrap();
        assert_eq!(shown, r#"[{"truncate":{"fd":"$f","size_kib":4}},{"close":{"fd":"$f"}}]"#);
        assert_eq!(mine.phrase("nothing", &with(&[])).unwrap(), []);
        assert_eq!(mine.phrase("unknown", &with(&[])).unwrap(), []);
        let missing = mine.phrase("opt-in", &with(&[("fd", "$f".into())])).unwrap_err();
        assert_eq!(missing, "`size` is missing in `with`");
        let unfit = mine.phrase("opt-in", &with(&[("fd", "$f".into()), ("size", "x".into())])).unwrap_err();
        assert!(unfit.contains("invalid type"), "{unfit}");
    }

    #[test]
    fn mistakes_are_told_with_place_and_the_nearest_word() {
        let table = [
            ("[odp]", "[opd]", "c.yaml:6:14: mine.features: unknown feature `opd`; did you mean `odp`?"),
            ("{close:", "{cloze:", "c.yaml:9:55: mine.phrases.opt-in[1]: unknown word `cloze`; did you mean"),
            ("clauses:", "clausez:", "c.yaml:7:3: mine: unknown field `clausez`; did you mean `clauses`?"),
            ("mine:", "mi+ne:", "c.yaml:5:3: mi+ne: `+` joins"),
            ("{odp: pages", "{odp: [pages", "c.yaml:1:"),
            (
                "clauses: {a: b}",
                "has: [al]",
                "c.yaml:7:9: mine.has: unknown list of clauses `al`; did you mean",
            ),
            (
                "clauses: {a: b}",
                "has: [all]\n  clauses: {c: x}",
                "c.yaml:8:16: mine.clauses.c: `all` has the clause `c`",
            ),
            ("parameters: [map]", "parameter: [map]", "c.yaml:2:30: phrases.opt-in: unknown field `parameter`"),
        ];
        for (from, to, start) in table {
            let message = fault(&GOOD.replacen(from, to, 1));
            assert!(message.starts_with(start), "{to}:\n  {message}\n  {start}");
        }
        let long = GOOD.replacen("[]", &format!("[{}]", "{pipe: {}}, ".repeat(9)), 1);
        assert!(fault(&long).contains("mine.phrases.nothing: a phrase is at most 8 operations"));
    }

    #[test]
    fn a_second_folder_adds_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
        let load = |text: &str| {
            for (path, text) in [(&ours, GOOD), (&theirs, text)] {
                std::fs::create_dir_all(path).unwrap();
                std::fs::write(path.join(CONTRACTS), text).unwrap();
            }
            Contracts::load([ours.clone(), theirs.clone()].into_iter())
        };
        let more = "features: {evict: e}\nmine: {about: x, clauses: {c: d}, phrases: {opt-out: []}, features: [evict]}\n";
        let mine = load(more).unwrap().get("mine").unwrap().clone();
        assert_eq!((mine.about.as_str(), mine.clauses.len(), mine.phrases.len()), ("a proposal", 2, 3));
        assert_eq!(mine.features.len(), 2);
        let twice = "mine: {about: x, clauses: {}, phrases: {opt-in: []}}\n";
        let message = load(twice).unwrap_err().to_string();
        assert!(message.ends_with("has a phrase `opt-in` already: rename it"), "{message}");
        let twice = load("features: {odp: x}\n").unwrap_err().to_string();
        assert!(twice.ends_with("there is a feature `odp` already: rename it"), "{twice}");
    }

    #[test]
    fn a_list_of_clauses_stands_for_every_contract_that_has_it() {
        let contracts = Contracts::of(
            "features: {f: a}\ncommon: {all: {c: d}, none: {e: d}}\na: {about: a, has: [all], clauses: {}}\nb: {about: b, clauses: {x: y}}\nm: {about: m, has: [all], clauses: {}}\n",
        );
        let meant =
            |keys: &[&str]| contracts.meant(&keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>());
        assert_eq!(meant(&["all"]), ["a", "m"]);
        assert_eq!(meant(&["b", "m", "all+f", "all"]), ["b", "m", "a+f", "m+f", "a"]);
        assert_eq!(meant(&["none", "al"]), ["none", "al"], "the checker says what is wrong with them");
        assert_eq!(contracts.lists().collect::<Vec<_>>(), ["all"]);
    }
}
