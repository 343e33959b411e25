// SPDX-License-Identifier: MIT OR Apache-2.0
//! A run: the plan's kernels are built, its cases played, the records judged, everything stored.
//!
//! Builds are synchronous and come first; only playing is asynchronous.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use futures_util::stream::{self, StreamExt as _};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::case;
use crate::events::Event;
use crate::ground::{Ground, Grounds, grounds};
use crate::home::Home;
use crate::image;
use crate::judge::{self, CaseResult};
use crate::kernel::{self, Built};
use crate::machine::accel::{self, Accelerator};
use crate::machine::{
    Cancel, Clock, GDB_SOCKET, Inside, Machine, QEMU, SHELL_SOCKET, cancel_pair, default_pmem, script,
};
use crate::outcome::{Exit, Interrupted};
use crate::plan::{Plan, PlannedCase};
use crate::progress::{Expected, Progress};
use crate::record::{End, Record};
use crate::report::{self, Circumstances, KernelUsed, Results};
use crate::runs::{PLAN, RECORD, RESULTS, RunFolder, case_folder, remove_images};
use crate::scratch;
use crate::timeline;

/// How a run is done, beyond its plan.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the run folder goes, instead of the usual place.
    pub results: Option<std::path::PathBuf>,
    /// Never use the network.
    pub offline: bool,
    /// Cases at the same time.
    pub jobs: usize,
    /// Keep the pmem images of passes too.
    pub keep: bool,
    /// Boot every case's machine instead of copying a saved one.
    pub cold: bool,
    /// What the cases' seeds are made of.
    pub seed: u64,
    /// Kernel arguments added.
    pub append: String,
    /// Programs of the person's own that go into the guest.
    pub programs: Vec<image::Extra>,
    /// What a person looks into the machines with. A debugger is for the cases that are asked for, not for their
    /// controls; a shell is opened where a step did not come back as expected.
    pub inside: Inside,
    /// Which accelerator.
    pub accelerator: accel::Wish,
    /// What was typed, for the report.
    pub command: String,
}

/// It was said why QEMU does not use KVM.
static SAID_WHY: AtomicBool = AtomicBool::new(false);

/// Room a case takes while it runs: what the guest writes to its sparse pmem, logs and the console.
/// Without it QEMU dies of SIGBUS in the middle of a case.
const CASE_MIB: u64 = 256;

/// The kernels of a plan, by name: what is to be built for each.
pub type Requests = BTreeMap<String, kernel::Request>;

/// The first Ctrl-C, heard by builds and machines alike.
#[derive(Clone)]
pub struct Interrupt {
    flag: Arc<AtomicBool>,
    wish: Cancel,
}

impl Interrupt {
    /// Listens for SIGINT and SIGTERM. The first asks for an orderly end, the second ends at once. Tells
    /// so where the progress goes.
    ///
    /// # Errors
    /// When no handler can be installed.
    pub fn listen(progress: &Progress) -> Result<Self> {
        let (sender, wish) = cancel_pair();
        let flag = Arc::new(AtomicBool::new(false));
        let heard = flag.clone();
        let progress = progress.clone();
        // A thread of its own: builds are synchronous and must hear it too.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async move {
                use tokio::signal::unix::{SignalKind, signal};
                let (Ok(mut int), Ok(mut term)) =
                    (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
                else {
                    return;
                };
                for count in 1.. {
                    tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
                    if count > 1 {
                        progress.give_up();
                        std::process::exit(i32::from(Exit::Interrupted.code()));
                    }
                    heard.store(true, Ordering::Relaxed);
                    let _ = sender.send(true);
                    progress.say("ending in good order (again to end at once)");
                }
            });
        })?;
        Ok(Self { flag, wish })
    }

    /// # Errors
    /// When the user wants it to end.
    pub fn check(&self) -> Result<()> {
        if self.flag.load(Ordering::Relaxed) { Err(Interrupted.into()) } else { Ok(()) }
    }

    /// For builds, which poll.
    #[must_use]
    pub fn flag(&self) -> &AtomicBool {
        &self.flag
    }

    /// For waits, which race.
    #[must_use]
    pub fn wish(&self) -> Cancel {
        self.wish.clone()
    }
}

/// A run and all it goes by.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// Where things live.
    pub home: &'a Home,
    /// What is to be done.
    pub plan: &'a Plan,
    /// What is to be built for each of the plan's kernels.
    pub requests: &'a Requests,
    /// How it is done.
    pub settings: &'a Settings,
    /// Where progress goes.
    pub progress: &'a Progress,
    /// The user's wish to end it.
    pub interrupt: &'a Interrupt,
}

