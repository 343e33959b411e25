// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations on mappings.

use std::os::fd::AsFd;

use holdfast_protocol::op::{Advice, Compare, Load, Madvise, Memfd, Mmap, Mprotect, Munmap, Prot, Store};
use holdfast_protocol::{Handle, MapFlag, Outcome, pattern_byte};

use super::{bytes, differs, length};
use crate::actor::{Actor, Done, Stop, Thing, not_issued};
use crate::handlers::code_name;
use crate::signals;
use crate::sys::{self, Broken, Mapping, Request, exposed};

fn map_flags(flags: &[MapFlag]) -> i32 {
    let sync = flags.contains(&MapFlag::MAP_SYNC);
    let bit = |flag: &MapFlag| match flag {
        // MAP_SYNC is looked at with MAP_SHARED_VALIDATE only; with MAP_SHARED it is ignored.
        MapFlag::MAP_SHARED if sync => libc::MAP_SHARED_VALIDATE,
        MapFlag::MAP_SHARED => libc::MAP_SHARED,
        MapFlag::MAP_PRIVATE => libc::MAP_PRIVATE,
        MapFlag::MAP_ANONYMOUS => libc::MAP_ANONYMOUS,
        MapFlag::MAP_POPULATE => libc::MAP_POPULATE,
        MapFlag::MAP_NORESERVE => libc::MAP_NORESERVE,
        MapFlag::MAP_SYNC => libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC,
    };
    flags.iter().fold(0, |all, flag| all | bit(flag))
}

fn prot_bits(prot: &[Prot]) -> i32 {
    let bit = |prot: &Prot| match prot {
        Prot::READ => libc::PROT_READ,
        Prot::WRITE => libc::PROT_WRITE,
        Prot::EXEC => libc::PROT_EXEC,
    };
    prot.iter().fold(libc::PROT_NONE, |all, prot| all | bit(prot))
}

/// memfd_create(2), and its size.
pub(crate) fn memfd(op: &Memfd) -> Result<Done, Stop> {
    let fd = sys::memfd(if op.hugetlb { libc::MFD_HUGETLB } else { 0 })?;
    let size = i64::try_from(bytes(op.size_kib)?).map_err(|_| not_issued("a file is shorter than 8 EiB"))?;
    nix::unistd::ftruncate(&fd, size)?;
    Ok(Done::fd(fd))
}

/// mmap(2), then every page faulted in unless the step says otherwise.
pub(crate) fn mmap(actor: &Actor, op: &Mmap) -> Result<Done, Stop> {
    let fd = op.fd.as_ref().map(|handle| actor.fd(handle)).transpose()?;
    let over = op.over.as_ref().map(|handle| actor.map(handle)).transpose()?;
    let over_at = length(op.over_at_kib)?;
    let prot = prot_bits(op.prot.as_deref().unwrap_or(&[Prot::READ, Prot::WRITE]));
    let request = Request {
        len: length(op.len_kib)?,
        prot,
        flags: map_flags(&op.flags) | op.extra,
        offset: bytes(op.at_kib)?,
        over: over.map(|map| (map, over_at)),
    };
    let map = exposed(|| Mapping::map(request, fd.as_ref().map(AsFd::as_fd)))?;
    let private_file = fd.is_some() && op.flags.contains(&MapFlag::MAP_PRIVATE);
    let write = !private_file && prot & libc::PROT_WRITE != 0;
    let touched = if op.touch && prot != libc::PROT_NONE { map.populate(write) } else { Ok(()) };
    if let Err(errno) = touched {
        map.unmap()?;
        return Err(errno.into());
    }
    Ok(Done::thing(Thing::Map(map)))
}

/// A range of a mapping.
fn part(actor: &Actor, handle: &Handle, at_kib: u64, len_kib: u64) -> Result<Mapping, Stop> {
    let part = actor.map(handle)?.part(length(at_kib)?, length(len_kib)?);
    part.ok_or_else(|| broken(handle, Broken::Outside))
}

