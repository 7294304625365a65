//! Every scheduler by real curl: who gets how many of some sixty requests, what long downloads
//! change about it, and what a drained or a full server does.
//!
//! Each scheduler is a service on a port of its own; behind all of them rs1, rs2 and rs3 with
//! weights 1, 2 and 3, and rs4, which is drained and must never be heard of. The exact sequences
//! are held to the kernel's in `dataplane/src/sched/tests/`; here it is what an operator would see.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::client::{Held, curl};
use crate::config::{Config, LIPS};
use crate::servers::{Nginx, write_noise};
use crate::topology::{CLIENT, Lab, VIP, checked, eventually, rip, text};
use crate::weir::Director;

/// (a service's name, its scheduler, its flags). The first one is on [`FIRST_PORT`].
const SERVICES: &[(&str, &str, &str)] = &[
    ("rr", "rr", ""),
    ("wrr", "wrr", ""),
    ("lc", "lc", ""),
    ("wlc", "wlc", ""),
    ("lblc", "lblc", ""),
    ("lblcr", "lblcr", ""),
    ("dh", "dh", ""),
    ("sh", "sh", ""),
    ("sh-port", "sh", "sh-port"),
    ("sh-full", "sh", ""),
    ("sh-fallback", "sh", "sh-fallback"),
    ("sed", "sed", ""),
    ("nq", "nq", ""),
    ("fo", "fo", ""),
    ("ovf", "ovf", ""),
    ("mh", "mh", ""),
    ("mh-port", "mh", "mh-port"),
    ("mh-full", "mh", ""),
    ("mh-fallback", "mh", "mh-fallback"),
    ("twos", "twos", ""),
    ("conhash", "conhash", ""),
];
const FIRST_PORT: u16 = 8000;
/// Services whose servers have a threshold: a flag says what becomes of a full server's clients.
const FULL_AT_THREE: [&str; 4] = ["sh-full", "sh-fallback", "mh-full", "mh-fallback"];
/// Requests to a service; a multiple of the sum of weights.
const REQUESTS: usize = 60;
/// A download of so many bytes does not fit the buffers on its way.
const LONG: usize = 16 << 20;
/// Workers read each other's counts once in a tick of 1/64 s.
const A_LOOK: Duration = Duration::from_millis(30);

/// How many requests went to rs1, rs2 and rs3.
type Shares = [usize; 3];

#[test]
fn each_scheduler_keeps_its_promise() {
    let Some(lab) = Lab::new(4) else { return };
    let nginx = Nginx::in_all(&lab);
    for (seed, server) in (1..).zip(&nginx) {
        write_noise(&server.files().join("long"), LONG, seed);
    }
    // A client's port is free for the next connection at once, whoever closed the last one.
    lab.client.run("sysctl -q -w net.ipv4.tcp_max_tw_buckets=0");
    // The hashing ones choose alike on any number of workers.
    let one = promises(&lab, 1);
    let three = promises(&lab, 3);
    assert_eq!(one, three);
}

/// Plays everything with so many workers; what the hashing schedulers chose.
fn promises(lab: &Lab, workers: usize) -> Vec<Vec<usize>> {
    println!("{workers} workers");
    let house = House {
        lab,
        workers,
        weir: Director::start(lab, &config(workers, [1, 2, 3, 0])),
    };
    house.add_clients();
    house.those_in_turn();
    house.those_that_count();
    house.those_that_prefer_one();
    house.long_downloads();
    let chosen = house.those_that_hash();
    house.a_full_server();
    house.a_drained_server();
    chosen
}

