//! One connection in one cache line.
//!
//! ```text
//!  0              8              16       20       24        28         32
//!  | cip vip      | rip lip      | c,v    | r,l    | server  | state .. | deadline
//!  36       40         44      48       52        56       60         64
//!  | hop ep | l4 l3 d  | side  | ack in | ack out | pkts ws | created
//! ```
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddrV4};

use super::state::{Direction, State};
use crate::forward::ForwardMode;
use crate::packet::Key4;
use crate::packet::checksum::Diff;
use crate::route::NeighbourId;
use crate::types::{Proto, ServerId, Tick};

/// A connection's place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnId(pub(super) u32);

/// One IPv4 connection, both directions. Laid out for one cache line; see the file's head.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct Conn {
    /// `addrs[dir]`: source and destination as packets of `dir` carry them on arrival.
    pub(super) addrs: [u64; 2],
    /// `ports[dir]`: likewise.
    pub(super) ports: [u32; 2],
    /// Server id in the low 24 bits, forwarding mode above.
    server_mode: u32,
    state: State,
    /// IP protocol number; 0 marks a free entry.
    pub(super) proto: u8,
    pub(super) flags: u16,
    /// When it runs out, unless a packet comes.
    pub(super) deadline: Tick,
    /// The client side's next hop, valid while `route_epoch` is the FIB's.
    pub(crate) client_hop: NeighbourId,
    pub(crate) route_epoch: u16,
    /// Checksum differences of the inbound rewrite; outbound is the complement.
    pub(crate) l4_diff: Diff,
    /// See `l4_diff`; addresses only, TTL aside.
    pub(crate) l3_diff: Diff,
    /// Index into a side table (sequence deltas, byte counts); while free: the next free entry.
    pub(super) side: u32,
    /// The last acknowledgement number seen from the client and from the server.
    pub(crate) last_ack: [u32; 2],
    /// Packets from the client, saturating.
    pub(crate) in_packets: u16,
    /// The wheel slot that holds this entry's one valid record.
    pub(super) wheel_slot: u16,
    pub(super) created: Tick,
}

const _: () = assert!(size_of::<Conn>() == 64);

/// What a new connection is made of.
#[derive(Debug, Clone, Copy)]
pub struct NewConn {
    /// TCP or UDP.
    pub proto: Proto,
    /// CIP and its port.
    pub client: SocketAddrV4,
    /// VIP and its port.
    pub virtual_: SocketAddrV4,
    /// LIP and its port: the server's view of the client.
    pub local: SocketAddrV4,
    /// RIP and its port.
    pub server: SocketAddrV4,
    /// The real server's record.
    pub server_id: ServerId,
    /// How packets reach it.
    pub mode: ForwardMode,
}

impl NewConn {
    /// The key of the client's packets.
    #[must_use]
    pub fn inbound(&self) -> Key4 {
        Key4::new(self.proto, self.client, self.virtual_)
    }

    /// The key of the server's packets.
    #[must_use]
    pub fn outbound(&self) -> Key4 {
        Key4::new(self.proto, self.server, self.local)
    }
}

fn socket(addr: u32, port: u32) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(addr), port as u16)
}

impl Conn {
    pub(super) fn new(c: &NewConn, now: Tick) -> Conn {
        let (inb, out) = (c.inbound(), c.outbound());
        // Inbound, packets leave as the answer to outbound ones: local -> server.
        let left = out.reversed();
        let words = [
            (inb.src(), left.src()),
            (inb.dst(), left.dst()),
            (inb.ports, left.ports),
        ];
        Conn {
            addrs: [inb.addrs, out.addrs],
            ports: [inb.ports, out.ports],
            server_mode: c.server_id.0 | (c.mode as u32) << 24,
            state: State::None,
            proto: c.proto as u8,
            flags: 0,
            deadline: now,
            client_hop: NeighbourId::NONE,
            route_epoch: 0,
            l4_diff: Diff::of(&words),
            l3_diff: Diff::of(&words[..2]),
            side: 0,
            last_ack: [0; 2],
            in_packets: 0,
            wheel_slot: super::wheel::NO_SLOT,
            created: now,
        }
    }

    /// Whether this entry holds a connection.
    #[inline]
    pub(super) fn is_live(&self) -> bool {
        self.proto != 0
    }

    /// TCP or UDP.
    #[inline]
    #[must_use]
    pub fn proto(&self) -> Proto {
        if self.proto == Proto::Udp as u8 {
            Proto::Udp
        } else {
            Proto::Tcp
        }
    }

    /// Its state.
    #[inline]
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    #[inline]
    pub(super) fn set_state(&mut self, state: State) {
        self.state = state;
    }

    /// Lets the connection run out `ticks` from now.
    #[inline]
    pub(crate) fn lasts(&mut self, ticks: u32, now: Tick) {
        self.deadline = now.after(ticks);
    }

    /// The server's record.
    #[inline]
    #[must_use]
    pub fn server_id(&self) -> ServerId {
        ServerId(self.server_mode & 0x00ff_ffff)
    }

    /// Packets of `dir` have this key on arrival.
    #[inline]
    #[must_use]
    pub fn key(&self, dir: Direction) -> Key4 {
        let d = dir as usize;
        Key4 {
            addrs: self.addrs[d],
            ports: self.ports[d],
            proto: self.proto(),
        }
    }

    /// Packets of `dir` leave with this key: the answer to the other direction's.
    #[inline]
    #[must_use]
    pub fn leaves_as(&self, dir: Direction) -> (u64, u32) {
        let other = 1 - dir as usize;
        (
            self.addrs[other].rotate_left(32),
            self.ports[other].rotate_left(16),
        )
    }

    /// The client's address and port.
    #[must_use]
    pub fn client(&self) -> SocketAddrV4 {
        socket((self.addrs[0] >> 32) as u32, self.ports[0] >> 16)
    }

    /// The virtual address and port.
    #[must_use]
    pub fn virtual_(&self) -> SocketAddrV4 {
        socket(self.addrs[0] as u32, self.ports[0])
    }

    /// The real server's address and port.
    #[must_use]
    pub fn server(&self) -> SocketAddrV4 {
        socket((self.addrs[1] >> 32) as u32, self.ports[1] >> 16)
    }

    /// The local address and port.
    #[must_use]
    pub fn local(&self) -> SocketAddrV4 {
        socket(self.addrs[1] as u32, self.ports[1])
    }

    /// When it runs out, unless a packet comes.
    #[must_use]
    pub fn deadline(&self) -> Tick {
        self.deadline
    }

    /// When it was opened.
    #[must_use]
    pub fn created(&self) -> Tick {
        self.created
    }
}
