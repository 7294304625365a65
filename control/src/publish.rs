//! Model to snapshot: what workers are to know, with as little copying as the change needs.
//!
//! Server records are edited in the chunks of the last snapshot, services that did not change
//! keep their `Arc`, and a state that is published already is not published again.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_dataplane::ServerId;
use weir_dataplane::conn::state::{Rules, Timeouts};
use weir_dataplane::defense::cookie::Cookies;
use weir_dataplane::service::{Marks, Server, ServiceKey, Snapshot, SnapshotBuilder, SnatRules};

use crate::model::ServiceEntry;

/// What the workers were told last, and what has changed since.
#[derive(Debug, Default)]
pub(crate) struct Publisher {
    generation: u64,
    /// Unix time when the workers' ticks began, seconds.
    tick_zero_s: u32,
    /// `None` before the first, and after a change.
    current: Option<Arc<Snapshot>>,
    /// Whose chunks the next snapshot shares.
    last: Option<Arc<Snapshot>>,
    /// Records to put, or to forget, in the next one.
    servers: BTreeMap<ServerId, Option<Server>>,
}

impl Publisher {
    /// Says when the workers' ticks began, Unix time in seconds.
    pub(crate) fn ticks_began(&mut self, tick_zero_s: u32) {
        self.tick_zero_s = tick_zero_s;
    }

    /// The generation of the next new snapshot: the first that shows a change made now.
    pub(crate) fn next_generation(&self) -> u64 {
        self.generation + 1
    }

    /// A snapshot is due.
    pub(crate) fn changed(&mut self) {
        self.current = None;
    }

    /// The next snapshot has this record.
    pub(crate) fn put_server(&mut self, server: Server) {
        self.servers.insert(server.id, Some(server));
    }

    /// The next snapshot has no server of this number.
    pub(crate) fn forget_server(&mut self, id: ServerId) {
        self.servers.insert(id, None);
    }

    /// The snapshot of `services`: the last one when nothing has changed since, else a new one
    /// of the next generation. Before it goes to workers, control reserves the counters of its
    /// servers ([`ServerTable::reserve`](weir_dataplane::counters::ServerTable::reserve)).
    pub(crate) fn publish(
        &mut self,
        timeouts: Timeouts,
        rules: Rules,
        (marks, snat): (&Arc<Marks>, &Arc<SnatRules>),
        services: &mut BTreeMap<ServiceKey, ServiceEntry>,
    ) -> Arc<Snapshot> {
        if let Some(current) = &self.current {
            return current.clone();
        }
        let builder = SnapshotBuilder::default().timeouts(timeouts).rules(rules);
        let builder = builder.cookies(Cookies {
            secret: rules.cookie_secret,
            tick_zero_s: self.tick_zero_s,
        });
        let mut builder = builder.marks(marks.clone()).snat(snat.clone());
        if let Some(last) = &self.last {
            builder.servers_of(last);
        }
        for (id, server) in std::mem::take(&mut self.servers) {
            match server {
                Some(server) => builder.server(server),
                None => builder.forget_server(id),
            }
        }
        for entry in services.values_mut() {
            match entry.removed {
                true => builder.vips_of(&entry.key),
                false => builder.service(entry.published()),
            }
            builder.timeouts_of(entry.id, &entry.timeouts);
            entry.given_up_locals().for_each(|addr| builder.local(addr));
        }
        self.generation += 1;
        let snapshot = Arc::new(builder.build(self.generation));
        self.last = Some(snapshot.clone());
        self.current = Some(snapshot.clone());
        snapshot
    }
}
