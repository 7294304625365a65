//! Packet in, packet out: bytes and counters of single packets through one and three workers.

mod carriers;
#[path = "../common/mod.rs"]
mod common;
mod cutting;
mod defense;
mod errors;
mod farewell;
mod fragments;
mod ftp;
mod hops;
mod judged;
mod kinds;
mod modes;
mod one_packet;
mod persistence;
mod quic;
mod sctp;
mod snat;
mod syn_proxy;
mod table;
mod templates;
#[path = "../common/tshark.rs"]
mod tshark;
mod tunnels;
mod vlans;

use std::net::IpAddr;
use std::sync::Arc;

use common::*;
use weir_dataplane::command::{Command, ConnPage, Event, PortUpdate};
use weir_dataplane::conn::Eviction;
use weir_dataplane::conn::state::{Rules, State};
use weir_dataplane::counters::DropReason;
use weir_dataplane::io::RxChecksum;
use weir_dataplane::packet::build::{Packet, checksums_right};
use weir_dataplane::packet::tcp::flags::{ACK, FIN, PSH, RST, SYN};
use weir_dataplane::packet::{self, Key, Parsed, be16, eth, ipv4, put16};
use weir_dataplane::route::{NeighbourId, NeighbourUpdate};
use weir_dataplane::{CoreId, Mac, Proto, ServerId, Tick};

fn parsed(frame: &[u8]) -> packet::Flow {
    let Ok(Parsed::Flow(flow)) = packet::parse(frame, false) else {
        panic!("{frame:02x?}")
    };
    flow
}

/// The one frame that left, and where to.
fn only(out: Vec<(To, Vec<u8>)>) -> (To, Vec<u8>) {
    assert_eq!(out.len(), 1, "{out:02x?}");
    out.into_iter().next().unwrap()
}

/// Type and code of the one ICMP error that went back to where `about` came from.
fn told(out: &[(To, Vec<u8>)], about: &[u8]) -> Option<(u8, u8)> {
    let (to, f) = out.first()?;
    assert_eq!((out.len(), *to), (1, To::Port(WAN)), "{out:02x?}");
    assert_eq!((eth::src(f), eth::dst(f)), (WAN_MAC, ROUTER_MAC));
    assert_eq!(f[30..34], about[26..30], "to its sender");
    assert_eq!(packet::checksum::sum(&f[14..34]), 0xffff);
    assert_eq!(packet::checksum::sum(&f[34..]), 0xffff);
    assert_eq!(f[42..62], about[14..34], "quoted as it came");
    Some((f[34], f[35]))
}

#[test]
fn a_connection_there_and_back_byte_by_byte() {
    for workers in [1, 3] {
        let mut d = Director::new(&Shape::workers(workers));
        let client = addr("192.0.2.7:40000");
        let syn = to_web(client, SYN).payload(b"odd").build();
        let (to, at_server) = only(d.exchange(WAN, &syn));
        assert_eq!(to, To::Port(LAN));
        assert_eq!(
            (eth::src(&at_server), eth::dst(&at_server)),
            (LAN_MAC, server_mac(11))
        );
        assert_eq!(at_server[12..14], syn[12..14], "EtherType");
        // The IPv4 header: only TTL, checksum and addresses differ; TCP: ports and checksum.
        assert_eq!(at_server[14..22], syn[14..22]);
        assert_eq!((at_server[22], at_server[23]), (63, 6));
        assert_eq!(at_server[30..34], [10, 1, 0, 11]);
        assert_eq!(at_server[26..28], [10, 1]);
        assert_eq!(at_server[38..50], syn[38..50], "sequence to window");
        assert_eq!(at_server[52..], syn[52..], "urgent pointer and payload");
        assert!(checksums_right(&at_server));
        let flow = parsed(&at_server);
        assert_eq!(flow.key.destination4(), server_addr(11, 8080));
        assert!(flow.key.sport() >= 1024);

        let syn_ack = answer(&at_server, SYN | ACK).payload(b"hi").build();
        let (to, at_client) = only(d.exchange(LAN, &syn_ack));
        assert_eq!(to, To::Port(WAN));
        assert_eq!(
            (eth::src(&at_client), eth::dst(&at_client)),
            (WAN_MAC, ROUTER_MAC)
        );
        let flow = parsed(&at_client);
        assert_eq!(
            (flow.key.source4(), flow.key.destination4()),
            (addr("10.0.0.10:80"), client)
        );
        assert!(checksums_right(&at_client));
        assert_eq!(at_client[54..], *b"hi");

        let (_, again) = only(d.exchange(WAN, &to_web(client, ACK).build()));
        assert_eq!(
            parsed(&again).key,
            parsed(&at_server).key,
            "the same server and local port"
        );

        let cells = |f: fn(&weir_dataplane::counters::ServerCounters) -> u64| {
            d.sum(|c| f(c.servers.get(ServerId(0)).unwrap()))
        };
        assert_eq!(
            (cells(|s| s.conns.get()), cells(|s| s.active.get())),
            (1, 1)
        );
        assert_eq!(
            (cells(|s| s.in_packets.get()), cells(|s| s.in_bytes.get())),
            (2, 43 + 40)
        );
        assert_eq!(
            (cells(|s| s.out_packets.get()), cells(|s| s.out_bytes.get())),
            (1, 42)
        );
        assert_eq!(cells(|s| s.inactive.get()), 0);
        d.assert_books();
        d.assert_runs_out();
    }
}

