//! What stands in `configs/`: right, as the scripts build it, and every key with its default.

use std::net::IpAddr;

use weir_dataplane::Proto;
use weir_dataplane::conn::state::{Rules, TimeoutChanges, Timeouts};
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::forward::carrier::ClientAddress;
use weir_dataplane::sched::{Options, SchedulerKind};
use weir_dataplane::service::{Policy, ServerPolicy, ServiceKey};

use super::super::reader::Key;
use super::super::types::{Cidr, Device, Turnover};
use super::super::{bond, machine, marks, policy, services, snat, states};
use super::*;

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
        "bond-25g.toml",
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
    let more = marks::MARK
        .iter()
        .chain(policy::QUIC_LB)
        .chain(bond::BOND)
        .chain(snat::SNAT);
    for key in more {
        let shown = format!("\n# {} =", key.name);
        assert!(reference.contains(&shown), "{}", key.name);
    }
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
