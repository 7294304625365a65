//! The contract that every scheduler keeps, and each one's own sequence.

mod contract;
mod destinations;
mod oracle;

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::*;
use crate::counters::WorkerCounters;
use crate::types::{CoreId, ServerId};

fn candidate(id: u32, weight: u32) -> Candidate {
    let address = SocketAddr::from(([10, 1, 0, id as u8 + 11], 8080));
    Candidate::new(ServerId(id), address, weight)
}

fn candidates(weights: &[u32]) -> Vec<Candidate> {
    weights
        .iter()
        .zip(0..)
        .map(|(&weight, id)| candidate(id, weight))
        .collect()
}

/// The first packet of the `n`th client, each from an address and port of its own, to one of many
/// virtual addresses.
fn request(n: u32) -> Request {
    let source = Ipv4Addr::from(0xcb00_0000 + n.wrapping_mul(0x9e37) % 0x00ff_fff1);
    Request {
        key: None,
        source: SocketAddr::new(source.into(), 1024 + (n % 60_000) as u16),
        destination: Ipv4Addr::from(0x0a00_0000 + n % 5003).into(),
        now: Tick(n / 100),
    }
}

/// One service in one worker.
struct Service {
    scheduler: Scheduler,
    servers: Vec<Candidate>,
    memory: Memory,
    counters: Arc<WorkerCounters>,
    loads: Loads,
}

impl Service {
    fn new(kind: SchedulerKind, servers: &[Candidate]) -> Service {
        Service::with(
            kind,
            Options::default(),
            servers,
            Memory::new(CoreId(0), 1, 1),
        )
    }

    fn with(
        kind: SchedulerKind,
        options: Options,
        servers: &[Candidate],
        memory: Memory,
    ) -> Service {
        let counters = Arc::new(WorkerCounters::new(0));
        counters.servers.reserve(ServerId(0));
        let mut loads = Loads::new(Arc::clone(&counters), vec![]);
        loads.watch(256, std::iter::empty());
        let mut service = Service {
            scheduler: Scheduler::new(kind, options, &[]),
            servers: vec![],
            memory,
            counters,
            loads,
        };
        service.adopt(servers);
        service
    }

    fn adopt(&mut self, servers: &[Candidate]) {
        let (kind, options) = (self.scheduler.kind(), self.scheduler.options());
        self.scheduler = self.scheduler.renewed(kind, options, servers);
        self.memory.adopt(&self.servers, &self.scheduler, servers);
        self.servers = servers.to_vec();
    }

    /// Which server the `n`th client gets; its connection is not counted.
    fn pick(&mut self, n: u32) -> Option<usize> {
        let Service {
            scheduler,
            servers,
            memory,
            loads,
            ..
        } = self;
        scheduler.pick(servers, loads, &request(n), memory)
    }

    /// As `pick`, and its connection stays.
    fn open(&mut self, n: u32) -> Option<usize> {
        let at = self.pick(n)?;
        self.counters
            .servers
            .get(self.servers[at].id)
            .unwrap()
            .active
            .add(1);
        Some(at)
    }
}

/// The first `n` picks.
fn picks(kind: SchedulerKind, weights: &[u32], n: u32) -> Vec<Option<usize>> {
    let mut service = Service::new(kind, &candidates(weights));
    (0..n).map(|n| service.pick(n)).collect()
}

#[test]
fn rr_takes_turns() {
    let want = [0, 1, 2, 0, 1, 2].map(Some);
    assert_eq!(picks(SchedulerKind::rr, &[1, 9, 1], 6), want);
}

#[test]
fn rr_goes_on_where_it_was_when_servers_come_and_go() {
    let all = candidates(&[1; 5]);
    let mut service = Service::new(SchedulerKind::rr, &all[..4]);
    assert_eq!([0, 1].map(|n| service.pick(n)), [Some(0), Some(1)]);
    service.adopt(&[all[4], all[0], all[1], all[2], all[3]]);
    assert_eq!(
        service.pick(2),
        Some(3),
        "the one behind the last, now one further"
    );
    service.adopt(&[all[0], all[3]]);
    assert_eq!(
        service.pick(3),
        Some(1),
        "the last is gone: behind the one before it"
    );
    service.adopt(&[]);
    assert_eq!(service.pick(4), None);
    service.adopt(&all);
    assert_eq!(service.pick(5), Some(0));
}

#[test]
fn wrr_interleaves_by_level_from_the_lowest() {
    let want = [0, 1, 2, 0, 0, 1, 0, 1, 2, 0, 1, 2].map(Some);
    assert_eq!(picks(SchedulerKind::wrr, &[4, 3, 2], 12), want);
}

