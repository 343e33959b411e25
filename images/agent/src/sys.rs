// SPDX-License-Identifier: MIT OR Apache-2.0
//! The system calls that have no safe wrapper, each behind a function that is safe to call.
//!
//! Together with [`crate::verbs`] the only place of the agent where `unsafe` may stand.
#![expect(unsafe_code, reason = "system calls without a safe wrapper")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal};

/// A mapping of this process. Dropping it does nothing: munmap(2) is a step of its own, and what
/// is still mapped goes with the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping {
    start: *mut u8,
    len: usize,
}

impl Mapping {
    /// mmap(2) with PROT_READ and PROT_WRITE.
    ///
    /// # Errors
    /// The errno of mmap(2).
    pub(crate) fn new(len: usize, flags: i32, fd: Option<BorrowedFd<'_>>, offset: u64) -> Result<Self, Errno> {
        let fd = fd.map_or(-1, |fd| fd.as_raw_fd());
        let offset = i64::try_from(offset).map_err(|_| Errno::EINVAL)?;
        // SAFETY: no address is asked for and MAP_FIXED is not among the flags callers can name, so
        // no existing mapping is replaced.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, fd, offset) };
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(Self { start: start.cast(), len })
    }

    /// Length in bytes.
    #[must_use]
    pub(crate) const fn len(self) -> usize {
        self.len
    }

    /// Where it starts.
    #[must_use]
    pub(crate) const fn start(self) -> *mut u8 {
        self.start
    }

    /// munmap(2) of all of it.
    ///
    /// # Errors
    /// The errno of munmap(2).
    pub(crate) fn unmap(self) -> Result<(), Errno> {
        // SAFETY: the range came from mmap(2); callers forget the mapping with this call, and no
        // reference into it is ever handed out.
        Errno::result(unsafe { libc::munmap(self.start.cast(), self.len) }).map(drop)
    }

    /// MADV_POPULATE_WRITE, or MADV_POPULATE_READ: fault every page in.
    ///
    /// # Errors
    /// The errno of madvise(2); EFAULT where a store would be SIGBUS.
    pub(crate) fn populate(self, write: bool) -> Result<(), Errno> {
        let advice = if write { libc::MADV_POPULATE_WRITE } else { libc::MADV_POPULATE_READ };
        // SAFETY: populating changes no byte of the mapping.
        Errno::result(unsafe { libc::madvise(self.start.cast(), self.len, advice) }).map(drop)
    }

    /// Stores `byte(offset)` at each offset of a range. A range whose pages are gone kills the
    /// caller with SIGBUS, as it should.
    ///
    /// # Errors
    /// `None` when the range is not within the mapping.
    pub(crate) fn store(self, at: usize, len: usize, byte: impl Fn(u64) -> u8) -> Option<()> {
        if at.checked_add(len)? > self.len {
            return None;
        }
        for index in at..at + len {
            // SAFETY: within the mapping, checked above; volatile, because another process or a
            // device may look at the same byte.
            unsafe { self.start.add(index).write_volatile(byte(index as u64)) };
        }
        Some(())
    }

    /// Loads each byte of a range and hands it to `wanted` until that says no; offset and value of that
    /// byte, if there is one. The bare `bool` lets the loop be one: a call for each byte is fifteen times
    /// slower in an emulated machine, where a return is a search for the code to go on with.
    ///
    /// # Errors
    /// The outer `None` when the range is not within the mapping.
    pub(crate) fn find_other(
        self,
        at: usize,
        len: usize,
        mut wanted: impl FnMut(u64, u8) -> bool,
    ) -> Option<Option<(u64, u8)>> {
        if at.checked_add(len)? > self.len {
            return None;
        }
        for index in at..at + len {
            // SAFETY: within the mapping, checked above; volatile for the reason given in `store`.
            let byte = unsafe { self.start.add(index).read_volatile() };
            if !wanted(index as u64, byte) {
                return Some(Some((index as u64, byte)));
            }
        }
        Some(None)
    }

