//! Maglev hashing: a table of M rows that servers fill in turn, each in an order of its own, so
//! that a change of the list moves few clients (Eisenbud et al., "Maglev", NSDI 2016, 3.4). Hash
//! functions, turns and probing are Linux's.
//!
//! Servers take their turns in descending order of their addresses, whatever the order in the
//! configuration, so that all nodes agree. (Linux: last added first, which is the same for servers
//! added in ascending order.) A drained server keeps its rows: only its own clients move, on to
//! other rows. In Linux they get no server, unless mh-fallback is set; for a server that is full
//! the flag decides, as there.
#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::net::IpAddr;

use super::wrr::gcd;
use super::{Candidate, Flags, Memory, Options, Rows, Table, View, hash};

pub(super) struct Rule;

impl super::Rule for Rule {
    const FLAGS: Flags = Flags {
        port: Some("mh-port"),
        fallback: Some("mh-fallback"),
    };

    fn prepare(servers: &[Candidate], options: Options) -> Table {
        let mut order: Vec<usize> = (0..servers.len()).collect();
        order.sort_by_key(|&at| Reverse(servers[at].address));
        Table::Rows(fill(servers, &order, options.rows))
    }

    fn pick(view: View<'_>, _: &mut Memory) -> Option<usize> {
        let Table::Rows(rows) = view.table else {
            return None;
        };
        let m = rows.len() as u32;
        let client = key(view.request.source.ip(), view.hashed_port());
        let row =
            |offset: u32| hash::hsip(client.wrapping_add(offset), hash::OFFSET_KEY) % m.max(1);
        let of = |row: u32| rows.get(row as usize).map(|&at| at as usize);
        let first = row(0);
        let wanted = of(first)?;
        if view.available(wanted) {
            return Some(wanted);
        }
        if !view.may_go_elsewhere(wanted) || !view.any_available() {
            return None;
        }
        let probes = (0..m).filter_map(|i| of(row((first + i) % m)));
        probes.into_iter().find(|&at| view.available(at))
    }
}

fn key(addr: IpAddr, port: u16) -> u32 {
    hash::fold(addr).wrapping_add(port.into())
}

/// A server on its way through the rows.
struct Filler {
    at: u32,
    row: u32,
    skip: u32,
    turns: u32,
}

/// Whose each row is, servers taking turns in `order`. No rows when no server has a weight.
pub(super) fn fill(servers: &[Candidate], order: &[usize], rows: Rows) -> Box<[u32]> {
    let m = rows.get();
    let step = servers.iter().map(|s| s.hashed).fold(0, gcd);
    if step == 0 {
        return Box::default();
    }
    let most = servers.iter().map(|s| s.hashed / step).max().unwrap_or(0);
    let shift = (u32::BITS - most.leading_zeros()).saturating_sub(turn_bits(rows));
    let with_weight = order.iter().filter(|&&at| servers[at].hashed > 0);
    let filler = |&at: &usize| {
        let server = &servers[at];
        let key = key(server.address.ip(), server.address.port());
        Filler {
            at: at as u32,
            row: hash::hsip(key, hash::OFFSET_KEY) % m,
            skip: hash::hsip(key, hash::SKIP_KEY) % (m - 1) + 1,
            turns: ((server.hashed / step) >> shift).max(1),
        }
    };
    let mut fillers: Vec<Filler> = with_weight.map(filler).collect();
    let mut table = vec![u32::MAX; m as usize];
    let mut left = m;
    loop {
        for filler in &mut fillers {
            for _ in 0..filler.turns {
                while table[filler.row as usize] != u32::MAX {
                    filler.row = (filler.row + filler.skip) % m;
                }
                table[filler.row as usize] = filler.at;
                left -= 1;
                if left == 0 {
                    return table.into();
                }
            }
        }
    }
}

/// Turns are cut to this many bits, so that every server gets its own before the table is full:
/// half of Linux's CONFIG_IP_VS_MH_TAB_INDEX, which counts the primes from 8.
fn turn_bits(rows: Rows) -> u32 {
    let index = Rows::PRIMES.iter().position(|&p| p == rows.get());
    (index.unwrap_or(0) as u32 + 8) / 2
}
