// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a kernel costs those who do not ask for what is new in it, counted in instructions of the guest.
//!
//! A machine whose clock counts instructions repeats each body of operations, round after round; the actor
//! reads the time stamp counter around each operation, and nobody else has anything to do. Counts do not
//! depend on how busy the host is. Every machine is booted: two copies of a saved one would agree with each
//! other whatever chance the boot brings in, and the control would show nothing.

mod bodies;
mod figures;

use std::fs;
use std::time::Duration;

use anyhow::{Result, anyhow};
use holdfast_protocol::{Issue, Order, Outcome, Provider, Reply};

pub use figures::{Costs, Figure};

use self::bodies::{Bodies, Body, Line};
use self::figures::{Counted, Round};
use crate::home::Home;
use crate::judge::{unproved, unready};
use crate::machine::ready::{self, unexpected};
use crate::machine::{Broken, CONSOLE, Clock, Machine, Vm};
use crate::outcome::Interrupted;
use crate::progress::{Bar, Progress};
use crate::run::Interrupt;
use crate::scratch::Scratch;

/// With less than 512 MiB left to it a kernel makes no huge pages of its own accord (mm/huge_memory.c
/// hugepage_init()).
const MEMORY_MIB: u64 = 768;
/// Writing the files, starting the actors.
const PREPARE_DEADLINE: Duration = Duration::from_secs(60);
/// What is done around a body.
const STEP_MS: u64 = 20_000;
/// One round: it takes seconds.
const ROUND_DEADLINE: Duration = Duration::from_secs(300);

/// One of the two kernels.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// Its name.
    pub name: &'a str,
    /// The machine it boots on, but for its clock and memory. Translation runs it: nothing else counts.
    pub machine: &'a Machine,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Much {
    /// Machines of each kernel, two at least: without a second one there is no control.
    pub machines: u32,
    /// Rounds on each machine.
    pub rounds: u32,
    /// Repetitions in a round.
    pub times: u32,
}

