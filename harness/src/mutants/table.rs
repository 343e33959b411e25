// SPDX-License-Identifier: MIT OR Apache-2.0
//! The report on mutants on a terminal: clauses x mutants, then what became of each mutant.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anstyle::Style;
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};

use super::verdict::Seen;
use super::{Found, Mutation, Report};
use crate::report::{ClauseState, DIM, GREEN, RED, YELLOW};
use crate::runs::CASES;

/// The report, coloured; print it through `anstream`.
#[must_use]
pub fn render(report: &Report, folder: &Path) -> String {
    let mut text = format!("\n{}\n\n", table(report));
    let _ = writeln!(text, "{DIM}a star stands where a mutant names the clause{DIM:#}");
    let silent = clauses(report, false);
    if !silent.is_empty() {
        let _ = writeln!(text, "{DIM}no case of this run is to prove{DIM:#} {}", silent.join(", "));
    }
    if let Some(seen) = &report.unmutated {
        let broken =
            seen.broken_by.iter().map(|(clause, cases)| format!("{clause} is broken by {}", cases.join(", ")));
        let told = broken.chain(beside(seen)).collect::<Vec<_>>();
        match told.is_empty() {
            true => say(&mut text, (GREEN, "good"), &report.base, &["every case is as expected".to_owned()]),
            false => say(&mut text, (RED, "NOT GOOD"), &report.base, &told),
        }
    }
    for mutation in &report.mutants {
        let verdict = match mutation.found {
            Found::Caught => (GREEN, "caught"),
            Found::Otherwise => (RED, "NOT CAUGHT"),
            Found::Undecided => (YELLOW, "undecided"),
        };
        let by = format!("names {}", list(&mutation.mutant.breaks));
        let told: Vec<String> =
            [by].into_iter().chain(mutation.why.clone()).chain(beside(&mutation.seen)).collect();
        say(&mut text, verdict, &mutation.mutant.name, &told);
    }
    let caught = report.mutants.iter().filter(|mutation| mutation.found == Found::Caught).count();
    let style = if report.exit == 0 { GREEN } else { RED };
    let _ = write!(
        text,
        "{style}{caught} of {} caught by exactly what they name{style:#}\n{DIM}evidence{DIM:#}  {}",
        report.mutants.len(),
        folder.join(CASES).display()
    );
    text
}

fn say(text: &mut String, (style, word): (Style, &str), name: &str, told: &[String]) {
    let _ = writeln!(text, "{style}{word:10}{style:#}  {name}: {}", told.join("\n            "));
}

fn list(clauses: &BTreeSet<String>) -> String {
    clauses.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// What was seen and is no clause.
fn beside(seen: &Seen) -> impl Iterator<Item = String> {
    let said = |(what, cases): (&String, &Vec<String>)| format!("{what}: {}", few(cases));
    seen.splats.iter().map(said).chain(seen.others.iter().map(said)).collect::<Vec<_>>().into_iter()
}

/// The first of them, and how many more.
fn few(cases: &[String]) -> String {
    const SHOWN: usize = 3;
    let more = cases.len().saturating_sub(SHOWN);
    let shown = cases.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{shown}, and {more} more") } else { shown }
}

fn table(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let base = report.unmutated.as_ref();
    let heads = heads(&report.mutants);
    table.set_header(["clause"].into_iter().chain(base.map(|_| report.base.as_str())).chain(heads));
    let all = base.into_iter().chain(report.mutants.iter().map(|mutation| &mutation.seen));
    for clause in clauses(report, true) {
        let own = base.map(|seen| cell(seen.clauses.get(clause), None));
        let mutated = report.mutants.iter().map(|mutation| {
            cell(mutation.seen.clauses.get(clause), Some(mutation.mutant.breaks.contains(clause)))
        });
        table.add_row([clause.to_owned()].into_iter().chain(own).chain(mutated));
    }
    let count = |cases: &BTreeMap<String, Vec<String>>| match cases.values().map(Vec::len).sum::<usize>() {
        0 => format!("{DIM}-{DIM:#}"),
        some => format!("{YELLOW}{some}{YELLOW:#}"),
    };
    let splats = all.clone().map(|seen| count(&seen.splats));
    table.add_row(["(cases with splats)".to_owned()].into_iter().chain(splats));
    let others = all.map(|seen| count(&seen.others));
    table.add_row(["(other red cases)".to_owned()].into_iter().chain(others));
    table
}

/// The clauses that some case of the run says something of, or is to, or those that none does.
fn clauses(report: &Report, exercised: bool) -> Vec<&str> {
    let all = || report.unmutated.iter().chain(report.mutants.iter().map(|mutation| &mutation.seen));
    let said = |clause: &String| {
        all().any(|seen| seen.clauses.get(clause).is_some_and(|state| *state != ClauseState::NotExercised))
            || report.mutants.iter().any(|mutation| mutation.mutant.breaks.contains(clause))
    };
    let clauses: BTreeSet<&String> = all().flat_map(|seen| seen.clauses.keys()).collect();
    clauses.into_iter().filter(|clause| said(clause) == exercised).map(String::as_str).collect()
}

/// The first word of each name where that tells them apart.
fn heads(mutants: &[Mutation]) -> Vec<&str> {
    let short: Vec<&str> = mutants.iter().map(|mutation| mutation.mutant.short()).collect();
    let distinct: BTreeSet<&str> = short.iter().copied().collect();
    match distinct.len() == short.len() {
        true => short,
        false => mutants.iter().map(|mutation| mutation.mutant.name.as_str()).collect(),
    }
}

/// `named` is `None` on the kernel itself, where every clause must hold.
fn cell(state: Option<&ClauseState>, named: Option<bool>) -> String {
    let star = if named == Some(true) { " *" } else { "" };
    let (style, word) = match (state, named) {
        (Some(ClauseState::Broken), Some(true)) => (GREEN, "broken"),
        (Some(ClauseState::Broken), _) => (RED, "BROKEN"),
        (Some(ClauseState::Holds), Some(true)) => (RED, "HOLDS"),
        (Some(ClauseState::Holds), _) => (GREEN, "holds"),
        (Some(ClauseState::BrokenAsExpected), _) => (DIM, "broken as expected"),
        (Some(ClauseState::Partly), _) => (YELLOW, "partly"),
        (Some(ClauseState::Inconclusive), _) => (YELLOW, "no verdict"),
        (Some(ClauseState::NotExercised) | None, _) => (DIM, "not exercised"),
    };
    format!("{style}{word}{star}{style:#}")
}
