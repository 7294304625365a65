//! The client's address on its way to the servers: options, headers, and what the inserted bytes
//! do to TCP's numbers.

use std::net::SocketAddr;

use weir_dataplane::command::Command;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::forward::carrier::ClientAddress;
use weir_dataplane::packet::build::{Packet, checksums_right};
use weir_dataplane::packet::tcp::flags::{ACK, FIN, PSH, RST, SYN};
use weir_dataplane::packet::{be16, be32, eth, put16};
use weir_dataplane::steer::Alignment;

use crate::common::*;
use crate::modes::{CLIENT4, CLIENT6, VIP4, VIP6, at, director_telling};
use crate::only;

/// A TCP segment as its receiver sees it: numbers, flags, options (padding left out) and data.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) options: Vec<Vec<u8>>,
    pub(crate) data: Vec<u8>,
}

pub(crate) fn segment(frame: &[u8]) -> Segment {
    assert!(checksums_right(frame), "{frame:02x?}");
    let (l4, end) = match eth::ethertype(frame) {
        Ok(eth::IPV6) => (54, 54 + usize::from(be16(frame, 18))),
        _ => (
            14 + usize::from(frame[14] & 15) * 4,
            14 + usize::from(be16(frame, 16)),
        ),
    };
    let tcp = &frame[l4..end];
    let (mut options, data) = tcp[20..].split_at(usize::from(tcp[12] >> 4) * 4 - 20);
    let mut found = vec![];
    while let [kind, rest @ ..] = options {
        options = match kind {
            0 => break,
            1 => rest,
            _ => {
                let (option, rest) = options.split_at(usize::from(rest[0]));
                found.push(option.to_vec());
                rest
            }
        };
    }
    Segment {
        seq: be32(tcp, 4),
        ack: be32(tcp, 8),
        flags: tcp[13],
        options: found,
        data: data.to_vec(),
    }
}

/// The frame with TCP options put into it, of a multiple of 4 bytes; its checksums are right.
pub(crate) fn with_options(packet: &Packet, options: &[u8]) -> Vec<u8> {
    let mut f = packet.build();
    let v6 = packet.src.is_ipv6();
    let l4 = if v6 { 54 } else { 34 };
    let end = f.len();
    f.splice(l4 + 20..l4 + 20, options.iter().copied());
    f[l4 + 12] += (options.len() as u8 / 4) << 4;
    let len = if v6 { 18 } else { 16 };
    let new = be16(&f, len) + options.len() as u16;
    put16(&mut f, len, new);
    let tail = end + options.len();
    mend(&mut f, l4, tail);
    f
}

/// All checksums from scratch, by arithmetic of the test's own.
pub(crate) fn mend(f: &mut [u8], l4: usize, end: usize) {
    let sum = |bytes: &[u8]| -> u64 {
        bytes
            .chunks(2)
            .map(|w| u64::from(w[0]) << 8 | u64::from(*w.get(1).unwrap_or(&0)))
            .sum()
    };
    let folded = |mut s: u64| {
        while s >> 16 != 0 {
            s = (s & 0xffff) + (s >> 16);
        }
        !(s as u16)
    };
    let addresses = match l4 {
        54 => 22..54,
        _ => {
            put16(f, 24, 0);
            let header = folded(sum(&f[14..34]));
            put16(f, 24, header);
            26..34
        }
    };
    put16(f, l4 + 16, 0);
    let pseudo = sum(&f[addresses]) + 6 + (end - l4) as u64;
    let right = folded(sum(&f[l4..end]) + pseudo);
    put16(f, l4 + 16, right);
}

pub(crate) fn toa4(client: SocketAddr) -> Vec<u8> {
    let mut option = vec![254, if client.is_ipv4() { 8 } else { 20 }];
    option.extend(client.port().to_be_bytes());
    match client {
        SocketAddr::V4(c) => option.extend(c.ip().octets()),
        SocketAddr::V6(c) => option.extend(c.ip().octets()),
    }
    option
}

