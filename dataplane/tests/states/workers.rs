//! The rows through a real worker: where each packet goes, what becomes of the connection, its
//! server's gauges and the counters. The recording's NAT rows run in NAT and in FULL-NAT.
//!
//! The clock stands still, so a connection shows its full timeout. Rows with the same mode and
//! sysctls share a director; each has a client of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weir_dataplane::command::{Command, ConnView};
use weir_dataplane::conn::state::{Direction, Rules, Standing, State, Timeouts};
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::packet::build::Packet as Frame;
use weir_dataplane::packet::eth;
use weir_dataplane::packet::tcp::flags::{ACK, SYN};
use weir_dataplane::sched::{Options, Scheduler, SchedulerKind};
use weir_dataplane::service::{Candidate, Server, Service, ServiceKey, Snapshot, SnapshotBuilder};
use weir_dataplane::{Proto, ServerId, ServiceId, Tick};

use crate::common::{
    Director, LAN, LAN_MAC, ROUTER_MAC, Shape, To, WAN, WAN_MAC, ends, server_mac,
};
use crate::oracle::{Out, Packet, Row, Seen, What, on_purpose_unlike_lvs, rows};

const PROTOS: [Proto; 3] = [Proto::Tcp, Proto::Udp, Proto::Sctp];

/// The addresses of one family.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    vip: &'static str,
    /// But for the port.
    client: &'static str,
    servers: [&'static str; 2],
    locals: [&'static str; 2],
}

pub(crate) const V4: Addresses = Addresses {
    vip: "10.0.0.10:80",
    client: "192.0.2.1",
    servers: ["10.1.0.11:80", "10.1.0.12:80"],
    locals: ["10.1.0.100", "10.1.0.101"],
};
const V6: Addresses = Addresses {
    vip: "[2001:db8::10]:80",
    client: "2001:db8:c::7",
    servers: ["[2001:db8:1::11]:80", "[2001:db8:1::12]:80"],
    locals: ["2001:db8:1::64", "2001:db8:1::65"],
};

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

/// Two servers, 11 and 12, of a service for each protocol; with the standing of each.
fn snapshot(
    generation: u64,
    addresses: Addresses,
    mode: ForwardMode,
    rules: Rules,
    standings: [Standing; 2],
) -> Snapshot {
    let mut b = SnapshotBuilder::default().rules(rules);
    for (service, proto) in (0..).zip(PROTOS) {
        let mut servers = Vec::new();
        for (n, standing) in (0..2).zip(standings) {
            let id = ServerId(2 * service + n);
            let address = at(addresses.servers[n as usize]);
            b.server(Server {
                id,
                service: ServiceId(service),
                address,
                forward: mode,
                tunnel: None,
                policy: Default::default(),
            });
            let weight = u32::from(standing == Standing::Up);
            if standing != Standing::Gone {
                servers.push(Candidate::new(id, address, weight));
            }
        }
        let locals = addresses.locals.map(|a| a.parse::<IpAddr>().unwrap());
        b.service(Arc::new(Service {
            id: ServiceId(service),
            name: "s".into(),
            key: ServiceKey::Address {
                proto,
                vip: at(addresses.vip).ip(),
                port: 80,
            },
            scheduler: Scheduler::new(SchedulerKind::rr, Options::default(), &servers),
            servers,
            client_address: Default::default(),
            policy: Default::default(),
            local_addresses: locals.into_iter().collect(),
        }));
    }
    b.build(generation)
}

/// A director with one mode and one set of rules, and clients enough for all rows.
pub(crate) struct Lab {
    pub(crate) director: Director,
    addresses: Addresses,
    mode: ForwardMode,
    rules: Rules,
    /// Two servers that stand, or one, as the recording had.
    all: [Standing; 2],
    clients: u16,
    generation: u64,
}

/// Whether a frame is a message about another one.
fn is_icmp(frame: &[u8]) -> bool {
    use weir_dataplane::packet::{Kind, Parsed, parse};
    let found = parse(frame, false);
    matches!(found, Ok(Parsed::Other(Kind::Icmp4 | Kind::Icmp6)))
}

/// One row's connection, as its two ends know it.
pub(crate) struct Talk {
    client: SocketAddr,
    /// The end that the server answers to, and its own end, as it sees them.
    server_side: (SocketAddr, SocketAddr),
    /// Where frames to the server go.
    server: u8,
}

impl Lab {
    pub(crate) fn new(addresses: Addresses, mode: ForwardMode, rules: Rules, two: bool) -> Lab {
        Lab::of_shape(&Shape::default(), addresses, mode, rules, two)
    }

    fn of_shape(
        shape: &Shape,
        addresses: Addresses,
        mode: ForwardMode,
        rules: Rules,
        two: bool,
    ) -> Lab {
        let second = if two { Standing::Up } else { Standing::Gone };
        let mut lab = Lab {
            director: Director::new(shape),
            addresses,
            mode,
            rules,
            all: [Standing::Up, second],
            clients: 0,
            generation: 1,
        };
        lab.stand(lab.all);
        lab
    }

    pub(crate) fn stand(&mut self, standings: [Standing; 2]) {
        self.generation += 1;
        let (addresses, mode) = (self.addresses, self.mode);
        let snapshot = snapshot(self.generation, addresses, mode, self.rules, standings);
        let snapshot = Arc::new(snapshot);
        self.director
            .tell(|| Command::Snapshot(Arc::clone(&snapshot)));
        self.director.settle();
    }

    /// Other rules from now on.
    pub(crate) fn rule(&mut self, rules: Rules) {
        self.rules = rules;
        self.stand(self.all);
    }

    pub(crate) fn talk(&mut self) -> Talk {
        self.clients += 1;
        let client = SocketAddr::new(self.addresses.client.parse().unwrap(), self.clients);
        let own_end = match self.mode.is_one_way() {
            true => self.vip(),
            false => at(self.addresses.servers[0]),
        };
        Talk {
            client,
            server_side: (client, own_end),
            server: 11,
        }
    }

    fn vip(&self) -> SocketAddr {
        at(self.addresses.vip)
    }

    /// Sends a packet; where it came out.
    pub(crate) fn send(&mut self, talk: &mut Talk, packet: Packet) -> Out {
        let inbound = packet.dir == Direction::Inbound;
        let (port, frame) = match inbound {
            true => {
                let frame = frame(packet.what, talk.client, self.vip());
                (WAN, frame.macs(ROUTER_MAC, WAN_MAC))
            }
            false => {
                let (local, own_end) = talk.server_side;
                let frame = frame(packet.what, own_end, local);
                (LAN, frame.macs(server_mac(talk.server), LAN_MAC))
            }
        };
        let out = self.director.exchange(port, &frame.build());
        let (to, bytes) = match &out[..] {
            [] => return Out::Nowhere,
            [(to, bytes)] => (*to, bytes),
            _ => panic!("{out:?}"),
        };
        match to {
            To::Kernel(LAN) if !inbound => Out::Untranslated, // which routes it
            To::Port(LAN) if inbound => {
                if !self.mode.is_one_way() {
                    let (_, src, dst) = ends(bytes);
                    talk.server_side = (src, dst);
                }
                talk.server = (11..=12)
                    .find(|n| server_mac(*n) == eth::dst(bytes))
                    .unwrap();
                Out::Server(u64::from(talk.server) - 10)
            }
            To::Port(_) if is_icmp(bytes) => Out::Refused,
            To::Port(WAN) => {
                let (_, src, dst) = ends(bytes);
                assert_eq!((src, dst), (self.vip(), talk.client));
                match inbound {
                    true => Out::Refused,
                    false => Out::Client,
                }
            }
            To::Port(LAN) => Out::Refused, // the server itself
            _ => panic!("{to:?}"),
        }
    }

    /// All connections.
    pub(crate) fn listing(&mut self) -> Vec<ConnView> {
        self.director.listing()
    }

    fn conn(&mut self, talk: &Talk) -> Option<ConnView> {
        let all = self.listing().into_iter();
        let mut found = all.filter(|c| c.client == talk.client);
        let conn = found.next();
        assert!(found.next().is_none());
        conn
    }

    /// Active and inactive connections of all servers of all services.
    fn gauges(&self) -> (u64, u64) {
        let servers = self.servers().map(|id| self.gauges_of(id));
        servers.fold((0, 0), |(a, i), (active, inactive)| {
            (a + active, i + inactive)
        })
    }

    /// All servers.
    pub(crate) fn servers(&self) -> impl Iterator<Item = ServerId> + use<> {
        (0..2 * PROTOS.len() as u32).map(ServerId)
    }

    /// A server's active and inactive connections.
    pub(crate) fn gauges_of(&self, id: ServerId) -> (u64, u64) {
        let cells = self.director.counters[0].servers.get(id).unwrap();
        (cells.active.get(), cells.inactive.get())
    }

    fn opened(&self) -> u64 {
        self.director.sum(|c| c.conns_opened.get())
    }
}

fn frame(what: What, from: SocketAddr, to: SocketAddr) -> Frame {
    match what {
        What::Flags(flags) => Frame::tcp(from, to, flags),
        What::Datagram => Frame::udp(from, to),
        What::Chunk(chunk, data) => {
            let mut chunks: Vec<(u8, &[u8])> = vec![(chunk, &[0, 0, 0, 7, 0, 0, 0, 0])];
            if data {
                chunks.push((0, b"data"));
            }
            Frame::sctp(from, to, &chunks)
        }
    }
}

/// Whether the worker shows what the kernel showed.
fn agrees(seen: Option<Seen>, conn: Option<ConnView>, active: u64) -> bool {
    let (seen, conn) = match (seen, conn) {
        (Some(seen), Some(conn)) => (seen, conn),
        (seen, conn) => return seen.is_none() && conn.is_none() && active == 0,
    };
    seen.state == conn.state
        && seen
            .timeout
            .is_none_or(|t| Tick::seconds(t) == conn.expires)
        && conn.expires == Timeouts::default().of(conn.state)
        && seen.active.is_none_or(|a| u64::from(a) == active)
        && active == u64::from(conn.state.is_active())
}

fn run(lab: &mut Lab, row: &Row) -> Result<(), String> {
    let mut talk = lab.talk();
    let before = lab.gauges();
    for packet in &row.path {
        lab.send(&mut talk, *packet);
    }
    let mode = lab.mode.name();
    let fail = |what: &str, conn: Option<ConnView>| {
        Err(format!("{mode}: {}\n  {what}: {conn:?}", row.text))
    };
    let (conn, active) = (lab.conn(&talk), lab.gauges().0 - before.0);
    if !agrees(row.from, conn, active) && !row.is(crate::functions::MISREAD) {
        return fail("before it", conn);
    }
    // The recording's servers by their place in turn, ours by theirs: what counts is whether a
    // packet goes to the connection's own server or to the other one.
    let own = conn.map(|_| u64::from(talk.server) - 10);
    let mapped = |out: Out| match (out, row.from.and_then(|f| f.rs), own) {
        (Out::Server(rs), Some(theirs), Some(own)) => {
            Out::Server(if rs == theirs { own } else { 3 - own })
        }
        (out, ..) => out,
    };
    let (standing, restored) = (row.standing(), lab.all);
    if standing != Standing::Up {
        let mut standings = restored;
        standings[own.unwrap_or(1) as usize - 1] = standing;
        lab.stand(standings);
    }
    let opened = lab.opened();
    let mut expected = vec![(row.out, row.to)];
    expected.extend(row.again.iter().copied());
    for (n, (want, to)) in expected.into_iter().enumerate() {
        if n == 2 {
            lab.stand(restored);
        }
        let out = lab.send(&mut talk, row.packet);
        let conn = lab.conn(&talk);
        let active = lab.gauges().0 - before.0;
        let made = lab.opened() - opened;
        if !went(row, mapped(want), out) {
            let want = mapped(want);
            return fail(&format!("packet {n} went {out:?} and not {want:?}"), conn);
        }
        if !agrees(to, conn, active) {
            return fail(&format!("after packet {n}, active {active}"), conn);
        }
        if n == 0 && row.new.is_some_and(|new| u64::from(new) != made) {
            return fail(&format!("made {made}"), conn);
        }
    }
    Ok(())
}

/// Whether a packet went where the recording's did.
fn went(row: &Row, want: Out, out: Out) -> bool {
    match (want, out) {
        // Which of two servers a first packet finds depends on what was before.
        (Out::Server(_), Out::Server(_)) if row.from.is_none() => true,
        // A server's packet without a connection is the kernel's, which routes it; the VIP is
        // the server's own address in DR.
        (Out::Client, Out::Untranslated) => row.from.is_none(),
        _ => want == out,
    }
}

/// The modes that a row runs in, or why it can't.
fn modes(row: &Row) -> Result<&'static [ForwardMode], &'static str> {
    if row.synced.is_some() {
        Err("connection sync set the state")
    } else if row.is(r#""mode":"TUN""#) {
        Ok(&[ForwardMode::tun])
    } else if row.is(r#""mode":"DR""#) {
        Ok(&[ForwardMode::dr])
    } else if row.path.is_empty() && row.packet.dir == Direction::Outbound {
        Ok(&[ForwardMode::nat]) // in FULL-NAT a server knows nobody without a connection
    } else {
        Ok(&[ForwardMode::nat, ForwardMode::fullnat])
    }
}

#[test]
fn every_row_of_the_kernel() {
    let mut labs: BTreeMap<String, Lab> = BTreeMap::new();
    let (mut skipped, mut ran, mut on_purpose) = (BTreeMap::<_, u32>::new(), 0, 0u32);
    let mut failures = Vec::new();
    for row in rows() {
        let modes = modes(&row).unwrap_or_else(|why| {
            *skipped.entry(why).or_default() += 1;
            &[]
        });
        for &mode in modes {
            ran += 1;
            let two = row.is(r#""test":"reuse""#);
            let six = row.is(r#""af":6"#);
            let addresses = if six { V6 } else { V4 };
            let lab = labs
                .entry(format!("{mode:?} {six} {two} {:?}", row.rules))
                .or_insert_with(|| Lab::new(addresses, mode, row.rules, two));
            let result = run(lab, &row);
            lab.stand(lab.all);
            match (result, on_purpose_unlike_lvs(&row)) {
                (Ok(()), _) => {}
                (Err(_), true) => on_purpose += 1,
                (Err(failure), false) => failures.push(failure),
            }
        }
    }
    let shown = failures.iter().take(20).cloned().collect::<Vec<_>>();
    assert!(
        failures.is_empty(),
        "{} of {ran} rows differ ({on_purpose} on purpose, {skipped:?}):\n{}",
        failures.len(),
        shown.join("\n")
    );
    println!("{ran} rows, {on_purpose} differ on purpose, skipped: {skipped:?}");
    for lab in labs.values_mut() {
        lab.director.assert_books();
        lab.director.assert_runs_out();
    }
}

/// `secure_tcp` 1 and 2 believe a client less while the table is nearly full, and only then.
#[test]
fn secure_tcp_comes_and_goes_with_the_room_in_the_table() {
    let shape = Shape {
        max_connections: 80,
        ..Shape::default()
    };
    for mode in [1, 2] {
        let rules = Rules {
            secure_tcp: mode,
            ..Rules::default()
        };
        let mut lab = Lab::of_shape(&shape, V4, ForwardMode::nat, rules, true);
        let inbound = |flags| Packet {
            dir: Direction::Inbound,
            what: What::Flags(flags),
        };
        let open = |lab: &mut Lab| {
            let mut talk = lab.talk();
            lab.send(&mut talk, inbound(SYN));
            lab.send(&mut talk, inbound(ACK));
            lab.conn(&talk).unwrap().state
        };
        let room = lab.director.workers[0].conns().capacity();
        for n in 1..=room {
            let short = n > room - room / 8;
            let believed = match short {
                true => State::SynRecv,
                false => State::Established,
            };
            assert_eq!(open(&mut lab), believed, "connection {n} of {room}");
        }
        lab.director.assert_runs_out();
        assert_eq!(open(&mut lab), State::Established);
    }
}
