// SPDX-License-Identifier: MIT OR Apache-2.0
//! The few netlink requests the guest needs: an address on an interface, an RDMA link on it, the
//! number of memory regions. Saves carrying and executing `ip` and `rdma`.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_REPLACE: u16 = 0x100;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER_BYTES: usize = 16;

/// `RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, command)` of rdma/rdma_netlink.h.
const fn nldev(command: u16) -> u16 {
    (5 << 10) + command
}
const NLDEV_GET: u16 = nldev(1);
const NLDEV_NEWLINK: u16 = nldev(3);
const NLDEV_DELLINK: u16 = nldev(4);
const NLDEV_RES_GET: u16 = nldev(9);
const NLDEV_RES_MR_GET: u16 = nldev(13);
const NLDEV_ATTR_DEV_INDEX: u16 = 1;
const NLDEV_ATTR_DEV_NAME: u16 = 2;
const NLDEV_ATTR_RES_SUMMARY: u16 = 15;
const NLDEV_ATTR_RES_SUMMARY_ENTRY: u16 = 16;
const NLDEV_ATTR_RES_SUMMARY_ENTRY_NAME: u16 = 17;
const NLDEV_ATTR_RES_SUMMARY_ENTRY_CURR: u16 = 18;
const NLDEV_ATTR_RES_PID: u16 = 28;
const NLDEV_ATTR_RES_MR: u16 = 40;
const NLDEV_ATTR_RES_MR_ENTRY: u16 = 41;
const NLDEV_ATTR_RES_RKEY: u16 = 42;
const NLDEV_ATTR_NDEV_NAME: u16 = 51;
const NLDEV_ATTR_LINK_TYPE: u16 = 65;

const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFF_UP: u32 = 1;

/// The type bits of an attribute's type field; the rest are flags.
const ATTR_TYPE_MASK: u16 = 0x3fff;

