// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtio-serial port, found by its name, as a stream that outlives its host.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use holdfast_protocol::PORT_NAME;
use nix::poll::{PollFd, PollFlags, poll};

use crate::progress::Progress;

/// How long to wait for a host that is not connected before looking again. A restored copy of a
/// machine meets a new host.
const NO_HOST_WAIT: Duration = Duration::from_millis(5);

/// How long nothing may come before a drained port counts as empty.
const DRAIN_QUIET_MS: u8 = 100;

/// How long a driver that is a module may take to see its ports: it hears of them from the device.
const FOUND_TIMEOUT: Duration = Duration::from_secs(5);

/// The virtio console's device in its two forms, legacy and modern (virtio specification, 4.1.2).
const VIRTIO: &str = "0x1af4";
const CONSOLES: [&str; 2] = ["0x1003", "0x1043"];

/// Whether the machine has a device that ports belong to, driver or not.
#[must_use]
pub(crate) fn is_wired() -> bool {
    let is = |device: &std::path::Path, file: &str, ids: &[&str]| {
        fs::read_to_string(device.join(file)).is_ok_and(|id| ids.contains(&id.trim()))
    };
    let devices = fs::read_dir("/sys/bus/pci/devices").into_iter().flatten().filter_map(Result::ok);
    devices
        .map(|device| device.path())
        .any(|one| is(&one, "vendor", &[VIRTIO]) && is(&one, "device", &CONSOLES))
}

/// The node of the port with [`PORT_NAME`]; waits for it where the machine is wired for one.
#[must_use]
pub(crate) fn find(progress: &Progress) -> Option<PathBuf> {
    let limit = progress.within(FOUND_TIMEOUT);
    loop {
        let found = look();
        if found.is_some() || !is_wired() || limit.is_over() {
            return found;
        }
        sleep(NO_HOST_WAIT);
    }
}

fn look() -> Option<PathBuf> {
    let ports = fs::read_dir("/sys/class/virtio-ports").ok()?;
    ports.filter_map(Result::ok).find_map(|port| {
        let name = fs::read_to_string(port.path().join("name")).ok()?;
        (name.trim() == PORT_NAME).then(|| PathBuf::from("/dev").join(port.file_name()))
    })
}

/// An open port. A read waits for a host where the device would report an end of file.
#[derive(Debug)]
pub(crate) struct Port(File);

impl Port {
    /// Opens a port.
    ///
    /// # Errors
    /// What open(2) says.
    pub(crate) fn open(node: &PathBuf) -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).open(node).map(Self)
    }
}

impl Port {
    /// Throws away what arrives until nothing has come for a while: after a frame that was out of
    /// step, the next one begins where the host begins anew.
    pub(crate) fn drain(&mut self) {
        let mut buffer = [0u8; 4096];
        loop {
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            if !poll(&mut fds, DRAIN_QUIET_MS).is_ok_and(|ready| ready > 0) {
                return;
            }
            if !matches!(self.0.read(&mut buffer), Ok(1..)) {
                return;
            }
        }
    }
}

impl Read for Port {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Ok(0) if !buffer.is_empty() => sleep(NO_HOST_WAIT),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Write for Port {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
