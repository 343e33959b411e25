// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controls carry the green rows of their kernel, round and provider.

use super::*;

#[test]
fn a_kernel_without_a_control_has_no_green_row() {
    let mut plan = plan(&["mainline"], "");
    plan.cases.remove(0);
    let records: Vec<Record> = plan.cases.iter().map(good).collect();
    assert_eq!(judge_all(&plan, &records)[0].verdict.kind, Kind::Inconclusive);
}

#[test]
fn a_control_that_is_ruled_out_carries_nothing() {
    let mut plan = plan(&["mainline"], "");
    plan.cases[0].excluded = Some("it says nothing about the contract".to_owned());
    let records: Vec<Record> = plan.cases.iter().map(good).collect();
    let results = judge_all(&plan, &records);
    assert!(results[0].control && results[0].verdict.kind == Kind::NotApplicable);
    assert_eq!((results[1].verdict.kind, results[1].green), (Kind::Inconclusive, false));
}

#[test]
fn a_bad_control_takes_every_green_row_of_its_kernel() {
    let plan = plan(&["mainline", "unguarded"], "");
    let mut records: Vec<Record> = plan.cases.iter().map(good).collect();
    assert!(judge_all(&plan, &records).iter().all(|result| result.green));
    records[0].facts.get_mut("map").unwrap().outcome = Outcome::Errno(12);
    let kinds: Vec<Kind> = judge_all(&plan, &records).iter().map(|result| result.verdict.kind).collect();
    assert_eq!(kinds, [Kind::Fail, Kind::Inconclusive, Kind::Pass, Kind::Pass]);
    records[0] = Record::empty(End::Cancelled);
    let results = judge_all(&plan, &records);
    assert_eq!(results[1].verdict.kind, Kind::Inconclusive);
    assert!(results[1].clauses.is_empty(), "a case without its control proves nothing");
}

#[test]
fn a_bad_control_takes_the_rows_of_its_round() {
    let plan = plan(&["unguarded"], "").repeated(2);
    let mut records: Vec<Record> = plan.cases.iter().map(good).collect();
    records[2].facts.get_mut("map").unwrap().outcome = Outcome::Errno(12);
    let results = judge_all(&plan, &records);
    let kinds: Vec<_> = results.iter().map(|result| (result.id.as_str(), result.verdict.kind)).collect();
    let wanted = [
        ("control", Kind::Pass),
        ("case", Kind::Pass),
        ("control#2", Kind::Fail),
        ("case#2", Kind::Inconclusive),
    ];
    assert_eq!(kinds, wanted);
}

#[test]
fn a_provider_whose_own_control_did_not_pass_has_no_green_row() {
    let mut plan =
        plan_of(&CASE.replace("actors:", "matrix: {provider: [rxe, siw]}\nactors:"), &["unguarded"], "");
    let kinds = |plan: &Plan, bad: Option<usize>| -> Vec<Kind> {
        let mut records: Vec<Record> = plan.cases.iter().map(good).collect();
        if let Some(bad) = bad {
            records[bad].facts.get_mut("map").unwrap().outcome = Outcome::Errno(12);
        }
        judge_all(plan, &records).iter().map(|result| result.verdict.kind).collect()
    };
    // As in plans of before there were any.
    assert_eq!(kinds(&plan, None), [Kind::Pass; 3], "siw has no control of its own");
    let mut control = plan.cases[0].clone();
    control.id = "control-of-siw".into();
    control.setup.provider = Provider::Siw;
    plan.cases.push(control);
    assert_eq!(kinds(&plan, None), [Kind::Pass; 4]);
    assert_eq!(kinds(&plan, Some(3)), [Kind::Pass, Kind::Pass, Kind::Inconclusive, Kind::Fail]);
    let all = [Kind::Fail, Kind::Inconclusive, Kind::Inconclusive, Kind::Inconclusive];
    assert_eq!(kinds(&plan, Some(0)), all, "what the ordinary provider cannot pin nobody can");
    plan.cases.remove(0);
    assert_eq!(kinds(&plan, None), [Kind::Inconclusive; 3], "its own control alone carries nothing");
}
