// SPDX-License-Identifier: MIT OR Apache-2.0
//! Facts in, verdicts out. Each row alters one thing of a good case.

use std::path::Path;

use holdfast_protocol::{
    ConfigMismatch, DamageFact, Fact, FileFact, Hello, Leaks, LogLine, Oracles, Outcome, PinCounts, Place,
    PmemFact, RdmaFact, Signalled, StuckTask, UmountFact, UnloadedModule, Victim,
};

mod broken;
mod controls;
mod damage;
mod lives;
mod programs;
mod signals;
mod times;

use super::*;
use crate::contract::Contracts;
use crate::flip::flip;
use crate::fsck::FsckFact;
use crate::plan::{PlannedKernel, PlannedStep};
use crate::scenario;
use crate::splat::Splat;

const CONTRACTS: &str = "
mainline: {about: m, clauses: {longterm-refused: p, pins-balanced: p}}
unguarded:
  about: u
  clauses: {blocks: p, pins-balanced: p}
  splats: [{title: WARNING in dax_disassociate_entry, reason: known}]
";

const CONTROL: &str = "
about: c
because: c
contracts: [mainline, unguarded]
control: true
actors: {a: {}}
steps: [{id: map, by: a, do: {mmap: {len_kib: 4, flags: [MAP_ANONYMOUS]}}, expect: ok}]
";

const CASE: &str = "
about: t
because: t
contracts: [mainline, unguarded]
files: {data: {on: ext4, size_kib: 4, pattern: 1}}
actors: {a: {rdma: true}, b: {}}
steps:
  - {id: fd, by: a, do: {open: {file: data, flags: []}}}
  - {id: map, by: a, do: {mmap: {fd: $fd, len_kib: 4, flags: [MAP_SHARED]}}}
  - {id: memory, by: a, do: {mmap: {len_kib: 4, flags: [MAP_ANONYMOUS]}}}
  - {id: twin, by: a, do: {reg_mr: {map: $memory}}, expect: ok}
  - {id: mr, by: a, do: {reg_mr: {map: $map}}, expect_by: {mainline: EOPNOTSUPP, unguarded: ok}, proves: [longterm-refused], twin: twin}
  - {id: cut, by: b, start: {truncate: {file: data, size_kib: 0}}}
  - {id: live, by: a, do: {rdma_write: {mr: $mr, at_kib: 0, len_kib: 4, pattern: 2}}, expect: ok}
  - {id: watch, still: cut, for_ms: 500, needs: [mr], proves: [blocks]}
  - {id: free, by: a, do: {dereg_mr: {mr: $mr}}}
  - {id: done, await: cut, after: free, expect: ok, not_after_ms: 5000, proves: [blocks]}
";

fn plan(kernels: &[&str], ends: &str) -> Plan {
    plan_of(CASE, kernels, ends)
}

fn plan_of(case: &str, kernels: &[&str], ends: &str) -> Plan {
    let contracts = Contracts::of(CONTRACTS);
    let folder = tempfile::tempdir().unwrap();
    let mut scenarios = Vec::new();
    for (name, text) in [("control.yaml", CONTROL.to_owned()), ("case.yaml", format!("{case}{ends}"))] {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        scenarios.extend(scenario::load_file(folder.path(), &path, &contracts).unwrap());
    }
    let kernels: Vec<PlannedKernel> = kernels
        .iter()
        .map(|name| PlannedKernel {
            name: format!("{name}-k"),
            contract: (*name).to_owned(),
            features: Vec::new(),
            programs: vec!["tests".to_owned()],
            lacks: std::collections::BTreeSet::new(),
        })
        .collect();
    Plan::make(&scenarios, &contracts, &kernels, &[]).unwrap()
}

fn blocked() -> Outcome {
    Outcome::Blocked { state: "S".into(), wchan: "w".into(), stack: vec!["[<0>] f+0x1/0x2".into()] }
}

