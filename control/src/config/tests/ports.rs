//! Right ports: VLANs, bonds, and the places of addresses on them.

use std::time::Duration;

use weir_dataplane::io::{BondHash, BondMode};

use super::super::types::Device;
use super::super::{bond, restart_needed, scalars};
use super::*;

/// Ports and local addresses may be IPv6 beside IPv4.
#[test]
fn addresses_of_both_families() {
    let text = BASE
        .replace("10.1.0.2/24\"", "10.1.0.2/24\", \"2001:db8:1::2/64\"")
        .replacen(
            "10.1.0.103\"",
            "10.1.0.103\", \"2001:db8:1::ff-2001:db8:1::101\"",
            1,
        );
    let config = right(&text);
    let lan = &config.ports[1];
    assert_eq!(lan.addresses[1].to_string(), "2001:db8:1::2/64");
    assert_eq!(config.network_of(ip("2001:db8:1::7")), Some(lan));
    assert_eq!(config.network_of(ip("2001:db8:2::7")), None);
    let locals = &config.services[0].local_addresses;
    let v6 = ["2001:db8:1::ff", "2001:db8:1::100", "2001:db8:1::101"];
    assert_eq!(locals[4..], v6.map(ip));
    let at = |text| scalars::endpoint(text);
    assert_eq!(
        at("[2001:db8::10]:80"),
        Ok("[2001:db8::10]:80".parse().unwrap())
    );
    // Networks of two addresses have no own one, and IPv6 has no broadcast.
    for right in [
        "2001:db8::/127",
        "2001:db8::ffff:ffff:ffff:ffff/64",
        "2001:db8::/128",
    ] {
        assert_eq!(scalars::cidr(right).unwrap().to_string(), right);
    }
}

