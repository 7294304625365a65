//! Single-producer, single-consumer rings: worker to worker, worker to twin thread and back.
//!
//! Each pair of threads has its own ring (rtrb: one load-acquire and one store-release each
//! side, no read-modify-write). A full ring is a counted drop, never a wait.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use rtrb::{Consumer, Producer, RingBuffer};

use crate::conn::templates::{Heard, TemplateKey, TemplateRef};
use crate::counters::DropReason;
use crate::helper::expected::{Expected, Wanted};
use crate::packet::Key6;
use crate::types::{CoreId, PortId, ServerId};

/// What the other worker is to do with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandoffKind {
    /// It owns the flow: process the frame as if it had arrived there.
    Process,
    /// It has a transmit queue on the port and we have none: send the finished frame.
    Transmit,
}

/// A frame that changes cores.
#[derive(Debug)]
pub struct Handoff<F> {
    /// The frame.
    pub frame: F,
    /// The port it arrived on (`Process`) or leaves by (`Transmit`).
    pub port: PortId,
    /// What to do with it.
    pub kind: HandoffKind,
}

/// Both keys of a connection whose answers another worker gets first. Those of an IPv4
/// connection are IPv4-mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// Of the client's packets.
    pub inbound: Key6,
    /// Of the server's packets.
    pub outbound: Key6,
}

/// What was asked for one opening and is answered: it travels with the packet, so that several
/// questions can follow each other and none is asked twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// How often another server was refused before.
    pub tries: u8,
    /// The server that the client's template names; no other will do.
    pub server: Option<ServerId>,
    /// That template, which counts this connection already.
    pub template: Option<TemplateRef>,
    /// It was made for this connection, and a place under the server's threshold travels along.
    pub placed: bool,
    /// The template's home has no server for it, and why.
    pub refused: Option<DropReason>,
}

impl Progress {
    /// At which server a place travels along.
    #[must_use]
    pub fn place(&self) -> Option<ServerId> {
        self.server.filter(|_| self.placed)
    }
}

/// Asks a template's home for the server of a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// What the packet is of.
    pub of: FragmentOf,
    /// Whose template.
    pub key: TemplateKey,
}

/// What a datagram's first fragment says of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FragmentOf {
    /// The kernel's: no protocol that is balanced.
    Kernel,
    /// Of a flow, perhaps of a balanced one.
    Flow {
        /// Its five-tuple; IPv4-mapped for IPv4.
        key: Key6,
        /// What the first fragment says to the state table.
        says: u8,
        /// The datagram's identification where it gets a new one.
        id: u32,
        /// Of an SCTP packet: its bytes without the IP header.
        len: u16,
    },
}

/// What workers say to each other: about a connection whose two keys have two owners, and with
/// packets that do not say themselves which flow they are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// From the opener to the owner of the answers' key, with the first packet: may they be ours?
    Ask {
        /// The connection to be.
        keys: Keys,
        /// The server chosen for it.
        server: ServerId,
        /// What is answered already.
        progress: Progress,
    },
    /// The answer, with the packet.
    Told {
        /// What was asked.
        keys: Keys,
        /// What was asked.
        server: ServerId,
        /// What was asked.
        progress: Progress,
        /// Whether answers will be passed on; if not, another connection has that key.
        granted: bool,
    },
    /// With the first packet, to a template's home: which server?
    Template(Question, Progress),
    /// The answer, with the packet: the server is in the progress, or why there is none.
    Named(FragmentOf, Progress),
    /// Of a connection that this template of yours controls.
    Controlled(TemplateRef, Heard),
    /// A fragment of a datagram of this flow of yours.
    Fragment(FragmentOf),
    /// The connection stands: go on passing its answers on.
    Keep(Keys),
    /// The connection is gone.
    Release(Keys),
    /// A control connection announced this one: expect it.
    Expect(Expected),
    /// It came, or another one was announced: expect it no more.
    Forget(Wanted),
    /// With a server's first packet, to the owner of its client's packets: open this one.
    Call(Expected),
    /// A data connection of the one with this inbound key goes on.
    Linger(Key6),
    /// A router says that packets to a tunnel's far end may have `mtu` bytes at most.
    PathMtu {
        /// The far end.
        to: IpAddr,
        /// Longest IP packet, bytes.
        mtu: u16,
    },
}

