//! QUIC by connection id: a client that changes its address stays with its server.

use std::net::SocketAddr;

use super::kinds::{Kind, at, director_with};
use super::modes::{packet, shapes};
use super::*;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::sched::{Options, Scheduler, SchedulerKind};
use weir_dataplane::service::{Quic, QuicLb, QuicServerId, ServiceKey};

const VIP: &str = "10.0.0.10:443";
const SERVERS: [&str; 3] = ["10.1.0.11:443", "10.1.0.12:443", "10.1.0.13:443"];

/// Configuration 2: server IDs of two octets, nonces of six, no key. The servers are a0, a1, a2.
fn director(shape: &Shape, mode: ForwardMode, drained: Option<usize>) -> Director {
    let mut quic = Quic::default();
    quic.configs[2] = QuicLb::new(2, 6, None);
    let quic = Arc::new(quic);
    let key = ServiceKey::Address {
        proto: Proto::Udp,
        vip: at(VIP).ip(),
        port: 443,
    };
    let kind: Kind<'_> = (key, mode, &SERVERS);
    director_with(shape, &[kind], &[], |service, servers| {
        for (n, server) in servers.iter_mut().enumerate() {
            server.policy.quic_server_id = QuicServerId::new(&[0xa0, n as u8]);
        }
        if let Some(at) = drained {
            service.servers[at].weight = 0;
        }
        service.policy.quic = Some(Arc::clone(&quic));
        let (kind, options) = (SchedulerKind::conhash, Options::default());
        service.scheduler = Scheduler::new(kind, options, &service.servers);
    })
}

fn initial(cid: &[u8]) -> Vec<u8> {
    let head = [&[0xc0, 0, 0, 0, 1, cid.len() as u8], cid, &[0, 0, 0x41, 0]].concat();
    [head, vec![0; 1100]].concat()
}

/// A short header to a connection ID that server `n` made.
fn short(n: u8, nonce: u8) -> Vec<u8> {
    let cid = [2 << 5 | nonce & 0x1f, 0xa0, n, nonce, 2, 3, 4, 5, 6];
    [&[0x40 | nonce & 0x3f], &cid[..], &[9; 30]].concat()
}

fn sent(d: &mut Director, client: SocketAddr, payload: &[u8]) -> Vec<(To, Vec<u8>)> {
    let packet = packet(Proto::Udp, &client.to_string(), VIP, 0).payload(payload);
    d.exchange(WAN, &packet.build())
}

/// Which server got it.
fn server_of(out: Vec<(To, Vec<u8>)>) -> usize {
    let (to, f) = only(out);
    assert_eq!(to, To::Port(LAN));
    let macs = [11, 12, 13].map(server_mac);
    macs.iter().position(|mac| *mac == eth::dst(&f)).unwrap()
}

#[test]
fn a_client_that_moves_stays_with_its_server() {
    for (shape, mode) in shapes()
        .iter()
        .flat_map(|s| [ForwardMode::fullnat, ForwardMode::dr].map(|m| (s, m)))
    {
        let mut d = director(shape, mode, None);
        for client in 0..30u8 {
            let what = format!("{mode:?} {client} {shape:?}");
            let from = |n: u16| SocketAddr::from(([192, 0, 2, client], 40_000 + n));
            // Its first ID is its own: a retransmission from elsewhere gets there too.
            let first = initial(&[client, 0x11, 3, 4, 5, 6, 7, 8, 9]);
            let server = server_of(sent(&mut d, from(0), &first));
            assert_eq!(server_of(sent(&mut d, from(1), &first)), server, "{what}");
            // The server's ID on the same five-tuple, and from ten others: cores differ.
            for n in 0..10 {
                let f = sent(&mut d, from(n * 7), &short(server as u8, client));
                assert_eq!(server_of(f), server, "{what}: moved");
            }
        }
        // Nothing of it comes from the connections that stand: a director that knows none.
        let mut other = director(shape, mode, None);
        for n in 0..90u8 {
            let client = SocketAddr::from(([198, 51, 100, n], 1000));
            let got = server_of(sent(&mut other, client, &short(n % 3, n)));
            assert_eq!(got, usize::from(n % 3), "{mode:?} {shape:?}");
        }
        for d in [&mut d, &mut other] {
            d.assert_books();
            d.assert_runs_out();
        }
    }
}

/// IDs that name nobody are the scheduler's business; so is what is too short for one.
#[test]
fn what_names_nobody_is_scheduled() {
    let mut d = director(&Shape::default(), ForwardMode::fullnat, None);
    let mut used = [0; 3];
    for n in 0..120u8 {
        let client = SocketAddr::from(([198, 51, 100, n], 1000));
        let payload = match n % 6 {
            0 => short(7, n),                            // no such server
            1 => [&[0x40, 0xe0][..], &[1; 20]].concat(), // made by no configuration
            2 => vec![0x40, 0x40, 0xa0],                 // cut
            3 => vec![0xc0, 0, 0, 0, 1, 200, 1],         // a length beyond the end
            4 => vec![],
            _ => initial(&[n; 20]),
        };
        used[server_of(sent(&mut d, client, &payload))] += 1;
    }
    assert!(used.iter().all(|n| *n > 20), "{used:?}");
    d.assert_books();
    d.assert_runs_out();
}

/// A drained server's clients find it wherever they move, and nobody new does.
#[test]
fn a_drained_server_keeps_its_own() {
    let mut d = director(&Shape::default(), ForwardMode::dr, Some(1));
    for n in 0..60u8 {
        let client = SocketAddr::from(([198, 51, 100, n], 1000));
        let moved = SocketAddr::from(([198, 51, 101, n], 1000));
        assert_ne!(server_of(sent(&mut d, client, &initial(&[n | 0xe0; 8]))), 1);
        assert_eq!(server_of(sent(&mut d, moved, &short(1, n))), 1);
    }
    d.assert_books();
    d.assert_runs_out();
}

/// A five-tuple that another client has got, or another of the client's connections: the ID counts.
#[test]
fn a_five_tuple_that_is_used_again_goes_by_the_id() {
    for (shape, mode) in shapes()
        .iter()
        .flat_map(|s| [ForwardMode::fullnat, ForwardMode::nat, ForwardMode::dr].map(|m| (s, m)))
    {
        let mut d = director(shape, mode, None);
        let client = SocketAddr::from(([192, 0, 2, 7], 40_000));
        for (turn, server) in [0u8, 1, 1, 2, 0].into_iter().enumerate() {
            let what = format!("{mode:?} {turn} {shape:?}");
            let out = sent(&mut d, client, &short(server, turn as u8));
            let f = only(out.clone()).1;
            assert_eq!(server_of(out), usize::from(server), "{what}");
            // What names nobody stays where it was.
            let stays = sent(&mut d, client, &short(9, 9));
            assert_eq!(server_of(stays), usize::from(server), "{what}");
            if mode != ForwardMode::dr {
                let (to, f) = only(d.exchange(LAN, &answer(&f, 0).payload(b"reply").build()));
                assert_eq!(
                    (to, ends(&f)),
                    (To::Port(WAN), (Proto::Udp, at(VIP), client)),
                    "{what}"
                );
                assert!(checksums_right(&f), "{what}");
            }
            assert_eq!(d.sum(|c| c.conns.get()), 1, "{what}");
        }
        d.assert_books();
        d.assert_runs_out();
    }
}
