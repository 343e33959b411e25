// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the blocks of a file lie: FS_IOC_FIEMAP (include/uapi/linux/fiemap.h).
#![expect(unsafe_code, reason = "an ioctl that nix does not wrap")]

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use crate::survey::Extent;

/// `_IOWR('f', 11, struct fiemap)`.
const FS_IOC_FIEMAP: libc::c_ulong = 0xc020_660b;
/// FIEMAP_FLAG_SYNC: what is only in memory has no place yet.
const FLAG_SYNC: u32 = 1;
/// Asked for at once.
const BATCH: usize = 64;
/// A file of a few hundred MiB in single blocks has more; nobody's does.
const MOST: usize = 100_000;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

#[repr(C)]
struct Request {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [RawExtent; BATCH],
}

/// All extents of a file, in its order.
///
/// # Errors
/// The errno of the ioctl; EOVERFLOW for a file of absurdly many pieces.
pub(crate) fn fiemap(file: BorrowedFd<'_>) -> Result<Vec<Extent>, Errno> {
    let mut all: Vec<Extent> = Vec::new();
    let mut start = 0;
    loop {
        let mut request = Request {
            start,
            length: u64::MAX - start,
            flags: FLAG_SYNC,
            mapped: 0,
            count: BATCH as u32,
            reserved: 0,
            extents: [RawExtent::default(); BATCH],
        };
        // SAFETY: the structure has the kernel's layout, says how many extents fit, and outlives the call.
        Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP, &raw mut request) })?;
        let found = &request.extents[..(request.mapped as usize).min(BATCH)];
        let extent = |raw: &RawExtent| Extent { logical: raw.logical, physical: raw.physical, len: raw.length };
        all.extend(found.iter().map(extent));
        match found.last() {
            Some(_) if all.len() > MOST => return Err(Errno::EOVERFLOW),
            Some(last) if found.len() == BATCH => start = last.logical + last.length,
            _ => return Ok(all),
        }
    }
}
