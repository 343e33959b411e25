// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the form to the meaning: every name must be declared, every handle must come from an
//! earlier step, every claim must be one that can fail. All without a VM, and every fault at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;
use holdfast_protocol::Op;
use serde_json::Value;

use super::actors::step_of;
use super::compose::{Case, Entry, Sources};
use super::expect::Expect;
use super::faults::Faults;
use super::form::{Drawn, Form, StepForm};
use super::head::Breaks;
use super::limits::{LONGEST_CASE_ID, LONGEST_NAME};
use super::names::{is_signal, signals};
use super::under;
use super::uses::{Thing, name, uses};
use super::{Action, DEFAULT_STILL_MS, ELSE, Scenario, Step, broken, matrix, pins};
use crate::contract::Contracts;
use crate::outcome::bad_input;
use crate::path;
use crate::yaml::{Document, Key, unknown_word};

/// The checked cases of one document.
pub(super) fn scenarios(
    document: &Document,
    file: &Path,
    stem: &str,
    contracts: &Contracts,
) -> Result<Vec<Scenario>> {
    let own = file.parent();
    let folders: Vec<&Path> = own.into_iter().chain(contracts.folders()).collect();
    let sources = Sources::read(document, &folders)?;
    let mut faults = Faults::default();
    let mut all = Vec::new();
    for combination in matrix::combinations(document, &sources.value)? {
        let Some(mut case) = sources.compose(&combination, &mut faults) else { continue };
        case.form.contracts = contracts.meant(&case.form.contracts);
        let id = format!("{stem}{}", combination.suffix);
        if id.chars().count() > LONGEST_CASE_ID {
            let message = format!("the id `{id}` of a case has more than {LONGEST_CASE_ID} letters");
            faults.push(document.fault(&path!["matrix"], None, &message));
        }
        let mut found = Faults::default();
        let (form, entries) = (&case.form, case.entries.as_slice());
        let checker =
            Checker { document, form, entries, contracts, done: BTreeMap::new(), born: BTreeMap::new() };
        let breaks = checker.check(&mut found);
        let whole = found.is_empty() && case.entries.iter().all(|entry| entry.readable);
        faults.extend(found);
        if whole {
            let scenario = meaning(&case, breaks, file, id);
            as_a_whole(&scenario, &case.entries, document, contracts, &mut faults);
            all.push(scenario);
        }
    }
    faults.into_result().map(|()| all)
}

/// What only shows when all steps are looked at under each contract.
fn as_a_whole(
    scenario: &Scenario,
    entries: &[Entry],
    document: &Document,
    contracts: &Contracts,
    faults: &mut Faults,
) {
    for under in under::all(scenario, contracts) {
        let steps = under::written(scenario, &under).steps;
        for (id, message) in pins::unshown(&steps) {
            let of = |step: &Step| step.id == id || id.starts_with(&format!("{}.", step.id));
            if let Some(nr) = scenario.steps.iter().position(of) {
                faults.push(entries[nr].place.fault(&[], None, &message));
            }
        }
        for (key, clause, message) in broken::check(scenario, &under, &steps) {
            let at = path!["expect_broken", key.as_str(), clause.as_str()];
            faults.push(document.fault(&at, None, &message));
        }
    }
}

/// What earlier steps made.
#[derive(Default)]
pub(super) struct Made<'a> {
    /// Number of the step.
    nr: usize,
    pub(super) by: &'a str,
    pub(super) result: Option<Thing>,
    /// It may still be under way: started, or allowed to block.
    open: bool,
    pub(super) does: Option<String>,
    /// The stress at whose end it is let go.
    of_stress: Option<&'a str>,
    /// Nothing is known of it, because it could not be read: it fits everywhere.
    pub(super) unknown: bool,
    /// The machine has lost its power since.
    cut: bool,
}

pub(super) struct Checker<'a> {
    pub(super) document: &'a Document,
    pub(super) form: &'a Form,
    pub(super) entries: &'a [Entry],
    pub(super) contracts: &'a Contracts,
    pub(super) done: BTreeMap<String, Made<'a>>,
    /// Actors that a fork has made: their parents, and the number of the step.
    pub(super) born: BTreeMap<&'a str, (&'a str, usize)>,
}

