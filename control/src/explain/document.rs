//! The answer: what becomes of each packet, and why.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::api::documents::{Connection, Counter};

/// Packets explained: `POST /v1/explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Explained {
    /// Whose services, routes and neighbours were asked: a running daemon's, or a file's.
    pub(crate) source: String,
    /// What is taken for granted, one sentence each.
    pub(crate) assumed: Vec<String>,
    /// The packets, in the order of their arrival.
    pub(crate) packets: Vec<Packet>,
}

/// What becomes of one packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Packet {
    /// Its number in the capture, from 1.
    pub(crate) number: u64,
    /// Microseconds since the capture's first packet.
    pub(crate) at_us: u64,
    /// The port that it arrives on.
    pub(crate) port: String,
    /// What it is, in one line.
    pub(crate) packet: String,
    /// `tcp`, `udp` or `sctp`; absent for what is no whole packet of these.
    pub(crate) protocol: Option<String>,
    /// Where it comes from; absent as `protocol`.
    pub(crate) source: Option<SocketAddr>,
    /// Where it goes to; absent as `protocol`.
    pub(crate) destination: Option<SocketAddr>,
    /// What becomes of it.
    pub(crate) verdict: Verdict,
    /// Why, in a sentence or two.
    pub(crate) why: String,
    /// The worker that owns its flow.
    pub(crate) owner: Option<u8>,
    /// The service that it is for.
    pub(crate) service: Option<Service>,
    /// The real server that gets it, or sent it.
    pub(crate) server: Option<Server>,
    /// The connection that it is of, as it stands after the packet.
    pub(crate) connection: Option<Standing>,
    /// The connection of the running daemon that takes it in truth. What is said beside it is
    /// then what a new connection would get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) existing: Option<Connection>,
    /// Who gets the frame next.
    pub(crate) next_hop: Option<NextHop>,
    /// The frames that left because of it, those that Weir made itself included.
    pub(crate) out: Vec<Left>,
    /// The drop reasons that were counted.
    pub(crate) drops: Vec<Counter>,
    /// What else was counted.
    pub(crate) counters: Vec<Counter>,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// It goes on to a real server or back to a client.
    Forwarded,
    /// The kernel gets it, through the port's twin.
    Kernel,
    /// Weir answers it itself.
    Answered,
    /// It is dropped.
    Dropped,
    /// It waits for something.
    Held,
    /// It was not asked about: what a capture holds and no port could receive.
    LeftOut,
}

impl Verdict {
    /// As listings show it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Verdict::Forwarded => "forwarded",
            Verdict::Kernel => "kernel",
            Verdict::Answered => "answered",
            Verdict::Dropped => "dropped",
            Verdict::Held => "held",
            Verdict::LeftOut => "left out",
        }
    }
}

/// The service that a packet is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Service {
    /// The operator's name for it.
    pub(crate) name: String,
    /// What it takes: `tcp 10.0.0.10:80`, port 0 for every port; or `fwmark 7`.
    pub(crate) takes: String,
    /// The scheduler.
    pub(crate) scheduler: String,
    /// What its choice means, in one sentence.
    pub(crate) choice: String,
    /// Its real servers.
    pub(crate) servers: usize,
    /// Those with a weight above 0.
    pub(crate) available: usize,
}

/// The real server of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Server {
    /// RIP and port.
    pub(crate) address: SocketAddr,
    /// How packets reach it: `fullnat`, `nat`, `dr`, `tun` or `local`.
    pub(crate) forward: String,
    /// What they travel in, for `tun`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tunnel: Option<String>,
    /// Its share of new connections; absent when it takes none because it is leaving.
    pub(crate) weight: Option<u32>,
    /// Its connections in an active state when it was chosen, all workers together.
    pub(crate) active: u64,
    /// Its other connections.
    pub(crate) inactive: u64,
}

/// A connection, as it stands after the packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// This packet opened it.
    pub(crate) opened: bool,
    /// `inbound`, client to server, or `outbound`.
    pub(crate) direction: String,
    /// The client (CIP).
    pub(crate) client: SocketAddr,
    /// The virtual service (VIP).
    #[serde(rename = "virtual")]
    pub(crate) virtual_: SocketAddr,
    /// What the server sees as its client: a local address in FULL-NAT.
    pub(crate) local: SocketAddr,
    /// The real server (RIP).
    pub(crate) server: SocketAddr,
    /// Its state.
    pub(crate) state: String,
    /// The worker that owns it.
    pub(crate) worker: u8,
}

/// Who gets a frame next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NextHop {
    /// Where it is to go in the end.
    pub(crate) towards: IpAddr,
    /// Through this port; absent without a route.
    pub(crate) port: Option<String>,
    /// To this address on the port's link: a router's, or the destination itself.
    pub(crate) address: Option<IpAddr>,
    /// The MAC address there; absent while it is not known.
    pub(crate) mac: Option<String>,
}

/// A frame that left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Left {
    /// The port that it left by, or whose twin got it.
    pub(crate) port: String,
    /// To the kernel twin, not out of the port.
    pub(crate) to_kernel: bool,
    /// What it is, in one line.
    pub(crate) packet: String,
    /// Its length, bytes, without FCS.
    pub(crate) length: usize,
    /// Its destination MAC address.
    pub(crate) mac: String,
    /// Its bytes in hexadecimal digits, where they were asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) frame: String,
}
