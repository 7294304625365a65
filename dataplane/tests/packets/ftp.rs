//! FTP: what control connections announce, the numbers behind it, and the data connections.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weir_dataplane::command::Command;
use weir_dataplane::conn::state::State;
use weir_dataplane::counters::DropReason;
use weir_dataplane::forward::ForwardMode::{self, fullnat, nat};
use weir_dataplane::forward::carrier::ClientAddress;
use weir_dataplane::helper::Helper;
use weir_dataplane::packet::build::{Packet, checksums_right};
use weir_dataplane::packet::tcp::flags::{ACK, PSH, SYN};
use weir_dataplane::packet::{be16, be32, eth};
use weir_dataplane::sched::{Options, Scheduler, SchedulerKind};
use weir_dataplane::service::{Candidate, Policy, Server, Service, ServiceKey, SnapshotBuilder};
use weir_dataplane::{Proto, ServerId, ServiceId, Tick};

use crate::common::*;
use crate::modes::{at, shapes};
use crate::only;
use crate::syn_proxy::ALWAYS;

mod exchange;

const VIP4: &str = "10.0.0.10:21";
const VIP6: &str = "[2001:db8:0::10]:21";
const CLIENT4: &str = "192.0.2.7:50000";
const CLIENT6: &str = "[2001:db8:c::7]:50000";
const SERVER4: &str = "10.1.0.11:21";
const SERVER6: &str = "[2001:db8:1::11]:21";

/// (mode, client, VIP, server)
type Row = (ForwardMode, &'static str, &'static str, &'static str);
const ROWS: [Row; 6] = [
    (nat, CLIENT4, VIP4, SERVER4),
    (nat, CLIENT6, VIP6, SERVER6),
    (fullnat, CLIENT4, VIP4, SERVER4),
    (fullnat, CLIENT6, VIP6, SERVER6),
    (fullnat, CLIENT6, VIP6, SERVER4),
    (fullnat, CLIENT4, VIP4, SERVER6),
];

const ISN: u32 = u32::MAX - 30; // numbers wrap soon
const SERVER_ISN: u32 = 7_000_000;

/// What else changes a control connection's numbers: how its server is told the client's address,
/// and whether clients have to prove themselves first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Beside {
    carrier: ClientAddress,
    syn_proxy: bool,
}
const ALONE: Beside = Beside {
    carrier: ClientAddress::none,
    syn_proxy: false,
};

/// All that goes with a mode.
fn besides(mode: ForwardMode) -> impl Iterator<Item = Beside> {
    use ClientAddress::{none, proxy_v1, proxy_v2, toa};
    let carriers = [none, toa, proxy_v1, proxy_v2].into_iter();
    let carriers = carriers.filter(move |c| *c == none || c.goes_with(mode));
    carriers.flat_map(|carrier| [false, true].map(|syn_proxy| Beside { carrier, syn_proxy }))
}

/// A director with an FTP service, and a web service on port 40000 of the same address.
fn director(shape: &Shape, (mode, _, vip, server): Row, beside: Beside) -> Director {
    let mut d = Director::new(shape);
    let mut b = SnapshotBuilder::default();
    for (id, port, helper) in [(0, 21, Helper::ftp), (1, 40000, Helper::none)] {
        let address = SocketAddr::new(at(server).ip(), port);
        b.server(Server {
            id: ServerId(id),
            service: ServiceId(id),
            address,
            forward: mode,
            tunnel: None,
            policy: Default::default(),
        });
        let servers = vec![Candidate::new(ServerId(id), address, 1)];
        b.service(Arc::new(Service {
            id: ServiceId(id),
            name: "s".into(),
            key: ServiceKey::Address {
                proto: Proto::Tcp,
                vip: at(vip).ip(),
                port,
            },
            scheduler: Scheduler::new(SchedulerKind::rr, Options::default(), &servers),
            servers,
            client_address: beside.carrier,
            policy: Policy {
                helper,
                syn_proxy: match beside.syn_proxy {
                    true => ALWAYS,
                    false => Default::default(),
                },
                ..Policy::default()
            },
            local_addresses: ["10.1.0.100", "10.1.0.101", "2001:db8:1::64"]
                .map(|a| a.parse().unwrap())
                .into_iter()
                .collect(),
        }));
    }
    let snapshot = Arc::new(b.build(2));
    d.tell(|| Command::Snapshot(Arc::clone(&snapshot)));
    d.settle();
    d.events.clear();
    d
}

