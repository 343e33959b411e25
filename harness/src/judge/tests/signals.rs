// SPDX-License-Identifier: MIT OR Apache-2.0
//! A signal is judged by the number of the descriptor it names, silence by how long it was listened to.

use super::*;

const SIGNALS: &str = "
about: t
because: t
contracts: [mainline]
files: {data: {on: ext4, size_kib: 4, pattern: 1}}
actors: {a: {on_signal: {x: {signal: SIGIO}}}}
steps:
  - {id: fd, by: a, do: {open: {file: data, flags: []}}}
  - {id: told, by: a, do: {received: {handler: x}}, expect: signal SIGIO code POLL_MSG fd $fd, proves: [longterm-refused]}
  - {id: still, by: a, do: {received: {handler: x}}, within_ms: 500, expect: no signal, proves: [longterm-refused]}
";

#[test]
fn a_signal_is_judged_by_the_number_its_descriptor_had_and_silence_by_its_length() {
    let plan = plan_of(SIGNALS, &["mainline"], "");
    let case = &plan.cases[1];
    let signal = |fd| {
        let (signal, code) = ("SIGIO".to_owned(), "POLL_MSG".to_owned());
        Outcome::Signalled(Signalled { signal, code, fd, count: 1, ..Signalled::default() })
    };
    let mut record = good(case);
    let mut set = |step: &str, outcome| record.facts.get_mut(step).unwrap().outcome = outcome;
    set("fd", Outcome::Returned(7));
    set("told", signal(Some(7)));
    set("still", Outcome::NoSignal);
    let verdict = |record: &Record| judge(case, &plan.contracts["mainline"], record).verdict;
    assert_eq!(verdict(&record).kind, Kind::Pass, "{:?}", verdict(&record));
    type Change = fn(&mut Record);
    let table: [(&str, Change); 4] = [
        ("told", |r| r.facts.get_mut("fd").unwrap().outcome = Outcome::Returned(8)),
        ("told", |r| r.facts.get_mut("told").unwrap().outcome = Outcome::NoSignal),
        ("still", |r| r.facts.get_mut("still").unwrap().took_ms = 499),
        ("still", |r| r.facts.get_mut("still").unwrap().outcome = Outcome::Returned(0)),
    ];
    for (step, change) in table {
        let mut altered = record.clone();
        change(&mut altered);
        assert_eq!((verdict(&altered).kind, verdict(&altered).step.as_deref()), (Kind::Fail, Some(step)));
    }
    let records: Vec<Record> =
        plan.cases.iter().map(|one| if one.id == case.id { record.clone() } else { good(one) }).collect();
    let flipped = flip(&plan, &records);
    assert!(flipped.tried > 40 && flipped.vacuous.is_empty(), "{:?}", flipped.vacuous);
}
