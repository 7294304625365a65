//! Control's end of one worker: commands out, events in, and which services it holds.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rtrb::{Consumer, Producer};
use weir_dataplane::CoreId;
use weir_dataplane::command::{Command, ConnPage, Event, PortUpdate, TemplatePage};
use weir_dataplane::counters::WorkerCounters;
use weir_dataplane::defense::blacklist::Blacklist;
use weir_dataplane::route::{Fib, NeighbourUpdate};
use weir_dataplane::service::Snapshot;

/// Control's end of one worker.
///
/// What the command ring has no room for waits here, newest of a kind only: one snapshot, one
/// FIB, one blacklist, one update a port and a neighbour. So what waits is bounded, however long a worker takes.
#[derive(Debug)]
pub(crate) struct WorkerLink {
    core: CoreId,
    commands: Producer<Command>,
    events: Consumer<Event>,
    counters: Arc<WorkerCounters>,
    snapshot: Option<Arc<Snapshot>>,
    fib: Option<Arc<Fib>>,
    blacklist: Option<Arc<Blacklist>>,
    /// Blacklists given to the worker for which none came back yet.
    blacklists: usize,
    ports: BTreeMap<u8, PortUpdate>,
    neighbours: BTreeMap<u16, NeighbourUpdate>,
    page: Option<Box<ConnPage>>,
    template_page: Option<Box<TemplatePage>>,
    stop: bool,
    /// Generations given to the worker and not yet back, oldest first: the first is what it
    /// uses.
    generations: VecDeque<u64>,
}

impl WorkerLink {
    /// The link to `core`, which starts with services of generation `holds`.
    pub(crate) fn new(
        core: CoreId,
        commands: Producer<Command>,
        events: Consumer<Event>,
        counters: Arc<WorkerCounters>,
        holds: u64,
    ) -> WorkerLink {
        WorkerLink {
            core,
            commands,
            events,
            counters,
            snapshot: None,
            fib: None,
            blacklist: None,
            blacklists: 0,
            ports: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            page: None,
            template_page: None,
            stop: false,
            generations: VecDeque::from([holds]),
        }
    }

    /// Which worker.
    pub(crate) fn core(&self) -> CoreId {
        self.core
    }

    /// What the worker counts.
    pub(crate) fn counters(&self) -> &WorkerCounters {
        &self.counters
    }

    /// The same, to be kept.
    pub(crate) fn cells(&self) -> Arc<WorkerCounters> {
        Arc::clone(&self.counters)
    }

    /// The generation of services that the worker uses: the oldest it did not send back.
    pub(crate) fn generation(&self) -> u64 {
        self.generations.front().copied().unwrap_or_default()
    }

    /// Whether something waits for room in the command ring.
    pub(crate) fn is_behind(&self) -> bool {
        self.snapshot.is_some()
            || self.fib.is_some()
            || self.blacklist.is_some()
            || self.page.is_some()
            || self.template_page.is_some()
            || self.stop
            || !self.ports.is_empty()
            || !self.neighbours.is_empty()
    }

    /// Gives the worker new services, after making room for their counters.
    pub(crate) fn post_snapshot(&mut self, snapshot: Arc<Snapshot>) {
        self.counters.reserve(&snapshot);
        self.snapshot = Some(snapshot);
        self.flush();
    }

    /// Gives the worker new routes.
    pub(crate) fn post_fib(&mut self, fib: Arc<Fib>) {
        self.fib = Some(fib);
        self.flush();
    }

    /// Gives the worker another blacklist.
    pub(crate) fn post_blacklist(&mut self, blacklist: Arc<Blacklist>) {
        self.blacklist = Some(blacklist);
        self.flush();
    }

    /// Whether the worker uses the last blacklist that it was given.
    pub(crate) fn holds_blacklist(&self) -> bool {
        self.blacklist.is_none() && self.blacklists == 0
    }