#[test]
fn udp_keeps_a_missing_checksum_missing_and_never_sends_zero() {
    let mut d = Director::new(&Shape::default());
    let bare = Packet {
        no_checksum: true,
        ..to_dns(addr("192.0.2.7:5353"))
    };
    let (_, at_server) = only(d.exchange(WAN, &bare.payload(b"q").build()));
    assert_eq!(be16(&at_server, 40), 0);
    // Every value of a payload word: one of them makes the sum come out as zero.
    let mut all_ones = 0;
    for word in 0..=u16::MAX {
        let q = to_dns(addr("192.0.2.7:5354"))
            .payload(&word.to_be_bytes())
            .build();
        let (_, at_server) = only(d.exchange(WAN, &q));
        assert_ne!(be16(&at_server, 40), 0);
        all_ones += u32::from(be16(&at_server, 40) == 0xffff);
        assert!(checksums_right(&at_server));
    }
    assert_eq!(all_ones, 1);
    d.assert_books();
}

#[test]
fn weights_decide_and_weight_zero_drains() {
    let mut d = Director::new(&Shape::default());
    let hosts = |d: &mut Director, from: u16, n: u16| {
        let mut hosts = [0; 14];
        for port in from..from + n {
            let client = std::net::SocketAddrV4::new([192, 0, 2, 1].into(), port);
            let (_, f) = only(d.exchange(WAN, &to_web(client, SYN).build()));
            hosts[usize::from(f[33])] += 1;
        }
        (hosts[11], hosts[12])
    };
    assert_eq!(hosts(&mut d, 1000, 300), (200, 100));
    let drained = services(2, Default::default(), &[(0, 11, 0), (1, 12, 1)], &[]);
    let drained = Arc::new(drained);
    d.tell(|| Command::Snapshot(Arc::clone(&drained)));
    assert_eq!(hosts(&mut d, 2000, 50), (0, 50));
    assert!(
        d.events
            .iter()
            .any(|e| matches!(e, Event::RetiredSnapshot(s) if s.generation == 1))
    );
    // The drained server's connections go on.
    let client = addr("192.0.2.1:1000");
    let (_, f) = only(d.exchange(WAN, &to_web(client, ACK).build()));
    assert_eq!(f[33], 11);
    let none = Arc::new(services(3, Default::default(), &[(0, 11, 0)], &[]));
    d.tell(|| Command::Snapshot(Arc::clone(&none)));
    let syn = to_web(addr("192.0.2.1:9000"), SYN).build();
    let answers = d.exchange(WAN, &syn);
    assert_eq!(told(&answers, &syn), Some((3, 3)));
    assert_eq!(d.drops(DropReason::NoServer), 1);
    d.assert_books();
}