fn config(workers: usize, weights: [u16; 4]) -> Config {
    let mut toml = String::new();
    for (&(name, scheduler, flags), port) in SERVICES.iter().zip(FIRST_PORT..) {
        let flags = match flags {
            "" => String::new(),
            flag => format!("scheduler_flags = [\"{flag}\"]\n"),
        };
        let threshold = match FULL_AT_THREE.contains(&name) {
            true => "upper_threshold = 3\n",
            false => "",
        };
        let _ = write!(
            toml,
            "
[[service]]
name = \"{name}\"
address = \"{VIP}:{port}\"
protocol = \"tcp\"
scheduler = \"{scheduler}\"
{flags}forward = \"fullnat\"
local_addresses = [\"{LIPS}\"]
"
        );
        for (number, weight) in (1..).zip(weights) {
            let rip = rip(number);
            let _ = write!(
                toml,
                "
[[service.real_server]]
address = \"{rip}:80\"
weight = {weight}
{threshold}"
            );
        }
    }
    Config::new(workers).tables(&toml)
}

/// Where a service is.
fn vip(service: &str) -> SocketAddr {
    let at = SERVICES.iter().position(|&(name, ..)| name == service);
    let at = u16::try_from(at.expect("a service of SERVICES")).expect("few");
    SocketAddr::from((VIP, FIRST_PORT + at))
}

/// The number in a server's name.
fn number(name: &str) -> usize {
    let digits = name.strip_prefix("rs").expect("a server's name");
    digits.parse().expect("a number")
}

fn shares(servers: impl IntoIterator<Item = usize>) -> Shares {
    let mut shares = [0; 3];
    for server in servers {
        assert!(server < 4, "rs4 is drained");
        shares[server - 1] += 1;
    }
    shares
}

/// How far the shares are from these.
fn off(got: Shares, want: Shares) -> usize {
    let each = got.iter().zip(want).map(|(got, want)| got.abs_diff(want));
    each.max().expect("three")
}

/// Twelve addresses of the client's.
fn clients() -> impl Iterator<Item = Ipv4Addr> {
    (32..44).map(|n| Ipv4Addr::new(10, 0, 0, n))
}

/// The laboratory with its director.
struct House<'lab> {
    lab: &'lab Lab,
    workers: usize,
    weir: Director<'lab>,
}

