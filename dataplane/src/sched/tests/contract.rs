//! What holds for every scheduler, or for all of a kind.

use super::*;

/// Those whose choice is a function of the packet and the servers.
const HASHING: &[SchedulerKind] = &[
    SchedulerKind::dh,
    SchedulerKind::sh,
    SchedulerKind::mh,
    SchedulerKind::conhash,
];

/// The number of `n` clients that each server gets.
fn shares(
    service: &mut Service,
    n: u32,
    mut pick: impl FnMut(&mut Service, u32) -> Option<usize>,
) -> Vec<u32> {
    let mut shares = vec![0; service.servers.len()];
    for n in 0..n {
        shares[pick(service, n).unwrap()] += 1;
    }
    shares
}

#[test]
fn no_server_and_only_drained_servers_give_none() {
    for &kind in SchedulerKind::ALL {
        assert_eq!(picks(kind, &[], 3), [None; 3], "{}", kind.name());
        assert_eq!(picks(kind, &[0, 0], 3), [None; 3], "{}", kind.name());
    }
}

#[test]
fn nobody_picks_a_drained_or_a_full_server() {
    for &kind in SchedulerKind::ALL {
        let mut service = Service::new(kind, &candidates(&[1, 0, 3, 2]));
        service.loads.set_overloaded(ServerId(3), true);
        let picked: Vec<_> = (0..400).map(|n| service.open(n)).collect();
        let may_refuse = matches!(
            kind,
            SchedulerKind::dh | SchedulerKind::sh | SchedulerKind::mh | SchedulerKind::ovf
        );
        for at in picked {
            let right = matches!(at, Some(0 | 2)) || at.is_none() && may_refuse;
            assert!(right, "{}: {at:?}", kind.name());
        }
        for id in [0, 2] {
            service.loads.set_overloaded(ServerId(id), true);
        }
        // lblc's address keeps its server, full or not, as in Linux.
        let first = if kind == SchedulerKind::lblc { 6000 } else { 0 };
        let new = Request {
            key: None,
            destination: Ipv4Addr::new(172, 16, 0, 1).into(),
            ..request(first)
        };
        let Service {
            scheduler,
            servers,
            memory,
            loads,
            ..
        } = &mut service;
        assert_eq!(
            scheduler.pick(servers, loads, &new, memory),
            None,
            "{}",
            kind.name()
        );
    }
}

#[test]
fn a_changing_list_is_never_picked_past_its_end() {
    for &kind in SchedulerKind::ALL {
        let mut service = Service::new(kind, &[]);
        for n in (1..=20).rev().chain(1..=20) {
            service.adopt(&candidates(&vec![7; n]));
            for client in 0..n as u32 / 2 + 1 {
                let at = service.open(client);
                assert!(
                    at.is_some_and(|at| at < n) || at.is_none() && kind == SchedulerKind::ovf,
                    "{} of {n}: {at:?}",
                    kind.name()
                );
            }
        }
    }
}

/// With as many connections as weights ask for: exactly those of wrr, wlc and the like, by chance
/// those of twos and of hashing.
#[test]
fn shares_follow_weights() {
    // (scheduler, permille of all clients that a share may be off)
    for (kind, permille) in [
        (SchedulerKind::wrr, 1),
        (SchedulerKind::wlc, 1),
        (SchedulerKind::sed, 1),
        (SchedulerKind::nq, 2),
        (SchedulerKind::twos, 3),
        (SchedulerKind::dh, 15),
        (SchedulerKind::mh, 15),
        (SchedulerKind::conhash, 60),
    ] {
        for weights in [
            &[20, 10, 0, 7][..],
            &[1, 1],
            &[1, 1, 1, 1, 1],
            &[30, 60, 90],
            &[63, 1],
        ] {
            let sum: u32 = weights.iter().sum();
            let mut service = Service::new(kind, &candidates(weights));
            let got = shares(&mut service, 10_000, Service::open);
            for (got, weight) in got.into_iter().zip(weights) {
                let want = 10_000 * weight / sum;
                let off = got.abs_diff(want);
                let name = kind.name();
                assert!(
                    off <= permille * 10,
                    "{name} {weights:?}: {got}, not {want}"
                );
            }
        }
    }
}

/// sh's buckets, filled in rows, follow weights where 256 is a multiple of their sum.
#[test]
fn sh_shares_follow_weights_that_fit_its_buckets() {
    for weights in [&[1, 1][..], &[2, 4, 2], &[63, 1], &[1; 8]] {
        let sum: u32 = weights.iter().sum();
        let mut service = Service::new(SchedulerKind::sh, &candidates(weights));
        let got = shares(&mut service, 10_000, Service::open);
        for (got, weight) in got.into_iter().zip(weights) {
            let off = got.abs_diff(10_000 * weight / sum);
            assert!(off < 150, "{weights:?}: {got}");
        }
    }
}

