//! Pools: their ports run out, their addresses drain and are dismissed, their rules go, and they
//! have limits as services do.

use super::*;

/// The pool's ports are all there are for one far end; another far end has them again.
#[test]
fn a_pool_runs_out_and_recovers() {
    let few = PortRange::new(20_000, 20_299).unwrap();
    for shape in shapes() {
        let mut d = Director::new(&shape);
        let mut b = SnapshotBuilder::default();
        add_pool(&mut b, "out", &POOL[..2], few, (1, FIRST_ID));
        let rules = Arc::new(SnatRules::new(vec![rule(Some("out"))]));
        publish(&mut d, b.snat(Arc::clone(&rules)).build(2));
        let mut opened = std::collections::HashSet::new();
        let mut lost = 0;
        for port in 0..2000u16 {
            let from = server_addr(11, 1000 + port).into();
            d.deliver(
                LAN,
                &packet(Proto::Udp, from, at(FAR4), 0).build(),
                usize::from(port),
            );
            d.settle();
            match d.collect().as_slice() {
                [] => lost += 1,
                [(_, f)] => {
                    let pooled = seen(f).1;
                    assert!(few.contains(pooled.port()), "{pooled}");
                    assert!(opened.insert(pooled), "{pooled} twice");
                }
                more => panic!("{more:02x?}"),
            }
        }
        // 64 candidates are looked at, so that the last few may not be found.
        assert!(
            (540..=600).contains(&opened.len()),
            "{} of 600, {shape:?}",
            opened.len()
        );
        assert_eq!(d.drops(DropReason::SnatExhausted), lost);
        let elsewhere = packet(Proto::Udp, at(INSIDE4), at("198.51.100.8:443"), 0).build();
        only(d.exchange(LAN, &elsewhere));
        d.assert_books();
        d.now = d.now.after(Tick::seconds(400));
        d.settle();
        let again = packet(Proto::Udp, at(INSIDE4), at(FAR4), 0).build();
        only(d.exchange(LAN, &again));
        d.assert_runs_out();
    }
}

/// What stands goes on when its rule is gone, and with another route.
#[test]
fn connections_outlive_their_rule_and_follow_routes() {
    for shape in shapes() {
        let mut d = director(&shape);
        let opening = |proto| packet(proto, at(INSIDE4), at(FAR4), SYN).build();
        let mut outside = Vec::new();
        for proto in PROTOS {
            outside.push(only(d.exchange(LAN, &opening(proto))).1);
        }
        // The rule is gone, the pool's servers are left as control leaves them.
        let before = snapshot_of(VIP4, "10.1.0.11:80", vec![], &POOL).build(0);
        let mut b = SnapshotBuilder::default();
        b.servers_of(&before);
        POOL.iter().for_each(|a| b.local(a.parse().unwrap()));
        publish(&mut d, b.build(3));
        d.tell(|| Command::Fib(Arc::new(fib(7))));
        for (proto, outside) in PROTOS.into_iter().zip(&outside) {
            let what = format!("{proto} {shape:?}");
            let (left, f) = only(
                d.exchange(
                    WAN,
                    &reply(outside, SYN | ACK)
                        .payload(b"\x02\0\0\x07odd")
                        .build(),
                ),
            );
            assert_eq!(left, To::Port(LAN), "{what}");
            assert_eq!(seen(&f).2, at(INSIDE4), "{what}");
            let next = packet(proto, at(INSIDE4), at(FAR4), ACK).build();
            let (left, f) = only(d.exchange(LAN, &next));
            assert_eq!(left, To::Port(WAN), "{what}");
            assert_eq!(seen(&f).1, seen(outside).1, "{what}");
        }
        // A new one is the kernel's, as without SNAT.
        let new = packet(Proto::Udp, at("10.1.0.11:6000"), at(FAR4), 0).build();
        assert_eq!(only(d.exchange(LAN, &new)).0, To::Kernel(LAN));
        d.assert_books();
        d.assert_runs_out();
    }
}

