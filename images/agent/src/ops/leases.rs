// SPDX-License-Identifier: MIT OR Apache-2.0
//! Leases and the owners of their signals.

use std::os::fd::AsFd;

use holdfast_protocol::op::OwnerKind;
use holdfast_protocol::op::{GetLease, GetOwn, GetSig, SetLease, SetOwn, SetOwnEx, SetSig};
use nix::unistd::{Pid, getpgid};

use crate::actor::{Actor, Done, Stop, not_issued};
use crate::signals;
use crate::sys::{self, exposed};
use crate::wire::Aid;

/// F_SETLEASE.
pub(crate) fn set_lease(actor: &Actor, op: &SetLease) -> Result<Done, Stop> {
    let (fd, lease) = (actor.fd(&op.fd)?, op.lease.number());
    exposed(|| sys::fcntl(fd.as_fd(), libc::F_SETLEASE, lease.into()))?;
    Ok(Done::default())
}

/// F_GETLEASE.
pub(crate) fn get_lease(actor: &Actor, op: &GetLease) -> Result<Done, Stop> {
    Ok(Done::value(sys::fcntl(actor.fd(&op.fd)?.as_fd(), libc::F_GETLEASE, 0)?.into()))
}

fn pid(aid: &Aid) -> Result<i32, Stop> {
    aid.pid.ok_or_else(|| not_issued("the actor that shall own the signals is gone"))
}

/// The process group of the process that the session names.
fn group(aid: &Aid) -> Result<i32, Stop> {
    Ok(getpgid(Some(Pid::from_raw(pid(aid)?)))?.as_raw())
}

/// F_SETOWN: a process as it is, a group as a negative number.
pub(crate) fn set_own(actor: &Actor, op: &SetOwn, aid: &Aid) -> Result<Done, Stop> {
    let owner = match (&op.actor, &op.group) {
        (Some(_), None) => pid(aid)?,
        (None, Some(_)) => -group(aid)?,
        _ => return Err(not_issued("set_own wants either an actor or a group")),
    };
    sys::fcntl(actor.fd(&op.fd)?.as_fd(), libc::F_SETOWN, owner.into())?;
    Ok(Done::default())
}

/// F_SETOWN_EX; an actor's first thread has the number of its process.
pub(crate) fn set_own_ex(actor: &Actor, op: &SetOwnEx, aid: &Aid) -> Result<Done, Stop> {
    let (kind, owner) = match op.kind {
        OwnerKind::F_OWNER_TID => (0, pid(aid)?),
        OwnerKind::F_OWNER_PID => (1, pid(aid)?),
        OwnerKind::F_OWNER_PGRP => (2, group(aid)?),
    };
    sys::set_owner_ex(actor.fd(&op.fd)?.as_fd(), kind, owner)?;
    Ok(Done::default())
}

/// F_GETOWN.
pub(crate) fn get_own(actor: &Actor, op: &GetOwn) -> Result<Done, Stop> {
    Ok(Done::value(sys::owner(actor.fd(&op.fd)?.as_fd())?.into()))
}

/// F_SETSIG.
pub(crate) fn set_sig(actor: &Actor, op: &SetSig) -> Result<Done, Stop> {
    let number = match &op.signal {
        None => 0,
        Some(name) => signals::number(name).ok_or_else(|| not_issued(format!("{name} is no signal")))?,
    };
    sys::fcntl(actor.fd(&op.fd)?.as_fd(), sys::F_SETSIG, number.into())?;
    Ok(Done::default())
}

/// F_GETSIG.
pub(crate) fn get_sig(actor: &Actor, op: &GetSig) -> Result<Done, Stop> {
    Ok(Done::value(sys::fcntl(actor.fd(&op.fd)?.as_fd(), sys::F_GETSIG, 0)?.into()))
}