pub(crate) fn client_packet(client: &str, vip: &str, flags: u8, seq: u32, ack: u32) -> Packet {
    Packet {
        seq,
        ack,
        ..Packet::tcp(at(client), at(vip), flags).macs(ROUTER_MAC, WAN_MAC)
    }
}

/// What the server answers to `frame`.
pub(crate) fn server_packet(frame: &[u8], flags: u8, seq: u32, ack: u32) -> Packet {
    Packet {
        seq,
        ack,
        ..answer(frame, flags)
    }
}

pub(crate) const ISN: u32 = u32::MAX - 20; // the client's numbers wrap soon
pub(crate) const SERVER_ISN: u32 = 7_000_000;

/// (what, client, VIP, server)
pub(crate) const FAMILIES: [(&str, &str, &str, &str); 4] = [
    ("IPv4", CLIENT4, VIP4, "10.1.0.11:8080"),
    ("IPv6", CLIENT6, VIP6, "[2001:db8:1::11]:8080"),
    ("NAT64", CLIENT6, VIP6, "10.1.0.11:8080"),
    ("NAT46", CLIENT4, VIP4, "[2001:db8:1::11]:8080"),
];

pub(crate) fn shapes() -> [Shape; 2] {
    let three = Shape {
        rss: true,
        alignment: Alignment::Aligned,
        ..Shape::workers(3)
    };
    [Shape::default(), three]
}

pub(crate) fn telling(shape: &Shape, vip: &str, server: &str, carrier: ClientAddress) -> Director {
    director_telling(shape, vip, ForwardMode::fullnat, &[server], carrier)
}

pub(crate) fn records(d: &Director) -> u32 {
    d.workers.iter().map(|w| w.side_records()).sum()
}