/// What a guest reports when all goes as the case says.
fn good(case: &PlannedCase) -> Record {
    let mut record = Record::empty(End::Complete);
    record.release = "6.12".into();
    record.hello = Some(Hello {
        protocol: 1,
        agent: String::new(),
        kernel: "6.12".into(),
        build: String::new(),
        started_ms: 1,
        ready_ms: 2,
        stalled_ms: 0,
        boot_id: "b".into(),
        unloaded: Vec::new(),
        pmem: [Place::Ext4, Place::Xfs, Place::Devdax]
            .map(|place| PmemFact {
                place,
                device: "d".into(),
                mount: "m".into(),
                data_at: 0,
                found: false,
                trouble: String::new(),
            })
            .into(),
        features: BTreeMap::new(),
        rdma: Provider::ALL
            .map(|provider| RdmaFact {
                provider,
                device: format!("{}0", provider.name()),
                active: true,
                gid_index: Some(1),
                trouble: String::new(),
            })
            .into(),
        cpus: 1,
    });
    for name in case.setup.files.keys() {
        let file =
            FileFact { name: name.clone(), on: Place::Ext4, statx_dax: true, map_sync: true, filled: true };
        record.files.push(file);
    }
    for (nr, step) in case.steps.iter().enumerate().filter(|(_, step)| step.excluded.is_none()) {
        // A collected operation was issued by the step that is collected.
        let collects = matches!(step.id.as_str(), "watch" | "done");
        let cut = case.steps.iter().position(|one| one.id == "cut").filter(|_| collects);
        let issued = cut.unwrap_or(nr);
        let at_ms = 10 * issued as u64;
        let outcome = match step.id.as_str() {
            "watch" => blocked(),
            "mr" if case.contract == "mainline" => Outcome::Errno(95),
            _ => Outcome::Returned(0),
        };
        let fact =
            Fact { step: step.id.clone(), actor: "a".into(), outcome, at_ms, took_ms: 600, stalled_ms: 0 };
        record.facts.insert(step.id.clone(), fact);
    }
    record.fsck = [Place::Ext4, Place::Xfs]
        .map(|on| FsckFact { on, command: "fsck".into(), status: Some(0), output: String::new() })
        .into();
    record.oracles = Some(Oracles {
        pins_before: PinCounts { acquired: 3, released: 3 },
        pins_after: PinCounts { acquired: 9, released: 9 },
        umount: [Place::Ext4, Place::Xfs].map(|on| UmountFact { on, errno: 0 }).into(),
        log_mark_found: true,
        ..Oracles::default()
    });
    record
}

/// The case's result on a contract's kernel after one change to the good record.
fn after(contract: &str, change: impl Fn(&mut Record)) -> CaseResult {
    let plan = plan(&[contract], "");
    let case = &plan.cases[1];
    let mut record = good(case);
    change(&mut record);
    judge(case, &plan.contracts[contract], &record)
}

fn oracles(record: &mut Record) -> &mut Oracles {
    record.oracles.as_mut().unwrap()
}

#[test]
fn the_good_case_passes_under_both_contracts() {
    for contract in ["mainline", "unguarded"] {
        let result = after(contract, |_| {});
        assert_eq!((result.verdict.kind, result.green), (Kind::Pass, true), "{:?}", result.verdict);
    }
    let mainline = after("mainline", |_| {});
    assert_eq!(
        mainline.clauses,
        BTreeMap::from([("longterm-refused".into(), true), ("pins-balanced".into(), true)])
    );
    let unguarded = after("unguarded", |_| {});
    assert_eq!(unguarded.clauses, BTreeMap::from([("blocks".into(), true), ("pins-balanced".into(), true)]));
}

#[test]
fn a_kernel_that_looks_for_lost_memory_and_finds_none_is_good() {
    let result = after("unguarded", |record| oracles(record).leaks = Leaks::Listed(Vec::new()));
    assert_eq!(result.verdict.kind, Kind::Pass, "{:?}", result.verdict);
}

#[test]
fn what_a_contract_rules_out_is_known_before_anything_boots() {
    let plan = plan(&["mainline"], "");
    let excluded: Vec<&str> = plan.cases[1]
        .steps
        .iter()
        .filter(|step| step.excluded.is_some())
        .map(|step| step.id.as_str())
        .collect();
    assert_eq!(excluded, ["live", "watch", "free"]);
}

