// SPDX-License-Identifier: MIT OR Apache-2.0
//! Steps that run programs, and what is expected of their results.

use super::*;

const PROGRAM: &str = "\
about: A program.
because: a test
contracts: [mainline, unguarded]
actors: {owner: {}, other: {}}
steps:
  - id: run
    by: owner
    do: {program: {name: tests, args: [-v], on: ext4}}
    within_ms: 9000
    expect_by: {mainline: exited 1, else: ok}
    results:
      at_least: 3
      not_ok_by: {mainline: ['pin*', 'odd[1]'], else: []}
      skipped: [huge/*]
";

fn of(text: &str) -> Result<Vec<Scenario>> {
    load(text)
}

#[test]
fn results_are_expected_by_contract() {
    let all = of(PROGRAM).unwrap();
    let contracts = Contracts::of(CONTRACTS_YAML);
    let under = |name: &'static str| {
        let under = Under::new(name, contracts.get(name).unwrap(), []);
        written(&all[0], &under).steps[0].results.clone().unwrap()
    };
    assert_eq!(under("mainline").not_ok, ["pin*", "odd[1]"]);
    assert_eq!((under("unguarded").not_ok, under("unguarded").skipped), (vec![], vec!["huge/*".to_owned()]));
    let words = explain(&all[0], &contracts);
    assert!(
        words.contains(
            "results are read: at least 3, each of them ok; not ok are pin*, odd[1]; skipped are huge/*"
        ),
        "{words}"
    );
}

#[test]
fn a_glob_takes_brackets_and_slashes_for_letters() {
    let matches = |glob: &str, name: &str| result_glob(glob).unwrap().is_match(name);
    assert!(matches("odd[1]", "odd[1]") && !matches("odd[1]", "odd1"));
    assert!(matches("pin*", "pin with/slash {x}") && matches("*{x}", "pin {x}"));
    assert!(!matches("pin", "pin more"));
}

#[test]
fn mistakes_are_told_with_their_place() {
    let table = [
        ("name: tests", "name: bin/tests", "without a folder"),
        ("name: tests", "name: ''", "without a folder"),
        ("on: ext4", "on: ext3", "unknown word `ext3`; did you mean `ext4`?"),
        ("else: ok", "else: blocks", "when its time is over it is ended"),
        ("{mainline: ['pin*', 'odd[1]'], else: []}", "{mianline: []}", "did you mean `mainline`?"),
        ("at_least: 3", "atleast: 3", "atleast"),
        (
            "do: {program: {name: tests, args: [-v], on: ext4}}",
            "do: {sync: {}}",
            "only a `program` prints results",
        ),
        ("skipped: [huge/*]", "skipped: ['a\\']", "is no glob"),
    ];
    all_said(table.into_iter().map(|(from, to, want)| {
        assert!(PROGRAM.contains(from), "{from}");
        (
            to,
            want,
            of(&PROGRAM.replacen(from, to, 1)).map_or_else(|error| error.to_string(), |_| "nothing".into()),
        )
    }));
    // With the step that collects it, too.
    let started = "  - {id: run, by: owner, start: {program: {name: tests}}}\n  - {await: run, results: {}}\n";
    let (head, _) = PROGRAM.split_once("  - id: run").unwrap();
    of(&format!("{head}{started}")).unwrap();
    let other = "  - {id: run, by: owner, start: {sync: {}}}\n  - {await: run, results: {}}\n";
    assert!(of(&format!("{head}{other}")).unwrap_err().to_string().contains("only a `program`"));
}