#[test]
fn toa_from_the_handshakes_end_until_the_server_was_heard() {
    for (what, client, vip, server) in FAMILIES {
        for shape in shapes() {
            let mut d = telling(&shape, vip, server, ClientAddress::toa);
            let from_client = |flags, seq, ack| client_packet(client, vip, flags, seq, ack);
            // A SYN carries none, and what the client claims is taken out of it.
            let lie = [254, 8, 1, 2, 9, 9, 9, 9, 2, 4, 5, 180];
            let syn = with_options(&from_client(SYN, ISN, 0), &lie);
            let (_, syn) = only(d.exchange(WAN, &syn));
            assert_eq!(segment(&syn).options, [[2, 4, 5, 180]], "{what}");
            // The SYN-ACK's MSS leaves room for the option.
            let syn_ack = server_packet(&syn, SYN | ACK, SERVER_ISN, ISN.wrapping_add(1));
            let syn_ack = with_options(&syn_ack, &[2, 4, 5, 180]);
            let (_, back) = only(d.exchange(LAN, &syn_ack));
            let ip = if at(server).is_ipv6() { 40 } else { 20 };
            let mss = 1500 - ip - 20 - toa4(at(client)).len() as u16;
            let option = [vec![2, 4], mss.to_be_bytes().to_vec()].concat();
            assert_eq!(segment(&back).options, [option], "{what}");

            let seq = ISN.wrapping_add(1);
            let toa = toa4(at(client));
            for (flags, data) in [(ACK, ""), (ACK | PSH, "GET"), (ACK | FIN, "")] {
                let packet = from_client(flags, seq, SERVER_ISN + 1).payload(data.as_bytes());
                let (_, f) = only(d.exchange(WAN, &packet.build()));
                let s = segment(&f);
                let as_sent = (seq, SERVER_ISN + 1, flags, data.as_bytes());
                assert_eq!((s.seq, s.ack, s.flags, &s.data[..]), as_sent, "{what}");
                assert_eq!(s.options, std::slice::from_ref(&toa), "{what} {flags:02x}");
            }
            // With timestamps behind it, and a lie of either length in between.
            let mut options = vec![
                8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1, 254, 8, 0, 1, 6, 6, 6, 6,
            ];
            let packet = with_options(&from_client(ACK, seq, SERVER_ISN + 1), &options);
            let f = only(d.exchange(WAN, &packet)).1;
            let timestamps = options[..10].to_vec();
            let fits = toa.len() + options.len() <= 40;
            match fits {
                true => assert_eq!(segment(&f).options, [toa.clone(), timestamps], "{what}"),
                false => panic!("{what}"),
            }
            // No room in a header of 60 bytes: it goes without, and the lie goes too.
            options.extend([253; 20].map(|_| 1));
            let packet = with_options(&from_client(ACK, seq, SERVER_ISN + 1), &options);
            let f = only(d.exchange(WAN, &packet)).1;
            assert_eq!(segment(&f).options, [options[..10].to_vec()], "{what}");
            assert_eq!(d.sum(|c| c.clients_untold.get()), 1, "{what}");
            // Nor in a packet that fills the link.
            let most = usize::from(1500 - ip) - 20 - toa.len();
            for (more, options) in [(0, 1), (1, 0)] {
                let translated = what == "NAT64";
                let packet = from_client(ACK, seq, SERVER_ISN + 1).payload(&vec![7; most + more]);
                if translated && packet.build().len() > 1514 {
                    continue; // cannot have come by a link like the server's
                }
                let f = only(d.exchange(WAN, &packet.build())).1;
                assert_eq!(segment(&f).options.len(), options, "{what} {more}");
            }
            // A reset needs none.
            let (_, f) =
                only(d.exchange(WAN, &from_client(RST | ACK, seq, SERVER_ISN + 1).build()));
            assert_eq!(segment(&f).options.len(), 0, "{what}");

            // The server speaks, the client has heard: the connection is like any other.
            assert_eq!(records(&d), 1);
            let heard = from_client(ACK, seq, SERVER_ISN + 4).build();
            let (_, f) = only(d.exchange(WAN, &heard));
            assert_eq!(segment(&f).options.len(), 0, "{what}");
            assert_eq!(records(&d), 0);
            d.assert_books();
            d.assert_runs_out();
        }
    }
}

pub(crate) fn header(carrier: ClientAddress, client: &str, vip: &str) -> Vec<u8> {
    let (c, v) = (at(client), at(vip));
    if carrier == ClientAddress::proxy_v1 {
        let (family, c_ip, v_ip) = match c.is_ipv4() {
            true => ("TCP4", "192.0.2.7", "10.0.0.10"),
            false => ("TCP6", "2001:db8:c:0:0:0:0:7", "2001:db8:0:0:0:0:0:10"),
        };
        let ports = format!("{} {}", c.port(), v.port());
        return format!("PROXY {family} {c_ip} {v_ip} {ports}\r\n").into_bytes();
    }
    let mut h = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    match (c, v) {
        (SocketAddr::V4(c), SocketAddr::V4(v)) => {
            h.extend([0x11, 0, 12]);
            h.extend([c.ip().octets(), v.ip().octets()].concat());
        }
        (SocketAddr::V6(c), SocketAddr::V6(v)) => {
            h.extend([0x21, 0, 36]);
            h.extend([c.ip().octets(), v.ip().octets()].concat());
        }
        _ => unreachable!(),
    }
    h.extend([c.port().to_be_bytes(), v.port().to_be_bytes()].concat());
    h
}

const PROXIES: [ClientAddress; 2] = [ClientAddress::proxy_v1, ClientAddress::proxy_v2];

