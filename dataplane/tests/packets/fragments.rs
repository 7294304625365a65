//! Fragmented datagrams through the modes, in any order, on one and on three workers.

use weir_dataplane::Proto;
use weir_dataplane::counters::DropReason;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::packet::build::{Packet, checksums_right};
use weir_dataplane::packet::tcp::flags::{ACK, SYN};
use weir_dataplane::packet::{checksum, put16};

use crate::common::*;
use crate::modes::{CLIENT4, CLIENT6, VIP4, VIP6, at, director, packet, shapes};
use crate::only;

/// Everything that comes out while `parts` go in one by one.
fn exchange(
    d: &mut Director,
    port: weir_dataplane::PortId,
    parts: &[Vec<u8>],
) -> Vec<(To, Vec<u8>)> {
    let mut out = Vec::new();
    for (n, part) in parts.iter().enumerate() {
        d.deliver(port, part, n); // any queue
        d.settle();
        out.extend(d.collect());
    }
    out
}

fn frames(out: Vec<(To, Vec<u8>)>, to: To) -> Vec<Vec<u8>> {
    let frames = out.into_iter().map(|(went, f)| {
        assert_eq!(went, to);
        f
    });
    frames.collect()
}

/// The orders in which three parts may come.
const ORDERS: [[usize; 3]; 4] = [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]];

#[test]
fn datagrams_arrive_whole_in_any_order() {
    let rows = [
        (ForwardMode::fullnat, CLIENT4, VIP4, "10.1.0.11:8080"),
        (ForwardMode::fullnat, CLIENT6, VIP6, "[2001:db8:1::11]:8080"),
        (ForwardMode::nat, CLIENT4, VIP4, "10.1.0.11:8080"),
        (ForwardMode::nat, CLIENT6, VIP6, "[2001:db8:1::11]:8080"),
        (ForwardMode::dr, CLIENT4, VIP4, "10.1.0.11:80"),
        (ForwardMode::dr, CLIENT6, VIP6, "[2001:db8:1::11]:80"),
    ];
    for (mode, client, vip, server) in rows {
        for (shape, order) in shapes().iter().flat_map(|s| ORDERS.map(|o| (s, o))) {
            let what = format!("{mode:?} {client} {order:?} {shape:?}");
            let mut d = director(shape, vip, mode, &[server]);
            // With NAT on several cores the owner of the answers is asked first: by a whole packet.
            let opening = packet(Proto::Udp, client, vip, 0).build();
            if mode == ForwardMode::nat {
                only(d.exchange(WAN, &opening));
            }
            let data: Vec<u8> = (0..4000u32).map(|n| (n * 7) as u8).collect();
            let sent = packet(Proto::Udp, client, vip, 0).payload(&data).build();
            let cut = parts(&sent, 1500);
            let cut: Vec<_> = order.iter().map(|&n| cut[n].clone()).collect();
            let got = frames(exchange(&mut d, WAN, &cut), To::Port(LAN));
            let got = reassembled(&got).unwrap_or_else(|| panic!("{what}"));
            assert!(checksums_right(&got), "{what}");
            assert_eq!(got[got.len() - 4000..], data, "{what}");
            let (_, from, to) = ends(&got);
            match mode {
                ForwardMode::dr => assert_eq!((from, to), (at(client), at(vip)), "{what}"),
                _ => assert_eq!(to, at(server), "{what}"),
            }
            if mode == ForwardMode::dr {
                d.assert_books();
                continue;
            }
            // And the answer, the same way.
            let reply = answer(&got, 0).payload(&data).build();
            let cut = parts(&reply, 1500);
            let cut: Vec<_> = order.iter().map(|&n| cut[n].clone()).collect();
            let got = frames(exchange(&mut d, LAN, &cut), To::Port(WAN));
            let got = reassembled(&got).unwrap_or_else(|| panic!("{what}: answer"));
            assert!(checksums_right(&got), "{what}");
            assert_eq!(ends(&got), (Proto::Udp, at(vip), at(client)), "{what}");
            d.assert_books();
            d.assert_runs_out();
        }
    }
}

/// Two clients behind one local address who chose one identification: the server can tell their
/// datagrams apart.
#[test]
fn clients_share_a_local_address_and_no_identification() {
    for shape in shapes() {
        let mut d = director(&shape, VIP4, ForwardMode::fullnat, &["10.1.0.11:8080"]);
        let mut ids = std::collections::HashSet::new();
        for n in 1..=50u16 {
            let client = format!("192.0.2.{n}:4000");
            let sent = packet(Proto::Udp, &client, VIP4, 0)
                .payload(&[7; 2000])
                .build();
            let cut = parts(&sent, 1500);
            let got = frames(exchange(&mut d, WAN, &cut), To::Port(LAN));
            assert!(reassembled(&got).is_some());
            assert!(ids.insert([got[0][18], got[0][19]]), "{n}");
        }
        d.assert_books();
    }
}

