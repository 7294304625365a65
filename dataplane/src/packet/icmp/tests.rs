use proptest::prelude::*;

use super::*;
use crate::forward::tun;
use crate::io::Frame;
use crate::io::sim::{SimFrame, SimPool};
use crate::packet::header::{Ends, IpHeader};
use crate::packet::ids::IpIds;
use crate::packet::{put16, put32};
use crate::types::CoreId;

fn ids() -> IpIds {
    IpIds::new(CoreId(0), 1, 0)
}

fn ip(s: &str) -> IpAddr {
    s.parse().unwrap()
}

fn socket(s: &str) -> SocketAddr {
    s.parse().unwrap()
}

/// An IP packet, without Ethernet, with this upper layer.
fn packet(src: IpAddr, dst: IpAddr, protocol: u8, upper: &[u8]) -> Vec<u8> {
    let ends = Ends::new(src, dst).unwrap();
    let mut p = vec![0; ends.header_len()];
    let header = IpHeader {
        ends,
        tos: 0xb8,
        ttl: 60,
        protocol,
        id: 7,
        df: true,
    };
    header.write(&mut p, upper.len() as u16);
    p.extend_from_slice(upper);
    p
}

/// A UDP packet with a right checksum.
fn udp(src: SocketAddr, dst: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut u = vec![0; 8];
    put16(&mut u, 0, src.port());
    put16(&mut u, 2, dst.port());
    put16(&mut u, 4, 8 + data.len() as u16);
    u.extend_from_slice(data);
    let pseudo = Ends::new(src.ip(), dst.ip())
        .unwrap()
        .pseudo(17, u.len() as u16);
    let sum = !checksum::fold(u32::from(pseudo) + u32::from(checksum::sum(&u)));
    put16(&mut u, 6, sum);
    packet(src.ip(), dst.ip(), 17, &u)
}

/// The frame of an error with `head` that quotes `quote`.
fn error(src: IpAddr, dst: IpAddr, (kind, code, word): (u8, u8, u32), quote: &[u8]) -> SimFrame {
    let mut m = vec![kind, code, 0, 0, 0, 0, 0, 0];
    put32(&mut m, 4, word);
    m.extend_from_slice(quote);
    let ends = Ends::new(src, dst).unwrap();
    let protocol = if src.is_ipv6() { 58 } else { 1 };
    let mut f = vec![2; 12];
    f.extend_from_slice(&ends.ethertype().to_be_bytes());
    f.extend(packet(src, dst, protocol, &m));
    set_checksum(&mut f, 14 + ends.header_len());
    SimPool::default().frame(&f)
}

fn quote(frame: &SimFrame) -> Quote {
    let f = frame.bytes();
    let at = if is_v6(f) { 54 } else { 34 };
    match look(f, at, f.len()) {
        Ok(Message::Error(quote)) => quote,
        other => panic!("{other:?}"),
    }
}

/// Whether the quoted UDP datagram, quoted whole, has a right checksum.
fn quoted_sum_is_right(frame: &SimFrame) -> bool {
    let (q, f) = (quote(frame), frame.bytes());
    let segment = &f[usize::from(q.l4)..];
    let pseudo = Ends::new(q.src, q.dst)
        .unwrap()
        .pseudo(17, segment.len() as u16);
    checksum::fold(u32::from(pseudo) + u32::from(checksum::sum(segment))) == 0xffff
}

const TOO_BIG_V4: (u8, u8, u32) = (v4::UNREACHABLE, 4, 1400);

/// NAT64: the server's side is IPv4, the client's IPv6.
fn to_client_v6() -> Translation {
    Translation {
        src: ip("2001:db8::a"),
        dst: ip("2001:db8:c::1"),
        quoted_src: socket("[2001:db8:c::1]:4000"),
        quoted_dst: socket("[2001:db8::a]:53"),
        overhead: 0,
    }
}

