//! What tshark says of frames that Weir makes or changes beyond addresses and ports: what tells a
//! server its client, fragments, errors passed on, and Weir's own answers. The modes themselves
//! are in `table.rs`.

use weir_dataplane::Proto;
use weir_dataplane::command::{Command, PortUpdate};
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::forward::carrier::ClientAddress;
use weir_dataplane::forward::tun::Tunnel;
use weir_dataplane::packet::build::Packet;
use weir_dataplane::packet::tcp::flags::{ACK, PSH, SYN};
use weir_dataplane::packet::{checksum, put16};

use crate::common::*;
use crate::errors::error_about;
use crate::modes::{
    CLIENT4, CLIENT6, VIP4, VIP6, at, director, director_of, director_telling, packet,
};
use crate::tshark::{assert_content, complaints};

const FAMILIES: [(&str, &str, &str); 4] = [
    (CLIENT4, VIP4, "10.1.0.11:80"),
    (CLIENT6, VIP6, "[2001:db8:1::11]:80"),
    (CLIENT6, VIP6, "10.1.0.11:80"),
    (CLIENT4, VIP4, "[2001:db8:1::11]:80"),
];

fn frames(out: Vec<(To, Vec<u8>)>) -> Vec<Vec<u8>> {
    out.into_iter().map(|(_, frame)| frame).collect()
}

/// The judge itself: it sees a wrong checksum in every place, and what is cut short.
#[test]
fn tshark_sees_what_is_wrong() {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for proto in [Proto::Tcp, Proto::Udp, Proto::Sctp] {
        for (client, vip) in [(CLIENT4, VIP4), (CLIENT6, VIP6)] {
            let right = packet(proto, client, vip, SYN).build();
            let mut wrong = right.clone();
            let last = wrong.len() - 4; // the last byte may be padding
            wrong[last] ^= 1;
            frames.extend([right, wrong]);
        }
    }
    let mut header = packet(Proto::Tcp, CLIENT4, VIP4, SYN).build();
    header[24] ^= 1;
    let mut cut = packet(Proto::Tcp, CLIENT4, VIP4, SYN).build();
    cut.truncate(50);
    let length = frames.len();
    frames.extend([header, cut]);
    let Some(said) = complaints(&frames) else {
        return;
    };
    let wrong: Vec<usize> = said
        .iter()
        .map(|line| line.split(':').next().unwrap().parse().unwrap())
        .collect();
    let odd: Vec<usize> = (0..length).filter(|n| n % 2 == 1).collect();
    assert_eq!(wrong, [odd, vec![length, length + 1]].concat(), "{said:#?}");
}

#[test]
fn carriers() {
    let mut seen = Vec::new();
    let tcp = [
        ClientAddress::toa,
        ClientAddress::proxy_v1,
        ClientAddress::proxy_v2,
    ];
    let udp = [ClientAddress::uoa, ClientAddress::proxy_v2];
    for (client, vip, server) in FAMILIES {
        for carrier in tcp {
            let shape = Shape::default();
            let mut d = director_telling(&shape, vip, ForwardMode::fullnat, &[server], carrier);
            let from_client = |flags, seq, ack, data: &[u8]| {
                let packet = Packet::tcp(at(client), at(vip), flags);
                let packet = Packet { seq, ack, ..packet };
                packet.macs(ROUTER_MAC, WAN_MAC).payload(data).build()
            };
            let syn = frames(d.exchange(WAN, &from_client(SYN, 1000, 0, b"")));
            let from_server = |flags, seq, ack, data: &[u8]| {
                let packet = answer(&syn[0], flags).payload(data);
                Packet { seq, ack, ..packet }.build()
            };
            seen.extend(syn.clone());
            seen.extend(frames(
                d.exchange(LAN, &from_server(SYN | ACK, 5000, 1001, b"")),
            ));
            // Data at once, and once more: a segment of Weir's own goes in front of it.
            for _ in 0..2 {
                let data = from_client(ACK | PSH, 1001, 5001, b"GET / HTTP/1.1\r\n\r\n");
                seen.extend(frames(d.exchange(WAN, &data)));
            }
            seen.extend(frames(d.exchange(WAN, &from_client(ACK, 1001, 5001, b""))));
            seen.extend(frames(
                d.exchange(LAN, &from_server(ACK | PSH, 5001, 1200, b"200 OK")),
            ));
            assert!(
                d.sum(|c| c.clients_told.get()) > 0,
                "{carrier:?} {client} {server}"
            );
            d.assert_books();
        }
        for carrier in udp {
            let shape = Shape::default();
            let mut d = director_telling(&shape, vip, ForwardMode::fullnat, &[server], carrier);
            let sent = packet(Proto::Udp, client, vip, 0).build();
            let out = frames(d.exchange(WAN, &sent));
            seen.extend(frames(
                d.exchange(LAN, &answer(&out[0], 0).payload(b"answer").build()),
            ));
            seen.extend(out);
            // UOA is an option of IPv4.
            let told = d.sum(|c| c.clients_told.get() + c.clients_untold.get());
            assert_eq!(told, 1, "{carrier:?} {client} {server}");
            d.assert_books();
        }
    }
    assert!(seen.len() > 90, "{}", seen.len());
    assert_content(&seen);
}

