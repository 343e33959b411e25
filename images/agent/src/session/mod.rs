// SPDX-License-Identifier: MIT OR Apache-2.0
//! The session: takes orders of the host, plays them through actors, answers each with one reply.
//!
//! It never does an operation itself: what may block or die is an actor's business.

mod beside;
mod calls;
mod cast;
mod connect;
mod damage;
mod finish;
mod kmemleak;
mod prepare;
mod repeat;
mod signals;
mod together;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use holdfast_protocol::{
    ActorSetup, Awake, Fact, FrameError, Op, Oracles, Order, Outcome, Place, Reply, Signalled, read_frame,
    write_frame,
};
use nix::mount::{MntFlags, umount2};
use nix::time::{ClockId, clock_gettime, clock_settime};

use crate::boot;
use crate::clock::now_ms;
use crate::iwarp::Connection;
use crate::oracles::Eyes;
use crate::progress::{Progress, Watch};
use crate::wire::{DeclaredFile, Link, RemoteRegion};
use crate::{procfs, sys, trace};
use beside::Beside;
use cast::Cast;
use damage::Ledger;
use kmemleak::Kmemleak;

/// How many actors are started ahead: as many as a scenario has, with some to spare.
const SPARES: usize = 4;

/// How long the spare actors may take to start; a debug kernel under emulation needs seconds.
const SPARES_TIMEOUT: Duration = Duration::from_secs(60);

/// Where a place of the protocol is in this guest (or in the folder a test gives).
#[derive(Clone, Debug, Default)]
pub(crate) struct Stage {
    /// Folder of a file system, or the device-DAX node.
    pub(crate) places: BTreeMap<Place, PathBuf>,
    /// Block device below each mounted file system; empty in a test, where nothing is mounted.
    pub(crate) devices: BTreeMap<Place, PathBuf>,
    /// Where the programs are that scenarios run.
    pub(crate) programs: Vec<PathBuf>,
    /// The RDMA links that are ready.
    pub(crate) rdma: Vec<Link>,
    /// This is the guest and not a test: the clock and sysctls may be set, kernel state read.
    pub(crate) in_guest: bool,
    /// `/proc/sys/kernel/random/boot_id`.
    pub(crate) boot_id: String,
}

/// What a session remembers between orders.
pub(crate) struct Session {
    stage: Stage,
    progress: Progress,
    /// What the oracles read; why they cannot, where this is no guest or lacks something.
    eyes: Result<Eyes, String>,
    /// `None` where the kernel has none; why it cannot be used.
    kmemleak: Result<Option<Kmemleak>, String>,
    /// The kernel's random number generator, to be seeded.
    random: Option<File>,
    /// A process for each file system that is mounted.
    umounters: BTreeMap<Place, Beside>,
    cast: Cast,
    /// It was told what makes it different from other copies of the same machine.
    awake: bool,
    files: BTreeMap<String, DeclaredFile>,
    /// The RDMA link of the case, when ready.
    link: Option<Link>,
    /// What holds each connection over iWARP: the session, so that it outlives the actors at its ends.
    connections: Vec<Connection>,
    /// Steps that were issued and have not been reported as returned.
    pending: BTreeMap<String, Pending>,
    /// Steps that have returned: an `await` of one of them is answered again.
    settled: BTreeMap<String, Fact>,
    /// Public parts of memory regions by the step that made them.
    regions: BTreeMap<String, RemoteRegion>,
    /// Signals that handlers have got and no step was given, oldest first, by actor and handler.
    signals: BTreeMap<(String, String), VecDeque<(Signalled, u64)>>,
    /// The steps that handlers run: the actor whose handler it is, and what is done.
    handled: BTreeMap<String, (String, Op)>,
    /// Operations of a stress whose actor did not come back from it.
    unfinished: Vec<(String, Op)>,
    /// Actors that a fork is to make.
    unborn: BTreeMap<String, ActorSetup>,
    /// Our ends of the streams of actors that a fork is making.
    cradles: BTreeMap<String, UnixStream>,
    /// Pairs of actors that a socket joins, each in order.
    links: BTreeSet<(String, String)>,
    /// Which region is on which file.
    ledger: Ledger,
    /// Some step has run a program: who it left behind is to be looked for.
    ran_programs: bool,
    /// Processes that hold on purpose what an oracle must find.
    keepers: Vec<i32>,
    /// File systems whose metadata is to be damaged when they are unmounted.
    corrupt: Vec<Place>,
    /// What was counted before the first step; `None` before `Prepare`.
    before: Option<Before>,
}

