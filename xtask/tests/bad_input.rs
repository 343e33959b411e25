// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each wrong thing a person can type or have: the documented exit code, and a message that says
//! what, where and what to do. Nothing here boots a machine or builds a kernel.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn holdfast(cache: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(arguments).env("HOLDFAST_CACHE", cache);
    command
}

/// Exit code, and everything printed.
fn outcome(output: &Output) -> (i32, String) {
    let text =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    (output.status.code().unwrap_or(-1), text)
}

fn check(arguments: &[&str], code: i32, words: &[&str]) {
    let cache = tempfile::tempdir().unwrap();
    let (got, text) = outcome(&holdfast(cache.path(), arguments).output().unwrap());
    assert_eq!(got, code, "{arguments:?}:\n{text}");
    for word in words {
        assert!(text.contains(word), "{arguments:?} does not say `{word}`:\n{text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn an_unknown_name_is_answered_with_the_nearest() {
    check(&["run", "--kernel", "mainlin-6.12"], 2, &["mainlin-6.12", "mainline-6.12"]);
    check(&["run", "--contract", "unguardd"], 2, &["unknown contract `unguardd`; did you mean `unguarded`?"]);
    check(&["run", "--plan", "defalt"], 2, &["unknown plan `defalt`; did you mean `default`?"]);
    check(&["run", "truncate/pined-by-rdma"], 2, &["did you mean `truncate/pinned-by-rdma`?"]);
    check(&["run", "clause:unguarded/block"], 2, &["unknown clause `block`; did you mean `blocks`?"]);
    check(&["run", "clause:unguarded"], 2, &["clause:CONTRACT/CLAUSE"]);
    check(&["run", "pin/*", "!pim/cycle*"], 2, &["no case is called `pim/cycle*`; did you mean `pin/cycle`?"]);
    check(&["run", "pin/cycle*", "!pin/*"], 2, &["every case that is named is left out again"]);
    check(&["run", "--tree", "/no/such/tree"], 2, &["/no/such/tree"]);
    check(&["run", "--series", "/no/such/series"], 2, &["/no/such/series"]);
    check(&["run", "--config", "/no/such/config"], 2, &["/no/such/config"]);
    check(&["run", "no-such.yaml"], 2, &["cannot open the scenario no-such.yaml"]);
    check(&["report", "1999"], 2, &["no run `1999`"]);
    check(&["run", "--jobs", "0"], 2, &["--jobs"]);
    check(&["run", "--repeat", "0"], 2, &["--repeat"]);
    check(&["run", "--json-stream", "--quiet", "--kernel", "no-such"], 2, &["--json-stream", "--quiet"]);
    check(&["run", "--rev", "HEAD"], 2, &["--tree"]);
    check(&["run", "selftest/warn", "--kernel", "unguarded-6.12", "--dry-run"], 0, &["controls/anonymous"]);
}

#[test]
fn a_kernel_that_was_built_elsewhere_comes_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("vmlinuz");
    fs::write(&image, "no image").unwrap();
    let image = image.to_str().unwrap();
    let run =
        |more: &[&str], code, words: &[&str]| check(&[&["run", "controls/*"], more].concat(), code, words);
    for flag in
        [&["--series", "/s"][..], &["--tree", "/t"], &["--debug"], &["--config", "/c"], &["--kernel", "x"]]
    {
        run(&[&["--package", "linux-image-amd64"], flag].concat(), 2, &[flag[0], "--package"]);
        run(&[&["--vmlinuz", image], flag].concat(), 2, &[flag[0], "--vmlinuz"]);
    }
    run(&["--package", "x", "--vmlinuz", image], 2, &["--package", "--vmlinuz"]);
    run(&["--modules", "/m"], 2, &["--vmlinuz"]);
    run(&["--vmlinuz", "/no/such/image"], 2, &["--vmlinuz: /no/such/image: No such file"]);
    run(&["--vmlinuz", image], 2, &["--vmlinuz: ", "no x86 kernel image"]);
    run(
        &["--package", "linux-image-0.0-none", "--offline"],
        2,
        &["--package: apt knows no package linux-image-0.0-none"],
    );
    let mine = folder.path().join("k/mine/kernel.yaml");
    fs::create_dir_all(mine.parent().unwrap()).unwrap();
    fs::write(&mine, format!("about: a\ncontract: mainline\nprebuilt: {{vmlinuz: {image}}}\n")).unwrap();
    let kernels = folder.path().join("k");
    let mine = |more: &[&str], words: &[&str]| {
        let run = ["--kernels", kernels.to_str().unwrap(), "run", "controls/*"];
        check(&[&run[..], more].concat(), 2, words);
    };
    mine(&["--kernel", "mine"], &["mine/kernel.yaml:3:21: prebuilt.vmlinuz: ", "no x86 kernel image"]);
    mine(&["--kernel", "mine", "--debug"], &["--debug: the kernel mine is not built here"]);
    mine(&["--base", "mine", "--tree", "/t"], &["--tree: the kernel mine is not built here"]);
}

#[test]
fn a_new_scenario_is_good_and_replaces_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("more/mine.yaml");
    let path = path.to_str().unwrap();
    check(&["scenario", "new", path, "--of", "lease", "--about", "It is: so."], 0, &[path]);
    check(&["scenario", "check", path], 0, &["1 scenarios, 2 cases, good"]);
    check(&["scenario", "explain", path], 0, &["It is: so."]);
    check(&["scenario", "new", path], 2, &["is there already"]);
    check(&["scenario", "new", path, "--of", "pins"], 2, &["pin", "lease", "program"]);
    check(&["completions", "bash"], 0, &["--program", "mutants"]);
    check(&["completions", "tcsh"], 2, &["bash", "zsh", "fish"]);
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.yaml");
    let text = "about: a\nbecause: b\ncontracts: [mainline]\nactors: {a: {}}\nsteps:\n  - {by: a, do: {program: {name: gup_longtrem}}}\n";
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let said = ["mine.yaml:6:", "unknown program `gup_longtrem`; did you mean `gup_longterm`?", "--program"];
    check(&["run", path, "--kernel", "mainline-6.12"], 2, &said);
    check(&["run", path, "--program", "/no/such/file"], 2, &["there is no file /no/such/file"]);
    check(&["run", path, "--program", "a/b=/etc/passwd"], 2, &["is no name of a program"]);
    let taken = ["there is a program `sh` already", "NAME=FILE"];
    check(&["run", path, "--kernel", "mainline-6.12", "--program", "sh=/bin/sh"], 2, &taken);
}

