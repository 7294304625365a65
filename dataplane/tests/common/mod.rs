//! A whole director without DPDK: real workers on simulated ports, one thread, one seed.
//!
//! ```text
//!  clients 192.0.2.0/24 .. -- 10.0.0.1 -- wan0 [10.0.0.2, VIP 10.0.0.10] lan0 -- 10.1.0.11-13
//! ```
// Each test binary uses its own part, and nothing outside sees it.
#![allow(dead_code, unreachable_pub)]

pub mod snat;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};
use weir_dataplane::command::{Command, ConnPage, ConnView, Event};
use weir_dataplane::conn::Pages;
use weir_dataplane::conn::state::Timeouts;
use weir_dataplane::counters::{DropReason, Totals, WorkerCounters};
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::io::RxChecksum;
use weir_dataplane::io::sim::{SimFrame, SimPool, SimPort, SimQueue, Spread};
use weir_dataplane::packet::build::Packet;
use weir_dataplane::route::{Fib, NeighbourId, NeighbourUpdate, Route, RouteTarget};
use weir_dataplane::sched::{Options, Scheduler, SchedulerKind};
use weir_dataplane::service::{Candidate, Server, Service, ServiceKey, Snapshot, SnapshotBuilder};
use weir_dataplane::steer::{
    Alignment, KernelEnd, KernelFrame, MICROSOFT_KEY, Steer, Toeplitz, kernel_rings, mesh,
};
use weir_dataplane::worker::{Setup, Worker, WorkerPort};
use weir_dataplane::{CoreId, Mac, PortId, Proto, ServerId, ServiceId, Tick};

pub const WAN: PortId = PortId(0);
pub const LAN: PortId = PortId(1);
pub const WAN_MAC: Mac = Mac([2, 0, 0, 0, 0x0d, 0]);
pub const LAN_MAC: Mac = Mac([2, 0, 0, 0, 0x0d, 1]);
pub const ROUTER_MAC: Mac = Mac([2, 0, 0, 0, 1, 1]);
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
pub const LIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);

pub fn server_mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 2, n])
}

pub fn server_addr(n: u8, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, n), port)
}

pub fn addr(s: &str) -> SocketAddrV4 {
    s.parse().unwrap()
}

/// How the director's ports deliver, and what it is made of.
#[derive(Debug, Clone)]
pub struct Shape {
    pub workers: u8,
    /// RSS that matches the ownership function; else any packet on any queue.
    pub rss: bool,
    /// What the workers believe of the ports.
    pub alignment: Alignment,
    pub rx_queues: usize,
    pub tx_queues: usize,
    pub max_connections: u32,
    pub fill_checksums: bool,
    pub handoff_room: usize,
    /// Neighbours that the director knows from the start.
    pub neighbours: bool,
    pub timeouts: Timeouts,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            workers: 1,
            rss: false,
            alignment: Alignment::Unaligned,
            rx_queues: 16,
            tx_queues: 16,
            max_connections: 10_000,
            fill_checksums: false,
            handoff_room: 1024,
            neighbours: true,
            timeouts: Timeouts::default(),
        }
    }
}

impl Shape {
    pub fn workers(workers: u8) -> Shape {
        Shape {
            workers,
            ..Shape::default()
        }
    }
}

/// The services that most tests use: `web` wrr on VIP:80 with servers 11 (weight 2) and 12
/// (weight 1) at :8080, `dns` rr on VIP:53/udp with servers 11 and 13 at :53.
pub fn snapshot(generation: u64, timeouts: Timeouts) -> Snapshot {
    services(
        generation,
        timeouts,
        &[(0, 11, 2), (1, 12, 1)],
        &[(2, 11, 1), (3, 13, 1)],
    )
}

