// SPDX-License-Identifier: MIT OR Apache-2.0
//! What may be declared broken, and how it must be shown.

use super::{CONTRACTS_YAML, GOOD, all_said, load};
use crate::contract::Contracts;
use crate::scenario::{Under, broken_oracles, written};

fn declared(what: &str) -> String {
    GOOD.replace("steps:\n", &format!("expect_broken: {what}\nsteps:\n"))
}

#[test]
fn a_step_that_proves_the_clause_is_to_show_the_opposite() {
    let text = declared("{unguarded: {blocks: nobody waits, oracle/umount: the pin stays}}");
    let scenario = load(&text).unwrap().remove(0);
    let contracts = Contracts::of(CONTRACTS_YAML);
    let under = |name| Under::new(name, contracts.get(name).unwrap(), []);
    let steps = written(&scenario, &under("unguarded")).steps;
    let watch = steps.iter().find(|step| step.proves == ["blocks"]).unwrap();
    let broken = watch.broken.as_ref().unwrap();
    assert_eq!((broken.shown.to_string().as_str(), broken.reason.as_str()), ("ok", "nobody waits"));
    assert_eq!(broken_oracles(&scenario, &under("unguarded"))["umount"], "the pin stays");
    assert!(broken_oracles(&scenario, &under("mainline")).is_empty());
    assert!(written(&scenario, &under("mainline")).steps.iter().all(|step| step.broken.is_none()));
}

#[test]
fn a_refusal_that_is_expected_broken_leaves_its_result_to_others() {
    let text = declared("{mainline: {longterm-refused: the check is gone}}");
    let scenario = load(&text).unwrap().remove(0);
    let contracts = Contracts::of(CONTRACTS_YAML);
    let steps = written(&scenario, &Under::new("mainline", contracts.get("mainline").unwrap(), [])).steps;
    assert!(steps.iter().all(|step| step.excluded.is_none()), "the region exists");
}

#[test]
fn a_declaration_that_nothing_could_show_is_refused() {
    let table = [
        (
            "{unguardet: {blocks: r}}",
            "s.yaml:7:17: expect_broken: unknown contract `unguardet`; did you mean `unguarded`?",
        ),
        (
            "{unguarded: {block: r}}",
            "s.yaml:7:29: expect_broken.unguarded: unknown clause `block`; did you mean `blocks`?",
        ),
        (
            "{unguarded: {oracle/unmount: r}}",
            "s.yaml:7:29: expect_broken.unguarded: unknown oracle `unmount`; did you mean `umount`?",
        ),
        (
            "{unguarded: {pins-work: r}}",
            "s.yaml:7:40: expect_broken.unguarded.pins-work: no step proves `pins-work` under unguarded",
        ),
        (
            "{unguarded: {blocks: {reason: r, as: oki}}}",
            "s.yaml:7:53: expect_broken.unguarded.blocks.as: unknown outcome `oki`",
        ),
        (
            "{unguarded: {blocks: {raison: r}}}",
            "s.yaml:7:38: expect_broken.unguarded.blocks: unknown field `raison`",
        ),
        (
            "{unguarded: {oracle/pins: {reason: r, as: ok}}}",
            "s.yaml:7:42: expect_broken.unguarded.oracle/pins: an oracle has no outcome",
        ),
        ("{mainline: {pins-balanced: r}}", "s.yaml:7:28: expect_broken.mainline: the standing oracles prove"),
    ];
    let said = |what: &str| load(&declared(what)).expect_err(what).to_string();
    all_said(table.into_iter().map(|(what, start)| (what, start, said(what))));
    // A call that must succeed can fail in too many ways.
    let succeeds = declared("{unguarded: {blocks: r}}")
        .replace("{await: cut, expect: ok}", "{await: cut, expect: ok, proves: [blocks]}");
    let message = load(&succeeds).unwrap_err().to_string();
    assert!(
        message
            .contains("step `#9` expects `ok`, which has no plain opposite: say `{reason: .., as: OUTCOME}`"),
        "{message}"
    );
    let two = declared("{unguarded: {blocks: r}}").replace("proves: [blocks]", "proves: [blocks, pins-work]");
    let message = load(&two).unwrap_err().to_string();
    assert!(message.contains("step `#8` proves `pins-work` too, which is to hold"), "{message}");
    let same = declared("{mainline: {longterm-refused: {reason: r, as: EOPNOTSUPP}}}");
    let message = load(&same).unwrap_err().to_string();
    assert!(message.contains("`EOPNOTSUPP` would not show it: step `mr` expects that"), "{message}");
    let ends = declared("{unguarded: {blocks: r}}") + "ends: {verdict: lost}\n";
    assert!(
        load(&ends).unwrap_err().to_string().contains("either ends red as declared or shows what is broken")
    );
}
