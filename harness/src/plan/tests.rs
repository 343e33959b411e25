// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is planned of Holdfast's own scenarios, and what is not.

use std::collections::BTreeSet;

use super::*;
use crate::scenario::load_all;

/// The folder of Holdfast's own scenarios, and what is in it.
fn ours() -> (PathBuf, Contracts, Vec<Scenario>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let contracts = Contracts::load([folder.clone()].into_iter()).unwrap();
    let scenarios = load_all(&folder, &contracts).unwrap();
    (folder, contracts, scenarios)
}

/// A kernel of ours, `CONTRACT-6.12`.
fn kernel_of(name: &str) -> PlannedKernel {
    PlannedKernel {
        name: name.to_owned(),
        contract: name.trim_end_matches("-6.12").to_owned(),
        features: Vec::new(),
        programs: ["busybox", "gup_longterm", "ibv_rc_pingpong", "sh"].map(str::to_owned).into(),
        lacks: BTreeSet::new(),
    }
}

#[test]
fn what_a_kernel_lacks_is_not_applicable_on_it_and_no_mistake() {
    let (_, contracts, scenarios) = ours();
    let kernel = |lacks: &[&str]| PlannedKernel {
        lacks: lacks.iter().map(|&one| one.to_owned()).collect(),
        ..kernel_of("mainline-6.12")
    };
    let why = |kernel: PlannedKernel| -> BTreeMap<String, String> {
        let plan = Plan::make(&scenarios, &contracts, &[kernel], &[]).unwrap();
        plan.cases.into_iter().filter_map(|case| Some((stem(&case.id).to_owned(), case.excluded?))).collect()
    };
    let has_all = why(kernel(&[]));
    let check = |lacks: &str, reason: &str, cases: &[&str]| {
        let mut kernel = kernel(&[lacks]);
        kernel.programs.retain(|name| !lacks.ends_with(name));
        let mut why = why(kernel);
        why.retain(|id, _| !has_all.contains_key(id));
        assert!(why.values().all(|why| why.contains(reason)), "{why:?}");
        assert_eq!(why.keys().map(String::as_str).collect::<Vec<_>>(), cases);
    };
    check("CONFIG_KERNEL_GZIP", "", &[]);
    let pins = ["pin/gup-test-and-rdma", "selftest/leak-pin", "truncate/pinned-by-gup-test"];
    check("CONFIG_GUP_TEST", "needs CONFIG_GUP_TEST, which this kernel was built without", &pins);
    let siw = why(kernel(&["CONFIG_RDMA_SIW"]));
    let siw = siw.values().filter(|why| why.contains("needs CONFIG_RDMA_SIW")).count();
    assert!(siw > 50, "every scenario that is about mainline and has the second provider: {siw}");
    let controls = |kernel: PlannedKernel, selector: &str| -> Vec<String> {
        let plan = Plan::make(&scenarios, &contracts, &[kernel], &[selector.to_owned()]).unwrap();
        plan.cases.into_iter().filter(|case| case.control).map(|case| case.id).collect()
    };
    let ordinary = ["controls/anonymous", "controls/devdax"];
    let both = [
        "controls/anonymous",
        "controls/anonymous[provider=siw]",
        "controls/devdax",
        "controls/devdax[provider=siw]",
    ];
    assert_eq!(controls(kernel(&[]), "pin/rdma-on-fsdax"), both);
    assert_eq!(controls(kernel(&[]), "pin/rdma-on-fsdax[fs=xfs]"), ordinary);
    assert_eq!(controls(kernel(&["CONFIG_RDMA_SIW"]), "pin/rdma-on-fsdax"), ordinary);
    let crashes = ["selftest/hang", "selftest/panic", "selftest/stick-task", "selftest/warn"];
    check("CONFIG_LKDTM", "needs CONFIG_LKDTM", &crashes);
    let program = ["program/gup-longterm", "program/gup-longterm-on-dax"];
    check("program gup_longterm", "it runs gup_longterm, which is compiled", &program);
}

