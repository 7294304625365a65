//! Who is let in, who is not, and who gives way: access lists, the blacklist, LVS's defences,
//! a full table.

use std::sync::Arc;

use weir_dataplane::command::{Command, Event};
use weir_dataplane::conn::Eviction;
use weir_dataplane::conn::state::{Rules, State};
use weir_dataplane::counters::DropReason;
use weir_dataplane::defense::access::{self, Access, Denied};
use weir_dataplane::defense::blacklist::Blacklist;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::packet::tcp::flags::{ACK, FIN, PSH, SYN};
use weir_dataplane::service::{Server, Snapshot, SnapshotBuilder};
use weir_dataplane::{ServiceId, Tick};

use crate::common::*;

fn denied(networks: &[&str]) -> Denied {
    let mut rules = access::Rules::default();
    for network in networks {
        rules.add(network.parse().unwrap(), true);
    }
    rules.compile(false)
}

/// The usual services under `rules`; `web` refuses `networks`, and all servers are of `mode`.
fn guarded(
    generation: u64,
    rules: Rules,
    networks: &[&str],
    closes: bool,
    mode: ForwardMode,
) -> Arc<Snapshot> {
    let usual = snapshot(generation, Default::default());
    let mut b = SnapshotBuilder::default().rules(rules);
    for server in usual.servers() {
        b.server(Server {
            forward: mode,
            ..*server
        });
    }
    for service in usual.services() {
        let mut service = service.clone();
        if &*service.name == "web" && !networks.is_empty() {
            service.policy.access = Some(Arc::new(Access {
                denied: denied(networks),
                prefixes: networks.len(),
                closes,
            }));
        }
        b.service(Arc::new(service));
    }
    Arc::new(b.build(generation))
}

/// The usual services, under `rules`.
pub(crate) fn use_rules(d: &mut Director, rules: Rules) {
    use_services(d, &guarded(2, rules, &[], false, ForwardMode::fullnat));
}

fn use_services(d: &mut Director, snapshot: &Arc<Snapshot>) {
    d.tell(|| Command::Snapshot(Arc::clone(snapshot)));
    d.settle();
    d.events.clear();
}

/// A client's handshake; whether it came through.
fn connects(d: &mut Director, client: &str) -> bool {
    let out = d.exchange(WAN, &to_web(addr(client), SYN).build());
    let [(To::Port(LAN), syn)] = &out[..] else {
        assert!(out.is_empty(), "{out:02x?}");
        return false;
    };
    let out = d.exchange(LAN, &answer(syn, SYN | ACK).build());
    assert_eq!(out.len(), 1, "the answer");
    d.exchange(WAN, &to_web(addr(client), ACK).build()).len() == 1
}

/// Whether a packet of a connection gets through to a server.
fn goes_on(d: &mut Director, client: &str) -> bool {
    let out = d.exchange(WAN, &to_web(addr(client), ACK | PSH).build());
    out.iter().any(|(to, _)| *to == To::Port(LAN))
}

#[test]
fn an_access_list_is_asked_at_opening_and_of_standing_connections_if_it_closes() {
    for workers in [1, 3] {
        let mut d = Director::new(&Shape::workers(workers));
        assert!(connects(&mut d, "192.0.2.7:1000"));
        assert!(connects(&mut d, "198.51.100.7:1000"));
        let mode = ForwardMode::fullnat;
        let lists = &["192.0.2.0/24", "203.0.113.9/32"];
        let keeps = guarded(2, Rules::default(), lists, false, mode);
        use_services(&mut d, &keeps);
        assert!(goes_on(&mut d, "192.0.2.7:1000"), "it stands");
        assert!(!connects(&mut d, "192.0.2.8:1000"));
        assert!(!connects(&mut d, "203.0.113.9:1000"));
        assert!(connects(&mut d, "203.0.113.8:1000"));
        assert_eq!(d.drops(DropReason::AccessDenied), 2);
        // Another service has another list: none.
        let out = d.exchange(WAN, &to_dns(addr("192.0.2.8:53")).build());
        assert_eq!(out.len(), 1);
        assert_eq!(d.sum(|c| c.conns_denied.get()), 0);

        let closes = guarded(3, Rules::default(), lists, true, mode);
        use_services(&mut d, &closes);
        assert_eq!(d.sum(|c| c.conns_denied.get()), 1);
        assert!(!goes_on(&mut d, "192.0.2.7:1000"));
        assert!(goes_on(&mut d, "198.51.100.7:1000"));
        let open = guarded(4, Rules::default(), &[], false, mode);
        use_services(&mut d, &open);
        assert!(connects(&mut d, "192.0.2.7:1001"));
        assert_eq!(d.drops(DropReason::AccessDenied), 2);
        d.collect();
        d.assert_books();
        d.assert_runs_out();
    }
}