impl<'a> Checker<'a> {
    fn check(mut self, faults: &mut Faults) -> Breaks {
        let breaks = self.head(faults);
        self.threads(faults);
        for (step, by, does) in faults.keep(self.handler_steps()).unwrap_or_default() {
            self.done.insert(step, Made { by, open: true, does, ..Made::default() });
        }
        let mut astray = false;
        for (nr, entry) in self.entries.iter().enumerate() {
            let checked = match entry.readable {
                true => self.step(nr, &entry.form),
                false => Ok(()),
            };
            astray |= entry.form.collect.is_some() && (checked.is_err() || !entry.readable);
            faults.keep(checked);
            // Whatever it is, later steps may name it.
            let by = entry.form.by.as_deref().unwrap_or_default();
            let unknown = Made { nr, by, open: true, unknown: true, ..Made::default() };
            self.done.entry(id_of(nr, &entry.form)).or_insert(unknown);
        }
        faults.keep(self.handler_handles());
        for (nr, entry) in self.entries.iter().enumerate().filter(|(_, entry)| entry.readable) {
            faults.keep(self.twin(nr, &entry.form));
            let made = &self.done[&id_of(nr, &entry.form)];
            // A wait that is wrong itself may have been meant for it.
            if entry.form.start.is_some() && made.open && !made.unknown && !astray {
                let message = "it is started and never awaited: add an `await` step";
                faults.push(self.fault(nr, &[], message));
            }
        }
        breaks
    }

    fn step(&mut self, nr: usize, step: &'a StepForm) -> Result<()> {
        self.id(nr, step)?;
        self.action(nr, step)?;
        self.expectation(nr, step)?;
        self.results(nr, step)?;
        self.claims(nr, step)
    }

    pub(super) fn fault(&self, nr: usize, below: &[Key], message: &str) -> anyhow::Error {
        self.word_fault(nr, below, None, message)
    }

    pub(super) fn word_fault(
        &self,
        nr: usize,
        below: &[Key],
        word: Option<&str>,
        message: &str,
    ) -> anyhow::Error {
        self.entries[nr].place.fault(below, word, message)
    }

    fn id(&self, nr: usize, step: &StepForm) -> Result<()> {
        let Some(id) = &step.id else { return Ok(()) };
        let at = &path!["id"];
        let written = id.strip_suffix(self.entries[nr].place.round.as_str()).unwrap_or(id);
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if self.done.contains_key(id) {
            return Err(self.fault(nr, at, &format!("`{id}` is the id of an earlier step")));
        }
        if written.is_empty() || !written.chars().all(plain) {
            return Err(self.fault(nr, at, "an id is made of small letters, digits and underscores"));
        }
        if written.len() > LONGEST_NAME {
            return Err(self.fault(nr, at, &format!("an id has at most {LONGEST_NAME} letters")));
        }
        if self.form.matrix.contains_key(written) {
            return Err(self.fault(nr, at, &format!("`{id}` is a matrix parameter already")));
        }
        Ok(())
    }

    fn action(&mut self, nr: usize, step: &'a StepForm) -> Result<()> {
        let given = [
            step.issue.is_some(),
            step.start.is_some(),
            step.phrase.is_some(),
            step.collect.is_some(),
            step.still.is_some(),
            step.power.is_some(),
        ];
        if given.iter().filter(|given| **given).count() != 1 {
            let message = "a step has exactly one of `do`, `start`, `use`, `await`, `still`, `power` (or is a group: `together`, `repeat`)";
            return Err(self.fault(nr, &[], message));
        }
        if step.for_ms.is_some() && step.still.is_none() {
            return Err(self.fault(
                nr,
                &path!["for_ms"],
                "`for_ms` goes with `still`; to wait longer use `within_ms`",
            ));
        }
        if step.with.is_some() && step.phrase.is_none() {
            return Err(self.fault(nr, &path!["with"], "`with` goes with `use`"));
        }
        if step.power.is_some() {
            return self.power_cut(nr, step);
        }
        if let Some(id) = step.collect.as_ref().or(step.still.as_ref()) {
            return self.collect(nr, step, id);
        }
        let Some(by) = &step.by else {
            return Err(self.fault(nr, &[], "`by` is missing: who does it?"));
        };
        self.actor(nr, &path!["by"], by)?;
        self.is_there(nr, &path!["by"], by)?;
        let field = match (step.start.is_some(), &self.entries[nr].together) {
            (true, None) => "start",
            _ => "do",
        };
        let result = match (step.issue.as_ref().or(step.start.as_ref()), &step.phrase) {
            (Some(op), _) => {
                self.op(nr, &path![field, name(op).as_str()], by, op)?;
                if step.start.is_some() && uses(op).by_session {
                    let message = "the session does this, and waits: it is a `do`";
                    return Err(self.fault(nr, &path![field], message));
                }
                let ends =
                    matches!(op, Op::Connect(_) | Op::Fork(_) | Op::Execve(_) | Op::Exit(_) | Op::Program(_));
                if step.drawn.is_some() && (uses(op).by_session || ends) {
                    let message =
                        format!("`{}` is nothing to draw: it takes too long, or needs the session", name(op));
                    return Err(self.fault(nr, &path![field], &message));
                }
                if let (true, Some(child)) = (uses(op).forks, uses(op).actor) {
                    self.birth(nr, field, by, child, op)?;
                }
                uses(op).result
            }
            (None, Some(phrase)) => self.phrase(nr, by, phrase, step)?,
            (None, None) => return Ok(()),
        };
        let of_stress = step.drawn.as_ref().map(|drawn| drawn.of.as_str());
        let blocks = of_stress.is_none() && step.all_expectations().any(Expect::may_block);
        let open = step.start.is_some() || blocks;
        let made = Made { nr, by, result, open, does: step.does(), of_stress, ..Made::default() };
        self.done.insert(id_of(nr, step), made);
        Ok(())
    }

