//! One connection: a cache line for IPv4, two for IPv6.
//!
//! ```text
//!  IPv4  0           8            16       20       24        28         32
//!        | cip vip   | rip lip    | c,v    | r,l    | server  | state .. | deadline
//!        36       40         44      48       52        56       60         64
//!        | hop ep | l4 l3 d  | side  | template         | pkts ws | created
//!  IPv6  the same behind addresses of 32 bytes: 112 of 128 bytes
//! ```
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use super::side::SideId;
use super::state::{Direction, State};
use crate::forward::ForwardMode;
use crate::packet::checksum::Diff;
use crate::packet::{Key, Key4};
use crate::route::NeighbourId;
use crate::types::{CoreId, Proto, ServerId, Tick};

/// A connection's place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnId(pub(super) u32);

/// One connection, both directions. Laid out for cache lines; see the file's head.
///
/// The *inbound key* is that of the client's packets, the *outbound key* that of the server's,
/// each as it arrives here.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct Conn<K: Key = Key4> {
    /// `addrs[dir]`: source and destination as packets of `dir` carry them on arrival.
    pub(super) addrs: [K::Addrs; 2],
    /// `ports[dir]`: likewise.
    pub(super) ports: [u32; 2],
    /// Server id in the low 24 bits, forwarding mode above.
    server_mode: u32,
    state: State,
    /// IP protocol number; 0 marks a free entry.
    pub(super) proto: u8,
    pub(super) flags: Flags,
    /// When it runs out, unless a packet comes.
    pub(super) deadline: Tick,
    /// The client side's next hop, valid while `route_epoch` is the FIB's.
    pub(crate) client_hop: NeighbourId,
    pub(crate) route_epoch: u16,
    /// Checksum differences of the inbound rewrite; outbound is the complement.
    pub(crate) l4_diff: Diff,
    /// See `l4_diff`; addresses only, TTL aside.
    pub(crate) l3_diff: Diff,
    /// With [`Flags::SIDE`] an index into the side table. Without, of a data connection the ports
    /// of its control connection's inbound key ([`Conn::control`]), and of SNAT the next hop to the
    /// far end ([`Conn::far_hop`]). While free: the next free entry.
    pub(super) side: u32,
    /// The template that controls it, as [`TemplateRef`](super::templates::TemplateRef) packs it; 0: none.
    pub(super) template: [u32; 2],
    /// Packets from the client, saturating.
    pub(crate) in_packets: u16,
    /// The wheel slot that holds this entry's one valid record.
    pub(super) wheel_slot: u16,
    pub(super) created: Tick,
}

const _: () = assert!(size_of::<Conn>() == 64);
const _: () = assert!(size_of::<Conn<crate::packet::Key6>>() == 128);

/// What is special about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(u16);

impl Flags {
    /// Nothing.
    pub const NONE: Flags = Flags(0);
    /// No answer of the server's was seen here, nor is any to be expected (IPVS's NOOUTPUT).
    pub const ONE_WAY: Flags = Flags(1);
    /// The two sides are of different families (NAT64, NAT46).
    pub const TRANSLATED: Flags = Flags(2);
    /// Not a connection: its answers come to this worker, and the one in the server id's place
    /// has it.
    pub const REDIRECT: Flags = Flags(4);
    /// Another worker has a redirect for its answers.
    pub const REDIRECTED: Flags = Flags(8);
    /// Its packets need something else than other addresses and ports: every other flag and
    /// mode that concerns packets sets this one too, so that the fast path asks once.
    pub const ASIDE: Flags = Flags(16);
    /// Packets with the inbound key are not looked for.
    pub(super) const NO_INBOUND: Flags = Flags(32);
    /// Packets with the outbound key are not looked for.
    pub(super) const NO_OUTBOUND: Flags = Flags(64);
    /// It has a record in the side table, and that concerns its packets.
    pub const SIDE: Flags = Flags(128);
    /// It is one datagram's: the client's next one is not looked for under its key.
    pub const ONE_PACKET: Flags = Flags(1 << 10);
    /// The client's packets may name another server by connection ID (QUIC).
    pub const QUIC: Flags = Flags(1 << 11);
    /// It is to end with its next packet: both sides are reset.
    pub const DISMISSED: Flags = Flags(256);
    /// It counts among its service's connections, for a limit.
    pub const LIMITED: Flags = Flags(0x1000);
    /// And among its client's.
    pub const TRACKED: Flags = Flags(0x2000);
    /// Its packets are counted, for a limit.
    pub const METERED: Flags = Flags(0x4000);
    /// It counts as half-open for its service's SYN proxy.
    pub const HALF_OPEN: Flags = Flags(1 << 15);

