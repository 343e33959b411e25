// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory regions and transfers between actors.

use holdfast_protocol::op::{DeregMr, RdmaRead, RdmaReceive, RdmaSend, RdmaWrite, RegMr};
use holdfast_protocol::{Access, Handle, Outcome, pattern_byte};

use super::{bytes, differs, length};
use crate::actor::{Actor, Done, Stop, Thing, not_issued, wrong_thing};
use crate::boot::rdma_link::netdev;
use crate::netlink;
use crate::sys::{Mapping, exposed, unhanded};
use crate::verbs::{Device, Direction, QueuePair, Region, Remote};
use crate::wire::{Aid, Link, More, PairEnd, RemoteRegion};

/// IBV_ACCESS_LOCAL_WRITE, what the local side of a read needs.
const LOCAL_WRITE: i32 = 1;

fn access_bits(access: &[Access]) -> i32 {
    let bit = |access: &Access| match access {
        Access::LOCAL_WRITE => LOCAL_WRITE,
        Access::REMOTE_WRITE => 1 << 1,
        Access::REMOTE_READ => 1 << 2,
        Access::REMOTE_ATOMIC => 1 << 3,
        Access::MW_BIND => 1 << 4,
        Access::ZERO_BASED => 1 << 5,
        Access::ON_DEMAND => 1 << 6,
        Access::HUGETLB => 1 << 7,
        Access::FLUSH_GLOBAL => 1 << 8,
        Access::FLUSH_PERSISTENT => 1 << 9,
        Access::RELAXED_ORDERING => 1 << 20,
    };
    access.iter().fold(0, |all, access| all | bit(access))
}

/// ibv_reg_mr(3).
pub(crate) fn reg_mr(actor: &Actor, op: &RegMr) -> Result<Done, Stop> {
    let map = actor.map(&op.map)?;
    let device = actor.device()?;
    let region = unhanded(|| device.register(map, access_bits(&op.access)))?;
    let public = RemoteRegion {
        owner: actor.name.borrow().clone(),
        rkey: region.rkey,
        address: map.start().addr() as u64,
        len: map.len() as u64,
    };
    let thing = Some(Thing::Region(region, public.clone()));
    Ok(Done { more: More::Region(public), thing, ..Done::default() })
}

fn region(actor: &Actor, handle: &Handle) -> Result<Region, Stop> {
    match actor.things.borrow().get(handle.id()) {
        Some(Thing::Region(region, _)) => Ok(*region),
        other => Err(wrong_thing(handle, other, "memory region")),
    }
}

/// ibv_dereg_mr(3).
pub(crate) fn dereg_mr(actor: &Actor, op: &DeregMr) -> Result<Done, Stop> {
    let region = region(actor, &op.mr)?;
    actor.forget(&op.mr);
    unhanded(|| region.deregister())?;
    Ok(Done::default())
}

/// ibv_get_async_event(3).
pub(crate) fn async_event(actor: &Actor) -> Result<Done, Stop> {
    let device = actor.device()?;
    let name = exposed(|| device.async_event())?;
    Ok(Done { outcome: Some(Outcome::Shown(name)), ..Done::default() })
}

/// The uverbs file of this actor's context.
pub(crate) fn uverbs_fd(actor: &Actor) -> Result<Done, Stop> {
    let fd = actor.device()?.uverbs_fd().ok_or_else(|| not_issued("the context has no uverbs file"))?;
    Ok(Done::fd(fd))
}

/// ibv_close_device(3). Regions go with it, and their handles; the kernel destroys them. Queue pairs are
/// destroyed before: as long as their queues, or those of the completion queue they use, are mapped, the
/// mapping holds the uverbs file, and its descriptor is not the last reference.
pub(crate) fn close(actor: &Actor) -> Result<Done, Stop> {
    let device = actor.device()?;
    *actor.device.borrow_mut() = None;
    for (pair, _) in std::mem::take(&mut *actor.pairs.borrow_mut()).into_values() {
        pair.destroy();
    }
    actor.things.borrow_mut().retain(|_, thing| !matches!(thing, Thing::Region(..)));
    device.close();
    Ok(Done::default())
}

/// ibv_open_device(3). Queue pairs are those of a context, so that none is left of the one before.
pub(crate) fn open(actor: &Actor) -> Result<Done, Stop> {
    let device = Device::open(&link(actor)?.device)?;
    *actor.device.borrow_mut() = Some(device);
    actor.pairs.borrow_mut().clear();
    Ok(Done::default())
}

pub(super) fn link(actor: &Actor) -> Result<&Link, Stop> {
    actor.part.rdma.as_ref().ok_or_else(|| not_issued("this machine has no RDMA link that is ready"))
}

/// `rdma link delete`.
pub(crate) fn link_delete(actor: &Actor) -> Result<Done, Stop> {
    netlink::delete_rdma_link(&link(actor)?.device)?;
    Ok(Done::default())
}

/// `rdma link add`, on the interface it was on.
pub(crate) fn link_add(actor: &Actor) -> Result<Done, Stop> {
    let link = link(actor)?;
    netlink::add_rdma_link(link.provider.name(), &link.device, netdev(link.provider))?;
    Ok(Done::default())
}

/// First half of a connection: our queue pair.
pub(crate) fn make_pair(actor: &Actor, peer: String) -> Result<Done, Stop> {
    let gid_index = link(actor)?.gid_index;
    if let Some((old, _)) = actor.pairs.borrow_mut().remove(&peer) {
        old.destroy();
    }
    let device = actor.device()?;
    let gid = device.gid(gid_index)?;
    let pair = device.create_pair()?;
    // Any start will do; one that differs per queue pair keeps late packets of an old one out.
    let psn = pair.number.wrapping_mul(0x9e37) & 0x00ff_ffff;
    let end = PairEnd { number: pair.number, psn, gid };
    actor.pairs.borrow_mut().insert(peer, (pair, psn));
    Ok(Done { more: More::Pair(end), ..Done::default() })
}