    /// A phrase under each contract that the scenario says something about; what it results in, where
    /// that is the same under all of them.
    fn phrase(&self, nr: usize, by: &str, phrase: &str, step: &StepForm) -> Result<Option<Thing>> {
        let empty = BTreeMap::new();
        let with = step.with.as_ref().unwrap_or(&empty);
        if let Some((key, word, message)) = self.unknown_phrase(phrase, with) {
            return Err(self.word_fault(nr, &path![key], Some(&word), &message));
        }
        for id in with.values().filter_map(Value::as_str).filter_map(|text| text.strip_prefix('$')) {
            if !self.done.contains_key(id) {
                let message = self.no_handle(nr, id);
                return Err(self.word_fault(nr, &path!["with"], Some(&format!("${id}")), &message));
            }
        }
        let mut results = Vec::new();
        for contract in &self.form.contracts {
            let contract = under::split(contract).0;
            let Some(described) = self.contracts.get(contract) else { continue };
            let under = |why: String| format!("under {contract}: {why}");
            let ops = described.phrase(phrase, with);
            let ops = ops.map_err(|why| self.fault(nr, &path!["use"], &under(why)))?;
            for op in &ops {
                let checked = self.op(nr, &path!["with"], by, op);
                checked.map_err(|fault| {
                    let text = fault.to_string();
                    let (place, why) = text.split_once(": ").unwrap_or(("", &text));
                    bad_input(format!("{place}: {}", under(format!("`{phrase}` is `{}`: {why}", name(op)))))
                })?;
            }
            results.push(ops.last().and_then(|op| uses(op).result));
        }
        results.dedup();
        Ok(if results.len() == 1 { results[0] } else { None })
    }

    /// A phrase or a parameter that no contract knows: the key it stands at, the word, what is wrong.
    pub(super) fn unknown_phrase(
        &self,
        phrase: &str,
        with: &BTreeMap<String, Value>,
    ) -> Option<(&'static str, String, String)> {
        let known = self.contracts.phrases();
        if !known.contains(phrase) {
            return Some(("use", phrase.to_owned(), unknown_word("phrase", phrase, known)));
        }
        let parameters = self.contracts.parameters(phrase);
        let unknown = with.keys().find(|name| !parameters.contains(name.as_str()))?;
        let message = unknown_word("parameter", unknown, parameters.iter().map(String::as_str));
        Some(("with", unknown.clone(), message))
    }

    fn collect(&mut self, nr: usize, step: &StepForm, id: &str) -> Result<()> {
        let field = if step.collect.is_some() { "await" } else { "still" };
        if let Some(by) = &step.by {
            let message = format!("`{field}` has no `by`: `{by}` is known from the step it names");
            return Err(self.fault(nr, &path!["by"], &message));
        }
        match self.done.get_mut(id) {
            Some(made) if made.open => made.open = field == "still" || made.unknown,
            Some(made) if made.cut => {
                let message = format!("`{id}` never comes back: the machine has lost its power since");
                return Err(self.fault(nr, &path![field], &message));
            }
            Some(_) => {
                let message =
                    format!("`{id}` is neither started nor expected to block, or was awaited already");
                return Err(self.fault(nr, &path![field], &message));
            }
            None => {
                let message = unknown_word("step", id, self.earlier(nr));
                return Err(self.fault(nr, &path![field], &message));
            }
        }
        let by = self.done[id].by;
        self.done.insert(id_of(nr, step), Made { nr, by, ..Made::default() });
        Ok(())
    }

