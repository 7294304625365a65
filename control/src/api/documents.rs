//! The API's JSON documents: what the server writes and the command line reads.
//!
//! Field names are an interface: they are added to, never renamed. Counts are totals since the
//! start of the process; addresses are text, `10.0.0.1:80`; times are whole seconds.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// How Weir does: `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Weir's version.
    pub(crate) version: String,
    /// The daemon's process id.
    pub(crate) pid: u32,
    /// Seconds since the daemon was ready to forward.
    pub(crate) uptime_seconds: u64,
    /// Publications of services so far; what every worker is to hold.
    pub(crate) generation: u64,
    /// Whether every worker holds that generation.
    pub(crate) settled: bool,
    /// The configuration file that start and reload read.
    pub(crate) config_file: String,
    /// Virtual services.
    pub(crate) services: usize,
    /// Routes mirrored from the kernel.
    pub(crate) routes: usize,
    /// Neighbours whose MAC address is known.
    pub(crate) neighbours: usize,
    /// Connections standing, over all workers.
    pub(crate) connections: u64,
    /// Connections that fit, over all workers.
    pub(crate) max_connections: u64,
    /// The workers, by number.
    pub(crate) workers: Vec<Worker>,
    /// The ports, in configuration order.
    pub(crate) ports: Vec<Port>,
}

/// One worker thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Worker {
    /// Its number, from 0.
    pub(crate) worker: u8,
    /// The processor it is pinned to.
    pub(crate) cpu: usize,
    /// What it does when there is nothing to do: `spin`, `yield` or `sleep`.
    pub(crate) idle: String,
    /// Turns of its loop that found nothing to do.
    pub(crate) idle_polls: u64,
    /// Turns of its loop that found work.
    pub(crate) busy_polls: u64,
    /// Its connections.
    pub(crate) connections: u64,
    /// The generation of services that it holds.
    pub(crate) generation: u64,
}

/// One port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Port {
    /// Its name, and its kernel twin's.
    pub(crate) name: String,
    /// The DPDK device.
    pub(crate) device: String,
    /// The DPDK driver.
    pub(crate) driver: String,
    /// The MAC address.
    pub(crate) mac: String,
    /// The largest IP packet, bytes.
    pub(crate) mtu: u16,
    /// Whether there is a link.
    pub(crate) link_up: bool,
    /// The link's speed in Mbit/s; absent where the driver does not say.
    pub(crate) link_mbps: Option<u32>,
    /// `aligned` when the port's RSS brings a flow to its owner, `unaligned` when not.
    pub(crate) alignment: String,
    /// Receive queues.
    pub(crate) rx_queues: u16,
    /// Transmit queues.
    pub(crate) tx_queues: u16,
    /// Frames received by the workers.
    pub(crate) rx_packets: u64,
    /// Bytes received by the workers.
    pub(crate) rx_bytes: u64,
    /// Frames sent by the workers.
    pub(crate) tx_packets: u64,
    /// Bytes sent by the workers.
    pub(crate) tx_bytes: u64,
    /// Frames that the transmit queues had no room for.
    pub(crate) tx_full: u64,
    /// Frames that the port itself lost on receipt: no descriptor, no buffer, or broken.
    pub(crate) rx_missed: u64,
    /// A bond's members, in configuration order, as they were seen within the last second; absent
    /// for other ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) members: Vec<Member>,
}

/// A member of a bond.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// The DPDK device, without arguments.
    pub(crate) device: String,
    /// `active` when it carries frames, `backup` when it would if the active one's link went,
    /// `negotiating` when its link is up and the switch has not agreed to it by LACP, `down`.
    pub(crate) state: String,
    /// Whether its own link is up.
    pub(crate) link_up: bool,
    /// The link's speed in Mbit/s; absent where the driver does not say.
    pub(crate) link_mbps: Option<u32>,
    /// How often it was seen to become unfit since the start: down, or without the switch's LACP.
    pub(crate) lost: u64,
    /// Frames that it received, LACP's own included.
    pub(crate) rx_packets: u64,
    /// Frames that it sent, LACP's own included.
    pub(crate) tx_packets: u64,
}

