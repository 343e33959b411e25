// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading, writing and syncing through descriptors; names of files.

use std::os::fd::AsFd;

use holdfast_protocol::op::{Link, Read, Rename, Syncfs, Unlink, Write};
use holdfast_protocol::{Handle, pattern_byte};
use nix::errno::Errno;
use nix::unistd::{self, Whence};

use super::files::declared;
use super::{bytes, differs, length};
use crate::actor::{Actor, Done, Stop, not_issued};
use crate::sys::{self, Mapping, exposed};

/// How much goes through one call, in bytes.
const MOST_BYTES: usize = 16 << 20;

/// Memory for a transfer: whole pages, as O_DIRECT wants them.
fn buffer(len: usize) -> Result<Mapping, Stop> {
    if len > MOST_BYTES {
        return Err(not_issued("one call carries at most 16 MiB"));
    }
    let map = Mapping::new(len.max(1), libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None, 0)?;
    map.populate(true)?;
    Ok(map)
}

/// Where a transfer begins: given, or where the descriptor is.
fn place(fd: &impl AsFd, at_kib: Option<u64>) -> Result<u64, Stop> {
    match at_kib {
        Some(at_kib) => bytes(at_kib),
        None => Ok(unistd::lseek(fd, 0, Whence::SeekCur)?.cast_unsigned()),
    }
}

/// One of the calls of read(2) and write(2), by number: their buffer is no Rust memory.
fn transfer(calls: (i64, i64), fd: i32, map: Mapping, len: usize, at: Option<u64>) -> Result<usize, Errno> {
    let address = map.start().addr() as u64;
    let arguments = [i64::from(fd), address.cast_signed(), i64::try_from(len).map_err(|_| Errno::EINVAL)?];
    let [fd, address, len] = arguments;
    let done = match at {
        None => sys::syscall(calls.0, [fd, address, len, 0, 0, 0])?,
        Some(at) => sys::syscall(calls.1, [fd, address, len, at.cast_signed(), 0, 0])?,
    };
    usize::try_from(done).map_err(|_| Errno::EOVERFLOW)
}

/// read(2), or pread(2).
pub(crate) fn read(actor: &Actor, op: &Read) -> Result<Done, Stop> {
    let (fd, len) = (actor.fd(&op.fd)?, length(op.len_kib)?);
    let begin = if op.pattern.is_some() { place(&fd, op.at_kib)? } else { 0 };
    let at = op.at_kib.map(bytes).transpose()?;
    let map = buffer(len)?;
    let read = transfer((libc::SYS_read, libc::SYS_pread64), fd.raw(), map, len, at);
    let other = match (&read, op.pattern) {
        (Ok(read), Some(seed)) => {
            let wanted = |offset: u64, got: u8| got == pattern_byte(seed, begin + offset);
            map.find_other(0, *read, wanted)
                .ok()
                .flatten()
                .map(|(offset, got)| differs(seed, begin + offset, got))
        }
        _ => None,
    };
    map.unmap()?;
    match other {
        Some(differs) => Err(Stop(differs)),
        None => Ok(Done::value(i64::try_from(read?).unwrap_or(i64::MAX))),
    }
}

/// write(2), or pwrite(2), of a pattern.
pub(crate) fn write(actor: &Actor, op: &Write) -> Result<Done, Stop> {
    let (fd, len) = (actor.fd(&op.fd)?, length(op.len_kib)?);
    let begin = place(&fd, op.at_kib)?;
    let at = op.at_kib.map(bytes).transpose()?;
    let map = buffer(len)?;
    let stored = map.store(0, len, |offset| pattern_byte(op.pattern, begin + offset));
    let written = transfer((libc::SYS_write, libc::SYS_pwrite64), fd.raw(), map, len, at);
    map.unmap()?;
    stored.map_err(|_| Errno::EFAULT)?;
    Ok(Done::value(i64::try_from(written?).unwrap_or(i64::MAX)))
}

/// fsync(2), or fdatasync(2).
pub(crate) fn fsync(actor: &Actor, fd: &Handle, only_data: bool) -> Result<Done, Stop> {
    let fd = actor.fd(fd)?;
    exposed(|| if only_data { unistd::fdatasync(fd) } else { unistd::fsync(fd) })?;
    Ok(Done::default())
}

/// sync(2).
pub(crate) fn sync() -> Done {
    exposed(unistd::sync);
    Done::default()
}

/// syncfs(2).
pub(crate) fn syncfs(actor: &Actor, op: &Syncfs) -> Result<Done, Stop> {
    let fd = actor.fd(&op.fd)?;
    exposed(|| unistd::syncfs(fd))?;
    Ok(Done::default())
}

/// unlink(2).
pub(crate) fn unlink(actor: &Actor, op: &Unlink) -> Result<Done, Stop> {
    let path = &declared(actor, &op.file)?.path;
    exposed(|| unistd::unlink(path))?;
    Ok(Done::default())
}

/// rename(2).
pub(crate) fn rename(actor: &Actor, op: &Rename) -> Result<Done, Stop> {
    let (from, to) = (&declared(actor, &op.file)?.path, &declared(actor, &op.to)?.path);
    let here = nix::fcntl::AT_FDCWD;
    exposed(|| nix::fcntl::renameat(here, from, here, to))?;
    Ok(Done::default())
}

/// link(2).
pub(crate) fn link(actor: &Actor, op: &Link) -> Result<Done, Stop> {
    let (from, to) = (&declared(actor, &op.file)?.path, &declared(actor, &op.to)?.path);
    let here = nix::fcntl::AT_FDCWD;
    exposed(|| unistd::linkat(here, from, here, to, nix::fcntl::AtFlags::empty()))?;
    Ok(Done::default())
}
