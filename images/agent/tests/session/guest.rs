// SPDX-License-Identifier: MIT OR Apache-2.0
//! The session under test, and the words in which tests speak with it.

pub(crate) use std::collections::BTreeMap;
pub(crate) use std::fs::{self, OpenOptions};
pub(crate) use std::io::{Read, Write};
pub(crate) use std::os::fd::OwnedFd;
pub(crate) use std::os::unix::net::UnixStream;
pub(crate) use std::os::unix::process::CommandExt;
pub(crate) use std::path::{Path, PathBuf};
pub(crate) use std::process::{Child, Command, Stdio};
pub(crate) use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) use holdfast_protocol::{
    ActorSetup, CutHow, Fact, FallocateMode, FileSetup, HandlerSetup, Op, OpenFlag, Order, Outcome, Place,
    Reply, Setup, SignalAction, Where, op, read_frame, write_frame,
};

/// Long enough for a loaded machine, short enough to notice.
pub(crate) const WAIT_MS: u64 = 10_000;

/// How long something is watched that should not return.
pub(crate) const WATCH_MS: u64 = 120;

/// What a stop of a second may look like: the ticker of an ordinary user's session has no precedence, and
/// a loaded machine adds to it.
pub(crate) const STOP_MS: std::ops::Range<u64> = 950..1_900;

/// How many actors a session starts ahead.
pub(crate) const SPARES: usize = 4;

pub(crate) struct Guest {
    pub(crate) session: Child,
    pub(crate) port: UnixStream,
    pub(crate) root: tempfile::TempDir,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.session.kill();
        let _ = self.session.wait();
    }
}

impl Guest {
    /// A session that has not been prepared.
    pub(crate) fn bare() -> Self {
        let root = tempfile::tempdir().unwrap();
        for place in ["ext4", "xfs", "programs"] {
            fs::create_dir(root.path().join(place)).unwrap();
        }
        std::os::unix::fs::symlink("/bin/sh", root.path().join("programs/sh")).unwrap();
        // In the place of a device: like one it has its size before it is written to.
        fs::write(root.path().join("devdax"), vec![0; 128 << 10]).unwrap();
        let (port, theirs) = UnixStream::pair().unwrap();
        port.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let session = Command::new(env!("CARGO_BIN_EXE_holdfast-agent"))
            .args(["session", "--port-fd", "0", "--root"])
            .arg(root.path())
            .current_dir(root.path())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            // With its actors it can be stopped as a whole, as a busy host stops a guest.
            .process_group(0)
            .spawn()
            .unwrap();
        Self { session, port, root }
    }

    /// Sends a signal to the session and all its actors.
    pub(crate) fn signal(&self, signal: &str) {
        signal_to(signal, &format!("-{}", self.session.id()));
    }

    pub(crate) fn wake(&mut self) -> Reply {
        self.ask(&Order::Wake { unix_ns: 1_000_000_000_000_000_000, seed: 7 })
    }

    /// Makes an actor of each name, without files.
    pub(crate) fn people(&mut self, names: &[&str]) {
        let actors = names.iter().map(|name| ((*name).to_owned(), ActorSetup::default())).collect();
        let setup = Setup { case: "people".to_owned(), actors, ..Setup::default() };
        assert_eq!(self.ask(&Order::Prepare(setup)), Reply::Prepared(Vec::new()));
    }

    pub(crate) fn folder(&self) -> PathBuf {
        fs::canonicalize(self.root.path()).unwrap()
    }

    /// A session with a file of each kind and a few actors.
    pub(crate) fn ready() -> Self {
        let mut guest = Self::bare();
        let file = |on| FileSetup { on, size_kib: 64, pattern: 7, absent: false };
        let patient = ActorSetup {
            on_signal: [
                ("interrupt".to_owned(), handler("SIGUSR1", false)),
                ("restart".to_owned(), handler("SIGRTMIN+1", true)),
            ]
            .into(),
            ..ActorSetup::default()
        };
        let setup = Setup {
            case: "test".to_owned(),
            files: [("data".to_owned(), file(Place::Ext4)), ("device".to_owned(), file(Place::Devdax))].into(),
            actors: [
                ("owner".to_owned(), ActorSetup::default()),
                ("other".to_owned(), ActorSetup::default()),
                ("patient".to_owned(), patient),
            ]
            .into(),
            ..Setup::default()
        };
        assert!(matches!(guest.wake(), Reply::Awake(_)));
        match guest.ask(&Order::Prepare(setup)) {
            Reply::Prepared(files) => assert!(files.iter().all(|file| file.filled), "{files:?}"),
            other => panic!("not prepared: {other:?}"),
        }
        guest
    }

    pub(crate) fn ask(&mut self, order: &Order) -> Reply {
        write_frame(&mut self.port, order).unwrap();
        read_frame(&mut self.port).unwrap()
    }

    pub(crate) fn fact(&mut self, order: &Order) -> Fact {
        match self.ask(order) {
            Reply::Fact(fact) => fact,
            other => panic!("no fact: {other:?}"),
        }
    }

    pub(crate) fn act(&mut self, step: &str, actor: &str, op: impl Into<Op>) -> Outcome {
        self.issue(step, actor, op.into(), WAIT_MS)
    }