#[test]
fn a_typo_in_a_scenario_of_ones_own_has_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.yaml");
    let good = "about: a\nbecause: b\ncontracts: [mainline]\nactors: {a: {}}\nsteps:\n  - {by: a, do: {pipe: {}}, expect: ok}\n";
    fs::write(&path, good).unwrap();
    let name = path.to_str().unwrap();
    check(&["run", name, "--kernel", "mainline-6.12", "--dry-run"], 0, &["mine"]);
    fs::write(&path, good.replace("pipe", "pype")).unwrap();
    check(&["run", name], 2, &["mine.yaml:6:", "did you mean `pipe`?"]);
    fs::write(&path, good.replace("expect: ok", "expect: okay")).unwrap();
    check(&["run", name], 2, &["mine.yaml:6:", "unknown outcome `okay`; did you mean `ok`?"]);
    fs::write(&path, "about: [\n").unwrap();
    check(&["run", name], 2, &["mine.yaml:"]);
}

#[test]
fn a_check_tells_every_fault_and_needs_no_machine() {
    check(&["scenario", "check"], 0, &["scenarios, ", " cases, good"]);
    let folder = tempfile::tempdir().unwrap();
    let [path, other] = ["mine.yaml", "other.yaml"].map(|name| folder.path().join(name));
    let good = "about: a\nbecause: b\ncontracts: [mainline]\nactors: {a: {}}\nsteps:\n  - {by: a, do: {pipe: {}}, expect: ok}\n  - {by: a, do: {pipe: {}}, expect: ok}\n";
    fs::write(&path, good).unwrap();
    let [name, second] = [&path, &other].map(|path| path.to_str().unwrap());
    check(&["scenario", "check", name], 0, &["1 scenarios, 1 cases, good"]);
    fs::write(&path, good.replacen("pipe", "pype", 1)).unwrap();
    fs::write(&other, good.replace("ok}", "okay}")).unwrap();
    let words =
        ["mine.yaml:6:", "did you mean `pipe`?", "other.yaml:6:", "other.yaml:7:", "did you mean `ok`?"];
    check(&["scenario", "check", name, second], 2, &words);
    check(&["scenario", "check", "no-such.yaml"], 2, &["cannot open the scenario no-such.yaml"]);
    check(&["scenario", "explain", "truncate/pined-by-rdma"], 2, &["did you mean `truncate/pinned-by-rdma`?"]);
    check(&["scenario", "schema"], 0, &["\"$schema\"", "\"reg_mr\""]);
    check(&["scenario", "operations"], 0, &["### `truncate`", "- `size_kib`, KiB: The new size."]);
    let words = ["wait for `cut` (truncate of `other`)", "must come back: EINTR", "proves eintr: "];
    check(&["scenario", "explain", "truncate/pinned-by-rdma"], 0, &words);
    check(&["bench", "check", "--rounds", "2"], 0, &["read and checked in"]);
}