/// As [`snapshot`], with these `(server id, host, weight)` in `web` and in `dns`.
pub fn services(
    generation: u64,
    timeouts: Timeouts,
    web: &[(u32, u8, u32)],
    dns: &[(u32, u8, u32)],
) -> Snapshot {
    let mut b = SnapshotBuilder::default().timeouts(timeouts);
    for (id, name, proto, port, rport, scheduler, servers) in [
        (0, "web", Proto::Tcp, 80, 8080, SchedulerKind::wrr, web),
        (1, "dns", Proto::Udp, 53, 53, SchedulerKind::rr, dns),
    ] {
        for &(server, host, _) in servers {
            b.server(Server {
                id: ServerId(server),
                service: ServiceId(id),
                address: server_addr(host, rport).into(),
                forward: ForwardMode::fullnat,
                tunnel: None,
                policy: Default::default(),
            });
        }
        let candidate = |&(id, host, weight): &(u32, u8, u32)| {
            Candidate::new(ServerId(id), server_addr(host, rport).into(), weight)
        };
        let candidates: Vec<_> = servers.iter().map(candidate).collect();
        b.service(Arc::new(Service {
            id: ServiceId(id),
            name: name.into(),
            key: ServiceKey::Address {
                proto,
                vip: VIP.into(),
                port,
            },
            scheduler: Scheduler::new(scheduler, Options::default(), &candidates),
            servers: candidates,
            client_address: Default::default(),
            policy: Default::default(),
            local_addresses: [LIP, Ipv4Addr::new(10, 1, 0, 101)]
                .map(IpAddr::V4)
                .into_iter()
                .collect(),
        }));
    }
    b.build(generation)
}

/// A route out of a port, through a gateway or to neighbours.
pub fn route(prefix: &str, len: u8, port: PortId, gateway: Option<&str>, source: &str) -> Route {
    Route {
        prefix: prefix.parse().unwrap(),
        len,
        target: RouteTarget::Port {
            port,
            gateway: gateway.map(|g| g.parse().unwrap()),
            source: Some(source.parse().unwrap()),
        },
    }
}

pub fn fib(epoch: u16) -> Fib {
    Fib::new(
        epoch,
        &[
            route("0.0.0.0", 0, WAN, Some("10.0.0.1"), "10.0.0.2"),
            route("10.0.0.0", 24, WAN, None, "10.0.0.2"),
            route("10.1.0.0", 24, LAN, None, "10.1.0.2"),
            route("::", 0, WAN, Some("2001:db8:0::1"), "2001:db8:0::2"),
            route("2001:db8:0::", 64, WAN, None, "2001:db8:0::2"),
            route("2001:db8:1::", 64, LAN, None, "2001:db8:1::2"),
        ],
    )
}

pub fn router() -> NeighbourUpdate {
    NeighbourUpdate {
        id: NeighbourId(0),
        port: WAN,
        addr: ROUTER.into(),
        mac: Some(ROUTER_MAC),
    }
}

pub fn server_neighbour(n: u8) -> NeighbourUpdate {
    NeighbourUpdate {
        id: NeighbourId(u16::from(n)),
        port: LAN,
        addr: server_addr(n, 0).ip().to_owned().into(),
        mac: Some(server_mac(n)),
    }
}

/// The router's and the servers' IPv6 addresses: 2001:db8:1::11 and so on.
pub fn neighbours6() -> Vec<NeighbourUpdate> {
    let at = |id, port, addr: String, mac| NeighbourUpdate {
        id: NeighbourId(id),
        port,
        addr: addr.parse().unwrap(),
        mac: Some(mac),
    };
    let router = at(100, WAN, "2001:db8:0::1".into(), ROUTER_MAC);
    let server = |n: u8| {
        let addr = format!("2001:db8:1::{n}");
        at(100 + u16::from(n), LAN, addr, server_mac(n))
    };
    let servers = (11..=13).map(server);
    std::iter::once(router).chain(servers).collect()
}

/// The counters of worker `me`, then those of its peers.
fn others_last(counters: &[Arc<WorkerCounters>], me: usize) -> Vec<Arc<WorkerCounters>> {
    let mut counters = counters.to_vec();
    counters.swap(0, me);
    counters
}

/// The director and everything around it.
pub struct Director {
    pub workers: Vec<Worker<SimQueue>>,
    pub counters: Vec<Arc<WorkerCounters>>,
    pub wan: SimPort,
    pub lan: SimPort,
    pub pool: SimPool,
    pub now: Tick,
    pub events: Vec<Event>,
    commands: Vec<Producer<Command>>,
    answers: Vec<Consumer<Event>>,
    kernel: Vec<KernelEnd<SimFrame>>,
}

