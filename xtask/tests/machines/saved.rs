// SPDX-License-Identifier: MIT OR Apache-2.0
//! Saved machines: that a case sees no difference, that nothing of a case stays in one, and what happens to
//! bad ones. Each test has a cache of its own, with the kernels and images of the user's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use holdfast::home::Home;
use holdfast::machine::saved::seal_again;
use serde_json::Value;

use super::{MAINLINE, at_work_below, holdfast, latest, outcome, results};

/// A cache and a place for runs.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let users = Home::find().unwrap().cache;
        // In the same file system: what is made in the one cache may be published into the other.
        let folder = tempfile::Builder::new().prefix("test-").tempdir_in(&users).unwrap();
        fs::create_dir(folder.path().join("cache")).unwrap();
        for name in ["kernels", "images", "sources", "steps", "trees", "work", "accelerator.json"] {
            symlink(users.join(name), folder.path().join("cache").join(name)).unwrap();
        }
        Self { folder }
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn runs(&self) -> PathBuf {
        self.folder.path().join("runs")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = holdfast(&["run", "--offline", "--kernel", MAINLINE]);
        command.args(arguments).arg("--results").arg(self.runs()).env("HOLDFAST_CACHE", self.cache());
        command
    }

    /// A run that must come out as expected; what it printed.
    fn run(&self, arguments: &[&str]) -> String {
        let (code, text) = outcome(&self.command(arguments).output().unwrap());
        assert_eq!(code, 0, "{text}");
        text
    }

    /// The only saved machine's folder.
    fn machine(&self) -> PathBuf {
        let all: Vec<PathBuf> =
            fs::read_dir(self.cache().join("machines")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(all.len(), 1, "{all:?}");
        all[0].clone()
    }

    /// How each case's machine came to be.
    fn machines(&self) -> BTreeSet<String> {
        let results = results(&self.runs());
        let rows = results["cases"].as_array().unwrap().iter();
        rows.filter(|row| row["verdict"]["kind"] != "not-applicable")
            .map(|row| row["machine"].as_str().unwrap().to_owned())
            .collect()
    }

    fn record(&self, case: &str) -> Value {
        let path = latest(&self.runs()).join("cases").join(MAINLINE).join(case).join("record.json");
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }
}

fn words(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// What a case found, without times, numbers of the boot, and what is random.
fn essence(record: &Value) -> Value {
    let facts: BTreeMap<&String, &Value> =
        record["facts"].as_object().unwrap().iter().map(|(id, fact)| (id, &fact["outcome"])).collect();
    let oracles = &record["oracles"];
    let pins = |name: &str| {
        let count = |when: &str| oracles[when][name].as_u64().unwrap_or(0);
        count("pins_after") - count("pins_before")
    };
    // A line of /proc/locks has a pid and an inode.
    let leases = Value::from(oracles["leases_left"].as_array().map_or(0, Vec::len));
    let hello = &record["hello"];
    serde_json::json!({
        "end": record["end"], "config": record["config"], "files": record["files"], "facts": facts,
        "pmem": hello["pmem"], "rdma": hello["rdma"], "cpus": hello["cpus"], "kernel": hello["kernel"],
        "pins": [pins("acquired"), pins("released")],
        "left": [&oracles["regions_left"], &leases, &oracles["umount"]],
        "fsck": record["fsck"].as_array().unwrap().iter().map(|one| &one["status"]).collect::<Vec<_>>(),
        "taint": oracles["taint"], "console": record["console"],
    })
}

#[test]
#[ignore = "boots machines"]
fn a_copy_shows_what_a_booted_machine_shows() {
    let place = Place::new();
    let cases = [
        "bench/short",
        "pin/rdma-on-fsdax",
        "punch/*",
        "truncate/page-cache",
        "truncate/pinned-by-gup-test",
        "selftest/leave-lease",
    ];
    let played = |how: &[&str]| -> BTreeMap<PathBuf, Value> {
        place.run(&[&cases, how].concat());
        let folder = latest(&place.runs()).join("cases").join(MAINLINE);
        let records = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path().join("record.json"));
        let read = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
        records
            .map(|path| (path.strip_prefix(latest(&place.runs())).unwrap().to_owned(), essence(&read(&path))))
            .collect()
    };
    let restored = played(&[]);
    assert_eq!(place.machines(), words(&["restored"]));
    let cold = played(&["--cold"]);
    assert_eq!(place.machines(), words(&["cold"]));
    assert!(restored.len() >= 12, "{}", restored.len());
    assert!(restored.values().all(|one| !one["facts"].as_object().unwrap().is_empty()));
    for (path, one) in &restored {
        assert_eq!(one, &cold[path], "{}", path.display());
    }
}

