//! The SYN proxy packet by packet: cookies, what of the client's handshake the server sees, what
//! is held meanwhile, and how it ends when somebody does not answer.

use std::net::Ipv4Addr;
use std::sync::Arc;

use weir_dataplane::command::{Command, Event};
use weir_dataplane::counters::DropReason;
use weir_dataplane::defense::cookie::Cookies;
use weir_dataplane::defense::syn_proxy::{Mode, SynProxy};
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::forward::carrier::ClientAddress;
use weir_dataplane::packet::build::checksums_right;
use weir_dataplane::packet::tcp::flags::{ACK, FIN, PSH, RST, SYN};
use weir_dataplane::packet::{be16, be32, eth};
use weir_dataplane::sched::{Options, Scheduler, SchedulerKind};
use weir_dataplane::service::{Candidate, Policy, Server, Service, ServiceKey, SnapshotBuilder};
use weir_dataplane::{Proto, ServerId, ServiceId, Tick};

use crate::carriers::{
    FAMILIES, Segment, client_packet, header, records, segment, server_packet, shapes, toa4,
    with_options,
};
use crate::common::*;
use crate::modes::{CLIENT4, CLIENT6, VIP4, VIP6, at};
use crate::only;

mod exchange;
mod flood;

pub(crate) const ALWAYS: SynProxy = SynProxy {
    mode: Mode::Always,
    half_open: 100,
    mss: u16::MAX,
    window_scale: 7,
    resets: true,
};

/// What a director of these tests is made of.
#[derive(Clone, Copy)]
struct Of<'a> {
    vip: &'a str,
    servers: &'a [&'a str],
    mode: ForwardMode,
    carrier: ClientAddress,
    proxy: SynProxy,
    cookies: Cookies,
}

const PLAIN: Of<'static> = Of {
    vip: VIP4,
    servers: &["10.1.0.11:8080"],
    mode: ForwardMode::fullnat,
    carrier: ClientAddress::none,
    proxy: ALWAYS,
    cookies: Cookies {
        secret: None,
        tick_zero_s: 0,
    },
};

#[allow(clippy::needless_update)] // the other policies stay off, however many there are
fn follow(d: &mut Director, of: Of<'_>, generation: u64) {
    let mut b = SnapshotBuilder::default().cookies(of.cookies);
    let ids = (0..).map(ServerId).zip(of.servers);
    let candidates: Vec<_> = ids
        .map(|(id, address)| {
            b.server(Server {
                id,
                service: ServiceId(0),
                address: at(address),
                forward: of.mode,
                tunnel: None,
                policy: Default::default(),
            });
            Candidate::new(id, at(address), 1)
        })
        .collect();
    b.service(Arc::new(Service {
        id: ServiceId(0),
        name: "s".into(),
        key: ServiceKey::Address {
            proto: Proto::Tcp,
            vip: at(of.vip).ip(),
            port: at(of.vip).port(),
        },
        scheduler: Scheduler::new(SchedulerKind::rr, Options::default(), &candidates),
        servers: candidates,
        client_address: of.carrier,
        policy: Policy {
            syn_proxy: of.proxy,
            ..Policy::default()
        },
        local_addresses: ["10.1.0.100", "10.1.0.101", "2001:db8:1::64"]
            .map(|a| a.parse().unwrap())
            .into_iter()
            .collect(),
    }));
    let snapshot = Arc::new(b.build(generation));
    d.tell(|| Command::Snapshot(Arc::clone(&snapshot)));
    d.settle();
    d.events.clear();
}

fn director(shape: &Shape, of: Of<'_>) -> Director {
    let mut d = Director::new(shape);
    follow(&mut d, of, 2);
    d
}

const ISN: u32 = u32::MAX - 3; // the client's numbers wrap at once
const SERVER_ISN: u32 = 5;
/// A Linux client's SYN: MSS 1460, SACK, its clock, window scale 9.
const LINUX: [u8; 20] = [
    2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0x10, 0, 0, 0, 0, 0, 1, 3, 3, 9,
];

fn clocks(ours: u32, theirs: u32) -> Vec<u8> {
    [
        &[1, 1, 8, 10][..],
        &ours.to_be_bytes(),
        &theirs.to_be_bytes(),
    ]
    .concat()
}

