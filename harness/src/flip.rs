// SPDX-License-Identifier: MIT OR Apache-2.0
//! Alters stored facts one at a time and judges again: every alteration must turn its case red.
//!
//! An alteration that stays green is a vacuous expectation: a step that claims to prove something
//! and would claim the same had something else come back. No VM is needed.

use std::collections::BTreeMap;
use std::fmt;

use holdfast_protocol::{
    ConfigMismatch, Count, Fact, Leaks, LogLine, Oracles, Outcome, ProgramEnd, Ran, StuckTask, Victim,
};

use crate::fsck::FsckFact;
use crate::judge::judge_all;
use crate::outcome::Kind;
use crate::plan::{Plan, PlannedCase, PlannedStep};
use crate::record::{End, Record};
use crate::scenario::{Action, describe};
use crate::splat::Splat;

/// What came of altering the facts of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flipped {
    /// Alterations tried.
    pub tried: usize,
    /// Those that stayed green.
    pub vacuous: Vec<Vacuous>,
    /// Green cases without a single fact to alter: they claim nothing.
    pub idle: Vec<String>,
}

/// An alteration that no expectation noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vacuous {
    /// The case and kernel.
    pub case: String,
    /// Which fact.
    pub fact: String,
    /// How it was altered.
    pub alteration: String,
}

impl fmt::Display for Vacuous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}, and it stays green", self.case, self.fact, self.alteration)
    }
}

/// One altered record and what was done to it.
struct Altered {
    fact: String,
    alteration: String,
    record: Record,
}

/// Alters each fact behind a claim of each green case in turn.
#[must_use]
pub fn flip(plan: &Plan, records: &[Record]) -> Flipped {
    let results = judge_all(plan, records);
    let mut flipped = Flipped::default();
    for (nr, case) in plan.cases.iter().enumerate() {
        if !results[nr].green || results[nr].verdict.kind == Kind::NotApplicable {
            continue;
        }
        let name = format!("{} on {}", case.id, case.kernel);
        let altered = alterations(case, &records[nr]);
        if altered.is_empty() {
            flipped.idle.push(name.clone());
        }
        for one in altered {
            flipped.tried += 1;
            let again = crate::judge::judge(case, &plan.contracts[&case.contract], &one.record);
            if again.green {
                flipped.vacuous.push(Vacuous {
                    case: name.clone(),
                    fact: one.fact,
                    alteration: one.alteration,
                });
            }
        }
    }
    flipped
}

fn alterations(case: &PlannedCase, record: &Record) -> Vec<Altered> {
    if case.ends.is_some() {
        return vec![Altered {
            fact: "the declared end".into(),
            alteration: "did not come".into(),
            record: Record {
                oracles: record.oracles.clone().map(cleaned).or_else(|| Some(cleaned(Oracles::default()))),
                fsck: with_status(&record.fsck, Some(0)),
                console: Vec::new(),
                end: End::Complete,
                facts: as_expected(case, record),
                ..record.clone()
            },
        }];
    }
    let behind = |step: &&PlannedStep| step.excluded.is_none() && is_behind_a_claim(case, step);
    let mut all: Vec<Altered> =
        case.steps.iter().filter(behind).flat_map(|step| of_step(step, record)).collect();
    all.extend(of_the_machine(record));
    if let Some(oracles) = &record.oracles {
        // Where an oracle is expected to find something, more of it is nothing else; nothing is.
        let expected = |fact: &str| case.broken_oracles.contains_key(fact);
        for name in case.broken_oracles.keys() {
            let (cleaned, fsck) = without(name, oracles, &record.fsck);
            all.push(Altered {
                fact: format!("oracle {name}"),
                alteration: "finds nothing".to_owned(),
                record: Record { oracles: Some(cleaned), fsck, ..record.clone() },
            });
        }
        let told = of_oracles(oracles).into_iter().chain(of_damage(oracles));
        let told = told.filter(|(fact, alteration, _)| !(expected(fact) && alteration.starts_with("shows")));
        all.extend(told.map(|(fact, alteration, oracles)| Altered {
            fact: format!("oracle {fact}"),
            alteration: alteration.to_owned(),
            record: Record { oracles: Some(oracles), ..record.clone() },
        }));
        let told = of_fsck(&record.fsck).into_iter();
        let told = told.filter(|(alteration, _)| !(expected("fsck") && alteration.starts_with("shows")));
        all.extend(told.map(|(alteration, fsck)| Altered {
            fact: "oracle fsck".to_owned(),
            alteration: alteration.to_owned(),
            record: Record { fsck, ..record.clone() },
        }));
    }
    all
}