/// The base line of the oracles.
struct Before {
    oracles: Oracles,
    mark: String,
}

/// A step on its way.
struct Pending {
    actor: String,
    at_ms: u64,
    /// What is done.
    op: Op,
    _watch: Watch,
}

impl Session {
    /// A session that nobody has prepared, with everything made ahead that every case needs: it is saved
    /// with the machine, and what a case need not do it need not wait for.
    #[must_use]
    pub(crate) fn new(stage: Stage, progress: Progress) -> Self {
        let mut cast = Cast::default();
        // What is missing is started when it is wanted, and complained about then.
        let _ = cast.stock(SPARES, &progress.within(SPARES_TIMEOUT));
        let eyes = if stage.in_guest {
            Eyes::open(!stage.rdma.is_empty())
        } else {
            Err("this is no guest".to_owned())
        };
        let random =
            OpenOptions::new().read(true).write(true).open("/dev/urandom").ok().filter(|_| stage.in_guest);
        let umounter = |(place, folder): (Place, PathBuf)| {
            let call = move || umount2(&folder, MntFlags::empty()).map_or_else(|errno| errno as i32, |()| 0);
            Some((place, Beside::start(c"umount", call).ok()?))
        };
        let mounted = stage.places.clone().into_iter().filter(|(place, _)| stage.devices.contains_key(place));
        let umounters = mounted.filter_map(umounter).collect();
        Self {
            kmemleak: if stage.in_guest { Kmemleak::find() } else { Ok(None) },
            stage,
            progress,
            eyes,
            random,
            umounters,
            cast,
            awake: false,
            files: BTreeMap::new(),
            link: None,
            connections: Vec::new(),
            pending: BTreeMap::new(),
            settled: BTreeMap::new(),
            regions: BTreeMap::new(),
            ledger: Ledger::default(),
            signals: BTreeMap::new(),
            handled: BTreeMap::new(),
            unfinished: Vec::new(),
            unborn: BTreeMap::new(),
            cradles: BTreeMap::new(),
            links: BTreeSet::new(),
            ran_programs: false,
            keepers: Vec::new(),
            corrupt: Vec::new(),
            before: None,
        }
    }

    /// Reads orders and answers them until the stream ends.
    ///
    /// # Errors
    /// When a reply cannot be written, or when it is not known any more where the next frame begins.
    pub(crate) fn serve(&mut self, stream: &mut (impl Read + Write + AsFd)) -> io::Result<()> {
        loop {
            self.cast.until_readable(stream.as_fd());
            let order = match read_frame::<Order>(stream) {
                Ok(order) => order,
                Err(FrameError::Closed) => return Ok(()),
                Err(error) => {
                    write_frame(stream, &Reply::Refused { why: error.to_string() })?;
                    if matches!(error, FrameError::Garbled(..)) {
                        continue;
                    }
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            };
            let reply = self.obey(order);
            match write_frame(stream, &reply) {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    write_frame(stream, &Reply::Refused { why: format!("the reply is too long: {error}") })?;
                }
                other => other?,
            }
            self.cast.reap();
        }
    }