/// Sets an interface up.
///
/// # Errors
/// What the kernel answered.
pub(crate) fn link_up(index: u32) -> Result<(), Errno> {
    let mut body = Vec::from([0u8; 4]);
    body.extend(index.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    request(SockProtocol::NetlinkRoute, libc::RTM_NEWLINK, 0, &body)
}

/// Sets the largest packet of an interface, in bytes.
///
/// # Errors
/// What the kernel answered.
pub(crate) fn set_mtu(index: u32, mtu: u32) -> Result<(), Errno> {
    let mut body = Vec::from([0u8; 4]);
    body.extend(index.to_ne_bytes());
    body.extend([0u8; 8]);
    attribute(&mut body, IFLA_MTU, &mtu.to_ne_bytes());
    request(SockProtocol::NetlinkRoute, libc::RTM_NEWLINK, 0, &body)
}

/// Makes a `dummy` interface.
///
/// # Errors
/// What the kernel answered; EEXIST when it is there.
pub(crate) fn add_dummy(name: &str) -> Result<(), Errno> {
    let mut body = Vec::from([0u8; 16]);
    attribute(&mut body, IFLA_IFNAME, &terminated(name));
    let mut info = Vec::new();
    attribute(&mut info, IFLA_INFO_KIND, &terminated("dummy"));
    attribute(&mut body, IFLA_LINKINFO, &info);
    request(SockProtocol::NetlinkRoute, libc::RTM_NEWLINK, NLM_F_CREATE, &body)
}

/// Gives an interface an IPv4 address, anew if it has it.
///
/// # Errors
/// What the kernel answered.
pub(crate) fn set_address(index: u32, address: [u8; 4], prefix: u8) -> Result<(), Errno> {
    request(
        SockProtocol::NetlinkRoute,
        libc::RTM_NEWADDR,
        NLM_F_CREATE | NLM_F_REPLACE,
        &address_body(index, address, prefix),
    )
}

/// Takes an address away.
///
/// # Errors
/// What the kernel answered.
pub(crate) fn drop_address(index: u32, address: [u8; 4], prefix: u8) -> Result<(), Errno> {
    request(SockProtocol::NetlinkRoute, libc::RTM_DELADDR, 0, &address_body(index, address, prefix))
}

fn address_body(index: u32, address: [u8; 4], prefix: u8) -> Vec<u8> {
    let mut body = vec![libc::AF_INET as u8, prefix, 0, 0];
    body.extend(index.to_ne_bytes());
    attribute(&mut body, IFA_LOCAL, &address);
    attribute(&mut body, IFA_ADDRESS, &address);
    body
}

/// `rdma link add DEVICE type KIND netdev NETDEV`.
///
/// # Errors
/// What the kernel answered; EINVAL where it has no driver of that kind.
pub(crate) fn add_rdma_link(kind: &str, device: &str, netdev: &str) -> Result<(), Errno> {
    let mut body = Vec::new();
    attribute(&mut body, NLDEV_ATTR_DEV_NAME, &terminated(device));
    attribute(&mut body, NLDEV_ATTR_LINK_TYPE, &terminated(kind));
    attribute(&mut body, NLDEV_ATTR_NDEV_NAME, &terminated(netdev));
    request(SockProtocol::NetlinkRDMA, NLDEV_NEWLINK, 0, &body)
}

/// `rdma link delete DEVICE`. The kernel waits until nobody has the device open.
///
/// # Errors
/// ENODEV when there is none of that name; what the kernel answered otherwise.
pub(crate) fn delete_rdma_link(device: &str) -> Result<(), Errno> {
    let body = index_body(&open(SockProtocol::NetlinkRDMA)?, device)?;
    request(SockProtocol::NetlinkRDMA, NLDEV_DELLINK, 0, &body)
}

/// The body of a request about one device.
fn index_body(socket: &OwnedFd, device: &str) -> Result<Vec<u8>, Errno> {
    transmit(socket, NLDEV_GET, NLM_F_DUMP, &[])?;
    let mut found = None;
    receive(socket, |body| found = found.or_else(|| index_of(body, device)))?;
    let mut body = Vec::new();
    attribute(&mut body, NLDEV_ATTR_DEV_INDEX, &found.ok_or(Errno::ENODEV)?.to_ne_bytes());
    Ok(body)
}

/// The index of a device in an answer to `GET`, if it is the one of that name.
fn index_of(body: &[u8], device: &str) -> Option<u32> {
    let value = |wanted: u16| attributes(body).find(|(attr, _)| *attr == wanted).map(|(_, value)| value);
    let name = value(NLDEV_ATTR_DEV_NAME)?;
    let index = value(NLDEV_ATTR_DEV_INDEX)?;
    (name.strip_suffix(&[0]) == Some(device.as_bytes())).then_some(())?;
    Some(u32::from_ne_bytes(index.try_into().ok()?))
}

/// Where RDMA resources are counted.
#[derive(Debug)]
pub(crate) struct Resources(OwnedFd);

impl Resources {
    /// Opens the socket to ask over.
    ///
    /// # Errors
    /// EPROTONOSUPPORT without RDMA.
    pub(crate) fn open() -> Result<Self, Errno> {
        open(SockProtocol::NetlinkRDMA).map(Self)
    }

    /// Memory regions in the whole system, as `rdma resource show` counts them.
    ///
    /// # Errors
    /// What the kernel answered.
    pub(crate) fn regions(&self) -> Result<u64, Errno> {
        transmit(&self.0, NLDEV_RES_GET, NLM_F_DUMP, &[])?;
        let mut regions = 0;
        receive(&self.0, |body| regions += summary(body, "mr"))?;
        Ok(regions)
    }

    /// The memory regions of one device, as `rdma resource show mr` lists them.
    ///
    /// # Errors
    /// ENODEV when there is none of that name; what the kernel answered otherwise.
    pub(crate) fn list(&self, device: &str) -> Result<Vec<Listed>, Errno> {
        let body = index_body(&self.0, device)?;
        transmit(&self.0, NLDEV_RES_MR_GET, NLM_F_DUMP, &body)?;
        let mut regions = Vec::new();
        receive(&self.0, |body| regions.extend(listed(body)))?;
        Ok(regions)
    }
}

/// A memory region that the kernel lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Its key; told to whom has CAP_NET_ADMIN.
    pub(crate) rkey: Option<u32>,
    /// The process that made it; none when that is gone.
    pub(crate) pid: Option<u32>,
}

/// The regions in an answer to `RES_MR_GET`.
fn listed(body: &[u8]) -> Vec<Listed> {
    let tables = attributes(body).filter(|(attr, _)| *attr == NLDEV_ATTR_RES_MR);
    let entries =
        tables.flat_map(|(_, table)| attributes(table)).filter(|(attr, _)| *attr == NLDEV_ATTR_RES_MR_ENTRY);
    let one = |(_, entry)| {
        let word = |wanted| {
            let (_, value) = attributes(entry).find(|(attr, _)| *attr == wanted)?;
            Some(u32::from_ne_bytes(value.try_into().ok()?))
        };
        Listed { rkey: word(NLDEV_ATTR_RES_RKEY), pid: word(NLDEV_ATTR_RES_PID) }
    };
    entries.map(one).collect()
}

/// The current number of one kind of resource in an answer to `RES_GET`.
fn summary(body: &[u8], kind: &str) -> u64 {
    let tables = attributes(body).filter(|(attr, _)| *attr == NLDEV_ATTR_RES_SUMMARY);
    let entries = tables
        .flat_map(|(_, table)| attributes(table))
        .filter(|(attr, _)| *attr == NLDEV_ATTR_RES_SUMMARY_ENTRY);
    let of_kind = entries.filter(|(_, entry)| {
        let name = attributes(entry).find(|(attr, _)| *attr == NLDEV_ATTR_RES_SUMMARY_ENTRY_NAME);
        name.is_some_and(|(_, name)| name.strip_suffix(&[0]) == Some(kind.as_bytes()))
    });
    of_kind
        .filter_map(|(_, entry)| attributes(entry).find(|(attr, _)| *attr == NLDEV_ATTR_RES_SUMMARY_ENTRY_CURR))
        .filter_map(|(_, current)| Some(u64::from_ne_bytes(current.try_into().ok()?)))
        .sum()
}

