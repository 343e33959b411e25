// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs that others wrote, those that misbehave above all.

use holdfast_protocol::{KEPT_HEAD_BYTES, KEPT_TAIL_BYTES, ProgramEnd, Ran};

use crate::guest::*;

fn sh(script: &str) -> Op {
    let args = vec!["-c".to_owned(), script.to_owned()];
    op::Program { name: "sh".to_owned(), args, on: op::Folder::Ext4 }.into()
}

/// What became of a script that may take so long.
fn run(guest: &mut Guest, script: &str, wait_ms: u64) -> Ran {
    match guest.issue("run", "owner", sh(script), wait_ms) {
        Outcome::Ran(ran) => *ran,
        other => panic!("{script}: {other:?}"),
    }
}

/// The folders of programs that are still there.
fn folders(guest: &Guest) -> Vec<PathBuf> {
    let entries = fs::read_dir(guest.root.path().join("ext4")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.to_string_lossy().contains("holdfast-program")).collect()
}

#[test]
fn a_program_says_how_it_ended_and_what_it_printed() {
    let mut guest = Guest::ready();
    let ran = run(&mut guest, "echo one; echo two >&2; pwd; echo x > made; exit 3", WAIT_MS);
    assert_eq!((ran.end, ran.dropped, ran.left), (ProgramEnd::Exited(3), 0, 0));
    let lines: Vec<&str> = ran.output.lines().collect();
    assert_eq!((lines[0], ran.errors.as_str()), ("one", "two\n"));
    assert!(lines[1].starts_with(guest.root.path().join("ext4").to_str().unwrap()), "{lines:?}");
    assert_eq!(folders(&guest), [""; 0].map(PathBuf::from));
    let ran = run(&mut guest, "env", WAIT_MS);
    assert!(!ran.output.contains("CARGO"), "{}", ran.output);
}

#[test]
fn a_program_that_crashes_is_killed_by_its_signal() {
    let mut guest = Guest::ready();
    let ran = run(&mut guest, "echo ok 1 - before; kill -SEGV $$", WAIT_MS);
    assert_eq!((ran.end, ran.output.as_str()), (ProgramEnd::Killed("SIGSEGV".into()), "ok 1 - before\n"));
}

#[test]
fn a_program_that_never_ends_is_ended_and_what_it_printed_is_told() {
    let mut guest = Guest::ready();
    for script in
        ["echo ok 1 - a; sleep 1000", "echo ok 1 - a; (sleep 1000 &); trap '' TERM; while :; do sleep 1; done"]
    {
        let ran = run(&mut guest, script, 500);
        let ProgramEnd::Overdue { state, .. } = &ran.end else { panic!("{ran:?}") };
        assert!(["S", "R", "D"].contains(&state.as_str()), "{state}");
        assert_eq!(ran.output, "ok 1 - a\n");
    }
    assert_eq!(folders(&guest), [""; 0].map(PathBuf::from));
    // The actor is free again.
    assert_eq!(run(&mut guest, "exit 0", WAIT_MS).end, ProgramEnd::Exited(0));
}

#[test]
fn a_program_that_was_started_is_watched_and_awaited() {
    let mut guest = Guest::ready();
    let start = Order::Start { step: "run".into(), actor: "owner".into(), op: sh("sleep 0.5; echo done") };
    assert!(matches!(guest.ask(&start), Reply::Started { .. }));
    assert!(matches!(guest.still("run"), Outcome::Blocked { .. }), "a watch ends nothing");
    let Outcome::Ran(ran) = guest.collect("run") else { panic!("it did not run") };
    assert_eq!((ran.end, ran.output.as_str()), (ProgramEnd::Exited(0), "done\n"));
}

#[test]
fn a_flood_is_read_to_its_end_and_its_middle_left_out() {
    let mut guest = Guest::ready();
    let script = "echo first; head -c 2000000 /dev/zero | tr '\\0' x; echo; echo last";
    let ran = run(&mut guest, script, 60_000);
    assert_eq!(ran.end, ProgramEnd::Exited(0));
    assert!(ran.output.starts_with("first\n") && ran.output.ends_with("\nlast\n"));
    // Of the long line nothing is left: what is kept are whole lines.
    assert_eq!(ran.dropped, 2_000_001);
    // Noise takes the most room on the wire.
    let ran = run(&mut guest, "head -c 900000 /dev/zero; head -c 100000 /dev/urandom", 60_000);
    assert!(ran.dropped >= 1_000_000 - (KEPT_HEAD_BYTES + KEPT_TAIL_BYTES) as u64);
}

#[test]
fn a_flood_that_goes_on_hides_no_end() {
    let mut guest = Guest::ready();
    // Whoever goes on writing is left behind, and counted.
    let ran = run(&mut guest, "(while :; do echo more; done) & echo mine >&2; exit 4", WAIT_MS);
    assert_eq!((ran.end, ran.left, ran.errors.as_str()), (ProgramEnd::Exited(4), 1, "mine\n"));
}

#[test]
fn whom_a_program_leaves_behind_is_ended_and_counted() {
    let mut guest = Guest::ready();
    let script = "(sleep 1000 & echo $!); (setsid sleep 1000 & echo $!); exit 0";
    let ran = run(&mut guest, script, WAIT_MS);
    assert_eq!((ran.end, ran.left), (ProgramEnd::Exited(0), 2));
    for pid in ran.output.lines() {
        assert!(!Path::new("/proc").join(pid).exists(), "{pid} is left");
    }
    // Children that ended before are nobody's leavings.
    assert_eq!(run(&mut guest, "(true &); sleep 0.2", WAIT_MS).left, 0);
}

#[test]
fn a_program_ends_with_its_actor() {
    let mut guest = Guest::ready();
    let start =
        Order::Start { step: "run".into(), actor: "owner".into(), op: sh("echo $$ > ../pid; exec sleep 1000") };
    assert!(matches!(guest.ask(&start), Reply::Started { .. }));
    let file = guest.root.path().join("ext4/pid");
    let begin = Instant::now();
    while fs::read_to_string(&file).unwrap_or_default().is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = fs::read_to_string(&file).unwrap();
    assert!(matches!(guest.ask(&Order::Finish { settle_ms: WAIT_MS }), Reply::Finished(_)));
    let begin = Instant::now();
    while Path::new("/proc").join(pid.trim()).exists() {
        assert!(begin.elapsed() < Duration::from_secs(10), "the program outlived its actor");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_program_that_is_not_there_is_not_run() {
    let mut guest = Guest::ready();
    let absent = op::Program { name: "gup_longterm".into(), args: Vec::new(), on: op::Folder::Tmpfs };
    assert!(is_not_issued(&guest.act("run", "owner", absent), "no program `gup_longterm`"));
}