    /// Nothing of what was made is there any more, and nothing that was on its way comes back.
    fn power_cut(&mut self, nr: usize, step: &StepForm) -> Result<()> {
        let others = [
            ("by", step.by.is_some()),
            ("expect", step.expect.is_some() || step.expect_by.is_some()),
            ("results", step.results.is_some()),
            ("proves", !step.proves.is_empty()),
            ("within_ms", step.within_ms.is_some()),
            ("not_before_ms", step.not_before_ms.is_some()),
            ("not_after_ms", step.not_after_ms.is_some()),
            ("twin", step.twin.is_some()),
            ("needs", !step.needs.is_empty()),
        ];
        if let Some((field, _)) = others.iter().find(|(_, given)| *given) {
            let message = format!("`power: cut` has no `{field}`: the machine comes back, or the case is red");
            return Err(self.fault(nr, &path![*field], &message));
        }
        if !self.entries[nr].place.round.is_empty() {
            return Err(self.fault(nr, &[], "`power: cut` stands in no group"));
        }
        // Handlers are there again, with their actors.
        let handled =
            self.handlers().flat_map(|(_, handler, one)| one.run.iter().map(move |run| (handler, run)));
        let handled: BTreeSet<String> = handled.map(|(handler, run)| step_of(handler, &run.id)).collect();
        for (_, made) in self.done.iter_mut().filter(|(id, _)| !handled.contains(*id)) {
            (made.open, made.cut) = (false, true);
        }
        self.born.clear();
        self.done.insert(id_of(nr, step), Made { nr, ..Made::default() });
        Ok(())
    }

    fn actor(&self, nr: usize, below: &[Key], actor: &str) -> Result<()> {
        if self.form.actors.contains_key(actor) {
            return Ok(());
        }
        let message = unknown_word("actor", actor, self.form.actors.keys().map(String::as_str));
        Err(self.word_fault(nr, below, Some(actor), &message))
    }

    fn op(&self, nr: usize, below: &[Key], by: &str, op: &Op) -> Result<()> {
        let uses = uses(op);
        if let Some(fault) = uses.fault {
            return Err(self.fault(nr, below, fault));
        }
        if let Some(file) = uses.files.iter().copied().find(|file| !self.form.files.contains_key(*file)) {
            let message = unknown_word("file", file, self.form.files.keys().map(String::as_str));
            return Err(self.word_fault(nr, below, Some(file), &message));
        }
        if let Some(actor) = uses.actor {
            self.actor(nr, below, actor)?;
            if !uses.forks {
                self.is_there(nr, below, actor)?;
            }
        }
        if let Some(signal) = uses.signal.filter(|signal| !is_signal(signal)) {
            let message = unknown_word("signal", signal, signals());
            return Err(self.word_fault(nr, below, Some(signal), &message));
        }
        if let Some(handler) = uses.handler {
            self.has_handler(nr, below, by, handler)?;
        }
        if matches!(op, Op::Fork(_) | Op::Execve(_) | Op::Program(_)) && self.has_threads(by) {
            let message = "its process has other threads, which fork and execve would take away, and a program be \
                           taken for one of theirs";
            return Err(self.fault(nr, below, message));
        }
        if uses.rdma {
            for actor in [Some(by), uses.actor].into_iter().flatten() {
                if !self.form.actors[self.process_of(actor)].rdma {
                    let message = format!("actor `{actor}` has no RDMA device: declare it `{{rdma: true}}`");
                    return Err(self.fault(nr, below, &message));
                }
            }
        }
        for (handle, wanted) in &uses.handles {
            self.handle(nr, below, by, handle.id(), *wanted, uses.foreign)?;
        }
        Ok(())
    }

    fn handle(&self, nr: usize, below: &[Key], by: &str, id: &str, wanted: Thing, foreign: bool) -> Result<()> {
        let word = format!("${id}");
        let Some(made) = self.done.get(id) else {
            return Err(self.word_fault(nr, below, Some(&word), &self.no_handle(nr, id)));
        };
        if made.unknown {
            return Ok(());
        }
        if made.cut {
            let message = format!("`{word}` went when the machine lost its power: make it again");
            return Err(self.word_fault(nr, below, Some(&word), &message));
        }
        let stress = self.entries[nr].form.drawn.as_ref().map(|drawn| drawn.of.as_str());
        if let Some(of) = made.of_stress.filter(|of| stress != Some(of)) {
            let message = format!("`{word}` is let go at the end of the stress `{of}`");
            return Err(self.word_fault(nr, below, Some(&word), &message));
        }
        if !wanted.is_met_by(made.result) {
            let result = made.result.map_or("nothing", Thing::name);
            let message = format!("`{word}` must be {}, and step `{id}` results in {result}", wanted.name());
            return Err(self.word_fault(nr, below, Some(&word), &message));
        }
        if !foreign && !self.inherits(by, made.by, made.nr) {
            let message = format!("`{word}` belongs to `{}`, not to `{by}`", made.by);
            return Err(self.word_fault(nr, below, Some(&word), &message));
        }
        Ok(())
    }