/// The clock that a segment has, and what it echoes.
fn clocks_of(s: &Segment) -> (u32, u32) {
    let option = s.options.iter().find(|o| o[0] == 8).expect("timestamps");
    (be32(option, 2), be32(option, 6))
}

fn window(frame: &[u8]) -> u16 {
    let l4 = if eth::ethertype(frame) == Ok(eth::IPV6) {
        54
    } else {
        34
    };
    be16(frame, l4 + 14)
}

fn set_window(frame: &mut [u8], window: u16) {
    let l4 = if eth::ethertype(frame) == Ok(eth::IPV6) {
        54
    } else {
        34
    };
    let old = be16(frame, l4 + 14);
    let diff = weir_dataplane::packet::checksum::Diff::of(&[(old.into(), window.into())]);
    let sum = be16(frame, l4 + 16);
    weir_dataplane::packet::put16(frame, l4 + 14, window);
    weir_dataplane::packet::put16(frame, l4 + 16, diff.apply(sum));
}

fn conns(d: &Director) -> u32 {
    d.workers
        .iter()
        .map(|w| w.conns().len() + w.conns6().len())
        .sum()
}

/// A client that has its SYN-ACK.
struct Client<'a> {
    addr: &'a str,
    vip: &'a str,
    /// Its next number, and that which it waits for.
    seq: u32,
    ack: u32,
    /// What it was told of a clock.
    told: Option<u32>,
    syn_ack: Segment,
}

impl<'a> Client<'a> {
    fn connects(d: &mut Director, addr: &'a str, vip: &'a str, options: &[u8]) -> Client<'a> {
        let syn = with_options(&client_packet(addr, vip, SYN, ISN, 0), options);
        let (to, f) = only(d.exchange(WAN, &syn));
        assert_eq!(to, To::Port(WAN));
        let s = segment(&f);
        assert_eq!((s.flags, s.ack), (SYN | ACK, ISN.wrapping_add(1)));
        let told = s.options.iter().find(|o| o[0] == 8).map(|o| be32(o, 2));
        Client {
            addr,
            vip,
            seq: ISN.wrapping_add(1),
            ack: s.seq.wrapping_add(1),
            told,
            syn_ack: s,
        }
    }

    fn packet(&self, flags: u8, data: &[u8]) -> Vec<u8> {
        let p = client_packet(self.addr, self.vip, flags, self.seq, self.ack).payload(data);
        match self.told {
            Some(told) => with_options(&p, &clocks(0x1100, told)),
            None => with_options(&p, &[]),
        }
    }
}

#[test]
fn a_syn_is_answered_byte_by_byte_and_forgotten() {
    let mut d = director(&Shape::default(), PLAIN);
    let mut syn = with_options(&client_packet(CLIENT4, VIP4, SYN, ISN, 0), &LINUX);
    let clock = (u64::from(d.now.0) * 1000 / 64) as u32;
    let (to, f) = only(d.exchange(WAN, &syn));
    assert_eq!(to, To::Port(WAN));
    // Back to where it came from, though nobody knows that address.
    assert_eq!((eth::dst(&f), eth::src(&f)), (ROUTER_MAC, WAN_MAC));
    assert!(checksums_right(&f));
    assert_eq!(f.len(), 14 + 20 + 40);
    assert_eq!(f[12..24], [8, 0, 0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, 6]);
    assert_eq!(f[26..34], [10, 0, 0, 10, 192, 0, 2, 7]);
    assert_eq!(f[34..38], [0, 80, 0x9c, 0x40]);
    assert_eq!(f[42..46], ISN.wrapping_add(1).to_be_bytes());
    assert_eq!(f[46..48], [0xa0, SYN | ACK]);
    assert_eq!(be16(&f, 48), 4 * 1460, "as much as is held");
    assert_eq!(f[52..54], [0, 0]);
    let clock = clock.to_be_bytes();
    let told = [
        &[2, 4, 5, 180, 4, 2, 8, 10][..],
        &clock,
        &[0, 0, 0x10, 0, 1, 3, 3, 7],
    ];
    assert_eq!(f[54..], told.concat());
    // Of the number: minute, 1460 of the table, scale 9, SACK.
    let cookie = be32(&f, 38);
    assert_eq!(cookie & 0xff, 6 << 5 | 9 << 1 | 1);
    assert_eq!((conns(&d), records(&d)), (0, 0));
    assert_eq!(d.sum(|c| c.cookies_sent.get()), 1);

    // The same SYN the same minute: the same answer.
    assert_eq!(be32(&only(d.exchange(WAN, &syn)).1, 38), cookie);
    // Without options, and with a wrong checksum.
    let plain = client_packet(CLIENT4, VIP4, SYN, ISN, 0).build();
    let f = only(d.exchange(WAN, &plain)).1;
    let s = segment(&f);
    assert_eq!(
        (s.options, s.seq & 0xff),
        (vec![vec![2, 4, 5, 180]], 1 << 5 | 15 << 1)
    );
    syn[50] ^= 1;
    assert_eq!(d.exchange(WAN, &syn), []);
    assert_eq!(d.drops(DropReason::BadL4Checksum), 1);
    d.assert_books();

    let mut d = director(&Shape::default(), Of { vip: VIP6, ..PLAIN });
    let syn = with_options(&client_packet(CLIENT6, VIP6, SYN, ISN, 0), &LINUX);
    let f = only(d.exchange(WAN, &syn)).1;
    assert_eq!((eth::dst(&f), eth::src(&f)), (ROUTER_MAC, WAN_MAC));
    let s = segment(&f);
    assert_eq!((s.flags, s.ack), (SYN | ACK, ISN.wrapping_add(1)));
    assert_eq!(s.options[0], [2, 4, 0x05, 0xa0], "1440");
    assert_eq!(s.seq & 0xff, 6 << 5 | 9 << 1 | 1, "1460 becomes 1440");
    d.assert_books();
}

