// SPDX-License-Identifier: MIT OR Apache-2.0
//! A session as an ordinary process over a socket pair: everything but the kernel's own subject.
//!
//! Files lie in a temporary folder. What blocks for real here is open(2) of a FIFO: a test puts one
//! in the place of a declared file.

mod files;
mod guest;
mod processes;
mod programs;
mod repeat;
mod signals;
mod together;

use guest::*;

#[test]
fn a_pattern_stored_by_one_actor_is_read_by_another() {
    let mut guest = Guest::ready();
    number(&guest.act("fd", "owner", open_rw()));
    assert_eq!(guest.act("map", "owner", map("fd")), OK);
    assert_eq!(guest.act("before", "other", compare(7)), OK);
    let store = op::Store { map: handle("map"), at_kib: 4, len_kib: 8, pattern: 11 };
    assert_eq!(guest.act("store", "owner", store), OK);
    assert_eq!(guest.act("after", "other", compare(11)), OK);
    let differs = guest.act("differs", "other", compare(7));
    assert!(matches!(differs, Outcome::Differs { at: 4096..12288, .. }), "{differs:?}");
    assert_eq!(guest.act("unmap", "owner", do_(r#"{"munmap": {"map": "$map"}}"#)), OK);
    assert!(is_not_issued(&guest.act("again", "owner", do_(r#"{"munmap": {"map": "$map"}}"#)), "$map"));
}

#[test]
fn the_session_has_one_thread_and_every_actor_too() {
    let mut guest = Guest::ready();
    assert_eq!(guest.issue("look", "owner", size(), WATCH_MS), Outcome::Returned(65_536));
    let threads = |pid: &str| fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    assert_eq!(threads(&guest.session.id().to_string()), 1);
    let folder = guest.folder();
    let actors = actors_in(&folder);
    assert!(actors.len() >= 3, "{actors:?}");
    assert!(actors.iter().all(|pid| threads(pid) == 1));
}

#[test]
fn the_size_of_a_file_is_what_the_calls_made_it() {
    let mut guest = Guest::ready();
    let cut = |how, at_kib| op::Cut { file: "data".to_owned(), how, at_kib, len_kib: 4 };
    assert_eq!(guest.act("size", "owner", size()), Outcome::Returned(65_536));
    assert_eq!(guest.act("punch", "owner", cut(CutHow::Punch, 4)), OK);
    assert_eq!(guest.act("punched", "owner", size()), Outcome::Returned(65_536));
    assert!(matches!(guest.act("hole", "owner", compare(7)), Outcome::Differs { at: 4096, got: 0, .. }));
    assert_eq!(guest.act("cut", "owner", cut(CutHow::Truncate, 8)), OK);
    assert_eq!(guest.act("cut size", "owner", size()), Outcome::Returned(8192));
    assert_eq!(guest.act("short", "owner", compare(7)), guest.act("hole again", "owner", compare(7)));
    let grow = op::Fallocate {
        file: Some("data".to_owned()),
        fd: None,
        mode: vec![FallocateMode::KEEP_SIZE],
        at_kib: 8,
        len_kib: 8,
    };
    assert_eq!(guest.act("grow", "owner", grow), OK);
    let truncate = op::Truncate { file: Some("data".to_owned()), fd: None, size_kib: 0 };
    assert_eq!(guest.act("empty", "owner", truncate), OK);
    assert_eq!(guest.act("no data", "owner", compare(7)), Outcome::Errno(61));
}

#[test]
fn a_call_that_blocks_is_a_result_and_is_collected_later() {
    let mut guest = Guest::ready();
    guest.hang();
    assert!(matches!(guest.still("hang"), Outcome::Blocked { .. }));
    assert!(is_not_issued(&guest.act("busy", "patient", size()), "still in step hang"));
    let order = Order::Do { step: "hang".into(), actor: "other".into(), op: size(), wait_ms: WAIT_MS };
    assert!(
        matches!(guest.ask(&order), Reply::Refused { .. }),
        "a step's id was taken while it was on its way"
    );
    drop(OpenOptions::new().write(true).open(guest.data()).unwrap());
    let fd = number(&guest.collect("hang"));
    assert_eq!(number(&guest.collect("hang")), fd, "a step that has returned can be asked for again");
    assert_eq!(guest.act("free", "patient", op::Close { fd: handle("hang") }), OK);
}

#[test]
fn a_started_step_is_not_waited_for() {
    let mut guest = Guest::ready();
    fs::remove_file(guest.data()).unwrap();
    assert!(Command::new("mkfifo").arg(guest.data()).status().unwrap().success());
    let begin = Instant::now();
    let start = Order::Start { step: "hang".into(), actor: "patient".into(), op: open() };
    assert!(matches!(guest.ask(&start), Reply::Started { .. }));
    assert!(begin.elapsed() < Duration::from_secs(5));
    drop(OpenOptions::new().write(true).open(guest.data()).unwrap());
    number(&guest.still("hang"));
}

#[test]
fn a_handler_interrupts_unless_it_restarts() {
    let mut guest = Guest::ready();
    guest.hang();
    assert_eq!(guest.act("restart", "owner", kill("patient", "SIGRTMIN+1")), OK);
    assert!(matches!(guest.still("hang"), Outcome::Blocked { .. }));
    assert_eq!(guest.act("interrupt", "owner", kill("patient", "SIGUSR1")), OK);
    assert_eq!(guest.collect("hang"), Outcome::Errno(4));
}

#[test]
fn a_handler_does_not_disturb_an_idle_actor() {
    let mut guest = Guest::ready();
    for _ in 0..20 {
        assert_eq!(guest.act("interrupt", "owner", kill("patient", "SIGUSR1")), OK);
    }
    assert_eq!(guest.act("size", "patient", size()), Outcome::Returned(65_536));
}

#[test]
fn an_actor_killed_within_a_call_is_reported_and_stays_gone() {
    let mut guest = Guest::ready();
    guest.hang();
    assert_eq!(guest.act("kill", "owner", kill("patient", "SIGKILL")), OK);
    std::thread::sleep(Duration::from_secs(2));
    let fact = guest.fact(&Order::Await { step: "hang".to_owned(), wait_ms: WAIT_MS });
    assert_eq!(fact.outcome, Outcome::Killed("SIGKILL".to_owned()));
    assert!(
        (WATCH_MS..2_000).contains(&fact.took_ms),
        "the end is when it was, not when it was collected: {fact:?}"
    );
    assert!(is_not_issued(&guest.act("after", "patient", size()), "killed by SIGKILL"));
    assert!(is_not_issued(&guest.act("again", "owner", kill("patient", "SIGKILL")), "gone"));
}

#[test]
fn an_end_that_comes_between_two_orders_is_noted_when_it_comes() {
    let mut guest = Guest::ready();
    guest.hang();
    let pids = actors_in(&guest.folder());
    let patient = pids.iter().find(|pid| look_of(pid).0 == "patient").unwrap();
    signal_to("KILL", patient);
    std::thread::sleep(Duration::from_secs(1));
    let fact = guest.fact(&Order::Await { step: "hang".to_owned(), wait_ms: WAIT_MS });
    assert_eq!(fact.outcome, Outcome::Killed("SIGKILL".to_owned()));
    assert!((WATCH_MS..1_000).contains(&fact.took_ms), "{fact:?}");
}

#[test]
fn an_actor_can_end_itself() {
    let mut guest = Guest::ready();
    assert_eq!(guest.act("exit", "owner", op::Exit { code: 3 }), Outcome::Exited(3));
    assert_eq!(
        guest.act("kill", "other", kill("other", "SIGRTMIN+2")),
        Outcome::Killed("SIGRTMIN+2".to_owned())
    );
    assert!(is_not_issued(&guest.act("after", "owner", size()), "exited"));
}

#[test]
fn a_store_behind_the_end_of_the_file_is_a_fault() {
    let mut guest = Guest::ready();
    guest.act("fd", "owner", open_rw());
    guest.act("map", "owner", map("fd"));
    let truncate = op::Truncate { file: None, fd: Some(handle("fd")), size_kib: 0 };
    assert_eq!(guest.act("cut", "owner", truncate), OK);
    let store = op::Store { map: handle("map"), at_kib: 0, len_kib: 4, pattern: 1 };
    let fault = |code: &str| Outcome::Faulted { signal: "SIGBUS".to_owned(), code: code.to_owned() };
    assert_eq!(guest.act("store", "owner", store.clone()), fault("BUS_ADRERR"));
    let load = op::Compare { file: None, map: Some(handle("map")), at_kib: 0, len_kib: 4, pattern: 1 };
    assert_eq!(guest.act("load", "owner", load), fault("BUS_ADRERR"));
    // It lives on, and the next fault is one again.
    let grow = op::Truncate { file: None, fd: Some(handle("fd")), size_kib: 4 };
    assert_eq!(guest.act("grow", "owner", grow), OK);
    assert_eq!(guest.act("again", "owner", store.clone()), OK);
    let past = op::Store { at_kib: 4, ..store };
    assert_eq!(guest.act("past", "owner", past), fault("BUS_ADRERR"));
    // A signal that somebody sends is no fault.
    assert_eq!(guest.act("kill", "other", kill("owner", "SIGBUS")), OK);
    let ended = guest.act("wait", "other", op::Wait { actor: "owner".to_owned() });
    assert_eq!(ended, Outcome::Killed("SIGBUS".to_owned()));
}

#[test]
fn what_cannot_be_issued_says_why() {
    let mut guest = Guest::ready();
    guest.act("fd", "owner", open_rw());
    let write = op::RdmaWrite { mr: handle("mr"), at_kib: 0, len_kib: 4, pattern: 1 };
    let cases = [
        ("owner", map("missing"), "$missing is not there"),
        ("other", map("fd"), "$fd is not there in this actor"),
        ("owner", do_(r#"{"munmap": {"map": "$fd"}}"#), "$fd is a descriptor, not a mapping"),
        ("owner", Op::from(write), "$mr is not a memory region"),
        ("owner", op::Connect { to: "owner".to_owned() }.into(), "itself"),
        ("owner", op::Connect { to: "nobody".to_owned() }.into(), "no actor nobody"),
        ("owner", op::GupUnpin {}.into(), "pinned nothing"),
        ("owner", op::Open { file: "nix".to_owned(), flags: Vec::new(), extra: 0 }.into(), "no file nix"),
        ("owner", op::Truncate { file: None, fd: None, size_kib: 0 }.into(), "either"),
        ("owner", op::Truncate { file: Some("data".into()), fd: None, size_kib: u64::MAX }.into(), "beyond"),
        ("owner", kill("other", "SIGNONSENSE"), "no signal"),
        ("nobody", size(), "no actor nobody"),
    ];
    for (index, (actor, op, about)) in cases.into_iter().enumerate() {
        let outcome = guest.act(&format!("step{index}"), actor, op);
        assert!(is_not_issued(&outcome, about), "{outcome:?} does not say {about:?}");
    }
}

#[test]
fn an_errno_is_reported_as_it_is() {
    let mut guest = Guest::ready();
    guest.act("fd", "owner", open());
    let truncate = op::Truncate { file: None, fd: Some(handle("fd")), size_kib: 0 };
    assert_eq!(guest.act("cut", "owner", truncate), Outcome::Errno(22));
    assert_eq!(guest.act("map", "owner", map("fd")), Outcome::Errno(13));
}

#[test]
fn a_pipe_takes_a_page() {
    let mut guest = Guest::ready();
    guest.act("map", "owner", do_(r#"{"mmap": {"len_kib": 8, "flags": ["MAP_PRIVATE", "MAP_ANONYMOUS"]}}"#));
    guest.act("pipe", "owner", op::Pipe {});
    let splice = |at_kib| op::Vmsplice { map: handle("map"), pipe: handle("pipe"), at_kib };
    assert_eq!(guest.act("splice", "owner", splice(4)), Outcome::Returned(4096));
    assert_eq!(guest.act("outside", "owner", splice(8)), Outcome::Errno(14));
    assert_eq!(guest.act("close", "owner", op::ClosePipe { pipe: handle("pipe") }), OK);
    assert!(is_not_issued(&guest.act("gone", "owner", splice(0)), "$pipe"));
}

#[test]
fn a_frame_of_nonsense_is_refused_and_the_session_goes_on() {
    let mut guest = Guest::ready();
    for text in ["{{{", "{}", "{\"do\":{}}", "\u{1F980}", "\"power_on\""] {
        let mut frame = u32::try_from(text.len()).unwrap().to_le_bytes().to_vec();
        frame.extend(text.as_bytes());
        guest.port.write_all(&frame).unwrap();
        let reply: Reply = read_frame(&mut guest.port).unwrap();
        assert!(matches!(reply, Reply::Refused { .. }), "{text}: {reply:?}");
    }
    assert_eq!(guest.act("size", "owner", size()), Outcome::Returned(65_536));
}

#[test]
fn a_frame_out_of_step_is_refused() {
    let mut guest = Guest::bare();
    guest.port.write_all(&[0xff; 8]).unwrap();
    assert!(matches!(read_frame::<Reply>(&mut guest.port), Ok(Reply::Refused { .. })));
}

#[test]
fn orders_out_of_order_are_refused() {
    let mut guest = Guest::bare();
    let refused = |reply: &Reply, about: &str| matches!(reply, Reply::Refused { why } if why.contains(about));
    assert!(refused(&guest.ask(&Order::Prepare(Setup::default())), "not woken"));
    assert!(matches!(guest.wake(), Reply::Awake(_)));
    assert!(refused(&guest.wake(), "already awake"));
    assert!(refused(&guest.ask(&Order::Finish { settle_ms: 1 }), "nothing was prepared"));
    let unknown = Order::Await { step: "x".to_owned(), wait_ms: 1 };
    assert!(refused(&guest.ask(&unknown), "never issued"));
    let odd = |name: &str| {
        let file = FileSetup { on: Place::Xfs, size_kib: 4, ..FileSetup::default() };
        Order::Prepare(Setup { files: [(name.to_owned(), file)].into(), ..Setup::default() })
    };
    assert!(refused(&guest.ask(&odd("../x")), "not a plain file name"));
    let rdma = ActorSetup { rdma: true, ..ActorSetup::default() };
    let setup = Setup { actors: [("a".to_owned(), rdma)].into(), ..Setup::default() };
    assert!(refused(&guest.ask(&Order::Prepare(setup)), "no RDMA device"));
}

#[test]
fn finishing_ends_every_actor() {
    let mut guest = Guest::ready();
    guest.hang();
    let Reply::Finished(oracles) = guest.ask(&Order::Finish { settle_ms: WAIT_MS }) else {
        panic!("not finished")
    };
    assert!(oracles.stuck.is_empty(), "{oracles:?}");
    assert!(oracles.umount.is_empty(), "nothing is mounted in a test");
    assert_eq!(guest.collect("hang"), Outcome::Killed("SIGKILL".to_owned()));
    assert!(matches!(guest.ask(&Order::Finish { settle_ms: 1 }), Reply::Refused { .. }));
}

#[test]
fn a_session_ends_with_its_stream_and_takes_its_actors_along() {
    let mut guest = Guest::ready();
    guest.hang();
    assert_eq!(actors_in(&guest.folder()).len(), SPARES, "three play, one is left over");
    guest.port.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(guest.session.wait().unwrap().success());
    // The actors hold no copy of the port; nothing else would keep it open.
    assert_eq!(guest.port.read(&mut [0]).unwrap(), 0);
    let begin = Instant::now();
    let folder = guest.folder();
    while !actors_in(&folder).is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(10), "an actor outlived its session");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn waking_a_test_changes_nothing_but_answers() {
    let mut guest = Guest::bare();
    let Reply::Awake(awake) = guest.wake() else { panic!("not awake") };
    let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    assert!(now_ns.abs_diff(awake.unix_ns.into()) < 60_000_000_000, "{awake:?}");
    assert_eq!(awake.boot_id, fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim());
}

#[test]
fn a_stop_of_the_whole_guest_makes_no_call_look_blocked() {
    let mut guest = Guest::ready();
    fs::remove_file(guest.data()).unwrap();
    assert!(Command::new("mkfifo").arg(guest.data()).status().unwrap().success());
    let order = Order::Do { step: "hang".into(), actor: "patient".into(), op: open(), wait_ms: 300 };
    write_frame(&mut guest.port, &order).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    guest.signal("STOP");
    std::thread::sleep(Duration::from_secs(1));
    guest.signal("CONT");
    std::thread::sleep(Duration::from_millis(100));
    drop(OpenOptions::new().write(true).open(guest.data()).unwrap());
    let Ok(Reply::Fact(fact)) = read_frame(&mut guest.port) else { panic!("no fact") };
    number(&fact.outcome);
    assert!((1_100..5_000).contains(&fact.took_ms), "{fact:?}");
    assert!(STOP_MS.contains(&fact.stalled_ms), "{fact:?}");
    // What ran without a break says so.
    let fact =
        guest.fact(&Order::Do { step: "size".into(), actor: "owner".into(), op: size(), wait_ms: WAIT_MS });
    assert!(fact.stalled_ms < 500, "{fact:?}");
}

#[test]
fn a_stop_of_the_whole_guest_shortens_no_watch() {
    let mut guest = Guest::ready();
    guest.hang();
    let begin = Instant::now();
    write_frame(&mut guest.port, &Order::Still { step: "hang".to_owned(), for_ms: 200 }).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    guest.signal("STOP");
    std::thread::sleep(Duration::from_secs(1));
    guest.signal("CONT");
    let Ok(Reply::Fact(fact)) = read_frame(&mut guest.port) else { panic!("no fact") };
    assert!(matches!(fact.outcome, Outcome::Blocked { .. }), "{fact:?}");
    let elapsed = begin.elapsed();
    assert!(elapsed >= Duration::from_millis(1_150), "watched for less than 200 ms of progress: {elapsed:?}");
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
    // The watch began when the step had been on its way for a while.
    assert!(fact.took_ms - fact.stalled_ms >= WATCH_MS + 200, "{fact:?}");
    assert!(STOP_MS.contains(&fact.stalled_ms), "{fact:?}");
}

#[test]
fn actors_started_ahead_are_like_the_others() {
    let mut guest = Guest::bare();
    guest.wake();
    let names = ["a", "b", "c", "d", "e", "f"];
    guest.people(&names);
    let pids = actors_in(&guest.folder());
    assert_eq!(pids.len(), names.len());
    let looks: Vec<(String, String)> = pids.iter().map(|pid| look_of(pid)).collect();
    let mut found: Vec<&str> = looks.iter().map(|(name, _)| name.as_str()).collect();
    found.sort_unstable();
    assert_eq!(found, names, "a process is named after its actor");
    for (name, look) in &looks {
        assert_eq!(*look, looks[0].1, "{name} differs");
    }
    let Reply::Finished(oracles) = guest.ask(&Order::Finish { settle_ms: WAIT_MS }) else {
        panic!("not finished")
    };
    assert!(oracles.stuck.is_empty(), "{oracles:?}");
}

#[test]
fn a_spare_that_dies_is_replaced() {
    let mut guest = Guest::bare();
    guest.wake();
    let spares = actors_in(&guest.folder());
    assert_eq!(spares.len(), SPARES);
    for pid in &spares {
        signal_to("KILL", pid);
    }
    guest.people(&["owner", "other"]);
    assert!(matches!(guest.act("pipe", "owner", op::Pipe {}), Outcome::Returned(0)));
    assert!(matches!(guest.act("pipe", "other", op::Pipe {}), Outcome::Returned(0)));
}

#[test]
fn spares_that_nobody_wanted_are_no_actors() {
    let mut guest = Guest::bare();
    guest.wake();
    guest.people(&["owner"]);
    let Reply::Finished(oracles) = guest.ask(&Order::Finish { settle_ms: WAIT_MS }) else {
        panic!("not finished")
    };
    assert!(oracles.stuck.is_empty(), "{oracles:?}");
    assert_eq!(actors_in(&guest.folder()).len(), SPARES - 1);
}
