use std::net::SocketAddr;

use clap::CommandFactory;

use super::*;
use crate::api::documents::{
    Balance, Connection, Connections, Counter, Counters, Limit, Member, Port, Reloaded, Server,
    ServerState, Service, Services, Snat, Status, SynProxy, Template, Templates, Traffic,
    TwinCounters, Worker,
};

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split(' '))
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn the_socket_may_stand_before_or_after_the_subcommand() {
    for line in ["weir --socket /tmp/s status", "weir status --socket /tmp/s"] {
        assert_eq!(parse(line).unwrap().socket, PathBuf::from("/tmp/s"));
    }
    let cli = parse("weir status").unwrap();
    assert_eq!(cli.socket, PathBuf::from("/run/weir/weir.sock"));
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for line in [
        "weir",
        "weir frobnicate",
        "weir check",
        "weir run --log xml",
        "weir conns --limit 0",
        "weir conns --limit 100001",
        "weir conns --client nobody",
        "weir templates --limit 0",
        "weir templates --client 10.0.0.1:80",
        "weir explain",
        "weir explain tcp 10.0.0.1:1",
        "weir explain igmp 10.0.0.1:1 10.0.0.2:2",
        "weir explain tcp 10.0.0.1 10.0.0.2:2",
        "weir explain tcp 10.0.0.1:1 10.0.0.2:2 --pcap x",
        "weir explain tcp 10.0.0.1:1 10.0.0.2:2 --keep-macs",
        "weir reload --json",
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
}

#[test]
fn every_subcommand_has_a_help_of_its_own() {
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        assert!(command.get_about().is_some(), "{name}");
        assert!(command.get_long_about().is_some(), "{name}");
    }
}

#[test]
fn filters_of_conns_become_a_query() {
    let target = |line: &str| match parse(line).unwrap().command {
        Command::Conns(options) => conns::target(&options),
        other => panic!("{other:?}"),
    };
    assert_eq!(target("weir conns"), "/v1/connections?limit=1000");
    assert_eq!(
        target(
            "weir conns --limit 5 --client 10.0.0.1 --server 10.1.0.11:80 --state SYN_RECV \
             --service a&b/ü"
        ),
        "/v1/connections?limit=5&service=a%26b%2F%C3%BC&client=10.0.0.1\
         &server=10.1.0.11%3A80&state=SYN_RECV"
    );
}

#[test]
fn filters_of_templates_become_a_query() {
    let target = |line: &str| match parse(line).unwrap().command {
        Command::Templates(options) => templates::target(&options),
        other => panic!("{other:?}"),
    };
    assert_eq!(target("weir templates"), "/v1/templates?limit=1000");
    assert_eq!(
        target("weir templates --client 10.0.0.1 --server 10.1.0.11 --call-id a@b --service web"),
        "/v1/templates?limit=1000&service=web&client=10.0.0.1&server=10.1.0.11&call_id=a%40b"
    );
}

#[test]
fn templates_as_ipvsadm_shows_them_and_more() {
    let template = |state: &str, client: &str, call_id_hash, connections| Template {
        worker: 2,
        protocol: "udp".into(),
        state: state.into(),
        client: client.into(),
        virtual_: Some("10.0.0.10:5060".into()),
        server: Some(at("10.1.0.11:5060")),
        service: Some("sip".into()),
        call_id_hash,
        expires_seconds: 119,
        connections,
    };
    let mut gone = template("NONE", "10.0.0.0/24", None, 0);
    (gone.virtual_, gone.server, gone.service) = (None, None, None);
    let hash = Some("00000000000abcde".to_owned());
    let mut listed = Templates {
        templates: vec![template("ASSURED", "192.0.2.7/32", hash, 1200), gone],
        more: true,
    };
    assert_eq!(
        templates::human(&listed),
        "\
PRO  EXPIRES  STATE    CLIENT                              VIRTUAL         SERVER          CONNS  SERVICE  WORKER
UDP    01:59  ASSURED  192.0.2.7/32 call 00000000000abcde  10.0.0.10:5060  10.1.0.11:5060  1,200  sip      w2
UDP    01:59  NONE     10.0.0.0/24                         -               -                   0  -        w2
... and more: shown are 2; see --limit
"
    );
    listed.templates.clear();
    assert_eq!(templates::human(&listed), "no templates\n");
}