/// Services and real servers: `GET /v1/services`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Services {
    /// The generation that this is.
    pub(crate) generation: u64,
    /// In configuration order; services that were removed and still have connections last.
    pub(crate) services: Vec<Service>,
}

/// A virtual service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Service {
    /// The operator's name for it.
    pub(crate) name: String,
    /// `tcp`, `udp` or `sctp`; of a rule of SNAT perhaps `icmp`. Absent where it takes what is
    /// marked, or all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<String>,
    /// VIP and port, `10.0.0.10:80`, or ranges of them, `10.0.0.16/28:8000-8999`; port 0 is every
    /// port. Absent where it takes what is marked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<String>,
    /// The mark of the packets that it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fwmark: Option<u32>,
    /// Of a pool of SNAT, what leaves with its addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) snat: Option<Snat>,
    /// Its clients': `ipv4` or `ipv6`.
    #[serde(default)]
    pub(crate) family: String,
    /// Each datagram is scheduled on its own (`ops` in ipvsadm's listings).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) one_packet: bool,
    /// The scheduler.
    pub(crate) scheduler: String,
    /// The scheduler's flags, by ipvsadm's names and in its order.
    pub(crate) scheduler_flags: Vec<String>,
    /// How packets reach real servers that say nothing of their own: `fullnat`, `nat`, `dr`,
    /// `tun` or `local`; `snat` of a pool of SNAT, whose real servers are its addresses.
    pub(crate) forward: String,
    /// Its SYN proxy; absent where it is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) syn_proxy: Option<SynProxy>,
    /// The local addresses that servers see as clients.
    pub(crate) local_addresses: Vec<IpAddr>,
    /// How much it and each of its clients may have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) limits: Vec<Limit>,
    /// Real servers in configuration order; those that leave last.
    pub(crate) servers: Vec<Server>,
}

/// Which packets a rule of SNAT is for; what is empty asks nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snat {
    /// Networks that they come from.
    pub(crate) source: Vec<String>,
    /// Networks that they go to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) destination: Vec<String>,
    /// Ports there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ports: Vec<String>,
    /// Ports of the pool's addresses that they leave with.
    pub(crate) to_ports: String,
}

/// Whether clients of a service must prove where they are before a connection is opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SynProxy {
    /// `auto` or `always`.
    pub(crate) mode: String,
    /// They must now.
    pub(crate) on: bool,
}

/// A real server of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Server {
    /// RIP and port.
    pub(crate) address: SocketAddr,
    /// How packets reach it: `fullnat`, `nat`, `dr`, `tun` or `local`.
    pub(crate) forward: String,
    /// What they travel in, for `tun`, as `ipvsadm --tun-info` writes it: `ipip`, `gre:+c`,
    /// `gue:6080:-c`; and `vxlan:4789:7`, port and network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tunnel: Option<String>,
    /// Its share of new connections.
    pub(crate) weight: u32,
    /// Whether it may take new connections.
    pub(crate) state: ServerState,
    /// Connections that are enough for it; absent where there is no such number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) upper_threshold: u32,
    /// It is full until it has fewer than so many; absent for three quarters of the upper.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) lower_threshold: u32,
    /// Its counts over all workers.
    #[serde(flatten)]
    pub(crate) traffic: Traffic,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// One limit of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limit {
    /// Its key in the configuration: `connections`, `bits_per_second` ...
    pub(crate) limit: String,
    /// Each client has it; the service otherwise.
    pub(crate) per_client: bool,
    /// How much it allows.
    pub(crate) most: u64,
    /// How many stand now, of the service's connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) now: Option<u64>,
    /// What it refused, connections or packets.
    pub(crate) refused: u64,
}

/// A real server that drains: `POST /v1/drain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Draining {
    /// The service's name.
    pub(crate) service: String,
    /// RIP and port.
    pub(crate) server: SocketAddr,
    /// Connections left in an active state.
    pub(crate) active: u64,
    /// Connections left in any other state: closing ones, and UDP's.
    pub(crate) inactive: u64,
    /// No worker sends it anything any more, and none is left.
    pub(crate) safe: bool,
}

