//! What `weir` says about its work equals what was done, by other witnesses' count: the test's
//! own, and the kernel's at the far ends of the ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

use serde_json::Value;

use crate::client::{ask_dns, ask_names};
use crate::config::Config;
use crate::servers::{Dns, Nginx};
use crate::topology::{CLIENT, Lab, VIP, eventually_ok, rip};
use crate::weir::Director;
use crate::with_1_2_and_3_workers;

const REQUESTS: usize = 100;
const QUERIES: u16 = 50;
/// A query of [`ask_dns`] as an IP packet: headers of 20 and 8, DNS header, question.
const QUERY_BYTES: u64 = 20 + 8 + 12 + 17;
/// Its answer: one A record with a compressed name more.
const ANSWER_BYTES: u64 = QUERY_BYTES + 16;

with_1_2_and_3_workers!(listings_equal_what_was_done);

fn listings_equal_what_was_done(workers: usize) {
    let Some(lab) = Lab::new(3) else { return };
    let _nginx = Nginx::in_all(&lab);
    let _dns = Dns::in_all(&lab);
    let config = Config::new(workers);
    let config = config.server(1, 100).server(2, 100).server(3, 50);
    let weir = Director::start(&lab, &config);

    let names = ask_names(&lab, REQUESTS);
    ask_dns(&lab, QUERIES);
    await_rest(&lab, &weir);

    let services = weir.json(&["services"]);
    let web = servers(&services, "web");
    for (number, name) in [(1, "rs1"), (2, "rs2"), (3, "rs3")] {
        let server = format!("{}:80", rip(number));
        let answers = names.get(name).copied().unwrap_or(0);
        assert_eq!(web[&server]["conns"], answers, "{web:#?}");
    }
    assert_eq!(sum(&web, "conns"), REQUESTS as u64);
    assert_eq!(sum(&web, "active"), 0, "all are closed: {web:#?}");
    assert_eq!(sum(&web, "inactive"), REQUESTS as u64, "in TIME_WAIT");
    let dns = servers(&services, "dns");
    let queries = u64::from(QUERIES);
    assert_eq!(sum(&dns, "conns"), queries);
    assert_eq!(sum(&dns, "in_packets"), queries);
    assert_eq!(sum(&dns, "in_bytes"), queries * QUERY_BYTES);
    assert_eq!(sum(&dns, "out_packets"), queries);
    assert_eq!(sum(&dns, "out_bytes"), queries * ANSWER_BYTES);

    check_conns(&weir.json(&["conns"]), "tcp", 80, REQUESTS);
    check_conns(&weir.json(&["conns"]), "udp", 53, usize::from(QUERIES));
    let status = weir.json(&["status"]);
    let standing = REQUESTS as u64 + queries;
    assert_eq!(status["connections"], standing);
    assert_eq!(status["workers"].as_array().expect("a list").len(), workers);
    let counters = weir.json(&["counters"]);
    assert_eq!(counter(&counters["workers"], "conns_opened"), standing);
}

/// UDP to a local address that belongs to no connection: each datagram is one drop of one reason.
#[test]
fn drops_are_counted_by_reason() {
    let Some(lab) = Lab::new(1) else { return };
    let weir = Director::start(&lab, &Config::new(2).server(1, 100));
    let before = counter(&weir.json(&["counters"])["drops"], "no_connection");

    lab.servers[0].within(|| {
        let socket = UdpSocket::bind(("0.0.0.0", 0)).expect("a port");
        for _ in 0..7 {
            let sent = socket.send_to(b"stray", ("10.1.0.100", 9));
            sent.expect("a route to the local address");
        }
    });

    await_rest(&lab, &weir);
    let after = counter(&weir.json(&["counters"])["drops"], "no_connection");
    assert_eq!(after - before, 7);
}

/// Waits until nothing moves: the books balance, and each port has received and sent what the
/// kernel at its far end has sent and received. A frame lost or doubled anywhere keeps them apart.
fn await_rest(lab: &Lab, weir: &Director<'_>) {
    eventually_ok(Duration::from_secs(20), || {
        let books = weir.json(&["counters"])["balance"].clone();
        let column = |name: &str| books[name].as_u64().expect("a count");
        let comes = column("rx") + column("from_kernel") + column("generated");
        let goes = column("tx") + column("to_kernel") + column("dropped") + column("held");
        if comes != goes || books["balanced"] != true {
            return Err(format!("the books balance: {books:#}"));
        }
        let status = weir.json(&["status"]);
        for (port, far) in [
            ("wan0", lab.client.packets("weir-wan")),
            ("lan0", lab.lan.packets("weir-lan")),
        ] {
            let [far_rx, far_tx] = far;
            let near = named(&status["ports"], port);
            if near["rx_packets"] != far_tx || near["tx_packets"] != far_rx {
                return Err(format!(
                    "{port}'s far end sent {far_tx}, got {far_rx}: {near:#}"
                ));
            }
        }
        Ok(())
    });
}

/// The element of a list with this `name`.
fn named<'list>(list: &'list Value, name: &str) -> &'list Value {
    let found = list
        .as_array()
        .and_then(|l| l.iter().find(|e| e["name"] == name));
    found.unwrap_or_else(|| panic!("no `{name}` in {list:#}"))
}

/// The value of the counter `name`, which its workers' values add up to.
pub(crate) fn counter(counters: &Value, name: &str) -> u64 {
    let counter = named(counters, name);
    let value = counter["value"].as_u64().expect("a count");
    let each = counter["per_worker"].as_array().expect("a list");
    assert_eq!(each.iter().filter_map(Value::as_u64).sum::<u64>(), value);
    value
}

/// The real servers of a service, by address.
fn servers(services: &Value, service: &str) -> BTreeMap<String, Value> {
    let servers = named(&services["services"], service)["servers"].as_array();
    let servers = servers.expect("a list").iter();
    let by_address = |s: &Value| (s["address"].as_str().expect("text").to_owned(), s.clone());
    servers.map(by_address).collect()
}

/// The sum of one count over real servers.
fn sum(servers: &BTreeMap<String, Value>, count: &str) -> u64 {
    let counts = servers.values().map(|s| s[count].as_u64());
    counts.map(|c| c.expect("a count")).sum()
}

/// `listed` has `count` connections of the service on `port`, each between addresses that it can
/// be between, no two alike.
fn check_conns(listed: &Value, protocol: &str, port: u16, count: usize) {
    assert_eq!(listed["more"], false);
    let conns = listed["connections"].as_array().expect("a list").iter();
    let conns = conns.filter(|c| c["protocol"] == protocol);
    let (mut clients, mut locals) = (BTreeSet::new(), BTreeSet::new());
    for conn in conns {
        let at = |side: &str| -> SocketAddrV4 {
            let text = conn[side].as_str().expect("an address");
            text.parse().expect("IPv4 address and port")
        };
        assert_eq!(*at("client").ip(), CLIENT, "{conn:#}");
        assert_eq!(at("virtual"), SocketAddrV4::new(VIP, port), "{conn:#}");
        assert!(
            (1..=3).any(|n| at("server") == SocketAddrV4::new(rip(n), port)),
            "{conn:#}"
        );
        let lip = at("local").ip().octets();
        assert!(
            lip[..3] == [10, 1, 0] && (100..=103).contains(&lip[3]),
            "{conn:#}"
        );
        clients.insert(at("client"));
        locals.insert((at("local"), at("server")));
    }
    assert_eq!([clients.len(), locals.len()], [count, count], "{listed:#}");
}
