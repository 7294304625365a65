//! ICMP errors: those that the kernel made, relayed from a tunnel, and translated.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weir_dataplane::CoreId;
use weir_dataplane::counters::DropReason;
use weir_dataplane::forward::tun;
use weir_dataplane::io::Frame;
use weir_dataplane::io::sim::SimPool;
use weir_dataplane::packet::icmp::{
    self, Message, Problem, Quote, Translation, build_error, relay, translate,
};
use weir_dataplane::packet::ids::IpIds;
use weir_dataplane::packet::{checksum, ipv4, ipv6};

use crate::recording::{Side, cases};
use crate::tunnels::{tunnel, word};

fn ids() -> IpIds {
    IpIds::new(CoreId(0), 1, 0)
}

/// Whether the frame is a whole ICMP or ICMPv6 message, not a fragment, and where it ends.
fn message(f: &[u8]) -> Option<(usize, usize)> {
    match word(f, 12) {
        0x0800 => {
            let ip = ipv4::check(f.first_chunk()?, f, true).ok()?;
            (ip.protocol == ipv4::ICMP && !ip.fragment)
                .then(|| (usize::from(ip.l4), 14 + usize::from(ip.total_len)))
        }
        _ => {
            let ip = ipv6::check(f.first_chunk()?, f).ok()?;
            (ip.protocol == ipv6::ICMP && ip.fragment.is_none())
                .then(|| (usize::from(ip.l4), 14 + usize::from(ip.total_len)))
        }
    }
}

fn error(f: &[u8]) -> Option<Quote> {
    let (at, end) = message(f)?;
    match icmp::look(f, at, end) {
        Ok(Message::Error(quote)) => Some(quote),
        _ => None,
    }
}

/// Source address of the IP header.
fn source(f: &[u8]) -> IpAddr {
    match word(f, 12) {
        0x0800 => <[u8; 4]>::try_from(&f[26..30]).unwrap().into(),
        _ => <[u8; 16]>::try_from(&f[22..38]).unwrap().into(),
    }
}

pub(crate) fn destination(f: &[u8]) -> IpAddr {
    match word(f, 12) {
        0x0800 => <[u8; 4]>::try_from(&f[30..34]).unwrap().into(),
        _ => <[u8; 16]>::try_from(&f[38..54]).unwrap().into(),
    }
}

/// Blanks what the recording says is variable of a packet that the director made: IPv4's
/// identification and header checksum, IPv6's flow label.
fn masked(frame: &[u8]) -> Vec<u8> {
    let mut f = frame.to_vec();
    match word(&f, 12) {
        0x0800 => {
            f[18..20].fill(0);
            f[24..26].fill(0);
        }
        _ => {
            f[15] &= 0xf0;
            f[16..18].fill(0);
        }
    }
    f
}

fn lower_ttl(f: &mut [u8]) {
    match word(f, 12) {
        0x0800 => {
            f[22] -= 1;
            checksum::set_ipv4(f);
        }
        _ => f[21] -= 1,
    }
}

/// Every error with which the kernel answered a packet: too big, out of hops, no server.
#[test]
fn the_kernel_makes_the_same_errors() {
    let pool = SimPool::default();
    let mut made = BTreeMap::<(u16, u8, u8), usize>::new();
    // A server that is the kernel itself: its quote is half translated.
    for case in cases().iter().filter(|c| !c.name.contains("is-local")) {
        for step in &case.steps {
            let [(side, expected)] = &step.out[..] else {
                continue;
            };
            let Some(quote) = (*side == step.arrives).then(|| error(expected)).flatten() else {
                continue;
            };
            let at = usize::from(quote.icmp);
            let v4 = word(expected, 12) == 0x0800;
            let problem = match (v4, expected[at], expected[at + 1]) {
                (true, 3, 4) => Problem::TooBig {
                    mtu: word(expected, at + 6),
                },
                (false, 2, 0) => Problem::TooBig {
                    mtu: word(expected, at + 6),
                },
                (true, 11, 0) | (false, 3, 0) => Problem::TtlExpired,
                (true, 3, 3) | (false, 1, 4) => Problem::PortUnreachable,
                _ => continue, // the kernel's own, about protocols and reassembly
            };
            if source(expected) == destination(expected) || step.note.contains("fragments") {
                // To the VIP about a packet from the VIP: it went through IPVS once more. Or about
                // a datagram that the kernel put together first.
                continue;
            }
            let what = format!("{}: {}", case.name, step.note);
            let mut input = step.frame.clone();
            let ttl_at = if v4 { 8 } else { 7 };
            if expected[usize::from(quote.ip) + ttl_at] != input[14 + ttl_at] {
                lower_ttl(&mut input);
            }
            let mut frame = pool.frame(&input);
            let built = build_error(&mut frame, problem, source(expected), &mut ids());
            assert!(built, "{what}");
            assert_eq!(masked(frame.bytes()), masked(expected), "{what}");
            *made
                .entry((word(expected, 12), expected[at], expected[at + 1]))
                .or_default() += 1;
        }
    }
    let (v4, v6) = (0x0800, 0x86dd);
    let expected = [
        ((v4, 3, 3), 14),
        ((v4, 3, 4), 62),
        ((v4, 11, 0), 44),
        ((v6, 1, 4), 6),
        ((v6, 2, 0), 68),
        ((v6, 3, 0), 15),
    ];
    assert_eq!(made, BTreeMap::from(expected));
}

