//! What Weir knows of the kernel's network, and what it asks of it, over rtnetlink.
//!
//! [`Mirror::start`] follows the twins' links and neighbours and the routing tables, and tells
//! the control loop what changed ([`NetEvent`]). The [`NetHandle`] asks the kernel to resolve
//! and keep neighbours and to hold addresses.
//!
//! Links and neighbours follow the kernel's notifications. Routes do not: the kernel is silent
//! about routes that go with an address or a link, so any notification of routes, addresses or
//! links only says that the tables are to be read again, after a moment in which more may
//! come. When notifications were lost (ENOBUFS) everything is read again.
#![forbid(unsafe_code)]

use std::io;
use std::net::IpAddr;

use tokio::sync::{mpsc, oneshot};
use weir_dataplane::route::{Hop, Route};
use weir_dataplane::{Mac, PortId};

use super::addresses::{AddressProblem, PortAddress, WantedAddress};
use super::twin::TwinInfo;

mod links;
mod neighbours;
mod outbox;
mod routes;
mod sources;
mod task;

pub(super) use task::io_error;

/// What changed in the kernel's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NetEvent {
    /// All routes there are, sorted by prefix, one a prefix: what a FIB is made of.
    Routes(Vec<Route>),
    /// A neighbour's MAC address was learned or changed, or (`None`) is no longer known.
    Neighbour {
        /// The port it is reached through.
        port: PortId,
        /// Its address.
        addr: IpAddr,
        /// Its MAC address.
        mac: Option<Mac>,
    },
    /// What the kernel says of a port's twin: at the start, and when it changed.
    Link {
        /// The port.
        port: PortId,
        /// The MAC address.
        mac: Mac,
        /// Largest IP packet, bytes.
        mtu: u16,
        /// Whether it is administratively up (`ip link set … up`). Carrier is Weir's own
        /// ([`Twin::set_carrier`]) and not told back.
        ///
        /// [`Twin::set_carrier`]: super::Twin::set_carrier
        up: bool,
    },
}

/// News and questions that may wait for the other side.
const CHANNEL: usize = 256;

/// The mirror of the kernel's network: see [`Mirror::start`].
#[derive(Debug)]
pub(crate) struct Mirror;

impl Mirror {
    /// Starts to follow `twins`, in tasks of the current tokio runtime and in the network
    /// namespace of the calling thread. The first news is the state as it is.
    ///
    /// The receiver ends after [`NetHandle::shutdown`], or when netlink itself fails.
    ///
    /// # Errors
    /// No netlink or packet socket is to be had (CAP_NET_RAW is missing).
    pub(crate) fn start(twins: Vec<TwinInfo>) -> io::Result<(NetHandle, mpsc::Receiver<NetEvent>)> {
        let (commands, asked) = mpsc::channel(CHANNEL);
        let (news, events) = mpsc::channel(CHANNEL);
        task::start(twins, asked, news)?;
        Ok((NetHandle { commands }, events))
    }
}

/// What the mirror's task is asked for.
#[derive(Debug)]
enum Command {
    Resolve(Hop),
    Keep(Hop),
    Release(Hop),
    Announce(PortId),
    PortAddresses(Vec<PortAddress>, oneshot::Sender<Vec<AddressProblem>>),
    Addresses(Vec<WantedAddress>, oneshot::Sender<Vec<AddressProblem>>),
    Shutdown(oneshot::Sender<()>),
}

/// Asks the kernel, by way of the mirror. After the mirror's end every request does nothing.
#[derive(Debug, Clone)]
pub(crate) struct NetHandle {
    commands: mpsc::Sender<Command>,
}

impl NetHandle {
    /// Has the kernel find the MAC address of `addr` behind `port`: ARP goes out of the twin,
    /// and the answer comes as [`NetEvent::Neighbour`]. At most once a second for one address.
    pub(crate) async fn resolve(&self, port: PortId, addr: IpAddr) {
        self.ask(Command::Resolve(Hop { port, addr })).await;
    }

    /// Has the kernel find `addr` behind `port` and look after it for good: it is not garbage
    /// collected, and asked for from time to time. For real servers and gateways. Where the
    /// kernel refuses that, it is asked again every few seconds.
    pub(crate) async fn keep(&self, port: PortId, addr: IpAddr) {
        self.ask(Command::Keep(Hop { port, addr })).await;
    }

    /// Ends [`NetHandle::keep`]: the neighbour stays known, like any other.
    pub(crate) async fn release(&self, port: PortId, addr: IpAddr) {
        self.ask(Command::Release(Hop { port, addr })).await;
    }

    /// Announces again the addresses on the twin of `port`: another cable leads to them now.
    pub(crate) async fn announce(&self, port: PortId) {
        self.ask(Command::Announce(port)).await;
    }

    /// Puts these addresses on the ports' twins, and takes away those of an earlier call that
    /// are not among them. Comes first: virtual and local addresses go by these networks.
    ///
    /// # Errors
    /// All that could not be done; everything else was.
    pub(crate) async fn set_port_addresses(
        &self,
        addresses: Vec<PortAddress>,
    ) -> Result<(), Vec<AddressProblem>> {
        let (answer, problems) = oneshot::channel();
        self.ask(Command::PortAddresses(addresses, answer)).await;
        none_or(problems.await.unwrap_or_default())
    }

    /// Puts these virtual and local addresses, announces those that are new on a twin (by
    /// gratuitous ARP, or an unsolicited neighbour advertisement), and takes away those of an earlier call that are not among them.
    ///
    /// # Errors
    /// All that could not be done; everything else was.
    pub(crate) async fn set_addresses(
        &self,
        addresses: Vec<WantedAddress>,
    ) -> Result<(), Vec<AddressProblem>> {
        let (answer, problems) = oneshot::channel();
        self.ask(Command::Addresses(addresses, answer)).await;
        none_or(problems.await.unwrap_or_default())
    }

    /// A clean stop: takes away the addresses that Weir put, then ends the mirror.
    pub(crate) async fn shutdown(&self) {
        let (answer, done) = oneshot::channel();
        self.ask(Command::Shutdown(answer)).await;
        // Without an answer the mirror has ended already.
        let _ = done.await;
    }

    async fn ask(&self, command: Command) {
        // Fails only after the mirror's end, and then the events' receiver has told.
        let _ = self.commands.send(command).await;
    }
}

fn none_or(problems: Vec<AddressProblem>) -> Result<(), Vec<AddressProblem>> {
    match problems.is_empty() {
        true => Ok(()),
        false => Err(problems),
    }
}
