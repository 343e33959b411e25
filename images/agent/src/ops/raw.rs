// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls by number.

use std::os::fd::AsFd;

use holdfast_protocol::op::{Arg, Fcntl, Hex, Ioctl, Syscall};
use holdfast_protocol::{Handle, Outcome};

use crate::actor::{Actor, Done, Stop, Thing, not_issued, wrong_thing};
use crate::sys;

/// The bytes after the call, as an outcome.
fn shown(bytes: Vec<u8>) -> Done {
    Done { outcome: Some(Outcome::Shown(String::from(Hex::from(bytes)))), ..Done::default() }
}

/// fcntl(2).
pub(crate) fn fcntl(actor: &Actor, op: &Fcntl) -> Result<Done, Stop> {
    let fd = actor.fd(&op.fd)?;
    Ok(Done::value(sys::exposed(|| sys::fcntl(fd.as_fd(), op.cmd, op.arg))?.into()))
}

/// ioctl(2).
pub(crate) fn ioctl(actor: &Actor, op: &Ioctl) -> Result<Done, Stop> {
    let fd = actor.fd(&op.fd)?;
    let Some(bytes) = &op.bytes else {
        return Ok(Done::value(sys::ioctl_number(fd.as_fd(), op.request, op.arg)?.into()));
    };
    let mut bytes = bytes.bytes().to_vec();
    let value = sys::ioctl_bytes(fd.as_fd(), op.request, &mut bytes)?;
    Ok(if op.show { shown(bytes) } else { Done::value(value.into()) })
}

/// The number that a handle stands for in a raw call: a descriptor's own, the address of a mapping.
fn number(actor: &Actor, handle: &Handle) -> Result<i64, Stop> {
    match actor.things.borrow().get(handle.id()) {
        Some(Thing::Fd(fd)) => Ok(fd.raw().into()),
        Some(Thing::Map(map)) => Ok((map.start().addr() as u64).cast_signed()),
        other => Err(wrong_thing(handle, other, "descriptor or mapping")),
    }
}

/// syscall(2).
pub(crate) fn syscall(actor: &Actor, op: &Syscall) -> Result<Done, Stop> {
    let mut arguments = [0i64; 6];
    if op.args.len() > arguments.len() {
        return Err(not_issued("a system call has at most six arguments"));
    }
    let mut buffers: Vec<Vec<u8>> = Vec::new();
    for (slot, arg) in arguments.iter_mut().zip(&op.args) {
        let mut buffer = Vec::new();
        *slot = match arg {
            Arg::Number(number) => *number,
            Arg::Of(handle) => number(actor, handle)?,
            Arg::Buffer(bytes) => {
                buffer = bytes.bytes.bytes().to_vec();
                // A vector's bytes stay where they are when the vector moves.
                sys::address(&mut buffer)
            }
        };
        buffers.push(buffer);
    }
    let value = sys::syscall(op.nr, arguments)?;
    match op.show {
        None => Ok(Done::value(value)),
        Some(index) if index < buffers.len() => Ok(shown(buffers.swap_remove(index))),
        Some(index) => Err(not_issued(format!("there is no argument {index}"))),
    }
}