/// Measures a kernel against another one, machine by machine in turn.
///
/// # Errors
/// When a guest does not boot, or an operation does not succeed.
pub fn costs(
    home: &Home,
    kernel: Side<'_>,
    against: Side<'_>,
    much: Much,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<Costs> {
    let bodies = Bodies::read()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rounds = u64::from(much.machines) * 2 * bodies.bodies.len() as u64 * u64::from(much.rounds + 1);
    let bar = progress.bar("rounds", Some(rounds));
    let mut counted: Vec<Counted> = bodies.bodies.iter().flat_map(nothing_yet).collect();
    for nr in 0..u64::from(much.machines) {
        // Another seed for every machine, the same for both kernels.
        let on = |side| runtime.block_on(on_machine(home, side, &bodies, much, nr, &bar, interrupt));
        for (all, rounds) in counted.iter_mut().zip(on(against)?) {
            all.against.push(rounds);
        }
        for (all, rounds) in counted.iter_mut().zip(on(kernel)?) {
            all.kernel.push(rounds);
        }
    }
    bar.finish("");
    Ok(Costs {
        format: 1,
        kernel: kernel.name.to_owned(),
        against: against.name.to_owned(),
        machines: much.machines,
        rounds: much.rounds,
        times: much.times,
        figures: counted.into_iter().map(Figure::of).collect(),
    })
}

/// Places for what each counted operation of a body comes to.
fn nothing_yet(body: &Body) -> impl Iterator<Item = Counted> {
    body.body.iter().filter_map(|line| line.counts.as_ref()).map(|what| Counted {
        about: body.about.clone(),
        what: what.clone(),
        against: Vec::new(),
        kernel: Vec::new(),
    })
}

/// The rounds of every counted operation on a machine that is booted for them.
async fn on_machine(
    home: &Home,
    side: Side<'_>,
    bodies: &Bodies,
    much: Much,
    seed: u64,
    bar: &Bar,
    interrupt: &Interrupt,
) -> Result<Vec<Vec<Round>>> {
    let folder = Scratch::new(&home.cache, "bench")?;
    let machine = Machine { clock: Clock::Instructions, memory_mib: MEMORY_MIB, ..side.machine.clone() };
    let mut vm = Vm::boot(&machine, folder.path(), interrupt.wish())?;
    let counted = count(&mut vm, bodies, much, seed, bar).await;
    vm.stop().await;
    counted.map_err(|broken| match broken {
        Broken::Cancelled => Interrupted.into(),
        other => {
            let console = fs::read(folder.path().join(CONSOLE)).unwrap_or_default();
            let console = String::from_utf8_lossy(&console);
            anyhow!("{}: {}\n{console}", side.name, other.in_words(folder.path()))
        }
    })
}

async fn count(
    vm: &mut Vm,
    bodies: &Bodies,
    much: Much,
    seed: u64,
    bar: &Bar,
) -> Result<Vec<Vec<Round>>, Broken> {
    let hello = ready::hello(vm).await?;
    if let Some(why) = unready(&hello, Provider::default()) {
        return Err(Broken::Fault(anyhow!(why)));
    }
    let pace = ready::pace(vm);
    ready::settle(vm, pace).await?;
    ready::wake(vm, seed).await?;
    match vm.exchange(&Order::Prepare(bodies.setup.clone()), PREPARE_DEADLINE).await? {
        Reply::Prepared(files) => {
            if let Some(why) = files.iter().find_map(unproved) {
                return Err(Broken::Fault(anyhow!(why)));
            }
        }
        other => return Err(unexpected(&other)),
    }
    let mut counted = Vec::new();
    for body in &bodies.bodies {
        for line in &body.before {
            once(vm, line).await?;
        }
        counted.extend(repeat(vm, body, much, bar).await?);
        for line in &body.after {
            once(vm, line).await?;
        }
    }
    Ok(counted)
}

/// Does one operation, which must succeed.
async fn once(vm: &mut Vm, line: &Line) -> Result<(), Broken> {
    let Issue { step, actor, op, .. } = line.issue();
    let order = Order::Do { step, actor, op, wait_ms: STEP_MS };
    match vm.exchange(&order, Duration::from_millis(2 * STEP_MS)).await? {
        Reply::Fact(fact) if matches!(fact.outcome, Outcome::Returned(_)) => Ok(()),
        Reply::Fact(fact) => {
            Err(Broken::Fault(anyhow!("{} by {} came to {:?}", fact.step, fact.actor, fact.outcome)))
        }
        other => Err(unexpected(&other)),
    }
}

/// The rounds of a body by its counted operations. One more is played ahead: what is done for the first time
/// costs more.
async fn repeat(vm: &mut Vm, body: &Body, much: Much, bar: &Bar) -> Result<Vec<Vec<Round>>, Broken> {
    let order = Order::Repeat { body: body.body.iter().map(Line::issue).collect(), times: much.times };
    let counts = || body.body.iter().map(|line| line.counts.is_some());
    let mut counted = vec![Vec::new(); counts().filter(|counts| *counts).count()];
    for nr in 0..=much.rounds {
        let (ticks, idle_ns) = match vm.exchange(&order, ROUND_DEADLINE).await? {
            Reply::Repeated { ticks, idle_ns: Some(idle_ns) } => (ticks, idle_ns),
            Reply::Repeated { idle_ns: None, .. } => {
                return Err(Broken::Fault(anyhow!(
                    "this kernel does not tell in /proc/timer_list how long its processor had nothing to do"
                )));
            }
            other => return Err(unexpected(&other)),
        };
        bar.step(&body.about);
        if nr > 0 {
            let ticks = ticks.into_iter().zip(counts()).filter_map(|(ticks, counts)| counts.then_some(ticks));
            for (rounds, instructions) in counted.iter_mut().zip(ticks) {
                rounds.push(Round { instructions, idle_ns });
            }
        }
    }
    Ok(counted)
}
