// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations that share, move, count and use up blocks, and that mount what they are on.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use holdfast_protocol::op::{
    Clone, Dedupe, ExchangeRange, Fiemap, Fill, FillFree, Mount, Remount, Statx, StatxField, SwapExtents,
    Umount,
};
use holdfast_protocol::{Outcome, Place};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open as open_path};
use nix::mount::{MntFlags, MsFlags, mount as mount_at, umount2};
use nix::sys::stat::Mode;
use nix::unistd;

use super::files::declared;
use super::{bytes, length, pattern};
use crate::actor::{Actor, Done, Stop, not_issued};
use crate::sys::{self, exposed};

/// `_IOW(0x94, 13, struct file_clone_range)` of linux/fs.h.
const FICLONERANGE: u64 = 0x4020_940d;
/// `_IOWR(0x94, 54, struct file_dedupe_range)`.
const FIDEDUPERANGE: u64 = 0xc018_9436;
/// FILE_DEDUPE_RANGE_DIFFERS.
const DEDUPE_DIFFERS: i32 = 1;
/// `_IOWR('f', 11, struct fiemap)`.
pub(crate) const FS_IOC_FIEMAP: u64 = 0xc020_660b;
/// FIEMAP_FLAG_SYNC.
pub(crate) const FIEMAP_SYNC: u32 = 1;
/// `_IOW('X', 129, struct xfs_exchange_range)` of fs/xfs/libxfs/xfs_fs.h.
const XFS_IOC_EXCHANGE_RANGE: u64 = 0x4028_5881;

/// `_IOWR('X', 109, struct xfs_swapext)`, its size, and where in it is what.
const XFS_IOC_SWAPEXT: u64 = 0xc0c0_586d;
const SWAPEXT_BYTES: usize = 192;
const SWAPEXT_STAT_AT: usize = 56;
const BSTAT_MTIME_AT: usize = 56;
const BSTAT_CTIME_AT: usize = 72;

/// How much is written at once, in bytes.
const CHUNK_BYTES: usize = 256 << 10;

fn opened(actor: &Actor, file: &str) -> Result<OwnedFd, Stop> {
    let path = &declared(actor, file)?.path;
    Ok(exposed(|| open_path(path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()))?)
}

fn number_of(fd: &OwnedFd) -> i64 {
    fd.as_raw_fd().into()
}

/// The words of a structure, one behind the other.
fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// FICLONERANGE.
pub(crate) fn clone(actor: &Actor, op: &Clone) -> Result<Done, Stop> {
    let (from, to) = (opened(actor, &op.file)?, opened(actor, &op.to)?);
    let source = number_of(&from).cast_unsigned();
    let mut range = words(&[source, bytes(op.at_kib)?, bytes(op.len_kib)?, bytes(op.to_at_kib)?]);
    sys::ioctl_bytes(to.as_fd(), FICLONERANGE, &mut range)?;
    Ok(Done::default())
}

/// FIDEDUPERANGE with one destination.
pub(crate) fn dedupe(actor: &Actor, op: &Dedupe) -> Result<Done, Stop> {
    let (from, to) = (opened(actor, &op.file)?, opened(actor, &op.to)?);
    let mut range = words(&[bytes(op.at_kib)?, bytes(op.len_kib)?]);
    // dest_count 1, two reserved fields; then the destination, whose last two words the kernel fills in.
    range.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    range.extend(words(&[number_of(&to).cast_unsigned(), bytes(op.to_at_kib)?, 0, 0]));
    sys::ioctl_bytes(from.as_fd(), FIDEDUPERANGE, &mut range)?;
    let field = |at: usize| u64::from_ne_bytes(std::array::from_fn(|nr| range[at + nr]));
    let (deduped, status) = (field(40), field(48) as u32 as i32);
    match status {
        0 => Ok(Done::value(deduped.cast_signed())),
        DEDUPE_DIFFERS => Err(Stop(Outcome::Differs { at: bytes(op.at_kib)?, want: 0, got: 0 })),
        errno => Err(Stop(Outcome::Errno(-errno))),
    }
}

/// XFS_IOC_EXCHANGE_RANGE.
pub(crate) fn exchange_range(actor: &Actor, op: &ExchangeRange) -> Result<Done, Stop> {
    let (from, to) = (opened(actor, &op.file)?, opened(actor, &op.to)?);
    let file1 = number_of(&from).cast_unsigned();
    let mut range = words(&[file1, bytes(op.at_kib)?, bytes(op.to_at_kib)?, bytes(op.len_kib)?, 0]);
    sys::ioctl_bytes(to.as_fd(), XFS_IOC_EXCHANGE_RANGE, &mut range)?;
    Ok(Done::default())
}

