// SPDX-License-Identifier: MIT OR Apache-2.0
//! What only real machines can show: run by `cargo xtask test`, after the plan `ci`, so that the
//! kernels are built. One at a time: they count processes and time what they start.

mod inside;
mod ktap;
mod long;
mod prebuilt;
mod saved;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

const MAINLINE: &str = "mainline-6.12";
/// What an agent says that had to make a file system.
const MADE_BY_GUEST: &str = "mkfs of ";
/// How the guest's shell asks.
const PROMPT: &str = "# ";

fn holdfast(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// A run of its own, with results in `folder`.
fn run(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = holdfast(&["run", "--results", folder.to_str().unwrap(), "--offline"]);
    outcome(&command.args(arguments).output().unwrap())
}

fn outcome(output: &Output) -> (i32, String) {
    let text =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    (output.status.code().unwrap_or(-1), text)
}

fn latest(folder: &Path) -> PathBuf {
    folder.join("latest").canonicalize().unwrap()
}

fn results(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(latest(folder).join("results.json")).unwrap()).unwrap()
}

/// Processes that work below the folder: QEMU's working directory is its case's folder.
fn at_work_below(folder: &Path) -> Vec<String> {
    let folder = folder.canonicalize().unwrap();
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    entries
        .filter(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&folder)))
        .filter(|entry| {
            fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.starts_with("qemu"))
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Starts a run and waits until its machine is up.
fn started(folder: &Path) -> Child {
    let mut command =
        holdfast(&["run", "truncate/*", "--kernel", MAINLINE, "--offline", "--jobs", "2", "--results"]);
    let child = command.arg(folder).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while at_work_below(folder).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no machine was started");
        sleep(Duration::from_millis(20));
    }
    child
}

fn gone_within(folder: &Path, limit: Duration) {
    let begun = Instant::now();
    while !at_work_below(folder).is_empty() {
        assert!(begun.elapsed() < limit, "QEMU is left: {:?}", at_work_below(folder));
        sleep(Duration::from_millis(10));
    }
}

/// Files only a live process needs, below a folder.
fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() && !path.is_symlink() {
            found.extend(leftovers(&path));
        } else if path.extension().is_some_and(|extension| extension == "sock" || extension == "img") {
            found.push(path);
        }
    }
    found
}

fn rounds(usual: usize) -> usize {
    if std::env::var_os("HOLDFAST_FULL").is_some() { 20 } else { usual }
}

#[test]
#[ignore = "boots machines"]
fn a_contract_the_kernel_does_not_keep_is_red_in_the_clauses_it_breaks() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        "pin/rdma-on-fsdax",
        "truncate/held-by-vmsplice",
        "truncate/pinned-by-*",
        "truncate/pinned-then-unmapped",
        "truncate/pinned-without-wait",
        "punch/*",
    ];
    let (code, text) =
        run(folder.path(), &[&cases[..], &["--kernel", MAINLINE, "--contract", "unguarded"]].concat());
    assert_eq!(code, 1, "{text}");
    let clauses: BTreeMap<String, String> =
        serde_json::from_value(results(folder.path())["clauses"][MAINLINE].clone()).unwrap();
    let want = [
        // Mainline refuses the pin; what is said of pinned files cannot be shown without one.
        ("pins-work", "broken"),
        ("blocks", "broken"),
        ("eintr", "broken"),
        ("controls-register", "holds"),
        ("short-ref-blocks", "holds"),
        ("pins-balanced", "holds"),
        // Truncate returns at once on a file that nothing pins, too: but the case is red.
        ("unmapped-hole", "inconclusive"),
        // Nobody asked.
        ("dup-shares", "not-exercised"),
    ];
    for (clause, state) in want {
        assert_eq!(clauses[clause], state, "{clause}: {text}");
    }
    for row in results(folder.path())["cases"].as_array().unwrap() {
        let (id, kind) = (row["id"].as_str().unwrap(), row["verdict"]["kind"].as_str().unwrap());
        let pins = id.contains("pin/") || id.contains("pinned");
        // What is not applicable says nothing of this contract.
        if kind != "not-applicable" {
            assert_eq!(kind, if pins { "fail" } else { "pass" }, "{id}");
        }
    }
}

