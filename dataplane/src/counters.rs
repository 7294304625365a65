//! Every counter and drop reason on one page.
//!
//! Cells are single-writer: the worker that owns them stores, control only loads. There is no
//! atomic read-modify-write. Zeroing is a baseline kept by control, never a store from outside.
#![forbid(unsafe_code)]

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use crossbeam::utils::CachePadded;

use crate::defense::limits::{ServiceTable, Sources};
use crate::service::Snapshot;
use crate::types::{PortId, ServerId};

/// A counter with one writer and any number of readers.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds `n`. Only the owning worker may call it.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes `n` away (gauges: active connections). Only the owning worker may call it.
    #[inline]
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Replaces the value. Only the owning worker may call it.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The value as some recent moment had it.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal,)+) => {
        /// Why a packet was not forwarded. Each is a counter that an operator can read.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $doc])+ $variant,)+ }

        impl DropReason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)+];

            /// The reason's name in listings and metrics.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)+ }
            }

            /// One sentence for people: what happened.
            #[must_use]
            pub fn help(self) -> &'static str {
                match self { $(DropReason::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than an Ethernet header.
    RuntFrame => "runt_frame",
    /// Unicast to a MAC address that is not the port's (flooded by a switch).
    NotOurMac => "not_our_mac",
    /// IPv4 header truncated, of a bad version, header length or total length.
    BadIpHeader => "bad_ip_header",
    /// IPv4 header checksum wrong.
    BadIpChecksum => "bad_ip_checksum",
    /// IPv6 header truncated, of a bad version or payload length.
    BadIp6Header => "bad_ip6_header",
    /// IPv6 extension headers cut short, too many, out of order, or with an option that asks to
    /// be dropped.
    BadIp6Extension => "bad_ip6_extension",
    /// IPv6 routing header that still names addresses to visit.
    SourceRouted => "source_routed",
    /// TCP header truncated or its data offset out of range.
    BadTcpHeader => "bad_tcp_header",
    /// UDP header truncated or its length out of range.
    BadUdpHeader => "bad_udp_header",
    /// SCTP common header or first chunk header truncated, or the chunk's length out of range.
    BadSctpHeader => "bad_sctp_header",
    /// TCP or UDP checksum found wrong by the port.
    BadL4Checksum => "bad_l4_checksum",
    /// Source address that no packet may have: loopback, multicast, broadcast or unspecified.
    BadSource => "bad_source",
    /// ICMP header truncated, or an ICMP error that does not quote an IP header.
    BadIcmp => "bad_icmp",
    /// Checksum of an ICMP error wrong.
    BadIcmpChecksum => "bad_icmp_checksum",
    /// An ICMP error about a flow that its other side could make nothing of.
    IcmpUntranslatable => "icmp_untranslatable",
    /// A SIP packet without a Call-ID to a service that is persistent by it.
    NoCallId => "no_call_id",
    /// Same source and destination address and port (a land attack).
    Land => "land",
    /// A UDP fragment without a checksum on its way to IPv6, which wants one (RFC 7915 4.5).
    FragmentWithoutChecksum => "fragment_without_checksum",
    /// A first part of a TCP segment that a PROXY header would go into: a SYN with data, or over IPv6.
    FragmentOfProxied => "fragment_of_proxied",
    /// A fragment of an impossible length or place in its datagram.
    BadFragment => "bad_fragment",
    /// A first fragment too short for the headers up to the ports.
    TinyFragment => "tiny_fragment",
    /// Fragments of one datagram that overlap: an attack. The whole datagram is dropped.
    FragmentOverlap => "fragment_overlap",
    /// A fragment that had come before.
    FragmentDuplicate => "fragment_duplicate",
    /// A datagram in more fragments than are followed.
    FragmentLimit => "fragment_limit",
    /// A fragment that waited for its datagram's first had to give way: too many wait.
    FragmentsFull => "fragments_full",
    /// A fragment whose datagram's first did not come in time.
    FragmentTimeout => "fragment_timeout",
    /// TTL ran out.
    TtlExpired => "ttl_expired",
    /// For a virtual or local address, but no service and no connection has it.
    NoConnection => "no_connection",
    /// SYN proxy: a TCP packet without a connection that brings no cookie of ours back.
    InvalidCookie => "invalid_cookie",
    /// SYN proxy: a TCP packet without a connection that brings a cookie back too late.
    ExpiredCookie => "expired_cookie",
    /// SYN proxy: a client's packet before its server has answered, and not held: repeated,
    /// empty, or one too many. What matters of it the client sends again.
    AwaitingServer => "awaiting_server",
    /// SYN proxy: held, or for a server that refused or did not answer, or of a client that gave
    /// up.
    ServerSilent => "server_silent",
    /// The service has no real server that may take a connection.
    NoServer => "no_server",
    /// Every real server that may take a connection has reached its upper threshold.
    ServersFull => "servers_full",
    /// The service has as many connections as its `limits` allow.
    ServiceConnections => "limit_service_connections",
    /// More new connections a second than the service's `limits` allow.
    ServiceConnectionRate => "limit_service_connection_rate",
    /// More packets a second than the service's `limits` allow.
    ServicePacketRate => "limit_service_packets",
    /// More bits a second than the service's `limits` allow.
    ServiceBitRate => "limit_service_bits",
    /// The client has as many connections as the service's `limits.per_client` allow.
    ClientConnections => "limit_client_connections",
    /// More new connections a second than the service's `limits.per_client` allow.
    ClientConnectionRate => "limit_client_connection_rate",
    /// More packets a second than the service's `limits.per_client` allow.
    ClientPacketRate => "limit_client_packets",
    /// More bits a second than the service's `limits.per_client` allow.
    ClientBitRate => "limit_client_bits",
    /// NAT: every server tried has a connection with the same client address and port.
    ReplyKeyTaken => "reply_key_taken",
    /// No free local address and port for this server.
    LipExhausted => "lip_exhausted",
    /// SNAT: no address of the rule's pool takes connections, or none has a port left towards this
    /// destination.
    SnatExhausted => "snat_exhausted",
    /// The connection table is full and nothing could be evicted.
    ConnTableFull => "conn_table_full",
    /// The client is on the blacklist.
    Blacklisted => "blacklisted",
    /// The service's access list does not let the client in.
    AccessDenied => "access_denied",
    /// Taken by drop_packet: one in so many of the packets that would open a connection.
    DropPacket => "drop_packet",
    /// No route to the next hop.
    NoRoute => "no_route",
    /// The next hop's MAC address was not found in time.
    NeighbourUnresolved => "neighbour_unresolved",
    /// Too many packets already wait for a next hop's MAC address.
    NeighbourQueueFull => "neighbour_queue_full",
    /// The ring to the owner core was full.
    HandoffFull => "handoff_full",
    /// The port's transmit queue was full.
    TxFull => "tx_full",
    /// The packet grew past the port's MTU or the buffer.
    TooBig => "too_big",
    /// No buffer was left in the pool for a packet to be made or cut.
    NoBuffer => "no_buffer",
    /// The ring to the kernel twin was full: its last quarter is for ARP, neighbour discovery
    /// and routing.
    KernelFull => "kernel_full",
    /// Past the limit for what is passed to the kernel.
    KernelPoliced => "kernel_policed",
}

/// The books of one worker. At rest, over all workers:
/// `rx + from_kernel + generated = tx + to_kernel + sum(drops) + held`, and
/// `held = parked + handoff_out - handoff_in`.
#[derive(Debug)]
pub struct WorkerCounters {
    /// Frames received from ports.
    pub rx_packets: Cell,
    /// Bytes received from ports.
    pub rx_bytes: Cell,
    /// Frames handed to a port's transmit queue.
    pub tx_packets: Cell,
    /// Bytes handed to a port's transmit queue.
    pub tx_bytes: Cell,
    /// Frames passed to the kernel twin's ring.
    pub to_kernel: Cell,
    /// Frames taken from the kernel twin's ring.
    pub from_kernel: Cell,
    /// Frames that Weir made itself: resets, ICMP errors, SYNs to servers in a client's name,
    /// further parts of what it cut.
    pub generated: Cell,
    /// Frames put on another worker's ring.
    pub handoff_out: Cell,
    /// Frames taken from other workers' rings.
    pub handoff_in: Cell,
    /// Frames waiting for a neighbour, for their datagram's first fragment, or for a server's
    /// SYN-ACK (gauge).
    pub parked: Cell,
    /// Frames dropped, by reason.
    pub drops: [Cell; DropReason::ALL.len()],
    /// Connections standing (gauge).
    pub conns: Cell,
    /// Connections opened.
    pub conns_opened: Cell,
    /// Connections that ran out, whose server was gone (`expire_nodest_conn`), or did not answer
    /// (SYN proxy).
    pub conns_expired: Cell,
    /// Connections evicted because the table was full (the four kinds below together), or because too
    /// many waited for their servers (SYN proxy).
    pub conns_evicted: Cell,
    /// Of these, such whose handshake had not completed.
    pub evicted_half_open: Cell,
    /// Such that were over, or that one side had closed.
    pub evicted_closing: Cell,
    /// UDP flows.
    pub evicted_udp: Cell,
    /// Established connections.
    pub evicted_established: Cell,
    /// Connections forgotten because their clients were refused from then on.
    pub conns_denied: Cell,
    /// Connections forgotten by `drop_entry`.
    pub conns_shed: Cell,
    /// Closing connections that gave way to a new one from the same client port.
    pub conns_reused: Cell,
    /// Connections ended because their server leaves, both sides told where there are words for it.
    pub conns_dismissed: Cell,
    /// Connections that no limit for clients was applied to: the table of clients was full.
    pub limit_untracked: Cell,
    /// Persistence templates standing.
    pub templates: Cell,
    /// Templates given up because their table was full.
    pub templates_evicted: Cell,
    /// Templates forgotten by `drop_entry`: none of their connections was ever established.
    pub templates_shed: Cell,
    /// Connections of real servers' own opened by SNAT; they count among `conns_opened` too.
    pub snat_opened: Cell,
    /// Local ports taken early from a connection in TIME_WAIT, under shortage.
    pub lip_early_reuse: Cell,
    /// ICMP errors about balanced flows passed on, translated where it takes that.
    pub icmp_errors: Cell,
    /// TCP SYNs whose MSS was lowered so that segments fit a tunnel.
    pub mss_clamped: Cell,
    /// Times that a tunnel's path MTU was learned from an ICMP error.
    pub path_mtus: Cell,
    /// Partial L4 checksums completed (ports with `rx_checksum = "fill"`).
    pub checksums_filled: Cell,
    /// Packets that told a server the client's address.
    pub clients_told: Cell,
    /// Packets that had no room for it (a full header, the MTU) and went without.
    pub clients_untold: Cell,
    /// SYN proxy: SYNs answered by a cookie.
    pub cookies_sent: Cell,
    /// SYN proxy: cookies that came back, each opening a connection.
    pub cookies_valid: Cell,
    /// SYN proxy: SYNs sent again to servers that had not answered.
    pub syns_repeated: Cell,
    /// Data connections announced on control connections (FTP).
    pub data_expected: Cell,
    /// Data connections opened.
    pub data_conns: Cell,
    /// Announcements refused: not the client's own address (a bounce), or a port below 1024.
    pub helper_refused: Cell,
    /// Announcements that could not be read or changed, in pieces over several segments.
    pub helper_missed: Cell,
    /// Turns of the loop that found nothing to do.
    pub idle_polls: Cell,
    /// Turns of the loop that found work.
    pub busy_polls: Cell,
    /// Per port: what this worker received and sent there.
    pub ports: Vec<PortCounters>,
    /// Per real server: see [`ServerCounters`].
    pub servers: ServerTable,
    /// Per service with limits.
    pub services: ServiceTable,
    /// Per client of a service that limits its clients.
    pub sources: OnceLock<Sources>,
}

/// What one worker received and sent on one port.
#[derive(Debug, Default)]
pub struct PortCounters {
    /// Frames received.
    pub rx_packets: Cell,
    /// Bytes received.
    pub rx_bytes: Cell,
    /// Frames sent.
    pub tx_packets: Cell,
    /// Bytes sent.
    pub tx_bytes: Cell,
    /// Frames the transmit queue had no room for.
    pub tx_full: Cell,
}

/// One worker's count for one real server of one service. Inbound is client to server.
#[derive(Debug, Default)]
pub struct ServerCounters {
    /// Connections opened.
    pub conns: Cell,
    /// Packets from clients.
    pub in_packets: Cell,
    /// Packets from the server.
    pub out_packets: Cell,
    /// IP bytes from clients.
    pub in_bytes: Cell,
    /// IP bytes from the server.
    pub out_bytes: Cell,
    /// Connections in an active state (gauge; IPVS's ActiveConn).
    pub active: Cell,
    /// Connections in any other state (gauge; IPVS's InActConn).
    pub inactive: Cell,
    /// Places announced under its upper threshold, for connections about to open (gauge).
    pub announced: Cell,
    /// Such places that left with a packet that another worker goes on with.
    pub places_out: Cell,
    /// Such places that came with a packet from another worker.
    pub places_in: Cell,
    /// Times that this worker found it overloaded.
    pub filled: Cell,
    /// Times that this worker found it overloaded no more.
    pub cleared: Cell,
    /// 1 while this worker gives it no connections because of its threshold (gauge).
    pub overloaded: Cell,
}

/// Servers in one chunk of a [`ServerTable`].
pub const SERVER_CHUNK: usize = 256;
/// Chunks in a [`ServerTable`]: all 24-bit ids.
const SERVER_CHUNKS: usize = ServerId::LIMIT as usize / SERVER_CHUNK;
const _: () = assert!(SERVER_CHUNK == 1 << u8::BITS);

type ServerChunk = Arc<[CachePadded<ServerCounters>; SERVER_CHUNK]>;

/// One server's counters, kept at hand by the worker that writes them.
#[derive(Debug, Clone)]
pub struct ServerCells {
    chunk: ServerChunk,
    /// Its place in the chunk, which has one for each value.
    at: u8,
}

impl Deref for ServerCells {
    type Target = ServerCounters;

    #[inline]
    fn deref(&self) -> &ServerCounters {
        &self.chunk[usize::from(self.at)]
    }
}

/// Server counters by id: a spine of chunks. Control makes the chunk before it publishes a
/// server in it ([`ServerTable::reserve`]), so that a worker never allocates.
pub struct ServerTable {
    spine: Box<[OnceLock<ServerChunk>]>,
}

impl std::fmt::Debug for ServerTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTable").finish_non_exhaustive()
    }
}

