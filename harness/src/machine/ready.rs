// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first words with a guest: when it has booted, and when it is to be told from its copies.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdfast_protocol::{Awake, ConfigMismatch, Hello, Order, Reply, VERSION};

use super::vm::{Broken, Vm};

/// Nothing is known of a guest's pace before its hello; a debug kernel needs 25 s.
const HELLO_DEADLINE: Duration = Duration::from_secs(90);
/// Reading `/proc/config.gz`, or setting a clock; a debug kernel needs a second.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);

/// Waiting for the clock, and for kmemleak's two scans where a kernel has it; before pace.
const SETTLE_DEADLINE: Duration = Duration::from_secs(20);

/// Within this time, in milliseconds in which it could use a processor, a guest is ready on the reference
/// machine (2 cores, TCG) also when a second one boots beside it; on that machine's slow days it is about what
/// it takes alone (docs/performance.md). A guest that takes twice as long, as one with a debug kernel does, gets twice the
/// time for everything else.
const REFERENCE_HELLO_MS: f64 = 2_000.0;
/// A guest slower than this is not waited for as long as it would need.
const SLOWEST_PACE: f64 = 40.0;

/// How slow a guest was that has just said hello. What its host made it wait does not count: a saved machine
/// would keep the pace of a busy minute.
#[must_use]
pub fn pace(vm: &mut Vm) -> f64 {
    if vm.is_debugged() {
        // How long a person took to let it go on says nothing of it.
        return 1.0;
    }
    let used = vm.age().saturating_sub(vm.lost());
    (used.as_secs_f64() * 1000.0 / REFERENCE_HELLO_MS).clamp(1.0, SLOWEST_PACE)
}

/// Waits for the guest's introduction.
///
/// # Errors
/// See [`Broken`].
pub async fn hello(vm: &mut Vm) -> Result<Hello, Broken> {
    match vm.hello(HELLO_DEADLINE).await? {
        Reply::Hello(hello) if hello.protocol == VERSION => Ok(hello),
        Reply::Hello(hello) => Err(Broken::Fault(anyhow::anyhow!(
            "the agent speaks protocol {}, this is {VERSION}",
            hello.protocol
        ))),
        other => Err(unexpected(&other)),
    }
}

/// Compares the running kernel's configuration with what was asked for.
///
/// # Errors
/// See [`Broken`].
pub async fn check_config(vm: &mut Vm, requests: &[(String, String)]) -> Result<Vec<ConfigMismatch>, Broken> {
    // A kernel that does not carry its configuration was looked at on the host.
    if requests.is_empty() {
        return Ok(Vec::new());
    }
    // The protocol names options as Kconfig does; requests carry the prefix of a `.config`.
    let bare = |option: &str| option.strip_prefix("CONFIG_").unwrap_or(option).to_owned();
    let requests = requests.iter().map(|(option, value)| (bare(option), value.clone())).collect();
    match vm.exchange(&Order::CheckConfig { requests }, ANSWER_DEADLINE).await? {
        Reply::Config(mismatches) => Ok(mismatches),
        other => Err(unexpected(&other)),
    }
}

/// Lets the guest finish what a boot leaves going on: what is saved with it would happen in every copy.
///
/// # Errors
/// See [`Broken`].
pub async fn settle(vm: &mut Vm, pace: f64) -> Result<(), Broken> {
    match vm.exchange(&Order::Settle, SETTLE_DEADLINE.mul_f64(pace)).await? {
        Reply::Settled => Ok(()),
        other => Err(unexpected(&other)),
    }
}

/// Gives the guest the time and randomness of its own.
///
/// # Errors
/// See [`Broken`].
pub async fn wake(vm: &mut Vm, seed: u64) -> Result<Awake, Broken> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let unix_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    match vm.exchange(&Order::Wake { unix_ns, seed }, ANSWER_DEADLINE).await? {
        Reply::Awake(awake) => Ok(awake),
        other => Err(unexpected(&other)),
    }
}

/// Starts the case's machine as a copy of a saved one.
///
/// # Errors
/// See [`Broken`]; also when what answers is no copy of that machine.
pub async fn resume(vm: &mut Vm, saved: &super::Saved, seed: u64) -> Result<Awake, Broken> {
    vm.resume(saved, ANSWER_DEADLINE).await?;
    let awake = wake(vm, seed).await?;
    if awake.boot_id != saved.hello().boot_id {
        return Err(Broken::Fault(anyhow::anyhow!("what answers is another machine")));
    }
    Ok(awake)
}

/// A reply to something else, or a refusal.
#[must_use]
pub fn unexpected(reply: &Reply) -> Broken {
    Broken::Fault(match reply {
        Reply::Unknown { why } => return Broken::Unknown(why.clone()),
        Reply::Refused { why } => anyhow::anyhow!("the agent refused: {why}"),
        other => anyhow::anyhow!("the agent answered something else: {other:?}"),
    })
}