fn terminated(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    body.extend(len.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// The attributes of a body; a malformed one ends them.
fn attributes(mut body: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = body.get(..4)?;
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & ATTR_TYPE_MASK;
        let value = body.get(4..len)?;
        body = body.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn open(protocol: SockProtocol) -> Result<OwnedFd, Errno> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(socket)
}

fn transmit(socket: &OwnedFd, kind: u16, flags: u16, body: &[u8]) -> Result<(), Errno> {
    let len = u32::try_from(HEADER_BYTES + body.len()).map_err(|_| Errno::EMSGSIZE)?;
    let mut message = Vec::from(len.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    message.extend([0u8; 8]);
    message.extend(body);
    send(socket.as_raw_fd(), &message, MsgFlags::empty()).map(drop)
}

fn request(protocol: SockProtocol, kind: u16, flags: u16, body: &[u8]) -> Result<(), Errno> {
    let socket = open(protocol)?;
    transmit(&socket, kind, flags | NLM_F_ACK, body)?;
    receive(&socket, |_| ())
}

/// Hands each message's body to `each` until the kernel says it is done or that it failed.
fn receive(socket: &OwnedFd, mut each: impl FnMut(&[u8])) -> Result<(), Errno> {
    let mut buffer = vec![0u8; 64 << 10];
    loop {
        let len = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let mut left = &buffer[..len];
        while let Some(header) = left.get(..HEADER_BYTES) {
            let field = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
            let len = u32::from_ne_bytes(field(0)) as usize;
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            let body = left.get(HEADER_BYTES..len).ok_or(Errno::EBADMSG)?;
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    let code = body.get(..4).and_then(|code| code.try_into().ok()).ok_or(Errno::EBADMSG)?;
                    let code = i32::from_ne_bytes(code);
                    return if code == 0 { Ok(()) } else { Err(Errno::from_raw(-code)) };
                }
                _ => each(body),
            }
            left = left.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_counts_one_kind() {
        let entry = |name: &str, count: u64| {
            let mut entry = Vec::new();
            attribute(&mut entry, NLDEV_ATTR_RES_SUMMARY_ENTRY_NAME, &terminated(name));
            attribute(&mut entry, NLDEV_ATTR_RES_SUMMARY_ENTRY_CURR, &count.to_ne_bytes());
            entry
        };
        let mut table = Vec::new();
        attribute(&mut table, NLDEV_ATTR_RES_SUMMARY_ENTRY, &entry("pd", 2));
        attribute(&mut table, NLDEV_ATTR_RES_SUMMARY_ENTRY | 0x8000, &entry("mr", 3));
        let mut body = Vec::new();
        attribute(&mut body, NLDEV_ATTR_DEV_NAME, &terminated("rxe0"));
        attribute(&mut body, NLDEV_ATTR_RES_SUMMARY | 0x8000, &table);
        assert_eq!(summary(&body, "mr"), 3);
        assert_eq!(summary(&body, "qp"), 0);
    }

    #[test]
    fn regions_are_listed_with_key_and_process() {
        let entry = |rkey: u32, pid: Option<u32>| {
            let mut entry = Vec::new();
            attribute(&mut entry, NLDEV_ATTR_RES_RKEY, &rkey.to_ne_bytes());
            if let Some(pid) = pid {
                attribute(&mut entry, NLDEV_ATTR_RES_PID, &pid.to_ne_bytes());
            }
            entry
        };
        let mut table = Vec::new();
        attribute(&mut table, NLDEV_ATTR_RES_MR_ENTRY | 0x8000, &entry(0x1234, Some(70)));
        attribute(&mut table, NLDEV_ATTR_RES_MR_ENTRY | 0x8000, &entry(0x1235, None));
        let mut body = Vec::new();
        attribute(&mut body, NLDEV_ATTR_RES_MR | 0x8000, &table);
        let (made, orphan) =
            (Listed { rkey: Some(0x1234), pid: Some(70) }, Listed { rkey: Some(0x1235), pid: None });
        assert_eq!(listed(&body), [made, orphan]);
        assert_eq!(listed(&[]), []);
    }

    #[test]
    fn a_device_is_known_by_its_whole_name() {
        let mut body = Vec::new();
        attribute(&mut body, NLDEV_ATTR_DEV_INDEX, &7u32.to_ne_bytes());
        attribute(&mut body, NLDEV_ATTR_DEV_NAME, &terminated("rxe0"));
        assert_eq!(index_of(&body, "rxe0"), Some(7));
        assert_eq!(index_of(&body, "rxe"), None);
        assert_eq!(index_of(&[], "rxe0"), None);
    }

    #[test]
    fn a_malformed_attribute_ends_the_list() {
        assert_eq!(attributes(&[1, 0, 0, 0]).count(), 0);
        assert_eq!(attributes(&[200, 0, 0, 0, 1]).count(), 0);
        assert_eq!(attributes(&[]).count(), 0);
    }
}
