// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each mistake a person can make in a scenario: what is said, and where.

use std::path::Path;

mod broken;
mod groups;
mod mistakes;
mod page;
mod phrases;
mod pins;
mod programs;
mod round_trip;
mod words;

use super::*;

const CONTRACTS_YAML: &str = "
mainline: {about: m, clauses: {longterm-refused: p, pins-balanced: p}}
unguarded: {about: u, clauses: {pins-work: p, blocks: p}}
";

const GOOD: &str = "\
about: A test.
because: a test
contracts: [mainline, unguarded]
matrix: {fs: [ext4, xfs]}
files: {data: {on: $fs, size_kib: 64, pattern: 1}}
actors: {owner: {rdma: true}, peer: {rdma: true}, other: {}}
steps:
  - {id: fd, by: owner, do: {open: {file: data, flags: [O_RDWR]}}}
  - {id: map, by: owner, do: {mmap: {fd: $fd, len_kib: 64, flags: [MAP_SHARED]}}}
  - {id: memory, by: owner, do: {mmap: {len_kib: 64, flags: [MAP_ANONYMOUS]}}}
  - {id: twin, by: owner, do: {reg_mr: {map: $memory, access: []}}, expect: ok}
  - {id: mr, by: owner, do: {reg_mr: {map: $map, access: []}}, expect_by: {mainline: EOPNOTSUPP, else: ok}, proves: [longterm-refused], twin: twin}
  - {id: cut, by: other, start: {truncate: {file: data, size_kib: 0}}}
  - {by: peer, do: {rdma_write: {mr: $mr, at_kib: 0, len_kib: 4, pattern: 1}}, expect: ok}
  - {still: cut, for_ms: 1000, needs: [mr], proves: [blocks]}
  - {await: cut, expect: ok}
";

/// Of each row: what was done, what is to be said, and what was said.
fn all_said<'a>(rows: impl Iterator<Item = (&'a str, &'a str, String)>) {
    let wrong = rows.filter(|(_, want, said)| !said.contains(want));
    let wrong: Vec<String> = wrong.map(|(what, want, said)| format!("{what}:\n  {said}\n  {want}")).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn load(text: &str) -> Result<Vec<Scenario>> {
    let contracts = Contracts::of(CONTRACTS_YAML);
    let document = Document { file: "s.yaml".into(), text: text.into() };
    check::scenarios(&document, Path::new("s.yaml"), "t/s", &contracts)
}

/// The message for the good scenario with one thing replaced.
fn fault(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "the good scenario has no `{from}`");
    load(&GOOD.replacen(from, to, 1)).expect_err(to).to_string()
}

/// What the step `mr` of a case must come back with.
fn expected(case: &Scenario, contract: &str) -> Expect {
    let contracts = Contracts::of(CONTRACTS_YAML);
    let under = Under::new(contract, contracts.get(contract).unwrap(), []);
    case.steps.iter().find(|step| step.id == "mr").unwrap().expected_under(&under)
}

#[test]
fn the_good_one_is_two_cases() {
    let cases = load(GOOD).unwrap();
    let ids: Vec<&str> = cases.iter().map(|case| case.id.as_str()).collect();
    assert_eq!(ids, ["t/s[fs=ext4]", "t/s[fs=xfs]"]);
    assert_eq!(cases[1].files["data"].on, holdfast_protocol::Place::Xfs);
    assert_eq!(cases[0].steps[7].id, "#8");
    assert!(expected(&cases[0], "mainline").is_refusal());
    assert!(expected(&cases[0], "unguarded").admits_success());
}