/// Errors about a tunnel become the client's. IPVS does that for IPv4 tunnels only.
#[test]
fn the_kernel_relays_the_same_errors() {
    let pool = SimPool::default();
    let (mut same, mut silent, mut beyond) = (0, 0, 0);
    for case in cases() {
        let Some(tunnel) = tunnel(&case) else {
            continue;
        };
        for step in case.steps.iter().filter(|s| s.arrives == Side::Server) {
            let what = format!("{}: {}", case.name, step.note);
            let mut frame = pool.frame(&step.frame);
            let relayed = error(frame.bytes()).and_then(|quote| {
                let inner = tun::inside(frame.bytes(), &quote)?;
                let (src, overhead) = (inner.dst, tunnel.overhead(case.server()));
                Some(relay(&mut frame, &quote, &inner, src, overhead, &mut ids()))
            });
            match (&step.out[..], relayed) {
                ([(Side::Client, expected)], Some(Ok(()))) => {
                    let (ours, theirs) = (masked(frame.bytes()), masked(expected));
                    assert_eq!(ours[12..], theirs[12..], "{what}");
                    same += 1;
                }
                ([], None | Some(Err(DropReason::IcmpUntranslatable))) => silent += 1,
                ([], Some(Ok(()))) => {
                    assert!(case.server().is_ipv6(), "{what}");
                    assert!(error(frame.bytes()).is_some(), "{what}");
                    beyond += 1;
                }
                (out, relayed) => panic!("{what}: {relayed:?}, the kernel sent {}", out.len()),
            }
        }
    }
    assert_eq!((same, silent, beyond), (134, 70, 64));
}

/// NAT's errors, both ways. One thing is done on purpose that IPVS does not: the checksum of the
/// quoted TCP or UDP header is put back with the ports, as RFC 5508 4 has it.
#[test]
fn the_kernel_translates_the_same_errors() {
    let pool = SimPool::default();
    let mut translated = 0;
    for case in cases().iter().filter(|c| c.mode == "NAT") {
        for step in &case.steps {
            let [(side, expected)] = &step.out[..] else {
                continue;
            };
            let (Some(quote), Some(theirs)) = (error(&step.frame), error(expected)) else {
                continue;
            };
            if *side == step.arrives || quote.src == theirs.src && quote.dst == theirs.dst {
                continue; // an error about an error, or of a flow that IPVS does not know
            }
            let what = format!("{}: {}", case.name, step.note);
            let new = Translation {
                src: source(expected),
                dst: destination(expected),
                quoted_src: theirs.source().unwrap(),
                quoted_dst: theirs.destination().unwrap(),
                overhead: 0,
            };
            let mut frame = pool.frame(&step.frame);
            translate(&mut frame, &quote, &new, &mut ids()).unwrap();
            let ours = error(frame.bytes()).unwrap_or_else(|| panic!("{what}: checksum"));
            let blank = |f: &[u8], q: &Quote| {
                let (icmp, l4) = (usize::from(q.icmp), usize::from(q.l4));
                let mut f = f[12..].to_vec();
                f[icmp + 2 - 12..icmp + 4 - 12].fill(0);
                let sum = if q.protocol == ipv4::TCP { 16 } else { 6 };
                if f.len() >= l4 + sum + 2 - 12 {
                    f[l4 + sum - 12..l4 + sum + 2 - 12].fill(0);
                }
                f
            };
            assert_eq!(
                blank(frame.bytes(), &ours),
                blank(expected, &theirs),
                "{what}"
            );
            translated += 1;
        }
    }
    assert_eq!(translated, 41);
}
