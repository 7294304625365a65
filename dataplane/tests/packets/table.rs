//! The table: mode × family × protocol × direction × what the card did of the checksums, byte by
//! byte; and tshark judges every frame of it.

use weir_dataplane::conn::state::State;
use weir_dataplane::counters::ServerCounters;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::forward::carrier::ClientAddress;
use weir_dataplane::forward::tun::{GueChecksum, Tunnel};
use weir_dataplane::io::RxChecksum;
use weir_dataplane::packet::build::{Packet, checksums_right};
use weir_dataplane::packet::tcp::flags::{ACK, SYN};
use weir_dataplane::packet::{be16, eth};
use weir_dataplane::{Proto, ServerId};

use crate::common::*;
use crate::modes::{CLIENT4, CLIENT6, PROTOS, VIP4, VIP6, at, director_of, packet};
use crate::{only, tshark};

/// What the sender's stack left to its card, and what our card says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offload {
    /// Complete checksums, nothing said.
    None,
    /// Complete checksums, and the card has looked at IP's.
    Verified,
    /// The transport checksum is partial, and the card says so (virtio).
    Partial,
    /// It is partial, and nobody says so; the port is to fill (af_packet on veth).
    Unmarked,
    /// UDP over IPv4 without one.
    Without,
}

const OFFLOADS: [Offload; 5] = [
    Offload::None,
    Offload::Verified,
    Offload::Partial,
    Offload::Unmarked,
    Offload::Without,
];

const TUNNELS: [Tunnel; 7] = [
    Tunnel::Ipip,
    Tunnel::Gre { checksum: false },
    Tunnel::Gre { checksum: true },
    Tunnel::Gue {
        port: 6080,
        checksum: GueChecksum::None,
    },
    Tunnel::Gue {
        port: 6080,
        checksum: GueChecksum::Full,
    },
    Tunnel::Gue {
        port: 6080,
        checksum: GueChecksum::Remote,
    },
    Tunnel::Vxlan {
        vni: 7,
        port: 4789,
        mac: None,
    },
];

const FAMILIES: [(&str, &str, &str); 4] = [
    (CLIENT4, VIP4, "10.1.0.11"),
    (CLIENT6, VIP6, "[2001:db8:1::11]"),
    (CLIENT6, VIP6, "10.1.0.11"),
    (CLIENT4, VIP4, "[2001:db8:1::11]"),
];

/// A row: mode, client, virtual service, real server.
type Row = (
    ForwardMode,
    Option<Tunnel>,
    &'static str,
    &'static str,
    String,
);

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (client, vip, server) in FAMILIES {
        let mapped = format!("{server}:8080");
        let same = format!("{server}:80");
        rows.push((ForwardMode::fullnat, None, client, vip, mapped.clone()));
        let tunnels = TUNNELS.map(Some);
        rows.extend(tunnels.map(|t| (ForwardMode::tun, t, client, vip, same.clone())));
        if at(client).is_ipv4() == at(&same).is_ipv4() {
            rows.push((ForwardMode::nat, None, client, vip, mapped));
            rows.push((ForwardMode::dr, None, client, vip, same));
        }
    }
    rows
}

/// The packet as `offload` lets it travel, and what the card says of it.
fn travels(packet: Packet, offload: Offload) -> (Vec<u8>, RxChecksum) {
    let mut said = RxChecksum::default();
    let packet = match offload {
        Offload::None => packet,
        Offload::Verified => {
            said.l3_good = true;
            packet
        }
        Offload::Partial | Offload::Unmarked => {
            said.l4_partial = offload == Offload::Partial;
            Packet {
                partial: true,
                ..packet
            }
        }
        Offload::Without => Packet {
            no_checksum: true,
            ..packet
        },
    };
    (packet.build(), said)
}

/// Whether this can be: only UDP over IPv4 does without.
fn occurs(offload: Offload, packet: &Packet) -> bool {
    offload != Offload::Without || (packet.proto == Proto::Udp && packet.src.is_ipv4())
}

fn l4_at(frame: &[u8]) -> usize {
    match eth::ethertype(frame) {
        Ok(eth::IPV6) => 54,
        _ => 34,
    }
}

