// SPDX-License-Identifier: MIT OR Apache-2.0
//! A scenario under one contract: which steps apply, what each phrase stands for, what must come back.
//!
//! What a contract rules out is not applicable here, before anything boots; never later, by what a step
//! returned. The checker, the plan and the explanation all look at a scenario this way.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_protocol::{ActorSetup, Op};
use serde_json::Value;

use super::actors::{Actor, Run, step_of};
use super::broken::{self, Broken};
use super::{Action, ELSE, Expect, Scenario, Step, handles_of};
use crate::contract::{Contract, Contracts};
use crate::plan::{DEFAULT_WAIT_MS, PlannedStep};

/// What a case is judged by: a contract, and the features of the kernel at hand.
#[derive(Clone, Debug)]
pub struct Under<'a> {
    /// The contract's name.
    pub name: &'a str,
    /// The contract.
    pub contract: &'a Contract,
    /// What the kernel and the contract declare.
    pub features: BTreeSet<String>,
}

impl<'a> Under<'a> {
    /// A contract on a kernel with these features; those of the contract are added.
    pub fn new(name: &'a str, contract: &'a Contract, features: impl IntoIterator<Item = String>) -> Self {
        let features = features.into_iter().chain(contract.features.iter().cloned()).collect();
        Self { name, contract, features }
    }

    /// `CONTRACT+feature+feature` says something about this.
    #[must_use]
    pub fn admits(&self, key: &str) -> bool {
        let (name, mut features) = split(key);
        name == self.name && features.all(|feature| self.features.contains(feature))
    }

    /// Of what is said by contract, what says the most about this one; without `else`.
    #[must_use]
    pub fn pick<'m, T>(&self, by_contract: &'m BTreeMap<String, T>) -> Option<&'m T> {
        let said = by_contract.iter().filter(|(key, _)| self.admits(key));
        said.max_by_key(|(key, _)| key.matches('+').count()).map(|(_, said)| said)
    }

    /// `mainline`, `mainline+odp`.
    #[must_use]
    pub fn label(&self) -> String {
        let extra = self.features.iter().filter(|feature| !self.contract.features.contains(*feature));
        extra.fold(self.name.to_owned(), |label, feature| format!("{label}+{feature}"))
    }
}

/// The contract and the features of `CONTRACT+feature`.
pub fn split(key: &str) -> (&str, impl Iterator<Item = &str>) {
    let mut parts = key.split('+');
    (parts.next().unwrap_or_default(), parts)
}

/// Every way a scenario can be judged that it tells apart.
pub(super) fn all<'a>(scenario: &'a Scenario, contracts: &'a Contracts) -> Vec<Under<'a>> {
    let said = scenario.steps.iter().flat_map(|step| step.expect.keys());
    let of_results = scenario.steps.iter().filter_map(|step| step.results.as_ref());
    let of_results = of_results.flat_map(|results| results.not_ok_by.keys().chain(results.skipped_by.keys()));
    let keys = scenario.contracts.iter().chain(said).chain(of_results).chain(scenario.expect_broken.keys());
    let mut all: Vec<Under<'a>> = Vec::new();
    for key in keys {
        let (name, features) = split(key);
        let Some(contract) = contracts.get(name) else { continue };
        let needed = scenario.needs_features.iter().cloned();
        let under = Under::new(name, contract, features.map(str::to_owned).chain(needed));
        let known = all.iter().any(|one| one.name == under.name && one.features == under.features);
        if !known && excluded(scenario, &under).is_none() {
            all.push(under);
        }
    }
    all
}

/// Why a whole scenario says nothing about a kernel, if it does not.
#[must_use]
pub fn excluded(scenario: &Scenario, under: &Under<'_>) -> Option<String> {
    let lacks = |mut wanted: Vec<&str>| {
        wanted.retain(|feature| !under.features.contains(*feature));
        wanted
            .first()
            .map(|feature| format!("it needs the feature {feature}, which this kernel does not declare"))
    };
    if !scenario.is_about(under.name) {
        return Some(format!("it says nothing about the contract {}", under.name));
    }
    if !scenario.contracts.iter().any(|key| under.admits(key)) {
        let named = scenario.contracts.iter().filter(|key| split(key).0 == under.name);
        return named.filter_map(|key| lacks(split(key).1.collect())).next();
    }
    lacks(scenario.needs_features.iter().map(String::as_str).collect())
}

/// A scenario under a contract, phrases written out.
#[derive(Debug, Default)]
pub struct Written {
    /// Its steps; those that do not apply say why.
    pub steps: Vec<PlannedStep>,
    /// Its actors, without what of their handlers does not apply.
    pub actors: BTreeMap<String, ActorSetup>,
}