#[test]
fn a_kernel_is_measured_against_one_other_by_what_counts() {
    let bench = |more: &[&str], words: &[&str]| check(&[&["bench", "kernel"], more].concat(), 2, words);
    bench(&["--kernel", "mainlin-6.12"], &["mainlin-6.12", "mainline-6.12"]);
    bench(&["--kernel", "mainline-6.12", "--against", "no-such"], &["no-such"]);
    bench(&["--kernel", "mainline-6.12", "--kernel", "unguarded-6.12"], &["one kernel is measured"]);
    bench(&["--kernel", "mainline-6.12", "--accel", "kvm"], &["KVM does not count instructions"]);
    // Without a second machine there is no control.
    bench(&["--machines", "1"], &["--machines", "2..=20"]);
    bench(&["--times", "0"], &["--times"]);
}

#[test]
fn a_feature_is_declared_before_a_kernel_or_a_scenario_speaks_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/../kernel-configs/mainline-6.12/kernel.yaml");
    let kernel = fs::read_to_string(ours).unwrap();
    write("k/mine-6.12/kernel.yaml", &format!("{kernel}features: [lazy]\n"));
    write("s/contracts.yaml", "features: {lazy: on-demand paging}\n");
    let case = "about: a\nbecause: b\ncontracts: [mainline]\nneeds_features: [lazy]\nactors: {a: {}}\nsteps: [{by: a, do: {pipe: {}}, expect: ok}]\n";
    write("s/fast.yaml", case);
    let (kernels, own) = (folder.path().join("k"), folder.path().join("s"));
    let with = [
        "--scenarios",
        own.to_str().unwrap(),
        "--kernels",
        kernels.to_str().unwrap(),
        "run",
        "fast",
        "--dry-run",
    ];
    let run = |kernel: &'static str| [&with[..], &["--kernel", kernel]].concat();
    check(&run("mine-6.12"), 0, &["mine-6.12        fast"]);
    let cache = tempfile::tempdir().unwrap();
    let (code, text) = outcome(&holdfast(cache.path(), &run("mainline-6.12")).output().unwrap());
    assert!(code == 0 && !text.contains("fast"), "ruled out by plan: {text}");
    write("k/mine-6.12/kernel.yaml", &format!("{kernel}features: [opd]\n"));
    check(
        &run("mine-6.12"),
        2,
        &["mine-6.12/kernel.yaml:12:12: features: unknown feature `opd`; did you mean `odp`?"],
    );
}