#[test]
#[ignore = "boots machines"]
fn copies_differ_where_they_must() {
    let place = Place::new();
    place.run(&["bench/short"]);
    let seeds = |place: &Place| {
        let seed = |case: &str| place.record(case)["seed"].as_u64().unwrap();
        ["bench.short[fs=ext4]", "bench.short[fs=xfs]", "controls.anonymous"].map(seed)
    };
    let first = seeds(&place);
    assert_eq!(BTreeSet::from(first).len(), 3, "{first:?}");
    place.run(&["bench/short"]);
    assert_ne!(seeds(&place), first);
    // The clock is the host's, not that of the hour in which the machine was saved.
    let transcript =
        latest(&place.runs()).join("cases").join(MAINLINE).join("controls.anonymous/transcript.jsonl");
    let text = fs::read_to_string(&transcript).unwrap();
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let told = lines.next().unwrap()["order"]["wake"]["unix_ns"].as_u64().unwrap();
    let awake = lines.next().unwrap()["reply"]["awake"].clone();
    let is = awake["unix_ns"].as_u64().unwrap();
    assert!(is >= told && is - told < 1_000_000_000, "{told} {is}");
    // Two copies of one machine draw different numbers.
    let other = transcript.with_file_name("").join("../controls.devdax/transcript.jsonl");
    let other = fs::read_to_string(other).unwrap().lines().nth(1).unwrap().to_owned();
    let other: Value = serde_json::from_str(&other).unwrap();
    assert_ne!(awake["random"], other["reply"]["awake"]["random"]);
    assert_ne!(awake["random"], 0);
    // The run's seed gives the cases' seeds.
    let seed = results(&place.runs())["seed"].to_string();
    let before = seeds(&place);
    place.run(&["bench/short", "--seed", &seed]);
    assert_eq!(seeds(&place), before);
}

