// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files read, written and named; what can be seen of a process; calls by number.

use crate::guest::*;

/// A session with `owner`, `other`, two files with patterns 7 and 9, and a name for another.
fn two_files() -> Guest {
    let mut guest = Guest::bare();
    assert!(matches!(guest.wake(), Reply::Awake(_)));
    let data = FileSetup { on: Place::Ext4, size_kib: 64, pattern: 7, absent: false };
    let victim = FileSetup { pattern: 9, ..data.clone() };
    let none = FileSetup { absent: true, ..FileSetup::default() };
    let names = ["owner", "other"];
    let setup = Setup {
        case: "files".to_owned(),
        files: [("data".to_owned(), data), ("victim".to_owned(), victim), ("none".to_owned(), none)].into(),
        actors: names.map(|name| (name.to_owned(), ActorSetup::default())).into(),
        ..Setup::default()
    };
    match guest.ask(&Order::Prepare(setup)) {
        Reply::Prepared(files) => assert_eq!(files.len(), 2, "an absent file is not made: {files:?}"),
        other => panic!("not prepared: {other:?}"),
    }
    guest
}

fn shown(outcome: Outcome) -> String {
    match outcome {
        Outcome::Shown(text) => text,
        other => panic!("nothing to see: {other:?}"),
    }
}