#[test]
fn numbers_for_people() {
    for (n, text) in [
        (0, "0"),
        (999, "999"),
        (1_000, "1,000"),
        (1_234_567, "1,234,567"),
        (u64::MAX, "18,446,744,073,709,551,615"),
    ] {
        assert_eq!(number::grouped(n), text);
    }
    for (n, text) in [
        (0, "0 B"),
        (1_023, "1023 B"),
        (1_024, "1.0 KiB"),
        (1_536, "1.5 KiB"),
        (1_048_524, "1023.9 KiB"),
        (1_048_575, "1.0 MiB"), // not 1024.0 KiB
        (u64::MAX, "16.0 EiB"),
    ] {
        assert_eq!(number::bytes(n), text);
    }
    for (seconds, text) in [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min 0 s"),
        (3_599, "59 min 59 s"),
        (3_600, "1 h 0 min"),
        (86_399, "23 h 59 min"),
        (86_400, "1 d 0 h"),
        (1_000_000, "11 d 13 h"),
    ] {
        assert_eq!(number::duration(seconds), text);
    }
    assert_eq!(number::clock(0), "00:00");
    assert_eq!(number::clock(899), "14:59");
    assert_eq!(number::clock(86_400), "1440:00");
    assert_eq!(number::count(1, "port"), "1 port");
    assert_eq!(number::count(2_000, "port"), "2,000 ports");
}

#[test]
fn status_of_a_machine_with_two_workers() {
    let worker = |worker, idle_polls, busy_polls| Worker {
        worker,
        cpu: 2 + usize::from(worker),
        idle: "spin".into(),
        idle_polls,
        busy_polls,
        connections: 51_200,
        generation: 7,
    };
    let port = |name: &str, link_up, link_mbps| Port {
        name: name.into(),
        device: "0000:3b:00.0".into(),
        driver: "net_ixgbe".into(),
        mac: "02:00:00:00:00:01".into(),
        mtu: 1500,
        link_up,
        link_mbps,
        alignment: "aligned".into(),
        rx_queues: 2,
        tx_queues: 2,
        rx_packets: 1_000_000,
        rx_bytes: 64_000_000,
        tx_packets: 5,
        tx_bytes: 300,
        tx_full: 0,
        rx_missed: 1_234,
        members: Vec::new(),
    };
    let mut status = Status {
        version: "0.1.0".into(),
        pid: 4711,
        uptime_seconds: 100_000,
        generation: 7,
        settled: true,
        config_file: "/etc/weir/weir.toml".into(),
        services: 1,
        routes: 3,
        neighbours: 12,
        connections: 102_400,
        max_connections: 1_000_000,
        workers: vec![worker(0, 900, 100), worker(1, 0, 0)],
        ports: vec![
            port("wan0", true, Some(25_000)),
            port("lan0", false, None),
            port("tap0", true, None),
        ],
    };
    assert_eq!(
        status::human(&status),
        "\
weir 0.1.0, process 4711, up 1 d 3 h
/etc/weir/weir.toml, generation 7: 1 service, 3 routes, 12 neighbours
102,400 of 1,000,000 connections

WORKER  CPU  IDLE   BUSY  CONNECTIONS  GENERATION
w0        2  spin  10.0%       51,200           7
w1        3  spin      -       51,200           7

PORT  DEVICE        DRIVER     MAC                LINK              MTU  RSS      QUEUES  RX PACKETS  RX BYTES  TX PACKETS  TX BYTES  TX FULL  RX MISSED
wan0  0000:3b:00.0  net_ixgbe  02:00:00:00:00:01  up 25000 Mbit/s  1500  aligned     2/2   1,000,000  61.0 MiB           5     300 B        0      1,234
lan0  0000:3b:00.0  net_ixgbe  02:00:00:00:00:01  down             1500  aligned     2/2   1,000,000  61.0 MiB           5     300 B        0      1,234
tap0  0000:3b:00.0  net_ixgbe  02:00:00:00:00:01  up               1500  aligned     2/2   1,000,000  61.0 MiB           5     300 B        0      1,234
"
    );
    let member = |device: &str, state: &str, lost| Member {
        device: device.into(),
        state: state.into(),
        link_up: state != "down",
        link_mbps: (state != "down").then_some(25_000),
        lost,
        rx_packets: 1_000,
        tx_packets: 7,
    };
    status.ports[0].members = vec![
        member("0000:3b:00.0", "active", 0),
        member("0000:3b:00.1", "down", 1),
    ];
    let text = status::human(&status);
    assert!(text.ends_with(
        "
BOND  MEMBER        STATE   LINK             LOST  RX PACKETS  TX PACKETS
wan0  0000:3b:00.0  active  up 25000 Mbit/s     0       1,000           7
wan0  0000:3b:00.1  down    down                1       1,000           7
"
    ));
    status.settled = false;
    let text = status::human(&status);
    let second = text.lines().nth(1).unwrap();
    assert_eq!(
        second,
        "/etc/weir/weir.toml, generation 7, being published: 1 service, 3 routes, 12 neighbours"
    );
}