#[test]
fn proxy_rides_in_the_handshakes_last_packet_and_shifts_the_rest() {
    for (carrier, (what, client, vip, server)) in
        PROXIES.into_iter().flat_map(|c| FAMILIES.map(|f| (c, f)))
    {
        for shape in shapes() {
            let what = format!("{what} {}", carrier.name());
            let mut d = telling(&shape, vip, server, carrier);
            let h = header(carrier, client, vip);
            let n = h.len() as u32;
            let start = ISN.wrapping_add(1);
            let from_client = |flags, seq, ack| client_packet(client, vip, flags, seq, ack);
            // Data of a fast open must not come first.
            let fast = from_client(SYN, ISN, 0).payload(b"early");
            let fast = with_options(&fast, &[34, 6, 1, 2, 3, 4, 2, 4, 5, 180, 1, 1]);
            let syn = only(d.exchange(WAN, &fast)).1;
            let s = segment(&syn);
            assert_eq!(
                (s.seq, s.flags, s.options, s.data),
                (ISN, SYN, vec![vec![2, 4, 5, 180]], vec![]),
                "{what}"
            );
            let syn_ack = server_packet(&syn, SYN | ACK, SERVER_ISN, start).build();
            let s = segment(&only(d.exchange(LAN, &syn_ack)).1);
            assert_eq!((s.seq, s.ack), (SERVER_ISN, start), "{what}");

            let send = |d: &mut Director, flags, seq, data: &[u8]| -> Vec<Segment> {
                let p = from_client(flags, seq, SERVER_ISN + 1).payload(data);
                d.exchange(WAN, &p.build())
                    .iter()
                    .map(|(to, f)| {
                        assert_eq!(*to, To::Port(LAN));
                        segment(f)
                    })
                    .collect()
            };
            let seen = |seq, flags, data: &[u8]| Segment {
                seq,
                ack: SERVER_ISN + 1,
                flags,
                options: vec![],
                data: data.to_vec(),
            };
            let behind = start.wrapping_add(n);
            assert_eq!(
                send(&mut d, ACK, start, b""),
                [seen(start, ACK | PSH, &h)],
                "{what}"
            );
            // Data that follows at once does not repeat it, and a repetition does.
            let get = b"GET /";
            assert_eq!(
                send(&mut d, ACK | PSH, start, get),
                [seen(behind, ACK | PSH, get)]
            );
            let both = [seen(start, ACK | PSH, &h), seen(behind, ACK | PSH, get)];
            assert_eq!(send(&mut d, ACK | PSH, start, get), both, "{what}");
            assert_eq!(d.sum(|c| c.generated.get()), 1);
            // Later data goes behind, wherever the numbers wrap; so does a probe.
            let later = start.wrapping_add(5);
            assert_eq!(
                send(&mut d, ACK, later, b"x"),
                [seen(later.wrapping_add(n), ACK, b"x")]
            );
            assert_eq!(
                send(&mut d, ACK, ISN, b""),
                [seen(ISN.wrapping_add(n), ACK, b"")]
            );

            // Until the server has the header, the client hears of nothing behind it.
            let answer = |d: &mut Director, ack: u32, blocks: &[(u32, u32)]| {
                let mut options = vec![1, 1, 5, 2 + 8 * blocks.len() as u8];
                for (left, right) in blocks {
                    options.extend([left.to_be_bytes(), right.to_be_bytes()].concat());
                }
                let p = server_packet(&syn, ACK, SERVER_ISN + 1, ack);
                let options = if blocks.is_empty() { vec![] } else { options };
                segment(&only(d.exchange(LAN, &with_options(&p, &options))).1)
            };
            let sack = |blocks: &[(u32, u32)]| {
                let mut o = vec![5, 2 + 8 * blocks.len() as u8];
                for (left, right) in blocks {
                    o.extend([left.to_be_bytes(), right.to_be_bytes()].concat());
                }
                vec![o]
            };
            let s = answer(&mut d, start, &[(behind, behind.wrapping_add(5))]);
            assert_eq!((s.ack, s.options), (start, vec![]), "{what}");
            let s = answer(&mut d, start.wrapping_add(3), &[]);
            assert_eq!(s.ack, start, "{what}: half of the header");
            // It has it: numbers go down by n from here on, blocks too.
            let s = answer(&mut d, behind, &[]);
            assert_eq!(s.ack, start, "{what}");
            let far = |k: u32| behind.wrapping_add(k);
            let s = answer(&mut d, far(5), &[(far(6), far(9)), (far(20), far(30))]);
            let client = |k: u32| start.wrapping_add(k);
            let blocks = sack(&[(client(6), client(9)), (client(20), client(30))]);
            assert_eq!((s.ack, s.options), (client(5), blocks), "{what}");
            // A duplicate of the header reported: nothing that the client could know of.
            let s = answer(&mut d, far(5), &[(start, behind)]);
            assert_eq!((s.ack, s.options), (client(5), vec![]), "{what}");

            // What comes again from the start is not preceded by the header any more.
            assert_eq!(
                send(&mut d, ACK | PSH, start, get),
                [seen(behind, ACK | PSH, get)]
            );
            assert_eq!(
                send(&mut d, RST | ACK, client(5), b""),
                [seen(far(5), RST | ACK, b"")]
            );
            assert_eq!(records(&d), 1);
            d.assert_books();
            d.assert_runs_out();
            assert_eq!(records(&d), 0, "{what}");
        }
    }
}

