//! traceroute to a VIP: every router between the client and the server shows, the director first.
//!
//! ```text
//!   client ── director ── lan ── rs2, a router ── rs1, with a network of its own behind it
//! ```
//! What is behind the director answers in the VIP's name: its own addresses are nobody's business.
//! The other way, from a server to the outside, routers show themselves:
//!
//! ```text
//!   rs2, outside ── client, a router ── director ── lan ── rs1, which asks
//! ```

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::config::Config;
use crate::families::Family::{self, V4, V6};
use crate::modes::fullnat;
use crate::realserver::RealServer;
use crate::servers::Nginx;
use crate::snat;
use crate::topology::{Lab, Netns, checked, eventually, find_program, text};
use crate::weir::Director;

/// Nothing listens there, so that a datagram is answered by "port unreachable".
const SILENT: u16 = 7;

/// Who answers for each hop on the way from `netns`, until the trace is at its end; `None`: nobody.
fn trace(netns: &Netns, how: &str, to: IpAddr) -> Vec<Option<IpAddr>> {
    // One probe at a time, so that no limit on answers is met.
    let line = format!("traceroute -n -q 1 -N 1 -w 2 -m 6 {how} {to}");
    let said = text(checked(&mut netns.words(&line)));
    let hops = said.lines().skip(1).map(|line| {
        let who = line.split_whitespace().nth(1);
        who.and_then(|who| who.parse().ok())
    });
    hops.collect()
}

/// Both by TCP to the port that nginx has, and by UDP to one that is closed.
fn shows(lab: &Lab, family: Family, behind: usize, title: &str) {
    let vip = family.vip();
    // Over IPv4 the director speaks in the VIP's name as IPVS does, over IPv6 in its own.
    let director = match family {
        V4 => vip,
        V6 => family.director(),
    };
    let mut expected = vec![Some(vip); 1 + behind];
    expected[0] = Some(director);
    let udp = format!("-U -p {SILENT}");
    for how in ["-T -p 80", &udp] {
        let title = format!("{title}, {family:?}");
        demand(&lab.client, how, vip, &expected, &title);
    }
}

/// The way from `netns` is `expected`.
fn demand(netns: &Netns, how: &str, to: IpAddr, expected: &[Option<IpAddr>], title: &str) {
    // Each probe is sent but once, and nobody promises that it arrives.
    let mut hops = Vec::new();
    for _ in 0..3 {
        hops = trace(netns, how, to);
        println!("{title}, {how}: {hops:?}");
        if hops == expected {
            break;
        }
    }
    assert_eq!(hops, expected, "{title}, {how}");
}

fn has_traceroute() -> bool {
    let there = find_program("traceroute").is_some();
    if !there {
        println!("skipped: no traceroute; run `sudo scripts/test`, which installs it");
    }
    there
}

/// The server's address behind the router.
fn behind(family: Family) -> IpAddr {
    match family {
        V4 => IpAddr::from([10, 2, 0, 11]),
        V6 => "2001:db8:2::11".parse().expect("an address"),
    }
}

/// Servers a router away, by a way of forwarding that translates.
fn a_router_away(more: impl Fn(Family) -> String, answers_by_director: bool, title: &str) {
    let Some(lab) = Lab::new(2) else { return };
    if !has_traceroute() {
        return;
    }
    let _nginx = Nginx::in_all(&lab);
    let [server, router] = [&lab.servers[0], &lab.servers[1]];
    let mut config = Config::new(3);
    for family in [V4, V6] {
        for (protocol, port) in [("tcp", 80), ("udp", SILENT)] {
            let [vip, rip] = [family.vip(), behind(family)].map(|ip| SocketAddr::new(ip, port));
            config = config.service_by(protocol, vip, rip, &more(family));
        }
    }
    let weir = Director::start(&lab, &config);
    let routes = || weir.json(&["status"])["routes"].as_u64().unwrap_or(0);
    let before = routes();
    let [dip4, dip6] = [V4, V6].map(Family::director_in_lan);
    let gateway = format!("nat --gateway {dip4} {dip6}");
    let _rs =
        answers_by_director.then(|| [server, router].map(|rs| RealServer::set_up(rs, &gateway)));
    router.run(
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
         net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0",
    );
    for family in [V4, V6] {
        let prefix = if family == V4 { 32 } else { 128 };
        let to = format!("{}/{prefix}", behind(family));
        server.ip(&format!("addr add {to} dev lo"));
        router.ip(&format!("route add {to} via {} dev eth0", family.rip(1)));
        lab.director
            .ip(&format!("route add {to} via {} dev lan0", family.rip(2)));
    }
    let mirrored = || (routes() >= before + 2).then_some(());
    eventually(Duration::from_secs(10), "the routes are mirrored", mirrored);
    for family in [V4, V6] {
        shows(&lab, family, 2, title);
    }
}