/// XFS_IOC_SWAPEXT. The kernel wants size and times of the first file as they are, so that nobody changed it
/// since the caller looked (xfs_swap_extents()).
pub(crate) fn swap_extents(actor: &Actor, op: &SwapExtents) -> Result<Done, Stop> {
    let (file, other) = (opened(actor, &op.file)?, opened(actor, &op.to)?);
    let stat = nix::sys::stat::fstat(file.as_fd())?;
    let word = |number: i64| number.cast_unsigned();
    // struct xfs_swapext: version, the two files, offset, length, padding; then the first one's struct
    // xfs_bstat, of which all but the times may be zero.
    let mut swap = words(&[0, word(number_of(&file)), word(number_of(&other)), 0, word(stat.st_size), 0, 0]);
    swap.extend([0; SWAPEXT_BYTES - SWAPEXT_STAT_AT]);
    for (at, seconds, nanos) in [
        (BSTAT_MTIME_AT, stat.st_mtime, stat.st_mtime_nsec),
        (BSTAT_CTIME_AT, stat.st_ctime, stat.st_ctime_nsec),
    ] {
        let at = SWAPEXT_STAT_AT + at;
        swap[at..at + 16].copy_from_slice(&words(&[word(seconds), word(nanos)]));
    }
    sys::ioctl_bytes(file.as_fd(), XFS_IOC_SWAPEXT, &mut swap)?;
    Ok(Done::default())
}

/// FS_IOC_FIEMAP that only counts.
pub(crate) fn fiemap(actor: &Actor, op: &Fiemap) -> Result<Done, Stop> {
    let file = opened(actor, &op.file)?;
    let mut request = words(&[bytes(op.at_kib)?, bytes(op.len_kib)?]);
    request.extend(FIEMAP_SYNC.to_ne_bytes());
    request.extend([0; 12]);
    sys::ioctl_bytes(file.as_fd(), FS_IOC_FIEMAP, &mut request)?;
    Ok(Done::value(u32::from_ne_bytes(std::array::from_fn(|nr| request[20 + nr])).into()))
}

/// One field of statx(2).
pub(crate) fn statx(actor: &Actor, op: &Statx) -> Result<Done, Stop> {
    let path =
        CString::new(declared(actor, &op.file)?.path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let [size, blocks, nlink, dax, ino] = sys::statx(&path)?;
    let value = match op.field {
        StatxField::Size => size,
        StatxField::Blocks => blocks,
        StatxField::Nlink => nlink,
        StatxField::Dax => dax,
        StatxField::Ino => ino,
    };
    Ok(Done::value(value.cast_signed()))
}

/// A new file of a declared name.
fn fresh(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    open_path(path, flags, Mode::S_IRUSR | Mode::S_IWUSR)
}

/// Writes a pattern from the start on, up to a size or until nothing more fits; how much it was.
fn pour(file: &OwnedFd, size: usize, seed: u8) -> Result<usize, Errno> {
    let mut at = 0;
    while at < size {
        let chunk = pattern(seed, at as u64, CHUNK_BYTES.min(size - at));
        match unistd::write(file, &chunk) {
            Ok(more) => at += more,
            Err(Errno::ENOSPC) if size == usize::MAX => break,
            Err(errno) => return Err(errno),
        }
    }
    unistd::fsync(file)?;
    Ok(at)
}

/// A new file of a size.
pub(crate) fn fill(actor: &Actor, op: &Fill) -> Result<Done, Stop> {
    let (path, size) = (&declared(actor, &op.file)?.path, length(op.size_kib)?);
    pour(&fresh(path)?, size, op.pattern)?;
    Ok(Done::default())
}

/// A new file that takes all there is.
pub(crate) fn fill_free(actor: &Actor, op: &FillFree) -> Result<Done, Stop> {
    let size = pour(&fresh(&declared(actor, &op.file)?.path)?, usize::MAX, op.pattern)?;
    Ok(Done::value(i64::try_from(size).unwrap_or(i64::MAX)))
}

/// Folder and device of a place that can be mounted, and the name of its file system.
fn mountable(actor: &Actor, on: Place) -> Result<(&PathBuf, &PathBuf, &'static str), Stop> {
    let kind = match on {
        Place::Ext4 => "ext4",
        Place::Xfs => "xfs",
        Place::Devdax => return Err(not_issued("device DAX is not mounted")),
    };
    match actor.part.places.get(&on) {
        Some((folder, Some(device))) => Ok((folder, device, kind)),
        _ => Err(not_issued(format!("this machine has no {kind} that can be mounted"))),
    }
}

fn mount_with(actor: &Actor, on: Place, options: &str, flags: MsFlags) -> Result<Done, Stop> {
    let (folder, device, kind) = mountable(actor, on)?;
    exposed(|| mount_at(Some(device), folder, Some(kind), flags, Some(options)))?;
    Ok(Done::default())
}

/// mount(2).
pub(crate) fn mount(actor: &Actor, op: &Mount) -> Result<Done, Stop> {
    mount_with(actor, op.on, &op.options, MsFlags::empty())
}

/// mount(2) with MS_REMOUNT.
pub(crate) fn remount(actor: &Actor, op: &Remount) -> Result<Done, Stop> {
    mount_with(actor, op.on, &op.options, MsFlags::MS_REMOUNT)
}

/// umount2(2).
pub(crate) fn umount(actor: &Actor, op: &Umount) -> Result<Done, Stop> {
    let (folder, ..) = mountable(actor, op.on)?;
    exposed(|| umount2(folder, MntFlags::empty()))?;
    Ok(Done::default())
}
