//! SCTP packets in fragments: every mode, any order, any core. The checksum covers the whole
//! packet, and ports change in it.

use weir_dataplane::Proto;
use weir_dataplane::counters::DropReason;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::packet::build::{Packet, checksums_right};
use weir_dataplane::packet::tcp::flags::SYN;

use crate::common::*;
use crate::modes::{CLIENT4, CLIENT6, VIP4, VIP6, at, director, packet, shapes};
use crate::only;

const ORDERS: [[usize; 3]; 2] = [[0, 2, 1], [2, 1, 0]];

fn exchange(
    d: &mut Director,
    port: weir_dataplane::PortId,
    parts: &[&Vec<u8>],
) -> Vec<(To, Vec<u8>)> {
    let mut out = Vec::new();
    for (n, part) in parts.iter().enumerate() {
        d.deliver(port, part, n); // any queue
        d.settle();
        let now = d.collect();
        assert!(now.is_empty() || n + 1 == parts.len(), "they wait");
        out.extend(now);
    }
    out
}

/// A DATA chunk of so many bytes, whose contents count.
fn data(len: u32) -> Vec<u8> {
    (0..len).map(|n| (n * 7) as u8).collect()
}

#[test]
fn packets_arrive_whole_with_their_checksum_right() {
    let rows = [
        (ForwardMode::fullnat, CLIENT4, VIP4, "10.1.0.11:3000"),
        (ForwardMode::fullnat, CLIENT6, VIP6, "[2001:db8:1::11]:3000"),
        (ForwardMode::fullnat, CLIENT6, VIP6, "10.1.0.11:3000"),
        (ForwardMode::fullnat, CLIENT4, VIP4, "[2001:db8:1::11]:3000"),
        (ForwardMode::nat, CLIENT4, VIP4, "10.1.0.11:3000"),
        (ForwardMode::nat, CLIENT6, VIP6, "[2001:db8:1::11]:3000"),
        (ForwardMode::dr, CLIENT4, VIP4, "10.1.0.11:80"),
        (ForwardMode::dr, CLIENT6, VIP6, "[2001:db8:1::11]:80"),
    ];
    for (mode, client, vip, server) in rows {
        for (shape, order) in shapes().iter().flat_map(|s| ORDERS.map(|o| (s, o))) {
            let what = format!("{mode:?} {client} {server} {order:?} {shape:?}");
            let mut d = director(shape, vip, mode, &[server]);
            only(d.exchange(WAN, &packet(Proto::Sctp, client, vip, SYN).build()));
            let bytes = data(3801); // padded to a multiple of four
            let go = |d: &mut Director, port, sent: &Packet| {
                let cut = parts(&sent.build(), 1400);
                let cut: Vec<_> = order.iter().map(|&n| &cut[n]).collect();
                let got = exchange(d, port, &cut);
                assert_eq!(got.len(), 3, "{what}");
                let to = got[0].0;
                let got: Vec<_> = got
                    .into_iter()
                    .map(|(t, f)| {
                        assert_eq!(t, to, "{what}");
                        f
                    })
                    .collect();
                (to, reassembled(&got).unwrap_or_else(|| panic!("{what}")))
            };
            let sent = Packet::sctp(at(client), at(vip), &[(0, &bytes)]).macs(ROUTER_MAC, WAN_MAC);
            let (to, got) = go(&mut d, WAN, &sent);
            assert_eq!(to, To::Port(LAN), "{what}");
            assert!(checksums_right(&got), "{what}");
            assert!(got.ends_with(&sent.payload[4..]), "{what}");
            if mode == ForwardMode::dr {
                assert_eq!(ends(&got).2, at(vip), "{what}");
                d.assert_books();
                continue;
            }
            assert_eq!(ends(&got).2, at(server), "{what}");
            let (_, from, to) = ends(&got);
            let reply = Packet::sctp(to, from, &[(0, &bytes)]).macs(server_mac(11), LAN_MAC);
            let (to, got) = go(&mut d, LAN, &reply);
            assert_eq!((to, ends(&got).1), (To::Port(WAN), at(vip)), "{what}");
            assert!(checksums_right(&got), "{what}");
            // A checksum that was wrong stays wrong.
            let mut wrong = sent.build();
            *wrong.last_mut().unwrap() ^= 1;
            let cut = parts(&wrong, 1400);
            let cut: Vec<_> = cut.iter().collect();
            let got: Vec<_> = exchange(&mut d, WAN, &cut)
                .into_iter()
                .map(|(_, f)| f)
                .collect();
            assert!(!checksums_right(&reassembled(&got).unwrap()), "{what}");
            d.assert_books();
            d.assert_runs_out();
        }
    }
}

/// Associations open by whole packets, what is not whole in time is counted, and what is nobody's
/// goes to the kernel together.
#[test]
fn what_belongs_to_no_association() {
    let mut d = director(
        &Shape::default(),
        VIP4,
        ForwardMode::fullnat,
        &["10.1.0.11:3000"],
    );
    let cut = |to: &str, kind: u8| {
        let sent = Packet::sctp(at(CLIENT4), at(to), &[(kind, &data(2000))]);
        parts(&sent.macs(ROUTER_MAC, WAN_MAC).build(), 1400)
    };
    for (kind, lost) in [(0, 2), (1, 4)] {
        let parts = cut(VIP4, kind);
        assert_eq!(exchange(&mut d, WAN, &parts.iter().collect::<Vec<_>>()), []);
        assert_eq!(d.drops(DropReason::NoConnection), lost);
    }
    let parts = cut("10.0.0.2:80", 0);
    let got = exchange(&mut d, WAN, &parts.iter().collect::<Vec<_>>());
    assert_eq!(got.len(), 2);
    assert!(got.iter().all(|(to, _)| *to == To::Kernel(WAN)));
    let parts = cut(VIP4, 0);
    assert_eq!(exchange(&mut d, WAN, &[&parts[0]]), []);
    assert_eq!(d.sum(|w| w.parked.get()), 1);
    d.assert_books();
    d.now = d.now.after(weir_dataplane::Tick::seconds(31));
    d.settle();
    assert_eq!(d.drops(DropReason::FragmentTimeout), 1);
    d.assert_books();
}
