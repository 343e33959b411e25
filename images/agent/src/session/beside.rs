// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls that may hang (umount(2), a scan of kmemleak), each in a process that is made ahead and left
//! behind if it does.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{read, write};

use super::cast::wait_readable;
use crate::progress::Limit;
use crate::sys;

/// A process that makes one call whenever it is asked to.
pub(super) struct Beside {
    stream: OwnedFd,
}

impl Beside {
    /// Starts the process, which calls itself `name`; `call` returns 0 or an errno.
    ///
    /// # Errors
    /// When no process can be made.
    pub(super) fn start(name: &CStr, call: impl Fn() -> i32) -> Result<Self, Errno> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
        sys::fork_off(name, || serve(&theirs, &ours, &call))?;
        Ok(Self { stream: ours })
    }

    /// 0, or the errno: ETIMEDOUT when the call has not returned within the time, after which nothing may be
    /// asked of this one any more.
    pub(super) fn call(&self, limit: &Limit) -> i32 {
        if write(&self.stream, &[0]).is_err() {
            return Errno::EAGAIN as i32;
        }
        if !wait_readable(self.stream.as_fd(), limit) {
            return Errno::ETIMEDOUT as i32;
        }
        let mut errno = [0; 4];
        match read(&self.stream, &mut errno) {
            Ok(4) => i32::from_ne_bytes(errno),
            _ => Errno::EINTR as i32,
        }
    }
}

/// The life of the process; it ends with the session's end of the stream.
fn serve(asked: &OwnedFd, other: &OwnedFd, call: &impl Fn() -> i32) -> ! {
    // The copy of the session's end would keep the stream open.
    sys::shut(other);
    while let Ok(1) = read(asked, &mut [0; 1]) {
        if write(asked, &call().to_ne_bytes()).is_err() {
            break;
        }
    }
    sys::exit_now(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::progress::Progress;

    #[test]
    fn a_call_that_returns_is_told_and_one_that_hangs_is_left() {
        let progress = Progress::start().unwrap();
        let call = |call: fn() -> i32, wait_ms| {
            let beside = Beside::start(c"test", call).unwrap();
            beside.call(&progress.within(Duration::from_millis(wait_ms)))
        };
        assert_eq!(call(|| Errno::EBUSY as i32, 10_000), Errno::EBUSY as i32);
        let hang = || {
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        };
        assert_eq!(call(hang, 50), Errno::ETIMEDOUT as i32);
        assert_eq!(call(|| sys::exit_now(1), 10_000), Errno::EINTR as i32);
    }
}
