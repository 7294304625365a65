//! Connections that are to end because their server leaves ([`ServerPolicy::dismissed`]).
//!
//! A sweep goes through the table, a little in each turn. What has no words for an end (UDP) or
//! has not begun is forgotten there and then: the next packet is scheduled anew. An SCTP peer
//! gets its ABORT when it speaks. A TCP connection is *dismissed*: its next packet, from
//! whichever side, carries the numbers that a reset must have to be believed (RFC 5961 3.2), and
//! both sides are reset with them. So that an idle connection has a next packet, both sides are
//! asked for one: a segment outside of the window is answered by an acknowledgement
//! (RFC 9293 3.10.7.4).
//!
//! ```text
//!  sweep     client <- ACK of nonsense              ACK of nonsense -> server
//!  farewell  client -> ACK, seq, ack  =>  client <- RST seq = ack    RST seq = seq -> server
//! ```
//! Established packets of other connections pay nothing for all of it: numbers are not noted,
//! but asked for.
//!
//! [`ServerPolicy::dismissed`]: crate::service::ServerPolicy::dismissed
#![forbid(unsafe_code)]

use super::family::Family;
use super::reset::{make_reset, make_reset_onward};
use super::{INBOUND, OUTBOUND};
use crate::conn::entry::Flags;
use crate::conn::state::{Direction, State};
use crate::conn::{Conn, ConnId, Hit};
use crate::defense::Policer;
use crate::io::{Frame, PortQueue};
use crate::packet::tcp::flags::{ACK, RST};
use crate::packet::{Flow, Key, Key4, Key6, checksum, eth, put16, put32, tcp};
use crate::service::Snapshot;
use crate::types::{Proto, ServerId, Tick};
use crate::worker::Worker;

/// Entries looked at in one turn.
const ENTRIES_A_TURN: u32 = 256;
/// Connections dismissed in one turn: each may mean two packets.
const DISMISSED_A_TURN: usize = 8;
/// Connections that one worker dismisses in a second: their answers all come back.
const DISMISSED_A_SECOND: u32 = 50_000;
/// Between two sweeps, while servers that are dismissed have connections still.
const BETWEEN_SWEEPS: u32 = Tick::seconds(1);

/// Which servers' connections are to end, and how far the sweep is.
#[derive(Debug)]
pub(crate) struct Farewells {
    /// By server id; empty when there is none.
    dismissed: Vec<bool>,
    /// Where to go on, and in which family's table.
    at: (Table, u32),
    /// When the sweep goes on.
    next: Tick,
    pace: Policer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    V4,
    V6,
}

impl Farewells {
    /// Nobody leaves.
    pub(crate) fn new(now: Tick) -> Farewells {
        Farewells {
            dismissed: Vec::new(),
            at: (Table::V4, 0),
            next: now,
            pace: Policer::new(DISMISSED_A_SECOND, now),
        }
    }

    /// Notes whom a new snapshot dismisses, among `servers` with gaps.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot, servers: usize) {
        self.dismissed.clear();
        for server in snapshot.servers().filter(|s| s.policy.dismissed) {
            self.dismissed.resize(servers, false);
            if let Some(dismissed) = self.dismissed.get_mut(server.id.0 as usize) {
                *dismissed = true;
            }
        }
        self.at = (Table::V4, 0);
    }

    /// Whether there is anything to do at `now`.
    #[inline]
    pub(crate) fn are_due(&self, now: Tick) -> bool {
        !self.dismissed.is_empty() && self.next.reached(now)
    }

    fn concern(&self, server: ServerId) -> bool {
        let dismissed = self.dismissed.get(server.0 as usize);
        dismissed.copied().unwrap_or(false)
    }
}

impl<Q: PortQueue> Worker<Q> {
    /// The sweep, a little on. The number of connections that it ended or dismissed.
    #[cold]
    pub(crate) fn dismiss_some(&mut self, now: Tick) -> usize {
        let (table, cursor) = self.farewells.at;
        let (found, next) = match table {
            Table::V4 => self.sweep::<Key4>(cursor, now),
            Table::V6 => self.sweep::<Key6>(cursor, now),
        };
        self.farewells.at = match (next, table) {
            (Some(cursor), _) => (table, cursor),
            (None, Table::V4) => (Table::V6, 0),
            (None, Table::V6) => {
                self.farewells.next = now.after(BETWEEN_SWEEPS);
                (Table::V4, 0)
            }
        };
        found
    }

    /// Ends or dismisses connections from `cursor` on: how many, and where to go on.
    fn sweep<K: Family>(&mut self, cursor: u32, now: Tick) -> (usize, Option<u32>) {
        let mut leaving = arrayvec::ArrayVec::<ConnId, DISMISSED_A_TURN>::new();
        let farewells = &mut self.farewells;
        let conns = &K::side(&self.sides).conns;
        let next = conns.page(cursor, ENTRIES_A_TURN, |id, conn| {
            let is_left = conn.flags().has(Flags::DISMISSED);
            if is_left || !farewells.concern(conn.server_id()) {
                return true;
            }
            let room = !leaving.is_full() && farewells.pace.admit(now);
            if room {
                leaving.push(id);
            }
            room
        });
        for &id in &leaving {
            self.dismiss::<K>(id, now);
        }
        (leaving.len(), next)
    }

