//! Which of thousands of ordered rules is the first that a packet meets.
//!
//! A rule asks something of each field. For every field the values are cut into the intervals
//! between which no rule's mind changes, and each interval has a row of bits: which rules a
//! value there satisfies. A packet's rows, one a field, are found by binary search; the lowest
//! bit that is in all of them is the answer (the bit-vector scheme of Lakshman and Stiliadis,
//! SIGCOMM 1998). Bits are looked at in groups of 512, a cache line that the processor takes in a
//! few steps, and each row begins with a bit for every group that is not empty, so that most groups
//! are not looked at (after Baboescu and Varghese, SIGCOMM 2001). Rows that are equal are kept
//! once. The time hardly depends on the rules' shape: neither thousands for one address nor
//! thousands of sources slow it down.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::IpAddr;

use foldhash::fast::RandomState;

use super::key::{AddressRange, Asked, PortRange};
use crate::types::{PortId, Proto};

#[cfg(test)]
mod tests;

/// What a rule asks of a packet. An empty list, and `None`, ask nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pattern {
    /// Where it comes from.
    pub sources: Vec<AddressRange>,
    /// Where it wants to go.
    pub destinations: Vec<AddressRange>,
    /// The ports there.
    pub ports: Vec<PortRange>,
    /// Its protocol.
    pub proto: Option<Proto>,
    /// The port (network card) that it arrived on; in a rule of SNAT, that it leaves by.
    pub arrival: Option<PortId>,
}

impl Pattern {
    /// Whether a packet meets it: what [`Classifier::first`] says of one rule, told plainly.
    #[must_use]
    pub fn meets(&self, asked: &Asked) -> bool {
        let (to, from) = (asked.destination, asked.source);
        let any = |ranges: &[AddressRange], address| {
            ranges.is_empty() || ranges.iter().any(|range| range.contains(address))
        };
        any(&self.sources, from)
            && any(&self.destinations, to.ip())
            && (self.ports.is_empty() || self.ports.iter().any(|r| r.contains(to.port())))
            && self.proto.is_none_or(|proto| proto == asked.proto)
            && self.arrival.is_none_or(|port| port == asked.port)
    }
}

/// Where a row is: its number. Row 0 has no bit.
type RowId = u32;
const NOBODY: RowId = 0;
const PROTOS: [Proto; 4] = [Proto::Tcp, Proto::Udp, Proto::Sctp, Proto::Icmp];

/// Words of a group: a cache line.
const GROUP: usize = 8;

/// Rules, compiled. Immutable; made outside the workers, which may take milliseconds.
#[derive(Debug)]
pub struct Classifier {
    /// Words of a row's summary, a bit a group, and of the whole row.
    summary: usize,
    stride: usize,
    rows: Box<[u64]>,
    sources: Addresses,
    destinations: Addresses,
    ports: Intervals<u16>,
    protos: [RowId; PROTOS.len()],
    /// By port number; ports beyond the last that a rule names have the last row.
    arrivals: Box<[RowId]>,
}

impl Classifier {
    /// Compiles `rules`, the first of them to be asked first.
    #[must_use]
    pub fn new(rules: &[Pattern]) -> Classifier {
        let mut rows = Rows::new(rules.len());
        let nobody = rows.id(&vec![0; rows.words]);
        debug_assert_eq!(nobody, NOBODY);
        let sources = Addresses::new(rules, |rule| &rule.sources, &mut rows);
        let destinations = Addresses::new(rules, |rule| &rule.destinations, &mut rows);
        let ports = rules.iter().map(|rule| {
            let cut = |r: &PortRange| (r.first(), r.last().checked_add(1));
            Asks::of(&rule.ports, |range| Some(cut(range)))
        });
        let ports = Intervals::new(0, ports, &mut rows);
        let protos =
            PROTOS.map(|proto| rows.of(|at| rules[at].proto.is_none_or(|wanted| wanted == proto)));
        let named = rules.iter().filter_map(|rule| rule.arrival).max();
        let last = named.map_or(0, |port| usize::from(port.0) + 1);
        let arrivals = (0..=last).map(|port| {
            rows.of(|at| {
                let wanted = rules[at].arrival;
                wanted.is_none_or(|wanted| usize::from(wanted.0) == port)
            })
        });
        let arrivals = arrivals.collect();
        Classifier {
            summary: rows.summary,
            stride: rows.summary + rows.words,
            rows: rows.all.into(),
            sources,
            destinations,
            ports,
            protos,
            arrivals,
        }
    }

