// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mappings, and access to them that a signal ends instead of the process (`memory.c`).
#![expect(unsafe_code, reason = "mmap(2) and its kin, and the C shim for guarded access")]

use std::ffi::c_int;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;

unsafe extern "C" {
    fn hf_guard(signo: c_int) -> c_int;
    fn hf_copy(to: *mut u8, from: *const u8, len: usize, code: *mut c_int) -> c_int;
}

/// How much is copied between a mapping and a buffer at once, in bytes.
const CHUNK_BYTES: usize = 4096;

/// Makes SIGBUS or SIGSEGV of an access through a [`Mapping`] a result, [`Broken::Fault`].
///
/// # Errors
/// The errno of sigaction(2).
pub(crate) fn guard(signal: i32) -> Result<(), Errno> {
    // SAFETY: the handler returns into the loop that raised the signal or restores the default.
    match unsafe { hf_guard(signal) } {
        0 => Ok(()),
        errno => Err(Errno::from_raw(errno)),
    }
}

/// Why an access did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The range is not within the mapping.
    Outside,
    /// The access raised this signal, with this `si_code`. Without [`guard`] it ends the process.
    Fault(i32, i32),
}

/// What mmap(2) is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// Length in bytes.
    pub(crate) len: usize,
    /// PROT_*.
    pub(crate) prot: i32,
    /// MAP_*, without MAP_FIXED.
    pub(crate) flags: i32,
    /// Offset in the file, in bytes.
    pub(crate) offset: u64,
    /// MAP_FIXED over a mapping, from this byte of it on.
    pub(crate) over: Option<(Mapping, usize)>,
}

