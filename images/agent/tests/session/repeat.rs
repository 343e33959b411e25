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
