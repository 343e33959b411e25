// SPDX-License-Identifier: MIT OR Apache-2.0
//! Supervision against machines that misbehave. The fake QEMU is this very test program, started
//! through a script with [`fake_qemu`] as its only test; it sits where QEMU sits: in the case's
//! folder, with two sockets to connect to and a console file to write.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use holdfast::case::{Ground, Onlooker, play};
use holdfast::home::{Home, Own};
use holdfast::machine::accel::{Accelerator, Kind};
use holdfast::machine::saved::{self, Found};
use holdfast::machine::{Broken, Clock, Inside, Machine, Vm, cancel_pair};
use holdfast::plan::{PlannedCase, PlannedStep};
use holdfast::record::{End, Origin, Record};
use holdfast::scenario::Action;
use holdfast_protocol::{
    Awake, Fact, Hello, Oracles, Order, Outcome, Place, PmemFact, Provider, RdmaFact, Reply, Setup, read_frame,
    write_frame,
};
use serde_json::{Value, json};

const MODE: &str = "HOLDFAST_FAKE_QEMU";
/// What it was started with.
const ARGUMENTS: &str = "HOLDFAST_FAKE_ARGUMENTS";

/// The fake's life.
#[test]
#[ignore = "no test: what the other tests start in QEMU's place"]
fn fake_qemu() {
    let Ok(mode) = std::env::var(MODE) else { return };
    match mode.as_str() {
        "exits" => std::process::exit(3),
        "never-connects" => forever(),
        "boots once" if Path::new("booted").exists() => std::process::exit(9),
        "boots once" => fs::write("booted", "").unwrap(),
        _ => {}
    }
    let is_copy = std::env::var(ARGUMENTS).is_ok_and(|words| words.contains("-incoming"));
    if mode.starts_with("saves") {
        let mode = mode.clone();
        std::thread::spawn(move || fake_qmp(&mode));
    }
    let mut agent = UnixStream::connect("agent.sock").unwrap();
    match mode.as_str() {
        "deaf" => forever(),
        "garbage" => {
            agent.write_all(&[3, 0, 0, 0, b'a', b'b', b'c']).unwrap();
            forever();
        }
        "too-long" => {
            agent.write_all(&[0xff; 8]).unwrap();
            forever();
        }
        "floods" => fs::write("console.log", "noise\n".repeat(4 << 20)).unwrap(),
        "panics" => fs::write("console.log", "[    1.0] Kernel panic - not syncing: fake\n").unwrap(),
        _ => {}
    }
    if !is_copy {
        write_frame(&mut agent, &Reply::Hello(hello(&mode))).unwrap();
    }
    let boot_id = if is_copy && mode == "saves, comes up as another" { "other" } else { "fake" };
    loop {
        let order: Order = read_frame(&mut agent).unwrap();
        let reply = match order {
            Order::Trace { .. } => Reply::Unknown { why: "no such event".into() },
            Order::Settle => Reply::Settled,
            Order::CheckConfig { .. } => Reply::Config(Vec::new()),
            Order::Prepare(_) if mode == "refuses" => Reply::Refused { why: "no room".into() },
            Order::Prepare(_) => Reply::Prepared(Vec::new()),
            Order::Do { .. } if mode == "dies" || mode == "panics" => std::process::exit(7),
            Order::Do { .. } if mode == "hangs" => forever(),
            Order::Do { step, .. } => Reply::Fact(fact(step)),
            Order::Shell if mode == "holds" => forever(),
            Order::Shell if mode == "no shell" => Reply::Refused { why: "no shell in this image".into() },
            Order::Shell => Reply::ShellEnded,
            Order::Finish { .. } => Reply::Finished(Oracles::default()),
            Order::Wake { unix_ns, .. } => {
                Reply::Awake(Awake { boot_id: boot_id.into(), unix_ns, random: 1, at_ms: 1 })
            }
            other => panic!("not expected here: {other:?}"),
        };
        write_frame(&mut agent, &reply).unwrap();
    }
}

