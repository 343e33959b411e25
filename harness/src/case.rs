// SPDX-License-Identifier: MIT OR Apache-2.0
//! Plays one case on a machine of its own and records what was seen. Judges nothing: a step that
//! came back otherwise than hoped does not stop the next one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use holdfast_protocol::{Fact, Issue, Order, Outcome, Reply, Setup, Stress};

use crate::fsck;
use crate::judge::{by_whole_paces, scaled};
use crate::machine::ready::{self, unexpected};
use crate::machine::{Broken, CONSOLE, Cancel, Machine, Saved, Vm};
use crate::plan::{PlannedCase, PlannedStep};
use crate::record::{End, Life, Origin, Record};
use crate::runs::remove_images;
use crate::scenario::Action;
use crate::splat::splats;
use crate::timeline;

/// What an order may take beyond the wait it asks for, before pace.
const ORDER_SLACK_MS: u64 = 10_000;
/// Writing and syncing the files, starting the actors.
const PREPARE_MS: u64 = 20_000;
/// How long a killed actor may take to be gone.
const SETTLE_MS: u64 = 2_000;
/// How long an operation of a stress may go on after its end, before pace: what it waits for is let go then.
const GRACE_MS: u64 = 5_000;
/// Killing, counting and unmounting two file systems.
const FINISH_MS: u64 = 60_000;

/// The one sysctl of scenarios that is a time, in seconds.
const LEASE_BREAK_TIME: &str = "fs.lease-break-time";

/// What the agent's own lines on the console begin with (images/agent/src/boot/mod.rs).
const AGENT_SAYS: &str = "holdfast: ";
/// The first says what the others follow from.
const MOST_COMPLAINTS: usize = 3;

/// What a case is played on.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    /// What to boot.
    pub machine: &'a Machine,
    /// `uname -r` of its kernel.
    pub release: &'a str,
    /// The options the kernel was asked for.
    pub requests: &'a [(String, String)],
    /// What to copy instead of booting, or why not; without a reason when nobody wants a copy.
    pub saved: Result<&'a Saved, &'a str>,
}

/// Who looks on while a case is played.
#[derive(Clone, Copy)]
pub struct Onlooker<'a> {
    /// Hears what is being done.
    pub say: &'a dyn Fn(&str),
    /// Is asked after each step; true to keep the guest as it is, with a shell on its virtio console, until that
    /// ends.
    pub hold: Option<&'a dyn Fn(&Record) -> bool>,
}

/// Plays a case in `folder`.
pub async fn play(
    case: &PlannedCase,
    ground: &Ground<'_>,
    seed: u64,
    folder: &Path,
    cancel: Cancel,
    onlooker: Onlooker<'_>,
) -> Record {
    let say = onlooker.say;
    let begun = Instant::now();
    let mut record = Record { release: ground.release.to_owned(), seed, ..Record::empty(End::Complete) };
    let mut doing = String::new();
    match begin(ground, folder, cancel, &mut record, &mut doing, say).await {
        Err((broken, vm)) => record.end = end(broken, doing, vm, &mut record).await,
        Ok(mut vm) => {
            record.phases.machine_ms = millis(begun.elapsed());
            let stage = Stage { case, machine: ground.machine, folder, onlooker };
            let played = conduct(&stage, &mut vm, &mut record, &mut doing).await;
            record.qemu_peak_kib = vm.peak_memory_kib().unwrap_or(0).max(record.qemu_peak_kib);
            let before = Instant::now();
            match played {
                Err(broken) => record.end = end(broken, doing, Some(vm), &mut record).await,
                Ok(()) => stop(vm, &mut record).await,
            }
            record.phases.stop_ms = millis(before.elapsed());
        }
    }
    if record.end == End::Complete {
        let before = Instant::now();
        say("the checkers of the file systems");
        if let (Some(hello), Some(oracles)) = (&record.hello, &record.oracles) {
            match fsck::check(folder, hello, &oracles.umount).await {
                Ok(facts) => record.fsck = facts,
                Err(error) => record.end = End::Fault { why: format!("{error:#}") },
            }
        }
        record.phases.fsck_ms = millis(before.elapsed());
    }
    // The console may end in the middle of a character.
    let console = fs::read(folder.join(CONSOLE)).unwrap_or_default();
    let console = String::from_utf8_lossy(&console);
    record.console.extend(splats(console.lines()));
    if record.hello.is_none() {
        record.complaints.extend(complaints(&console));
    }
    record.took_ms = millis(begun.elapsed());
    record
}

