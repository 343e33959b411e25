// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every fault at once, the limits, and a case in words.

use super::limits::*;
use super::*;

#[test]
fn every_fault_is_told_and_what_follows_from_one_is_not() {
    let text = GOOD
        .replace("by: other, start", "by: othr, start")
        .replace("{open: {file: data", "{opne: {file: data")
        .replace("[longterm-refused]", "[longterm]");
    let message = load(&text).unwrap_err().to_string();
    let places: Vec<&str> = message.lines().filter_map(|line| line.split(": ").next()).collect();
    // Not a second time for the other file system, and nothing about `$fd` or `cut`.
    assert_eq!(places, ["s.yaml:8:30", "s.yaml:12:118", "s.yaml:13:19"], "{message}");
}

#[test]
fn more_than_a_case_can_be_is_refused_with_its_place() {
    let long = "n".repeat(LONGEST_NAME + 1);
    let many = |count: usize, one: &dyn Fn(usize) -> String| (0..count).map(one).collect::<String>();
    let step = "  - {by: other, do: {pipe: {}}}\n";
    let table = [
        (
            GOOD.replacen("steps:\n", &format!("steps:\n{}", step.repeat(MOST_STEPS)), 1),
            "a case has at most 256 steps",
        ),
        (
            GOOD.replacen(
                "other: {}}",
                &format!("other: {{}}{}}}", many(14, &|nr| format!(", a{nr}: {{}}"))),
                1,
            ),
            "actors: a case has at most 16 actors",
        ),
        (
            GOOD.replacen(
                "pattern: 1}}",
                &format!(
                    "pattern: 1}}{}}}",
                    many(16, &|nr| format!(", f{nr}: {{on: ext4, size_kib: 4, pattern: 1}}"))
                ),
                1,
            ),
            "files: a case has at most 16 files",
        ),
        (
            GOOD.replacen("other: {}}", &format!("other: {{}}, {long}: {{}}}}"), 1),
            "actors: a name has 1 to 40 letters",
        ),
        (
            GOOD.replace("id: memory", &format!("id: {long}")).replace("$memory", &format!("${long}")),
            "id: an id has at most 40 letters",
        ),
        (
            GOOD.replacen("[ext4, xfs]}", &format!("[ext4, xfs], {long}: [1]}}"), 1),
            "matrix: a name has 1 to 40 letters",
        ),
        (
            GOOD.replacen("[ext4, xfs]}", &format!("[ext4], w: [{}]}}", "w".repeat(LONGEST_CASE_ID)), 1),
            "has more than 160 letters",
        ),
        (
            GOOD.replacen(
                "steps:\n",
                &format!("include: [{}]\nsteps:\n", many(9, &|nr| format!("s{nr}, "))),
                1,
            ),
            "include: at most 8 shared files",
        ),
    ];
    for (text, want) in table {
        let message = load(&text).expect_err(want).to_string();
        assert!(message.starts_with("s.yaml:") && message.contains(want), "{want}:\n  {message}");
    }
}

#[test]
fn a_case_in_words_says_what_must_come_back_and_what_that_proves() {
    let contracts = Contracts::of(CONTRACTS_YAML);
    let text = explain(&load(GOOD).unwrap()[0], &contracts);
    insta::assert_snapshot!(text);
}