/// Links, tunnels and options want smaller segments, and so may the operator.
#[test]
fn what_clients_may_send_fits_the_way_to_the_servers() {
    let mixed: &[&str] = &["10.1.0.11:8080", "[2001:db8:1::11]:8080"];
    let rows: &[(&str, Of<'_>, u16)] = &[
        ("plain", PLAIN, 1460),
        (
            "operator",
            Of {
                proxy: SynProxy {
                    mss: 1300,
                    ..ALWAYS
                },
                ..PLAIN
            },
            1300,
        ),
        (
            "toa",
            Of {
                carrier: ClientAddress::toa,
                ..PLAIN
            },
            1452,
        ),
        (
            "to IPv6",
            Of {
                servers: mixed,
                ..PLAIN
            },
            1440,
        ),
    ];
    for (what, of, mss) in rows {
        let mut d = director(&Shape::default(), *of);
        let client = Client::connects(&mut d, CLIENT4, VIP4, &LINUX);
        assert_eq!(be16(&client.syn_ack.options[0], 2), *mss, "{what}");
    }
}

/// All families, modes, carriers, one worker and three: what client and server see of each other.
#[test]
fn two_handshakes_become_one_connection() {
    let carriers = [
        ClientAddress::none,
        ClientAddress::toa,
        ClientAddress::proxy_v2,
    ];
    let fullnat = carriers.map(|carrier| (ForwardMode::fullnat, carrier));
    for (mode, carrier) in fullnat
        .into_iter()
        .chain([(ForwardMode::nat, ClientAddress::none)])
    {
        for (what, client, vip, server) in FAMILIES {
            if mode == ForwardMode::nat && at(client).is_ipv4() != at(server).is_ipv4() {
                continue;
            }
            for shape in shapes() {
                let what = format!("{what} {} {}", mode.name(), carrier.name());
                let servers: &[&str] = &[server];
                let of = Of {
                    vip,
                    servers,
                    mode,
                    carrier,
                    ..PLAIN
                };
                joined(&shape, of, client, &what);
            }
        }
    }
}

fn joined(shape: &Shape, of: Of<'_>, client: &str, what: &str) {
    let mut d = director(shape, of);
    let mut c = Client::connects(&mut d, client, of.vip, &LINUX);
    let told = c.told.unwrap();
    let (start, waits) = (c.seq, c.ack);

    // The acknowledgement with data: the server gets a SYN in its client's name.
    let get = c.packet(ACK | PSH, b"GET /");
    let (to, syn) = only(d.exchange(WAN, &get));
    assert_eq!(to, To::Port(LAN), "{what}");
    let s = segment(&syn);
    assert_eq!((s.seq, s.ack, s.flags), (ISN, 0, SYN), "{what}");
    assert!(s.data.is_empty());
    let mss = if at(client).is_ipv6() { 1440u16 } else { 1460 };
    assert_eq!(
        s.options[0],
        [&[2, 4], &mss.to_be_bytes()[..]].concat(),
        "{what}"
    );
    assert_eq!(s.options[1..2], [vec![4, 2]], "{what}");
    assert_eq!(clocks_of(&s), (0x1100, 0), "{what}: the client's clock");
    assert_eq!(s.options[3], [3, 3, 9], "{what}: the client's scale");
    assert_eq!((conns(&d), records(&d)), (1, 1));
    assert_eq!(d.totals().held, 1);

    // More of it is held, in order; repetitions are not.
    c.seq = start.wrapping_add(5);
    assert_eq!(d.exchange(WAN, &c.packet(ACK, b"more")), []);
    assert_eq!(d.exchange(WAN, &c.packet(ACK, b"more")), []);
    assert_eq!(d.exchange(WAN, &get), []);
    assert_eq!(d.exchange(WAN, &c.packet(ACK, b"")), []);
    assert_eq!(d.drops(DropReason::AwaitingServer), 3);
    d.assert_books();

    // The server answers: window 1000 as it is, scale 2, its clock.
    let answer = server_packet(&syn, SYN | ACK, SERVER_ISN, start);
    let options = [
        &[2, 4, 5, 180, 4, 2][..],
        &clocks(9_000_000, 0x1100)[2..],
        &[1, 3, 3, 2],
    ];
    let mut syn_ack = with_options(&answer, &options.concat());
    set_window(&mut syn_ack, 1000);
    let mut out = d.exchange(LAN, &syn_ack);
    let n = match of.carrier {
        ClientAddress::proxy_v2 => header(of.carrier, client, of.vip).len() as u32,
        _ => 0,
    };
    out.sort_by_key(|(to, _)| *to);
    // To the client: the server's window, in units of 128, and nothing new.
    let (to, update) = out.remove(0);
    assert_eq!(to, To::Port(WAN), "{what}");
    let s = segment(&update);
    assert_eq!(
        (s.seq, s.ack, s.flags, &s.data[..]),
        (waits, start, ACK, &b""[..]),
        "{what}"
    );
    assert_eq!(window(&update), 1000 >> 7, "{what}");
    assert_eq!(clocks_of(&s), (told, 0x1100), "{what}");
    // To the server: what was held, in its numbers.
    assert!(out.iter().all(|(to, _)| *to == To::Port(LAN)), "{what}");
    let mut sent: Vec<Segment> = out.iter().map(|(_, f)| segment(f)).collect();
    if n > 0 {
        let h = sent.remove(0);
        assert_eq!(
            (h.seq, h.data.len()),
            (start, n as usize),
            "{what}: the header first"
        );
        assert_eq!(h.ack, SERVER_ISN + 1, "{what}");
    }
    let data: Vec<&[u8]> = sent.iter().map(|s| &s.data[..]).collect();
    assert_eq!(data, [&b"GET /"[..], b"more"], "{what}");
    for (s, behind) in sent.iter().zip([0, 5]) {
        let seq = start.wrapping_add(behind + n);
        assert_eq!((s.seq, s.ack), (seq, SERVER_ISN + 1), "{what}");
        assert_eq!(
            clocks_of(s),
            (0x1100, 9_000_000),
            "{what}: its own clock back"
        );
        let toa = s.options.iter().find(|o| o[0] == 254);
        let wanted = of.carrier == ClientAddress::toa && s.options.len() > 1;
        assert_eq!(toa.is_some(), wanted, "{what}");
        if let Some(toa) = toa {
            assert_eq!(*toa, toa4(at(client)), "{what}");
        }
    }
    assert_eq!(d.totals().held, 0);

    // Data of the server's: its numbers and clock as the client knows them; what it acknowledges
    // is the client's own.
    let far = start.wrapping_add(9);
    let mut reply = with_options(
        &server_packet(&syn, ACK, SERVER_ISN + 1, far.wrapping_add(n)).payload(b"200"),
        &clocks(9_000_007, 0x1100),
    );
    set_window(&mut reply, 320);
    let f = only(d.exchange(LAN, &reply)).1;
    let s = segment(&f);
    assert_eq!(
        (s.seq, s.ack, &s.data[..]),
        (waits, far, &b"200"[..]),
        "{what}"
    );
    assert_eq!(clocks_of(&s), (told.wrapping_add(7), 0x1100), "{what}");
    assert_eq!(window(&f), 320 * 4 / 128, "{what}");
    // The client acknowledges, and has a block behind a hole: in the server's numbers.
    let mut p = client_packet(client, of.vip, ACK, far, waits.wrapping_add(3));
    p.payload = vec![];
    let blocks = |by: u32| {
        let edges = [10u32, 20].map(|k| by.wrapping_add(k).to_be_bytes());
        [&[1, 1, 5, 10][..], &edges.concat()].concat()
    };
    let options = [clocks(0x1108, told.wrapping_add(7)), blocks(waits)].concat();
    let f = only(d.exchange(WAN, &with_options(&p, &options))).1;
    let s = segment(&f);
    assert_eq!(
        (s.seq, s.ack),
        (far.wrapping_add(n), SERVER_ISN + 4),
        "{what}"
    );
    assert_eq!(clocks_of(&s), (0x1108, 9_000_007), "{what}");
    let sack = s.options.iter().find(|o| o[0] == 5).unwrap();
    assert_eq!(sack[..], blocks(SERVER_ISN + 1)[2..], "{what}");
    // It closes; resets have the numbers that they need.
    let mut p = client_packet(client, of.vip, RST, far, 0);
    p.payload = vec![];
    let s = segment(&only(d.exchange(WAN, &p.build())).1);
    assert_eq!(
        (s.seq, s.ack, s.flags),
        (far.wrapping_add(n), 0, RST),
        "{what}"
    );
    let rst = server_packet(&syn, RST, SERVER_ISN + 4, 0).build();
    let s = segment(&only(d.exchange(LAN, &rst)).1);
    assert_eq!(s.seq, waits.wrapping_add(3), "{what}");
    assert_eq!(d.sum(|c| c.cookies_valid.get()), 1);
    d.assert_books();
    d.assert_runs_out();
    assert_eq!(records(&d), 0, "{what}");
}

#[test]
fn options_are_what_both_ends_have() {
    // Windows: no timestamps. Something old: nothing at all.
    let windows = [2, 4, 5, 180, 1, 3, 3, 8, 1, 1, 4, 2];
    type Options<'a> = &'a [&'a [u8]];
    let rows: &[(&str, &[u8], Options<'_>, Options<'_>)] = &[
        (
            "windows",
            &windows,
            &[&[2, 4, 5, 180], &[4, 2], &[3, 3, 7]],
            &[&[2, 4, 5, 180], &[4, 2], &[3, 3, 8]],
        ),
        ("old", &[2, 4, 3, 0], &[&[2, 4, 5, 180]], &[&[2, 4, 2, 24]]),
        (
            "scale 14 and more, and none of SACK",
            &[2, 4, 35, 40, 1, 3, 3, 99],
            &[&[2, 4, 5, 180], &[3, 3, 7]],
            &[&[2, 4, 35, 0], &[3, 3, 14]],
        ),
    ];
    for (what, asked, told, repeated) in rows {
        let mut d = director(&Shape::default(), PLAIN);
        let c = Client::connects(&mut d, CLIENT4, VIP4, asked);
        assert_eq!(c.syn_ack.options, *told, "{what}");
        let syn = only(d.exchange(WAN, &c.packet(ACK, b""))).1;
        assert_eq!(segment(&syn).options, *repeated, "{what}");
    }
}

/// A server that takes less than it was offered for: this connection makes do, the next client
/// is offered no more than that.
#[test]
fn what_a_server_refuses_is_not_offered_again() {
    let mut d = director(&Shape::default(), PLAIN);
    let c = Client::connects(&mut d, CLIENT4, VIP4, &LINUX);
    let syn = only(d.exchange(WAN, &c.packet(ACK, b""))).1;
    let answer = server_packet(&syn, SYN | ACK, SERVER_ISN, c.seq);
    let mut answer = with_options(&answer, &[2, 4, 5, 120]);
    set_window(&mut answer, 6400);
    let out = d.exchange(LAN, &answer);
    assert_eq!(
        window(&out[0].1),
        6400 >> 7,
        "the client shifts all the same"
    );
    // The server takes the client's windows as they are.
    let mut p = c.packet(ACK, b"x");
    set_window(&mut p, 3);
    assert_eq!(window(&only(d.exchange(WAN, &p)).1), 3 << 9);
    set_window(&mut p, 500);
    assert_eq!(window(&only(d.exchange(WAN, &p)).1), 0xffff);
    let other = Client::connects(&mut d, "192.0.2.8:4000", VIP4, &LINUX);
    assert_eq!(other.syn_ack.options, [[2, 4, 5, 120]]);
    assert_eq!(other.syn_ack.seq & 0x1f, 15 << 1, "neither scale nor SACK");
    // Other servers, other habits.
    follow(
        &mut d,
        Of {
            servers: &["10.1.0.12:8080"],
            ..PLAIN
        },
        3,
    );
    let other = Client::connects(&mut d, "192.0.2.8:4000", VIP4, &LINUX);
    assert_eq!(other.syn_ack.options.len(), 4);
    d.assert_books();
}

#[test]
fn what_proves_nothing_is_reset_or_dropped_and_opens_nothing() {
    for resets in [true, false] {
        let proxy = SynProxy { resets, ..ALWAYS };
        let mut d = director(&Shape::default(), Of { proxy, ..PLAIN });
        let mut c = Client::connects(&mut d, CLIENT4, VIP4, &LINUX);
        let good = c.ack;
        let answers = |d: &mut Director, c: &Client<'_>| {
            let out = d.exchange(WAN, &c.packet(ACK, b"data"));
            assert_eq!(out.len(), usize::from(resets));
            for (to, f) in out {
                let s = segment(&f);
                assert_eq!((to, s.seq, s.flags), (To::Port(WAN), c.ack, RST));
            }
        };
        c.ack = good.wrapping_add(1 << 9);
        answers(&mut d, &c);
        c.ack = good ^ 2 << 1; // another scale
        answers(&mut d, &c);
        c.ack = good;
        c.seq = c.seq.wrapping_add(1);
        answers(&mut d, &c);
        c.seq = c.seq.wrapping_sub(1);
        let told = c.told.take(); // without its clock
        answers(&mut d, &c);
        c.told = told;
        assert_eq!(d.drops(DropReason::InvalidCookie), 4);
        // Too late by a little, and by so much that nobody knows any more.
        d.now = d.now.after(Tick::seconds(150));
        answers(&mut d, &c);
        assert_eq!(d.drops(DropReason::ExpiredCookie), 1);
        d.now = d.now.after(Tick::seconds(300));
        answers(&mut d, &c);
        assert_eq!(d.drops(DropReason::InvalidCookie), 5);
        // A reset is answered by nothing, and a SYN-ACK by a reset.
        assert_eq!(d.exchange(WAN, &c.packet(RST, b"")), []);
        let s = segment(&only(d.exchange(WAN, &c.packet(SYN | ACK, b""))).1);
        assert_eq!(s.flags, RST);
        assert_eq!(d.drops(DropReason::NoConnection), 2);
        assert_eq!((conns(&d), d.sum(|c| c.conns_opened.get())), (0, 0));
        d.assert_books();
    }
}

#[test]
fn a_cookie_is_good_for_a_minute_at_least() {
    let mut d = director(&Shape::default(), PLAIN);
    let c = Client::connects(&mut d, CLIENT4, VIP4, &LINUX);
    d.now = d.now.after(Tick::seconds(60));
    let (to, _) = only(d.exchange(WAN, &c.packet(ACK, b"")));
    assert_eq!(to, To::Port(LAN));
}

#[test]
fn a_peer_with_the_same_secret_finishes_the_handshake() {
    let secret = |byte| Cookies {
        secret: Some([byte; 16]),
        tick_zero_s: 1_795_000_000,
    };
    let with = |cookies| director(&Shape::workers(2), Of { cookies, ..PLAIN });
    let mut one = with(secret(7));
    let c = Client::connects(&mut one, CLIENT4, VIP4, &LINUX);
    let mut peer = with(secret(7));
    let (to, syn) = only(peer.exchange(WAN, &c.packet(ACK, b"")));
    assert_eq!((to, segment(&syn).options.len()), (To::Port(LAN), 4));
    for other in [
        secret(8),
        Cookies {
            secret: None,
            ..secret(7)
        },
    ] {
        let mut stranger = with(other);
        let s = segment(&only(stranger.exchange(WAN, &c.packet(ACK, b""))).1);
        assert_eq!(s.flags, RST);
        assert_eq!(stranger.drops(DropReason::InvalidCookie), 1);
    }
    // A minute of clocks apart is too much, a reload with the same secret changes nothing.
    follow(
        &mut one,
        Of {
            cookies: secret(7),
            ..PLAIN
        },
        3,
    );
    assert_eq!(
        only(one.exchange(WAN, &c.packet(ACK, b""))).0,
        To::Port(LAN)
    );
}

#[test]
fn a_server_that_does_not_answer_is_asked_again_and_then_the_client_is_told() {
    for (what, client, vip, server) in FAMILIES {
        let servers: &[&str] = &[server];
        let mut d = director(
            &Shape::default(),
            Of {
                vip,
                servers,
                ..PLAIN
            },
        );
        let mut c = Client::connects(&mut d, client, vip, &LINUX);
        let syn = only(d.exchange(WAN, &c.packet(ACK, b""))).1;
        c.seq = c.seq.wrapping_add(0);
        assert_eq!(d.exchange(WAN, &c.packet(ACK, b"data")), []);
        for n in 1..4 {
            d.now = d.now.after(Tick::seconds(1));
            d.settle();
            let again = only(d.collect()).1;
            assert_eq!(segment(&again), segment(&syn), "{what}");
            assert_eq!(d.sum(|c| c.syns_repeated.get()), n);
        }
        d.now = d.now.after(Tick::seconds(1));
        d.settle();
        let (to, f) = only(d.collect());
        let s = segment(&f);
        assert_eq!((to, s.seq, s.flags), (To::Port(WAN), c.ack, RST), "{what}");
        assert_eq!((conns(&d), d.totals().held), (0, 0));
        assert_eq!(d.drops(DropReason::ServerSilent), 1, "its data");
        // A late answer finds nobody.
        let late = server_packet(&syn, SYN | ACK, SERVER_ISN, c.seq).build();
        assert_eq!(segment(&only(d.exchange(LAN, &late)).1).flags, RST);
        d.assert_books();
    }
}

#[test]
fn a_server_that_refuses_and_a_client_that_gives_up() {
    let mut d = director(&Shape::default(), PLAIN);
    let c = Client::connects(&mut d, CLIENT4, VIP4, &LINUX);
    let syn = only(d.exchange(WAN, &c.packet(ACK, b"data"))).1;
    // Not about our SYN.
    let stray = server_packet(&syn, RST | ACK, 0, c.seq.wrapping_add(77)).build();
    assert_eq!(d.exchange(LAN, &stray), []);
    // A connection that the server still has: it is told that it is over.
    let old = server_packet(&syn, ACK, 1234, 777).build();
    let (to, f) = only(d.exchange(LAN, &old));
    assert_eq!(
        (to, segment(&f).seq, segment(&f).flags),
        (To::Port(LAN), 777, RST)
    );
    let refusal = server_packet(&syn, RST | ACK, 0, c.seq).build();
    let (to, f) = only(d.exchange(LAN, &refusal));
    let s = segment(&f);
    assert_eq!(
        (to, s.seq, s.ack, s.flags),
        (To::Port(WAN), c.ack, c.seq, RST | ACK)
    );
    assert_eq!(d.exchange(WAN, &c.packet(ACK, b"data")), []);
    assert_eq!(d.drops(DropReason::ServerSilent), 3);
    d.assert_books();
    d.assert_runs_out();

    let mut d = director(&Shape::default(), PLAIN);
    let c = Client::connects(&mut d, CLIENT4, VIP4, &LINUX);
    only(d.exchange(WAN, &c.packet(ACK, b"data")));
    let (to, f) = only(d.exchange(WAN, &c.packet(RST, b"")));
    assert_eq!((to, segment(&f).seq), (To::Port(LAN), c.seq));
    assert_eq!((conns(&d), records(&d)), (0, 0));
    d.assert_books();
    d.assert_runs_out();
}

/// What ends the server's handshake was lost, and its client waits for the server to speak.
#[test]
fn a_repeated_syn_ack_has_the_client_acknowledge() {
    for carrier in [ClientAddress::none, ClientAddress::proxy_v2] {
        let mut d = director(&Shape::default(), Of { carrier, ..PLAIN });
        let c = Client::connects(&mut d, CLIENT4, VIP4, &LINUX);
        let syn = only(d.exchange(WAN, &c.packet(ACK, b""))).1;
        let answer = server_packet(&syn, SYN | ACK, SERVER_ISN, c.seq);
        let answer = with_options(&answer, &LINUX);
        assert_eq!(d.exchange(LAN, &answer).len(), 2);
        d.now = d.now.after(Tick::seconds(1));
        let (to, f) = only(d.exchange(LAN, &answer));
        let s = segment(&f);
        assert_eq!((to, s.flags, s.ack), (To::Port(WAN), ACK, c.seq));
        assert_eq!(
            s.seq,
            c.ack.wrapping_sub(1),
            "a number that it had: it answers"
        );
        let (to, f) = only(d.exchange(WAN, &c.packet(ACK, b"")));
        let s = segment(&f);
        assert_eq!((to, s.seq, s.ack), (To::Port(LAN), c.seq, SERVER_ISN + 1));
        assert_eq!(
            s.data.is_empty(),
            carrier == ClientAddress::none,
            "and the header again"
        );
        d.assert_books();
    }
}

/// More clients wait than there is room for: who waits for longest proves itself again.
#[test]
fn waiting_is_bounded_and_nobody_is_lost() {
    let mut d = director(&Shape::default(), PLAIN);
    let names: Vec<String> = (0..600)
        .map(|n| format!("192.0.2.9:{}", 2000 + n))
        .collect();
    for name in &names {
        let c = Client::connects(&mut d, name, VIP4, &LINUX);
        assert_eq!(
            only(d.exchange(WAN, &c.packet(ACK, b"data"))).0,
            To::Port(LAN)
        );
    }
    assert_eq!((conns(&d), d.totals().held), (512, 512));
    assert_eq!(d.drops(DropReason::AwaitingServer), 88);
    let c = Client::connects(&mut d, &names[0], VIP4, &LINUX);
    assert_eq!(
        only(d.exchange(WAN, &c.packet(ACK, b"data"))).0,
        To::Port(LAN)
    );
    // Of each as much as its window lets it send.
    let mut c = Client::connects(&mut d, "192.0.2.9:80", VIP4, &LINUX);
    let syn = only(d.exchange(WAN, &c.packet(ACK, b""))).1;
    let (start, before) = (c.seq, d.drops(DropReason::AwaitingServer));
    for n in 0..6 {
        c.seq = start.wrapping_add(n * 4);
        let flags = if n == 3 { ACK | FIN } else { ACK };
        assert_eq!(d.exchange(WAN, &c.packet(flags, b"four")), []);
    }
    assert_eq!(d.drops(DropReason::AwaitingServer), before + 2);
    let answer = with_options(&server_packet(&syn, SYN | ACK, SERVER_ISN, start), &LINUX);
    let out = d.exchange(LAN, &answer);
    let data: Vec<u8> = out.iter().flat_map(|(_, f)| segment(f).data).collect();
    assert_eq!((out.len(), &data[..]), (6, &b"fourfourfourfour"[..]));
    // The others' servers never answer.
    for _ in 0..5 {
        d.now = d.now.after(Tick::seconds(1));
        d.settle();
        d.collect();
        d.assert_books();
    }
    assert_eq!(conns(&d), 1);
    d.assert_runs_out();
    assert_eq!((records(&d), d.totals().held), (0, 0));
}

/// Nobody to send it to: the client, which believes to be connected, is told at once.
#[test]
fn without_a_server_nothing_is_promised_and_nothing_kept() {
    let mut d = director(&Shape::default(), PLAIN);
    let c = Client::connects(&mut d, CLIENT4, VIP4, &LINUX);
    follow(
        &mut d,
        Of {
            servers: &[],
            ..PLAIN
        },
        3,
    );
    let s = segment(&only(d.exchange(WAN, &c.packet(ACK, b"data"))).1);
    assert_eq!((s.seq, s.flags), (c.ack, RST));
    assert_eq!(d.drops(DropReason::NoServer), 1);
    let syn = with_options(&client_packet(CLIENT4, VIP4, SYN, ISN, 0), &LINUX);
    let out = d.exchange(WAN, &syn);
    assert_eq!(out[0].1[23], 1, "ICMP: there is nobody");
    d.assert_books();
}
