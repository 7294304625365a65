//! Every packet that the kernel wrapped, wrapped here: the same bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_dataplane::CoreId;
use weir_dataplane::forward::tun::{self, Ends, GueChecksum, Tunnel};
use weir_dataplane::io::Frame;
use weir_dataplane::io::sim::SimPool;
use weir_dataplane::packet::ids::IpIds;
use weir_dataplane::packet::{checksum, fragment};

use crate::recording::{Case, Side, Step, cases};

pub(crate) fn tunnel(case: &Case) -> Option<Tunnel> {
    let gue = |checksum| Tunnel::Gue {
        port: case.server_option("--tun-port").unwrap().parse().unwrap(),
        checksum,
    };
    Some(match case.mode.as_str() {
        "TUN-ipip" => Tunnel::Ipip,
        "TUN-gre" => Tunnel::Gre { checksum: false },
        "TUN-gre-csum" => Tunnel::Gre { checksum: true },
        "TUN-gue" => gue(GueChecksum::None),
        "TUN-gue-csum" => gue(GueChecksum::Full),
        "TUN-gue-remcsum" => gue(GueChecksum::Remote),
        _ => return None,
    })
}

pub(crate) fn ends(server: IpAddr) -> Ends {
    let director = match server {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(10, 0, 2, 254)),
        IpAddr::V6(_) => IpAddr::V6("2001:db8:2::fe".parse::<Ipv6Addr>().unwrap()),
    };
    Ends::new(director, server).unwrap()
}

pub(crate) fn word(f: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([f[at], f[at + 1]])
}

/// The inner packet as it stands after the pipeline's part: TTL lowered, checksum completed.
fn forwarded(step: &Step, wrapped: &[u8]) -> Vec<u8> {
    let mut f = step.frame.clone();
    if word(&f, 12) == 0x0800 {
        f[22] -= 1;
        checksum::set_ipv4(&mut f);
    } else {
        f[21] -= 1;
    }
    if !step.partial {
        return f;
    }
    // What was partial on arrival is complete in what the kernel sent: its last bytes.
    let len = match word(&f, 12) {
        0x0800 => usize::from(word(&f, 16)),
        _ => 40 + usize::from(word(&f, 18)),
    };
    let l4 = if word(&f, 12) == 0x0800 { 20 } else { 40 };
    let inner = &wrapped[wrapped.len() - len..];
    f[14 + l4..14 + len].copy_from_slice(&inner[l4..]);
    f
}

/// Blanks what the recording says is variable: the outer identification without DF, and the
/// source port of GUE with the sum over it.
fn masked(frame: &[u8], tunnel: Tunnel) -> Vec<u8> {
    let mut f = frame[12..].to_vec(); // MAC addresses are not the tunnel's
    let v4 = word(&f, 0) == 0x0800;
    if v4 && word(&f, 8) & 0x4000 == 0 {
        f[6..8].fill(0);
        f[12..14].fill(0);
    }
    let ip = if v4 { 20 } else { 40 };
    if matches!(tunnel, Tunnel::Gue { .. }) {
        let udp = &mut f[2 + ip..];
        if word(udp, 6) != 0 {
            // Without the source port the sum is the same on both sides.
            let sum = u32::from(word(udp, 6)) + u32::from(word(udp, 0));
            let mut sum = checksum::fold(sum);
            if sum == 0xffff {
                sum = 0;
            }
            udp[6..8].copy_from_slice(&sum.to_be_bytes());
        }
        udp[0..2].fill(0);
    }
    f
}