/// Runs a plan and leaves a run folder with its results.
///
/// # Errors
/// When nothing could be played: a kernel or image that cannot be built, a host without QEMU.
pub fn run(of: Run<'_>) -> Result<(Results, std::path::PathBuf)> {
    let Run { home, settings, progress, .. } = of;
    let begun = Instant::now();
    let runs = settings.results.as_deref().unwrap_or(&home.runs);
    let folder = RunFolder::create(runs)?;
    let expected = Expected::from_runs(&[runs, &home.runs]);
    progress.tell(&Event::run_started(of.plan, &folder.path, settings.jobs, &expected));
    let ended = in_folder(of, &folder);
    progress.tell(&Event::run_ended(&ended, &folder.path, begun.elapsed().as_secs_f64()));
    match ended {
        Ok(results) => {
            folder.publish()?;
            Ok((results, folder.path.clone()))
        }
        // Nothing was played: a mistyped option must not push a real run out.
        Err(error) => {
            folder.discard();
            Err(error)
        }
    }
}

fn in_folder(of: Run<'_>, folder: &RunFolder) -> Result<Results> {
    let Run { home, plan, settings, progress, interrupt, .. } = of;
    let begun = Instant::now();
    store(&folder.path.join(PLAN), plan)?;
    let accelerator = accel::choose(&home.cache, settings.accelerator)?;
    // A command of many runs need not say it again.
    if !accelerator.why.is_empty() && !SAID_WHY.swap(true, Ordering::Relaxed) {
        progress.say(format!("using {}: {}", accelerator.kind.name(), accelerator.why));
    }
    let room_mib = CASE_MIB * settings.jobs as u64;
    scratch::check_space(&folder.path, room_mib, "running cases")?;
    let (machines, used) = machines(of, &accelerator)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let grounds = grounds(of, &machines, &runtime)?;
    let playing = Instant::now();
    let records = runtime.block_on(play_all(of, &grounds, folder));
    let playing = playing.elapsed();
    if let Some(why) = unknown(plan, &records) {
        // No bad input, which is known before anything is built: a kernel of another time may have it.
        bail!(why);
    }
    let cases = judge::judge_all(plan, &records);
    let interrupted = interrupt.flag().load(Ordering::Relaxed);
    let results = report::results(
        plan,
        cases,
        &records,
        Circumstances {
            kernels: used,
            qemu: accel::qemu_version()?,
            accelerator,
            settings,
            took: begun.elapsed(),
            playing,
            interrupted,
        },
    );
    store(&folder.path.join(RESULTS), &results)?;
    Ok(results)
}

/// What a person has asked for that is not there in any guest, where nothing else came of the run.
fn unknown(plan: &Plan, records: &[Record]) -> Option<String> {
    let mut why = None;
    for (case, record) in plan.cases.iter().zip(records) {
        match &record.end {
            End::Unknown { why: what } if record.console.is_empty() => why = Some(what.clone()),
            End::NotTried { .. } => {}
            _ if case.excluded.is_some() => {}
            _ => return None,
        }
    }
    why
}

