use std::net::{SocketAddr, SocketAddrV4};

use proptest::prelude::*;

use super::build::{Packet, checksums_right};
use super::checksum::{Diff, TTL_DOWN};
use super::*;

fn addr(s: &str) -> SocketAddrV4 {
    s.parse().unwrap()
}

fn syn() -> Packet {
    Packet::tcp(
        addr("192.0.2.1:4000"),
        addr("10.0.0.10:80"),
        tcp::flags::SYN,
    )
}

#[test]
fn a_flow_is_read_as_it_is_written() {
    let f = syn().payload(b"hello").build();
    let Ok(Parsed::Flow(flow)) = parse(&f, false) else {
        panic!("not a flow")
    };
    assert_eq!(
        flow.key,
        Key4::new(Proto::Tcp, addr("192.0.2.1:4000"), addr("10.0.0.10:80"))
    );
    assert_eq!(flow.key.reversed().source4(), addr("10.0.0.10:80"));
    assert_eq!(
        (flow.l4, flow.ip_len, flow.says, flow.ttl),
        (34, 45, tcp::flags::SYN, 64)
    );
    assert!(checksums_right(&f));
}

/// One row a malformed packet: what was done to an ordinary SYN, and the reason it dies of.
#[test]
fn malformed_packets_are_named() {
    use DropReason::*;
    type Break = fn(&mut Vec<u8>);
    let rows: &[(&str, Break, DropReason)] = &[
        ("no Ethernet header", |f| f.truncate(13), RuntFrame),
        ("no IPv4 header", |f| f.truncate(33), BadIpHeader),
        ("IPv4 version 5", |f| f[14] = 0x55, BadIpHeader),
        ("header length below 20", |f| f[14] = 0x44, BadIpHeader),
        (
            "header length past the packet",
            |f| f[14] = 0x4f,
            BadIpHeader,
        ),
        (
            "total length below the header",
            |f| put16(f, 16, 19),
            BadIpHeader,
        ),
        (
            "total length past the frame",
            |f| put16(f, 16, 41),
            BadIpHeader,
        ),
        ("header checksum off by one", |f| f[24] ^= 1, BadIpChecksum),
        (
            "TCP header cut",
            |f| {
                put16(f, 16, 39);
                checksum::set_ipv4(f)
            },
            BadTcpHeader,
        ),
        ("TCP data offset below 20", |f| f[46] = 0x40, BadTcpHeader),
        (
            "TCP data offset past the packet",
            |f| f[46] = 0x60,
            BadTcpHeader,
        ),
        (
            "UDP header cut",
            |f| {
                f[23] = 17;
                put16(f, 16, 27);
                checksum::set_ipv4(f)
            },
            BadUdpHeader,
        ),
        (
            "UDP length below 8",
            |f| {
                f[23] = 17;
                checksum::set_ipv4(f);
                put16(f, 38, 7)
            },
            BadUdpHeader,
        ),
        (
            "UDP length past the packet",
            |f| {
                f[23] = 17;
                checksum::set_ipv4(f);
                put16(f, 38, 21)
            },
            BadUdpHeader,
        ),
    ];
    for (what, harm, reason) in rows {
        let mut f = syn().build();
        harm(&mut f);
        assert_eq!(parse(&f, false), Err(*reason), "{what}");
    }
    let mut f = syn().build();
    f[24] ^= 1;
    assert!(
        parse(&f, true).is_ok(),
        "a port that verified the checksum is believed"
    );
}

#[test]
fn fragments_and_strangers_are_told_apart() {
    let fragment = |word: u16| {
        let mut f = syn().build();
        put16(&mut f, 20, word);
        checksum::set_ipv4(&mut f);
        parse(&f, false)
    };
    let is = Ok(Parsed::Other(Kind::Fragment4));
    assert_eq!(fragment(0x2000), is, "more fragments");
    assert_eq!(fragment(0x0001), is, "an offset");
    assert!(
        matches!(fragment(0x4000), Ok(Parsed::Flow(_))),
        "don't fragment is no fragment"
    );
    let mut f = syn().build();
    f[23] = ipv4::ICMP;
    checksum::set_ipv4(&mut f);
    assert_eq!(parse(&f, false), Ok(Parsed::Other(Kind::Icmp4)));
    put16(&mut f, 12, eth::ARP);
    assert_eq!(parse(&f, false), Ok(Parsed::Other(Kind::Other)));
}

#[test]
fn an_ipv6_flow_is_read_as_it_is_written() {
    for proto in [Proto::Tcp, Proto::Udp] {
        let f = Packet {
            proto,
            ..Packet::tcp(
                "[2001:db8::7]:4000".parse::<SocketAddr>().unwrap(),
                "[2001:db8::64]:80".parse::<SocketAddr>().unwrap(),
                tcp::flags::SYN,
            )
        };
        let f = f.payload(b"hello").build();
        let Ok(Parsed::Flow6(flow)) = parse(&f, false) else {
            panic!("not a flow")
        };
        assert_eq!(flow.key.source(), "[2001:db8::7]:4000".parse().unwrap());
        assert_eq!(flow.key.destination(), "[2001:db8::64]:80".parse().unwrap());
        assert_eq!(flow.key.reversed().reversed(), flow.key);
        assert_eq!((flow.l4, flow.ttl), (54, 64));
        assert_eq!(usize::from(flow.ip_len), f.len() - 14);
        assert!(checksums_right(&f));
        let mut partial = f.clone();
        let at = 54 + checksum::l4_at(proto);
        let sum = checksum::pseudo(&f, proto, (f.len() - 54) as u16);
        put16(&mut partial, at, sum);
        assert!(checksum::complete_partial(&mut partial, proto, 54, f.len()));
        assert_eq!(partial, f);
    }
}

