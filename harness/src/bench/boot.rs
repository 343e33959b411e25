// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far a guest that boots is from the floor.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use holdfast_protocol::{Provider, Reply};
use serde::Serialize;

use super::{median, millis};
use crate::home::Home;
use crate::judge::unready;
use crate::machine::{Broken, Machine, Vm, floor};
use crate::outcome::Interrupted;
use crate::progress::Progress;
use crate::run::Interrupt;
use crate::scratch::Scratch;

/// Times of both boots, in milliseconds, in the order they were measured.
#[derive(Clone, Debug, Serialize)]
pub struct Boots {
    /// Version of this form.
    pub format: u32,
    /// The kernel.
    pub kernel: String,
    /// How QEMU executed.
    pub accelerator: String,
    /// QEMU's whole life around a kernel whose init powers off at once.
    pub floor_ms: Vec<u64>,
    /// From starting QEMU to the agent's hello with pmem, both file systems and RDMA ready.
    pub hello_ms: Vec<u64>,
    /// Median of [`floor_ms`](Self::floor_ms).
    pub floor_median_ms: u64,
    /// Median of [`hello_ms`](Self::hello_ms).
    pub hello_median_ms: u64,
    /// The second by the first.
    pub ratio: f64,
}

/// What a hello may cost, in floors.
pub(super) const GOAL: f64 = 1.2;
/// Longer than any boot that is worth measuring.
const DEADLINE: Duration = Duration::from_secs(120);

/// Measures `rounds` of each boot, alternating, so that a change of the host's load hits both.
///
/// # Errors
/// When a guest does not boot.
pub fn boots(
    home: &Home,
    machine: &Machine,
    floor_image: &Path,
    name: &str,
    rounds: u32,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<Boots> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bar = progress.bar("boots", Some(u64::from(rounds) * 2));
    let mut floor_ms = Vec::new();
    let mut hello_ms = Vec::new();
    for _ in 0..rounds {
        if interrupt.flag().load(Ordering::Relaxed) {
            return Err(Interrupted.into());
        }
        floor_ms.push(millis(floor(machine, floor_image)?));
        bar.step("floor");
        hello_ms.push(runtime.block_on(hello(home, machine, interrupt))?);
        bar.step("hello");
    }
    bar.finish("");
    let (floor_median_ms, hello_median_ms) = (median(&floor_ms), median(&hello_ms));
    Ok(Boots {
        format: 1,
        kernel: name.to_owned(),
        accelerator: machine.accelerator.kind.name().to_owned(),
        ratio: hello_median_ms as f64 / floor_median_ms.max(1) as f64,
        floor_ms,
        hello_ms,
        floor_median_ms,
        hello_median_ms,
    })
}

/// From making the NVDIMMs and starting QEMU to the agent's hello.
pub(super) async fn hello(home: &Home, machine: &Machine, interrupt: &Interrupt) -> Result<u64> {
    let folder = Scratch::new(&home.cache, "bench")?;
    let begun = Instant::now();
    let mut vm = Vm::boot(machine, folder.path(), interrupt.wish())?;
    let said = vm.hello(DEADLINE).await;
    let after = millis(begun.elapsed());
    vm.stop().await;
    let console = || fs::read_to_string(folder.path().join(crate::machine::CONSOLE)).unwrap_or_default();
    match said {
        Ok(Reply::Hello(hello)) => {
            // A guest that gave something up early is not a fast one.
            match unready(&hello, Provider::default()) {
                None => Ok(after),
                Some(why) => Err(anyhow::anyhow!(why)),
            }
        }
        Ok(other) => anyhow::bail!("the guest said something else than hello: {other:?}"),
        Err(Broken::Cancelled) => Err(Interrupted.into()),
        Err(broken) => anyhow::bail!("the guest did not say hello: {broken:?}\n{}", console()),
    }
}

impl fmt::Display for Boots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} under {}, {} rounds, milliseconds",
            self.kernel,
            self.accelerator,
            self.floor_ms.len()
        )?;
        writeln!(f, "         median  range")?;
        writeln!(f, "floor  {:8}  {}", self.floor_median_ms, super::range(&self.floor_ms))?;
        writeln!(f, "hello  {:8}  {}", self.hello_median_ms, super::range(&self.hello_ms))?;
        write!(f, "hello is {:.2} times the floor (goal: at most {GOAL})", self.ratio)
    }
}
