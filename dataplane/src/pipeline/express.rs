//! The common packet of a common connection: TCP that only acknowledges in ESTABLISHED, or UDP,
//! both sides' addresses and ports to be replaced, next hop known, fitting its link. It changes
//! no state and nothing has to be called for it, so that it goes through in registers (383 -> 327
//! instructions a packet).
//!
//! Whatever is otherwise has no express and goes the ordinary way from its beginning: this does
//! nothing that [`Worker::conclude`] would not do.
#![forbid(unsafe_code)]

use super::family::Family;
use super::{INBOUND, OUTBOUND, client_reach, count};
use crate::conn::state::{Direction, State, tcp};
use crate::conn::{Conn, Guess, Hit};
use crate::io::{Frame, PortQueue};
use crate::packet::{Flow, Key};
use crate::route::Reach;
use crate::types::Tick;
use crate::worker::{AtHand, Worker};

impl<Q: PortQueue> Worker<Q> {
    /// Makes a packet ready to go out, if it goes by express. If not, nothing is changed.
    #[inline(always)]
    pub(super) fn express<K: Family>(
        &mut self,
        frame: &mut Q::Frame,
        flow: &Flow<K>,
        guess: Guess,
        now: Tick,
    ) -> Express {
        let conns = &mut K::side_mut(&mut self.sides).conns;
        let Some((hit, conn)) = conns.guessed(guess, &flow.key) else {
            return Express::No;
        };
        if self.forsaken || !leaves_state(conn.state(), flow) {
            return Express::No;
        }
        if conn.is_aside() {
            return Express::Aside(hit);
        }
        let Some(server) = self.servers.get(conn.server_id()) else {
            return Express::No;
        };
        let bytes = frame.bytes_mut();
        let ready = match hit.dir {
            Direction::Inbound => {
                let reach = server.reach;
                reach.and_then(|to| ready::<K, INBOUND>(bytes, flow, conn, server, to, now))
            }
            Direction::Outbound => {
                let reach = client_reach(conn, &self.neighbours, &self.fib);
                reach.and_then(|to| ready::<K, OUTBOUND>(bytes, flow, conn, server, to, now))
            }
        };
        ready.map_or(Express::No, |(lane, len)| Express::Ready { lane, len })
    }
}

/// Whether a packet goes by express.
pub(super) enum Express {
    /// It does, and is ready to go out.
    Ready {
        /// What it leaves by.
        lane: usize,
        /// Its bytes.
        len: usize,
    },
    /// Its connection needs something else: [`Worker::aside`] may be asked at once.
    Aside(Hit),
    /// It does not.
    No,
}

/// Whether a packet leaves its connection in this state, whichever way it goes: nearly every packet
/// does.
#[inline(always)]
fn leaves_state<K: Key>(state: State, flow: &Flow<K>) -> bool {
    match state {
        State::Established => tcp::only_acknowledges(flow.says),
        State::Udp => true,
        _ => false,
    }
}

/// Rewrites a packet, and notes and counts it as [`note`](super::note) does one that changes nothing;
/// the lane it leaves by, and its bytes.
#[inline(always)]
fn ready<K: Family, const DIR: bool>(
    bytes: &mut [u8],
    flow: &Flow<K>,
    conn: &mut Conn<K>,
    server: &AtHand,
    reach: Reach,
    now: Tick,
) -> Option<(usize, usize)> {
    let cells = server.cells.as_ref()?;
    let len = bytes.len();
    let dir = super::direction::<DIR>();
    if flow.ttl <= 1
        || flow.ip_len > reach.mtu()
        || !K::rewrite_common(bytes, flow, conn, dir, reach)
    {
        return None;
    }
    conn.lasts(server.ticks(flow.key.proto()), now);
    count::<K, DIR>(conn, Some(cells), flow.ip_len);
    Some((usize::from(reach.port().0), len))
}
