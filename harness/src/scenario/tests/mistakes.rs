// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every mistake a writer can make, and the message that answers it, as a snapshot to be read.

use std::fmt::Write as _;

use super::*;

const WORDS: &str = "
features: {odp: pages are faulted in when they are used}
phrases: {opt-in: {about: what lets a process pin, parameters: [fd]}}
mainline: {about: m, clauses: {longterm-refused: p, blocks: p}}
mine: {about: p, clauses: {opted: p}, phrases: {opt-in: [{truncate: {fd: $fd, size_kib: 4}}]}}
";

const CASE: &str = "\
about: A test.
because: a test
contracts: [mainline, mine]
matrix: {fs: [ext4, xfs]}
files: {data: {on: $fs, size_kib: 64, pattern: 1}}
actors:
  owner: {rdma: true, on_signal: {recall: {signal: SIGIO, run: [{id: shut, do: {close: {fd: $fd}}}]}}}
  second: {thread_of: owner}
  other: {}
steps:
  - {id: fd, by: owner, do: {open: {file: data, flags: [O_RDWR]}}}
  - {by: owner, use: opt-in, with: {fd: $fd}}
  - {id: map, by: owner, do: {mmap: {fd: $fd, len_kib: 64, flags: [MAP_SHARED]}}}
  - {id: memory, by: owner, do: {mmap: {len_kib: 64, flags: [MAP_ANONYMOUS]}}}
  - {id: plain, by: owner, do: {reg_mr: {map: $memory, access: []}}, expect: ok}
  - {id: mr, by: owner, do: {reg_mr: {map: $map, access: []}}, expect_by: {mainline: EOPNOTSUPP, else: ok}, proves: [longterm-refused], twin: plain}
  - {by: owner, do: {kill: {actor: other, signal: SIGUSR1}}}
  - {id: cut, by: other, start: {truncate: {file: data, size_kib: 0}}}
  - {still: cut, for_ms: 300, needs: [mr]}
  - {await: cut, expect: ok}
  - {by: owner, do: {received: {handler: recall}}, expect: signal SIGIO code POLL_MSG fd $fd}
  - {await: recall.shut, expect: ok}
";

