//! What tunnels cost: segments and packets that do not fit them.

use weir_dataplane::command::{Command, PortUpdate};
use weir_dataplane::conn::state::Rules;
use weir_dataplane::counters::DropReason;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::forward::carrier::ClientAddress;
use weir_dataplane::forward::tun::{GueChecksum, Tunnel};
use weir_dataplane::packet::build::{Packet, checksums_right};
use weir_dataplane::packet::tcp::flags::{ACK, SYN};
use weir_dataplane::packet::{be16, checksum, put16};
use weir_dataplane::{Proto, Tick};

use crate::carriers::with_options;
use crate::common::*;
use crate::cutting::joined;
use crate::errors::{addresses, error_about};
use crate::modes::{CLIENT4, CLIENT6, VIP4, VIP6, at, director_ruled, packet, shapes};
use crate::only;

const SERVER4: &str = "10.1.0.11:80";
const SERVER6: &str = "[2001:db8:1::11]:80";

fn tunnelled(shape: &Shape, vip: &str, server: &str, tunnel: Tunnel, rules: Rules) -> Director {
    let how = (ForwardMode::tun, Some(tunnel));
    director_ruled(shape, vip, how, &[server], ClientAddress::none, rules)
}

/// A SYN or what `flags` say, that announces `mss`.
fn announcing(from: &str, to: &str, flags: u8, mss: u16) -> Vec<u8> {
    let packet = Packet::tcp(at(from), at(to), flags).macs(ROUTER_MAC, WAN_MAC);
    let [a, b] = mss.to_be_bytes();
    with_options(&packet, &[1, 2, 4, a, b, 1, 1, 0])
}

/// The packet inside a tunnel's packet, with an Ethernet header.
fn inside(f: &[u8], tunnel: Tunnel, server: &str, client: &str) -> Vec<u8> {
    let at = 14 + usize::from(tunnel.overhead(crate::modes::at(server).ip()));
    let kind: [u8; 2] = match crate::modes::at(client).is_ipv6() {
        true => [0x86, 0xdd],
        false => [8, 0],
    };
    [&f[..12], &kind, &f[at..]].concat()
}

/// The MSS announced by a packet of [`announcing`].
fn mss_of(f: &[u8]) -> u16 {
    be16(f, if f[12] == 0x86 { 54 } else { 34 } + 23)
}

const GUE: Tunnel = Tunnel::Gue {
    port: 6080,
    checksum: GueChecksum::None,
};
const VXLAN: Tunnel = Tunnel::Vxlan {
    vni: 5,
    port: 4789,
    mac: None,
};

#[test]
fn segments_are_made_to_fit_the_tunnel() {
    // What fits in 1,500 bytes beside the tunnel and the inner IP and TCP headers.
    let rows = [
        (Tunnel::Ipip, CLIENT4, VIP4, SERVER4, 1440),
        (Tunnel::Ipip, CLIENT6, VIP6, SERVER4, 1420),
        (Tunnel::Ipip, CLIENT4, VIP4, SERVER6, 1420),
        (Tunnel::Ipip, CLIENT6, VIP6, SERVER6, 1400),
        (Tunnel::Gre { checksum: true }, CLIENT4, VIP4, SERVER4, 1432),
        (GUE, CLIENT4, VIP4, SERVER4, 1428),
        (VXLAN, CLIENT4, VIP4, SERVER4, 1410),
        (VXLAN, CLIENT6, VIP6, SERVER6, 1370),
    ];
    for (tunnel, client, vip, server, fits) in rows {
        for shape in shapes() {
            let what = format!("{tunnel} {client} {server}");
            let mut d = tunnelled(&shape, vip, server, tunnel, Rules::default());
            let (_, f) = only(d.exchange(WAN, &announcing(client, vip, SYN, 1460)));
            let syn = inside(&f, tunnel, server, client);
            assert_eq!(mss_of(&syn), fits, "{what}");
            assert!(checksums_right(&syn), "{what}");
            assert_eq!(d.sum(|c| c.mss_clamped.get()), 1, "{what}");
            // Never raised; and in no other segment.
            let (_, f) = only(d.exchange(WAN, &announcing(client, vip, SYN, fits - 1)));
            assert_eq!(
                mss_of(&inside(&f, tunnel, server, client)),
                fits - 1,
                "{what}"
            );
            let (_, f) = only(d.exchange(WAN, &announcing(client, vip, ACK, 1460)));
            assert_eq!(mss_of(&inside(&f, tunnel, server, client)), 1460, "{what}");
            // An answer that is routed through the director bounds what the client sends.
            let mut answer = announcing(vip, client, SYN | ACK, 1460);
            answer[..6].copy_from_slice(&LAN_MAC.0);
            let (to, f) = only(d.exchange(LAN, &answer));
            assert_eq!((to, mss_of(&f)), (To::Port(WAN), fits), "{what}");
            assert!(checksums_right(&f), "{what}");
            assert_eq!(d.sum(|c| c.mss_clamped.get()), 2, "{what}");
            // Without the option there stays none.
            let bare = Packet::tcp(at(client), at(vip), SYN).macs(ROUTER_MAC, WAN_MAC);
            let (_, f) = only(d.exchange(WAN, &bare.build()));
            let inner = Packet { ttl: 63, ..bare }.build();
            assert_eq!(
                inside(&f, tunnel, server, client)[14..],
                inner[14..],
                "{what}"
            );
            d.assert_books();
            d.assert_runs_out();
        }
    }
}