/// The services of [`director`] with pool addresses of these weights, whose connections end if
/// `dismissed`.
fn drained(weights: [u32; 4], dismissed: bool) -> Snapshot {
    let plain = snapshot_of(VIP4, "10.1.0.11:80", vec![rule(Some("out"))], &POOL).build(0);
    let mut b = SnapshotBuilder::default();
    b.servers_of(&plain);
    for service in plain.services() {
        let mut service = service.clone();
        for candidate in service.servers.iter_mut().filter(|c| c.id.0 >= FIRST_ID) {
            let address = POOL
                .iter()
                .position(|a| candidate.address.ip() == a.parse::<IpAddr>().unwrap());
            candidate.weight = weights[address.unwrap()];
            let mut server = *plain.server(candidate.id).unwrap();
            server.policy.dismissed = dismissed;
            b.server(server);
        }
        b.service(Arc::new(service));
    }
    b.snat(Arc::new(SnatRules::new(plain.snat().rules().to_vec())))
        .build(3)
}

/// A pool's address that drains keeps what it has and gets nothing new; one that is dismissed ends
/// what it has at both sides.
#[test]
fn addresses_drain_and_are_dismissed() {
    for shape in shapes() {
        let mut d = director(&shape);
        let open = |d: &mut Director, port| {
            let from = server_addr(11, port).into();
            let out = d.exchange(LAN, &packet(Proto::Tcp, from, at(FAR4), SYN).build());
            out.into_iter().next().map(|(_, f)| f)
        };
        let first = open(&mut d, 5000).unwrap();
        only(d.exchange(WAN, &answer(&first, SYN | ACK).build()));
        let ack = packet(Proto::Tcp, at(INSIDE4), at(FAR4), ACK).build();
        only(d.exchange(LAN, &ack));
        let used = seen(&first).1.ip();
        let weights = POOL.map(|a| u32::from(used != a.parse::<IpAddr>().unwrap()));
        publish(&mut d, drained(weights, false));
        let second = open(&mut d, 5001).unwrap();
        assert_ne!(seen(&second).1.ip(), used);
        let (_, f) = only(d.exchange(LAN, &ack));
        assert_eq!(seen(&f).1, seen(&first).1, "what stands stays");
        publish(&mut d, drained([0; 4], false));
        assert_eq!(open(&mut d, 5002), None);
        assert_eq!(d.drops(DropReason::SnatExhausted), 1);

        publish(&mut d, drained([0; 4], true));
        let mut asked: Vec<_> = d.collect().iter().map(|(to, f)| (*to, ends(f).1)).collect();
        asked.sort_by_key(|(to, _)| *to);
        let both = [(To::Port(WAN), seen(&first).1), (To::Port(LAN), at(FAR4))];
        assert_eq!(asked, both, "where they are");
        let mut says = packet(Proto::Tcp, at(INSIDE4), at(FAR4), ACK);
        (says.seq, says.ack) = (7001, 9001);
        let mut resets: Vec<_> = d.exchange(LAN, &says.build());
        resets.sort_by_key(|(to, _)| *to);
        let resets: Vec<_> = resets.iter().map(|(to, f)| (*to, ends(f).1)).collect();
        assert_eq!(resets, both);
        assert!(d.listing().is_empty());
        assert_eq!(d.sum(|c| c.conns_dismissed.get()), 2, "one was half-open");
        d.assert_books();
    }
}

/// Limits are a pool's as they are a service's: so many connections of each source, and packets.
#[test]
fn each_server_has_its_limits() {
    for shape in shapes() {
        let mut d = Director::new(&shape);
        let mut b = SnapshotBuilder::default();
        add_pool(&mut b, "out", &POOL, all_ports(), (1, FIRST_ID));
        let plain = b.build(0);
        let mut b = SnapshotBuilder::default();
        b.servers_of(&plain);
        for pool in plain.services() {
            let mut pool = pool.clone();
            pool.policy.limits.client.connections = 2;
            pool.policy.limits.service.packets_per_second = 1_000_000; // its packets are counted
            b.service(Arc::new(pool));
        }
        let rules = Arc::new(SnatRules::new(vec![rule(Some("out"))]));
        publish(&mut d, b.snat(rules).build(2));
        for (host, port, passes) in [(11, 1, true), (11, 2, true), (11, 3, false), (12, 1, true)] {
            let from = server_addr(host, 3000 + port).into();
            let out = d.exchange(LAN, &packet(Proto::Tcp, from, at(FAR4), SYN).build());
            assert_eq!(out.len(), usize::from(passes), "{host} {port} {shape:?}");
            if let [(_, f)] = out.as_slice() {
                let (left, f) = only(d.exchange(WAN, &answer(f, SYN | ACK).build()));
                assert_eq!((left, ends(&f).2), (To::Port(LAN), from));
            }
        }
        assert_eq!(d.drops(DropReason::ClientConnections), 1);
        d.assert_books();
        d.assert_runs_out();
    }
}