/// `frame` carries just what `expected` would: the whole packet, or where it changed its family
/// everything behind the IP header.
fn assert_carries(frame: &[u8], expected: &Packet, translated: bool, what: &str) {
    assert!(checksums_right(frame), "{what}: {frame:02x?}");
    let expected = expected.build();
    match translated {
        false => assert_eq!(frame[14..], expected[14..], "{what}"),
        true => assert_eq!(
            frame[l4_at(frame)..],
            expected[l4_at(&expected)..],
            "{what}"
        ),
    }
}

#[test]
fn every_mode_family_protocol_direction_and_offload() {
    let mut seen = Vec::new();
    for (workers, (mode, tunnel, client, vip, server)) in [1, 3]
        .into_iter()
        .flat_map(|w| rows().into_iter().map(move |r| (w, r)))
    {
        for fill in [false, true] {
            let shape = Shape {
                fill_checksums: fill,
                ..Shape::workers(workers)
            };
            let how = (mode, tunnel);
            let mut d = director_of(&shape, vip, how, &[&server], ClientAddress::none);
            let mut packets = [0u64; 3];
            let mut filled = 0;
            for (nth, proto) in PROTOS.into_iter().enumerate() {
                for (offload, port) in OFFLOADS.into_iter().zip(41_000..) {
                    let mut client = at(client);
                    client.set_port(port);
                    let client = client.to_string();
                    let asked = packet(proto, &client, vip, SYN);
                    if fill != (offload == Offload::Unmarked) || !occurs(offload, &asked) {
                        continue;
                    }
                    let what = format!("{mode:?} {tunnel:?} {proto} {client} {server} {offload:?}");
                    let row = Exchange {
                        d: &mut d,
                        mode,
                        tunnel,
                        server: &server,
                        offload,
                        what: &what,
                    };
                    let (inbound, completed) = row.there_and_back(&asked, vip, &mut seen);
                    packets[nth] += inbound;
                    filled += completed;
                }
            }
            // Counted: each packet once, each partial checksum once, nothing dropped.
            for (nth, packets) in packets.into_iter().enumerate() {
                let cells = |f: fn(&ServerCounters) -> u64| {
                    let id = ServerId(nth as u32 * 4);
                    d.sum(|c| f(c.servers.get(id).unwrap()))
                };
                assert_eq!(cells(|s| s.in_packets.get()), packets);
                assert_eq!(cells(|s| s.conns.get()) * 2, packets);
            }
            assert_eq!(
                d.sum(|c| c.checksums_filled.get()),
                filled,
                "{mode:?} {tunnel:?}"
            );
            assert_eq!(d.totals().dropped, 0, "{mode:?} {tunnel:?} {server}");
            d.assert_books();
        }
    }
    assert_eq!(seen.len(), 3350, "the table is whole");
    tshark::assert_content(&seen);
}

/// One connection of the table.
struct Exchange<'a> {
    d: &'a mut Director,
    mode: ForwardMode,
    tunnel: Option<Tunnel>,
    server: &'a str,
    offload: Offload,
    what: &'a str,
}