    fn dismiss<K: Family>(&mut self, id: ConnId, now: Tick) {
        self.counters.conns_dismissed.add(1);
        let conn = K::side(&self.sides).conns.get(id);
        let state = conn.state();
        if conn.proto() != Proto::Tcp || state.is_half_open() || state.is_closing() {
            return self.close::<K>(id);
        }
        // Should nobody answer, it goes as one that was reset does.
        let timeouts = self.snapshot.timeouts_of(conn.server_id());
        let ticks = timeouts.of(State::Close);
        let conn = K::side_mut(&mut self.sides).conns.get_mut(id);
        conn.dismiss(true);
        conn.lasts(ticks, now);
        self.change_state::<K>(id, State::Close);
        self.ask_for_numbers::<K, OUTBOUND>(id, now);
        let conn = K::side(&self.sides).conns.get(id);
        if !conn.mode().is_one_way() {
            self.ask_for_numbers::<K, INBOUND>(id, now);
        }
    }

    /// Has the side that packets of direction `DIR` go to say where it is. Without a next hop it
    /// is not asked: the timeout will do.
    fn ask_for_numbers<K: Family, const DIR: bool>(&mut self, id: ConnId, now: Tick) {
        let Ok(next) = self.next_hop::<K, DIR>(id) else {
            return;
        };
        let (headers, key) = probe_key::<K, DIR>(K::side(&self.sides).conns.get(id));
        let Some(mut frame) = self.pool.alloc(headers + tcp::MIN_LEN) else {
            return;
        };
        let f = frame.bytes_mut();
        f.fill(0);
        match key.unmapped() {
            Some(key) => key.write_header(f, tcp::MIN_LEN as u16),
            None => key.write_header(f, tcp::MIN_LEN as u16),
        }
        put32(f, headers, key.ports());
        f[headers + 12] = 0x50;
        f[headers + tcp::FLAGS_AT] = ACK;
        let sum = checksum::l4(f, Proto::Tcp, headers, headers + tcp::MIN_LEN);
        put16(f, headers + tcp::CHECKSUM_AT, sum);
        self.counters.generated.add(1);
        self.send_to(next, frame, now);
    }

    /// A packet of a dismissed connection: both sides are reset, and it is gone.
    #[cold]
    pub(super) fn farewell<K: Family>(
        &mut self,
        lane: usize,
        mut frame: Q::Frame,
        flow: &Flow<K>,
        hit: Hit,
        now: Tick,
    ) {
        if flow.says & RST == 0 {
            self.reset_sender(lane, &frame, flow);
            make_reset_onward(&mut frame, flow);
        }
        let conn = K::side_mut(&mut self.sides).conns.get_mut(hit.id);
        conn.dismiss(false);
        let flow = Flow {
            ip_len: (frame.bytes().len() - eth::HEADER_LEN).min(flow.ip_len.into()) as u16,
            says: flow.says & ACK | RST,
            ..*flow
        };
        self.carry_on(lane, frame, &flow, hit, now);
        self.close::<K>(hit.id);
    }

    /// Resets the side that `frame` came from.
    fn reset_sender<K: Family>(&mut self, lane: usize, frame: &Q::Frame, flow: &Flow<K>) {
        let bytes = frame.bytes();
        let Some(mut back) = self.pool.alloc(bytes.len()) else {
            return; // it gets its reset when it speaks again
        };
        back.bytes_mut().copy_from_slice(bytes);
        let mac = self.lanes[lane].port.mac;
        let key = flow.key.widened(); // an IPv4 packet's flow may be kept among the IPv6 ones
        let made = match key.unmapped() {
            Some(key) => make_reset(&mut back, &flow.with_key(key), mac),
            None => make_reset(&mut back, &flow.with_key(key), mac),
        };
        if made {
            self.counters.generated.add(1);
            self.transmit(lane, back);
        }
    }
}

/// The key of what goes to the side that packets of direction `DIR` go to, and where the headers
/// of such a packet end.
fn probe_key<K: Family, const DIR: bool>(conn: &Conn<K>) -> (usize, Key6) {
    let dir = match DIR {
        INBOUND => Direction::Inbound,
        OUTBOUND => Direction::Outbound,
    };
    let (addrs, ports) = conn.leaves_as(dir);
    let key = K::of(addrs, ports, conn.proto()).widened();
    match key.unmapped() {
        Some(_) => (Key4::HEADERS, key),
        None => (Key6::HEADERS, key),
    }
}
