// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations on declared files and descriptors.

use std::os::fd::AsFd;

use holdfast_protocol::op::{Close, Compare, Cut, Dup, Fallocate, Open, Size, Truncate};
use holdfast_protocol::{CutHow, FallocateMode, Handle, OpenFlag, Place};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate as fallocate_fd, open as open_path};
use nix::sys::stat::{Mode, stat};
use nix::sys::uio::pread;
use nix::unistd;

use super::{bytes, difference, length};
use crate::actor::{Actor, Done, Stop, not_issued};
use crate::sys::{self, Mapping, exposed};
use crate::wire::DeclaredFile;

/// A declared file.
pub(super) fn declared<'a>(actor: &'a Actor, name: &str) -> Result<&'a DeclaredFile, Stop> {
    actor.part.files.get(name).ok_or_else(|| not_issued(format!("no file {name} is declared")))
}

fn open_flag(flag: OpenFlag) -> OFlag {
    match flag {
        OpenFlag::O_RDONLY => OFlag::O_RDONLY,
        OpenFlag::O_WRONLY => OFlag::O_WRONLY,
        OpenFlag::O_RDWR => OFlag::O_RDWR,
        OpenFlag::O_TRUNC => OFlag::O_TRUNC,
        OpenFlag::O_CREAT => OFlag::O_CREAT,
        OpenFlag::O_EXCL => OFlag::O_EXCL,
        OpenFlag::O_APPEND => OFlag::O_APPEND,
        OpenFlag::O_NONBLOCK => OFlag::O_NONBLOCK,
        OpenFlag::O_DIRECT => OFlag::O_DIRECT,
        OpenFlag::O_CLOEXEC => OFlag::O_CLOEXEC,
    }
}

/// Who may what with a file that O_CREAT makes.
const NEW_MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// open(2).
pub(crate) fn open(actor: &Actor, op: &Open) -> Result<Done, Stop> {
    let flags = op.flags.iter().fold(OFlag::empty(), |all, flag| all | open_flag(*flag));
    let flags = flags | OFlag::from_bits_retain(op.extra);
    let path = &declared(actor, &op.file)?.path;
    let fd = exposed(|| open_path(path, flags, NEW_MODE))?;
    Ok(Done::fd(fd))
}

/// close(2); the handle is gone whatever it returns, as the descriptor is.
pub(crate) fn close(actor: &Actor, op: &Close) -> Result<Done, Stop> {
    let fd = actor.fd(&op.fd)?;
    actor.forget(&op.fd);
    exposed(|| unistd::close(fd.raw()))?;
    Ok(Done::default())
}

/// dup(2).
pub(crate) fn dup(actor: &Actor, op: &Dup) -> Result<Done, Stop> {
    Ok(Done::fd(unistd::dup(actor.fd(&op.fd)?)?))
}

/// dup2(2), or dup3(2) when there are flags. The handle keeps its number, which from now on is another file.
pub(crate) fn dup_onto(actor: &Actor, fd: &Handle, onto: &Handle, flags: Option<i32>) -> Result<Done, Stop> {
    let (fd, onto) = (actor.fd(fd)?, actor.fd(onto)?);
    let number = exposed(|| sys::dup_onto(fd.as_fd(), onto.raw(), flags))?;
    Ok(Done::value(number.into()))
}

/// truncate(2) or ftruncate(2).
pub(crate) fn truncate(actor: &Actor, op: &Truncate) -> Result<Done, Stop> {
    let size = bytes(op.size_kib)?.cast_signed();
    match (&op.file, &op.fd) {
        (Some(file), None) => {
            let path = &declared(actor, file)?.path;
            exposed(|| unistd::truncate(path, size))?;
        }
        (None, Some(fd)) => {
            let fd = actor.fd(fd)?;
            exposed(|| unistd::ftruncate(fd, size))?;
        }
        _ => return Err(not_issued("truncate wants either a file or a descriptor")),
    }
    Ok(Done::default())
}