#[test]
fn a_repeated_syn_ack_brings_the_header_again_and_a_client_may_end_at_once() {
    let mut d = telling(
        &Shape::default(),
        VIP4,
        "10.1.0.11:8080",
        ClientAddress::proxy_v2,
    );
    let h = header(ClientAddress::proxy_v2, CLIENT4, VIP4);
    let from_client = |flags, seq| client_packet(CLIENT4, VIP4, flags, seq, SERVER_ISN + 1);
    let syn = only(d.exchange(WAN, &client_packet(CLIENT4, VIP4, SYN, 99, 0).build())).1;
    let syn_ack = server_packet(&syn, SYN | ACK, SERVER_ISN, 100).build();
    for _ in 0..3 {
        only(d.exchange(LAN, &syn_ack));
        let s = segment(&only(d.exchange(WAN, &from_client(ACK, 100).build())).1);
        assert_eq!((s.seq, s.data), (100, h.clone()));
        // The client acknowledges what a server that speaks first says: no header again.
        let s = segment(&only(d.exchange(WAN, &from_client(ACK, 100).build())).1);
        assert_eq!((s.seq, s.data.len()), (128, 0));
    }
    // Lost for good, and the client waits: an acknowledgement brings it again after a while.
    d.now = d.now.after(weir_dataplane::Tick::seconds(1));
    let s = segment(&only(d.exchange(WAN, &from_client(ACK, 100).build())).1);
    assert_eq!((s.seq, s.data), (100, h.clone()));
    // A reset goes behind the header, but not when the server has said that it lacks it.
    let s = segment(&only(d.exchange(WAN, &from_client(RST, 100).build())).1);
    assert_eq!(s.seq, 128);
    only(d.exchange(LAN, &server_packet(&syn, ACK, SERVER_ISN + 1, 100).build()));
    let s = segment(&only(d.exchange(WAN, &from_client(RST, 100).build())).1);
    assert_eq!(s.seq, 100);
    d.assert_books();

    let other = "192.0.2.7:40001";
    let from_client = |flags, seq| client_packet(other, VIP4, flags, seq, SERVER_ISN + 1);
    let syn = only(d.exchange(WAN, &client_packet(other, VIP4, SYN, 99, 0).build())).1;
    only(d.exchange(
        LAN,
        &server_packet(&syn, SYN | ACK, SERVER_ISN, 100).build(),
    ));
    let sent = d.exchange(WAN, &from_client(ACK | FIN, 100).build());
    let sent: Vec<_> = sent.iter().map(|(_, f)| segment(f)).collect();
    let h = header(ClientAddress::proxy_v2, other, VIP4);
    assert_eq!(
        (sent[0].seq, sent[0].flags, &sent[0].data),
        (100, ACK | PSH, &h)
    );
    assert_eq!(
        (sent[1].seq, sent[1].flags, sent[1].data.len()),
        (128, ACK | FIN, 0)
    );
    d.assert_books();
    d.assert_runs_out();
    assert_eq!(records(&d), 0);
}