#[test]
fn an_ipv4_key_among_ipv6_ones_is_itself_again_and_differs_as_it_did() {
    let a = Key4::new(Proto::Udp, addr("192.0.2.1:4000"), addr("10.0.0.10:80"));
    let b = Key4::new(Proto::Udp, addr("10.1.0.100:2000"), addr("10.1.0.11:8080"));
    assert_eq!(Key6::from(a).unmapped(), Some(a));
    assert_eq!(Key6::from(a).source(), a.source());
    let (narrow, wide) = (
        Key4::diff(a.addrs, b.addrs),
        Key6::diff(Key6::from(a).addrs, Key6::from(b).addrs),
    );
    for sum in [0, 1, 0x1234, 0xfffe] {
        assert_eq!(narrow.apply(sum), wide.apply(sum));
    }
    let strange = Key6::new(Proto::Udp, a.source(), "[2001:db8::1]:1".parse().unwrap());
    assert_eq!(strange.unmapped(), None);
}

#[test]
fn ethernet_padding_is_not_part_of_the_packet() {
    let mut f = syn().build();
    f.resize(60, 0xee);
    assert!(checksums_right(&f));
}

#[test]
fn a_partial_checksum_is_completed_and_a_whole_one_left_alone() {
    for proto in [Proto::Tcp, Proto::Udp] {
        let whole = Packet { proto, ..syn() }.payload(b"odd").build();
        let mut f = Packet {
            proto,
            partial: true,
            ..syn()
        }
        .payload(b"odd")
        .build();
        let end = f.len();
        assert!(!checksums_right(&f));
        assert!(checksum::complete_partial(&mut f, proto, 34, end));
        assert_eq!(f, whole);
        assert!(!checksum::complete_partial(&mut f, proto, 34, end));
        assert_eq!(f, whole);
    }
}

proptest! {
    /// What is read as a common packet is what the parser reads, however its headers are bent;
    /// and an ordinary packet with a TCP header's bytes is read so.
    #[test]
    fn common_packets_are_what_the_parser_reads(
        payload in proptest::collection::vec(any::<u8>(), 12..40), udp: bool, trust: bool,
        bent in proptest::collection::vec((12usize..54, any::<u8>()), 0..3), sums_right: bool,
        cut in 0usize..4,
    ) {
        let (src, dst) = (addr("192.0.2.1:4000"), addr("10.0.0.10:80"));
        let packet = if udp { Packet::udp(src, dst) } else { Packet::tcp(src, dst, tcp::flags::ACK) };
        let mut frame = packet.payload(&payload).build();
        let mac = eth::dst(&frame);
        for (at, byte) in &bent {
            frame[*at] = *byte;
        }
        if sums_right && frame[14] == 0x45 {
            checksum::set_ipv4(&mut frame);
        }
        frame.truncate(frame.len() - cut);
        let mut flow = Flow::NONE;
        let common = common::read(&mut flow, &frame, mac, trust);
        if common {
            prop_assert_eq!(parse(&frame, trust), Ok(Parsed::Flow(flow)));
        }
        prop_assert!(common || !bent.is_empty() || cut > 0);
        let mut elsewhere = mac;
        elsewhere.0[5] ^= 1;
        prop_assert!(!common::read(&mut flow, &frame, elsewhere, trust));
    }

    /// RFC 1624 against from-scratch, for every address and port rewrite, there and back.
    #[test]
    fn a_difference_equals_a_new_sum(
        old: [u32; 3], new: [u32; 3], payload in proptest::collection::vec(any::<u8>(), 0..64),
        udp: bool,
    ) {
        let at = |w: [u32; 3]| (
            SocketAddrV4::new(w[0].into(), (w[2] >> 16) as u16),
            SocketAddrV4::new(w[1].into(), w[2] as u16),
        );
        let make = |w| {
            let (src, dst) = at(w);
            let proto = if udp { Proto::Udp } else { Proto::Tcp };
            Packet { proto, ..Packet::tcp(src, dst, tcp::flags::ACK) }.payload(&payload).build()
        };
        let (before, after) = (make(old), make(new));
        let l3 = Diff::of(&[(old[0], new[0]), (old[1], new[1])]);
        let l4 = Diff::of(&[(old[0], new[0]), (old[1], new[1]), (old[2], new[2])]);
        let l4_at = 34 + checksum::l4_at(if udp { Proto::Udp } else { Proto::Tcp });
        // 0 and 0xffff are the same number; UDP writes 0xffff, and so does the pipeline.
        let same = |a: u16, b: u16| a == b || (a.is_multiple_of(0xffff) && b.is_multiple_of(0xffff));
        prop_assert!(same(l3.apply(be16(&before, 24)), be16(&after, 24)));
        prop_assert!(same(l4.apply(be16(&before, l4_at)), be16(&after, l4_at)));
        prop_assert!(same(l3.reversed().apply(be16(&after, 24)), be16(&before, 24)));
        prop_assert!(same(l4.reversed().apply(be16(&after, l4_at)), be16(&before, l4_at)));
        let mut lower = before.clone();
        lower[ipv4::TTL_AT] -= 1;
        checksum::set_ipv4(&mut lower);
        prop_assert!(same(TTL_DOWN.apply(be16(&before, 24)), be16(&lower, 24)));
    }

    #[test]
    fn any_bytes_are_parsed_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
        let _ = parse(&bytes, true);
    }
}
