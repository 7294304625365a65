//! Templates by themselves: when one is assured, what `drop_entry` does about those that are not,
//! and that one datagram a connection gives its place there back.

use std::collections::BTreeMap;

use super::kinds::{at, director_with, snapshot_of, use_kinds};
use super::modes::{packet, shapes};
use super::*;
use weir_dataplane::conn::state::Rules;
use weir_dataplane::conn::templates::TemplateView;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::service::{Engine, Persistence, ServiceKey, Thresholds};

const PERSISTENT: Persistence = Persistence {
    ticks: Tick::seconds(300),
    prefix: 32,
    engine: Engine::Address,
};
const VIP: &str = "10.0.0.10:80";
const SERVERS: &[&str] = &["10.1.0.11:80", "10.1.0.12:80"];

fn key(proto: Proto) -> ServiceKey {
    ServiceKey::Address {
        proto,
        vip: at(VIP).ip(),
        port: 80,
    }
}

/// All templates, by client.
fn templates(d: &Director) -> BTreeMap<String, TemplateView> {
    let mut all = BTreeMap::new();
    for worker in &d.workers {
        let left = worker.templates().page(0, u32::MAX, |t| {
            let before = all.insert(t.key.client().to_string(), t);
            assert_eq!(before, None, "one home for each");
            true
        });
        assert_eq!(left, None);
    }
    assert_eq!(d.sum(|c| c.templates.get()), all.len() as u64);
    all
}

/// The client's packets go through, and with `answered` the server's, too.
fn handshake(d: &mut Director, proto: Proto, client: &str, answered: bool) {
    for says in [SYN, ACK] {
        let (to, at_server) = only(d.exchange(WAN, &packet(proto, client, VIP, says).build()));
        assert_eq!(to, To::Port(LAN));
        if answered && says == SYN {
            let flags = if proto == Proto::Tcp { SYN | ACK } else { 0 };
            let (to, _) = only(d.exchange(LAN, &answer(&at_server, flags).build()));
            assert_eq!(to, To::Port(WAN));
        }
    }
}

/// IPVS's `ip_vs_control_assure_ct`: TCP when it is established, UDP when the server's answer
/// passes. In IPVS's table a client's ACK is enough for TCP; where answers go past the director UDP
/// is never assured.
#[test]
fn what_a_template_controls_assures_it() {
    for (mode, proto, wanted) in [
        // After the first packet, after a handshake without answers, after one with answers.
        (ForwardMode::fullnat, Proto::Tcp, [false, true, true]),
        (ForwardMode::nat, Proto::Tcp, [false, true, true]),
        (ForwardMode::dr, Proto::Tcp, [false, true, true]),
        (ForwardMode::fullnat, Proto::Udp, [false, false, true]),
        (ForwardMode::nat, Proto::Udp, [false, false, true]),
        (ForwardMode::dr, Proto::Udp, [false, false, false]),
    ] {
        for shape in shapes() {
            let kinds = [(key(proto), mode, SERVERS)];
            let mut d = director_with(&shape, &kinds, &[], |service, _| {
                service.policy.persistence = Some(PERSISTENT);
            });
            only(d.exchange(WAN, &packet(proto, "192.0.2.1:1000", VIP, SYN).build()));
            handshake(&mut d, proto, "192.0.2.2:1000", false);
            let two_way = mode != ForwardMode::dr;
            handshake(&mut d, proto, "192.0.2.3:1000", two_way);
            // Whoever comes after a neighbour that assured it has nothing to say.
            handshake(&mut d, proto, "192.0.2.3:1001", two_way);
            let all = templates(&d);
            let assured = all.values().map(|t| t.assured);
            let what = format!("{mode:?} {proto:?} {shape:?}");
            assert!(assured.eq(wanted), "{what}: {all:?}");
            assert!(all.values().all(|t| t.prefix == 32));
            let controls: Vec<_> = all.values().map(|t| t.controls).collect();
            assert_eq!(controls, [1, 1, 2], "{what}");
            d.assert_books();
        }
    }
}

