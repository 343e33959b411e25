// SPDX-License-Identifier: MIT OR Apache-2.0
//! Other people's programs.

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use holdfast_protocol::op::{Folder, Program};
use holdfast_protocol::{
    KEPT_HEAD_BYTES, KEPT_TAIL_BYTES, NO_PROGRAM, Outcome, PROGRAM_LIBRARIES, Place, ProgramEnd, Ran,
};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpid};

use super::errno_of;
use crate::actor::{Actor, Done, Stop, not_issued};
use crate::{procfs, signals, sys};

/// What a program finds in its environment, and nothing else.
const ENVIRONMENT: [(&str, &str); 5] = [
    ("PATH", "/programs:/sbin:/bin"),
    // Libraries that a person's own program brings, which may come from anywhere on the host.
    ("LD_LIBRARY_PATH", PROGRAM_LIBRARIES),
    ("HOME", "/tmp"),
    ("LC_ALL", "C"),
    ("TERM", "dumb"),
];

/// How much is read of a stream at once, in bytes: more than a pipe holds, so that a writer that never stops does
/// not keep us from what else there is to see.
const MOST_AT_ONCE: usize = 1 << 20;

/// How often those whom a program left behind are looked for. Who forks faster than it is killed goes with the
/// machine.
const ROUNDS: usize = 64;

/// Runs a program to its end.
pub(crate) fn program(actor: &Actor, op: &Program, tag: &str) -> Result<Done, Stop> {
    if sys::in_handler() {
        return Err(not_issued("a handler runs no program: it would be in the way of every signal"));
    }
    let mut paths = actor.part.programs.iter().map(|folder| folder.join(&op.name));
    let path = paths.find(|path| path.is_file());
    let path = path.ok_or_else(|| not_issued(format!("{NO_PROGRAM} `{}`", op.name)))?;
    let folder = WorkFolder::new(actor, op.on, tag)?;
    let (output, into) = stream()?;
    let (errors, errors_into) = stream()?;
    let mut command = Command::new(&path);
    command.args(&op.args).current_dir(&folder.0).env_clear().envs(ENVIRONMENT);
    command.stdin(Stdio::null()).stdout(into).stderr(errors_into).process_group(0);
    // Whom it leaves behind becomes our child, and is found by that.
    set_child_subreaper(true)?;
    let child = sys::with_open_signals(&mut command).spawn();
    // It holds the writing ends.
    drop(command);
    let ran = child.map_err(|error| errno_of(&error)).and_then(|child| watch(child, [output, errors]));
    // Also of one that could not be watched.
    end_those_left();
    let _ = set_child_subreaper(false);
    Ok(Done { outcome: Some(Outcome::Ran(Box::new(ran?))), ..Done::default() })
}

/// A pipe, whose reading end does not wait.
fn stream() -> Result<(PipeReader, PipeWriter), Stop> {
    let (output, into) = io::pipe().map_err(|error| errno_of(&error))?;
    fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((output, into))
}

