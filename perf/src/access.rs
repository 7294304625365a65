//! Access lists: how long a list takes to compile, its bytes a network, and a question's time.

use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

use serde::Serialize;
use weir_dataplane::defense::access::{Prefix, Rules};

use crate::table::{self, Row, count};

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Networks in a list, one row of each kind for each.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 1_000_000])]
    networks: Vec<u32>,
    /// Questions, each about another address.
    #[arg(long, default_value_t = 10_000_000)]
    questions: u32,
}

#[derive(Debug, Serialize)]
struct Measured {
    kind: &'static str,
    networks: u32,
    compile_ms: f64,
    bytes_per_network: f64,
    /// A question whose address hangs on the last answer: the whole way, nothing overlapped.
    latency_ns: f64,
    /// Questions one after another, which a processor overlaps.
    ns: f64,
    /// Part of the questions whose answer was "denied".
    denied: f64,
}

impl Row for Measured {
    const TITLES: &'static [&'static str] = &[
        "list",
        "networks",
        "compile ms",
        "bytes/network",
        "ns/question alone",
        "ns/question",
        "denied",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.kind.into(),
            count(f64::from(self.networks)),
            format!("{:.1}", self.compile_ms),
            format!("{:.1}", self.bytes_per_network),
            format!("{:.1}", self.latency_ns),
            format!("{:.1}", self.ns),
            format!("{:.0} %", self.denied * 100.0),
        ]
    }
}

/// splitmix64.
fn mix(n: u64) -> u64 {
    let z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// How a list's networks lie: the n-th of them.
type Lie = fn(u64) -> Prefix;

/// Kinds of lists: hosts apart, as a blacklist has them; networks of the lengths of a routing
/// table, which nest; IPv6 sites and hosts.
const KINDS: [(&str, Lie); 4] = [
    ("IPv4 hosts", |n| v4(mix(n) as u32, 32)),
    ("IPv4 networks, /16 to /28", |n| {
        v4(mix(n) as u32, 16 + (mix(n ^ 77) % 13) as u8)
    }),
    ("IPv6 sites, /48", |n| v6(global(mix(n), 0), 48)),
    ("IPv6 hosts", |n| v6(global(mix(n), mix(n ^ 77)), 128)),
];

fn v4(addr: u32, len: u8) -> Prefix {
    let addr = IpAddr::V4(addr.into());
    Prefix { addr, len }
}

fn v6(addr: u128, len: u8) -> Prefix {
    let addr = IpAddr::V6(addr.into());
    Prefix { addr, len }
}

/// A global address: 2000::/3.
fn global(high: u64, low: u64) -> u128 {
    u128::from(high >> 3 | 1 << 61) << 64 | u128::from(low)
}

pub(crate) fn run(args: &Args, json: bool) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for &networks in &args.networks {
        for (kind, lie) in KINDS {
            rows.push(measure(kind, lie, networks, args.questions));
        }
    }
    table::print("access", &rows, json)
}

fn measure(kind: &'static str, lie: Lie, networks: u32, questions: u32) -> Measured {
    let mut rules = Rules::default();
    for n in 0..networks {
        rules.add(lie(n.into()), true);
    }
    let begin = Instant::now();
    let denied = rules.compile(false);
    let compile_ms = begin.elapsed().as_secs_f64() * 1e3;

    // Half of the questions about addresses in the list, half about others like them.
    let ask = |n: u64| match n % 2 {
        0 => lie(mix(n) % u64::from(networks)).addr,
        _ => lie(n << 32).addr,
    };
    let asked: Vec<IpAddr> = (0..1 << 16).map(ask).collect();
    let time = |mut question: Box<dyn FnMut(u32) -> bool + '_>| {
        let begin = Instant::now();
        let yes = (0..questions).filter(|n| question(*n)).count();
        let ns = begin.elapsed().as_secs_f64() * 1e9 / f64::from(questions);
        (ns, yes as f64 / f64::from(questions))
    };
    let (ns, yes) = time(Box::new(|n| {
        denied.denies(black_box(asked[n as usize & 0xffff]))
    }));
    let mut last = 0;
    let (latency_ns, _) = time(Box::new(|n| {
        let answer = denied.denies(asked[n as usize & 0xffff ^ last]);
        last = usize::from(black_box(answer));
        answer
    }));
    Measured {
        kind,
        networks,
        compile_ms,
        bytes_per_network: denied.bytes() as f64 / f64::from(networks),
        latency_ns,
        ns,
        denied: yes,
    }
}
