// SPDX-License-Identifier: MIT OR Apache-2.0
//! Chooses an accelerator by running something in it under a deadline.
//!
//! `/dev/kvm` may exist, open, answer `KVM_CREATE_VM`, and still be useless. So a boot sector of a
//! few bytes is started with the CPU model of the real machine: it must end QEMU with a status of
//! its own choice, in time.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::QEMU;
use crate::outcome::bad_input;

/// How QEMU executes guest code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The host's processor, through `/dev/kvm`.
    Kvm,
    /// Translation; works everywhere.
    Tcg,
}

impl Kind {
    /// QEMU's name of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// An accelerator and why it was chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accelerator {
    /// Which.
    pub kind: Kind,
    /// In words; empty when there is nothing to say.
    pub why: String,
}

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// KVM where it works, TCG elsewhere.
    #[default]
    Auto,
    /// This one or none.
    Only(Kind),
}

/// The real-mode program: `mov dx,0x501; mov al,0x2a; out dx,al; hlt; jmp -3`.
const PROGRAM: [u8; 9] = [0xba, 0x01, 0x05, 0xb0, 0x2a, 0xee, 0xf4, 0xeb, 0xfd];
/// isa-debug-exit ends QEMU with `(value << 1) | 1` (hw/misc/debugexit.c).
const STATUS: i32 = (0x2a << 1) | 1;
/// The firmware takes 0.5 s under TCG and far less under KVM; one that hangs does so for ever.
const DEADLINE: Duration = Duration::from_secs(10);

/// The accelerator to use. The result of trying KVM is remembered in the cache, under what it
/// depends on; asking for one accelerator always tries it.
///
/// # Errors
/// Bad input when the one asked for does not work.
pub fn choose(cache: &Path, wish: Wish) -> Result<Accelerator> {
    match wish {
        Wish::Only(Kind::Tcg) => Ok(Accelerator { kind: Kind::Tcg, why: "asked for".into() }),
        Wish::Only(Kind::Kvm) => match probe(Kind::Kvm)? {
            Ok(()) => Ok(Accelerator { kind: Kind::Kvm, why: "asked for".into() }),
            Err(why) => Err(bad_input(format!("KVM does not work here: {why}; use --accel tcg, or auto"))),
        },
        Wish::Auto => remembered(cache),
    }
}

fn remembered(cache: &Path) -> Result<Accelerator> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(Accelerator { kind: Kind::Tcg, why: "there is no /dev/kvm".into() });
    }
    if let Err(error) = File::options().read(true).write(true).open("/dev/kvm") {
        let why = format!("/dev/kvm cannot be opened ({error}); members of the group kvm may");
        return Ok(Accelerator { kind: Kind::Tcg, why });
    }
    let file = cache.join("accelerator.json");
    let circumstances = circumstances()?;
    if let Ok(text) = fs::read_to_string(&file)
        && let Ok((then, accelerator)) = serde_json::from_str::<(String, Accelerator)>(&text)
        && then == circumstances
    {
        return Ok(accelerator);
    }
    let accelerator = match probe(Kind::Kvm)? {
        Ok(()) => Accelerator { kind: Kind::Kvm, why: String::new() },
        Err(why) => Accelerator { kind: Kind::Tcg, why: format!("/dev/kvm is there but does not work: {why}") },
    };
    // A cache that cannot be written costs a second next time, nothing else.
    let _ = fs::create_dir_all(cache);
    let _ = fs::write(&file, serde_json::to_string(&(circumstances, &accelerator))?);
    Ok(accelerator)
}

/// What the result of the probe depends on: QEMU, the user, the host kernel's boot.
fn circumstances() -> Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Ok(format!("{} {} {}", qemu_version()?, boot.trim(), nix::unistd::geteuid()))
}

/// The first line of `qemu-system-x86_64 --version`.
///
/// # Errors
/// When QEMU cannot be run.
pub fn qemu_version() -> Result<String> {
    let output = Command::new(QEMU).arg("--version").output().with_context(|| format!("cannot run {QEMU}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}

/// Runs the boot sector. The inner error says why the accelerator does not work.
fn probe(kind: Kind) -> Result<std::result::Result<(), String>> {
    let mut sector = tempfile::tempfile().context("cannot make a file for the accelerator probe")?;
    let mut bytes = [0u8; 512];
    bytes[..PROGRAM.len()].copy_from_slice(&PROGRAM);
    bytes[510..].copy_from_slice(&[0x55, 0xaa]);
    sector.write_all(&bytes).context("cannot write the accelerator probe's boot sector")?;
    // The file has no name that could be left behind; QEMU opens it through this process.
    let path = format!("/proc/{}/fd/{}", std::process::id(), sector.as_raw_fd());
    let drive = format!("if=none,id=sector,format=raw,readonly=on,file={path}");
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", QEMU, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
        .args(["-machine", &format!("q35,accel={}", kind.name()), "-cpu", "max", "-m", "64M"])
        .args(["-device", "isa-debug-exit", "-drive", &drive])
        .args(["-device", "ide-hd,drive=sector,bootindex=0"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run setpriv and {QEMU}"))?;
    let verdict = verdict(child);
    drop(sector);
    Ok(verdict)
}

fn verdict(mut child: Child) -> std::result::Result<(), String> {
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.code() == Some(STATUS) => return Ok(()),
            Ok(Some(status)) => {
                let output = child.wait_with_output().map(|output| output.stderr).unwrap_or_default();
                let text = String::from_utf8_lossy(&output).trim().lines().last().unwrap_or("").to_owned();
                // What an aborting QEMU prints is about its source, not about this machine.
                return Err(match status.code() {
                    Some(_) => format!("{status}: {text}"),
                    None => format!("QEMU ended with {status}"),
                });
            }
            Ok(None) if begun.elapsed() < DEADLINE => thread::sleep(Duration::from_millis(10)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("the firmware did not finish within {} s", DEADLINE.as_secs()));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_tells_working_from_hanging_and_failing() {
        let run = |program: &str, argument: &str| {
            let child = Command::new(program).args(["-c", argument]).stderr(Stdio::piped()).spawn();
            verdict(child.expect("sh runs"))
        };
        assert_eq!(run("sh", &format!("exit {STATUS}")), Ok(()));
        assert!(run("sh", "echo no such thing >&2; exit 1").unwrap_err().ends_with("no such thing"));
        assert!(run("sh", "exit 0").is_err(), "a QEMU that ends by itself has run nothing");
    }
}