/// Second half: connected with the peer's. Not of iWARP, whose connection the session makes.
pub(crate) fn join_pair(actor: &Actor, peer: &str, end: PairEnd) -> Result<Done, Stop> {
    let gid_index = link(actor)?.gid_index;
    let pairs = actor.pairs.borrow();
    let (pair, psn) = pairs.get(peer).ok_or_else(|| not_issued(format!("no queue pair for {peer}")))?;
    pair.connect(gid_index, &end.gid, end.number, (end.psn, *psn))?;
    Ok(Done::default())
}

/// RDMA WRITE of a pattern, whose offsets are those of the region.
pub(crate) fn write(actor: &Actor, aid: &Aid, op: &RdmaWrite) -> Result<Done, Stop> {
    let (at, len, seed) = (length(op.at_kib)?, length(op.len_kib)?, op.pattern);
    let local = buffer(len, |offset| pattern_byte(seed, offset + at as u64))?;
    let sent = transfer(actor, (aid, &op.mr), Direction::Write, local, at as u64);
    local.unmap()?;
    sent.map(|()| Done::default())
}

/// RDMA READ, compared with a pattern.
pub(crate) fn read(actor: &Actor, aid: &Aid, op: &RdmaRead) -> Result<Done, Stop> {
    let (at, len, seed) = (length(op.at_kib)?, length(op.len_kib)?, op.pattern);
    // Other bytes than the wanted ones, so that a read that copies nothing is seen.
    let local = buffer(len, |offset| !pattern_byte(seed, offset + at as u64))?;
    let received = transfer(actor, (aid, &op.mr), Direction::Read, local, at as u64);
    let other = local.find_other(0, len, |offset, got| got == pattern_byte(seed, offset + at as u64));
    local.unmap()?;
    received?;
    match other.unwrap_or_default() {
        Some((offset, got)) => Err(Stop(differs(seed, offset + at as u64, got))),
        None => Ok(Done::default()),
    }
}

/// Memory of this process for the local side of a transfer. Faulted in at once: a page after the other is
/// slow where the machine is emulated.
fn buffer(len: usize, byte: impl Fn(u64) -> u8) -> Result<Mapping, Stop> {
    let local = Mapping::new(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None, 0)?;
    local.populate(true)?;
    let _ = local.store(0, len, byte);
    Ok(local)
}

/// SEND of a pattern.
pub(crate) fn send(actor: &Actor, op: &RdmaSend) -> Result<Done, Stop> {
    let local = buffer(length(op.len_kib)?, |offset| pattern_byte(op.pattern, offset))?;
    let sent = post(actor, &op.to, Direction::Send, local, Remote { address: 0, rkey: 0 });
    local.unmap()?;
    sent.map(|()| Done::default())
}

/// RECEIVE into a region of ours.
pub(crate) fn receive(actor: &Actor, op: &RdmaReceive) -> Result<Done, Stop> {
    let (region, at) = (region(actor, &op.mr)?, bytes(op.at_kib)?);
    let len = u32::try_from(bytes(op.len_kib)?).map_err(|_| not_issued(TOO_LONG))?;
    let pair = pair(actor, &op.from)?;
    finished(&unhanded(|| pair.receive(&region, at, len))?)
}

/// What a completion's status comes to.
fn finished(status: &str) -> Result<Done, Stop> {
    match status {
        "SUCCESS" => Ok(Done::default()),
        status => Err(Stop(Outcome::Completion(status.to_owned()))),
    }
}

/// Why a length does not fit into a request.
const TOO_LONG: &str = "a transfer is shorter than 4 GiB";

/// The queue pair with a peer.
fn pair(actor: &Actor, peer: &str) -> Result<QueuePair, Stop> {
    let pair = actor.pairs.borrow().get(peer).map(|(pair, _)| *pair);
    pair.ok_or_else(|| not_issued(format!("{} is not connected to {peer}", actor.name.borrow())))
}

/// A transfer between the local buffer and a region: one of this process, or the one that the session names.
fn transfer(
    actor: &Actor,
    (aid, mr): (&Aid, &Handle),
    direction: Direction,
    local: Mapping,
    at: u64,
) -> Result<(), Stop> {
    let own = match actor.things.borrow().get(mr.id()) {
        Some(Thing::Region(_, public)) => Some(public.clone()),
        _ => None,
    };
    let target = aid.region.clone().or(own);
    let target = target.ok_or_else(|| not_issued("that memory region was never registered"))?;
    let remote = Remote { address: target.address.wrapping_add(at), rkey: target.rkey };
    post(actor, &target.owner, direction, local, remote)
}

/// Registers the local buffer, transfers, lets go of the region: no pin of ours stays behind.
fn post(actor: &Actor, peer: &str, direction: Direction, local: Mapping, remote: Remote) -> Result<(), Stop> {
    let device = actor.device()?;
    let pair = pair(actor, peer)?;
    let len = u32::try_from(local.len()).map_err(|_| not_issued(TOO_LONG))?;
    let region = device.register(local, LOCAL_WRITE)?;
    let status = unhanded(|| pair.transfer(direction, (local, &region), len, remote));
    let let_go = region.deregister();
    finished(&status?)?;
    Ok(let_go?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_bits_are_those_of_verbs_h() {
        assert_eq!(access_bits(&[]), 0);
        assert_eq!(access_bits(&[Access::LOCAL_WRITE, Access::REMOTE_WRITE, Access::REMOTE_READ]), 7);
    }
}