/// What of a scenario's steps exists under a contract.
#[derive(Default)]
struct Seen<'a> {
    /// What later steps cannot build on: refused under this contract, or not applicable itself.
    missing: BTreeMap<&'a str, &'static str>,
    /// Phrases that stand for nothing: what needs them goes on without them.
    vanished: BTreeMap<String, String>,
    /// The last of several operations that a phrase stands for.
    last: BTreeMap<String, String>,
    /// By the steps that handlers run what these use.
    handled: BTreeMap<String, Vec<String>>,
}

/// A scenario as it is played under a contract.
#[must_use]
pub fn written(scenario: &Scenario, under: &Under<'_>) -> Written {
    let mut seen = Seen::default();
    seen.handlers(scenario, under);
    let mut steps = Vec::new();
    for step in &scenario.steps {
        let planned = seen.plan(scenario, step, under);
        let effect = planned.broken.as_ref().map_or(&planned.expect, |broken| &broken.shown);
        let refused = effect.is_refusal();
        if planned.excluded.is_some() {
            // A phrase that is nothing is not missed.
            if !seen.vanished.contains_key(step.id.as_str()) {
                seen.missing.insert(&step.id, "is not applicable");
            }
        } else if refused {
            seen.missing.insert(&step.id, "is refused");
        }
        steps.extend(seen.written_out(step, planned, under));
    }
    // A twin may come later, so that only now it is known what stands for it.
    for step in &mut steps {
        step.twin = step.twin.take().map(|id| seen.last.get(id.as_str()).cloned().unwrap_or(id));
    }
    let part = |actor: &Actor| actor.setup(|run| seen.of_handler(run, under));
    let actors = scenario.actors.iter().map(|(name, actor)| (name.clone(), part(actor))).collect();
    Written { steps, actors }
}

impl<'a> Seen<'a> {
    /// What the steps that handlers run are called, and what they use.
    fn handlers(&mut self, scenario: &Scenario, under: &Under<'_>) {
        for (handler, one) in scenario.actors.values().flat_map(|actor| &actor.on_signal) {
            for run in &one.run {
                let step = step_of(handler, &run.id);
                let ops = run.ops(under.contract).unwrap_or_default();
                match (ops.last(), &run.phrase) {
                    (None, Some(phrase)) => drop(self.vanished.insert(step.clone(), nothing(phrase, under))),
                    (Some((last, _)), _) if ops.len() > 1 => {
                        self.last.insert(step.clone(), step_of(handler, last));
                    }
                    _ => {}
                }
                let used = ops.iter().flat_map(|(_, op)| handles_of(op)).map(str::to_owned).collect();
                self.handled.insert(step, used);
            }
        }
    }

    /// What a handler does of what it is to do: what cannot be done for want of a handle is not applicable.
    fn of_handler(&self, run: &Run, under: &Under<'_>) -> Vec<(String, Op)> {
        let ops = run.ops(under.contract).unwrap_or_default().into_iter();
        let there = |op: &Op| !handles_of(op).iter().any(|id| self.missing.contains_key(id));
        ops.filter(|(_, op)| there(op)).map(|(id, op)| (id, self.renamed(&op))).collect()
    }

    fn plan(&mut self, scenario: &Scenario, step: &'a Step, under: &Under<'_>) -> PlannedStep {
        let proves: Vec<String> =
            step.proves.iter().filter(|clause| under.contract.clauses.contains_key(*clause)).cloned().collect();
        let named = |id: &String| self.last.get(id.as_str()).unwrap_or(id).clone();
        let gone = |id: &String| {
            let used = self.handled.get(id).into_iter().flatten();
            used.chain([id]).any(|id| self.missing.contains_key(id.as_str()))
                || self.vanished.contains_key(id.as_str())
        };
        let mut planned = PlannedStep {
            id: step.id.clone(),
            action: step.action.clone(),
            expect: step.expected_under(under),
            wait_ms: step.within_ms.unwrap_or(DEFAULT_WAIT_MS),
            not_before_ms: step.not_before_ms,
            not_after_ms: step.not_after_ms,
            after: step.after.as_ref().filter(|id| !gone(id)).map(named),
            proves,
            twin: step.twin.clone(),
            excluded: self.excluded(step, under),
            broken: None,
            phrase: None,
            together: step.together.clone(),
            reaches: step.reaches.clone(),
            results: step.results.as_ref().map(|results| results.under(under)),
        };
        planned.reaches = planned.reaches.filter(|reaches| planned.expect.includes(reaches));
        match &mut planned.action {
            Action::Do { op, .. } | Action::Start { op, .. } | Action::Draw { op, .. } => {
                *op = self.renamed(op);
            }
            Action::Await { step } | Action::Still { step, .. } => *step = named(step),
            Action::Use { .. } | Action::PowerCut => {}
        }
        planned.broken = broken::of(scenario, under, &planned);
        if let (Action::Use { phrase, .. }, None) = (&step.action, &planned.excluded)
            && under.contract.phrases.get(phrase).is_none_or(Vec::is_empty)
        {
            let why = nothing(phrase, under);
            planned.excluded = Some(why.clone());
            self.vanished.insert(step.id.clone(), why);
        }
        // Who waits for nothing is nothing.
        if let (Action::Await { step: id } | Action::Still { step: id, .. }, Some(why)) =
            (&step.action, &planned.excluded)
            && self.vanished.contains_key(id.as_str())
        {
            self.vanished.insert(step.id.clone(), why.clone());
        }
        planned
    }