#[test]
fn the_kernel_wraps_the_same() {
    let pool = SimPool::default();
    let mut ids = IpIds::new(CoreId(0), 1, 0);
    let (mut compared, mut kinds) = (0, std::collections::BTreeSet::new());
    for case in cases() {
        let Some(tunnel) = tunnel(&case) else {
            continue;
        };
        for step in &case.steps {
            // Fragments are put together again by the kernel, errors about the tunnel are another
            // room's, and a packet cut in two is the fragmenter's.
            let [(Side::Server, wrapped)] = &step.out[..] else {
                continue;
            };
            let fragment = match word(&step.frame, 12) {
                0x0800 => word(&step.frame, 20) & 0x3fff != 0,
                _ => step.frame[20] == 44,
            };
            let nested = match word(&step.frame, 12) {
                0x0800 => step.frame[23] == 1,
                _ => step.frame[20] == 58,
            };
            if step.arrives != Side::Client || fragment || nested {
                continue;
            }
            let what = format!("{}: {}", case.name, step.note);
            let mut frame = pool.frame(&forwarded(step, wrapped));
            let before = frame.bytes().len();
            tun::encapsulate(
                &mut frame,
                tunnel,
                ends(case.server()),
                0x1234_5678,
                case.pmtu_disc,
                &mut ids,
            )
            .unwrap_or_else(|e| panic!("{what}: {e:?}"));
            assert_eq!(
                masked(frame.bytes(), tunnel),
                masked(wrapped, tunnel),
                "{what}"
            );
            if !step.note.contains("padding") {
                let grown = frame.bytes().len() - before;
                assert_eq!(grown, usize::from(tunnel.overhead(case.server())), "{what}");
            }
            compared += 1;
            kinds.insert((case.mode.clone(), step.frame[12], case.server().is_ipv6()));
        }
    }
    assert_eq!((compared, kinds.len()), (875, 20));
}

/// Packets that were too big for the server's link and not to be refused: cut as the kernel cuts.
#[test]
fn the_kernel_cuts_the_same() {
    let pool = SimPool::default();
    let mut ids = IpIds::new(CoreId(0), 1, 0);
    let (mut v4, mut v6) = (0, 0);
    for case in cases().iter().filter(|c| c.mode != "NAT") {
        for step in &case.steps {
            let to_server = step.out.iter().all(|(side, _)| *side == Side::Server);
            // The kernel reassembles fragments and cuts what comes out; Weir passes them on.
            if step.out.len() < 2 || !to_server || step.note.contains("fragments") {
                continue;
            }
            let what = format!("{}: {}", case.name, step.note);
            let mut frame = pool.frame(&forwarded(step, &[]));
            if let Some(tunnel) = tunnel(case) {
                let (ends, hash) = (ends(case.server()), 0x1234_5678);
                tun::encapsulate(&mut frame, tunnel, ends, hash, case.pmtu_disc, &mut ids).unwrap();
            }
            let mtu = match step.note.starts_with("after the too big") {
                true => 1200, // what the error before it said
                false => case.server_mtu,
            };
            let pieces = fragment::cut(frame, mtu, &mut ids).unwrap();
            assert_eq!(pieces.len(), step.out.len(), "{what}");
            for (nth, (ours, (_, theirs))) in pieces.iter().zip(&step.out).enumerate() {
                // The director's own identifications vary, and what is summed over GUE's port.
                let masked = |f: &[u8]| {
                    let mut f = f[12..].to_vec();
                    if tunnel(case).is_none() {
                        return f;
                    }
                    let ip = if word(&f, 0) == 0x0800 {
                        f[6..8].fill(0);
                        f[12..14].fill(0);
                        22
                    } else {
                        f[46..50].fill(0);
                        50
                    };
                    if nth == 0 && matches!(tunnel(case), Some(Tunnel::Gue { .. })) {
                        f[ip..ip + 2].fill(0);
                        f[ip + 6..ip + 8].fill(0);
                    }
                    f
                };
                assert_eq!(masked(ours.bytes()), masked(theirs), "{what}: piece {nth}");
            }
            match word(pieces[0].bytes(), 12) {
                0x0800 => v4 += 1,
                _ => v6 += 1,
            }
        }
    }
    assert_eq!((v4, v6), (93, 42));
}
