// SPDX-License-Identifier: MIT OR Apache-2.0
//! Plays one case on a machine of its own and records what was seen. Judges nothing: a step that
//! came back otherwise than hoped does not stop the next one.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use holdfast_protocol::{Fact, Order, Outcome, Reply};

use crate::judge::scaled;
use crate::machine::{Broken, CONSOLE, Cancel, Machine, Vm};
use crate::plan::{PlannedCase, PlannedStep};
use crate::record::{End, Record};
use crate::scenario::Action;
use crate::splat::splats;

/// Within this time, in milliseconds, a guest is ready on the reference machine (2 cores, TCG) also
/// when a second one boots beside it; alone it takes 1,500 (docs/performance.md). A guest that takes
/// twice as long gets twice the time for everything else.
pub const REFERENCE_HELLO_MS: f64 = 2_500.0;
/// A guest slower than this is not waited for as long as it would need.
const SLOWEST_PACE: f64 = 40.0;
/// Nothing is known of a guest's pace before its hello; a debug kernel needs 25 s.
const HELLO_DEADLINE: Duration = Duration::from_secs(90);
/// What an order may take beyond the wait it asks for, before pace.
const ORDER_SLACK_MS: u64 = 10_000;
/// Writing and syncing the files, starting the actors.
const PREPARE_MS: u64 = 20_000;
/// How long a killed actor may take to be gone.
const SETTLE_MS: u64 = 2_000;
/// Killing, counting, unmounting and checking two file systems.
const FINISH_MS: u64 = 60_000;

/// What is known of the kernel before it boots.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// `uname -r`.
    pub release: &'a str,
    /// The options it was asked for.
    pub requests: &'a [(String, String)],
}

/// Plays a case in `folder`; `say` hears what is being done.
pub async fn play(
    case: &PlannedCase,
    machine: &Machine,
    kernel: &Expected<'_>,
    folder: &Path,
    cancel: Cancel,
    say: &dyn Fn(&str),
) -> Record {
    let begun = Instant::now();
    let mut record = Record { release: kernel.release.to_owned(), ..Record::empty(End::Complete) };
    match Vm::spawn(machine, folder, cancel) {
        Err(error) => record.end = End::Fault { why: format!("{error:#}") },
        Ok(mut vm) => {
            let mut doing = "boot".to_owned();
            if let Err(broken) = conduct(case, kernel.requests, &mut vm, &mut record, &mut doing, say).await {
                record.end = end(broken, doing, &mut vm).await;
            }
            say("stop");
            let ended = vm.stop().await;
            if ended.contains("survived") {
                record.end = End::Fault { why: ended };
            }
        }
    }
    // The console may end in the middle of a character.
    let console = fs::read(folder.join(CONSOLE)).unwrap_or_default();
    record.console = splats(String::from_utf8_lossy(&console).lines());
    record.took_ms = millis(begun.elapsed());
    record
}

async fn end(broken: Broken, during: String, vm: &mut Vm) -> End {
    match broken {
        Broken::Ended(how) => End::QemuEnded { how, during },
        Broken::Deadline(after) => {
            let state = vm.state().await;
            let during = if state.is_empty() { during } else { format!("{during} (QEMU says: {state})") };
            End::Deadline { during, after_ms: millis(after) }
        }
        Broken::Cancelled => End::Cancelled,
        Broken::Fault(error) => End::Fault { why: format!("{during}: {error:#}") },
    }
}

async fn conduct(
    case: &PlannedCase,
    requests: &[(String, String)],
    vm: &mut Vm,
    record: &mut Record,
    doing: &mut String,
    say: &dyn Fn(&str),
) -> Result<(), Broken> {
    say(doing);
    match vm.hello(HELLO_DEADLINE).await? {
        Reply::Hello(hello) => {
            let after_ms = millis(vm.age());
            record.hello_after_ms = Some(after_ms);
            record.pace = (after_ms as f64 / REFERENCE_HELLO_MS).clamp(1.0, SLOWEST_PACE);
            if hello.protocol != holdfast_protocol::VERSION {
                let why = format!(
                    "the agent speaks protocol {}, this is {}",
                    hello.protocol,
                    holdfast_protocol::VERSION
                );
                return Err(Broken::Fault(anyhow::anyhow!(why)));
            }
            record.hello = Some(hello);
        }
        other => return Err(unexpected(&other)),
    }
    let pace = record.pace;
    let slack = |ms: u64| Duration::from_millis(scaled(ms + ORDER_SLACK_MS, pace));
    "the check of the kernel's configuration".clone_into(doing);
    let requests = requests.iter().map(|(option, value)| (bare(option), value.clone())).collect();
    match vm.exchange(&Order::CheckConfig { requests }, slack(0)).await? {
        Reply::Config(mismatches) => record.config = mismatches,
        other => return Err(unexpected(&other)),
    }
    "preparation".clone_into(doing);
    say(doing);
    match vm.exchange(&Order::Prepare(case.setup.clone()), slack(PREPARE_MS)).await? {
        Reply::Prepared(files) => record.files = files,
        other => return Err(unexpected(&other)),
    }
    for step in case.steps.iter().filter(|step| step.excluded.is_none()) {
        doing.clone_from(&step.id);
        say(&format!("{} {}", step.id, step.label()));
        let (order, wait_ms) = order(step, pace);
        let fact = match (vm.exchange(&order, slack(wait_ms)).await?, &step.action) {
            (Reply::Fact(fact), _) => fact,
            (Reply::Started { at_ms }, Action::Start { by, .. }) => Fact {
                step: step.id.clone(),
                actor: by.clone(),
                outcome: Outcome::Returned(0),
                at_ms,
                took_ms: 0,
            },
            (other, _) => return Err(unexpected(&other)),
        };
        record.facts.insert(step.id.clone(), fact);
    }
    "the standing oracles".clone_into(doing);
    say(doing);
    let finish = Order::Finish { settle_ms: scaled(SETTLE_MS, pace) };
    match vm.exchange(&finish, slack(FINISH_MS)).await? {
        Reply::Finished(oracles) => record.oracles = Some(oracles),
        other => return Err(unexpected(&other)),
    }
    Ok(())
}

/// The protocol names options as Kconfig does; requests carry the prefix of a `.config`.
fn bare(option: &str) -> String {
    option.strip_prefix("CONFIG_").unwrap_or(option).to_owned()
}

/// The order of a step, and how long the guest will wait for it.
fn order(step: &PlannedStep, pace: f64) -> (Order, u64) {
    let wait_ms = scaled(step.wait_ms, pace);
    match &step.action {
        Action::Do { by, op } => {
            (Order::Do { step: step.id.clone(), actor: by.clone(), op: op.clone(), wait_ms }, step.wait_ms)
        }
        Action::Start { by, op } => {
            (Order::Start { step: step.id.clone(), actor: by.clone(), op: op.clone() }, 0)
        }
        Action::Await { step: awaited } => (Order::Await { step: awaited.clone(), wait_ms }, step.wait_ms),
        Action::Still { step: watched, for_ms } => {
            (Order::Still { step: watched.clone(), for_ms: scaled(*for_ms, pace) }, *for_ms)
        }
    }
}

fn unexpected(reply: &Reply) -> Broken {
    Broken::Fault(match reply {
        Reply::Refused { why } => anyhow::anyhow!("the agent refused: {why}"),
        other => anyhow::anyhow!("the agent answered something else: {other:?}"),
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
