// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is checked of a scenario beside its steps.

use serde_json::Value;

use super::ELSE;
use super::broken::{Break, ORACLE};
use super::check::Checker;
use super::faults::Faults;
use super::form::{BrokenForm, Form};
use super::limits::{LONGEST_NAME, MOST_ACTORS, MOST_CPUS, MOST_FILES};
use super::names::{is_signal, signals};
use super::under::split;
use crate::contract::{Contracts, PINS_BALANCED};
use crate::judge::ORACLES;
use crate::outcome::Kind;
use crate::path;
use crate::yaml::{Document, Key, unknown_word};

/// All breakages a scenario declares, by contract and clause or oracle.
pub(super) type Breaks = std::collections::BTreeMap<String, std::collections::BTreeMap<String, Break>>;

impl Checker<'_> {
    /// Everything beside the steps; the breakages it declares.
    pub(super) fn head(&self, faults: &mut Faults) -> Breaks {
        let form = self.form;
        let mut say = |path: &[Key], word: Option<&str>, message: &str| {
            faults.push(self.document.fault(path, word, message));
        };
        if form.contracts.is_empty() {
            say(&path!["contracts"], None, "name at least one contract");
        }
        for key in &form.contracts {
            if let Some((_, message)) =
                unknown_in_key(key, self.contracts.names().chain(self.contracts.lists()), self.contracts)
            {
                say(&path!["contracts"], Some(key), &message);
            }
        }
        for feature in form.needs_features.iter().filter(|one| self.contracts.feature(one).is_none()) {
            let message = unknown_word("feature", feature, self.contracts.features());
            say(&path!["needs_features"], Some(feature), &message);
        }
        if self.entries.is_empty() {
            say(&path!["steps"], None, "a scenario without steps shows nothing");
        }
        if !(1..=MOST_CPUS).contains(&form.cpus) {
            say(&path!["cpus"], None, &format!("a machine has 1 to {MOST_CPUS} processors"));
        }
        if !form.provider.is_rxe() && !form.actors.values().any(|actor| actor.rdma) {
            let message = "a provider is for actors with `rdma: true`, and there is none";
            let at = if form.matrix.contains_key("provider") {
                &path!["matrix", "provider"][..]
            } else {
                &path!["provider"]
            };
            faults.push(self.document.fault(at, None, message));
        }
        sizes(form, self.document, faults);
        for (actor, setup) in &form.actors {
            for (handler, setup) in setup.on_signal.iter().filter(|(_, one)| !is_signal(&one.signal)) {
                let path = path!["actors", actor.as_str(), "on_signal", handler.as_str()];
                let message = unknown_word("signal", &setup.signal, signals());
                faults.push(self.document.fault(&path, Some(&setup.signal), &message));
            }
        }
        self.ending(faults);
        self.breaks(faults)
    }

    fn ending(&self, faults: &mut Faults) {
        let Some(ends) = &self.form.ends else { return };
        let complete = match ends.verdict {
            Kind::Fail | Kind::Timeout => ends.step.is_some() && ends.title.is_none(),
            Kind::KernelBug => ends.title.is_some() && ends.step.is_none(),
            Kind::Lost => ends.step.is_none() && ends.title.is_none(),
            _ => false,
        };
        if !complete {
            let message =
                "a declared end is `fail` or `timeout` with its step, `kernel-bug` with its title, or `lost`";
            faults.push(self.document.fault(&path!["ends"], None, message));
        }
        if !self.form.expect_broken.is_empty() {
            let message = "a case either ends red as declared or shows what is broken";
            faults.push(self.document.fault(&path!["ends"], None, message));
        }
    }

    fn breaks(&self, faults: &mut Faults) -> Breaks {
        let mut all = Breaks::new();
        for (key, breaks) in &self.form.expect_broken {
            let at = path!["expect_broken"];
            if let Some((word, message)) = self.not_of_this(key) {
                let word = if word == key { Some(key.as_str()) } else { None };
                faults.push(self.document.fault(&at, word, &message));
                continue;
            }
            let name = split(key).0;
            for (what, value) in breaks {
                let at = path!["expect_broken", key.as_str()];
                if let Some(message) = self.unknown_break(name, what) {
                    faults.push(self.document.fault(&at, Some(what), &message));
                    continue;
                }
                let at = [&at[..], &path![what.as_str()]].concat();
                let one = match value {
                    Value::String(reason) => Ok(BrokenForm { reason: reason.clone(), shown: None }),
                    other => self.document.typed_at::<BrokenForm>(&at, other.clone()),
                };
                let Some(one) = faults.keep(one) else { continue };
                if what.starts_with(ORACLE) && one.shown.is_some() {
                    let message = "an oracle has no outcome; it is broken when it finds something";
                    faults.push(self.document.fault(&at, None, message));
                }
                let one = Break { reason: one.reason, shown: one.shown };
                all.entry(key.clone()).or_default().insert(what.clone(), one);
            }
        }
        all
    }

    fn unknown_break(&self, contract: &str, what: &str) -> Option<String> {
        if let Some(oracle) = what.strip_prefix(ORACLE) {
            return (!ORACLES.contains(&oracle)).then(|| unknown_word("oracle", oracle, ORACLES));
        }
        if what == PINS_BALANCED {
            return Some(format!("the standing oracles prove `{what}`: name the one, as in `oracle/pins`"));
        }
        let clauses = &self.contracts.get(contract)?.clauses;
        let valid = clauses.keys().map(String::as_str);
        (!clauses.contains_key(what)).then(|| unknown_word("clause", what, valid))
    }

    /// The wrong word of a `CONTRACT+feature` that the scenario says nothing about, and what is wrong.
    pub(super) fn not_of_this<'k>(&self, key: &'k str) -> Option<(&'k str, String)> {
        unknown_in_key(key, self.own_contracts().into_iter().chain([ELSE]), self.contracts)
    }

    /// The contracts it says something about; all there are where it names one that does not exist, since
    /// nobody knows which of them was meant.
    pub(super) fn own_contracts(&self) -> Vec<&str> {
        let own: Vec<&str> = self.form.contracts.iter().map(|one| split(one).0).collect();
        match own.iter().all(|name| self.contracts.get(name).is_some()) {
            true => own,
            false => self.contracts.names().collect(),
        }
    }
}

