// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations on mappings.

use std::os::fd::AsFd;

use holdfast_protocol::{Handle, MapFlag, pattern_byte};

use super::{bytes, differs, length};
use crate::actor::{Actor, Done, Stop, Thing, not_issued};
use crate::sys::Mapping;

fn map_flags(flags: &[MapFlag]) -> i32 {
    let sync = flags.contains(&MapFlag::MAP_SYNC);
    let bit = |flag: &MapFlag| match flag {
        // MAP_SYNC is looked at with MAP_SHARED_VALIDATE only; with MAP_SHARED it is ignored.
        MapFlag::MAP_SHARED if sync => libc::MAP_SHARED_VALIDATE,
        MapFlag::MAP_SHARED => libc::MAP_SHARED,
        MapFlag::MAP_PRIVATE => libc::MAP_PRIVATE,
        MapFlag::MAP_ANONYMOUS => libc::MAP_ANONYMOUS,
        MapFlag::MAP_SYNC => libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC,
    };
    flags.iter().fold(0, |all, flag| all | bit(flag))
}

/// mmap(2), then every page faulted in: for writing, except of a private file mapping, which a
/// write fault would turn into anonymous copies.
pub(crate) fn mmap(
    actor: &Actor,
    fd: Option<&Handle>,
    at_kib: u64,
    len_kib: u64,
    flags: &[MapFlag],
) -> Result<Done, Stop> {
    let fd = fd.map(|handle| actor.fd(handle)).transpose()?;
    let map = Mapping::new(length(len_kib)?, map_flags(flags), fd.map(AsFd::as_fd), bytes(at_kib)?)?;
    let write = fd.is_none() || !flags.contains(&MapFlag::MAP_PRIVATE);
    if let Err(errno) = map.populate(write) {
        map.unmap()?;
        return Err(errno.into());
    }
    Ok(Done::thing(Thing::Map(map)))
}

/// munmap(2) of a whole mapping.
pub(crate) fn munmap(actor: &mut Actor, handle: &Handle) -> Result<Done, Stop> {
    actor.map(handle)?.unmap()?;
    actor.things.remove(handle.id());
    Ok(Done::default())
}

fn outside(handle: &Handle) -> Stop {
    not_issued(format!("the range is not within ${}", handle.id()))
}

/// Stores a pattern.
pub(crate) fn store(actor: &Actor, handle: &Handle, at_kib: u64, len_kib: u64, seed: u8) -> Result<Done, Stop> {
    let stored = actor.map(handle)?.store(length(at_kib)?, length(len_kib)?, |at| pattern_byte(seed, at));
    stored.ok_or_else(|| outside(handle)).map(|()| Done::default())
}

/// Compares by loading.
pub(crate) fn compare(
    actor: &Actor,
    handle: &Handle,
    at_kib: u64,
    len_kib: u64,
    seed: u8,
) -> Result<Done, Stop> {
    let wanted = |at: u64, got: u8| got == pattern_byte(seed, at);
    let found = actor.map(handle)?.find_other(length(at_kib)?, length(len_kib)?, wanted);
    match found.ok_or_else(|| outside(handle))? {
        Some((at, got)) => Err(Stop(differs(seed, at, got))),
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