impl House<'_> {
    fn add_clients(&self) {
        let device = self.lab.client.interfaces();
        let device = device.first().expect("a link to the director");
        for client in clients() {
            let (client, ip) = (format!("{client}/24"), &self.lab.client);
            ip.ip(&format!("addr replace {client} dev {device}"));
        }
    }

    /// Who answered, one request after the other, each on a connection of its own. `from` are the
    /// client's addresses and, where it is not 0, ports.
    fn ask(&self, service: &str, from: &[(Ipv4Addr, u16)], times: usize) -> Vec<usize> {
        let mut curl = curl(self.lab);
        for (n, (address, port)) in from.iter().enumerate() {
            if n > 0 {
                curl.args(["--next", "--silent", "--show-error", "--fail"]);
            }
            curl.args(["-H", "Connection: close", "--interface"]);
            curl.arg(address.to_string());
            if *port != 0 {
                curl.args(["--local-port", &port.to_string()]);
            }
            curl.arg(format!("http://{}/[1-{times}]", vip(service)));
        }
        let answers = text(checked(&mut curl));
        let answers: Vec<_> = answers.lines().map(number).collect();
        assert_eq!(answers.len(), from.len() * times, "{service}: {answers:?}");
        answers
    }

    /// How the requests of one client are shared out.
    fn requests(&self, service: &str) -> Shares {
        let shares = shares(self.ask(service, &[(CLIENT, 0)], REQUESTS));
        println!("{service}: {shares:?}");
        shares
    }

    /// The same, each when the one before is over and every worker knows.
    fn paced_requests(&self, service: &str) -> Shares {
        if self.workers == 1 {
            return self.requests(service);
        }
        let one = |_| {
            self.until_active(service, [0; 3]);
            self.ask(service, &[(CLIENT, 0)], 1)
        };
        let shares = shares((0..REQUESTS).flat_map(one));
        println!("{service}: {shares:?}, paced");
        shares
    }

    /// Begins `count` downloads, one after the other, that go on until they are dropped; and from
    /// which server each comes.
    fn download(&self, service: &str, count: usize) -> Vec<(usize, Held)> {
        let begin = |n| {
            if n > 0 && self.workers > 1 {
                std::thread::sleep(A_LOOK);
            }
            let mut held = Held::open_to(self.lab, vip(service));
            let head = held.get("/files/long").expect("an answer");
            assert_eq!(head.length, LONG);
            (number(&head.server), held)
        };
        (0..count).map(begin).collect()
    }

    /// Whether the client's next connection is refused.
    fn refuses(&self, service: &str) -> bool {
        let mut curl = curl(self.lab);
        let curl = curl.arg(format!("http://{}/", vip(service))).output();
        // CURLE_COULDNT_CONNECT
        curl.expect("curl is installed").status.code() == Some(7)
    }

    /// rr and wrr: exact with one worker. Each worker takes turns of its own, and is less than a
    /// connection away from each server's share.
    fn those_in_turn(&self) {
        let most = if self.workers == 1 { 0 } else { self.workers };
        let rr = self.requests("rr");
        assert!(off(rr, [20, 20, 20]) <= most, "{rr:?}");
        let wrr = self.requests("wrr");
        assert!(off(wrr, [10, 20, 30]) <= most, "{wrr:?}");
    }

    /// What counts connections shares out those that are over, too: they are remembered for as
    /// long as TIME_WAIT lasts.
    fn those_that_count(&self) {
        // A request may find the one before still open; twos draws lots.
        for (service, want, most) in [
            ("lc", [20, 20, 20], 2),
            ("wlc", [10, 20, 30], 2),
            ("twos", [10, 20, 30], 10),
        ] {
            let got = self.paced_requests(service);
            assert!(off(got, want) <= most, "{service}: {got:?}");
        }
    }

    /// Requests one at a time, with nothing else to do: those that only count active connections
    /// see idle servers each time.
    fn those_that_prefer_one(&self) {
        for (service, want) in [("fo", [0, 0, REQUESTS]), ("ovf", [0, 0, REQUESTS])] {
            assert_eq!(self.requests(service), want, "{service}");
        }
        let dh = self.requests("dh");
        assert!(dh.contains(&REQUESTS), "one address, one server: {dh:?}");
        assert_eq!(self.paced_requests("sed"), [0, 0, REQUESTS], "the fastest");
        let nq = self.paced_requests("nq");
        assert_eq!(nq, [REQUESTS, 0, 0], "the first that is idle");
        for service in ["lblc", "lblcr"] {
            let got = self.requests(service);
            let used = got.iter().filter(|&&n| n > 0).count();
            assert!(used <= self.workers, "{service}: {got:?}");
        }
    }

    /// Twelve downloads that go on: shares by weights, without weights, or what each server may
    /// have. Then those of rs3 end, and as many again go where there is room.
    fn long_downloads(&self) {
        for (service, want) in [
            ("lc", [4, 4, 4]),
            ("wlc", [2, 4, 6]),
            ("sed", [2, 4, 6]),
            ("nq", [2, 4, 6]),
        ] {
            let mut held = self.download(service, 12);
            assert_eq!(shares(held.iter().map(|h| h.0)), want, "{service}");
            held.retain(|&(server, _)| server != 3);
            self.until_active(service, [want[0], want[1], 0]);
            let again = self.download(service, want[2]);
            let again = shares(again.iter().map(|h| h.0));
            assert_eq!(again, [0, 0, want[2]], "{service}");
        }
        let held = self.download("twos", 12);
        let twos = shares(held.iter().map(|h| h.0));
        assert!(off(twos, [2, 4, 6]) <= 6, "{twos:?}");

        // One more than its weight, and the next server; then there is none.
        let held = self.download("ovf", 9);
        let servers: Vec<_> = held.iter().map(|h| h.0).collect();
        assert_eq!(servers, [3, 3, 3, 3, 2, 2, 2, 1, 1]);
        assert!(self.refuses("ovf"));
        drop(held);
        self.until_active("ovf", [0; 3]);
        assert_eq!(self.ask("ovf", &[(CLIENT, 0)], 3), [3; 3]);

        // An address leaves its server when that is overloaded and another has time.
        for service in ["lblc", "lblcr"] {
            let held = self.download(service, 12);
            let got = shares(held.iter().map(|h| h.0));
            println!("{service}: {got:?} long ones");
            for (active, weight) in got.into_iter().zip(1..) {
                assert!(
                    active * 2 >= weight,
                    "{service}: idle beside others: {got:?}"
                );
            }
            if self.workers == 1 {
                let want = if service == "lblc" {
                    [2, 3, 7]
                } else {
                    [2, 4, 6]
                };
                assert_eq!(got, want, "{service}");
            }
        }
    }

    /// Waits until the service's servers have so many active connections.
    fn until_active(&self, service: &str, want: Shares) {
        eventually(Duration::from_secs(5), service, || {
            let listed = self.weir.json(&["services"]);
            let mut services = listed["services"].as_array().expect("a list").iter();
            let service = services.find(|s| s["name"] == service).expect("listed");
            let servers = service["servers"].as_array().expect("a list").iter();
            let active = servers.map(|s| s["active"].as_u64().expect("a count"));
            let want = want.iter().map(|&n| n as u64).chain([0]);
            active.eq(want).then_some(())
        });
        std::thread::sleep(A_LOOK);
    }

    /// A client keeps its server. Where the port counts, a client's connections spread, and one
    /// from the same port comes back.
    fn those_that_hash(&self) -> Vec<Vec<usize>> {
        let addresses: Vec<_> = clients().map(|client| (client, 0)).collect();
        let client = Ipv4Addr::new(10, 0, 0, 32);
        let ports: Vec<_> = (0..12).map(|n| (client, 30_000 + 7 * n)).collect();
        let mut all = Vec::new();
        for (service, from, times) in [
            ("sh", &addresses, 3),
            ("mh", &addresses, 3),
            ("conhash", &addresses, 5),
            ("sh-port", &ports, 1),
            ("mh-port", &ports, 1),
        ] {
            let got = self.ask(service, from, times);
            let chosen: Vec<_> = got.chunks(times).map(|each| each[0]).collect();
            println!("{service}: {chosen:?}");
            for (from, each) in from.iter().zip(got.chunks(times)) {
                let same = each.iter().all(|server| *server == each[0]);
                assert!(same, "{service}: {from:?}: {each:?}");
            }
            assert_eq!(self.ask(service, from, times), got, "{service}, again");
            let shares = shares(chosen.iter().copied());
            assert!(shares.iter().filter(|n| **n > 0).count() > 1, "{service}");
            all.push(chosen);
        }
        all
    }

    /// A client whose server is full is refused, unless a flag says that it may go elsewhere.
    fn a_full_server(&self) {
        for (without, with) in [("sh-full", "sh-fallback"), ("mh-full", "mh-fallback")] {
            let three = |service| {
                let held = self.download(service, 3);
                let own = held[0].0;
                assert!(held.iter().all(|h| h.0 == own), "{service}");
                (own, held)
            };
            let (own, _held) = three(without);
            assert!(self.refuses(without), "{without}: rs{own} is full");
            let (same, _held) = three(with);
            assert_eq!(same, own, "only a full server makes a difference");
            let fourth = self.ask(with, &[(CLIENT, 0)], 1);
            assert!(fourth[0] != own && fourth[0] != 4, "{with}: {fourth:?}");
        }
    }

    /// With rs3 drained nobody gets a new connection there; and by the ring no client moves that
    /// need not.
    fn a_drained_server(&self) {
        let ring = |house: &Self| {
            let from: Vec<_> = clients().map(|client| (client, 0)).collect();
            house.ask("conhash", &from, 1)
        };
        let before = ring(self);
        self.weir.reload_to(&config(self.workers, [1, 2, 0, 0]));
        for &(service, ..) in SERVICES {
            if FULL_AT_THREE.contains(&service) {
                continue;
            }
            let got = shares(self.ask(service, &[(CLIENT, 0)], 6));
            assert_eq!(got[2], 0, "{service}: {got:?}");
        }
        assert_eq!(self.ask("fo", &[(CLIENT, 0)], 6), [2; 6]);
        for (before, now) in before.iter().zip(ring(self)) {
            assert!(now == *before || *before == 3 && now < 3, "{before}, {now}");
        }
    }
}
