// SPDX-License-Identifier: MIT OR Apache-2.0
//! A case in words: who is there, what is done, what must come back under each contract, what that proves.

use std::fmt::Write as _;

use holdfast_protocol::Provider;
use serde_json::Value;

use super::under::{self, Under};
use super::{Action, Scenario, op_name};
use crate::contract::Contracts;
use crate::plan::PlannedStep;

/// A case in words, ready to be printed.
#[must_use]
pub fn explain(scenario: &Scenario, contracts: &Contracts) -> String {
    let unders = under::all(scenario, contracts);
    let mut text = String::new();
    let _ = writeln!(text, "{}\n  {}", scenario.id, scenario.about);
    let _ = writeln!(text, "  because: {}\n  in {}", scenario.because, scenario.file.display());
    let _ = writeln!(text, "  judged under {}", scenario.contracts.join(", "));
    for feature in &scenario.needs_features {
        let what = contracts.feature(feature).unwrap_or_default();
        let _ = writeln!(text, "  only where the kernel declares {feature}: {what}");
    }
    if scenario.control {
        let with = if scenario.provider.is_rxe() { "" } else { " with that provider" };
        let _ = writeln!(text, "  a control: no row of its kernel{with} is green without it");
    }
    for (name, file) in &scenario.files {
        let on = format!("{:?}", file.on).to_lowercase();
        let _ = writeln!(
            text,
            "  file `{name}`: {} KiB on {on}, written with pattern {}, synced and proved DAX",
            file.size_kib, file.pattern
        );
    }
    for (name, actor) in &scenario.actors {
        let rdma = match (actor.rdma, scenario.provider) {
            (true, Provider::Rxe) => " with an RDMA device".to_owned(),
            (true, provider) => format!(" with an RDMA device of {}", provider.name()),
            (false, _) => String::new(),
        };
        let what = match &actor.thread_of {
            Some(of) => format!("a second thread of `{of}`"),
            None => format!("a process{rdma}"),
        };
        let _ = write!(text, "  actor `{name}`: {what}");
        for handler in actor.on_signal.values() {
            let restart = if handler.restart { "restarts" } else { "does not restart" };
            let _ = write!(text, ", whose handler of {} {restart} the call", handler.signal);
        }
        text.push('\n');
    }
    for (name, value) in &scenario.sysctl {
        let _ = writeln!(text, "  sysctl {name} = {value}");
    }
    let planned: Vec<Vec<PlannedStep>> =
        unders.iter().map(|under| under::written(scenario, under).steps).collect();
    for nr in 0..scenario.steps.len() {
        step(&mut text, scenario, nr, &unders, &planned);
    }
    ending(&mut text, scenario, &unders, contracts);
    text
}

fn step(text: &mut String, scenario: &Scenario, nr: usize, unders: &[Under<'_>], planned: &[Vec<PlannedStep>]) {
    let step = &scenario.steps[nr];
    let id = if step.id.starts_with('#') { String::new() } else { format!(" as `{}`", step.id) };
    let _ = writeln!(text, "\n {:>3}. {}{id}", nr + 1, sentence(scenario, &step.action));
    if let Some(first) = step.together.as_ref().filter(|first| **first != step.id) {
        let _ = writeln!(text, "        at the same moment as `{first}`, without waiting");
    }
    // What is the same under several contracts is said once.
    let mut said: Vec<(String, Vec<String>)> = Vec::new();
    for (under, steps) in unders.iter().zip(planned) {
        let own = steps.iter().filter(|one| one.id == step.id || is_part(&one.id, &step.id));
        let what: String = own.map(|one| came_to(one, under)).collect();
        match said.iter_mut().find(|(known, _)| *known == what) {
            Some((_, names)) => names.push(under.label()),
            None => said.push((what, vec![under.label()])),
        }
    }
    let alone = said.len() == 1;
    for (what, names) in said.iter().filter(|(what, _)| !what.is_empty()) {
        if !alone {
            let _ = writeln!(text, "        under {}:", names.join(", "));
        }
        let indent = if alone { "" } else { "  " };
        what.lines().for_each(|line| {
            let _ = writeln!(text, "{indent}{line}");
        });
    }
    if let Some(twin) = &step.twin {
        let _ = writeln!(text, "        a refusal counts because `{twin}`, the same call, succeeds");
    }
}

fn is_part(id: &str, of: &str) -> bool {
    id.strip_prefix(of).is_some_and(|rest| rest.starts_with('.'))
}

/// What a step does, as a sentence.
fn sentence(scenario: &Scenario, action: &Action) -> String {
    match action {
        Action::Do { by, op } => format!("`{by}` does {}", in_words(op)),
        Action::Start { by, op } => format!("`{by}` starts {} and does not wait", in_words(op)),
        Action::Draw { by, op, of, for_ms, .. } => {
            format!("in the stress `{of}` of {for_ms} ms `{by}` draws {}", in_words(op))
        }
        Action::Use { by, phrase, with } => {
            let with: Vec<String> =
                with.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect();
            format!("`{by}` does what the contract calls {phrase} ({})", with.join(", "))
        }
        Action::Await { step } => format!("wait for `{step}`{}", whose(scenario, step)),
        Action::PowerCut => {
            "the machine loses its power, and boots again with what its NVDIMMs hold".to_owned()
        }
        Action::Still { step, for_ms } => {
            format!("watch `{step}`{} for {for_ms} ms: it must not return", whose(scenario, step))
        }
    }
}

fn whose(scenario: &Scenario, id: &str) -> String {
    match scenario.steps.iter().find(|step| step.id == id).map(|step| &step.action) {
        Some(Action::Do { by, op } | Action::Start { by, op }) => format!(" ({} of `{by}`)", op_name(op)),
        _ => String::new(),
    }
}

/// `truncate (file data, size_kib 0)`.
fn in_words(op: &holdfast_protocol::Op) -> String {
    let value = serde_json::to_value(op).unwrap_or_default();
    let fields = value.as_object().and_then(|map| map.values().next()?.as_object());
    let fields: Vec<String> =
        fields.into_iter().flatten().map(|(name, value)| format!("{name} {}", plain(value))).collect();
    let fields = if fields.is_empty() { String::new() } else { format!(" ({})", fields.join(", ")) };
    format!("{}{fields}", op_name(op))
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            if items.is_empty() { "none".to_owned() } else { items.join(" | ") }
        }
        other => other.to_string(),
    }
}