    /// The first rule that the packet meets.
    #[inline]
    #[must_use]
    pub fn first(&self, asked: &Asked) -> Option<usize> {
        let destination = self.destinations.row(asked.destination.ip());
        if destination == NOBODY {
            return None; // most packets that are nobody's end here
        }
        let last = self.arrivals.len() - 1;
        let proto = PROTOS.iter().position(|proto| *proto == asked.proto)?;
        let rows = [
            destination,
            self.sources.row(asked.source),
            self.ports.row(asked.destination.port()),
            self.protos[proto],
            self.arrivals[usize::from(asked.port.0).min(last)],
        ];
        let rows = rows.map(|id| &self.rows[id as usize * self.stride..][..self.stride]);
        for summary in 0..self.summary {
            let mut groups = rows.iter().fold(u64::MAX, |all, row| all & row[summary]);
            while groups != 0 {
                let group = summary * 64 + groups.trailing_zeros() as usize;
                let mut met = [u64::MAX; GROUP];
                for row in &rows {
                    let words = row[self.summary + group * GROUP..].first_chunk::<GROUP>()?;
                    met.iter_mut()
                        .zip(words)
                        .for_each(|(met, word)| *met &= word);
                }
                if let Some(word) = met.iter().position(|met| *met != 0) {
                    let bit = met[word].trailing_zeros() as usize;
                    return Some((group * GROUP + word) * 64 + bit);
                }
                groups &= groups - 1;
            }
        }
        None
    }

    /// Whether any rule takes this destination, for whichever packets.
    #[inline]
    #[must_use]
    pub fn leads_to(&self, destination: IpAddr) -> bool {
        self.destinations.row(destination) != NOBODY
    }

    /// Bytes of memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let intervals = |a: &Addresses| a.v4.bytes() + a.v6.bytes();
        self.rows.len() * 8
            + intervals(&self.sources)
            + intervals(&self.destinations)
            + self.ports.bytes()
    }
}

/// Rows while they are collected, each once.
struct Rows {
    rules: usize,
    summary: usize,
    words: usize,
    all: Vec<u64>,
    known: HashMap<Vec<u64>, RowId, RandomState>,
}

impl Rows {
    fn new(rules: usize) -> Rows {
        let groups = rules.div_ceil(64 * GROUP);
        Rows {
            rules,
            summary: groups.div_ceil(64),
            words: groups * GROUP,
            all: Vec::new(),
            known: HashMap::default(),
        }
    }

    /// The row of these rules.
    fn of(&mut self, has: impl Fn(usize) -> bool) -> RowId {
        let mut bits = vec![0; self.words];
        for at in (0..self.rules).filter(|at| has(*at)) {
            bits[at / 64] |= 1 << (at % 64);
        }
        self.id(&bits)
    }

    fn id(&mut self, bits: &[u64]) -> RowId {
        if let Some(id) = self.known.get(bits) {
            return *id;
        }
        let id = self.known.len() as RowId;
        let mut summary = vec![0; self.summary];
        for (group, words) in bits.chunks(GROUP).enumerate() {
            let any = words.iter().any(|word| *word != 0);
            summary[group / 64] |= u64::from(any) << (group % 64);
        }
        self.all.extend(summary);
        self.all.extend(bits);
        self.known.insert(bits.to_vec(), id);
        id
    }
}