#[test]
fn what_is_written_is_read_where_it_was_written() {
    let mut guest = two_files();
    number(&guest.act("fd", "owner", open_rw()));
    let mut act = |step: &str, text: &str| guest.act(step, "owner", do_(text));
    assert_eq!(act("r0", r#"{"read": {"fd": "$fd", "len_kib": 4, "pattern": 7}}"#), Outcome::Returned(4096));
    // The next read goes on behind it, and so does its pattern.
    assert_eq!(act("r1", r#"{"read": {"fd": "$fd", "len_kib": 4, "pattern": 7}}"#), Outcome::Returned(4096));
    assert_eq!(
        act("w", r#"{"write": {"fd": "$fd", "at_kib": 60, "len_kib": 8, "pattern": 3}}"#),
        Outcome::Returned(8192)
    );
    assert_eq!(
        act("r2", r#"{"read": {"fd": "$fd", "at_kib": 60, "len_kib": 16, "pattern": 3}}"#),
        Outcome::Returned(8192)
    );
    let other = act("r3", r#"{"read": {"fd": "$fd", "at_kib": 56, "len_kib": 8, "pattern": 3}}"#);
    assert!(matches!(other, Outcome::Differs { at: 57_344.., .. }), "{other:?}");
    assert_eq!(act("sync", r#"{"fsync": {"fd": "$fd"}}"#), OK);
    assert_eq!(act("datasync", r#"{"fdatasync": {"fd": "$fd"}}"#), OK);
    assert_eq!(act("syncfs", r#"{"syncfs": {"fd": "$fd"}}"#), OK);
    assert!(is_not_issued(&act("huge", r#"{"read": {"fd": "$fd", "len_kib": 16385}}"#), "16 MiB"));
}

#[test]
fn names_come_and_go() {
    let mut guest = two_files();
    let mut act = |step: &str, text: &str| guest.act(step, "owner", do_(text));
    let nlink = r#"{"statx": {"file": "data", "field": "nlink"}}"#;
    assert_eq!(act("absent", r#"{"size": {"file": "none"}}"#), Outcome::Errno(2));
    assert_eq!(act("one", nlink), Outcome::Returned(1));
    assert_eq!(act("link", r#"{"link": {"file": "data", "to": "none"}}"#), OK);
    assert_eq!(act("two", nlink), Outcome::Returned(2));
    assert_eq!(act("over", r#"{"rename": {"file": "victim", "to": "none"}}"#), OK);
    assert_eq!(act("again", nlink), Outcome::Returned(1));
    let compare = r#"{"compare": {"file": "none", "at_kib": 0, "len_kib": 64, "pattern": 9}}"#;
    assert_eq!(act("moved", compare), OK);
    assert_eq!(act("unlink", r#"{"unlink": {"file": "none"}}"#), OK);
    assert_eq!(act("fill", r#"{"fill": {"file": "none", "size_kib": 12, "pattern": 5}}"#), OK);
    assert_eq!(act("there", r#"{"fill": {"file": "none", "size_kib": 12, "pattern": 5}}"#), Outcome::Errno(17));
    assert_eq!(act("size", r#"{"statx": {"file": "none", "field": "size"}}"#), Outcome::Returned(12_288));
    let create = r#"{"open": {"file": "victim", "flags": ["O_CREAT", "O_EXCL", "O_RDWR"]}}"#;
    number(&act("create", create));
    assert_eq!(act("excl", create), Outcome::Errno(17));
}

#[test]
fn what_is_seen_of_a_process_is_its_own() {
    let mut guest = two_files();
    let fd = number(&guest.act("fd", "owner", open_rw()));
    assert_eq!(guest.act("map", "owner", map("fd")), OK);
    let line = format!("{fd} -> {}", guest.data().canonicalize().unwrap().display());
    let fds = shown(guest.act("fds", "other", do_(r#"{"fds": {"of": "owner"}}"#)));
    assert!(fds.lines().any(|seen| seen == line), "{fds}");
    let own = shown(guest.act("own", "other", do_(r#"{"fds": {"of": "other"}}"#)));
    assert!(!own.contains("/data"), "{own}");
    let maps = shown(guest.act("maps", "other", do_(r#"{"maps": {"of": "owner"}}"#)));
    assert!(maps.contains("/ext4/data"), "{maps}");
    let pins = guest.act("pins", "other", do_(r#"{"file_pins": {"of": "owner"}}"#));
    assert_eq!(pins, Outcome::Errno(2));
    assert_eq!(guest.act("lease", "owner", do_(r#"{"fcntl": {"fd": "$fd", "cmd": 1024, "arg": 1}}"#)), OK);
    let locks = shown(guest.act("locks", "other", do_(r#"{"locks": {"file": "data"}}"#)));
    assert!(locks.contains("LEASE") && locks.lines().count() == 1, "{locks}");
    let none = shown(guest.act("none", "other", do_(r#"{"locks": {"file": "victim"}}"#)));
    assert_eq!(none, "");
}

#[test]
fn a_program_is_run_and_its_end_told() {
    let mut guest = two_files();
    let text = shown(guest.act(
        "sh",
        "owner",
        do_(r#"{"command": {"argv": ["sh", "-c", "echo a; echo b >&2; exit 3"]}}"#),
    ));
    assert_eq!(text, "a\nb\nstatus 3");
    let text =
        shown(guest.act("kill", "owner", do_(r#"{"command": {"argv": ["sh", "-c", "kill -USR1 $$"]}}"#)));
    assert_eq!(text, "\nsignal SIGUSR1", "its signals are not blocked");
    let long = r#"{"command": {"argv": ["sh", "-c", "yes | head -c 200000; exit 4"]}}"#;
    let text = shown(guest.act("long", "owner", do_(long)));
    assert!(text.len() <= holdfast_protocol::MAX_SHOWN_BYTES && text.ends_with("\nstatus 4"), "{}", text.len());
    let none = guest.act("none", "owner", do_(r#"{"command": {"argv": ["/no/such"]}}"#));
    assert_eq!(none, Outcome::Errno(2));
    assert_eq!(guest.act("file", "owner", do_(r#"{"read_file": {"path": "/no/such"}}"#)), Outcome::Errno(2));
}

#[test]
fn calls_by_number_take_handles_and_bytes() {
    let mut guest = two_files();
    let fd = number(&guest.act("fd", "owner", open_rw()));
    // F_GETFD; FIONREAD is the bytes left, in four of them.
    assert_eq!(guest.act("fcntl", "owner", do_(r#"{"fcntl": {"fd": "$fd", "cmd": 1}}"#)), OK);
    let left = do_(r#"{"ioctl": {"fd": "$fd", "request": 21531, "bytes": "00000000", "show": true}}"#);
    assert_eq!(shown(guest.act("ioctl", "owner", left)), "00000100");
    // dup(2) and pread(2).
    let dup = guest.act("dup", "owner", do_(r#"{"syscall": {"nr": 32, "args": ["$fd"]}}"#));
    assert!(matches!(dup, Outcome::Returned(number) if number > fd), "{dup:?}");
    let read = do_(r#"{"syscall": {"nr": 17, "args": ["$fd", {"bytes": "00000000"}, 4, 4096], "show": 1}}"#);
    let bytes: String =
        (4096..4100).map(|at| format!("{:02x}", holdfast_protocol::pattern_byte(7, at))).collect();
    assert_eq!(shown(guest.act("pread", "owner", read)), bytes);
    let many = do_(r#"{"syscall": {"nr": 32, "args": [1, 2, 3, 4, 5, 6, 7]}}"#);
    assert!(is_not_issued(&guest.act("many", "owner", many), "six"));
    assert_eq!(guest.act("none", "owner", do_(r#"{"syscall": {"nr": 9999}}"#)), Outcome::Errno(38));
}

#[test]
fn limits_and_capabilities_are_given_up() {
    let mut guest = two_files();
    let limit = do_(r#"{"rlimit": {"resource": "RLIMIT_FSIZE", "limit": 4096}}"#);
    assert_eq!(guest.act("limit", "owner", limit), OK);
    number(&guest.act("fd", "owner", open_rw()));
    let truncate = op::Truncate { file: None, fd: Some(handle("fd")), size_kib: 128 };
    // SIGXFSZ is pending until the call, and kills.
    let end = guest.act("grow", "owner", truncate);
    assert!(matches!(&end, Outcome::Killed(signal) if signal == "SIGXFSZ"), "{end:?}");
    assert_eq!(guest.act("drop", "other", do_(r#"{"drop_caps": {}}"#)), OK);
    let status = shown(guest.act("status", "other", do_(r#"{"read_file": {"path": "/proc/self/status"}}"#)));
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
}

#[test]
fn after_a_power_cut_files_are_what_is_left_of_them() {
    let mut guest = Guest::bare();
    assert!(matches!(guest.wake(), Reply::Awake(_)));
    let path = guest.folder().join("ext4/data");
    std::fs::write(&path, "left").unwrap();
    let file = FileSetup { on: Place::Ext4, size_kib: 64, pattern: 7, absent: false };
    let files = [("data".to_owned(), file.clone()), ("gone".to_owned(), file)].into();
    let Reply::Prepared(files) = guest.ask(&Order::Prepare(Setup { files, again: true, ..Setup::default() }))
    else {
        panic!("not prepared")
    };
    assert_eq!(files.into_iter().map(|file| file.name).collect::<Vec<_>>(), ["data"]);
    assert_eq!(std::fs::read_to_string(path).unwrap(), "left");
}
