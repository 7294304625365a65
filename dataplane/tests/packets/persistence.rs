//! Persistence as a real kernel's IPVS did it (`data/persistence.jsonl.gz`, 38 cases): every packet
//! to the server that it went to there, and the same templates, and that a client has
//! one server on any number of workers.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;
use weir_dataplane::conn::state::{Rules, State, Timeouts};
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::sched::{Options, Scheduler, SchedulerKind};
use weir_dataplane::service::{
    Candidate, Engine, Mark, MarkRule, Marks, Pattern, Persistence, Policy, Server, ServerPolicy,
    Service, ServiceKey, Snapshot, SnapshotBuilder, Thresholds,
};
use weir_dataplane::steer::Alignment;
use weir_dataplane::{Proto, ServerId, ServiceId};

use super::*;

const CASES: &[u8] = include_bytes!("../data/persistence.jsonl.gz");

/// Cases whose scheduler chooses otherwise on purpose, and why: a network of clients may have another
/// server than there, and then keeps that one.
const OTHERS: &[(&str, &str)] = &[(
    "tcp-p300-mask24-mh",
    "mh has another table: sched/tests/oracle.rs",
)];

/// What Weir does otherwise on purpose: `(case, packet by its client port, why)`.
const DIFFERENT: &[(&str, u64, &str)] = &[];

/// A service under construction, as ipvsadm's lines say.
#[derive(Debug, Clone)]
struct Virtual {
    key: ServiceKey,
    scheduler: SchedulerKind,
    persistence: Option<Persistence>,
    one_packet: bool,
    options: Options,
    /// Newest first, as IPVS keeps them.
    servers: Vec<Real>,
}

/// A real server, as ipvsadm's lines say.
#[derive(Debug, Clone, Copy)]
struct Real {
    address: SocketAddr,
    weight: u32,
    mode: ForwardMode,
    thresholds: Thresholds,
}

impl Virtual {
    fn has(&self, n: u64) -> bool {
        let mut servers = self.servers.iter();
        servers.any(|s| s.address.ip().to_string().ends_with(&(10 + n).to_string()))
    }
}

/// A lab's address where these tests have their own: the servers'.
fn ours(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(a) if a.octets()[..3] == [10, 0, 2] => [10, 1, 0, 10 + a.octets()[3]].into(),
        IpAddr::V6(a) if a.segments()[..3] == [0x2001, 0xdb8, 2] => {
            format!("2001:db8:1::1{}", a.segments()[7]).parse().unwrap()
        }
        other => other,
    }
}

/// `10.0.100.1:80`, `[2001:db8::1]:80`.
fn at(text: &str) -> SocketAddr {
    let at: SocketAddr = text.parse().unwrap();
    SocketAddr::new(ours(at.ip()), at.port())
}

/// What `ipvsadm` was told, line by line.
#[derive(Debug, Default)]
struct Ipvsadm {
    services: Vec<Virtual>,
    /// Server ids by service and address: stable, as the model keeps them.
    ids: BTreeMap<(usize, SocketAddr), u32>,
    generation: u64,
}

