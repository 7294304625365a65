//! All that control may say to a worker, and all that a worker answers.
//!
//! Both directions are bounded rings. A worker takes at most a few commands a turn, so that an
//! operator's question never delays packets.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::conn::state::State;
use crate::conn::templates::TemplateView;
use crate::defense::blacklist::Blacklist;
use crate::route::{Fib, NeighbourUpdate};
use crate::service::Snapshot;
use crate::types::{CoreId, Mac, PortId, Proto, ServerId, ServiceId};

/// Control to worker.
#[derive(Debug)]
pub enum Command {
    /// Use these services from now on; the old snapshot comes back as
    /// [`Event::RetiredSnapshot`].
    Snapshot(Arc<Snapshot>),
    /// Use these routes from now on; the old ones come back as [`Event::RetiredFib`].
    Fib(Arc<Fib>),
    /// Shut these clients out from now on; the old list comes back as
    /// [`Event::RetiredBlacklist`].
    Blacklist(Arc<Blacklist>),
    /// A neighbour was learned, changed or lost.
    Neighbour(NeighbourUpdate),
    /// A port's addresses or MTU changed.
    Port(PortUpdate),
    /// Fill this page of connections and send it back as [`Event::Conns`].
    ListConns(Box<ConnPage>),
    /// Fill this page of persistence templates and send it back as [`Event::Templates`].
    ListTemplates(Box<TemplatePage>),
    /// Forward what is in hand, drop what is parked, then end the loop.
    Stop,
}

/// Worker to control.
#[derive(Debug)]
pub enum Event {
    /// The worker no longer looks at this snapshot; control drops it.
    RetiredSnapshot(Arc<Snapshot>),
    /// The worker no longer looks at these routes; control drops them.
    RetiredFib(Arc<Fib>),
    /// The worker no longer looks at this blacklist; control drops it.
    RetiredBlacklist(Arc<Blacklist>),
    /// Packets wait for the MAC address of `addr` behind `port`; ask the kernel and answer with
    /// [`Command::Neighbour`] to every worker.
    Resolve {
        /// The port whose link it is on.
        port: PortId,
        /// The address to resolve.
        addr: IpAddr,
    },
    /// A filled page, answer to [`Command::ListConns`].
    Conns(Box<ConnPage>),
    /// A filled page, answer to [`Command::ListTemplates`].
    Templates(Box<TemplatePage>),
    /// Whether a service with an automatic SYN proxy answers by cookies: said once a second
    /// while it does, and once when it no longer does.
    SynProxy {
        /// Which service.
        service: ServiceId,
        /// It does.
        on: bool,
    },
}

/// What may change of a port while workers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortUpdate {
    /// Which port.
    pub port: PortId,
    /// Its MAC address.
    pub mac: Mac,
    /// Largest IP packet, bytes.
    pub mtu: u16,
}

/// A bounded page of a worker's connections or templates. Control sizes `found`; the worker never
/// grows it.
#[derive(Debug)]
pub struct Page<V> {
    /// Where to go on in the worker's entry array; 0 at first.
    pub cursor: u32,
    /// Set by the worker when the array's end was reached.
    pub done: bool,
    /// Which worker filled it.
    pub core: CoreId,
    /// What was found, at most its capacity.
    pub found: Vec<V>,
    /// Entries to look at in one turn, found or not; bounds the pause.
    pub scan: u32,
}

/// A page of connections.
pub type ConnPage = Page<ConnView>;

/// A page of the templates that live at a worker.
pub type TemplatePage = Page<TemplateView>;

impl<V> Page<V> {
    /// An empty page for `core` with room for `room` of them.
    #[must_use]
    pub fn new(core: CoreId, room: usize) -> Box<Page<V>> {
        let found = Vec::with_capacity(room);
        Box::new(Page {
            cursor: 0,
            done: false,
            core,
            found,
            scan: 4096,
        })
    }
}

/// A connection as listings show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnView {
    /// TCP, UDP or SCTP.
    pub proto: Proto,
    /// The client (CIP).
    pub client: SocketAddr,
    /// The virtual service (VIP).
    pub virtual_: SocketAddr,
    /// The local address (LIP), what the server sees as its client.
    pub local: SocketAddr,
    /// The real server (RIP).
    pub server: SocketAddr,
    /// Which server record.
    pub server_id: ServerId,
    /// Its state.
    pub state: State,
    /// Ticks until it runs out.
    pub expires: u32,
    /// Ticks since it was opened.
    pub age: u32,
    /// Packets from the client, saturating at 65,535.
    pub in_packets: u16,
}
