//! The door: any bytes are parsed, and what is done next with what passed stays inside the frame.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use weir_dataplane::forward::tun::{self, Ends, GueChecksum, Tunnel};
use weir_dataplane::frag::Piece;
use weir_dataplane::io::Frame;
use weir_dataplane::io::sim::SimPool;
use weir_dataplane::packet::icmp::{self, Message, Problem};
use weir_dataplane::packet::ids::IpIds;
use weir_dataplane::packet::{self, Kind, Parsed, checksum, eth, fragment, ipv4, ipv6, quic};
use weir_dataplane::service::{Quic, QuicLb};
use weir_dataplane::{CoreId, Proto};

const TUNNELS: [Tunnel; 5] = [
    Tunnel::Ipip,
    Tunnel::Gre { checksum: true },
    Tunnel::Gre { checksum: false },
    Tunnel::Gue {
        port: 6080,
        checksum: GueChecksum::Full,
    },
    Tunnel::Vxlan {
        vni: 7,
        port: 4789,
        mac: None,
    },
];
const V4: Ends = Ends::V4 {
    src: Ipv4Addr::new(10, 1, 0, 2),
    dst: Ipv4Addr::new(10, 1, 0, 11),
};

fuzz_target!(|input: &[u8]| {
    let Some((&how, bytes)) = input.split_first() else {
        return;
    };
    if bytes.len() > 2000 {
        return;
    }
    if let Some(to) = quic::Destination::of(bytes) {
        let at = usize::from(how) % 7;
        let mut ids = Quic::default();
        let key = (how & 8 != 0).then_some([how; 16]);
        ids.configs[at] = QuicLb::new(how % 16, how / 13, key);
        if let Some(id) = ids.server_id(to.bytes()) {
            assert_eq!(id.octets().len(), usize::from(how % 16));
        }
    }
    let pool = SimPool::default();
    let mut ids = IpIds::new(CoreId(0), 1, 7);
    let parsed = packet::parse(bytes, how & 1 != 0);
    let (proto, l4, ip_len) = match &parsed {
        Ok(Parsed::Flow(f)) => (Some(f.key.proto), f.l4, f.ip_len),
        Ok(Parsed::Flow6(f)) => (Some(f.key.proto), f.l4, f.ip_len),
        Ok(Parsed::Other(_)) => (None, 0, 0),
        Err(_) => return,
    };
    if let Some(proto) = proto {
        let (l4, end) = (usize::from(l4), eth::HEADER_LEN + usize::from(ip_len));
        assert!(l4 < end && end <= bytes.len());
        let mut frame = bytes.to_vec();
        checksum::complete_partial(&mut frame, proto, l4, end);
        if proto != Proto::Sctp {
            let _ = checksum::l4(&frame, proto, l4, end);
        }
    }
    if let Ok(Parsed::Other(kind @ (Kind::Fragment4 | Kind::Fragment6))) = parsed {
        let piece = match kind {
            Kind::Fragment4 => bytes
                .first_chunk()
                .and_then(|h| ipv4::check(h, bytes, true).ok())
                .map(|ip| Piece::v4(bytes, &ip)),
            _ => bytes
                .first_chunk()
                .and_then(|h| ipv6::check(h, bytes).ok())
                .and_then(|ip| Piece::v6(bytes, &ip)),
        };
        if let Some(Ok(piece)) = piece {
            assert!(piece.len > 0 && u32::from(piece.offset) + u32::from(piece.len) <= 0xffff);
        }
    }
    if let Ok((at, end)) = packet::upper_at(bytes) {
        assert!(at <= end && end <= bytes.len());
        if matches!(parsed, Ok(Parsed::Other(Kind::Icmp4 | Kind::Icmp6)))
            && let Ok(Message::Error(quote)) = icmp::look(bytes, at, end)
        {
            assert!(usize::from(quote.end) <= bytes.len());
            let _ = icmp::mtu(bytes, &quote);
            let _ = tun::inside(bytes, &quote);
        }
    }
    // What Weir makes of it: an error about it, its parts, and what it is wrapped in.
    let v6 = eth::ethertype(bytes) == Ok(eth::IPV6);
    let is_ip = v6 || eth::ethertype(bytes) == Ok(eth::IPV4);
    if !is_ip || packet::upper_at(bytes).is_err() {
        return;
    }
    let own: IpAddr = match v6 {
        true => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2).into(),
        false => Ipv4Addr::new(10, 0, 0, 2).into(),
    };
    for problem in [
        Problem::PortUnreachable,
        Problem::TtlExpired,
        Problem::TooBig { mtu: 1400 },
    ] {
        let mut frame = pool.frame(bytes);
        if icmp::build_error(&mut frame, problem, own, &mut ids) {
            let said = packet::parse(frame.bytes(), false);
            let right = matches!(said, Ok(Parsed::Other(Kind::Icmp4 | Kind::Icmp6)));
            assert!(right, "{said:?}: {:02x?}", frame.bytes());
        }
    }
    if let Ok(parts) = fragment::cut(pool.frame(bytes), 600, &mut ids) {
        for part in &parts {
            // What fits goes as it is, with whatever checksum the card believed.
            assert!(
                packet::parse(part.bytes(), true).is_ok(),
                "{:02x?}",
                part.bytes()
            );
        }
    }
    for tunnel in TUNNELS {
        let mut frame = pool.frame(bytes);
        if tun::encapsulate(&mut frame, tunnel, V4, u32::from(how), true, &mut ids).is_ok() {
            let outer = packet::parse(frame.bytes(), false);
            assert!(outer.is_ok(), "{outer:?}: {:02x?}", frame.bytes());
        }
    }
    assert_eq!(pool.live(), 0);
});