impl Default for ServerTable {
    fn default() -> Self {
        ServerTable {
            spine: (0..SERVER_CHUNKS).map(|_| OnceLock::new()).collect(),
        }
    }
}

impl ServerTable {
    /// Makes room for `id`. Called by control, before a snapshot names the server.
    pub fn reserve(&self, id: ServerId) {
        self.spine[id.0 as usize / SERVER_CHUNK]
            .get_or_init(|| Arc::new(std::array::from_fn(|_| CachePadded::default())));
    }

    /// The cells of `id`; `None` when control never reserved it.
    #[inline]
    #[must_use]
    pub fn get(&self, id: ServerId) -> Option<&ServerCounters> {
        let chunk = self.spine.get(id.0 as usize / SERVER_CHUNK)?.get()?;
        Some(&chunk[id.0 as usize % SERVER_CHUNK])
    }

    /// The same, to be kept at hand.
    #[must_use]
    pub fn cells(&self, id: ServerId) -> Option<ServerCells> {
        let chunk = self.spine.get(id.0 as usize / SERVER_CHUNK)?.get()?;
        Some(ServerCells {
            chunk: Arc::clone(chunk),
            at: (id.0 as usize % SERVER_CHUNK) as u8,
        })
    }
}

impl WorkerCounters {
    /// Zeroed counters for a worker that serves `ports` ports.
    #[must_use]
    pub fn new(ports: usize) -> Self {
        WorkerCounters {
            rx_packets: Cell::default(),
            rx_bytes: Cell::default(),
            tx_packets: Cell::default(),
            tx_bytes: Cell::default(),
            to_kernel: Cell::default(),
            from_kernel: Cell::default(),
            generated: Cell::default(),
            handoff_out: Cell::default(),
            handoff_in: Cell::default(),
            parked: Cell::default(),
            drops: std::array::from_fn(|_| Cell::default()),
            conns: Cell::default(),
            conns_opened: Cell::default(),
            conns_expired: Cell::default(),
            conns_evicted: Cell::default(),
            evicted_half_open: Cell::default(),
            evicted_closing: Cell::default(),
            evicted_udp: Cell::default(),
            evicted_established: Cell::default(),
            conns_denied: Cell::default(),
            conns_shed: Cell::default(),
            conns_reused: Cell::default(),
            conns_dismissed: Cell::default(),
            limit_untracked: Cell::default(),
            templates: Cell::default(),
            templates_evicted: Cell::default(),
            templates_shed: Cell::default(),
            snat_opened: Cell::default(),
            lip_early_reuse: Cell::default(),
            icmp_errors: Cell::default(),
            mss_clamped: Cell::default(),
            path_mtus: Cell::default(),
            checksums_filled: Cell::default(),
            clients_told: Cell::default(),
            clients_untold: Cell::default(),
            cookies_sent: Cell::default(),
            cookies_valid: Cell::default(),
            syns_repeated: Cell::default(),
            data_expected: Cell::default(),
            data_conns: Cell::default(),
            helper_refused: Cell::default(),
            helper_missed: Cell::default(),
            idle_polls: Cell::default(),
            busy_polls: Cell::default(),
            ports: (0..ports).map(|_| PortCounters::default()).collect(),
            servers: ServerTable::default(),
            services: ServiceTable::default(),
            sources: OnceLock::new(),
        }
    }