impl Ipvsadm {
    fn line(&mut self, line: &str) {
        let mut words = line.split_whitespace().peekable();
        let command = words.next().unwrap();
        let (mut key, mut scheduler, mut timeout, mut engine) = (None, None, None, Engine::Address);
        let (mut one_packet, mut options) = (false, Options::default());
        let (mut mask, mut server, mut weight, mut mode) = (None, None, 1, ForwardMode::dr);
        let mut thresholds = Thresholds::default();
        while let Some(word) = words.next() {
            match word {
                "-t" | "-u" => {
                    let proto = if word == "-t" { Proto::Tcp } else { Proto::Udp };
                    let to: SocketAddr = words.next().unwrap().parse().unwrap();
                    let (vip, port) = (to.ip(), to.port());
                    key = Some(ServiceKey::Address { proto, vip, port });
                }
                "-f" => {
                    let mark = Mark::new(words.next().unwrap().parse().unwrap()).unwrap();
                    key = Some(ServiceKey::Mark { mark, v6: false });
                }
                "-s" => {
                    let name = words.next().unwrap();
                    scheduler = SchedulerKind::ALL
                        .iter()
                        .find(|s| s.name() == name)
                        .copied();
                }
                "-p" => {
                    let given = words.next_if(|w| !w.starts_with('-'));
                    timeout = Some(given.map_or(360, |t| t.parse().unwrap()));
                }
                "-M" => {
                    let text = words.next().unwrap();
                    mask = Some(match text.parse::<std::net::Ipv4Addr>() {
                        Ok(mask) => u32::from(mask).leading_ones() as u8,
                        Err(_) => text.parse().unwrap(),
                    });
                }
                "--pe" => {
                    assert_eq!(words.next(), Some("sip"));
                    engine = Engine::Sip;
                }
                "-r" => server = Some(at(words.next().unwrap())),
                "-x" => thresholds.upper = words.next().unwrap().parse().unwrap(),
                "-y" => thresholds.lower = words.next().unwrap().parse().unwrap(),
                "-w" => weight = words.next().unwrap().parse().unwrap(),
                "-g" => mode = ForwardMode::dr,
                "-i" => mode = ForwardMode::tun,
                "-o" => one_packet = true,
                "-b" => {
                    assert_eq!(words.next(), Some("sh-port"));
                    options.port = true;
                }
                "-m" => mode = ForwardMode::nat,
                other => panic!("{line}: {other}"),
            }
        }
        let key = key.unwrap();
        let found = self.services.iter().position(|s| s.key == key);
        match (command, found) {
            ("-A", None) => {
                let bits = if key.is_ipv6() { 128 } else { 32 };
                let persistence = timeout.map(|seconds| Persistence {
                    ticks: Tick::seconds(seconds),
                    prefix: mask.unwrap_or(bits),
                    engine,
                });
                self.services.push(Virtual {
                    key,
                    scheduler: scheduler.unwrap(),
                    persistence,
                    one_packet,
                    options,
                    servers: vec![],
                });
            }
            ("-a", Some(n)) => {
                let address = server.unwrap();
                let real = Real {
                    address,
                    weight,
                    mode,
                    thresholds,
                };
                self.services[n].servers.insert(0, real);
            }
            ("-e", Some(n)) => {
                let servers = &mut self.services[n].servers;
                let mut servers = servers.iter_mut();
                servers.find(|s| Some(s.address) == server).unwrap().weight = weight;
            }
            ("-d", Some(n)) => self.services[n]
                .servers
                .retain(|s| Some(s.address) != server),
            _ => panic!("{line}"),
        }
    }

    fn snapshot(&mut self, timeouts: Timeouts, rules: Rules, matchall: bool) -> Snapshot {
        self.generation += 1;
        let mut b = SnapshotBuilder::default().timeouts(timeouts).rules(rules);
        if matchall {
            let marks = self.services.iter().filter_map(|s| match s.key {
                ServiceKey::Mark { mark, .. } => Some(mark),
                _ => None,
            });
            let rule = |mark| MarkRule {
                pattern: Pattern::default(),
                mark: Some(mark),
            };
            b = b.marks(Arc::new(Marks::new(marks.map(rule).collect())));
        }
        for (n, service) in self.services.iter().enumerate() {
            let mut candidates = Vec::new();
            for real in &service.servers {
                let fresh = self.ids.len() as u32;
                let id = ServerId(*self.ids.entry((n, real.address)).or_insert(fresh));
                candidates.push(Candidate::new(id, real.address, real.weight));
            }
            let id = ServiceId(n as u32);
            let (scheduler, options) = (service.scheduler, service.options);
            b.service(Arc::new(Service {
                id,
                name: "s".into(),
                key: service.key,
                scheduler: Scheduler::new(scheduler, options, &candidates),
                servers: candidates,
                client_address: Default::default(),
                policy: Policy {
                    persistence: service.persistence,
                    one_packet: service.one_packet,
                    ..Policy::default()
                },
                local_addresses: [].into_iter().collect(),
            }));
        }
        for (&(n, address), &id) in &self.ids {
            let mut servers = self.services[n].servers.iter();
            let real = servers.find(|s| s.address == address);
            b.server(Server {
                id: ServerId(id),
                service: ServiceId(n as u32),
                address,
                forward: real.map_or(ForwardMode::dr, |s| s.mode),
                tunnel: None,
                policy: ServerPolicy {
                    thresholds: real.map_or(Thresholds::default(), |s| s.thresholds),
                    ..ServerPolicy::default()
                },
            });
        }
        b.build(self.generation + 1)
    }
}