/// The blacklist, or the entries of it that a request was about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Blacklisted {
    /// By network.
    pub(crate) entries: Vec<BlacklistEntry>,
    /// How many there are in all.
    pub(crate) all: usize,
    /// Bytes that the compiled list takes, for all workers together.
    pub(crate) bytes: usize,
}

/// A network that is shut out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlacklistEntry {
    /// `192.0.2.0/24`.
    pub(crate) prefix: String,
    /// The service that it is shut out of; of all without.
    pub(crate) service: Option<String>,
    /// Seconds since it was added.
    pub(crate) age_seconds: u64,
    /// Seconds until it goes by itself; stays without.
    pub(crate) expires_in_seconds: Option<u64>,
}

/// Whether a real server may take new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ServerState {
    /// It takes new connections.
    Active,
    /// It has as many connections as its upper threshold, and takes new ones when it has fewer
    /// than the lower one.
    Full,
    /// It takes new connections, and less than its part of them yet.
    Starting,
    /// Weight 0: it keeps what it has and takes nothing new.
    Drained,
    /// Removed from the configuration: gone with its last connection.
    Leaving,
}

impl ServerState {
    /// As listings show it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ServerState::Active => "active",
            ServerState::Full => "full",
            ServerState::Starting => "starting",
            ServerState::Drained => "drained",
            ServerState::Leaving => "leaving",
        }
    }
}

/// What passed through a real server. Inbound is client to server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Traffic {
    /// Connections now in an active state (IPVS's ActiveConn).
    pub(crate) active: u64,
    /// Connections now in any other state (IPVS's InActConn).
    pub(crate) inactive: u64,
    /// Connections opened.
    pub(crate) conns: u64,
    /// Packets from clients.
    pub(crate) in_packets: u64,
    /// Packets from the server.
    pub(crate) out_packets: u64,
    /// IP bytes from clients.
    pub(crate) in_bytes: u64,
    /// IP bytes from the server.
    pub(crate) out_bytes: u64,
}

impl Traffic {
    /// The counts since they were `zero`. Cells wrap like counters do, and gauges are sums of
    /// cells read one after the other.
    pub(crate) fn since(self, zero: Traffic) -> Traffic {
        Traffic {
            active: self.active.wrapping_sub(zero.active),
            inactive: self.inactive.wrapping_sub(zero.inactive),
            conns: self.conns.wrapping_sub(zero.conns),
            in_packets: self.in_packets.wrapping_sub(zero.in_packets),
            out_packets: self.out_packets.wrapping_sub(zero.out_packets),
            in_bytes: self.in_bytes.wrapping_sub(zero.in_bytes),
            out_bytes: self.out_bytes.wrapping_sub(zero.out_bytes),
        }
    }
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, t: Traffic) {
        self.active = self.active.wrapping_add(t.active);
        self.inactive = self.inactive.wrapping_add(t.inactive);
        self.conns = self.conns.wrapping_add(t.conns);
        self.in_packets = self.in_packets.wrapping_add(t.in_packets);
        self.out_packets = self.out_packets.wrapping_add(t.out_packets);
        self.in_bytes = self.in_bytes.wrapping_add(t.in_bytes);
        self.out_bytes = self.out_bytes.wrapping_add(t.out_bytes);
    }
}

/// Connections: `GET /v1/connections`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Connections {
    /// Those that match, as the workers' tables hold them: in no particular order.
    pub(crate) connections: Vec<Connection>,
    /// Whether the limit ended the listing before the tables' ends.
    pub(crate) more: bool,
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Connection {
    /// The worker that owns it.
    pub(crate) worker: u8,
    /// `tcp`, `udp` or `sctp`.
    pub(crate) protocol: String,
    /// Its state, as `ipvsadm -Lnc` names it.
    pub(crate) state: String,
    /// The client (CIP).
    pub(crate) client: SocketAddr,
    /// The virtual service (VIP).
    #[serde(rename = "virtual")]
    pub(crate) virtual_: SocketAddr,
    /// The local address (LIP), what the server sees as its client.
    pub(crate) local: SocketAddr,
    /// The real server (RIP).
    pub(crate) server: SocketAddr,
    /// The service's name; absent when the service was removed for good.
    pub(crate) service: Option<String>,
    /// Seconds until it runs out.
    pub(crate) expires_seconds: u32,
    /// Seconds since it was opened.
    pub(crate) age_seconds: u32,
    /// Packets from the client, saturating at 65,535.
    pub(crate) in_packets: u16,
}