/// A packet of the client's with so many bytes of IP, DF set in IPv4.
fn sized(client: &str, vip: &str, len: usize) -> Vec<u8> {
    let headers = if at(client).is_ipv6() { 60 } else { 40 };
    let packet = Packet::tcp(at(client), at(vip), ACK).macs(ROUTER_MAC, WAN_MAC);
    packet.payload(&vec![7; len - headers]).build()
}

fn without_df(mut f: Vec<u8>) -> Vec<u8> {
    put16(&mut f, 20, 0);
    checksum::set_ipv4(&mut f);
    f
}

/// What the one error in `out` says: who is told, and what fits.
fn told(out: Vec<(To, Vec<u8>)>) -> (std::net::IpAddr, u16) {
    let (to, f) = only(out);
    assert_eq!(to, To::Port(WAN));
    let icmp = if f[12] == 0x86 { 54 } else { 34 };
    let head = if f[12] == 0x86 { [2, 0] } else { [3, 4] };
    assert_eq!(f[icmp..icmp + 2], head);
    (addresses(&f).1, be16(&f, icmp + 6))
}

/// A router on a tunnel's way says that 1,400 bytes fit: the client hears it, and so do all
/// workers, for ten minutes.
#[test]
fn a_tunnels_path_mtu_is_learned_by_all_workers() {
    let rows = [
        (Tunnel::Ipip, CLIENT4, VIP4, SERVER4, "10.1.0.99"),
        (GUE, CLIENT4, VIP4, SERVER4, "10.1.0.99"),
        (Tunnel::Ipip, CLIENT6, VIP6, SERVER6, "2001:db8:1::99"),
        (Tunnel::Ipip, CLIENT4, VIP4, SERVER6, "2001:db8:1::99"),
        (Tunnel::Ipip, CLIENT6, VIP6, SERVER4, "10.1.0.99"),
    ];
    for (tunnel, client, vip, server, router) in rows {
        for shape in shapes() {
            let what = format!("{tunnel} {client} {server} {shape:?}");
            let mut d = tunnelled(&shape, vip, server, tunnel, Rules::default());
            let overhead = tunnel.overhead(at(server).ip());
            let open = |d: &mut Director, client: &str| {
                only(d.exchange(WAN, &announcing(client, vip, SYN, 9000))).1
            };
            open(&mut d, client);
            let whole = usize::from(1500 - overhead);
            let (_, big) = only(d.exchange(WAN, &sized(client, vip, whole)));
            assert_eq!(big.len(), 1514, "{what}");
            let head = if at(server).is_ipv6() { (2, 0) } else { (3, 4) };
            // An error that makes no sense teaches nothing: the packet was not too long for that.
            let small = only(d.exchange(WAN, &sized(client, vip, 1300))).1;
            d.exchange(LAN, &error_about(&small, router, head, 1450));
            only(d.exchange(WAN, &sized(client, vip, whole)));
            let out = d.exchange(LAN, &error_about(&big, router, head, 1400));
            let least = if at(client).is_ipv6() { 1280 } else { 0 };
            assert_eq!(
                told(out),
                (at(client).ip(), (1400 - overhead).max(least)),
                "{what}"
            );
            assert_eq!(d.sum(|c| c.path_mtus.get()), 1, "{what}");

            // Whichever worker has a flow, it knows.
            let fits = usize::from(1400 - overhead);
            for n in 0..8 {
                let port = format!(":{}", 41_000 + n);
                let other = client.replace(":40000", &port);
                let syn = open(&mut d, &other);
                let headers = if at(client).is_ipv6() { 60 } else { 40 };
                let mss = mss_of(&inside(&syn, tunnel, server, client));
                assert_eq!(usize::from(mss), fits - headers, "{what}");
                only(d.exchange(WAN, &sized(&other, vip, fits)));
                let out = d.exchange(WAN, &sized(&other, vip, fits + 1));
                assert_eq!(told(out), (at(client).ip(), fits as u16), "{what}");
            }
            assert_eq!(d.drops(DropReason::TooBig), 8, "{what}");
            // What may be cut is cut to it.
            if at(client).is_ipv4() {
                let out = d.exchange(WAN, &without_df(sized(client, vip, whole)));
                assert_eq!(out.len(), 2, "{what}");
                assert!(out.iter().all(|(_, f)| f.len() <= 1414), "{what}");
            }
            d.now = d.now.after(Tick::seconds(601));
            open(&mut d, client);
            only(d.exchange(WAN, &sized(client, vip, whole)));
            d.assert_books();
        }
    }
}