/// Which server a frame went to.
fn server_of(out: &[(To, Vec<u8>)]) -> Option<u64> {
    let (to, frame) = out.first()?;
    let n = eth::dst(frame).0[5];
    (*to == To::Port(LAN)).then(|| u64::from(n - 10))
}

/// Templates: by client and server the seconds left, and whether it is assured. Of several the
/// least and any.
type Listed = BTreeMap<(String, u64), (u32, bool)>;

fn list(all: &mut Listed, key: (String, u64), seconds: u32, assured: bool) {
    let (least, any) = all.entry(key).or_insert((seconds, assured));
    (*least, *any) = (seconds.min(*least), assured || *any);
}

/// The templates of all workers.
fn templates(d: &Director, servers: &Snapshot) -> Listed {
    let mut all = BTreeMap::new();
    for worker in &d.workers {
        let left = worker.templates().page(0, u32::MAX, |t| {
            let server = servers.server(t.server).unwrap().address.ip();
            let n = match server {
                IpAddr::V4(a) => a.octets()[3] - 10,
                IpAddr::V6(a) => a.octets()[15] & 0xf,
            };
            let key = (t.key.client().to_string(), u64::from(n));
            let seconds = t.expires / Tick::PER_SECOND;
            list(&mut all, key, seconds, t.assured);
            true
        });
        assert_eq!(left, None);
    }
    all
}

/// The same of a recorded table; such as are invalidated there are forgotten here.
fn recorded(table: &Value) -> Listed {
    let mut all = BTreeMap::new();
    for line in table["conns"].as_array().unwrap() {
        let words: Vec<_> = line.as_str().unwrap().split_whitespace().collect();
        let (client, port) = words[1].rsplit_once(':').unwrap();
        if port != "0" || words[2].ends_with(":65535") {
            continue;
        }
        let client = client.trim_matches(['[', ']']).to_owned();
        let (server, _) = words[3].rsplit_once(':').unwrap();
        let server = server.trim_matches(['[', ']']);
        let n = server.chars().last().unwrap().to_digit(10).unwrap();
        let seconds: u32 = words[5].parse().unwrap();
        let key = (client, u64::from(n));
        list(&mut all, key, seconds, words[4] == "ASSURED");
    }
    all
}

/// The /24 of a client.
fn network(client: &str) -> String {
    client.rsplit_once('.').unwrap().0.to_owned()
}