    pub(crate) fn issue(&mut self, step: &str, actor: &str, op: Op, wait_ms: u64) -> Outcome {
        let fact = self.fact(&Order::Do { step: step.to_owned(), actor: actor.to_owned(), op, wait_ms });
        assert_eq!((fact.step.as_str(), fact.actor.as_str()), (step, actor));
        fact.outcome
    }

    pub(crate) fn collect(&mut self, step: &str) -> Outcome {
        self.fact(&Order::Await { step: step.to_owned(), wait_ms: WAIT_MS }).outcome
    }

    pub(crate) fn still(&mut self, step: &str) -> Outcome {
        self.fact(&Order::Still { step: step.to_owned(), for_ms: WATCH_MS }).outcome
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.root.path().join("ext4/data")
    }

    /// Lets `patient` hang in open(2) of a FIFO as step `hang`.
    pub(crate) fn hang(&mut self) {
        fs::remove_file(self.data()).unwrap();
        assert!(Command::new("mkfifo").arg(self.data()).status().unwrap().success());
        let outcome = self.issue("hang", "patient", open(), WATCH_MS);
        assert!(matches!(&outcome, Outcome::Blocked { state, .. } if state == "S"), "{outcome:?}");
    }
}

pub(crate) fn handler(signal: &str, restart: bool) -> HandlerSetup {
    let (signal, action, place) = (signal.to_owned(), SignalAction::Record, Where::Handler);
    HandlerSetup { signal, restart, action, place, run: Vec::new() }
}

pub(crate) fn open() -> Op {
    op::Open { file: "data".to_owned(), flags: vec![OpenFlag::O_RDONLY], extra: 0 }.into()
}

pub(crate) fn open_rw() -> Op {
    op::Open { file: "data".to_owned(), flags: vec![OpenFlag::O_RDWR], extra: 0 }.into()
}

/// An operation as a scenario writes it.
pub(crate) fn do_(text: &str) -> Op {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub(crate) fn handle(id: &str) -> holdfast_protocol::Handle {
    format!("${id}").try_into().unwrap()
}

pub(crate) fn map(fd: &str) -> Op {
    do_(&format!(r#"{{"mmap": {{"fd": "${fd}", "len_kib": 64, "flags": ["MAP_SHARED"]}}}}"#))
}

pub(crate) fn compare(pattern: u8) -> Op {
    op::Compare { file: Some("data".to_owned()), map: None, at_kib: 4, len_kib: 8, pattern }.into()
}

pub(crate) fn kill(actor: &str, signal: &str) -> Op {
    op::Kill { actor: actor.to_owned(), signal: signal.to_owned() }.into()
}

pub(crate) fn size() -> Op {
    op::Size { file: "data".to_owned() }.into()
}

pub(crate) const OK: Outcome = Outcome::Returned(0);

/// The number of the descriptor that a step resulted in.
pub(crate) fn number(outcome: &Outcome) -> i64 {
    match outcome {
        Outcome::Returned(number @ 3..) => *number,
        other => panic!("no descriptor: {other:?}"),
    }
}

pub(crate) fn is_not_issued(outcome: &Outcome, about: &str) -> bool {
    matches!(outcome, Outcome::NotIssued { why } if why.contains(about))
}

pub(crate) fn signal_to(signal: &str, whom: &str) {
    assert!(Command::new("kill").args(["-s", signal, "--", whom]).status().unwrap().success());
}

/// Name of an actor's process, and what else of it can be seen and is not its own number.
pub(crate) fn look_of(pid: &str) -> (String, String) {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let told = ["Threads:", "Sig", "Shd", "Cap", "NoNewPrivs:", "Seccomp:", "Cpus_allowed:", "Umask:"];
    let status: Vec<String> = read("status")
        .lines()
        // An actor that waits for its next call lets signals in, one that is about to does not yet.
        .filter(|line| !line.starts_with("SigBlk:"))
        .filter(|line| told.iter().any(|field| line.starts_with(field)))
        .map(ToOwned::to_owned)
        .collect();
    // Behind the name: priority and nice are the 16th and 17th, the policy is the 39th.
    let stat = read("stat");
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let kind = |fd: fs::DirEntry| {
        let target = fs::read_link(fd.path()).unwrap().display().to_string();
        let target = target.split(':').next().unwrap().to_owned();
        format!("{} {target}", fd.file_name().display())
    };
    let mut fds: Vec<String> =
        fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|fd| kind(fd.unwrap())).collect();
    fds.sort();
    let scheduling = (fields[15], fields[16], fields[38]);
    let look = format!("{:?} {status:?} {scheduling:?} {fds:?} {}", read("cmdline"), read("limits"));
    (read("comm").trim().to_owned(), look)
}

/// Processes in the role of an actor that were started in this folder.
pub(crate) fn actors_in(folder: &Path) -> Vec<String> {
    let is_one = |pid: &str| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let folder_of = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        arguments.windows(7).any(|word| word == b"\0actor\0") && folder_of == folder
    };
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    pids.filter(|pid| is_one(pid)).collect()
}