/// What QEMU says to a save and a restore.
fn fake_qmp(mode: &str) {
    let mut stream = UnixStream::connect("qmp.sock").unwrap();
    let version = json!({"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""});
    writeln!(stream, "{}", json!({"QMP": {"version": version, "capabilities": []}})).unwrap();
    for line in BufReader::new(stream.try_clone().unwrap()).lines() {
        let command: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let mut answer = match command["execute"].as_str().unwrap() {
            "migrate" if mode == "saves nothing" => json!({"error": {"class": "GenericError", "desc": "no"}}),
            "migrate" => {
                fs::write("state.bin", "state").unwrap();
                json!({"return": {}})
            }
            "query-migrate" => json!({"return": {"status": "completed"}}),
            "migrate-incoming" if mode == "saves, does not come up" => std::process::exit(1),
            "migrate-incoming" => {
                std::thread::spawn(|| {
                    let mut state = [0; 5];
                    std::io::stdin().read_exact(&mut state).unwrap();
                    assert_eq!(&state, b"state");
                });
                json!({"return": {}})
            }
            _ => json!({"return": {}}),
        };
        if let Some(id) = command.get("id") {
            answer["id"] = id.clone();
        }
        writeln!(stream, "{answer}").unwrap();
    }
}

fn forever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn fact(step: String) -> Fact {
    Fact { step, actor: "a".into(), outcome: Outcome::Returned(0), at_ms: 1, took_ms: 1, stalled_ms: 0 }
}

fn hello(mode: &str) -> Hello {
    let late = |provider| if mode == "saves, siw is late" && provider == Provider::Siw { "late" } else { "" };
    Hello {
        protocol: holdfast_protocol::VERSION,
        agent: "fake".into(),
        kernel: "fake".into(),
        build: String::new(),
        started_ms: 0,
        ready_ms: 0,
        stalled_ms: 0,
        boot_id: "fake".into(),
        unloaded: Vec::new(),
        pmem: [Place::Ext4, Place::Xfs, Place::Devdax]
            .map(|place| PmemFact {
                place,
                device: String::new(),
                mount: String::new(),
                data_at: 0,
                found: false,
                trouble: String::new(),
            })
            .into(),
        features: BTreeMap::new(),
        rdma: Provider::ALL
            .map(|provider| RdmaFact {
                provider,
                device: String::new(),
                active: true,
                gid_index: None,
                trouble: late(provider).to_owned(),
            })
            .into(),
        cpus: 1,
    }
}

/// Written by a process of its own: had this one the file open for writing while another test forks, the
/// child would have it too, and running it would be ETXTBSY.
fn write_program(path: &Path, text: &str) {
    let mut child = Command::new("sh")
        .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// A machine whose QEMU is this program in one mode. TERM is ignored where `stubborn`.
fn machine(folder: &Path, mode: &str, stubborn: bool) -> Machine {
    let script = folder.join("fake-qemu");
    let own = std::env::current_exe().unwrap();
    let trap = if stubborn { "trap '' TERM\n" } else { "" };
    let text = format!(
        "#!/bin/sh\n{trap}{ARGUMENTS}=\"$*\" {MODE}='{mode}' '{}' --ignored --exact fake_qemu --nocapture\nexit $?\n",
        own.display()
    );
    write_program(&script, &text);
    Machine {
        qemu: script,
        accelerator: Accelerator { kind: Kind::Tcg, why: String::new() },
        kernel: "/dev/null".into(),
        initrd: "/dev/null".into(),
        append: String::new(),
        cpus: 1,
        memory_mib: 1,
        pmem: Vec::new(),
        clock: Clock::Host,
        inside: Inside::default(),
    }
}

fn case() -> PlannedCase {
    let action = Action::Do { by: "a".into(), op: holdfast_protocol::op::Exit { code: 0 }.into() };
    PlannedCase {
        id: "fake".into(),
        kernel: "fake".into(),
        contract: "fake".into(),
        about: String::new(),
        file: PathBuf::new(),
        control: false,
        cpus: 1,
        features: Vec::new(),
        excluded: None,
        trace: Vec::new(),
        setup: Setup { case: "fake".into(), ..Setup::default() },
        steps: vec![PlannedStep {
            id: "one".into(),
            action,
            expect: "ok".parse().unwrap(),
            wait_ms: 1,
            not_before_ms: None,
            not_after_ms: None,
            after: None,
            proves: Vec::new(),
            twin: None,
            excluded: None,
            broken: None,
            phrase: None,
            together: None,
            reaches: None,
            results: None,
        }],
        broken_oracles: std::collections::BTreeMap::new(),
        ends: None,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Plays the one-step case; afterwards nothing of the machine may be left.
fn played(mode: &str, cancel_after: Option<Duration>) -> Record {
    played_as(&case(), mode, cancel_after, None)
}

fn played_as(
    case: &PlannedCase,
    mode: &str,
    cancel_after: Option<Duration>,
    hold: Option<&dyn Fn(&Record) -> bool>,
) -> Record {
    let folder = tempfile::tempdir().unwrap();
    let (wish, cancel) = cancel_pair();
    let machine = machine(folder.path(), mode, false);
    let ground = Ground { machine: &machine, release: "fake", requests: &[], saved: Err("") };
    let record = runtime().block_on(async {
        if let Some(after) = cancel_after {
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                let _ = wish.send(true);
            });
        }
        play(case, &ground, 1, folder.path(), cancel, Onlooker { say: &|_| {}, hold }).await
    });
    nothing_is_left(folder.path());
    record
}

/// The case with a power cut before its step.
fn cut() -> PlannedCase {
    let mut case = case();
    let dark = PlannedStep { id: "dark".into(), action: Action::PowerCut, ..case.steps[0].clone() };
    case.steps.insert(0, dark);
    case
}

#[test]
fn a_guest_is_held_until_a_person_has_left_its_shell() {
    let asked = std::cell::Cell::new(0);
    let hold = |_: &Record| {
        asked.set(asked.get() + 1);
        true
    };
    for mode in ["good", "no shell"] {
        assert_eq!(played_as(&case(), mode, None, Some(&hold)).end, End::Complete, "{mode}");
    }
    assert_eq!(asked.get(), 2, "once behind each step");
    // Nobody leaves it; the user ends the run.
    let begun = Instant::now();
    let record = played_as(&case(), "holds", Some(Duration::from_millis(300)), Some(&hold));
    assert_eq!(record.end, End::Cancelled);
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_machine_that_lost_its_power_is_another_process_with_the_same_files() {
    let record = played_as(&cut(), "good", None, None);
    assert_eq!(record.end, End::Complete);
    assert_eq!(record.lives.iter().map(|life| life.step.as_str()).collect::<Vec<_>>(), ["dark"]);
    assert!(record.facts.contains_key("one"), "the steps behind it are played in its second life");
    let record = played_as(&cut(), "boots once", None, None);
    let End::QemuEnded { how, during } = record.end else { panic!("{:?}", record.end) };
    assert_eq!((how.as_str(), during.as_str()), ("exit status: 9", "dark"));
    assert!(record.lives.is_empty());
}

fn nothing_is_left(folder: &Path) {
    for socket in ["agent.sock", "qmp.sock"] {
        assert!(!folder.join(socket).exists(), "{socket} is left");
    }
    let begun = Instant::now();
    while let Some(pid) = in_folder(folder) {
        assert!(begun.elapsed() < Duration::from_secs(1), "process {pid} is left");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A process whose working directory is the folder.
fn in_folder(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().unwrap();
    fs::read_dir("/proc").unwrap().filter_map(Result::ok).find_map(|entry| {
        let cwd = fs::read_link(entry.path().join("cwd")).ok()?;
        (cwd == folder).then(|| entry.file_name().to_string_lossy().into_owned())
    })
}

#[test]
fn a_good_machine_is_played_to_the_end() {
    let record = played("good", None);
    assert_eq!(record.end, End::Complete);
    assert_eq!(record.facts["one"].outcome, Outcome::Returned(0));
    assert!(record.oracles.is_some());
}

#[test]
fn an_early_exit_is_told_from_a_death_within_a_step() {
    let exits = played("exits", None).end;
    assert_eq!(exits, End::QemuEnded { how: "exit status: 3".into(), during: "boot".into() });
    let dies = played("dies", None).end;
    assert_eq!(dies, End::QemuEnded { how: "exit status: 7".into(), during: "one".into() });
}

#[test]
fn a_panic_on_the_console_has_its_title() {
    let record = played("panics", None);
    assert_eq!(record.console[0].title, "Kernel panic - not syncing: fake");
    assert!(matches!(record.end, End::QemuEnded { .. }));
}

#[test]
fn a_stream_out_of_step_is_a_fault_and_no_result() {
    for (mode, words) in
        [("garbage", "could not be understood"), ("too-long", "out of step"), ("refuses", "no room")]
    {
        match played(mode, None).end {
            End::Fault { why } => assert!(why.contains(words), "{mode}: {why}"),
            other => panic!("{mode}: {other:?}"),
        }
    }
}

#[test]
fn what_a_person_asked_for_and_is_not_there_is_told_from_faults() {
    let traced = PlannedCase { trace: vec!["no:such".into()], ..case() };
    let end = played_as(&traced, "good", None, None).end;
    assert_eq!(end, End::Unknown { why: "no such event".into() });
}

#[test]
fn a_flooded_console_harms_nothing() {
    assert_eq!(played("floods", None).end, End::Complete);
}

#[test]
fn the_user_can_end_a_step_that_hangs() {
    let begun = Instant::now();
    assert_eq!(played("hangs", Some(Duration::from_millis(500))).end, End::Cancelled);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

/// Saves a machine of this mode and plays a case on a copy of it; what that found, or why nothing was
/// saved.
fn played_on_a_copy(mode: &str) -> Result<Record, String> {
    let cache = tempfile::tempdir().unwrap();
    let home = Home {
        data: PathBuf::new(),
        is_clone: false,
        cache: cache.path().to_owned(),
        runs: cache.path().join("runs"),
        own: Own::default(),
    };
    let folder = tempfile::tempdir().unwrap();
    let (_wish, cancel) = cancel_pair();
    let machine = machine(folder.path(), mode, false);
    let find = || saved::find(&home, &machine, |name| Ok(fs::File::create(cache.path().join(name))?)).unwrap();
    let Found::None(site) = find() else { panic!("the cache was empty") };
    let made = runtime().block_on(saved::make(&home, site, &machine, &[], &Provider::ALL, cancel.clone()));
    let made = made.map_err(|error| format!("{error:#}"))?;
    assert!(matches!(find(), Found::Good(_)));
    let ground = Ground { machine: &machine, release: "fake", requests: &[], saved: Ok(&made) };
    let record = runtime().block_on(play(
        &case(),
        &ground,
        1,
        folder.path(),
        cancel,
        Onlooker { say: &|_| {}, hold: None },
    ));
    nothing_is_left(folder.path());
    Ok(record)
}

#[test]
fn a_case_is_played_on_a_copy_of_a_saved_machine() {
    let record = played_on_a_copy("saves").unwrap();
    assert_eq!((record.end, record.machine), (End::Complete, Origin::Restored));
    assert_eq!(record.cold_because, "");
    assert_eq!(record.hello.unwrap().boot_id, "fake");
}

#[test]
fn a_copy_that_is_no_good_is_replaced_by_a_boot() {
    for (mode, why) in [
        ("saves, does not come up", "a copy did not come up: QEMU ended: exit status: 1"),
        ("saves, comes up as another", "a copy did not come up: what answers is another machine"),
    ] {
        let record = played_on_a_copy(mode).unwrap();
        assert_eq!((record.end, record.machine), (End::Complete, Origin::Cold), "{mode}");
        assert!(record.cold_because.starts_with(why), "{mode}: {}", record.cold_because);
        assert_eq!(record.facts["one"].outcome, Outcome::Returned(0));
    }
}

#[test]
fn a_machine_that_cannot_be_saved_says_why() {
    let why = played_on_a_copy("saves nothing").unwrap_err();
    assert!(why.contains("migrate") && why.contains("no"), "{why}");
    let why = played_on_a_copy("saves, siw is late").unwrap_err();
    assert_eq!(why, "the guest's siw link is not ready: late");
}

#[test]
fn a_machine_that_never_speaks_runs_into_the_deadline_and_is_killed() {
    for (mode, stubborn) in [("never-connects", false), ("deaf", false), ("deaf", true)] {
        let folder = tempfile::tempdir().unwrap();
        let (_sender, cancel) = cancel_pair();
        let ended = runtime().block_on(async {
            let mut vm = Vm::boot(&machine(folder.path(), mode, stubborn), folder.path(), cancel).unwrap();
            let said = vm.hello(Duration::from_millis(700)).await;
            assert!(matches!(said, Err(Broken::Deadline(_))), "{mode}: {said:?}");
            vm.stop().await
        });
        assert!(ended.contains("signal: "), "{mode}: {ended}");
        nothing_is_left(folder.path());
    }
}
