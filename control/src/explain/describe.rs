//! A frame in one line, for people: what it is, where from, where to.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use weir_dataplane::Proto;
use weir_dataplane::packet::{self, Key, Kind, Parsed, be16, eth, icmp, ipv4, ipv6, tcp};

/// IP protocol numbers of packets in packets (IANA), and of ICMP.
const IPIP: u8 = 4;
const IPV6_IN: u8 = 41;
const GRE: u8 = 47;
/// A packet in a packet in a packet is enough.
const DEPTH: usize = 3;

/// The five-tuple of a whole packet.
pub(super) fn ends(parsed: &Parsed) -> Option<(Proto, SocketAddr, SocketAddr)> {
    match parsed {
        Parsed::Flow(f) => Some((f.key.proto(), f.key.source(), f.key.destination())),
        Parsed::Flow6(f) => Some((f.key.proto(), f.key.source(), f.key.destination())),
        Parsed::Other(_) => None,
    }
}

/// Source and destination of an IP packet, as far as it is one.
pub(super) fn addresses(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match eth::ethertype(frame).ok()? {
        eth::IPV4 => {
            let at = |at: usize| {
                let bytes: [u8; 4] = frame.get(at..at + 4)?.try_into().ok()?;
                Some(IpAddr::V4(Ipv4Addr::from(bytes)))
            };
            Some((at(ipv4::SRC_AT)?, at(ipv4::DST_AT)?))
        }
        eth::IPV6 => {
            let at = |at: usize| {
                let bytes: [u8; 16] = frame.get(at..at + 16)?.try_into().ok()?;
                Some(IpAddr::V6(Ipv6Addr::from(bytes)))
            };
            Some((at(ipv6::SRC_AT)?, at(ipv6::DST_AT)?))
        }
        _ => None,
    }
}

/// `tcp 192.0.2.7:40000 -> 10.0.0.10:80 SYN`, `ipip 10.0.0.2 -> 10.1.0.11 [tcp ...]`, `ARP`.
pub(super) fn frame(bytes: &[u8]) -> String {
    describe(bytes, DEPTH)
}

fn describe(frame: &[u8], depth: usize) -> String {
    let parsed = packet::parse(frame, true);
    if let Ok(parsed) = &parsed
        && let Some((proto, source, destination)) = ends(parsed)
    {
        let mut text = format!("{proto} {source} -> {destination}");
        if let (Proto::Tcp, Some(flags)) = (proto, tcp_flags(parsed)) {
            let _ = write!(text, " {flags}");
        }
        return text;
    }
    let Some((source, destination)) = addresses(frame) else {
        return match eth::ethertype(frame) {
            Ok(eth::ARP) => "ARP".to_owned(),
            Ok(other) => format!("Ethernet type 0x{other:04x}"),
            Err(_) => format!("{} bytes, no Ethernet frame", frame.len()),
        };
    };
    let ends = format!("{source} -> {destination}");
    match parsed {
        Err(reason) => format!("IP {ends}, malformed ({})", reason.name()),
        Ok(Parsed::Other(Kind::Fragment4 | Kind::Fragment6)) => fragment(frame, &ends),
        Ok(Parsed::Other(Kind::Icmp4 | Kind::Icmp6)) => message(frame, &ends),
        Ok(_) => other(frame, &ends, depth),
    }
}

fn tcp_flags(parsed: &Parsed) -> Option<String> {
    let says = match parsed {
        Parsed::Flow(flow) => flow.says,
        Parsed::Flow6(flow) => flow.says,
        Parsed::Other(_) => return None,
    };
    use tcp::flags::{ACK, FIN, PSH, RST, SYN};
    let names = [
        (SYN, "SYN"),
        (FIN, "FIN"),
        (RST, "RST"),
        (PSH, "PSH"),
        (ACK, "ACK"),
    ];
    let set = names.iter().filter(|(bit, _)| says & bit != 0);
    Some(set.map(|(_, name)| *name).collect::<Vec<_>>().join(","))
}

fn fragment(frame: &[u8], ends: &str) -> String {
    // IPv6's place is behind extension headers, and of no use to people.
    if eth::ethertype(frame) != Ok(eth::IPV4) {
        return format!("fragment {ends}");
    }
    let word = be16(frame, eth::HEADER_LEN + 6);
    let id = be16(frame, eth::HEADER_LEN + 4);
    let (at, more) = (u32::from(word & 0x1fff) * 8, word & 0x2000 != 0);
    let last = if more { "" } else { ", the last" };
    format!("fragment {ends} of datagram {id} at byte {at}{last}")
}

fn message(frame: &[u8], ends: &str) -> String {
    let Ok((at, end)) = packet::upper_at(frame) else {
        return format!("ICMP {ends}");
    };
    let Some(&[kind, code]) = frame.get(at..at + 2).and_then(|h| h.first_chunk()) else {
        return format!("ICMP {ends}");
    };
    let mut text = format!("ICMP {ends} type {kind} code {code}");
    if let Ok(icmp::Message::Error(quote)) = icmp::look(frame, at, end) {
        match (quote.source(), quote.destination()) {
            (Some(source), Some(destination)) => {
                let _ = write!(text, " about {source} -> {destination}");
            }
            _ => {
                let _ = write!(text, " about {} -> {}", quote.src, quote.dst);
            }
        }
    }
    text
}

/// What is neither TCP, UDP, SCTP nor ICMP: tunnels are looked into.
fn other(frame: &[u8], ends: &str, depth: usize) -> String {
    let protocol = match eth::ethertype(frame) {
        Ok(eth::IPV6) => frame.get(ipv6::NEXT_AT),
        _ => frame.get(ipv4::PROTO_AT),
    };
    let protocol = protocol.copied().unwrap_or_default();
    let inner = packet::upper_at(frame).ok().and_then(|(at, end)| {
        let payload = frame.get(at..end)?;
        match protocol {
            IPIP => Some(("IPIP", eth::IPV4, payload)),
            IPV6_IN => Some(("IPv6 in IP", eth::IPV6, payload)),
            GRE => {
                let with_checksum = payload.first()? & 0x80 != 0;
                let inner = payload.get(if with_checksum { 8 } else { 4 }..)?;
                Some(("GRE", be16(payload, 2), inner))
            }
            _ => None,
        }
    });
    match inner {
        Some((tunnel, ethertype, payload)) if depth > 0 => {
            let mut frame = vec![0; eth::HEADER_LEN];
            packet::put16(&mut frame, 12, ethertype);
            frame.extend_from_slice(payload);
            format!("{tunnel} {ends} [{}]", describe(&frame, depth - 1))
        }
        _ => format!("IP protocol {protocol} {ends}"),
    }
}