    /// vmsplice(2) of `len` bytes at `at` into a pipe: the pipe then holds references to the pages.
    ///
    /// # Errors
    /// The errno of vmsplice(2); EFAULT when the range is not within the mapping.
    pub(crate) fn vmsplice(self, pipe: BorrowedFd<'_>, at: usize, len: usize) -> Result<usize, Errno> {
        if at.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(Errno::EFAULT);
        }
        // SAFETY: the kernel only reads the range, which lies within the mapping.
        let sent = unsafe {
            let iov = libc::iovec { iov_base: self.start.add(at).cast(), iov_len: len };
            libc::vmsplice(pipe.as_raw_fd(), &raw const iov, 1, 0)
        };
        Errno::result(sent).map(isize::cast_unsigned)
    }
}

/// `struct pin_longterm_test` of mm/gup_test.h.
#[repr(C)]
struct PinLongtermTest {
    addr: u64,
    size: u64,
    flags: u32,
}

/// PIN_LONGTERM_TEST_FLAG_USE_WRITE.
const PIN_USE_WRITE: u32 = 1;

mod gup_ioctl {
    use super::PinLongtermTest;
    nix::ioctl_write_ptr!(start, b'g', 7, PinLongtermTest);
    nix::ioctl_none!(stop, b'g', 8);
    nix::ioctl_write_ptr!(read, b'g', 9, u64);
}

/// PIN_LONGTERM_TEST_START of a range of a mapping.
///
/// # Errors
/// The errno of the ioctl; EFAULT when the range is not within the mapping.
pub(crate) fn gup_pin(
    gup: BorrowedFd<'_>,
    map: Mapping,
    at: usize,
    len: usize,
    write: bool,
) -> Result<(), Errno> {
    if at.checked_add(len).is_none_or(|end| end > map.len()) {
        return Err(Errno::EFAULT);
    }
    let request = PinLongtermTest {
        addr: map.start().addr() as u64 + at as u64,
        size: len as u64,
        flags: if write { PIN_USE_WRITE } else { 0 },
    };
    // SAFETY: the structure has the layout of mm/gup_test.h and outlives the call; the kernel only
    // pins the pages of the range.
    unsafe { gup_ioctl::start(gup.as_raw_fd(), &raw const request) }.map(drop)
}

/// PIN_LONGTERM_TEST_STOP.
///
/// # Errors
/// The errno of the ioctl.
pub(crate) fn gup_unpin(gup: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: no argument.
    unsafe { gup_ioctl::stop(gup.as_raw_fd()) }.map(drop)
}

/// PIN_LONGTERM_TEST_READ: the bytes of all pinned pages; `len` is the size of the pin.
///
/// # Errors
/// The errno of the ioctl.
pub(crate) fn gup_read(gup: BorrowedFd<'_>, len: usize) -> Result<Vec<u8>, Errno> {
    // The kernel copies whole pages and does not know the buffer's size.
    let mut buffer = vec![0u8; len.next_multiple_of(4096)];
    let address = buffer.as_mut_ptr().expose_provenance() as u64;
    // SAFETY: the buffer is as long as the pinned pages, whose number the caller knows from its
    // own PIN_LONGTERM_TEST_START; one pin set exists in the system, and the caller made it.
    unsafe { gup_ioctl::read(gup.as_raw_fd(), &raw const address) }?;
    Ok(buffer)
}

/// STATX_ATTR_DAX of a file.
///
/// # Errors
/// The errno of statx(2).
pub(crate) fn statx_dax(file: &impl AsFd) -> Result<bool, Errno> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: an all-zero statx is a valid value, the path is empty and terminated, and the kernel writes
    // no more than the structure.
    let (result, found) = unsafe {
        let mut found: libc::statx = std::mem::zeroed();
        let (flags, mask) = (libc::AT_EMPTY_PATH, libc::STATX_BASIC_STATS);
        let result = libc::statx(fd, c"".as_ptr(), flags, mask, &raw mut found);
        (result, found)
    };
    Errno::result(result)?;
    Ok(found.stx_attributes & libc::STATX_ATTR_DAX as u64 != 0)
}

/// Puts the calling thread under SCHED_FIFO, before everything that is not. What it starts is not.
///
/// # Errors
/// The errno of sched_setscheduler(2); EPERM to an ordinary user.
pub(crate) fn be_first() -> Result<(), Errno> {
    let parameters = libc::sched_param { sched_priority: 1 };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the structure outlives the call; 0 is the calling thread.
    Errno::result(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) }).map(drop)
}

/// How much the generator is told that the seed is worth, in bits: all it needs to be ready.
const SEED_BITS: i32 = 256;

