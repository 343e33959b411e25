// SPDX-License-Identifier: MIT OR Apache-2.0
//! Long-term pins by debugfs `gup_test`.

use std::os::fd::{AsFd, OwnedFd};

use holdfast_protocol::Handle;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::{difference, length};
use crate::actor::{Actor, Done, Stop, not_issued};
use crate::sys;

/// Opens debugfs `gup_test`; closing any descriptor of it drops the system's one pin set.
///
/// # Errors
/// The errno of open(2).
pub(crate) fn open_gup_test() -> Result<OwnedFd, Errno> {
    open("/sys/kernel/debug/gup_test", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
}

/// PIN_LONGTERM_TEST_START.
pub(crate) fn pin(
    actor: &mut Actor,
    map: &Handle,
    at_kib: u64,
    len_kib: u64,
    write: bool,
) -> Result<Done, Stop> {
    let (map, at, len) = (actor.map(map)?, length(at_kib)?, length(len_kib)?);
    let (gup, pinned) = match &mut actor.gup {
        Some(gup) => gup,
        none => none.insert((open_gup_test()?, 0)),
    };
    sys::gup_pin(gup.as_fd(), map, at, len, write)?;
    *pinned = len;
    Ok(Done::default())
}

/// PIN_LONGTERM_TEST_READ, compared with a pattern. Offsets are those of the pinned range.
pub(crate) fn read(actor: &Actor, at_kib: u64, len_kib: u64, seed: u8) -> Result<Done, Stop> {
    let (at, len) = (length(at_kib)?, length(len_kib)?);
    let (gup, pinned) = actor.gup.as_ref().ok_or_else(|| not_issued("this actor has pinned nothing"))?;
    let found = sys::gup_read(gup.as_fd(), *pinned)?;
    let range =
        found.get(at..at.saturating_add(len)).ok_or_else(|| not_issued("the range is not within the pin"))?;
    difference(seed, at as u64, range).map_or_else(|| Ok(Done::default()), |differs| Err(Stop(differs)))
}

/// PIN_LONGTERM_TEST_STOP.
pub(crate) fn unpin(actor: &mut Actor) -> Result<Done, Stop> {
    let (gup, pinned) = actor.gup.as_mut().ok_or_else(|| not_issued("this actor has pinned nothing"))?;
    sys::gup_unpin(gup.as_fd())?;
    *pinned = 0;
    Ok(Done::default())
}