/// One row a packet that is not forwarded: what, the frame, and the reason it ends with.
#[test]
fn what_is_not_forwarded_is_counted_by_name() {
    use DropReason::*;
    let c = addr("192.0.2.7:40000");
    let fragment = |mut f: Vec<u8>| {
        put16(&mut f, 20, 0x2000);
        packet::checksum::set_ipv4(&mut f);
        f
    };
    let rows: Vec<(&str, Vec<u8>, DropReason)> = vec![
        ("a runt", vec![0; 13], RuntFrame),
        (
            "another's MAC",
            to_web(c, SYN).macs(ROUTER_MAC, server_mac(1)).build(),
            NotOurMac,
        ),
        (
            "a cut IPv4 header",
            to_web(c, SYN).build()[..30].to_vec(),
            BadIpHeader,
        ),
        (
            "a fragment that ends in the middle of 8 bytes",
            fragment(to_web(c, SYN).build()),
            BadFragment,
        ),
        (
            "TTL 1",
            Packet {
                ttl: 1,
                ..to_web(c, SYN)
            }
            .build(),
            TtlExpired,
        ),
        (
            "TTL 0",
            Packet {
                ttl: 0,
                ..to_web(c, ACK)
            }
            .build(),
            TtlExpired,
        ),
        (
            "from loopback",
            to_web(addr("127.0.0.1:5"), SYN).build(),
            BadSource,
        ),
        (
            "from multicast",
            to_web(addr("224.0.0.1:5"), SYN).build(),
            BadSource,
        ),
        (
            "from nowhere",
            to_web(addr("0.0.0.0:5"), SYN).build(),
            BadSource,
        ),
        (
            "a land packet",
            to_web(addr("10.0.0.10:80"), SYN).build(),
            Land,
        ),
        (
            "from the VIP",
            to_web(addr("10.0.0.10:81"), SYN).build(),
            Land,
        ),
        (
            "UDP to a closed port",
            Packet {
                dst: addr("10.0.0.10:54").into(),
                ..to_dns(c)
            }
            .build(),
            NoConnection,
        ),
        (
            "a stray reset",
            to_web(addr("192.0.2.9:1"), RST).build(),
            NoConnection,
        ),
        (
            "UDP to a local address",
            Packet {
                dst: addr("10.1.0.100:2000").into(),
                ..to_dns(c)
            }
            .build(),
            NoConnection,
        ),
    ];
    for workers in [1, 3] {
        let mut d = Director::new(&Shape::workers(workers));
        for (what, frame, reason) in &rows {
            let before = d.drops(*reason);
            let expected = match (what, reason) {
                (_, TtlExpired) => Some((11, 0)),
                (what, NoConnection) if what.starts_with("UDP") => Some((3, 3)),
                _ => None,
            };
            let answers = d.exchange(WAN, frame);
            assert_eq!(told(&answers, frame), expected, "{what}");
            assert_eq!(d.drops(*reason), before + 1, "{what}: {reason:?}");
        }
        assert_eq!(d.totals().dropped, rows.len() as u64);
        d.assert_books();
    }
}

#[test]
fn the_ports_word_on_checksums_counts() {
    let mut d = Director::new(&Shape::default());
    let good = to_web(addr("192.0.2.7:1"), SYN).build();
    let mut wrong_ip = good.clone();
    wrong_ip[24] ^= 1;
    let say = |l3_good, l3_bad, l4_bad| RxChecksum {
        l3_good,
        l3_bad,
        l4_bad,
        l4_partial: false,
    };
    for (frame, word, reason) in [
        (&good, say(false, true, false), DropReason::BadIpChecksum),
        (&good, say(true, false, true), DropReason::BadL4Checksum),
        (
            &wrong_ip,
            say(false, false, false),
            DropReason::BadIpChecksum,
        ),
    ] {
        d.deliver_with(WAN, frame, word);
        d.settle();
        assert_eq!(
            d.drops(reason),
            1 + u64::from(std::ptr::eq(frame, &wrong_ip))
        );
    }
    assert_eq!(d.collect(), vec![]);
    d.assert_books();
}

#[test]
fn partial_checksums_are_completed_when_marked_or_when_the_port_says_fill() {
    for (fill, marked) in [(true, false), (false, true)] {
        let mut d = Director::new(&Shape {
            fill_checksums: fill,
            ..Shape::default()
        });
        for f in [
            to_web(addr("192.0.2.7:1"), SYN),
            to_dns(addr("192.0.2.7:2")),
        ] {
            let f = Packet { partial: true, ..f }.payload(b"abc").build();
            let word = RxChecksum {
                l4_partial: marked,
                ..RxChecksum::default()
            };
            d.deliver_with(WAN, &f, word);
            d.settle();
            let (to, f) = only(d.collect());
            assert_eq!(to, To::Port(LAN));
            assert!(checksums_right(&f), "fill {fill}, marked {marked}");
        }
        assert_eq!(d.sum(|c| c.checksums_filled.get()), 2);
        d.assert_books();
    }
}