/// What the agent says on the console, where a guest never said hello.
fn complaints(console: &str) -> impl Iterator<Item = String> {
    let lines = console.lines().filter_map(|line| line.trim_end().strip_prefix(AGENT_SAYS));
    lines.take(MOST_COMPLAINTS).map(str::to_owned)
}

/// How a case ended that broke off, and its machine with it.
async fn end(broken: Broken, during: String, vm: Option<Vm>, record: &mut Record) -> End {
    let Some(mut vm) = vm else { return as_end(broken, during, String::new()) };
    let state = if matches!(broken, Broken::Deadline(_)) { vm.state().await } else { String::new() };
    let end = as_end(broken, during, state);
    stop(vm, record).await;
    if record.end == End::Complete { end } else { record.end.clone() }
}

fn as_end(broken: Broken, during: String, state: String) -> End {
    match broken {
        Broken::Ended(how) => End::QemuEnded { how, during },
        Broken::Deadline(after) => End::Deadline { during, after_ms: millis(after), qemu: state },
        Broken::Cancelled => End::Cancelled,
        Broken::Unknown(why) => End::Unknown { why },
        Broken::Fault(error) => End::Fault { why: format!("{during}: {error:#}") },
    }
}

async fn stop(vm: Vm, record: &mut Record) {
    let ended = vm.stop().await;
    if ended.contains("survived") {
        record.end = End::Fault { why: ended };
    }
}

/// A machine that broke before the case began, if it came to be at all.
type Lost = (Broken, Option<Vm>);

/// A guest that waits for the case: a copy where there is one to copy, else one that boots.
async fn begin(
    ground: &Ground<'_>,
    folder: &Path,
    cancel: Cancel,
    record: &mut Record,
    doing: &mut String,
    say: &dyn Fn(&str),
) -> Result<Vm, Lost> {
    match ground.saved {
        Ok(saved) => {
            "restore".clone_into(doing);
            say(doing);
            match restore(ground.machine, saved, folder, cancel.clone(), record).await {
                Ok(vm) => return Ok(vm),
                Err((Broken::Cancelled, vm)) => return Err((Broken::Cancelled, vm)),
                Err((broken, vm)) => {
                    record.cold_because = format!("a copy did not come up: {}", broken.in_words(folder));
                    record.copy_failed = vm.is_some();
                    if let Some(vm) = vm {
                        vm.stop().await;
                    }
                    // What is left of it must not be booted from.
                    remove_images(folder);
                    let _ = fs::remove_file(folder.join(CONSOLE));
                }
            }
        }
        Err(why) => why.clone_into(&mut record.cold_because),
    }
    "boot".clone_into(doing);
    say(doing);
    boot(ground, folder, cancel, record, doing).await
}

async fn restore(
    machine: &Machine,
    saved: &Saved,
    folder: &Path,
    cancel: Cancel,
    record: &mut Record,
) -> Result<Vm, Lost> {
    let mut vm = Vm::copy(machine, saved, folder, cancel).map_err(|error| (Broken::Fault(error), None))?;
    match ready::resume(&mut vm, saved, record.seed).await {
        Err(broken) => Err((broken, Some(vm))),
        Ok(_) => {
            record.machine = Origin::Restored;
            record.pace = saved.pace();
            record.hello = Some(saved.hello().clone());
            record.config = saved.config().to_vec();
            Ok(vm)
        }
    }
}

