use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

/// Few values, so that rules overlap, nest and touch, at both ends of each family too.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0u32..12).prop_map(|n| IpAddr::V4((0x0a00_0000 + n).into())),
        (0u32..3).prop_map(|n| IpAddr::V4((u32::MAX - n).into())),
        Just(IpAddr::V4(0.into())),
        (0u128..12).prop_map(|n| IpAddr::V6(((0x2001_0db8 << 96) + n).into())),
        (0u128..3).prop_map(|n| IpAddr::V6((u128::MAX - n).into())),
        Just(IpAddr::V6(0.into())),
    ]
}

fn range() -> impl Strategy<Value = AddressRange> {
    prop_oneof![
        (address(), address()).prop_filter_map("one family", |(a, b)| {
            AddressRange::new(a.min(b), a.max(b))
        }),
        (address(), 0u8..=128).prop_map(|(a, len)| AddressRange::network(a, len)),
    ]
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![0u16..8, (u16::MAX - 3)..=u16::MAX]
}

fn ports() -> impl Strategy<Value = PortRange> {
    (port(), port()).prop_filter_map("forwards", |(a, b)| PortRange::new(a.min(b), a.max(b)))
}

fn proto() -> impl Strategy<Value = Proto> {
    prop_oneof![Just(Proto::Tcp), Just(Proto::Udp), Just(Proto::Sctp)]
}

fn pattern() -> impl Strategy<Value = Pattern> {
    let arrival = option::weighted(0.2, (0u8..3).prop_map(PortId));
    (
        vec(range(), 0..3),
        vec(range(), 0..3),
        vec(ports(), 0..3),
        option::weighted(0.3, proto()),
        arrival,
    )
        .prop_map(|(sources, destinations, ports, proto, arrival)| Pattern {
            sources,
            destinations,
            ports,
            proto,
            arrival,
        })
}

/// Rules that few packets meet, so that the first one may stand far down.
fn narrow() -> impl Strategy<Value = Pattern> {
    (address(), address(), port(), proto()).prop_map(|(from, to, port, proto)| Pattern {
        sources: vec![AddressRange::one(from)],
        destinations: vec![AddressRange::one(to)],
        ports: vec![PortRange::one(port)],
        proto: Some(proto),
        arrival: None,
    })
}

fn asked() -> impl Strategy<Value = Asked> {
    (proto(), address(), address(), port(), 0u8..5).prop_map(|(proto, source, to, port, at)| {
        Asked {
            proto,
            source,
            destination: SocketAddr::new(to, port),
            port: PortId(at),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// However many rules there are: words are 64 of them, groups 512.
    #[test]
    fn the_first_rule_that_is_met(rules in prop_oneof![vec(pattern(), 0..130), vec(narrow(), 500..1200)], packets in vec(asked(), 1..60)) {
        let classifier = Classifier::new(&rules);
        for packet in &packets {
            let plainly = rules.iter().position(|rule| rule.meets(packet));
            prop_assert_eq!(classifier.first(packet), plainly, "{:?}", packet);
            let to = packet.destination.ip();
            let leads = rules.iter().any(|r| {
                r.destinations.is_empty() || r.destinations.iter().any(|d| d.contains(to))
            });
            prop_assert_eq!(classifier.leads_to(to), leads);
        }
    }
}

/// Rules of three kinds: for an address, for a source, for a port of one address. Every one of them
/// is found, and the time is printed (opt-level 1 unless built with --release).
#[test]
fn thousands_of_rules() {
    for rules in [64, 1024, 8192] {
        let patterns: Vec<_> = (0..rules).map(own_way).collect();
        let began = std::time::Instant::now();
        let classifier = Classifier::new(&patterns);
        let compiled = began.elapsed();
        let mut passes = [std::time::Duration::MAX; 5];
        for pass in &mut passes {
            let began = std::time::Instant::now();
            for n in (0..rules).map(|n| n * 4001 % rules) {
                assert_eq!(classifier.first(&met_by(n)), Some(n as usize), "{n}");
            }
            *pass = began.elapsed() / rules;
        }
        let (first, best) = (passes[0], passes.iter().min().unwrap());
        let kib = classifier.bytes() >> 10;
        println!(
            "{rules} rules: {compiled:?} to compile, {kib} KiB, {first:?} a packet, then {best:?}"
        );
        assert!(classifier.bytes() < 64 << 20);
    }
}

const SHARED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn own_address(n: u32) -> IpAddr {
    IpAddr::V4((0x0a00_0000 + n).into())
}

fn own_way(n: u32) -> Pattern {
    let own = vec![AddressRange::one(own_address(n))];
    let shared = vec![AddressRange::one(SHARED)];
    match n % 3 {
        0 => Pattern {
            destinations: own,
            ..Pattern::default()
        },
        1 => Pattern {
            sources: own,
            destinations: shared,
            ..Pattern::default()
        },
        _ => Pattern {
            destinations: shared,
            ports: vec![PortRange::one(n as u16)],
            ..Pattern::default()
        },
    }
}

/// A packet that meets rule `n` and none before it.
fn met_by(n: u32) -> Asked {
    let (source, to, port) = match n % 3 {
        0 => (SHARED, own_address(n), 1),
        1 => (own_address(n), SHARED, 9),
        _ => (SHARED, SHARED, n as u16),
    };
    Asked {
        proto: Proto::Tcp,
        source,
        destination: SocketAddr::new(to, port),
        port: PortId(0),
    }
}
