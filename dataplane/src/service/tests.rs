use super::*;
use crate::sched::{Options, SchedulerKind};

fn service(id: u32, vip: [u8; 4], port: u16) -> Arc<Service> {
    Arc::new(Service {
        id: ServiceId(id),
        name: "s".into(),
        key: ServiceKey::Address {
            proto: Proto::Tcp,
            vip: vip.into(),
            port,
        },
        scheduler: Scheduler::new(SchedulerKind::rr, Options::default(), &[]),
        servers: vec![],
        local_addresses: [IpAddr::from([10, 1, 0, 100])].into_iter().collect(),
        client_address: Default::default(),
        policy: Default::default(),
    })
}

fn asked(proto: Proto, source: &str, destination: SocketAddr) -> Asked {
    Asked {
        proto,
        source: source.parse().unwrap(),
        destination,
        port: crate::types::PortId(0),
    }
}

#[test]
fn exact_wins_over_port_zero() {
    let mut b = SnapshotBuilder::default();
    b.service(service(3, [10, 0, 0, 1], 0));
    b.service(service(5, [10, 0, 0, 1], 80));
    let s = b.build(1);
    let id = |port, proto| {
        let destination = SocketAddr::new([10, 0, 0, 1].into(), port);
        s.lookup(&asked(proto, "192.0.2.1", destination))
            .map(|s| s.id.0)
    };
    assert_eq!(id(80, Proto::Tcp), Some(5));
    assert_eq!(id(81, Proto::Tcp), Some(3));
    assert_eq!(id(80, Proto::Udp), None);
    assert!(s.address_use([10, 0, 0, 1].into()).vip);
    assert!(s.address_use([10, 1, 0, 100].into()).local);
    assert_eq!(s.address_use([10, 1, 0, 101].into()), AddressUse::default());
}

#[test]
fn a_changed_server_copies_one_chunk_and_shares_the_rest() {
    let server = |id| Server {
        id: ServerId(id),
        service: ServiceId(0),
        address: SocketAddr::new(Ipv4Addr::from(id).into(), 80),
        forward: ForwardMode::fullnat,
        tunnel: None,
        policy: Default::default(),
    };
    let mut b = SnapshotBuilder::default();
    for id in 0..600 {
        b.server(server(id));
    }
    let old = b.build(1);
    let mut b = SnapshotBuilder::default();
    b.servers_of(&old);
    b.forget_server(ServerId(300));
    let new = b.build(2);
    assert!(old.server(ServerId(300)).is_some() && new.server(ServerId(300)).is_none());
    assert!(Arc::ptr_eq(&old.servers[0], &new.servers[0]));
    assert!(!Arc::ptr_eq(&old.servers[1], &new.servers[1]));
    assert_eq!(new.servers().count(), 599);
    assert!(new.server(ServerId(70_000)).is_none());
}

fn of_key(id: u32, key: ServiceKey) -> Arc<Service> {
    let plain = service(id, [0; 4], 0);
    Arc::new(Service {
        key,
        ..(*plain).clone()
    })
}

fn network(text: &str) -> AddressRange {
    let (address, len) = text.split_once('/').unwrap();
    AddressRange::network(address.parse().unwrap(), len.parse().unwrap())
}

/// Which service takes TCP from 192.0.2.1 to these addresses.
fn takes(snapshot: &Snapshot, destinations: &[&str]) -> Vec<Option<u32>> {
    let one = |d: &&str| {
        let asked = asked(Proto::Tcp, "192.0.2.1", d.parse().unwrap());
        snapshot.lookup(&asked).map(|s| s.id.0)
    };
    destinations.iter().map(one).collect()
}