/// `struct rand_pool_info` of linux/random.h with room for a seed.
#[repr(C)]
struct RandPoolInfo {
    entropy_count: i32,
    buf_size: i32,
    buf: [u32; 2],
}

/// RNDADDENTROPY: `_IOW('R', 0x03, int [2])`.
const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;

/// RNDRESEEDCRNG: `_IO('R', 0x07)`.
const RNDRESEEDCRNG: libc::Ioctl = 0x5207;

/// Mixes a seed into the kernel's random number generator and makes that draw from it at once
/// (drivers/char/random.c random_ioctl(); crng_reseed() would otherwise come up to a minute later).
///
/// # Errors
/// The errno of the ioctl.
pub(crate) fn seed_random(random: BorrowedFd<'_>, seed: u64) -> Result<(), Errno> {
    let bytes = seed.to_ne_bytes();
    let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let info = RandPoolInfo { entropy_count: SEED_BITS, buf_size: 8, buf: [word(0), word(4)] };
    // SAFETY: the structure has the layout of linux/random.h, says how long it is, and outlives the call,
    // which only reads it.
    Errno::result(unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, &raw const info) })?;
    // SAFETY: no argument.
    Errno::result(unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG) }).map(drop)
}

/// pidfd_open(2): a descriptor that becomes readable when the process has ended.
///
/// # Errors
/// The errno of the call.
pub(crate) fn pidfd_open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: plain numbers go in.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes a descriptor that this process was started with.
///
/// # Errors
/// EBADF when it is not open.
pub(crate) fn inherited_fd(fd: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: asks only whether the number is open.
    Errno::result(unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
    // SAFETY: open, and by the convention between parent and child ours to keep; called once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// fcntl(2) F_SETLEASE of a read lease, which nix does not wrap.
///
/// # Errors
/// The errno of fcntl(2).
pub(crate) fn read_lease(file: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: plain numbers go in, the descriptor is open for as long as it is borrowed.
    Errno::result(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) }).map(drop)
}

/// kill(2), with real-time signals, which nix's `Signal` cannot name.
///
/// # Errors
/// The errno of kill(2).
pub(crate) fn kill(pid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: plain numbers go in.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

/// Collects one ended child, if there is one. Real-time signals included: nix's waitpid(2) loses
/// such a child, because its `Signal` cannot name them.
pub(crate) fn reap() -> Option<(i32, Ended)> {
    let mut status = 0;
    loop {
        // SAFETY: the status is written to a variable of ours.
        match Errno::result(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) }) {
            Ok(0) => return None,
            Ok(pid) if libc::WIFEXITED(status) => return Some((pid, Ended::Exited(libc::WEXITSTATUS(status)))),
            Ok(pid) if libc::WIFSIGNALED(status) => return Some((pid, Ended::Killed(libc::WTERMSIG(status)))),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// _exit(2).
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process; nothing of it is looked at again.
    unsafe { libc::_exit(code) }
}

/// SIGRTMIN of the C library (34 with glibc: it keeps two for itself).
#[must_use]
pub(crate) fn sigrtmin() -> i32 {
    libc::SIGRTMIN()
}

/// How many signals the recording handler has seen.
pub(crate) static SIGNALS_SEEN: AtomicU32 = AtomicU32::new(0);

extern "C" fn record(_signal: i32) {
    SIGNALS_SEEN.fetch_add(1, Ordering::Relaxed);
}

/// Installs a handler that counts and returns.
///
/// # Errors
/// The errno of sigaction(2).
pub(crate) fn record_signal(signal: i32, restart: bool) -> Result<(), Errno> {
    let flags = if restart { SaFlags::SA_RESTART } else { SaFlags::empty() };
    if let Ok(signal) = Signal::try_from(signal) {
        let action = SigAction::new(SigHandler::Handler(record), flags, SigSet::empty());
        // SAFETY: the handler touches one atomic only, which is safe in a signal handler.
        return unsafe { nix::sys::signal::sigaction(signal, &action) }.map(drop);
    }
    // SAFETY: an all-zero sigaction is valid; the handler is the same as above.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = record as extern "C" fn(i32) as usize;
        action.sa_flags = flags.bits();
        libc::sigaction(signal, &raw const action, ptr::null_mut())
    };
    Errno::result(result).map(drop)
}
