//! Every choice of a real kernel's IPVS, open by open: Debian's Linux 6.1.192, one CPU. The
//! recording is `dataplane/tests/data/schedulers.jsonl.gz`, 492 cases.
//!
//! The harness keeps the kernel's list of servers (a new one goes to its head), its counts and its
//! overload bits, and drives the product's own `pick`. After a choice that differs on purpose
//! it follows the kernel.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv6Addr};

use flate2::read::GzDecoder;
use serde_json::Value;

use super::*;
use crate::counters::WorkerCounters;
use crate::sched::{buckets, mh};
use crate::types::{CoreId, ServerId};

/// Where Weir differs from the kernel on purpose: which choices, why, and how many there are in
/// the recording.
const DIFFERENCES: &[(Difference, &str, usize)] = &[
    (
        Difference::DrainedBucket,
        "sh, dh, mh: a client of a drained server gets another one; the kernel answers it with an \
         ICMP error, for as long as the server is listed",
        550,
    ),
    (
        Difference::Weights,
        "dh: shares follow weights; the kernel gives each server one bucket in turn",
        1_082,
    ),
    (
        Difference::Order,
        "mh: the table depends on the servers' addresses alone, so that nodes agree; the kernel's \
         on the order in which they were added",
        7,
    ),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Difference {
    DrainedBucket,
    Weights,
    Order,
}

/// A server in the kernel's list.
#[derive(Debug, Clone)]
struct Dest {
    rs: u32,
    weight: u32,
    last_weight: u32,
}

/// A server's thresholds, which it keeps while it has connections.
#[derive(Debug, Clone, Copy, Default)]
struct Thresholds {
    upper: u64,
    lower: u64,
    overloaded: bool,
}

struct Kernel {
    kind: SchedulerKind,
    options: Options,
    v6: bool,
    tcp: bool,
    port: u16,
    /// Head first.
    list: Vec<Dest>,
    thresholds: HashMap<u32, Thresholds>,
    /// Server and whether it counts as active.
    conns: HashMap<u64, (u32, bool)>,
    counters: Arc<WorkerCounters>,
    loads: Loads,
    memory: Memory,
    candidates: Vec<Candidate>,
    scheduler: Scheduler,
    /// With the table that the kernel makes, where Weir's is another.
    kernels: Option<Scheduler>,
}

impl Kernel {
    fn new(case: &Value) -> Kernel {
        let name = case["sched"].as_str().unwrap();
        let kind = *SchedulerKind::ALL
            .iter()
            .find(|k| k.name() == name)
            .unwrap();
        let flag = |flag: Option<&str>| {
            let flags = case["flags"].as_array().unwrap();
            flag.is_some() && flags.iter().any(|f| f.as_str() == flag)
        };
        let options = Options {
            port: flag(kind.flags().port),
            fallback: flag(kind.flags().fallback),
            rows: Rows::default(),
        };
        let counters = Arc::new(WorkerCounters::new(0));
        counters.servers.reserve(ServerId(0));
        let mut loads = Loads::new(Arc::clone(&counters), vec![]);
        loads.watch(256, std::iter::empty());
        let mut kernel = Kernel {
            kind,
            options,
            v6: case["af"] == 6,
            tcp: case["proto"] == "tcp",
            port: case["service"]["port"].as_u64().unwrap_or(0) as u16,
            list: vec![],
            thresholds: HashMap::new(),
            conns: HashMap::new(),
            counters,
            loads,
            memory: Memory::new(CoreId(0), 1, 7),
            candidates: vec![],
            scheduler: Scheduler::new(kind, options, &[]),
            kernels: None,
        };
        for server in case["servers"].as_array().unwrap() {
            kernel.add(server);
        }
        kernel
    }

    fn add(&mut self, server: &Value) {
        let (rs, weight) = (number(server, "rs") as u32, number(server, "w") as u32);
        let new = Dest {
            rs,
            weight,
            last_weight: weight,
        };
        self.list.insert(0, new);
        self.limit(rs, server);
        self.publish();
    }

    fn edit(&mut self, server: &Value) {
        let (rs, weight) = (number(server, "rs") as u32, number(server, "w") as u32);
        let dest = self.list.iter_mut().find(|d| d.rs == rs).unwrap();
        dest.weight = weight;
        if weight > 0 {
            dest.last_weight = weight;
        }
        self.limit(rs, server);
        self.publish();
    }

    fn delete(&mut self, rs: u32) {
        self.list.retain(|d| d.rs != rs);
        self.publish();
    }

    /// New thresholds: raising the upper one, or taking it away, clears the overload bit.
    fn limit(&mut self, rs: u32, server: &Value) {
        let t = self.thresholds.entry(rs).or_default();
        let upper = number(server, "x");
        if upper == 0 || upper > t.upper {
            t.overloaded = false;
        }
        (t.upper, t.lower) = (upper, number(server, "y"));
        self.loads.set_overloaded(ServerId(rs), t.overloaded);
    }

    fn address(&self, rs: u32) -> SocketAddr {
        let ip: IpAddr = match self.v6 {
            false => [10, 0, 2, rs as u8].into(),
            true => Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, rs as u16).into(),
        };
        SocketAddr::new(ip, self.port)
    }

    fn publish(&mut self) {
        let candidate = |d: &Dest| Candidate {
            id: ServerId(d.rs),
            address: self.address(d.rs),
            weight: d.weight,
            hashed: match self.kind {
                SchedulerKind::mh => d.last_weight,
                _ => d.weight,
            },
        };
        let candidates: Vec<_> = self.list.iter().map(candidate).collect();
        self.scheduler = self.scheduler.renewed(self.kind, self.options, &candidates);
        let table = match self.kind {
            SchedulerKind::mh => {
                let order: Vec<_> = (0..candidates.len()).collect();
                Some(Table::Rows(mh::fill(
                    &candidates,
                    &order,
                    self.options.rows,
                )))
            }
            SchedulerKind::dh => {
                let equal = |c: &Candidate| Candidate { hashed: 1, ..*c };
                let equal: Vec<_> = candidates.iter().map(equal).collect();
                Some(Table::Buckets(buckets::in_turn(&equal)))
            }
            _ => None,
        };
        self.kernels = table.map(|table| self.scheduler.with_table(table));
        self.memory
            .adopt(&self.candidates, &self.scheduler, &candidates);
        self.candidates = candidates;
    }

    fn count(&mut self, rs: u32, active: bool, by: i64) {
        let cells = self.counters.servers.get(ServerId(rs)).unwrap();
        let cell = if active {
            &cells.active
        } else {
            &cells.inactive
        };
        match by {
            1 => cell.add(1),
            _ => cell.sub(1),
        }
        let total = cells.active.get() + cells.inactive.get();
        let t = self.thresholds.entry(rs).or_default();
        if by > 0 && t.upper != 0 && total >= t.upper {
            t.overloaded = true;
        }
        if by < 0 {
            let clear = match (t.lower, t.upper) {
                (0, 0) => true,
                (0, upper) => total * 4 < upper * 3,
                (lower, _) => total < lower,
            };
            t.overloaded &= !clear;
        }
        self.loads.set_overloaded(ServerId(rs), t.overloaded);
    }

    fn close(&mut self, id: u64) {
        let (rs, active) = self.conns[&id];
        if active {
            self.conns.insert(id, (rs, false));
            // Straight to the gauges: a change of state asks no threshold.
            let cells = self.counters.servers.get(ServerId(rs)).unwrap();
            cells.active.sub(1);
            cells.inactive.add(1);
        }
    }

    /// The choice for an `open`, or why it differs from the kernel's.
    fn open(&mut self, case: &Value, open: &Value) -> Option<Difference> {
        let source: IpAddr = open["src"].as_str().unwrap().parse().unwrap();
        let destination = open["dst"].as_str().or(case["service"]["vip"].as_str());
        let request = Request {
            key: None,
            source: SocketAddr::new(source, number(open, "sport") as u16),
            destination: destination.unwrap().parse().unwrap(),
            now: Tick(0),
        };
        let mut pick = |scheduler: &Scheduler| {
            let at = scheduler.pick(
                &self.candidates,
                &mut self.loads,
                &request,
                &mut self.memory,
            );
            at.map(|at| self.candidates[at].id.0)
        };
        let want = open["rs"].as_u64().map(|rs| rs as u32);
        let mut got = pick(&self.scheduler);
        let mut why = None;
        if got != want
            && let Some(kernels) = &self.kernels
        {
            why = match self.kind {
                SchedulerKind::dh => Some(Difference::Weights),
                _ => Some(Difference::Order),
            };
            got = pick(kernels);
        }
        if got != want {
            let hashes = matches!(
                self.kind,
                SchedulerKind::sh | SchedulerKind::dh | SchedulerKind::mh
            );
            let drained = self.list.iter().any(|d| d.weight == 0);
            assert!(
                hashes && drained && want.is_none(),
                "{}: {open}: chose {got:?} of {:?}",
                case["case"],
                self.list
            );
            why = Some(Difference::DrainedBucket);
        }
        if let Some(rs) = want {
            self.conns.insert(number(open, "id"), (rs, self.tcp));
            self.count(rs, self.tcp, 1);
        }
        why
    }

    /// The kernel's listing is the harness's.
    fn assert_counts(&self, case: &Value, event: &Value) {
        let row = |s: &Value| ["rs", "w", "active", "inactive"].map(|k| number(s, k));
        let want: Vec<_> = event["servers"]
            .as_array()
            .unwrap()
            .iter()
            .map(row)
            .collect();
        let own = |d: &Dest| {
            let load = self.loads.of(ServerId(d.rs));
            [d.rs.into(), d.weight.into(), load.active, load.inactive]
        };
        let got: Vec<_> = self.list.iter().map(own).collect();
        assert_eq!(got, want, "{}: {event}", case["case"]);
    }

    fn run(&mut self, case: &Value, found: &mut BTreeMap<Difference, usize>) {
        for event in case["events"].as_array().unwrap() {
            match event["ev"].as_str().unwrap() {
                "open" => {
                    if let Some(why) = self.open(case, event) {
                        *found.entry(why).or_default() += 1;
                    }
                }
                "ack" => {}
                "fin" | "rst" => self.close(number(event, "id")),
                "expire" => {
                    for id in event["ids"].as_array().unwrap() {
                        let (rs, active) = self.conns.remove(&id.as_u64().unwrap()).unwrap();
                        self.count(rs, active, -1);
                    }
                }
                "edit" => self.edit(event),
                "add" => self.add(event),
                "del" => self.delete(number(event, "rs") as u32),
                "counts" => self.assert_counts(case, event),
                other => panic!("event {other}"),
            }
        }
    }
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap()
}