impl Exchange<'_> {
    fn feed(&mut self, port: weir_dataplane::PortId, packet: Packet) -> (To, Vec<u8>) {
        let (frame, said) = travels(packet, self.offload);
        self.d.deliver_with(port, &frame, said);
        self.d.settle();
        only(self.d.collect())
    }

    /// First packet, answer, second packet: packets inbound, and checksums completed.
    fn there_and_back(mut self, asked: &Packet, vip: &str, seen: &mut Vec<Vec<u8>>) -> (u64, u64) {
        let what = self.what;
        let proto = asked.proto;
        let partial = matches!(self.offload, Offload::Partial | Offload::Unmarked);
        let mut completed = 0;
        let mut local = None;
        for flags in [SYN, ACK] {
            let sent = packet(proto, &asked.src.to_string(), vip, flags);
            let (to, f) = self.feed(WAN, sent.clone());
            assert_eq!(to, To::Port(LAN), "{what}");
            assert_eq!(eth::dst(&f), server_mac(11), "{what}");
            completed += u64::from(partial);
            let inner = self.unwrapped(&f);
            seen.push(inner.clone());
            if self.tunnel.is_some() {
                seen.push(f);
            }
            let rewritten = matches!(self.mode, ForwardMode::fullnat | ForwardMode::nat);
            let mut expected = Packet { ttl: 63, ..sent };
            expected.no_checksum = self.offload == Offload::Without;
            if rewritten {
                let (_, from, to) = ends(&inner);
                assert_eq!(to, at(self.server), "{what}");
                let first = *local.get_or_insert(from);
                assert_eq!(first, from, "{what}: the same way again");
                (expected.src, expected.dst) = (from, to);
            }
            let translated = rewritten && asked.src.is_ipv4() != expected.src.is_ipv4();
            // IPv6 wants one.
            expected.no_checksum &= expected.src.is_ipv4();
            assert_carries(&inner, &expected, translated, what);
        }
        // Answers of one-way modes pass the director by.
        if let Some(local) = local {
            let reply = match proto {
                Proto::Tcp => Packet::tcp(at(self.server), local, SYN | ACK),
                Proto::Udp => Packet::udp(at(self.server), local),
                Proto::Sctp => Packet::sctp(at(self.server), local, &[(2, &[1; 16])]),
                Proto::Icmp => unreachable!("no service has it"),
            };
            let reply = reply.macs(server_mac(11), LAN_MAC);
            let reply = match proto {
                Proto::Sctp => reply,
                _ => reply.payload(b"reply"),
            };
            let goes_without = occurs(self.offload, &reply);
            if !goes_without {
                self.offload = Offload::None;
            }
            let (to, f) = self.feed(LAN, reply.clone());
            assert_eq!((to, eth::dst(&f)), (To::Port(WAN), ROUTER_MAC), "{what}");
            completed += u64::from(partial);
            seen.push(f.clone());
            let mut expected = Packet { ttl: 63, ..reply };
            (expected.src, expected.dst) = (at(vip), asked.src);
            expected.no_checksum = self.offload == Offload::Without && asked.src.is_ipv4();
            let translated = asked.src.is_ipv4() != local.is_ipv4();
            assert_carries(&f, &expected, translated, what);
        }
        let states: Vec<State> = self.d.listing().iter().map(|c| c.state).collect();
        assert!(!states.contains(&State::None), "{what}");
        (2, completed)
    }

    /// What is inside the tunnel, as a frame.
    fn unwrapped(&self, frame: &[u8]) -> Vec<u8> {
        let Some(tunnel) = self.tunnel else {
            return frame.to_vec();
        };
        let what = self.what;
        let server = at(self.server).ip();
        let overhead = usize::from(tunnel.overhead(server));
        let inner = &frame[14 + overhead..];
        let (outer, protocol) = match server.is_ipv6() {
            true => (54, frame[20]),
            false => (34, frame[23]),
        };
        let wanted = match tunnel {
            Tunnel::Ipip if inner[0] >> 4 == 6 => 41,
            Tunnel::Ipip => 4,
            Tunnel::Gre { .. } => 47,
            Tunnel::Gue { .. } | Tunnel::Vxlan { .. } => 17,
        };
        assert_eq!(protocol, wanted, "{what}");
        let checksum = (protocol == 17).then(|| be16(frame, outer + 6));
        match tunnel {
            Tunnel::Gue {
                checksum: GueChecksum::None,
                ..
            } => assert_eq!(checksum, Some(0)),
            Tunnel::Gue { .. } => assert_ne!(checksum, Some(0), "{what}"),
            Tunnel::Vxlan { .. } => {
                assert_eq!(checksum == Some(0), server.is_ipv4(), "{what}");
            }
            Tunnel::Ipip | Tunnel::Gre { .. } => {}
        }
        let ethertype: [u8; 2] = match inner[0] >> 4 {
            6 => [0x86, 0xdd],
            _ => [8, 0],
        };
        [&[0; 12][..], &ethertype, inner].concat()
    }
}
