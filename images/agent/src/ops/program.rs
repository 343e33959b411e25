// SPDX-License-Identifier: MIT OR Apache-2.0
//! Other people's programs.

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use holdfast_protocol::op::{Folder, Program};
use holdfast_protocol::{KEPT_HEAD_BYTES, KEPT_TAIL_BYTES, Outcome, Place, ProgramEnd, Ran};
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
const ENVIRONMENT: [(&str, &str); 4] =
    [("PATH", "/programs:/sbin:/bin"), ("HOME", "/tmp"), ("LC_ALL", "C"), ("TERM", "dumb")];

/// Runs a program to its end.
pub(crate) fn program(actor: &Actor, op: &Program, tag: &str) -> Result<Done, Stop> {
    if sys::in_handler() {
        return Err(not_issued("a handler runs no program: it would be in the way of every signal"));
    }
    let mut paths = actor.part.programs.iter().map(|folder| folder.join(&op.name));
    let path = paths.find(|path| path.is_file());
    let path = path.ok_or_else(|| not_issued(format!("this guest has no program `{}`", op.name)))?;
    let folder = WorkFolder::new(actor, op.on, tag)?;
    let (mut output, into) = io::pipe().map_err(|error| errno_of(&error))?;
    fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let errors = into.try_clone().map_err(|error| errno_of(&error))?;
    let mut command = Command::new(&path);
    command.args(&op.args).current_dir(&folder.0).env_clear().envs(ENVIRONMENT);
    command.stdin(Stdio::null()).stdout(into).stderr(errors).process_group(0);
    // Whom it leaves behind becomes our child, and is found by that.
    set_child_subreaper(true)?;
    let child = sys::with_open_signals(&mut command).spawn();
    // It holds the writing ends.
    drop(command);
    let ran = child.map_err(|error| errno_of(&error)).and_then(|child| watch(child, &mut output));
    let _ = set_child_subreaper(false);
    Ok(Done { outcome: Some(Outcome::Ran(ran?)), ..Done::default() })
}

/// Reads what a program prints until it has ended, and ends those whom it leaves behind.
fn watch(mut child: Child, output: &mut PipeReader) -> Result<Ran, Stop> {
    let pid = i32::try_from(child.id()).map_err(|_| Errno::EOVERFLOW)?;
    // When memory runs out it goes before we do.
    if let Ok(mut score) = OpenOptions::new().write(true).open(format!("/proc/{pid}/oom_score_adj")) {
        let _ = score.write_all(b"1000");
    }
    let ended = sys::pidfd_open(pid)?;
    let mut kept = Kept::default();
    let mut is_open = true;
    loop {
        let mut fds =
            [PollFd::new(ended.as_fd(), PollFlags::POLLIN), PollFd::new(output.as_fd(), PollFlags::POLLIN)];
        // Who has closed both its streams and goes on is waited for all the same.
        let fds = if is_open { &mut fds[..] } else { &mut fds[..1] };
        match sys::exposed(|| poll(fds, PollTimeout::NONE)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let has_ended = fds[0].any() == Some(true);
        is_open = is_open && kept.take(output);
        if has_ended {
            break;
        }
    }
    let status = child.wait().map_err(|error| errno_of(&error))?;
    let left = end_those_left();
    // What they had printed until then.
    kept.take(output);
    let (output, dropped) = kept.text();
    Ok(Ran { end: end(status), output, dropped, left })
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
    loop {
        let children = procfs::children(getpid().as_raw());
        if children.is_empty() {
            return count;
        }
        for (pid, lives) in children {
            count += u32::from(lives);
            let _ = sys::kill(pid, libc::SIGKILL);
            let _ = waitpid(Pid::from_raw(pid), None);
        }
    }
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
    /// Takes what can be read now; false when nothing more can come.
    fn take(&mut self, from: &mut (impl Read + AsRawFd)) -> bool {
        let mut buffer = [0u8; 16 << 10];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.keep(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(bytes.len().min(KEPT_HEAD_BYTES - self.head.len()));
        self.head.extend(head);
        self.tail.extend(rest);
        let over = self.tail.len().saturating_sub(KEPT_TAIL_BYTES);
        self.tail.drain(..over);
        self.dropped += over as u64;
    }

    /// The text, and how many bytes of it are left out.
    fn text(self) -> (String, u64) {
        let Self { mut head, tail, dropped } = self;
        if dropped > 0 {
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
        let (text, dropped) = kept(&[b"first", &whole, &whole, b"last"]);
        assert_eq!(dropped, (KEPT_HEAD_BYTES + KEPT_TAIL_BYTES + 9) as u64);
        assert!(text.starts_with("first") && text.ends_with("last"));
        assert!(text.contains(&format!("\n[{dropped} bytes are left out here]\n")));
        assert!(text.len() < KEPT_HEAD_BYTES + KEPT_TAIL_BYTES + 64);
    }

    #[test]
    fn noise_becomes_text() {
        assert_eq!(kept(&[b"ok \xff\0"]).0, "ok \u{fffd}\0");
    }
}
