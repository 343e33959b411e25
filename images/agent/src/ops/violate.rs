// SPDX-License-Identifier: MIT OR Apache-2.0
//! Breaking on purpose what the standing oracles watch, and the keeper: a process that outlives
//! its actor with a pin, a memory region, a lease or an open file.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use holdfast_protocol::{Outcome, Violation};
use nix::errno::Errno;

use crate::actor::{Actor, Done, Stop, not_issued};
use crate::sys::{self, Mapping};
use crate::verbs::Device;
use crate::wire::More;

/// LKDTM's trigger.
const LKDTM: &str = "/sys/kernel/debug/provoke-crash/DIRECT";

/// What a keeper holds, in bytes.
const KEPT_BYTES: usize = 16 * 4096;

/// Breaks one thing.
pub(crate) fn violate(actor: &Actor, what: Violation) -> Result<Done, Stop> {
    match what {
        Violation::Warn => lkdtm("WARNING"),
        Violation::Panic => lkdtm("PANIC"),
        Violation::Hang => lkdtm("HARDLOCKUP"),
        Violation::StickTask => lkdtm("HUNG_TASK"),
        Violation::LeakPin => keeper(&["pin"]).map(kept),
        Violation::LeaveLease => keeper(&["lease", first_file(actor)?]).map(kept),
        // Not told to the session: it would end this one before it unmounts.
        Violation::HoldMount => keeper(&["open", first_file(actor)?]).map(|_| Done::default()),
        Violation::LeaveRegion => {
            let link = actor.part.rdma.as_ref().ok_or_else(|| not_issued("the RDMA link is not ready"))?;
            keeper(&["region", &link.device]).map(kept)
        }
        Violation::CorruptExt4 | Violation::CorruptXfs => {
            Err(not_issued("the session corrupts, when it has unmounted"))
        }
    }
}

fn lkdtm(crash: &str) -> Result<Done, Stop> {
    fs::write(LKDTM, crash).map_err(errno_of)?;
    Ok(Done::default())
}

fn first_file(actor: &Actor) -> Result<&str, Stop> {
    let file = actor.part.files.values().next().and_then(|file| file.path.to_str());
    file.ok_or_else(|| not_issued("no file is declared"))
}

/// The session is told of a keeper, and ends it when the oracles were read.
fn kept(pid: i32) -> Done {
    Done { more: More::Keeper(pid), ..Done::default() }
}

/// Starts a keeper and waits until it holds what it is to hold; its pid.
fn keeper(what: &[&str]) -> Result<i32, Stop> {
    let trouble = |error: std::io::Error| not_issued(format!("starting a keeper: {error}"));
    let mut child = Command::new(std::env::current_exe().map_err(trouble)?)
        .arg("keeper")
        .args(what)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(trouble)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(trouble)?;
    }
    match line.trim().parse::<i32>() {
        Ok(0) => i32::try_from(child.id()).map_err(|_| not_issued("the keeper has no pid")),
        Ok(errno) => Err(Stop(Outcome::Errno(errno))),
        Err(_) => Err(not_issued("the keeper ended before it held anything")),
    }
}

/// The life of a keeper: takes hold, says 0 or an errno on standard output, waits to be killed.
pub(crate) fn run_keeper(what: &[&str]) -> ! {
    let held = hold(what);
    let errno = held.as_ref().map_or_else(|errno| *errno as i32, |_| 0);
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{errno}");
    let _ = out.flush();
    if held.is_err() {
        sys::exit_now(1);
    }
    loop {
        nix::unistd::pause();
    }
}

/// Whatever is returned must live as long as the process.
fn hold(what: &[&str]) -> Result<Box<dyn std::any::Any>, Errno> {
    match what {
        ["pin"] => {
            let gup = super::gup::open_gup_test()?;
            sys::gup_pin(gup.as_fd(), memory()?, 0, KEPT_BYTES, true)?;
            Ok(Box::new(gup))
        }
        ["region", device] => {
            let device = Device::open(device)?;
            let region = device.register(memory()?, 0)?;
            Ok(Box::new((device, region)))
        }
        ["lease", path] => {
            let file = fs::File::open(path).map_err(errno_of)?;
            sys::fcntl(file.as_fd(), libc::F_SETLEASE, libc::F_RDLCK.into())?;
            Ok(Box::new(file))
        }
        ["open", path] => Ok(Box::new(fs::File::open(path).map_err(errno_of)?)),
        _ => Err(Errno::EINVAL),
    }
}

fn memory() -> Result<Mapping, Errno> {
    let map = Mapping::new(KEPT_BYTES, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None, 0)?;
    map.populate(true)?;
    Ok(map)
}

fn errno_of(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