#[test]
fn an_error_crosses_from_ipv4_to_ipv6() {
    let sent = udp(socket("10.1.0.100:2000"), socket("10.1.0.11:53"), b"hello");
    let mut frame = error(ip("10.9.9.9"), ip("10.1.0.100"), TOO_BIG_V4, &sent);
    let q = quote(&frame);
    assert_eq!(q.source(), Some(socket("10.1.0.100:2000")));
    assert_eq!(q.destination(), Some(socket("10.1.0.11:53")));
    assert_eq!(mtu(frame.bytes(), &q), Some(1400));
    translate(&mut frame, &q, &to_client_v6(), &mut ids()).unwrap();
    let (q, f) = (quote(&frame), frame.bytes());
    assert_eq!((q.src, q.dst), (ip("2001:db8:c::1"), ip("2001:db8::a")));
    assert_eq!(q.ports, Some(4000 << 16 | 53));
    assert_eq!(
        be128(f, 22),
        u128::from_be_bytes(f[22..38].try_into().unwrap())
    );
    assert_eq!((f[54], f[55], be32(f, 58)), (v6::TOO_BIG, 0, 1420));
    assert_eq!((f[21], tos_ttl(f, 62)), (59, (0xb8, 60)));
    assert_eq!(be16(f, 18), 8 + 40 + 8 + 5);
    assert!(quoted_sum_is_right(&frame));
}

#[test]
fn an_error_crosses_from_ipv6_to_ipv4() {
    let sent = udp(socket("[fd00::1]:2000"), socket("[fd00::2]:53"), &[9; 1300]);
    let too_big = (v6::TOO_BIG, 0, 1280);
    let mut frame = error(ip("fd00::9"), ip("fd00::1"), too_big, &sent[..1000]);
    let q = quote(&frame);
    let new = Translation {
        src: ip("192.0.2.10"),
        dst: ip("198.51.100.7"),
        quoted_src: socket("198.51.100.7:4000"),
        quoted_dst: socket("192.0.2.10:53"),
        overhead: 8,
    };
    translate(&mut frame, &q, &new, &mut ids()).unwrap();
    let (q, f) = (quote(&frame), frame.bytes());
    assert_eq!(q.source(), Some(socket("198.51.100.7:4000")));
    assert_eq!((f[34], f[35], be32(f, 38)), (3, 4, 1280 - 8 - 20));
    assert_eq!(f.len(), 14 + 576, "no longer than every host takes");
    assert_eq!(
        be16(f, usize::from(q.ip) + 2),
        20 + 8 + 1300,
        "as it was sent"
    );
    assert_eq!(be16(f, usize::from(q.ip) + 6), ipv4::DF);
}

/// Every error of either family, and what it is in the other; RFC 7915 4.2 and 5.2.
#[test]
fn types_and_codes_map() {
    let to_v6 = |head| map::to_v6(head, Some(1400));
    let rows = [
        ((3, 0, 0), Some((1, 0, 0))),
        ((3, 1, 0), Some((1, 0, 0))),
        ((3, 2, 0), Some((4, 1, 6))),
        ((3, 3, 0), Some((1, 4, 0))),
        ((3, 4, 1400), Some((2, 0, 1400))),
        ((3, 5, 0), Some((1, 0, 0))),
        ((3, 8, 0), Some((1, 0, 0))),
        ((3, 9, 0), Some((1, 1, 0))),
        ((3, 10, 0), Some((1, 1, 0))),
        ((3, 12, 0), Some((1, 0, 0))),
        ((3, 13, 0), Some((1, 1, 0))),
        ((3, 14, 0), None),
        ((3, 15, 0), Some((1, 1, 0))),
        ((4, 0, 0), None),
        ((5, 1, 0), None),
        ((11, 0, 0), Some((3, 0, 0))),
        ((11, 1, 0), Some((3, 1, 0))),
        ((12, 0, 8 << 24), Some((4, 0, 7))),
        ((12, 2, 16 << 24), Some((4, 0, 24))),
        ((12, 0, 4 << 24), None),
        ((12, 1, 0), None),
    ];
    for (head, expected) in rows {
        assert_eq!(to_v6(head), expected, "{head:?}");
    }
    assert_eq!(
        map::to_v6((3, 4, 600), Some(600)),
        Some((2, 0, 1280)),
        "IPv6 has no smaller MTU"
    );
    let to_v4 = |head| map::to_v4(head, Some(1380));
    let rows = [
        ((1, 0, 0), Some((3, 1, 0))),
        ((1, 1, 0), Some((3, 10, 0))),
        ((1, 2, 0), Some((3, 1, 0))),
        ((1, 3, 0), Some((3, 1, 0))),
        ((1, 4, 0), Some((3, 3, 0))),
        ((1, 5, 0), None),
        ((2, 0, 1400), Some((3, 4, 1380))),
        ((3, 0, 0), Some((11, 0, 0))),
        ((3, 1, 0), Some((11, 1, 0))),
        ((4, 0, 7), Some((12, 0, 8 << 24))),
        ((4, 0, 30), Some((12, 0, 16 << 24))),
        ((4, 0, 2), None),
        ((4, 1, 0), Some((3, 2, 0))),
        ((4, 2, 0), None),
    ];
    for (head, expected) in rows {
        assert_eq!(to_v4(head), expected, "{head:?}");
    }
}