fn server(address: &str, weight: u32, state: ServerState, active: u64) -> Server {
    Server {
        address: at(address),
        forward: "fullnat".into(),
        tunnel: None,
        weight,
        state,
        upper_threshold: 0,
        lower_threshold: 0,
        traffic: Traffic {
            active,
            inactive: 3,
            conns: 1_000 + active,
            in_packets: 9,
            out_packets: 9,
            in_bytes: 2_048,
            out_bytes: 1_048_576,
        },
    }
}

#[test]
fn services_with_their_servers() {
    let services = Services {
        generation: 2,
        services: vec![
            Service {
                name: "web".into(),
                protocol: Some("tcp".into()),
                address: Some("10.0.0.10:80".into()),
                fwmark: None,
                snat: None,
                family: "ipv4".into(),
                one_packet: false,
                scheduler: "wrr".into(),
                scheduler_flags: vec![],
                forward: "fullnat".into(),
                syn_proxy: Some(SynProxy {
                    mode: "auto".into(),
                    on: true,
                }),
                local_addresses: vec![],
                limits: vec![],
                servers: vec![
                    server("10.1.0.11:8080", 100, ServerState::Active, 12_000),
                    server("10.1.0.12:8080", 0, ServerState::Drained, 4),
                    server("10.1.0.13:8080", 50, ServerState::Leaving, 1),
                ],
            },
            Service {
                name: "everything".into(),
                protocol: Some("udp".into()),
                address: Some("10.0.0.11:0".into()),
                fwmark: None,
                snat: None,
                family: "ipv4".into(),
                one_packet: false,
                scheduler: "mh".into(),
                scheduler_flags: vec!["mh-fallback".into(), "mh-port".into()],
                forward: "fullnat".into(),
                syn_proxy: None,
                local_addresses: vec![],
                limits: vec![],
                servers: vec![],
            },
        ],
    };
    assert_eq!(
        services::human(&services),
        "\
SERVICE     ADDRESS              SCHED                     FORWARD  WEIGHT  STATE      ACTIVE  INACT   CONNS       IN      OUT
web         tcp 10.0.0.10:80     wrr                       FullNat          syn-proxy  12,005      9  15,005  6.0 KiB  3.0 MiB
              -> 10.1.0.11:8080                            FullNat     100  active     12,000      3  13,000  2.0 KiB  1.0 MiB
              -> 10.1.0.12:8080                            FullNat       0  drained         4      3   1,004  2.0 KiB  1.0 MiB
              -> 10.1.0.13:8080                            FullNat      50  leaving         1      3   1,001  2.0 KiB  1.0 MiB
everything  udp 10.0.0.11:*      mh (mh-fallback,mh-port)  FullNat                          0      0       0      0 B      0 B
"
    );
    let none = Services {
        generation: 0,
        services: vec![],
    };
    assert_eq!(services::human(&none), "no services\n");
}

