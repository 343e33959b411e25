// SPDX-License-Identifier: MIT OR Apache-2.0
//! Headers of patches, what is planned of them, and the table.

use std::collections::BTreeMap;

use super::verdict::Seen;
use super::*;
use crate::home::Own;
use crate::kernel::Variant;
use crate::outcome::BadInput;
use crate::report::ClauseState;
use crate::scenario;

const CONTRACTS: &str = "
mine: {about: m, clauses: {one: p, two: p, three: p}}
";
const MAIL: &str = "From 0 Mon Sep 17 00:00:00 2001
From: A <a@b>
Subject: [PATCH] Take the check
 Breaks: no header is a trailer

Nothing Breaks: anything in the middle of a line.

";
const DIFF: &str = "---
Breaks: one

diff --git a/x.c b/x.c
--- a/x.c
+++ b/x.c
@@ -1 +1 @@
-Breaks: one
+x
";
const CASES: [(&str, &str); 4] = [
    ("control.yaml", "control: true\nactors: {a: {}}\nsteps: [{id: p, by: a, do: {pipe: {}}, expect: ok}]\n"),
    ("proves.yaml", "actors: {a: {}}\nsteps: [{id: p, by: a, do: {pipe: {}}, expect: ok, proves: [two]}]\n"),
    (
        "siw.yaml",
        "provider: siw\nactors: {a: {rdma: true}}\nsteps: [{id: p, by: a, do: {pipe: {}}, expect: ok, proves: [two]}]\n",
    ),
    ("shows.yaml", "actors: {a: {}}\nsteps: [{id: p, by: a, do: {pipe: {}}, expect: ok}]\n"),
];

fn contract() -> Contract {
    Contracts::of(CONTRACTS).get("mine").unwrap().clone()
}

fn read(trailer: &str) -> Result<BTreeSet<String>> {
    breaks(&format!("{MAIL}{trailer}{DIFF}"), Path::new("M1.patch"), "mine", &contract())
}

#[test]
fn a_header_names_the_clauses_it_breaks() {
    let check = |trailer: &str, want: &[&str]| {
        let found = read(trailer).unwrap();
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), want, "{trailer}");
    };
    check("Breaks: one\n", &["one"]);
    check("Breaks: three, one\n", &["one", "three"]);
    check("Breaks: one,\n two,\n\tthree\n", &["one", "three", "two"]);
    check("Breaks: one\nBreaks: two\nSigned-off-by: A <a@b>\n", &["one", "two"]);
    check("Breaks: one\nSigned-off-by: A\n two\n", &["one"]);
}

#[test]
fn a_header_that_names_none_or_a_wrong_one_is_told_with_its_line() {
    let check = |trailer: &str, want: &str| {
        let error = read(trailer).unwrap_err();
        assert!(error.is::<BadInput>());
        assert!(error.to_string().starts_with(want), "{trailer}: {error}");
    };
    check("", "M1.patch:8: the commit message ends here");
    check("Breaks:\n", "M1.patch:9: the commit message ends here");
    check("breaks: one\n", "M1.patch:9: the commit message ends here");
    check("Breaks: one, thre\n", "M1.patch:8: contract mine: unknown clause `thre`; did you mean `three`?");
    check("Breaks: one,\n towo\n", "M1.patch:9: contract mine: unknown clause `towo`");
}

/// A person's folder of kernels with two mutants of `mine-6.12`.
fn brood(dir: &Path, only: &[&str]) -> Result<Brood> {
    let folder = dir.join("own/mutants/mine-6.12");
    fs::create_dir_all(&folder).unwrap();
    fs::create_dir_all(dir.join("kernel-configs/mutants/other-6.12")).unwrap();
    for (name, clause) in [("M1-check-gone.patch", "one"), ("M2-wait-gone.patch", "two"), ("README", "")] {
        fs::write(folder.join(name), format!("{MAIL}Breaks: {clause}\n{DIFF}")).unwrap();
    }
    let own = Own { kernels: Some(dir.join("own")), ..Own::default() };
    let (cache, runs) = (dir.join("cache"), dir.join("runs"));
    let home = Home { data: dir.to_owned(), is_clone: true, cache, runs, own };
    let base = PlannedKernel {
        name: "mine-6.12-debug".into(),
        contract: "mine".into(),
        features: Vec::new(),
        programs: Vec::new(),
        lacks: std::collections::BTreeSet::new(),
    };
    let request = Request { variant: Some(Variant::Debug), ..Request::named("mine-6.12") };
    let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
    Brood::load(&home, &base, &request, &contract(), &only)
}

#[test]
fn the_mutants_of_a_kernel_are_found_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let names = |only: &[&str]| -> Vec<String> {
        brood(dir.path(), only).unwrap().mutants.into_iter().map(|mutant| mutant.name).collect()
    };
    assert_eq!(names(&[]), ["M1-check-gone", "M2-wait-gone"]);
    assert_eq!(names(&["M2"]), ["M2-wait-gone"]);
    assert_eq!(names(&["M2-wait-gone", "M1"]), ["M1-check-gone", "M2-wait-gone"]);
    let error = brood(dir.path(), &["M2-wait-gon"]).unwrap_err();
    assert!(error.is::<BadInput>());
    assert!(error.to_string().contains("did you mean `M2-wait-gone`?"), "{error}");
}

