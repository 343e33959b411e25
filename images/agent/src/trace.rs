// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trace events, through tracefs (Documentation/trace/events.rst).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use holdfast_protocol::MAX_TRACE_BYTES;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

const FOLDER: &str = "/sys/kernel/tracing";

/// Of each processor; what is more pushes the oldest out.
const BUFFER_KIB: &str = "2048";

/// How many names a message lists.
const NAMES: usize = 40;

/// Begins to record these events, with the time that steps have. Nothing is recorded where there is none of a name:
/// which, and what there is instead.
pub(crate) fn begin(events: &[String]) -> Result<Option<String>, String> {
    if !Path::new(FOLDER).is_dir() {
        return Err("this kernel has no trace events (CONFIG_EVENT_TRACING)".to_owned());
    }
    match mount(Some("tracefs"), FOLDER, Some("tracefs"), MsFlags::empty(), None::<&str>) {
        // debugfs brings it along.
        Ok(()) | Err(Errno::EBUSY) => {}
        Err(errno) => return Err(format!("mounting tracefs on {FOLDER}: {errno}")),
    }
    put("tracing_on", "0")?;
    put("trace_clock", "mono")?;
    put("buffer_size_kb", BUFFER_KIB)?;
    put("set_event", "")?;
    put("trace", "")?;
    for event in events {
        if !enable(event).map_err(|error| format!("trace event `{event}`: {error}"))? {
            return Ok(Some(format!("trace event `{event}`: {}", instead(event))));
        }
    }
    put("tracing_on", "1")?;
    Ok(None)
}

/// What was recorded so far.
pub(crate) fn read() -> Result<String, String> {
    let path = Path::new(FOLDER).join("trace");
    let mut text = String::new();
    let read = File::open(&path).and_then(|mut file| file.read_to_string(&mut text));
    read.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(end_of(text, MAX_TRACE_BYTES))
}

/// The last lines of a text, as many as fit.
fn end_of(mut text: String, most: usize) -> String {
    if text.len() > most {
        let from = text.len() - most;
        let from = text.as_bytes()[from..]
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(text.len(), |at| from + at + 1);
        text.drain(..from);
    }
    text
}

fn put(name: &str, value: &str) -> Result<(), String> {
    let path = Path::new(FOLDER).join(name);
    fs::write(&path, value).map_err(|error| format!("{value} to {}: {error}", path.display()))
}

/// False where the kernel has no such event.
fn enable(event: &str) -> io::Result<bool> {
    let mut file = OpenOptions::new().append(true).open(Path::new(FOLDER).join("set_event"))?;
    match file.write_all(format!("{event}\n").as_bytes()) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => Ok(false),
        other => other.map(|()| true),
    }
}

/// What there is instead of an event, first what begins like it.
fn instead(event: &str) -> String {
    let (subsystem, name) = event.split_once(':').unwrap_or((event, ""));
    let folder = Path::new(FOLDER).join("events");
    let own = names(&folder.join(subsystem));
    let (what, mut names) = match own.is_empty() || subsystem.is_empty() {
        true => ("subsystems of this kernel", alike(subsystem, names(&folder))),
        false => ("its subsystem has", alike(name, own)),
    };
    let more = if names.len() > NAMES { ", ..." } else { "" };
    names.truncate(NAMES);
    format!("there is none; {what}: {}{more}", names.join(", "))
}

/// Those first that have the longest beginning in common with a word.
fn alike(word: &str, mut names: Vec<String>) -> Vec<String> {
    let common = |name: &str| word.bytes().zip(name.bytes()).take_while(|(one, other)| one == other).count();
    names.sort_by_key(|name| std::cmp::Reverse(common(name)));
    names
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_like_a_mistyped_name_is_told_first() {
        let names = ["aba", "abc", "b", "cab"].map(str::to_owned).to_vec();
        assert_eq!(alike("abd", names.clone()), ["aba", "abc", "b", "cab"]);
        assert_eq!(alike("ca", names.clone()), ["cab", "aba", "abc", "b"]);
        assert_eq!(alike("", names.clone()), names);
    }

    #[test]
    fn of_a_long_trace_the_last_whole_lines_are_told() {
        let text = || "one\ntwo\nthree\n".to_owned();
        assert_eq!(end_of(text(), 100), text());
        assert_eq!(end_of(text(), 9), "three\n");
        assert_eq!(end_of(text(), 3), "");
    }
}