/// Reads what a program prints until it has ended, and ends those whom it leaves behind.
fn watch(mut child: Child, [mut output, mut errors]: [PipeReader; 2]) -> Result<Ran, Stop> {
    let pid = i32::try_from(child.id()).map_err(|_| Errno::EOVERFLOW)?;
    // When memory runs out it goes before we do.
    if let Ok(mut score) = OpenOptions::new().write(true).open(format!("/proc/{pid}/oom_score_adj")) {
        let _ = score.write_all(b"1000");
    }
    let ended = sys::pidfd_open(pid)?;
    let mut kept = [Kept::default(), Kept::default()];
    // Who has closed its streams and goes on is waited for all the same.
    let mut open = [true, true];
    loop {
        let mut fds = vec![PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
        let streams = [output.as_fd(), errors.as_fd()].into_iter().zip(open);
        fds.extend(streams.filter(|(_, open)| *open).map(|(fd, _)| PollFd::new(fd, PollFlags::POLLIN)));
        match sys::exposed(|| poll(&mut fds, PollTimeout::NONE)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let has_ended = fds[0].any() == Some(true);
        open = [open[0] && kept[0].take(&mut output), open[1] && kept[1].take(&mut errors)];
        if has_ended {
            break;
        }
    }
    let status = child.wait().map_err(|error| errno_of(&error))?;
    let left = end_those_left();
    // What the pipes still hold; nobody writes any more.
    kept[0].take(&mut output);
    kept[1].take(&mut errors);
    let [output, errors] = kept.map(Kept::text);
    Ok(Ran { end: end(status), output: output.0, dropped: output.1, errors: errors.0, left })
}

fn end(status: ExitStatus) -> ProgramEnd {
    match status.code() {
        Some(code) => ProgramEnd::Exited(code),
        None => ProgramEnd::Killed(signals::name(status.signal().unwrap_or(0))),
    }
}

/// Kills the processes that have become ours, and those that become ours by that; how many lived.
fn end_those_left() -> u32 {
    let mut count = 0;
    for _ in 0..ROUNDS {
        let children = procfs::children(getpid().as_raw());
        if children.is_empty() {
            break;
        }
        // All of them first: one may wait for another.
        for (pid, lives) in &children {
            count += u32::from(*lives);
            let _ = sys::kill(*pid, libc::SIGKILL);
        }
        for (pid, _) in children {
            let _ = waitpid(Pid::from_raw(pid), None);
        }
    }
    count
}

/// A new folder, removed with all that is in it.
struct WorkFolder(PathBuf);

impl WorkFolder {
    fn new(actor: &Actor, on: Folder, tag: &str) -> Result<Self, Stop> {
        let place = |place| actor.part.places.get(&place).map(|(folder, _)| folder.clone());
        let above = match on {
            Folder::Tmpfs => Some(std::env::temp_dir()),
            Folder::Ext4 => place(Place::Ext4),
            Folder::Xfs => place(Place::Xfs),
        };
        let above = above.ok_or_else(|| not_issued(format!("this guest has no {on:?}")))?;
        let path = Path::join(&above, format!("holdfast-program-{}-{tag}", getpid()));
        fs::create_dir(&path).map_err(|error| errno_of(&error))?;
        Ok(Self(path))
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The beginning and the end of a text of any length.
#[derive(Debug, Default)]
struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    dropped: u64,
}

impl Kept {
    /// Takes what can be read now, up to a limit; false when nothing more can come.
    fn take(&mut self, from: &mut impl Read) -> bool {
        let mut buffer = [0u8; 16 << 10];
        for _ in 0..MOST_AT_ONCE / buffer.len() {
            match from.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.keep(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }

    fn keep(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(bytes.len().min(KEPT_HEAD_BYTES - self.head.len()));
        self.head.extend(head);
        self.tail.extend(rest);
        let over = self.tail.len().saturating_sub(KEPT_TAIL_BYTES);
        self.tail.drain(..over);
        self.dropped += over as u64;
    }

    /// The text, and how many bytes of it are left out. What is left of a line that was cut would be another line.
    fn text(self) -> (String, u64) {
        let Self { mut head, tail, mut dropped } = self;
        let mut tail: Vec<u8> = tail.into();
        if dropped > 0 {
            if let Some(end) = head.iter().rposition(|byte| *byte == b'\n') {
                dropped += (head.len() - end - 1) as u64;
                head.truncate(end + 1);
            }
            if let Some(end) = tail.iter().position(|byte| *byte == b'\n') {
                dropped += (end + 1) as u64;
                tail.drain(..=end);
            }
            head.extend(format!("\n[{dropped} bytes are left out here]\n").into_bytes());
        }
        head.extend(tail);
        (String::from_utf8_lossy(&head).into_owned(), dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(parts: &[&[u8]]) -> (String, u64) {
        let mut kept = Kept::default();
        parts.iter().for_each(|part| kept.keep(part));
        kept.text()
    }

    #[test]
    fn of_a_long_text_the_beginning_and_the_end_are_kept() {
        assert_eq!(kept(&[b"a", b"b"]), ("ab".to_owned(), 0));
        let whole = vec![b'x'; KEPT_HEAD_BYTES + KEPT_TAIL_BYTES];
        assert_eq!(kept(&[&whole]).1, 0);
        let (text, dropped) = kept(&[b"first\n", &whole, &whole, b"\nlast"]);
        assert_eq!(dropped, 2 * (KEPT_HEAD_BYTES + KEPT_TAIL_BYTES) as u64 + 1);
        assert_eq!(text, format!("first\n\n[{dropped} bytes are left out here]\nlast"));
        // Without a line's end anywhere the limits alone count.
        let (text, dropped) = kept(&[&whole, &whole]);
        assert_eq!(dropped, (KEPT_HEAD_BYTES + KEPT_TAIL_BYTES) as u64);
        assert!(text.contains(&format!("\n[{dropped} bytes are left out here]\n")));
        assert!(text.len() < KEPT_HEAD_BYTES + KEPT_TAIL_BYTES + 64);
    }

    #[test]
    fn noise_becomes_text() {
        assert_eq!(kept(&[b"ok \xff\0"]).0, "ok \u{fffd}\0");
    }
}
