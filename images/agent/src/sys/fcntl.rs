// SPDX-License-Identifier: MIT OR Apache-2.0
//! fcntl(2) as leases need it, and other calls that take plain numbers.
#![expect(unsafe_code, reason = "fcntl(2), which nix does not wrap for leases and owners")]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// Of include/uapi/asm-generic/fcntl.h; libc does not have it.
pub(crate) const F_SETSIG: i32 = 10;
/// See [`F_SETSIG`].
pub(crate) const F_GETSIG: i32 = 11;
/// See [`F_SETSIG`].
const F_SETOWN_EX: i32 = 15;

/// `struct f_owner_ex`.
#[repr(C)]
struct Owner {
    kind: i32,
    pid: i32,
}

/// fcntl(2) with a number as its argument.
///
/// # Errors
/// The errno of fcntl(2).
pub(crate) fn fcntl(fd: BorrowedFd<'_>, command: i32, argument: i64) -> Result<i32, Errno> {
    // SAFETY: named steps pass commands whose argument is a number; the step `fcntl`, which is raw by
    // design, may pass any, and a pointer that is none is EFAULT.
    Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), command, argument) })
}

/// F_GETOWN; a process group is negative.
///
/// # Errors
/// Its errno.
pub(crate) fn owner(fd: BorrowedFd<'_>) -> Result<i32, Errno> {
    fcntl(fd, libc::F_GETOWN, 0)
}

/// F_SETOWN_EX.
///
/// # Errors
/// Its errno.
pub(crate) fn set_owner_ex(fd: BorrowedFd<'_>, kind: i32, pid: i32) -> Result<(), Errno> {
    let owner = Owner { kind, pid };
    // SAFETY: the structure has the layout of the kernel's and outlives the call, which only reads it.
    Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), F_SETOWN_EX, &raw const owner) }).map(drop)
}

/// dup2(2) or dup3(2) onto any number, in use or not.
///
/// # Errors
/// Its errno.
pub(crate) fn dup_onto(fd: BorrowedFd<'_>, onto: RawFd, flags: Option<i32>) -> Result<RawFd, Errno> {
    // SAFETY: plain numbers go in. What was open there is closed: the number is one of a step's, which no
    // Rust object owns.
    Errno::result(unsafe {
        match flags {
            None => libc::dup2(fd.as_raw_fd(), onto),
            Some(flags) => libc::dup3(fd.as_raw_fd(), onto, flags),
        }
    })
}

/// True if the number is open in this process.
#[must_use]
pub(crate) fn is_open(fd: RawFd) -> bool {
    // SAFETY: asks only.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

/// memfd_create(2) without close-on-exec: what a program leaves for the one it becomes.
///
/// # Errors
/// Its errno.
pub(crate) fn memfd(flags: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: a terminated name and a number go in; the kernel made the descriptor for us.
    unsafe {
        let fd = Errno::result(libc::memfd_create(c"holdfast".as_ptr(), flags))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}