/// A segment as its receiver sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    seq: u32,
    ack: u32,
    data: String,
}

fn segment(frame: &[u8]) -> Segment {
    assert!(checksums_right(frame), "{frame:02x?}");
    let (l4, end) = match eth::ethertype(frame) {
        Ok(eth::IPV6) => (54, 54 + usize::from(be16(frame, 18))),
        _ => (34, 14 + usize::from(be16(frame, 16))),
    };
    let tcp = &frame[l4..end];
    Segment {
        seq: be32(tcp, 4),
        ack: be32(tcp, 8),
        data: String::from_utf8_lossy(&tcp[usize::from(tcp[12] >> 4) * 4..]).into_owned(),
    }
}

/// A control connection through a director, with the numbers that each end believes in.
struct Control {
    d: Director,
    row: Row,
    /// What the server sees as its client.
    local: SocketAddr,
    /// What the client sends next, and what it expects.
    client: (u32, u32),
    server: (u32, u32),
}

impl Control {
    fn open(shape: &Shape, row: Row) -> Control {
        Control::open_beside(shape, row, ALONE)
    }

    fn open_beside(shape: &Shape, row: Row, beside: Beside) -> Control {
        let (_, client, vip, server) = row;
        let mut d = director(shape, row, beside);
        let from_client = |flags, seq, ack| from(client, vip, flags, seq, ack).build();
        let c = ISN.wrapping_add(1);
        let (_, mut syn) = only(d.exchange(WAN, &from_client(SYN, ISN, 0)));
        // Who proves himself is answered before his server is.
        let mut waits = SERVER_ISN + 1;
        if beside.syn_proxy {
            waits = segment(&syn).seq.wrapping_add(1);
            syn = only(d.exchange(WAN, &from_client(ACK, c, waits))).1;
        }
        let (_, local, to) = ends(&syn);
        assert_eq!(to, at(server));
        let mut control = Control {
            d,
            row,
            local,
            client: (c, waits),
            server: (SERVER_ISN + 1, c),
        };
        let syn_ack = control.server_packet(SYN | ACK, SERVER_ISN, c).build();
        let out = control.d.exchange(LAN, &syn_ack);
        let last = match beside.syn_proxy {
            true => out
                .into_iter()
                .find(|(to, _)| *to == To::Port(LAN))
                .unwrap(),
            false => only(control.d.exchange(WAN, &from_client(ACK, c, waits))),
        };
        if matches!(
            beside.carrier,
            ClientAddress::proxy_v1 | ClientAddress::proxy_v2
        ) {
            let header = crate::carriers::header(beside.carrier, client, vip);
            assert!(last.1.ends_with(&header));
            control.server.1 = c.wrapping_add(header.len() as u32);
        }
        control
    }

    fn server_packet(&self, flags: u8, seq: u32, ack: u32) -> Packet {
        let packet = Packet {
            seq,
            ack,
            ..Packet::tcp(at(self.row.3), self.local, flags)
        };
        packet.macs(server_mac(11), LAN_MAC)
    }

    /// The client says something; what the server gets, with the numbers it expects.
    fn client_says(&mut self, text: &str) -> String {
        let (seq, ack) = self.client;
        let got = self.client_sends(text, seq, ack);
        assert_eq!((got.seq, got.ack), (self.server.1, self.server.0), "{text}");
        self.client.0 = seq.wrapping_add(text.len() as u32);
        self.server.1 = got.seq.wrapping_add(got.data.len() as u32);
        got.data
    }

    fn client_sends(&mut self, text: &str, seq: u32, ack: u32) -> Segment {
        let (_, client, vip, _) = self.row;
        let packet = from(client, vip, ACK | PSH, seq, ack).payload(text.as_bytes());
        segment(&only(self.d.exchange(WAN, &packet.build())).1)
    }

    /// The same the other way.
    fn server_says(&mut self, text: &str) -> String {
        let (seq, ack) = self.server;
        let got = self.server_sends(text, seq, ack);
        assert_eq!((got.seq, got.ack), (self.client.1, self.client.0), "{text}");
        self.server.0 = seq.wrapping_add(text.len() as u32);
        self.client.1 = got.seq.wrapping_add(got.data.len() as u32);
        got.data
    }

