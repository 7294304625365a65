//! SCTP through the director: an association there and back, and what is none.

use std::net::SocketAddrV4;
use std::sync::Arc;

use weir_dataplane::command::Command;
use weir_dataplane::conn::state::{Rules, State, TimeoutChanges, Timeouts};
use weir_dataplane::counters::DropReason;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::packet::build::{Packet, checksums_right};
use weir_dataplane::packet::sctp::{self, Event, chunk};
use weir_dataplane::packet::{Key, be32, eth};
use weir_dataplane::sched::{Options, Scheduler, SchedulerKind};
use weir_dataplane::service::{Candidate, Server, Service, ServiceKey, SnapshotBuilder};
use weir_dataplane::{Mac, Proto, ServerId, ServiceId, Tick};

use crate::common::*;
use crate::{only, parsed};

const HEADERS: usize = 34;

/// Chunks of one packet: type, and value.
type Chunks<'a> = &'a [(u8, &'a [u8])];

/// Server 11 for SCTP on VIP:2905, at :3000, by `mode`.
fn serve(d: &mut Director, mode: ForwardMode) {
    let port = if mode.maps_ports() { 3000 } else { 2905 };
    let mut own = TimeoutChanges::default();
    own.set(State::SctpEstablished, Tick::seconds(33));
    let mut b = SnapshotBuilder::default()
        .timeouts(Timeouts::default())
        .rules(Rules::default());
    b.server(Server {
        id: ServerId(0),
        service: ServiceId(0),
        address: server_addr(11, port).into(),
        forward: mode,
        tunnel: None,
        policy: Default::default(),
    });
    let servers = vec![Candidate::new(ServerId(0), server_addr(11, port).into(), 1)];
    b.service(Arc::new(Service {
        id: ServiceId(0),
        name: "m3ua".into(),
        key: ServiceKey::Address {
            proto: Proto::Sctp,
            vip: VIP.into(),
            port: 2905,
        },
        scheduler: Scheduler::new(SchedulerKind::rr, Options::default(), &servers),
        servers,
        client_address: Default::default(),
        policy: Default::default(),
        local_addresses: [LIP.into()].into_iter().collect(),
    }));
    b.timeouts_of(ServiceId(0), &own);
    let snapshot = Arc::new(b.build(2));
    d.tell(|| Command::Snapshot(Arc::clone(&snapshot)));
    d.settle();
}

fn from_client(client: SocketAddrV4, chunks: Chunks<'_>) -> Packet {
    Packet::sctp(client, SocketAddrV4::new(VIP, 2905), chunks).macs(ROUTER_MAC, WAN_MAC)
}

/// The answer to a frame that a server got.
fn from_server(frame: &[u8], chunks: Chunks<'_>) -> Packet {
    let key = parsed(frame).key.reversed();
    Packet::sctp(key.source(), key.destination(), chunks).macs(eth::dst(frame), eth::src(frame))
}

/// The one connection's state, and its timeout in seconds.
fn state(d: &mut Director) -> (State, u32) {
    let conns = d.listing();
    assert_eq!(conns.len(), 1, "{conns:?}");
    assert_eq!(conns[0].proto, Proto::Sctp);
    (conns[0].state, conns[0].expires / Tick::PER_SECOND)
}

fn active(d: &Director) -> (u64, u64) {
    let servers: Vec<_> = (d.counters.iter())
        .map(|c| c.servers.get(ServerId(0)).unwrap())
        .collect();
    let sum = |cell: fn(&weir_dataplane::counters::ServerCounters) -> u64| {
        servers.iter().map(|s| cell(s)).sum()
    };
    (sum(|s| s.active.get()), sum(|s| s.inactive.get()))
}

const DATA: (u8, &[u8]) = (chunk::DATA, b"\0\0\0\x01\0\0\0\0\0\0\0\x03hello");

#[test]
fn an_association_there_and_back() {
    let client = addr("192.0.2.7:2905");
    for (mode, workers) in [
        (ForwardMode::fullnat, 1),
        (ForwardMode::fullnat, 3),
        (ForwardMode::nat, 1),
        (ForwardMode::nat, 3),
    ] {
        let mut d = Director::new(&Shape::workers(workers));
        serve(&mut d, mode);
        let init = from_client(client, &[(chunk::INIT, &[0, 0, 0, 9, 0, 0, 0, 0])]).build();
        let (to, at_server) = only(d.exchange(WAN, &init));
        assert_eq!(to, To::Port(LAN));
        assert!(checksums_right(&at_server), "{mode:?}");
        assert_eq!(
            at_server[HEADERS + 4..HEADERS + 8],
            init[HEADERS + 4..HEADERS + 8],
            "tag"
        );
        assert_eq!(at_server[HEADERS + 12..], init[HEADERS + 12..], "chunks");
        let key = parsed(&at_server).key;
        assert_eq!(key.destination4(), server_addr(11, 3000));
        match mode {
            ForwardMode::nat => assert_eq!(key.source4(), client),
            _ => assert_eq!(key.source4().ip(), &LIP),
        }
        assert_eq!(state(&mut d), (State::SctpInit1, 4));
        let steps: [(bool, Chunks<'_>, State); 7] = [
            (false, &[(2, &[0; 16])], State::SctpCookieSent),
            (true, &[(10, &[5; 7]), DATA], State::SctpCookieReplied),
            (false, &[(11, &[]), DATA], State::SctpEstablished),
            (true, &[(3, &[0; 12]), DATA, DATA], State::SctpEstablished),
            (
                true,
                &[(3, &[0; 12]), (7, &[0; 4])],
                State::SctpShutdownReceived,
            ),
            (false, &[(8, &[])], State::SctpShutdownAckSent),
            (true, &[(14, &[])], State::SctpClosed),
        ];
        for (inbound, chunks, after) in steps {
            let (port, sent) = match inbound {
                true => (WAN, from_client(client, chunks).build()),
                false => (LAN, from_server(&at_server, chunks).build()),
            };
            let (to, got) = only(d.exchange(port, &sent));
            assert_eq!(to, To::Port(if inbound { LAN } else { WAN }));
            assert!(checksums_right(&got));
            assert_eq!(got[HEADERS + 12..], sent[HEADERS + 12..]);
            if !inbound {
                let key = parsed(&got).key;
                assert_eq!(key.source4(), SocketAddrV4::new(VIP, 2905));
                assert_eq!(key.destination4(), client);
            }
            let its_own = after == State::SctpEstablished; // the service's own timeout
            let seconds = if its_own { 33 } else { 61 };
            assert_eq!(state(&mut d), (after, seconds));
            assert_eq!(active(&d), if its_own { (1, 0) } else { (0, 1) });
        }
        // The next INIT from the same port opens anew, at once.
        only(d.exchange(WAN, &init));
        assert_eq!(d.sum(|c| c.conns_reused.get()), 1);
        assert_eq!(state(&mut d).0, State::SctpInit1);
        d.assert_books();
        d.assert_runs_out();
    }
}

#[test]
fn dr_leaves_the_packet_alone() {
    let mut d = Director::new(&Shape::default());
    serve(&mut d, ForwardMode::dr);
    let client = addr("192.0.2.7:5000");
    let init = from_client(client, &[(chunk::INIT, &[0; 16])]).build();
    let (to, got) = only(d.exchange(WAN, &init));
    assert_eq!((to, eth::dst(&got)), (To::Port(LAN), server_mac(11)));
    assert_eq!(got[26..], init[26..], "addresses and all behind them");
    // What the client says is all there is to see: it has its part done.
    for (chunk, after) in [
        (10, State::SctpEstablished),
        (7, State::SctpShutdownReceived),
    ] {
        only(d.exchange(WAN, &from_client(client, &[(chunk, &[0; 4])]).build()));
        assert_eq!(state(&mut d).0, after);
    }
    d.assert_books();
    d.assert_runs_out();
}

#[test]
fn a_wrong_checksum_stays_wrong_and_a_partial_one_is_completed() {
    let shape = Shape {
        fill_checksums: true,
        ..Shape::default()
    };
    let mut d = Director::new(&shape);
    serve(&mut d, ForwardMode::fullnat);
    let client = addr("192.0.2.7:5000");
    let init = from_client(client, &[(chunk::INIT, &[0; 16])]);
    let mut wrong = init.build();
    wrong[HEADERS + sctp::CHECKSUM_AT] ^= 0x10;
    let (_, got) = only(d.exchange(WAN, &wrong));
    assert!(!checksums_right(&got));
    let error = sctp::found_checksum(&got[HEADERS..]) ^ sctp::checksum(&got[HEADERS..]);
    assert_eq!(error, 0x10, "the very same error");
    let partial = Packet {
        partial: true,
        ..init
    };
    let (_, got) = only(d.exchange(WAN, &partial.build()));
    assert!(checksums_right(&got));
    assert_eq!(d.sum(|c| c.checksums_filled.get()), 1);
    d.assert_books();
}

/// RFC 9260 8.4, as far as a packet alone can tell.
#[test]
fn what_belongs_to_no_association_is_answered() {
    let mut d = Director::new(&Shape::default());
    serve(&mut d, ForwardMode::fullnat);
    let client = addr("192.0.2.7:5000");
    let own = |chunks: Chunks<'_>| Packet {
        seq: 0x0102_0304,
        ..from_client(client, chunks)
    };
    let t = chunk::FLAG_T;
    let stale: (u8, &[u8]) = (chunk::ERROR, &[0, 3, 0, 8, 0, 0, 0, 0]);
    let rows: [(Chunks<'_>, Option<(u8, u8)>); 10] = [
        (&[DATA], Some((chunk::ABORT, t))),
        (&[(10, &[0; 8]), DATA], Some((chunk::ABORT, t))),
        (&[(4, &[0; 8])], Some((chunk::ABORT, t))),
        (
            &[(chunk::ERROR, &[0, 1, 0, 8, 0, 0, 0, 0])],
            Some((chunk::ABORT, t)),
        ),
        (
            &[(chunk::SHUTDOWN_ACK, &[])],
            Some((chunk::SHUTDOWN_COMPLETE, t)),
        ),
        (&[(chunk::SHUTDOWN_COMPLETE, &[])], None),
        (&[(chunk::COOKIE_ACK, &[])], None),
        (&[stale], None),
        (&[(chunk::ABORT, &[])], None),
        (&[(10, &[0; 8]), (chunk::ABORT, &[])], None),
    ];
    for (chunks, answer) in rows {
        let sent = own(chunks).build();
        let out = d.exchange(WAN, &sent);
        let Some((kind, flags)) = answer else {
            assert_eq!(out, vec![], "{chunks:?}");
            continue;
        };
        let (to, got) = only(out);
        assert_eq!((to, eth::dst(&got)), (To::Port(WAN), eth::src(&sent)));
        assert!(checksums_right(&got));
        assert_eq!(parsed(&got).key, parsed(&sent).key.reversed());
        assert_eq!(be32(&got, HEADERS + sctp::TAG_AT), 0x0102_0304);
        assert_eq!(
            got[HEADERS + sctp::LEN..],
            [kind, flags, 0, 4],
            "{chunks:?}"
        );
    }
    assert_eq!(d.drops(DropReason::NoConnection), 10);
    assert_eq!(d.totals().generated, 5);
    assert_eq!(d.sum(|c| c.conns_opened.get()), 0);
    // An INIT to where nothing is: the tag is the one that the client has just chosen.
    let nowhere = SocketAddrV4::new(VIP, 9);
    let init = Packet::sctp(client, nowhere, &[(chunk::INIT, &[9, 8, 7, 6, 0, 0, 0, 0])]);
    let (_, got) = only(d.exchange(WAN, &init.macs(ROUTER_MAC, WAN_MAC).build()));
    assert_eq!(be32(&got, HEADERS + sctp::TAG_AT), 0x0908_0706);
    assert_eq!(got[HEADERS + sctp::LEN..], [chunk::ABORT, 0, 0, 4]);
    // Cut short or lying about its length.
    let mut short = own(&[DATA]).build();
    short[HEADERS + sctp::LEN + 3] = 3;
    assert_eq!(d.exchange(WAN, &short), vec![]);
    assert_eq!(d.drops(DropReason::BadSctpHeader), 1);
    d.assert_books();
}

#[test]
fn ipv6_goes_the_same_way() {
    let flow = Packet::sctp(
        "[2001:db8::7]:5000"
            .parse::<std::net::SocketAddr>()
            .unwrap(),
        "[2001:db8::64]:2905"
            .parse::<std::net::SocketAddr>()
            .unwrap(),
        &[(chunk::INIT, &[0; 16])],
    );
    let frame = flow.macs(Mac([2; 6]), Mac([4; 6])).build();
    let Ok(weir_dataplane::packet::Parsed::Flow6(flow)) =
        weir_dataplane::packet::parse(&frame, false)
    else {
        panic!("{frame:02x?}")
    };
    assert_eq!(
        (flow.key.proto(), flow.says),
        (Proto::Sctp, Event::Init.says())
    );
    assert!(checksums_right(&frame));
}

mod parts;
