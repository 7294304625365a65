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

mod cookies;
mod exchange;
mod flood;
mod joining;
mod waiting;

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
