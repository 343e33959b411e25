// SPDX-License-Identifier: MIT OR Apache-2.0
//! Leases, the signals of their breaks, and handlers that do something.

use crate::guest::*;

/// A session with `owner`, whose handlers are given as a scenario writes them, and `other`.
fn with_handlers(handlers: &str) -> Guest {
    let mut guest = Guest::bare();
    assert!(matches!(guest.wake(), Reply::Awake(_)));
    let actors = format!(r#"{{"owner": {{"on_signal": {handlers}}}, "other": {{}}}}"#);
    let data = FileSetup { on: Place::Ext4, size_kib: 64, pattern: 7, absent: false };
    let setup = Setup {
        case: "signals".to_owned(),
        files: [("data".to_owned(), data)].into(),
        actors: serde_json::from_str(&actors).unwrap(),
        ..Setup::default()
    };
    assert!(matches!(guest.ask(&Order::Prepare(setup)), Reply::Prepared(_)));
    guest
}

const RECALL: &str = r#"{"recall": {"signal": "SIGRTMIN+1"}}"#;

/// Takes a read lease as step `fd`, with the signal that `recall` answers.
fn lease(guest: &mut Guest) -> i64 {
    let fd = number(&guest.act("fd", "owner", open()));
    assert_eq!(guest.act("lease", "owner", do_(r#"{"set_lease": {"fd": "$fd", "lease": "F_RDLCK"}}"#)), OK);
    let set_sig = do_(r#"{"set_sig": {"fd": "$fd", "signal": "SIGRTMIN+1"}}"#);
    assert_eq!(guest.act("sig", "owner", set_sig), OK);
    fd
}

fn received(handler: &str) -> Op {
    op::Received { handler: handler.to_owned() }.into()
}

/// open(2) for writing, which breaks a read lease; without waiting, EAGAIN at once.
fn break_it() -> Op {
    do_(r#"{"open": {"file": "data", "flags": ["O_WRONLY", "O_NONBLOCK"]}}"#)
}

#[test]
fn the_break_of_a_lease_is_received_with_all_it_carries() {
    let mut guest = with_handlers(RECALL);
    let fd = lease(&mut guest);
    let get_lease = do_(r#"{"get_lease": {"fd": "$fd"}}"#);
    assert_eq!(guest.act("held", "owner", get_lease.clone()), Outcome::Returned(0));
    assert_eq!(guest.issue("silence", "owner", received("recall"), WATCH_MS), Outcome::NoSignal);
    assert_eq!(guest.act("break", "other", break_it()), Outcome::Errno(11));
    let Outcome::Signalled(signal) = guest.act("signal", "owner", received("recall")) else { panic!("none") };
    assert_eq!((signal.signal.as_str(), signal.code.as_str()), ("SIGRTMIN+1", "POLL_MSG"));
    assert_eq!((signal.fd.map(i64::from), signal.count), (Some(fd), 1));
    assert_eq!(guest.issue("once", "owner", received("recall"), WATCH_MS), Outcome::NoSignal);
    assert_eq!(guest.act("unlock", "owner", do_(r#"{"set_lease": {"fd": "$fd", "lease": "F_UNLCK"}}"#)), OK);
    assert_eq!(guest.act("gone", "owner", get_lease), Outcome::Returned(2));
    assert_eq!(guest.act("sig is gone", "owner", do_(r#"{"get_sig": {"fd": "$fd"}}"#)), OK);
}

#[test]
fn without_a_handler_the_signal_is_the_end() {
    let mut guest = with_handlers("{}");
    lease(&mut guest);
    assert_eq!(guest.act("break", "other", break_it()), Outcome::Errno(11));
    let end = guest.act("end", "other", op::Wait { actor: "owner".to_owned() });
    assert_eq!(end, Outcome::Killed("SIGRTMIN+1".to_owned()));
    assert_eq!(guest.act("received", "owner", received("x")), Outcome::Killed("SIGRTMIN+1".to_owned()));
}

#[test]
fn a_signal_that_is_ignored_ends_nobody() {
    let mut guest = with_handlers(r#"{"deaf": {"signal": "SIGUSR1", "action": "ignore"}}"#);
    assert_eq!(guest.act("kill", "other", kill("owner", "SIGUSR1")), OK);
    assert_eq!(guest.issue("silence", "owner", received("deaf"), WATCH_MS), Outcome::NoSignal);
    assert_eq!(guest.act("size", "owner", size()), Outcome::Returned(65_536));
}

#[test]
fn a_handler_lets_go_and_the_breaker_goes_on() {
    for place in ["handler", "thread"] {
        let run = r#"[{"id": "unlock", "do": {"set_lease": {"fd": "$fd", "lease": "F_UNLCK"}}}]"#;
        let mut guest = with_handlers(&format!(
            r#"{{"recall": {{"signal": "SIGRTMIN+1", "in": "{place}", "run": {run}}}}}"#
        ));
        lease(&mut guest);
        // It waits in a call meanwhile: nobody has sent anything.
        let wait = do_(r#"{"receive_fd": {"from": "other"}}"#);
        assert!(matches!(guest.issue("wait", "owner", wait, WATCH_MS), Outcome::Blocked { .. }));
        let open = do_(r#"{"open": {"file": "data", "flags": ["O_WRONLY"]}}"#);
        number(&guest.act("break", "other", open));
        assert_eq!(guest.collect("recall.unlock"), OK, "in {place}");
        assert!(matches!(guest.act("signal", "owner", received("recall")), Outcome::Signalled(_)));
        if place == "handler" {
            assert_eq!(guest.collect("wait"), Outcome::Errno(4), "a handler interrupts");
        } else {
            assert!(matches!(guest.still("wait"), Outcome::Blocked { .. }), "a thread does not");
        }
    }
}

#[test]
fn what_a_handler_has_not_run_is_still_blocked() {
    let run = r#"[{"id": "size", "do": {"size": {"file": "data"}}}]"#;
    let mut guest = with_handlers(&format!(r#"{{"poked": {{"signal": "SIGUSR1", "run": {run}}}}}"#));
    let waits = |guest: &mut Guest| guest.fact(&Order::Await { step: "poked.size".into(), wait_ms: WATCH_MS });
    assert!(matches!(waits(&mut guest).outcome, Outcome::Blocked { .. }));
    assert_eq!(guest.act("kill", "other", kill("owner", "SIGUSR1")), OK);
    assert_eq!(guest.collect("poked.size"), Outcome::Returned(65_536));
}

#[test]
fn a_flood_of_signals_is_counted_and_told_in_part() {
    let mut guest = with_handlers(RECALL);
    for nr in 0..140 {
        assert_eq!(guest.act(&format!("kill{nr}"), "other", kill("owner", "SIGRTMIN+1")), OK);
    }
    let mut told = 0;
    while let Outcome::Signalled(signal) = guest.issue("signal", "owner", received("recall"), WATCH_MS) {
        told += 1;
        assert_eq!((signal.count, signal.code.as_str(), signal.fd), (told, "SI_USER", None));
        assert!(signal.pid.is_some());
    }
    assert_eq!(told, 128);
    assert_eq!(guest.act("size", "owner", size()), Outcome::Returned(65_536));
}

#[test]
fn too_many_operations_are_refused() {
    let run: Vec<String> =
        (0..17).map(|nr| format!(r#"{{"id": "s{nr}", "do": {{"size": {{"file": "data"}}}}}}"#)).collect();
    let actors =
        format!(r#"{{"a": {{"on_signal": {{"x": {{"signal": "SIGUSR1", "run": [{}]}}}}}}}}"#, run.join(","));
    let mut guest = Guest::bare();
    guest.wake();
    let setup = Setup { actors: serde_json::from_str(&actors).unwrap(), ..Setup::default() };
    let reply = guest.ask(&Order::Prepare(setup));
    assert!(matches!(&reply, Reply::Refused { why } if why.contains("more than 16")), "{reply:?}");
}

#[test]
fn the_owner_of_a_signal_is_who_was_set() {
    let mut guest = with_handlers(RECALL);
    number(&guest.act("fd", "owner", open()));
    let own = do_(r#"{"set_own": {"fd": "$fd", "actor": "other"}}"#);
    assert_eq!(guest.act("own", "owner", own), OK);
    let Outcome::Returned(other) = guest.act("whose", "owner", do_(r#"{"get_own": {"fd": "$fd"}}"#)) else {
        panic!("no owner")
    };
    let Outcome::Returned(group) = guest.act("group", "owner", op::SetGroup { join: None }) else {
        panic!("no group")
    };
    assert!(other > 0 && group > 0 && other != group, "{other} {group}");
    assert_eq!(guest.act("own group", "owner", do_(r#"{"set_own": {"fd": "$fd", "group": "owner"}}"#)), OK);
    let negative = guest.act("group's", "owner", do_(r#"{"get_own": {"fd": "$fd"}}"#));
    assert_eq!(negative, Outcome::Returned(-group));
    let ex = do_(r#"{"set_own_ex": {"fd": "$fd", "kind": "F_OWNER_PID", "actor": "other"}}"#);
    assert_eq!(guest.act("ex", "owner", ex), OK);
    assert_eq!(guest.act("again", "owner", do_(r#"{"get_own": {"fd": "$fd"}}"#)), Outcome::Returned(other));
}
