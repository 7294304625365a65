//! Rules: which packet leaves by which pool, and which is left to the kernel.

use super::*;

/// A packet's fate: what it is, and where it goes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Leaves(&'static str),
    Kernel,
    Dropped(DropReason),
}

#[test]
fn rules_are_asked_in_order() {
    let named = |pool: &str, change: &dyn Fn(&mut Pattern)| {
        let mut rule = rule((pool != "none").then_some(pool));
        change(&mut rule.pattern);
        rule
    };
    let rules = vec![
        named("none", &|p| p.destinations = vec![range("203.0.113.0/24")]),
        named("dns", &|p| {
            p.ports = vec![PortRange::one(53)];
            p.proto = Some(Proto::Udp);
        }),
        named("pings", &|p| p.proto = Some(Proto::Icmp)),
        named("out", &|p| p.arrival = Some(WAN)),
    ];
    let mut b = snapshot_of(VIP4, "10.1.0.11:80", rules, &POOL);
    add_pool(&mut b, "dns", &["10.0.0.110"], all_ports(), (3, 7));
    add_pool(&mut b, "pings", &["10.0.0.111"], all_ports(), (5, 8));
    let snapshot = b.build(2);
    let (udp, tcp, icmp) = (Proto::Udp, Proto::Tcp, Proto::Icmp);
    let rows = [
        (udp, "10.1.0.12:1", FAR4, Fate::Leaves("10.0.0.10")),
        (
            udp,
            "10.1.0.12:1",
            "198.51.100.7:53",
            Fate::Leaves("10.0.0.110"),
        ),
        (
            tcp,
            "10.1.0.12:1",
            "198.51.100.7:53",
            Fate::Leaves("10.0.0.10"),
        ),
        (
            icmp,
            "10.1.0.12:1",
            "198.51.100.7:0",
            Fate::Leaves("10.0.0.111"),
        ),
        (udp, "10.1.0.12:1", "203.0.113.7:53", Fate::Kernel), // exempt
        (icmp, "10.1.0.12:1", "203.0.113.7:0", Fate::Kernel),
        (udp, "10.1.9.12:1", FAR4, Fate::Kernel), // of no rule's source
        (tcp, "10.1.9.12:1", FAR4, Fate::Kernel),
        (udp, "10.1.0.12:1", "10.1.0.13:7", Fate::Kernel), // does not leave by the WAN
        (udp, "10.1.0.12:1", "10.0.0.2:7", Fate::Kernel),  // the director itself
        (tcp, "10.1.0.12:1", "10.0.0.2:22", Fate::Kernel),
        (icmp, "10.1.0.12:1", "10.0.0.2:0", Fate::Kernel),
        (icmp, "10.1.0.12:1", "10.0.0.10:0", Fate::Kernel), // its VIP and its pool answer pings
        (icmp, "10.1.0.12:1", "10.0.0.100:0", Fate::Kernel),
        (
            tcp,
            "10.1.0.12:1",
            "10.0.0.100:9",
            Fate::Dropped(DropReason::NoConnection),
        ),
        (tcp, "127.0.0.1:1", FAR4, Fate::Kernel), // nor is this
    ];
    for shape in [Shape::default(), Shape::workers(3)] {
        let mut d = Director::new(&shape);
        let again = {
            let mut b = SnapshotBuilder::default();
            b.servers_of(&snapshot);
            snapshot
                .services()
                .for_each(|s| b.service(Arc::new(s.clone())));
            b.snat(Arc::new(SnatRules::new(snapshot.snat().rules().to_vec())))
                .build(2)
        };
        publish(&mut d, again);
        d.tell(|| Command::Fib(Arc::new(with_own(2))));
        for (proto, from, to, fate) in rows {
            let what = format!("{proto} {from} {to} {} workers", shape.workers);
            let sent = packet(proto, at(from), at(to), SYN).build();
            let out = d.exchange(LAN, &sent);
            match fate {
                Fate::Leaves(pool) => {
                    let (left, f) = only(out);
                    assert_eq!(left, To::Port(WAN), "{what}");
                    let from = seen(&f).1.ip().to_string();
                    assert!(from.starts_with(pool), "{what}: from {from}");
                }
                Fate::Kernel => {
                    let (left, f) = only(out);
                    assert_eq!((left, f), (To::Kernel(LAN), sent), "{what}");
                }
                Fate::Dropped(reason) => assert_eq!(d.drops(reason), 1, "{what}"),
            }
        }
        d.assert_books();
        d.assert_runs_out();
    }
}

/// The routes of all tests, and the director's own addresses.
fn with_own(epoch: u16) -> Fib {
    let own = |address: &str, len| Route {
        prefix: address.parse().unwrap(),
        len,
        target: RouteTarget::Own,
    };
    Fib::new(
        epoch,
        &[
            route("0.0.0.0", 0, WAN, Some("10.0.0.1"), "10.0.0.2"),
            route("10.0.0.0", 24, WAN, None, "10.0.0.2"),
            route("10.1.0.0", 24, LAN, None, "10.1.0.2"),
            route("10.1.9.0", 24, LAN, None, "10.1.0.2"),
            own("10.0.0.2", 32),
            own("10.1.0.2", 32),
        ],
    )
}
