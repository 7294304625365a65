use std::sync::Arc;

use super::*;
use crate::types::PortId;

fn ip(a: [u8; 4]) -> u32 {
    u32::from_be_bytes(a)
}

/// Microsoft's "Verifying the RSS hash calculation", IPv4 with TCP.
#[test]
fn microsofts_vectors() {
    let t = Toeplitz::new(MICROSOFT_KEY);
    for (dst, dport, src, sport, hash) in [
        (
            [161, 142, 100, 80],
            1766,
            [66, 9, 149, 187],
            2794,
            0x51cc_c178,
        ),
        (
            [65, 69, 140, 83],
            4739,
            [199, 92, 111, 2],
            14230,
            0xc626_b0ea,
        ),
        (
            [12, 22, 207, 184],
            38024,
            [24, 19, 198, 95],
            12898,
            0x5c2b_394a,
        ),
        (
            [209, 142, 163, 6],
            2217,
            [38, 27, 205, 30],
            48228,
            0xafc7_327f,
        ),
        (
            [202, 188, 127, 2],
            1303,
            [153, 39, 163, 191],
            44251,
            0x10e8_28a2,
        ),
    ] {
        assert_eq!(t.hash4(ip(src), ip(dst), sport, dport), hash);
        assert_eq!(
            t.hash4(ip(src), ip(dst), sport, 0) ^ t.dport_part(dport),
            hash
        );
    }
}

#[test]
fn every_bucket_has_one_owner_and_shares_differ_by_one_at_most() {
    for workers in 1..=128u8 {
        let toeplitz = Arc::new(Toeplitz::new(MICROSOFT_KEY));
        let steer = Steer::new(CoreId(0), workers, toeplitz);
        let shares: Vec<_> = (0..workers)
            .map(|c| steer.buckets_of(CoreId(c)).count())
            .collect();
        assert_eq!(shares.iter().sum::<usize>(), BUCKETS);
        assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
    }
}

#[test]
fn mesh_connects_every_two_workers_and_nobody_to_itself() {
    let mut links = mesh::<usize>(3, 4);
    for (from, worker) in links.iter_mut().enumerate() {
        for (to, ring) in worker.out.iter_mut().enumerate() {
            assert_eq!(ring.is_none(), from == to);
            if let Some(ring) = ring {
                let (frame, kind) = (from * 10 + to, HandoffKind::Process);
                ring.push(Handoff {
                    frame,
                    port: PortId(0),
                    kind,
                })
                .unwrap();
            }
        }
    }
    for (to, worker) in links.iter_mut().enumerate() {
        for (from, ring) in worker.into.iter_mut().enumerate() {
            assert_eq!(ring.is_none(), from == to);
            if let Some(ring) = ring {
                assert_eq!(ring.pop().unwrap().frame, from * 10 + to);
            }
        }
    }
}