/// What is wrong, what of the good scenario is replaced, and by what.
const MISTAKES: [(&str, &str, &str); 47] = [
    (
        "a power cut with a bound in time",
        "{by: owner, do: {kill: {actor: other, signal: SIGUSR1}}}",
        "{power: cut, not_after_ms: 1}",
    ),
    (
        "a power cut that somebody does",
        "{by: owner, do: {kill: {actor: other, signal: SIGUSR1}}}",
        "{by: owner, power: cut}",
    ),
    (
        "a power cut of another kind",
        "{by: owner, do: {kill: {actor: other, signal: SIGUSR1}}}",
        "{power: cuts}",
    ),
    (
        "a power cut that proves",
        "{by: owner, do: {kill: {actor: other, signal: SIGUSR1}}}",
        "{power: cut, proves: [blocks]}",
    ),
    (
        "a handle of before the power cut",
        "{by: owner, do: {kill: {actor: other, signal: SIGUSR1}}}",
        "{power: cut}\n  - {by: owner, do: {munmap: {map: $map}}}",
    ),
    ("a call that a power cut ended", "{still: cut, for_ms: 300, needs: [mr]}", "{power: cut}"),
    ("an unknown key of the file", "about: A test", "abuot: A test"),
    ("an unknown field of a file", "size_kib: 64", "sise_kib: 64"),
    ("an unknown place", "fs: [ext4, xfs]", "fs: [ext4, xsf]"),
    ("an unknown field of an actor", "{rdma: true", "{rmda: true"),
    ("an unknown key of a step", "for_ms: 300", "for_msec: 300"),
    ("an unknown operation", "{open: {file", "{opne: {file"),
    ("an unknown field of an operation", "{file: data, flags", "{flie: data, flags"),
    ("an unknown flag", "O_RDWR", "O_RDRW"),
    ("a value of another kind", "size_kib: 0", "size_kib: none"),
    ("an unknown actor", "{id: cut, by: other", "{id: cut, by: othre"),
    ("an unknown actor in an operation", "actor: other", "actor: othre"),
    ("an unknown actor of a thread", "thread_of: owner", "thread_of: onwer"),
    ("an unknown file", "truncate: {file: data", "truncate: {file: dta"),
    ("an unknown handle", "{fd: $fd, len_kib", "{fd: $df, len_kib"),
    (
        "a handle before it exists",
        "{by: owner, use: opt-in, with: {fd: $fd}}",
        "{by: owner, do: {munmap: {map: $map}}}",
    ),
    ("a handle of another kind", "reg_mr: {map: $memory", "reg_mr: {map: $fd"),
    (
        "a handle of another actor",
        "{id: cut, by: other, start: {truncate: {file: data",
        "{id: cut, by: other, start: {truncate: {fd: $fd",
    ),
    ("what is no handle", "map: $memory", "map: memory"),
    ("an unknown errno", "mainline: EOPNOTSUPP", "mainline: EOPNOTSUP"),
    ("an unknown outcome", "{await: cut, expect: ok}", "{await: cut, expect: okay}"),
    ("an unknown signal to send", "signal: SIGUSR1", "signal: SIGUSER1"),
    ("an unknown signal to handle", "{signal: SIGIO", "{signal: SIGOI"),
    ("an unknown signal to expect", "expect: signal SIGIO", "expect: signal SIGOI"),
    ("an unknown code", "code POLL_MSG", "code POLL_MGS"),
    ("an unknown actor whose thread is signalled", "code POLL_MSG fd $fd", "code POLL_MSG thread onwer"),
    ("an unknown handler", "handler: recall}", "handler: recal}"),
    ("an unknown contract", "contracts: [mainline", "contracts: [mainlin"),
    ("a contract that the scenario says nothing about", "{mainline: EOPNOTSUPP", "{unguarded: EOPNOTSUPP"),
    ("an unknown feature", "contracts: [mainline", "contracts: [mainline+opd"),
    ("a contract without expectation", "{mainline: EOPNOTSUPP, else: ok}", "{mainline: EOPNOTSUPP}"),
    ("an unknown clause", "[longterm-refused]", "[longterm-refuse]"),
    ("an unknown phrase", "use: opt-in", "use: opt-inn"),
    ("an unknown parameter of a phrase", "with: {fd: $fd}", "with: {df: $fd}"),
    ("a parameter of a phrase left out", ", with: {fd: $fd}", ""),
    ("an unknown parameter of the matrix", "on: $fs", "on: $sf"),
    ("an await of nothing", "{await: cut", "{await: cutt"),
    ("an await of what is not under way", "{await: cut", "{await: map"),
    ("a start that nobody awaits", "  - {await: cut, expect: ok}\n", ""),
    ("a refusal without a twin", ", twin: plain", ""),
    ("a twin that is another operation", "twin: plain", "twin: map"),
    ("a claim without an expectation", "expect_by: {mainline: EOPNOTSUPP, else: ok}, proves", "proves"),
];

#[test]
fn every_mistake_is_answered_with_its_place_and_what_would_be_right() {
    let read = |text: &str| {
        let document = Document { file: "s.yaml".into(), text: text.into() };
        check::scenarios(&document, Path::new("s.yaml"), "t/s", &Contracts::of(WORDS))
    };
    read(CASE).unwrap();
    let mut text = String::new();
    for (what, from, to) in MISTAKES {
        assert!(CASE.contains(from), "the good scenario has no `{from}`");
        let said = read(&CASE.replacen(from, to, 1)).expect_err(what).to_string();
        assert!(said.lines().all(|line| line.starts_with("s.yaml:")), "{what}: {said}");
        let _ = writeln!(
            text,
            "{what}: {}\n  {}",
            if to.is_empty() { format!("without `{}`", from.trim()) } else { format!("`{to}`") },
            said.replace('\n', "\n  ")
        );
    }
    insta::assert_snapshot!(text);
}
