//! News that the control loop has not taken yet: at most one a subject, the latest.
//!
//! So a slow control loop costs memory for what there is, never for how often it changed, and
//! the mirror never waits for the control loop while that waits for the mirror.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap, VecDeque};

use weir_dataplane::route::{Hop, Route};
use weir_dataplane::{Mac, PortId};

use super::NetEvent;

/// The waiting news.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    links: BTreeMap<PortId, NetEvent>,
    routes: Option<Vec<Route>>,
    neighbours: HashMap<Hop, Option<Mac>>,
    /// The neighbours in the order their news came.
    order: VecDeque<Hop>,
}

impl Outbox {
    /// Adds news; older news of the same subject is forgotten.
    pub(super) fn push(&mut self, event: NetEvent) {
        match event {
            NetEvent::Link { port, .. } => drop(self.links.insert(port, event)),
            NetEvent::Routes(routes) => self.routes = Some(routes),
            NetEvent::Neighbour { port, addr, mac } => {
                let hop = Hop { port, addr };
                if self.neighbours.insert(hop, mac).is_none() {
                    self.order.push_back(hop);
                }
            }
        }
    }

    /// The next news: links, then routes, then neighbours in the order they came.
    pub(super) fn pop(&mut self) -> Option<NetEvent> {
        if let Some((_, link)) = self.links.pop_first() {
            return Some(link);
        }
        if let Some(routes) = self.routes.take() {
            return Some(NetEvent::Routes(routes));
        }
        let Hop { port, addr } = self.order.pop_front()?;
        let mac = self.neighbours.remove(&Hop { port, addr })?;
        Some(NetEvent::Neighbour { port, addr, mac })
    }

    /// Whether there is no news.
    pub(super) fn is_empty(&self) -> bool {
        self.links.is_empty() && self.routes.is_none() && self.order.is_empty()
    }
}

#[cfg(test)]
mod tests;