/// VLANs come after the cards, with what these have.
#[test]
fn vlans_follow_the_cards() {
    let text = "
[[port]]
name = \"red\"
parent = \"c1\"
vlan = 100
addresses = [\"10.1.0.2/24\"]
[[port]]
name = \"c0\"
device = \"net_null0\"
[[port]]
name = \"blue\"
parent = \"c0\"
vlan = 100
mtu = 1400
[[port]]
name = \"c1\"
device = \"net_af_packet0,iface=veth0\"
mtu = 9000
";
    let config = right(text);
    let shown: Vec<String> = config
        .ports
        .iter()
        .map(|p| format!("{} {} {:?} {}", p.name, p.device.name(), p.vlan, p.mtu))
        .collect();
    assert_eq!(
        shown,
        [
            "c0 net_null0 None 1500",
            "c1 net_af_packet0 None 9000",
            "red net_af_packet0 Some(Vlan { card: 1, id: 100 }) 9000",
            "blue net_null0 Some(Vlan { card: 0, id: 100 }) 1400",
        ]
    );
    assert_eq!(config.ports[2].rx_checksum, RxChecksum::Fill, "the card's");
    assert_eq!(config.ports[2].addresses.len(), 1);
    let other = right(&text.replace("vlan = 100\naddr", "vlan = 101\naddr"));
    let why = restart_needed(&config, &other).unwrap();
    assert!(
        why.contains("port \"red\" vlan (100 running, 101 in the file)"),
        "{why}"
    );
}

/// Where an address goes when networks of the file do not say it alone.
#[test]
fn places_of_addresses() {
    let ambiguous = BASE.replace("10.1.0.2/24", "10.1.0.2/24\", \"10.0.0.3/24");
    let vip = |name: &str, line: u32, port: u32| {
        format!(
            "weir.toml:{line}:11: service \"{name}\": address = \"10.0.0.10:{port}\": 10.0.0.10 \
             is in networks of two ports; add port = \"wan0\" to the service"
        )
    };
    assert_eq!(
        wrong(&ambiguous),
        [vip("web", 21, 80), vip("dns", 37, 53)].join("\n")
    );
    let external = ambiguous.replace("\"managed\"", "\"external\"");
    right(&external);
    let with_port = |web: &str, dns: &str| {
        let text = ambiguous.replace("scheduler = \"wrr\"", &format!("port = \"{web}\""));
        text.replace(
            "protocol = \"udp\"",
            &format!("protocol = \"udp\"\nport = \"{dns}\""),
        )
    };
    let config = right(&with_port("wan0", "wan0"));
    assert_eq!(config.network_of(ip("10.0.0.10")), None);
    assert_eq!(config.network_of(ip("10.1.0.100")).unwrap().name, "lan0");
    assert_eq!(
        wrong(&with_port("wan0", "lan0")),
        "weir.toml:39:8: service \"dns\": port = \"lan0\": 10.0.0.10 goes on port \"wan0\" by \
         another service (line 23); name the same port"
    );
    // The longer network decides, and a VIP in none goes on lo.
    let longer = BASE.replace("10.1.0.2/24", "10.1.0.2/24\", \"10.0.0.9/30");
    assert_eq!(
        right(&longer).network_of(ip("10.0.0.10")).unwrap().name,
        "lan0"
    );
    let routed = BASE.replace("10.0.0.10:80", "192.0.2.10:80");
    assert_eq!(right(&routed).network_of(ip("192.0.2.10")), None);
    // A port without addresses is managed elsewhere: its networks are not known here.
    let unknown = BASE.replace("addresses = [\"10.1.0.2/24\"]\n", "");
    assert_eq!(right(&unknown).network_of(ip("10.1.0.100")), None);
    let named = BASE.replace("forward = \"fullnat\"", "port = \"lan0\"");
    right(
        &named
            .replace(
                "local_addresses = [\"10.1.0.100-10.1.0.103\"]",
                "local_addresses = [\"10.7.0.1\"]",
            )
            .replacen(
                "protocol = \"udp\"",
                "protocol = \"udp\"\nport = \"lan0\"",
                1,
            ),
    );
}

#[test]
fn room_for_ipv6_connections() {
    assert_eq!(right(BASE).workers.max_connections6, 25_000);
    let set = BASE.replace("200_000", "200_000\nmax_connections6 = 300_000");
    let set = set.replace("\"256MiB\"", "\"512MiB\"");
    let workers = right(&set).workers;
    assert_eq!(
        (workers.max_connections, workers.max_connections6),
        (200_000, 300_000)
    );
}

/// A bond is a port like any other, VLANs on top included; its members are opened in its place.
#[test]
fn bonds_of_devices() {
    let text = r#"
[[port]]
name = "wan0"
mtu = 9000
[port.bond]
mode = "active-backup"
members = ["3B:00.0", "0000:3b:00.1,mprq_en=1"]
primary = "0000:3b:00.1"
monitor = "20ms"
[[port]]
name = "lan0"
bond = { mode = "802.3ad", members = ["net_af_packet0,iface=a", "net_tap1,iface=b"] }
[[port]]
name = "red"
parent = "wan0"
vlan = 100
"#;
    let config = right(text);
    let names = |port: &Port| {
        let parts = port.device.parts().iter();
        parts.map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let wan = "0000:3b:00.0 0000:3b:00.1,mprq_en=1";
    let shown: Vec<String> = config.ports.iter().map(names).collect();
    assert_eq!(shown, [wan, "net_af_packet0,iface=a net_tap1,iface=b", wan]);
    let Device::Bond(bond) = &config.ports[0].device else {
        panic!("{:?}", config.ports[0]);
    };
    assert_eq!((bond.mode, bond.primary), (BondMode::ActiveBackup, Some(1)));
    assert_eq!(bond.monitor, Duration::from_millis(20));
    let Device::Bond(bond) = &config.ports[1].device else {
        panic!("{:?}", config.ports[1]);
    };
    assert_eq!((bond.mode, bond.primary), (BondMode::Lacp, None));
    assert_eq!(bond.hash, BondHash::Layer34, "by default");
    assert_eq!(bond.monitor, Duration::from_millis(100), "by default");
    let checksums = [0, 1, 2].map(|at| config.ports[at].rx_checksum);
    let of = [RxChecksum::Trust, RxChecksum::Fill, RxChecksum::Trust];
    assert_eq!(
        checksums, of,
        "what one member leaves open is looked at for all"
    );
    assert_eq!(config.ports[2].mtu, 9000);
    assert_eq!(
        surprises(&config),
        [
            "port \"lan0\": bond member net_af_packet0 does not tell when its link goes down, so the \
          bond never leaves it"
        ]
    );
    let other = right(&text.replace("20ms", "30ms"));
    let why = restart_needed(&config, &other).unwrap();
    let bond = "bond = { mode = \"active-backup\", members = [\"0000:3b:00.0\", \
                \"0000:3b:00.1,mprq_en=1\"], primary = \"0000:3b:00.1\"";
    let said = format!(
        "port \"wan0\" device ({bond}, monitor = \"20ms\" }} running, {bond}, monitor = \
         \"30ms\" }} in the file)"
    );
    assert!(why.contains(&said), "{why}");
}

/// Every name of a mode and of a hash is one of Linux's, and is taken.
#[test]
fn bonds_in_all_modes() {
    for (mode, _) in bond::MODES {
        let text = format!(
            "[[port]]\nname = \"wan0\"\nbond = {{ mode = \"{mode}\", members = [\"net_tap0\", \
             \"net_tap1\"] }}\n"
        );
        let config = right(&text);
        assert_eq!(surprises(&config), Vec::<String>::new());
        for (hash, _) in bond::HASHES {
            let text = text.replace("members", &format!("hash = \"{hash}\", members"));
            let hashes = ["802.3ad", "balance-xor"].contains(mode);
            assert_eq!(
                parse("weir.toml", &text, &machine()).is_ok(),
                hashes,
                "{mode} {hash}"
            );
        }
    }
}

/// DPDK numbers 32 ports, and takes a number for each member and each bond.
#[test]
fn devices_that_dpdk_has_room_for() {
    let ports = |n: usize| -> String {
        let members = |port: usize| -> String {
            let names = (0..7).map(|n| format!("\"net_tap{}\"", 10 * port + n));
            names.collect::<Vec<_>>().join(", ")
        };
        let port = |n| {
            format!(
                "[[port]]\nname = \"b{n}\"\nbond = {{ mode = \"802.3ad\", members = [{}] }}\n",
                members(n)
            )
        };
        (0..n).map(port).collect()
    };
    right(&ports(4));
    assert_eq!(
        wrong(&(ports(4) + "[[port]]\nname = \"x0\"\ndevice = \"net_null0\"\n")),
        "weir.toml:10:1: port \"b3\": bond: 33 devices, members and bonds with this one; DPDK has \
         room for 32"
    );
}