/// One machine, ready to be booted by hand, and its kernel.
///
/// # Errors
/// When its kernel or image cannot be built.
pub fn machine_of(
    home: &Home,
    request: &kernel::Request,
    settings: &Settings,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<(Machine, Built)> {
    let accelerator = accel::choose(&home.cache, settings.accelerator)?;
    let options = kernel::Options { offline: settings.offline, jobs: Some(settings.jobs) };
    let built = kernel::ensure(home, request, &options, progress, interrupt.flag())?;
    let image = parts(home, settings, interrupt)?.with(home, &extras(&built, settings), &built.modules())?;
    let machine = machine(&built, &image, &accelerator, settings);
    Ok((machine, built))
}

/// Builds what the plan needs. A kernel that does not build has rows all the same.
fn machines(of: Run<'_>, accelerator: &Accelerator) -> Result<(Machines, Vec<KernelUsed>)> {
    let Run { home, plan, requests, settings, progress, interrupt } = of;
    let options = kernel::Options { offline: settings.offline, jobs: Some(settings.jobs) };
    let mut common = None;
    let mut machines = BTreeMap::new();
    let mut used = Vec::new();
    for planned in &plan.kernels {
        let built = kernel::ensure(home, &requests[&planned.name], &options, progress, interrupt.flag());
        let machine = match built {
            Err(_) if interrupt.flag().load(Ordering::Relaxed) => return Err(Interrupted.into()),
            Err(error) if Exit::of_error(&error) == Exit::BadInput => return Err(error),
            Err(error) => {
                let why = format!("{error:#}");
                progress.say(&why);
                Err(why)
            }
            Ok(built) => {
                let parts = match &common {
                    Some(parts) => parts,
                    None => common.insert(parts(home, settings, interrupt)?),
                };
                let image = parts.with(home, &extras(&built, settings), &built.modules())?;
                used.push(KernelUsed::new(planned, &built.manifest));
                Ok((machine(&built, &image, accelerator, settings), built))
            }
        };
        machines.insert(planned.name.clone(), machine);
    }
    Ok((machines, used))
}

/// Ctrl-C also reaches cargo, which builds the agent: its failure is not the cause then.
fn parts(home: &Home, settings: &Settings, interrupt: &Interrupt) -> Result<image::Parts> {
    match image::Parts::collect(home, image::DEFAULT, settings.offline) {
        Err(error) if interrupt.flag().load(Ordering::Relaxed) => Err(error.context(Interrupted)),
        other => other,
    }
}

/// The programs of a kernel's guests that are not in the image's description.
fn extras(built: &Built, settings: &Settings) -> Vec<image::Extra> {
    built.programs().chain(settings.programs.iter().cloned()).collect()
}

fn machine(built: &Built, image: &image::Image, accelerator: &Accelerator, settings: &Settings) -> Machine {
    Machine {
        qemu: QEMU.into(),
        accelerator: accelerator.clone(),
        kernel: built.bzimage(),
        initrd: image.path.clone(),
        append: format!("{} {}", built.manifest.arguments, settings.append).trim().to_owned(),
        cpus: 1,
        memory_mib: 512,
        pmem: default_pmem(),
        clock: Clock::Host,
        inside: Inside { gdb: false, ..settings.inside },
    }
}

/// What a kernel's cases run on; the reason when it could not be built.
type Machines = BTreeMap<String, std::result::Result<(Machine, Built), String>>;

async fn play_all(of: Run<'_>, grounds: &Grounds, folder: &RunFolder) -> Vec<Record> {
    let Run { plan, settings, progress, .. } = of;
    // Kernels with a control that could not begin, and why: none of their rows can become green, and each would
    // wait for a hello as long as the control did.
    let unplayable = &RefCell::new(BTreeMap::<&str, String>::new());
    // All of them on this one thread, which QEMU's life hangs on.
    let cases = stream::iter(plan.cases.iter().enumerate()).map(|(nr, case)| async move {
        if case.excluded.is_some() {
            return (nr, Record::empty(End::Complete));
        }
        let ground = &grounds[&(case.kernel.clone(), case.cpus)];
        let record = try_one(of, (nr, case), ground, folder, unplayable).await;
        if judge::judge(case, &plan.contracts[&case.contract], &record).green && !settings.keep {
            remove_images(&case_folder(&folder.path, &case.kernel, &case.id));
        }
        // What is not stored now would be lost with the run.
        let stored = folder.case(&case.kernel, &case.id).and_then(|path| store(&path.join(RECORD), &record));
        let record = match stored {
            Ok(()) => record,
            Err(error) => Record::empty(End::Fault { why: format!("{error:#}") }),
        };
        progress.tell(&Event::case_ended(nr, judge::judge(case, &plan.contracts[&case.contract], &record)));
        (nr, record)
    });
    let mut records: Vec<(usize, Record)> = cases.buffer_unordered(settings.jobs.max(1)).collect().await;
    records.sort_by_key(|(nr, _)| *nr);
    records.into_iter().map(|(_, record)| record).collect()
}

/// Plays a case unless its end is known without that.
async fn try_one<'a>(
    of: Run<'a>,
    (nr, case): (usize, &'a PlannedCase),
    on: &std::result::Result<Ground, String>,
    folder: &RunFolder,
    unplayable: &RefCell<BTreeMap<&'a str, String>>,
) -> Record {
    let Run { settings, progress, interrupt, .. } = of;
    let ground = match on {
        Ok(ground) => ground,
        Err(why) => return Record::empty(End::Fault { why: why.clone() }),
    };
    if interrupt.flag().load(Ordering::Relaxed) {
        return Record::empty(End::Cancelled);
    }
    if let Some(why) = unplayable.borrow().get(case.kernel.as_str()) {
        return Record::empty(End::NotTried { why: why.clone() });
    }
    progress.tell(&Event::case_started(nr, case));
    let say = |what: &str| progress.tell(&Event::CaseDoing { nr, what: what.to_owned() });
    let seed = seed_of(settings.seed, &case.kernel, &case.id);
    let played = play(of, case, ground, seed, folder, &say).await;
    let record = played.unwrap_or_else(|error| Record::empty(End::Fault { why: format!("{error:#}") }));
    if let Some(why) = ground.heed(&record) {
        progress.say(why);
    }
    let why = match &record.end {
        End::Unknown { why } => Some(why.clone()),
        End::Cancelled => None,
        _ => record.hello.is_none().then(|| format!("the guest of the control {} did not boot", case.id)),
    };
    if let Some(why) = why.filter(|_| case.control) {
        unplayable.borrow_mut().insert(&case.kernel, why);
    }
    record
}

async fn play(
    of: Run<'_>,
    case: &PlannedCase,
    ground: &Ground,
    seed: u64,
    folder: &RunFolder,
    say: &dyn Fn(&str),
) -> Result<Record> {
    let Run { plan, settings, progress, interrupt, .. } = of;
    let folder = &folder.case(&case.kernel, &case.id)?;
    let path = folder.join("qemu.sh");
    fs::write(&path, script(&ground.machine)).with_context(|| format!("cannot write {}", path.display()))?;
    executable(&path)?;
    let manifest = &ground.built.manifest;
    let gdb = settings.inside.gdb && (!case.control || plan.cases.iter().all(|case| case.control));
    let machine = Machine { inside: Inside { gdb, ..settings.inside }, ..ground.machine.clone() };
    let (name, place) = (format!("{} on {}", case.id, case.kernel), folder.display());
    if gdb {
        let vmlinux = ground.built.vmlinux();
        let known =
            if vmlinux.exists() { "" } else { " (without symbols: this kernel came without a vmlinux)" };
        progress.say(format!(
            "{name} waits for a debugger's `continue`: cd '{place}' && gdb -ex 'target remote {GDB_SOCKET}' '{}'{known}",
            vmlinux.display()
        ));
    }
    let held = Cell::new(false);
    let hold = |record: &Record| {
        let result = judge::judge(case, &plan.contracts[&case.contract], record);
        let failed = |step: &&judge::StepResult| step.status == judge::StepStatus::NotAsExpected;
        let Some(step) = result.steps.iter().find(failed).filter(|_| !held.replace(true)) else { return false };
        progress.say(format!(
            "{name} is held at step {} ({}): expected {}, got {}\n  a shell in it, and `exit` lets it go on: cd \
             '{place}' && socat STDIO,raw,echo=0 UNIX-CONNECT:{SHELL_SOCKET}",
            step.id, step.label, step.expected, step.got
        ));
        true
    };
    let ground = case::Ground {
        machine: &machine,
        release: &manifest.release,
        requests: &manifest.requests,
        saved: ground.saved(),
    };
    // Where the red end is the right one nobody wants to be held.
    let held_at_all = settings.inside.shell && case.ends.is_none();
    let hold: Option<&dyn Fn(&Record) -> bool> = if held_at_all { Some(&hold) } else { None };
    let onlooker = case::Onlooker { say, hold };
    let record = case::play(case, &ground, seed, folder, interrupt.wish(), onlooker).await;
    if !case.trace.is_empty() && !matches!(record.end, End::Unknown { .. }) {
        match timeline::write(case, &record, folder) {
            Ok(path) => progress.say(format!("{name}: {}", path.display())),
            Err(error) => progress.say(format!("{name}: {error:#}")),
        }
    }
    Ok(record)
}

/// The seed of a case: the same for the same run's seed, whatever else is run beside it.
fn seed_of(run: u64, kernel: &str, id: &str) -> u64 {
    let digest = Sha256::digest(format!("{run} {kernel} {id}"));
    digest.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

fn executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", path.display()))
}

/// Stores a value as JSON, whole or not at all.
fn store<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let whole = || -> Result<()> {
        let folder = path.parent().context("a file in a folder")?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer_pretty(&mut file, value)?;
        file.persist(path)?;
        Ok(())
    };
    whole().with_context(|| format!("cannot write {}", path.display()))
}