    /// Tells the worker of a neighbour.
    pub(crate) fn post_neighbour(&mut self, update: NeighbourUpdate) {
        self.neighbours.insert(update.id.0, update);
        self.flush();
    }

    /// Tells the worker of a port.
    pub(crate) fn post_port(&mut self, update: PortUpdate) {
        self.ports.insert(update.port.0, update);
        self.flush();
    }

    /// Asks the worker for a page of connections; one at a time.
    pub(crate) fn post_page(&mut self, page: Box<ConnPage>) {
        self.page = Some(page);
        self.flush();
    }

    /// Asks the worker for a page of templates; one at a time.
    pub(crate) fn post_template_page(&mut self, page: Box<TemplatePage>) {
        self.template_page = Some(page);
        self.flush();
    }

    /// Ends the worker.
    pub(crate) fn post_stop(&mut self) {
        self.stop = true;
        self.flush();
    }

    /// Moves what waits into the command ring, as far as there is room.
    ///
    /// Routes go before neighbours: when an index gets another address, connections must look
    /// up again (new epoch) before they could use it.
    pub(crate) fn flush(&mut self) {
        while !self.commands.is_full() {
            let Some(command) = self.next_command() else {
                return;
            };
            if let Command::Snapshot(snapshot) = &command {
                self.generations.push_back(snapshot.generation);
            }
            self.blacklists += usize::from(matches!(command, Command::Blacklist(_)));
            let pushed = self.commands.push(command);
            debug_assert!(pushed.is_ok(), "control is the ring's only producer");
        }
    }

    fn next_command(&mut self) -> Option<Command> {
        if let Some(snapshot) = self.snapshot.take() {
            return Some(Command::Snapshot(snapshot));
        }
        if let Some(fib) = self.fib.take() {
            return Some(Command::Fib(fib));
        }
        if let Some(blacklist) = self.blacklist.take() {
            return Some(Command::Blacklist(blacklist));
        }
        if let Some((_, update)) = self.ports.pop_first() {
            return Some(Command::Port(update));
        }
        if let Some((_, update)) = self.neighbours.pop_first() {
            return Some(Command::Neighbour(update));
        }
        if let Some(page) = self.page.take() {
            return Some(Command::ListConns(page));
        }
        if let Some(page) = self.template_page.take() {
            return Some(Command::ListTemplates(page));
        }
        std::mem::take(&mut self.stop).then_some(Command::Stop)
    }

    /// The worker's next event that is not settled here: retired snapshots and routes are
    /// freed, on this thread, and not returned.
    pub(crate) fn next_event(&mut self) -> Option<LinkEvent> {
        loop {
            match self.events.pop().ok()? {
                Event::RetiredSnapshot(old) => {
                    let first = self.generations.pop_front();
                    debug_assert_eq!(first, Some(old.generation), "{:?}", self.core);
                }
                Event::RetiredFib(_) => {}
                Event::RetiredBlacklist(_) => self.blacklists -= 1,
                Event::Resolve { port, addr } => return Some(LinkEvent::Resolve { port, addr }),
                Event::Conns(page) => return Some(LinkEvent::Conns(page)),
                Event::Templates(page) => return Some(LinkEvent::Templates(page)),
                Event::SynProxy { service, on } => {
                    return Some(LinkEvent::SynProxy { service, on });
                }
            }
        }
    }
}

/// What of a worker's events concerns the control loop.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// Packets wait for the MAC address of `addr`.
    Resolve {
        /// The port whose link it is on.
        port: weir_dataplane::PortId,
        /// The address.
        addr: std::net::IpAddr,
    },
    /// A filled page of connections.
    Conns(Box<ConnPage>),
    /// A filled page of templates.
    Templates(Box<TemplatePage>),
    /// Whether a service's automatic SYN proxy answers.
    SynProxy {
        /// Which service.
        service: weir_dataplane::ServiceId,
        /// It does.
        on: bool,
    },
}

#[cfg(test)]
mod tests;