#[test]
fn the_most_specific_service_wins() {
    let range = |vips: &str, first, last| ServiceKey::Range {
        proto: Proto::Tcp,
        vips: network(vips),
        ports: PortRange::new(first, last).unwrap(),
    };
    let mut b = SnapshotBuilder::default();
    b.service(service(0, [10, 0, 0, 1], 80));
    b.service(service(1, [10, 0, 0, 1], 0));
    b.service(of_key(2, range("10.0.0.1/32", 8000, 8999)));
    b.service(of_key(3, range("10.0.0.0/28", 80, 80)));
    b.service(of_key(4, range("10.0.0.0/24", 0, 65535)));
    b.service(of_key(5, range("10.0.0.0/24", 443, 444)));
    b.service(of_key(6, range("2001:db8::/120", 80, 80)));
    let s = b.build(1);
    let asked = [
        "10.0.0.1:80",
        "10.0.0.1:8500",
        "10.0.0.1:9000",
        "10.0.0.2:80",
        "10.0.0.2:81",
        "10.0.0.200:444",
        "10.0.1.1:80",
        "[2001:db8::ff]:80",
        "[2001:db8::1:0]:80",
        "[2001:db8::1]:81",
    ];
    let wanted = [
        Some(0),
        Some(2),
        Some(1),
        Some(3),
        Some(4),
        Some(5),
        None,
        Some(6),
        None,
        None,
    ];
    assert_eq!(takes(&s, &asked), wanted);
    let vip = |a: &str| s.address_use(a.parse().unwrap()).vip;
    assert!(vip("10.0.0.255") && vip("2001:db8::7") && !vip("10.0.1.0") && !vip("9.255.255.255"));

    // A range that was removed and still has connections keeps its addresses, not its service;
    // what did not change is not worked out again.
    let mut b = SnapshotBuilder::default();
    b.servers_of(&s);
    b.service(service(0, [10, 0, 0, 1], 80));
    b.vips_of(&range("10.0.0.0/28", 80, 80));
    let removed = b.build(2);
    assert_eq!(
        takes(&removed, &["10.0.0.2:80", "10.0.0.1:80"]),
        [None, Some(0)]
    );
    assert!(removed.address_use([10, 0, 0, 15].into()).vip);
    assert!(!removed.address_use([10, 0, 0, 16].into()).vip);
    let mut b = SnapshotBuilder::default();
    b.servers_of(&removed);
    b.vips_of(&range("10.0.0.0/28", 80, 80));
    let again = b.build(3);
    let ranges = |s: &Snapshot| s.ranges.clone().unwrap();
    assert!(Arc::ptr_eq(&ranges(&removed), &ranges(&again)));
}

#[test]
fn the_mark_comes_first_and_what_has_none_goes_on() {
    let rule = |vips: &str, mark| MarkRule {
        pattern: Pattern {
            destinations: vec![network(vips)],
            ..Pattern::default()
        },
        mark: Mark::new(mark),
    };
    let mark = |mark, v6| ServiceKey::Mark {
        mark: Mark::new(mark).unwrap(),
        v6,
    };
    let rules = vec![
        rule("10.0.0.3/32", 0), // none
        rule("10.0.0.2/32", 9), // without a service
        rule("10.0.0.0/24", 7),
        rule("2001:db8::/32", 7),
    ];
    let mut b = SnapshotBuilder::default().marks(Arc::new(Marks::new(rules.clone())));
    b.service(service(0, [10, 0, 0, 1], 80));
    b.service(service(1, [10, 0, 0, 2], 80));
    b.service(service(2, [10, 0, 0, 3], 80));
    b.service(of_key(3, mark(7, false)));
    let s = b.build(1);
    let asked = [
        "10.0.0.1:80",
        "10.0.0.2:80",
        "10.0.0.3:80",
        "10.0.0.4:1",
        "[2001:db8::1]:80",
    ];
    assert_eq!(
        takes(&s, &asked),
        [Some(3), Some(1), Some(2), Some(3), None]
    );
    assert!(
        !s.address_use([10, 0, 0, 4].into()).vip,
        "just what is marked is ours"
    );
    assert!(s.may_answer_marked([10, 0, 0, 4].into()));
    assert!(!s.may_answer_marked([10, 0, 1, 4].into()));

    // Rules alone mark for nobody.
    let mut b = SnapshotBuilder::default().marks(Arc::new(Marks::new(rules)));
    b.service(service(0, [10, 0, 0, 1], 80));
    assert_eq!(
        takes(&b.build(2), &["10.0.0.1:80", "10.0.0.4:1"]),
        [Some(0), None]
    );
}

#[test]
fn ranges_read_as_they_are_written() {
    let range = |first: &str, last: &str| {
        AddressRange::new(first.parse().unwrap(), last.parse().unwrap()).unwrap()
    };
    for (range, text) in [
        (range("10.0.0.1", "10.0.0.1"), "10.0.0.1"),
        (range("10.0.0.0", "10.0.0.255"), "10.0.0.0/24"),
        (range("10.0.0.1", "10.0.0.2"), "10.0.0.1-10.0.0.2"),
        (range("10.0.0.4", "10.0.0.10"), "10.0.0.4-10.0.0.10"),
        (range("0.0.0.0", "255.255.255.255"), "0.0.0.0/0"),
        (range("2001:db8::", "2001:db8::ff"), "2001:db8::/120"),
        (AddressRange::network("::".parse().unwrap(), 0), "::/0"),
    ] {
        assert_eq!(range.to_string(), text);
    }
    let mark = ServiceKey::Mark {
        mark: Mark::new(7).unwrap(),
        v6: true,
    };
    assert_eq!(mark.to_string(), "fwmark 7, ipv6");
    let range = ServiceKey::Range {
        proto: Proto::Udp,
        vips: network("2001:db8::/120"),
        ports: PortRange::new(8000, 8999).unwrap(),
    };
    assert_eq!(range.to_string(), "[2001:db8::/120]:8000-8999/udp");
}
