// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the standing oracles read: pins, regions, leases, the kernel log, the taint.
//!
//! Everything is opened at the end of the boot, once: to find a file of `/proc` is most of the work of
//! reading it, and every case would do it again.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use holdfast_protocol::{LogLine, PinCounts};

use crate::netlink::Resources;

/// The longest record of `/dev/kmsg` (PRINTK_MESSAGE_MAX and its header), with room to spare.
const RECORD_BYTES: usize = 16 << 10;

/// How much of a file of `/proc` is asked for at once, in bytes.
const CHUNK_BYTES: usize = 16 << 10;

/// Where the oracles look.
#[derive(Debug)]
pub(crate) struct Eyes {
    stat_refresh: File,
    vmstat: File,
    locks: File,
    tainted: File,
    clear_warn_once: File,
    kmsg: File,
    /// `None` where there is no RDMA link.
    resources: Option<Resources>,
}

impl Eyes {
    /// Opens all of it.
    ///
    /// # Errors
    /// What is not there: an oracle that cannot look must not say that it saw nothing.
    pub(crate) fn open(rdma: bool) -> Result<Self, String> {
        let open =
            |path: &str, options: &OpenOptions| options.open(path).map_err(|error| format!("{path}: {error}"));
        let (mut read, mut write, mut both) = (OpenOptions::new(), OpenOptions::new(), OpenOptions::new());
        read.read(true);
        write.write(true);
        both.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        let resources = rdma.then(Resources::open).transpose();
        Ok(Self {
            stat_refresh: open("/proc/sys/vm/stat_refresh", &write)?,
            vmstat: open("/proc/vmstat", &read)?,
            locks: open("/proc/locks", &read)?,
            tainted: open("/proc/sys/kernel/tainted", &read)?,
            clear_warn_once: open("/sys/kernel/debug/clear_warn_once", &write)?,
            kmsg: open("/dev/kmsg", &both)?,
            resources: resources.map_err(|errno| format!("rdma netlink: {errno}"))?,
        })
    }

    /// Long-term and other pins since boot. The counters are per CPU: only a write to `stat_refresh`
    /// makes them exact.
    ///
    /// # Errors
    /// When `/proc` does not have them.
    pub(crate) fn pins(&self) -> Result<PinCounts, String> {
        self.stat_refresh.write_at(b"1", 0).map_err(|error| format!("vm.stat_refresh: {error}"))?;
        let text = whole(&self.vmstat).map_err(|error| format!("/proc/vmstat: {error}"))?;
        pin_counts(&text).ok_or_else(|| "/proc/vmstat has no nr_foll_pin counters".to_owned())
    }

    /// Memory regions in the whole system.
    ///
    /// # Errors
    /// What the kernel answered.
    pub(crate) fn regions(&self) -> Result<u64, String> {
        let Some(resources) = &self.resources else { return Ok(0) };
        resources.regions().map_err(|errno| format!("counting memory regions: {errno}"))
    }

    /// True unless the kernel lists the regions of a device and one with this key is not among them.
    pub(crate) fn may_have_region(&self, device: &str, rkey: u32) -> bool {
        let listed = self.resources.as_ref().and_then(|resources| resources.list(device).ok());
        listed.is_none_or(|all| all.iter().any(|one| one.rkey.is_none_or(|listed| listed == rkey)))
    }

    /// Lines of `/proc/locks` that are leases or delegations.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn leases(&self) -> Result<Vec<String>, String> {
        let text = whole(&self.locks).map_err(|error| format!("/proc/locks: {error}"))?;
        let is_lease =
            |line: &&str| line.contains(" LEASE ") || line.contains(" DELEG ") || line.contains(" LAYOUT ");
        Ok(text.lines().filter(is_lease).map(ToOwned::to_owned).collect())
    }

    /// `/proc/sys/kernel/tainted`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn taint(&self) -> Result<u64, String> {
        let text = whole(&self.tainted).map_err(|error| format!("tainted: {error}"))?;
        text.trim().parse().map_err(|_| format!("tainted: {text:?}"))
    }

    /// Makes WARN_ON_ONCE fire again.
    ///
    /// # Errors
    /// What debugfs said.
    pub(crate) fn clear_warn_once(&self) -> Result<(), String> {
        // No write at an offset: debugfs cannot seek here.
        (&self.clear_warn_once).write_all(b"1").map_err(|error| format!("clear_warn_once: {error}"))
    }

    /// Goes to the end of the kernel log and writes a line there.
    ///
    /// # Errors
    /// When `/dev/kmsg` refuses.
    pub(crate) fn mark_log(&mut self, mark: &str) -> Result<(), String> {
        let at_end = self.kmsg.seek(SeekFrom::End(0));
        // KERN_INFO: in the log only. The console is slow, and the line would be the same in all of them.
        // With its line break: a record without one is not to be read before the next one is there
        // (kernel/printk/printk.c vprintk_store(), prb_commit() instead of prb_final_commit()).
        at_end
            .and_then(|_| self.kmsg.write_all(format!("<6>{mark}\n").as_bytes()))
            .map_err(|error| format!("/dev/kmsg: {error}"))
    }

    /// Has [`Self::log_since`] begin with the oldest line of the kernel log.
    ///
    /// # Errors
    /// When `/dev/kmsg` cannot be used.
    pub(crate) fn rewind_log(&mut self) -> Result<(), String> {
        self.kmsg.rewind().map_err(|error| format!("/dev/kmsg: {error}"))
    }

    /// The kernel log behind the mark, and whether nothing of it was lost.
    ///
    /// # Errors
    /// When `/dev/kmsg` cannot be read.
    pub(crate) fn log_since(&mut self, mark: &str) -> Result<(Vec<LogLine>, bool), String> {
        read_log(&mut self.kmsg, mark).map_err(|error| format!("/dev/kmsg: {error}"))
    }
}

