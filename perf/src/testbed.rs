//! One worker between a client side and a server side, and flows through it.
//!
//! ```text
//!  clients -- wan [worker, VIP 10.0.0.10:80] lan -- 8 servers 10.1.0.11-18:8080
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};
use weir_dataplane::command::{Command, Event};
use weir_dataplane::conn::Pages;
use weir_dataplane::conn::state::{State, Timeouts};
use weir_dataplane::counters::WorkerCounters;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::io::Frame;
use weir_dataplane::packet::build::Packet;
use weir_dataplane::packet::tcp::flags::{ACK, SYN};
use weir_dataplane::packet::{Key, Key4, Parsed, parse};
use weir_dataplane::route::{Fib, NeighbourId, NeighbourUpdate, Route, RouteTarget};
use weir_dataplane::sched::{Options, Scheduler, SchedulerKind};
use weir_dataplane::service::{Candidate, Server, Service, ServiceKey, Snapshot, SnapshotBuilder};
use weir_dataplane::steer::{
    Alignment, KernelEnd, Links, MICROSOFT_KEY, Steer, Toeplitz, kernel_rings, mesh,
};
use weir_dataplane::worker::{Setup, Worker, WorkerPort};
use weir_dataplane::{CoreId, Mac, PortId, Proto, ServerId, ServiceId, Tick};

use crate::port::{BenchFrame, BenchQueue, NoPool, Wire, buffers, port};

/// Buffers in flight: a NIC's ring and a little more, 16 MB of memory.
pub(crate) const BUFFERS: usize = 8192;
const SERVERS: u32 = 8;
pub(crate) const WAN: PortId = PortId(0);
const LAN: PortId = PortId(1);
pub(crate) const MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 0x0d, 0]), Mac([2, 0, 0, 0, 0x0d, 1])];
pub(crate) const PEER: Mac = Mac([2, 0, 0, 0, 1, 1]);

/// Which side a frame arrives on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// A worker's place among the workers.
pub(crate) struct Seat {
    pub(crate) steer: Steer,
    pub(crate) links: Links<BenchFrame>,
    pub(crate) alignment: Alignment,
    pub(crate) mode: ForwardMode,
}

/// The worker and what surrounds it.
pub(crate) struct Testbed {
    pub(crate) worker: Worker<BenchQueue>,
    mode: ForwardMode,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) now: Tick,
    wires: [Wire; 2],
    spare: Vec<BenchFrame>,
    /// Kept so that the rings stay open.
    _control: (Producer<Command>, Consumer<Event>, KernelEnd<BenchFrame>),
}

/// The `n`th client.
pub(crate) fn client(n: u64) -> SocketAddrV4 {
    let (host, port) = (n / 60_000, n % 60_000);
    SocketAddrV4::new(
        Ipv4Addr::from(0x6400_0000 + host as u32),
        2000 + port as u16,
    )
}

pub(crate) const VIP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 10), 80);

/// The service with its servers, reached by `mode`, and local addresses for `connections`
/// connections; closing states last `closing` seconds.
pub(crate) fn snapshot(
    connections: u32,
    closing: u32,
    mode: ForwardMode,
    counters: &WorkerCounters,
) -> Snapshot {
    let mut timeouts = Timeouts::default();
    for s in [
        State::FinWait,
        State::TimeWait,
        State::Close,
        State::CloseWait,
        State::LastAck,
    ] {
        timeouts.set(s, Tick::seconds(closing));
    }
    let mut b = SnapshotBuilder::default().timeouts(timeouts);
    let mut servers = Vec::new();
    for n in 0..SERVERS {
        let id = ServerId(n);
        counters.servers.reserve(id);
        let port = if mode.maps_ports() { 8080 } else { VIP.port() };
        let address = SocketAddr::from(([10, 1, 0, 11 + n as u8], port));
        b.server(Server {
            id,
            service: ServiceId(0),
            address,
            forward: mode,
            tunnel: None,
            policy: Default::default(),
        });
        servers.push(Candidate::new(id, address, 1));
    }
    // Three quarters of the local ports in use at the most.
    let per_address = u64::from(SERVERS) * 48_000;
    let addresses = u64::from(connections).div_ceil(per_address).max(1) as u32;
    b.service(Arc::new(Service {
        id: ServiceId(0),
        name: "bench".into(),
        key: ServiceKey::Address {
            proto: Proto::Tcp,
            vip: IpAddr::V4(*VIP.ip()),
            port: VIP.port(),
        },
        scheduler: Scheduler::new(SchedulerKind::wrr, Options::default(), &servers),
        servers,
        client_address: Default::default(),
        policy: Default::default(),
        local_addresses: (0..addresses)
            .map(|n| IpAddr::V4(Ipv4Addr::from(0x0a02_0001 + n)))
            .collect(),
    }));
    b.build(1)
}

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// Clients behind a gateway on the first port, servers on port `lan`.
pub(crate) fn fib(lan: PortId) -> Fib {
    let via = |port, gateway: Option<Ipv4Addr>| RouteTarget::Port {
        port,
        gateway: gateway.map(IpAddr::V4),
        source: Some(IpAddr::from([10, 1, 0, 2])),
    };
    let net = |a: [u8; 4], len, target| Route {
        prefix: a.into(),
        len,
        target,
    };
    Fib::new(
        1,
        &[
            net([0, 0, 0, 0], 0, via(WAN, Some(GATEWAY))),
            net([10, 1, 0, 0], 24, via(lan, None)),
        ],
    )
}

