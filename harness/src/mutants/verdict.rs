// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether each mutant was caught by the clauses that it names and by no other. Pure.
//!
//! A clause is broken by a fact: a step came back otherwise than the clause says, or an oracle found
//! something. A splat breaks none, nor does a guest that stops answering: they say that something is wrong
//! and not what, so they have rows of their own. A call that hangs in a guest that goes on is a fact.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Mutant;
use crate::judge::CaseResult;
use crate::outcome::{Exit, Kind};
use crate::report::{ClauseState, Results};

/// What a run says of a kernel's mutants.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Version of this form; fields may be added under the same number.
    pub format: u32,
    /// The kernel that is mutated.
    pub base: String,
    /// The contract it is judged by.
    pub contract: String,
    /// What the run says of the kernel itself; `None` when it was left out.
    pub unmutated: Option<Seen>,
    /// Each mutant.
    pub mutants: Vec<Mutation>,
    /// The exit code of the command.
    pub exit: u8,
}

/// What a run saw of one kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// By clause.
    pub clauses: BTreeMap<String, ClauseState>,
    /// By clause that is broken, the cases that showed it.
    pub broken_by: BTreeMap<String, Vec<String>>,
    /// By title of an undeclared splat, the cases that ended with it.
    pub splats: BTreeMap<String, Vec<String>>,
    /// Cases that ended without a verdict on a clause and without a splat, and how.
    pub others: BTreeMap<String, Vec<String>>,
}

/// A mutant and what became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mutation {
    /// The mutant.
    #[serde(flatten)]
    pub mutant: Mutant,
    /// What the run saw.
    #[serde(flatten)]
    pub seen: Seen,
    /// Whether it was caught.
    pub found: Found,
    /// Why it was not; empty when it was.
    pub why: Vec<String>,
}

/// Whether a mutant was caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    /// By each of the clauses it names, and by no other.
    Caught,
    /// A clause it names holds, or another one is broken.
    Otherwise,
    /// Nothing is known of a clause it names.
    Undecided,
}

impl Report {
    /// Judges all mutants of a run.
    #[must_use]
    pub fn new(base: &str, contract: &str, mutants: &[Mutant], results: &Results) -> Self {
        let played = |kernel: &str| results.cases.iter().any(|case| case.kernel == kernel);
        let unmutated = played(base).then(|| Seen::of(base, results));
        let mutants: Vec<Mutation> = mutants
            .iter()
            .map(|mutant| {
                let seen = Seen::of(&mutant.kernel, results);
                let (found, why) = judge(&mutant.breaks, &seen, unmutated.as_ref());
                Mutation { mutant: mutant.clone(), seen, found, why }
            })
            .collect();
        let own = results.cases.iter().filter(|case| case.kernel == base);
        let own = unmutated.is_some().then(|| Exit::of_rows(own.map(|case| (case.verdict.kind, case.green))));
        let exit = match results.interrupted {
            true => Exit::Interrupted,
            false => exit(own, mutants.iter().map(|mutation| mutation.found)),
        };
        Self {
            format: 1,
            base: base.to_owned(),
            contract: contract.to_owned(),
            unmutated,
            mutants,
            exit: exit.code(),
        }
    }

    /// The same mutants by rows that were judged anew.
    #[must_use]
    pub fn again(&self, results: &Results) -> Self {
        let mutants: Vec<Mutant> = self.mutants.iter().map(|mutation| mutation.mutant.clone()).collect();
        Self::new(&self.base, &self.contract, &mutants, results)
    }
}

impl Seen {
    fn of(kernel: &str, results: &Results) -> Self {
        let mut seen =
            Self { clauses: results.clauses.get(kernel).cloned().unwrap_or_default(), ..Self::default() };
        for case in results.cases.iter().filter(|case| case.kernel == kernel) {
            for (clause, _) in case.clauses.iter().filter(|(_, holds)| !**holds) {
                seen.broken_by.entry(clause.clone()).or_default().push(case.id.clone());
            }
            if let Some((list, what)) = seen.beside(case) {
                list.entry(what).or_default().push(case.id.clone());
            }
        }
        seen
    }

    /// Some case says nothing of the kernel, and may say something next time. One that ended with a splat or
    /// with a guest that does not answer has said all that it has to say.
    fn is_unsure(&self) -> bool {
        [Kind::Inconclusive, Kind::NotRun, Kind::Infra].iter().any(|kind| self.others.contains_key(kind.name()))
    }

