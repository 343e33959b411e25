// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connecting queue pairs over iWARP, which no modify_qp(3) can: the kernel's connection manager does it, over
//! `/dev/infiniband/rdma_cm` (rdma/rdma_user_cm.h). It finds both queue pairs by their numbers, whoever has
//! made them (`iw_get_qp`), so that one process connects those of two others and holds the connection for
//! them. librdmacm would open a device context of its own in an actor, where scenarios count who has one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;

use crate::progress::Limit;

const NODE: &str = "/dev/infiniband/rdma_cm";

// RDMA_USER_CM_CMD_*
const CREATE_ID: u32 = 0;
const DESTROY_ID: u32 = 1;
const RESOLVE_ROUTE: u32 = 4;
const CONNECT: u32 = 6;
const LISTEN: u32 = 7;
const ACCEPT: u32 = 8;
const GET_EVENT: u32 = 12;
const BIND: u32 = 20;
const RESOLVE_ADDR: u32 = 21;

// RDMA_CM_EVENT_* of rdma/rdma_cm.h
const ADDR_RESOLVED: u32 = 0;
const ROUTE_RESOLVED: u32 = 2;
const CONNECT_REQUEST: u32 = 4;
const ESTABLISHED: u32 = 9;

const RDMA_PS_TCP: u16 = 0x0106;
const IB_QPT_RC: u8 = 2;

/// `struct __kernel_sockaddr_storage`.
const SOCKADDR_BYTES: usize = 128;
/// `RDMA_MAX_PRIVATE_DATA`.
const PRIVATE_BYTES: usize = 256;
/// Room for a `struct rdma_ucm_event_resp`; the kernel writes as much as it has.
const EVENT_BYTES: usize = 512;

/// How long the kernel may resolve an address of its own, in milliseconds.
const RESOLVE_MS: u32 = 10_000;

/// RDMA READs that may be on their way in each direction: one of a transfer, one behind a write.
const READS: u8 = 4;

/// How often to look for an event.
const STEP: Duration = Duration::from_millis(1);

/// By what events name the ids: their `uid`.
const LISTENER: u64 = 1;
const CALLER: u64 = 2;
const ACCEPTED: u64 = 3;

