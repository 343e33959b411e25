// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reader of TAP and KTAP against the kernel's own one, on the kernel's own test logs.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use holdfast::home::Home;
use holdfast::tap::{Report, read};

/// Lets kunit.py's parser read each of its test logs: a line of JSON each, name, status and counts.
const THEIRS: &str = r#"
import io, json, pathlib, sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
out, sys.stdout = sys.stdout, io.StringIO()
import kunit_parser
for log in sorted(pathlib.Path(sys.argv[1], "test_data").glob("*.log")):
    test = kunit_parser.parse_run_tests(log.read_text(errors="replace").splitlines())
    counts = test.counts
    print(json.dumps([log.name, test.status.name, counts.passed, counts.failed, counts.crashed, counts.skipped,
                      counts.errors > 0]), file=out)
"#;

/// Logs there are in 6.12, the empty one included.
const LOGS: usize = 23;

/// `tools/testing/kunit` of a kernel source in the cache.
fn kunit() -> PathBuf {
    let sources = Home::find().unwrap().cache.join("sources");
    let trees = fs::read_dir(&sources).unwrap().flatten().map(|entry| entry.path());
    let mut found = trees.map(|source| source.join("tree/tools/testing/kunit")).filter(|path| path.is_dir());
    found.next().expect("the plan ci has fetched a kernel source")
}

/// What kunit.py would say of our reading.
fn ours(report: &Report, text: &str) -> (&'static str, [u64; 4], bool) {
    let counts = report.counts();
    let status = match () {
        // It wants to see a version.
        () if !text.contains("TAP version") => "FAILURE_TO_PARSE_TESTS",
        () if counts.total() == 0 => "NO_TESTS",
        () if counts.lost > 0 => "TEST_CRASHED",
        () if counts.not_ok > 0 => "FAILURE",
        () if counts.ok > 0 => "SUCCESS",
        () => "SKIPPED",
    };
    (status, [counts.ok, counts.not_ok, counts.lost, counts.skipped], !report.faults.is_empty())
}

#[test]
#[ignore = "needs a kernel source"]
fn the_kernels_own_logs_are_read_as_kunit_reads_them() {
    let folder = kunit();
    let output = Command::new("python3").args(["-c", THEIRS]).arg(&folder).output().expect("python3 is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut differ = Vec::new();
    for line in text.lines() {
        let (name, status, ok, not_ok, lost, skipped, faults): (String, String, u64, u64, u64, u64, bool) =
            serde_json::from_str(line).unwrap();
        let bytes = fs::read(folder.join("test_data").join(&name)).unwrap();
        let log = String::from_utf8_lossy(&bytes);
        let report = read(&log);
        let ours = ours(&report, &log);
        let theirs = (status.as_str(), [ok, not_ok, lost, skipped], faults);
        if ours != theirs {
            differ.push(format!("{name}: ours {ours:?}, theirs {theirs:?}; {:?}", report.faults));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    assert!(text.lines().count() >= LOGS, "only {} logs", text.lines().count());
}
