// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long others take to say what kernel runs, paired run by run with a boot and a restore of ours.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::boot::{GOAL, hello};
use super::{median, millis, range, save_anew};
use crate::home::Home;
use crate::kernel::Built;
use crate::machine::ready;
use crate::machine::{Broken, Machine, Saved, Vm, floor};
use crate::outcome::{Interrupted, bad_input};
use crate::progress::Progress;
use crate::run::Interrupt;
use crate::scratch::{self, Scratch};

/// The release of virtme-ng that is installed where there is none.
const VIRTME_NG: &str = "1.42";
/// A guest that says nothing for so long says nothing.
const DEADLINE: Duration = Duration::from_secs(180);
/// How often to look.
const STEP: Duration = Duration::from_millis(2);

/// What a restore may cost of virtme-ng's `uname -r`.
const RESTORE_GOAL: f64 = 40.0;

/// Times in milliseconds, in the order they were measured; each round has one of each.
#[derive(Clone, Debug, Serialize)]
pub struct Peers {
    /// Version of this form.
    pub format: u32,
    /// The kernel that all of them boot.
    pub kernel: String,
    /// How QEMU executed.
    pub accelerator: String,
    /// What the peer says of its version.
    pub peer: String,
    /// QEMU's whole life around a kernel whose init powers off at once.
    pub floor_ms: Vec<u64>,
    /// From starting QEMU to the agent's hello, which has `uname -r`, with all file systems and links ready.
    pub cold_ms: Vec<u64>,
    /// From starting a copy of a saved machine to its first answer.
    pub restore_ms: Vec<u64>,
    /// `vng --run IMAGE --disable-kvm -- uname -r`, from its start to its end.
    pub virtme_ng_ms: Vec<u64>,
    /// Median of the rounds' quotients of cold boot and floor.
    pub cold_by_floor: f64,
    /// Median of the rounds' quotients of virtme-ng and cold boot.
    pub virtme_ng_by_cold: f64,
    /// Median of the rounds' quotients of virtme-ng and restore.
    pub virtme_ng_by_restore: f64,
}

/// Measures `rounds` of each in turn, so that a change of the host's load hits all of them.
///
/// # Errors
/// Bad input when there is no virtme-ng and none may be installed; otherwise when something does not boot or says that
/// it runs another kernel.
#[expect(clippy::too_many_arguments, reason = "what is measured, and how; nothing shares them")]
pub fn peers(
    home: &Home,
    machine: &Machine,
    built: &Built,
    floor_image: &Path,
    rounds: u32,
    offline: bool,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<Peers> {
    let vng = virtme_ng(home, offline, progress)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cache = Scratch::new(&home.cache, "bench-save")?;
    let saved = runtime.block_on(save_anew(home, &cache, machine, built, interrupt))?;
    let bar = progress.bar("peers", Some(u64::from(rounds) * 4));
    let [mut floor_ms, mut cold_ms, mut restore_ms, mut virtme_ng_ms] = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        floor_ms.push(millis(floor(machine, floor_image)?));
        bar.step("floor");
        cold_ms.push(runtime.block_on(hello(home, machine, interrupt))?);
        bar.step("cold boot");
        restore_ms.push(runtime.block_on(restore(home, machine, &saved, interrupt))?);
        bar.step("restore");
        virtme_ng_ms.push(uname(home, &vng, &machine.kernel, &built.manifest.release, interrupt)?);
        bar.step("virtme-ng");
    }
    bar.finish("");
    let version = Command::new(&vng).arg("--version").output();
    Ok(Peers {
        format: 1,
        kernel: built.manifest.name.clone(),
        accelerator: machine.accelerator.kind.name().to_owned(),
        peer: version.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned()).unwrap_or_default(),
        cold_by_floor: quotient(&cold_ms, &floor_ms),
        virtme_ng_by_cold: quotient(&virtme_ng_ms, &cold_ms),
        virtme_ng_by_restore: quotient(&virtme_ng_ms, &restore_ms),
        floor_ms,
        cold_ms,
        restore_ms,
        virtme_ng_ms,
    })
}

/// The median of what each round says.
fn quotient(of: &[u64], by: &[u64]) -> f64 {
    let thousandths: Vec<u64> = of.iter().zip(by).map(|(of, by)| of * 1000 / by.max(&1)).collect();
    median(&thousandths) as f64 / 1000.0
}

