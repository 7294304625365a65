use std::net::{IpAddr, Ipv4Addr};

use rtnetlink::packet_route::AddressFamily;

use super::*;
use crate::net::twin::TwinInfo;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

fn links() -> Links {
    Links::new(vec![TwinInfo {
        port: PortId(1),
        name: "lan0".to_owned(),
        ifindex: 10,
    }])
}

fn message(state: NeighbourState, addr: [u8; 4], mac: Option<[u8; 6]>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = 10;
    message.header.state = state;
    let addr = NeighbourAddress::Inet(addr.into());
    message
        .attributes
        .push(NeighbourAttribute::Destination(addr));
    let mac = mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    message.attributes.extend(mac);
    message
}

fn hop(last: u8) -> Hop {
    Hop {
        port: PortId(1),
        addr: IpAddr::from([10, 1, 0, last]),
    }
}

#[test]
fn a_mac_counts_in_every_state_but_unresolved_ones() {
    use NeighbourState::*;
    for state in [Reachable, Stale, Delay, Probe, Permanent, Noarp] {
        let read = read(&message(state, [10, 1, 0, 9], Some(MAC)), &links());
        assert_eq!(read, Some((hop(9), Some(Mac(MAC)))));
    }
    for state in [Incomplete, Failed, None] {
        let read = read(&message(state, [10, 1, 0, 9], Some(MAC)), &links());
        assert_eq!(read, Some((hop(9), Option::None)));
    }
    let read = read(&message(Reachable, [10, 1, 0, 9], Option::None), &links());
    assert_eq!(read, Some((hop(9), Option::None)));
}

#[test]
fn what_is_no_next_hop_is_passed_over() {
    let good = || message(NeighbourState::Noarp, [10, 1, 0, 9], Some(MAC));
    let mut elsewhere = good();
    elsewhere.header.ifindex = 11;
    assert_eq!(read(&elsewhere, &links()), None);
    let mut proxy = good();
    proxy.header.flags = NeighbourFlags::Proxy;
    assert_eq!(read(&proxy, &links()), None);
    let group = Some([0x01, 0x00, 0x5e, 0, 0, 0x16]);
    let multicast = message(NeighbourState::Noarp, [224, 0, 0, 22], group);
    assert_eq!(read(&multicast, &links()), None);
    let directed_broadcast = message(NeighbourState::Noarp, [10, 1, 0, 255], Some([0xff; 6]));
    assert_eq!(read(&directed_broadcast, &links()), Some((hop(255), None)));
}

#[test]
fn only_changes_are_news_and_a_dump_tells_what_was_lost() {
    let event = |last, mac: Option<u8>| NetEvent::Neighbour {
        port: PortId(1),
        addr: hop(last).addr,
        mac: mac.map(|m| Mac([2, 0, 0, 0, 0, m])),
    };
    let mac = |m| Some(Mac([2, 0, 0, 0, 0, m]));
    let mut known = Neighbours::default();
    assert_eq!(known.take(hop(1), None), None);
    assert_eq!(known.take(hop(1), mac(1)), Some(event(1, Some(1))));
    assert_eq!(known.take(hop(1), mac(1)), None);
    assert_eq!(known.take(hop(1), mac(2)), Some(event(1, Some(2))));
    assert_eq!(known.take(hop(2), mac(3)), Some(event(2, Some(3))));
    assert_eq!(known.take(hop(3), mac(3)), Some(event(3, Some(3))));

    let news = known.take_all(vec![(hop(2), mac(3)), (hop(3), None), (hop(4), mac(4))]);
    assert_eq!(news.len(), 3);
    for expected in [event(1, None), event(3, None), event(4, Some(4))] {
        assert!(news.contains(&expected), "{expected:?} in {news:?}");
    }
    assert_eq!(known.take(hop(4), None), Some(event(4, None)));
}

#[test]
fn one_address_is_asked_for_once_a_second_and_a_scan_is_bounded() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut asking = Asking::default();
    assert_eq!(asking.resolve(hop(1), at(0)), Some(Ask::Once));
    assert_eq!(asking.resolve(hop(1), at(999)), None);
    assert_eq!(asking.resolve(hop(2), at(999)), Some(Ask::Once));
    assert_eq!(asking.resolve(hop(1), at(1000)), Some(Ask::Once));
    let scan = |n: u32| Hop {
        port: PortId(1),
        addr: Ipv4Addr::from(0x0a02_0000 + n).into(),
    };
    let asked = (0..10_000)
        .filter(|n| asking.resolve(scan(*n), at(1000)).is_some())
        .count();
    assert_eq!(asked, Asking::REMEMBERED - 2);
    assert_eq!(asking.resolve(scan(10_000), at(2000)), Some(Ask::Once));
}

#[test]
fn kept_neighbours_are_asked_for_with_their_flags() {
    let now = Instant::now();
    let mut asking = Asking::default();
    assert!(asking.keep(hop(1)));
    assert!(!asking.keep(hop(1)));
    assert_eq!(asking.unmanaged(), [hop(1)]);
    asking.set_managed(hop(1), true);
    asking.set_managed(hop(2), true); // not kept: no effect
    assert_eq!(asking.unmanaged(), []);
    assert_eq!(asking.resolve(hop(1), now), Some(Ask::Managed));
    assert_eq!(asking.kept_behind(PortId(1)), [hop(1)]);
    assert_eq!(asking.kept_behind(PortId(0)), []);
    asking.doubt();
    assert_eq!(asking.unmanaged(), [hop(1)]);
    assert!(asking.release(hop(1)));
    assert!(!asking.release(hop(1)));
    assert_eq!(asking.unmanaged(), []);
}
