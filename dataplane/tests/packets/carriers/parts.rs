//! Datagrams and segments in fragments, on connections that tell servers the client's address.

use weir_dataplane::counters::DropReason;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::forward::carrier::ClientAddress;
use weir_dataplane::packet::build::{Packet, checksums_right};
use weir_dataplane::packet::tcp::flags::{ACK, PSH, SYN};
use weir_dataplane::packet::{be16, checksum, put16};

use crate::carriers::{
    FAMILIES, ISN, SERVER_ISN, client_packet, header, segment, server_packet, telling,
};
use crate::common::*;
use crate::modes::{CLIENT4, CLIENT6, VIP4, VIP6, at, director_telling, shapes};
use crate::only;

/// Delivers in this order to any queues, and puts what comes out together.
fn through(d: &mut Director, port: weir_dataplane::PortId, sent: &[Vec<u8>]) -> (usize, Vec<u8>) {
    for (n, part) in sent.iter().enumerate() {
        d.deliver(port, part, n);
        d.settle();
    }
    let out: Vec<_> = d.collect();
    assert!(
        out.iter()
            .all(|(to, f)| *to != To::Port(port) && f.len() <= 1514)
    );
    let frames: Vec<_> = out.into_iter().map(|(_, f)| f).collect();
    let whole = reassembled(&frames);
    (
        frames.len(),
        whole.unwrap_or_else(|| panic!("{frames:02x?}")),
    )
}

/// A PROXY header of version 2, filled up to a multiple of 8 bytes by a TLV that says nothing.
fn filled_up(client: &str, vip: &str) -> Vec<u8> {
    let mut h = header(ClientAddress::proxy_v2, client, vip);
    h[13] += 1; // datagrams
    h[15] += 4;
    h.extend([4, 0, 1, 0]);
    assert_eq!(h.len() % 8, 0);
    h
}

/// Every order, size and way: the server reads one header, then the datagram.
#[test]
fn datagrams_in_parts_get_their_header() {
    let nat = [
        (ForwardMode::nat, "NAT", CLIENT4, VIP4, "10.1.0.11:53"),
        (
            ForwardMode::nat,
            "NAT66",
            CLIENT6,
            VIP6,
            "[2001:db8:1::11]:53",
        ),
    ];
    let fullnat = FAMILIES.map(|(what, c, v, s)| (ForwardMode::fullnat, what, c, v, s));
    for (mode, what, client, vip, server) in fullnat.into_iter().chain(nat) {
        for shape in &shapes() {
            for (mtu, order) in [(600, [0, 1, 2]), (1500, [2, 1, 0]), (1500, [1, 0, 2])] {
                let what = format!("{what} {mtu} {order:?} {shape:?}");
                let carrier = ClientAddress::proxy_v2;
                let mut d = director_telling(shape, vip, mode, &[server], carrier);
                let ask = Packet::udp(at(client), at(vip)).macs(ROUTER_MAC, WAN_MAC);
                only(d.exchange(WAN, &ask.build()));
                let data: Vec<u8> = (0..2 * mtu + 200).map(|n| (n * 7) as u8).collect();
                let sent = ask.payload(&data);
                let cut = parts(&sent.build(), mtu);
                assert_eq!(cut.len(), 3);
                let cut: Vec<_> = order.iter().map(|&n| cut[n].clone()).collect();
                let (n, got) = through(&mut d, WAN, &cut);
                // The first is too long now, and cut again. From IPv4 to IPv6 all are.
                let families = (at(client).is_ipv6(), at(server).is_ipv6());
                let pieces = match (mtu, families) {
                    (600, _) => 3,
                    (_, (false, true)) => 5,
                    (_, (true, false)) => 4,
                    _ => 4,
                };
                assert_eq!(n, pieces, "{what}");
                assert!(checksums_right(&got), "{what}");
                let l4 = if got[12] == 0x86 { 54 } else { 34 };
                let h = filled_up(client, vip);
                let expected = [&h[..], &data].concat();
                assert_eq!(got[l4 + 8..], expected, "{what}");
                assert_eq!(
                    usize::from(be16(&got, l4 + 4)),
                    8 + expected.len(),
                    "{what}"
                );
                assert_eq!(d.sum(|c| c.clients_told.get()), 2, "{what}");
                // Answers come back as they are.
                let (_, from, to) = ends(&got);
                let reply = Packet::udp(to, from)
                    .macs(server_mac(11), LAN_MAC)
                    .payload(&data);
                let (_, back) = through(&mut d, LAN, &parts(&reply.build(), mtu));
                assert_eq!(ends(&back).1, at(vip), "{what}");
                assert!(checksums_right(&back) && back.ends_with(&data), "{what}");
                d.assert_books();
            }
        }
    }
}