    fn server_sends(&mut self, text: &str, seq: u32, ack: u32) -> Segment {
        let packet = self.server_packet(ACK | PSH, seq, ack);
        let packet = packet.payload(text.as_bytes()).build();
        segment(&only(self.d.exchange(LAN, &packet)).1)
    }

    /// What the server says to announce `port`, and what the client must hear then if it is told
    /// of `told`.
    fn passive(&self, port: u16, told: u16) -> (String, String) {
        let (_, _, vip, server) = self.row;
        match (at(server).ip(), at(vip).ip()) {
            (IpAddr::V4(server), IpAddr::V4(vip)) => {
                let six = |a: std::net::Ipv4Addr, port: u16| {
                    let [a, b, c, d] = a.octets();
                    let [high, low] = port.to_be_bytes();
                    format!("227 Entering Passive Mode ({a},{b},{c},{d},{high},{low}).\r\n")
                };
                (six(server, port), six(vip, told))
            }
            _ => {
                let of = |port| format!("229 Entering Extended Passive Mode (|||{port}|)\r\n");
                (of(port), of(told))
            }
        }
    }

    fn client_ip(&self) -> IpAddr {
        at(self.row.1).ip()
    }

    fn vip(&self) -> IpAddr {
        at(self.row.2).ip()
    }

    /// The client connects to a port of the VIP: where to, at the server, and what as.
    fn connect(&mut self, port: u16, to: u16) -> (SocketAddr, SocketAddr) {
        let client = SocketAddr::new(self.client_ip(), port);
        let to = SocketAddr::new(self.vip(), to);
        let syn = Packet::tcp(client, to, SYN)
            .macs(ROUTER_MAC, WAN_MAC)
            .build();
        let (out, frame) = only(self.d.exchange(WAN, &syn));
        assert_eq!(out, To::Port(LAN));
        assert!(checksums_right(&frame));
        let (_, local, server) = ends(&frame);
        let reply = answer(&frame, SYN | ACK).build();
        let (out, frame) = only(self.d.exchange(LAN, &reply));
        assert_eq!(
            (out, ends(&frame).1, ends(&frame).2),
            (To::Port(WAN), to, client)
        );
        assert!(checksums_right(&frame));
        (server, local)
    }

    /// The server connects from `port`: the frame that leaves, if one does.
    fn call(&mut self, port: u16, to: SocketAddr) -> Vec<(To, Vec<u8>)> {
        let from = SocketAddr::new(at(self.row.3).ip(), port);
        let syn = Packet::tcp(from, to, SYN).macs(server_mac(11), LAN_MAC);
        self.d.exchange(LAN, &syn.build())
    }
}

fn from(client: &str, vip: &str, flags: u8, seq: u32, ack: u32) -> Packet {
    Packet {
        seq,
        ack,
        ..Packet::tcp(at(client), at(vip), flags).macs(ROUTER_MAC, WAN_MAC)
    }
}

/// What a client says that waits at `port`.
fn active(client: IpAddr, port: u16) -> String {
    match client {
        IpAddr::V4(a) => {
            let [a, b, c, d] = a.octets();
            let [high, low] = port.to_be_bytes();
            format!("PORT {a},{b},{c},{d},{high},{low}\r\n")
        }
        IpAddr::V6(a) => format!("EPRT |2|{a}|{port}|\r\n"),
    }
}

/// The address that a command names.
fn named(command: &str) -> SocketAddr {
    let argument = command.trim_end().split_once(' ').unwrap().1;
    if command.starts_with("PORT") {
        let n: Vec<u8> = argument.split(',').map(|n| n.parse().unwrap()).collect();
        return ([n[0], n[1], n[2], n[3]], u16::from_be_bytes([n[4], n[5]])).into();
    }
    let parts: Vec<_> = argument.split('|').collect();
    SocketAddr::new(parts[2].parse().unwrap(), parts[3].parse().unwrap())
}

