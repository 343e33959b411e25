// SPDX-License-Identifier: MIT OR Apache-2.0
//! Puts a case together: the shared steps it includes, its own, and groups written out as single steps.
//! Every step keeps the place it was written at, so that a fault names that file and line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Result;
use serde_json::Value;

use super::SHARED;
use super::faults::Faults;
use super::form::{Drawn, Form, RepeatForm, SharedForm, StepForm, StressForm, TogetherForm};
use super::limits::{
    LONGEST_STRESS_MS, MOST_CHOICES, MOST_INCLUDES, MOST_ROUNDS, MOST_STEPS, MOST_TOGETHER, SHORTEST_STRESS_MS,
};
use super::matrix::Combination;
use crate::path;
use crate::yaml::{Document, Key, unknown_word};

/// Where a step was written.
#[derive(Clone)]
pub(super) struct Place {
    document: Rc<Document>,
    path: Vec<Key>,
    /// What the round of a group adds to its ids: `.2`; empty elsewhere.
    pub(super) round: String,
    /// It was included.
    pub(super) shared: bool,
}

impl Place {
    /// A fault at this place or below it, in the words the file has.
    pub(super) fn fault(&self, below: &[Key], word: Option<&str>, message: &str) -> anyhow::Error {
        let path = [&self.path[..], below].concat();
        if self.round.is_empty() {
            return self.document.fault(&path, word, message);
        }
        let message = message.replace(&format!("{}`", self.round), "`");
        let word = word.map(|word| word.strip_suffix(self.round.as_str()).unwrap_or(word));
        self.document.fault(&path, word, &message)
    }

    fn at(&self, key: impl Into<Key>) -> Self {
        let mut place = self.clone();
        place.path.push(key.into());
        place
    }
}

/// One step and where it was written.
pub(super) struct Entry {
    pub(super) place: Place,
    /// What is known of it; with its id alone where it could not be read.
    pub(super) form: StepForm,
    pub(super) readable: bool,
    /// The first id of the group it is started with.
    pub(super) together: Option<String>,
}

/// A case as it is written, put together.
pub(super) struct Case {
    pub(super) form: Form,
    pub(super) entries: Vec<Entry>,
}

/// A scenario's file and the shared files it includes.
pub(super) struct Sources {
    main: Rc<Document>,
    pub(super) value: Value,
    shared: Vec<(String, Rc<Document>, Value)>,
}

impl Sources {
    /// Reads what the document includes from `shared/` below the first of the folders that has it.
    pub(super) fn read(document: &Document, folders: &[&Path]) -> Result<Self> {
        let value = document.parse()?;
        let names = value.get("include").and_then(Value::as_array);
        let names: Vec<String> =
            names.into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect();
        if names.len() > MOST_INCLUDES {
            let message = format!("at most {MOST_INCLUDES} shared files are included");
            return Err(document.fault(&path!["include"], None, &message));
        }
        let mut shared: Vec<(String, Rc<Document>, Value)> = Vec::new();
        for name in names {
            let fault = |message: &str| document.fault(&path!["include"], Some(&name), message);
            if shared.iter().any(|(known, ..)| *known == name) {
                return Err(fault(&format!("`{name}` is included twice")));
            }
            let known = shared_names(folders);
            let Some(path) = known.get(&name) else {
                let message = unknown_word("shared file", &name, known.keys().map(String::as_str));
                return Err(fault(&message));
            };
            let document = Document::read(path)?;
            let value = document.parse()?;
            shared.push((name, Rc::new(document), value));
        }
        Ok(Self { main: Rc::new(document.clone()), value, shared })
    }

    /// What its files say with a combination filled in, the shared ones first and under their names.
    pub(super) fn filled(&self, combination: &Combination) -> Vec<(Option<&str>, Value)> {
        let shared = self.shared.iter().map(|(name, _, raw)| (Some(name.as_str()), combination.fill(raw)));
        shared.chain([(None, combination.fill(&self.value))]).collect()
    }

    /// One case; `None` when its head could not be read.
    pub(super) fn compose(&self, combination: &Combination, faults: &mut Faults) -> Option<Case> {
        let value = combination.fill(&self.value);
        let mut head = value.clone();
        faults.keep(combination.set_keys(&self.main, &mut head))?;
        let mut form: Form = faults.keep(self.main.typed(head))?;
        let mut written = Vec::new();
        for (name, document, raw) in &self.shared {
            let value = combination.fill(raw);
            if let Err(fault) = self.parameters(raw, name, combination) {
                faults.push(fault);
                return None;
            }
            let shared: SharedForm = faults.keep(document.typed(value.clone()))?;
            faults.keep(self.merge(&mut form, shared, name));
            written.push((document.clone(), value, true));
        }
        written.push((self.main.clone(), value, false));
        let mut steps = Vec::new();
        for (document, value, shared) in &written {
            let own = value.get("steps").and_then(Value::as_array).into_iter().flatten();
            steps.extend(own.enumerate().map(|(nr, step)| {
                let path = path!["steps", nr].to_vec();
                (Place { document: document.clone(), path, round: String::new(), shared: *shared }, step)
            }));
        }
        // From outside a group its ids mean those of the last round.
        let last: Renamed = steps.iter().flat_map(|(_, step)| last_round(step)).collect();
        let mut entries = Vec::new();
        for (place, step) in steps {
            expand(&place, step, &last, &mut entries, faults);
            if entries.len() > MOST_STEPS {
                faults.push(place.fault(&[], None, &format!("a case has at most {MOST_STEPS} steps")));
                return None;
            }
        }
        Some(Case { form, entries })
    }