#[test]
fn the_quoted_transport_is_put_back() {
    let new = Translation {
        src: ip("192.0.2.10"),
        dst: ip("198.51.100.7"),
        quoted_src: socket("198.51.100.7:4000"),
        quoted_dst: socket("192.0.2.10:53"),
        overhead: 0,
    };
    let sent = udp(socket("10.1.0.100:2000"), socket("10.1.0.11:5353"), b"odd");
    let mut frame = error(ip("10.9.9.9"), ip("10.1.0.100"), (3, 3, 0), &sent);
    let q = quote(&frame);
    translate(&mut frame, &q, &new, &mut ids()).unwrap();
    assert!(quoted_sum_is_right(&frame));
    assert_eq!(checksum::sum(&frame.bytes()[14..34]), 0xffff);
    assert_eq!(checksum::sum(&frame.bytes()[42..62]), 0xffff);

    // No checksum stays none, and one of 8 bytes of TCP is not looked for.
    let mut none = sent.clone();
    put16(&mut none, 26, 0);
    let mut frame = error(ip("10.9.9.9"), ip("10.1.0.100"), (3, 3, 0), &none);
    let q = quote(&frame);
    translate(&mut frame, &q, &new, &mut ids()).unwrap();
    assert_eq!(be16(frame.bytes(), 68), 0);
    let tcp = packet(ip("10.1.0.100"), ip("10.1.0.11"), 6, &[7; 20]);
    let mut frame = error(ip("10.9.9.9"), ip("10.1.0.100"), (3, 3, 0), &tcp[..28]);
    let q = quote(&frame);
    translate(&mut frame, &q, &new, &mut ids()).unwrap();
    assert_eq!(be32(frame.bytes(), 62), 4000 << 16 | 53);
    assert_eq!(frame.bytes().len(), 70);

    // SCTP's covers no addresses, but ports: the quoted header tells how long the packet was.
    let mut association = vec![1; 40];
    put32(&mut association, 0, 4000 << 16 | 53);
    let mut before = association.clone();
    sctp::new_ports(&mut before, 2000 << 16 | 5353);
    let sent = packet(ip("10.1.0.100"), ip("10.1.0.11"), sctp::PROTOCOL, &before);
    let mut frame = error(ip("10.9.9.9"), ip("10.1.0.100"), (3, 3, 0), &sent[..32]);
    let q = quote(&frame);
    translate(&mut frame, &q, &new, &mut ids()).unwrap();
    assert_eq!(frame.bytes()[62..], association[..12]);
}

#[test]
fn old_routers_name_no_mtu() {
    let sent = udp(
        socket("10.1.0.100:2000"),
        socket("10.1.0.11:53"),
        &[0; 1450],
    );
    let frame = error(ip("10.9.9.9"), ip("10.1.0.100"), (3, 4, 0), &sent[..28]);
    assert_eq!(mtu(frame.bytes(), &quote(&frame)), Some(1006));
}

/// One row a message that is no error about a flow.
#[test]
fn what_quotes_no_flow_is_told_apart() {
    let sent = udp(socket("10.1.0.100:2000"), socket("10.1.0.11:53"), b"hello");
    let from = |head, quote: &[u8]| error(ip("10.9.9.9"), ip("10.1.0.100"), head, quote);
    let looked = |frame: &SimFrame| look(frame.bytes(), 34, frame.bytes().len());
    for head in [(8, 0, 1), (0, 0, 1), (5, 1, 0), (13, 0, 0)] {
        assert_eq!(looked(&from(head, &sent)), Ok(Message::Other), "{head:?}");
    }
    let bad = Err(DropReason::BadIcmp);
    assert_eq!(looked(&from((3, 1, 0), &sent[..19])), bad, "cut header");
    assert_eq!(looked(&from((3, 1, 0), &[0; 28])), bad, "no IP header");
    assert_eq!(look(from((3, 1, 0), &[]).bytes(), 34, 41), bad, "cut");
    let mut wrong = from((3, 1, 0), &sent);
    wrong.bytes_mut()[40] ^= 1;
    assert_eq!(looked(&wrong), Err(DropReason::BadIcmpChecksum));
    let v6 = udp(socket("[fd00::1]:2000"), socket("[fd00::2]:53"), b"x");
    assert_eq!(looked(&from((3, 1, 0), &v6)), bad, "the other family");
    // Quotes without ports.
    let mut later = sent.clone();
    put16(&mut later, 6, 185);
    assert_eq!(quote(&from((3, 1, 0), &later)).ports, None, "fragment");
    assert_eq!(quote(&from((3, 1, 0), &sent[..27])).ports, None, "7 bytes");
    let mask = packet(ip("10.1.0.100"), ip("10.1.0.11"), 1, &[17; 8]);
    assert_eq!(quote(&from((3, 1, 0), &mask)).ports, None, "no echo");
    // An echo's identifier is the asker's port.
    let ping = packet(
        ip("10.1.0.100"),
        ip("10.1.0.11"),
        1,
        &[8, 0, 0, 0, 7, 9, 0, 1],
    );
    assert_eq!(quote(&from((3, 1, 0), &ping)).ports, Some(0x0709 << 16));
    let pong = packet(
        ip("10.1.0.100"),
        ip("10.1.0.11"),
        1,
        &[0, 0, 0, 0, 7, 9, 0, 1],
    );
    assert_eq!(quote(&from((3, 1, 0), &pong)).ports, Some(0x0709));
}