async fn boot(
    ground: &Ground<'_>,
    folder: &Path,
    cancel: Cancel,
    record: &mut Record,
    doing: &mut String,
) -> Result<Vm, Lost> {
    record.machine = Origin::Cold;
    let mut vm = Vm::boot(ground.machine, folder, cancel).map_err(|error| (Broken::Fault(error), None))?;
    let mut first_words = async || {
        let hello = ready::hello(&mut vm).await?;
        record.pace = ready::pace(&mut vm);
        record.hello = Some(hello);
        "the check of the kernel's configuration".clone_into(doing);
        record.config = ready::check_config(&mut vm, ground.requests).await?;
        ready::wake(&mut vm, record.seed).await
    };
    match first_words().await {
        Ok(_) => Ok(vm),
        Err(broken) => Err((broken, Some(vm))),
    }
}

/// What a case is played with from beginning to end.
struct Stage<'a> {
    case: &'a PlannedCase,
    machine: &'a Machine,
    folder: &'a Path,
    onlooker: Onlooker<'a>,
}

async fn conduct(
    stage: &Stage<'_>,
    vm: &mut Vm,
    record: &mut Record,
    doing: &mut String,
) -> Result<(), Broken> {
    let (case, say) = (stage.case, stage.onlooker.say);
    let mut lap = Instant::now();
    let mut next_lap = || millis(std::mem::replace(&mut lap, Instant::now()).elapsed());
    let pace = record.pace;
    let slack = |ms: u64| Duration::from_millis(scaled(ms + ORDER_SLACK_MS, pace));
    "preparation".clone_into(doing);
    say(doing);
    match vm.exchange(&Order::Prepare(at_pace(case.setup.clone(), pace)), slack(PREPARE_MS)).await? {
        Reply::Prepared(files) => record.files = files,
        other => return Err(unexpected(&other)),
    }
    begin_trace(stage, vm, pace).await?;
    record.phases.prepare_ms = next_lap();
    // By the step that issued the operation: a wait goes on from there.
    let mut lost_at: BTreeMap<&str, Duration> = BTreeMap::new();
    let mut lost = vm.lost();
    let steps: Vec<&PlannedStep> = case.steps.iter().filter(|step| step.excluded.is_none()).collect();
    for group in steps.chunk_by(|one, next| one.group().is_some() && one.group() == next.group()) {
        doing.clone_from(&group[0].id);
        say(&format!("{} {}", group[0].id, group[0].label()));
        if group[0].action == Action::PowerCut {
            if !cut_power(stage, &group[0].id, vm, record).await? {
                if stage.onlooker.hold.is_some_and(|is_to| is_to(record)) {
                    hold(vm, say).await?;
                }
                return Ok(());
            }
            (lost_at, lost) = (BTreeMap::new(), vm.lost());
            continue;
        }
        let (order, wait_ms) = order(group, record.seed, pace);
        let facts = match vm.exchange(&order, slack(wait_ms)).await? {
            Reply::Fact(fact) => vec![fact],
            Reply::Stressed(facts) => facts,
            Reply::Started { at_ms } => group.iter().map(|step| started(step, at_ms)).collect(),
            other => return Err(unexpected(&other)),
        };
        let before = lost;
        lost = vm.lost();
        for step in group {
            let begun = *lost_at.entry(step.source()).or_insert(before);
            record.lost_ms.insert(step.id.clone(), millis(lost - begun));
        }
        // Facts have the ids of the steps that were issued; a watch's is the watch's own.
        match (group, facts.len()) {
            ([step], 1) => record.facts.extend(facts.into_iter().map(|fact| (step.id.clone(), fact))),
            _ => record.facts.extend(facts.into_iter().map(|fact| (fact.step.clone(), fact))),
        }
        if stage.onlooker.hold.is_some_and(|is_to| is_to(record)) {
            hold(vm, say).await?;
        }
    }
    keep_trace(stage, vm, record).await?;
    record.phases.steps_ms = next_lap();
    "the standing oracles".clone_into(doing);
    say(doing);
    let finish = Order::Finish { settle_ms: scaled(SETTLE_MS, pace) };
    match vm.exchange(&finish, slack(FINISH_MS)).await? {
        Reply::Finished(oracles) => record.oracles = Some(oracles),
        other => return Err(unexpected(&other)),
    }
    record.phases.oracles_ms = next_lap();
    Ok(())
}