    /// Both.
    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Those that concern packets.
    const CONCERN_PACKETS: Flags = Flags::ONE_WAY
        .with(Flags::TRANSLATED)
        .with(Flags::REDIRECT)
        .with(Flags::QUIC)
        .with(Flags::SIDE)
        .with(Flags::DISMISSED)
        .with(Flags::METERED);

    /// With [`Flags::ASIDE`] if any of the others concerns packets, without it if none does.
    pub(super) const fn with_aside(self) -> Flags {
        match self.0 & Flags::CONCERN_PACKETS.0 {
            0 => Flags(self.0 & !Flags::ASIDE.0),
            _ => self.with(Flags::ASIDE),
        }
    }

    /// Whether packets of `dir` find the connection by their key.
    #[inline]
    pub(super) const fn is_keyed(self, dir: Direction) -> bool {
        !self.has(match dir {
            Direction::Inbound => Flags::NO_INBOUND,
            Direction::Outbound => Flags::NO_OUTBOUND,
        })
    }

    /// Whether all of `other` is in it.
    #[inline]
    #[must_use]
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What a new connection is made of.
#[derive(Debug, Clone, Copy)]
pub struct NewConn<K: Key = Key4> {
    /// The key of the client's packets.
    pub inbound: K,
    /// The key of the server's packets. Where these do not come this way (DR, TUN) it still
    /// names the server: RIP and its port as the source.
    pub outbound: K,
    /// The real server's record.
    pub server_id: ServerId,
    /// How packets reach it.
    pub mode: ForwardMode,
    /// [`Flags::TRANSLATED`], [`Flags::REDIRECTED`], [`Flags::ONE_PACKET`], or none of them.
    pub flags: Flags,
}

impl<K: Key> NewConn<K> {
    /// A redirect: answers with the key `outbound` belong to the connection that `owner` keeps
    /// under `inbound`.
    pub(super) fn redirect(inbound: K, outbound: K, owner: CoreId) -> NewConn<K> {
        NewConn {
            inbound,
            outbound,
            server_id: ServerId(u32::from(owner.0)),
            mode: ForwardMode::nat,
            flags: Flags::REDIRECT.with(Flags::NO_INBOUND),
        }
    }