#[test]
fn a_typo_is_answered_with_place_and_nearest_word() {
    let table = [
        ("about: A", "abuot: A", "s.yaml:1:1: unknown field `abuot`; did you mean `about`?"),
        ("{on: $fs", "{om: $fs", "s.yaml:5:16: files.data: unknown field `om`; did you mean `on`?"),
        (
            "truncate:",
            "trucate:",
            "s.yaml:13:34: steps[5].start: unknown word `trucate`; did you mean `truncate`?",
        ),
        ("size_kib: 0", "size: 0", "s.yaml:13:57: steps[5].start.truncate: unknown field `size`"),
        ("by: other", "by: othr", "s.yaml:13:19: steps[5].by: unknown actor `othr`; did you mean `other`?"),
        ("fd: $fd", "fd: $df", "s.yaml:9:42: steps[1].do.mmap: unknown handle `df`; did you mean `fd`?"),
        (
            "EOPNOTSUPP",
            "EOPNOTSUP",
            "s.yaml:12:86: steps[4].expect_by.mainline: unknown errno `EOPNOTSUP`; did you mean `EOPNOTSUPP`?",
        ),
        (
            "[mainline, unguarded]",
            "[mainlin]",
            "s.yaml:3:13: contracts: unknown contract `mainlin`; did you mean `mainline`?",
        ),
        (
            "else: ok",
            "elze: ok",
            "s.yaml:12:98: steps[4].expect_by: unknown contract `elze`; did you mean `else`?",
        ),
        (
            "[longterm-refused]",
            "[longterm-refuse]",
            "s.yaml:12:118: steps[4].proves: unknown clause `longterm-refuse`; did you mean `longterm-refused`?",
        ),
        ("await: cut", "await: cat", "s.yaml:16:13: steps[8].await: unknown step `cat`; did you mean `cut`?"),
        ("needs: [mr]", "needs: [rm]", "s.yaml:15:40: steps[7].needs: unknown step `rm`"),
        (
            "{file: data, flags",
            "{file: dato, flags",
            "s.yaml:8:43: steps[0].do.open: unknown file `dato`; did you mean `data`?",
        ),
        (
            "O_RDWR",
            "O_RDRW",
            "s.yaml:8:57: steps[0].do.open.flags[0]: unknown word `O_RDRW`; did you mean `O_RDWR`?",
        ),
    ];
    for (from, to, start) in table {
        let message = fault(from, to);
        assert!(message.starts_with(start), "{to}:\n  {message}\n  {start}");
    }
}

#[test]
fn what_means_nothing_is_refused() {
    let table = [
        (", expect: ok}\n  - {id: mr", "}\n  - {id: mr", None),
        (", twin: twin}", "}", Some("it proves a refusal: name its `twin`")),
        ("twin: twin}", "twin: fd}", Some("a twin is another step of the same actor with the same operation")),
        (
            "{await: cut, expect: ok}",
            "{await: cut, expect: EIO, proves: [blocks]}",
            Some("it proves a refusal"),
        ),
        (
            "{await: cut, expect: ok}",
            "{await: cut, expect: EIO, proves: [blocks], twin: cut}",
            Some("a twin is another step of the same actor with the same operation"),
        ),
        ("  - {await: cut, expect: ok}\n", "", Some("started and never awaited")),
        ("proves: [longterm-refused], ", "", None),
        ("{still: cut, for_ms: 1000, needs: [mr], proves: [blocks]}", "{await: cut}", Some("awaited already")),
        ("{still: cut,", "{still: fd,", Some("neither started nor expected to block")),
        ("id: map, by: owner", "id: map, by: other", Some("`$fd` belongs to `owner`, not to `other`")),
        ("map: $map", "map: $fd", Some("`$fd` must be a mapping, and step `fd` results in a descriptor")),
        ("owner: {rdma: true}", "owner: {}", Some("actor `owner` has no RDMA device")),
        ("matrix: {", "provider: siw\nmatrix: {", None),
        ("matrix: {", "matrix: {provider: [rxe, siw], ", None),
        (
            "matrix: {",
            "matrix: {provider: [rxe, sw], ",
            Some("s.yaml:4:26: matrix.provider: unknown word `sw`"),
        ),
        (
            "matrix: {",
            "provider: siw\nmatrix: {provider: [rxe, siw], ",
            Some("`provider` is a matrix parameter already"),
        ),
        (
            "{mainline: EOPNOTSUPP, else: ok}",
            "{mainline: EOPNOTSUPP}",
            Some("nothing is expected under `unguarded`"),
        ),
        (
            "id: cut, by: other, start",
            "id: cut, by: other, expect: ok, start",
            Some("put the expectation on its `await`"),
        ),
        ("id: memory", "id: map", Some("`map` is the id of an earlier step")),
        ("id: memory", "id: fs", Some("`fs` is a matrix parameter already")),
        (
            "start: {truncate: {file: data, size_kib: 0}}",
            "start: {truncate: {size_kib: 0}}",
            Some("give either `file` or `fd`"),
        ),
        ("by: other, start", "start", Some("`by` is missing")),
        ("[mainline, unguarded]", "[]", Some("name at least one contract")),
        (
            "{mainline: EOPNOTSUPP, else: ok}",
            "{mainline: \"one of: ok, EPERM\", else: ok}",
            Some("leaves open what must come back"),
        ),
        (
            "{mainline: EOPNOTSUPP, else: ok}",
            "{mainline: \"one of: EPERM, EINTR\", else: ok}",
            Some("leaves open what must come back"),
        ),
        ("for_ms: 1000", "for_ms: 249", Some("at least 250 ms")),
        ("for_ms: 1000", "for_ms: 0", Some("at least 250 ms")),
        ("{await: cut, expect: ok}", "{await: cut, expect: ok, after: nosuch}", Some("unknown step `nosuch`")),
        ("{await: cut, expect: ok}", "{await: cut, expect: ok, after: mr}", None),
        ("id: fd, by", "id: fd, after: fd, by", Some("`after` goes with `await`")),
        ("{await: cut, expect: ok}", "{await: cut, proves: [blocks]}", Some("without expecting anything")),
    ];
    for (from, to, want) in table {
        let changed = GOOD.replacen(from, to, 1);
        assert_ne!(changed, GOOD, "the good scenario has no `{from}`");
        match (load(&changed), want) {
            (Ok(_), None) => {}
            (Err(error), Some(want)) => assert!(error.to_string().contains(want), "{to}: {error}"),
            (Ok(_), Some(want)) => panic!("`{to}` was accepted, not answered with `{want}`"),
            (Err(error), None) => panic!("`{to}`: {error}"),
        }
    }
}

