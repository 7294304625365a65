use clap::Parser;

use super::super::{Cli, Command};
use super::*;
use crate::explain::tests::LAB;

/// Runs a command line against a file and no daemon.
fn run_line(line: &[&str]) -> anyhow::Result<String> {
    let cli = Cli::try_parse_from(["weir", "explain"].iter().chain(line)).unwrap();
    match cli.command {
        Command::Explain(options) => run(&options, Path::new("/nonexistent")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_packet_in_a_dozen_lines() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("weir.toml");
    std::fs::write(&config, LAB.replace("count = 2", "count = 1")).unwrap();
    let config = config.to_str().unwrap();
    let ends = ["tcp", "192.0.2.7:40000", "10.0.0.10:80"];
    let line = [&["--config", config], &ends[..]].concat();
    let text = run_line(&line).unwrap();
    // The local port is a worker's own choice, the same every time here.
    let local = text
        .split("the server sees ")
        .nth(1)
        .unwrap()
        .split(';')
        .next()
        .unwrap();
    assert_eq!(
        text,
        format!(
            "\
packet      tcp 192.0.2.7:40000 -> 10.0.0.10:80 SYN, arrives on wan0
verdict     forwarded
service     web: tcp 10.0.0.10:80, 2 real servers (2 of them available)
scheduler   rr: takes turns; whose turn it is each worker knows alone, so this is one of them
server      10.1.0.11:8080 by fullnat, weight 1, 0 active and 0 other connections now
worker      w0 owns the flow
connection  new: 192.0.2.7:40000 -> 10.0.0.10:80 at 10.1.0.11:8080, the server sees {local}; SYN_RECV, worker w0
next hop    10.1.0.11 (02:00:00:ff:00:00) behind lan0, towards 10.1.0.11
leaves      out of lan0, to 02:00:00:ff:00:00, 54 bytes: tcp {local} -> 10.1.0.11:8080 SYN
counted     conns_opened + 1 (Connections opened)

asked: {config}
note: routes: the networks in the ports' `addresses`, and everything else through a router behind wan0; a running weir follows the kernel's
note: neighbours: everybody answers
note: no connection stands, no scheduler has begun
"
        )
    );
    let json = run_line(&[&line[..], &["--json"]].concat()).unwrap();
    let explained: Explained = serde_json::from_str(&json).unwrap();
    assert_eq!(explained.packets[0].verdict, Verdict::Forwarded);
}

#[test]
fn a_capture_in_and_a_capture_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("weir.toml"), LAB).unwrap();
    let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
    let packets = [
        opening(Proto::Tcp, at("192.0.2.7:40000"), at("10.0.0.10:80")),
        opening(Proto::Udp, at("192.0.2.7:40000"), at("10.0.0.99:80")),
    ];
    let file = capture::write(packets.iter().map(|p| (p.at, &*p.frame)));
    std::fs::write(path("in.pcap"), file).unwrap();
    let (config, input, output) = (path("weir.toml"), path("in.pcap"), path("out.pcap"));
    let line = ["--config", &config, "--pcap", &input, "--out", &output];
    let text = run_line(&line).unwrap();
    assert!(
        text.contains("\n2 packets: 1 forwarded, 1 kernel\n"),
        "{text}"
    );
    let left = capture::read(&std::fs::read(&output).unwrap()).unwrap();
    assert_eq!(left.len(), 1, "what went to the kernel left no port");
    assert_eq!(left[0].frame.len(), 54);

    std::fs::write(path("in.pcap"), "text").unwrap();
    let wrong = format!("{:#}", run_line(&line).unwrap_err());
    assert!(
        wrong.starts_with(&format!("{input} is no pcap or pcapng file")),
        "{wrong}"
    );
    std::fs::remove_file(&input).unwrap();
    let wrong = format!("{:#}", run_line(&line).unwrap_err());
    assert!(
        wrong.starts_with(&format!("{input}: No such file")),
        "{wrong}"
    );
    let mixed = [
        "--config",
        &config,
        "tcp",
        "192.0.2.7:1",
        "[2001:db8::1]:80",
    ];
    let wrong = run_line(&mixed).unwrap_err().to_string();
    assert!(wrong.contains("are of two families"), "{wrong}");
}

#[test]
fn a_standing_connection_takes_its_packets_either_way() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("weir.toml");
    std::fs::write(&config, LAB).unwrap();
    let config = config.to_str().unwrap();
    let line = [
        "--config",
        config,
        "--json",
        "tcp",
        "192.0.2.7:40000",
        "10.0.0.10:80",
    ];
    let mut explained: Explained = serde_json::from_str(&run_line(&line).unwrap()).unwrap();
    let connection = Connection {
        worker: 1,
        protocol: "tcp".into(),
        state: "ESTABLISHED".into(),
        client: "192.0.2.7:40000".parse().unwrap(),
        virtual_: "10.0.0.10:80".parse().unwrap(),
        local: "10.1.0.100:5000".parse().unwrap(),
        server: "10.1.0.12:8080".parse().unwrap(),
        service: None,
        expires_seconds: 61,
        age_seconds: 9,
        in_packets: 3,
    };
    let standing = |more| Connections {
        connections: vec![connection.clone()],
        more,
    };
    attach(&mut explained, standing(false));
    assert_eq!(explained.packets[0].existing, Some(connection.clone()));
    let existing = "existing    the connection 192.0.2.7:40000 -> 10.0.0.10:80 at 10.1.0.12:8080 \
                    takes it: ESTABLISHED, worker w1, 01:01 left; the rest is what a new one \
                    would get\n";
    assert!(
        human(&explained).contains(existing),
        "{}",
        human(&explained)
    );
    assert!(listed(&explained).contains("w1's connection at 10.1.0.12:8080 takes it; without: "));

    let packet = &mut explained.packets[0];
    (packet.source, packet.destination) = (Some(connection.server), Some(connection.local));
    attach(&mut explained, standing(true));
    assert_eq!(explained.packets[0].existing, Some(connection.clone()));
    assert!(
        explained
            .assumed
            .last()
            .unwrap()
            .contains("only the first 1 were looked at")
    );
    let packet = &mut explained.packets[0];
    (packet.protocol, packet.existing) = (Some("udp".into()), None);
    attach(&mut explained, standing(false));
    assert_eq!(explained.packets[0].existing, None);
}