/// The bits of FALLOC_FL_* names.
fn fallocate_flags(modes: &[FallocateMode]) -> FallocateFlags {
    let bit = |mode: &FallocateMode| match mode {
        FallocateMode::KEEP_SIZE => FallocateFlags::FALLOC_FL_KEEP_SIZE,
        FallocateMode::PUNCH_HOLE => FallocateFlags::FALLOC_FL_PUNCH_HOLE,
        FallocateMode::ZERO_RANGE => FallocateFlags::FALLOC_FL_ZERO_RANGE,
        FallocateMode::COLLAPSE_RANGE => FallocateFlags::FALLOC_FL_COLLAPSE_RANGE,
        FallocateMode::INSERT_RANGE => FallocateFlags::FALLOC_FL_INSERT_RANGE,
        FallocateMode::UNSHARE_RANGE => FallocateFlags::FALLOC_FL_UNSHARE_RANGE,
    };
    modes.iter().map(bit).collect()
}

/// fallocate(2), through a descriptor of its own unless the step gives one.
pub(crate) fn fallocate(actor: &Actor, op: &Fallocate) -> Result<Done, Stop> {
    let (at, len) = (bytes(op.at_kib)?.cast_signed(), bytes(op.len_kib)?.cast_signed());
    let flags = fallocate_flags(&op.mode);
    match (&op.file, &op.fd) {
        (Some(file), None) => {
            let path = &declared(actor, file)?.path;
            let fd = exposed(|| open_path(path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()))?;
            exposed(|| fallocate_fd(&fd, flags, at, len))?;
        }
        (None, Some(fd)) => {
            let fd = actor.fd(fd)?;
            exposed(|| fallocate_fd(fd, flags, at, len))?;
        }
        _ => return Err(not_issued("fallocate wants either a file or a descriptor")),
    }
    Ok(Done::default())
}

/// truncate(2) to the start of the range, or a punched hole of the range.
pub(crate) fn cut(actor: &Actor, op: Cut) -> Result<Done, Stop> {
    use FallocateMode::{COLLAPSE_RANGE, INSERT_RANGE, KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE};
    let mode = match op.how {
        CutHow::Truncate => {
            return truncate(actor, &Truncate { file: Some(op.file), fd: None, size_kib: op.at_kib });
        }
        CutHow::Punch => vec![PUNCH_HOLE, KEEP_SIZE],
        CutHow::Zero => vec![ZERO_RANGE],
        CutHow::ZeroKeep => vec![ZERO_RANGE, KEEP_SIZE],
        CutHow::Collapse => vec![COLLAPSE_RANGE],
        CutHow::Insert => vec![INSERT_RANGE],
    };
    let (at_kib, len_kib) = (op.at_kib, op.len_kib);
    fallocate(actor, &Fallocate { file: Some(op.file), fd: None, mode, at_kib, len_kib })
}

/// Size by stat(2).
pub(crate) fn size(actor: &Actor, op: &Size) -> Result<Done, Stop> {
    Ok(Done::value(stat(&declared(actor, &op.file)?.path)?.st_size))
}

/// Compares a range with a pattern, by read(2); device DAX, which cannot be read, is mapped.
/// ENODATA when the file ends within the range and everything before agrees.
pub(crate) fn compare(actor: &Actor, file: &str, op: &Compare) -> Result<Done, Stop> {
    let file = declared(actor, file)?;
    let (at, len) = (bytes(op.at_kib)?, length(op.len_kib)?);
    let flags = if file.on == Place::Devdax { OFlag::O_RDWR } else { OFlag::O_RDONLY };
    let fd = open_path(&file.path, flags | OFlag::O_CLOEXEC, Mode::empty())?;
    let found = read_range(&fd, file.on, at, len)?;
    if let Some(differs) = difference(op.pattern, at, &found) {
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
        let read = whole.get(whole.len() - len, &mut found);
        whole.unmap()?;
        read.map_err(|_| Errno::EFAULT)?;
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
