//! Kinds of services: of marks, of ranges, one packet at a time, and QUIC by connection ID.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::client::curl;
use crate::config::{Config, LIPS};
use crate::realserver::RealServer;
use crate::servers::{Dns, Nginx};
use crate::topology::{Lab, Netns, VIP, checked, rip, text};
use crate::weir::Director;
use crate::with_1_2_and_3_workers;

/// `[[service.real_server]]` tables of the first `count`.
fn servers(count: usize, port: u16, more: impl Fn(usize) -> String) -> String {
    let table = |n| {
        let (address, more) = (rip(n), more(n));
        format!("[[service.real_server]]\naddress = \"{address}:{port}\"\n{more}\n")
    };
    (1..=count).map(table).collect()
}

/// How often each server answered `times` requests, one after the other, to each of these.
fn answers(lab: &Lab, urls: &[&str], times: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for url in urls {
        let mut curl = curl(lab);
        curl.args(["-H", "Connection: close"]);
        let all = text(checked(curl.arg(format!("http://{url}/[1-{times}]"))));
        for name in all.lines() {
            *counts.entry(name.to_owned()).or_default() += 1;
        }
    }
    counts
}

with_1_2_and_3_workers!(a_mark_spans_two_addresses_and_two_ports);

/// One service for http and https of two addresses: servers take turns over all four. Its
/// addresses are on the twin, and what is not marked there is the director's own kernel's.
fn a_mark_spans_two_addresses_and_two_ports(workers: usize) {
    let Some(lab) = Lab::new(2) else { return };
    let _nginx = Nginx::in_all(&lab);
    for forward in ["nat", "fullnat"] {
        let lips = match forward {
            "nat" => String::new(),
            _ => format!("local_addresses = [\"{LIPS}\"]"),
        };
        let toml = format!(
            "
[[mark]]
mark = 7
destination = [\"10.0.0.20-10.0.0.21\"]
ports = [80, 443]
protocol = \"tcp\"
interface = \"wan0\"

[[service]]
name = \"shop\"
fwmark = 7
scheduler = \"rr\"
forward = \"{forward}\"
{lips}
{}",
            servers(2, 80, |_| String::new())
        );
        let weir = Director::start(&lab, &Config::new(workers).tables(&toml));
        let by_nat = lab.servers.iter().filter(|_| forward == "nat");
        let _rs: Vec<_> = by_nat
            .map(|rs| RealServer::set_up(rs, "nat --gateway 10.1.0.2"))
            .collect();
        let on_twin = lab.director.ip("-4 addr show dev wan0");
        for vip in ["10.0.0.20/32", "10.0.0.21/32"] {
            assert!(on_twin.contains(vip), "{on_twin}");
        }
        let asked = ["10.0.0.20", "10.0.0.20:443", "10.0.0.21", "10.0.0.21:443"];
        let counts = answers(&lab, &asked, 15);
        assert_eq!(counts.len(), 2, "{counts:?}");
        for count in counts.values() {
            assert!(count.abs_diff(30) <= workers, "{counts:?}");
        }
        let refused = curl(&lab)
            .arg("http://10.0.0.20:81/")
            .output()
            .expect("curl");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            said.contains("after") && said.contains("connect to 10.0.0.20 port 81"),
            "{said}"
        );
        let listed = text(weir.ask(&["services"]));
        assert!(listed.contains("fwm 7"), "{listed}");

        // The rules follow a reload, and the address they no longer name leaves.
        let toml = toml.replace("10.0.0.20-", "");
        weir.reload_to(&Config::new(workers).tables(&toml));
        let counts = answers(&lab, &["10.0.0.21", "10.0.0.21:443"], 10);
        assert_eq!(counts.values().sum::<usize>(), 20);
    }
}

with_1_2_and_3_workers!(ranges_of_addresses_and_ports);