/// munmap(2).
pub(crate) fn munmap(actor: &Actor, op: &Munmap) -> Result<Done, Stop> {
    match op.len_kib {
        Some(len_kib) => {
            let part = part(actor, &op.map, op.at_kib, len_kib)?;
            exposed(|| part.unmap())?;
        }
        None => {
            let map = actor.map(&op.map)?;
            exposed(|| map.unmap())?;
            actor.forget(&op.map);
        }
    }
    Ok(Done::default())
}

/// mprotect(2).
pub(crate) fn mprotect(actor: &Actor, op: &Mprotect) -> Result<Done, Stop> {
    part(actor, &op.map, op.at_kib, op.len_kib)?.protect(prot_bits(&op.prot))?;
    Ok(Done::default())
}

/// madvise(2).
pub(crate) fn madvise(actor: &Actor, op: &Madvise) -> Result<Done, Stop> {
    let advice = match op.advice {
        Advice::DONTNEED => libc::MADV_DONTNEED,
        Advice::DONTFORK => libc::MADV_DONTFORK,
        Advice::DOFORK => libc::MADV_DOFORK,
        Advice::POPULATE_READ => libc::MADV_POPULATE_READ,
        Advice::POPULATE_WRITE => libc::MADV_POPULATE_WRITE,
        Advice::REMOVE => libc::MADV_REMOVE,
        Advice::COLD => libc::MADV_COLD,
        Advice::PAGEOUT => libc::MADV_PAGEOUT,
        Advice::HUGEPAGE => libc::MADV_HUGEPAGE,
        Advice::NOHUGEPAGE => libc::MADV_NOHUGEPAGE,
    };
    let part = part(actor, &op.map, op.at_kib, op.len_kib)?;
    exposed(|| part.advise(advice))?;
    Ok(Done::default())
}

/// Loads one byte.
pub(crate) fn load(actor: &Actor, op: &Load) -> Result<Done, Stop> {
    let mut byte = [0u8];
    let loaded = actor.map(&op.map)?.get(length(op.at_kib)?, &mut byte);
    loaded.map_err(|why| broken(&op.map, why))?;
    Ok(Done::value(byte[0].into()))
}

/// What an access that was broken off came to.
fn broken(handle: &Handle, broken: Broken) -> Stop {
    match broken {
        Broken::Outside => not_issued(format!("the range is not within ${}", handle.id())),
        Broken::Fault(signal, code) => {
            Stop(Outcome::Faulted { signal: signals::name(signal), code: code_name(signal, code) })
        }
    }
}

/// Stores a pattern.
pub(crate) fn store(actor: &Actor, op: &Store) -> Result<Done, Stop> {
    let map = actor.map(&op.map)?;
    let stored = map.store(length(op.at_kib)?, length(op.len_kib)?, |at| pattern_byte(op.pattern, at));
    stored.map_err(|why| broken(&op.map, why)).map(|()| Done::default())
}

/// Compares by loading.
pub(crate) fn compare(actor: &Actor, handle: &Handle, op: &Compare) -> Result<Done, Stop> {
    let wanted = |at: u64, got: u8| got == pattern_byte(op.pattern, at);
    let found = actor.map(handle)?.find_other(length(op.at_kib)?, length(op.len_kib)?, wanted);
    match found.map_err(|why| broken(handle, why))? {
        Some((at, got)) => Err(Stop(differs(op.pattern, at, got))),
        None => Ok(Done::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_sync_comes_with_shared_validate() {
        assert_eq!(map_flags(&[MapFlag::MAP_SHARED]), libc::MAP_SHARED);
        let sync = libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC;
        assert_eq!(map_flags(&[MapFlag::MAP_SYNC]), sync);
        assert_eq!(map_flags(&[MapFlag::MAP_SHARED, MapFlag::MAP_SYNC]), sync);
    }
}
