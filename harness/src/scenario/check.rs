// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the form to the meaning: every name must be declared, every handle must come from an
//! earlier step, every claim must be one that can fail. All without a VM.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use holdfast_protocol::Op;

use super::expect::Expect;
use super::form::{Form, StepForm};
use super::names::{is_signal, signals};
use super::uses::{Thing, name, uses};
use super::{Action, DEFAULT_STILL_MS, ELSE, SHORTEST_PROOF_MS, Scenario, Step, matrix};
use crate::contract::Contracts;
use crate::outcome::Kind;
use crate::path;
use crate::yaml::{Document, Key, unknown_word};

/// The checked cases of one document.
pub(super) fn scenarios(
    document: &Document,
    file: &Path,
    stem: &str,
    contracts: &Contracts,
) -> Result<Vec<Scenario>> {
    let value = document.parse()?;
    let mut all = Vec::new();
    for combination in matrix::expand(document, &value)? {
        let form: Form = document.typed(combination.value)?;
        Checker { document, form: &form, contracts, done: BTreeMap::new(), born: BTreeMap::new() }.check()?;
        all.push(meaning(form, file, format!("{stem}{}", combination.suffix)));
    }
    Ok(all)
}

/// What earlier steps made.
pub(super) struct Made<'a> {
    /// Number of the step.
    nr: usize,
    pub(super) by: &'a str,
    pub(super) result: Option<Thing>,
    /// It may still be under way: started, or allowed to block.
    open: bool,
    op: Option<&'a Op>,
}

pub(super) struct Checker<'a> {
    pub(super) document: &'a Document,
    pub(super) form: &'a Form,
    contracts: &'a Contracts,
    pub(super) done: BTreeMap<String, Made<'a>>,
    /// Actors that a fork has made: their parents, and the number of the step.
    pub(super) born: BTreeMap<&'a str, (&'a str, usize)>,
}

impl<'a> Checker<'a> {
    fn check(mut self) -> Result<()> {
        self.head()?;
        for (step, by, op) in self.handler_steps()? {
            let made = Made { nr: 0, by, result: None, open: true, op: Some(op) };
            self.done.insert(step, made);
        }
        for (nr, step) in self.form.steps.iter().enumerate() {
            self.id(nr, step)?;
            self.action(nr, step)?;
            self.expectation(nr, step)?;
            self.claims(nr, step)?;
        }
        self.handler_handles()?;
        for (nr, step) in self.form.steps.iter().enumerate() {
            self.twin(nr, step)?;
            if step.start.is_some() && self.done.get(&id_of(nr, step)).is_some_and(|made| made.open) {
                return Err(self.fault(nr, &[], "it is started and never awaited: add an `await` step"));
            }
        }
        Ok(())
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
        let path: Vec<Key> = path!["steps", nr].into_iter().chain(below.iter().cloned()).collect();
        self.document.fault(&path, word, message)
    }

    fn head(&self) -> Result<()> {
        if self.form.contracts.is_empty() {
            return Err(self.document.fault(&path!["contracts"], None, "name at least one contract"));
        }
        for name in &self.form.contracts {
            if self.contracts.get(name).is_none() {
                let message = unknown_word("contract", name, self.contracts.names());
                return Err(self.document.fault(&path!["contracts"], Some(name), &message));
            }
        }
        if self.form.steps.is_empty() {
            return Err(self.document.fault(&path!["steps"], None, "a scenario without steps shows nothing"));
        }
        if !(1..=MOST_CPUS).contains(&self.form.cpus) {
            let message = format!("a machine has 1 to {MOST_CPUS} processors");
            return Err(self.document.fault(&path!["cpus"], None, &message));
        }
        for (actor, setup) in &self.form.actors {
            for (handler, setup) in &setup.on_signal {
                if !is_signal(&setup.signal) {
                    let path = path!["actors", actor.as_str(), "on_signal", handler.as_str()];
                    let message = unknown_word("signal", &setup.signal, signals());
                    return Err(self.document.fault(&path, Some(&setup.signal), &message));
                }
            }
        }
        if let Some(ends) = &self.form.ends {
            let complete = match ends.verdict {
                Kind::Fail | Kind::Timeout => ends.step.is_some() && ends.title.is_none(),
                Kind::KernelBug => ends.title.is_some() && ends.step.is_none(),
                Kind::Lost => ends.step.is_none() && ends.title.is_none(),
                _ => false,
            };
            if !complete {
                let message = "a declared end is `fail` or `timeout` with its step, `kernel-bug` with its title, or `lost`";
                return Err(self.document.fault(&path!["ends"], None, message));
            }
        }
        Ok(())
    }