    /// What a shared file wants of the matrix.
    fn parameters(&self, raw: &Value, name: &str, combination: &Combination) -> Result<()> {
        let wanted = raw.get("parameters").and_then(Value::as_array).into_iter().flatten();
        let missing = wanted.filter_map(Value::as_str).find(|wanted| !combination.has(wanted));
        let Some(missing) = missing else { return Ok(()) };
        let message = format!("`{name}` wants a matrix parameter `{missing}`");
        Err(self.main.fault(&path!["include"], Some(name), &message))
    }

    fn merge(&self, form: &mut Form, shared: SharedForm, name: &str) -> Result<()> {
        let twice = |list: &str, word: &str| {
            let message = format!("the included `{name}` declares `{word}` already: rename it");
            self.main.fault(&path![list, word], None, &message)
        };
        for (file, setup) in shared.files {
            if form.files.contains_key(&file) {
                return Err(twice("files", &file));
            }
            form.files.insert(file, setup);
        }
        for (actor, setup) in shared.actors {
            if form.actors.contains_key(&actor) {
                return Err(twice("actors", &actor));
            }
            form.actors.insert(actor, setup);
        }
        Ok(())
    }
}

/// Shared files by name; of two folders that have one, the first counts.
fn shared_names(folders: &[&Path]) -> BTreeMap<String, PathBuf> {
    let mut names = BTreeMap::new();
    for folder in folders {
        let Ok(entries) = std::fs::read_dir(folder.join(SHARED)) else { continue };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if let (Some(stem), Some("yaml")) = (path.file_stem(), path.extension().and_then(|e| e.to_str())) {
                names.entry(stem.to_string_lossy().into_owned()).or_insert(path.clone());
            }
        }
    }
    names
}

/// Ids, and what stands for each.
type Renamed = BTreeMap<String, String>;

/// Ids that the steps of a group give, those of groups within it included.
fn ids_of(step: &Value) -> Vec<&str> {
    let inner = ["steps", "together"].into_iter().filter_map(|key| step.get(key)?.as_array());
    let inner = inner.flatten().flat_map(ids_of);
    step.get("id").and_then(Value::as_str).into_iter().chain(inner).collect()
}

fn last_round(step: &Value) -> Vec<(String, String)> {
    let Some(rounds) = step.get("repeat") else { return Vec::new() };
    ids_of(step).iter().map(|id| ((*id).to_owned(), format!("{id}.{rounds}"))).collect()
}

/// Renames every mention of an id.
fn rename(value: &mut Value, renamed: &Renamed) {
    let say = |text: &mut String| {
        if let Some(new) = renamed.get(text.as_str()) {
            text.clone_from(new);
        }
    };
    match value {
        Value::String(text) => {
            if let Some(new) = text.strip_prefix('$').and_then(|id| renamed.get(id)) {
                *text = format!("${new}");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, renamed)),
        Value::Object(map) => {
            for (key, item) in map.iter_mut() {
                match (key.as_str(), item) {
                    ("id" | "await" | "still" | "after" | "twin", Value::String(text)) => say(text),
                    ("needs", Value::Array(items)) => {
                        for item in items {
                            if let Value::String(text) = item {
                                say(text);
                            }
                        }
                    }
                    (_, item) => rename(item, renamed),
                }
            }
        }
        _ => {}
    }
}

fn expand(place: &Place, step: &Value, last: &Renamed, entries: &mut Vec<Entry>, faults: &mut Faults) {
    if step.get("repeat").is_some() {
        if let Err(fault) = repeat(place, step, last, entries, faults) {
            faults.push(fault);
            let ids = ids_of(step).into_iter().map(|id| last.get(id).cloned().unwrap_or_else(|| id.to_owned()));
            entries.extend(ids.map(|id| unreadable(place, Some(id), None)));
        }
        return;
    }
    let mut step = step.clone();
    rename(&mut step, last);
    if step.get("together").is_some() {
        let ids: Vec<String> = ids_of(&step).into_iter().map(str::to_owned).collect();
        if let Err(fault) = together(place, step, entries) {
            faults.push(fault);
            entries.extend(ids.into_iter().map(|id| unreadable(place, Some(id), None)));
        }
        return;
    }
    if step.get("stress").is_some() {
        faults.keep(stress(place, step, entries));
        return;
    }
    let word = |key: &str| step.get(key).and_then(Value::as_str).map(str::to_owned);
    let (id, collect) = (word("id"), word("await"));
    entries.push(match faults.keep(place.document.typed_at::<StepForm>(&place.path, step)) {
        Some(form) => Entry { place: place.clone(), form, readable: true, together: None },
        None => unreadable(place, id, collect),
    });
}

