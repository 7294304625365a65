//! The announcement of an address: "from now on this address is at this MAC".
//!
//! ```text
//! IPv4: a broadcast ARP request, in which both addresses are the announced one
//!   Ethernet  broadcast | our MAC | 0x0806
//!   ARP       Ethernet, IPv4, request | our MAC, address | 00:00:00:00:00:00, address
//! IPv6: an unsolicited neighbour advertisement to all nodes
//!   Ethernet  33:33:00:00:00:01 | our MAC | 0x86dd
//!   IPv6      hop limit 255 | address | ff02::1
//!   ICMPv6    136, code 0 | override | target: address | option 2: our MAC
//! ```
//!
//! It is sent out of the twin by a packet socket, so it takes the way of the kernel's own ARP
//! (TAP, twin thread, worker, port) and `tcpdump -i` on the twin shows it.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_dataplane::Mac;
use weir_dataplane::packet::{checksum, ipv6};

/// All nodes of a link (RFC 4291 section 2.7.1), and their Ethernet address (RFC 2464 section 7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);

/// The frame that announces `addr` at `mac`.
pub(super) fn announcement(mac: Mac, addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => arp(mac, addr),
        IpAddr::V6(addr) => advertisement(mac, addr),
    }
}

/// An ARP announcement (RFC 5227 section 3).
fn arp(mac: Mac, addr: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(Mac([0xff; 6]), mac, 0x0806);
    // RFC 826: hardware Ethernet (1), protocol IPv4, lengths 6 and 4, operation request (1).
    frame.extend([0, 1, 0x08, 0x00, 6, 4, 0, 1]);
    frame.extend(mac.0);
    frame.extend(addr.octets());
    frame.extend([0; 6]);
    frame.extend(addr.octets());
    frame
}

/// An unsolicited neighbour advertisement (RFC 4861 sections 4.4 and 7.2.6).
fn advertisement(mac: Mac, addr: Ipv6Addr) -> Vec<u8> {
    const ICMPV6: u8 = 58;
    // Type, code, checksum; the override flag: who knew another MAC address forgets it.
    let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend(addr.octets());
    message.extend([2, 1]); // target link-layer address, in units of eight bytes
    message.extend(mac.0);

    let mut addrs = [0; 32];
    addrs[..16].copy_from_slice(&addr.octets());
    addrs[16..].copy_from_slice(&ALL_NODES.octets());
    let len = message.len() as u16; // 32
    let pseudo = ipv6::pseudo(&addrs, ICMPV6, len.into());
    let sum = checksum::fold(u32::from(pseudo) + u32::from(checksum::sum(&message)));
    message[2..4].copy_from_slice(&(!sum).to_be_bytes());

    let mut frame = ethernet(ALL_NODES_MAC, mac, 0x86dd);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(len.to_be_bytes());
    frame.extend([ICMPV6, 255]); // a smaller hop limit has crossed a router, and does not count
    frame.extend(addrs);
    frame.extend(message);
    frame
}

fn ethernet(to: Mac, from: Mac, ethertype: u16) -> Vec<u8> {
    [to.0.as_slice(), &from.0, &ethertype.to_be_bytes()].concat()
}
