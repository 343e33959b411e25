// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a device reaches of blocks that were given away, and with which provider.

use super::*;

#[test]
fn what_a_device_reaches_of_blocks_given_away_is_judged() {
    let differs = || Outcome::Differs { at: 9, want: 1, got: 2 };
    let refused = || Some(Outcome::Completion("REM_ACCESS_ERR".into()));
    let flushed = || Some(Outcome::Completion("WR_FLUSH_ERR".into()));
    let victim = |read, write, bytes| {
        let file = "/mnt/ext4/v".to_owned();
        Some(Victim { file, offset: 0, region_offset: 0, read, write, bytes })
    };
    let ok = || Outcome::Returned(0);
    let table: [(&str, Option<Victim>, Kind, Option<&str>); 9] = [
        ("nothing is reached", victim(refused(), None, ok()), Kind::Pass, None),
        ("only writing is allowed, and refused", victim(None, refused(), ok()), Kind::Pass, None),
        ("a flushed write shows nothing", victim(refused(), flushed(), ok()), Kind::Inconclusive, None),
        ("nothing is transferred", victim(None, None, ok()), Kind::Inconclusive, None),
        ("other bytes are read", victim(Some(differs()), refused(), ok()), Kind::Pass, None),
        (
            "the victim is written",
            victim(refused(), Some(ok()), differs()),
            Kind::Fail,
            Some("oracle/no-stale-write"),
        ),
        ("the victim is read", victim(Some(ok()), refused(), ok()), Kind::Fail, Some("oracle/no-stale-read")),
        (
            "only writing is allowed",
            victim(None, Some(ok()), differs()),
            Kind::Fail,
            Some("oracle/no-stale-write"),
        ),
        ("nobody could look", None, Kind::Inconclusive, None),
    ];
    for (what, victim, kind, step) in table {
        let result = after("unguarded", |record| {
            let trouble = if victim.is_some() { "" } else { "no new file" }.to_owned();
            let (after, region, victim) = ("cut".to_owned(), "mr".to_owned(), victim.clone());
            oracles(record).damage =
                vec![DamageFact { after, region, lost_kib: 4, taken_kib: 4, victim, trouble }];
        });
        assert_eq!((result.verdict.kind, result.verdict.step.as_deref()), (kind, step), "{what}");
    }
}

#[test]
fn over_iwarp_a_refusal_is_the_end_of_the_connection() {
    let transfer = |provider: &str, status: &str| {
        let case = CASE.replace("actors:", &format!("provider: {provider}\nactors:"));
        let plan = plan_of(&case, &["unguarded"], "");
        let mut record = good(&plan.cases[1]);
        let victim = Victim {
            file: "/mnt/ext4/v".into(),
            offset: 0,
            region_offset: 0,
            read: Some(Outcome::Completion(status.into())),
            write: None,
            bytes: Outcome::Returned(0),
        };
        let (after, region, victim) = ("cut".to_owned(), "mr".to_owned(), Some(victim));
        let trouble = String::new();
        oracles(&mut record).damage =
            vec![DamageFact { after, region, lost_kib: 4, taken_kib: 4, victim, trouble }];
        judge(&plan.cases[1], &plan.contracts["unguarded"], &record).verdict.kind
    };
    assert_eq!(transfer("siw", "WR_FLUSH_ERR"), Kind::Pass);
    assert_eq!(transfer("siw", "TIMEOUT"), Kind::Inconclusive);
    assert_eq!(transfer("rxe", "REM_ACCESS_ERR"), Kind::Pass);
    assert_eq!(transfer("rxe", "WR_FLUSH_ERR"), Kind::Inconclusive);
}

#[test]
fn a_guest_without_the_provider_of_a_case_shows_nothing() {
    let kind = |change: fn(&mut Record)| {
        let plan = plan_of(&CASE.replace("actors:", "provider: siw\nactors:"), &["unguarded"], "");
        let mut record = good(&plan.cases[1]);
        change(&mut record);
        let verdict = judge(&plan.cases[1], &plan.contracts["unguarded"], &record).verdict;
        (verdict.kind, verdict.got.unwrap_or_default())
    };
    assert_eq!(kind(|_| ()).0, Kind::Pass);
    let (inconclusive, why) = kind(|r| {
        r.hello.as_mut().unwrap().rdma[1].trouble = "siw: adding a link on dummy1: EINVAL".into();
        r.end = End::Fault { why: "the guest refused".into() };
    });
    assert_eq!(inconclusive, Kind::Inconclusive);
    assert_eq!(why, "the guest's siw link is not ready: siw: adding a link on dummy1: EINVAL");
    assert_eq!(kind(|r| r.hello.as_mut().unwrap().rdma[0].trouble = "no GID".into()).0, Kind::Pass);
    // Of an agent that knew rxe only.
    assert_eq!(kind(|r| drop(r.hello.as_mut().unwrap().rdma.pop())).0, Kind::Inconclusive);
}