impl Director {
    pub fn new(shape: &Shape) -> Director {
        let toeplitz = Arc::new(Toeplitz::new(MICROSOFT_KEY));
        let steer = |me| Steer::new(CoreId(me), shape.workers, Arc::clone(&toeplitz));
        let n = usize::from(shape.workers);
        let port = || {
            let spread = if shape.rss {
                Spread::Rss(steer(0))
            } else {
                Spread::Anywhere
            };
            SimPort::new(n, shape.rx_queues, shape.tx_queues, spread)
        };
        let ((wan, wan_ends), (lan, lan_ends)) = (port(), port());
        let now = Tick(u32::MAX - 1000); // time wraps early in every test
        let mut d = Director {
            workers: vec![],
            counters: vec![],
            wan,
            lan,
            pool: SimPool::default(),
            now,
            events: vec![],
            commands: vec![],
            answers: vec![],
            kernel: vec![],
        };
        let snapshot = Arc::new(snapshot(1, shape.timeouts));
        let ends = wan_ends
            .into_iter()
            .zip(lan_ends)
            .zip(mesh(shape.workers, shape.handoff_room));
        let counters: Vec<Arc<WorkerCounters>> =
            (0..n).map(|_| Arc::new(WorkerCounters::new(2))).collect();
        for (me, ((wan, lan), links)) in (0..shape.workers).zip(ends) {
            let counters = others_last(&counters, me.into());
            counters[0].reserve(&snapshot);
            for id in 0..12 {
                counters[0].servers.reserve(ServerId(id));
            }
            let (kernel, twin) = kernel_rings(256);
            let (say, commands) = RingBuffer::new(64);
            let (events, hear) = RingBuffer::new(64);
            let port = |id, queue, mac| WorkerPort {
                id,
                queue,
                mac,
                mtu: 1500,
                alignment: shape.alignment,
                tx_queues: shape.tx_queues.min(n) as u8,
                fill_checksums: shape.fill_checksums,
            };
            let setup = Setup {
                ports: vec![port(WAN, wan, WAN_MAC), port(LAN, lan, LAN_MAC)],
                steer: steer(me),
                pool: Box::new(d.pool.clone()),
                links,
                kernel,
                commands,
                events,
                counters: Arc::clone(&counters[0]),
                peers: counters[1..].to_vec(),
                max_connections: shape.max_connections,
                max_connections6: shape.max_connections,
                pages: Pages::Plain,
                secret: [1, 2, 3, u64::from(me)],
                snapshot: Arc::clone(&snapshot),
                fib: Arc::new(fib(1)),
                now,
            };
            d.workers.push(Worker::new(setup).unwrap());
            d.counters.push(Arc::clone(&counters[0]));
            d.kernel.push(twin);
            d.commands.push(say);
            d.answers.push(hear);
        }
        if shape.neighbours {
            d.tell(|| Command::Neighbour(router()));
            for n in 11..=13 {
                d.tell(|| Command::Neighbour(server_neighbour(n)));
            }
            for neighbour in neighbours6() {
                d.tell(|| Command::Neighbour(neighbour));
            }
            d.settle();
        }
        d
    }

    /// Gives every worker other services, as control does.
    pub fn publish(&mut self, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        self.counters.iter().for_each(|c| c.reserve(&snapshot));
        self.tell(|| Command::Snapshot(Arc::clone(&snapshot)));
    }

    /// Tells every worker.
    pub fn tell(&mut self, command: impl Fn() -> Command) {
        for ring in &mut self.commands {
            ring.push(command()).unwrap();
        }
    }

