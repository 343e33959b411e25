// SPDX-License-Identifier: MIT OR Apache-2.0
//! The soft RDMA links, rxe and siw, each on a `dummy` interface of its own, which needs no network card.
//!
//! Order that works: link up, address, RDMA link, port active, GID of the address. Of an interface with both,
//! rdma_cm would take the first that it finds (cma_acquire_dev_by_src_ip()).

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use holdfast_protocol::{Provider, RdmaFact};
use nix::errno::Errno;

use crate::netlink;
use crate::progress::Progress;

/// The interface below a link.
pub(crate) const fn netdev(provider: Provider) -> &'static str {
    match provider {
        Provider::Rxe => "dummy0",
        Provider::Siw => "dummy1",
    }
}

/// The interface's address.
pub(crate) const fn address(provider: Provider) -> [u8; 4] {
    match provider {
        Provider::Rxe => [192, 168, 77, 1],
        Provider::Siw => [192, 168, 78, 1],
    }
}

const PREFIX: u8 = 24;

/// Room for the largest payload of a packet of rxe, 4096 bytes, and its headers (RXE_MAX_HDR_LENGTH): with
/// an ordinary Ethernet's 1500 a transfer takes four times as many packets. siw's go by the loopback's.
const MTU: u32 = 4500;

/// How long the port and its GID may take; a debug kernel under emulation needs seconds.
const TIMEOUT: Duration = Duration::from_secs(20);

/// When the GID has not shown after this, the address is given anew.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// How often to look.
const STEP: Duration = Duration::from_millis(2);

/// Brings the links up and waits until connections can use them.
pub(crate) fn bring_up(progress: &Progress) -> Vec<RdmaFact> {
    let mut facts = none("");
    // Router solicitations and multicast reports would be sent now and then, while a scenario runs.
    let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    // Both are made before the first is waited for: what the kernel does meanwhile overlaps.
    let made: Vec<_> = facts.iter().map(|fact| make(fact.provider)).collect();
    for (fact, made) in facts.iter_mut().zip(made) {
        if let Err(why) = made.and_then(|interface| wait(interface, fact, progress)) {
            fact.trouble = why;
        }
    }
    facts
}

/// Links that are not there, and why.
pub(super) fn none(trouble: &str) -> Vec<RdmaFact> {
    let none = |provider: Provider| RdmaFact {
        provider,
        device: format!("{}0", provider.name()),
        active: false,
        gid_index: None,
        trouble: trouble.to_owned(),
    };
    Provider::ALL.map(none).into()
}

fn make(provider: Provider) -> Result<u32, String> {
    let (name, netdev) = (provider.name(), netdev(provider));
    let said = |what: &'static str| move |errno: Errno| format!("{name}: {what} {netdev}: {errno}");
    netlink::link_up(interface("lo")?).map_err(said("setting lo up for"))?;
    if interface(netdev).is_err() {
        netlink::add_dummy(netdev).map_err(said("adding"))?;
    }
    let index = interface(netdev)?;
    netlink::set_mtu(index, MTU).map_err(said("setting the MTU of"))?;
    netlink::link_up(index).map_err(said("setting up"))?;
    netlink::set_address(index, address(provider), PREFIX).map_err(said("giving an address to"))?;
    netlink::add_rdma_link(name, &format!("{name}0"), netdev).map_err(said("adding a link on"))?;
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
        fact.active = port_file(fact, "state").contains("ACTIVE");
        fact.gid_index = gid_index(fact);
        if fact.active && fact.gid_index.is_some() {
            return Ok(());
        }
        if limit.is_over() {
            let missing =
                if fact.active { "the GID of its address is not there" } else { "its port is not active" };
            return Err(format!("{}: {missing} after {TIMEOUT:?}", fact.device));
        }
        if again.is_over() {
            again = progress.within(AGAIN_AFTER);
            let address = address(fact.provider);
            let _ = netlink::drop_address(interface, address, PREFIX);
            let _ = netlink::set_address(interface, address, PREFIX);
        }
        sleep(STEP);
    }
}

fn port_file(fact: &RdmaFact, name: &str) -> String {
    fs::read_to_string(format!("/sys/class/infiniband/{}/ports/1/{name}", fact.device)).unwrap_or_default()
}

/// Index of the first IPv4-mapped GID; an iWARP device has one, made of its interface's hardware address.
fn gid_index(fact: &RdmaFact) -> Option<u32> {
    match fact.provider {
        Provider::Rxe => (0..16).find(|index| {
            port_file(fact, &format!("gids/{index}")).starts_with("0000:0000:0000:0000:0000:ffff:")
        }),
        Provider::Siw => Some(0),
    }
}