#[test]
fn each_thing_that_goes_wrong_has_its_own_verdict() {
    type Change = fn(&mut Record);
    let table: [(&str, Kind, Option<&str>, Change); 39] = [
        ("the pin is refused", Kind::Fail, Some("mr"), |r| {
            r.facts.get_mut("mr").unwrap().outcome = Outcome::Errno(95)
        }),
        ("truncate does not block", Kind::Fail, Some("watch"), |r| {
            r.facts.get_mut("watch").unwrap().outcome = Outcome::Returned(0);
        }),
        ("it was not watched long enough", Kind::Fail, Some("watch"), |r| {
            r.facts.get_mut("watch").unwrap().took_ms = 499
        }),
        ("it comes late", Kind::Fail, Some("done"), |r| r.facts.get_mut("done").unwrap().took_ms = 5001),
        ("a fact is missing", Kind::Fail, Some("free"), |r| {
            r.facts.remove("free");
        }),
        ("a handle was missing", Kind::Fail, Some("free"), |r| {
            r.facts.get_mut("free").unwrap().outcome = Outcome::NotIssued { why: "no $mr".into() };
        }),
        ("a file is not DAX", Kind::Inconclusive, None, |r| r.files[0].map_sync = false),
        ("a file is not known", Kind::Inconclusive, None, |r| r.files.clear()),
        ("a file is not filled", Kind::Inconclusive, None, |r| r.files[0].filled = false),
        ("RDMA is not ready", Kind::Inconclusive, None, |r| {
            r.hello.as_mut().unwrap().rdma[0].trouble = "no GID".into()
        }),
        ("nothing was prepared, because RDMA is not ready", Kind::Inconclusive, None, |r| {
            r.hello.as_mut().unwrap().rdma[0].trouble = "no GID".into();
            r.end = End::Fault { why: "refused".into() };
        }),
        ("a module is not loaded", Kind::Inconclusive, None, |r| {
            let why = "ENOEXEC: Exec format error".to_owned();
            r.hello.as_mut().unwrap().unloaded.push(UnloadedModule { name: "rdma_rxe".into(), why });
            r.end = End::Fault { why: "preparation: the agent refused: no RDMA device".into() };
        }),
        ("pins leak", Kind::Fail, Some("oracle/pins"), |r| oracles(r).pins_after.released = 8),
        ("a region is left", Kind::Fail, Some("oracle/regions"), |r| oracles(r).regions_left = 1),
        ("a task is stuck", Kind::Fail, Some("oracle/stuck"), |r| {
            let task = StuckTask { actor: "b".into(), state: "D".into(), wchan: "w".into(), stack: vec![] };
            oracles(r).stuck.push(task);
        }),
        ("umount fails", Kind::Fail, Some("oracle/umount"), |r| oracles(r).umount[0].errno = 16),
        ("fsck finds damage", Kind::Fail, Some("oracle/fsck"), |r| r.fsck[0].status = Some(4)),
        ("no checker ran", Kind::Fail, Some("oracle/fsck"), |r| r.fsck.clear()),
        ("the log's mark is lost", Kind::Inconclusive, None, |r| oracles(r).log_mark_found = false),
        ("the kernel loses memory", Kind::KernelBug, None, |r| {
            oracles(r).leaks = Leaks::Listed(vec!["unreferenced object 0x1 (size 8):".into()]);
        }),
        ("nobody can tell whether it does", Kind::Inconclusive, None, |r| {
            oracles(r).leaks = Leaks::Unknown { why: "scan: EPERM".into() };
        }),
        ("the guest hangs", Kind::Timeout, Some("free"), |r| {
            r.end = End::Deadline { during: "free".into(), after_ms: 1, qemu: String::new() };
        }),
        ("QEMU ends", Kind::Lost, Some("free"), |r| {
            r.end = End::QemuEnded { how: "signal: 9".into(), during: "free".into() };
        }),
        ("statx says no DAX", Kind::Inconclusive, None, |r| r.files[0].statx_dax = false),
        ("an option is missing", Kind::Inconclusive, None, |r| {
            r.config.push(ConfigMismatch { option: "X".into(), want: "y".into(), got: "n".into() });
        }),
        ("it is another kernel", Kind::Inconclusive, None, |r| r.release = "4.4".into()),
        ("pmem is not ready", Kind::Inconclusive, None, |r| {
            r.hello.as_mut().unwrap().pmem[1].trouble = "no".into();
        }),
        ("pmem is not there", Kind::Inconclusive, None, |r| {
            r.hello.as_mut().unwrap().pmem.pop();
        }),
        ("nobody asked the oracles", Kind::Inconclusive, None, |r| r.oracles = None),
        ("a lease is left", Kind::Fail, Some("oracle/leases"), |r| oracles(r).leases_left.push("LEASE".into())),
        ("only one file system unmounts", Kind::Fail, Some("oracle/umount"), |r| {
            oracles(r).umount.pop();
        }),
        ("fsck was killed", Kind::Fail, Some("oracle/fsck"), |r| r.fsck[1].status = None),
        ("it returns before the pin goes", Kind::Fail, Some("done"), |r| {
            r.facts.get_mut("free").unwrap().at_ms = 651;
        }),
        // It is to be watched for 500 ms.
        ("the guest stood still while it watched", Kind::Fail, Some("watch"), |r| {
            r.facts.get_mut("watch").unwrap().stalled_ms = 200;
        }),
        ("the host fails", Kind::Infra, None, |r| r.end = End::Fault { why: "no room".into() }),
        ("the kernel panics and the host fails after", Kind::KernelBug, None, |r| {
            r.end = End::Fault { why: "broken pipe".into() };
            r.console = vec![Splat { title: "Kernel panic - not syncing: x".into(), line: String::new() }];
        }),
        ("an event is asked for that is not there", Kind::Infra, None, |r| {
            r.end = End::Unknown { why: "none".into() };
        }),
        ("it was not tried", Kind::NotRun, None, |r| r.end = End::NotTried { why: "no".into() }),
        ("it does not boot", Kind::Inconclusive, None, |r| {
            r.hello = None;
            r.end = End::QemuEnded { how: "exit status: 0".into(), during: "boot".into() };
            r.console = vec![Splat { title: "Kernel panic - not syncing: x".into(), line: String::new() }];
        }),
    ];
    for (what, kind, step, change) in table {
        let result = after("unguarded", change);
        assert_eq!(
            (result.verdict.kind, result.verdict.step.as_deref()),
            (kind, step),
            "{what}: {:?}",
            result.verdict
        );
        assert!(!result.green, "{what}");
    }
}