/// The facts, without what a drawn operation should not have come to, and with a program that does well where it was to end otherwise.
fn as_expected(case: &PlannedCase, record: &Record) -> BTreeMap<String, Fact> {
    let mut facts = record.facts.clone();
    for step in &case.steps {
        if let Some(Fact { outcome: Outcome::Tally(counts), .. }) = facts.get_mut(&step.id) {
            counts.retain(|count| step.expect.admits(&count.outcome, &|_| None));
        }
        let is_it = case.ends.as_ref().is_some_and(|ends| ends.step.as_ref() == Some(&step.id));
        if let (true, Some(Fact { outcome: Outcome::Ran(ran), .. })) = (is_it, facts.get_mut(&step.id)) {
            let (end, output) = (ProgramEnd::Exited(0), "1..1\nok 1 - altered\n".to_owned());
            **ran = Ran { end, output, dropped: 0, errors: String::new(), left: 0 };
        }
    }
    facts
}

/// It proves a clause itself, or is the twin of a step that does.
fn is_behind_a_claim(case: &PlannedCase, step: &PlannedStep) -> bool {
    let drawn = |one: &PlannedStep| matches!(one.action, Action::Draw { .. });
    let claims = |one: &PlannedStep| {
        one.excluded.is_none() && (!one.proves.is_empty() || drawn(one) || one.results.is_some())
    };
    claims(step) || case.steps.iter().any(|one| claims(one) && one.twin.as_deref() == Some(&step.id))
}

fn of_step(step: &PlannedStep, record: &Record) -> Vec<Altered> {
    let Some(fact) = record.facts.get(&step.id) else { return Vec::new() };
    let altered = |alteration: String, fact: Option<Fact>| {
        let mut record = record.clone();
        match fact {
            Some(fact) => record.facts.insert(step.id.clone(), fact),
            None => record.facts.remove(&step.id),
        };
        Altered { fact: format!("step {} ({})", step.id, step.label()), alteration, record }
    };
    let mut all = vec![altered("is dropped".into(), None)];
    if let Outcome::Tally(counts) = &fact.outcome {
        for (alteration, counts) in of_tally(step, counts) {
            all.push(altered(
                alteration.to_owned(),
                Some(Fact { outcome: Outcome::Tally(counts), ..fact.clone() }),
            ));
        }
        return all;
    }
    if let (Some(_), Outcome::Ran(ran)) = (&step.results, &fact.outcome) {
        for (alteration, output) in of_output(&ran.output) {
            let outcome = Outcome::Ran(Box::new(Ran { output, ..(**ran).clone() }));
            all.push(altered(alteration.to_owned(), Some(Fact { outcome, ..fact.clone() })));
        }
        let outcome = Outcome::Ran(Box::new(Ran { dropped: 1, ..(**ran).clone() }));
        all.push(altered("is not kept as a whole".to_owned(), Some(Fact { outcome, ..fact.clone() })));
    }
    for outcome in others(&fact.outcome).into_iter().chain(step.expect.contraries(&fact.outcome)) {
        let alteration = format!("becomes `{}`", describe(&outcome));
        all.push(altered(alteration, Some(Fact { outcome, ..fact.clone() })));
    }
    let taking = |took_ms| Some(Fact { took_ms, ..fact.clone() });
    if matches!(fact.outcome, Outcome::Blocked { .. }) {
        if matches!(step.action, Action::Still { .. }) {
            all.push(altered("is watched for no time".into(), taking(0)));
        }
    } else if fact.outcome == Outcome::NoSignal {
        all.push(altered("is watched for no time".into(), taking(0)));
    } else if has_bound(step) {
        all.push(altered("comes late".into(), taking(u64::MAX / 2)));
    }
    if (step.after.is_some() || step.not_before_ms.is_some()) && step.broken.is_none() {
        all.push(altered("comes early".into(), taking(0)));
    }
    all
}