/// 65,535 levels, and the only server that reaches the higher ones is full: no walk through them.
#[test]
fn wrr_skips_levels_that_nobody_reaches() {
    let mut service = Service::new(SchedulerKind::wrr, &candidates(&[65_535, 1]));
    service.loads.set_overloaded(ServerId(0), true);
    let start = std::time::Instant::now();
    for n in 0..100_000 {
        assert_eq!(service.pick(n), Some(1));
    }
    assert!(start.elapsed().as_secs() < 2);
}

#[test]
fn workers_of_round_robin_start_apart() {
    for kind in [SchedulerKind::rr, SchedulerKind::wrr] {
        let first = |core| {
            let memory = Memory::new(CoreId(core), 4, 1);
            let servers = candidates(&[3; 8]);
            Service::with(kind, Options::default(), &servers, memory).pick(0)
        };
        assert_eq!(
            [0, 1, 2, 3].map(first),
            [0, 2, 4, 6].map(Some),
            "{}",
            kind.name()
        );
    }
}

#[test]
fn ovf_fills_one_after_the_other() {
    let mut service = Service::new(SchedulerKind::ovf, &candidates(&[2, 5, 2]));
    let got: Vec<_> = (0..13).map(|n| service.open(n)).collect();
    let want = [1, 1, 1, 1, 1, 1, 0, 0, 0, 2, 2, 2].map(Some);
    assert_eq!(
        (&got[..12], got[12]),
        (&want[..], None),
        "weight + 1 each, then nobody"
    );
}

#[test]
fn only_fallback_leaves_a_full_server() {
    for kind in [SchedulerKind::sh, SchedulerKind::mh] {
        for fallback in [false, true] {
            let options = Options {
                fallback,
                ..Options::default()
            };
            let memory = Memory::new(CoreId(0), 1, 1);
            let mut service = Service::with(kind, options, &candidates(&[1; 4]), memory);
            let before: Vec<_> = (0..500).map(|n| service.pick(n)).collect();
            service.loads.set_overloaded(ServerId(2), true);
            for (before, n) in before.into_iter().zip(0..) {
                match (service.pick(n), before) {
                    (now, Some(2)) => assert_eq!(now.is_some(), fallback),
                    (now, before) => assert_eq!(now, before),
                }
            }
        }
    }
}

#[test]
fn the_port_counts_where_the_flag_says_so() {
    for kind in [SchedulerKind::sh, SchedulerKind::mh] {
        for port in [false, true] {
            let options = Options {
                port,
                ..Options::default()
            };
            let memory = Memory::new(CoreId(0), 1, 1);
            let servers = candidates(&[1; 8]);
            let Service {
                scheduler,
                servers,
                mut memory,
                mut loads,
                ..
            } = Service::with(kind, options, &servers, memory);
            let mut chosen = [false; 8];
            for port in 1..500 {
                let mut request = request(0);
                request.source.set_port(port);
                let at = scheduler
                    .pick(&servers, &mut loads, &request, &mut memory)
                    .unwrap();
                chosen[at] = true;
            }
            let servers = chosen.iter().filter(|c| **c).count();
            assert_eq!(servers, if port { 8 } else { 1 }, "{}", kind.name());
        }
    }
}

#[test]
fn tables_are_kept_while_their_servers_stay_the_same() {
    let servers = candidates(&[1, 2]);
    let options = Options::default();
    let old = Scheduler::new(SchedulerKind::mh, options, &servers);
    let same = old.renewed(SchedulerKind::mh, options, &servers);
    assert!(std::ptr::eq(old.table(), same.table()));
    let rows = Options {
        rows: Rows::new(251).unwrap(),
        ..options
    };
    for new in [
        old.renewed(SchedulerKind::mh, rows, &servers),
        old.renewed(SchedulerKind::sh, options, &servers),
        old.renewed(SchedulerKind::mh, options, &servers[..1]),
    ] {
        assert!(!std::ptr::eq(old.table(), new.table()));
    }
    assert_eq!(Rows::new(4099), None);
}

/// Linux's hashes, as other programs compute them.
#[test]
fn hashes_are_linuxs() {
    use super::hash::{bucket, fold, hsip, wide};
    let v4 = Ipv4Addr::new(192, 0, 2, 1).into();
    assert_eq!(fold(v4), 0xc000_0201);
    assert_eq!(
        fold("2001:db8:1:2:3:4:5:6".parse().unwrap()),
        0x2001_0db8 ^ 0x0001_0002 ^ 0x0003_0004 ^ 0x0005_0006
    );
    assert_eq!(
        u32::from(bucket(v4, 0)),
        0xc000_0201u32.wrapping_mul(0x61c8_8647) >> 24
    );
    assert_eq!(bucket(v4, 7), bucket(Ipv4Addr::new(192, 0, 2, 8).into(), 0));
    assert_ne!(hsip(1, 2), hsip(2, 2));
    assert_ne!(wide(b"a", 1), wide(b"a", 2));
}
