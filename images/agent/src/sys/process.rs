// SPDX-License-Identifier: MIT OR Apache-2.0
//! New processes, and descriptors on their way between processes.
#![expect(unsafe_code, reason = "clone(2), and descriptors that came out of a message")]

use std::convert::Infallible;
use std::ffi::CStr;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::unistd::{getpid, getppid};

use super::exposed;

/// Which side of a fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forked {
    /// The one that called; the child's number.
    Parent(i32),
    /// The new one.
    Child,
}

/// fork(2), except that the child is the caller's sibling (CLONE_PARENT): the session, which started the
/// caller, is told how the child ends.
///
/// The system call itself and not the C library's function: that one takes locks which another thread may
/// hold. The child uses nothing of the library that knows its thread's number.
///
/// # Errors
/// The errno of clone(2).
pub(crate) fn fork_for_parent() -> Result<Forked, Errno> {
    let flags = i64::from(libc::CLONE_PARENT | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and without a stack it is fork(2): the child goes on with a copy of
    // everything. Whoever else ran in the parent is not there, and held neither the baton nor the
    // allocator, which are touched with the baton only.
    match Errno::result(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(i32::try_from(pid).map_err(|_| Errno::EOVERFLOW)?)),
    }
}

/// A process beside this one, for as long as this one lives: a copy of it, which runs `life` and nothing else.
/// Its number.
///
/// # Errors
/// The errno of clone(2).
pub(crate) fn fork_off(name: &CStr, life: impl FnOnce() -> Infallible) -> Result<i32, Errno> {
    let parent = getpid();
    // SAFETY: without CLONE_VM and without a stack it is fork(2). The caller has one thread, but for tests,
    // and what the child runs takes no lock.
    let pid = Errno::result(unsafe { libc::syscall(libc::SYS_clone, i64::from(libc::SIGCHLD), 0, 0, 0, 0) })?;
    if pid == 0 {
        let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
        // It may be gone by now, and then no signal comes.
        if getppid() != parent {
            super::exit_now(0);
        }
        let _ = nix::sys::prctl::set_name(name);
        life();
    }
    i32::try_from(pid).map_err(|_| Errno::EOVERFLOW)
}

/// Sends one descriptor with one byte.
///
/// # Errors
/// The errno of sendmsg(2).
pub(crate) fn send_fd(socket: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let fds = [fd.as_raw_fd()];
    let message = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&[0])], &message, MsgFlags::MSG_NOSIGNAL, None).map(drop)
}

/// Receives one descriptor with one byte, close-on-exec not set.
///
/// # Errors
/// The errno of recvmsg(2); ENOMSG when no descriptor came with it.
pub(crate) fn receive_fd(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let mut byte = [0u8; 1];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let message =
        exposed(|| recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty()))?;
    let fd = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    let fd = fd.ok_or(Errno::ENOMSG)?;
    // SAFETY: the kernel just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