/// The MAC address of the gateway and of every server, as control would tell them.
pub(crate) fn neighbours(lan: PortId) -> impl Iterator<Item = NeighbourUpdate> {
    let server = move |n: u32| (lan, Ipv4Addr::new(10, 1, 0, 11 + n as u8));
    std::iter::once((WAN, GATEWAY))
        .chain((0..SERVERS).map(server))
        .zip(0..)
        .map(|((port, addr), id)| NeighbourUpdate {
            id: NeighbourId(id),
            port,
            addr: addr.into(),
            mac: Some(PEER),
        })
}

impl Testbed {
    /// A FULL-NAT worker with room for `connections`; closing states last `closing` seconds.
    pub(crate) fn new(connections: u32, closing: u32) -> anyhow::Result<Testbed> {
        Testbed::of(ForwardMode::fullnat, connections, closing)
    }

    /// As `new`, with servers reached by `mode`.
    pub(crate) fn of(mode: ForwardMode, connections: u32, closing: u32) -> anyhow::Result<Testbed> {
        let links = mesh(1, 8)
            .pop()
            .ok_or_else(|| anyhow::anyhow!("no links"))?;
        let toeplitz = Arc::new(Toeplitz::new(MICROSOFT_KEY));
        let seat = Seat {
            steer: Steer::new(CoreId(0), 1, toeplitz),
            links,
            alignment: Alignment::Aligned,
            mode,
        };
        Testbed::at(seat, connections, closing)
    }

    /// As `new`, for one of several workers.
    pub(crate) fn at(seat: Seat, connections: u32, closing: u32) -> anyhow::Result<Testbed> {
        let counters = Arc::new(WorkerCounters::new(2));
        let snapshot = snapshot(connections, closing, seat.mode, &counters);
        let ((wan, wan_end), (lan, lan_end)) = (port(BUFFERS), port(BUFFERS));
        let (kernel, twin) = kernel_rings(256);
        let (mut say, commands) = RingBuffer::new(64);
        let (events, hear) = RingBuffer::new(64);
        for update in neighbours(LAN) {
            say.push(Command::Neighbour(update))?;
        }
        let now = Tick(0);
        let end = |id: PortId, queue| WorkerPort {
            id,
            queue,
            mac: MACS[usize::from(id.0)],
            mtu: 1500,
            alignment: seat.alignment,
            tx_queues: seat.steer.workers(),
            fill_checksums: false,
        };
        let worker = Worker::new(Setup {
            ports: vec![end(WAN, wan_end), end(LAN, lan_end)],
            steer: seat.steer,
            pool: Box::new(NoPool),
            links: seat.links,
            kernel,
            commands,
            events,
            counters: Arc::clone(&counters),
            peers: vec![],
            max_connections: connections,
            max_connections6: 1,
            pages: Pages::Huge,
            secret: [0x5eed, 2, 3, 4],
            snapshot: Arc::new(snapshot),
            fib: Arc::new(fib(LAN)),
            now,
        })?;
        let mut t = Testbed {
            worker,
            counters,
            mode: seat.mode,
            now,
            wires: [wan, lan],
            spare: buffers(BUFFERS)?,
            _control: (say, hear, twin),
        };
        for _ in 0..8 {
            t.worker.poll_once(now);
        }
        Ok(t)
    }