    /// Carries one order out.
    pub(crate) fn obey(&mut self, order: Order) -> Reply {
        self.cast.reap();
        let reply = match order {
            Order::Wake { unix_ns, seed } => self.wake(unix_ns, seed).map(Reply::Awake),
            Order::Settle => {
                if self.stage.in_guest {
                    boot::settle_clock(&self.progress);
                    self.forget_leaks();
                }
                Ok(Reply::Settled)
            }
            Order::CheckConfig { requests } => procfs::config_mismatches(&requests).map(Reply::Config),
            Order::Prepare(setup) => self.prepare(setup).map(Reply::Prepared),
            Order::Do { step, actor, op, wait_ms } => self
                .issue(&step, &actor, op, Some(wait_ms), None)
                .and_then(|()| self.wait_or_end(&step, wait_ms))
                .map(Reply::Fact),
            Order::Start { step, actor, op } => self.issue(&step, &actor, op, None, None).map(|()| {
                let started = self.pending.get(&step).map(|pending| pending.at_ms);
                let settled = self.settled.get(&step).map(|fact| fact.at_ms);
                Reply::Started { at_ms: started.or(settled).unwrap_or_else(now_ms) }
            }),
            Order::Together(issues) => self.together(issues).map(|at_ms| Reply::Started { at_ms }),
            Order::Stress(stress) => self.stress(stress).map(Reply::Stressed),
            Order::Repeat { body, times } => self.repeat(body, times),
            Order::Await { step, wait_ms } => self.wait_or_end(&step, wait_ms).map(Reply::Fact),
            Order::Still { step, for_ms } => self.wait(&step, for_ms).map(Reply::Fact),
            Order::Trace { events } => trace::begin(&events).map(|unknown| match unknown {
                Some(why) => Reply::Unknown { why },
                None => Reply::Tracing,
            }),
            Order::Traced => trace::read().map(Reply::Traced),
            Order::Shell => boot::shell::run_aside().map(|()| Reply::ShellEnded),
            Order::Finish { settle_ms } => self.finish(settle_ms).map(Reply::Finished),
        };
        reply.unwrap_or_else(|why| Reply::Refused { why })
    }

    /// What the boot lost is nothing of the case's.
    fn forget_leaks(&mut self) {
        if let Ok(Some(kmemleak)) = &mut self.kmemleak {
            kmemleak.forget(&self.progress);
        }
    }

    /// Becomes different from other copies of the same machine.
    fn wake(&mut self, unix_ns: u64, seed: u64) -> Result<Awake, String> {
        if self.awake {
            return Err("this guest is already awake".to_owned());
        }
        let mut random = [0; 8];
        if self.stage.in_guest {
            let time = Duration::from_nanos(unix_ns).into();
            clock_settime(ClockId::CLOCK_REALTIME, time)
                .map_err(|errno| format!("setting the clock: {errno}"))?;
            let mut source = self.random.as_ref().ok_or("/dev/urandom could not be opened")?;
            sys::seed_random(source.as_fd(), seed).map_err(|errno| format!("seeding /dev/urandom: {errno}"))?;
            source.read_exact(&mut random).map_err(|error| format!("reading /dev/urandom: {error}"))?;
        }
        self.awake = true;
        let now = clock_gettime(ClockId::CLOCK_REALTIME).map_err(|errno| format!("CLOCK_REALTIME: {errno}"))?;
        let unix_ns = u64::try_from(Duration::from(now).as_nanos()).unwrap_or(u64::MAX);
        let random = u64::from_ne_bytes(random);
        Ok(Awake { boot_id: self.stage.boot_id.clone(), unix_ns, random, at_ms: now_ms() })
    }

    /// Notes that a step is over.
    fn settle(&mut self, step: &str, fact: Fact) {
        self.pending.remove(step);
        self.settled.insert(step.to_owned(), fact);
    }

    /// Notes that a step was over before it began.
    fn settle_now(&mut self, step: &str, actor: &str, outcome: Outcome) {
        let fact = self.fact(step, actor, outcome, now_ms(), 0);
        self.settle(step, fact);
    }
}