/// Routers may quote no more than the outer header and 8 bytes: that will do to learn from, though
/// not to tell the client. What quotes nobody's tunnel teaches nothing.
#[test]
fn the_shortest_quote_teaches_a_path_mtu() {
    for shape in shapes() {
        let mut d = tunnelled(&shape, VIP4, SERVER4, Tunnel::Ipip, Rules::default());
        only(d.exchange(WAN, &announcing(CLIENT4, VIP4, SYN, 1460)));
        let (_, big) = only(d.exchange(WAN, &sized(CLIENT4, VIP4, 1480)));
        let short = |big: &[u8]| error_about(&big[..14 + 28], "10.1.0.99", (3, 4), 1400);
        let mut foreign = big.clone();
        foreign[26..30].copy_from_slice(&[10, 1, 0, 77]); // another tunnel's source
        let mut elsewhere = big.clone();
        elsewhere[30..34].copy_from_slice(&[10, 1, 0, 12]); // no server of a tunnel
        for (about, learned) in [(&foreign, 0), (&elsewhere, 0), (&big, 1)] {
            let mut error = short(about);
            error[30..34].copy_from_slice(&[10, 1, 0, 2]);
            checksum::set_ipv4(&mut error);
            let (to, f) = only(d.exchange(LAN, &error));
            assert_eq!((to, f), (To::Kernel(LAN), error), "{shape:?}");
            assert_eq!(d.sum(|c| c.path_mtus.get()), learned, "{shape:?}");
        }
        for n in 0..8 {
            let client = format!("192.0.2.7:{}", 41_000 + n);
            only(d.exchange(WAN, &announcing(&client, VIP4, SYN, 1380)));
            let out = d.exchange(WAN, &sized(&client, VIP4, 1381));
            assert_eq!(told(out).1, 1380, "{shape:?}");
        }
        d.assert_books();
    }
}

/// `pmtu_disc = false`, as in IPVS: what must not be cut is cut all the same, inside its tunnel.
#[test]
fn without_path_mtu_discovery_tunnels_are_fragmented() {
    let rules = Rules {
        pmtu_disc: false,
        ..Rules::default()
    };
    for (tunnel, server) in [
        (Tunnel::Ipip, SERVER4),
        (GUE, SERVER4),
        (Tunnel::Ipip, SERVER6),
    ] {
        for shape in shapes() {
            let what = format!("{tunnel} {server} {shape:?}");
            let mut d = tunnelled(&shape, VIP4, server, tunnel, rules);
            let (_, f) = only(d.exchange(WAN, &packet(Proto::Tcp, CLIENT4, VIP4, SYN).build()));
            if at(server).is_ipv4() {
                assert_eq!(be16(&f, 20), 0, "{what}: DF is not copied");
            }
            let sent = sized(CLIENT4, VIP4, 1500);
            let out = d.exchange(WAN, &sent);
            assert_eq!(out.len(), 2, "{what}");
            let pieces: Vec<_> = out.into_iter().map(|(_, f)| f).collect();
            assert!(pieces.iter().all(|f| f.len() <= 1514), "{what}");
            let whole = joined(&pieces);
            let outer = if at(server).is_ipv6() { 40 } else { 20 };
            let header = usize::from(tunnel.overhead(at(server).ip())) - outer;
            assert_eq!(
                be16(&whole[header..], 6) & 0x4000,
                0x4000,
                "{what}: DF stays inside"
            );
            assert_eq!(whole[header + 20..], sent[34..], "{what}");
            assert_eq!(d.drops(DropReason::TooBig), 0, "{what}");
            d.assert_books();
        }
    }
    // IPv6 inside must not be cut by anybody but its sender, whatever the sysctl says.
    let mut d = tunnelled(&Shape::default(), VIP6, SERVER6, Tunnel::Ipip, rules);
    only(d.exchange(WAN, &packet(Proto::Tcp, CLIENT6, VIP6, SYN).build()));
    let out = d.exchange(WAN, &sized(CLIENT6, VIP6, 1500));
    assert_eq!(told(out), (at(CLIENT6).ip(), 1460));
    // And no other way of forwarding cuts what must not be cut.
    let how = (ForwardMode::dr, None);
    let plain = ClientAddress::none;
    let mut d = director_ruled(&Shape::default(), VIP4, how, &[SERVER4], plain, rules);
    let mtu = PortUpdate {
        port: LAN,
        mac: LAN_MAC,
        mtu: 1400,
    };
    d.tell(|| Command::Port(mtu));
    only(d.exchange(WAN, &packet(Proto::Tcp, CLIENT4, VIP4, SYN).build()));
    let out = d.exchange(WAN, &sized(CLIENT4, VIP4, 1500));
    assert_eq!(told(out), (at(CLIENT4).ip(), 1400));
}