    /// Why a step is not applicable, if it is not.
    fn excluded(&self, step: &Step, under: &Under<'_>) -> Option<String> {
        let handles: Vec<String> = match &step.action {
            Action::Do { op, .. } | Action::Start { op, .. } | Action::Draw { op, .. } => {
                handles_of(op).into_iter().map(str::to_owned).collect()
            }
            Action::Await { step } | Action::Still { step, .. } => {
                let used = self.handled.get(step).into_iter().flatten();
                used.chain([step]).cloned().collect()
            }
            Action::PowerCut => Vec::new(),
            Action::Use { with, .. } => with.values().filter_map(handle).map(str::to_owned).collect(),
        };
        let why = |id: &String| match (self.missing.get(id.as_str()), self.vanished.get(id.as_str())) {
            (Some(why), _) => Some(format!("`{id}` {why} under {}", under.name)),
            (None, Some(why)) => Some(why.clone()),
            (None, None) => None,
        };
        handles.iter().find_map(why).or_else(|| {
            let needed = step.needs.iter().filter(|id| self.missing.contains_key(id.as_str()));
            needed.filter_map(why).next()
        })
    }

    /// An operation whose handles name the steps as they are planned.
    fn renamed(&self, op: &Op) -> Op {
        if !handles_of(op).iter().any(|id| self.last.contains_key(*id)) {
            return op.clone();
        }
        let text = |value: &mut Value| rename(value, &self.last);
        let Ok(mut value) = serde_json::to_value(op) else { return op.clone() };
        text(&mut value);
        serde_json::from_value(value).unwrap_or_else(|_| op.clone())
    }

    /// The operations a phrase stands for, `ID.1`, `ID.2`; any other step as it is. Those before the last
    /// must succeed; what the step says is said of the last.
    fn written_out(&mut self, step: &'a Step, planned: PlannedStep, under: &Under<'_>) -> Vec<PlannedStep> {
        let Action::Use { by, phrase, with } = &step.action else { return vec![planned] };
        if planned.excluded.is_some() {
            return vec![planned];
        }
        // The checker has shown that it can be said.
        let ops = under.contract.phrase(phrase, with).unwrap_or_default();
        let count = ops.len();
        let mut steps = Vec::new();
        for (nr, op) in ops.iter().enumerate() {
            let id = if count == 1 { step.id.clone() } else { format!("{}.{}", step.id, nr + 1) };
            let one = PlannedStep {
                id,
                action: Action::Do { by: by.clone(), op: self.renamed(op) },
                phrase: Some(phrase.clone()),
                ..planned.clone()
            };
            steps.push(match nr + 1 == count {
                true => one,
                false => PlannedStep {
                    expect: Expect::ok(),
                    not_before_ms: None,
                    not_after_ms: None,
                    proves: Vec::new(),
                    twin: None,
                    broken: None,
                    ..one
                },
            });
        }
        if count > 1 {
            self.last.insert(step.id.clone(), format!("{}.{count}", step.id));
        }
        steps
    }
}

fn handle(value: &Value) -> Option<&str> {
    value.as_str()?.strip_prefix('$')
}

/// Why a phrase is no step.
fn nothing(phrase: &str, under: &Under<'_>) -> String {
    format!("`{phrase}` is nothing under {}", under.name)
}

fn rename(value: &mut Value, last: &BTreeMap<String, String>) {
    match value {
        Value::String(text) => {
            if let Some(new) = text.strip_prefix('$').and_then(|id| last.get(id)) {
                *text = format!("${new}");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, last)),
        Value::Object(map) => map.values_mut().for_each(|item| rename(item, last)),
        _ => {}
    }
}

impl Step {
    /// What must come back.
    #[must_use]
    pub fn expected_under(&self, under: &Under<'_>) -> Expect {
        under.pick(&self.expect).or_else(|| self.expect.get(ELSE)).cloned().unwrap_or_else(Expect::ok)
    }
}

impl Broken {
    /// What the report says of it.
    #[must_use]
    pub fn in_words(&self) -> String {
        format!("{} is expected broken ({})", self.clauses.join(", "), self.reason)
    }
}
