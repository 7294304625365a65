mod access;
mod ports;
mod right;
mod services;
mod shipped;
mod snat;
mod surprises;

use std::net::{IpAddr, SocketAddr};

use super::*;

/// A right file that the tables of mistakes change in one place each.
const BASE: &str = r#"[workers]
count = 2
memory = "256MiB"
max_connections = 200_000
hugepages = false
idle = "auto"

[[port]]
name = "wan0"
device = "0000:3b:00.0"
addresses = ["10.0.0.2/24"]
mtu = 1500

[[port]]
name = "lan0"
device = "net_tap0,iface=dt0"
addresses = ["10.1.0.2/24"]

[[service]]
name = "web"
address = "10.0.0.10:80"
protocol = "tcp"
scheduler = "wrr"
forward = "fullnat"
local_addresses = ["10.1.0.100-10.1.0.103"]

[[service.real_server]]
name = "web-1"
address = "10.1.0.11:80"
weight = 100

[[service.real_server]]
address = "10.1.0.12:80"

[[service]]
name = "dns"
address = "10.0.0.10:53"
protocol = "udp"
local_addresses = ["10.1.0.100-10.1.0.103"]

[[service.real_server]]
address = "10.1.0.11:53"

[timeouts]
udp = "30s"

[addresses]
vips = "managed"

[log]
level = "info"
"#;

fn shipped(name: &str) -> String {
    let path = format!("{}/../configs/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
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

/// Four CPUs, the last two not in one piece with the others.
fn machine() -> Machine {
    Machine {
        cores: vec![0, 1, 2, 5],
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn right(text: &str) -> Config {
    parse("weir.toml", text, &machine()).unwrap_or_else(|report| panic!("{report}"))
}

fn wrong(text: &str) -> String {
    parse("weir.toml", text, &machine())
        .expect_err("accepted")
        .to_string()
}

/// One row of `wrong.txt`.
#[derive(Debug, Default)]
struct Mistake {
    title: String,
    what: Vec<String>,
    by: Vec<String>,
    report: Vec<String>,
}

impl Mistake {
    fn all() -> Vec<Mistake> {
        let mut all: Vec<Mistake> = Vec::new();
        for line in include_str!("tests/wrong.txt").lines() {
            if let Some(title) = line.strip_prefix("== ") {
                let title = title.to_owned();
                all.push(Mistake {
                    title,
                    ..Mistake::default()
                });
            }
            let Some(last) = all.last_mut() else {
                continue;
            };
            match line.split_at_checked(2) {
                Some(("- ", rest)) => last.what.push(rest.to_owned()),
                Some(("+ ", rest)) => last.by.push(rest.to_owned()),
                Some(("! ", rest)) => last.report.push(rest.to_owned()),
                _ => assert!(line.is_empty() || "#=".contains(&line[..1]), "{line}"),
            }
        }
        all
    }

    /// [`BASE`] with this mistake in it.
    fn text(&self) -> String {
        let (what, by) = match self.by.is_empty() {
            true => (self.what.join("\n") + "\n", String::new()),
            false => (self.what.join("\n"), self.by.join("\n")),
        };
        let title = &self.title;
        assert_eq!(
            BASE.matches(&what).count(),
            1,
            "{title}: {what:?} must be in BASE once"
        );
        BASE.replace(&what, &by)
    }
}

#[test]
fn every_mistake_is_found_alone_and_in_its_words() {
    let all = Mistake::all();
    assert!(all.len() >= 45);
    let mut failures = String::new();
    for mistake in &all {
        let found = match parse("weir.toml", &mistake.text(), &machine()) {
            Ok(_) => "accepted".to_owned(),
            Err(report) => report.to_string(),
        };
        if found != mistake.report.join("\n") {
            failures += &format!("== {}\n! {}\n", mistake.title, found.replace('\n', "\n! "));
        }
    }
    assert!(failures.is_empty(), "found instead:\n{failures}");
}

/// Found by fuzzing: where a mistake stands was counted anew for each pair of them, which took
/// minutes for a file like this one.
#[test]
fn a_large_file_of_nothing_but_mistakes_is_refused_at_once() {
    let text = "a = \n".repeat(30_000);
    let report = parse("weir.toml", &text, &machine()).unwrap_err();
    assert_eq!(report.problems.len(), 30_000);
    assert_eq!(
        report.problems[29_999].position.map(|at| at.0),
        Some(30_000)
    );
}
