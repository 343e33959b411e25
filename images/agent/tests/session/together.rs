// SPDX-License-Identifier: MIT OR Apache-2.0
//! Threads of an actor, operations that begin at the same moment, stress.

use holdfast_protocol::{Count, Issue, Stress};

use crate::guest::*;

/// A session with `owner`, its thread `second`, and `other`; `owner` has a handler that kills `other`.
fn pair() -> Guest {
    let mut guest = Guest::bare();
    assert!(matches!(guest.wake(), Reply::Awake(_)));
    let actors = r#"{
        "owner": {"on_signal": {"poked": {"signal": "SIGUSR1", "restart": false,
            "run": [{"id": "kill", "do": {"kill": {"actor": "other", "signal": "SIGTERM"}}}]}}},
        "second": {"thread_of": "owner"},
        "other": {}}"#;
    let data = FileSetup { on: Place::Ext4, size_kib: 64, pattern: 7, absent: false };
    let setup = Setup {
        case: "together".to_owned(),
        files: [("data".to_owned(), data)].into(),
        actors: serde_json::from_str(actors).unwrap(),
        ..Setup::default()
    };
    assert!(matches!(guest.ask(&Order::Prepare(setup)), Reply::Prepared(_)));
    guest
}

fn issue(step: &str, actor: &str, op: impl Into<Op>) -> Issue {
    Issue { step: step.to_owned(), actor: actor.to_owned(), op: op.into(), never_within: None, after: None }
}

