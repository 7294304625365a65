use super::*;
use crate::net::twin::TwinInfo;
use rtnetlink::packet_route::route::{RouteHeader, RouteLwEnCapType, RouteVia};

/// Twins of port 0 (index 10) and port 1 (index 11); 2 is some other interface.
fn links() -> Links {
    let twin = |n: u8| TwinInfo {
        port: PortId(n),
        name: format!("w{n}"),
        ifindex: 10 + u32::from(n),
    };
    Links::new(vec![twin(0), twin(1)])
}

fn ip(addr: &str) -> IpAddr {
    addr.parse().unwrap()
}

fn gateway(addr: &str) -> RouteAttribute {
    RouteAttribute::Gateway(ip(addr).into())
}

/// A unicast route of main, as the kernel dumps it.
fn route(prefix: &str, attributes: impl IntoIterator<Item = RouteAttribute>) -> RouteMessage {
    let (addr, len) = prefix.split_once('/').unwrap();
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: match ip(addr) {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        },
        destination_prefix_length: len.parse().unwrap(),
        table: RouteHeader::RT_TABLE_MAIN,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    if len != "0" {
        let destination = RouteAttribute::Destination(ip(addr).into());
        message.attributes.push(destination);
    }
    message.attributes.extend(attributes);
    message
}

/// The same, changed.
fn with(mut message: RouteMessage, change: impl FnOnce(&mut RouteMessage)) -> RouteMessage {
    change(&mut message);
    message
}

fn hop(ifindex: u32, via: &str, flags: RouteNextHopFlags) -> RouteNextHop {
    let mut hop = RouteNextHop::default();
    hop.interface_index = ifindex;
    hop.flags = flags;
    hop.attributes.push(gateway(via));
    hop
}

/// The chosen routes, as texts: "prefix/len port gateway", "prefix/len port", "prefix/len -".
fn chosen(dump: &[RouteMessage]) -> Vec<String> {
    let text = |route: &Route| {
        let prefix = format!("{}/{}", route.prefix, route.len);
        match route.target {
            RouteTarget::Reject => format!("{prefix} -"),
            RouteTarget::Own => format!("{prefix} own"),
            RouteTarget::Port { port, gateway, .. } => match gateway {
                Some(gateway) => format!("{prefix} {} {gateway}", port.0),
                None => format!("{prefix} {}", port.0),
            },
        }
    };
    choose(dump, &links(), &Sources::default())
        .iter()
        .map(text)
        .collect()
}

use RouteAttribute::{MultiPath, Oif, Priority, Table as TableId};

#[test]
fn connected_gateway_and_rejecting_routes() {
    let kind = |prefix, kind| with(route(prefix, []), |m| m.header.kind = kind);
    let dump = [
        route("0.0.0.0/0", [Oif(10), gateway("10.0.0.254")]),
        route("10.1.0.0/24", [Oif(11)]),
        route("10.2.0.0/24", [Oif(2)]), // another interface hides the default route
        kind("10.3.0.0/24", RouteType::BlackHole),
        kind("10.4.0.0/24", RouteType::Unreachable),
        kind("10.5.0.0/24", RouteType::Prohibit),
        kind("10.6.0.0/24", RouteType::Throw),
        kind("10.1.0.1/32", RouteType::Local),
        kind("10.1.0.255/32", RouteType::Broadcast),
        kind("224.0.0.0/4", RouteType::Multicast),
    ];
    assert_eq!(
        chosen(&dump),
        [
            "0.0.0.0/0 0 10.0.0.254",
            "10.1.0.0/24 1",
            "10.2.0.0/24 -",
            "10.3.0.0/24 -",
            "10.4.0.0/24 -",
            "10.5.0.0/24 -",
            "10.6.0.0/24 -",
        ]
    );
}

#[test]
fn ipv6_routes_are_followed_but_for_those_of_one_link() {
    let dump = [
        route("::/0", [Oif(10), gateway("fe80::1"), Priority(1024)]),
        route("2001:db8:1::/64", [Oif(10), Priority(256)]),
        route("2001:db8:2::/64", [Oif(11), Priority(1024)]),
        route(
            "2001:db8:2::/64",
            [Oif(10), gateway("fe80::2"), Priority(512)],
        ),
        route("2001:db8:3::/48", [Oif(2), Priority(1024)]),
        route("fe80::/64", [Oif(10), Priority(256)]),
        route("fe80::/64", [Oif(11), Priority(256)]),
        route("ff00::/8", [Oif(10), Priority(256)]),
        route(
            "2001:db8:4::/64",
            [MultiPath(vec![
                hop(2, "fe80::9", RouteNextHopFlags::empty()),
                hop(11, "fe80::8", RouteNextHopFlags::empty()),
            ])],
        ),
    ];
    assert_eq!(
        chosen(&dump),
        [
            "::/0 0 fe80::1",
            "2001:db8:1::/64 0",
            "2001:db8:2::/64 0 fe80::2",
            "2001:db8:3::/48 -",
            "2001:db8:4::/64 1 fe80::8",
        ]
    );
}

