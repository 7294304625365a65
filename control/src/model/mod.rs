//! The one service model that every door edits: what is balanced, and by which numbers.
//!
//! Workers and listings know services and real servers by number ([`ServiceId`],
//! [`ServerId`]); people and other machines know them by service key and address. The model
//! joins the two, and keeps numbers stable:
//!
//! - A server's number is that of (service key, address) for as long as it is in the model.
//! - What is removed while it may have connections stays as a *tombstone*: no new connection
//!   finds it, standing ones keep it. If it comes back, it has its number still.
//! - [`Model::reap`] forgets tombstones without connections; only then is a number free again.
//!
//! Addresses follow: a VIP stays Weir's while its service, or a tombstone of its service, is in
//! the model. A local address that a service gave up stays while any of that service's servers
//! has a connection, be it on another local address: whose local address a connection has, only
//! its worker knows, and a service that is never idle keeps the address until it is. So does a
//! virtual address that marking rules name no more.
//!
//! Owned by the control thread.
#![forbid(unsafe_code)]

mod changes;
mod entry;
mod ids;
mod policy;
#[cfg(test)]
mod tests;
mod turnover;

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weir_dataplane::conn::state::{Rules, Timeouts};
use weir_dataplane::service::{self, Marks, ServiceKey, SnatRules};
use weir_dataplane::{ServerId, ServiceId};

use crate::config::{self, Config, VipOwner};
use crate::net::{AddressKind, WantedAddress};
use crate::publish::Publisher;

pub(crate) use changes::{Changes, ServerChange, ServiceChange, What};
pub(crate) use entry::ServiceEntry;
use entry::{Edit, Local};
use ids::Ids;
pub(crate) use turnover::{FULL, Passage};

/// All services with their servers.
#[derive(Debug)]
pub(crate) struct Model {
    services: BTreeMap<ServiceKey, ServiceEntry>,
    service_ids: Ids,
    server_ids: Ids,
    marks: Arc<Marks>,
    snat: Arc<SnatRules>,
    timeouts: Timeouts,
    rules: Rules,
    vips: VipOwner,
    publisher: Publisher,
}

/// There are more servers than numbers: [`ServerId::LIMIT`], removed ones included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{wanted} real servers, those with connections left from before included; at most {} have \
     numbers: configure fewer, or wait for connections to end",
    ServerId::LIMIT
)]
pub(crate) struct OutOfIds {
    /// How many there would be.
    pub(crate) wanted: usize,
}

impl Default for Model {
    /// No services; the first snapshot has generation 1.
    fn default() -> Self {
        Model {
            services: BTreeMap::new(),
            service_ids: Ids::default(),
            server_ids: Ids::default(),
            marks: Arc::default(),
            snat: Arc::default(),
            timeouts: Timeouts::default(),
            rules: Rules::default(),
            vips: VipOwner::Managed,
            publisher: Publisher::default(),
        }
    }
}

impl Model {
    /// Says when the workers' ticks began, Unix time in seconds.
    pub(crate) fn ticks_began(&mut self, tick_zero_s: u32) {
        self.publisher.ticks_began(tick_zero_s);
    }

    /// Makes the model what `config` says.
    ///
    /// # Errors
    /// [`OutOfIds`]; nothing has changed then.
    pub(crate) fn apply(&mut self, config: &Config) -> Result<Changes, OutOfIds> {
        self.enough_ids(config)?;
        let mut edit = Edit {
            changes: Changes::default(),
            generation: self.publisher.next_generation(),
            publisher: &mut self.publisher,
        };
        let wanted: HashSet<ServiceKey> = config.services.iter().map(|s| s.key).collect();
        for entry in self
            .services
            .values_mut()
            .filter(|e| !wanted.contains(&e.key))
        {
            entry.remove(&mut edit);
        }
        for service in &config.services {
            let entry = self
                .services
                .entry(service.key)
                .or_insert_with(|| ServiceEntry::new(ServiceId(self.service_ids.take()), service));
            let place = |a| match config.network_of(a) {
                Some(_) => None,
                None => service.port.clone(),
            };
            let vips = config.placed_vips(service);
            entry.update(service, &vips, place, &mut self.server_ids, &mut edit);
        }
        edit.changes.marks = self.marks != config.marks;
        edit.changes.snat = self.snat != config.snat;
        edit.changes.timeouts = self.timeouts != config.timeouts;
        edit.changes.rules = self.rules != config.rules;
        edit.changes.vip_owner = self.vips != config.addresses.vips;
        let changes = edit.changes;
        self.marks.clone_from(&config.marks);
        self.snat.clone_from(&config.snat);
        self.timeouts = config.timeouts;
        self.rules = config.rules;
        self.vips = config.addresses.vips;
        if !changes.is_empty() {
            self.publisher.changed();
        }
        self.forget_empty_services();
        Ok(changes)
    }