fn play(case: &Value, alignment: Alignment) -> Vec<u64> {
    let name = case["case"].as_str().unwrap();
    let setup = &case["setup"];
    let sysctl = |key: &str| setup["sysctl"][key].as_u64().unwrap_or(0) != 0;
    let rules = Rules {
        expire_quiescent_template: sysctl("expire_quiescent_template"),
        expire_nodest_conn: sysctl("expire_nodest_conn"),
        ..Rules::default()
    };
    let mut timeouts = Timeouts::default();
    if let Some(set) = setup["set"].as_str() {
        let udp: u32 = set.split(' ').nth(2).unwrap().parse().unwrap();
        timeouts.set(State::Udp, Tick::seconds(udp));
    }
    let mut ipvsadm = Ipvsadm::default();
    let lines = |v: &Value| -> Vec<String> {
        let lines = v.as_array().unwrap().iter();
        lines.map(|l| l.as_str().unwrap().to_owned()).collect()
    };
    for line in lines(&setup["ipvsadm"]) {
        ipvsadm.line(&line);
    }
    let marking = !setup["marking"].is_null();
    let mut d = Director::new(&Shape {
        alignment,
        ..Shape::workers(1)
    });
    let start = d.now;
    let mut snapshot = Arc::new(ipvsadm.snapshot(timeouts, rules, marking));
    d.tell(|| Command::Snapshot(Arc::clone(&snapshot)));
    d.settle();
    let mut different = Vec::new();
    let others = OTHERS.iter().any(|(case, _)| *case == name);
    // Ours for theirs, by network.
    let mut chosen: BTreeMap<(String, u64), u64> = BTreeMap::new();
    for event in case["events"].as_array().unwrap() {
        let ticks = event["t"].as_f64().unwrap() * f64::from(Tick::PER_SECOND);
        d.now = start.after(ticks as u32);
        for _ in 0..40 {
            d.settle(); // timers, and the hand that gives templates back
        }
        match event["ev"].as_str().unwrap() {
            "packet" => {
                let end = |host: &str, port: &str| {
                    let host: IpAddr = event[host].as_str().unwrap().parse().unwrap();
                    SocketAddr::new(host, event[port].as_u64().unwrap() as u16)
                };
                let (from, to) = (end("src", "sport"), end("dst", "dport"));
                let p = match event["proto"].as_str().unwrap() {
                    "tcp" => {
                        let flags = event["flags"].as_str().unwrap().chars();
                        let flag = |c| match c {
                            'S' => SYN,
                            'A' => ACK,
                            'F' => FIN,
                            'R' => RST,
                            other => panic!("{other}"),
                        };
                        Packet::tcp(from, to, flags.map(flag).fold(0, |a, b| a | b))
                    }
                    _ => Packet::udp(from, to),
                };
                let data = event["data"].as_str().unwrap_or_default();
                let p = p.payload(data.as_bytes()).macs(ROUTER_MAC, WAN_MAC);
                let out = d.exchange(WAN, &p.build());
                let (got, mut wanted) = (server_of(&out), event["rs"].as_u64());
                if let (true, Some(theirs), Some(got)) = (others, wanted, got) {
                    let network = network(&from.ip().to_string());
                    wanted = Some(*chosen.entry((network, theirs)).or_insert(got));
                }
                if got != wanted {
                    let port = from.port().into();
                    let known = DIFFERENT.iter().any(|(c, p, _)| *c == name && *p == port);
                    assert!(known, "{name}: {event}: got {got:?}");
                    different.push(port);
                }
            }
            "table" => {
                let (mut got, mut wanted) = (templates(&d, &snapshot), recorded(event));
                if others {
                    let renamed = wanted.into_iter().map(|((client, theirs), is)| {
                        let server = chosen[&(network(&client), theirs)];
                        ((client, server), is)
                    });
                    wanted = renamed.collect();
                }
                if rules.expire_nodest_conn {
                    // IPVS forgets a removed server's at once, Weir when their client comes.
                    got.retain(|(_, n), _| ipvsadm.services[0].has(*n));
                }
                let keys = |m: &Listed| m.keys().cloned().collect::<Vec<_>>();
                assert_eq!(keys(&got), keys(&wanted), "{name}: {event}");
                for (key, (seconds, assured)) in &wanted {
                    let (left, is) = got[key];
                    let off = left.abs_diff(*seconds);
                    assert!(off <= 1, "{name}: {key:?} has {left} of {seconds} s");
                    assert_eq!(is, *assured, "{name}: {key:?}: {event}");
                }
            }
            "ipvsadm" => {
                for line in lines(&event["lines"]) {
                    ipvsadm.line(&line);
                }
                snapshot = Arc::new(ipvsadm.snapshot(timeouts, rules, marking));
                d.tell(|| Command::Snapshot(Arc::clone(&snapshot)));
                d.settle();
            }
            _ => {}
        }
    }
    d.assert_books();
    different
}