#[test]
fn a_plan_file_leaves_out_on_one_kernel_what_it_plays_on_another() {
    let (folder, contracts, scenarios) = ours();
    let kernels = ["mainline-6.12", "unguarded-6.12"].map(kernel_of);
    let played = |leave_out: &BTreeMap<String, Vec<String>>| -> BTreeSet<(String, String)> {
        let plan = Plan::make(&scenarios, &contracts, &kernels, &[]).unwrap();
        let plan = plan.without(leave_out, &scenarios, &contracts).unwrap();
        plan.cases.into_iter().map(|case| (case.kernel, stem(&case.id).to_owned())).collect()
    };
    let (all, ci) = (played(&BTreeMap::new()), PlanFile::load(&folder, "ci").unwrap());
    let less = played(&ci.leave_out);
    let out: BTreeSet<_> = all.difference(&less).collect();
    let is_out = |kernel: &str, id: &str| out.contains(&(kernel.to_owned(), id.to_owned()));
    assert!(is_out("unguarded-6.12", "lease/fork-shares") && !is_out("mainline-6.12", "lease/fork-shares"));
    assert!(!out.iter().any(|(_, id)| id.starts_with("controls/")));
    // A control stays, whatever is left out.
    let everything = played(&[("mainline-6.12".to_owned(), vec!["**".to_owned()])].into());
    let left = everything.iter().filter(|(kernel, _)| kernel == "mainline-6.12").map(|(_, id)| id.as_str());
    assert_eq!(left.collect::<Vec<_>>(), ["controls/anonymous", "controls/devdax"]);
}

#[test]
fn with_every_change_each_clause_is_asked_that_is_asked_by_night() {
    let (folder, contracts, scenarios) = ours();
    let asked = |name: &str| -> BTreeSet<(String, String)> {
        let file = PlanFile::load(&folder, name).unwrap();
        let kernels: Vec<PlannedKernel> = file.kernels.iter().map(|name| kernel_of(name)).collect();
        let plan = Plan::make(&scenarios, &contracts, &kernels, &file.cases).unwrap();
        let plan = plan.without(&file.leave_out, &scenarios, &contracts).unwrap();
        let steps = plan.cases.iter().flat_map(|case| case.steps.iter().map(|step| (&case.kernel, step)));
        let steps = steps.filter(|(_, step)| step.excluded.is_none());
        steps
            .flat_map(|(kernel, step)| step.proves.iter().map(|clause| (kernel.clone(), clause.clone())))
            .collect()
    };
    let (ci, nightly) = (asked("ci"), asked("nightly"));
    // What a patch of refusals or of waits leaves alone is asked of the kernel without it.
    let elsewhere = |kernel: &str, clause: &str| {
        kernel.starts_with("unguarded") && ci.contains(&("mainline-6.12".to_owned(), clause.to_owned()))
    };
    let missing: Vec<_> =
        nightly.difference(&ci).filter(|(kernel, clause)| !elsewhere(kernel, clause)).collect();
    assert_eq!(missing, [] as [&(String, String); 0]);
    assert!(nightly.len() > 100, "{}", nightly.len());
}

#[test]
fn a_plan_of_a_kernel_that_is_none_of_its_own_has_its_place() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(PLANS)).unwrap();
    let text = "about: a\nkernels: [one-6.12]\ncases: ['**']\nleave_out: {ons-6.12: [a]}\n";
    std::fs::write(folder.path().join(PLANS).join("p.yaml"), text).unwrap();
    let error = PlanFile::load(folder.path(), "p").unwrap_err().to_string();
    assert!(error.contains("p.yaml:4:") && error.contains("did you mean `one-6.12`?"), "{error}");
}

#[test]
fn a_selector_behind_an_exclamation_mark_leaves_out_and_the_last_one_counts() {
    let (_, contracts, scenarios) = ours();
    let stems = |selectors: &[&str]| {
        let selectors: Vec<String> = selectors.iter().map(|&text| text.to_owned()).collect();
        let chosen = select(&scenarios, &contracts, &selectors).unwrap();
        chosen.iter().map(|scenario| stem(&scenario.id).to_owned()).collect::<BTreeSet<_>>()
    };
    let controls = stems(&["controls/*"]);
    assert!(controls.contains("controls/devdax"));
    let fewer = stems(&["controls/*", "!controls/devdax"]);
    assert_eq!(controls.difference(&fewer).collect::<Vec<_>>(), ["controls/devdax"]);
    let again = stems(&["controls/*", "!controls/*", "controls/devdax"]);
    assert_eq!(again.iter().collect::<Vec<_>>(), ["controls/devdax"]);
    assert_eq!(stems(&["!clause:mainline/controls-register"]).intersection(&controls).count(), 0);
    assert!(stems(&["!controls/*"]).contains("pin/cycle"));
}
