// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bodies of operations that an actor repeats and counts.

use holdfast_protocol::Issue;

use crate::guest::*;

/// A body that one actor repeats.
fn repeat(actor: &str, body: &[(&str, &str)], times: u32) -> Order {
    let issue = |(step, op): &(&str, &str)| Issue {
        step: (*step).to_owned(),
        actor: actor.to_owned(),
        op: do_(op),
        never_within: None,
        after: None,
    };
    Order::Repeat { body: body.iter().map(issue).collect(), times }
}

fn ticks(reply: Reply) -> Vec<Vec<u64>> {
    match reply {
        Reply::Repeated { ticks, .. } => ticks,
        other => panic!("not repeated: {other:?}"),
    }
}

const OPEN_AND_CLOSE: [(&str, &str); 3] = [
    ("fd", r#"{"open": {"file": "data", "flags": ["O_RDWR"]}}"#),
    ("cut", r#"{"truncate": {"fd": "$fd", "size_kib": 4}}"#),
    ("close", r#"{"close": {"fd": "$fd"}}"#),
];

#[test]
fn each_operation_is_counted_in_each_repetition_and_nothing_is_left() {
    let mut guest = Guest::ready();
    let ticks = ticks(guest.ask(&repeat("owner", &OPEN_AND_CLOSE, 7)));
    assert_eq!(ticks.iter().map(Vec::len).collect::<Vec<_>>(), [7, 7, 7]);
    assert!(ticks.iter().flatten().all(|ticks| *ticks > 0), "{ticks:?}");
    assert_eq!(guest.act("size", "owner", size()), Outcome::Returned(4096));
    assert!(is_not_issued(&guest.act("gone", "owner", do_(OPEN_AND_CLOSE[2].1)), "$fd is not there"));
}

#[test]
fn an_operation_that_fails_ends_it_and_is_named() {
    let mut guest = Guest::ready();
    let mkdir = [("fd", r#"{"open": {"file": "data", "flags": ["O_RDONLY", "O_CREAT", "O_EXCL"]}}"#)];
    let says = |reply: &Reply, words: &str| matches!(reply, Reply::Refused { why } if why.contains(words));
    let reply = guest.ask(&repeat("owner", &mkdir, 3));
    assert!(says(&reply, "repetition 1 of fd came to Errno(17)"), "{reply:?}");
    let reply = guest.ask(&repeat("nobody", &OPEN_AND_CLOSE, 3));
    assert!(says(&reply, "there is no actor nobody"), "{reply:?}");
    let reply = guest.ask(&repeat("owner", &[], 3));
    assert!(says(&reply, "nothing is to be repeated"), "{reply:?}");
    let Order::Repeat { mut body, times } = repeat("owner", &OPEN_AND_CLOSE, 3) else { panic!() };
    body[1].actor = "other".to_owned();
    let reply = guest.ask(&Order::Repeat { body, times });
    assert!(says(&reply, "cut is for other"), "{reply:?}");
    assert_eq!(guest.act("size", "owner", size()), Outcome::Returned(65_536), "it takes steps again");
}

#[test]
fn a_lease_is_broken_more_often_than_its_handler_tells() {
    let mut guest = Guest::bare();
    assert!(matches!(guest.wake(), Reply::Awake(_)));
    let unlock = r#"{"id": "unlock", "do": {"set_lease": {"fd": "$leased", "lease": "F_UNLCK"}}}"#;
    let actors = format!(
        r#"{{"holder": {{"on_signal": {{"recall": {{"signal": "SIGIO", "run": [{unlock}]}}}}}}, "breaker": {{}}}}"#
    );
    let setup = Setup {
        case: "leases".to_owned(),
        files: [("data".to_owned(), FileSetup { size_kib: 64, ..FileSetup::default() })].into(),
        actors: serde_json::from_str(&actors).unwrap(),
        ..Setup::default()
    };
    assert!(matches!(guest.ask(&Order::Prepare(setup)), Reply::Prepared(_)));
    number(&guest.act("leased", "holder", open()));
    assert_eq!(guest.act("send", "holder", do_(r#"{"send_fd": {"to": "breaker", "fd": "$leased"}}"#)), OK);
    number(&guest.act("got", "breaker", do_(r#"{"receive_fd": {"from": "holder"}}"#)));
    let body = [
        ("own", r#"{"set_own": {"fd": "$got", "actor": "holder"}}"#),
        ("lease", r#"{"set_lease": {"fd": "$got", "lease": "F_RDLCK"}}"#),
        ("fd", r#"{"open": {"file": "data", "flags": ["O_WRONLY"]}}"#),
        ("close", r#"{"close": {"fd": "$fd"}}"#),
    ];
    assert_eq!(ticks(guest.ask(&repeat("breaker", &body, 200))).len(), 4);
    let mut told = 0;
    while let Outcome::Signalled(_) =
        guest.issue("signal", "holder", op::Received { handler: "recall".to_owned() }.into(), WATCH_MS)
    {
        told += 1;
    }
    assert_eq!(told, 64, "128 answers, of which half are the operation's");
}