    /// Polls everyone until nobody has anything to do.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let work: usize = self.workers.iter_mut().map(|w| w.poll_once(self.now)).sum();
            self.hear();
            if work == 0 {
                return;
            }
        }
        panic!("the workers never come to rest");
    }

    fn hear(&mut self) {
        for ring in &mut self.answers {
            while let Ok(event) = ring.pop() {
                self.events.push(event);
            }
        }
    }

    /// All connections, as listings show them.
    pub fn listing(&mut self) -> Vec<ConnView> {
        let mut all = Vec::new();
        for worker in 0..self.workers.len() {
            let mut cursor = Some(0);
            while let Some(at) = cursor {
                let mut page = ConnPage::new(CoreId(0), 10_000);
                (page.cursor, page.scan) = (at, u32::MAX);
                self.commands[worker]
                    .push(Command::ListConns(page))
                    .unwrap();
                self.events.clear();
                self.settle();
                let Some(Event::Conns(page)) = self.events.pop() else {
                    panic!("{:?}", self.events)
                };
                all.extend(page.found);
                cursor = (!page.done).then_some(page.cursor);
            }
        }
        all
    }

    /// One worker's turn.
    pub fn poll(&mut self, worker: usize) {
        self.workers[worker].poll_once(self.now);
        self.hear();
    }

    pub fn port(&self, port: PortId) -> &SimPort {
        if port == WAN { &self.wan } else { &self.lan }
    }

    pub fn deliver(&self, port: PortId, bytes: &[u8], queue: usize) {
        self.port(port).deliver(self.pool.frame(bytes), queue);
    }

    pub fn deliver_with(&self, port: PortId, bytes: &[u8], checksum: RxChecksum) {
        self.port(port)
            .deliver(self.pool.frame_with(bytes, checksum), 0);
    }

    /// Delivers, lets everyone work, and takes what was sent and passed to the kernel.
    pub fn exchange(&mut self, port: PortId, bytes: &[u8]) -> Vec<(To, Vec<u8>)> {
        self.deliver(port, bytes, 0);
        self.settle();
        self.collect()
    }

    /// Everything that has left the workers.
    pub fn collect(&mut self) -> Vec<(To, Vec<u8>)> {
        use weir_dataplane::io::Frame;
        let mut out = Vec::new();
        for port in [WAN, LAN] {
            while let Some(frame) = self.port(port).sent() {
                out.push((To::Port(port), frame.bytes().to_vec()));
            }
        }
        for kernel in &mut self.kernel {
            while let Ok(KernelFrame { port, frame }) = kernel.into.pop() {
                out.push((To::Kernel(port), frame.bytes().to_vec()));
            }
        }
        out
    }

    /// The kernel sends a frame out of `port` through `worker`.
    pub fn kernel_sends(&mut self, worker: usize, port: PortId, bytes: &[u8]) {
        let frame = self.pool.frame(bytes);
        self.kernel[worker]
            .out
            .push(KernelFrame { port, frame })
            .unwrap();
    }

    pub fn totals(&self) -> Totals {
        Totals::of(self.counters.iter().map(|c| &**c))
    }

    pub fn drops(&self, reason: DropReason) -> u64 {
        self.counters
            .iter()
            .map(|c| c.drops[reason as usize].get())
            .sum()
    }

    pub fn sum(&self, cell: impl Fn(&WorkerCounters) -> u64) -> u64 {
        self.counters.iter().map(|c| cell(c)).sum()
    }

    /// Every packet in exactly one column, and no frame lives but the held ones.
    pub fn assert_books(&self) {
        let t = self.totals();
        assert!(t.balanced(), "{t:?}");
        assert_eq!(
            self.pool.live() as u64,
            t.held,
            "frames that live against frames held: {t:?}"
        );
    }

    /// Lets time pass until every connection has run out; nothing may be left of them.
    pub fn assert_runs_out(&mut self) {
        self.now = self.now.after(Tick::seconds(1000));
        self.settle();
        for (w, c) in self.workers.iter().zip(&self.counters) {
            assert_eq!(w.conns().len(), 0);
            assert_eq!(c.conns.get(), 0);
            for id in 0..12 {
                let s = c.servers.get(ServerId(id)).unwrap();
                assert_eq!((s.active.get(), s.inactive.get()), (0, 0), "server {id}");
            }
        }
        let opened = self.sum(|c| c.conns_opened.get());
        let ended = self.sum(|c| {
            c.conns_expired.get()
                + c.conns_evicted.get()
                + c.conns_denied.get()
                + c.conns_shed.get()
                + c.conns_reused.get()
                + c.lip_early_reuse.get()
        });
        assert_eq!(opened, ended, "every connection ends once");
    }
}

/// Where a frame went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum To {
    Port(PortId),
    Kernel(PortId),
}

/// A TCP packet from a client to the web service.
pub fn to_web(client: SocketAddrV4, flags: u8) -> Packet {
    Packet::tcp(client, SocketAddrV4::new(VIP, 80), flags).macs(ROUTER_MAC, WAN_MAC)
}

/// A UDP packet from a client to the dns service.
pub fn to_dns(client: SocketAddrV4) -> Packet {
    Packet::udp(client, SocketAddrV4::new(VIP, 53)).macs(ROUTER_MAC, WAN_MAC)
}