const LEASE: &str = "\
about: A test.
because: a test
contracts: [mainline]
files: {data: {on: ext4, size_kib: 64, pattern: 1}}
actors:
  owner:
    on_signal:
      recall: {signal: SIGRTMIN+1, run: [{id: shut, do: {close: {fd: $fd}}}]}
  child: {forked: true}
  other: {}
steps:
  - {id: fd, by: owner, do: {open: {file: data, flags: [O_RDONLY]}}}
  - {id: map, by: owner, do: {mmap: {fd: $fd, len_kib: 64, flags: [MAP_SHARED]}}}
  - {by: owner, do: {set_lease: {fd: $fd, lease: F_RDLCK}}}
  - {by: owner, do: {fork: {into: child}}}
  - {id: late, by: owner, do: {dup: {fd: $fd}}}
  - {by: child, do: {get_lease: {fd: $fd}}}
  - {by: child, do: {received: {handler: recall}}, within_ms: 300, expect: no signal, proves: [longterm-refused]}
  - {by: owner, do: {received: {handler: recall}}, expect: signal SIGRTMIN+1 fd $fd}
  - {await: recall.shut}
  - {by: other, do: {wait: {actor: owner}}, expect: exited 0}
  - {by: other, do: {syscall: {nr: 1, args: [1, {bytes: \"00\"}], show: 1}}}
";

#[test]
fn children_handlers_and_numbers_are_checked() {
    load(LEASE).unwrap();
    let table = [
        ("child: {forked: true}", "child: {}", "declare `child` with `forked: true`"),
        ("{get_lease: {fd: $fd}}", "{get_lease: {fd: $late}}", "`$late` belongs to `owner`, not to `child`"),
        ("by: owner, do: {fork", "by: child, do: {fork", "`child` is not there before a `fork` makes it"),
        (
            "late, by: owner, do: {dup: {fd: $fd}}",
            "late, by: owner, do: {fork: {into: child}}",
            "there already",
        ),
        ("by: other, do: {wait", "by: other, start: {wait", "the session does this"),
        (
            "by: owner, do: {received: {handler: recall",
            "by: other, do: {received: {handler: recall",
            "unknown handler",
        ),
        ("handler: recall}}, expect", "handler: recal}}, expect", "did you mean `recall`?"),
        ("fd $fd}", "fd $map}", "unknown descriptor `map`"),
        ("fd $fd}", "fd $df}", "did you mean `fd`?"),
        ("within_ms: 300", "within_ms: 200", "at least 250 ms"),
        ("await: recall.shut", "await: recall.shot", "did you mean `recall.shut`?"),
        ("{fd: $fd}}}]", "{fd: $map}}}]", "no step of `owner` makes `$map`, a descriptor for its handler"),
        ("{close: {fd: $fd}}}]", "{received: {handler: recall}}}]", "a handler cannot do `received`"),
        ("{close: {fd: $fd}}}]", "{kill: {actor: othr, signal: SIGUSR1}}}]", "did you mean `other`?"),
        ("do: {close: {fd: $fd}}}]", "use: opt-inn}]", "unknown phrase `opt-inn`"),
        ("do: {close: {fd: $fd}}}]", "}]", "`shut` has either `do` or `use`"),
        ("{close: {fd: $fd}}}]", "{size: {file: dato}}}]", "did you mean `data`?"),
        ("run: [{id: shut, ", "action: ignore, run: [{id: shut, ", "runs nothing"),
        ("run: [{id: shut, ", "run: [{id: shut, do: {pipe: {}}}, {id: shut, ", "is there already"),
        ("id: shut", "id: SHUT", "small letters"),
        ("lease: F_RDLCK", "lease: F_RDLOCK", "did you mean `F_RDLCK`?"),
        ("show: 1", "show: 0", "`show` is the index of an argument that is bytes"),
        ("[1, {bytes", "[1, 2, 3, 4, 5, 6, {bytes", "at most six"),
    ];
    for (from, to, want) in table {
        assert!(LEASE.contains(from), "there is no `{from}`");
        let error = load(&LEASE.replacen(from, to, 1)).expect_err(to).to_string();
        assert!(error.contains(want), "{to}: {error}");
    }
}

const RING: &str = "\
steps:
  - {id: memory, by: owner, do: {mmap: {len_kib: 64, flags: [MAP_ANONYMOUS]}}}
  - {id: ring, by: owner, do: {uring: {}}}
  - {by: owner, do: {uring_register: {ring: $ring, map: $memory}}}
  - {by: owner, do: {uring_unregister: {ring: $ring}}}
";

#[test]
fn what_a_ring_is_given_is_checked() {
    let load = |steps: &str| load(&LEASE.replacen("steps:\n", steps, 1));
    load(RING).unwrap();
    let table = [
        ("{ring: $ring,", "{ring: $rnig,", "did you mean `ring`?"),
        ("{ring: $ring,", "{ring: $memory,", "`$memory` must be a descriptor"),
        ("map: $memory", "map: $ring", "`$ring` must be a mapping"),
        ("{ring: $ring}", "{ring: $memory}", "`$memory` must be a descriptor"),
        ("{by: owner, do: {uring_un", "{by: other, do: {uring_un", "`$ring` belongs to `owner`"),
    ];
    let said = |from, to| load(&RING.replacen(from, to, 1)).expect_err(to).to_string();
    all_said(table.into_iter().map(|(from, to, want)| (to, want, said(from, to))));
}

#[test]
fn threads_belong_to_processes() {
    let good = LEASE.replacen("  other: {}\n", "  other: {}\n  second: {thread_of: other}\n", 1);
    let good = good.replacen("steps:\n", "steps:\n  - {id: own, by: other, do: {pipe: {}}}\n", 1);
    let good = format!("{good}  - {{by: second, do: {{close_pipe: {{pipe: $own}}}}}}\n");
    load(&good).unwrap();
    let table = [
        ("thread_of: other", "thread_of: othr", "unknown actor `othr`; did you mean `other`?"),
        ("thread_of: other", "thread_of: child", "`child` is no process that is there from the start"),
        ("thread_of: other", "thread_of: second", "`second` is no process"),
        ("thread_of: other", "thread_of: other, rdma: true", "what a thread has, its process has"),
        ("thread_of: other", "thread_of: owner", "fork and execve would take away"),
        ("by: other, do: {pipe", "by: child, do: {pipe", "is not there before"),
        ("by: other, do: {pipe", "by: owner, do: {pipe", "belongs to `owner`, not to `second`"),
    ];
    for (from, to, want) in table {
        assert!(good.contains(from), "there is no `{from}`");
        let error = load(&good.replacen(from, to, 1)).expect_err(to).to_string();
        assert!(error.contains(want), "{to}: {error}");
    }
}

#[test]
fn every_scenario_of_the_repository_is_good() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let contracts = Contracts::load([folder.clone()].into_iter()).unwrap();
    let all = load_all(&folder, &contracts).unwrap();
    assert!(all.len() > 20);
    for name in contracts.names() {
        let control =
            all.iter().any(|one| one.control && one.contracts.iter().any(|contract| contract == name));
        assert!(control, "{name} has no control: none of its rows could ever be green");
    }
}
