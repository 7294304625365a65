//! Listings of connections and of templates: one at a time of a kind, a page of every worker at a
//! time, bounded all over.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fmt::Debug;

use tokio::sync::oneshot;
use weir_dataplane::CoreId;
use weir_dataplane::command::Page;

use super::services::ServiceBook;
use crate::api::Problem;

mod connections;
mod templates;

pub(crate) use connections::OfConnections;
pub(crate) use templates::OfTemplates;

/// Entries in one page: some tens of microseconds of a worker's time.
const PAGE: usize = 512;
/// Listings that may wait for the one before; each has a person or a program waiting for it.
const WAITING: usize = 8;

/// What a listing is of.
pub(crate) trait Kind: Debug {
    /// An entry as workers show it.
    type View: Debug;
    /// Which ones are wanted.
    type Filter: Debug;
    /// An entry as it is shown to people.
    type Item: Debug;
    /// All of them.
    type Document: Debug;

    /// How many are wanted at most.
    fn limit(filter: &Self::Filter) -> usize;
    /// An entry of this worker's, if it is wanted; `services` have the names.
    fn item(
        filter: &Self::Filter,
        core: CoreId,
        view: &Self::View,
        services: &ServiceBook,
    ) -> Option<Self::Item>;
    /// What was found, and whether something was left out.
    fn document(found: Vec<Self::Item>, more: bool) -> Self::Document;
}

/// Where the answer goes.
type Back<K> = oneshot::Sender<Result<<K as Kind>::Document, Problem>>;

/// The listing under way and those that wait.
#[derive(Debug)]
pub(crate) struct Listings<K: Kind> {
    active: Option<Active<K>>,
    waiting: VecDeque<(K::Filter, Back<K>)>,
    /// By worker: its page is with it. A new listing starts when all are back, so that a page
    /// is never taken for another listing's.
    away: Vec<bool>,
}

#[derive(Debug)]
struct Active<K: Kind> {
    filter: K::Filter,
    back: Back<K>,
    found: Vec<K::Item>,
    /// By worker: the page to send next; `None` while it is away and when the table's end was
    /// reached.
    next: Vec<Option<Box<Page<K::View>>>>,
    /// Something that matches was left out for the limit.
    more: bool,
}

impl<K: Kind> Listings<K> {
    /// No listing, of `workers` workers.
    pub(crate) fn new(workers: usize) -> Listings<K> {
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
    pub(crate) fn ask(&mut self, filter: K::Filter, back: Back<K>) {
        if self.waiting.len() >= WAITING {
            let busy = format!("{WAITING} listings wait already; try again");
            let _ = back.send(Err(Problem::Unavailable(busy))); // who asked may have gone
            return;
        }
        self.waiting.push_back((filter, back));
        self.start_next();
    }

    /// The page to send to `core` now, if any.
    pub(crate) fn page_for(&mut self, core: CoreId) -> Option<Box<Page<K::View>>> {
        let page = self.active.as_mut()?.next[usize::from(core.0)].take()?;
        self.away[usize::from(core.0)] = true;
        Some(page)
    }

    /// Takes a page that came back; `services` have the names.
    pub(crate) fn take(&mut self, mut page: Box<Page<K::View>>, services: &ServiceBook) {
        let at = usize::from(page.core.0);
        self.away[at] = false;
        if let Some(active) = &mut self.active {
            active.add(&page, services);
            if !page.done && !active.more {
                page.found.clear();
                active.next[at] = Some(page);
            }
        }
        let over = |active: &mut Active<K>| {
            let ended = active.next.iter().all(Option::is_none) && !self.away.contains(&true);
            ended || active.more || active.back.is_closed()
        };
        if let Some(done) = self.active.take_if(over) {
            let listed = K::document(done.found, done.more);
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
        let page = |core| Some(Page::new(CoreId(core as u8), PAGE));
        self.active = Some(Active {
            filter,
            back,
            found: Vec::new(),
            next: (0..self.away.len()).map(page).collect(),
            more: false,
        });
    }
}

impl<K: Kind> Active<K> {
    fn add(&mut self, page: &Page<K::View>, services: &ServiceBook) {
        for view in &page.found {
            let Some(item) = K::item(&self.filter, page.core, view, services) else {
                continue;
            };
            if self.found.len() >= K::limit(&self.filter) {
                self.more = true;
                return;
            }
            self.found.push(item);
        }
    }
}

#[cfg(test)]
mod tests;