#[test]
fn a_mutant_says_what_it_breaks_before_anything_is_built() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("mutants/unguarded-6.12");
    fs::create_dir_all(&own).unwrap();
    let patch = |name: &str, trailer: &str| {
        let text = format!("From: A <a@b>\nSubject: [PATCH] x\n\nWhy.\n\n{trailer}---\ndiff --git a/x b/x\n");
        fs::write(own.join(name), text).unwrap();
    };
    patch("M1-no-wait.patch", "Breaks: blocks,\n eintr\n");
    let kernels = folder.path().to_str().unwrap().to_owned();
    let mutants = |code, more: &[&str], words: &[&str]| {
        check(&[&["--kernels", &kernels, "mutants", "--dry-run"], more].concat(), code, words);
    };
    let base = "unguarded-6.12";
    let rows = ["unguarded-6.12   punch/pinned-by-rdma[fs=xfs]", "unguarded-6.12+M1-no-wait punch/pinned"];
    mutants(0, &[base], &rows);
    mutants(0, &[base, "punch/*", "--only", "M1", "--without-base", "--debug"], &["unguarded-6.12-debug+M1"]);
    mutants(2, &["unguarded-6.1"], &["unknown kernel `unguarded-6.1`; did you mean `unguarded-6.12`?"]);
    mutants(2, &["unguarded-nowait-6.12"], &["unguarded-nowait-6.12 has no mutants (who has:", base]);
    mutants(2, &[base, "--only", "M2"], &["unknown mutant `M2`"]);
    mutants(2, &[base, "punch/pined-by-rdma"], &["did you mean `punch/pinned-by-rdma`?"]);
    patch("M2-typo.patch", "Breaks: block\n");
    mutants(
        2,
        &[base],
        &["M2-typo.patch:6: contract unguarded: unknown clause `block`; did you mean `blocks`?"],
    );
    patch("M2-typo.patch", "");
    mutants(2, &[base], &["M2-typo.patch:6: the commit message ends here", "`Breaks: CLAUSE, CLAUSE`"]);
}

#[test]
fn missing_tools_are_named_with_the_command_that_installs_them() {
    let cache = tempfile::tempdir().unwrap();
    let mut command = holdfast(cache.path(), &["run", "--kernel", "mainline-6.12"]);
    let (code, text) = outcome(&command.env("PATH", cache.path()).output().unwrap());
    assert_eq!(code, 2, "{text}");
    for word in ["qemu-system-x86_64", "runs guests", "apt-get install", "qemu-system-x86", "--install"] {
        assert!(text.contains(word), "{text}");
    }
    let mut command = holdfast(cache.path(), &["doctor"]);
    let (code, text) = outcome(&command.env("PATH", cache.path()).output().unwrap());
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("MISS qemu-system-x86_64"), "{text}");
}

#[test]
fn without_a_network_it_says_what_it_would_have_fetched() {
    check(
        &["run", "controls/anonymous", "--kernel", "mainline-6.12", "--offline"],
        125,
        &["offline", "linux-source-6.12"],
    );
    check(&["kernel", "build", "mainline-6.12", "--offline"], 125, &["offline", "linux-source-6.12"]);
}

#[test]
fn a_stream_is_json_and_nothing_else_also_when_nothing_can_be_built() {
    let folder = tempfile::tempdir().unwrap();
    let cases = ["run", "controls/anonymous", "--kernel", "mainline-6.12", "--offline", "--json-stream"];
    let mut command = holdfast(folder.path(), &cases);
    let output = command.arg("--results").arg(folder.path().join("runs")).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "a message is an event");
    let text = String::from_utf8(output.stdout).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!((names[0], *names.last().unwrap()), ("run_started", "run_ended"), "{text}");
    assert_eq!(events.last().unwrap()["exit"], 125);
    // Nothing was started, and yet the case has an end.
    assert!(!names.contains(&"case_started"), "{text}");
    let ended = events.iter().find(|event| event["event"] == "case_ended").unwrap();
    assert_eq!((&ended["verdict"]["kind"], &ended["took_ms"]), (&"infra".into(), &0.into()), "{text}");
}