    /// Where a case belongs that is not green for another reason than a broken clause.
    fn beside(&mut self, case: &CaseResult) -> Option<(&mut BTreeMap<String, Vec<String>>, String)> {
        let verdict = &case.verdict;
        match (&verdict.title, case.green) {
            (_, true) => None,
            (Some(title), _) if verdict.kind == Kind::KernelBug => Some((&mut self.splats, title.clone())),
            _ if case.clauses.values().any(|holds| !holds) => None,
            _ => Some((&mut self.others, verdict.kind.name().to_owned())),
        }
    }
}

fn judge(named: &BTreeSet<String>, seen: &Seen, base: Option<&Seen>) -> (Found, Vec<String>) {
    let (mut wrong, mut unknown) = (Vec::new(), Vec::new());
    let broken = |clause: &String| seen.clauses.get(clause) == Some(&ClauseState::Broken);
    for clause in named {
        // What does not hold without the mutant is not broken by it. An oracle may have had nothing to look
        // at there: it says something only where blocks were given away.
        let before = base.and_then(|base| base.clauses.get(clause)).copied();
        match (seen.clauses.get(clause), before) {
            (Some(ClauseState::Broken), None | Some(ClauseState::Holds | ClauseState::NotExercised)) => {}
            (Some(ClauseState::Broken), Some(_)) => {
                unknown.push(format!("{clause} is broken, and was not shown to hold without the mutant"));
            }
            (Some(ClauseState::Holds), _) => wrong.push(format!("{clause} holds")),
            (Some(ClauseState::BrokenAsExpected), _) => {
                wrong.push(format!("{clause} is broken as its scenario expects, with and without the mutant"));
            }
            (Some(ClauseState::NotExercised) | None, _) => {
                unknown.push(format!("no case of this run is to prove {clause}"));
            }
            (Some(ClauseState::Partly | ClauseState::Inconclusive), _) if seen.is_unsure() => {
                unknown.push(format!("not every case that is to prove {clause} has a verdict"));
            }
            (Some(ClauseState::Partly | ClauseState::Inconclusive), _) => {
                wrong.push(format!("{clause} is broken by no fact"));
            }
        }
    }
    for clause in seen.clauses.keys().filter(|clause| broken(clause) && !named.contains(*clause)) {
        let by = seen.broken_by.get(clause).map(|cases| cases.join(", ")).unwrap_or_default();
        wrong.push(format!("{clause} is broken too, by {by}"));
    }
    if !wrong.is_empty() && !seen.clauses.keys().any(broken) {
        wrong.push("no clause is broken at all".to_owned());
    }
    let found = match (wrong.is_empty(), unknown.is_empty()) {
        (true, true) => Found::Caught,
        (false, _) => Found::Otherwise,
        (true, false) => Found::Undecided,
    };
    (found, [wrong, unknown].concat())
}

