// SPDX-License-Identifier: MIT OR Apache-2.0
//! Phrases and features: one file that serves kernels that say things differently.

use super::*;
use crate::contract::Contract;

const WORDS: &str = "
features: {odp: pages are faulted in when they are used, fast: f}
mainline: {about: m, clauses: {longterm-refused: p}, phrases: {opt-in: []}}
unguarded: {about: u, clauses: {pins-work: p, blocks: p}}
mine:
  about: p
  features: [fast]
  clauses: {opted: p, blocks: p}
  phrases: {opt-in: [{truncate: {fd: $fd, size_kib: $size}}, {truncate: {fd: $fd, size_kib: 8}}], opt-out: [{close: {fd: $fd}}]}
";

const CASE: &str = "\
about: A test.
because: a test
contracts: [mainline, unguarded, mine]
files: {data: {on: ext4, size_kib: 64, pattern: 1}}
actors: {a: {}, b: {}}
steps:
  - {id: fd, by: a, do: {open: {file: data, flags: [O_RDWR]}}}
  - {id: opt, by: a, use: opt-in, with: {fd: $fd, size: 4}, expect: ok, proves: [opted]}
  - {id: next, by: a, do: {truncate: {file: data, size_kib: 2}}, needs: [opt], expect_by: {mine: EBUSY, mine+odp: EAGAIN, else: ok}}
";

fn read(text: &str) -> Result<Vec<Scenario>> {
    let document = Document { file: "s.yaml".into(), text: text.into() };
    check::scenarios(&document, Path::new("s.yaml"), "t/s", &Contracts::of(WORDS))
}

fn fault(from: &str, to: &str) -> String {
    assert!(CASE.contains(from), "the good scenario has no `{from}`");
    read(&CASE.replacen(from, to, 1)).expect_err(to).to_string()
}

/// The planned steps under `CONTRACT+feature`.
fn planned(text: &str, key: &str) -> Vec<crate::plan::PlannedStep> {
    let contracts = Contracts::of(WORDS);
    let scenario = read(text).unwrap().remove(0);
    let (name, features) = split_key(key);
    let contract: &Contract = contracts.get(name).unwrap();
    written(&scenario, &Under::new(name, contract, features.map(str::to_owned))).steps
}

