//! ICMP errors about balanced flows: who sent the quoted packet is told, in its own terms.

use std::net::IpAddr;

use weir_dataplane::Proto;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::packet::tcp::flags::{ACK, SYN};
use weir_dataplane::packet::{checksum, eth, put16};

use crate::common::*;
use crate::modes::{CLIENT4, CLIENT6, VIP4, VIP6, at, director, packet, shapes};
use crate::only;

pub(crate) fn addresses(f: &[u8]) -> (IpAddr, IpAddr) {
    let v6 = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&f[at..at + 16]).unwrap());
    let v4 = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&f[at..at + 4]).unwrap());
    match f[12..14] {
        [0x86, 0xdd] => (v6(22), v6(38)),
        _ => (v4(26), v4(30)),
    }
}

/// An ICMP error with `head` (type, code) from `router` to the sender of the packet in `about`.
pub(crate) fn error_about(about: &[u8], router: &str, (kind, code): (u8, u8), mtu: u16) -> Vec<u8> {
    let router: IpAddr = router.parse().unwrap();
    let mut message = vec![kind, code, 0, 0, 0, 0];
    message.extend_from_slice(&mtu.to_be_bytes());
    message.extend_from_slice(&about[14..]);
    let mut f = [
        &eth::src(about).0[..],
        &eth::dst(about).0[..],
        &about[12..14],
    ]
    .concat();
    match (addresses(about).0, router) {
        (IpAddr::V4(to), IpAddr::V4(from)) => {
            let len = (20 + message.len()) as u16;
            f.extend_from_slice(&[0x45, 0]);
            f.extend_from_slice(&len.to_be_bytes());
            f.extend_from_slice(&[0, 0, 0, 0, 64, 1, 0, 0]);
            f.extend_from_slice(&from.octets());
            f.extend_from_slice(&to.octets());
            checksum::set_ipv4(&mut f);
            let sum = !checksum::sum(&message);
            put16(&mut message, 2, sum);
        }
        (IpAddr::V6(to), IpAddr::V6(from)) => {
            f.extend_from_slice(&[0x60, 0, 0, 0]);
            f.extend_from_slice(&(message.len() as u16).to_be_bytes());
            f.extend_from_slice(&[58, 64]);
            let addrs = [from.octets(), to.octets()].concat();
            let sum = checksum::sum(&addrs[..]);
            let rest = u32::from(checksum::sum(&message)) + message.len() as u32 + 58;
            let sum = !checksum::fold(rest + u32::from(sum));
            put16(&mut message, 2, sum);
            f.extend_from_slice(&addrs);
        }
        _ => panic!("families differ"),
    }
    f.extend_from_slice(&message);
    f
}

/// A router on either side says that a packet is too big: who sent the packet is told, in its
/// own terms.
#[test]
fn errors_about_a_flow_reach_who_sent_it() {
    let rows = [
        (ForwardMode::fullnat, CLIENT4, VIP4, "10.1.0.11:8080"),
        (ForwardMode::nat, CLIENT4, VIP4, "10.1.0.11:8080"),
        (ForwardMode::fullnat, CLIENT6, VIP6, "[2001:db8:1::11]:8080"),
        (ForwardMode::nat, CLIENT6, VIP6, "[2001:db8:1::11]:8080"),
        (ForwardMode::fullnat, CLIENT6, VIP6, "10.1.0.11:8080"),
        (ForwardMode::fullnat, CLIENT4, VIP4, "[2001:db8:1::11]:8080"),
    ];
    let too_big = |f: &[u8]| {
        if f[12..14] == [0x86, 0xdd] {
            (2, 0)
        } else {
            (3, 4)
        }
    };
    for (mode, client, vip, server) in rows {
        for shape in shapes() {
            let what = format!("{mode:?} {client} {server} {shape:?}");
            let mut d = director(&shape, vip, mode, &[server]);
            let sent = packet(Proto::Tcp, client, vip, SYN).build();
            let (_, at_server) = only(d.exchange(WAN, &sent));
            let reply = answer(&at_server, SYN | ACK).build();
            let (_, at_client) = only(d.exchange(LAN, &reply));

            // A router behind the director about the client's packet.
            let router = if at(server).is_ipv6() {
                "2001:db8:1::99"
            } else {
                "10.1.0.99"
            };
            let error = error_about(&at_server, router, too_big(&at_server), 1400);
            let (to, f) = only(d.exchange(LAN, &error));
            assert_eq!((to, eth::dst(&f)), (To::Port(WAN), ROUTER_MAC), "{what}");
            assert_eq!(addresses(&f), (at(vip).ip(), at(client).ip()), "{what}");
            let icmp = if at(client).is_ipv6() { 54 } else { 34 };
            assert_eq!((f[icmp], f[icmp + 1]), too_big(&f), "{what}");
            let told = u16::from_be_bytes([f[icmp + 6], f[icmp + 7]]);
            let expected = match (at(client).is_ipv6(), at(server).is_ipv6()) {
                (true, false) => 1420,
                (false, true) => 1380,
                _ => 1400,
            };
            assert_eq!(told, expected, "{what}");
            // What is quoted is what the client sent: addresses and ports at least.
            let quoted = [&f[..14], &f[icmp + 8..]].concat();
            assert_eq!(addresses(&quoted), addresses(&sent), "{what}");
            assert_eq!(
                quoted[icmp..icmp + 8],
                sent[icmp..icmp + 8],
                "{what}: ports, sequence"
            );

            // A router in front of it about the server's packet.
            let router = if at(client).is_ipv6() {
                "2001:db8:9::1"
            } else {
                "198.51.100.1"
            };
            let error = error_about(&at_client, router, too_big(&at_client), 1400);
            let (to, f) = only(d.exchange(WAN, &error));
            assert_eq!(
                (to, eth::dst(&f)),
                (To::Port(LAN), server_mac(11)),
                "{what}"
            );
            assert_eq!(addresses(&f).1, at(server).ip(), "{what}");
            let icmp = if at(server).is_ipv6() { 54 } else { 34 };
            let quoted = [&f[..14], &f[icmp + 8..]].concat();
            assert_eq!(addresses(&quoted), addresses(&reply), "{what}");
            assert_eq!(quoted[icmp..icmp + 8], reply[icmp..icmp + 8], "{what}");
            assert_eq!(d.sum(|c| c.icmp_errors.get()), 2, "{what}");
            d.assert_books();
        }
    }
}
