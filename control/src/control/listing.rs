//! Listings of connections: one at a time, a page of every worker at a time, bounded all over.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use tokio::sync::oneshot;
use weir_dataplane::command::{ConnPage, ConnView};
use weir_dataplane::{CoreId, Tick};

use super::services::ServiceBook;
use crate::api::documents::{Connection, Connections};
use crate::api::{ConnectionFilter, Problem};

/// Connections in one page: some tens of microseconds of a worker's time.
const PAGE: usize = 512;
/// Listings that may wait for the one before; each has a person or a program waiting for it.
const WAITING: usize = 8;

/// Where the answer goes.
type Back = oneshot::Sender<Result<Connections, Problem>>;

/// The listing under way and those that wait.
#[derive(Debug)]
pub(crate) struct Listings {
    active: Option<Active>,
    waiting: VecDeque<(ConnectionFilter, Back)>,
    /// By worker: its page is with it. A new listing starts when all are back, so that a page
    /// is never taken for another listing's.
    away: Vec<bool>,
}

#[derive(Debug)]
struct Active {
    filter: ConnectionFilter,
    back: Back,
    found: Vec<Connection>,
    /// By worker: the page to send next; `None` while it is away and when the table's end was
    /// reached.
    next: Vec<Option<Box<ConnPage>>>,
    /// Something that matches was left out for the limit.
    more: bool,
}

impl Listings {
    /// No listing, of `workers` workers.
    pub(crate) fn new(workers: usize) -> Listings {
        Listings {
            active: None,
            waiting: VecDeque::new(),
            away: vec![false; workers],
        }
    }

    /// Whether a listing is under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.active.is_some() || self.away.contains(&true)
    }

    /// Starts a listing, or lets it wait. The answer goes to `back`.
    pub(crate) fn ask(&mut self, filter: ConnectionFilter, back: Back) {
        if self.waiting.len() >= WAITING {
            let busy = format!("{WAITING} listings wait already; try again");
            let _ = back.send(Err(Problem::Unavailable(busy))); // who asked may have gone
            return;
        }
        self.waiting.push_back((filter, back));
        self.start_next();
    }

    /// The page to send to `core` now, if any.
    pub(crate) fn page_for(&mut self, core: CoreId) -> Option<Box<ConnPage>> {
        let page = self.active.as_mut()?.next[usize::from(core.0)].take()?;
        self.away[usize::from(core.0)] = true;
        Some(page)
    }

    /// Takes a page that came back; `services` have the names.
    pub(crate) fn take(&mut self, mut page: Box<ConnPage>, services: &ServiceBook) {
        let at = usize::from(page.core.0);
        self.away[at] = false;
        if let Some(active) = &mut self.active {
            active.add(&page, services);
            if !page.done && !active.more {
                page.found.clear();
                active.next[at] = Some(page);
            }
        }
        let over = |active: &mut Active| {
            let ended = active.next.iter().all(Option::is_none) && !self.away.contains(&true);
            ended || active.more || active.back.is_closed()
        };
        if let Some(done) = self.active.take_if(over) {
            let listed = Connections {
                connections: done.found,
                more: done.more,
            };
            let _ = done.back.send(Ok(listed)); // who asked may have gone
        }
        self.start_next();
    }

    fn start_next(&mut self) {
        if self.is_busy() {
            return;
        }
        let Some((filter, back)) = self.waiting.pop_front() else {
            return;
        };
        let page = |core| Some(ConnPage::new(CoreId(core as u8), PAGE));
        self.active = Some(Active {
            filter,
            back,
            found: Vec::new(),
            next: (0..self.away.len()).map(page).collect(),
            more: false,
        });
    }
}

impl Active {
    fn add(&mut self, page: &ConnPage, services: &ServiceBook) {
        for view in &page.found {
            let service = services.name(view.server_id);
            if !matches(&self.filter, view, service) {
                continue;
            }
            if self.found.len() >= self.filter.limit {
                self.more = true;
                return;
            }
            self.found.push(connection(page.core, view, service));
        }
    }
}

fn matches(filter: &ConnectionFilter, view: &ConnView, service: Option<&str>) -> bool {
    let wanted = filter.service.as_deref();
    wanted.is_none_or(|name| service == Some(name))
        && filter.client.is_none_or(|at| at.matches(view.client))
        && filter.server.is_none_or(|at| at.matches(view.server))
        && filter
            .state
            .is_none_or(|state| state.name() == view.state.name())
}

fn connection(core: CoreId, view: &ConnView, service: Option<&str>) -> Connection {
    Connection {
        worker: core.0,
        protocol: view.proto.to_string(),
        state: view.state.name().to_owned(),
        client: view.client,
        virtual_: view.virtual_,
        local: view.local,
        server: view.server,
        service: service.map(str::to_owned),
        // Not yet over: the second that has begun counts.
        expires_seconds: view.expires.div_ceil(Tick::PER_SECOND),
        age_seconds: view.age / Tick::PER_SECOND,
        in_packets: view.in_packets,
    }
}

#[cfg(test)]
mod tests;