    fn id(&self, nr: usize, step: &StepForm) -> Result<()> {
        let Some(id) = &step.id else { return Ok(()) };
        let at = &path!["id"];
        if id.is_empty() || !id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
            return Err(self.fault(nr, at, "an id is made of small letters, digits and underscores"));
        }
        if self.done.contains_key(id) {
            return Err(self.fault(nr, at, &format!("`{id}` is the id of an earlier step")));
        }
        if self.form.matrix.contains_key(id) {
            return Err(self.fault(nr, at, &format!("`{id}` is a matrix parameter already")));
        }
        Ok(())
    }

    fn action(&mut self, nr: usize, step: &'a StepForm) -> Result<()> {
        let given = [step.issue.is_some(), step.start.is_some(), step.collect.is_some(), step.still.is_some()];
        if given.iter().filter(|given| **given).count() != 1 {
            return Err(self.fault(nr, &[], "a step has exactly one of `do`, `start`, `await`, `still`"));
        }
        if step.for_ms.is_some() && step.still.is_none() {
            return Err(self.fault(
                nr,
                &path!["for_ms"],
                "`for_ms` goes with `still`; to wait longer use `within_ms`",
            ));
        }
        if let Some(id) = step.collect.as_ref().or(step.still.as_ref()) {
            return self.collect(nr, step, id);
        }
        let Some(by) = &step.by else {
            return Err(self.fault(nr, &[], "`by` is missing: who does it?"));
        };
        self.actor(nr, &path!["by"], by)?;
        self.is_there(nr, &path!["by"], by)?;
        let (field, op) = match (&step.issue, &step.start) {
            (Some(op), _) => ("do", op),
            (None, Some(op)) => ("start", op),
            (None, None) => return Ok(()),
        };
        self.op(nr, field, by, op)?;
        if step.start.is_some() && uses(op).by_session {
            return Err(self.fault(nr, &path![field], "the session does this, and waits: it is a `do`"));
        }
        if let (true, Some(child)) = (uses(op).forks, uses(op).actor) {
            self.birth(nr, field, by, child, op)?;
        }
        let open = step.start.is_some() || step.all_expectations().any(Expect::may_block);
        self.done.insert(id_of(nr, step), Made { nr, by, result: uses(op).result, open, op: Some(op) });
        Ok(())
    }

    fn collect(&mut self, nr: usize, step: &StepForm, id: &str) -> Result<()> {
        let field = if step.collect.is_some() { "await" } else { "still" };
        if let Some(by) = &step.by {
            let message = format!("`{field}` has no `by`: `{by}` is known from the step it names");
            return Err(self.fault(nr, &path!["by"], &message));
        }
        match self.done.get_mut(id) {
            Some(made) if made.open => made.open = field == "still",
            Some(_) => {
                let message =
                    format!("`{id}` is neither started nor expected to block, or was awaited already");
                return Err(self.fault(nr, &path![field], &message));
            }
            None => {
                let message = unknown_word("step", id, self.done.keys().map(String::as_str));
                return Err(self.fault(nr, &path![field], &message));
            }
        }
        let by = self.done[id].by;
        self.done.insert(id_of(nr, step), Made { nr, by, result: None, open: false, op: None });
        Ok(())
    }

    fn actor(&self, nr: usize, below: &[Key], actor: &str) -> Result<()> {
        if self.form.actors.contains_key(actor) {
            return Ok(());
        }
        let message = unknown_word("actor", actor, self.form.actors.keys().map(String::as_str));
        Err(self.word_fault(nr, below, Some(actor), &message))
    }

    fn op(&self, nr: usize, field: &str, by: &str, op: &Op) -> Result<()> {
        let uses = uses(op);
        let below = path![field, name(op).as_str()];
        if let Some(fault) = uses.fault {
            return Err(self.fault(nr, &below, fault));
        }
        if let Some(file) = uses.files.iter().copied().find(|file| !self.form.files.contains_key(*file)) {
            let message = unknown_word("file", file, self.form.files.keys().map(String::as_str));
            return Err(self.word_fault(nr, &below, Some(file), &message));
        }
        if let Some(actor) = uses.actor {
            self.actor(nr, &below, actor)?;
            if !uses.forks {
                self.is_there(nr, &below, actor)?;
            }
        }
        if let Some(signal) = uses.signal.filter(|signal| !is_signal(signal)) {
            let message = unknown_word("signal", signal, signals());
            return Err(self.word_fault(nr, &below, Some(signal), &message));
        }
        if let Some(handler) = uses.handler {
            self.has_handler(nr, &below, by, handler)?;
        }
        if uses.rdma {
            for actor in [Some(by), uses.actor].into_iter().flatten() {
                if !self.form.actors[actor].rdma {
                    let message = format!("actor `{actor}` has no RDMA device: declare it `{{rdma: true}}`");
                    return Err(self.fault(nr, &below, &message));
                }
            }
        }
        for (handle, wanted) in &uses.handles {
            self.handle(nr, &below, by, handle.id(), *wanted, uses.foreign)?;
        }
        Ok(())
    }

    fn handle(&self, nr: usize, below: &[Key], by: &str, id: &str, wanted: Thing, foreign: bool) -> Result<()> {
        let word = format!("${id}");
        let Some(made) = self.done.get(id) else {
            let message = unknown_word("handle", id, self.done.keys().map(String::as_str));
            return Err(self.word_fault(nr, below, Some(&word), &message));
        };
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

    fn expectation(&self, nr: usize, step: &StepForm) -> Result<()> {
        if step.expect.is_some() && step.expect_by.is_some() {
            return Err(self.fault(nr, &path!["expect_by"], "give either `expect` or `expect_by`"));
        }
        if step.start.is_some() && (step.expect.is_some() || step.expect_by.is_some()) {
            let message =
                "a started step has come to nothing yet: put the expectation on its `await` or `still`";
            return Err(self.fault(nr, &[], message));
        }
        if step.still.is_some() && (step.expect.is_some() || step.expect_by.is_some()) {
            return Err(self.fault(nr, &[], "`still` is its own expectation: that the step blocks"));
        }
        for id in step.all_expectations().flat_map(Expect::handles) {
            let field = if step.expect.is_some() { "expect" } else { "expect_by" };
            self.names_a_descriptor(nr, &path![field], id)?;
        }
        let Some(by) = &step.expect_by else { return Ok(()) };
        let foreign = |key: &&String| *key != ELSE && !self.form.contracts.contains(key);
        if let Some(contract) = by.keys().find(foreign) {
            let valid = self.form.contracts.iter().map(String::as_str).chain([ELSE]);
            let message = unknown_word("contract", contract, valid);
            return Err(self.word_fault(nr, &path!["expect_by"], Some(contract), &message));
        }
        let missing = self.form.contracts.iter().find(|name| !by.contains_key(*name) && !by.contains_key(ELSE));
        match missing {
            Some(name) => Err(self.fault(
                nr,
                &path!["expect_by"],
                &format!("nothing is expected under `{name}`; add it, or `else`"),
            )),
            None => Ok(()),
        }
    }

    fn claims(&self, nr: usize, step: &StepForm) -> Result<()> {
        for clause in &step.proves {
            let mut known = self.form.contracts.iter().filter_map(|name| self.contracts.get(name));
            if !known.any(|contract| contract.clauses.contains_key(clause)) {
                let valid: Vec<&str> = self
                    .form
                    .contracts
                    .iter()
                    .filter_map(|name| self.contracts.get(name))
                    .flat_map(|contract| contract.clauses.keys().map(String::as_str))
                    .collect();
                let message = unknown_word("clause", clause, valid);
                return Err(self.word_fault(nr, &path!["proves"], Some(clause), &message));
            }
        }
        let expects = step.expect.is_some() || step.expect_by.is_some() || step.still.is_some();
        if !step.proves.is_empty() && !expects {
            return Err(self.fault(nr, &path!["proves"], "it proves something without expecting anything"));
        }
        if !step.proves.is_empty() && !step.all_expectations().all(Expect::is_definite) {
            let message = "it proves something with an expectation that leaves open what must come back";
            return Err(self.fault(nr, &path!["proves"], message));
        }
        let watch_ms = if step.still.is_some() { step.for_ms } else { step.within_ms };
        let watches =
            step.still.is_some() || step.all_expectations().any(|one| one.may_block() || one.admits_silence());
        if !step.proves.is_empty() && watches && watch_ms.is_some_and(|ms| ms < SHORTEST_PROOF_MS) {
            let message = format!("a watch that proves something lasts at least {SHORTEST_PROOF_MS} ms");
            return Err(self.fault(nr, &[], &message));
        }
        if step.after.is_some() && step.collect.is_none() {
            return Err(self.fault(nr, &path!["after"], "`after` goes with `await`"));
        }
        for needed in step.needs.iter().chain(&step.after) {
            if !self.done.contains_key(needed) || *needed == id_of(nr, step) {
                let message = unknown_word("step", needed, self.done.keys().map(String::as_str));
                let field = if step.after.as_ref() == Some(needed) { "after" } else { "needs" };
                return Err(self.word_fault(nr, &path![field], Some(needed), &message));
            }
        }
        Ok(())
    }

    /// A refusal is proved only next to the same call that succeeds.
    fn twin(&self, nr: usize, step: &StepForm) -> Result<()> {
        let refuses = step.all_expectations().any(Expect::may_refuse);
        let Some(twin) = &step.twin else {
            return match refuses && !step.proves.is_empty() {
                true => Err(self.fault(
                    nr,
                    &[],
                    "it proves a refusal: name its `twin`, the same call that succeeds",
                )),
                false => Ok(()),
            };
        };
        let Some(made) = self.done.get(twin) else {
            let message = unknown_word("step", twin, self.done.keys().map(String::as_str));
            return Err(self.fault(nr, &path!["twin"], &message));
        };
        let own = step.issue.as_ref().map(name);
        if *twin == id_of(nr, step) || made.op.map(name) != own || step.by.as_deref() != Some(made.by) {
            let message = "a twin is another step of the same actor with the same operation";
            return Err(self.fault(nr, &path!["twin"], message));
        }
        let twin_step = self.form.steps.iter().enumerate().find(|(nr, step)| id_of(*nr, step) == *twin);
        if twin_step.is_some_and(|(_, step)| step.all_expectations().any(|expect| !expect.admits_success())) {
            return Err(self.fault(nr, &path!["twin"], "a twin succeeds under every contract"));
        }
        Ok(())
    }
}