#[test]
fn a_kernel_without_mutants_is_told_who_has_some() {
    let dir = tempfile::tempdir().unwrap();
    drop(brood(dir.path(), &[]));
    let own = Own { kernels: Some(dir.path().join("own")), ..Own::default() };
    let (cache, runs) = (dir.path().join("cache"), dir.path().join("runs"));
    let home = Home { data: dir.path().to_owned(), is_clone: true, cache, runs, own };
    let lacks = std::collections::BTreeSet::new();
    let (features, programs) = (Vec::new(), Vec::new());
    let base = PlannedKernel { name: "x".into(), contract: "mine".into(), features, programs, lacks };
    let error = Brood::load(&home, &base, &Request::named("x"), &contract(), &[]).unwrap_err().to_string();
    assert_eq!(error, "x has no mutants (who has: mine-6.12, other-6.12)");
}

#[test]
fn mutants_share_a_slot_and_are_judged_as_their_kernel_by_the_cases_that_prove_something() {
    let dir = tempfile::tempdir().unwrap();
    let brood = brood(dir.path(), &[]).unwrap();
    let contracts = Contracts::of(CONTRACTS);
    let mut scenarios = Vec::new();
    for (name, text) in CASES {
        let path = dir.path().join(name);
        fs::write(&path, format!("about: a\nbecause: b\ncontracts: [mine]\n{text}")).unwrap();
        scenarios.extend(scenario::load_file(dir.path(), &path, &contracts).unwrap());
    }
    let rows = |selectors: &[&str], with_base| -> (Vec<String>, Requests) {
        let selectors: Vec<String> = selectors.iter().map(|one| (*one).to_owned()).collect();
        let (plan, requests) = brood.plan(&scenarios, &contracts, &selectors, with_base).unwrap();
        assert!(plan.cases.iter().all(|case| case.contract == "mine"));
        (plan.cases.iter().map(|case| format!("{} {}", case.kernel, case.id)).collect(), requests)
    };
    let (all, requests) = rows(&[], true);
    let kernels = ["mine-6.12-debug", "mine-6.12-debug+M1-check-gone", "mine-6.12-debug+M2-wait-gone"];
    let want: Vec<String> =
        kernels.iter().flat_map(|kernel| [format!("{kernel} control"), format!("{kernel} proves")]).collect();
    assert_eq!(all, want);
    let slots: Vec<Option<&str>> = kernels.iter().map(|kernel| requests[*kernel].slot.as_deref()).collect();
    assert_eq!(slots, [None, Some("mine-6.12-debug-mutants"), Some("mine-6.12-debug-mutants")]);
    assert!(requests.values().all(|request| request.variant == Some(Variant::Debug)));
    let (named, requests) = rows(&["shows"], false);
    assert_eq!(named[..2], [format!("{} control", kernels[1]), format!("{} shows", kernels[1])]);
    assert_eq!((named.len(), requests.len()), (4, 2));
    assert_eq!(rows(&["siw"], false).0[1], format!("{} siw", kernels[1]));
}

#[test]
fn the_table_shows_what_was_named_and_what_was_broken() {
    use ClauseState::{Broken, Holds, Inconclusive, NotExercised};
    let cases = |all: &[(&str, &[&str])]| -> BTreeMap<String, Vec<String>> {
        let owned = |cases: &[&str]| cases.iter().map(|case| (*case).to_owned()).collect();
        all.iter().map(|(what, cases)| ((*what).to_owned(), owned(cases))).collect()
    };
    let seen = |one, two, three| Seen {
        clauses: [("one", one), ("two", two), ("three", three)]
            .map(|(clause, state)| (clause.into(), state))
            .into(),
        ..Seen::default()
    };
    let mutation = |name: &str, seen, found, why: &[&str]| Mutation {
        mutant: Mutant {
            name: name.into(),
            kernel: format!("mine+{name}"),
            patch: "p".into(),
            breaks: BTreeSet::from(["one".to_owned()]),
        },
        seen,
        found,
        why: why.iter().map(|why| (*why).to_owned()).collect(),
    };
    let splats = cases(&[("WARNING in f", &["a/1", "a/2", "a/3", "a/4"])]);
    let report = Report {
        format: 1,
        base: "mine".into(),
        contract: "mine".into(),
        unmutated: Some(seen(Holds, Holds, NotExercised)),
        mutants: vec![
            mutation("M1-check-gone", Seen { splats, ..seen(Broken, Holds, NotExercised) }, Found::Caught, &[]),
            mutation(
                "M2-wait-gone",
                seen(Holds, Broken, NotExercised),
                Found::Otherwise,
                &["one holds", "two is broken too, by a/b"],
            ),
            mutation(
                "M3-hangs",
                Seen { others: cases(&[("timeout", &["a/b"])]), ..seen(Inconclusive, Holds, NotExercised) },
                Found::Undecided,
                &["not every case that is to prove one has a verdict"],
            ),
        ],
        exit: 1,
    };
    let text = render(&report, Path::new("/runs/1"));
    insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
}