#[test]
fn fragments() {
    let tunnel = |t| (ForwardMode::tun, Some(t));
    let ways = [
        (ForwardMode::fullnat, None),
        (ForwardMode::nat, None),
        (ForwardMode::dr, None),
        tunnel(Tunnel::Ipip),
        tunnel(Tunnel::Gre { checksum: true }),
        tunnel(Tunnel::Vxlan {
            vni: 7,
            port: 4789,
            mac: None,
        }),
    ];
    for (way, (client, vip, server)) in ways.into_iter().flat_map(|w| FAMILIES.map(|f| (w, f))) {
        let crosses = at(client).is_ipv4() != at(server).is_ipv4();
        if crosses && matches!(way.0, ForwardMode::nat | ForwardMode::dr) {
            continue;
        }
        let shape = Shape::workers(3);
        let mut d = director_of(&shape, vip, way, &[server], ClientAddress::none);
        let mut seen = Vec::new();
        let data: Vec<u8> = (0..2600u32).map(|n| (n * 7) as u8).collect();
        let whole = packet(Proto::Udp, client, vip, 0).payload(&data).build();
        if way.0 == ForwardMode::nat {
            let _ = d.exchange(WAN, &packet(Proto::Udp, client, vip, 0).build());
        }
        let mut parts = parts(&whole, 1200);
        parts.reverse();
        let mut out = Vec::new();
        for (n, part) in parts.iter().enumerate() {
            d.deliver(WAN, part, n);
            d.settle();
            out.extend(frames(d.collect()));
        }
        assert!(out.len() >= parts.len(), "{way:?} {client} {server}");
        seen.extend(out);
        // What is too big for the link, and may be cut.
        let mtu = PortUpdate {
            port: LAN,
            mac: LAN_MAC,
            mtu: 1300,
        };
        d.tell(|| Command::Port(mtu));
        let mut big = packet(Proto::Udp, client, vip, 0)
            .payload(&data[..1400])
            .build();
        if at(client).is_ipv4() {
            put16(&mut big, 20, 0); // DF off
            checksum::set_ipv4(&mut big);
        }
        // An IPv6 packet may not be cut: its sender hears of it, and that is judged as well.
        seen.extend(frames(d.exchange(WAN, &big)));
        d.assert_books();
        // By itself: tshark puts datagrams together, and every director counts them from 1.
        assert_content(&seen);
    }
}

/// Errors about what Weir changed, passed on and translated; and Weir's own.
#[test]
fn errors_and_answers() {
    let mut seen = Vec::new();
    for (client, vip, server) in FAMILIES {
        let crosses = at(client).is_ipv4() != at(server).is_ipv4();
        let modes = [ForwardMode::fullnat, ForwardMode::nat];
        for mode in modes
            .into_iter()
            .filter(|m| !crosses || *m == ForwardMode::fullnat)
        {
            let mut d = director(&Shape::default(), vip, mode, &[server]);
            for proto in [Proto::Tcp, Proto::Udp] {
                let sent = packet(proto, client, vip, SYN).build();
                let to_server = frames(d.exchange(WAN, &sent)).remove(0);
                let reply = answer(&to_server, SYN | ACK).payload(b"reply").build();
                let to_client = frames(d.exchange(LAN, &reply)).remove(0);
                for (port, about, router4, router6) in [
                    (LAN, &to_server, "10.1.0.99", "2001:db8:1::99"),
                    (WAN, &to_client, "198.51.100.1", "2001:db8:9::1"),
                ] {
                    let v6 = about[12..14] == [0x86, 0xdd];
                    let router = if v6 { router6 } else { router4 };
                    let (too_big, unreachable, time) = match v6 {
                        true => ((2, 0), (1, 4), (3, 0)),
                        false => ((3, 4), (3, 3), (11, 0)),
                    };
                    for (head, mtu) in [(too_big, 1400), (unreachable, 0), (time, 0)] {
                        let error = error_about(about, router, head, mtu);
                        let out = frames(d.exchange(port, &error));
                        assert_eq!(out.len(), 1, "{mode:?} {proto} {client} {server}");
                        seen.extend(out);
                    }
                }
            }
            d.assert_books();
        }
        // Nothing there: a reset, an ABORT, "port unreachable"; a last hop; too big.
        let mut d = director(&Shape::default(), vip, ForwardMode::fullnat, &[server]);
        let nowhere = vip.replace(":80", ":81");
        for proto in [Proto::Tcp, Proto::Udp, Proto::Sctp] {
            seen.extend(frames(
                d.exchange(WAN, &packet(proto, client, &nowhere, ACK).build()),
            ));
            let last = Packet {
                ttl: 1,
                ..packet(proto, client, vip, SYN)
            };
            seen.extend(frames(d.exchange(WAN, &last.build())));
        }
        let small = PortUpdate {
            port: LAN,
            mac: LAN_MAC,
            mtu: 1280,
        };
        d.tell(|| Command::Port(small));
        let big = packet(Proto::Tcp, client, vip, SYN).payload(&[7; 1400]);
        seen.extend(frames(d.exchange(WAN, &big.build())));
        assert_eq!(d.sum(|c| c.generated.get()), 7, "{client} {server}");
        d.assert_books();
    }
    assert_content(&seen);
}
