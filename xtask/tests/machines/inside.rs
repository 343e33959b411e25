// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looking into a guest, and a stress that fails: what a person at a terminal asks for.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{MAINLINE, gone_within, holdfast, outcome};

const CASE: &str = "truncate/held-by-vmsplice[fs=ext4]";

/// A file of that name below a folder, as soon as there is one.
fn found(folder: &Path, name: &str) -> PathBuf {
    fn look(folder: &Path, name: &str) -> Option<PathBuf> {
        let entries = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
        entries.filter(|path| !path.is_symlink()).find_map(|path| match path.is_dir() {
            true => look(&path, name),
            false => (path.file_name()? == name).then_some(path),
        })
    }
    let begun = Instant::now();
    loop {
        if let Some(path) = look(folder, name) {
            return path;
        }
        assert!(begun.elapsed() < Duration::from_secs(300), "there is no {name}");
        sleep(Duration::from_millis(20));
    }
}

/// A guest that waits for a debugger waits for ever where a test gives up.
struct Patient(Child);

impl Drop for Patient {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What QEMU's stub answers: `$ANSWER#SUM`, behind a `+` for the question.
fn ask(stub: &mut UnixStream, question: &str) -> String {
    let sum = question.bytes().fold(0u8, u8::wrapping_add);
    write!(stub, "${question}#{sum:02x}").unwrap();
    let mut answer = Vec::new();
    while !answer.contains(&b'#') {
        let mut byte = [0];
        stub.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    let mut sum = [0; 2];
    stub.read_exact(&mut sum).unwrap();
    stub.write_all(b"+").unwrap();
    let text = String::from_utf8(answer).unwrap();
    text.trim_start_matches('+').trim_matches(['$', '#']).to_owned()
}

#[test]
#[ignore = "boots machines"]
fn a_debugger_finds_the_guest_before_its_first_instruction() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["run", "--offline", "--gdb", CASE, "--kernel", MAINLINE, "--results"];
    let mut command = holdfast(&arguments);
    let said = folder.path().join("said");
    command.arg(folder.path()).stdout(Stdio::null()).stderr(fs::File::create(&said).unwrap());
    let mut child = Patient(command.spawn().unwrap());
    let socket = found(folder.path(), "gdb.sock");
    let case = socket.parent().unwrap();
    // A socket's path is short.
    let short = folder.path().join("case");
    symlink(case, &short).unwrap();
    let mut stub = UnixStream::connect(short.join("gdb.sock")).unwrap();
    stub.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let why = ask(&mut stub, "?");
    assert!(why.starts_with(['T', 'S']), "{why}");
    // Behind sixteen others of 64 bits the program counter, where a processor begins.
    let registers = ask(&mut stub, "g");
    assert_eq!(&registers[256..272], "f0ff000000000000", "{registers}");
    let console = || fs::read(short.join("console.log")).unwrap_or_default();
    sleep(Duration::from_secs(1));
    assert_eq!(console(), b"", "it waits");
    assert_eq!(ask(&mut stub, "D"), "OK");
    let status = child.0.wait().unwrap();
    let text = fs::read_to_string(said).unwrap();
    assert!(status.success(), "{status}: {text}");
    assert!(text.contains("waits for a debugger's `continue`: cd '"), "{text}");
    assert!(text.contains("-ex 'target remote gdb.sock'") && text.contains("/vmlinux'"), "{text}");
    assert!(!console().is_empty());
    gone_within(folder.path(), Duration::ZERO);
}

const STRESS: &str = "# SPDX-License-Identifier: MIT OR Apache-2.0
about: One of three operations fails whenever it is drawn.
because: it is expected to fail as it does not
contracts: [mainline]
files: {data: {on: ext4, size_kib: 64, pattern: 1}}
actors: {one: {}, other: {}}
steps:
  - stress: rush
    for_ms: 2000
    actors:
      one:
        - {id: cut, do: {truncate: {file: data, size_kib: 0}}, expect: EPERM}
        - {id: grow, do: {truncate: {file: data, size_kib: 64}}, expect: ok}
      other:
        - {id: look, do: {size: {file: data}}, expect: \"one of: ok 0, ok 65536\"}
";

#[test]
#[ignore = "boots machines"]
fn a_stress_that_fails_is_shrunk_to_what_fails() {
    let folder = tempfile::tempdir().unwrap();
    let scenario = folder.path().join("stress.yaml");
    fs::write(&scenario, STRESS).unwrap();
    let runs = folder.path().join("runs");
    let mut command = holdfast(&["shrink", "--offline", "--kernel", MAINLINE, "--tries", "1", "--seed", "1"]);
    let (code, text) = outcome(&command.arg(&scenario).arg("--results").arg(&runs).output().unwrap());
    assert_eq!(code, 1, "{text}");
    for word in ["fail: cut", "3 operations to draw from became 1", "for_ms: 500", "id: cut", "evidence  "] {
        assert!(text.contains(word), "there is no `{word}`:\n{text}");
    }
    assert!(!text.contains("id: grow") && !text.contains("id: look"), "{text}");
    gone_within(&runs, Duration::ZERO);
}

#[test]
#[ignore = "boots machines"]
fn what_a_stress_was_shrunk_to_is_told_on_ctrl_c() {
    let folder = tempfile::tempdir().unwrap();
    let [scenario, runs, said, told] =
        ["stress.yaml", "runs", "said", "told"].map(|name| folder.path().join(name));
    fs::write(&scenario, STRESS).unwrap();
    let mut command = holdfast(&["shrink", "--offline", "--kernel", MAINLINE, "--tries", "1", "--seed", "1"]);
    command.arg(&scenario).arg("--results").arg(&runs);
    command.stdout(fs::File::create(&told).unwrap()).stderr(fs::File::create(&said).unwrap());
    let mut child = Patient(command.spawn().unwrap());
    let begun = Instant::now();
    // The whole one, and a shorter one.
    while fs::read_to_string(&said).unwrap().matches("FAIL").count() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(300), "{}", fs::read_to_string(&said).unwrap());
        sleep(Duration::from_millis(20));
    }
    // The line comes before the run that it is of has ended.
    sleep(Duration::from_millis(700));
    let kill = Command::new("sh").args(["-c", &format!("kill -INT {}", child.0.id())]).status().unwrap();
    assert!(kill.success());
    assert_eq!(child.0.wait().unwrap().code(), Some(130));
    let told = fs::read_to_string(&told).unwrap();
    assert!(told.contains("3 operations to draw from became "), "{told}");
    assert!(told.contains("for_ms: 1000") || told.contains("for_ms: 500"), "{told}");
    let evidence = told.lines().find_map(|line| line.strip_prefix("evidence  ")).unwrap();
    assert!(Path::new(evidence).join("plan.json").exists(), "{told}");
    gone_within(&runs, Duration::ZERO);
}