#[test]
fn every_recorded_case() {
    let mut text = String::new();
    flate2::read::GzDecoder::new(CASES)
        .read_to_string(&mut text)
        .unwrap();
    let mut played = 0;
    for line in text.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let name = case["case"].as_str().unwrap();
        played += 1;
        let known = DIFFERENT.iter().filter(|d| d.0 == name).count();
        for alignment in [Alignment::Aligned, Alignment::Unaligned] {
            let different = play(&case, alignment);
            assert_eq!(
                different.len(),
                known,
                "{name}: a listed difference is none"
            );
        }
    }
    assert_eq!(played, 38);
}

/// Eight services' worth of clients, whose connections land on any of five workers, with NAT, so
/// that openings ask a template's home and then an answers' owner; churn; and nothing is left.
#[test]
fn a_client_has_one_server_wherever_its_connections_land() {
    for (mode, alignment) in [
        (ForwardMode::dr, Alignment::Aligned),
        (ForwardMode::nat, Alignment::Aligned),
        (ForwardMode::nat, Alignment::Unaligned),
    ] {
        let mut ipvsadm = Ipvsadm::default();
        let flag = if mode == ForwardMode::nat { "-m" } else { "-g" };
        ipvsadm.line("-A -t 10.0.0.10:80 -s wlc -p 60 -M 255.255.255.0");
        for n in 1..=3 {
            ipvsadm.line(&format!(
                "-a -t 10.0.0.10:80 -r 10.0.2.{n}:80 {flag} -w {n}"
            ));
        }
        let mut d = Director::new(&Shape {
            alignment,
            ..Shape::workers(5)
        });
        let rules = Rules::default();
        let snapshot = Arc::new(ipvsadm.snapshot(Timeouts::default(), rules, false));
        d.tell(|| Command::Snapshot(Arc::clone(&snapshot)));
        d.settle();
        let mut servers: BTreeMap<u8, u64> = BTreeMap::new();
        let packet = |net: u8, host: u8, port: u16, flags| {
            let client = SocketAddr::new(IpAddr::from([198, 51, net, host]), port);
            Packet::tcp(client, addr("10.0.0.10:80"), flags).macs(ROUTER_MAC, WAN_MAC)
        };
        for round in 0..40u16 {
            for net in 0..25u8 {
                let (host, port) = (1 + (round % 7) as u8, 2000 + round);
                let syn = packet(net, host, port, SYN).build();
                // The SYN and its retransmission in one burst: both may travel.
                d.deliver(WAN, &syn, usize::from(net));
                d.deliver(WAN, &syn, usize::from(round));
                d.settle();
                for (to, frame) in d.collect() {
                    assert_eq!(to, To::Port(LAN), "{frame:02x?}");
                    let n = u64::from(eth::dst(&frame).0[5] - 10);
                    assert_eq!(
                        *servers.entry(net).or_insert(n),
                        n,
                        "net {net}, round {round}"
                    );
                }
            }
        }
        let all = templates(&d, &snapshot);
        assert_eq!(all.len(), 25);
        let homes = d.workers.iter().filter(|w| !w.templates().is_empty());
        assert!(homes.count() >= 3, "they live all over");
        let controls = |d: &Director| {
            let mut sum = 0;
            for worker in &d.workers {
                worker.templates().page(0, u32::MAX, |t| {
                    sum += t.controls;
                    true
                });
            }
            sum
        };
        assert_eq!(controls(&d), 1000, "each connection once");
        for round in 0..20u16 {
            for net in 0..25u8 {
                let (host, port) = (1 + (round % 7) as u8, 2000 + round);
                for flags in [ACK, RST] {
                    d.exchange(WAN, &packet(net, host, port, flags).build());
                }
            }
        }
        d.now = d.now.after(Tick::seconds(12)); // CLOSE
        for _ in 0..50 {
            d.settle();
        }
        assert_eq!(controls(&d), 500);
        d.now = d.now.after(Tick::seconds(200)); // SYN_RECV too, and the templates
        for _ in 0..50 {
            d.settle();
        }
        assert_eq!((d.listing().len(), controls(&d)), (0, 0));
        d.now = d.now.after(Tick::seconds(61)); // armed again once
        d.settle();
        assert!(templates(&d, &snapshot).is_empty());
        d.assert_books();
    }
}
