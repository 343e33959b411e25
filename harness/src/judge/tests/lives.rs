// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machines that lose their power in the middle of a case.

use super::*;
use crate::record::Life;

const CUT: &str = "
about: A file comes back.
because: a test
contracts: [mainline]
files: {data: {on: ext4, size_kib: 64, pattern: 1}}
actors: {a: {}}
steps:
  - {id: dark, power: cut}
  - {id: back, by: a, do: {size: {file: data}}, expect: ok 0}
";

/// The verdict after one change to a record in which all came back.
fn after(change: impl Fn(&mut Record)) -> CaseResult {
    let plan = plan_of(CUT, &["mainline"], "");
    let case = &plan.cases[1];
    let mut record = good(case);
    record.facts.remove("dark");
    let mut hello = record.hello.clone().unwrap();
    hello.pmem.iter_mut().for_each(|pmem| pmem.found = true);
    let files = record.files.clone();
    record.lives.push(Life { step: "dark".into(), hello, files, took_ms: 3_000 });
    change(&mut record);
    judge(case, &plan.contracts["mainline"], &record)
}

fn pmem(record: &mut Record) -> &mut PmemFact {
    &mut record.lives[0].hello.pmem[1]
}

#[test]
fn a_machine_that_comes_back_with_what_it_had_is_good() {
    let result = after(|_| {});
    assert_eq!(result.verdict.kind, Kind::Pass, "{:?}", result.verdict);
    assert_eq!(result.steps[0].took_ms, 3_000);
}

#[test]
fn what_does_not_come_back_is_the_kernels_fault() {
    let check = |change: fn(&mut Record), kind: Kind, got: &str| {
        let verdict = after(change).verdict;
        let all = (verdict.kind, verdict.step.as_deref(), verdict.got.as_deref());
        assert_eq!(all, (kind, Some("dark"), Some(got)));
    };
    check(|record| pmem(record).found = false, Kind::Fail, "Xfs was made anew");
    check(
        |record| record.lives[0].files[0].map_sync = false,
        Kind::Fail,
        "file `data` cannot be opened, or is not DAX any more",
    );
    // Nothing was played on it, and nobody asked the oracles.
    let lost = |record: &mut Record| {
        pmem(record).trouble = "mounting /dev/pmem1: EUCLEAN".into();
        record.oracles = None;
    };
    check(lost, Kind::Fail, "mounting /dev/pmem1: EUCLEAN");
}

#[test]
fn what_went_wrong_before_the_cut_is_told_first() {
    let lost = |record: &mut Record| {
        pmem(record).trouble = "mounting /dev/pmem1: EUCLEAN".into();
        record.oracles = None;
    };
    let verdict = after(|record| {
        lost(record);
        record.config.push(ConfigMismatch { option: "X".into(), want: "y".into(), got: "n".into() });
    });
    assert_eq!(verdict.verdict.kind, Kind::Inconclusive, "the kernel is not the one that was asked for");
    // The agent refuses what cannot be prepared without a link; its reason is the guest's.
    let refused = after(|record| {
        record.lives[0].hello.rdma.clear();
        record.end = End::Fault { why: "dark: the agent refused: no RDMA device".into() };
    });
    assert_eq!(refused.verdict.kind, Kind::Inconclusive, "{:?}", refused.verdict);
}

#[test]
fn a_life_that_is_not_that_of_the_machine_shows_nothing() {
    let kind = |change: fn(&mut Record)| after(change).verdict.kind;
    assert_eq!(kind(|record| record.lives[0].hello.kernel.push('x')), Kind::Inconclusive);
    assert_eq!(kind(|record| record.lives[0].hello.rdma.clear()), Kind::Inconclusive);
    assert_eq!(kind(|record| record.lives.clear()), Kind::Fail);
}
