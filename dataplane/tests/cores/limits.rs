//! Thresholds and limits on many cores: the sum is right wherever the traffic lands.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::sync::Arc;

use weir_dataplane::counters::DropReason;
use weir_dataplane::packet::tcp::flags::{ACK, PSH, RST, SYN};
use weir_dataplane::packet::{self, Parsed};
use weir_dataplane::sched::{Options, Scheduler, SchedulerKind};
use weir_dataplane::service::{
    Excess, Limits, Policy, Rates, Server, ServerPolicy, Snapshot, SnapshotBuilder, Thresholds,
};
use weir_dataplane::steer::{Alignment, MICROSOFT_KEY, Steer, Toeplitz};
use weir_dataplane::{CoreId, ServerId, Tick};

use crate::common::*;
use crate::{Rng, seeds};

/// The usual services, `web` with this scheduler and these limits, its servers with these
/// thresholds.
pub(crate) fn limited(kind: SchedulerKind, thresholds: Thresholds, limits: Limits) -> Snapshot {
    let plain = snapshot(0, Default::default());
    let mut b = SnapshotBuilder::default();
    for server in plain.servers() {
        let policy = match server.service.0 {
            0 => ServerPolicy {
                thresholds,
                ..ServerPolicy::default()
            },
            _ => ServerPolicy::default(),
        };
        b.server(Server { policy, ..*server });
    }
    for service in plain.services() {
        let mut service = service.clone();
        if service.id.0 == 0 {
            service.policy = Policy {
                limits,
                ..Policy::default()
            };
            service.scheduler = Scheduler::new(kind, Options::default(), &service.servers);
        }
        b.service(Arc::new(service));
    }
    b.build(2)
}

fn director(workers: u8, rng: &mut Rng, snapshot: Snapshot) -> Director {
    let alignment = [Alignment::Aligned, Alignment::Unaligned][rng.below(2)];
    let mut d = Director::new(&Shape {
        workers,
        rss: rng.one_in(2),
        alignment,
        ..Shape::default()
    });
    d.publish(snapshot);
    d.settle();
    d.events.clear();
    d
}

fn client(n: usize) -> SocketAddrV4 {
    let (net, host) = ((n >> 22) as u8, n as u8);
    SocketAddrV4::new([192, 0, net, host].into(), 1024 + (n >> 8 & 0x3fff) as u16)
}

/// Connections of server `id`, over all workers.
pub(crate) fn standing(d: &Director, id: u32) -> u64 {
    d.sum(|c| {
        let cells = c.servers.get(ServerId(id)).unwrap();
        cells.active.get() + cells.inactive.get()
    })
}

/// Sends SYNs of these clients and lets workers take their turns in any order; the most that
/// server `id` had meanwhile.
fn open(d: &mut Director, rng: &mut Rng, clients: impl Iterator<Item = usize>, id: u32) -> u64 {
    let mut most = 0;
    for n in clients {
        d.deliver(WAN, &to_web(client(n), SYN).build(), rng.below(16));
        for _ in 0..rng.below(3) {
            let worker = rng.below(d.workers.len());
            d.poll(worker);
            most = most.max(standing(d, id));
        }
        if rng.one_in(60) {
            d.now = d.now.after(1);
        }
        if rng.one_in(30) {
            let _ = d.collect();
        }
    }
    d.settle();
    let _ = d.collect();
    most.max(standing(d, id))
}

/// Lets the time pass that a connection in CLOSE has (10 s, and the wheel's next turn), and a few
/// ticks, in which overload is looked at.
fn close_time(d: &mut Director) {
    for _ in 0..14 {
        d.now = d.now.after(Tick::seconds(1));
        d.settle();
    }
    for _ in 0..4 {
        d.now = d.now.after(1);
        d.settle();
    }
}

