//! Connections that are over before their time is: a new one wants their place, or their server
//! is gone. What counts is what LVS's sysctls say ([`Rules::gives_up`]).
//!
//! [`Rules::gives_up`]: crate::conn::state::Rules::gives_up
#![forbid(unsafe_code)]

use super::enter::conn_gone;
use super::family::Family;
use crate::conn::entry::Flags;
use crate::conn::state::{Direction, Standing};
use crate::conn::templates::Heard;
use crate::conn::{Conn, ConnId, Hit};
use crate::io::PortQueue;
use crate::packet::tcp::flags::SYN;
use crate::packet::{Flow, Key};
use crate::service::Snapshot;
use crate::types::Proto;
use crate::worker::Worker;

impl<Q: PortQueue> Worker<Q> {
    /// Whether a client's packet finds its connection over, and is to be taken as one without:
    /// as a SYN does that meets the closing connection of its port's last use, so that a new
    /// one opens without delay.
    #[inline]
    pub(super) fn is_over<K: Family>(&self, hit: Hit, flow: &Flow<K>) -> bool {
        let starts = flow.says & SYN != 0;
        (starts || self.forsaken)
            && hit.dir == Direction::Inbound
            && self.gives_up::<K>(hit.id, starts)
    }

    #[cold]
    fn gives_up<K: Family>(&self, id: ConnId, starts: bool) -> bool {
        let conn = K::side(&self.sides).conns.get(id);
        let one_way = conn.flags().has(Flags::ONE_WAY);
        let rules = &self.snapshot.rules;
        rules.gives_up(conn.state(), one_way, self.standing(conn), starts)
    }

    fn standing<K: Key>(&self, conn: &Conn<K>) -> Standing {
        let standing = self.standings.get(conn.server_id().0 as usize);
        standing.copied().unwrap_or(Standing::Gone)
    }

    /// Makes way for the packet that finds its connection over.
    ///
    /// In FULL-NAT and SNAT the server may be in TIME_WAIT with the local port that the connection had:
    /// it is kept until its time is up as if no new SYN had come, or the next client to get it
    /// would wait a second (see [`crate::lip`]).
    pub(super) fn give_up<K: Family>(&mut self, id: ConnId) {
        let conn = K::side(&self.sides).conns.get(id);
        let over = conn.state().is_closing();
        let counter = match over {
            true => &self.counters.conns_reused,
            false => &self.counters.conns_expired,
        };
        counter.add(1);
        if over && conn.proto() == Proto::Tcp && conn.mode().shares_addresses() {
            conn_gone(&self.counters, conn);
            self.limits.gone(&self.snapshot, conn);
            self.proxies.gone(conn, &self.snapshot);
            let conns = &mut K::side_mut(&mut self.sides).conns;
            let template = conns.get_mut(id).set_template(None);
            conns.let_go(id);
            if let Some(template) = template {
                self.tell_template(template, Heard::Gone);
            }
        } else {
            self.close::<K>(id);
        }
    }

    /// Notes what has become of the servers of a new snapshot, `servers` of them with gaps.
    pub(crate) fn note_standings(&mut self, snapshot: &Snapshot, servers: usize) {
        self.standings.clear();
        self.standings.resize(servers, Standing::Gone);
        let mut gone = snapshot.servers().count();
        for candidate in snapshot.services().flat_map(|s| &s.servers) {
            if let Some(standing) = self.standings.get_mut(candidate.id.0 as usize) {
                gone -= usize::from(*standing == Standing::Gone);
                *standing = Standing::of_weight(candidate.weight);
            }
        }
        self.forsaken = gone > 0 && snapshot.rules.expire_nodest_conn;
    }
}
