// SPDX-License-Identifier: MIT OR Apache-2.0
//! umount(2), which may hang, in a thread that is made ahead and left behind if it does.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;

use nix::errno::Errno;

use crate::progress::Limit;

/// A thread that unmounts one file system whenever it is asked to.
pub(super) struct Umounter {
    ask: Sender<()>,
    told: Receiver<i32>,
}

impl Umounter {
    /// Starts the thread; `call` returns 0 or an errno.
    ///
    /// # Errors
    /// When no thread can be made.
    pub(super) fn start(call: impl Fn() -> i32 + Send + 'static) -> io::Result<Self> {
        let ((ask, asked), (tell, told)) = (channel::<()>(), channel());
        thread::Builder::new()
            .name("umount".to_owned())
            .spawn(move || while asked.recv().is_ok() && tell.send(call()).is_ok() {})?;
        Ok(Self { ask, told })
    }

    /// 0, or the errno: ETIMEDOUT when the call has not returned within the time, after which nothing may be
    /// asked of this one any more.
    pub(super) fn umount(&self, limit: &Limit) -> i32 {
        if self.ask.send(()).is_err() {
            return Errno::EAGAIN as i32;
        }
        loop {
            let left = limit.left();
            match self.told.recv_timeout(left) {
                Ok(errno) => return errno,
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return Errno::ETIMEDOUT as i32,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Errno::EINTR as i32,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::progress::Progress;

    #[test]
    fn a_call_that_returns_is_told_and_one_that_hangs_is_left() {
        let progress = Progress::start().unwrap();
        let umount = |call: fn() -> i32, wait_ms| {
            let umounter = Umounter::start(call).unwrap();
            umounter.umount(&progress.within(Duration::from_millis(wait_ms)))
        };
        assert_eq!(umount(|| Errno::EBUSY as i32, 10_000), Errno::EBUSY as i32);
        let hang = || {
            loop {
                thread::park();
            }
        };
        assert_eq!(umount(hang, 50), Errno::ETIMEDOUT as i32);
        assert_eq!(umount(|| panic!("this one dies"), 10_000), Errno::EINTR as i32);
    }
}
