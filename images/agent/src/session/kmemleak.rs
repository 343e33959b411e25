// SPDX-License-Identifier: MIT OR Apache-2.0
//! kmemleak: memory that nothing in the kernel points to any more (Documentation/dev-tools/kmemleak.rst).
//! Only a kernel for debugging has it; elsewhere none of this costs more than a look for its file.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::thread::sleep;
use std::time::Duration;

use holdfast_protocol::Leaks;
use nix::errno::Errno;

use super::Beside;
use crate::clock::now_ms;
use crate::progress::Progress;

const FILE: &str = "/sys/kernel/debug/kmemleak";

/// An object younger than five seconds is not told (mm/kmemleak.c, MSECS_MIN_AGE); with some ticks to spare.
const MIN_AGE_MS: u64 = 5_100;

/// When a scan that has not returned counts as one that hangs: behind a lock that an oops left held.
const SCAN_TIMEOUT: Duration = Duration::from_secs(60);

/// How much of the list is told, in bytes: some hundred objects.
const MAX_LISTED_BYTES: u64 = 128 << 10;

/// The detector, and what kept it from looking.
pub(super) struct Kmemleak {
    file: File,
    /// Scans in a process of its own.
    scanner: Beside,
    /// What was lost before the case began is not told any more.
    forgot: bool,
    /// Empty while all went well.
    trouble: String,
}

impl Kmemleak {
    /// `None` where the kernel has none.
    ///
    /// # Errors
    /// When it has one that cannot be used.
    pub(super) fn find() -> Result<Option<Self>, String> {
        let file = match OpenOptions::new().read(true).write(true).open(FILE) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|error| format!("{FILE}: {error}"))?,
        };
        let ours = file.try_clone().map_err(|error| format!("{FILE}: {error}"))?;
        let scan = move || errno_of_writing(&ours, "scan");
        let scanner =
            Beside::start(c"kmemleak", scan).map_err(|errno| format!("a process to scan: {errno}"))?;
        Ok(Some(Self { file, scanner, forgot: false, trouble: String::new() }))
    }

    /// Once, before the first step: what the boot lost is nothing of the case's. Only what a scan has found
    /// can be cleared, and it finds nothing that is young.
    pub(super) fn forget(&mut self, progress: &Progress) {
        if std::mem::replace(&mut self.forgot, true) {
            return;
        }
        self.scan_twice(now_ms(), progress);
        if self.trouble.is_empty() {
            self.note("clear", errno_of_writing(&self.file, "clear"));
        }
    }

    /// What is unreferenced now and was allocated before `since_ms`. The second scan is for what was on its
    /// way from one place to another during the first one.
    pub(super) fn leaks(&mut self, since_ms: u64, progress: &Progress) -> Leaks {
        self.scan_twice(since_ms, progress);
        let listed = if self.trouble.is_empty() { list() } else { Err(self.trouble.clone()) };
        listed.map_or_else(|why| Leaks::Unknown { why }, Leaks::Listed)
    }

    fn scan_twice(&mut self, since_ms: u64, progress: &Progress) {
        self.scan(progress);
        sleep(Duration::from_millis((since_ms + MIN_AGE_MS).saturating_sub(now_ms())));
        self.scan(progress);
    }

    /// A scan that hung holds the lock of all the others: none is tried after it.
    fn scan(&mut self, progress: &Progress) {
        if self.trouble.is_empty() {
            self.note("scan", self.scanner.call(&progress.within(SCAN_TIMEOUT)));
        }
    }

    fn note(&mut self, what: &str, errno: i32) {
        if errno != 0 {
            // EPERM: it was switched off, by an argument or because it ran out of memory.
            self.trouble = format!("{FILE}: {what}: {}", Errno::from_raw(errno));
        }
    }
}

/// 0, or the errno.
fn errno_of_writing(mut file: &File, what: &str) -> i32 {
    file.write_all(what.as_bytes()).map_or_else(|error| error.raw_os_error().unwrap_or(libc::EIO), |()| 0)
}

fn list() -> Result<Vec<String>, String> {
    let mut bytes = Vec::new();
    let read = File::open(FILE).and_then(|file| file.take(MAX_LISTED_BYTES).read_to_end(&mut bytes));
    read.map_err(|error| format!("{FILE}: {error}"))?;
    Ok(String::from_utf8_lossy(&bytes).lines().map(|line| line.trim().to_owned()).collect())
}
