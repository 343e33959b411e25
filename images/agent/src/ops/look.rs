// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looking, as an administrator could. What is seen is told up to a limit, and where it was cut it says so.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command as Program, Stdio};

use holdfast_protocol::op::{Command, Locks, Mrs, ReadFile, Vmstat};
use holdfast_protocol::{MAX_SHOWN_BYTES, Outcome, SHOWN_CUT};
use nix::errno::Errno;
use nix::sys::stat::stat;

use super::errno_of;
use super::files::declared;
use crate::actor::{Actor, Done, Stop, not_issued};
use crate::netlink::Resources;
use crate::oracles::read_log;
use crate::wire::Aid;
use crate::{signals, sys};

/// Text as an outcome.
fn shown(text: &str) -> Done {
    Done { outcome: Some(Outcome::Shown(cut(text))), ..Done::default() }
}

/// A text without what is beyond the limit.
fn cut(text: &str) -> String {
    if text.len() <= MAX_SHOWN_BYTES {
        return text.to_owned();
    }
    let mut end = MAX_SHOWN_BYTES;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{SHOWN_CUT}{} of {} bytes)", &text[..end], end, text.len())
}

/// The head of a file: what can be told, and a byte to show that there was more.
fn head(path: &str) -> Result<String, Stop> {
    let file = File::open(path).map_err(|error| errno_of(&error))?;
    let mut bytes = Vec::new();
    file.take(MAX_SHOWN_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|error| errno_of(&error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `/proc/locks`, of one file if asked.
pub(crate) fn locks(actor: &Actor, op: &Locks) -> Result<Done, Stop> {
    let text = fs::read_to_string("/proc/locks").map_err(|error| errno_of(&error))?;
    let Some(file) = &op.file else { return Ok(shown(&text)) };
    // MAJOR:MINOR:INODE; the inode is enough to tell declared files apart.
    let inode = format!(":{} ", stat(&declared(actor, file)?.path)?.st_ino);
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(&inode)).collect();
    Ok(shown(&lines.join("\n")))
}

fn pid(aid: &Aid) -> Result<i32, Stop> {
    aid.pid.ok_or_else(|| not_issued("the actor to look at is gone"))
}

/// `/proc/PID/fd`.
pub(crate) fn fds(aid: &Aid) -> Result<Done, Stop> {
    let folder = format!("/proc/{}/fd", pid(aid)?);
    let entries = fs::read_dir(&folder).map_err(|error| errno_of(&error))?;
    let mut all: Vec<(i32, String)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let target = fs::read_link(entry.path()).ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, target.display().to_string()))
        })
        .collect();
    all.sort();
    let lines: Vec<String> = all.into_iter().map(|(fd, target)| format!("{fd} -> {target}")).collect();
    Ok(shown(&lines.join("\n")))
}

/// A file of `/proc/PID`.
pub(crate) fn of_process(aid: &Aid, name: &str) -> Result<Done, Stop> {
    Ok(shown(&head(&format!("/proc/{}/{name}", pid(aid)?))?))
}

/// Memory regions, in the system or of one process.
pub(crate) fn mrs(actor: &Actor, aid: &Aid, op: &Mrs) -> Result<Done, Stop> {
    let resources = Resources::open()?;
    let regions = match op.of {
        None => resources.regions()?,
        Some(_) => {
            let pid = pid(aid)?.cast_unsigned();
            let listed = resources.list(&super::rdma::link(actor)?.device)?;
            listed.iter().filter(|region| region.pid == Some(pid)).count() as u64
        }
    };
    Ok(Done::value(i64::try_from(regions).unwrap_or(i64::MAX)))
}

/// A counter of `/proc/vmstat`. The counters are per CPU: a write to `stat_refresh` makes them exact, for whom
/// it is allowed.
pub(crate) fn vmstat(op: &Vmstat) -> Result<Done, Stop> {
    let _ = fs::write("/proc/sys/vm/stat_refresh", "1");
    let text = fs::read_to_string("/proc/vmstat").map_err(|error| errno_of(&error))?;
    let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
    let value = pairs.find(|(key, _)| *key == op.key).and_then(|(_, value)| value.parse().ok());
    Ok(Done::value(value.ok_or(Errno::ENODATA)?))
}

/// A file of the guest.
pub(crate) fn read_file(op: &ReadFile) -> Result<Done, Stop> {
    Ok(shown(&head(&op.path)?))
}

/// The kernel log behind the case's mark.
pub(crate) fn dmesg(aid: &Aid) -> Result<Done, Stop> {
    let mark = aid.mark.as_ref().ok_or_else(|| not_issued("the kernel log has no mark"))?;
    let mut kmsg = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg")
        .map_err(|error| errno_of(&error))?;
    let (lines, whole) = read_log(&mut kmsg, mark).map_err(|error| errno_of(&error))?;
    if !whole {
        return Err(not_issued("the kernel log has lost the case's mark, or something behind it"));
    }
    let lines: Vec<String> = lines.into_iter().map(|line| line.text).collect();
    Ok(shown(&lines.join("\n")))
}

/// Runs a program. Its output is read to the end, so that it is not stopped by a full pipe, and kept up to
/// the limit.
pub(crate) fn command(op: &Command) -> Result<Done, Stop> {
    let (program, arguments) = op.argv.split_first().ok_or_else(|| not_issued("a command has a program"))?;
    let (mut output, into) = io::pipe().map_err(|error| errno_of(&error))?;
    let errors = into.try_clone().map_err(|error| errno_of(&error))?;
    let mut command = Program::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(into).stderr(errors);
    let mut child = sys::with_open_signals(&mut command).spawn().map_err(|error| errno_of(&error))?;
    // It holds the writing ends.
    drop(command);
    let mut text = Vec::new();
    let read = (&mut output).take(MAX_SHOWN_BYTES as u64).read_to_end(&mut text);
    read.and_then(|_| io::copy(&mut output, &mut io::sink())).map_err(|error| errno_of(&error))?;
    let status = child.wait().map_err(|error| errno_of(&error))?;
    let end = match (status.code(), status.signal()) {
        (Some(code), _) => format!("status {code}"),
        (None, signal) => format!("signal {}", signals::name(signal.unwrap_or(0))),
    };
    // The end is told even where the text is cut.
    text.truncate(MAX_SHOWN_BYTES - end.len() - 1);
    Ok(shown(&format!("{}\n{end}", String::from_utf8_lossy(&text).trim_end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        assert_eq!(cut("short"), "short");
        let long = "ä".repeat(MAX_SHOWN_BYTES);
        let shown = cut(&long);
        assert!(
            shown.len() < MAX_SHOWN_BYTES + 64 && shown.ends_with("(cut: 16384 of 32768 bytes)"),
            "{}",
            shown.len()
        );
        assert_eq!(cut(&"x".repeat(MAX_SHOWN_BYTES)).len(), MAX_SHOWN_BYTES);
    }
}
