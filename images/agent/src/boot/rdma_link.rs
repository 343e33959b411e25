// SPDX-License-Identifier: MIT OR Apache-2.0
//! The soft RDMA link: rxe on a `dummy` interface, which needs no network card.
//!
//! Order that works: link up, address, rxe link, port active, GID of the address.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use holdfast_protocol::RdmaFact;
use nix::errno::Errno;

use crate::netlink;
use crate::progress::Progress;

/// The interface below the link.
pub(crate) const NETDEV: &str = "dummy0";
const DEVICE: &str = "rxe0";
const ADDRESS: [u8; 4] = [192, 168, 77, 1];
const PREFIX: u8 = 24;

/// Room for the largest payload of an RDMA packet, 4096 bytes, and its headers (RXE_MAX_HDR_LENGTH): with
/// an ordinary Ethernet's 1500 a transfer takes four times as many packets.
const MTU: u32 = 4500;

/// How long the port and its GID may take; a debug kernel under emulation needs seconds.
const TIMEOUT: Duration = Duration::from_secs(20);

/// When the GID has not shown after this, the address is given anew.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// How often to look.
const STEP: Duration = Duration::from_millis(2);

/// Brings the link up and waits until connections can use it.
pub(crate) fn bring_up(progress: &Progress) -> RdmaFact {
    let mut fact =
        RdmaFact { device: DEVICE.to_owned(), active: false, gid_index: None, trouble: String::new() };
    if let Err(why) = make().and_then(|interface| wait(interface, &mut fact, progress)) {
        fact.trouble = why;
    }
    fact
}

fn make() -> Result<u32, String> {
    let said = |what: &'static str| move |errno: Errno| format!("{what}: {errno}");
    // Router solicitations and multicast reports would be sent now and then, while a scenario runs.
    let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    netlink::link_up(interface("lo")?).map_err(said("setting lo up"))?;
    if interface(NETDEV).is_err() {
        netlink::add_dummy(NETDEV).map_err(said("adding dummy0"))?;
    }
    let index = interface(NETDEV)?;
    netlink::set_mtu(index, MTU).map_err(said("setting dummy0's MTU"))?;
    netlink::link_up(index).map_err(said("setting dummy0 up"))?;
    netlink::set_address(index, ADDRESS, PREFIX).map_err(said("giving dummy0 an address"))?;
    netlink::add_rxe(DEVICE, NETDEV).map_err(said("adding the rxe link"))?;
    Ok(index)
}

fn interface(name: &str) -> Result<u32, String> {
    let path = format!("/sys/class/net/{name}/ifindex");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    text.trim().parse().map_err(|_| format!("{path}: {text:?}"))
}

fn wait(interface: u32, fact: &mut RdmaFact, progress: &Progress) -> Result<(), String> {
    let limit = progress.within(TIMEOUT);
    let mut again = progress.within(AGAIN_AFTER);
    loop {
        fact.active = port_file("state").contains("ACTIVE");
        fact.gid_index = gid_index();
        if fact.active && fact.gid_index.is_some() {
            return Ok(());
        }
        if limit.is_over() {
            let missing =
                if fact.active { "the GID of its address is not there" } else { "its port is not active" };
            return Err(format!("{DEVICE}: {missing} after {TIMEOUT:?}"));
        }
        if again.is_over() {
            again = progress.within(AGAIN_AFTER);
            let _ = netlink::drop_address(interface, ADDRESS, PREFIX);
            let _ = netlink::set_address(interface, ADDRESS, PREFIX);
        }
        sleep(STEP);
    }
}

fn port_file(name: &str) -> String {
    fs::read_to_string(format!("/sys/class/infiniband/{DEVICE}/ports/1/{name}")).unwrap_or_default()
}

/// Index of the first IPv4-mapped GID.
fn gid_index() -> Option<u32> {
    (0..16).find(|index| port_file(&format!("gids/{index}")).starts_with("0000:0000:0000:0000:0000:ffff:"))
}