/// From starting a copy to its first answer.
async fn restore(home: &Home, machine: &Machine, saved: &Saved, interrupt: &Interrupt) -> Result<u64> {
    let folder = Scratch::new(&home.cache, "bench")?;
    let begun = Instant::now();
    let mut vm = Vm::copy(machine, saved, folder.path(), interrupt.wish())?;
    let answer = ready::resume(&mut vm, saved, 1).await;
    let took = millis(begun.elapsed());
    vm.stop().await;
    match answer {
        Ok(_) => Ok(took),
        Err(Broken::Cancelled) => Err(Interrupted.into()),
        Err(broken) => bail!("a copy did not come up: {}", broken.in_words(folder.path())),
    }
}

/// virtme-ng of the PATH, or one of our own, installed into the cache.
fn virtme_ng(home: &Home, offline: bool, progress: &Progress) -> Result<PathBuf> {
    if let Some(found) = crate::image::find_tool("vng") {
        return Ok(found);
    }
    let folder = home.cache.join("peers").join(format!("virtme-ng-{VIRTME_NG}"));
    let vng = folder.join("bin/vng");
    if vng.is_file() {
        return Ok(vng);
    }
    if offline {
        return Err(bad_input(format!(
            "virtme-ng is not installed; without --offline `pip install virtme-ng=={VIRTME_NG}` would fetch it"
        )));
    }
    progress.say(format!("installing virtme-ng {VIRTME_NG} into {}", folder.display()));
    scratch::create_dir(&folder)?;
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv"]).arg(&folder);
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args(["install", "--quiet", &format!("virtme-ng=={VIRTME_NG}")]);
    for mut command in [venv, pip] {
        let output = command.stdin(Stdio::null()).output();
        let output =
            output.with_context(|| format!("{command:?} cannot be run: install python3 and python3-venv"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command:?}: {}: {}", output.status, said.trim());
    }
    Ok(vng)
}

/// The whole life of virtme-ng with that command. It wants a terminal, which script(1) gives it. What the command says
/// goes to a file of the host's: virtme-ng finds its own way out only where udevd has named its ports, and then waits
/// for udevd. Its exit status says which way it took, and is not looked at.
fn uname(home: &Home, vng: &Path, kernel: &Path, release: &str, interrupt: &Interrupt) -> Result<u64> {
    let folder = Scratch::new(&home.cache, "bench")?;
    let (said, log) = (folder.path().join("said"), folder.path().join("log"));
    let own = vng.parent().context("vng lies in a folder")?.display().to_string();
    let path = format!("{own}:{}", std::env::var("PATH").unwrap_or_default());
    let place = folder.path().display();
    let line = format!(
        "vng --run '{}' --disable-kvm --rwdir '{place}' -- 'uname -r > {}'",
        kernel.display(),
        said.display()
    );
    let begun = Instant::now();
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "script", "--quiet", "--command", &line])
        .arg(&log)
        .current_dir(folder.path())
        .env("PATH", path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run setpriv and script")?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if begun.elapsed() > DEADLINE || interrupt.flag().load(Ordering::Relaxed) {
            child.kill()?;
            child.wait()?;
            ensure!(begun.elapsed() > DEADLINE, Interrupted);
            bail!("virtme-ng said nothing within {} s: {line}", DEADLINE.as_secs());
        }
        std::thread::sleep(STEP);
    };
    let took = millis(begun.elapsed());
    let text = |path: &Path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
    let said = text(&said).unwrap_or_default();
    let log = || text(&log).unwrap_or_default();
    ensure!(said == release, "virtme-ng said `{said}` instead of {release} ({status}): {line}\n{}", log());
    Ok(took)
}

impl fmt::Display for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds = self.floor_ms.len();
        writeln!(
            f,
            "{} under {}, {rounds} rounds, milliseconds; {}",
            self.kernel, self.accelerator, self.peer
        )?;
        writeln!(f, "               median  range")?;
        for (name, values) in [
            ("floor", &self.floor_ms),
            ("cold boot", &self.cold_ms),
            ("restore", &self.restore_ms),
            ("virtme-ng", &self.virtme_ng_ms),
        ] {
            writeln!(f, "{name:13}{:8}  {}", median(values), range(values))?;
        }
        writeln!(f, "round by round, medians:")?;
        writeln!(f, "a cold boot is {:.2} floors (goal: at most {GOAL})", self.cold_by_floor)?;
        writeln!(f, "virtme-ng takes {:.2} cold boots", self.virtme_ng_by_cold)?;
        write!(
            f,
            "virtme-ng takes {:.1} restores (goal: at least {RESTORE_GOAL:.0})",
            self.virtme_ng_by_restore
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_compared_one_by_one() {
        // The medians' quotient would be 2.
        assert!((quotient(&[100, 200, 900], &[10, 100, 300]) - 3.0).abs() < 1e-9);
    }
}