#[test]
fn tcp_segments_in_parts_keep_their_connection() {
    for shape in shapes() {
        let mut d = director(&shape, VIP4, ForwardMode::fullnat, &["10.1.0.11:8080"]);
        let (_, syn) = only(d.exchange(WAN, &packet(Proto::Tcp, CLIENT4, VIP4, SYN).build()));
        only(d.exchange(LAN, &answer(&syn, SYN | ACK).build()));
        let sent = packet(Proto::Tcp, CLIENT4, VIP4, ACK)
            .payload(&[9; 1400])
            .build();
        let cut = parts(&sent, 800);
        let got = frames(exchange(&mut d, WAN, &cut), To::Port(LAN));
        let got = reassembled(&got).unwrap();
        assert!(checksums_right(&got));
        let active: u64 = d.sum(|c| {
            c.servers
                .get(weir_dataplane::ServerId(0))
                .unwrap()
                .active
                .get()
        });
        assert_eq!(active, 1);
        d.assert_books();
    }
}

/// One row what comes, and what of it is lost by which name.
#[test]
fn bad_fragments_are_named() {
    let cut = || {
        let sent = packet(Proto::Udp, CLIENT4, VIP4, 0)
            .payload(&[7; 3001])
            .build();
        parts(&sent, 1500)
    };
    let changed = |mut f: Vec<u8>, word: u16| {
        put16(&mut f, 20, word);
        checksum::set_ipv4(&mut f);
        f
    };
    let [a, b, c] = <[_; 3]>::try_from(cut()).unwrap();
    let tiny = {
        let syn = packet(Proto::Tcp, CLIENT4, VIP4, SYN).build();
        parts(&syn, 36).remove(0)
    };
    type Row = (&'static str, Vec<Vec<u8>>, DropReason, u64);
    let rows: Vec<Row> = vec![
        (
            "the same again",
            vec![a.clone(), b.clone(), b.clone()],
            DropReason::FragmentDuplicate,
            1,
        ),
        (
            "one that overlaps, and all behind it",
            vec![
                a.clone(),
                changed(b.clone(), 0x2000 | 10),
                b.clone(),
                c.clone(),
            ],
            DropReason::FragmentOverlap,
            3,
        ),
        (
            "a first without its ports",
            vec![tiny],
            DropReason::TinyFragment,
            1,
        ),
        (
            "of no multiple of 8",
            vec![changed(c.clone(), 0x2000)],
            DropReason::BadFragment,
            1,
        ),
    ];
    for (what, frames, reason, lost) in rows {
        let mut d = director(
            &Shape::default(),
            VIP4,
            ForwardMode::fullnat,
            &["10.1.0.11:8080"],
        );
        exchange(&mut d, WAN, &frames);
        assert_eq!(d.drops(reason), lost, "{what}");
        d.assert_books();
    }
    // Those without a first wait, are counted as waiting, and go in time.
    let mut d = director(
        &Shape::default(),
        VIP4,
        ForwardMode::fullnat,
        &["10.1.0.11:8080"],
    );
    assert_eq!(exchange(&mut d, WAN, &[b, c]), []);
    assert_eq!(d.sum(|w| w.parked.get()), 2);
    d.assert_books();
    d.now = d.now.after(weir_dataplane::Tick::seconds(31));
    d.settle();
    assert_eq!(d.drops(DropReason::FragmentTimeout), 2);
    d.assert_books();
}

/// What is not balanced is the kernel's, in pieces as in one piece; and a port without a service
/// refuses fragments as it refuses packets.
#[test]
fn strangers_fragments_are_passed_to_the_kernel() {
    for shape in shapes() {
        let mut d = director(&shape, VIP4, ForwardMode::nat, &["10.1.0.11:8080"]);
        for (from, to) in [
            ("192.0.2.9:5", "10.0.0.2:6"),     // the director's own address
            ("10.1.0.11:9", "203.0.113.5:53"), // what a server sends on its own
        ] {
            let sent = Packet::udp(at(from), at(to))
                .macs(ROUTER_MAC, WAN_MAC)
                .payload(&[1; 2000]);
            let cut = parts(&sent.build(), 1500);
            let got = exchange(&mut d, WAN, &cut);
            assert_eq!(got.len(), 2, "{from}");
            assert!(
                got.iter().all(|(to, _)| matches!(to, To::Kernel(_))),
                "{from}"
            );
        }
        let before = d.drops(DropReason::NoConnection);
        let other_port = format!("{}:81", VIP4.trim_end_matches(":80"));
        let sent = packet(Proto::Udp, CLIENT4, &other_port, 0).payload(&[1; 2000]);
        exchange(&mut d, WAN, &parts(&sent.build(), 1500));
        assert_eq!(d.drops(DropReason::NoConnection), before + 2);
        d.assert_books();
    }
}