    /// Puts a frame on a side's receive ring; false when no buffer or room is left.
    pub(crate) fn deliver(&mut self, side: Side, bytes: &[u8]) -> bool {
        let wire = &mut self.wires[side as usize];
        let Some(mut frame) = self.spare.pop() else {
            return false;
        };
        frame.fill(bytes);
        match wire.rx.push(frame) {
            Ok(()) => true,
            Err(rtrb::PushError::Full(frame)) => {
                self.spare.push(frame);
                false
            }
        }
    }

    /// Lets the worker take all that was delivered. Returns its turns.
    pub(crate) fn drain(&mut self) -> u64 {
        let mut turns = 0;
        while self.worker.poll_once(self.now) > 0 {
            turns += 1;
        }
        turns
    }

    /// Takes what was sent, each frame's bytes to `each`, and the buffers back.
    pub(crate) fn collect(&mut self, mut each: impl FnMut(Side, &[u8])) -> usize {
        let mut n = 0;
        for (side, wire) in [Side::Client, Side::Server]
            .into_iter()
            .zip(&mut self.wires)
        {
            while let Ok(frame) = wire.tx.pop() {
                each(side, frame.bytes());
                self.spare.push(frame);
                n += 1;
            }
        }
        // Frames that were dropped freed their buffers: make new ones, outside any timing.
        if self.spare.len() < BUFFERS {
            let lost = BUFFERS - self.spare.len();
            self.spare.extend(buffers(lost).into_iter().flatten());
        }
        n
    }

    /// Opens connections `0..flows` with full handshakes, as far as they pass the director; what
    /// the servers' packets carry.
    pub(crate) fn open(&mut self, flows: u64) -> anyhow::Result<Vec<(u64, u32)>> {
        let one_way = self.mode.is_one_way();
        let mut keys = vec![(0, 0); flows as usize];
        let mut first = 0;
        while first < flows {
            let batch = (flows - first).min(BUFFERS as u64 / 2);
            let all = first..first + batch;
            all.clone().for_each(|n| {
                self.deliver(Side::Client, &to_vip(n, SYN, 60));
            });
            self.drain();
            let mut at = first;
            self.collect(|side, bytes| {
                if let (Side::Server, Ok(Parsed::Flow(flow))) = (side, parse(bytes, true)) {
                    let reply = flow.key.reversed();
                    keys[at as usize] = (reply.addrs, reply.ports);
                }
                at += u64::from(side == Side::Server);
            });
            anyhow::ensure!(
                at == first + batch,
                "{} SYNs were not forwarded",
                first + batch - at
            );
            let answered = if one_way { first } else { at };
            for &key in &keys[first as usize..answered as usize] {
                self.deliver(Side::Server, &from_server(key, SYN | ACK, 60));
            }
            self.drain();
            self.collect(|_, _| {});
            all.for_each(|n| {
                self.deliver(Side::Client, &to_vip(n, ACK, 60));
            });
            self.drain();
            self.collect(|_, _| {});
            first += batch;
        }
        Ok(keys)
    }
}

fn padded(packet: Packet, len: usize) -> Vec<u8> {
    let header = 14 + 20 + 20;
    let mut bytes = packet
        .payload(&vec![0; len.saturating_sub(header.max(60))])
        .build();
    bytes.resize(bytes.len().max(60), 0);
    bytes
}

/// A packet of client `n`, `len` bytes without FCS.
pub(crate) fn to_vip(n: u64, flags: u8, len: usize) -> Vec<u8> {
    padded(Packet::tcp(client(n), VIP, flags).macs(PEER, MACS[0]), len)
}

/// A packet of a server with this key.
pub(crate) fn from_server((addrs, ports): (u64, u32), flags: u8, len: usize) -> Vec<u8> {
    let key = Key4 {
        addrs,
        ports,
        proto: Proto::Tcp,
    };
    padded(
        Packet::tcp(key.source4(), key.destination4(), flags).macs(PEER, MACS[1]),
        len,
    )
}

/// Small and fast randomness: splitmix64.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % n
    }

    /// As `below` for `n` up to 2^32, without a division.
    #[cfg(feature = "dpdk")]
    #[inline]
    pub(crate) fn quick(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((z >> 32) * n) >> 32
    }
}