/// The stored plan and records of a run, and its judgement anew.
///
/// # Errors
/// When the folder is no run, or one of another format.
pub fn stored(folder: &Path) -> Result<(Plan, Vec<Record>)> {
    let plan: Plan = read(&folder.join(PLAN))?;
    let records = plan.cases.iter().map(|case| {
        let path = case_folder(folder, &case.kernel, &case.id).join(RECORD);
        match (case.excluded.is_some(), path.exists()) {
            (true, _) => Ok(Record::empty(End::Complete)),
            // A run that died has rows that were never reached.
            (false, false) => Ok(Record::empty(End::Cancelled)),
            (false, true) => read(&path),
        }
    });
    let records = records.collect::<Result<Vec<Record>>>()?;
    Ok((plan, records))
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is of another format", path.display()))
}

/// Judges stored facts again and renews the results' rows; what was true of the host then stays.
///
/// # Errors
/// As [`stored`].
pub fn judged_again(folder: &Path) -> Result<Results> {
    let (plan, records) = stored(folder)?;
    let mut results: Results = read(&folder.join(RESULTS))
        .with_context(|| format!("{} has no results: the run died", folder.display()))?;
    let cases: Vec<CaseResult> = judge::judge_all(&plan, &records);
    results.renew(&plan, cases);
    Ok(results)
}
