//! The mirror's task: one loop that owns all that is known and asks the kernel one thing at a
//! time. Two netlink sockets: the kernel's answers must not be lost when notifications
//! overflow theirs.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures::channel::mpsc::UnboundedReceiver;
use futures::{StreamExt, TryStreamExt};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::neighbour::{
    NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourState,
};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::{AsyncSocket, SocketAddr};
use rtnetlink::{Error, Handle, MulticastGroup};
use tokio::sync::mpsc;
use weir_dataplane::PortId;
use weir_dataplane::route::{Hop, Route};

use super::links::Links;
use super::neighbours::{Ask, Asking, Neighbours};
use super::outbox::Outbox;
use super::sources::Sources;
use super::{Command, NetEvent, neighbours, routes};
use crate::net::addresses::{self, AddressBook, AddressProblem};
use crate::net::announce::announcement;
use crate::net::sys::{FrameSender, Interfaces};
use crate::net::twin::TwinInfo;

/// What is told of without being asked.
const GROUPS: [MulticastGroup; 6] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv6Route,
];
/// Whose neighbours and routes are read.
const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];
/// Room for notifications, bytes: some thousands. The kernel cuts it to its limit
/// (net.core.rmem_max), and what overflows is read again.
const NOTIFICATION_BYTES: u32 = 4 << 20;
/// Changes of routes mostly come several at once; this is how long to wait for the others.
const ROUTES_SETTLE: Duration = Duration::from_millis(20);
/// With large tables a reading takes long; at most this share of the time goes there.
const ROUTES_SHARE: u32 = 4;
/// How often kept neighbours that the kernel does not keep are asked for again.
const KEEP_RETRY: Duration = Duration::from_secs(5);
/// One announcement may be lost, or come before the switch forwards: it is repeated, once, after
/// this long (RFC 5227 section 1.1: ANNOUNCE_NUM and ANNOUNCE_INTERVAL).
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(2);

type Notifications = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

struct Task {
    handle: Handle,
    notifications: Notifications,
    commands: mpsc::Receiver<Command>,
    outbox: Outbox,
    links: Links,
    neighbours: Neighbours,
    asking: Asking,
    /// The last routes that were told; `None` before the first.
    routes: Option<Vec<Route>>,
    /// When the tables are to be read again; `None` when nothing has changed.
    routes_due: Option<Instant>,
    /// Not to be read before.
    routes_rest: Instant,
    book: AddressBook,
    frames: FrameSender,
    /// Addresses to be announced once more: when, on which interface; the next first.
    again: VecDeque<(Instant, u32, IpAddr)>,
}