/// Persistence templates: `GET /v1/templates`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Templates {
    /// Those that match, in no particular order.
    pub(crate) templates: Vec<Template>,
    /// Whether the limit ended the listing before the tables' ends.
    pub(crate) more: bool,
}

/// Which server a client's new connections to a service go to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Template {
    /// The worker at which it lives.
    pub(crate) worker: u8,
    /// `tcp`, `udp` or `sctp`; `ip` for a service of a mark.
    pub(crate) protocol: String,
    /// `ASSURED` when a connection of its own was established or answered, else `NONE`.
    pub(crate) state: String,
    /// The clients that go by it, as a network.
    pub(crate) client: String,
    /// The virtual service: its address and port, or `fwmark 7`; absent when it was removed for
    /// good.
    #[serde(rename = "virtual")]
    pub(crate) virtual_: Option<String>,
    /// The real server; absent when it was removed for good.
    pub(crate) server: Option<SocketAddr>,
    /// The service's name; likewise.
    pub(crate) service: Option<String>,
    /// The hash of the SIP call's ID that it is for, 16 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) call_id_hash: Option<String>,
    /// Seconds until it runs out, unless a connection comes; while it controls one, until it is
    /// armed again for a minute.
    pub(crate) expires_seconds: u32,
    /// Connections that it controls.
    pub(crate) connections: u32,
}

/// All counters: `GET /v1/counters`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// Frames and connections.
    pub(crate) workers: Vec<Counter>,
    /// Frames dropped, by reason.
    pub(crate) drops: Vec<Counter>,
    /// The twin thread's counts, one group a port.
    pub(crate) twins: Vec<TwinCounters>,
    /// The books of all workers together.
    pub(crate) balance: Balance,
}

/// One counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counter {
    /// Its name.
    pub(crate) name: String,
    /// What it counts, one sentence.
    pub(crate) help: String,
    /// Its value over all workers.
    pub(crate) value: u64,
    /// Its value in each worker; empty for what is not a worker's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) per_worker: Vec<u64>,
}

/// The counters of one kernel twin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TwinCounters {
    /// The port's name.
    pub(crate) port: String,
    /// Its counters.
    pub(crate) counters: Vec<Counter>,
}

/// The books: `rx + from_kernel + generated = tx + to_kernel + dropped + held`. Read while
/// workers run, a few frames may be in neither side yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Balance {
    /// Frames received from ports.
    pub(crate) rx: u64,
    /// Frames taken from kernel twins.
    pub(crate) from_kernel: u64,
    /// Frames that Weir made itself.
    pub(crate) generated: u64,
    /// Frames sent to ports.
    pub(crate) tx: u64,
    /// Frames passed to kernel twins.
    pub(crate) to_kernel: u64,
    /// Frames dropped, all reasons together.
    pub(crate) dropped: u64,
    /// Frames that wait for a neighbour or on a ring between workers.
    pub(crate) held: u64,
    /// Whether both sides were equal at this moment.
    pub(crate) balanced: bool,
}

/// A reload that was applied: `POST /v1/reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reloaded {
    /// The generation that every worker holds now.
    pub(crate) generation: u64,
    /// What changed, in one line of numbers.
    pub(crate) summary: String,
    /// What changed, one line each; empty when nothing did.
    pub(crate) changes: Vec<String>,
    /// Addresses that the kernel did not take, one sentence each; the rest is applied.
    pub(crate) warnings: Vec<String>,
}

/// Any refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// One clear sentence.
    pub(crate) error: String,
}