/// Of the kernel's own rows, if it was played, and of its mutants.
fn exit(own: Option<Exit>, found: impl Iterator<Item = Found>) -> Exit {
    let found = found.map(|found| match found {
        Found::Caught => Exit::AsExpected,
        Found::Otherwise => Exit::NotAsExpected,
        Found::Undecided => Exit::NoVerdict,
    });
    let all: Vec<Exit> = own.into_iter().chain(found).collect();
    let worst = [Exit::NotAsExpected, Exit::NoVerdict, Exit::AsExpected];
    worst.into_iter().find(|exit| all.contains(exit)).unwrap_or(Exit::NoVerdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(clauses: &[(&str, ClauseState)]) -> Seen {
        let clauses = clauses.iter().map(|(clause, state)| ((*clause).to_owned(), *state)).collect();
        let broken_by = BTreeMap::from([("other".to_owned(), vec!["a/b".to_owned()])]);
        Seen { clauses, broken_by, ..Seen::default() }
    }

    #[test]
    fn a_mutant_is_caught_by_what_it_names_and_by_nothing_else() {
        use ClauseState::{Broken, BrokenAsExpected, Holds, Inconclusive, NotExercised, Partly};
        let named = BTreeSet::from(["one".to_owned(), "two".to_owned()]);
        let base = seen(&[("one", Holds), ("two", Holds), ("other", Holds)]);
        let table = [
            ((Broken, Broken, Holds), Found::Caught, ""),
            // Of what nobody named nothing need be known.
            ((Broken, Broken, Inconclusive), Found::Caught, ""),
            ((Broken, Broken, NotExercised), Found::Caught, ""),
            ((Broken, Broken, BrokenAsExpected), Found::Caught, ""),
            ((Broken, Holds, Holds), Found::Otherwise, "two holds"),
            ((Holds, Holds, Holds), Found::Otherwise, "one holds; two holds; no clause is broken at all"),
            ((Broken, Broken, Broken), Found::Otherwise, "other is broken too, by a/b"),
            (
                (Broken, NotExercised, Broken),
                Found::Otherwise,
                "other is broken too, by a/b; no case of this run is to prove two",
            ),
            ((Broken, Partly, Holds), Found::Otherwise, "two is broken by no fact"),
            (
                (Inconclusive, Inconclusive, Holds),
                Found::Otherwise,
                "one is broken by no fact; two is broken by no fact; no clause is broken at all",
            ),
            ((Broken, NotExercised, Holds), Found::Undecided, "no case of this run is to prove two"),
            (
                (Broken, BrokenAsExpected, Holds),
                Found::Otherwise,
                "two is broken as its scenario expects, with and without the mutant",
            ),
        ];
        for ((one, two, other), found, why) in table {
            let mutated = seen(&[("one", one), ("two", two), ("other", other)]);
            let judged = judge(&named, &mutated, Some(&base));
            assert_eq!((judged.0, judged.1.join("; ")), (found, why.to_owned()), "{one:?} {two:?} {other:?}");
        }
    }

    #[test]
    fn a_splat_or_a_hang_breaks_no_clause_and_a_case_without_a_verdict_leaves_it_open() {
        let named = BTreeSet::from(["one".to_owned()]);
        let cases = |what: &str| BTreeMap::from([(what.to_owned(), vec!["a/b".to_owned()])]);
        let mutated = seen(&[("one", ClauseState::Inconclusive)]);
        let splats = Seen { splats: cases("WARNING in f"), ..mutated.clone() };
        assert_eq!(judge(&named, &splats, None).0, Found::Otherwise);
        let hangs = Seen { others: cases("timeout"), ..mutated.clone() };
        assert_eq!(judge(&named, &hangs, None).0, Found::Otherwise);
        for kind in ["infra", "not-run", "inconclusive"] {
            let judged = judge(&named, &Seen { others: cases(kind), ..mutated.clone() }, None);
            assert_eq!(judged.0, Found::Undecided, "{kind}");
            assert_eq!(judged.1, ["not every case that is to prove one has a verdict"]);
        }
    }

    #[test]
    fn what_does_not_hold_without_the_mutant_is_not_caught_by_it() {
        let named = BTreeSet::from(["one".to_owned()]);
        let broken = seen(&[("one", ClauseState::Broken)]);
        assert_eq!(judge(&named, &broken, None).0, Found::Caught);
        assert_eq!(judge(&named, &broken, Some(&broken)).0, Found::Undecided);
        let unknown = seen(&[("one", ClauseState::Partly)]);
        assert_eq!(judge(&named, &broken, Some(&unknown)).0, Found::Undecided);
        let nothing_to_look_at = seen(&[("one", ClauseState::NotExercised)]);
        assert_eq!(judge(&named, &broken, Some(&nothing_to_look_at)).0, Found::Caught);
    }

    #[test]
    fn only_when_all_are_caught_and_the_kernel_itself_is_good_all_is_good() {
        use Found::{Caught, Otherwise, Undecided};
        let exit = |own, found: &[Found]| exit(own, found.iter().copied());
        assert_eq!(exit(Some(Exit::AsExpected), &[Caught, Caught]), Exit::AsExpected);
        assert_eq!(exit(None, &[Caught]), Exit::AsExpected);
        assert_eq!(exit(Some(Exit::AsExpected), &[Caught, Otherwise, Undecided]), Exit::NotAsExpected);
        assert_eq!(exit(Some(Exit::AsExpected), &[Caught, Undecided]), Exit::NoVerdict);
        assert_eq!(exit(Some(Exit::NotAsExpected), &[Caught]), Exit::NotAsExpected);
        assert_eq!(exit(Some(Exit::NoVerdict), &[Caught]), Exit::NoVerdict);
        assert_eq!(exit(None, &[]), Exit::NoVerdict);
    }
}
