//! What LVS's sysctls say about opening connections and about giving them up, in LVS's words.
#![forbid(unsafe_code)]

use super::State;
use crate::conn::Eviction;
use crate::defense::cookie::SECRET_LEN;

/// The sysctls; the defaults are LVS's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// A TCP packet without SYN opens too, so that connections survive a director that knows
    /// nothing of them. Never one with RST.
    pub sloppy_tcp: bool,
    /// An SCTP packet without INIT opens too. Never one with ABORT.
    pub sloppy_sctp: bool,
    /// When the TCP tables are the secure ones: 0 never, 1 and 2 while the connection table is
    /// nearly full, 3 always.
    pub secure_tcp: u8,
    /// When a SYN (INIT) on a connection that stands opens a new one: 0 never; else in
    /// TIME_WAIT and CLOSE (CLOSED); with bit 2 also in FIN_WAIT where answers are not seen.
    pub conn_reuse_mode: u8,
    /// A packet whose server was removed, and a SYN whose server has weight 0, is scheduled
    /// anew.
    pub expire_nodest_conn: bool,
    /// A client whose template names a server of weight 0 gets another one.
    pub expire_quiescent_template: bool,
    /// Path MTU discovery through tunnels: DF is copied to the outer header, and a packet with DF
    /// that is too long goes back as an ICMP error. Without it the tunnel's packet is fragmented.
    pub pmtu_disc: bool,
    /// What SYN cookies are hashed with; a random one of this director's where there is none.
    pub cookie_secret: Option<[u8; SECRET_LEN]>,
    /// When connections that may be an attack's are forgotten one by one: as `secure_tcp`.
    pub drop_entry: u8,
    /// When some of the packets that would open a connection are dropped: as `secure_tcp`.
    pub drop_packet: u8,
    /// With `drop_packet` 3, one packet in so many is dropped; at least 1.
    pub am_droprate: u32,
    /// With fewer free places than this in all workers' tables together, a table is nearly full;
    /// 0 is an eighth of the table. (LVS counts free pages of the machine.)
    pub amemthresh: u32,
    /// Who gives way in a table that is full.
    pub eviction: Eviction,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            sloppy_tcp: false,
            sloppy_sctp: false,
            secure_tcp: 0,
            conn_reuse_mode: 1,
            expire_nodest_conn: false,
            expire_quiescent_template: false,
            pmtu_disc: true,
            cookie_secret: None,
            drop_entry: 0,
            drop_packet: 0,
            am_droprate: 10,
            amemthresh: 0,
            eviction: Eviction::default(),
        }
    }
}

/// What has become of a connection's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// Takes new connections.
    #[default]
    Up,
    /// Has weight 0.
    Drained,
    /// Was removed.
    Gone,
}

impl Standing {
    /// Of a server that a service has.
    #[must_use]
    pub fn of_weight(weight: u32) -> Standing {
        match weight {
            0 => Standing::Drained,
            _ => Standing::Up,
        }
    }
}

impl Rules {
    /// Whether the secure TCP tables are in force. `short`: the connection table is nearly full.
    #[inline]
    #[must_use]
    pub fn secure(&self, short: bool) -> bool {
        in_force(self.secure_tcp, short)
    }

    /// Whether connections that may be an attack's are forgotten.
    #[must_use]
    pub fn drops_entries(&self, short: bool) -> bool {
        in_force(self.drop_entry, short)
    }

    /// One in how many packets that would open a connection is dropped; 0 is none. `free` places
    /// of a table are left, where fewer than `enough` are few: the fewer are left the more is
    /// dropped, but never more than every second packet: room is made for the others.
    #[must_use]
    pub fn drop_rate(&self, free: u32, enough: u32) -> u32 {
        match self.drop_packet {
            0 => 0,
            1 | 2 if free >= enough => 0,
            1 | 2 => (enough / (enough - free)).max(2),
            _ => self.am_droprate.max(1),
        }
    }

    /// How many free places of a table for `capacity` connections, one of `workers` alike, are
    /// enough.
    #[inline]
    #[must_use]
    pub fn enough_free(&self, capacity: u32, workers: u8) -> u32 {
        match self.amemthresh {
            0 => capacity / 8,
            all => (all / u32::from(workers.max(1))).clamp(1, capacity),
        }
    }

    /// Whether a client's packet finds its connection over and done: it is forgotten, and the
    /// packet is taken as one without a connection. `starts`: it has SYN, or an INIT.
    #[must_use]
    pub fn gives_up(&self, state: State, one_way: bool, server: Standing, starts: bool) -> bool {
        let expire = self.expire_nodest_conn;
        match server {
            Standing::Gone if expire => return true,
            Standing::Drained if expire && starts => return true,
            _ => {}
        }
        let over = match state {
            State::TimeWait | State::Close | State::SctpClosed => true,
            State::FinWait => one_way && self.conn_reuse_mode & 2 != 0,
            _ => false,
        };
        starts && over && self.conn_reuse_mode != 0
    }
}

/// LVS's modes of a defence: 0 never, 1 and 2 while memory is short (LVS writes 2 in the place of
/// 1 while it is), 3 always.
#[inline]
fn in_force(mode: u8, short: bool) -> bool {
    match mode {
        0 => false,
        1 | 2 => short,
        _ => true,
    }
}
