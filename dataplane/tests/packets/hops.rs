//! Next hops: waited for, kept, and changed under standing connections.

use super::*;

#[test]
fn the_first_packets_wait_for_a_neighbour_and_no_more_than_fit() {
    let mut d = Director::new(&Shape {
        neighbours: false,
        ..Shape::default()
    });
    let client = addr("192.0.2.7:40000");
    for i in 0..20 {
        let packet = Packet {
            seq: i,
            ..to_web(client, SYN)
        };
        assert_eq!(d.exchange(WAN, &packet.build()), vec![]);
    }
    assert_eq!(d.totals().held, 16);
    assert_eq!(d.drops(DropReason::NeighbourQueueFull), 4);
    d.assert_books();
    let asked = d
        .events
        .iter()
        .filter(|e| matches!(e, Event::Resolve { .. }))
        .count();
    assert_eq!(asked, 1, "asked once for all that wait: {:?}", d.events);
    let Event::Resolve { port, addr } = d.events[0] else {
        panic!()
    };
    assert_eq!((port, addr), (LAN, IpAddr::V4(*server_addr(11, 0).ip())));
    let unknown = NeighbourUpdate {
        mac: None,
        ..server_neighbour(11)
    };
    d.tell(|| Command::Neighbour(unknown));
    d.settle();
    assert_eq!(d.totals().held, 16, "an index alone resolves nothing");
    d.tell(|| Command::Neighbour(server_neighbour(11)));
    d.settle();
    let out = d.collect();
    assert_eq!(out.len(), 16);
    for (i, (to, f)) in out.iter().enumerate() {
        assert_eq!(
            (*to, eth::src(f), eth::dst(f)),
            (To::Port(LAN), LAN_MAC, server_mac(11))
        );
        assert_eq!(packet::be32(f, 38), i as u32, "in order");
        assert!(checksums_right(f));
    }
    // The other direction: the client's router is unknown too, and never answers.
    let back = answer(&out[0].1, SYN | ACK).build();
    assert_eq!(d.exchange(LAN, &back), vec![]);
    d.now = d.now.after(Tick::seconds(3));
    d.settle();
    assert_eq!(d.drops(DropReason::NeighbourUnresolved), 1);
    assert_eq!(d.totals().held, 0);
    d.assert_books();
}

#[test]
fn routes_and_macs_change_under_a_connection() {
    let mut d = Director::new(&Shape::default());
    let client = addr("192.0.2.7:40000");
    let (_, at_server) = only(d.exchange(WAN, &to_web(client, SYN).build()));
    only(d.exchange(LAN, &answer(&at_server, SYN | ACK).build()));
    let moved = NeighbourUpdate {
        mac: Some(Mac([2, 9, 9, 9, 9, 9])),
        ..server_neighbour(11)
    };
    d.tell(|| Command::Neighbour(moved));
    let (_, f) = only(d.exchange(WAN, &to_web(client, ACK).build()));
    assert_eq!(eth::dst(&f), Mac([2, 9, 9, 9, 9, 9]));
    let none = Arc::new(weir_dataplane::route::Fib::new(2, &[]));
    d.tell(|| Command::Fib(Arc::clone(&none)));
    assert_eq!(d.exchange(WAN, &to_web(client, ACK).build()), vec![]);
    assert_eq!(d.drops(DropReason::NoRoute), 1);
    let back = Arc::new(fib(3));
    d.tell(|| Command::Fib(Arc::clone(&back)));
    only(d.exchange(WAN, &to_web(client, ACK).build()));
    only(d.exchange(LAN, &answer(&at_server, ACK).build()));
    d.assert_books();
}

/// Packets of a standing connection find next hop, MAC addresses and MTU ready made: each change
/// shows at the next packet, either way.
#[test]
fn what_is_kept_at_hand_is_as_fresh_as_what_it_is_made_of() {
    for workers in [1, 3] {
        let mut d = Director::new(&Shape::workers(workers));
        let client = addr("192.0.2.7:40000");
        let (_, at_server) = only(d.exchange(WAN, &to_web(client, SYN).build()));
        only(d.exchange(LAN, &answer(&at_server, SYN | ACK).build()));
        let request = to_web(client, ACK).payload(b"request").build();
        let reply = answer(&at_server, ACK).payload(b"reply").build();
        let macs = |d: &mut Director, (wan, lan): (Mac, Mac)| {
            let at = |bytes: &[u8], dst: Mac| {
                let mut frame = bytes.to_vec();
                frame[..6].copy_from_slice(&dst.0);
                frame
            };
            let [there, back] =
                [(WAN, at(&request, wan)), (LAN, at(&reply, lan))].map(|(port, f)| {
                    only(d.exchange(port, &f));
                    only(d.exchange(port, &f)) // now from what is at hand
                });
            assert!(checksums_right(&there.1) && checksums_right(&back.1));
            [there, back].map(|(to, f)| (to, eth::src(&f), eth::dst(&f)))
        };
        let (wan, lan) = (To::Port(WAN), To::Port(LAN));
        let first = [(lan, LAN_MAC, server_mac(11)), (wan, WAN_MAC, ROUTER_MAC)];
        assert_eq!(macs(&mut d, (WAN_MAC, LAN_MAC)), first);

        let new = |last| Mac([2, 9, 9, 9, 9, last]);
        let moved = |of: NeighbourUpdate, last| NeighbourUpdate {
            mac: Some(new(last)),
            ..of
        };
        d.tell(|| Command::Neighbour(moved(server_neighbour(11), 1)));
        d.tell(|| Command::Neighbour(moved(router(), 2)));
        let neighbours = [(lan, LAN_MAC, new(1)), (wan, WAN_MAC, new(2))];
        assert_eq!(macs(&mut d, (WAN_MAC, LAN_MAC)), neighbours);

        for (port, last) in [(WAN, 3), (LAN, 4)] {
            let (mac, mtu) = (new(last), 1500);
            d.tell(|| Command::Port(PortUpdate { port, mac, mtu }));
        }
        let ports = [(lan, new(4), new(1)), (wan, new(3), new(2))];
        assert_eq!(macs(&mut d, (new(3), new(4))), ports);

        // The server is known under another index, and its own is somebody else's.
        let renamed = NeighbourUpdate {
            id: NeighbourId(77),
            ..moved(server_neighbour(11), 5)
        };
        let stranger = NeighbourUpdate {
            addr: [10, 1, 0, 99].into(),
            ..moved(server_neighbour(11), 6)
        };
        d.tell(|| Command::Neighbour(renamed));
        d.tell(|| Command::Neighbour(stranger));
        let renamed = [(lan, new(4), new(5)), (wan, new(3), new(2))];
        assert_eq!(macs(&mut d, (new(3), new(4))), renamed);

        // What does not fit any more is told so.
        let (port, mac, mtu) = (LAN, new(4), 46);
        d.tell(|| Command::Port(PortUpdate { port, mac, mtu }));
        let mut big = request.clone();
        big[..6].copy_from_slice(&new(3).0);
        let (_, error) = only(d.exchange(WAN, &big));
        assert_eq!((error[34], error[35], be16(&error, 40)), (3, 4, 46));
        d.assert_books();
    }
}
