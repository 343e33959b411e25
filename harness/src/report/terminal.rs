// SPDX-License-Identifier: MIT OR Apache-2.0
//! The report on a terminal: a table of cases x kernels, the clauses, then each red case with the
//! step, what was expected, what came, and where the evidence lies.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anstyle::{AnsiColor, Style};
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};

use super::{ClauseState, Results};
use crate::judge::{CaseResult, StepStatus};
use crate::outcome::Kind;
use crate::plan::scenario_id;
use crate::record::Origin;
use crate::runs::case_folder;

pub(crate) const GREEN: Style = AnsiColor::Green.on_default();
pub(crate) const RED: Style = AnsiColor::Red.on_default().bold();
pub(crate) const YELLOW: Style = AnsiColor::Yellow.on_default();
pub(crate) const DIM: Style = Style::new().dimmed();

/// The report, coloured; print it through `anstream`, which takes the colours off where nobody
/// looks at a terminal.
#[must_use]
pub fn render(results: &Results, folder: &Path) -> String {
    let mut text = String::new();
    let kernels: Vec<&str> = names(results);
    let _ = writeln!(text, "\n{}", rows(results, &kernels));
    let _ = writeln!(text, "\n{}", clauses(results, &kernels));
    let mut shown: Vec<&CaseResult> = Vec::new();
    for case in results.cases.iter().filter(|case| !case.green) {
        // One build that failed is one message, not one for each case that needed it.
        if shown
            .iter()
            .any(|one| one.kernel == case.kernel && one.verdict == case.verdict && is_no_verdict(one))
        {
            continue;
        }
        shown.push(case);
        let same = results.cases.iter().filter(|one| one.kernel == case.kernel && one.verdict == case.verdict);
        let more = if is_no_verdict(case) { same.count() - 1 } else { 0 };
        red(&mut text, case, more, folder);
    }
    let mut notes: BTreeSet<String> = results
        .cases
        .iter()
        .flat_map(|case| case.notes.iter().map(|note| format!("{}: {note}", case.kernel)))
        .collect();
    notes.extend(results.cases.iter().flat_map(|case| {
        case.broken
            .iter()
            .map(|(clause, why)| format!("{}: {clause} is broken, as expected: {why}", case.kernel))
    }));
    for note in notes {
        let _ = writeln!(text, "{DIM}note{DIM:#}  {note}");
    }
    for kernel in &results.kernels {
        let judged = if kernel.judged_by == kernel.claims {
            String::new()
        } else {
            format!(", claims {}", kernel.claims)
        };
        let _ = writeln!(
            text,
            "{DIM}kernel{DIM:#}  {}: {} from {}, judged by {}{judged}",
            kernel.name, kernel.release, kernel.source, kernel.judged_by
        );
    }
    let _ = write!(text, "{}", summary(results, folder));
    text
}

fn names(results: &Results) -> Vec<&str> {
    let mut names = Vec::new();
    for case in &results.cases {
        if !names.contains(&case.kernel.as_str()) {
            names.push(&case.kernel);
        }
    }
    names
}

fn table(head: &str, kernels: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([head].into_iter().chain(kernels.iter().copied()));
    table
}

fn rows(results: &Results, kernels: &[&str]) -> Table {
    let mut table = table("case", kernels);
    let mut seen = BTreeSet::new();
    for case in &results.cases {
        let id = scenario_id(&case.id);
        if !seen.insert(id) {
            continue;
        }
        let cells = kernels.iter().map(|kernel| {
            let rounds =
                results.cases.iter().filter(|one| one.kernel == **kernel && scenario_id(&one.id) == id);
            cell(&rounds.collect::<Vec<_>>())
        });
        table.add_row([id.to_owned()].into_iter().chain(cells));
    }
    table
}