#[test]
fn through_fullnat() {
    a_router_away(fullnat, false, "FULL-NAT");
}

#[test]
fn through_nat() {
    a_router_away(|_| "forward = \"nat\"".to_owned(), true, "NAT");
}

/// No router can stand between.
#[test]
fn through_dr() {
    let Some(lab) = Lab::new(1) else { return };
    if !has_traceroute() {
        return;
    }
    lab.let_answers_go_straight();
    let _nginx = Nginx::in_all(&lab);
    let [vip4, vip6] = [V4, V6].map(Family::vip);
    let _rs = RealServer::set_up(&lab.servers[0], &format!("dr --vip {vip4} {vip6}"));
    let mut config = Config::new(3);
    for family in [V4, V6] {
        for (protocol, port) in [("tcp", 80), ("udp", SILENT)] {
            config = config.service(protocol, (family, family), port, "forward = \"dr\"");
        }
    }
    let _weir = Director::start(&lab, &config);
    for family in [V4, V6] {
        shows(&lab, family, 1, "DR");
    }
}

/// What a server asks by SNAT is answered to it, by all who stand on the way and with their own
/// addresses.
#[test]
fn out_of_a_server_by_snat() {
    let Some(lab) = Lab::new(2) else { return };
    if !has_traceroute() {
        return;
    }
    let [server, outside] = [&lab.servers[0], &lab.servers[1]];
    let weir = Director::start(&lab, &snat::config(3));
    let [dip4, dip6] = [V4, V6].map(Family::director_in_lan);
    let _rs = RealServer::set_up(server, &format!("nat --gateway {dip4} {dip6}"));

    // rs2 moves out, behind the client.
    outside.ip("link del eth0");
    lab.client.ip(&format!(
        "link add outside type veth peer name eth0 netns {}",
        outside.name()
    ));
    lab.client.ip("link set outside up");
    outside.ip("link set eth0 up");
    lab.client
        .run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    let routes = || weir.json(&["status"])["routes"].as_u64().unwrap_or(0);
    let before = routes();
    for (family, network, router, far) in [
        (V4, "10.2.0.0/24", "10.2.0.1", behind(V4)),
        (V6, "2001:db8:2::/64", "2001:db8:2::1", behind(V6)),
    ] {
        let via: IpAddr = router.parse().expect("an address");
        lab.client.add_address(via, family, "outside");
        outside.add_address(far, family, "eth0");
        outside.ip(&format!("route add default via {via}"));
        let next = family.client();
        lab.director
            .ip(&format!("route add {network} via {next} dev wan0"));
    }
    let mirrored = || (routes() >= before + 2).then_some(());
    eventually(Duration::from_secs(10), "the routes are mirrored", mirrored);
    for family in [V4, V6] {
        let far = behind(family);
        let expected = [family.director_in_lan(), family.client(), far].map(Some);
        let udp = format!("-U -p {SILENT}");
        for how in ["-T -p 80", &udp, "-I"] {
            demand(server, how, far, &expected, &format!("SNAT, {family:?}"));
        }
    }
}