#[test]
fn the_blacklist_shuts_out_everywhere_or_from_one_service_and_closes_what_stands() {
    for workers in [1, 3] {
        let mut d = Director::new(&Shape::workers(workers));
        for client in ["192.0.2.7:1000", "192.0.2.8:1000", "198.51.100.7:1000"] {
            assert!(connects(&mut d, client));
        }
        let out = d.exchange(WAN, &to_dns(addr("192.0.2.8:53")).build());
        assert_eq!(out.len(), 1);
        let blacklist = Arc::new(Blacklist {
            everywhere: denied(&["192.0.2.7/32"]),
            services: vec![(ServiceId(1), denied(&["192.0.2.8/32"]))],
        });
        d.tell(|| Command::Blacklist(Arc::clone(&blacklist)));
        d.settle();
        let retired = d.events.iter();
        let retired = retired.filter(|e| matches!(e, Event::RetiredBlacklist(_)));
        assert_eq!(retired.count(), usize::from(workers));
        d.events.clear();
        assert_eq!(d.sum(|c| c.conns_denied.get()), 2, "one of web, one of dns");
        assert!(!goes_on(&mut d, "192.0.2.7:1000"));
        assert!(goes_on(&mut d, "192.0.2.8:1000"), "only shut out of dns");
        assert!(!connects(&mut d, "192.0.2.7:1001"));
        assert!(connects(&mut d, "192.0.2.8:1001"));
        assert!(
            d.exchange(WAN, &to_dns(addr("192.0.2.8:53")).build())
                .is_empty()
        );
        assert_eq!(d.drops(DropReason::Blacklisted), 2);
        d.tell(|| Command::Blacklist(Blacklist::empty()));
        d.settle();
        d.events.clear();
        assert!(connects(&mut d, "192.0.2.7:1002"));
        d.collect();
        d.assert_books();
        d.assert_runs_out();
    }
}

#[test]
fn drop_packet_takes_one_opening_in_so_many() {
    let mut d = Director::new(&Shape::default());
    let rules = Rules {
        drop_packet: 3,
        am_droprate: 5,
        ..Rules::default()
    };
    use_rules(&mut d, rules);
    let through = (0..100).filter(|n| connects(&mut d, &format!("192.0.2.7:{}", 1000 + n)));
    assert_eq!(through.count(), 80);
    assert_eq!(d.drops(DropReason::DropPacket), 20);
    // A connection that stands loses none.
    assert!((0..50).all(|_| goes_on(&mut d, "192.0.2.7:1000")));
    d.assert_books();
}

/// In a round of 32 seconds every half-open connection is met, and an idle one now and then.
#[test]
fn drop_entry_goes_round_the_table() {
    let mut d = Director::new(&Shape {
        max_connections: 640,
        ..Shape::default()
    });
    for n in 0..60 {
        d.exchange(
            WAN,
            &to_web(addr(&format!("192.0.2.7:{}", 1000 + n)), SYN).build(),
        );
        assert!(connects(&mut d, &format!("192.0.2.8:{}", 1000 + n)));
    }
    let rules = Rules {
        drop_entry: 3,
        ..Rules::default()
    };
    use_rules(&mut d, rules);
    let second = |d: &mut Director| {
        d.now = d.now.after(Tick::seconds(1));
        d.settle();
    };
    (0..33).for_each(|_| second(&mut d));
    let left = d.listing();
    assert_eq!(left.iter().filter(|c| c.state == State::SynRecv).count(), 0);
    assert_eq!((left.len(), d.sum(|c| c.conns_shed.get())), (60, 60));
    // After a minute of silence: one in two, for they had two packets each.
    (0..66).for_each(|_| second(&mut d));
    let shed = d.sum(|c| c.conns_shed.get()) - 60;
    assert!((30..=60).contains(&shed), "{shed} idle ones");
    d.assert_runs_out();
}

