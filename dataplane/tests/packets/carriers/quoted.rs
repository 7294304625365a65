//! ICMP errors about packets that carry their client's address: quoted as they were sent.

use weir_dataplane::forward::ForwardMode;
use weir_dataplane::forward::carrier::ClientAddress;
use weir_dataplane::packet::build::Packet;
use weir_dataplane::packet::tcp::flags::{ACK, PSH, SYN};
use weir_dataplane::packet::{be16, be32, checksum};

use crate::carriers::{
    FAMILIES, ISN, SERVER_ISN, client_packet, header, segment, server_packet, telling,
};
use crate::common::*;
use crate::errors::error_about;
use crate::modes::{CLIENT4, VIP4, at, director_telling, shapes};
use crate::only;

/// The packet that an error quotes, with the error's Ethernet header, and the MTU it names.
fn quoted(f: &[u8]) -> (Vec<u8>, u16) {
    let icmp = if f[12] == 0x86 { 54 } else { 34 };
    let sum =
        |from: usize, extra: u32| checksum::fold(u32::from(checksum::sum(&f[from..])) + extra);
    match f[12] {
        0x86 => {
            let pseudo = u32::from(checksum::sum(&f[22..54])) + 58 + (f.len() - 54) as u32;
            assert_eq!(sum(54, pseudo), 0xffff);
            assert_eq!(usize::from(be16(f, 18)), f.len() - 54);
        }
        _ => {
            assert_eq!((checksum::sum(&f[14..34]), sum(34, 0)), (0xffff, 0xffff));
            assert_eq!(usize::from(be16(f, 16)), f.len() - 14);
        }
    }
    ([&f[..14], &f[icmp + 8..]].concat(), be16(f, icmp + 6))
}

fn too_big(f: &[u8]) -> (u8, u8) {
    if f[12] == 0x86 { (2, 0) } else { (3, 4) }
}

fn routers(server: &str, client: &str) -> (&'static str, &'static str) {
    (
        if at(server).is_ipv6() {
            "2001:db8:1::99"
        } else {
            "10.1.0.99"
        },
        if at(client).is_ipv6() {
            "2001:db8:9::1"
        } else {
            "198.51.100.1"
        },
    )
}

/// A PROXY header shifts all of a stream's numbers: errors about either side's segments quote the
/// numbers that it knows, or TCP takes them for forged.
#[test]
fn quoted_numbers_are_those_of_who_sent_them() {
    for (what, client, vip, server) in FAMILIES {
        for (shape, carrier) in shapes()
            .iter()
            .flat_map(|s| [ClientAddress::proxy_v1, ClientAddress::proxy_v2].map(|c| (s, c)))
        {
            let what = format!("{what} {} {shape:?}", carrier.name());
            let mut d = telling(shape, vip, server, carrier);
            let n = header(carrier, client, vip).len() as u32;
            let start = ISN.wrapping_add(1);
            let (inner, outer) = routers(server, client);
            // The number that a client's packet is quoted with.
            let about_client = |d: &mut Director, sent: &Packet, cut: usize| {
                let (_, out) = only(d.exchange(WAN, &sent.build()));
                let l4 = if out[12] == 0x86 { 54 } else { 34 };
                let about = &out[..out.len().min(l4 + cut)];
                let error = error_about(about, inner, too_big(about), 1400);
                let (to, f) = only(d.exchange(LAN, &error));
                assert_eq!(to, To::Port(WAN), "{what}");
                let (q, _) = quoted(&f);
                let l4 = if q[12] == 0x86 { 54 } else { 34 };
                assert_eq!(q[l4..l4 + 4], sent.build()[l4..l4 + 4], "{what}: ports");
                if cut == 1000 && carrier == ClientAddress::proxy_v1 {
                    assert_eq!(
                        q[l4 + 16..l4 + 18],
                        sent.build()[l4 + 16..l4 + 18],
                        "{what}: sum"
                    );
                }
                be32(&q, l4 + 4)
            };
            let from_client = |flags, seq| client_packet(client, vip, flags, seq, SERVER_ISN + 1);
            let syn = client_packet(client, vip, SYN, ISN, 0);
            assert_eq!(about_client(&mut d, &syn, 8), ISN, "{what}: SYN");
            let (_, at_server) = only(d.exchange(WAN, &syn.build()));
            let syn_ack = server_packet(&at_server, SYN | ACK, SERVER_ISN, start);
            only(d.exchange(LAN, &syn_ack.build()));
            // The header itself: the client has sent nothing yet.
            assert_eq!(
                about_client(&mut d, &from_client(ACK, start), 8),
                start,
                "{what}: header"
            );
            // Its data, quoted with 8 bytes or with all of it.
            let get = from_client(ACK | PSH, start).payload(b"GET /");
            assert_eq!(about_client(&mut d, &get, 8), start, "{what}");
            let ack = start.wrapping_add(n + 5);
            let reply = server_packet(&at_server, ACK, SERVER_ISN + 1, ack).payload(b"200 OK");
            let (_, at_client) = only(d.exchange(LAN, &reply.build()));
            assert_eq!(segment(&at_client).ack, start.wrapping_add(5), "{what}");
            let more = from_client(ACK | PSH, start.wrapping_add(5)).payload(b"more");
            assert_eq!(
                about_client(&mut d, &more, 1000),
                start.wrapping_add(5),
                "{what}"
            );

            // And the server's packet: what it acknowledged, and its own number.
            for cut in [8, 1000] {
                let l4 = if at_client[12] == 0x86 { 54 } else { 34 };
                let about = &at_client[..at_client.len().min(l4 + cut)];
                let error = error_about(about, outer, too_big(about), 1400);
                let (to, f) = only(d.exchange(WAN, &error));
                assert_eq!(to, To::Port(LAN), "{what}");
                let (q, _) = quoted(&f);
                let l4 = if q[12] == 0x86 { 54 } else { 34 };
                assert_eq!(be32(&q, l4 + 4), SERVER_ISN + 1, "{what}");
                if cut == 1000 {
                    let sent = reply.build();
                    assert_eq!(
                        q[l4..],
                        sent[l4..],
                        "{what}: as it was sent, checksum and all"
                    );
                }
            }
            d.assert_books();
        }
    }
}