#[test]
fn quoted_extension_headers_are_walked() {
    let mut upper = vec![44, 0, 1, 4, 0, 0, 0, 0]; // destination options, then a fragment header
    upper.extend([17, 0, 0, 1, 0, 0, 0, 9]); // the first of several; its quote is cut
    upper.extend([0x0f, 0xa0, 0, 53, 0, 100, 0, 0, 1, 2, 3]);
    let sent = packet(ip("fd00::1"), ip("fd00::2"), 60, &upper);
    let frame = error(ip("fd00::9"), ip("fd00::1"), (1, 4, 0), &sent);
    let q = quote(&frame);
    assert_eq!(
        (q.ports, q.l4),
        (Some(4000 << 16 | 53), 14 + 40 + 8 + 40 + 16)
    );
}

#[test]
fn nothing_answers_what_must_not_be_answered() {
    let frame = |src: &str, dst: &str| {
        let mut f = vec![2; 12];
        f.extend(if src.starts_with('[') {
            [0x86, 0xdd]
        } else {
            [8, 0]
        });
        f.extend(udp(socket(src), socket(dst), b"hello"));
        f
    };
    let (a, b) = ("192.0.2.1:1", "192.0.2.2:2");
    let (a6, b6) = ("[fd00::1]:1", "[fd00::2]:2");
    let ping = |f: &mut Vec<u8>, protocol: u8, kind: u8| {
        let (at, l4) = if f[12] == 8 { (23, 34) } else { (20, 54) };
        (f[at], f[l4]) = (protocol, kind);
    };
    type Change<'a> = &'a dyn Fn(&mut Vec<u8>);
    let rows: &[(&str, Vec<u8>, Change<'_>, bool)] = &[
        ("IPv4", frame(a, b), &|_| {}, true),
        ("IPv6", frame(a6, b6), &|_| {}, true),
        ("broadcast frame", frame(a, b), &|f| f[0] = 0xff, false),
        ("multicast", frame(a, "224.0.0.1:2"), &|_| {}, false),
        ("broadcast", frame(a, "255.255.255.255:2"), &|_| {}, false),
        ("multicast IPv6", frame(a6, "[ff02::1]:2"), &|_| {}, false),
        ("loopback source", frame("127.0.0.1:1", b), &|_| {}, false),
        ("no source", frame("[::]:1", b6), &|_| {}, false),
        ("first fragment", frame(a, b), &|f| f[20] = 0x20, true),
        ("later fragment", frame(a, b), &|f| f[21] = 1, false),
        ("ping", frame(a, b), &|f| ping(f, 1, 8), true),
        ("error", frame(a, b), &|f| ping(f, 1, 3), false),
        ("redirect", frame(a, b), &|f| ping(f, 1, 5), false),
        ("ping IPv6", frame(a6, b6), &|f| ping(f, 58, 128), true),
        ("error IPv6", frame(a6, b6), &|f| ping(f, 58, 1), false),
        ("redirect IPv6", frame(a6, b6), &|f| ping(f, 58, 137), false),
    ];
    for (what, f, change, answered) in rows {
        let mut f = f.clone();
        change(&mut f);
        let src = if f[12] == 8 {
            ip("192.0.2.9")
        } else {
            ip("fd00::9")
        };
        let mut frame = SimPool::default().frame(&f);
        let built = build_error(&mut frame, Problem::TtlExpired, src, &mut ids());
        assert_eq!(built, *answered, "{what}");
        assert!(built || frame.bytes() == f, "{what}: left as it was");
    }
    let mut other = SimPool::default().frame(&frame(a, b));
    let built = build_error(&mut other, Problem::TtlExpired, ip("fd00::9"), &mut ids());
    assert!(!built, "an IPv6 address cannot answer IPv4");
}

/// A tunnel over one family with a packet of the other inside.
#[test]
fn errors_about_a_tunnel_cross_families() {
    for (kind, client, vip, server) in [
        (
            tun::Tunnel::Ipip,
            "[2001:db8:c::1]:4000",
            "[2001:db8::a]:53",
            "10.1.0.11",
        ),
        (
            tun::Tunnel::Vxlan {
                vni: 5,
                port: 4789,
                mac: None,
            },
            "198.51.100.7:4000",
            "192.0.2.10:53",
            "fd00::11",
        ),
    ] {
        let (server, director) = match ip(server) {
            s @ IpAddr::V4(_) => (s, ip("10.1.0.1")),
            s => (s, ip("fd00::1")),
        };
        let mut f = vec![2; 12];
        f.extend(if client.starts_with('[') {
            [0x86, 0xdd]
        } else {
            [8, 0]
        });
        f.extend(udp(socket(client), socket(vip), &[0; 1300]));
        let mut frame = SimPool::default().frame(&f);
        let ends = Ends::new(director, server).unwrap();
        tun::encapsulate(&mut frame, kind, ends, 1, true, &mut ids()).unwrap();
        let too_big = match server {
            IpAddr::V4(_) => (3, 4, 1400),
            IpAddr::V6(_) => (2, 0, 1400),
        };
        let mut frame = error(server, director, too_big, &frame.bytes()[14..]);
        let outer = quote(&frame);
        assert_eq!(outer.dst, server);
        let inner = tun::inside(frame.bytes(), &outer).unwrap();
        assert_eq!(inner.source(), Some(socket(client)));
        let (src, overhead) = (socket(vip).ip(), kind.overhead(server));
        relay(&mut frame, &outer, &inner, src, overhead, &mut ids()).unwrap();
        let q = quote(&frame);
        assert_eq!(q.source(), Some(socket(client)));
        let fits = mtu(frame.bytes(), &q);
        assert_eq!(
            fits,
            Some((1400 - overhead).max(if src.is_ipv6() { 1280 } else { 0 }))
        );
    }
}

proptest! {
    /// Errors with any quote: nothing panics, and what comes out is an error again.
    #[test]
    fn any_error_is_handled(
        v6: bool, to_v6: bool, kind in 0u8..13, code in 0u8..16, word: u32,
        mut quoted in prop::collection::vec(any::<u8>(), 0..200),
        protocol in prop::sample::select(vec![1u8, 4, 6, 17, 41, 44, 47, 58, 60, 132]),
        cut in 0usize..260,
    ) {
        if let Some(first) = quoted.first_mut() {
            *first = if v6 { 0x60 | *first & 0xf } else { 0x45 | *first & 2 };
        }
        if let Some(p) = quoted.get_mut(if v6 { 6 } else { 9 }) {
            *p = protocol;
        }
        let (src, dst) = if v6 { ("fd00::9", "fd00::1") } else { ("10.9.9.9", "10.1.0.100") };
        let mut frame = error(ip(src), ip(dst), (kind, code, word), &quoted);
        let len = frame.bytes().len();
        let at = if v6 { 54 } else { 34 };
        let _ = look(frame.bytes(), at, len.min(cut));
        let Ok(Message::Error(q)) = look(frame.bytes(), at, len) else { return Ok(()) };
        let inner = tun::inside(frame.bytes(), &q);
        let _ = mtu(frame.bytes(), &q);
        let new = match to_v6 {
            true => to_client_v6(),
            false => Translation {
                src: ip("192.0.2.10"), dst: ip("198.51.100.7"),
                quoted_src: socket("198.51.100.7:4000"), quoted_dst: socket("192.0.2.10:53"),
                overhead: 20,
            },
        };
        let mut copy = SimPool::default().frame(frame.bytes());
        if translate(&mut copy, &q, &new, &mut ids()).is_ok() {
            let f = copy.bytes();
            let at = if to_v6 { 54 } else { 34 };
            prop_assert!(matches!(look(f, at, f.len()), Ok(Message::Error(_))), "{f:?}");
        }
        if let Some(inner) = inner {
            let src = if inner.src.is_ipv6() { "fd00::a" } else { "192.0.2.10" };
            let _ = relay(&mut frame, &q, &inner, ip(src), 24, &mut ids());
        }
    }
}