/// Kills the machine in the middle of whatever it does, and boots it again with the same NVDIMMs. What it had stored
/// there is there: the host's page cache has it, so nothing is said of stores that a processor's cache would have
/// lost. False when it does not have its file systems back: nothing can be played on it then.
async fn cut_power(stage: &Stage<'_>, step: &str, vm: &mut Vm, record: &mut Record) -> Result<bool, Broken> {
    keep_trace(stage, vm, record).await?;
    let begun = Instant::now();
    record.qemu_peak_kib = vm.peak_memory_kib().unwrap_or(0).max(record.qemu_peak_kib);
    vm.reboot(stage.machine).await?;
    let hello = ready::hello(vm).await?;
    let nth = u64::try_from(record.lives.len()).unwrap_or(0) + 1;
    ready::wake(vm, record.seed.wrapping_add(nth)).await?;
    let setup = Setup { again: true, ..at_pace(stage.case.setup.clone(), record.pace) };
    let is_mounted = hello.pmem.iter().all(|one| one.trouble.is_empty());
    let mut life = Life { step: step.to_owned(), hello, files: Vec::new(), took_ms: millis(begun.elapsed()) };
    if !is_mounted {
        record.lives.push(life);
        return Ok(false);
    }
    let deadline = Duration::from_millis(scaled(PREPARE_MS + ORDER_SLACK_MS, record.pace));
    let answer = vm.exchange(&Order::Prepare(setup), deadline).await;
    if let Ok(Reply::Prepared(files)) = &answer {
        life.files.clone_from(files);
    }
    // Also where it refuses: what its guest said may be why.
    record.lives.push(life);
    match answer? {
        Reply::Prepared(_) => {}
        other => return Err(unexpected(&other)),
    }
    begin_trace(stage, vm, record.pace).await?;
    Ok(true)
}

/// Keeps the guest where it is until a person has left its shell. One without a shell goes on, and it is said why.
async fn hold(vm: &mut Vm, say: &dyn Fn(&str)) -> Result<(), Broken> {
    match vm.exchange(&Order::Shell, Duration::MAX).await? {
        Reply::ShellEnded => {}
        Reply::Refused { why } => say(&format!("no shell: {why}")),
        other => return Err(unexpected(&other)),
    }
    Ok(())
}

/// Has the guest record trace events, where any are asked for.
async fn begin_trace(stage: &Stage<'_>, vm: &mut Vm, pace: f64) -> Result<(), Broken> {
    let events = stage.case.trace.clone();
    if events.is_empty() {
        return Ok(());
    }
    let deadline = Duration::from_millis(scaled(ORDER_SLACK_MS, pace));
    match vm.exchange(&Order::Trace { events }, deadline).await? {
        Reply::Tracing => Ok(()),
        other => Err(unexpected(&other)),
    }
}

/// Writes what this life of the machine has traced, where anything was to be.
async fn keep_trace(stage: &Stage<'_>, vm: &mut Vm, record: &Record) -> Result<(), Broken> {
    if stage.case.trace.is_empty() {
        return Ok(());
    }
    let deadline = Duration::from_millis(scaled(FINISH_MS, record.pace));
    match vm.exchange(&Order::Traced, deadline).await? {
        Reply::Traced(text) => {
            let path = stage.folder.join(timeline::trace_file(record.lives.len()));
            fs::write(&path, text).map_err(|error| Broken::Fault(error.into()))
        }
        other => Err(unexpected(&other)),
    }
}

