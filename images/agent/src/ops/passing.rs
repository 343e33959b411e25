// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors that go from actor to actor with SCM_RIGHTS.

use std::os::fd::AsFd;

use holdfast_protocol::op::{ReceiveFd, SendFd};

use crate::actor::{Actor, Control, Done, Stop, not_issued};
use crate::sys::{self, Number};

/// Takes the socket that leads to a peer; it follows the call on the stream.
pub(crate) fn take_link(actor: &Actor, peer: String) -> Result<Done, Stop> {
    let socket = sys::receive_fd(Control::number().as_fd())?;
    actor.links.borrow_mut().insert(peer, socket.into());
    Ok(Done::default())
}

fn link(actor: &Actor, peer: &str) -> Result<Number, Stop> {
    let link = actor.links.borrow().get(peer).copied();
    link.ok_or_else(|| not_issued(format!("no socket leads to {peer}")))
}

/// sendmsg(2) with SCM_RIGHTS.
pub(crate) fn send_fd(actor: &Actor, op: &SendFd) -> Result<Done, Stop> {
    let fd = actor.fd(&op.fd)?;
    sys::send_fd(link(actor, &op.to)?.as_fd(), fd.as_fd())?;
    Ok(Done::default())
}

/// recvmsg(2); waits until something is sent.
pub(crate) fn receive_fd(actor: &Actor, op: &ReceiveFd) -> Result<Done, Stop> {
    Ok(Done::fd(sys::receive_fd(link(actor, &op.from)?.as_fd())?))
}