/// Modes and families by shapes of the director by what else there is.
fn ways() -> impl Iterator<Item = (Row, Shape, Beside)> {
    ROWS.into_iter().flat_map(|row| {
        let shaped = shapes().into_iter();
        shaped.flat_map(move |shape| besides(row.0).map(move |b| (row, shape.clone(), b)))
    })
}

#[test]
fn passive_in_every_mode_and_family() {
    for (row, shape, beside) in ways() {
        let what = format!("{row:?} {shape:?} {beside:?}");
        let mut c = Control::open_beside(&shape, row, beside);
        assert_eq!(c.server_says("220 ready\r\n"), "220 ready\r\n");
        for (n, port) in [40_001, 51_000, 1024].into_iter().enumerate() {
            assert_eq!(c.client_says("PASV\r\n"), "PASV\r\n");
            let (said, heard) = c.passive(port, port);
            assert_eq!(c.server_says(&said), heard, "{what}");
            let (server, local) = c.connect(52_000 + n as u16, port);
            assert_eq!(server, SocketAddr::new(at(row.3).ip(), port), "{what}");
            match row.0 {
                nat => assert_eq!(local.ip(), c.client_ip(), "{what}"),
                // A server takes its client's data connections from nobody else.
                _ => assert_eq!(local.ip(), c.local.ip(), "{what}"),
            }
            assert_eq!(c.client_says("NOOP\r\n"), "NOOP\r\n");
            assert_eq!(c.server_says("226 done\r\n"), "226 done\r\n");
        }
        let d = &c.d;
        assert_eq!(d.sum(|c| c.data_expected.get()), 3, "{what}");
        assert_eq!(d.sum(|c| c.data_conns.get()), 3, "{what}");
        let cells = |d: &Director| d.sum(|c| c.servers.get(ServerId(0)).unwrap().conns.get());
        assert_eq!(cells(d), 4, "{what}: all of the one server's");
        d.assert_books();
        let views = c.d.listing();
        assert_eq!(views.len(), 4, "{what}");
        assert!(views.iter().all(|v| v.virtual_.ip() == c.vip()), "{what}");
        c.d.assert_runs_out();
    }
}

#[test]
fn active_in_every_mode_and_family() {
    for (row, shape, beside) in ways() {
        let what = format!("{row:?} {shape:?} {beside:?}");
        let mut c = Control::open_beside(&shape, row, beside);
        c.server_says("220 ready\r\n");
        for (n, from_port) in [20, 20, 34_567].into_iter().enumerate() {
            let port = 45_000 + n as u16;
            let said = active(c.client_ip(), port);
            let heard = c.client_says(&said);
            let to = named(&heard);
            match row.0 {
                nat => assert_eq!(heard, said, "{what}"),
                _ => assert_eq!(to.ip(), c.local.ip(), "{what}: {heard}"),
            }
            let v4_server = at(row.3).is_ipv4();
            assert_eq!(heard.starts_with("PORT"), v4_server, "{what}: {heard}");
            c.server_says("200 ok\r\n");
            // The server's connection, twice begun, is one from VIP:20.
            let seen = (
                SocketAddr::new(c.vip(), 20),
                SocketAddr::new(c.client_ip(), port),
            );
            for _ in 0..2 {
                let (out, frame) = only(c.call(from_port, to));
                assert!(checksums_right(&frame), "{what}");
                let (_, from, to) = ends(&frame);
                assert_eq!((out, (from, to)), (To::Port(WAN), seen), "{what}");
            }
            let syn_ack = Packet::tcp(seen.1, seen.0, SYN | ACK).macs(ROUTER_MAC, WAN_MAC);
            let (out, frame) = only(c.d.exchange(WAN, &syn_ack.build()));
            assert!(checksums_right(&frame), "{what}");
            let server = SocketAddr::new(at(row.3).ip(), from_port);
            assert_eq!(
                (out, ends(&frame).1, ends(&frame).2),
                (To::Port(LAN), to, server)
            );
            let data = answer(&frame, ACK | PSH).payload(b"file").build();
            let handed = c.d.sum(|c| c.handoff_out.get());
            let (out, frame) = only(c.d.exchange(LAN, &data));
            if row.0 == fullnat && from_port == 20 && shape.rss {
                // The local port was chosen so that data comes straight to its owner.
                assert_eq!(c.d.sum(|c| c.handoff_out.get()), handed, "{what}");
            }
            assert_eq!(
                (out, ends(&frame).1, ends(&frame).2),
                (To::Port(WAN), seen.0, seen.1)
            );
            assert_eq!(segment(&frame).data, "file", "{what}");
            c.server_says("226 done\r\n");
            assert_eq!(c.client_says("NOOP\r\n"), "NOOP\r\n");
        }
        assert_eq!(c.d.sum(|c| c.data_conns.get()), 3, "{what}");
        c.d.assert_books();
        let views = c.d.listing();
        let data = views.iter().filter(|v| v.virtual_.port() == 20);
        let states: Vec<_> = data.map(|v| v.state).collect();
        assert_eq!(states, [State::Established; 3], "{what}");
        c.d.assert_runs_out();
    }
}