/// A rule of SNAT says whose packets it takes, and its pool's addresses stand as servers.
#[test]
fn pools_of_snat_among_the_services() {
    let services = Services {
        generation: 2,
        services: vec![Service {
            name: "mail".into(),
            protocol: Some("tcp".into()),
            address: None,
            fwmark: None,
            snat: Some(Snat {
                source: vec!["10.1.0.25".into(), "10.1.1.0/24".into()],
                destination: vec![],
                ports: vec!["25".into(), "465-587".into()],
                to_ports: "1024-65535".into(),
            }),
            family: "ipv4".into(),
            one_packet: false,
            scheduler: "mh".into(),
            scheduler_flags: vec![],
            forward: "snat".into(),
            syn_proxy: None,
            local_addresses: vec![],
            limits: vec![],
            servers: vec![Server {
                forward: "snat".into(),
                ..server("10.0.0.50:0", 1, ServerState::Active, 2)
            }],
        }],
    };
    assert_eq!(
        services::human(&services),
        "\
SERVICE  ADDRESS                                  SCHED  FORWARD  WEIGHT  STATE   ACTIVE  INACT  CONNS       IN      OUT
mail     tcp 10.1.0.25,10.1.1.0/24 -> 25,465-587  mh     Snat                          2      3  1,002  2.0 KiB  1.0 MiB
           -> 10.0.0.50 1024-65535                       Snat          1  active       2      3  1,002  2.0 KiB  1.0 MiB
"
    );
}

#[test]
fn thresholds_and_limits_below_the_services() {
    let limit = |limit: &str, per_client, most, now, refused| Limit {
        limit: limit.into(),
        per_client,
        most,
        now,
        refused,
    };
    let mut full = server("10.1.0.11:8080", 100, ServerState::Full, 97);
    full.upper_threshold = 100;
    let services = Services {
        generation: 2,
        services: vec![Service {
            name: "web".into(),
            protocol: Some("tcp".into()),
            address: Some("10.0.0.10:80".into()),
            fwmark: None,
            snat: None,
            family: "ipv4".into(),
            scheduler: "wrr".into(),
            scheduler_flags: vec![],
            one_packet: false,
            forward: "fullnat".into(),
            local_addresses: vec![],
            limits: vec![
                limit("connections", false, 10_000, Some(100), 0),
                limit("connections_per_second", true, 10, None, 1_234),
            ],
            syn_proxy: None,
            servers: vec![full, server("10.1.0.12:8080", 1, ServerState::Active, 1)],
        }],
    };
    assert_eq!(
        services::human(&services),
        "\
SERVICE  ADDRESS              SCHED  FORWARD  WEIGHT  STATE   ACTIVE  INACT  CONNS       IN      OUT
web      tcp 10.0.0.10:80     wrr    FullNat                      98      6  2,098  4.0 KiB  2.0 MiB
           -> 10.1.0.11:8080         FullNat     100  full        97      3  1,097  2.0 KiB  1.0 MiB
           -> 10.1.0.12:8080         FullNat       1  active       1      3  1,001  2.0 KiB  1.0 MiB

SERVICE  SERVER          CONNECTIONS  UPPER  LOWER
web      10.1.0.11:8080          100    100     75

SERVICE  LIMIT                   OF         MOST  NOW  REFUSED
web      connections             service  10,000  100        0
web      connections_per_second  client       10         1,234
"
    );
}

#[test]
fn connections_as_ipvsadm_shows_them() {
    let connection = |client: &str, state: &str, service: Option<&str>, expires| Connection {
        worker: 1,
        protocol: "tcp".into(),
        state: state.into(),
        client: at(client),
        virtual_: at("10.0.0.10:80"),
        local: at("10.1.0.100:1024"),
        server: at("10.1.0.11:8080"),
        service: service.map(Into::into),
        expires_seconds: expires,
        age_seconds: 5,
        in_packets: 17,
    };
    let mut listed = Connections {
        connections: vec![
            connection("192.0.2.1:40000", "ESTABLISHED", Some("web"), 899),
            connection("192.0.2.200:5", "SYN_RECV", None, 9),
        ],
        more: false,
    };
    let table = "\
PRO  EXPIRES  STATE        CLIENT           VIRTUAL       LOCAL            SERVER          SERVICE  WORKER
TCP    14:59  ESTABLISHED  192.0.2.1:40000  10.0.0.10:80  10.1.0.100:1024  10.1.0.11:8080  web      w1
TCP    00:09  SYN_RECV     192.0.2.200:5    10.0.0.10:80  10.1.0.100:1024  10.1.0.11:8080  -        w1
";
    assert_eq!(conns::human(&listed), table);
    listed.more = true;
    let more = format!("{table}... and more: shown are 2; see --limit\n");
    assert_eq!(conns::human(&listed), more);
    listed.connections.clear();
    listed.more = false;
    assert_eq!(conns::human(&listed), "no connections\n");
}