/// Numbers, all 0, that this process shares with those it forks. Never let go.
///
/// # Errors
/// The errno of mmap(2).
pub(crate) fn shared_words(count: usize) -> Result<&'static [AtomicU64], Errno> {
    let len = count * size_of::<AtomicU64>();
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: new memory, zeroed by the kernel and aligned to a page, that nobody unmaps; an AtomicU64 may be
    // zero, and is made to be changed by others.
    unsafe {
        let start = libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(std::slice::from_raw_parts(start.cast::<AtomicU64>(), count))
    }
}

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
        Self::map(Request { len, prot: libc::PROT_READ | libc::PROT_WRITE, flags, offset, over: None }, fd)
    }

    /// mmap(2).
    ///
    /// # Errors
    /// The errno of mmap(2); EINVAL when the range to replace is not within its mapping.
    pub(crate) fn map(request: Request, fd: Option<BorrowedFd<'_>>) -> Result<Self, Errno> {
        let fd = fd.map_or(-1, |fd| fd.as_raw_fd());
        let offset = i64::try_from(request.offset).map_err(|_| Errno::EINVAL)?;
        let (address, fixed) = match request.over {
            None => (ptr::null_mut(), 0),
            Some((map, at)) => (map.range(at, request.len).ok_or(Errno::EINVAL)?, libc::MAP_FIXED),
        };
        let flags = (request.flags & !libc::MAP_FIXED) | fixed;
        // SAFETY: without an address no existing mapping is replaced; with one, only memory of a mapping
        // that a step made, into which no reference is ever handed out.
        let start = unsafe { libc::mmap(address.cast(), request.len, request.prot, flags, fd, offset) };
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(Self { start: start.cast(), len: request.len })
    }

    /// Where a range of it starts; `None` when it is not within.
    fn range(self, at: usize, len: usize) -> Option<*mut u8> {
        let within = at.checked_add(len)? <= self.len;
        within.then(|| self.start.wrapping_add(at))
    }

    /// A part of it.
    #[must_use]
    pub(crate) fn part(self, at: usize, len: usize) -> Option<Self> {
        self.range(at, len).map(|start| Self { start, len })
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
        // SAFETY: the range came from mmap(2); no reference into it is ever handed out, and an access to
        // what is gone is a result.
        Errno::result(unsafe { libc::munmap(self.start.cast(), self.len) }).map(drop)
    }

    /// mprotect(2) of all of it.
    ///
    /// # Errors
    /// The errno of mprotect(2).
    pub(crate) fn protect(self, prot: i32) -> Result<(), Errno> {
        // SAFETY: as with `unmap`.
        Errno::result(unsafe { libc::mprotect(self.start.cast(), self.len, prot) }).map(drop)
    }

    /// madvise(2) of all of it.
    ///
    /// # Errors
    /// The errno of madvise(2).
    pub(crate) fn advise(self, advice: i32) -> Result<(), Errno> {
        // SAFETY: whatever becomes of the bytes, nothing but guarded copies looks at them.
        Errno::result(unsafe { libc::madvise(self.start.cast(), self.len, advice) }).map(drop)
    }

    /// MADV_POPULATE_WRITE, or MADV_POPULATE_READ: fault every page in.
    ///
    /// # Errors
    /// The errno of madvise(2); EFAULT where a store would be SIGBUS.
    pub(crate) fn populate(self, write: bool) -> Result<(), Errno> {
        self.advise(if write { libc::MADV_POPULATE_WRITE } else { libc::MADV_POPULATE_READ })
    }

    /// Copies into it.
    ///
    /// # Errors
    /// See [`Broken`].
    pub(crate) fn put(self, at: usize, bytes: &[u8]) -> Result<(), Broken> {
        let start = self.range(at, bytes.len()).ok_or(Broken::Outside)?;
        copy(start, bytes.as_ptr(), bytes.len())
    }

    /// Copies out of it.
    ///
    /// # Errors
    /// See [`Broken`].
    pub(crate) fn get(self, at: usize, bytes: &mut [u8]) -> Result<(), Broken> {
        let start = self.range(at, bytes.len()).ok_or(Broken::Outside)?;
        copy(bytes.as_mut_ptr(), start, bytes.len())
    }

    /// Stores `byte(offset)` at each offset of a range.
    ///
    /// # Errors
    /// See [`Broken`]; what was stored before stays.
    pub(crate) fn store(self, at: usize, len: usize, byte: impl Fn(u64) -> u8) -> Result<(), Broken> {
        self.range(at, len).ok_or(Broken::Outside)?;
        let mut buffer = [0u8; CHUNK_BYTES];
        for begin in (at..at + len).step_by(CHUNK_BYTES) {
            let chunk = &mut buffer[..CHUNK_BYTES.min(at + len - begin)];
            for (slot, offset) in chunk.iter_mut().zip(begin as u64..) {
                *slot = byte(offset);
            }
            self.put(begin, chunk)?;
        }
        Ok(())
    }

    /// Loads each byte of a range and hands it to `wanted` until that says no; offset and value of that
    /// byte, if there is one. The bare `bool` lets the loop be one: a call for each byte is fifteen times
    /// slower in an emulated machine, where a return is a search for the code to go on with.
    ///
    /// # Errors
    /// See [`Broken`].
    pub(crate) fn find_other(
        self,
        at: usize,
        len: usize,
        mut wanted: impl FnMut(u64, u8) -> bool,
    ) -> Result<Option<(u64, u8)>, Broken> {
        self.range(at, len).ok_or(Broken::Outside)?;
        let mut buffer = [0u8; CHUNK_BYTES];
        for begin in (at..at + len).step_by(CHUNK_BYTES) {
            let chunk = &mut buffer[..CHUNK_BYTES.min(at + len - begin)];
            self.get(begin, chunk)?;
            for (byte, offset) in chunk.iter().zip(begin as u64..) {
                if !wanted(offset, *byte) {
                    return Ok(Some((offset, *byte)));
                }
            }
        }
        Ok(None)
    }

    /// vmsplice(2) of `len` bytes at `at` into a pipe: the pipe then holds references to the pages.
    ///
    /// # Errors
    /// The errno of vmsplice(2); EFAULT when the range is not within the mapping.
    pub(crate) fn vmsplice(self, pipe: BorrowedFd<'_>, at: usize, len: usize) -> Result<usize, Errno> {
        let start = self.range(at, len).ok_or(Errno::EFAULT)?;
        let iov = libc::iovec { iov_base: start.cast(), iov_len: len };
        // SAFETY: the kernel only reads the range, which lies within the mapping.
        Errno::result(unsafe { libc::vmsplice(pipe.as_raw_fd(), &raw const iov, 1, 0) })
            .map(isize::cast_unsigned)
    }
}

fn copy(to: *mut u8, from: *const u8, len: usize) -> Result<(), Broken> {
    let mut code = 0;
    // SAFETY: one side is a buffer of that length, the other a range of a mapping, whose bytes may be gone:
    // then the copy ends with the signal (see `guard`).
    match unsafe { hf_copy(to, from, len, &raw mut code) } {
        0 => Ok(()),
        signal => Err(Broken::Fault(signal, code)),
    }
}