/// A server takes as many connections as its threshold says and not one more, on any number of
/// cores; nothing leaks while they come and go.
#[test]
fn a_threshold_is_kept() {
    for seed in seeds(60) {
        let mut rng = Rng(seed ^ 0x7e57);
        let workers = 1 + rng.below(16) as u8;
        let kinds = [
            SchedulerKind::rr,
            SchedulerKind::wlc,
            SchedulerKind::nq,
            SchedulerKind::mh,
        ];
        let kind = kinds[rng.below(4)];
        // Two servers: with 11's and 12's threshold 100 the service takes 200.
        let thresholds = Thresholds {
            upper: 100,
            lower: 0,
        };
        let none = Limits::default();
        let mut d = director(workers, &mut rng, limited(kind, thresholds, none));
        let mut next = 0..;
        for round in 0..3 {
            let what = format!("seed {seed}, {workers} workers, {}, {round}", kind.name());
            let most = open(&mut d, &mut rng, next.by_ref().take(400), 0);
            assert!(most <= 100, "{what}: {most}");
            let all = standing(&d, 0) + standing(&d, 1);
            match kind {
                // A client whose server is full gets none: some buckets may have no taker.
                SchedulerKind::mh => assert!((150..=200).contains(&all), "{what}: {all}"),
                _ => assert!((198..=200).contains(&all), "{what}: {all}"),
            }
            // All of them are reset, and are gone after the time that CLOSE has.
            for n in 0..400 * (round + 1) {
                d.deliver(WAN, &to_web(client(n), RST).build(), rng.below(16));
                if rng.one_in(20) {
                    d.settle();
                }
            }
            d.settle();
            let _ = d.collect();
            for _ in 0..130 {
                d.now = d.now.after(64);
                d.settle();
            }
            assert_eq!(standing(&d, 0) + standing(&d, 1), 0, "{what}");
            let announced = |c: &weir_dataplane::counters::WorkerCounters| {
                c.servers.get(ServerId(0)).unwrap().announced.get()
            };
            assert!(d.sum(announced) <= u64::from(workers), "{what}: a leak");
        }
        assert!(d.drops(DropReason::ServersFull) > 0, "seed {seed}");
        d.assert_books();
        d.assert_runs_out();
    }
}

/// A full server gets no connections until it has fewer than the lower threshold, whichever core
/// they land on.
#[test]
fn a_full_server_waits_for_the_lower_threshold() {
    for workers in [1, 2, 5, 16] {
        let mut rng = Rng(u64::from(workers));
        let thresholds = Thresholds {
            upper: 100,
            lower: 60,
        };
        let none = Limits::default();
        let snapshot = limited(SchedulerKind::rr, thresholds, none);
        let mut d = director(workers, &mut rng, snapshot);
        open(&mut d, &mut rng, 0..300, 0);
        assert_eq!((standing(&d, 0), standing(&d, 1)), (100, 100));
        // Whose is whose, by what is listed.
        let mut of_first: Vec<_> = d.listing().into_iter().collect();
        of_first.retain(|conn| conn.server_id == ServerId(0));
        let mut end = |d: &mut Director, n: usize| {
            for conn in of_first.drain(..n) {
                let std::net::SocketAddr::V4(client) = conn.client else {
                    panic!()
                };
                // A SYN alone is not reset: LVS's table stays in SYN_RECV.
                d.deliver(WAN, &to_web(client, ACK).build(), 0);
                d.deliver(WAN, &to_web(client, RST).build(), 0);
                d.settle();
                let _ = d.collect();
            }
            close_time(d);
        };
        end(&mut d, 40);
        assert_eq!(standing(&d, 0), 60);
        open(&mut d, &mut rng, 1000..1100, 0);
        assert_eq!(standing(&d, 0), 60, "{workers}: full still");
        end(&mut d, 1);
        open(&mut d, &mut rng, 2000..2200, 0);
        assert_eq!(standing(&d, 0), 100, "{workers}: and again");
    }
}

/// Far below a large threshold workers take places in blocks; near it nobody keeps any.
#[test]
fn a_large_threshold_is_kept_too() {
    for workers in [1, 4, 16] {
        let mut rng = Rng(u64::from(workers));
        let thresholds = Thresholds {
            upper: 3000,
            lower: 0,
        };
        let none = Limits::default();
        let snapshot = limited(SchedulerKind::wlc, thresholds, none);
        let mut d = director(workers, &mut rng, snapshot);
        let most = open(&mut d, &mut rng, 0..7000, 0);
        assert!(most <= 3000, "{workers}: {most}");
        d.now = d.now.after(1);
        d.settle();
        open(&mut d, &mut rng, 7000..7200, 0);
        let all = standing(&d, 0) + standing(&d, 1);
        assert!((5998..=6000).contains(&all), "{workers}: {all}");
    }
}

/// A service's connections, and new ones a second: right within 3 % on any number of cores, on one
/// or on all of them.
#[test]
fn a_service_limited_to_1000_connections_a_second_gets_them() {
    for workers in [1, 2, 7, 16] {
        for spread in [true, false] {
            let mut rng = Rng(u64::from(workers));
            let limits = Limits {
                service: Rates {
                    connections_per_second: 1000,
                    ..Rates::default()
                },
                ..Limits::default()
            };
            let none = Thresholds::default();
            let snapshot = limited(SchedulerKind::rr, none, limits);
            let mut d = director(workers, &mut rng, snapshot);
            // On one core: clients whose flows one worker owns are found by trying.
            let toeplitz = Arc::new(Toeplitz::new(MICROSOFT_KEY));
            let steer = Steer::new(CoreId(0), workers, toeplitz);
            let lands = |n: &usize| match packet::parse(&to_web(client(*n), SYN).build(), false) {
                Ok(Parsed::Flow(flow)) => spread || steer.owner(&flow.key) == CoreId(0),
                _ => false,
            };
            let mut clients = (0..).filter(lands);
            let mut at_first = 0;
            for tick in 0..64 * 5 {
                for n in clients.by_ref().take(40) {
                    d.deliver(WAN, &to_web(client(n), SYN).build(), rng.below(16));
                }
                d.settle();
                let _ = d.collect();
                d.now = d.now.after(1);
                if tick == 63 {
                    at_first = d.sum(|c| c.conns_opened.get());
                }
            }
            let opened = d.sum(|c| c.conns_opened.get()) - at_first;
            let what = format!("{workers} workers, spread {spread}");
            assert!((3880..=4120).contains(&opened), "{what}: {opened}");
            assert!((1000..=1150).contains(&at_first), "{what}: {at_first}");
            let refused = d.drops(DropReason::ServiceConnectionRate);
            assert_eq!(refused, 40 * 320 - opened - at_first, "{what}");
            d.assert_books();
        }
    }
}

