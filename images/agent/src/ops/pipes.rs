// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pipes that hold page references: the hold that is no long-term pin.

use std::os::fd::AsFd;

use holdfast_protocol::Handle;
use nix::fcntl::OFlag;

use super::length;
use crate::actor::{Actor, Done, Stop, Thing, wrong_thing};

/// The page that is held.
const PAGE_BYTES: usize = 4096;

/// pipe2(2).
pub(crate) fn pipe() -> Result<Done, Stop> {
    let (read, write) = nix::unistd::pipe2(OFlag::empty())?;
    Ok(Done::thing(Thing::Pipe(read, write)))
}

/// vmsplice(2) of one page.
pub(crate) fn vmsplice(actor: &Actor, map: &Handle, pipe: &Handle, at_kib: u64) -> Result<Done, Stop> {
    let sent = actor.map(map)?.vmsplice(actor.pipe(pipe)?.as_fd(), length(at_kib)?, PAGE_BYTES)?;
    Ok(Done::value(i64::try_from(sent).unwrap_or(i64::MAX)))
}

/// Closes both ends.
pub(crate) fn close(actor: &mut Actor, handle: &Handle) -> Result<Done, Stop> {
    if !matches!(actor.things.get(handle.id()), Some(Thing::Pipe(..))) {
        return Err(wrong_thing(handle, actor.things.get(handle.id()), "pipe"));
    }
    if let Some(Thing::Pipe(read, write)) = actor.things.remove(handle.id()) {
        nix::unistd::close(write)?;
        nix::unistd::close(read)?;
    }
    Ok(Done::default())
}