    /// All that is special about it: what was asked for, and what the mode says.
    #[inline]
    fn all_flags(&self) -> Flags {
        let one_way = match self.mode.is_one_way() {
            true => Flags::ONE_WAY.with(Flags::NO_OUTBOUND),
            false => Flags::NONE,
        };
        let one_packet = match self.flags.has(Flags::ONE_PACKET) {
            true => Flags::NO_INBOUND,
            false => Flags::NONE,
        };
        let flags = self.flags.with(one_way).with(one_packet);
        flags.with_aside()
    }
}

impl<K: Key> Conn<K> {
    #[inline(always)]
    pub(super) fn new(c: &NewConn<K>, now: Tick) -> Conn<K> {
        let (inb, out) = (&c.inbound, &c.outbound);
        // Inbound, packets leave as the answer to outbound ones: local -> server.
        let left = out.reversed();
        let l3_diff = K::diff(inb.addrs(), left.addrs());
        Conn {
            addrs: [inb.addrs(), out.addrs()],
            ports: [inb.ports(), out.ports()],
            server_mode: c.server_id.0 | (c.mode as u32) << 24,
            state: State::None,
            proto: inb.proto() as u8,
            flags: c.all_flags(),
            deadline: now,
            client_hop: NeighbourId::NONE,
            route_epoch: 0,
            l4_diff: l3_diff.plus(Diff::of(&[(inb.ports(), left.ports())])),
            l3_diff,
            side: 0,
            template: [0; 2],
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

    /// Whether packets of `dir` find it by their key.
    #[inline]
    pub(super) fn is_keyed(&self, dir: Direction) -> bool {
        self.flags.is_keyed(dir)
    }

    /// Whether it is live and packets of `dir` have this key.
    #[inline]
    pub(super) fn has_key(&self, dir: Direction, key: &K) -> bool {
        let d = dir as usize;
        self.addrs[d] == key.addrs()
            && self.ports[d] == key.ports()
            && self.proto == key.proto() as u8
    }

    /// TCP, UDP or SCTP.
    #[inline]
    #[must_use]
    pub fn proto(&self) -> Proto {
        Proto::from_number(self.proto).unwrap_or(Proto::Tcp)
    }

    /// Its state.
    #[inline]
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Its state before.
    #[inline]
    pub(super) fn set_state(&mut self, state: State) -> State {
        std::mem::replace(&mut self.state, state)
    }

    /// Whether a change of its state is news to anyone: to its template, or to a SYN proxy that
    /// counts it as half-open.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.template().is_some() || self.flags.has(Flags::HALF_OPEN)
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

    /// How its packets reach the server.
    #[inline]
    #[must_use]
    pub fn mode(&self) -> ForwardMode {
        ForwardMode::from_number((self.server_mode >> 24) as u8)
    }

    /// What is special about it.
    #[inline]
    #[must_use]
    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// Whether its packets need something else than other addresses and ports.
    #[inline]
    pub(crate) fn is_aside(&self) -> bool {
        self.flags.has(Flags::ASIDE)
    }

    /// See [`ConnTable::let_go`](super::ConnTable::let_go).
    pub(super) fn let_go(&mut self) {
        self.flags = self.flags.with(Flags::NO_INBOUND).with(Flags::ASIDE);
        // A later packet of the burst may have been guessed to be this connection's.
        (self.addrs[0], self.ports[0]) = self.leaves_as(Direction::Inbound);
    }

    /// Whether this is a connection, and not a redirect to one or what keeps one's key.
    #[inline]
    #[must_use]
    pub fn is_connection(&self) -> bool {
        !self.flags.has(Flags::NO_INBOUND) || self.flags.has(Flags::ONE_PACKET)
    }

    /// Whether its connection is over, and it only keeps the outbound key.
    #[inline]
    pub(crate) fn is_let_go(&self) -> bool {
        !self.is_connection() && !self.flags.has(Flags::REDIRECT)
    }

    /// Notes that an answer of the server's does pass here (IPVS clears NOOUTPUT).
    #[inline]
    pub(crate) fn answered(&mut self) {
        self.flags.0 &= !Flags::ONE_WAY.0;
    }

    /// Notes whether its service counts it as half-open.
    pub(crate) fn set_half_open(&mut self, counted: bool) {
        self.flags.0 &= !Flags::HALF_OPEN.0;
        if counted {
            self.flags = self.flags.with(Flags::HALF_OPEN);
        }
    }

    /// Of SNAT, whose far ends are nobody's servers: the next hop there, and the routes' epoch under
    /// which it was found. It stands in the place of a side table's index, which SNAT has no use for.
    pub(crate) fn far_hop(&self) -> (NeighbourId, u16) {
        match self.flags.has(Flags::SIDE) {
            true => (NeighbourId::NONE, 0),
            false => (NeighbourId((self.side >> 16) as u16), self.side as u16),
        }
    }

    /// Notes the next hop to the far end.
    pub(crate) fn set_far_hop(&mut self, hop: NeighbourId, epoch: u16) {
        if !self.flags.has(Flags::SIDE) {
            self.side = u32::from(hop.0) << 16 | u32::from(epoch);
        }
    }

    /// Its record in the side table.
    #[inline]
    pub(crate) fn side(&self) -> Option<SideId> {
        self.flags.has(Flags::SIDE).then_some(SideId(self.side))
    }

    /// Gives it a record in the side table, or takes it away: without one its packets go the
    /// ordinary way again, if nothing else speaks against it.
    pub(crate) fn set_side(&mut self, record: Option<SideId>) {
        let others = Flags(self.flags.0 & !Flags::SIDE.0);
        self.side = record.map_or(0, |SideId(at)| at);
        self.flags = match record {
            Some(_) => others.with(Flags::SIDE).with_aside(),
            // One-way connections stay aside when their first answer has passed, see `answered`.
            None if self.mode().is_one_way() => others,
            None => others.with_aside(),
        };
        self.stay_aside();
    }

    /// Makes it the data connection of the one with these inbound ports, between the same client
    /// and virtual address. It has no record in the side table then.
    pub(crate) fn belongs_to(&mut self, control: u32) {
        debug_assert!(!self.flags.has(Flags::SIDE));
        self.side = control;
    }

    /// The inbound key of the connection that announced this one.
    pub(crate) fn control(&self) -> Option<K> {
        let may_be = matches!(self.mode(), ForwardMode::nat | ForwardMode::fullnat)
            && !self.flags.has(Flags::SIDE)
            && self.is_connection();
        let addrs = self.addrs[Direction::Inbound as usize];
        (may_be && self.side != 0).then(|| K::of(addrs, self.side, Proto::Tcp))
    }

    /// Marks it as counted for limits.
    pub(crate) fn limit(&mut self, how: Flags) {
        let flags = self.flags.with(how);
        self.flags = match how.has(Flags::METERED) {
            true => flags.with(Flags::ASIDE),
            false => flags,
        };
    }

    /// Whether its packets need to be counted, or their answer awaited, and no more: they go the
    /// ordinary way after that.
    #[inline]
    pub(crate) fn is_only_watched(&self) -> bool {
        let others = Flags(self.flags.0 & !Flags::METERED.0);
        !self.mode().is_one_way() && !others.with_aside().has(Flags::ASIDE)
    }

    /// Whether nothing concerns its packets but that no answer is expected here.
    #[inline]
    pub(crate) fn is_only_one_way(&self) -> bool {
        self.flags.0 & Flags::CONCERN_PACKETS.0 == Flags::ONE_WAY.0
    }

    /// Has it end with its next packet, or takes that back.
    pub(crate) fn dismiss(&mut self, dismissed: bool) {
        let others = Flags(self.flags.0 & !Flags::DISMISSED.0);
        self.flags = match dismissed {
            true => others.with(Flags::DISMISSED).with_aside(),
            false if self.mode().is_one_way() => others,
            false => others.with_aside(),
        };
        self.stay_aside();
    }

    /// The worker that has the connection which this redirect stands for.
    #[inline]
    #[must_use]
    pub fn redirected_to(&self) -> Option<CoreId> {
        let core = CoreId(self.server_mode as u8);
        self.flags.has(Flags::REDIRECT).then_some(core)
    }

    /// Packets of `dir` have this key on arrival.
    #[inline]
    #[must_use]
    pub fn key(&self, dir: Direction) -> K {
        let d = dir as usize;
        K::of(self.addrs[d], self.ports[d], self.proto())
    }

    /// The keys of both directions' packets on arrival, the inbound one first.
    #[inline]
    pub(super) fn keys(&self) -> [K; 2] {
        let proto = self.proto();
        [0, 1].map(|d| K::of(self.addrs[d], self.ports[d], proto))
    }

    /// Packets of `dir` leave with this key: the answer to the other direction's.
    #[inline]
    #[must_use]
    pub fn leaves_as(&self, dir: Direction) -> (K::Addrs, u32) {
        let other = 1 - dir as usize;
        (
            K::swapped(self.addrs[other]),
            self.ports[other].rotate_left(16),
        )
    }

    /// The client's address and port.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        self.key(Direction::Inbound).source()
    }

    /// The virtual address and port.
    #[must_use]
    pub fn virtual_(&self) -> SocketAddr {
        self.key(Direction::Inbound).destination()
    }

    /// The real server's address and port.
    #[must_use]
    pub fn server(&self) -> SocketAddr {
        self.key(Direction::Outbound).source()
    }

    /// What the server sees as its client: a local address and port in FULL-NAT, the client
    /// itself otherwise.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.key(Direction::Outbound).destination()
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