#[test]
fn repeated_announcements_are_answered_alike() {
    for row in [
        (fullnat, CLIENT4, VIP4, SERVER4),
        (fullnat, CLIENT6, VIP6, SERVER6),
    ] {
        let mut c = Control::open(&Shape::workers(3), row);
        let command = active(c.client_ip(), 45_000);
        let (at_client, before) = (c.client, c.server);
        let heard = c.client_says(&command);
        let longer = c.client.0.wrapping_sub(c.server.1);
        // Lost, and repeated together with the next command.
        let again = c.client_sends(&format!("{command}LIST\r\n"), at_client.0, at_client.1);
        assert_eq!(again.data, format!("{heard}LIST\r\n"));
        assert_eq!(again.seq, before.1);
        // Acknowledged in part: nothing of the command is, to the client.
        for (ack, shown) in [
            (before.1, at_client.0),
            (before.1.wrapping_add(5), at_client.0),
            (c.server.1, c.client.0),
            (c.server.1.wrapping_add(6), c.client.0.wrapping_add(6)),
        ] {
            assert_eq!(c.server_sends("", c.server.0, ack).ack, shown);
        }
        assert_ne!(longer, 0, "the test wants a line that changes");
        let seen = segment(&only(c.call(20, named(&heard))).1);
        assert_eq!(seen.data, "");
        c.d.assert_books();
    }
}

#[test]
fn selective_acknowledgements_are_the_clients_own() {
    let mut c = Control::open(&Shape::default(), (fullnat, CLIENT4, VIP4, SERVER4));
    let start = c.client.0;
    c.client_says(&active(c.client_ip(), 45_000));
    let (client, server) = (c.client.0, c.server.1);
    // The server has what came behind the command, and not the command.
    let mut sack = vec![1, 1, 5, 10];
    sack.extend(server.to_be_bytes());
    sack.extend(server.wrapping_add(6).to_be_bytes());
    let packet = c.server_packet(ACK, c.server.0, start);
    let frame = crate::carriers::with_options(&packet, &sack);
    let (_, frame) = only(c.d.exchange(LAN, &frame));
    assert!(checksums_right(&frame));
    assert_eq!(be32(&frame, 34 + 8), start);
    let edges = [be32(&frame, 34 + 24), be32(&frame, 34 + 28)];
    assert_eq!(edges, [client, client.wrapping_add(6)]);
}

#[test]
fn a_client_announces_itself_only() {
    for (row, command, spoilt) in [
        (
            ROWS[0],
            "PORT 192,0,2,99,156,64\r\n",
            "PORT 000,0,0,00,000,00\r\n",
        ),
        (
            ROWS[0],
            "PORT 192,0,2,7,3,255\r\n",
            "PORT 000,0,0,0,0,000\r\n",
        ),
        (
            ROWS[2],
            "EPRT |1|10.1.0.12|40000|\r\n",
            "EPRT |0|00.0.0.00|00000|\r\n",
        ),
        (
            ROWS[3],
            "EPRT |2|2001:db8::1|40000|\r\n",
            "EPRT |0|0000:000::0|00000|\r\n",
        ),
    ] {
        let mut c = Control::open(&Shape::workers(3), row);
        assert_eq!(c.client_says(command), spoilt);
        c.server_says("500 no\r\n");
        let counted = (
            c.d.sum(|c| c.helper_refused.get()),
            c.d.sum(|c| c.data_expected.get()),
        );
        assert_eq!(counted, (1, 0), "{command}");
        c.d.assert_books();
    }
}

