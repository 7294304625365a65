//! Many cores, no DPDK: real workers in a seeded simulation, and random bytes.
//!
//! `WEIR_SEED=n` replays one seed; `WEIR_SEEDS=n` runs that many.

#[path = "../common/mod.rs"]
mod common;
mod fair;
mod limits;
mod places;
mod snat;
mod storm;

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::sync::Arc;

use common::*;
use weir_dataplane::command::{Command, Event};
use weir_dataplane::counters::DropReason;
use weir_dataplane::packet::build::{Packet, checksums_right};
use weir_dataplane::packet::tcp::flags::{ACK, FIN, PSH, SYN};
use weir_dataplane::packet::{self, Parsed};
use weir_dataplane::steer::Alignment;
use weir_dataplane::{PortId, Tick};

/// splitmix64: small, seedable, good enough to shuffle packets.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A client in the middle of its script.
struct Client {
    addr: SocketAddrV4,
    udp: bool,
    /// Steps done; a step is a packet sent and its answer received.
    step: usize,
    waiting: bool,
}

/// What a TCP client sends, step by step; the server answers each but the last.
const SCRIPT: [u8; 6] = [SYN, ACK | PSH, ACK | PSH, ACK | PSH, FIN | ACK, ACK];
const UDP_STEPS: usize = 3;

fn shape_of(rng: &mut Rng) -> Shape {
    let workers = 1 + rng.below(8) as u8;
    let rss = rng.one_in(2);
    Shape {
        workers,
        rss,
        // RSS may go unused; alignment may be believed wrongly: a stray packet still finds home.
        alignment: if rng.one_in(2) {
            Alignment::Aligned
        } else {
            Alignment::Unaligned
        },
        rx_queues: if rng.one_in(3) { 1 + rng.below(3) } else { 16 },
        tx_queues: if rng.one_in(3) { 1 + rng.below(3) } else { 16 },
        ..Shape::default()
    }
}

/// One whole simulation: clients talk through the director to servers until all are done.
fn simulate(seed: u64) {
    let mut rng = Rng(seed);
    let shape = shape_of(&mut rng);
    let mut d = Director::new(&shape);
    let mut clients: Vec<Client> = (0..60u16)
        .map(|n| Client {
            addr: SocketAddrV4::new([192, 0, 2, n as u8 % 7].into(), 1000 + n * 37),
            udp: rng.one_in(4),
            step: 0,
            waiting: false,
        })
        .collect();
    // What a server sees as its client, and who that is: never two at once.
    let mut seen: HashMap<(SocketAddrV4, SocketAddrV4), usize> = HashMap::new();
    for turn in 0..4000 {
        if clients
            .iter()
            .all(|c| c.step == if c.udp { UDP_STEPS } else { SCRIPT.len() })
        {
            break;
        }
        assert!(turn < 3999, "seed {seed}: not done after {turn} turns");
        for (n, c) in clients.iter_mut().enumerate() {
            let steps = if c.udp { UDP_STEPS } else { SCRIPT.len() };
            if c.waiting || c.step == steps || !rng.one_in(3) {
                continue;
            }
            let flags = SCRIPT[c.step];
            let packet = if c.udp {
                to_dns(c.addr)
            } else {
                to_web(c.addr, flags)
            };
            let bytes = packet.payload(&(n as u32).to_be_bytes()).build();
            for _ in 0..=usize::from(rng.one_in(10)) {
                d.deliver(WAN, &bytes, rng.below(8)); // sometimes twice, on any queue
            }
            c.waiting = c.udp || c.step + 1 < SCRIPT.len();
            c.step += usize::from(!c.waiting);
        }
        for _ in 0..rng.below(3 * usize::from(shape.workers)) {
            let worker = rng.below(usize::from(shape.workers));
            d.poll(worker);
        }
        if rng.one_in(50) {
            d.now = d.now.after(1);
        }
        if rng.one_in(100) {
            reload(&mut d, &mut rng, turn);
        }
        for (to, frame) in d.collect() {
            assert!(checksums_right(&frame), "seed {seed}");
            let Ok(Parsed::Flow(flow)) = packet::parse(&frame, false) else {
                panic!()
            };
            let (from, to_addr) = (flow.key.source4(), flow.key.destination4());
            let at = usize::from(flow.l4) + if flow.says == 0 { 8 } else { 20 };
            let n = packet::be32(&frame, at) as usize;
            let c = &mut clients[n];
            match to {
                To::Port(LAN) => {
                    let known = *seen.entry((from, to_addr)).or_insert(n);
                    assert_eq!(known, n, "seed {seed}: {from} -> {to_addr} is two clients");
                    let last = flow.says == ACK;
                    let back = match flow.says {
                        SYN => SYN | ACK,
                        f if f & FIN != 0 => FIN | ACK,
                        _ => ACK | PSH,
                    };
                    if !last {
                        let reply = answer(&frame, back).payload(&(n as u32).to_be_bytes());
                        d.deliver(LAN, &reply.build(), rng.below(8));
                    }
                }
                To::Port(_) => {
                    assert_eq!(to_addr, c.addr, "seed {seed}: an answer to somebody else");
                    assert_eq!(*from.ip(), VIP);
                    c.step += usize::from(c.waiting);
                    c.waiting = false;
                }
                To::Kernel(_) => panic!("seed {seed}: a flow went to the kernel"),
            }
        }
        d.events.clear();
    }
    d.settle();
    let _ = d.collect();
    d.assert_books();
    assert_eq!(d.totals().dropped, 0, "seed {seed}");
    assert_eq!(
        d.sum(|c| c.conns_opened.get()),
        60,
        "seed {seed}: one connection a client"
    );
    d.assert_runs_out();
    d.assert_books();
}