#[test]
fn what_is_undecided_hides_nothing_that_is_wrong() {
    let result = after("unguarded", |record| {
        let fact = record.facts.get_mut("done").unwrap();
        (fact.took_ms, fact.stalled_ms) = (9000, 8000);
        record.facts.get_mut("mr").unwrap().outcome = Outcome::Errno(95);
    });
    assert_eq!((result.verdict.kind, result.verdict.step.as_deref()), (Kind::Fail, Some("mr")));
}

#[test]
fn a_kernel_bug_outranks_steps_that_all_matched_unless_it_is_declared() {
    let warn = |function: &str| {
        let text = format!("WARNING: CPU: 0 PID: 1 at fs/dax.c:1 {function}+0x1/0x2");
        move |record: &mut Record| oracles(record).log.push(LogLine { at_us: 1, text: text.clone() })
    };
    let bug = after("unguarded", warn("dax_truncate"));
    assert_eq!(
        (bug.verdict.kind, bug.verdict.title.as_deref()),
        (Kind::KernelBug, Some("WARNING in dax_truncate"))
    );
    let declared = after("unguarded", warn("dax_disassociate_entry"));
    assert_eq!(declared.verdict.kind, Kind::Pass);
    assert_eq!(declared.notes.len(), 1);
    let elsewhere = after("mainline", warn("dax_disassociate_entry"));
    assert_eq!(elsewhere.verdict.kind, Kind::KernelBug);
}

#[test]
fn a_refusal_counts_only_next_to_its_twin() {
    let result = after("mainline", |record| record.facts.get_mut("twin").unwrap().outcome = Outcome::Errno(1));
    assert_eq!(result.verdict.kind, Kind::Fail);
    assert_eq!(result.steps.iter().find(|step| step.id == "mr").unwrap().status, StepStatus::NotRun);
    assert!(!result.clauses.contains_key("longterm-refused"));
}

#[test]
fn nothing_is_broken_where_there_is_no_verdict() {
    let result = after("unguarded", |record| {
        record.files[0].map_sync = false;
        record.facts.get_mut("watch").unwrap().outcome = Outcome::Returned(0);
    });
    assert_eq!(result.verdict.kind, Kind::Inconclusive);
    assert!(result.clauses.is_empty(), "{:?}", result.clauses);
    let red =
        after("unguarded", |record| record.facts.get_mut("watch").unwrap().outcome = Outcome::Returned(0));
    assert_eq!(red.clauses.get("blocks"), Some(&false));
    let elsewhere =
        after("unguarded", |record| record.facts.get_mut("map").unwrap().outcome = Outcome::Errno(1));
    assert!(!elsewhere.clauses.contains_key("blocks"), "a red case proves nothing");
}

#[test]
fn a_declared_bug_must_have_its_title() {
    let plan = plan(&["unguarded"], "ends: {verdict: kernel-bug, title: WARNING in f}\n");
    let case = &plan.cases[1];
    let with = |title: &str| {
        let mut record = good(case);
        record.console = vec![Splat { title: title.into(), line: String::new() }];
        judge(case, &plan.contracts["unguarded"], &record).green
    };
    assert!(with("WARNING in f"));
    assert!(!with("WARNING in g"));
}

#[test]
fn a_case_without_an_applicable_step_shows_nothing() {
    let plan = plan(&["unguarded"], "");
    let mut case = plan.cases[1].clone();
    case.steps.retain(|step| step.id == "cut");
    let record = good(&case);
    assert_eq!(judge(&case, &plan.contracts["unguarded"], &record).verdict.kind, Kind::Inconclusive);
}