/// What honest clients do, step by step, while `flood` sends what it likes in between.
fn honest_through(d: &mut Director, clients: u16, mut flood: impl FnMut(&mut Director)) {
    for n in 0..clients {
        let client = addr(&format!("198.51.100.7:{}", 2000 + n));
        for (says, answers) in [
            (SYN, SYN | ACK),
            (ACK, ACK),
            (ACK | PSH, ACK | PSH),
            (FIN | ACK, FIN | ACK),
        ] {
            d.deliver(WAN, &to_web(client, says).build(), 0);
            d.settle();
            let at_server = d.collect().into_iter().find(|(to, _)| *to == To::Port(LAN));
            let (_, at_server) =
                at_server.unwrap_or_else(|| panic!("client {n}: {says:#x} is lost"));
            flood(d);
            d.collect();
            let back = d.exchange(LAN, &answer(&at_server, answers).build());
            let heard = back
                .iter()
                .any(|(to, f)| *to == To::Port(WAN) && ends(f).2 == client.into());
            assert!(heard, "client {n}: the answer to {says:#x} is lost");
            flood(d);
            d.collect();
        }
    }
}

/// A flood of spoofed SYNs many times the table: it evicts its own kind, and honest clients get
/// through from the first to the last packet.
#[test]
fn honest_clients_get_through_a_flood_larger_than_the_table() {
    for (workers, mode) in [
        (1, ForwardMode::fullnat),
        (3, ForwardMode::fullnat),
        (3, ForwardMode::nat),
    ] {
        let mut d = Director::new(&Shape {
            max_connections: 2000,
            ..Shape::workers(workers)
        });
        let services = guarded(2, Rules::default(), &[], false, mode);
        use_services(&mut d, &services);
        let mut spoofed = 0u32;
        let mut flood = |d: &mut Director, n: u32| {
            for _ in 0..n {
                spoofed += 1;
                let from = std::net::SocketAddrV4::new((0xc612_0000 + spoofed).into(), 7);
                d.deliver(WAN, &to_web(from, SYN).build(), spoofed as usize);
                if spoofed.is_multiple_of(64) {
                    d.now = d.now.after(1);
                    d.settle();
                    d.collect();
                }
            }
            d.settle();
        };
        flood(&mut d, 8000);
        assert!(d.sum(|c| c.conns_evicted.get()) > 0);
        honest_through(&mut d, 40, |d| flood(d, 150));
        let kinds = |d: &Director| {
            [
                d.sum(|c| c.evicted_half_open.get()),
                d.sum(|c| c.evicted_closing.get()),
                d.sum(|c| c.evicted_udp.get()),
                d.sum(|c| c.evicted_established.get()),
            ]
        };
        let [half_open, closing, udp, established] = kinds(&d);
        let all = d.sum(|c| c.conns_evicted.get());
        assert_eq!(half_open + closing + udp + established, all);
        assert_eq!((udp, established), (0, 0), "{mode:?}");
        assert!(closing < 40 && half_open > 20_000, "{:?}", kinds(&d));
        let redirects: u32 = d.workers.iter().map(|w| w.conns().redirects()).sum();
        let conns: u32 = d.workers.iter().map(|w| w.conns().len()).sum();
        assert!(
            redirects <= conns,
            "evicted ones took theirs along: {redirects} of {conns}"
        );
        d.assert_books();
        d.now = d.now.after(Tick::seconds(1000));
        d.settle(); // `Release` for those whose connection ran out
        d.assert_runs_out();
        let left = d.workers.iter().map(|w| w.conns().redirects());
        assert_eq!(left.sum::<u32>(), 0);
    }
}