#[test]
fn schedulers_without_weights_share_equally() {
    for kind in [SchedulerKind::rr, SchedulerKind::lc] {
        let mut service = Service::new(kind, &candidates(&[9, 1, 4]));
        assert_eq!(
            shares(&mut service, 300, Service::open),
            [100; 3],
            "{}",
            kind.name()
        );
    }
}

/// Draining, losing or filling up a server moves its own clients, and nobody else.
#[test]
fn a_server_that_drains_moves_only_its_own_clients() {
    for &kind in HASHING {
        let up = candidates(&[2, 1, 3, 1, 2]);
        let mut service = Service::new(kind, &up);
        let before: Vec<_> = (0..5000).map(|n| service.pick(n)).collect();
        let mut drained = up.clone();
        drained[2].weight = 0; // `hashed` stays: it is only down
        service.adopt(&drained);
        let now: Vec<_> = (0..5000).map(|n| service.pick(n)).collect();
        let mut heirs = [0; 5];
        for (before, now) in before.iter().zip(&now) {
            match before {
                Some(2) => heirs[now.unwrap()] += 1,
                _ => assert_eq!(before, now, "{}", kind.name()),
            }
        }
        assert!(
            heirs[2] == 0 && [0, 1, 3, 4].iter().all(|&at| heirs[at] > 0),
            "{heirs:?}"
        );
        service.adopt(&up);
        let back: Vec<_> = (0..5000).map(|n| service.pick(n)).collect();
        assert_eq!(before, back, "{}", kind.name());
    }
}

/// A server that leaves the list for good: conhash moves nobody else, mh few.
#[test]
fn a_server_that_leaves_moves_few_other_clients() {
    for (kind, permille) in [(SchedulerKind::conhash, 0), (SchedulerKind::mh, 80)] {
        let all = candidates(&[100, 100, 50, 100, 7, 100, 100, 30]);
        for gone in 0..all.len() {
            let mut fewer = all.clone();
            fewer.remove(gone);
            let (mut a, mut b) = (Service::new(kind, &all), Service::new(kind, &fewer));
            let mut moved = 0;
            for n in 0..5000 {
                let id = |service: &mut Service| service.pick(n).map(|at| service.servers[at].id);
                let (before, after) = (id(&mut a), id(&mut b));
                moved += u32::from(before != after && before != Some(all[gone].id));
            }
            assert!(
                moved <= 5 * permille,
                "{}: without {gone}, {moved} moved",
                kind.name()
            );
        }
    }
}

/// Another order in the configuration, other ids, another core, another seed: the same choice. So
/// that routers may send a client to any of several nodes.
#[test]
fn nodes_agree() {
    for &kind in HASHING {
        let one = candidates(&[3, 1, 2, 1]);
        let mut other: Vec<_> = one
            .iter()
            .map(|c| Candidate {
                id: ServerId(c.id.0 + 40),
                ..*c
            })
            .collect();
        if matches!(kind, SchedulerKind::mh | SchedulerKind::conhash) {
            other.reverse();
        }
        let mut a = Service::new(kind, &one);
        let memory = Memory::new(CoreId(3), 8, 99);
        let mut b = Service::with(kind, Options::default(), &other, memory);
        for n in 0..2000 {
            let address =
                |service: &mut Service| service.pick(n).map(|at| service.servers[at].address);
            assert_eq!(address(&mut a), address(&mut b), "{}", kind.name());
        }
    }
}

#[test]
fn the_same_seed_replays_every_choice() {
    for &kind in SchedulerKind::ALL {
        let run = || -> Vec<_> {
            let mut service = Service::new(kind, &candidates(&[5, 1, 3]));
            (0..1000).map(|n| service.open(n)).collect()
        };
        assert_eq!(run(), run(), "{}", kind.name());
    }
}

/// The largest weights and counts that there can be.
#[test]
fn nothing_overflows() {
    for &kind in SchedulerKind::ALL {
        let mut service = Service::new(
            kind,
            &candidates(&[i32::MAX as u32, 65_535, 1, i32::MAX as u32]),
        );
        for id in 0..4 {
            service
                .counters
                .servers
                .get(ServerId(id))
                .unwrap()
                .active
                .add(1 << 32);
        }
        for n in 0..100 {
            let at = service.pick(n);
            assert!(
                at.is_some() || kind == SchedulerKind::ovf,
                "{}",
                kind.name()
            );
        }
    }
}