impl Message {
    /// What is answered already for the packet that goes along.
    #[must_use]
    pub fn progress(&self) -> Option<&Progress> {
        match self {
            Message::Ask { progress, .. }
            | Message::Told { progress, .. }
            | Message::Template(_, progress)
            | Message::Named(_, progress) => Some(progress),
            _ => None,
        }
    }

    /// At which server a place travels along.
    #[must_use]
    pub fn place(&self) -> Option<ServerId> {
        self.progress().and_then(Progress::place)
    }
}

/// A message that changes cores, with the packet that it is about, if any.
#[derive(Debug)]
pub struct Errand<F> {
    /// The packet, and the port it arrived on.
    pub frame: Option<(PortId, F)>,
    /// What is said.
    pub message: Message,
}

/// One worker's rings to and from every other worker, indexed by core; its own are unused.
#[derive(Debug)]
pub struct Links<F> {
    /// To each core.
    pub out: Vec<Option<Producer<Handoff<F>>>>,
    /// From each core.
    pub into: Vec<Option<Consumer<Handoff<F>>>>,
    /// Messages to each core.
    pub errands_out: Vec<Option<Producer<Errand<F>>>>,
    /// Messages from each core.
    pub errands_into: Vec<Option<Consumer<Errand<F>>>>,
}

/// Errands that a ring holds beside `capacity` handoffs: only first packets travel so.
#[must_use]
pub fn errand_room(capacity: usize) -> usize {
    capacity.div_ceil(4)
}

/// Rings of `capacity` frames between every two of `workers` workers, and a quarter as many for
/// errands.
#[must_use]
pub fn mesh<F>(workers: u8, capacity: usize) -> Vec<Links<F>> {
    let n = usize::from(workers);
    let mut links: Vec<Links<F>> = (0..n)
        .map(|_| Links {
            out: (0..n).map(|_| None).collect(),
            into: (0..n).map(|_| None).collect(),
            errands_out: (0..n).map(|_| None).collect(),
            errands_into: (0..n).map(|_| None).collect(),
        })
        .collect();
    for from in 0..n {
        for to in (0..n).filter(|&to| to != from) {
            let (producer, consumer) = RingBuffer::new(capacity);
            links[from].out[to] = Some(producer);
            links[to].into[from] = Some(consumer);
            let (producer, consumer) = RingBuffer::new(errand_room(capacity));
            links[from].errands_out[to] = Some(producer);
            links[to].errands_into[from] = Some(consumer);
        }
    }
    links
}

/// A frame between a worker and the kernel twin of `port`.
#[derive(Debug)]
pub struct KernelFrame<F> {
    /// The port whose twin it is for, or from.
    pub port: PortId,
    /// The frame.
    pub frame: F,
}

/// One side's rings between a worker and the twin thread.
#[derive(Debug)]
pub struct KernelEnd<F> {
    /// To the other side.
    pub out: Producer<KernelFrame<F>>,
    /// From the other side.
    pub into: Consumer<KernelFrame<F>>,
}

/// The two ends, of `capacity` frames each way: the worker's, then the twin thread's.
#[must_use]
pub fn kernel_rings<F>(capacity: usize) -> (KernelEnd<F>, KernelEnd<F>) {
    let (to_kernel, at_kernel) = RingBuffer::new(capacity);
    let (from_kernel, at_worker) = RingBuffer::new(capacity);
    (
        KernelEnd {
            out: to_kernel,
            into: at_worker,
        },
        KernelEnd {
            out: from_kernel,
            into: at_kernel,
        },
    )
}

/// Which worker sends for `core` on a port with `tx_queues` transmit queues.
#[must_use]
pub fn transmitter(core: CoreId, tx_queues: u8) -> CoreId {
    CoreId(core.0 % tx_queues.max(1))
}