/// A table full of established idle connections: new ones take the place of those that were
/// silent for longest; or are refused, if that is what was asked for.
#[test]
fn a_table_full_of_idle_connections_takes_new_ones() {
    for eviction in Eviction::ALL {
        let mut d = Director::new(&Shape {
            max_connections: 500,
            ..Shape::default()
        });
        let rules = Rules {
            eviction,
            ..Rules::default()
        };
        use_rules(&mut d, rules);
        for n in 0..500 {
            assert!(connects(&mut d, &format!("192.0.2.7:{}", 1000 + n)));
            d.now = d.now.after(1);
        }
        d.now = d.now.after(Tick::seconds(60));
        // The first hundred speak: they are the oldest, and not idle.
        assert!((0..100).all(|n| goes_on(&mut d, &format!("192.0.2.7:{}", 1000 + n))));
        if eviction == Eviction::NeverEstablished {
            assert!(!connects(&mut d, "198.51.100.7:1000"));
            assert_eq!(d.drops(DropReason::ConnTableFull), 1);
            continue;
        }
        for n in 0..100 {
            assert!(
                connects(&mut d, &format!("198.51.100.7:{}", 1000 + n)),
                "{n}"
            );
        }
        assert_eq!(d.sum(|c| c.evicted_established.get()), 100);
        assert_eq!(d.drops(DropReason::ConnTableFull), 0);
        let speaking = (0..100).filter(|n| goes_on(&mut d, &format!("192.0.2.7:{}", 1000 + n)));
        let speaking = speaking.count();
        assert!(
            speaking >= 90,
            "{eviction:?}: {speaking} of the lively ones left"
        );
        d.collect();
        d.assert_books();
    }
}

/// A multicast VRRP advertisement of a router on the link.
fn vrrp() -> Vec<u8> {
    let mut f = vec![0x01, 0x00, 0x5e, 0, 0, 0x12];
    f.extend_from_slice(&ROUTER_MAC.0);
    f.extend_from_slice(&[8, 0, 0x45, 0xc0, 0, 40, 0, 0, 0, 0, 255, 112, 0, 0]);
    f.extend_from_slice(&[10, 0, 0, 1, 224, 0, 0, 18]);
    f.extend_from_slice(&[0x31, 7, 100, 1, 0, 100, 0, 0, 10, 0, 0, 10]);
    f.resize(60, 0);
    weir_dataplane::packet::checksum::set_ipv4(&mut f);
    f
}

/// Floods of what may come from afar, to the director's own address and to ports where nothing
/// is, while the twin thread takes nothing: there is room for what holds the network together,
/// clients go on, and are told of the size that fits.
#[test]
fn a_flood_for_the_kernel_starves_neither_vrrp_nor_arp_nor_clients() {
    use weir_dataplane::packet::build::Packet;
    let mut d = Director::new(&Shape::default());
    assert!(connects(&mut d, "192.0.2.7:1000"));
    let before = d.totals().to_kernel;
    for n in 0..3000u32 {
        let from = std::net::SocketAddrV4::new((0xc612_0000 + n).into(), 7);
        for to in ["10.0.0.2:22", "10.0.0.2:179", "10.0.0.10:81"] {
            let syn = Packet::tcp(from, addr(to), SYN).macs(ROUTER_MAC, WAN_MAC);
            d.deliver(WAN, &syn.build(), 0);
        }
        if n.is_multiple_of(10) {
            d.settle();
        }
    }
    d.settle();
    let passed = d.totals().to_kernel - before;
    assert_eq!(passed, 192, "three quarters of the ring");
    assert_eq!(d.drops(DropReason::NoConnection), 3000);
    assert_eq!(
        d.sum(|c| c.generated.get()),
        1000,
        "resets within their limit"
    );
    let mut arp = vec![0xff; 12];
    arp.extend_from_slice(&[0x08, 0x06]);
    arp.resize(60, 0);
    for frame in [vrrp(), arp] {
        d.deliver(WAN, &frame, 0);
        d.settle();
        let kernel = d.totals().to_kernel - before;
        assert!(kernel > passed, "lost: {frame:02x?}");
        let last = d
            .collect()
            .into_iter()
            .rfind(|(to, _)| *to == To::Kernel(WAN));
        assert_eq!(last, Some((To::Kernel(WAN), frame)));
    }
    assert!(goes_on(&mut d, "192.0.2.7:1000"));
    let long = to_web(addr("192.0.2.7:1000"), ACK)
        .payload(&[0; 1600])
        .build();
    let told = d.exchange(WAN, &long);
    assert_eq!((told.len(), told[0].0), (1, To::Port(WAN)));
    assert_eq!(told[0].1[34..36], [3, 4], "fragmentation needed");
    d.assert_books();
}
