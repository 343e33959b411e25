// SPDX-License-Identifier: MIT OR Apache-2.0
//! io_uring's fixed buffers: long-term pins of a subsystem that knows of no file.

use std::os::fd::AsFd;

use holdfast_protocol::op::{UringRegister, UringUnregister};

use crate::actor::{Actor, Done, Stop, not_issued};
use crate::sys::{self, Number};

/// How many entries a ring has: none is ever submitted.
const ENTRIES: i64 = 4;

/// IORING_UNREGISTER_BUFFERS.
const UNREGISTER_BUFFERS: i64 = 1;

/// io_uring_setup(2).
pub(crate) fn setup() -> Result<Done, Stop> {
    let mut parameters = vec![0u8; sys::URING_PARAMS_BYTES];
    let address = sys::address(&mut parameters);
    let fd = sys::syscall(libc::SYS_io_uring_setup, [ENTRIES, address, 0, 0, 0, 0])?;
    let fd = i32::try_from(fd).ok().and_then(Number::of);
    Ok(Done::fd(fd.ok_or_else(|| not_issued("the ring is no descriptor"))?))
}

/// IORING_REGISTER_BUFFERS of a whole mapping.
pub(crate) fn register(actor: &Actor, op: &UringRegister) -> Result<Done, Stop> {
    sys::uring_register(actor.fd(&op.ring)?.as_fd(), actor.map(&op.map)?)?;
    Ok(Done::default())
}

/// IORING_UNREGISTER_BUFFERS.
pub(crate) fn unregister(actor: &Actor, op: &UringUnregister) -> Result<Done, Stop> {
    let ring = actor.fd(&op.ring)?.raw().into();
    sys::syscall(libc::SYS_io_uring_register, [ring, UNREGISTER_BUFFERS, 0, 0, 0, 0])?;
    Ok(Done::default())
}