#[test]
fn a_declared_end_is_green_only_when_it_is_exactly_that() {
    let plan = plan(&["unguarded"], "ends: {verdict: fail, step: oracle/pins}\n");
    let case = &plan.cases[1];
    let contract = &plan.contracts["unguarded"];
    let mut record = good(case);
    let clean = judge(case, contract, &record);
    assert_eq!((clean.green, clean.verdict.kind), (false, Kind::Fail));
    oracles(&mut record).pins_after.released = 0;
    assert!(judge(case, contract, &record).green);
    oracles(&mut record).regions_left = 1;
    assert!(!judge(case, contract, &record).green, "another oracle spoke first");
}

#[test]
fn every_altered_fact_turns_its_case_red() {
    let plan = plan(&["mainline", "unguarded"], "");
    let records: Vec<Record> = plan.cases.iter().map(good).collect();
    let flipped = flip(&plan, &records);
    assert!(flipped.tried > 40, "{}", flipped.tried);
    assert_eq!(flipped.vacuous, []);
}

#[test]
fn a_vacuous_expectation_is_found() {
    let mut plan = plan(&["unguarded"], "");
    let anything = "one of: ok, EIO, EPERM, blocks, differs, killed SIGKILL".parse().unwrap();
    plan.cases[1].steps.last_mut().unwrap().expect = anything;
    let records: Vec<Record> = plan.cases.iter().map(good).collect();
    let vacuous = flip(&plan, &records).vacuous;
    assert!(vacuous.iter().any(|one| one.fact.starts_with("step done")), "{vacuous:?}");
}

/// What a person reads of a run.
fn report(plan: &Plan, records: &[Record]) -> String {
    use crate::machine::accel::{Accelerator, Kind as Accel, Wish};
    let settings = crate::run::Settings {
        inside: Default::default(),
        results: None,
        offline: false,
        jobs: 2,
        cold: false,
        seed: 7,
        keep: false,
        append: String::new(),
        programs: Vec::new(),
        accelerator: Wish::Auto,
        command: "run".into(),
    };
    let of = crate::report::Circumstances {
        kernels: Vec::new(),
        qemu: "QEMU emulator version 7.2".into(),
        accelerator: Accelerator { kind: Accel::Tcg, why: String::new() },
        settings: &settings,
        playing: std::time::Duration::ZERO,
        took: std::time::Duration::from_secs(9),
        interrupted: false,
    };
    let results = crate::report::results(plan, judge_all(plan, records), records, of);
    assert_eq!(results.exit, 1);
    anstream::adapter::strip_str(&crate::report::render(&results, Path::new("/runs/1"))).to_string()
}

#[test]
fn a_report_shows_every_row_and_where_the_evidence_is() {
    let plan = plan(&["mainline", "unguarded"], "");
    let mut records: Vec<Record> = plan.cases.iter().map(good).collect();
    records[3].facts.get_mut("watch").unwrap().outcome = Outcome::Returned(0);
    insta::assert_snapshot!(report(&plan, &records));
}

#[test]
fn a_report_tells_how_often_each_verdict_of_a_repeated_case_was_given() {
    let plan = plan(&["mainline", "unguarded"], "").repeated(3);
    let mut records: Vec<Record> = plan.cases.iter().map(good).collect();
    let second =
        plan.cases.iter().position(|case| case.kernel.starts_with("unguarded") && case.id.ends_with("#2"));
    let facts = &mut records[second.unwrap() + 1].facts;
    facts.get_mut("watch").unwrap().outcome = Outcome::Returned(0);
    insta::assert_snapshot!(report(&plan, &records));
}

#[test]
fn a_declared_feature_that_the_guest_lacks_leaves_no_verdict() {
    let case = PlannedCase {
        features: vec!["odp".into(), "other".into()],
        ..plan(&["mainline"], "").cases[1].clone()
    };
    let with = |found: &[(&str, bool)]| {
        let mut record = good(&case);
        let found = found.iter().map(|(name, found)| ((*name).to_owned(), *found)).collect();
        record.hello.as_mut().unwrap().features = found;
        features::unconfirmed(&case, record.hello.as_ref().unwrap())
    };
    assert_eq!(with(&[]), None, "what nobody looks for is believed");
    assert_eq!(with(&[("odp", true), ("third", false)]), None);
    let why = with(&[("odp", true), ("other", false)]).unwrap();
    assert!(why.contains("declares the feature other"), "{why}");
}
