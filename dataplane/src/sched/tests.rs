//! The contract that every scheduler keeps, and each one's own sequence.

use super::*;
use crate::types::ServerId;

fn servers(weights: &[u32]) -> Vec<Candidate> {
    let server = |(i, &weight): (usize, &u32)| Candidate {
        id: ServerId(i as u32),
        weight,
    };
    weights.iter().enumerate().map(server).collect()
}

fn picks(kind: SchedulerKind, weights: &[u32], n: usize) -> Vec<Option<usize>> {
    let servers = servers(weights);
    let mut cursor = Cursor::default();
    (0..n)
        .map(|_| {
            kind.pick(
                View {
                    servers: &servers,
                    generation: 1,
                },
                &mut cursor,
            )
        })
        .collect()
}

#[test]
fn no_server_and_only_drained_servers_give_none() {
    for &kind in SchedulerKind::ALL {
        assert_eq!(picks(kind, &[], 3), [None; 3], "{}", kind.name());
        assert_eq!(picks(kind, &[0, 0], 3), [None; 3], "{}", kind.name());
    }
}

#[test]
fn a_drained_server_is_never_picked() {
    for &kind in SchedulerKind::ALL {
        let picked = picks(kind, &[1, 0, 3], 40);
        assert!(
            picked.iter().all(|p| matches!(p, Some(0 | 2))),
            "{}",
            kind.name()
        );
    }
}

#[test]
fn a_shrinking_list_never_picks_past_its_end() {
    for &kind in SchedulerKind::ALL {
        let mut cursor = Cursor::default();
        for n in (1..=20).rev() {
            let list = servers(&vec![7; n]);
            for _ in 0..n / 2 + 1 {
                let at = kind.pick(
                    View {
                        servers: &list,
                        generation: n as u64,
                    },
                    &mut cursor,
                );
                assert!(
                    at.is_some_and(|at| at < n),
                    "{} of {n}: {at:?}",
                    kind.name()
                );
            }
        }
    }
}

#[test]
fn rr_takes_turns() {
    let want: Vec<_> = [0, 1, 2, 0, 1, 2].map(Some).to_vec();
    assert_eq!(picks(SchedulerKind::rr, &[1, 9, 1], 6), want);
}

#[test]
fn wrr_interleaves_by_level() {
    let want: Vec<_> = [0, 0, 1, 0, 1, 2, 0, 1, 2].map(Some).to_vec();
    assert_eq!(picks(SchedulerKind::wrr, &[4, 3, 2], 9), want);
}

#[test]
fn wrr_shares_follow_weights() {
    for weights in [&[200, 100, 0, 7][..], &[1, 1], &[65_535, 1], &[30, 60, 90]] {
        let sum: u32 = weights.iter().sum();
        let g = weights
            .iter()
            .copied()
            .fold(0, |a, b| if b == 0 { a } else { super_gcd(a, b) });
        let round = (sum / g) as usize;
        let picked = picks(SchedulerKind::wrr, weights, round);
        for (i, &w) in weights.iter().enumerate() {
            let got = picked.iter().filter(|p| **p == Some(i)).count();
            assert_eq!(got, (w / g) as usize, "{weights:?}[{i}]");
        }
    }
}

fn super_gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { super_gcd(b, a % b) }
}
