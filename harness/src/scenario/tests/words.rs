// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every fault at once, the limits, and a case in words.

use holdfast_protocol::MAX_HANDLER_OPS;
use holdfast_protocol::op::MAX_RAW_BYTES;

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

/// So many times what `one` makes of a number.
fn many(count: usize, one: &dyn Fn(usize) -> String) -> String {
    (0..count).map(one).collect()
}

/// The good scenario with one thing put behind another.
fn with(before: &str, more: &str) -> String {
    assert!(GOOD.contains(before), "the good scenario has no `{before}`");
    GOOD.replacen(before, &format!("{before}{more}"), 1)
}

const MATRIX: &str = "matrix: {fs: [ext4, xfs]";
const ACTORS: &str = "other: {}";
const STEP: &str = "  - {by: other, do: {sync: {}}}\n";

/// A scenario that has `count` of something.
type Having = fn(usize) -> String;

/// Each limit, a scenario that has so much of it, and what is said when it is one more. What is there in the good
/// scenario counts: three actors, a file, nine steps.
const LIMITS: [(usize, Having, &str); 15] = [
    (
        MOST_CASES_PER_FILE,
        |n| {
            let values = many(n, &|nr| format!("{nr}, "));
            GOOD.replace(MATRIX, &format!("matrix: {{fs: [ext4], n: [{values}]"))
        },
        "matrix: the matrix makes more than 64 cases",
    ),
    (MOST_STEPS, |n| with("steps:\n", &STEP.repeat(n - 9)), "a case has at most 256 steps"),
    (
        MOST_ACTORS,
        |n| with(ACTORS, &many(n - 3, &|nr| format!(", a{nr}: {{}}"))),
        "actors: a case has at most 16 actors",
    ),
    (
        MOST_FILES,
        |n| with("pattern: 1}", &many(n - 1, &|nr| format!(", f{nr}: {{on: ext4, size_kib: 4, pattern: 1}}"))),
        "files: a case has at most 16 files",
    ),
    (
        LONGEST_NAME,
        |n| with(ACTORS, &format!(", {}: {{}}", "n".repeat(n))),
        "actors: a name has 1 to 40 letters",
    ),
    (
        LONGEST_NAME,
        |n| with("pattern: 1}", &format!(", {}: {{on: ext4, absent: true}}", "n".repeat(n))),
        "files: a name has 1 to 40 letters",
    ),
    (
        LONGEST_NAME,
        |n| with(MATRIX, &format!(", {}: [1]", "n".repeat(n))),
        "matrix: a name has 1 to 40 letters",
    ),
    (LONGEST_NAME, |n| GOOD.replace("cut", &"n".repeat(n)), "id: an id has at most 40 letters"),
    (
        LONGEST_CASE_ID,
        |n| {
            let word = "w".repeat(n - "t/s[fs=ext4,w=]".len());
            GOOD.replace(MATRIX, &format!("matrix: {{fs: [ext4], w: [{word}]"))
        },
        "has more than 160 letters",
    ),
    (
        MOST_ROUNDS,
        |n| with("steps:\n", &format!("  - {{repeat: {n}, steps: [{{by: other, do: {{sync: {{}}}}}}]}}\n")),
        "repeat: a group is repeated 2 to 64 times",
    ),
    (
        MOST_TOGETHER,
        |n| {
            let actors = with(ACTORS, &many(n, &|nr| format!(", a{nr}: {{}}")));
            let group = many(n, &|nr| format!("{{id: s{nr}, by: a{nr}, do: {{sync: {{}}}}}}, "));
            let awaits = many(n, &|nr| format!("  - {{await: s{nr}}}\n"));
            actors.replace("steps:\n", &format!("steps:\n  - together: [{group}]\n{awaits}"))
        },
        "together: 2 to 8 operations are started together",
    ),
    (
        MOST_INCLUDES,
        |n| GOOD.replace("steps:\n", &format!("include: [{}]\nsteps:\n", many(n, &|nr| format!("s{nr}, ")))),
        "include: at most 8 shared files",
    ),
    (
        MOST_CPUS as usize,
        |n| GOOD.replace("steps:\n", &format!("cpus: {n}\nsteps:\n")),
        "cpus: a machine has 1 to 8 processors",
    ),
    (
        MAX_HANDLER_OPS,
        |n| {
            let run = many(n, &|nr| format!("{{id: s{nr}, do: {{pipe: {{}}}}}}, "));
            GOOD.replace(ACTORS, &format!("other: {{on_signal: {{h: {{signal: SIGIO, run: [{run}]}}}}}}"))
        },
        "run: a handler runs at most 16 operations",
    ),
    (
        MAX_RAW_BYTES,
        |n| {
            let step = "  - {by: owner, do: {ioctl: {fd: $fd, request: 1, bytes: '00'}}}\n";
            with("flags: [O_RDWR]}}}\n", &step.replace("00", &"00".repeat(n)))
        },
        "ioctl.bytes: at most 65536 bytes",
    ),
];

#[test]
fn as_much_as_a_limit_allows_is_taken_and_more_is_refused_with_its_place() {
    let said = |text: String| load(&text).map_or_else(|error| error.to_string(), |_| String::new());
    // There is no folder that shared files could lie in.
    let taken = |said: &str| said.is_empty() || said.contains("unknown shared file");
    let refused = |said: &str, want: &str| said.starts_with("s.yaml:") && said.contains(want);
    let mut wrong = Vec::new();
    for (limit, having, want) in LIMITS {
        let (most, more) = (said(having(limit)), said(having(limit + 1)));
        if !taken(&most) || !refused(&more, want) {
            wrong.push(format!("{want}:\n  {limit}: {most:.200}\n  one more: {more:.200}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_case_in_words_says_what_must_come_back_and_what_that_proves() {
    let contracts = Contracts::of(CONTRACTS_YAML);
    let text = explain(&load(GOOD).unwrap()[0], &contracts);
    insta::assert_snapshot!(text);
}