#[test]
fn a_phrase_is_written_out_as_each_contract_says_it() {
    let mine = planned(CASE, "mine");
    let shown: Vec<String> = mine.iter().map(|step| format!("{} {}", step.id, step.label())).collect();
    let want = ["fd a: open", "opt.1 a: truncate (opt-in)", "opt.2 a: truncate (opt-in)", "next a: truncate"];
    assert_eq!(shown, want);
    assert!(mine[1].proves.is_empty(), "what a phrase proves, its last operation proves");
    assert_eq!(mine[2].proves, ["opted"]);
    let op = serde_json::to_string(&mine[1].action).unwrap();
    assert!(op.contains(r#""fd":"$fd","size_kib":4"#), "{op}");
}

#[test]
fn a_phrase_that_is_nothing_is_not_missed() {
    for (contract, why) in [
        ("mainline", "`opt-in` is nothing under mainline"),
        ("unguarded", "`opt-in` is nothing under unguarded"),
    ] {
        let steps = planned(CASE, contract);
        assert_eq!(steps[1].excluded.as_deref(), Some(why));
        assert_eq!(steps[2].excluded, None, "{contract}");
    }
    // Nobody waits for what was never begun, and what follows goes on.
    let waits = CASE
        .replace("expect: ok, proves: [opted]}", "expect: blocks}\n  - {id: done, await: opt, expect: ok}")
        .replace("needs: [opt]", "needs: [done]");
    let steps = planned(&waits, "mainline");
    assert_eq!(steps[2].excluded.as_deref(), Some("`opt-in` is nothing under mainline"));
    assert_eq!(steps[3].excluded, None);
    let await_last = planned(&waits, "mine");
    assert_eq!(await_last[3].action, Action::Await { step: "opt.2".into() });
    // An opt-in that is refused is missed.
    let refused = CASE.replace("expect: ok, proves: [opted]}", "expect: EINVAL}");
    assert_eq!(planned(&refused, "mine")[3].excluded.as_deref(), Some("`opt` is refused under mine"));
}

#[test]
fn a_twin_that_is_several_operations_is_the_last_of_them() {
    let later = CASE.replace("expect: ok, proves: [opted]}", "expect: EBUSY, proves: [opted], twin: good}\n  - {id: good, by: a, use: opt-in, with: {fd: $fd, size: 4}, expect: ok}")
        .replace(", needs: [opt]", "");
    let twins: Vec<Option<String>> = planned(&later, "mine").into_iter().map(|step| step.twin).collect();
    assert_eq!(twins[1..3], [None, Some("good.2".to_owned())]);
}

#[test]
fn a_handler_says_a_phrase_as_each_contract_does() {
    let text = CASE
        .replace(
            "{a: {}, b: {}}",
            "{a: {on_signal: {r: {signal: SIGIO, run: [{id: out, use: opt-out, with: {fd: $fd}}, {id: in, use: opt-in, with: {fd: $fd, size: 4}}]}}}, b: {}}",
        )
        .replace("  - {id: next", "  - {await: r.out, expect: ok}\n  - {await: r.in, expect: ok}\n  - {id: next");
    let under = |name: &str| {
        let contracts = Contracts::of(WORDS);
        written(&read(&text).unwrap().remove(0), &Under::new(name, contracts.get(name).unwrap(), []))
    };
    let mine = under("mine");
    let run: Vec<String> =
        mine.actors["a"].on_signal["r"].run.iter().map(|run| format!("{} {:?}", run.id, run.op)).collect();
    assert_eq!(run.len(), 3, "{run:?}");
    assert!(run[0].starts_with("out Close") && run[2].starts_with("in.2 Truncate"), "{run:?}");
    let awaits: Vec<Action> = mine.steps.iter().map(|step| step.action.clone()).collect();
    assert!(awaits.contains(&Action::Await { step: "r.out".into() }));
    assert!(awaits.contains(&Action::Await { step: "r.in.2".into() }));
    let mainline = under("mainline");
    assert!(mainline.actors["a"].on_signal["r"].run.is_empty());
    let awaited = mainline.steps.iter().filter(|step| matches!(step.action, Action::Await { .. }));
    assert_eq!(awaited.filter(|step| step.excluded.is_some()).count(), 2);
    // What a handler would use and this contract refuses is not applicable.
    let refused = text
        .replace("with: {fd: $fd, size: 4}, expect: ok, proves: [opted]", "with: {fd: $fd, size: 4}")
        .replace(
            "{id: fd, by: a, do: {open: {file: data, flags: [O_RDWR]}}}",
            "{id: fd, by: a, do: {open: {file: data, flags: [O_RDWR]}}, expect_by: {mine: EACCES, else: ok}}",
        );
    let contracts = Contracts::of(WORDS);
    let refused =
        written(&read(&refused).unwrap().remove(0), &Under::new("mine", contracts.get("mine").unwrap(), []));
    assert!(refused.actors["a"].on_signal["r"].run.is_empty());
    assert!(
        refused.steps[1..].iter().all(|step| step.excluded.is_some() || step.id == "next"),
        "{:?}",
        refused.steps
    );
}

#[test]
fn a_mistake_in_a_phrase_has_its_place() {
    let table = [
        (
            "use: opt-in",
            "use: opt-inn",
            "s.yaml:8:27: steps[1].use: unknown phrase `opt-inn`; did you mean `opt-in`?",
        ),
        ("size: 4", "sice: 4", "s.yaml:8:51: steps[1].with: unknown parameter `sice`; did you mean `size`?"),
        (", size: 4", "", "s.yaml:8:27: steps[1].use: under mine: `size` is missing in `with`"),
        ("fd: $fd", "fd: $df", "s.yaml:8:46: steps[1].with: unknown handle `df`; did you mean `fd`?"),
        ("with: {fd: $fd, size: 4}", "with: {fd: $fd, size: x}", "s.yaml:8:27: steps[1].use: under mine: {"),
        (
            "use: opt-in, with: {fd: $fd, size: 4}",
            "use: opt-out",
            "s.yaml:8:27: steps[1].use: under mine: `fd` is missing",
        ),
        (
            "{id: opt, by: a",
            "{id: opt, by: b",
            "s.yaml:8:46: under mine: `opt-in` is `truncate`: steps[1].with: `$fd` belongs to `a`",
        ),
        ("use: opt-in, ", "do: {pipe: {}}, ", "s.yaml:8:44: steps[1].with: `with` goes with `use`"),
    ];
    all_said(table.into_iter().map(|(from, to, start)| (to, start, fault(from, to))));
}

#[test]
fn what_says_the_most_about_a_kernel_counts() {
    let expected = |key: &str| planned(CASE, key).pop().unwrap().expect.to_string();
    let table = [("mainline", "ok"), ("mainline+odp", "ok"), ("mine", "EBUSY"), ("mine+odp", "EAGAIN")];
    for (key, want) in table {
        assert_eq!(expected(key), want, "{key}");
    }
    let message = fault("mine+odp", "mine+opd");
    assert!(message.contains("in `mine+opd`: unknown feature `opd`; did you mean `odp`?"), "{message}");
}

#[test]
fn a_feature_that_is_not_declared_rules_out_by_plan() {
    let contracts = Contracts::of(WORDS);
    let why = |text: &str, key: &str| {
        let (name, features) = split_key(key);
        let under = Under::new(name, contracts.get(name).unwrap(), features.map(str::to_owned));
        excluded(&read(text).unwrap()[0], &under)
    };
    let lacks = Some("it needs the feature odp, which this kernel does not declare".to_owned());
    let needs = CASE.replace("files:", "needs_features: [odp]\nfiles:");
    assert_eq!(why(&needs, "mine"), lacks);
    assert_eq!(why(&needs, "mine+odp"), None);
    let listed = CASE.replace("[mainline, unguarded, mine]", "[mainline+odp, mine+fast]");
    assert_eq!(why(&listed, "mainline"), lacks);
    assert_eq!(why(&listed, "mainline+odp"), None);
    assert_eq!(why(&listed, "mine"), None, "the contract has it");
    assert_eq!(why(&listed, "unguarded").as_deref(), Some("it says nothing about the contract unguarded"));
    let message = read(&needs.replace("[odp]", "[opd]")).unwrap_err().to_string();
    assert!(
        message.starts_with("s.yaml:4:18: needs_features: unknown feature `opd`; did you mean `odp`?"),
        "{message}"
    );
}