#[test]
fn udp_carries_it_in_front_of_every_datagram_or_in_the_first_three() {
    for (what, client, vip, server) in FAMILIES {
        let mut d = telling(&Shape::default(), vip, server, ClientAddress::proxy_v2);
        for n in 0..5usize {
            let p = Packet::udp(at(client), at(vip)).macs(ROUTER_MAC, WAN_MAC);
            let f = only(d.exchange(WAN, &p.payload(&vec![9; n]).build())).1;
            assert!(checksums_right(&f), "{what}");
            let l4 = if at(server).is_ipv6() { 54 } else { 34 };
            let mut h = header(ClientAddress::proxy_v2, client, vip);
            h[13] += 1; // datagrams
            assert_eq!(f[l4 + 8..], [h.clone(), vec![9; n]].concat(), "{what}");
            assert_eq!(usize::from(be16(&f, l4 + 4)), 8 + h.len() + n, "{what}");
            let back = only(d.exchange(LAN, &answer(&f, 0).payload(b"reply").build())).1;
            assert_eq!(back[back.len() - 5..], *b"reply", "{what}");
        }
        assert_eq!(d.sum(|c| c.clients_told.get()), 5);
        d.assert_books();
        d.assert_runs_out();
        assert_eq!(records(&d), 0);
    }
    let mut d = telling(&Shape::default(), VIP4, "10.1.0.11:53", ClientAddress::uoa);
    for n in 0..5 {
        let p = Packet::udp(at(CLIENT4), at(VIP4)).macs(ROUTER_MAC, WAN_MAC);
        let f = only(d.exchange(WAN, &p.payload(b"question").build())).1;
        assert!(checksums_right(&f));
        let mut option = toa4(at(CLIENT4));
        option[0] = 31;
        match n < 3 {
            true => assert_eq!((f[14], &f[34..42], be16(&f, 16)), (0x47, &option[..], 44)),
            false => assert_eq!((f[14], be16(&f, 16)), (0x45, 36)),
        }
        assert_eq!(f[f.len() - 8..], *b"question");
    }
    assert_eq!((d.sum(|c| c.clients_told.get()), records(&d)), (3, 0));
    d.assert_books();
    d.assert_runs_out();
}

#[test]
fn a_reload_changes_new_connections_only_and_other_protocols_are_left_alone() {
    let mut d = telling(
        &Shape::default(),
        VIP4,
        "10.1.0.11:8080",
        ClientAddress::toa,
    );
    let p = Packet::udp(at(CLIENT4), at(VIP4)).macs(ROUTER_MAC, WAN_MAC);
    only(d.exchange(WAN, &p.build()));
    assert_eq!(records(&d), 0, "TOA is TCP's");
    let syn = only(d.exchange(WAN, &client_packet(CLIENT4, VIP4, SYN, 99, 0).build())).1;
    only(d.exchange(
        LAN,
        &server_packet(&syn, SYN | ACK, SERVER_ISN, 100).build(),
    ));
    let none = std::sync::Arc::new(snapshot(9, Default::default()));
    d.tell(|| Command::Snapshot(std::sync::Arc::clone(&none)));
    let ack = client_packet(CLIENT4, VIP4, ACK, 100, SERVER_ISN + 1).build();
    let s = segment(&only(d.exchange(WAN, &ack)).1);
    assert_eq!(s.options, [toa4(at(CLIENT4))], "as it began");
    d.assert_books();
}

pub(crate) mod exchange;

mod parts;
mod quoted;
