//! Services of marks and ranges: what is theirs, and whose address answers come from.

use super::modes::{packet, shapes};
use super::*;
use std::net::SocketAddr;
use weir_dataplane::PortId;
use weir_dataplane::ServiceId;
use weir_dataplane::conn::state::Rules;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::sched::{Options, Scheduler, SchedulerKind};
use weir_dataplane::service::{
    AddressRange, Candidate, Mark, MarkRule, Marks, Pattern, PortRange, Server, Service,
    ServiceKey, Snapshot, SnapshotBuilder,
};

pub(crate) fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn network(text: &str) -> AddressRange {
    let (address, len) = text.split_once('/').unwrap();
    AddressRange::network(address.parse().unwrap(), len.parse().unwrap())
}

pub(crate) fn marked(mark: u32, v6: bool) -> ServiceKey {
    let mark = Mark::new(mark).unwrap();
    ServiceKey::Mark { mark, v6 }
}

/// A service as these tests need it: its key, its mode and its servers.
pub(crate) type Kind<'a> = (ServiceKey, ForwardMode, &'a [&'a str]);

/// A director with these services, round robin, and rules.
pub(crate) fn director(shape: &Shape, kinds: &[Kind<'_>], rules: &[MarkRule]) -> Director {
    director_with(shape, kinds, rules, |_, _| {})
}

/// The same, with something else about every service.
pub(crate) fn director_with(
    shape: &Shape,
    kinds: &[Kind<'_>],
    rules: &[MarkRule],
    change: impl Fn(&mut Service, &mut [Server]),
) -> Director {
    let mut d = Director::new(shape);
    let snapshot = snapshot_of(shape, kinds, rules, Rules::default(), change);
    use_kinds(&mut d, snapshot);
    d
}

/// Has all workers use these services.
pub(crate) fn use_kinds(d: &mut Director, snapshot: Snapshot) {
    let snapshot = Arc::new(snapshot);
    d.tell(|| Command::Snapshot(Arc::clone(&snapshot)));
    d.settle();
    d.events.clear();
}

/// What [`director_with`] is given, with LVS's sysctls.
pub(crate) fn snapshot_of(
    shape: &Shape,
    kinds: &[Kind<'_>],
    rules: &[MarkRule],
    sysctls: Rules,
    change: impl Fn(&mut Service, &mut [Server]),
) -> Snapshot {
    let b = SnapshotBuilder::default().timeouts(shape.timeouts);
    let b = b.rules(sysctls);
    let mut b = b.marks(Arc::new(Marks::new(rules.to_vec())));
    for (service, (key, forward, servers)) in (0..).zip(kinds) {
        let servers: Vec<_> = (service * 3..).map(ServerId).zip(servers.iter()).collect();
        let (mut candidates, mut records) = (Vec::new(), Vec::new());
        for &(id, address) in &servers {
            candidates.push(Candidate::new(id, at(address), 1));
            records.push(Server {
                id,
                service: ServiceId(service),
                address: at(address),
                forward: *forward,
                tunnel: None,
                policy: Default::default(),
            });
        }
        let mut service = Service {
            id: ServiceId(service),
            name: "s".into(),
            key: *key,
            scheduler: Scheduler::new(SchedulerKind::rr, Options::default(), &candidates),
            servers: candidates,
            client_address: Default::default(),
            policy: Default::default(),
            local_addresses: ["10.1.0.100", "2001:db8:1::64"]
                .map(|a| a.parse().unwrap())
                .into_iter()
                .collect(),
        };
        change(&mut service, &mut records);
        records.into_iter().for_each(|server| b.server(server));
        b.service(Arc::new(service));
    }
    b.build(2)
}

/// Two addresses, ports 80 and 443, in either family; and everything from the LAN to 10.9.0.0/16.
pub(crate) fn rules() -> Vec<MarkRule> {
    let web = |vips: &str| MarkRule {
        pattern: Pattern {
            destinations: vec![network(vips)],
            ports: vec![PortRange::one(80), PortRange::one(443)],
            ..Pattern::default()
        },
        mark: Mark::new(7),
    };
    let from_lan = Pattern {
        destinations: vec![network("10.9.0.0/16")],
        arrival: Some(PortId(1)),
        ..Pattern::default()
    };
    vec![
        web("10.0.0.20/31"),
        web("2001:db8::20/127"),
        MarkRule {
            pattern: from_lan,
            mark: Mark::new(9),
        },
    ]
}

const PROTOS: [Proto; 3] = [Proto::Tcp, Proto::Udp, Proto::Sctp];
const C4: &str = "192.0.2.7:40000";
const C6: &str = "[2001:db8:77::7]:40000";

/// Mode, whether IPv6, client, servers, what is asked for.
type Row<'a> = (ForwardMode, bool, &'a str, [&'a str; 2], &'a [&'a str]);

/// Every address, port and protocol of a mark is one service: its servers take turns over all of
/// them, and answers come from what the client asked for.
#[test]
fn a_mark_spans_addresses_ports_and_protocols() {
    let asked4 = [
        "10.0.0.20:80",
        "10.0.0.20:443",
        "10.0.0.21:80",
        "10.0.0.21:443",
    ];
    let asked6 = ["[2001:db8::20]:80", "[2001:db8::21]:443"];
    let rows: [Row<'_>; 6] = [
        (
            ForwardMode::nat,
            false,
            C4,
            ["10.1.0.11:0", "10.1.0.12:0"],
            &asked4,
        ),
        (
            ForwardMode::fullnat,
            false,
            C4,
            ["10.1.0.11:0", "10.1.0.12:0"],
            &asked4,
        ),
        (
            ForwardMode::fullnat,
            false,
            C4,
            ["10.1.0.11:8080", "10.1.0.12:8080"],
            &asked4,
        ),
        (
            ForwardMode::nat,
            true,
            C6,
            ["[2001:db8:1::11]:0", "[2001:db8:1::12]:0"],
            &asked6,
        ),
        (
            ForwardMode::fullnat,
            true,
            C6,
            ["10.1.0.11:0", "10.1.0.12:0"],
            &asked6,
        ),
        (
            ForwardMode::dr,
            false,
            C4,
            ["10.1.0.11:0", "10.1.0.12:0"],
            &asked4,
        ),
    ];
    for (mode, v6, client, servers, asked) in rows {
        for shape in shapes() {
            let kinds: [Kind<'_>; 1] = [(marked(7, v6), mode, &servers)];
            let mut d = director(&shape, &kinds, &rules());
            let mut used = [0; 2];
            for (vip, proto) in asked
                .iter()
                .flat_map(|vip| PROTOS.map(|proto| (vip, proto)))
            {
                let what = format!("{mode:?} {vip} {proto} {shape:?}");
                let (to, f) = only(d.exchange(WAN, &packet(proto, client, vip, SYN).build()));
                assert_eq!(to, To::Port(LAN), "{what}");
                assert!(checksums_right(&f), "{what}");
                let (_, _, reached) = ends(&f);
                let server = match mode {
                    ForwardMode::dr => {
                        assert_eq!(reached, at(vip), "{what}");
                        usize::from(eth::dst(&f) == server_mac(12))
                    }
                    _ => servers
                        .iter()
                        .position(|s| at(s).ip() == reached.ip())
                        .expect("a server"),
                };
                used[server] += 1;
                if mode != ForwardMode::dr {
                    let port = match at(servers[server]).port() {
                        0 => at(vip).port(), // the client's choice
                        port => port,
                    };
                    assert_eq!(reached.port(), port, "{what}");
                }
                // The answer; of DR it is routed through the director all the same.
                let (to, f) = only(d.exchange(LAN, &answer(&f, SYN | ACK).build()));
                assert_eq!(to, To::Port(WAN), "{what}");
                assert_eq!(ends(&f), (proto, at(vip), at(client)), "{what}");
                assert!(checksums_right(&f), "{what}");
                let (_, again) = only(d.exchange(WAN, &packet(proto, client, vip, ACK).build()));
                assert_eq!(ends(&again).2, reached, "{what}: the same server");
            }
            if shape.workers == 1 {
                assert_eq!(used[0], used[1], "{mode:?}: in turn over all of them");
            }
            d.assert_books();
            d.assert_runs_out();
        }
    }
}

/// Every scheduler serves a mark: each connection has one server for its life, and those that go
/// by the client give it the same one for every address and port of the mark.
#[test]
fn every_scheduler_serves_a_mark() {
    let kind: Kind<'_> = (
        marked(7, false),
        ForwardMode::nat,
        &["10.1.0.11:0", "10.1.0.12:0"],
    );
    for scheduler in SchedulerKind::ALL {
        let mut d = director_with(&Shape::default(), &[kind], &rules(), |service, _| {
            let options = Options::default();
            let heavy = |c: &Candidate| Candidate::new(c.id, c.address, 100); // ovf counts to it
            service.servers = service.servers.iter().map(heavy).collect();
            service.scheduler = Scheduler::new(*scheduler, options, &service.servers);
        });
        let mut by_client = std::collections::HashSet::new();
        for (n, vip) in ["10.0.0.20:80", "10.0.0.20:443", "10.0.0.21:80"]
            .iter()
            .enumerate()
        {
            // From ports of their own: NAT's answers could not be told apart otherwise.
            let client = format!("192.0.2.7:{}", 40_000 + n);
            let mut reached = |flags| {
                let packet = packet(Proto::Tcp, &client, vip, flags).build();
                ends(&only(d.exchange(WAN, &packet)).1).2
            };
            let first = reached(SYN);
            assert_eq!(first.port(), at(vip).port(), "{scheduler:?}");
            assert_eq!(reached(ACK), first, "{scheduler:?}");
            by_client.insert(first.ip());
        }
        if matches!(
            scheduler,
            SchedulerKind::sh | SchedulerKind::mh | SchedulerKind::conhash
        ) {
            assert_eq!(by_client.len(), 1, "{scheduler:?}");
        }
        d.assert_books();
        d.assert_runs_out();
    }
}

/// What no rule marks is no business of the service's, be it on the same address.
#[test]
fn what_is_not_marked_goes_to_the_kernel_as_before() {
    for shape in shapes() {
        let kinds: [Kind<'_>; 2] = [
            (marked(7, false), ForwardMode::nat, &["10.1.0.11:0"]),
            (marked(9, false), ForwardMode::fullnat, &["10.1.0.12:0"]),
        ];
        let mut d = director(&shape, &kinds, &rules());
        for (proto, vip) in [
            (Proto::Tcp, "10.0.0.20:22"),
            (Proto::Tcp, "10.0.0.22:80"),
            (Proto::Udp, "10.0.0.2:80"),
            (Proto::Tcp, "10.9.0.1:80"),       // from the other side only
            (Proto::Tcp, "[2001:db8::20]:80"), // marked, and no service of IPv6 has the mark
        ] {
            let client = if vip.starts_with('[') { C6 } else { C4 };
            let sent = packet(proto, client, vip, SYN).build();
            assert_eq!(
                only(d.exchange(WAN, &sent)),
                (To::Kernel(WAN), sent),
                "{vip}"
            );
        }
        // What is marked never gets there: without a connection it is refused.
        let stray = packet(Proto::Tcp, C4, "10.0.0.20:80", ACK).build();
        let (to, reset) = only(d.exchange(WAN, &stray));
        assert_eq!(to, To::Port(WAN));
        assert_eq!(ends(&reset).1, at("10.0.0.20:80"));
        assert_eq!(d.drops(DropReason::NoConnection), 1);

        let from_lan = packet(Proto::Tcp, "10.1.0.13:5000", "10.9.7.7:25", SYN);
        let from_lan = from_lan.macs(server_mac(13), LAN_MAC).build();
        let (to, f) = only(d.exchange(LAN, &from_lan));
        assert_eq!((to, ends(&f).2), (To::Port(LAN), at("10.1.0.12:25")));
        let (_, f) = only(d.exchange(LAN, &answer(&f, SYN | ACK).build()));
        assert_eq!(ends(&f).1, at("10.9.7.7:25"));
        d.assert_books();
        d.assert_runs_out();
    }
}

/// A mark is asked before an address; with its service gone, packets go on as without.
#[test]
fn a_mark_comes_before_an_address() {
    let web = ServiceKey::Address {
        proto: Proto::Tcp,
        vip: [10, 0, 0, 20].into(),
        port: 80,
    };
    let by_address: Kind<'_> = (web, ForwardMode::nat, &["10.1.0.12:8080"]);
    let by_mark: Kind<'_> = (marked(7, false), ForwardMode::nat, &["10.1.0.11:0"]);
    for (kinds, server) in [
        (vec![by_address, by_mark], "10.1.0.11:80"),
        (vec![by_address], "10.1.0.12:8080"),
    ] {
        let mut d = director(&Shape::default(), &kinds, &rules());
        let syn = packet(Proto::Tcp, C4, "10.0.0.20:80", SYN).build();
        assert_eq!(ends(&only(d.exchange(WAN, &syn)).1).2, at(server));
        d.assert_books();
    }
}

/// Ranges of ports and addresses: servers see the client's port, or one for all of them.
#[test]
fn ranges_are_one_service() {
    let range = |proto, vips: &str, first, last| ServiceKey::Range {
        proto,
        vips: network(vips),
        ports: PortRange::new(first, last).unwrap(),
    };
    for (shape, proto) in shapes().iter().flat_map(|s| PROTOS.map(|proto| (s, proto))) {
        let kinds: [Kind<'_>; 3] = [
            (
                range(proto, "10.0.0.32/28", 8000, 8999),
                ForwardMode::nat,
                &["10.1.0.11:0"],
            ),
            (
                range(proto, "10.0.0.0/24", 8500, 8500),
                ForwardMode::fullnat,
                &["10.1.0.12:90"],
            ),
            (
                range(proto, "2001:db8::/112", 0, 65535),
                ForwardMode::dr,
                &["[2001:db8:1::13]:0"],
            ),
        ];
        let mut d = director(shape, &kinds, &[]);
        for (vip, server) in [
            ("10.0.0.32:8000", "10.1.0.11:8000"),
            ("10.0.0.47:8999", "10.1.0.11:8999"),
            ("10.0.0.33:8500", "10.1.0.11:8500"),
            ("10.0.0.48:8500", "10.1.0.12:90"),
            ("10.0.0.255:8500", "10.1.0.12:90"),
            ("[2001:db8::ffff]:1", "[2001:db8::ffff]:1"),
        ] {
            let client = if vip.starts_with('[') { C6 } else { C4 };
            let what = format!("{vip} {proto} {shape:?}");
            let (_, f) = only(d.exchange(WAN, &packet(proto, client, vip, SYN).build()));
            assert_eq!(ends(&f).2, at(server), "{what}");
            let (to, f) = only(d.exchange(LAN, &answer(&f, SYN | ACK).build()));
            assert_eq!(
                (to, ends(&f)),
                (To::Port(WAN), (proto, at(vip), at(client))),
                "{what}"
            );
        }
        // Their addresses are virtual ones, so nothing else there reaches the kernel.
        let before = d.drops(DropReason::NoConnection);
        d.exchange(WAN, &packet(proto, C4, "10.0.0.40:80", SYN).build());
        assert_eq!(d.drops(DropReason::NoConnection), before + 1);
        d.assert_books();
        d.assert_runs_out();
    }
}
