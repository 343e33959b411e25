// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a step expects and claims: every claim must be one that can fail.

use anyhow::Result;

use super::check::{Checker, id_of};
use super::expect::Expect;
use super::form::StepForm;
use super::head::unknown_in_key;
use super::under::{Under, split};
use super::uses::uses;
use super::{ELSE, SHORTEST_PROOF_MS};
use crate::path;
use crate::yaml::unknown_word;

impl Checker<'_> {
    pub(super) fn expectation(&self, nr: usize, step: &StepForm) -> Result<()> {
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
        let named = step.all_expectations().flat_map(Expect::threads);
        if let Some(actor) = named.into_iter().find(|actor| !self.form.actors.contains_key(*actor)) {
            let field = if step.expect.is_some() { "expect" } else { "expect_by" };
            let message = unknown_word("actor", actor, self.form.actors.keys().map(String::as_str));
            return Err(self.word_fault(nr, &path![field], None, &message));
        }
        let Some(by) = &step.expect_by else { return Ok(()) };
        // Shared steps serve scenarios about several contracts.
        let shared = self.entries[nr].place.shared;
        let unknown = |key: &String| match shared {
            true => {
                unknown_in_key(key, self.contracts.names().chain([ELSE]), self.contracts).map(|(_, why)| why)
            }
            false => self.not_of_this(key).map(|(_, why)| why),
        };
        if let Some((key, message)) = by.keys().find_map(|key| Some((key, unknown(key)?))) {
            return Err(self.word_fault(nr, &path!["expect_by"], Some(key), &message));
        }
        let said = |key: &String| {
            let (name, features) = split(key);
            let features = features.map(str::to_owned).collect::<Vec<_>>();
            let contract = self.contracts.get(name)?;
            Under::new(name, contract, features).pick(by).map(drop)
        };
        let missing = self.form.contracts.iter().find(|key| said(key).is_none() && !by.contains_key(ELSE));
        match missing {
            Some(name) => Err(self.fault(
                nr,
                &path!["expect_by"],
                &format!("nothing is expected under `{name}`; add it, or `else`"),
            )),
            None => Ok(()),
        }
    }

    pub(super) fn claims(&self, nr: usize, step: &StepForm) -> Result<()> {
        if let Some(other) = step.drawn.as_ref().and_then(|drawn| drawn.never_within.as_ref()) {
            self.names_a_choice(nr, step, other)?;
        }
        if let Some(first) = step.drawn.as_ref().and_then(|drawn| drawn.after.as_ref()) {
            self.names_one_before(nr, step, first)?;
        }
        if let Some(reaches) = step.drawn.as_ref().and_then(|drawn| drawn.reaches.as_ref()) {
            let plain = Expect::ok();
            let said = step.all_expectations().count() == 0;
            let mut expected = step.all_expectations().chain(said.then_some(&plain));
            if !expected.any(|one| one.includes(reaches)) {
                let message = format!("`{reaches}` is nowhere expected of it");
                return Err(self.fault(nr, &path!["reaches"], &message));
            }
        }
        let own: Vec<&str> = match self.entries[nr].place.shared {
            true => self.contracts.names().collect(),
            false => self.own_contracts(),
        };
        let contracts = own.iter().filter_map(|name| self.contracts.get(name));
        let valid: Vec<&str> =
            contracts.flat_map(|contract| contract.clauses.keys().map(String::as_str)).collect();
        if let Some(clause) = step.proves.iter().find(|clause| !valid.contains(&clause.as_str())) {
            let message = unknown_word("clause", clause, valid);
            return Err(self.word_fault(nr, &path!["proves"], Some(clause), &message));
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
        if let Some(id) = step.after.as_ref().filter(|id| self.is_cut(id)) {
            let message = format!("`{id}` was done before the machine lost its power: the clocks are two");
            return Err(self.word_fault(nr, &path!["after"], Some(id), &message));
        }
        for needed in step.needs.iter().chain(&step.after) {
            if !self.done.contains_key(needed) || *needed == id_of(nr, step) {
                let message = unknown_word("step", needed, self.earlier(nr));
                let field = if step.after.as_ref() == Some(needed) { "after" } else { "needs" };
                return Err(self.word_fault(nr, &path![field], Some(needed), &message));
            }
        }
        Ok(())
    }

    /// What must not be there meanwhile is the result of another actor's choice of the same stress.
    fn names_a_choice(&self, nr: usize, step: &StepForm, other: &str) -> Result<()> {
        let of = |step: &StepForm| step.drawn.as_ref().map(|drawn| drawn.of.clone());
        let makes = |step: &StepForm| step.issue.as_ref().is_some_and(|op| uses(op).result.is_some());
        let forms = self.entries.iter().map(|entry| &entry.form);
        let valid = forms.filter(|form| of(form) == of(step) && form.by != step.by && makes(form));
        let valid: Vec<&str> = valid.filter_map(|form| form.id.as_deref()).collect();
        if valid.contains(&other) {
            return Ok(());
        }
        let message = unknown_word("choice of another actor", other, valid);
        Err(self.word_fault(nr, &path!["never_within"], Some(other), &message))
    }

    /// What it is drawn after is a choice of the same actor, written before it: so none waits for itself.
    fn names_one_before(&self, nr: usize, step: &StepForm, first: &str) -> Result<()> {
        let of = |step: &StepForm| step.drawn.as_ref().map(|drawn| drawn.of.clone());
        let forms = self.entries[..nr].iter().map(|entry| &entry.form);
        let valid = forms.filter(|form| of(form) == of(step) && form.by == step.by);
        let valid: Vec<&str> = valid.filter_map(|form| form.id.as_deref()).collect();
        if valid.contains(&first) {
            return Ok(());
        }
        let message = unknown_word("earlier choice of this actor", first, valid);
        Err(self.word_fault(nr, &path!["after"], Some(first), &message))
    }

    /// A refusal is proved only next to the same call that succeeds.
    pub(super) fn twin(&self, nr: usize, step: &StepForm) -> Result<()> {
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
            let message = unknown_word("step", twin, self.earlier(nr));
            return Err(self.fault(nr, &path!["twin"], &message));
        };
        if made.unknown {
            return Ok(());
        }
        // What an `await` comes to is what the step came to that it collects.
        let call = step.collect.as_ref().and_then(|id| Some((id, self.done.get(id)?)));
        let same = match call {
            Some((id, call)) => id != twin && made.does == call.does && self.by_of(id) == self.by_of(twin),
            None => made.does == step.does() && step.by.as_deref() == self.by_of(twin),
        };
        if *twin == id_of(nr, step) || !same {
            let message = "a twin is another step of the same actor with the same operation";
            return Err(self.fault(nr, &path!["twin"], message));
        }
        let mut forms = self.entries.iter().map(|entry| &entry.form).enumerate();
        let twin_step = forms.find(|(nr, step)| id_of(*nr, step) == *twin);
        if twin_step.is_some_and(|(_, step)| step.all_expectations().any(|expect| !expect.admits_success())) {
            return Err(self.fault(nr, &path!["twin"], "a twin succeeds under every contract"));
        }
        Ok(())
    }
}