/// A datagram with a PROXY header: the quote loses it, and the client hears of so much less room.
#[test]
fn quoted_datagrams_lose_the_header() {
    for (what, client, vip, server) in FAMILIES {
        for shape in shapes() {
            let mut d = telling(&shape, vip, server, ClientAddress::proxy_v2);
            let n = header(ClientAddress::proxy_v2, client, vip).len() as u16;
            let sent = Packet::udp(at(client), at(vip)).macs(ROUTER_MAC, WAN_MAC);
            let sent = sent.payload(b"a question");
            let (_, out) = only(d.exchange(WAN, &sent.build()));
            let (inner, _) = routers(server, client);
            for quoted_bytes in [8, 20, 1000] {
                let l4 = if out[12] == 0x86 { 54 } else { 34 };
                let about = &out[..out.len().min(l4 + quoted_bytes)];
                let error = error_about(about, inner, too_big(about), 1400);
                let (to, f) = only(d.exchange(LAN, &error));
                assert_eq!(to, To::Port(WAN), "{what}");
                let (q, mtu) = quoted(&f);
                let whole = sent.build();
                let l4 = if q[12] == 0x86 { 54 } else { 34 };
                assert_eq!(
                    q[l4..l4 + 8],
                    whole[l4..l4 + 8],
                    "{what}: length and checksum too"
                );
                if quoted_bytes == 1000 {
                    assert_eq!(q[l4..], whole[l4..], "{what}");
                }
                let len = if q[12] == 0x86 {
                    be16(&q, 18) + 40
                } else {
                    be16(&q, 16)
                };
                assert_eq!(
                    usize::from(len),
                    whole.len() - 14,
                    "{what}: the quoted length"
                );
                let grown = match (at(client).is_ipv6(), at(server).is_ipv6()) {
                    (true, false) => 1420,
                    (false, true) => 1380,
                    _ => 1400,
                };
                assert_eq!(mtu, grown - n, "{what}");
            }
            d.assert_books();
        }
    }
}

/// While the option goes with what a client sends, there is so much less room for it.
#[test]
fn the_room_for_options_is_told() {
    let mut d = director_telling(
        &Shape::default(),
        VIP4,
        ForwardMode::fullnat,
        &["10.1.0.11:8080"],
        ClientAddress::toa,
    );
    let syn = client_packet(CLIENT4, VIP4, SYN, ISN, 0).build();
    let (_, at_server) = only(d.exchange(WAN, &syn));
    let error = error_about(&at_server, "10.1.0.99", (3, 4), 1400);
    let (_, f) = only(d.exchange(LAN, &error));
    assert_eq!(quoted(&f).1, 1392);
}