/// Longer than a datagram can be: not with a header in front.
#[test]
fn no_datagram_gets_longer_than_one_can_be() {
    let mut d = telling(
        &Shape::default(),
        VIP4,
        "10.1.0.11:53",
        ClientAddress::proxy_v2,
    );
    let ask = Packet::udp(at(CLIENT4), at(VIP4)).macs(ROUTER_MAC, WAN_MAC);
    let mut last = parts(&ask.clone().payload(&[1; 1600]).build(), 1500);
    for (part, word) in [(0, 0x2000), (1, 8187)] {
        put16(&mut last[part], 20, word);
        put16(
            &mut last[part],
            16,
            if part == 0 { 20 + 1480 } else { 20 + 36 },
        );
        let len = 14 + usize::from(be16(&last[part], 16));
        last[part].truncate(len);
        checksum::set_ipv4(&mut last[part]);
    }
    for part in &last {
        d.deliver(WAN, part, 0);
    }
    d.settle();
    assert_eq!(d.drops(DropReason::TooBig), 1);
    d.collect();
    d.assert_books();
}

/// A whole datagram that fits, and does not with its header: over IPv6, and where it must not be
/// cut, the client hears how much would.
#[test]
fn whole_datagrams_leave_room_for_the_header() {
    let rows = [
        (CLIENT6, VIP6, "[2001:db8:1::11]:53", 52),
        (CLIENT4, VIP4, "10.1.0.11:53", 28),
    ];
    for (client, vip, server, n) in rows {
        let mut d = telling(&Shape::default(), vip, server, ClientAddress::proxy_v2);
        let headers = if at(client).is_ipv6() { 48 } else { 28 };
        let sized = |len: usize| {
            let sent = Packet::udp(at(client), at(vip)).macs(ROUTER_MAC, WAN_MAC);
            sent.payload(&vec![3; len - headers]).build()
        };
        let (to, f) = only(d.exchange(WAN, &sized(1500 - n)));
        assert_eq!((to, f.len()), (To::Port(LAN), 1514));
        let sent = sized(1500 - n + 1);
        let (to, f) = only(d.exchange(WAN, &sent));
        let icmp = if at(client).is_ipv6() { 54 } else { 34 };
        assert_eq!(
            (to, usize::from(be16(&f, icmp + 6))),
            (To::Port(WAN), 1500 - n)
        );
        let quote = &f[icmp + 8..];
        assert_eq!(quote, &sent[14..14 + quote.len()], "quoted as it came");
        assert_eq!(d.drops(DropReason::TooBig), 1);
        d.assert_books();
    }
}

/// UOA's option goes into the first part, which is cut again if it must.
#[test]
fn uoa_goes_with_the_first_part() {
    for shape in shapes() {
        let mut d = telling(&shape, VIP4, "10.1.0.11:53", ClientAddress::uoa);
        for n in 0..4 {
            let sent = Packet::udp(at(CLIENT4), at(VIP4)).macs(ROUTER_MAC, WAN_MAC);
            let sent = sent.payload(&[7; 2000]);
            for part in parts(&sent.build(), 1500) {
                d.deliver(WAN, &part, 0);
                d.settle();
            }
            let mut out: Vec<_> = d.collect().into_iter().map(|(_, f)| f).collect();
            let first = &out[0];
            match n < 3 {
                true => {
                    assert_eq!((out.len(), first[14]), (3, 0x47), "{shape:?}");
                    let option = [&[31, 8][..], &40000u16.to_be_bytes(), &[192, 0, 2, 7]].concat();
                    assert_eq!(first[34..42], option, "{shape:?}");
                    assert_eq!(checksum::sum(&first[14..42]), 0xffff);
                }
                false => assert_eq!((out.len(), first[14]), (2, 0x45), "{shape:?}"),
            }
            for f in out.iter_mut().filter(|f| f[14] == 0x47) {
                f.drain(34..42);
                f[14] = 0x45;
                let len = be16(f, 16) - 8;
                put16(f, 16, len);
            }
            let whole = reassembled(&out).unwrap();
            assert!(checksums_right(&whole), "{shape:?}");
        }
        assert_eq!(d.sum(|c| c.clients_told.get()), 3);
        d.assert_books();
    }
}

