// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the standing oracles read: pins, leases, the kernel log, the taint.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;

use holdfast_protocol::{LogLine, PinCounts};

/// The longest record of `/dev/kmsg` (PRINTK_MESSAGE_MAX and its header), with room to spare.
const RECORD_BYTES: usize = 16 << 10;

/// Long-term and other pins since boot. The counters are per CPU: only a write to `stat_refresh`
/// makes them exact.
///
/// # Errors
/// When `/proc` does not have them.
pub(crate) fn pins() -> Result<PinCounts, String> {
    fs::write("/proc/sys/vm/stat_refresh", "1").map_err(|error| format!("vm.stat_refresh: {error}"))?;
    let text = fs::read_to_string("/proc/vmstat").map_err(|error| format!("/proc/vmstat: {error}"))?;
    pin_counts(&text).ok_or_else(|| "/proc/vmstat has no nr_foll_pin counters".to_owned())
}

fn pin_counts(vmstat: &str) -> Option<PinCounts> {
    let value = |name: &str| -> Option<u64> {
        vmstat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    };
    Some(PinCounts { acquired: value("nr_foll_pin_acquired")?, released: value("nr_foll_pin_released")? })
}

/// Lines of `/proc/locks` that are leases or delegations.
///
/// # Errors
/// When it cannot be read: an oracle that cannot look must not say that it saw nothing.
pub(crate) fn leases() -> Result<Vec<String>, String> {
    let text = fs::read_to_string("/proc/locks").map_err(|error| format!("/proc/locks: {error}"))?;
    let is_lease =
        |line: &&str| line.contains(" LEASE ") || line.contains(" DELEG ") || line.contains(" LAYOUT ");
    Ok(text.lines().filter(is_lease).map(ToOwned::to_owned).collect())
}

/// `/proc/sys/kernel/tainted`.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn taint() -> Result<u64, String> {
    let text = fs::read_to_string("/proc/sys/kernel/tainted").map_err(|error| format!("tainted: {error}"))?;
    text.trim().parse().map_err(|_| format!("tainted: {text:?}"))
}

/// Makes WARN_ON_ONCE fire again.
///
/// # Errors
/// When debugfs does not have the switch.
pub(crate) fn clear_warn_once() -> Result<(), String> {
    fs::write("/sys/kernel/debug/clear_warn_once", "1").map_err(|error| format!("clear_warn_once: {error}"))
}

/// Writes a line into the kernel log.
///
/// # Errors
/// When `/dev/kmsg` refuses.
pub(crate) fn mark_log(text: &str) -> Result<(), String> {
    let kmsg = OpenOptions::new().write(true).open("/dev/kmsg");
    kmsg.and_then(|mut kmsg| kmsg.write_all(text.as_bytes())).map_err(|error| format!("/dev/kmsg: {error}"))
}

/// The kernel log behind the last line with this text, and whether that line was still there. All
/// of the log when it was not.
///
/// # Errors
/// When `/dev/kmsg` cannot be read.
pub(crate) fn log_since(mark: &str) -> Result<(Vec<LogLine>, bool), String> {
    let trouble = |error: std::io::Error| format!("/dev/kmsg: {error}");
    let mut kmsg =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg").map_err(trouble)?;
    let mut lines: Vec<LogLine> = Vec::new();
    let mut found = false;
    let mut buffer = vec![0u8; RECORD_BYTES];
    loop {
        match kmsg.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => {
                for line in record(&String::from_utf8_lossy(&buffer[..len])) {
                    if line.text == mark {
                        found = true;
                        lines.clear();
                    } else {
                        lines.push(line);
                    }
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // The oldest records were overwritten while we read: the next read goes on behind them.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(trouble(error)),
        }
    }
    Ok((lines, found))
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