/// RFC 9293 3.10.7.1, and back to the MAC it came from.
#[test]
fn tcp_without_a_connection_is_reset() {
    let mut d = Director::new(&Shape::default());
    let c = addr("192.0.2.7:40000");
    for (packet, seq, ack, flags) in [
        (
            Packet {
                seq: 7,
                ack: 99,
                ..to_web(c, ACK | PSH)
            }
            .payload(b"late"),
            99,
            0,
            RST,
        ),
        (
            Packet {
                seq: 7,
                ..to_web(c, FIN)
            }
            .payload(b"late"),
            0,
            12,
            RST | ACK,
        ),
        (
            Packet {
                seq: 7,
                dst: addr("10.0.0.10:81").into(),
                ..to_web(c, SYN)
            },
            0,
            8,
            RST | ACK,
        ),
        (
            Packet {
                seq: 7,
                dst: addr("10.1.0.100:81").into(),
                ..to_web(c, SYN)
            },
            0,
            8,
            RST | ACK,
        ),
    ] {
        let wanted = Packet {
            seq,
            ack,
            flags,
            ..Packet::tcp(packet.dst, packet.src, flags).macs(WAN_MAC, ROUTER_MAC)
        };
        let (to, f) = only(d.exchange(WAN, &packet.build()));
        assert_eq!(to, To::Port(WAN));
        let mut wanted = wanted.build();
        put16(&mut wanted, 48, 0); // a reset's window is 0
        let sum = packet::checksum::l4(&wanted, Proto::Tcp, 34, 54);
        put16(&mut wanted, 50, sum);
        assert_eq!(f, wanted);
    }
    assert_eq!(d.sum(|c| c.generated.get()), 4);
    assert_eq!(d.drops(DropReason::NoConnection), 4);
    d.assert_books();
}

#[test]
fn the_kernel_gets_what_is_its_own_and_sends_through_the_ports() {
    for workers in [1, 3] {
        let mut d = Director::new(&Shape::workers(workers));
        let mut arp = vec![0xff; 6];
        arp.extend_from_slice(&ROUTER_MAC.0);
        arp.extend_from_slice(&[0x08, 0x06]);
        arp.extend_from_slice(&[0; 28]);
        let ssh = Packet {
            dst: addr("10.0.0.2:22").into(),
            ..to_web(addr("10.0.0.1:999"), SYN)
        }
        .build();
        let mut ping = to_web(addr("10.0.0.1:2048"), SYN).build(); // type 8: echo
        ping[23] = ipv4::ICMP;
        packet::checksum::set_ipv4(&mut ping);
        let mut nd = vec![0x33, 0x33, 0, 0, 0, 1];
        nd.extend_from_slice(&ROUTER_MAC.0);
        nd.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255]);
        nd.extend_from_slice(&[0xfe; 16]);
        nd.extend_from_slice(&[0xff; 16]);
        nd.extend_from_slice(&[135; 24]);
        for frame in [&arp, &ssh, &ping, &nd] {
            assert_eq!(
                only(d.exchange(WAN, frame)),
                (To::Kernel(WAN), frame.clone())
            );
        }
        for worker in 0..usize::from(workers) {
            d.kernel_sends(worker, LAN, &arp);
        }
        d.settle();
        assert_eq!(
            d.collect(),
            vec![(To::Port(LAN), arp.clone()); usize::from(workers)]
        );
        let t = d.totals();
        assert_eq!(
            (t.to_kernel, t.from_kernel, t.rx),
            (4, u64::from(workers), 4)
        );
        d.assert_books();
    }
}

/// A flood for the kernel is limited by class: broadcasts do not starve ARP or ssh.
#[test]
fn the_kernel_is_not_flooded() {
    let mut d = Director::new(&Shape::default());
    let mut noise = vec![0xff; 12];
    noise.extend_from_slice(&[0x12, 0x34, 0, 0]);
    for _ in 0..2000 {
        d.exchange(WAN, &noise);
    }
    let passed = d.totals().to_kernel;
    assert_eq!(passed, 500, "a tenth of a second's worth at once");
    assert_eq!(d.drops(DropReason::KernelPoliced), 2000 - passed);
    noise[12..14].copy_from_slice(&[0x08, 0x06]);
    assert_eq!(only(d.exchange(WAN, &noise)).0, To::Kernel(WAN));
    d.assert_books();
}