impl StepForm {
    fn all_expectations(&self) -> impl Iterator<Item = &Expect> {
        self.expect.iter().chain(self.expect_by.iter().flat_map(BTreeMap::values))
    }
}

/// What the kernels here are built for (CONFIG_NR_CPUS of the fragment `lean`).
const MOST_CPUS: u32 = 8;

fn id_of(nr: usize, step: &StepForm) -> String {
    step.id.clone().unwrap_or_else(|| format!("#{}", nr + 1))
}

fn meaning(form: Form, file: &Path, id: String) -> Scenario {
    let steps = form.steps.into_iter().enumerate().map(|(nr, step)| step_meaning(nr, step)).collect();
    let sysctl = form.sysctl.into_iter().map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (name, value)
    });
    Scenario {
        id,
        file: file.to_owned(),
        about: form.about,
        because: form.because,
        contracts: form.contracts,
        control: form.control,
        cpus: form.cpus,
        sysctl: sysctl.collect(),
        files: form.files,
        actors: form.actors,
        steps,
        ends: form.ends,
    }
}

fn step_meaning(nr: usize, step: StepForm) -> Step {
    let id = id_of(nr, &step);
    let by = step.by.unwrap_or_default();
    let action = match (step.issue, step.start, step.collect, step.still) {
        (Some(op), ..) => Action::Do { by, op },
        (_, Some(op), ..) => Action::Start { by, op },
        (_, _, Some(step), _) => Action::Await { step },
        (_, _, _, still) => {
            Action::Still { step: still.unwrap_or_default(), for_ms: step.for_ms.unwrap_or(DEFAULT_STILL_MS) }
        }
    };
    let mut expect = step.expect_by.unwrap_or_default();
    if let Some(one) = step.expect {
        expect.insert(ELSE.to_owned(), one);
    }
    Step {
        id,
        action,
        expect,
        within_ms: step.within_ms,
        not_before_ms: step.not_before_ms,
        not_after_ms: step.not_after_ms,
        after: step.after,
        proves: step.proves,
        twin: step.twin,
        needs: step.needs,
    }
}