/// DPVS's other form: a header of its own, in whole datagrams.
#[test]
fn uoa_as_a_protocol_of_its_own() {
    let rows = [
        (CLIENT4, VIP4, "10.1.0.11:53", &[0x10, 17, 0, 12, 31, 8][..]),
        (
            CLIENT6,
            VIP6,
            "[2001:db8:1::11]:53",
            &[0x20, 17, 0, 24, 31, 20][..],
        ),
    ];
    for (client, vip, server, head) in rows {
        for shape in shapes() {
            let mut d = telling(&shape, vip, server, ClientAddress::uoa_opp);
            for n in 0..4 {
                let sent = Packet::udp(at(client), at(vip)).macs(ROUTER_MAC, WAN_MAC);
                let (_, mut f) = only(d.exchange(WAN, &sent.payload(b"hello").build()));
                let v6 = at(client).is_ipv6();
                let (protocol, l4) = if v6 { (20, 54) } else { (23, 34) };
                if n == 3 {
                    assert_eq!(f[protocol], 17);
                    assert!(checksums_right(&f));
                    continue;
                }
                assert_eq!(f[protocol], 248);
                let ip = match at(client).ip() {
                    std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
                    std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
                };
                let expected = [head, &40000u16.to_be_bytes(), &ip].concat();
                let n = expected.len();
                assert_eq!(f[l4..l4 + n], expected);
                // What the module does: it takes the header out again.
                f.drain(l4..l4 + n);
                f[protocol] = 17;
                match v6 {
                    true => f[19] -= n as u8,
                    false => {
                        assert_eq!(f[l4 + 6..l4 + 8], [0, 0], "no checksum over IPv4");
                        f[17] -= n as u8;
                        checksum::set_ipv4(&mut f);
                    }
                }
                assert!(checksums_right(&f));
                assert_eq!(ends(&f).2, at(server));
                assert!(f.ends_with(b"hello"));
            }
            // In parts it goes without: the parts behind could not be moved by 12 bytes.
            let other = Packet::udp(at(&client.replace(":40000", ":40001")), at(vip));
            let other = other.macs(ROUTER_MAC, WAN_MAC).payload(&[7; 2000]);
            let (_, whole) = through(&mut d, WAN, &parts(&other.build(), 1500));
            assert!(checksums_right(&whole));
            let counted = (
                d.sum(|c| c.clients_told.get()),
                d.sum(|c| c.clients_untold.get()),
            );
            assert_eq!(counted, (3, 1));
            d.assert_books();
        }
    }
}

/// TCP in parts: the numbers are in the first, and so is the header that has to come before it.
#[test]
fn segments_in_parts_have_the_streams_numbers() {
    for (what, client, vip, server) in FAMILIES {
        for shape in shapes() {
            for mode in [ForwardMode::fullnat, ForwardMode::nat] {
                if mode == ForwardMode::nat && at(client).is_ipv6() != at(server).is_ipv6() {
                    continue;
                }
                let what = format!("{what} {mode:?} {shape:?}");
                let carrier = ClientAddress::proxy_v2;
                let mut d = director_telling(&shape, vip, mode, &[server], carrier);
                let h = header(carrier, client, vip);
                let n = h.len() as u32;
                let start = ISN.wrapping_add(1);
                let syn = client_packet(client, vip, SYN, ISN, 0).build();
                let (_, at_server) = only(d.exchange(WAN, &syn));
                let syn_ack = server_packet(&at_server, SYN | ACK, SERVER_ISN, start);
                only(d.exchange(LAN, &syn_ack.build()));
                let data: Vec<u8> = (0..1000).map(|n| n as u8).collect();
                let from_client =
                    |seq| client_packet(client, vip, ACK | PSH, seq, SERVER_ISN + 1).payload(&data);
                // Nothing but the SYN before it: over IPv4 the header goes in front.
                let cut = parts(&from_client(start).build(), 600);
                if at(client).is_ipv4() {
                    for part in &cut {
                        d.deliver(WAN, part, 0);
                        d.settle();
                    }
                    let mut out: Vec<_> = d.collect().into_iter().map(|(_, f)| f).collect();
                    let first = segment(&out.remove(0));
                    assert_eq!((first.seq, &first.data), (start, &h), "{what}");
                    let s = segment(&reassembled(&out).unwrap());
                    assert_eq!((s.seq, &s.data), (start.wrapping_add(n), &data), "{what}");
                } else {
                    for part in &cut {
                        d.deliver(WAN, part, 0);
                        d.settle();
                    }
                    assert_eq!(d.drops(DropReason::FragmentOfProxied), 1, "{what}");
                    d.collect();
                    let whole = from_client(start).build();
                    assert_eq!(d.exchange(WAN, &whole).len(), 2, "{what}");
                }
                let ack = start.wrapping_add(n + 1000);
                let reply = server_packet(&at_server, ACK, SERVER_ISN + 1, ack).payload(&data);
                let (_, back) = through(&mut d, LAN, &parts(&reply.build(), 600));
                assert_eq!(segment(&back).ack, start.wrapping_add(1000), "{what}");
                let next = from_client(start.wrapping_add(1000)).build();
                let (_, got) = through(&mut d, WAN, &parts(&next, 600));
                let s = segment(&got);
                assert_eq!(s.seq, start.wrapping_add(1000 + n), "{what}");
                assert_eq!(s.data, data, "{what}");
                d.assert_books();
            }
        }
    }
}