/// A step of which nothing is known but its id and what it waits for: later steps may name it, and that is
/// no fault of theirs.
fn unreadable(place: &Place, id: Option<String>, collect: Option<String>) -> Entry {
    let form = StepForm { id, collect, ..StepForm::default() };
    Entry { place: place.clone(), form, readable: false, together: None }
}

/// A group written out, round by round; within a round its ids mean those of the round.
fn repeat(
    place: &Place,
    step: &Value,
    last: &Renamed,
    entries: &mut Vec<Entry>,
    faults: &mut Faults,
) -> Result<()> {
    let group: RepeatForm = place.document.typed_at(&place.path, step.clone())?;
    if !(2..=MOST_ROUNDS).contains(&group.repeat) {
        let message = format!("a group is repeated 2 to {MOST_ROUNDS} times");
        return Err(place.fault(&path!["repeat"], None, &message));
    }
    let steps = step.get("steps").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let is_group = |step: &Value| step.get("repeat").is_some() || step.get("stress").is_some();
    if let Some(nr) = steps.iter().position(is_group) {
        return Err(place.at("steps").at(nr).fault(&[], None, "a group stands in no other group"));
    }
    for round in 1..=group.repeat {
        let mut renamed = last.clone();
        renamed.extend(ids_of(step).iter().map(|id| ((*id).to_owned(), format!("{id}.{round}"))));
        for (nr, step) in steps.iter().enumerate() {
            let mut place = place.at("steps").at(nr);
            place.round = format!(".{round}");
            expand(&place, step, &renamed, entries, faults);
        }
    }
    Ok(())
}

/// Operations of a group, each a started step.
fn together(place: &Place, step: Value, entries: &mut Vec<Entry>) -> Result<()> {
    let group: TogetherForm = place.document.typed_at(&place.path, step)?;
    let at = |nr: usize| place.at("together").at(nr);
    if !(2..=MOST_TOGETHER).contains(&group.together.len()) {
        let message = format!("2 to {MOST_TOGETHER} operations are started together");
        return Err(place.fault(&path!["together"], None, &message));
    }
    for (nr, one) in group.together.iter().enumerate() {
        if group.together[..nr].iter().any(|earlier| earlier.by == one.by) {
            let message = format!("`{}` does one thing at a time: give each operation an actor", one.by);
            return Err(at(nr).fault(&path!["by"], None, &message));
        }
    }
    let first = group.together[0].id.clone();
    entries.extend(group.together.into_iter().enumerate().map(|(nr, one)| Entry {
        place: at(nr),
        form: StepForm { id: Some(one.id), by: Some(one.by), start: Some(one.issue), ..StepForm::default() },
        readable: true,
        together: Some(first.clone()),
    }));
    Ok(())
}

/// Choices of a stress, each a step; its actor draws from those it has.
fn stress(place: &Place, step: Value, entries: &mut Vec<Entry>) -> Result<()> {
    let group: StressForm = place.document.typed_at(&place.path, step)?;
    if !(SHORTEST_STRESS_MS..=LONGEST_STRESS_MS).contains(&group.for_ms) {
        let message = format!("a stress lasts {SHORTEST_STRESS_MS} to {LONGEST_STRESS_MS} ms");
        return Err(place.fault(&path!["for_ms"], None, &message));
    }
    if group.actors.is_empty() {
        return Err(place.fault(&path!["actors"], None, "a stress without actors shows nothing"));
    }
    for (actor, choices) in group.actors {
        let at = place.at("actors").at(actor.as_str());
        if !(1..=MOST_CHOICES).contains(&choices.len()) {
            let message = format!("an actor draws from 1 to {MOST_CHOICES} operations");
            return Err(at.fault(&[], None, &message));
        }
        for (nr, one) in choices.into_iter().enumerate() {
            let drawn = Drawn {
                of: group.stress.clone(),
                for_ms: group.for_ms,
                reaches: one.reaches,
                never_within: one.never_within,
                after: one.after.clone(),
            };
            let form = StepForm {
                id: Some(one.id),
                by: Some(actor.clone()),
                issue: Some(one.issue),
                expect: one.expect,
                expect_by: one.expect_by,
                proves: one.proves,
                needs: one.after.into_iter().collect(),
                drawn: Some(drawn),
                ..StepForm::default()
            };
            entries.push(Entry { place: at.at(nr), form, readable: true, together: None });
        }
    }
    Ok(())
}