    /// What is said of a handle that no earlier step makes.
    fn no_handle(&self, nr: usize, id: &str) -> String {
        let later = self.entries.iter().skip(nr).any(|entry| entry.form.id.as_deref() == Some(id));
        if later {
            return format!("`${id}` is what a later step results in");
        }
        let results = |id: &&str| self.done.get(*id).is_none_or(|made| made.result.is_some() || made.unknown);
        unknown_word("handle", id, self.earlier(nr).filter(results))
    }

    /// Ids that a step may name, as it would write them: within a round those of the round.
    pub(super) fn earlier(&self, nr: usize) -> impl Iterator<Item = &str> {
        let round = self.entries[nr].place.round.as_str();
        self.done.keys().filter(|id| !id.starts_with('#')).filter_map(move |id| {
            match (round, id.split_once('.')) {
                (_, None) | ("", _) => Some(id.as_str()),
                (_, Some(_)) => id.strip_suffix(round),
            }
        })
    }

    /// The machine has lost its power since.
    pub(super) fn is_cut(&self, id: &str) -> bool {
        self.done.get(id).is_some_and(|made| made.cut)
    }

    pub(super) fn by_of(&self, id: &str) -> Option<&str> {
        self.done.get(id).map(|made| made.by)
    }
}

pub(super) fn id_of(nr: usize, step: &StepForm) -> String {
    step.id.clone().unwrap_or_else(|| format!("#{}", nr + 1))
}

fn meaning(case: &Case, breaks: Breaks, file: &Path, id: String) -> Scenario {
    let Case { form, entries } = case;
    let sysctl = form.sysctl.iter().map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (name.clone(), value)
    });
    Scenario {
        id,
        file: file.to_owned(),
        about: form.about.clone(),
        because: form.because.clone(),
        contracts: form.contracts.clone(),
        needs_features: form.needs_features.clone(),
        control: form.control,
        cpus: form.cpus,
        provider: form.provider,
        sysctl: sysctl.collect(),
        files: form.files.clone(),
        actors: form.actors.clone(),
        steps: entries.iter().enumerate().map(|(nr, entry)| step_meaning(nr, entry)).collect(),
        expect_broken: breaks,
        ends: form.ends.clone(),
    }
}

fn step_meaning(nr: usize, entry: &Entry) -> Step {
    let step = &entry.form;
    let by = step.by.clone().unwrap_or_default();
    let action = match (&step.issue, &step.start, &step.phrase, &step.collect, &step.still) {
        (Some(op), ..) if let Some(drawn) = &step.drawn => {
            let Drawn { of, for_ms, never_within, after, .. } = drawn.clone();
            Action::Draw { by, op: op.clone(), of, for_ms, never_within, after }
        }
        (Some(op), ..) => Action::Do { by, op: op.clone() },
        (_, Some(op), ..) => Action::Start { by, op: op.clone() },
        (_, _, Some(phrase), ..) => {
            Action::Use { by, phrase: phrase.clone(), with: step.with.clone().unwrap_or_default() }
        }
        _ if step.power.is_some() => Action::PowerCut,
        (_, _, _, Some(step), _) => Action::Await { step: step.clone() },
        (_, _, _, _, still) => Action::Still {
            step: still.clone().unwrap_or_default(),
            for_ms: step.for_ms.unwrap_or(DEFAULT_STILL_MS),
        },
    };
    let mut expect = step.expect_by.clone().unwrap_or_default();
    if let Some(one) = &step.expect {
        expect.insert(ELSE.to_owned(), one.clone());
    }
    Step {
        id: id_of(nr, step),
        action,
        expect,
        within_ms: step.within_ms,
        not_before_ms: step.not_before_ms,
        not_after_ms: step.not_after_ms,
        after: step.after.clone(),
        proves: step.proves.clone(),
        twin: step.twin.clone(),
        needs: step.needs.clone(),
        results: step.results.clone(),
        together: entry.together.clone(),
        reaches: step.drawn.as_ref().and_then(|drawn| drawn.reaches.clone()),
    }
}
