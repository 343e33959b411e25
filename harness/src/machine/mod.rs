// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine: what QEMU is given, how it is started, spoken to and stopped. Nothing else starts
//! or kills a VM.

pub mod accel;
mod command;
mod patience;
mod pmem;
mod qmp;
pub mod ready;
pub mod saved;
mod vm;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use holdfast_protocol::{Device, Place};

pub use command::{CONSOLE, GDB_SOCKET, Memory, Ports, SHELL_SOCKET, arguments, script};
pub(crate) use pmem::copy;
pub use saved::Saved;
pub use vm::{Broken, Cancel, Vm, cancel_pair};

use self::accel::Accelerator;
use crate::home::Home;
use crate::scratch::Scratch;

/// What a guest runs on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The emulator.
    pub qemu: PathBuf,
    /// How it executes.
    pub accelerator: Accelerator,
    /// Kernel image.
    pub kernel: PathBuf,
    /// initramfs.
    pub initrd: PathBuf,
    /// Kernel arguments added to Holdfast's own.
    pub append: String,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory without the pmem.
    pub memory_mib: u64,
    /// The NVDIMMs, in order.
    pub pmem: Vec<Device>,
    /// What its clock goes by.
    pub clock: Clock,
    /// What a person looks into it with.
    pub inside: Inside,
}

/// What a person looks into a machine with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// QEMU's gdb stub, on the socket [`GDB_SOCKET`] of the case's folder. It waits for a debugger's `continue`, and
    /// nothing has a deadline.
    pub gdb: bool,
    /// A virtio console, on the socket [`SHELL_SOCKET`] of the case's folder, for a shell in the guest.
    pub shell: bool,
}

/// What a guest's clock, and with it its time stamp counter, goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// The host's time.
    #[default]
    Host,
    /// Executed instructions, a nanosecond each. Only translation can count them. While the guest has nothing
    /// to do its clock goes by the host's.
    Instructions,
}

/// The emulator's name on the PATH.
pub const QEMU: &str = "qemu-system-x86_64";

/// The NVDIMMs of a case. XFS wants at least 300 MiB (mkfs.xfs); the others are as small as an
/// ext4 with a journal and a 16 MiB aligned namespace allow.
#[must_use]
pub fn default_pmem() -> Vec<Device> {
    vec![
        Device { place: Place::Ext4, size_mib: 128 },
        Device { place: Place::Xfs, size_mib: 320 },
        Device { place: Place::Devdax, size_mib: 64 },
    ]
}

/// Name of the backing file of an NVDIMM, in the case's folder.
#[must_use]
pub fn pmem_file(place: Place) -> &'static str {
    match place {
        Place::Ext4 => "pmem-ext4.img",
        Place::Xfs => "pmem-xfs.img",
        Place::Devdax => "pmem-devdax.img",
    }
}

/// Boots the machine with the terminal as its console, on pmem of its own, and waits for its end.
///
/// # Errors
/// When QEMU cannot be run or ends with an error.
pub fn interactive(home: &Home, machine: &Machine) -> Result<()> {
    let folder = Scratch::new(&home.cache, "shell")?;
    let path = folder.path().join("qemu.sh");
    std::fs::write(&path, script(machine)).with_context(|| format!("cannot write {}", path.display()))?;
    let mut command = Command::new("setpriv");
    // The script's own copies go there too: a later command removes what a killed one left.
    command.args(["--pdeathsig", "KILL", "sh"]).arg(&path).env("TMPDIR", folder.path());
    let status = command.status();
    let status = status.context("cannot run setpriv and sh")?;
    anyhow::ensure!(status.success(), "QEMU ended with {status}");
    Ok(())
}

/// Boots a kernel whose init powers off at once, and gives QEMU's whole life: what a boot is measured
/// against. The command line is fixed and never tuned: q35, SeaBIOS, `-cpu max`, one processor,
/// 512 MiB, no pmem, the kernel's console on a serial port.
///
/// # Errors
/// When QEMU cannot be run or ends with an error.
pub fn floor(machine: &Machine, image: &Path) -> Result<Duration> {
    let begun = Instant::now();
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", QEMU])
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
        .args(["-machine", &format!("q35,accel={}", machine.accelerator.kind.name())])
        .args(["-cpu", "max", "-smp", "1", "-m", "512M", "-serial", "null"])
        .arg("-kernel")
        .arg(&machine.kernel)
        .arg("-initrd")
        .arg(image)
        .args(["-append", "console=ttyS0 loglevel=5 oops=panic panic=-1 -- holdfast.floor"])
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run setpriv and {QEMU}"))?;
    anyhow::ensure!(status.success(), "the floor's QEMU ended with {status}");
    Ok(begun.elapsed())
}