/// A case's setup on this machine and kernel: where everything takes longer the kernel is to wait longer, too.
fn at_pace(mut setup: Setup, pace: f64) -> Setup {
    if let Some(seconds) = setup.sysctl.get_mut(LEASE_BREAK_TIME)
        && let Ok(time) = seconds.parse()
    {
        *seconds = by_whole_paces(time, pace).to_string();
    }
    setup
}

/// What is known of an operation that was started.
fn started(step: &PlannedStep, at_ms: u64) -> Fact {
    let actor = match &step.action {
        Action::Start { by, .. } => by.clone(),
        _ => String::new(),
    };
    let (step, outcome) = (step.id.clone(), Outcome::Returned(0));
    Fact { step, actor, outcome, at_ms, took_ms: 0, stalled_ms: 0 }
}

/// What a step issues, where it begins together with others.
fn issue(step: &PlannedStep) -> Option<Issue> {
    let (by, op, never_within, after) = match &step.action {
        Action::Start { by, op } => (by, op, None, None),
        Action::Draw { by, op, never_within, after, .. } => (by, op, never_within.clone(), after.clone()),
        _ => return None,
    };
    Some(Issue { step: step.id.clone(), actor: by.clone(), op: op.clone(), never_within, after })
}

/// The order of a step, or of a group of steps that begin at the same moment, and how long the guest will
/// wait for it.
fn order(group: &[&PlannedStep], seed: u64, pace: f64) -> (Order, u64) {
    let step = group[0];
    let wait_ms = scaled(step.wait_ms, pace);
    let issues = || group.iter().filter_map(|step| issue(step)).collect::<Vec<_>>();
    match &step.action {
        Action::Start { .. } if step.together.is_some() => (Order::Together(issues()), 0),
        Action::Draw { of, for_ms, .. } => {
            let (for_ms, grace_ms) = (scaled(*for_ms, pace), scaled(GRACE_MS, pace));
            let stress = Stress { id: of.clone(), seed, for_ms, grace_ms, choices: issues() };
            (Order::Stress(stress), for_ms + grace_ms)
        }
        Action::Do { by, op } => {
            (Order::Do { step: step.id.clone(), actor: by.clone(), op: op.clone(), wait_ms }, step.wait_ms)
        }
        Action::Start { by, op } => {
            (Order::Start { step: step.id.clone(), actor: by.clone(), op: op.clone() }, 0)
        }
        Action::Use { .. } => unreachable!("a phrase that stands for nothing is not applicable by plan"),
        Action::PowerCut => unreachable!("the host does it"),
        Action::Await { step: awaited } => (Order::Await { step: awaited.clone(), wait_ms }, step.wait_ms),
        Action::Still { step: watched, for_ms } => {
            (Order::Still { step: watched.clone(), for_ms: scaled(*for_ms, pace) }, *for_ms)
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_agent_says_on_the_console_is_known() {
        let console = "[    1.0] x\r\nholdfast: the module virtio_pci is not loaded: ENOEXEC\r\n[    2.0] holdfast: ready\n";
        let said: Vec<String> = complaints(console).collect();
        assert_eq!(said, ["the module virtio_pci is not loaded: ENOEXEC"]);
    }

    #[test]
    fn a_slow_guest_breaks_leases_later() {
        let told = |pace| {
            let sysctl = [(LEASE_BREAK_TIME, "2"), ("vm.nr_hugepages", "2")];
            let sysctl = sysctl.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            let setup = Setup { sysctl, ..Setup::default() };
            at_pace(setup, pace).sysctl.into_values().collect::<Vec<_>>()
        };
        assert_eq!(told(1.0), ["2", "2"]);
        assert_eq!(told(1.9), ["2", "2"]);
        assert_eq!(told(5.7), ["10", "2"]);
    }
}