/// Starts the task. See [`super::Mirror::start`].
pub(super) fn start(
    twins: Vec<TwinInfo>,
    commands: mpsc::Receiver<Command>,
    news: mpsc::Sender<NetEvent>,
) -> io::Result<()> {
    let loopback = Interfaces::open()?
        .index("lo")?
        .ok_or(io::ErrorKind::NotFound)?;
    let frames = FrameSender::open()?;
    let (mut listener, _, notifications) = rtnetlink::new_multicast_connection(&GROUPS)?;
    let socket = listener.socket_mut().socket_mut();
    socket.set_rx_buf_sz(NOTIFICATION_BYTES)?;
    let (requests, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(listener);
    tokio::spawn(requests);
    let task = Task {
        handle,
        notifications,
        commands,
        outbox: Outbox::default(),
        links: Links::new(twins.clone()),
        neighbours: Neighbours::default(),
        asking: Asking::default(),
        routes: None,
        routes_due: None,
        routes_rest: Instant::now(),
        book: AddressBook::new(twins, loopback),
        frames,
        again: VecDeque::new(),
    };
    tokio::spawn(async move {
        if let Err(error) = task.run(news).await {
            tracing::error!(
                "netlink failed: {error}; routes and neighbours are followed no longer, restart \
                 Weir"
            );
        }
    });
    Ok(())
}

impl Task {
    async fn run(mut self, news: mpsc::Sender<NetEvent>) -> io::Result<()> {
        self.read_all().await?;
        let mut retry = tokio::time::interval(KEEP_RETRY);
        retry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let routes_due = self.routes_due.map(tokio::time::Instant::from_std);
            let again_due = self.again.front().map(|(due, ..)| (*due).into());
            tokio::select! {
                notification = self.notifications.next() => match notification {
                    Some((message, _)) => self.notified(message.payload).await?,
                    None => return Err(io::ErrorKind::UnexpectedEof.into()),
                },
                command = self.commands.recv() => match command {
                    Some(Command::Shutdown(answer)) => {
                        self.book.withdraw(&self.handle).await;
                        let _ = answer.send(()); // who asked may have gone
                        return Ok(());
                    }
                    Some(command) => self.asked(command).await,
                    None => return Ok(()),
                },
                permit = news.reserve(), if !self.outbox.is_empty() => {
                    let Ok(permit) = permit else {
                        return Ok(());
                    };
                    if let Some(event) = self.outbox.pop() {
                        permit.send(event);
                    }
                }
                () = sleep_until(routes_due), if routes_due.is_some() => {
                    self.read_routes().await?;
                }
                () = sleep_until(again_due), if again_due.is_some() => self.announce_again(),
                _ = retry.tick() => {
                    for hop in self.asking.unmanaged() {
                        self.ask(hop, Ask::Managed).await;
                    }
                }
            }
        }
    }

    /// Reads everything anew: at the start, and after notifications were lost.
    async fn read_all(&mut self) -> io::Result<()> {
        let mut links = self.handle.link().get().execute();
        while let Some(message) = links.try_next().await.map_err(io_error)? {
            let change = self.links.take(&message, false);
            self.outbox_extend(change.event);
            if let Some(port) = change.ready {
                self.ready(port).await;
            }
        }
        let mut known = Vec::new();
        for family in FAMILIES {
            let mut request = self.handle.neighbours().get();
            request.message_mut().header.family = family;
            let mut messages = request.execute();
            while let Some(message) = messages.try_next().await.map_err(io_error)? {
                known.extend(neighbours::read(&message, &self.links));
            }
        }
        let events = self.neighbours.take_all(known);
        self.outbox_extend(events);
        self.asking.doubt();
        self.read_routes().await
    }

    async fn read_routes(&mut self) -> io::Result<()> {
        self.routes_due = None;
        let began = Instant::now();
        let mut dump: Vec<RouteMessage> = Vec::new();
        for family in FAMILIES {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let mut routes = self.handle.route().get(message).execute();
            while let Some(route) = routes.try_next().await.map_err(io_error)? {
                dump.push(route);
            }
        }
        let addresses = addresses::dump(&self.handle).await?;
        let sources = Sources::read(&addresses, &self.book);
        let mut routes = routes::choose(&dump, &self.links, &sources);
        routes.extend(sources.routes());
        if self.routes.as_ref() != Some(&routes) {
            self.routes = Some(routes.clone());
            self.outbox.push(NetEvent::Routes(routes));
        }
        self.routes_rest = Instant::now() + began.elapsed() * ROUTES_SHARE;
        Ok(())
    }

    async fn notified(&mut self, payload: NetlinkPayload<RouteNetlinkMessage>) -> io::Result<()> {
        let message = match payload {
            NetlinkPayload::InnerMessage(message) => message,
            NetlinkPayload::Overrun(_) => {
                tracing::warn!("netlink notifications were lost; everything is read again");
                return self.read_all().await;
            }
            _ => return Ok(()),
        };
        match message {
            RouteNetlinkMessage::NewLink(link) => self.link(&link, false).await,
            RouteNetlinkMessage::DelLink(link) => self.link(&link, true).await,
            RouteNetlinkMessage::NewNeighbour(neighbour) => {
                if let Some((hop, mac)) = neighbours::read(&neighbour, &self.links) {
                    let event = self.neighbours.take(hop, mac);
                    self.outbox_extend(event);
                }
            }
            RouteNetlinkMessage::DelNeighbour(neighbour) => {
                if let Some((hop, _)) = neighbours::read(&neighbour, &self.links) {
                    self.asking.set_managed(hop, false);
                    let event = self.neighbours.take(hop, None);
                    self.outbox_extend(event);
                }
            }
            RouteNetlinkMessage::NewRoute(_)
            | RouteNetlinkMessage::DelRoute(_)
            | RouteNetlinkMessage::NewAddress(_)
            | RouteNetlinkMessage::DelAddress(_) => self.routes_changed(),
            _ => {}
        }
        Ok(())
    }

    async fn link(&mut self, message: &LinkMessage, deleted: bool) {
        let change = self.links.take(message, deleted);
        self.outbox_extend(change.event);
        self.routes_changed();
        if let Some(port) = change.ready {
            self.ready(port).await;
        }
    }

    /// A twin can send from now on: its addresses are announced, and its kept neighbours,
    /// which the kernel forgot when the link went down, are asked for again.
    async fn ready(&mut self, port: PortId) {
        self.announce_all(port);
        for hop in self.asking.kept_behind(port) {
            self.ask(hop, Ask::Managed).await;
        }
    }

    fn announce_all(&mut self, port: PortId) {
        let Some(ifindex) = self.links.ifindex(port) else {
            return;
        };
        let here: Vec<IpAddr> = self.book.ours_on(ifindex).collect();
        for addr in here {
            self.announce(ifindex, addr);
        }
    }

    fn routes_changed(&mut self) {
        let due = (Instant::now() + ROUTES_SETTLE).max(self.routes_rest);
        self.routes_due.get_or_insert(due);
    }

    async fn asked(&mut self, command: Command) {
        match command {
            Command::Resolve(hop) => {
                if let Some(ask) = self.asking.resolve(hop, Instant::now()) {
                    self.ask(hop, ask).await;
                }
            }
            Command::Keep(hop) => {
                if self.asking.keep(hop) {
                    self.ask(hop, Ask::Managed).await;
                }
            }
            Command::Release(hop) => {
                if self.asking.release(hop) {
                    // Asking without the flags takes them away and leaves the rest.
                    self.ask(hop, Ask::Once).await;
                }
            }
            Command::Announce(port) => self.announce_all(port),
            Command::PortAddresses(addresses, answer) => {
                self.book.want_on_ports(addresses);
                let _ = answer.send(self.apply_addresses().await);
            }
            Command::Addresses(addresses, answer) => {
                self.book.want(addresses);
                let _ = answer.send(self.apply_addresses().await);
            }
            Command::Shutdown(_) => unreachable!("run() takes it"),
        }
    }

    async fn apply_addresses(&mut self) -> Vec<AddressProblem> {
        let (added, problems) = self.book.apply(&self.handle).await;
        for place in added {
            self.announce(place.ifindex, place.addr);
        }
        problems
    }

    /// Announces an address of a twin, now and once more; for one of `lo` there is no link to
    /// say it on.
    fn announce(&mut self, ifindex: u32, addr: IpAddr) {
        if self.announce_once(ifindex, addr) {
            let due = Instant::now() + ANNOUNCE_AGAIN;
            self.again.push_back((due, ifindex, addr));
        }
    }

    /// Whether the interface is a twin.
    fn announce_once(&self, ifindex: u32, addr: IpAddr) -> bool {
        let Some(mac) = self.links.mac(ifindex) else {
            return false;
        };
        if let Err(error) = self.frames.send(ifindex, &announcement(mac, addr)) {
            // A twin that is down: it is announced when it comes up.
            tracing::debug!("address {addr}: not announced: {error}");
        }
        true
    }

    /// Announces a second time what was announced long enough ago and is there still.
    fn announce_again(&mut self) {
        let now = Instant::now();
        while let Some(&(due, ifindex, addr)) = self.again.front()
            && due <= now
        {
            self.again.pop_front();
            if self.book.holds(ifindex, addr) {
                self.announce_once(ifindex, addr);
            }
        }
    }

    async fn ask(&mut self, hop: Hop, ask: Ask) {
        let Some(ifindex) = self.links.ifindex(hop.port) else {
            return;
        };
        let asked = self.send_ask(ifindex, hop, ask).await;
        match (ask, asked) {
            (Ask::Once, Ok(())) => {}
            (Ask::Managed, Ok(())) => self.asking.set_managed(hop, true),
            (Ask::Once, Err(error)) => {
                tracing::warn!(
                    "neighbour {}: the kernel refuses to ask for it: {error}",
                    hop.addr
                );
            }
            (Ask::Managed, Err(error)) => {
                tracing::debug!("neighbour {}: not managed by the kernel: {error}", hop.addr);
                self.asking.set_managed(hop, false);
                if let Err(error) = self.send_ask(ifindex, hop, Ask::Once).await {
                    tracing::warn!(
                        "neighbour {}: the kernel refuses to ask for it: {error}",
                        hop.addr
                    );
                }
            }
        }
    }

    async fn send_ask(&self, ifindex: u32, hop: Hop, ask: Ask) -> io::Result<()> {
        let request = self.handle.neighbours().add(ifindex, hop.addr).replace();
        let mut request = request
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use);
        if ask == Ask::Managed {
            let message = request.message_mut();
            message.header.flags |= NeighbourFlags::ExtLearned;
            let managed = NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed);
            message.attributes.push(managed);
        }
        request.execute().await.map_err(io_error)
    }

    fn outbox_extend(&mut self, events: impl IntoIterator<Item = NetEvent>) {
        events.into_iter().for_each(|event| self.outbox.push(event));
    }
}

async fn sleep_until(when: Option<tokio::time::Instant>) {
    if let Some(when) = when {
        tokio::time::sleep_until(when).await;
    }
}

/// What the kernel said, as the error number it meant.
pub(in crate::net) fn io_error(error: Error) -> io::Error {
    match error {
        Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}