#[test]
fn a_thread_has_what_its_process_has() {
    let mut guest = pair();
    let fd = number(&guest.act("fd", "owner", open_rw()));
    assert_eq!(guest.act("map", "second", map("fd")), OK);
    assert_eq!(
        guest.act(
            "look",
            "owner",
            do_(r#"{"compare": {"map": "$map", "at_kib": 0, "len_kib": 64, "pattern": 7}}"#)
        ),
        OK
    );
    assert_eq!(guest.act("close", "second", do_(r#"{"close": {"fd": "$fd"}}"#)), OK);
    assert!(is_not_issued(&guest.act("gone", "owner", do_(r#"{"get_lease": {"fd": "$fd"}}"#)), "$fd"));
    assert_eq!(number(&guest.act("again", "owner", open_rw())), fd);
}

#[test]
fn a_thread_goes_on_while_the_other_one_waits() {
    let mut guest = pair();
    std::fs::remove_file(guest.data()).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(guest.data()).status().unwrap().success());
    // A FIFO whose reader waits for a writer, in each of the two.
    for (waiting, free) in [("owner", "second"), ("second", "owner")] {
        let outcome = guest.issue(waiting, waiting, open(), 100);
        assert!(matches!(outcome, Outcome::Blocked { .. }), "{outcome:?}");
        let writer = do_(r#"{"open": {"file": "data", "flags": ["O_WRONLY"]}}"#);
        number(&guest.act(&format!("by_{free}"), free, writer));
        number(&guest.collect(waiting));
        for id in [waiting, &format!("by_{free}")] {
            let shut = do_(&format!(r#"{{"close": {{"fd": "${id}"}}}}"#));
            assert_eq!(guest.act(&format!("shut_{id}"), free, shut), OK);
        }
    }
}

#[test]
fn both_end_with_their_process_and_a_handler_may_name_another_actor() {
    let mut guest = pair();
    assert_eq!(guest.act("poke", "second", kill("owner", "SIGUSR1")), OK);
    assert_eq!(guest.collect("poked.kill"), OK);
    let gone = guest.issue("gone", "owner", do_(r#"{"wait": {"actor": "other"}}"#), 2000);
    assert_eq!(gone, Outcome::Killed("SIGTERM".into()));
    assert_eq!(guest.act("exit", "second", op::Exit { code: 3 }), Outcome::Exited(3));
    assert!(is_not_issued(&guest.act("late", "owner", open()), "exited"));
}

#[test]
fn what_begins_together_waits_for_the_last_to_come() {
    let mut guest = pair();
    let group =
        vec![issue("a", "owner", open_rw()), issue("b", "other", open_rw()), issue("c", "second", size())];
    let Reply::Started { at_ms } = guest.ask(&Order::Together(group)) else { panic!("not started") };
    number(&guest.collect("a"));
    number(&guest.collect("b"));
    assert_eq!(guest.collect("c"), Outcome::Returned(65536));
    // None was issued before the gate opened, a little after which the last of them came to it.
    for step in ["a", "b", "c"] {
        let fact = guest.fact(&Order::Await { step: step.into(), wait_ms: 0 });
        assert!(fact.at_ms >= at_ms, "{step} began at {}, the gate opened at {at_ms}", fact.at_ms);
    }
    // An actor that is in a step cannot come to the gate, and says so by its step; the others go on.
    assert_eq!(guest.act("pipe", "owner", do_(r#"{"pipe": {}}"#)), OK);
    assert!(matches!(
        guest.issue("in", "other", do_(r#"{"receive_fd": {"from": "owner"}}"#), 100),
        Outcome::Blocked { .. }
    ));
    let group = vec![issue("d", "other", size()), issue("e", "owner", size())];
    assert!(matches!(guest.ask(&Order::Together(group)), Reply::Started { .. }));
    assert!(is_not_issued(&guest.collect("d"), "still in step in"));
    assert_eq!(guest.collect("e"), Outcome::Returned(65536));
}

#[test]
fn what_cannot_be_issued_together_keeps_nobody_waiting() {
    let mut guest = pair();
    let nowhere = do_(r#"{"rdma_write": {"mr": "$mr", "at_kib": 0, "len_kib": 4, "pattern": 1}}"#);
    let group = vec![issue("lost", "owner", nowhere), issue("there", "other", size())];
    assert!(matches!(guest.ask(&Order::Together(group)), Reply::Started { .. }));
    assert!(is_not_issued(&guest.collect("lost"), "$mr is not a memory region"));
    assert_eq!(guest.collect("there"), Outcome::Returned(65536));
    // Nor in a stress: who cannot begin says so, the others draw.
    let gone = do_(r#"{"kill": {"actor": "nobody", "signal": "SIGTERM"}}"#);
    let told =
        tallies(guest.ask(&stress(3, 100, vec![issue("bad", "owner", gone), issue("see", "other", size())])));
    assert!(is_not_issued(&told["bad"], "nobody"));
    assert!(counts(&told["see"])[0].times > 1);
    assert_eq!(guest.act("after", "owner", size()), Outcome::Returned(65536));
}

fn stress(seed: u64, for_ms: u64, choices: Vec<Issue>) -> Order {
    Order::Stress(Stress { id: "rush".into(), seed, for_ms, grace_ms: 300, choices })
}

fn tallies(reply: Reply) -> BTreeMap<String, Outcome> {
    match reply {
        Reply::Stressed(facts) => facts.into_iter().map(|fact| (fact.step, fact.outcome)).collect(),
        other => panic!("no stress: {other:?}"),
    }
}

fn counts(outcome: &Outcome) -> &[Count] {
    match outcome {
        Outcome::Tally(counts) => counts,
        other => panic!("no tally: {other:?}"),
    }
}

#[test]
fn stress_counts_what_came_and_lets_everything_go() {
    let mut guest = pair();
    let before = guest.act("before", "owner", do_(r#"{"fds": {"of": "owner"}}"#));
    let choices = vec![
        issue("fd", "owner", open_rw()),
        issue("shut", "owner", do_(r#"{"close": {"fd": "$fd"}}"#)),
        Issue { after: Some("shut".into()), ..issue("closed", "owner", size()) },
        Issue { after: Some("never".into()), ..issue("late", "owner", size()) },
        issue("never", "owner", do_(r#"{"close": {"fd": "$nothing"}}"#)),
        issue("cut", "other", do_(r#"{"truncate": {"file": "data", "size_kib": 8}}"#)),
        issue("grow", "other", do_(r#"{"truncate": {"file": "data", "size_kib": 64}}"#)),
        issue("gone", "other", do_(r#"{"open": {"file": "data", "flags": ["O_RDWR", "O_CREAT", "O_EXCL"]}}"#)),
    ];
    let told = tallies(guest.ask(&stress(7, 300, choices)));
    assert_eq!(told.len(), 8);
    let (opened, shut) = (counts(&told["fd"]), counts(&told["shut"]));
    assert!(matches!(opened, [Count { outcome: Outcome::Returned(_), times: 2.., .. }]), "{opened:?}");
    // What is open is not opened again, and what is not is not closed.
    assert!(shut.len() == 1 && opened[0].times - shut[0].times <= 1, "{opened:?} {shut:?}");
    assert!(matches!(counts(&told["gone"]), [Count { outcome: Outcome::Errno(17), times: 1.., .. }]));
    assert!(!counts(&told["closed"]).is_empty(), "a choice after one that succeeded");
    assert!(counts(&told["late"]).is_empty(), "a choice after one that never did");
    let never = counts(&told["never"]);
    assert!(matches!(never, [Count { outcome: Outcome::NotIssued { .. }, .. }]), "{never:?}");
    let after = guest.act("after", "owner", do_(r#"{"fds": {"of": "owner"}}"#));
    assert_eq!(before, after, "something was left open");
}

#[test]
fn an_actor_that_does_not_come_back_from_stress_is_told_as_blocked() {
    let mut guest = pair();
    assert_eq!(guest.act("pipe", "owner", do_(r#"{"pipe": {}}"#)), OK);
    assert_eq!(guest.act("own", "other", do_(r#"{"pipe": {}}"#)), OK);
    let receive = do_(r#"{"receive_fd": {"from": "owner"}}"#);
    let told = tallies(guest.ask(&stress(
        1,
        200,
        vec![issue("get", "other", receive), issue("see", "owner", size())],
    )));
    assert!(matches!(told["get"], Outcome::Blocked { .. }), "{told:?}");
    assert!(counts(&told["see"])[0].times > 1);
}