/// A frame's protocol, where it comes from and where it goes.
pub fn ends(frame: &[u8]) -> (Proto, SocketAddr, SocketAddr) {
    use weir_dataplane::packet::{Key, Parsed, parse};
    match parse(frame, false) {
        Ok(Parsed::Flow(f)) => (f.key.proto, f.key.source(), f.key.destination()),
        Ok(Parsed::Flow6(f)) => (f.key.proto, f.key.source(), f.key.destination()),
        other => panic!("no flow: {other:?} {frame:02x?}"),
    }
}

/// The answer of whoever got `frame`: addresses and ports swapped.
pub fn answer(frame: &[u8], flags: u8) -> Packet {
    use weir_dataplane::packet::eth;
    let (proto, src, dst) = ends(frame);
    let packet = match proto {
        Proto::Tcp => Packet::tcp(dst, src, flags),
        Proto::Udp => Packet::udp(dst, src),
        Proto::Sctp => Packet::sctp(dst, src, &[(0, b"data")]),
        Proto::Icmp => unreachable!("an echo is no flow at the door"),
    };
    packet.macs(eth::dst(frame), eth::src(frame))
}

/// A packet without DF, cut into parts for `mtu`.
pub fn parts(packet: &[u8], mtu: u16) -> Vec<Vec<u8>> {
    use weir_dataplane::io::Frame;
    use weir_dataplane::packet::ids::IpIds;
    use weir_dataplane::packet::{checksum, fragment};
    let mut whole = packet.to_vec();
    if whole[12..14] == [8, 0] {
        whole[20] = 0;
        checksum::set_ipv4(&mut whole);
    }
    let mut ids = IpIds::new(CoreId(0), 1, 77);
    let frame = BigFrame(whole);
    let parts = fragment::cut(frame, mtu, &mut ids).unwrap();
    parts.iter().map(|p| p.bytes().to_vec()).collect()
}

/// A frame of any length: datagrams before they are cut.
#[derive(Debug)]
struct BigFrame(Vec<u8>);

impl weir_dataplane::io::Frame for BigFrame {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
    fn push_front(&mut self, n: usize) -> bool {
        self.0.splice(..0, std::iter::repeat_n(0, n));
        true
    }
    fn pull_front(&mut self, n: usize) {
        self.0.drain(..n);
    }
    fn set_len(&mut self, len: usize) -> bool {
        self.0.resize(len, 0);
        true
    }
    fn rx_checksum(&self) -> RxChecksum {
        RxChecksum::default()
    }
    fn another(&self, len: usize) -> Option<BigFrame> {
        Some(BigFrame(vec![0; len]))
    }
}

/// Puts the parts of one datagram, in any order, together again: the packet that was cut, its
/// identification 0. `None` when a part is missing or they are not of one datagram.
pub fn reassembled(parts: &[Vec<u8>]) -> Option<Vec<u8>> {
    use weir_dataplane::packet::{be16, be32, checksum, put16};
    let first = parts.first()?;
    let v6 = first[12..14] == [0x86, 0xdd];
    // Where the data begins, its place, whether more follow, the identification.
    let read = |f: &[u8]| {
        if v6 {
            let word = be16(f, 56);
            (62, word & 0xfff8, word & 1 != 0, be32(f, 58))
        } else {
            let word = be16(f, 20);
            (34, word << 3, word & 0x2000 != 0, be16(f, 18).into())
        }
    };
    let mut parts: Vec<_> = parts.iter().map(|f| (read(f), f)).collect();
    parts.sort_by_key(|((_, at, ..), _)| *at);
    let mut whole = first[..if v6 { 54 } else { 34 }].to_vec();
    let headers = whole.len();
    let last = parts.len() - 1;
    for (nth, ((data, at, more, id), f)) in parts.iter().enumerate() {
        let right = whole.len() - headers == usize::from(*at)
            && *more == (nth < last)
            && *id == parts[0].0.3;
        if !right {
            return None;
        }
        whole.extend_from_slice(&f[*data..]);
    }
    if v6 {
        whole[20] = first[54];
        let len = (whole.len() - 54) as u16;
        put16(&mut whole, 18, len);
    } else {
        let len = (whole.len() - 14) as u16;
        put16(&mut whole, 16, len);
        whole[18..22].fill(0);
        checksum::set_ipv4(&mut whole);
    }
    Some(whole)
}
