// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors that are duplicated, passed on and inherited; processes that are forked and become others.

use crate::guest::*;

const GET_LEASE: &str = r#"{"get_lease": {"fd": "$fd"}}"#;

/// A session with `owner`, `other`, and `child`, which is not there yet.
fn family() -> Guest {
    let mut guest = Guest::bare();
    assert!(matches!(guest.wake(), Reply::Awake(_)));
    let actors =
        r#"{"owner": {"on_signal": {"poked": {"signal": "SIGUSR1"}}}, "other": {}, "child": {"forked": true}}"#;
    let data = FileSetup { on: Place::Ext4, size_kib: 64, pattern: 7, absent: false };
    let victim = FileSetup { pattern: 9, ..data.clone() };
    let setup = Setup {
        case: "family".to_owned(),
        files: [("data".to_owned(), data), ("victim".to_owned(), victim)].into(),
        actors: serde_json::from_str(actors).unwrap(),
        ..Setup::default()
    };
    assert!(matches!(guest.ask(&Order::Prepare(setup)), Reply::Prepared(_)));
    guest
}

fn fork() -> Op {
    op::Fork { into: "child".to_owned() }.into()
}

#[test]
fn a_duplicate_is_the_same_file_under_another_number() {
    let mut guest = family();
    let fd = number(&guest.act("fd", "owner", open()));
    let dup = number(&guest.act("dup", "owner", do_(r#"{"dup": {"fd": "$fd"}}"#)));
    assert_ne!(fd, dup);
    assert_eq!(guest.act("lease", "owner", do_(r#"{"set_lease": {"fd": "$fd", "lease": "F_RDLCK"}}"#)), OK);
    assert_eq!(guest.act("same", "owner", do_(r#"{"get_lease": {"fd": "$dup"}}"#)), OK);
    let victim = do_(r#"{"open": {"file": "victim", "flags": ["O_RDONLY"]}}"#);
    number(&guest.act("victim", "owner", victim));
    assert_eq!(guest.act("close", "owner", do_(r#"{"close": {"fd": "$dup"}}"#)), OK);
    // The handle is another file by now, under its old number.
    let onto = do_(r#"{"dup2": {"fd": "$victim", "onto": "$fd"}}"#);
    assert_eq!(guest.act("onto", "owner", onto), Outcome::Returned(fd));
    assert_eq!(guest.act("other", "owner", do_(GET_LEASE)), Outcome::Returned(2));
}

#[test]
fn a_descriptor_is_received_by_whom_it_was_sent_to() {
    let mut guest = family();
    number(&guest.act("fd", "owner", open()));
    assert_eq!(guest.act("lease", "owner", do_(r#"{"set_lease": {"fd": "$fd", "lease": "F_RDLCK"}}"#)), OK);
    let receive = do_(r#"{"receive_fd": {"from": "owner"}}"#);
    let start = Order::Start { step: "got".into(), actor: "other".into(), op: receive };
    assert!(matches!(guest.ask(&start), Reply::Started { .. }));
    assert!(matches!(guest.still("got"), Outcome::Blocked { .. }));
    assert_eq!(guest.act("send", "owner", do_(r#"{"send_fd": {"to": "other", "fd": "$fd"}}"#)), OK);
    number(&guest.collect("got"));
    assert_eq!(guest.act("close", "owner", do_(r#"{"close": {"fd": "$fd"}}"#)), OK);
    assert_eq!(guest.act("held", "other", do_(r#"{"get_lease": {"fd": "$got"}}"#)), OK);
    assert_eq!(guest.act("unlock", "other", do_(r#"{"set_lease": {"fd": "$got", "lease": "F_UNLCK"}}"#)), OK);
    let nobody = do_(r#"{"send_fd": {"to": "child", "fd": "$got"}}"#);
    assert!(is_not_issued(&guest.act("nobody", "other", nobody), "child is not there"));
}

#[test]
fn a_child_has_what_its_parent_had() {
    let mut guest = family();
    assert!(is_not_issued(&guest.act("early", "child", size()), "no actor child"));
    let fd = number(&guest.act("fd", "owner", open_rw()));
    assert_eq!(guest.act("map", "owner", map("fd")), OK);
    let Outcome::Returned(pid) = guest.act("fork", "owner", fork()) else { panic!("no child") };
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim(), "child");
    assert!(is_not_issued(&guest.act("twice", "owner", fork()), "there already"));
    let store = op::Store { map: handle("map"), at_kib: 4, len_kib: 8, pattern: 11 };
    assert_eq!(guest.act("store", "child", store), OK);
    assert_eq!(guest.act("compare", "other", compare(11)), OK);
    let dup = number(&guest.act("dup", "child", do_(r#"{"dup": {"fd": "$fd"}}"#)));
    assert_ne!(dup, fd);
    // A handler is inherited, its name with it.
    assert_eq!(guest.act("poke", "other", kill("child", "SIGUSR1")), OK);
    let received = do_(r#"{"received": {"handler": "poked"}}"#);
    assert!(matches!(guest.act("poked", "child", received.clone()), Outcome::Signalled(_)));
    assert_eq!(guest.issue("not owner", "owner", received, WATCH_MS), Outcome::NoSignal);
    // Neither the parent's end nor a descriptor of its own is the child's.
    assert_eq!(guest.act("exit", "owner", op::Exit { code: 0 }), Outcome::Exited(0));
    assert_eq!(guest.act("lives", "child", size()), Outcome::Returned(65_536));
    assert_eq!(guest.act("end", "child", op::Exit { code: 5 }), Outcome::Exited(5));
    assert_eq!(guest.act("wait", "other", op::Wait { actor: "child".to_owned() }), Outcome::Exited(5));
}

#[test]
fn a_child_sends_and_receives_for_itself() {
    let mut guest = family();
    number(&guest.act("fd", "owner", open()));
    assert_eq!(guest.act("link", "owner", do_(r#"{"send_fd": {"to": "other", "fd": "$fd"}}"#)), OK);
    assert!(matches!(guest.act("fork", "owner", fork()), Outcome::Returned(_)));
    assert_eq!(guest.act("send", "child", do_(r#"{"send_fd": {"to": "other", "fd": "$fd"}}"#)), OK);
    number(&guest.act("one", "other", do_(r#"{"receive_fd": {"from": "child"}}"#)));
    number(&guest.act("two", "other", do_(r#"{"receive_fd": {"from": "owner"}}"#)));
    let none = guest.issue("none", "other", do_(r#"{"receive_fd": {"from": "owner"}}"#), WATCH_MS);
    assert!(matches!(none, Outcome::Blocked { .. }), "{none:?}");
    // The child has no part in its parent's sockets: with the parent the other end is gone.
    assert_eq!(guest.act("exit", "owner", op::Exit { code: 0 }), Outcome::Exited(0));
    assert_eq!(guest.collect("none"), Outcome::Errno(42), "ENOMSG: the end of the stream");
}

#[test]
fn what_execve_leaves_is_what_the_kernel_leaves() {
    let mut guest = family();
    number(&guest.act("fd", "owner", open_rw()));
    let shut = do_(r#"{"open": {"file": "victim", "flags": ["O_RDONLY", "O_CLOEXEC"]}}"#);
    number(&guest.act("shut", "owner", shut));
    number(&guest.act("third", "owner", do_(r#"{"dup": {"fd": "$fd"}}"#)));
    let onto = do_(r#"{"dup3": {"fd": "$fd", "onto": "$third"}}"#);
    assert!(matches!(guest.act("onto", "owner", onto), Outcome::Returned(_)));
    assert_eq!(guest.act("map", "owner", map("fd")), OK);
    assert_eq!(guest.act("exec", "owner", op::Execve {}), OK);
    assert!(is_not_issued(&guest.act("dup3", "owner", do_(r#"{"dup": {"fd": "$third"}}"#)), "$third"));
    assert!(matches!(guest.act("dup", "owner", do_(r#"{"dup": {"fd": "$fd"}}"#)), Outcome::Returned(_)));
    assert!(is_not_issued(&guest.act("gone", "owner", do_(r#"{"dup": {"fd": "$shut"}}"#)), "$shut"));
    assert!(is_not_issued(&guest.act("unmapped", "owner", do_(r#"{"munmap": {"map": "$map"}}"#)), "$map"));
    let names: Vec<String> = actors_in(&guest.folder()).iter().map(|pid| look_of(pid).0).collect();
    assert!(names.contains(&"owner".to_owned()), "{names:?}");
    // Its handlers went with the old program.
    assert_eq!(guest.act("poke", "other", kill("owner", "SIGUSR1")), OK);
    let end = guest.act("wait", "other", op::Wait { actor: "owner".to_owned() });
    assert_eq!(end, Outcome::Killed("SIGUSR1".to_owned()));
}

#[test]
fn finishing_ends_children_too() {
    let mut guest = family();
    assert!(matches!(guest.act("fork", "owner", fork()), Outcome::Returned(_)));
    let Reply::Finished(oracles) = guest.ask(&Order::Finish { settle_ms: WAIT_MS }) else {
        panic!("not finished")
    };
    assert!(oracles.stuck.is_empty(), "{oracles:?}");
    assert_eq!(actors_in(&guest.folder()).len(), SPARES - 2);
}

#[test]
fn parts_of_a_mapping_are_protected_replaced_and_gone() {
    let mut guest = family();
    number(&guest.act("fd", "owner", open_rw()));
    assert_eq!(guest.act("map", "owner", map("fd")), OK);
    let load = |at_kib| op::Load { map: handle("map"), at_kib };
    let byte = |at| Outcome::Returned(holdfast_protocol::pattern_byte(7, at).into());
    let faulted = |code: &str| Outcome::Faulted { signal: "SIGSEGV".to_owned(), code: code.to_owned() };
    assert_eq!(guest.act("load", "owner", load(4)), byte(4096));
    let protect = do_(r#"{"mprotect": {"map": "$map", "at_kib": 4, "len_kib": 4, "prot": []}}"#);
    assert_eq!(guest.act("protect", "owner", protect), OK);
    assert_eq!(guest.act("denied", "owner", load(4)), faulted("SEGV_ACCERR"));
    assert_eq!(guest.act("beside", "owner", load(8)), byte(8192));
    let over = r#"{"mmap": {"len_kib": 4, "flags": ["MAP_PRIVATE", "MAP_ANONYMOUS"], "over": "$map", "over_at_kib": 8}}"#;
    assert_eq!(guest.act("over", "owner", do_(over)), OK);
    assert_eq!(guest.act("replaced", "owner", load(8)), OK);
    assert_eq!(
        guest.act("munmap", "owner", do_(r#"{"munmap": {"map": "$map", "at_kib": 12, "len_kib": 4}}"#)),
        OK
    );
    assert_eq!(guest.act("hole", "owner", load(12)), faulted("SEGV_MAPERR"));
    assert_eq!(guest.act("behind", "owner", load(16)), byte(16_384));
    let outside = do_(r#"{"madvise": {"map": "$map", "at_kib": 60, "len_kib": 8, "advice": "DONTNEED"}}"#);
    assert!(is_not_issued(&guest.act("outside", "owner", outside), "not within"));
}