fn cases() -> impl Iterator<Item = Value> {
    let data = &include_bytes!("../../../tests/data/schedulers.jsonl.gz")[..];
    let lines = BufReader::new(GzDecoder::new(data)).lines();
    lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap())
}

#[test]
fn every_choice_is_the_kernels() {
    let mut found = BTreeMap::new();
    let mut n = 0;
    for case in cases().filter(|c| c["sched"] != "twos") {
        Kernel::new(&case).run(&case, &mut found);
        n += 1;
    }
    assert_eq!(n, 477);
    let listed: BTreeMap<_, _> = DIFFERENCES.iter().map(|d| (d.0, d.2)).collect();
    assert_eq!(found, listed);
}

/// twos draws, so its cases have shares: of picks whose connections are never counted, and of
/// connections that stay.
#[test]
fn twos_has_the_kernels_shares() {
    let mut n = 0;
    for case in cases().filter(|c| c["sched"] == "twos") {
        let mut kernel = Kernel::new(&case);
        let opens = number(&case, "opens");
        let mut chosen = BTreeMap::<Option<u32>, u64>::new();
        for open in 0..opens {
            let at = kernel.scheduler.pick(
                &kernel.candidates,
                &mut kernel.loads,
                &request(open as u32),
                &mut kernel.memory,
            );
            let rs = at.map(|at| kernel.candidates[at].id.0);
            *chosen.entry(rs).or_default() += 1;
            if let Some(rs) = rs
                && case["ops"] == false
            {
                kernel.count(rs, kernel.tcp, 1);
            }
        }
        let sum: u64 = kernel.list.iter().map(|d| u64::from(d.weight)).sum();
        for dest in &kernel.list {
            let got = chosen.get(&Some(dest.rs)).copied().unwrap_or(0);
            let share = (opens * u64::from(dest.weight))
                .checked_div(sum)
                .unwrap_or(0);
            let (want, within) = match case["ops"] == true {
                // Draws: five standard deviations. Not the kernel's own shares, see twos.rs.
                true => (share, 5 * share.isqrt()),
                false => (
                    number(&case["distribution"], &dest.rs.to_string()),
                    opens / 200,
                ),
            };
            let case = &case["case"];
            assert!(
                got.abs_diff(want) <= within,
                "{case}: {}: {got}, not {want}",
                dest.rs
            );
        }
        let refused = chosen.get(&None).copied().unwrap_or(0);
        assert_eq!(
            refused,
            case["distribution"]["icmp3/3"].as_u64().unwrap_or(0)
        );
        n += 1;
    }
    assert_eq!(n, 15);
}