#[test]
fn the_lowest_metric_wins_and_of_equal_ones_the_first() {
    let dump = [
        route("10.0.0.0/8", [Oif(10), gateway("10.0.0.1"), Priority(200)]),
        route("10.0.0.0/8", [Oif(11), gateway("10.0.0.2"), Priority(100)]),
        route("10.0.0.0/8", [Oif(10), gateway("10.0.0.3"), Priority(100)]),
        // Its next hop is dead: the kernel passes it over.
        with(route("10.0.0.0/8", [Oif(10), gateway("10.0.0.4")]), |m| {
            m.header.flags = RouteFlags::Dead;
        }),
        // Without carrier is not dead.
        with(route("11.0.0.0/8", [Oif(10), gateway("10.0.0.5")]), |m| {
            m.header.flags = RouteFlags::Linkdown;
        }),
    ];
    assert_eq!(
        chosen(&dump),
        ["10.0.0.0/8 1 10.0.0.2", "11.0.0.0/8 0 10.0.0.5"]
    );
}

#[test]
fn of_several_next_hops_the_first_usable_counts() {
    let (ok, dead, down) = (
        RouteNextHopFlags::empty(),
        RouteNextHopFlags::Dead,
        RouteNextHopFlags::Linkdown,
    );
    let several = |prefix, hops| route(prefix, [MultiPath(hops)]);
    let dump = [
        several(
            "10.0.0.0/16",
            vec![hop(10, "1.0.0.1", ok), hop(11, "1.0.0.2", ok)],
        ),
        several(
            "10.1.0.0/16",
            vec![hop(10, "1.0.0.1", dead), hop(11, "1.0.0.2", ok)],
        ),
        several(
            "10.2.0.0/16",
            vec![hop(10, "1.0.0.1", down), hop(11, "1.0.0.2", ok)],
        ),
        several(
            "10.3.0.0/16",
            vec![hop(10, "1.0.0.1", down), hop(11, "1.0.0.2", dead)],
        ),
        several(
            "10.4.0.0/16",
            vec![hop(2, "1.0.0.1", ok), hop(11, "1.0.0.2", ok)],
        ),
        several(
            "10.5.0.0/16",
            vec![hop(2, "1.0.0.1", ok), hop(3, "1.0.0.2", ok)],
        ),
        several(
            "10.6.0.0/16",
            vec![hop(10, "1.0.0.1", dead), hop(11, "1.0.0.2", dead)],
        ),
    ];
    assert_eq!(
        chosen(&dump),
        [
            "10.0.0.0/16 0 1.0.0.1",
            "10.1.0.0/16 1 1.0.0.2",
            "10.2.0.0/16 1 1.0.0.2",
            "10.3.0.0/16 0 1.0.0.1",
            "10.4.0.0/16 1 1.0.0.2",
            "10.5.0.0/16 -",
        ]
    );
}

#[test]
fn a_gateway_may_be_of_the_other_family_and_what_is_no_neighbour_is_rejected() {
    let v6 = "fe80::1".parse().unwrap();
    let dump = [
        route(
            "10.0.0.0/16",
            [Oif(10), RouteAttribute::Via(RouteVia::Inet6(v6))],
        ),
        route(
            "10.1.0.0/16",
            [Oif(10), RouteAttribute::EncapType(RouteLwEnCapType::Ip)],
        ),
        route("10.2.0.0/16", [RouteAttribute::NhId(7)]), // without its resolution
    ];
    assert_eq!(
        chosen(&dump),
        ["10.0.0.0/16 0 fe80::1", "10.1.0.0/16 -", "10.2.0.0/16 -"]
    );
}

#[test]
fn the_default_table_counts_only_where_main_has_nothing() {
    let dump = [
        route("10.1.0.0/16", [Oif(10), gateway("1.0.0.1")]),
        route("10.1.2.0/24", [Oif(11), gateway("1.0.0.2"), TableId(253)]), // within main's
        route("10.0.0.0/8", [Oif(11), gateway("1.0.0.2"), TableId(253)]),
        route("10.9.0.0/16", [Oif(10), TableId(100)]), // a policy rule's
        with(route("10.8.0.0/16", [Oif(10)]), |m| m.header.table = 255),
        with(route("10.7.0.0/16", [Oif(10)]), |m| m.header.tos = 0x10),
        with(route("10.6.0.0/16", [Oif(10)]), |m| {
            m.header.flags = RouteFlags::Cloned
        }),
        with(route("10.5.0.0/16", [Oif(10)]), |m| {
            m.header.source_prefix_length = 8; // for packets from there
        }),
    ];
    assert_eq!(
        chosen(&dump),
        ["10.0.0.0/8 1 1.0.0.2", "10.1.0.0/16 0 1.0.0.1"]
    );
}
