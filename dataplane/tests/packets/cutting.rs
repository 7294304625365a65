//! Large datagrams in parts through every mode, and packets cut to the link.

use std::net::SocketAddr;

use weir_dataplane::command::{Command, PortUpdate};
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::forward::carrier::ClientAddress;
use weir_dataplane::forward::tun::Tunnel;
use weir_dataplane::io::Frame;
use weir_dataplane::io::sim::SimPool;
use weir_dataplane::packet::build::Packet;
use weir_dataplane::packet::ids::IpIds;
use weir_dataplane::packet::{be16, checksum, fragment, put16};
use weir_dataplane::{CoreId, Proto};

use crate::common::*;
use crate::errors::addresses;
use crate::modes::{CLIENT4, CLIENT6, VIP4, VIP6, at, director, director_of, packet, shapes};

/// Cuts a frame into fragments by the product's own knife.
pub(crate) fn cut(frame: &[u8], mtu: u16) -> Vec<Vec<u8>> {
    let mut whole = frame.to_vec();
    if whole[12..14] == [8, 0] {
        put16(&mut whole, 20, 0); // DF off
        put16(&mut whole, 18, 0x1234);
        checksum::set_ipv4(&mut whole);
    }
    let frame = SimPool::default().frame(&whole);
    let mut ids = IpIds::new(CoreId(0), 1, 7);
    let pieces = fragment::cut(frame, mtu, &mut ids).unwrap();
    pieces.iter().map(|p| p.bytes().to_vec()).collect()
}

/// Puts the fragments of one datagram together again: the L4 header and payload.
pub(crate) fn joined(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut parts: Vec<(usize, &[u8])> = pieces
        .iter()
        .map(|f| match f[12..14] {
            [0x86, 0xdd] => {
                assert_eq!(f[20], 44, "a fragment header");
                (usize::from(be16(f, 56) & !7), &f[62..])
            }
            _ => (usize::from(be16(f, 20) & 0x1fff) * 8, &f[34..]),
        })
        .collect();
    parts.sort_by_key(|(at, _)| *at);
    let ids: std::collections::HashSet<&[u8]> = pieces
        .iter()
        .map(|f| {
            if f[12..14] == [0x86, 0xdd] {
                &f[58..62]
            } else {
                &f[18..20]
            }
        })
        .collect();
    assert_eq!(ids.len(), 1, "one identification");
    let mut whole = Vec::new();
    for (at, part) in parts {
        assert_eq!(at, whole.len(), "no gap, no overlap");
        whole.extend_from_slice(part);
    }
    whole
}

/// A large datagram there and back in fragments, in order and backwards, on any core.
#[test]
fn fragments_go_where_their_datagram_goes() {
    let rows = [
        (ForwardMode::fullnat, CLIENT4, VIP4, "10.1.0.11:8080"),
        (ForwardMode::fullnat, CLIENT6, VIP6, "[2001:db8:1::11]:8080"),
        (ForwardMode::fullnat, CLIENT6, VIP6, "10.1.0.11:8080"),
        (ForwardMode::fullnat, CLIENT4, VIP4, "[2001:db8:1::11]:8080"),
        (ForwardMode::nat, CLIENT4, VIP4, "10.1.0.11:8080"),
        (ForwardMode::nat, CLIENT6, VIP6, "[2001:db8:1::11]:8080"),
        (ForwardMode::dr, CLIENT4, VIP4, "10.1.0.11:80"),
        (ForwardMode::dr, CLIENT6, VIP6, "[2001:db8:1::11]:80"),
    ];
    let payload: Vec<u8> = (0..1500u32).map(|n| (n * 7) as u8).collect();
    for (mode, client, vip, server) in rows {
        for (shape, backwards) in shapes().iter().flat_map(|s| [(s, false), (s, true)]) {
            let what = format!("{mode:?} {client} {server} {backwards} {shape:?}");
            let mut d = director(shape, vip, mode, &[server]);
            let mut exchange = |port, frame: &[u8]| {
                let mut pieces = cut(frame, 600);
                if backwards {
                    pieces.reverse();
                }
                for (n, piece) in pieces.iter().enumerate() {
                    d.deliver(port, piece, n);
                }
                d.settle();
                let out = d.collect();
                assert_eq!(out.len(), pieces.len(), "{what}");
                let to = out[0].0;
                assert!(out.iter().all(|(t, _)| *t == to), "{what}");
                (to, out.into_iter().map(|(_, f)| f).collect::<Vec<_>>())
            };
            let sent = packet(Proto::Udp, client, vip, 0).payload(&payload).build();
            let (to, pieces) = exchange(WAN, &sent);
            assert_eq!(to, To::Port(LAN), "{what}");
            let whole = joined(&pieces);
            assert_eq!(whole[8..], payload, "{what}");
            let (from, to) = addresses(&pieces[0]);
            if mode != ForwardMode::dr {
                assert_eq!(to, at(server).ip(), "{what}");
            }
            let port = |n: usize| be16(&whole, n);
            let seen = Packet {
                payload: payload.clone(),
                ..Packet::udp(SocketAddr::new(from, port(0)), SocketAddr::new(to, port(2)))
            };
            let l4 = if to.is_ipv6() { 54 } else { 34 };
            assert_eq!(
                whole[..],
                seen.build()[l4..],
                "{what}: the checksum is right"
            );

            if mode == ForwardMode::dr {
                continue;
            }
            let reply = Packet::udp(seen.dst, seen.src).macs(server_mac(11), LAN_MAC);
            let (to, pieces) = exchange(LAN, &reply.payload(&payload).build());
            assert_eq!(to, To::Port(WAN), "{what}");
            let whole = joined(&pieces);
            assert_eq!(
                addresses(&pieces[0]),
                (at(vip).ip(), at(client).ip()),
                "{what}"
            );
            let seen = Packet::udp(at(vip), at(client)).payload(&payload).build();
            let l4 = if at(vip).is_ipv6() { 54 } else { 34 };
            assert_eq!(whole[..], seen[l4..], "{what}");
            d.assert_books();
        }
    }
}

/// Packets that do not fit the way: those that may be cut are.
#[test]
fn what_may_be_cut_is_cut_to_the_link() {
    for (mode, tunnel) in [
        (ForwardMode::fullnat, None),
        (ForwardMode::dr, None),
        (ForwardMode::tun, Some(Tunnel::Ipip)),
    ] {
        let servers = ["10.1.0.11:80"];
        let mut d = director_of(
            &Shape::default(),
            VIP4,
            (mode, tunnel),
            &servers,
            ClientAddress::none,
        );
        let mtu = |mtu| PortUpdate {
            port: LAN,
            mac: LAN_MAC,
            mtu,
        };
        d.tell(|| Command::Port(mtu(600)));
        let mut big = packet(Proto::Udp, CLIENT4, VIP4, 0)
            .payload(&[7; 1200])
            .build();
        put16(&mut big, 20, 0); // DF off
        checksum::set_ipv4(&mut big);
        let out = d.exchange(WAN, &big);
        assert!(out.len() >= 3, "{mode:?}: {}", out.len());
        assert!(
            out.iter()
                .all(|(to, f)| *to == To::Port(LAN) && f.len() <= 614)
        );
        let pieces: Vec<_> = out.into_iter().map(|(_, f)| f).collect();
        let whole = joined(&pieces);
        let inner = if tunnel.is_some() { 20 } else { 0 };
        assert_eq!(whole[inner + 8..], [7; 1200]);
        d.assert_books();
    }
}
