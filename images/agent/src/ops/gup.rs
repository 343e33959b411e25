// SPDX-License-Identifier: MIT OR Apache-2.0
//! Long-term pins by debugfs `gup_test`.

use std::os::fd::{AsFd, OwnedFd};

use holdfast_protocol::op::{GupPin, GupRead};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::{difference, length};
use crate::actor::{Actor, Done, Stop, not_issued};
use crate::sys::{self, Number};

/// Opens debugfs `gup_test`; closing any descriptor of it drops the system's one pin set.
///
/// # Errors
/// The errno of open(2).
pub(crate) fn open_gup_test() -> Result<OwnedFd, Errno> {
    open("/sys/kernel/debug/gup_test", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
}

/// PIN_LONGTERM_TEST_START.
pub(crate) fn pin(actor: &Actor, op: &GupPin) -> Result<Done, Stop> {
    let (map, at, len) = (actor.map(&op.map)?, length(op.at_kib)?, length(op.len_kib)?);
    let mut held = actor.gup.borrow_mut();
    let (gup, pinned) = match &mut *held {
        Some(gup) => gup,
        none => none.insert((open_gup_test()?.into(), 0)),
    };
    sys::gup_pin(gup.as_fd(), map, at, len, op.write)?;
    *pinned = len;
    Ok(Done::default())
}

/// What this actor has pinned.
fn held(actor: &Actor) -> Result<(Number, usize), Stop> {
    let held = *actor.gup.borrow();
    held.ok_or_else(|| not_issued("this actor has pinned nothing"))
}

/// PIN_LONGTERM_TEST_READ, compared with a pattern. Offsets are those of the pinned range.
pub(crate) fn read(actor: &Actor, op: &GupRead) -> Result<Done, Stop> {
    let (at, len) = (length(op.at_kib)?, length(op.len_kib)?);
    let (gup, pinned) = held(actor)?;
    let found = sys::gup_read(gup.as_fd(), pinned)?;
    let range =
        found.get(at..at.saturating_add(len)).ok_or_else(|| not_issued("the range is not within the pin"))?;
    difference(op.pattern, at as u64, range).map_or_else(|| Ok(Done::default()), |differs| Err(Stop(differs)))
}

/// PIN_LONGTERM_TEST_STOP.
pub(crate) fn unpin(actor: &Actor) -> Result<Done, Stop> {
    let (gup, _) = held(actor)?;
    sys::gup_unpin(gup.as_fd())?;
    *actor.gup.borrow_mut() = Some((gup, 0));
    Ok(Done::default())
}