/// What an operator does meanwhile: another set of servers, another MAC, another route epoch.
fn reload(d: &mut Director, rng: &mut Rng, turn: usize) {
    let more = [(0, 11, 2), (1, 12, 1), (4, 13, 3)];
    let web = &more[..2 + rng.below(2)];
    let mut next = services(
        turn as u64 + 2,
        Default::default(),
        web,
        &[(2, 11, 1), (3, 13, 1)],
    );
    if web.len() == 2 {
        // The removed server stays known until its connections are gone.
        let mut b = weir_dataplane::service::SnapshotBuilder::default();
        b.servers_of(&services(
            0,
            Default::default(),
            &more,
            &[(2, 11, 1), (3, 13, 1)],
        ));
        for s in next.services() {
            b.service(Arc::new(s.clone()));
        }
        next = b.build(turn as u64 + 2);
    }
    let next = Arc::new(next);
    d.tell(|| Command::Snapshot(Arc::clone(&next)));
    let routes = Arc::new(fib(turn as u16));
    d.tell(|| Command::Fib(Arc::clone(&routes)));
    for w in 0..d.workers.len() {
        d.poll(w);
    }
}

#[test]
fn every_answer_finds_its_client_on_any_number_of_cores_and_any_nic() {
    part_of_the_seeds(0);
}

/// The same, on another of the machine's processors.
#[test]
fn every_answer_finds_its_client_on_any_number_of_cores_and_any_nic_2() {
    part_of_the_seeds(1);
}

/// Every other seed, from `first` on.
fn part_of_the_seeds(first: u64) {
    for seed in seeds(1000).filter(|seed| seed % 2 == first) {
        simulate(seed);
    }
}

/// The seeds to run: the one of `WEIR_SEED`, or as many as `WEIR_SEEDS` says in place of `usual`.
/// A failure says which seed it was.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|v| v.parse::<u64>().expect(name))
    };
    match number("WEIR_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WEIR_SEEDS").unwrap_or(usual),
    }
}

/// With RSS that matches, no frame ever changes cores; without, some do: ownership is real.
#[test]
fn aligned_ports_hand_nothing_over() {
    for (rss, alignment) in [
        (true, Alignment::Aligned),
        (true, Alignment::Unaligned),
        (false, Alignment::Aligned),
        (false, Alignment::Unaligned),
    ] {
        let mut d = Director::new(&Shape {
            rss,
            alignment,
            ..Shape::workers(4)
        });
        for n in 0..200u16 {
            let client = SocketAddrV4::new([192, 0, 2, 9].into(), 1000 + n);
            d.deliver(WAN, &to_web(client, SYN).build(), usize::from(n));
            d.settle();
            for (_, frame) in d.collect() {
                d.deliver(LAN, &answer(&frame, SYN | ACK).build(), usize::from(n));
            }
            d.settle();
            assert_eq!(d.collect().len(), 1);
        }
        let handed = d.sum(|c| c.handoff_out.get());
        assert_eq!(
            handed == 0,
            rss,
            "rss {rss}, {alignment:?}: {handed} handed over"
        );
        let shares: Vec<u32> = d.workers.iter().map(|w| w.conns().len()).collect();
        assert!(
            shares.iter().all(|&n| (25..=80).contains(&n)),
            "all work: {shares:?}"
        );
        d.assert_books();
        d.assert_runs_out();
    }
}