/// A tally may have any mixture of what is expected, but nothing else, and not nothing.
fn of_tally(step: &PlannedStep, counts: &[Count]) -> Vec<(&'static str, Vec<Count>)> {
    let mut all = vec![("is never drawn", Vec::new())];
    let strange = Count { outcome: Outcome::Errno(ESTALE), times: 1, first_draw: 1, longest_ms: 0 };
    all.push(("comes to ESTALE once", [counts, std::slice::from_ref(&strange)].concat()));
    if let Action::Draw { never_within: Some(other), .. } = &step.action {
        let within = Count { outcome: Outcome::Within(other.clone()), ..strange.clone() };
        all.push(("succeeds once within what it must not", [counts, &[within]].concat()));
    }
    if step.expect.names_a_value() {
        let other = Count { outcome: Outcome::Returned(i64::MIN), ..strange.clone() };
        all.push(("comes to another value once", [counts, &[other]].concat()));
    }
    if let Some(reaches) = &step.reaches {
        let other = |count: &&Count| !reaches.admits(&count.outcome, &|_| None);
        all.push(("never comes to what it must reach", counts.iter().filter(other).cloned().collect()));
    }
    all
}

/// What no system call of a local file system comes to.
const ESTALE: i32 = 116;

/// What had to be so before any result says anything.
fn of_the_machine(record: &Record) -> Vec<Altered> {
    let mut all = Vec::new();
    let mut with = |fact: &str, alteration: &str, change: &dyn Fn(&mut Record)| {
        let mut record = record.clone();
        change(&mut record);
        all.push(Altered { fact: fact.to_owned(), alteration: alteration.to_owned(), record });
    };
    with("kernel", "is another one", &|one| one.release.push('x'));
    with("configuration", "lacks an option", &|one| {
        one.config.push(ConfigMismatch { option: "X".into(), want: "y".into(), got: "n".into() });
    });
    with("hello", "is dropped", &|one| one.hello = None);
    for (nr, pmem) in record.hello.iter().flat_map(|hello| hello.pmem.iter().enumerate()) {
        let what = format!("{:?}", pmem.place);
        with(&what, "is not ready", &|one| {
            one.hello.iter_mut().for_each(|hello| hello.pmem[nr].trouble = "altered".into());
        });
        with(&what, "is not there", &|one| {
            one.hello.iter_mut().for_each(|hello| drop(hello.pmem.remove(nr)));
        });
    }
    with("RDMA", "is not ready", &|one| {
        let links = one.hello.iter_mut().flat_map(|hello| &mut hello.rdma);
        links.for_each(|link| link.trouble = "altered".into());
    });
    with("RDMA", "is not there", &|one| one.hello.iter_mut().for_each(|hello| hello.rdma.clear()));
    for (nr, file) in record.files.iter().enumerate() {
        let what = format!("file {}", file.name);
        with(&what, "is dropped", &|one| drop(one.files.remove(nr)));
        with(&what, "is not DAX by statx", &|one| one.files[nr].statx_dax = false);
        with(&what, "takes no MAP_SYNC", &|one| one.files[nr].map_sync = false);
        with(&what, "is not filled", &|one| one.files[nr].filled = false);
    }
    for (nr, life) in record.lives.iter().enumerate() {
        let what = format!("the life after {}", life.step);
        with(&what, "is dropped", &|one| drop(one.lives.remove(nr)));
        with(&what, "is of another kernel", &|one| one.lives[nr].hello.kernel.push('x'));
        with(&what, "is without RDMA", &|one| one.lives[nr].hello.rdma.clear());
        for (at, pmem) in life.hello.pmem.iter().enumerate() {
            let what = format!("{what}: {:?}", pmem.place);
            with(&what, "is made anew", &|one| one.lives[nr].hello.pmem[at].found = false);
            with(&what, "is not ready", &|one| one.lives[nr].hello.pmem[at].trouble = "altered".into());
            with(&what, "is not there", &|one| drop(one.lives[nr].hello.pmem.remove(at)));
        }
        for (at, file) in life.files.iter().enumerate() {
            let what = format!("{what}: file {}", file.name);
            with(&what, "is not DAX by statx", &|one| one.lives[nr].files[at].statx_dax = false);
            with(&what, "takes no MAP_SYNC", &|one| one.lives[nr].files[at].map_sync = false);
        }
    }
    with("the oracles", "are not consulted", &|one| one.oracles = None);
    with("the end", "is QEMU's", &|one| {
        one.end = End::QemuEnded { how: "altered".into(), during: "altered".into() };
    });
    with("the end", "is a deadline", &|one| {
        one.end = End::Deadline { during: "altered".into(), after_ms: 1, qemu: String::new() };
    });
    with("the console", "shows a panic", &|one| {
        one.console.push(Splat { title: "Kernel panic - not syncing: altered".into(), line: String::new() });
    });
    all
}

