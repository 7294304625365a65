//! Right files: the shipped ones, what values become, and what only a built file can show.

use std::net::{IpAddr, SocketAddr};

use weir_dataplane::conn::Eviction;
use weir_dataplane::conn::state::{Rules, State, TimeoutChanges, Timeouts};
use weir_dataplane::defense::syn_proxy::{Mode, SynProxy};
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::forward::carrier::ClientAddress;
use weir_dataplane::sched::{Options, Rows, SchedulerKind};
use weir_dataplane::service::{
    Excess, Limits, Policy, PortRange, QuicServerId, Rates, ServerPolicy, ServiceKey, SnatPool,
    SnatRule, Thresholds,
};
use weir_dataplane::{PortId, Proto, Tick};

use super::super::reader::Key;
use super::super::types::{Cidr, Device, Turnover};
use super::super::{
    machine, marks, policy, restart_needed, scalars, services, snat, states, words,
};
use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn right(text: &str) -> Config {
    parse("weir.toml", text, &super::machine()).unwrap_or_else(|report| panic!("{report}"))
}

fn wrong(text: &str) -> String {
    parse("weir.toml", text, &super::machine())
        .expect_err("accepted")
        .to_string()
}

fn shipped(name: &str) -> String {
    let path = format!("{}/../configs/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Every file in configs/ is right, on a machine that has the CPUs it names.
#[test]
fn shipped_files_are_right() {
    let large = Machine {
        cores: (0..64).collect(),
    };
    let folder = format!("{}/../configs", env!("CARGO_MANIFEST_DIR"));
    let mut names = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        if let Err(report) = parse(&name, &shipped(&name), &large) {
            panic!("{report}");
        }
        names.push(name);
    }
    for name in [
        "quickstart.toml",
        "fullnat.toml",
        "fullnat-onearm.toml",
        "nat.toml",
        "dr.toml",
        "tun.toml",
        "mixed.toml",
        "ipv6.toml",
        "nat64.toml",
        "snat.toml",
        "marks.toml",
        "vlan.toml",
        "weir.reference.toml",
    ] {
        assert!(names.iter().any(|n| n == name), "{name} is missing");
    }
}

#[test]
fn quickstart_says_what_the_script_builds() {
    let config = right(&shipped("quickstart.toml"));
    assert_eq!(config.workers.cores, Cores::Count(2));
    assert_eq!(config.workers.memory, 256 << 20);
    assert_eq!(config.workers.max_connections, 200_000);
    assert!(!config.workers.hugepages);
    assert_eq!(config.ports[1].name, "lan0");
    assert_eq!(
        config.ports[1].device,
        Device::Vdev("net_tap1,iface=weir-lan".to_owned())
    );
    assert_eq!(config.ports[1].device.name(), "net_tap1");
    assert_eq!(
        config.ports[1].addresses,
        [Cidr {
            address: ip("10.1.0.2"),
            prefix: 24
        }]
    );
    let server = |address, weight| RealServer {
        name: None,
        address: at(address),
        weight,
        forward: ForwardMode::fullnat,
        tunnel: None,
        policy: ServerPolicy::default(),
    };
    assert_eq!(
        config.services,
        [
            Service {
                name: "web".to_owned(),
                key: ServiceKey::Address {
                    proto: Proto::Tcp,
                    vip: ip("10.0.0.10"),
                    port: 80
                },
                scheduler: SchedulerKind::wrr,
                options: Options::default(),
                forward: ForwardMode::fullnat,
                local_addresses: (100..=103).map(|n| IpAddr::from([10, 1, 0, n])).collect(),
                port: None,
                client_address: ClientAddress::none,
                timeouts: TimeoutChanges::default(),
                turnover: Turnover::default(),
                policy: Policy::default(),
                servers: vec![
                    server("10.1.0.11:80", 100),
                    server("10.1.0.12:80", 100),
                    server("10.1.0.13:80", 50),
                ],
            },
            Service {
                name: "dns".to_owned(),
                key: ServiceKey::Address {
                    proto: Proto::Udp,
                    vip: ip("10.0.0.10"),
                    port: 53
                },
                scheduler: SchedulerKind::rr,
                options: Options::default(),
                forward: ForwardMode::fullnat,
                local_addresses: (100..=103).map(|n| IpAddr::from([10, 1, 0, n])).collect(),
                port: None,
                client_address: ClientAddress::none,
                timeouts: TimeoutChanges::default(),
                turnover: Turnover::default(),
                policy: Policy::default(),
                servers: vec![
                    server("10.1.0.11:53", 1),
                    server("10.1.0.12:53", 1),
                    server("10.1.0.13:53", 1),
                ],
            },
        ]
    );
}

/// The required keys alone.
const MINIMAL: &str = r#"
[[port]]
name = "wan0"
device = "0000:3b:00.0"
[[service]]
name = "web"
address = "198.51.100.10:80"
protocol = "tcp"
local_addresses = ["10.20.0.64-10.20.0.71"]
[[service.real_server]]
address = "10.20.0.11:8080"
"#;

/// What `weir.reference.toml` sets to "the default" is the default, and it shows every key.
#[test]
fn the_reference_shows_every_key_with_its_default() {
    let reference = shipped("weir.reference.toml");
    assert_eq!(right(&reference), right(MINIMAL));
    let tables: [(&str, &[Key]); 10] = [
        ("[workers]", machine::WORKERS),
        ("[[port]]", machine::PORT),
        ("[[service]]", services::SERVICE),
        ("[[service.real_server]]", services::REAL_SERVER),
        ("[timeouts]", states::TIMEOUTS),
        ("[ipvs]", states::IPVS),
        ("[defense]", states::DEFENSE),
        ("[[access_list]]", policy::access::ACCESS_LIST),
        ("[addresses]", machine::ADDRESSES),
        ("[log]", machine::LOG),
    ];
    for (header, keys) in tables {
        let begin = reference.find(&format!("\n{header}\n")).expect(header) + header.len() + 2;
        let table = &reference[begin..];
        let table = &table[..table.find("\n[").unwrap_or(table.len())];
        for key in keys
            .iter()
            .filter(|k| !k.is_planned() && !k.example.starts_with('['))
        {
            let shown = |line: &str| {
                line.trim_start_matches("# ")
                    .starts_with(&format!("{} =", key.name))
            };
            assert!(table.lines().any(shown), "{header} {}", key.name);
        }
    }
    for key in marks::MARK.iter().chain(policy::QUIC_LB).chain(snat::SNAT) {
        let shown = format!("\n# {} =", key.name);
        assert!(reference.contains(&shown), "{}", key.name);
    }
}

/// Rules of SNAT, and their pools as services.
#[test]
fn snat_rules_and_pools() {
    let text = BASE.replace(
        "[timeouts]",
        r#"
[[snat]]
name = "inner"
source = ["10.1.0.0/24"]
destination = ["10.9.0.0/16", "10.1.0.0/24"]
to = "none"

[[snat]]
name = "mail"
source = ["10.1.0.11"]
ports = [25, "465-587"]
protocol = "tcp"
to = ["10.0.0.99"]

[[snat]]
name = "out"
source = ["10.1.0.0/24", "2001:db8:1::/64"]
out = "wan0"
to = ["10.0.0.10", "10.0.0.100-10.0.0.101", "2001:db8::100"]
to_ports = "32768-60999"
scheduler = "rr"
port = "wan0"
timeouts = { udp = "60s", icmp = "10s" }
limits = { per_client = { connections = 100 } }

[timeouts]"#,
    );
    let config = right(&text);
    let rules = config.snat.rules();
    let named = |rule: &SnatRule| rule.pool.map(|pool| pool.to_string());
    let names: Vec<_> = rules.iter().map(named).collect();
    assert_eq!(
        names,
        [None, Some("mail".to_owned()), Some("out".to_owned())]
    );
    assert_eq!(rules[0].pattern.destinations.len(), 2);
    assert_eq!(rules[1].pattern.proto, Some(Proto::Tcp));
    assert_eq!(rules[2].pattern.arrival, Some(PortId(0)));
    let pools: Vec<_> = config.services[2..].iter().collect();
    let shown: Vec<_> = pools.iter().map(|pool| pool.key.to_string()).collect();
    assert_eq!(shown, ["snat mail", "snat out", "snat out, ipv6"]);
    let [mail, out, out6] = pools[..] else {
        panic!("{shown:?}")
    };
    assert_eq!(mail.policy.snat, SnatPool::default());
    assert_eq!(mail.scheduler, SchedulerKind::mh);
    assert_eq!(
        out.policy.snat.ports,
        PortRange::new(32_768, 60_999).unwrap()
    );
    assert_eq!(out.policy.limits.client.connections, 100);
    assert_eq!(out.local_addresses.len(), 3);
    let servers: Vec<_> = out.servers.iter().map(|s| s.address.to_string()).collect();
    assert_eq!(servers, ["10.0.0.10:0", "10.0.0.100:0", "10.0.0.101:0"]);
    assert!(out.servers.iter().all(|s| s.forward == ForwardMode::snat));
    assert_eq!(out6.local_addresses, [ip("2001:db8::100")]);
    assert_eq!(out6.scheduler, SchedulerKind::rr);
    let own: Vec<_> = out6.timeouts.iter().collect();
    assert_eq!(own, [(State::Udp, 60 * 64), (State::Icmp, 10 * 64)]);
    assert!(config.placed_vips(out).is_empty());
    assert_eq!(surprises(&config), Vec::<String>::new());
}

/// Marking rules, the services that they are for, and what is on interfaces for them.
#[test]
fn marks_and_ranges() {
    let text = BASE.replace(
        "[timeouts]",
        r#"
[[service]]
name = "marked"
fwmark = 7
forward = "nat"
[[service.real_server]]
address = "10.1.0.11:0"

[[service]]
name = "marked6"
fwmark = 7
family = "ipv6"
forward = "tun"
[[service.real_server]]
address = "10.1.0.12:0"

[[service]]
name = "six"
fwmark = 8
forward = "tun"
[[service.real_server]]
address = "10.1.0.12:0"

[[service]]
name = "ports"
address = "10.0.0.20-10.0.0.21:8000-8999"
protocol = "tcp"
forward = "nat"
[[service.real_server]]
address = "10.1.0.12:80"

[[service]]
name = "one"
address = "10.0.0.22/32:9000"
protocol = "tcp"
forward = "dr"

[[service]]
name = "many"
address = "[2001:db8:5::/64]:0"
protocol = "udp"
forward = "dr"

[[mark]]
mark = 0
source = ["192.0.2.0/24"]

[[mark]]
mark = 7
source = ["0.0.0.0/0", "2001:db8::/32"]
destination = ["10.0.0.0/29", "10.0.0.30-10.0.0.31", "10.1.0.8/29", "10.1.0.100", "172.16.0.0/16", "2001:db8::7"]
ports = [80, 443, "8000-8999"]
protocol = "tcp"
interface = "lan0"

[[mark]]
mark = 8
destination = ["2001:db8::8"]

[[mark]]
mark = 9

[timeouts]"#,
    );
    let config = right(&text);
    let keys: Vec<_> = config.services.iter().map(|s| s.key.to_string()).collect();
    assert_eq!(
        keys[2..],
        [
            "fwmark 7",
            "fwmark 7, ipv6",
            "fwmark 8, ipv6",
            "10.0.0.20/31:8000-8999/tcp",
            "10.0.0.22:9000/tcp",
            "[2001:db8:5::/64]:0/udp",
        ]
    );
    let placed = |at: usize| {
        let vips = config.placed_vips(&config.services[at]);
        vips.iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    };
    // Not the network's own, a port's own, real servers', local addresses, or too many.
    assert_eq!(
        placed(2),
        "10.0.0.1 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6 10.0.0.7 10.0.0.30 10.0.0.31 10.1.0.8 \
         10.1.0.9 10.1.0.10 10.1.0.13 10.1.0.14 10.1.0.15"
    );
    assert_eq!([placed(3), placed(4)], ["2001:db8::7", "2001:db8::8"]);
    assert_eq!([placed(5), placed(7)], ["10.0.0.20 10.0.0.21", ""]);
    let rules = config.marks.rules();
    assert_eq!(rules.len(), 5);
    let exempt = rules[0].pattern.destinations.iter();
    let exempt: Vec<_> = exempt.map(ToString::to_string).collect();
    assert_eq!(
        exempt,
        [
            "10.0.0.2",
            "10.1.0.2",
            "10.1.0.100",
            "10.1.0.101",
            "10.1.0.102",
            "10.1.0.103"
        ]
    );
    assert_eq!((rules[0].mark, rules[1].mark), (None, None));
    let pattern = &rules[2].pattern;
    assert_eq!(pattern.proto, Some(Proto::Tcp));
    assert_eq!(pattern.arrival, Some(weir_dataplane::PortId(1)));
    let ports: Vec<_> = pattern.ports.iter().map(ToString::to_string).collect();
    assert_eq!(ports, ["80", "443", "8000-8999"]);
    assert_eq!(
        surprises(&config),
        [
            "service \"marked\": 172.16.0.0/16 is more than the 256 addresses that Weir puts on an \
             interface: route it to this machine",
            "service \"many\": 2001:db8:5::/64 is more than the 256 addresses that Weir puts on an \
             interface: route it to this machine",
            "[[mark]] rules give mark 9, and no service has fwmark = 9: packets go on as without",
        ]
    );
    let alone = text.replace("[[mark]]\nmark = 8", "[[mark]]\nmark = 10");
    let said = surprises(&right(&alone)).join("\n");
    assert!(
        said.contains("service \"six\": no [[mark]] rule gives mark 8"),
        "{said}"
    );
}

#[test]
fn defaults_without_any_optional_key() {
    let config = right(MINIMAL);
    assert_eq!(config.workers.cores.workers(), 1);
    assert_eq!(config.timeouts, Timeouts::default());
    assert_eq!(config.rules, Rules::default());
    assert!(config.services[0].timeouts.is_empty());
    assert_eq!(config.addresses.vips, VipOwner::Managed);
    assert_eq!(config.services[0].servers[0].weight, 1);
    assert_eq!(config.services[0].local_addresses.len(), 8);
    let one_port = "[[port]]\nname = \"p\"\ndevice = \"net_af_packet0,iface=veth0\"";
    let config = right(one_port);
    assert_eq!(config.services, []);
    assert_eq!(config.ports[0].rx_checksum, RxChecksum::Fill);
    assert_eq!(config.ports[0].mtu, 1500);
}

#[test]
fn values_become_what_they_say() {
    let text = BASE
        .replace("count = 2", "cores = [5, 0x1]")
        .replace(
            "udp = \"30s\"",
            "udp = \"1500ms\"\nestablished = \"2h\"\nsctp_cookie_echoed = \"5s\"",
        )
        .replace(
            "[addresses]",
            "[ipvs]\nsloppy_tcp = true\nsloppy_sctp = true\nsecure_tcp = 3\n\
             conn_reuse_mode = 0\nexpire_nodest_conn = true\npmtu_disc = false\n\
             drop_entry = 1\ndrop_packet = 3\nam_droprate = 7\namemthresh = 2000\n\
             [defense]\neviction = \"idle-first\"\n\
             cookie_secret = \"000102030405060708090a0b0c0d0eFf\"\n[addresses]",
        )
        .replace(
            "name = \"web\"",
            "name = \"web\"\ntimeouts = { established = \"90s\", close = \"1s\" }",
        )
        .replace("0000:3b:00.0", "3B:00.1,rxq_cqe_comp_en=0")
        .replace("vips = \"managed\"", "vips = \"external\"")
        .replace("level = \"info\"", "level = \"debug\"\nformat = \"json\"")
        .replace("10.0.0.10:53", "10.0.0.10:0")
        .replace("10.1.0.11:53", "10.1.0.11:0");
    let config = right(&text);
    assert_eq!(config.workers.cores, Cores::Pinned(vec![5, 1]));
    assert_eq!(config.workers.cores.workers(), 2);
    assert_eq!(config.timeouts.of(State::Udp), 96); // 1.5 s of 64 ticks
    assert_eq!(config.timeouts.of(State::Established), 7200 * 64);
    assert_eq!(
        config.timeouts.of(State::Close),
        Timeouts::default().of(State::Close)
    );
    let sctp = Tick::seconds(5);
    assert_eq!(config.timeouts.of(State::SctpCookieEchoed), sctp);
    assert_eq!(
        config.rules,
        Rules {
            sloppy_tcp: true,
            sloppy_sctp: true,
            secure_tcp: 3,
            conn_reuse_mode: 0,
            expire_nodest_conn: true,
            pmtu_disc: false,
            drop_entry: 1,
            drop_packet: 3,
            am_droprate: 7,
            amemthresh: 2000,
            eviction: Eviction::IdleFirst,
            expire_quiescent_template: false,
            cookie_secret: Some([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]),
        }
    );
    let own: Vec<_> = config.services[0].timeouts.iter().collect();
    let seconds = Tick::seconds;
    assert_eq!(own, [(State::Established, seconds(90)), (State::Close, 64)]);
    assert!(config.services[1].timeouts.is_empty());
    let device = Device::Pci("0000:3b:00.1,rxq_cqe_comp_en=0".to_owned());
    assert_eq!(config.ports[0].device, device);
    assert_eq!(device.name(), "0000:3b:00.1");
    assert_eq!(device.argument("rxq_cqe_comp_en"), Some("0"));
    assert_eq!(config.addresses.vips, VipOwner::External);
    assert_eq!(
        (config.log.level, config.log.format),
        (tracing::Level::DEBUG, LogFormat::Json)
    );
    assert_eq!(config.services[1].servers[0].address, at("10.1.0.11:0"));
}

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

/// Real servers of one service in five ways, with what each may leave out.
#[test]
fn ways_of_forwarding() {
    let config = right(&shipped("mixed.toml"));
    let service = &config.services[0];
    let ways = |service: &Service| -> Vec<String> {
        let way = |s: &RealServer| match s.tunnel {
            Some(tunnel) => format!("{} {} {tunnel}", s.address, s.forward.name()),
            None => format!("{} {}", s.address, s.forward.name()),
        };
        service.servers.iter().map(way).collect()
    };
    assert_eq!(service.forward, ForwardMode::fullnat);
    assert_eq!(
        ways(service),
        [
            "10.20.0.12:80 fullnat",
            "192.0.2.11:80 dr",
            "10.7.0.13:80 tun ipip",
            "192.0.2.10:80 local",
        ]
    );
    let config = right(&shipped("tun.toml"));
    assert_eq!(
        ways(&config.services[0]),
        [
            "198.51.100.11:443 tun ipip",
            "[2001:db8:7::12]:443 tun gue:6080:+c",
            "198.51.100.13:443 tun vxlan:4789:7",
        ]
    );
    assert_eq!(ways(&config.services[1]), ["198.51.100.11:53 tun gre:-c"]);
    assert!(config.services.iter().all(|s| s.local_addresses.is_empty()));

    // A service's tunnel is for those that travel in one and name no other.
    let text = BASE
        .replace("scheduler = \"wrr\"", "tunnel = { type = \"gre\", checksum = \"full\" }")
        .replace("weight = 100", "forward = \"tun\"")
        .replace(
            "10.1.0.12:80\"",
            "10.1.0.12:80\"\nforward = \"tun\"\ntunnel = { type = \"vxlan\", vni = 0, port = 8472, mac = \"02:00:00:00:00:07\" }",
        );
    let locals = "local_addresses = [\"10.1.0.100-10.1.0.103\"]\n";
    let config = right(&text.replacen(locals, "", 1));
    assert_eq!(
        ways(&config.services[0]),
        ["10.1.0.11:80 tun gre:+c", "10.1.0.12:80 tun vxlan:8472:0"]
    );
    // One FULL-NAT server is enough to need them.
    let one = BASE
        .replacen(locals, "", 1)
        .replacen("forward = \"fullnat\"", "forward = \"dr\"", 1)
        .replace("weight = 100", "forward = \"fullnat\"");
    assert!(wrong(&one).contains("local_addresses is missing; FULL-NAT needs at least one"));
    // The director by a port's own address, or by one of a port that the file does not know.
    let own = |text: &str| text.replace("10.1.0.12:80\"", "10.1.0.2:80\"\nforward = \"local\"");
    right(&own(BASE));
    right(&own(&BASE.replace("addresses = [\"10.1.0.2/24\"]\n", "")));
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

/// One run shows everything, in the file's order, whatever found it.
#[test]
fn all_mistakes_at_once_in_order() {
    let text = BASE
        .replace("idle = \"auto\"", "idle = \"busy\"")
        .replace("mtu = 1500", "mtu = 1")
        .replace("10.0.0.10:80", "10.0.0.2:80")
        .replace("weight = 100", "weigth = 100")
        .replace("name = \"dns\"", "name = \"web\"")
        .replace("udp = \"30s\"", "udp = 30");
    let expected = [
        r#"weir.toml:6:8: [workers]: idle = "busy": not known; use "auto", "spin", "yield" or "sleep""#,
        r#"weir.toml:12:7: port "wan0": mtu = 1: out of range; use 576 to 9600 bytes"#,
        r#"weir.toml:21:11: service "web": address = "10.0.0.2:80": 10.0.0.2 is the own address of port "wan0" (line 11); use another for the service"#,
        r#"weir.toml:30:1: service "web": real server 10.1.0.11:80: unknown key "weigth"; did you mean "weight"?"#,
        r#"weir.toml:36:8: service "web": name = "web": the name of another service (line 20); give each its own"#,
        r#"weir.toml:45:7: [timeouts]: udp = 30: an integer, not a string; write udp = "300s""#,
    ];
    assert_eq!(wrong(&text), expected.join("\n"));
}

#[test]
fn columns_are_characters_and_long_values_are_cut() {
    let text = MINIMAL
        .replace("\"web\"", "\"ü\"")
        .replace("name = \"wan0\"", "'name' = 'wañ'");
    assert_eq!(
        wrong(&text),
        "weir.toml:3:10: port \"wañ\": name = 'wañ': 'ñ' in an interface name; use letters, \
         digits, '.', '_' and '-'\n\
         weir.toml:6:8: service \"ü\": name = \"ü\": 'ü' in a name; use letters, digits, '.', \
         '_', ':', '/' and '-'"
    );
    let long = MINIMAL.replace("0000:3b:00.0", &"x".repeat(100));
    let cut = format!("device = \"{}…: not a device;", "x".repeat(59));
    assert!(wrong(&long).contains(&cut), "{}", wrong(&long));
}

#[test]
fn limits_on_numbers_of_things() {
    assert_eq!(
        wrong(""),
        "weir.toml:1:1: no [[port]]; add one for each network card, with a name and a device"
    );
    assert_eq!(
        wrong("port = []"),
        "weir.toml:1:8: port = []: no [[port]]; add one for each network card, with a name and a \
         device"
    );
    assert_eq!(
        wrong("[port]\nname = \"wan0\""),
        "weir.toml:1:1: port: there may be several; write [[port]] with double brackets"
    );
    let port = |n| format!("[[port]]\nname = \"p{n}\"\ndevice = \"net_null{n}\"\n");
    let ports: String = (0..17).map(port).collect();
    assert_eq!(
        wrong(&ports),
        "weir.toml:49:1: port \"p16\": 17 ports; at most 16 are possible"
    );

    let cores: Vec<String> = (0..129).map(|n| n.to_string()).collect();
    let text = format!("[workers]\ncores = [{}]\n{}", cores.join(", "), port(0));
    let large = Machine {
        cores: (0..200).collect(),
    };
    let report = parse("weir.toml", &text, &large).unwrap_err().to_string();
    assert!(
        report.starts_with("weir.toml:2:9: [workers]: cores = [0, 1, 2, "),
        "{report}"
    );
    assert!(
        report.ends_with("…: 129 CPUs; at most 128 workers"),
        "{report}"
    );

    let locals = r#"["10.20.0.64-10.20.0.71", "10.20.4.0-10.20.7.254"]"#;
    let text = MINIMAL.replace(r#"["10.20.0.64-10.20.0.71"]"#, locals);
    assert_eq!(
        wrong(&text),
        "weir.toml:9:45: service \"web\": local_addresses: 1031 addresses up to here; a service \
         takes at most 1024"
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
fn a_reload_cannot_change_the_machine() {
    let old = right(BASE);
    let hot = BASE
        .replace("weight = 100", "weight = 50")
        .replace("udp = \"30s\"", "udp = \"31s\"")
        .replace("\"managed\"", "\"external\"");
    assert_eq!(restart_needed(&old, &right(&hot)), None);
    let cold = BASE
        .replace("count = 2", "cores = [1, 2, 5]")
        .replace("256MiB", "1GiB")
        .replace("200_000", "100_000")
        .replace("\"auto\"", "\"spin\"")
        .replace("mtu = 1500", "mtu = 9000")
        .replace("10.1.0.2/24", "10.1.0.3/24")
        .replace("\"info\"", "\"warn\"");
    assert_eq!(
        restart_needed(&old, &right(&cold)).unwrap(),
        "a reload cannot change [workers] cores (count = 2 running, [1, 2, 5] in the file); \
         [workers] memory (\"256MiB\" running, \"1GiB\" in the file); [workers] max_connections \
         (200_000 running, 100_000 in the file); [workers] max_connections6 (25000 running, \
         12500 in the file); [workers] idle (auto running, spin in the file); \
         port \"wan0\" mtu (1500 running, 9000 in the file); port \"lan0\" addresses \
         ([\"10.1.0.2/24\"] running, [\"10.1.0.3/24\"] in the file); [log] level (info running, \
         warn in the file); restart Weir to use this file, or put the running values back"
    );
    let renamed = BASE.replace("name = \"lan0\"", "name = \"lan1\"");
    assert_eq!(
        restart_needed(&old, &right(&renamed)).unwrap(),
        "a reload cannot change [[port]] name (wan0, lan0 running, wan0, lan1 in the file); \
         restart Weir to use this file, or put the running values back"
    );
}

#[test]
fn unreadable_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weir.toml");
    let name = path.display();
    let report = load(&path).unwrap_err().to_string();
    let text = "cannot be read: No such file or directory (os error 2); check the path";
    assert_eq!(report, format!("{name}: {text}"));
    std::fs::write(&path, b"[workers]\n# caf\xe9\n").unwrap();
    let report = load(&path).unwrap_err().to_string();
    assert_eq!(
        report,
        format!("{name}:2:6: byte 0xe9 is not UTF-8; save the file as UTF-8")
    );
    std::fs::write(&path, MINIMAL).unwrap();
    assert_eq!(load(&path).unwrap(), right(MINIMAL));
}

#[test]
fn this_machine_has_a_cpu() {
    assert!(!Machine::this().cores.is_empty());
    assert_eq!(scalars::cpu_list("0-2,5"), Some(vec![0, 1, 2, 5]));
    assert_eq!(scalars::cpu_list("0"), Some(vec![0]));
    assert_eq!(scalars::cpu_list(""), None);
}

#[test]
fn nearest_key() {
    let keys = ["cores", "count", "memory"];
    assert_eq!(words::nearest("core", keys), Some("cores"));
    assert_eq!(words::nearest("cuont", keys), Some("count"));
    assert_eq!(words::nearest("memori", keys), Some("memory"));
    assert_eq!(words::nearest("threads", keys), None);
}

#[test]
fn flags_and_table_size_of_a_scheduler() {
    let text = BASE.replace(
        "scheduler = \"wrr\"",
        "scheduler = \"mh\"\nscheduler_flags = [\"mh-port\", \"mh-fallback\"]\nmh_table_size = 65521",
    );
    let service = &right(&text).services[0];
    let options = Options {
        port: true,
        fallback: true,
        rows: Rows::new(65_521).unwrap(),
    };
    assert_eq!(
        (service.scheduler, service.options),
        (SchedulerKind::mh, options)
    );
    let flags: Vec<_> = service.scheduler.flags().set_in(service.options).collect();
    assert_eq!(flags, ["mh-fallback", "mh-port"]);
}

#[test]
fn uoa_that_reaches_nobody_is_said() {
    let of = |carrier: &str, vip: &str, server: &str| {
        let (front, dns) = BASE.split_once("name = \"dns\"").unwrap();
        let dns = dns
            .replace("10.0.0.10:53", vip)
            .replace("10.1.0.11:53", server)
            .replace("\"10.1.0.100-10.1.0.103\"", "\"10.1.0.100\", \"fd00::100\"");
        let says = format!("name = \"dns\"\nport = \"lan0\"\nclient_address = \"{carrier}\"");
        surprises(&right(&[front, &says, &dns].concat()))
    };
    let (v4, v6) = (
        ("10.0.0.10:53", "10.1.0.11:53"),
        ("[fd00::10]:53", "[fd00::11]:53"),
    );
    assert_eq!(of("uoa", v4.0, v4.1), Vec::<String>::new());
    assert_eq!(of("uoa-opp", v6.0, v6.1), Vec::<String>::new());
    let said = of("uoa", v6.0, v6.1);
    assert_eq!(
        said,
        [
            "service \"dns\": client_address uoa is an option of IPv4, so servers are told nothing; \
          uoa-opp goes with both families"
        ]
    );
    for carrier in ["uoa", "uoa-opp"] {
        let said = of(carrier, v4.0, v6.1);
        let want = format!(
            "service \"dns\": client_address {carrier} does not pass between families: servers of \
             the other one are told nothing; proxy-v2 does"
        );
        assert_eq!(said, [want]);
    }
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

#[test]
fn what_may_surprise_is_said() {
    let of = |scheduler: &str, weights: [u16; 2]| {
        let text = BASE
            .replace(
                "scheduler = \"wrr\"",
                &format!("scheduler = \"{scheduler}\""),
            )
            .replace("weight = 100", &format!("weight = {}", weights[0]))
            .replace("12:80\"", &format!("12:80\"\nweight = {}", weights[1]));
        surprises(&right(&text))
    };
    for quiet in ["wrr", "wlc", "sed", "nq", "twos", "mh", "conhash", "sh"] {
        assert_eq!(of(quiet, [64, 64]), Vec::<String>::new(), "{quiet}");
    }
    for (scheduler, said) in [
        ("rr", "rr ignores weights (only 0 drains); wrr follows them"),
        ("lc", "lc ignores weights (only 0 drains); wlc follows them"),
        (
            "dh",
            "dh chooses by the virtual address, and this service has one: all connections go to \
             one server",
        ),
        (
            "lblcr",
            "lblcr chooses by the virtual address, and this service has one: a server gets no \
             connection until another has more active ones than its weight",
        ),
        (
            "ovf",
            "ovf takes weights as numbers of active connections: with 122 it refuses more",
        ),
    ] {
        let want = format!("service \"web\": scheduler {said}");
        assert_eq!(of(scheduler, [100, 20]), [want]);
    }
    let fo = "service \"web\": scheduler fo sends everything to the first server of the highest \
              weight, and several have 7";
    assert_eq!(of("fo", [7, 7]), [fo]);
    assert!(of("fo", [7, 6]).is_empty());
    let part = |server: &str, got: &str| {
        format!(
            "service \"web\": scheduler sh gives real server {server} {got} of the clients, where \
             its weight asks for 50.0 %"
        )
    };
    let want = [
        part("10.1.0.11:80", "97.6 %"),
        part("10.1.0.12:80", "2.3 %"),
    ];
    assert_eq!(of("sh", [250, 250]), want);
}

#[test]
fn one_packet_and_quic() {
    let text = BASE.replace(
        "protocol = \"udp\"",
        "protocol = \"udp\"\none_packet = true\nquic_lb = [{ server_id_length = 2, nonce_length = 6 }, \
         { config = 6, server_id_length = 2, nonce_length = 14, \
         key = \"8f95f09245765f80256934e50c66207F\" }]",
    );
    let text = text.replace(
        "address = \"10.1.0.11:53\"",
        "address = \"10.1.0.11:53\"\nquic_server_id = \"00a1\"",
    );
    let config = right(&text);
    let dns = &config.services[1];
    assert!(dns.policy.one_packet);
    assert_eq!(
        dns.timeouts.iter().collect::<Vec<_>>(),
        [(State::Udp, 5 * 64)]
    );
    let id = QuicServerId::new(&[0, 0xa1]);
    assert_eq!(dns.servers[0].policy.quic_server_id, id);
    let quic = dns.policy.quic.as_ref().unwrap();
    assert_eq!(quic.server_id(&[0x0f, 0, 0xa1, 1, 2, 3, 4, 5, 6]), id);
    assert_eq!(quic.configs.iter().flatten().count(), 2);
    assert_eq!(config.services[0].policy, Policy::default());

    let own = text.replace(
        "one_packet = true",
        "one_packet = true\ntimeouts.udp = \"1s\"",
    );
    let own = right(&own);
    assert_eq!(
        own.services[1].timeouts.iter().collect::<Vec<_>>(),
        [(State::Udp, 64)]
    );
    let plain = BASE.replace("protocol = \"udp\"", "protocol = \"udp\"\nquic = true");
    let plain = right(&plain);
    let quic = plain.services[1].policy.quic.as_ref().unwrap();
    assert_eq!(quic.configs.iter().flatten().count(), 0);
}

#[test]
fn thresholds_and_limits() {
    let text = MINIMAL.replace(
        "[[service.real_server]]",
        "limits = { connections_per_second = 1_000, bits_per_second = \"10G\", excess = \"reset\", \
         per_client = { connections = 5, packets_per_second = 7, prefix_ipv6 = 56 } }\n\
         [[service.real_server]]\nupper_threshold = 100\nlower_threshold = 80",
    );
    let service = &right(&text).services[0];
    let limits = Limits {
        service: Rates {
            connections_per_second: 1_000,
            bits_per_second: 10_000_000_000,
            ..Rates::default()
        },
        client: Rates {
            connections: 5,
            packets_per_second: 7,
            ..Rates::default()
        },
        prefix4: 32,
        prefix6: 56,
        excess: Excess::Reset,
    };
    assert_eq!(service.policy.limits, limits);
    let thresholds = Thresholds {
        upper: 100,
        lower: 80,
    };
    assert_eq!(service.servers[0].policy.thresholds, thresholds);
    assert_eq!(right(MINIMAL).services[0].policy, Policy::default());
}

#[test]
fn syn_proxies_are_said_in_a_word_or_in_a_table() {
    let of = |line: &str| {
        let named = format!("name = \"web\"\n{line}");
        let config = right(&BASE.replace("name = \"web\"", &named));
        config.services[0].policy.syn_proxy
    };
    let default = SynProxy::default();
    assert_eq!((of(""), default.mode), (default, Mode::Off));
    let mode = |mode| SynProxy { mode, ..default };
    assert_eq!(of("syn_proxy = \"auto\""), mode(Mode::Auto));
    assert_eq!(of("syn_proxy = \"always\""), mode(Mode::Always));
    assert_eq!(of("syn_proxy = { mode = \"off\" }"), default);
    assert_eq!(
        of(
            "syn_proxy = { mode = \"auto\", half_open = 10, mss = 1300, window_scale = 0, \
            unproven = \"drop\" }"
        ),
        SynProxy {
            mode: Mode::Auto,
            half_open: 10,
            mss: 1300,
            window_scale: 0,
            resets: false,
        }
    );
}