#[test]
fn only_whom_it_was_announced_to_and_only_one() {
    for shape in shapes() {
        let mut c = Control::open(&shape, ROWS[2]);
        let (said, _) = c.passive(41_000, 41_000);
        c.server_says(&said);
        let to = SocketAddr::new(c.vip(), 41_000);
        let refused = |c: &mut Control, client: &str| {
            let syn = Packet::tcp(at(client), to, SYN).macs(ROUTER_MAC, WAN_MAC);
            let before = c.d.drops(DropReason::NoConnection);
            let (out, _) = only(c.d.exchange(WAN, &syn.build()));
            assert_eq!(out, To::Port(WAN), "a reset");
            assert_eq!(c.d.drops(DropReason::NoConnection), before + 1);
        };
        refused(&mut c, "192.0.2.8:52000");
        c.connect(52_000, 41_000);
        for _ in 0..2 {
            refused(&mut c, "192.0.2.7:52001");
        }
        // Neither does a port that was announced and not used hold for ever.
        let (said, _) = c.passive(41_000, 41_000);
        c.server_says(&said);
        c.d.now = c.d.now.after(Tick::seconds(121));
        refused(&mut c, "192.0.2.7:52002");
        c.d.assert_books();
    }
}

#[test]
fn a_port_that_is_a_services_is_not_announced() {
    let mut c = Control::open(&Shape::workers(3), ROWS[2]);
    let (said, heard) = c.passive(40_000, 40_001);
    assert_eq!(c.server_says(&said), heard);
    let (server, _) = c.connect(52_000, 40_001);
    assert_eq!(server.port(), 40_000);
    // An operator's address for the server stays; its port opens.
    let masqueraded = "227 ok (198,51,100,9,160,0)\r\n";
    assert_eq!(c.server_says(masqueraded), masqueraded);
    assert_eq!(c.connect(52_001, 40_960).0.port(), 40_960);
    // What a server may not announce opens nothing.
    let low = "227 ok (10,1,0,11,0,22)\r\n";
    assert_eq!(c.server_says(low), low);
    assert_eq!(c.d.sum(|c| c.helper_refused.get()), 1);
}

#[test]
fn lines_in_pieces_are_left_as_they_are() {
    let mut c = Control::open(&Shape::default(), ROWS[2]);
    for piece in [
        "PORT 192,0,2,7,",
        "156,64\r\n",
        "P",
        "ORT 192,0,2,7,156,64\r\n",
    ] {
        assert_eq!(c.client_says(piece), piece);
    }
    // Nor is the middle of an answer taken for one.
    c.server_says("500 'x");
    let (said, _) = c.passive(41_000, 41_000);
    assert_eq!(c.server_says(&said), said);
    let counted = (
        c.d.sum(|c| c.helper_missed.get()),
        c.d.sum(|c| c.data_expected.get()),
    );
    assert_eq!(counted, (2, 0));
    // The next whole line is read again.
    let (said, heard) = c.passive(41_001, 41_001);
    assert_eq!(c.server_says(&said), heard);
}

/// A control connection says nothing while files travel, for longer than its timeout.
#[test]
fn a_long_transfer_keeps_its_control_connection() {
    for (row, shape) in [ROWS[0], ROWS[2], ROWS[5]]
        .iter()
        .flat_map(|r| shapes().into_iter().map(|s| (*r, s)))
    {
        let mut c = Control::open(&shape, row);
        let (said, _) = c.passive(41_000, 41_000);
        c.server_says(&said);
        c.connect(52_000, 41_000);
        let (client, vip) = (
            SocketAddr::new(c.client_ip(), 52_000),
            SocketAddr::new(c.vip(), 41_000),
        );
        for _ in 0..400 {
            c.d.now = c.d.now.after(Tick::seconds(10));
            let data = Packet::tcp(client, vip, ACK)
                .macs(ROUTER_MAC, WAN_MAC)
                .payload(b"x");
            only(c.d.exchange(WAN, &data.build()));
        }
        assert_eq!(
            c.server_says("226 done\r\n"),
            "226 done\r\n",
            "{row:?} {shape:?}"
        );
        c.d.assert_books();
    }
}
