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

    /// However many rules there are: words are 64, summaries 4,096 of them.
    #[test]
    fn the_first_rule_that_is_met(rules in vec(pattern(), 0..200), packets in vec(asked(), 1..60)) {
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

/// As large as it gets, each rule in its own way: an address, a source, a port of one address.
#[test]
fn thousands_of_rules_are_as_quick_as_one() {
    const RULES: u32 = 8192;
    let rule = |n: u32| {
        let own = AddressRange::one(IpAddr::V4((0x0a00_0000 + n).into()));
        let vip = AddressRange::one(IpAddr::V4(0xc000_0201.into()));
        match n % 3 {
            0 => Pattern {
                destinations: vec![own],
                ..Pattern::default()
            },
            1 => Pattern {
                sources: vec![own],
                destinations: vec![vip],
                ..Pattern::default()
            },
            _ => Pattern {
                destinations: vec![vip],
                ports: vec![PortRange::one(n as u16)],
                ..Pattern::default()
            },
        }
    };
    let rules: Vec<_> = (0..RULES).map(rule).collect();
    let began = std::time::Instant::now();
    let classifier = Classifier::new(&rules);
    let compiled = began.elapsed();
    let address = |n: u32| IpAddr::V4((0x0a00_0000 + n).into());
    let vip = IpAddr::V4(0xc000_0201.into());
    let packet = |n: u32| {
        let (source, to, port) = match n % 3 {
            0 => (vip, address(n), 1),
            1 => (address(n), vip, 9),
            _ => (vip, vip, n as u16),
        };
        Asked {
            proto: Proto::Tcp,
            source,
            destination: SocketAddr::new(to, port),
            port: PortId(0),
        }
    };
    let began = std::time::Instant::now();
    for n in (0..RULES).map(|n| n * 4001 % RULES) {
        assert_eq!(classifier.first(&packet(n)), Some(n as usize), "{n}");
    }
    let each = began.elapsed() / RULES;
    println!(
        "{RULES} rules: {compiled:?} to compile, {} KiB, {each:?} a packet",
        classifier.bytes() >> 10
    );
    assert!(classifier.bytes() < 64 << 20);
}