    fn enough_ids(&self, config: &Config) -> Result<(), OutOfIds> {
        let is_new = |service: &config::Service| {
            let known: HashSet<SocketAddr> = match self.services.get(&service.key) {
                Some(entry) => entry.servers.iter().map(|s| s.address).collect(),
                None => HashSet::new(),
            };
            service
                .servers
                .iter()
                .filter(|s| !known.contains(&s.address))
                .count()
        };
        let wanted = self.server_ids.taken() + config.services.iter().map(is_new).sum::<usize>();
        match wanted <= ServerId::LIMIT as usize {
            true => Ok(()),
            false => Err(OutOfIds { wanted }),
        }
    }

    /// Forgets what was removed and has no connections left; whether there was any, so that a
    /// new snapshot and fewer addresses are due.
    ///
    /// `oldest_in_use` is the oldest generation of snapshots that any worker may still look at,
    /// those that wait on its ring included: with one in which a removed server still stood, it
    /// could yet open a connection. `standing` gives the connections of a server, all workers together, as
    /// counted after that was known.
    pub(crate) fn reap(&mut self, oldest_in_use: u64, standing: impl Fn(ServerId) -> u64) -> bool {
        let out_of_reach = |removed_in: Option<u64>| removed_in.is_some_and(|g| g <= oldest_in_use);
        let mut any = false;
        for entry in self.services.values_mut() {
            let gone = |local: &Local| out_of_reach(local.removed_in);
            let mut held = entry.locals.values().chain(entry.vips.values());
            if held.any(gone) && entry.servers.iter().all(|s| standing(s.id) == 0) {
                entry.locals.retain(|_, local| !gone(local));
                entry.vips.retain(|_, vip| !gone(vip));
                any = true;
            }
            entry.servers.retain(|server| {
                let keep = !out_of_reach(server.removed_in) || standing(server.id) > 0;
                if !keep {
                    self.publisher.forget_server(server.id);
                    self.server_ids.give_back(server.id.0);
                    any = true;
                }
                keep
            });
        }
        if any {
            self.publisher.changed();
            self.forget_empty_services();
        }
        any
    }

    /// A removed service without servers has no connections.
    fn forget_empty_services(&mut self) {
        let ids = &mut self.service_ids;
        self.services.retain(|_, entry| {
            let keep = !entry.removed || !entry.servers.is_empty();
            if !keep {
                ids.give_back(entry.id.0);
            }
            keep
        });
    }

    /// All services by key, removed ones that have connections included.
    pub(crate) fn services(&self) -> impl Iterator<Item = &ServiceEntry> {
        self.services.values()
    }

    /// The rules of SNAT.
    pub(crate) fn snat(&self) -> &SnatRules {
        &self.snat
    }

    /// Whether anything removed waits for its last connection, so that [`Model::reap`] may find
    /// something.
    pub(crate) fn has_removed(&self) -> bool {
        self.services.values().any(|entry| {
            entry.servers.iter().any(|s| s.removed_in.is_some())
                || entry.locals.values().any(|l| l.removed_in.is_some())
                || entry.vips.values().any(|v| v.removed_in.is_some())
        })
    }

    /// The addresses that should be on this machine's interfaces, ascending, each once; VIPs
    /// only where Weir holds them.
    pub(crate) fn addresses(&self) -> Vec<WantedAddress> {
        let mut wanted: BTreeMap<IpAddr, WantedAddress> = BTreeMap::new();
        let mut want = |addr: IpAddr, kind: AddressKind, port: &Option<String>| {
            let new = || WantedAddress {
                addr,
                kind,
                port: port.clone(),
            };
            let address = wanted.entry(addr).or_insert_with(new);
            address.kind = address.kind.min(kind);
            if address.port.is_none() {
                address.port.clone_from(port);
            }
        };
        // What stands first: of two ports named for an address, the newer one holds.
        for removed in [false, true] {
            for entry in self.services.values() {
                for (addr, vip) in entry.vips.iter().filter(|_| self.vips == VipOwner::Managed) {
                    if (entry.removed || vip.removed_in.is_some()) == removed {
                        want(*addr, AddressKind::Vip, &vip.port);
                    }
                }
                for (addr, local) in &entry.locals {
                    if local.removed_in.is_some() == removed {
                        want(*addr, AddressKind::Local, &local.port);
                    }
                }
            }
        }
        wanted.into_values().collect()
    }

    /// The current state for the workers: see [`Publisher`].
    pub(crate) fn snapshot(&mut self) -> Arc<service::Snapshot> {
        self.publisher.publish(
            self.timeouts,
            self.rules,
            (&self.marks, &self.snat),
            &mut self.services,
        )
    }
}