#[test]
#[ignore = "boots machines"]
fn the_script_of_a_run_boots_by_itself_and_leaves_the_evidence_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (code, text) = run(folder.path(), &["controls/anonymous", "--kernel", MAINLINE, "--keep", "--cold"]);
    assert_eq!(code, 0, "{text}");
    let case = latest(folder.path()).join("cases").join(MAINLINE).join("controls.anonymous");
    let evidence = || -> BTreeMap<PathBuf, Vec<u8>> {
        let files = fs::read_dir(&case).unwrap().map(|entry| entry.unwrap().path());
        files.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
    };
    let before = evidence();
    assert_eq!(before.keys().filter(|path| path.extension().is_some_and(|one| one == "img")).count(), 3);
    assert!(
        !fs::read_to_string(case.join("console.log")).unwrap().contains(MADE_BY_GUEST),
        "the host makes them"
    );
    let tmp = tempfile::tempdir().unwrap();
    let text = shell_of(&case, tmp.path());
    for word in ["kernel 6.12.", "/mnt/ext4 ext4 ", "/mnt/xfs xfs "] {
        assert!(text.contains(word), "the console does not show `{word}`:\n{text}");
    }
    assert!(!text.contains(MADE_BY_GUEST), "they are there:\n{text}");
    assert_eq!(evidence(), before, "the evidence was changed");
    assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0, "its copies are left");
    // Of a case that passed there are none, and the guest makes what it needs.
    before.keys().filter(|path| path.extension().is_some_and(|one| one == "img")).for_each(|path| {
        fs::remove_file(path).unwrap();
    });
    let text = shell_of(&case, tmp.path());
    for word in [MADE_BY_GUEST, "/mnt/ext4 ext4 ", "/mnt/xfs xfs "] {
        assert!(text.contains(word), "the console does not show `{word}`:\n{text}");
    }
}