#[test]
fn a_closing_connection_gives_way_to_a_new_syn() {
    let mut d = Director::new(&Shape::default());
    let client = addr("192.0.2.7:40000");
    let (_, first) = only(d.exchange(WAN, &to_web(client, SYN).build()));
    only(d.exchange(LAN, &answer(&first, SYN | ACK).build()));
    only(d.exchange(WAN, &to_web(client, ACK).build()));
    only(d.exchange(LAN, &answer(&first, FIN | ACK).build()));
    // Not closed yet: a SYN belongs to the old connection.
    let (_, same) = only(d.exchange(WAN, &to_web(client, FIN | ACK).build()));
    assert_eq!(parsed(&same).key, parsed(&first).key);
    let (_, second) = only(d.exchange(WAN, &to_web(client, SYN).build()));
    assert_ne!(
        parsed(&second).key,
        parsed(&first).key,
        "a local port of its own"
    );
    assert_eq!(d.sum(|c| c.conns_reused.get()), 1);
    only(d.exchange(LAN, &answer(&second, SYN | ACK).build()));
    only(d.exchange(WAN, &to_web(client, ACK).build()));
    assert_eq!(d.workers[0].conns().len(), 1);
    // The server may be in TIME_WAIT: until that is over nobody gets the old local port, though
    // its connection is no more. What the server still sends there is reset.
    let late = answer(&first, FIN | ACK).build();
    let (to, reset) = only(d.exchange(LAN, &late));
    assert_eq!(
        (to, parsed(&reset).key),
        (To::Port(LAN), parsed(&first).key)
    );
    assert_eq!(parsed(&reset).says, RST);
    assert_eq!(d.drops(DropReason::NoConnection), 1);
    d.now = d.now.after(Tick::seconds(121));
    d.settle();
    assert_eq!(d.exchange(LAN, &late).len(), 1, "still nobody's");
    assert_eq!(d.workers[0].conns().len(), 1);
    only(d.exchange(WAN, &to_web(client, ACK).build()));
    only(d.exchange(LAN, &answer(&second, ACK).build()));
    d.assert_books();
    d.assert_runs_out();
}

#[test]
fn a_full_table_evicts_half_open_ones_and_then_refuses_if_established_ones_are_to_stay() {
    let mut d = Director::new(&Shape {
        max_connections: 8,
        ..Shape::default()
    });
    defense::use_rules(
        &mut d,
        Rules {
            eviction: Eviction::NeverEstablished,
            ..Rules::default()
        },
    );
    let client = |n: u16| std::net::SocketAddrV4::new([192, 0, 2, 1].into(), 1000 + n);
    for n in 0..30 {
        only(d.exchange(WAN, &to_web(client(n), SYN).build()));
    }
    assert_eq!(d.sum(|c| c.conns_evicted.get()), 22);
    for n in 22..30 {
        only(d.exchange(WAN, &to_web(client(n), ACK).build())); // SYN_RECV -> ESTABLISHED
    }
    assert_eq!(d.exchange(WAN, &to_web(client(50), SYN).build()), vec![]);
    assert_eq!(d.drops(DropReason::ConnTableFull), 1);
    for n in 22..30 {
        only(d.exchange(WAN, &to_web(client(n), ACK).build()));
    }
    d.assert_books();
    d.assert_runs_out();
}

#[test]
fn a_packet_past_the_mtu_is_dropped_by_name() {
    let mut d = Director::new(&Shape::default());
    let client = addr("192.0.2.7:40000");
    let fits = to_web(client, SYN).payload(&[7; 1460]).build();
    only(d.exchange(WAN, &fits));
    let too_big = to_web(client, SYN).payload(&[7; 1461]).build();
    let answers = d.exchange(WAN, &too_big);
    assert_eq!(told(&answers, &too_big), Some((3, 4)));
    assert_eq!(be16(&answers[0].1, 40), 1500, "the link's MTU");
    assert_eq!(d.drops(DropReason::TooBig), 1);
    d.assert_books();
}

#[test]
fn listings_come_in_bounded_pages_and_show_what_is() {
    let mut d = Director::new(&Shape::default());
    for n in 0..25 {
        let client = std::net::SocketAddrV4::new([192, 0, 2, 1].into(), 1000 + n);
        only(d.exchange(WAN, &to_web(client, SYN).build()));
    }
    let mut ports = Vec::new();
    let mut cursor = 0;
    loop {
        d.events.clear();
        d.tell(|| {
            let mut page = ConnPage::new(CoreId(0), 10);
            page.cursor = cursor;
            Command::ListConns(page)
        });
        d.settle();
        let Some(Event::Conns(page)) = d.events.pop() else {
            panic!("{:?}", d.events)
        };
        for c in &page.found {
            assert_eq!(
                (c.state, c.proto, c.in_packets),
                (State::SynRecv, Proto::Tcp, 1)
            );
            assert_eq!(
                (c.virtual_, c.expires),
                (addr("10.0.0.10:80").into(), 60 * 64)
            );
            ports.push(c.client.port());
        }
        if page.done {
            break;
        }
        assert_eq!(page.found.len(), 10);
        cursor = page.cursor;
    }
    assert_eq!(ports, (1000..1025).collect::<Vec<_>>());
}