/// A flood of SYNs leaves a template for each of its sources. `drop_entry` takes them with the
/// half-open connections, or by themselves when those have run out; what was established stays.
#[test]
fn drop_entry_takes_templates_that_are_not_assured() {
    for early in [true, false] {
        for shape in shapes() {
            let shape = Shape {
                max_connections: 4000,
                ..shape
            };
            let kinds = [(key(Proto::Tcp), ForwardMode::nat, SERVERS)];
            let snapshot = |drop_entry| {
                let rules = Rules {
                    drop_entry,
                    ..Rules::default()
                };
                snapshot_of(&shape, &kinds, &[], rules, |service, _| {
                    service.policy.persistence = Some(PERSISTENT);
                })
            };
            let mut d = Director::new(&shape);
            use_kinds(&mut d, snapshot(0));
            for n in 0..60 {
                let client = format!("198.51.100.{n}:1000");
                only(d.exchange(WAN, &packet(Proto::Tcp, &client, VIP, SYN).build()));
            }
            for n in 0..7 {
                handshake(&mut d, Proto::Tcp, &format!("192.0.2.{n}:1000"), true);
            }
            assert_eq!(templates(&d).len(), 67);
            if !early {
                d.now = d.now.after(Tick::seconds(61)); // SYN_RECV
                (0..50).for_each(|_| d.settle());
                assert_eq!((d.listing().len(), templates(&d).len()), (7, 67));
            }
            use_kinds(&mut d, snapshot(3));
            for _ in 0..34 {
                d.now = d.now.after(Tick::seconds(1));
                (0..3).for_each(|_| d.settle());
            }
            let left = templates(&d);
            let honest = left.keys().all(|client| client.starts_with("192.0.2."));
            assert!(honest && left.len() == 7, "{left:?}");
            assert_eq!(d.sum(|c| c.templates_shed.get()), 60);
            // Of the idle ones some may have gone; their templates are assured.
            let shed = d.sum(|c| c.conns_shed.get());
            let wanted = if early { 60..=60 } else { 0..=7 };
            assert!(wanted.contains(&shed), "{shed} of {shape:?}");
            d.assert_books();
        }
    }
}

/// Each datagram is scheduled by the template and counts as a connection only if it makes one:
/// else a client's template lasted for as long as it sends, and an hour more.
#[test]
fn datagrams_of_a_persistent_service_give_their_counts_back() {
    for (mode, conns) in [
        (ForwardMode::fullnat, 10),
        (ForwardMode::nat, 1), // answers to one socket are all alike
        (ForwardMode::dr, 0),
    ] {
        for shape in shapes() {
            let mut shape = shape;
            shape.timeouts.set(State::Udp, Tick::seconds(5));
            let kinds = [(key(Proto::Udp), mode, SERVERS)];
            let mut d = director_with(&shape, &kinds, &[], |service, _| {
                service.policy.one_packet = true;
                service.policy.persistence = Some(Persistence {
                    ticks: Tick::seconds(30),
                    ..PERSISTENT
                });
            });
            let mut servers = std::collections::BTreeSet::new();
            for _ in 0..10 {
                let query = packet(Proto::Udp, "192.0.2.7:4000", VIP, 0).build();
                let (to, at_server) = only(d.exchange(WAN, &query));
                assert_eq!(to, To::Port(LAN));
                servers.insert(eth::dst(&at_server).0);
            }
            let what = format!("{mode:?} {shape:?}");
            assert_eq!(servers.len(), 1, "{what}: one server");
            let controls = |d: &Director| templates(d).values().map(|t| t.controls).sum::<u32>();
            assert_eq!((templates(&d).len(), controls(&d)), (1, conns), "{what}");
            d.now = d.now.after(Tick::seconds(10));
            (0..50).for_each(|_| d.settle());
            assert_eq!((templates(&d).len(), controls(&d)), (1, 0), "{what}");
            d.now = d.now.after(Tick::seconds(21));
            (0..50).for_each(|_| d.settle());
            assert!(templates(&d).is_empty(), "{what}");
            d.assert_books();
        }
    }
}

/// Where the template's home has no server, that is the end of it, of a whole packet and of parts,
/// and the reason is home's.
#[test]
fn a_refusal_at_home_is_final() {
    let thresholds = Thresholds { upper: 1, lower: 0 };
    for (upper, reason) in [
        (true, DropReason::ServersFull),
        (false, DropReason::NoServer),
    ] {
        for shape in shapes() {
            let servers = if upper { &SERVERS[..1] } else { &[] };
            let kinds = [(key(Proto::Udp), ForwardMode::fullnat, servers)];
            let mut d = director_with(&shape, &kinds, &[], |service, servers| {
                service.policy.persistence = Some(PERSISTENT);
                for server in servers {
                    server.policy.thresholds = thresholds;
                }
            });
            if upper {
                only(d.exchange(WAN, &packet(Proto::Udp, "192.0.2.1:1000", VIP, 0).build()));
            }
            let before = d.drops(reason);
            for client in 2..10 {
                let client = format!("192.0.2.{client}:1000");
                let whole = packet(Proto::Udp, &client, VIP, 0).payload(&[1; 2000]);
                let cut = parts(&whole.build(), 1500);
                for part in &cut {
                    for (to, _) in d.exchange(WAN, part) {
                        assert_eq!(to, To::Port(WAN), "an error, for the first");
                    }
                }
                d.exchange(WAN, &packet(Proto::Udp, &client, VIP, 0).build());
            }
            assert_eq!(d.drops(reason), before + 3 * 8, "{shape:?}");
            assert_eq!(templates(&d).len(), usize::from(upper));
            d.assert_books();
        }
    }
}