/// The rounds of a case: the verdict, and of several how often each was given.
fn cell(rounds: &[&CaseResult]) -> String {
    let mut verdicts: Vec<(Style, String, usize)> = Vec::new();
    for case in rounds {
        let (style, word) = word(case.verdict.kind, case.green);
        match verdicts.iter_mut().find(|(_, known, _)| *known == word) {
            Some((.., times)) => *times += 1,
            None => verdicts.push((style, word, 1)),
        }
    }
    let shown = verdicts.into_iter().map(|(style, word, times)| match rounds.len() {
        1 => format!("{style}{word}{style:#}"),
        _ => format!("{style}{word}{style:#} x{times}"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// A verdict as it is shown, in the table and while the run goes on.
pub(crate) fn word(kind: Kind, green: bool) -> (Style, String) {
    match (green, kind) {
        (true, Kind::NotApplicable) => (DIM, "-".to_owned()),
        (true, Kind::Pass) => (GREEN, "pass".to_owned()),
        (true, kind) => (GREEN, format!("{} (declared)", kind.name())),
        (false, Kind::Inconclusive | Kind::NotRun) => (YELLOW, kind.name().to_owned()),
        (false, kind) => (RED, kind.name().to_uppercase()),
    }
}

fn clauses(results: &Results, kernels: &[&str]) -> Table {
    let mut table = table("clause", kernels);
    let all: BTreeSet<&String> = results.clauses.values().flat_map(|clauses| clauses.keys()).collect();
    for clause in all {
        let cells = kernels.iter().map(|kernel| {
            let (style, word) = match results.clauses.get(*kernel).and_then(|clauses| clauses.get(clause)) {
                Some(ClauseState::Holds) => (GREEN, "holds"),
                Some(ClauseState::Partly) => (YELLOW, "partly"),
                Some(ClauseState::Broken) => (RED, "BROKEN"),
                Some(ClauseState::BrokenAsExpected) => (GREEN, "broken as expected"),
                Some(ClauseState::Inconclusive) => (YELLOW, "inconclusive"),
                Some(ClauseState::NotExercised) => (YELLOW, "not exercised"),
                None => (DIM, "-"),
            };
            format!("{style}{word}{style:#}")
        });
        table.add_row([clause.clone()].into_iter().chain(cells));
    }
    table
}

fn is_no_verdict(case: &CaseResult) -> bool {
    matches!(case.verdict.kind, Kind::Infra | Kind::Inconclusive | Kind::NotRun)
}

fn red(text: &mut String, case: &CaseResult, more: usize, folder: &Path) {
    let verdict = &case.verdict;
    let more = if more > 0 { format!(", and {more} more cases") } else { String::new() };
    let _ = writeln!(text, "{RED}{}{RED:#}  {} on {}{more}", verdict.kind.name(), case.id, case.kernel);
    let mut say = |head: &str, what: &str| {
        let what = what.trim().replace('\n', "\n            ");
        let _ = writeln!(text, "  {head:9} {what}");
    };
    if let Some(title) = &verdict.title {
        say("title", title);
    }
    if let Some(step) = &verdict.step {
        let label = case.steps.iter().find(|one| one.id == *step).map(|one| format!(" ({})", one.label));
        say("step", &format!("{step}{}", label.unwrap_or_default()));
    }
    if let Some(expected) = &verdict.expected {
        say("expected", expected);
    }
    if let Some(got) = &verdict.got {
        say(if verdict.expected.is_some() { "got" } else { "because" }, got);
    }
    let others: Vec<String> = case
        .steps
        .iter()
        .filter(|step| step.status == StepStatus::NotAsExpected && verdict.step.as_deref() != Some(&step.id))
        .map(|step| format!("{} ({}): expected {}, got {}", step.id, step.label, step.expected, step.got))
        .collect();
    if !others.is_empty() {
        say("also", &others.join("\n"));
    }
    // What was never begun left nothing to look at.
    if matches!(verdict.kind, Kind::Infra | Kind::NotRun) {
        return;
    }
    say("evidence", &case_folder(folder, &case.kernel, &case.id).display().to_string());
}

fn summary(results: &Results, folder: &Path) -> String {
    let applicable: Vec<&CaseResult> =
        results.cases.iter().filter(|case| case.verdict.kind != Kind::NotApplicable).collect();
    let green = applicable.iter().filter(|case| case.green).count();
    let style = if results.exit == 0 { GREEN } else { RED };
    let pace = results.host.slowest_pace;
    let booted = applicable.iter().filter(|case| case.machine == Origin::Cold).count();
    let booted = match booted {
        0 => String::new(),
        all if all == applicable.len() => ", every machine booted".to_owned(),
        some => format!(", {some} machines booted"),
    };
    let pace =
        if pace > 1.05 { format!(", slowest guest {pace:.1} times the reference") } else { String::new() };
    // What is drawn at random, in a stress and by the kernels, is drawn again.
    let again = match results.exit {
        0 => String::new(),
        _ => format!("\n{DIM}seed{DIM:#}     {}; --seed gives every case the one it had", results.seed),
    };
    format!(
        "{style}{green} of {} as expected{style:#} in {:.0} s ({}, {} at a time{booted}{pace})\n{DIM}results{DIM:#}  {}{again}",
        applicable.len(),
        results.took_s,
        results.host.accelerator.kind.name(),
        results.host.jobs,
        folder.display()
    )
}