    /// Makes room for what workers count of the servers and services of `snapshot`. Called before
    /// a worker is given it, so that workers never allocate.
    pub fn reserve(&self, snapshot: &Snapshot) {
        for server in snapshot.servers() {
            self.servers.reserve(server.id);
        }
        for service in snapshot.services() {
            let limits = &service.policy.limits;
            if limits.are_on() {
                self.services.reserve(service.id);
            }
            if limits.client.are_on() {
                self.sources.get_or_init(Sources::default);
            }
        }
    }

    /// Counts a drop.
    #[inline]
    pub fn dropped(&self, reason: DropReason) {
        self.drops[reason as usize].add(1);
    }

    /// This worker's cells for `port`.
    #[inline]
    #[must_use]
    pub fn port(&self, port: PortId) -> Option<&PortCounters> {
        self.ports.get(usize::from(port.0))
    }
}

/// The sum of several workers' books, as control reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// See [`WorkerCounters::rx_packets`].
    pub rx: u64,
    /// See [`WorkerCounters::tx_packets`].
    pub tx: u64,
    /// See [`WorkerCounters::to_kernel`].
    pub to_kernel: u64,
    /// See [`WorkerCounters::from_kernel`].
    pub from_kernel: u64,
    /// See [`WorkerCounters::generated`].
    pub generated: u64,
    /// All drops together.
    pub dropped: u64,
    /// Parked frames and frames on rings between workers.
    pub held: u64,
}

impl Totals {
    /// Adds up the books of `workers`.
    pub fn of<'a>(workers: impl IntoIterator<Item = &'a WorkerCounters>) -> Totals {
        let mut t = Totals::default();
        for w in workers {
            t.rx += w.rx_packets.get();
            t.tx += w.tx_packets.get();
            t.to_kernel += w.to_kernel.get();
            t.from_kernel += w.from_kernel.get();
            t.generated += w.generated.get();
            t.dropped += w.drops.iter().map(Cell::get).sum::<u64>();
            let rings = w.handoff_out.get().wrapping_sub(w.handoff_in.get());
            t.held = t.held.wrapping_add(w.parked.get()).wrapping_add(rings);
        }
        t
    }

    /// Whether every packet is in exactly one column. True only while no worker runs.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.rx + self.from_kernel + self.generated
            == self.tx + self.to_kernel + self.dropped + self.held
    }
}