/// An `await` without a bound of its own is late by blocking, which is another alteration.
fn has_bound(step: &PlannedStep) -> bool {
    matches!(step.action, Action::Do { .. }) || step.not_after_ms.is_some()
}

/// Outcomes of other kinds, and another of the same kind where the kind has an argument.
fn others(outcome: &Outcome) -> Vec<Outcome> {
    let blocked = Outcome::Blocked { state: "S".into(), wchan: "altered".into(), stack: Vec::new() };
    let killed = Outcome::Killed("SIGKILL".into());
    let differs = Outcome::Differs { at: 0, want: 0, got: 1 };
    let mut all: Vec<Outcome> = ERRNOS.map(Outcome::Errno).into_iter().chain([killed]).collect();
    match outcome {
        Outcome::Returned(_) => all.extend([blocked, differs]),
        Outcome::Blocked { .. } => all.push(Outcome::Returned(0)),
        Outcome::Ran(ran) => {
            let end = match ran.end {
                ProgramEnd::Exited(code) => ProgramEnd::Exited(code + 1),
                _ => ProgramEnd::Exited(0),
            };
            let overdue = ProgramEnd::Overdue { state: "S".into(), wchan: "altered".into(), stack: Vec::new() };
            let ended = |end| Outcome::Ran(Box::new(Ran { end, ..(**ran).clone() }));
            all.extend([blocked, ended(end), ended(overdue)]);
        }
        _ => all.extend([blocked, Outcome::Returned(0)]),
    }
    // What it was is no alteration.
    all.retain(|other| other != outcome);
    all
}

/// What a program said, with its first result that counts turned, lost, and all of them gone.
fn of_output(output: &str) -> Vec<(&'static str, String)> {
    let lines: Vec<&str> = output.lines().collect();
    let is_result = |line: &str| line.starts_with("ok ") || line.starts_with("not ok ");
    // One that is skipped or known not to work is neither.
    let counts = |line: &&str| is_result(line.trim_start()) && !line.contains('#');
    let Some(nr) = lines.iter().position(counts) else { return Vec::new() };
    let (indent, result) = lines[nr].split_at(lines[nr].len() - lines[nr].trim_start().len());
    let turned = match result.strip_prefix("not ") {
        Some(rest) => format!("{indent}{rest}"),
        None => format!("{indent}not {result}"),
    };
    let with = |line: &[&str]| [&lines[..nr], line, &lines[nr + 1..]].concat().join("\n");
    let others: Vec<&str> = lines.iter().copied().filter(|line| !is_result(line.trim_start())).collect();
    vec![
        ("turns its first result", with(&[&turned])),
        ("loses its first result", with(&[])),
        ("has no results", others.join("\n")),
        ("says nothing", String::new()),
    ]
}

/// EPERM, EINTR, EIO, EAGAIN, EFAULT, EBUSY, EINVAL, ETXTBSY, EOPNOTSUPP: what a kernel that refuses
/// for another reason would say. A set of several refusals must not be so wide that one of them fits.
const ERRNOS: [i32; 9] = [1, 4, 5, 11, 14, 16, 22, 26, 95];