/// What the console shows of a case's own script and a few commands.
fn shell_of(case: &Path, tmp: &Path) -> String {
    let mut script = Command::new("timeout")
        .arg("180")
        .arg(case.join("qemu.sh"))
        .env("TMPDIR", tmp)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut console = script.stdin.take().unwrap();
    let mut seen = Vec::new();
    let mut output = script.stdout.take().unwrap();
    // What is typed before the guest's shell is there is lost.
    while !String::from_utf8_lossy(&seen).contains(PROMPT) {
        let mut some = [0u8; 4096];
        let len = output.read(&mut some).unwrap();
        assert_ne!(len, 0, "no shell:\n{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&some[..len]);
    }
    console.write_all(b"echo kernel $(uname -r); cat /proc/mounts; exit\n").unwrap();
    output.read_to_end(&mut seen).unwrap();
    let code = script.wait().unwrap().code().unwrap_or(-1);
    let text = String::from_utf8_lossy(&seen).into_owned();
    assert_eq!(code, 0, "{text}");
    text
}

#[test]
#[ignore = "boots machines"]
fn killed_at_any_time_no_machine_is_left_and_the_next_command_tidies() {
    for round in 0..rounds(4) {
        let folder = tempfile::tempdir().unwrap();
        let mut child = started(folder.path());
        sleep(Duration::from_millis(701 * round as u64 % 4000));
        child.kill().unwrap();
        child.wait().unwrap();
        gone_within(folder.path(), Duration::from_secs(1));
        let died = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        assert!(!died.join("results.json").exists());
        let (code, text) = run(folder.path(), &["controls/*", "--kernel", "no-such"]);
        assert_eq!(code, 2, "{text}");
        assert_eq!(leftovers(&died), [] as [PathBuf; 0]);
    }
}

#[test]
#[ignore = "boots machines"]
fn a_killed_shell_takes_its_machine_along() {
    let path = outcome(&holdfast(&["kernel", "path", MAINLINE]).output().unwrap()).1;
    // The cache of this machine, where the shell's folder goes too.
    let tmp = Path::new(path.trim()).ancestors().nth(2).unwrap().join("tmp");
    let mut command = holdfast(&["shell", "--kernel", MAINLINE, "--offline"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while at_work_below(&tmp).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no machine was started");
        sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    gone_within(&tmp, Duration::from_secs(1));
}

#[test]
#[ignore = "boots machines"]
fn ctrl_c_ends_with_a_report_and_130() {
    for round in 0..rounds(2) {
        let folder = tempfile::tempdir().unwrap();
        let mut child = started(folder.path());
        sleep(Duration::from_millis(300 * round as u64 % 4000));
        // The shell's own: a minimal Debian has no program of this name.
        let status = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
        assert!(status.success());
        let begun = Instant::now();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        gone_within(folder.path(), Duration::ZERO);
        let results = results(folder.path());
        assert_eq!(results["interrupted"], true);
        let plan = fs::read(latest(folder.path()).join("plan.json")).unwrap();
        let plan: Value = serde_json::from_slice(&plan).unwrap();
        let rows = |value: &Value| value["cases"].as_array().unwrap().len();
        assert_eq!(rows(&results), rows(&plan), "every planned row is there");
    }
}

#[test]
#[ignore = "boots machines"]
fn a_kernel_that_does_not_boot_is_skipped_by_a_bisection() {
    let folder = tempfile::tempdir().unwrap();
    let (code, text) =
        run(folder.path(), &["controls/anonymous", "--kernel", MAINLINE, "--append", "rdinit=/none"]);
    assert_eq!(code, 125, "{text}");
    for word in ["did not boot", "Kernel panic", "evidence"] {
        assert!(text.contains(word), "{text}");
    }
}

#[test]
#[ignore = "boots machines"]
fn a_patch_that_does_not_apply_is_named_and_nothing_of_it_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let patch = folder.path().join("0001-mm-change-what-is-not-there.patch");
    let text = "From: A <a@b>\nDate: Mon, 1 Jan 2024 00:00:00 +0000\nSubject: [PATCH] mm: change what is not there\n\n\
                Why.\n\nSigned-off-by: A <a@b>\n---\n mm/gup.c | 2 +-\n\n\
                diff --git a/mm/gup.c b/mm/gup.c\n--- a/mm/gup.c\n+++ b/mm/gup.c\n\
                @@ -1,3 +1,3 @@ none\n int there_is\n-no_such_line\n+at_all\n in_this_file\n";
    fs::write(&patch, text).unwrap();
    let (code, text) = run(folder.path(), &["controls/anonymous", "--series", patch.to_str().unwrap()]);
    assert_eq!(code, 125, "{text}");
    for word in ["0001-mm-change-what-is-not-there.patch", "mm/gup.c", "hunk"] {
        assert!(text.contains(word), "`{word}` is not said:\n{text}");
    }
    let (code, text) = run(folder.path(), &["controls/anonymous", "--kernel", MAINLINE]);
    assert_eq!(code, 0, "mainline still runs:\n{text}");
}

#[test]
#[ignore = "resolves a kernel's configuration"]
fn an_option_that_is_dropped_fails_the_build_by_name_and_place() {
    let data = tempfile::tempdir().unwrap();
    let clone = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for name in ["kernel-configs", "scenarios", "images"] {
        let status = Command::new("cp").arg("-r").arg(clone.join(name)).arg(data.path()).status().unwrap();
        assert!(status.success());
    }
    let fragment = data.path().join("kernel-configs/fragments/base.config");
    let mut file = fs::OpenOptions::new().append(true).open(&fragment).unwrap();
    writeln!(file, "CONFIG_NO_SUCH_OPTION=y").unwrap();
    let line = fs::read_to_string(&fragment).unwrap().lines().count();
    let mut command = holdfast(&["kernel", "build", MAINLINE, "--offline"]);
    command.env_remove("CARGO_MANIFEST_DIR").env("HOLDFAST_DATA", data.path());
    let (code, text) = outcome(&command.output().unwrap());
    assert_eq!(code, 125, "{text}");
    assert!(text.contains(&format!("base.config:{line}")) && text.contains("CONFIG_NO_SUCH_OPTION"), "{text}");
}