/// The wrong word of a `CONTRACT+feature`, and what is wrong.
pub(super) fn unknown_in_key<'k, 'v>(
    key: &'k str,
    valid: impl Iterator<Item = &'v str>,
    contracts: &Contracts,
) -> Option<(&'k str, String)> {
    let (name, mut features) = split(key);
    let valid: Vec<&str> = valid.collect();
    if !valid.contains(&name) {
        return Some((name, unknown_word("contract", name, valid)));
    }
    let unknown = features.find(|feature| contracts.feature(feature).is_none())?;
    let message = format!("in `{key}`: {}", unknown_word("feature", unknown, contracts.features()));
    Some((unknown, message))
}

fn sizes(form: &Form, document: &Document, faults: &mut Faults) {
    for (list, count, most) in
        [("actors", form.actors.len(), MOST_ACTORS), ("files", form.files.len(), MOST_FILES)]
    {
        if count > most {
            let message = format!("a case has at most {most} {list}");
            faults.push(document.fault(&path![list], None, &message));
        }
    }
    let names = form.actors.keys().map(|name| ("actors", name));
    let names = names.chain(form.files.keys().map(|name| ("files", name)));
    for (list, name) in names.chain(form.matrix.keys().map(|name| ("matrix", name))) {
        if name.is_empty() || name.chars().count() > LONGEST_NAME {
            let message = format!("a name has 1 to {LONGEST_NAME} letters");
            faults.push(document.fault(&path![list], Some(name), &message));
        }
    }
}