/// A connection; it ends with its last reference, or with one of its queue pairs.
pub(crate) struct Connection(#[expect(dead_code, reason = "held, not used")] File);

/// Connects two queue pairs of the device on the interface with that address, by their numbers; `active` may
/// transfer first. Nothing else listens on the port.
///
/// # Errors
/// What was done, and what came of it.
pub(crate) fn connect(
    address: [u8; 4],
    port: u16,
    (active, passive): (u32, u32),
    limit: &Limit,
) -> Result<Connection, String> {
    let manager = Manager::open().map_err(|error| format!("{NODE}: {error}"))?;
    let said = |what: &'static str| move |error: io::Error| format!("rdma_cm, {what}: {error}");
    let here = sockaddr(address, port);
    let listener = manager.create(LISTENER).map_err(said("making an id"))?;
    manager.command(BIND, &bind(listener, &here), 0).map_err(said("binding"))?;
    manager.command(LISTEN, &words(&[listener, 1]), 0).map_err(said("listening"))?;
    let caller = manager.create(CALLER).map_err(said("making an id"))?;
    manager.command(RESOLVE_ADDR, &resolve(caller, &here), 0).map_err(said("resolving the address"))?;
    let mut ends = 0;
    while ends < 2 {
        let Some(event) = manager.event().map_err(said("waiting"))? else {
            if limit.is_over() {
                return Err("rdma_cm: the connection was not established in time".to_owned());
            }
            sleep(STEP);
            continue;
        };
        match (event.uid, event.kind) {
            (CALLER, ADDR_RESOLVED) => manager
                .command(RESOLVE_ROUTE, &words(&[caller, RESOLVE_MS]), 0)
                .map_err(said("resolving the route"))?,
            (CALLER, ROUTE_RESOLVED) => {
                manager.command(CONNECT, &connecting(caller, active), 0).map_err(said("connecting"))?;
            }
            (LISTENER, CONNECT_REQUEST) => {
                manager.command(ACCEPT, &accepting(event.id, passive), 0).map_err(said("accepting"))?;
            }
            (CALLER | ACCEPTED, ESTABLISHED) => ends += 1,
            (_, kind) => return Err(format!("rdma_cm: event {kind} with status {}", event.status)),
        }
    }
    manager.destroy(listener).map_err(said("closing the listener"))?;
    Ok(Connection(manager.0))
}

/// The connection manager's file; ids are within it.
struct Manager(File);

struct Event {
    uid: u64,
    id: u32,
    kind: u32,
    status: i32,
}

impl Manager {
    fn open() -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(NODE).map(Self)
    }

    /// Behind a header with the lengths of the command and of its response.
    fn command(&self, command: u32, body: &[u8], response: usize) -> io::Result<()> {
        let len = |len: usize| u16::try_from(len).map_err(|_| io::Error::from(Errno::EMSGSIZE));
        let mut message = Vec::from(command.to_ne_bytes());
        message.extend(len(body.len())?.to_ne_bytes());
        message.extend(len(response)?.to_ne_bytes());
        message.extend(body);
        (&self.0).write_all(&message)
    }

    /// The same of a command that begins with the address of its response.
    fn ask<const N: usize>(&self, command: u32, before: &[u8], after: &[u8]) -> io::Result<[u8; N]> {
        let mut response = [0; N];
        let address = response.as_mut_ptr().expose_provenance() as u64;
        let body = [before, &address.to_ne_bytes(), after].concat();
        self.command(command, &body, N)?;
        Ok(response)
    }

    fn create(&self, uid: u64) -> io::Result<u32> {
        let mut kind = Vec::from(RDMA_PS_TCP.to_ne_bytes());
        kind.extend([IB_QPT_RC, 0, 0, 0, 0, 0]);
        self.ask(CREATE_ID, &uid.to_ne_bytes(), &kind).map(u32::from_ne_bytes)
    }

    fn destroy(&self, id: u32) -> io::Result<()> {
        self.ask::<4>(DESTROY_ID, &[], &words(&[id, 0])).map(drop)
    }

    /// The next event, if there is one.
    fn event(&self) -> io::Result<Option<Event>> {
        let bytes = match self.ask::<EVENT_BYTES>(GET_EVENT, &[], &[]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            other => other?,
        };
        let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let (low, high) = bytes.split_at(8);
        Ok(Some(Event {
            uid: u64::from_ne_bytes(low.try_into().unwrap_or_default()),
            id: u32::from_ne_bytes([high[0], high[1], high[2], high[3]]),
            kind: u32::from_ne_bytes(word(12)),
            status: i32::from_ne_bytes(word(16)),
        }))
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// `struct sockaddr_in` at the beginning of a `struct __kernel_sockaddr_storage`.
fn sockaddr(address: [u8; 4], port: u16) -> [u8; SOCKADDR_BYTES] {
    let mut bytes = [0; SOCKADDR_BYTES];
    bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    bytes[2..4].copy_from_slice(&port.to_be_bytes());
    bytes[4..8].copy_from_slice(&address);
    bytes
}

/// `sizeof(struct sockaddr_in)`.
const SOCKADDR_IN_BYTES: u16 = 16;

/// `struct rdma_ucm_bind`.
fn bind(id: u32, address: &[u8; SOCKADDR_BYTES]) -> Vec<u8> {
    let mut body = words(&[id]);
    body.extend(SOCKADDR_IN_BYTES.to_ne_bytes());
    body.extend([0, 0]);
    body.extend(address);
    body
}

/// `struct rdma_ucm_resolve_addr`, from wherever the route begins.
fn resolve(id: u32, to: &[u8; SOCKADDR_BYTES]) -> Vec<u8> {
    let mut body = words(&[id, RESOLVE_MS]);
    body.extend([0, 0]);
    body.extend(SOCKADDR_IN_BYTES.to_ne_bytes());
    body.extend([0; 4 + SOCKADDR_BYTES]);
    body.extend(to);
    body
}

/// `struct rdma_ucm_conn_param`, the id, and a `struct rdma_ucm_ece` of nothing.
fn connecting(id: u32, pair: u32) -> Vec<u8> {
    let mut body = words(&[pair, 0]);
    body.extend([0; PRIVATE_BYTES]);
    // Private data, shared receive queue, reads in and out, flow control, retries, valid.
    body.extend([0, 0, READS, READS, 0, 0, 0, 1]);
    body.extend(words(&[id, 0, 0, 0]));
    body
}

/// `struct rdma_ucm_accept`: the same behind how events are to name the id.
fn accepting(id: u32, pair: u32) -> Vec<u8> {
    [&ACCEPTED.to_ne_bytes()[..], &connecting(id, pair)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_those_of_rdma_user_cm_h() {
        let here = sockaddr([192, 168, 78, 1], 0x1234);
        assert_eq!(here[..9], [2, 0, 0x12, 0x34, 192, 168, 78, 1, 0]);
        let lengths =
            [bind(1, &here), resolve(1, &here), connecting(1, 2), accepting(1, 2)].map(|body| body.len());
        assert_eq!(lengths, [136, 272, 288, 296]);
        let connecting = connecting(0x0102_0304, 0x0506_0708);
        assert_eq!(connecting[..4], 0x0506_0708_u32.to_ne_bytes());
        assert_eq!(connecting[264..272], [0, 0, READS, READS, 0, 0, 0, 1]);
        assert_eq!(connecting[272..276], 0x0102_0304_u32.to_ne_bytes());
    }
}