/// What one rule asks of one field: every value, or those of some ranges, each given by its
/// first value and the first one behind it (`None` at the end of all values).
enum Asks<T> {
    Nothing,
    One(Vec<(T, Option<T>)>),
}

impl<T> Asks<T> {
    fn of<R>(ranges: &[R], cut: impl Fn(&R) -> Option<(T, Option<T>)>) -> Asks<T> {
        match ranges.is_empty() {
            true => Asks::Nothing,
            false => Asks::One(ranges.iter().filter_map(cut).collect()),
        }
    }
}

/// The values of a field, cut where a rule changes its mind.
#[derive(Debug)]
struct Intervals<T> {
    /// The first value of each interval, ascending; the first of all is the least value.
    starts: Box<[T]>,
    rows: Box<[RowId]>,
}

impl<T: Copy + Ord> Intervals<T> {
    fn new(least: T, rules: impl Iterator<Item = Asks<T>>, rows: &mut Rows) -> Intervals<T> {
        // Ranges of one rule may overlap: a bit goes when the last of them ends.
        let mut depth = vec![0u32; rows.rules];
        let mut changes: Vec<(T, usize, bool)> = Vec::new();
        for (rule, asks) in rules.enumerate() {
            let ranges = match asks {
                Asks::Nothing => vec![(least, None)],
                Asks::One(ranges) => ranges,
            };
            for (first, behind) in ranges {
                changes.push((first, rule, true));
                changes.extend(behind.map(|behind| (behind, rule, false)));
            }
        }
        changes.sort_unstable();
        let mut bits = vec![0u64; rows.words];
        let (mut starts, mut ids) = (Vec::new(), Vec::new());
        if changes.first().is_none_or(|(at, ..)| *at != least) {
            starts.push(least);
            ids.push(rows.id(&bits));
        }
        for together in changes.chunk_by(|a, b| a.0 == b.0) {
            for &(_, rule, begins) in together {
                depth[rule] = match begins {
                    true => depth[rule] + 1,
                    false => depth[rule] - 1,
                };
            }
            for &(_, rule, _) in together {
                let bit = 1 << (rule % 64);
                match depth[rule] {
                    0 => bits[rule / 64] &= !bit,
                    _ => bits[rule / 64] |= bit,
                }
            }
            let id = rows.id(&bits);
            if ids.last() != Some(&id) {
                starts.push(together[0].0);
                ids.push(id);
            }
        }
        Intervals {
            starts: starts.into(),
            rows: ids.into(),
        }
    }

    #[inline]
    fn row(&self, value: T) -> RowId {
        let behind = self.starts.partition_point(|start| *start <= value);
        self.rows[behind - 1] // the first interval starts at the least value
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.starts) + size_of_val(&*self.rows)
    }
}

/// Both families' addresses.
#[derive(Debug)]
struct Addresses {
    v4: Intervals<u32>,
    v6: Intervals<u128>,
}

impl Addresses {
    fn new(
        rules: &[Pattern],
        of: impl Fn(&Pattern) -> &Vec<AddressRange>,
        rows: &mut Rows,
    ) -> Addresses {
        let v4 = rules.iter().map(|rule| {
            Asks::of(of(rule), |range| match (range.first(), range.last()) {
                (IpAddr::V4(a), IpAddr::V4(b)) => Some((a.into(), u32::from(b).checked_add(1))),
                _ => None,
            })
        });
        let v4 = Intervals::new(0, v4, rows);
        let v6 = rules.iter().map(|rule| {
            Asks::of(of(rule), |range| match (range.first(), range.last()) {
                (IpAddr::V6(a), IpAddr::V6(b)) => Some((a.into(), u128::from(b).checked_add(1))),
                _ => None,
            })
        });
        Addresses {
            v4,
            v6: Intervals::new(0, v6, rows),
        }
    }

    #[inline]
    fn row(&self, address: IpAddr) -> RowId {
        match address {
            IpAddr::V4(address) => self.v4.row(address.into()),
            IpAddr::V6(address) => self.v6.row(address.into()),
        }
    }
}
