use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::types::Tick;

fn via(port: u8, gateway: Option<[u8; 4]>) -> RouteTarget {
    RouteTarget::Port {
        port: PortId(port),
        gateway: gateway.map(IpAddr::from),
        source: None,
    }
}

fn route(prefix: [u8; 4], len: u8, target: RouteTarget) -> Route {
    Route {
        prefix: prefix.into(),
        len,
        target,
    }
}

#[test]
fn longest_prefix_wins_and_reject_hides_shorter_ones() {
    let fib = Fib::new(
        7,
        &[
            route([0, 0, 0, 0], 0, via(0, Some([10, 0, 0, 1]))),
            route([10, 1, 0, 0], 16, via(1, Some([9, 9, 9, 9]))),
            route([10, 1, 0, 77], 16, via(1, None)), // same network: the last is kept
            route([10, 1, 2, 0], 24, RouteTarget::Reject),
            route([10, 1, 2, 3], 32, via(0, None)),
        ],
    );
    let hop = |d: [u8; 4]| fib.lookup(d.into()).map(|w| (w.hop.port.0, w.hop.addr));
    assert_eq!(hop([8, 8, 8, 8]), Some((0, [10, 0, 0, 1].into())));
    assert_eq!(hop([10, 1, 9, 9]), Some((1, [10, 1, 9, 9].into())));
    assert_eq!(hop([10, 1, 2, 4]), None);
    assert_eq!(hop([10, 1, 2, 3]), Some((0, [10, 1, 2, 3].into())));
    assert_eq!(fib.lookup(Ipv6Addr::LOCALHOST.into()), None);
    assert_eq!(Fib::empty().lookup(Ipv4Addr::LOCALHOST.into()), None);
}

#[test]
fn the_families_do_not_mix_and_ipv6_lengths_go_to_128() {
    let addr = |a: &str| a.parse::<IpAddr>().unwrap();
    let source = Some(addr("2001:db8:1::fe"));
    let via = |port, gateway: Option<&str>| RouteTarget::Port {
        port: PortId(port),
        gateway: gateway.map(addr),
        source,
    };
    let route = |prefix, len, target| Route {
        prefix: addr(prefix),
        len,
        target,
    };
    let fib = Fib::new(
        1,
        &[
            route("::", 0, via(0, Some("fe80::1"))),
            route("2001:db8:2::", 64, via(1, None)),
            route("2001:db8:2::7", 128, RouteTarget::Reject),
            route("0.0.0.0", 0, via(3, Some("fe80::9"))), // RFC 8950
        ],
    );
    let way = |port, hop: &str| {
        let (port, addr) = (PortId(port), addr(hop));
        let hop = Hop { port, addr };
        Some(Way { hop, source })
    };
    assert_eq!(fib.lookup(addr("2001:db8:9::1")), way(0, "fe80::1"));
    assert_eq!(fib.lookup(addr("2001:db8:2::8")), way(1, "2001:db8:2::8"));
    assert_eq!(fib.lookup(addr("2001:db8:2::7")), None);
    assert_eq!(fib.lookup(addr("192.0.2.1")), way(3, "fe80::9"));
}

#[test]
fn a_neighbour_keeps_its_index_and_an_index_can_change_hands() {
    let mut n = Neighbours::default();
    let update = |id, last, mac: Option<u8>| NeighbourUpdate {
        id: NeighbourId(id),
        port: PortId(1),
        addr: [10, 1, 0, last].into(),
        mac: mac.map(|m| Mac([2, 0, 0, 0, 0, m])),
    };
    let hop = |last| Hop {
        port: PortId(1),
        addr: [10, 1, 0, last].into(),
    };
    n.update(update(4, 11, None));
    assert_eq!(n.find(hop(11)), Some(NeighbourId(4)));
    assert_eq!(n.get(NeighbourId(4)), None);
    n.update(update(4, 11, Some(9)));
    let reach = n.get(NeighbourId(4)).map(|r| (r.port(), r.mac()));
    assert_eq!(reach, Some((PortId(1), Mac([2, 0, 0, 0, 0, 9]))));
    n.update(update(4, 12, Some(8)));
    assert_eq!(n.find(hop(11)), None);
    assert_eq!(n.find(hop(12)), Some(NeighbourId(4)));
    assert_eq!(n.get(NeighbourId::NONE), None);
    // 12 moves to index 5, and only then is 4 given to 13: 12 is still found.
    n.update(update(5, 12, Some(8)));
    n.update(update(4, 13, Some(7)));
    assert_eq!(n.find(hop(12)), Some(NeighbourId(5)));
    assert_eq!(n.find(hop(13)), Some(NeighbourId(4)));
}

#[test]
fn a_reach_has_both_ends_of_the_link_and_follows_the_port() {
    let (port, other) = (PortId(2), PortId(1));
    let own = |last, mtu| OwnEnd {
        mac: Mac([2, 0, 0, 0, 7, last]),
        mtu,
    };
    let mut n = Neighbours::default();
    n.set_own_end(port, own(1, 1500));
    n.set_own_end(other, own(2, 9000));
    for (id, port, last) in [(0, port, 0x10), (1, other, 0x20)] {
        n.update(NeighbourUpdate {
            id: NeighbourId(id),
            port,
            addr: [10, 1, 0, last].into(),
            mac: Some(Mac([0x0a, 0xfe, 3, 4, 5, last])),
        });
    }
    let seen = |n: &Neighbours, id| {
        let reach = n.get(NeighbourId(id)).unwrap();
        let mut frame = [0xee; 14];
        reach.address(&mut frame);
        let mut short = [0xee; 11];
        reach.address(&mut short);
        assert_eq!(short, [0xee; 11], "no whole header");
        (reach.port(), reach.mtu(), frame)
    };
    let macs = |last, own| [0x0a, 0xfe, 3, 4, 5, last, 2, 0, 0, 0, 7, own, 0xee, 0xee];
    assert_eq!(seen(&n, 0), (port, 1500, macs(0x10, 1)));
    assert_eq!(seen(&n, 1), (other, 9000, macs(0x20, 2)));
    n.set_own_end(port, own(0xff, 65535));
    assert_eq!(seen(&n, 0), (port, 65535, macs(0x10, 0xff)));
    assert_eq!(seen(&n, 1), (other, 9000, macs(0x20, 2)));
}

#[test]
fn parking_is_bounded_per_hop_and_in_all_and_gives_frames_back_in_order() {
    let hop = |n: u32| Hop {
        port: PortId(0),
        addr: Ipv4Addr::from(n).into(),
    };
    let mut p = Parking::default();
    assert_eq!(p.park(0, hop(1), Tick(0)), Ok(true));
    for i in 1..parking::PARKED_PER_HOP {
        assert_eq!(p.park(i, hop(1), Tick(0)), Ok(false));
    }
    assert_eq!(p.park(99, hop(1), Tick(0)), Err(99));
    let mut n = 2;
    while p.len() < parking::PARKED_MAX {
        assert_eq!(p.park(1000, hop(n), Tick(64)), Ok(true));
        n += 1;
    }
    assert_eq!(p.park(99, hop(n), Tick(64)), Err(99));
    assert_eq!(p.release(hop(1)).map(|p| p.frame), Some(0));
    assert!(p.expire(Tick(3 * 64 - 1)).is_none());
    let mut expired = 0;
    while p.expire(Tick(3 * 64)).is_some() {
        expired += 1;
    }
    assert_eq!(expired, parking::PARKED_PER_HOP - 1);
}