/// A way to spoil a saved machine.
type Spoil = fn(&Path);

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// Changes a word of the manifest's inputs.
fn pretend(machine: &Path, what: &str) {
    let path = machine.join("saved.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["inputs"][what] = Value::from("another");
    fs::write(&path, manifest.to_string()).unwrap();
    seal_again(machine).unwrap();
}

#[test]
#[ignore = "boots machines"]
fn a_saved_machine_that_is_no_good_is_made_again_and_said_in_one_line() {
    let place = Place::new();
    place.run(&["controls/anonymous"]);
    let table: [(&str, Spoil); 13] = [
        ("memory.img is damaged", |machine| flip(&machine.join("memory.img"), 300 << 20)),
        ("memory.img is damaged", |machine| {
            OpenOptions::new()
                .write(true)
                .open(machine.join("memory.img"))
                .unwrap()
                .set_len(100 << 20)
                .unwrap();
        }),
        ("state.bin is damaged", |machine| flip(&machine.join("state.bin"), 1000)),
        ("state.bin", |machine| fs::remove_file(machine.join("state.bin")).unwrap()),
        ("pmem-xfs.img is damaged", |machine| flip(&machine.join("pmem-xfs.img"), 2 << 20)),
        ("pmem-ext4.img", |machine| fs::write(machine.join("pmem-ext4.img"), "").unwrap()),
        ("saved.json is damaged", |machine| fs::write(machine.join("saved.json"), "{").unwrap()),
        ("saved.json is damaged", |machine| flip(&machine.join("saved.json"), 40)),
        ("saved.json is damaged", |machine| fs::write(machine.join("used"), "").unwrap()),
        ("it was made of another QEMU", |machine| pretend(machine, "qemu")),
        ("it was made of another kernel", |machine| pretend(machine, "kernel")),
        ("it was made of another image", |machine| pretend(machine, "image")),
        ("used is missing", |machine| {
            fs::remove_dir_all(machine).unwrap();
            fs::create_dir(machine).unwrap();
        }),
    ];
    for (why, spoil) in table {
        spoil(&place.machine());
        let text = place.run(&["controls/anonymous"]);
        let said: Vec<&str> = text.lines().filter(|line| line.contains("thrown away and made again")).collect();
        assert_eq!(said.len(), 1, "{why}: {text}");
        assert!(said[0].contains(why), "{why}: {}", said[0]);
        assert_eq!(place.machines(), words(&["restored"]), "{why}");
        let text = place.run(&["controls/anonymous"]);
        assert!(!text.contains("thrown away"), "{why}: {text}");
    }
}

#[test]
#[ignore = "boots machines"]
fn a_state_that_qemu_does_not_take_is_thrown_away_and_the_cases_boot() {
    let place = Place::new();
    place.run(&["controls/*"]);
    let machine = place.machine();
    // Right by its digest, and still no state.
    fs::write(machine.join("state.bin"), "no state").unwrap();
    seal_again(&machine).unwrap();
    let text = place.run(&["controls/*", "selftest/warn", "--jobs", "1"]);
    assert_eq!(place.machines(), words(&["cold"]), "{text}");
    assert_eq!(text.matches("is thrown away, the cases boot theirs").count(), 1, "{text}");
    assert!(!machine.exists());
    place.run(&["controls/*"]);
    assert_eq!(place.machines(), words(&["restored"]));
}

#[test]
#[ignore = "boots machines"]
fn two_runs_at_once_share_one_saved_machine() {
    let place = Place::new();
    let mut children: Vec<_> = (0..2)
        .map(|_| place.command(&["controls/*"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    children.drain(..).for_each(|child| {
        let (code, text) = outcome(&child.wait_with_output().unwrap());
        assert_eq!(code, 0, "{text}");
    });
    place.machine();
    for run in holdfast::runs::list(&place.runs()) {
        let results: Value = serde_json::from_slice(&fs::read(run.join("results.json")).unwrap()).unwrap();
        assert!(results["cases"].as_array().unwrap().iter().all(|row| row["machine"] == "restored"));
    }
    let left: Vec<_> =
        fs::read_dir(place.cache().join("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.iter().all(|path| path.is_file()), "{left:?}");
}

/// A command in a mount namespace in which `mounts` was done; only for root.
fn with_mounts(place: &Place, mounts: &str) -> (i32, String) {
    let inner = place.command(&["controls/*"]);
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &format!("{mounts} && exec \"$@\""), "sh"]).arg(inner.get_program());
    command.args(inner.get_args()).env("HOLDFAST_CACHE", place.cache()).stdin(Stdio::null());
    outcome(&command.output().unwrap())
}

#[test]
#[ignore = "boots machines"]
fn a_cache_that_takes_nothing_costs_a_warning_only() {
    if !nix_is_root() {
        return;
    }
    let place = Place::new();
    // The image is made where there is room.
    place.run(&["controls/anonymous", "--cold"]);
    let cache = place.cache().display().to_string();
    let full = format!("mkdir -p {cache}/tmp && mount -t tmpfs -o size=100m none {cache}/tmp");
    let read_only = format!("mount --bind {cache} {cache} && mount -o remount,ro,bind {cache}");
    for (mounts, why, is_saved) in [
        (full, "needs about", false),
        (read_only.clone(), "Read-only file system", false),
        // A good one is there, but QEMU opens a copy's memory for writing.
        (read_only, "Read-only file system", true),
    ] {
        if is_saved {
            place.run(&["controls/*"]);
        }
        let (code, text) = with_mounts(&place, &mounts);
        assert_eq!(code, 0, "{text}");
        let said: Vec<&str> = text.lines().filter(|line| line.contains("boot their machines")).collect();
        assert_eq!(said.len(), 1, "{text}");
        assert!(said[0].contains(why), "{}", said[0]);
        assert_eq!(place.machines(), words(&["cold"]));
    }
}

fn nix_is_root() -> bool {
    // The owner of this process' own folder in /proc.
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

#[test]
#[ignore = "boots machines"]
fn what_one_case_does_to_its_machine_the_next_does_not_see() {
    let place = Place::new();
    let short = |place: &Place| {
        let found = ["bench.short[fs=ext4]", "bench.short[fs=xfs]"].map(|case| essence(&place.record(case)));
        assert_eq!(place.machines(), words(&["restored"]));
        found
    };
    place.run(&["bench/short", "--jobs", "1"]);
    let before = short(&place);
    let machine = place.machine();
    let manifest = fs::read(machine.join("saved.json")).unwrap();
    // Panic, hang, damage, a full disk, tasks that never wake; each followed by a short case, one at a time.
    for case in [
        "panic",
        "hang",
        "stick-task",
        "warn",
        "corrupt-ext4",
        "corrupt-xfs",
        "fill-disk",
        "hold-mount",
        "leak-pin",
    ] {
        place.run(&[&format!("selftest/{case}"), "bench/short", "--jobs", "1"]);
        assert_eq!(short(&place), before, "after {case}");
    }
    // Its files are looked at anew by every run: nothing was said, so nothing had changed.
    assert_eq!((place.machine(), fs::read(machine.join("saved.json")).unwrap()), (machine, manifest));
}

#[test]
#[ignore = "boots machines"]
fn a_machine_that_is_stopped_for_a_while_makes_no_case_red() {
    let place = Place::new();
    place.run(&["controls/*"]);
    let mut run = place.command(&["truncate/held-by-vmsplice", "pin/rdma-on-fsdax", "--jobs", "2"]);
    let mut run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    let mut stops = 0;
    // Longer than any wait of these cases (2 s), and shorter ones that cut everything into pieces.
    let mut pauses = [3000, 50, 50, 50, 50, 50, 3000, 50, 50, 50, 50].iter().cycle();
    while run.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(120) {
        let machines = if place.runs().exists() { at_work_below(&place.runs()) } else { Vec::new() };
        if machines.is_empty() || stops > 40 {
            sleep(Duration::from_millis(5));
            continue;
        }
        let signal = |name: &str| {
            let kill = format!("kill -{name} {} 2>/dev/null", machines.join(" "));
            let _ = Command::new("sh").args(["-c", &kill]).status();
        };
        signal("STOP");
        sleep(Duration::from_millis(*pauses.next().unwrap()));
        signal("CONT");
        stops += 1;
        sleep(Duration::from_millis(10));
    }
    let (code, text) = outcome(&run.wait_with_output().unwrap());
    assert_eq!(code, 0, "{text}");
    assert!(stops > 10, "the machines were stopped {stops} times only");
    let stalled: u64 = fs::read_dir(latest(&place.runs()).join("cases").join(MAINLINE))
        .unwrap()
        .map(|entry| {
            let record: Value =
                serde_json::from_slice(&fs::read(entry.unwrap().path().join("record.json")).unwrap()).unwrap();
            record["facts"]
                .as_object()
                .unwrap()
                .values()
                .map(|fact| fact["stalled_ms"].as_u64().unwrap())
                .sum::<u64>()
        })
        .sum();
    assert!(stalled > 1000, "the guests noticed {stalled} ms only");
}

#[test]
#[ignore = "boots machines"]
fn pruning_takes_saved_machines_but_none_in_use() {
    let place = Place::new();
    place.run(&["controls/anonymous"]);
    let machine = place.machine();
    let prune = |more: &[&str]| {
        let mut command = holdfast(&["kernel", "prune"]);
        outcome(&command.args(more).env("HOLDFAST_CACHE", place.cache()).output().unwrap())
    };
    let (code, text) = prune(&["--dry-run"]);
    assert!(code == 0 && !text.contains("saved machine"), "{text}");
    assert!(machine.exists());
    // Unused for long; but another process has it.
    let used = OpenOptions::new().write(true).open(machine.join("used")).unwrap();
    used.set_modified(std::time::SystemTime::now() - Duration::from_secs(40 * 24 * 3600)).unwrap();
    used.lock_shared().unwrap();
    prune(&["--dry-run"]);
    let (_, text) = prune(&["--dry-run"]);
    assert!(!text.contains("saved machine"), "{text}");
    drop(used);
    let (_, text) = prune(&["--dry-run"]);
    assert!(text.contains("would remove saved machine") && machine.exists(), "{text}");
    let others = prune(&["--unused-days", "36500"]).1;
    assert!(machine.exists(), "{others}");
}
