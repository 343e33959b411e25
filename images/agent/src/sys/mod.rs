// SPDX-License-Identifier: MIT OR Apache-2.0
//! The system calls that have no safe wrapper, each behind a function that is safe to call.
//!
//! Together with [`crate::verbs`] the only place of the agent where `unsafe` may stand.
#![expect(unsafe_code, reason = "system calls without a safe wrapper")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

mod fcntl;
mod memory;
mod process;
mod raw;
mod signals;

pub(crate) use fcntl::{F_GETSIG, F_SETSIG, dup_onto, fcntl, is_open, memfd, owner, set_owner_ex};
pub(crate) use memory::{Broken, Mapping, Request, guard, shared_words};
pub(crate) use process::{Forked, fork_for_parent, fork_off, receive_fd, send_fd};
pub(crate) use raw::{
    URING_PARAMS_BYTES, address, drop_capabilities, ioctl_bytes, ioctl_number, statx, syscall, uring_register,
    with_open_signals,
};
pub(crate) use signals::{
    Info, close_to_signals, exposed, ignore_signal, in_handler, install, keep_from_main, play_by_thread,
    serve_by_thread, share, unhanded,
};

/// The number of a descriptor that a step made. What is closed, replaced or passed on is the scenario's
/// business, so nothing owns it here: a number that is not open any more is EBADF, and that is a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number(RawFd);

impl Number {
    /// Standard input.
    pub(crate) const STDIN: Self = Self(0);

    /// The bare number.
    #[must_use]
    pub(crate) const fn raw(self) -> RawFd {
        self.0
    }

    /// A number that is known from elsewhere; `None` if it cannot be one.
    #[must_use]
    pub(crate) fn of(fd: RawFd) -> Option<Self> {
        (fd >= 0).then_some(Self(fd))
    }
}

impl From<OwnedFd> for Number {
    fn from(fd: OwnedFd) -> Self {
        Self(fd.into_raw_fd())
    }
}

impl AsFd for Number {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: not negative by construction. It may be closed meanwhile: no Rust object owns a number
        // that steps play with, so nothing but those steps is surprised.
        unsafe { BorrowedFd::borrow_raw(self.0) }
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

/// Waits until there is something to read, a signal comes, or the other end is closed.
///
/// # Errors
/// The errno of poll(2).
pub(crate) fn wait_for(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut fds = [nix::poll::PollFd::new(fd, nix::poll::PollFlags::POLLIN)];
    nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE).map(drop)
}

/// close(2) of a copy that a fork has left, which its owner closes in the process that was forked.
pub(crate) fn shut(fd: &OwnedFd) {
    // SAFETY: this process is the copy, runs nothing that uses it, and never drops it.
    unsafe { libc::close(fd.as_raw_fd()) };
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

/// The time stamp counter. QEMU's `-icount` makes it count executed instructions.
#[must_use]
pub(crate) fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, which user space may execute unless a process has
    // given that up itself (prctl(2), PR_SET_TSC).
    unsafe { std::arch::x86_64::_rdtsc() }
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

/// kill(2), with real-time signals, which nix's `Signal` cannot name.
///
/// # Errors
/// The errno of kill(2).
pub(crate) fn kill(pid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: plain numbers go in.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// finit_module(2), without parameters.
///
/// # Errors
/// The errno of the call.
pub(crate) fn load_module(file: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: an open descriptor, a terminated string, and no flags go in; the kernel only reads them.
    let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    Errno::result(result).map(drop)
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