/// What must come back of one planned step, and what that proves.
fn came_to(step: &PlannedStep, under: &Under<'_>) -> String {
    let mut text = String::new();
    if let Some(why) = &step.excluded {
        let _ = writeln!(text, "        not applicable: {why}");
        return text;
    }
    if let (Some(_), Action::Do { op, .. }) = (&step.phrase, &step.action) {
        let _ = writeln!(text, "        {}: {}", step.id, in_words(op));
    }
    if let Action::Do { .. } | Action::Draw { .. } | Action::Await { .. } = step.action {
        let mut must = match &step.broken {
            Some(broken) => format!("must come back as `{}`: {}", broken.shown, broken.in_words()),
            None => format!("must come back: {}", step.expect),
        };
        if let Some(bound) = step.not_before_ms {
            let _ = write!(must, ", not before {bound} ms");
        }
        if let Some(bound) = step.not_after_ms {
            let _ = write!(must, ", within {bound} ms");
        }
        if let Action::Draw { never_within, after, .. } = &step.action {
            must.push_str(", every time");
            if let Some(first) = after {
                let _ = write!(must, " (drawn once `{first}` has succeeded, while all it used is there)");
            }
            if let Some(other) = never_within {
                let _ = write!(must, ", and never while `{other}` is there from before until after");
            }
        }
        if let Some(reaches) = &step.reaches {
            let _ = write!(must, ", and at least once: {reaches}");
        }
        if let Some(cause) = &step.after {
            let _ = write!(must, ", and only after `{cause}` was done");
        }
        let _ = writeln!(text, "        {must}");
    } else if step.action == Action::PowerCut {
        let _ = writeln!(text, "        it must come up, and mount the file systems that are there");
    } else if let Some(broken) = &step.broken {
        let _ = writeln!(text, "        must come back as `{}`: {}", broken.shown, broken.in_words());
    }
    if let Some(results) = &step.results {
        let mut must =
            format!("        its results are read: at least {}, each of them ok", results.at_least.max(1));
        for (list, what) in [(&results.not_ok, "not ok"), (&results.skipped, "skipped")] {
            if !list.is_empty() {
                let _ = write!(must, "; {what} are {}", list.join(", "));
            }
        }
        let _ = writeln!(text, "{must}");
    }
    for clause in &step.proves {
        let promise = &under.contract.clauses[clause];
        let shows = match &step.broken {
            Some(broken) if broken.clauses.contains(clause) => "shows broken",
            _ => "proves",
        };
        let _ = writeln!(text, "        {shows} {clause}: {promise}");
    }
    text
}

fn ending(text: &mut String, scenario: &Scenario, unders: &[Under<'_>], contracts: &Contracts) {
    text.push('\n');
    for under in unders {
        for (oracle, why) in super::broken_oracles(scenario, under) {
            let _ = writeln!(
                text,
                "  under {} the oracle {oracle} must find something, or the case is red: {why}",
                under.label()
            );
        }
    }
    if let Some(ends) = &scenario.ends {
        let at = ends.step.as_ref().or(ends.title.as_ref());
        let at = at.map(|at| format!(" ({at})")).unwrap_or_default();
        let _ = writeln!(text, "  it must end as {}{at}, or it is red", ends.verdict.name());
    }
    let named = |name: &&str| !scenario.is_about(name);
    let others: Vec<&str> = contracts.names().filter(named).collect();
    if !others.is_empty() {
        let _ = writeln!(text, "  not applicable under {}: it says nothing about them", others.join(", "));
    }
    let _ = writeln!(text, "  afterwards, as always: the standing oracles (docs/scenarios.md)");
}