#[test]
fn counters_hide_zeroes_unless_asked() {
    let counter = |name: &str, help: &str, value| Counter {
        name: name.into(),
        help: help.into(),
        value,
        per_worker: vec![value, 0],
    };
    let mut counters = Counters {
        workers: vec![
            counter("rx_packets", "Frames received from ports.", 1_500),
            counter("parked", "Frames waiting for a neighbour now.", 0),
        ],
        drops: vec![
            counter("land", "A land attack.", 0),
            counter("no_route", "No route to the next hop.", 2),
        ],
        twins: vec![TwinCounters {
            port: "wan0".into(),
            counters: vec![counter("twin_down", "Lost.", 7)],
        }],
        balance: Balance {
            rx: 1_500,
            from_kernel: 10,
            generated: 1,
            tx: 1_400,
            to_kernel: 100,
            dropped: 2,
            held: 9,
            balanced: true,
        },
    };
    assert_eq!(
        counters::human(&counters, false),
        "\
COUNTER              VALUE  WHAT IT COUNTS
rx_packets           1,500  Frames received from ports.
drop.no_route            2  No route to the next hop.
twin.wan0.twin_down      7  Lost.

in:  1,511 = rx 1,500 + from kernel 10 + generated 1
out: 1,511 = tx 1,400 + to kernel 100 + dropped 2 + held 9
the books balance
"
    );
    counters.balance.tx += 3;
    let all = counters::human(&counters, true);
    assert!(all.contains("parked                   0  Frames waiting for a neighbour now.\n"));
    assert!(all.contains("drop.land                0  A land attack.\n"));
    assert!(all.ends_with("off by 3 (frames moved while this was read)\n"));
}

#[test]
fn a_reload_says_what_changed() {
    let mut reloaded = Reloaded {
        generation: 4,
        summary: "real servers: 1 added, 0 changed, 0 removed".into(),
        changes: vec!["service \"web\": real server 10.1.0.14:80 added".into()],
        warnings: vec!["local address 10.1.0.2 is the director's own".into()],
    };
    assert_eq!(
        reload::human(&reloaded),
        "\
generation 4: real servers: 1 added, 0 changed, 0 removed
  service \"web\": real server 10.1.0.14:80 added
warning: local address 10.1.0.2 is the director's own
"
    );
    reloaded.changes = vec!["x".into(); 53];
    reloaded.warnings.clear();
    let text = reload::human(&reloaded);
    assert_eq!(text.lines().count(), 1 + 50 + 1);
    assert!(text.ends_with("  ... and 3 more\n"));
}

#[test]
fn json_is_the_document_and_ends_with_a_newline() {
    let output = Output { json: true };
    let services = Services {
        generation: 1,
        services: vec![Service {
            name: "web".into(),
            protocol: Some("tcp".into()),
            address: Some("10.0.0.10:80".into()),
            fwmark: None,
            snat: None,
            family: "ipv4".into(),
            one_packet: false,
            scheduler: "wrr".into(),
            scheduler_flags: vec![],
            forward: "fullnat".into(),
            syn_proxy: None,
            local_addresses: vec!["10.1.0.100".parse().unwrap()],
            limits: vec![],
            servers: vec![server("10.1.0.11:8080", 1, ServerState::Leaving, 2)],
        }],
    };
    let text = output.text(&services, |_| unreachable!()).unwrap();
    assert!(text.ends_with("}\n"));
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let server = &value["services"][0]["servers"][0];
    // The counts stand beside the address, not in an object of their own.
    assert_eq!(server["address"], "10.1.0.11:8080");
    assert_eq!(server["state"], "leaving");
    assert_eq!(server["active"], 2);
    assert_eq!(server["conns"], 1_002);
    assert_eq!(serde_json::from_str::<Services>(&text).unwrap(), services);
}