/// Each client has its connections and its rate; nobody else is touched by one that wants more.
#[test]
fn a_client_has_its_own_limits() {
    for workers in [1, 3, 16] {
        let mut rng = Rng(u64::from(workers));
        let limits = Limits {
            client: Rates {
                connections: 50,
                ..Rates::default()
            },
            excess: Excess::Reset,
            ..Limits::default()
        };
        let none = Thresholds::default();
        let snapshot = limited(SchedulerKind::rr, none, limits);
        let mut d = director(workers, &mut rng, snapshot);
        let from = |host: u8, port: u16| SocketAddrV4::new([192, 0, 2, host].into(), port);
        let mut answers = 0;
        for port in 0..200 {
            for host in [7, 8] {
                if host == 7 || port < 40 {
                    d.deliver(WAN, &to_web(from(host, 2000 + port), SYN).build(), 0);
                }
            }
            d.settle();
            let out = d.collect();
            answers += out.iter().filter(|(to, _)| *to == To::Port(WAN)).count();
        }
        let mut of: HashMap<_, u32> = HashMap::new();
        for conn in d.listing() {
            *of.entry(conn.client.ip().to_string()).or_default() += 1;
        }
        assert_eq!((of["192.0.2.7"], of["192.0.2.8"]), (50, 40), "{workers}");
        assert_eq!(d.drops(DropReason::ClientConnections), 150);
        assert_eq!(answers, 150, "each is reset");
        // A place that comes free is taken again.
        d.deliver(WAN, &to_web(from(7, 2000), ACK).build(), 0);
        d.deliver(WAN, &to_web(from(7, 2000), RST).build(), 0);
        d.settle();
        close_time(&mut d);
        for port in [3000, 3001] {
            d.deliver(WAN, &to_web(from(7, port), SYN).build(), 0);
        }
        d.settle();
        let _ = d.collect();
        assert_eq!(d.drops(DropReason::ClientConnections), 151);
        d.assert_books();
        d.assert_runs_out();
        assert_eq!(
            d.sum(|c| {
                c.services
                    .get(weir_dataplane::ServiceId(0))
                    .unwrap()
                    .connections
                    .get()
            }),
            0
        );
    }
}

/// Packets of connections that stand: a thousand a second for the service and what they say is
/// forwarded as without a limit.
#[test]
fn packets_of_a_service_limited_to_1000_a_second() {
    for workers in [1, 4, 16] {
        let mut rng = Rng(u64::from(workers));
        let limits = Limits {
            service: Rates {
                packets_per_second: 1000,
                ..Rates::default()
            },
            client: Rates {
                packets_per_second: 900,
                ..Rates::default()
            },
            prefix4: 24, // all of them are one client
            ..Limits::default()
        };
        let none = Thresholds::default();
        let snapshot = limited(SchedulerKind::rr, none, limits);
        let mut d = director(workers, &mut rng, snapshot);
        for n in 0..64 {
            d.deliver(WAN, &to_web(client(n), SYN).build(), 0);
            d.settle();
            d.now = d.now.after(1);
        }
        d.now = d.now.after(16);
        d.settle();
        let _ = d.collect();
        let mut passed = 0;
        for _ in 0..64 * 4 {
            for _ in 0..40 {
                let packet = to_web(client(rng.below(64)), ACK | PSH).payload(&[1; 100]);
                d.deliver(WAN, &packet.build(), rng.below(16));
            }
            d.settle();
            passed += d.collect().len();
            d.now = d.now.after(1);
        }
        let least = 4 * 900 - 30;
        assert!(
            (least..=4 * 900 + 140 + 16).contains(&passed),
            "{workers}: {passed}"
        );
        let refused = d.drops(DropReason::ClientPacketRate) as usize;
        assert_eq!(passed + refused, 64 * 4 * 40);
        d.assert_books();
    }
}
