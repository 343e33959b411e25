// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pipes that hold page references: the hold that is no long-term pin.

use std::os::fd::AsFd;

use holdfast_protocol::op::{ClosePipe, Vmsplice};
use nix::fcntl::OFlag;

use super::length;
use crate::actor::{Actor, Done, Stop, Thing};
use crate::sys::exposed;

/// The page that is held.
const PAGE_BYTES: usize = 4096;

/// pipe2(2).
pub(crate) fn pipe() -> Result<Done, Stop> {
    let (read, write) = nix::unistd::pipe2(OFlag::empty())?;
    Ok(Done::thing(Thing::Pipe(read.into(), write.into())))
}

/// vmsplice(2) of one page.
pub(crate) fn vmsplice(actor: &Actor, op: &Vmsplice) -> Result<Done, Stop> {
    let (map, at) = (actor.map(&op.map)?, length(op.at_kib)?);
    let (_, write) = actor.pipe(&op.pipe)?;
    let sent = exposed(|| map.vmsplice(write.as_fd(), at, PAGE_BYTES))?;
    Ok(Done::value(i64::try_from(sent).unwrap_or(i64::MAX)))
}

/// Closes both ends.
pub(crate) fn close(actor: &Actor, op: &ClosePipe) -> Result<Done, Stop> {
    let (read, write) = actor.pipe(&op.pipe)?;
    actor.forget(&op.pipe);
    nix::unistd::close(write.raw())?;
    nix::unistd::close(read.raw())?;
    Ok(Done::default())
}
