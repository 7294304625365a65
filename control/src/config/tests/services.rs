//! Right services: how they forward, what they ask of packets and what they allow.

use weir_dataplane::Proto;
use weir_dataplane::conn::state::State;
use weir_dataplane::defense::syn_proxy::{Mode, SynProxy};
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::helper::Helper;
use weir_dataplane::sched::{Options, Rows, SchedulerKind};
use weir_dataplane::service::{Excess, Limits, Policy, QuicServerId, Rates, Thresholds};

use super::*;

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

/// FTP's helper is there where it is needed, and where it is asked for.
#[test]
fn the_ftp_helper() {
    let helper = |from: &str, to: &str| {
        let text = MINIMAL.replace(from, to);
        right(&text).services[0].policy.helper
    };
    let at_21 = "198.51.100.10:21\"";
    assert_eq!(
        helper("198.51.100.10:80\"", "198.51.100.10:80\""),
        Helper::none
    );
    assert_eq!(helper("198.51.100.10:80\"", at_21), Helper::ftp);
    let rows = [
        ("helper = \"none\"", Helper::none),
        ("forward = \"nat\"", Helper::ftp),
        ("forward = \"tun\"", Helper::none),
    ];
    for (more, expected) in rows {
        let local = "local_addresses = [\"10.20.0.64-10.20.0.71\"]";
        let text = MINIMAL.replace("198.51.100.10:80\"", at_21);
        let text = match more.contains("forward") {
            true => text.replace(local, more).replace(":8080", ":21"),
            false => text.replace(local, &format!("{local}\n{more}")),
        };
        assert_eq!(right(&text).services[0].policy.helper, expected, "{more}");
    }
    let asked = "198.51.100.10:2121\"\nhelper = \"ftp\"";
    assert_eq!(helper("198.51.100.10:80\"", asked), Helper::ftp);
}