#[test]
fn a_reader_that_is_gone_is_no_panic() {
    for arguments in [&["run", "--kernel", "no-such"][..], &["list"], &["run", "--all", "--dry-run"]] {
        let cache = tempfile::tempdir().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = holdfast(cache.path(), arguments);
        let status = command.stdout(writer.try_clone().unwrap()).stderr(writer).stdin(Stdio::null()).status();
        let expected = if arguments.contains(&"no-such") { 2 } else { 0 };
        assert_eq!(status.unwrap().code(), Some(expected), "{arguments:?}");
    }
}

#[test]
fn a_repeated_run_has_rows_of_its_own_in_rounds() {
    let cache = tempfile::tempdir().unwrap();
    let run = ["run", "pin/rdma-on-fsdax[fs=xfs]", "--kernel", "mainline-6.12", "--dry-run", "--repeat", "2"];
    let (code, text) = outcome(&holdfast(cache.path(), &run).output().unwrap());
    assert_eq!(code, 0, "{text}");
    let ids: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    let round = ["controls/anonymous", "controls/devdax", "pin/rdma-on-fsdax[fs=xfs]"];
    let again = round.map(|id| format!("{id}#2"));
    assert_eq!(ids, [&round[..], &again.each_ref().map(String::as_str)].concat());
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let (code, text) =
        outcome(&holdfast(Path::new("/proc/no"), &["kernel", "build", "mainline-6.12"]).output().unwrap());
    assert_eq!(code, 125, "{text}");
    assert!(text.contains("/proc/no"), "{text}");
}

/// In a mount namespace of its own, with a file system of 8 MiB at `full`.
fn with_a_full_disk(full: &Path, arguments: &[&str]) -> (i32, String) {
    let script = r#"full=$1; shift; mount -t tmpfs -o size=8m none "$full" || exit; "$@"; code=$?; umount "$full"; exit $code"#;
    // Anybody may have the first kind; in a chroot there is only the second, for root.
    let kinds: [&[&str]; 2] = [&["-rm"], &["-m", "--propagation", "unchanged"]];
    let works =
        |kind: &&&[&str]| Command::new("unshare").args(**kind).arg("true").output().unwrap().status.success();
    let kind = kinds.iter().find(works).expect("this machine lets nobody make a mount namespace");
    let mut command = Command::new("unshare");
    command.args(*kind).args(["sh", "-c", script, "sh"]).arg(full).arg(env!("CARGO_BIN_EXE_xtask"));
    outcome(&command.args(arguments).env("HOLDFAST_CACHE", full).output().unwrap())
}

#[test]
fn a_full_disk_is_told_before_anything_is_begun() {
    let full = tempfile::tempdir().unwrap();
    let (code, text) = with_a_full_disk(full.path(), &["kernel", "build", "mainline-6.12"]);
    assert_eq!(code, 125, "{text}");
    assert!(text.contains("MiB") && text.contains(full.path().to_str().unwrap()), "{text}");
    let results = full.path().join("runs");
    let results = ["--results", results.to_str().unwrap()];
    let (code, text) = with_a_full_disk(full.path(), &[&["run", "controls/*"][..], &results].concat());
    assert_eq!(code, 125, "{text}");
    assert!(text.contains("MiB are free"), "{text}");
}

#[test]
fn an_installed_copy_without_data_says_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = holdfast(folder.path(), &["list"]);
    command.env_remove("CARGO_MANIFEST_DIR").env("HOLDFAST_DATA", folder.path());
    let (code, text) = outcome(&command.output().unwrap());
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("cargo xtask install"), "{text}");
}

#[test]
fn help_names_every_subcommand() {
    let words = [
        "run", "list", "report", "doctor", "clean", "kernel", "shell", "selftest", "bench", "test", "install",
        "scenario", "mutants",
    ];
    check(&["--help"], 0, &words);
    for word in words {
        check(&[word, "--help"], 0, &["Usage:"]);
    }
}