fn of_oracles(seen: &Oracles) -> Vec<(&'static str, &'static str, Oracles)> {
    let mut all = Vec::new();
    let mut with = |fact, alteration, change: &dyn Fn(&mut Oracles)| {
        let mut oracles = seen.clone();
        change(&mut oracles);
        all.push((fact, alteration, oracles));
    };
    with("pins", "shows one page more pinned", &|one| one.pins_after.acquired += 1);
    with("regions", "shows a region left", &|one| one.regions_left += 1);
    with("leases", "shows a lease left", &|one| one.leases_left.push("LEASE".into()));
    with("stuck", "shows a task left", &|one| {
        one.stuck.push(StuckTask {
            actor: "a".into(),
            state: "D".into(),
            wchan: "w".into(),
            stack: Vec::new(),
        });
    });
    with("umount", "shows EBUSY", &|one| one.umount.iter_mut().for_each(|umount| umount.errno = 16));
    with("umount", "is dropped", &|one| one.umount.clear());
    with("umount", "is half done", &|one| one.umount.truncate(1));
    with("log", "shows a warning", &|one| {
        one.log.push(LogLine { at_us: 0, text: "WARNING: CPU: 0 PID: 1 at fs/x.c:1 altered+0x1/0x2".into() });
    });
    with("memory", "shows a leak", &|one| {
        one.leaks = Leaks::Listed(vec!["unreferenced object 0x1 (size 8):".into()]);
    });
    with("memory", "could not be looked at", &|one| one.leaks = Leaks::Unknown { why: "altered".into() });
    with("log", "has lost its mark", &|one| one.log_mark_found = false);
    all
}

/// What a look for damage found, turned into its opposite.
fn of_damage(seen: &Oracles) -> Vec<(&'static str, &'static str, Oracles)> {
    let turned = |change: fn(&mut Victim)| {
        let mut oracles = seen.clone();
        oracles.damage.iter_mut().filter_map(|fact| fact.victim.as_mut()).for_each(change);
        oracles
    };
    let mut all = Vec::new();
    if seen.damage.iter().any(|fact| fact.victim.is_some()) {
        all.push(("damage", "leaves the victim as it was, or not", turned(|victim| turn(&mut victim.bytes))));
        all.push(("damage", "is read otherwise", turned(|victim| victim.read.iter_mut().for_each(turn))));
        let mut none = seen.clone();
        none.damage.iter_mut().for_each(|fact| fact.victim = None);
        all.push(("damage", "could not be shown", none));
    }
    all
}

fn turn(outcome: &mut Outcome) {
    *outcome = match outcome {
        Outcome::Returned(_) => Outcome::Differs { at: 0, want: 0, got: 1 },
        _ => Outcome::Returned(0),
    };
}

fn of_fsck(seen: &[FsckFact]) -> Vec<(&'static str, Vec<FsckFact>)> {
    vec![
        ("shows damage", with_status(seen, Some(4))),
        ("is dropped", Vec::new()),
        ("is half done", seen.iter().take(1).cloned().collect()),
        ("has no status", with_status(seen, None)),
    ]
}

fn with_status(seen: &[FsckFact], status: Option<i32>) -> Vec<FsckFact> {
    seen.iter().map(|fact| FsckFact { status, ..fact.clone() }).collect()
}

/// What was seen, but for one oracle that finds nothing.
fn without(name: &str, seen: &Oracles, fsck: &[FsckFact]) -> (Oracles, Vec<FsckFact>) {
    let clean = cleaned(seen.clone());
    let mut seen = seen.clone();
    match name {
        "stuck" => seen.stuck = clean.stuck,
        "regions" => seen.regions_left = clean.regions_left,
        "pins" => seen.pins_after = clean.pins_after,
        "leases" => seen.leases_left = clean.leases_left,
        "umount" => seen.umount = clean.umount,
        "fsck" => return (seen, with_status(fsck, Some(0))),
        // Of damage nothing is found also when nobody looks.
        _ => seen.damage.clear(),
    }
    (seen, fsck.to_vec())
}

/// What the oracles of a good case would have shown.
fn cleaned(mut seen: Oracles) -> Oracles {
    seen.pins_after = seen.pins_before;
    seen.regions_left = 0;
    seen.leases_left.clear();
    seen.stuck.clear();
    seen.umount.iter_mut().for_each(|umount| umount.errno = 0);
    seen.log.clear();
    seen.log_mark_found = true;
    seen.leaks = Leaks::NotLookedFor;
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_back_is_no_alteration_of_itself() {
        for outcome in [Outcome::Killed("SIGKILL".into()), Outcome::Errno(16), Outcome::Returned(0)] {
            let others = others(&outcome);
            assert!(!others.is_empty() && !others.contains(&outcome), "{outcome:?}");
        }
    }
}