/// A ring that is full is a counted drop; nothing is lost track of.
#[test]
fn full_rings_and_full_queues_are_counted() {
    let mut d = Director::new(&Shape {
        handoff_room: 4,
        ..Shape::workers(3)
    });
    for n in 0..300u16 {
        let client = SocketAddrV4::new([192, 0, 2, 9].into(), 1000 + n);
        d.deliver(WAN, &to_web(client, SYN).build(), 0);
    }
    for _ in 0..20 {
        d.poll(0);
    }
    assert!(d.drops(DropReason::HandoffFull) > 100);
    let _ = d.collect();
    d.assert_books();
    assert_eq!(d.totals().held, 8, "four on each of the two rings");
    d.settle();
    let _ = d.collect();
    d.assert_books();
    assert_eq!(d.totals().held, 0);
    d.assert_runs_out();
}

/// More than a million random, mutated and truncated packets: no panic, no leak, exact books.
#[test]
fn a_million_bad_packets() {
    let mut rng = Rng(0xbad);
    let mut d = Director::new(&Shape {
        max_connections: 500,
        ..Shape::workers(2)
    });
    let at = |s: &str| s.parse::<std::net::SocketAddr>().unwrap();
    let good = [
        to_web(addr("192.0.2.7:40000"), SYN)
            .payload(&[7; 40])
            .build(),
        to_dns(addr("192.0.2.8:5353")).payload(&[8; 40]).build(),
        Packet::tcp(at("[2001:db8::7]:4000"), at("[2001:db8::64]:80"), SYN)
            .macs(ROUTER_MAC, WAN_MAC)
            .build(),
    ];
    let mut sent = 0u64;
    while sent < 1_050_000 {
        for _ in 0..64 {
            let mut f = good[rng.below(3)].clone();
            match rng.below(8) {
                0 => f = (0..rng.below(100)).map(|_| rng.next() as u8).collect(),
                1 => f.truncate(rng.below(f.len() + 1)),
                2 => {
                    // A new client, so that the table fills and evicts.
                    f[26..30].copy_from_slice(&(rng.next() as u32).to_be_bytes());
                    packet::checksum::set_ipv4(&mut f);
                }
                n => {
                    for _ in 0..n {
                        let at = rng.below(f.len());
                        f[at] = rng.next() as u8;
                    }
                    if rng.one_in(2) && f[14] & 0x0f >= 5 && f.len() >= 14 + 60 {
                        packet::checksum::set_ipv4(&mut f);
                    }
                }
            }
            let port = PortId(u8::from(rng.one_in(4)));
            d.deliver(port, &f, rng.below(2));
            sent += 1;
        }
        if rng.one_in(20) {
            d.now = d.now.after(rng.below(200) as u32);
        }
        d.settle();
        let _ = d.collect();
        d.events.retain(|e| !matches!(e, Event::Resolve { .. }));
    }
    let t = d.totals();
    assert_eq!(t.rx, sent);
    d.assert_books();
    use DropReason::*;
    for reason in [
        RuntFrame,
        NotOurMac,
        BadIpHeader,
        BadIpChecksum,
        BadTcpHeader,
        BadUdpHeader,
        BadSource,
        BadFragment,
        BadIp6Header,
        BadIp6Extension,
        TtlExpired,
        NoConnection,
    ] {
        assert!(d.drops(reason) > 0, "{} was never met", reason.name());
    }
    assert!(
        d.sum(|c| c.conns_evicted.get()) > 0 && t.tx > 10_000 && t.to_kernel > 0,
        "{t:?}"
    );
    d.now = d.now.after(Tick::seconds(10));
    d.settle();
    let _ = d.collect();
    d.assert_runs_out();
    assert_eq!(d.pool.live(), 0, "every frame went back");
}