/// Writes a line into the kernel log, at the level that the console shows unless it begins with another.
///
/// # Errors
/// When `/dev/kmsg` refuses.
pub(crate) fn mark_log(text: &str) -> Result<(), String> {
    let kmsg = OpenOptions::new().write(true).open("/dev/kmsg");
    kmsg.and_then(|mut kmsg| kmsg.write_all(text.as_bytes())).map_err(|error| format!("/dev/kmsg: {error}"))
}

/// All of a file of `/proc`, made anew by the read at its start.
fn whole(file: &File) -> io::Result<String> {
    let mut text = Vec::new();
    let mut buffer = [0u8; CHUNK_BYTES];
    loop {
        match file.read_at(&mut buffer, text.len() as u64)? {
            0 => break,
            len => text.extend(&buffer[..len]),
        }
    }
    String::from_utf8(text).map_err(|_| ErrorKind::InvalidData.into())
}

fn pin_counts(vmstat: &str) -> Option<PinCounts> {
    let value = |name: &str| -> Option<u64> {
        vmstat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    };
    Some(PinCounts { acquired: value("nr_foll_pin_acquired")?, released: value("nr_foll_pin_released")? })
}

/// Reads records, each with a read of its own, up to the end of the log: the lines behind the mark, or all
/// of them when it is not there, and whether the mark was there with all that followed it.
pub(crate) fn read_log(kmsg: &mut impl Read, mark: &str) -> io::Result<(Vec<LogLine>, bool)> {
    let mut lines: Vec<LogLine> = Vec::new();
    let (mut found, mut lost) = (false, false);
    let mut buffer = vec![0u8; RECORD_BYTES];
    loop {
        match kmsg.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => {
                for line in record(&String::from_utf8_lossy(&buffer[..len])) {
                    if !found && line.text == mark {
                        found = true;
                        lines.clear();
                    } else {
                        lines.push(line);
                    }
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // Records we had not read were overwritten: the next read goes on behind them.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => lost = true,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((lines, found && !lost))
}

/// The lines of one record: `6,339,5140900,-;text`, then ` KEY=value` lines, which are left out.
/// A line break within the text arrives as `\x0a`.
fn record(text: &str) -> Vec<LogLine> {
    let Some((header, body)) = text.split_once(';') else { return Vec::new() };
    let at_us = header.split(',').nth(2).and_then(|time| time.parse().ok()).unwrap_or(0);
    let first = body.lines().next().unwrap_or_default();
    first.split("\\x0a").map(|text| LogLine { at_us, text: text.to_owned() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `/dev/kmsg`: a record or an error a read.
    struct Kmsg(Vec<Result<&'static str, i32>>);

    impl Read for Kmsg {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let next = if self.0.is_empty() { Err(libc::EAGAIN) } else { self.0.remove(0) };
            let text = next.map_err(io::Error::from_raw_os_error)?;
            buffer[..text.len()].copy_from_slice(text.as_bytes());
            Ok(text.len())
        }
    }

    #[test]
    fn the_log_is_what_follows_its_mark() {
        let read = |records: &[Result<&'static str, i32>]| {
            let (lines, found) = read_log(&mut Kmsg(records.to_vec()), "begin").unwrap();
            (lines.into_iter().map(|line| line.text).collect::<Vec<_>>().join("|"), found)
        };
        type Case = (&'static [Result<&'static str, i32>], &'static str, bool);
        let table: [Case; 6] = [
            (&[Ok("6,1,1,-;begin"), Ok("6,2,2,-;a"), Ok("6,3,3,-;b")], "a|b", true),
            (&[Ok("6,0,1,-;in between"), Ok("6,1,1,-;begin")], "", true),
            (&[Ok("6,2,2,-;a")], "a", false),
            (&[Err(libc::EPIPE), Ok("6,9,2,-;a")], "a", false),
            // A hole behind the mark is no less a loss than that of the mark.
            (&[Ok("6,1,1,-;begin"), Err(libc::EPIPE), Ok("6,9,2,-;a")], "a", false),
            (&[Ok("6,1,1,-;begin"), Err(libc::EINTR), Ok("6,2,2,-;begin")], "begin", true),
        ];
        for (records, text, found) in table {
            assert_eq!(read(records), (text.to_owned(), found), "{records:?}");
        }
    }

    #[test]
    fn a_file_of_proc_is_read_anew_each_time() {
        let file = File::open("/proc/self/stat").unwrap();
        let (first, second) = (whole(&file).unwrap(), whole(&file).unwrap());
        assert_eq!(first.split(' ').next(), second.split(' ').next());
        assert!(first.ends_with('\n'));
        assert!(whole(&File::open("/proc/vmstat").unwrap()).unwrap().contains("nr_free_pages"));
    }

    #[test]
    fn a_record_gives_its_text_and_time() {
        let lines = record("6,339,5140900,-;WARNING: CPU: 0\n SUBSYSTEM=acpi\n DEVICE=+acpi:PNP\n");
        assert_eq!(lines, [LogLine { at_us: 5_140_900, text: "WARNING: CPU: 0".to_owned() }]);
        assert_eq!(record("4,1,2,-;a\\x0ab").len(), 2);
        assert!(record("nonsense").is_empty());
    }

    #[test]
    fn pins_are_read_by_whole_names() {
        let text = "nr_foll_pin_acquired_x 9\nnr_foll_pin_acquired 753\nnr_foll_pin_released 748\n";
        assert_eq!(pin_counts(text), Some(PinCounts { acquired: 753, released: 748 }));
        assert_eq!(pin_counts("nr_free_pages 1\n"), None);
    }
}
