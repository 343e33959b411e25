// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls by number: ioctl(2) with a structure as bytes, syscall(2), and the few calls that have no wrapper.
#![expect(unsafe_code, reason = "calls by number, which is what they are for")]

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use super::{Mapping, exposed};

/// What the size field of an ioctl(2) number can say (include/uapi/asm-generic/ioctl.h), in bytes: the kernel
/// copies no more than that for a request whose number is true.
const MOST_IOCTL_BYTES: usize = 1 << 14;

/// ioctl(2) with a structure, which the kernel may change.
///
/// # Errors
/// The errno of ioctl(2).
pub(crate) fn ioctl_bytes(fd: BorrowedFd<'_>, request: u64, bytes: &mut Vec<u8>) -> Result<i32, Errno> {
    let len = bytes.len();
    bytes.resize(len.max(MOST_IOCTL_BYTES), 0);
    let pointer = bytes.as_mut_ptr();
    // SAFETY: the buffer outlives the call and is as long as any structure that a number can announce.
    // Named requests are the ones of their structures; a request by number is the scenario's own doing, in a
    // process of its own.
    let result =
        exposed(|| Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), request as libc::Ioctl, pointer) }));
    bytes.truncate(len);
    result
}

/// ioctl(2) with a number.
///
/// # Errors
/// The errno of ioctl(2).
pub(crate) fn ioctl_number(fd: BorrowedFd<'_>, request: u64, argument: i64) -> Result<i32, Errno> {
    // SAFETY: as above; an address that is none is EFAULT.
    exposed(|| Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), request as libc::Ioctl, argument) }))
}

/// syscall(2).
///
/// # Errors
/// Its errno.
pub(crate) fn syscall(nr: i64, arguments: [i64; 6]) -> Result<i64, Errno> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: a call by number is the scenario's own doing, in a process of its own: what it breaks is that
    // process. Buffers among the arguments outlive the call.
    exposed(|| Errno::result(unsafe { libc::syscall(nr, a, b, c, d, e, f) }))
}

/// The address of a buffer, for [`syscall`].
pub(crate) fn address(bytes: &mut [u8]) -> i64 {
    (bytes.as_mut_ptr().expose_provenance() as u64).cast_signed()
}

/// io_uring_register(2), IORING_REGISTER_BUFFERS of one mapping.
///
/// # Errors
/// Its errno.
pub(crate) fn uring_register(ring: BorrowedFd<'_>, map: Mapping) -> Result<(), Errno> {
    let iov = libc::iovec { iov_base: map.start().cast(), iov_len: map.len() };
    let (nr, fd, iov) = (libc::SYS_io_uring_register, ring.as_raw_fd(), &raw const iov);
    // SAFETY: one iovec, which outlives the call; the kernel pins the pages and changes none.
    exposed(|| Errno::result(unsafe { libc::syscall(nr, fd, 0, iov, 1) })).map(drop)
}

/// How much io_uring_setup(2) is given: `struct io_uring_params` (include/uapi/linux/io_uring.h), in bytes.
pub(crate) const URING_PARAMS_BYTES: usize = 120;

/// _LINUX_CAPABILITY_VERSION_3.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// capset(2): clears these bits in the effective, permitted and inheritable sets of the calling thread.
///
/// # Errors
/// Its errno.
pub(crate) fn drop_capabilities(bits: u64) -> Result<(), Errno> {
    let mut header = [CAPABILITY_VERSION_3, 0];
    let mut sets = [[0u32; 3]; 2];
    // SAFETY: `struct __user_cap_header_struct` is two numbers of 32 bits, and version 3 has two
    // `struct __user_cap_data_struct` of three each (include/uapi/linux/capability.h).
    unsafe {
        Errno::result(libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()))?;
        for (half, sets) in sets.iter_mut().enumerate() {
            let bits = u32::try_from((bits >> (32 * half)) & u64::from(u32::MAX)).unwrap_or(0);
            for set in sets {
                *set &= !bits;
            }
        }
        Errno::result(libc::syscall(libc::SYS_capset, header.as_mut_ptr(), sets.as_mut_ptr()))?;
    }
    Ok(())
}

/// Fields of statx(2) that steps ask for: size, blocks, links, DAX, inode.
///
/// # Errors
/// Its errno.
pub(crate) fn statx(path: &std::ffi::CStr) -> Result<[u64; 5], Errno> {
    // SAFETY: an all-zero statx is a valid value, the path is terminated, and the kernel writes no more than
    // the structure.
    let (result, found) = unsafe {
        let mut found: libc::statx = std::mem::zeroed();
        let result = libc::statx(
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            libc::STATX_BASIC_STATS,
            &raw mut found,
        );
        (result, found)
    };
    Errno::result(result)?;
    let dax = found.stx_attributes & libc::STATX_ATTR_DAX as u64 != 0;
    Ok([found.stx_size, found.stx_blocks, found.stx_nlink.into(), dax.into(), found.stx_ino])
}

/// Lets signals into the program that a command becomes: an actor has them blocked.
pub(crate) fn with_open_signals(command: &mut std::process::Command) -> &mut std::process::Command {
    use std::os::unix::process::CommandExt;
    let parent = std::process::id().cast_signed();
    // SAFETY: between fork and exec only calls that are safe there: the mask, prctl(2), getppid(2).
    unsafe {
        command.pre_exec(move || {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            // What an actor runs ends with it.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // It may be gone by now, and then no signal comes.
            if libc::getppid() != parent {
                return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        })
    }
}