/// A network and some ports of it; within it an address with a service of its own.
fn ranges_of_addresses_and_ports(workers: usize) {
    let Some(lab) = Lab::new(2) else { return };
    let _nginx = Nginx::in_all(&lab);
    let service = |name: &str, address: &str, server: usize| {
        let address_of = rip(server);
        format!(
            "
[[service]]
name = \"{name}\"
address = \"{address}\"
protocol = \"tcp\"
local_addresses = [\"{LIPS}\"]

[[service.real_server]]
address = \"{address_of}:80\"
"
        )
    };
    let toml = service("range", "10.0.0.32/29:8000-8999", 1) + &service("one", "10.0.0.34:0", 2);
    let _weir = Director::start(&lab, &Config::new(workers).tables(&toml));
    for (url, server) in [
        ("10.0.0.32:8000", "rs1"),
        ("10.0.0.39:8999", "rs1"),
        ("10.0.0.34:8500", "rs2"),
        ("10.0.0.34:80", "rs2"),
    ] {
        let counts = answers(&lab, &[url], 3);
        assert_eq!(counts, BTreeMap::from([(server.to_owned(), 3)]), "{url}");
    }
    let refused = curl(&lab)
        .arg("http://10.0.0.33:7999/")
        .output()
        .expect("curl");
    assert!(!refused.status.success());
}

with_1_2_and_3_workers!(one_socket_asks_every_server);

/// A resolver that asks from one port: its queries go to both servers in turn.
fn one_socket_asks_every_server(workers: usize) {
    let Some(lab) = Lab::new(2) else { return };
    let _dns = Dns::in_all(&lab);
    let toml = format!(
        "
[[service]]
name = \"dns\"
address = \"{VIP}:53\"
protocol = \"udp\"
scheduler = \"rr\"
one_packet = true
local_addresses = [\"{LIPS}\"]
{}",
        servers(2, 53, |_| String::new())
    );
    let weir = Director::start(&lab, &Config::new(workers).tables(&toml));
    let mut counts = BTreeMap::new();
    for address in crate::client::ask_dns_from_one_port(&lab, 100) {
        *counts.entry(address).or_insert(0_usize) += 1;
    }
    assert_eq!(
        counts.values().copied().collect::<Vec<_>>(),
        [50, 50],
        "{counts:?}"
    );
    let listed = text(weir.ask(&["services"]));
    assert!(listed.contains("rr ops"), "{listed}");
}

with_1_2_and_3_workers!(quic_clients_that_move_keep_their_server);

/// The client's address and port change; the connection ID that its server gave it does not.
fn quic_clients_that_move_keep_their_server(workers: usize) {
    for forward in ["fullnat", "dr"] {
        let Some(lab) = Lab::new(3) else { return };
        let dr = forward == "dr";
        let _rs: Vec<_> = match dr {
            true => {
                lab.let_answers_go_straight();
                let args = format!("dr --vip {VIP}");
                let set_up = |rs| RealServer::set_up(rs, &args);
                lab.servers.iter().map(set_up).collect()
            }
            false => Vec::new(),
        };
        let _servers: Vec<_> = (1..)
            .zip(&lab.servers)
            .map(|(n, netns)| QuicServer::start(netns, if dr { VIP } else { rip(n) }, n as u8))
            .collect();
        let lips = match dr {
            true => String::new(),
            false => format!("local_addresses = [\"{LIPS}\"]"),
        };
        let toml = format!(
            "
[[service]]
name = \"quic\"
address = \"{VIP}:443\"
protocol = \"udp\"
scheduler = \"conhash\"
forward = \"{forward}\"
{lips}
{}
[[service.quic_lb]]
config = 3
server_id_length = 2
nonce_length = 5
",
            servers(3, 443, |n| format!("quic_server_id = \"a00{n}\""))
        );
        let weir = Director::start(&lab, &Config::new(workers).tables(&toml));
        lab.client.add_address(
            IpAddr::from([10, 0, 0, 3]),
            crate::families::Family::V4,
            "weir-wan",
        );
        let mut used = [0; 4];
        for client in 0..24 {
            let met = lab.client.within(move || moving_client(client));
            assert!(
                met.iter().all(|n| *n == met[0]),
                "{forward}, client {client}: {met:?}"
            );
            used[usize::from(met[0])] += 1;
        }
        assert!(used[1..].iter().all(|n| *n > 0), "{used:?}");
        drop(weir);
    }
}

/// A handshake as far as connection IDs go, then packets from five other ports and another
/// address: which servers answered.
fn moving_client(number: u8) -> Vec<u8> {
    let ask = |from: [u8; 4], packet: &[u8]| {
        let socket = UdpSocket::bind((Ipv4Addr::from(from), 0)).expect("a port");
        socket.connect((VIP, 443)).expect("a route");
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a timeout");
        socket.send(packet).expect("room in the socket");
        let mut reply = [0; 1500];
        let len = socket.recv(&mut reply).expect("an answer from the VIP");
        reply[..len].to_vec()
    };
    // RFC 9000 17.2: long header, version 1, the client's random IDs.
    let own = [number, 0x5a, 1, 2, 3, 4, 5, 6];
    let initial = [&[0xc0, 0, 0, 0, 1, 8][..], &own, &[0], &[0; 1180]].concat();
    let reply = ask([10, 0, 0, 1], &initial);
    assert_eq!(reply[..6], [0xc0, 0, 0, 0, 1, 0], "to our empty ID");
    let len = usize::from(reply[6]);
    let (id, server) = (&reply[7..7 + len], reply[7 + len]);
    let mut met = vec![server];
    for n in 0..6 {
        let short = [&[0x40 | n][..], id, &[n; 40]].concat();
        let from = if n % 2 == 0 {
            [10, 0, 0, 3]
        } else {
            [10, 0, 0, 1]
        };
        let reply = ask(from, &short);
        met.push(reply[1]);
    }
    met
}

/// What answers like a QUIC server as far as connection IDs go: its own are by QUIC-LB,
/// configuration 3.
#[derive(Debug)]
struct QuicServer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl QuicServer {
    fn start(netns: &Netns, address: Ipv4Addr, number: u8) -> QuicServer {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let socket = netns.within(move || UdpSocket::bind((address, 443)).expect("port 443"));
        let thread = std::thread::spawn(move || serve_quic(&socket, number, &stopped));
        QuicServer {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for QuicServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve_quic(socket: &UdpSocket, number: u8, stop: &AtomicBool) {
    let pause = Some(Duration::from_millis(50));
    socket.set_read_timeout(pause).expect("a bound socket");
    let (mut packet, mut nonce) = ([0; 1500], 0u8);
    while !stop.load(Ordering::Relaxed) {
        let Ok((len, from)) = socket.recv_from(&mut packet) else {
            continue; // the pause between two looks at `stop`
        };
        nonce = nonce.wrapping_add(1);
        let id = [3 << 5 | 7, 0xa0, number, nonce, 1, 2, 3, 4];
        let reply = match packet[..len] {
            [0xc0..=0xff, ..] => [&[0xc0, 0, 0, 0, 1, 0, 8][..], &id, &[number]].concat(),
            // Only what is for one of its own IDs.
            [_, _, 0xa0, own, ..] if own == number => vec![0x40, number],
            _ => vec![0x40, 0],
        };
        let _: std::io::Result<usize> = socket.send_to(&reply, from);
    }
}
