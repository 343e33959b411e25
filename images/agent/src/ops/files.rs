// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations on declared files and descriptors.

use std::os::fd::AsFd;

use holdfast_protocol::{CutHow, FallocateMode, Handle, OpenFlag, Place};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate as fallocate_fd, open as open_path};
use nix::sys::stat::{Mode, stat};
use nix::sys::uio::pread;
use nix::unistd;

use super::{bytes, difference, length};
use crate::actor::{Actor, Done, Stop, Thing, not_issued, wrong_thing};
use crate::sys::Mapping;
use crate::wire::DeclaredFile;

fn declared<'a>(actor: &'a Actor, name: &str) -> Result<&'a DeclaredFile, Stop> {
    actor.part.files.get(name).ok_or_else(|| not_issued(format!("no file {name} is declared")))
}

fn open_flag(flag: OpenFlag) -> OFlag {
    match flag {
        OpenFlag::O_RDONLY => OFlag::O_RDONLY,
        OpenFlag::O_WRONLY => OFlag::O_WRONLY,
        OpenFlag::O_RDWR => OFlag::O_RDWR,
        OpenFlag::O_TRUNC => OFlag::O_TRUNC,
        OpenFlag::O_DIRECT => OFlag::O_DIRECT,
        OpenFlag::O_CLOEXEC => OFlag::O_CLOEXEC,
    }
}

/// open(2).
pub(crate) fn open(actor: &Actor, file: &str, flags: &[OpenFlag]) -> Result<Done, Stop> {
    let flags = flags.iter().fold(OFlag::empty(), |all, flag| all | open_flag(*flag));
    let fd = open_path(&declared(actor, file)?.path, flags, Mode::empty())?;
    Ok(Done::thing(Thing::Fd(fd)))
}

/// close(2); the handle is gone whatever it returns, as the descriptor is.
pub(crate) fn close(actor: &mut Actor, handle: &Handle) -> Result<Done, Stop> {
    match actor.things.remove(handle.id()) {
        Some(Thing::Fd(fd)) => {
            unistd::close(fd)?;
            Ok(Done::default())
        }
        other => {
            let stop = wrong_thing(handle, other.as_ref(), "descriptor");
            if let Some(thing) = other {
                actor.things.insert(handle.id().to_owned(), thing);
            }
            Err(stop)
        }
    }
}

/// truncate(2) or ftruncate(2).
pub(crate) fn truncate(
    actor: &Actor,
    file: Option<&str>,
    fd: Option<&Handle>,
    size_kib: u64,
) -> Result<Done, Stop> {
    let size = bytes(size_kib)?.cast_signed();
    match (file, fd) {
        (Some(file), None) => unistd::truncate(&declared(actor, file)?.path, size)?,
        (None, Some(fd)) => unistd::ftruncate(actor.fd(fd)?, size)?,
        _ => return Err(not_issued("truncate wants either a file or a descriptor")),
    }
    Ok(Done::default())
}

/// The bits of FALLOC_FL_* names.
pub(crate) fn fallocate_flags(modes: &[FallocateMode]) -> FallocateFlags {
    let bit = |mode: &FallocateMode| match mode {
        FallocateMode::KEEP_SIZE => FallocateFlags::FALLOC_FL_KEEP_SIZE,
        FallocateMode::PUNCH_HOLE => FallocateFlags::FALLOC_FL_PUNCH_HOLE,
        FallocateMode::ZERO_RANGE => FallocateFlags::FALLOC_FL_ZERO_RANGE,
        FallocateMode::COLLAPSE_RANGE => FallocateFlags::FALLOC_FL_COLLAPSE_RANGE,
        FallocateMode::INSERT_RANGE => FallocateFlags::FALLOC_FL_INSERT_RANGE,
    };
    modes.iter().map(bit).collect()
}

/// fallocate(2) through a descriptor of its own.
pub(crate) fn fallocate(
    actor: &Actor,
    file: &str,
    flags: FallocateFlags,
    at_kib: u64,
    len_kib: u64,
) -> Result<Done, Stop> {
    let (at, len) = (bytes(at_kib)?.cast_signed(), bytes(len_kib)?.cast_signed());
    let fd = open_path(&declared(actor, file)?.path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    fallocate_fd(fd, flags, at, len)?;
    Ok(Done::default())
}

/// truncate(2) to the start of the range, or a punched hole of the range.
pub(crate) fn cut(actor: &Actor, file: &str, how: CutHow, at_kib: u64, len_kib: u64) -> Result<Done, Stop> {
    match how {
        CutHow::Truncate => truncate(actor, Some(file), None, at_kib),
        CutHow::Punch => {
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            fallocate(actor, file, flags, at_kib, len_kib)
        }
    }
}

/// Size by stat(2).
pub(crate) fn size(actor: &Actor, file: &str) -> Result<Done, Stop> {
    Ok(Done::value(stat(&declared(actor, file)?.path)?.st_size))
}

/// Compares a range with a pattern, by read(2); device DAX, which cannot be read, is mapped.
/// ENODATA when the file ends within the range and everything before agrees.
pub(crate) fn compare(actor: &Actor, file: &str, at_kib: u64, len_kib: u64, seed: u8) -> Result<Done, Stop> {
    let file = declared(actor, file)?;
    let (at, len) = (bytes(at_kib)?, length(len_kib)?);
    let fd = open_path(&file.path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    let found = read_range(&fd, file.on, at, len)?;
    if let Some(differs) = difference(seed, at, &found) {
        return Err(Stop(differs));
    }
    if found.len() < len {
        return Err(Errno::ENODATA.into());
    }
    Ok(Done::default())
}

/// Reads a range of a file, less where the file ends.
///
/// # Errors
/// The errno of read(2) or mmap(2).
pub(crate) fn read_range(fd: &impl AsFd, on: Place, at: u64, len: usize) -> Result<Vec<u8>, Errno> {
    let mut found = vec![0u8; len];
    if on == Place::Devdax {
        let whole = Mapping::new(
            len + usize::try_from(at).map_err(|_| Errno::EFBIG)?,
            libc::MAP_SHARED,
            Some(fd.as_fd()),
            0,
        )?;
        let _ = whole.find_other(whole.len() - len, len, |offset, byte| {
            found[usize::try_from(offset - at).unwrap_or(0)] = byte;
            true
        });
        whole.unmap()?;
        return Ok(found);
    }
    let mut have = 0;
    while have < len {
        match pread(fd, &mut found[have..], (at + have as u64).cast_signed())? {
            0 => break,
            more => have += more,
        }
    }
    found.truncate(have);
    Ok(found)
}
