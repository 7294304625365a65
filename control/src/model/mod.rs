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
//! its worker knows, and a service that is never idle keeps the address until it is.
//!
//! Owned by the control thread.
#![forbid(unsafe_code)]

mod changes;
mod ids;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use weir_dataplane::conn::state::Timeouts;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::sched::SchedulerKind;
use weir_dataplane::service::{self, ServiceKey};
use weir_dataplane::{ServerId, ServiceId};

use crate::config::{self, Config, RealServer, VipOwner};
use crate::publish::Publisher;

pub(crate) use changes::{Changes, ServerChange, ServiceChange, What};
use ids::Ids;

/// All services with their servers.
#[derive(Debug)]
pub(crate) struct Model {
    services: BTreeMap<ServiceKey, ServiceEntry>,
    service_ids: Ids,
    server_ids: Ids,
    timeouts: Timeouts,
    vips: VipOwner,
    publisher: Publisher,
}

/// A virtual service, standing or removed with connections left.
#[derive(Debug)]
pub(crate) struct ServiceEntry {
    /// Its number, stable for the key.
    pub(crate) id: ServiceId,
    /// What clients address.
    pub(crate) key: ServiceKey,
    /// The operator's name for it.
    pub(crate) name: Arc<str>,
    /// How a server is chosen.
    pub(crate) scheduler: SchedulerKind,
    /// How packets reach the servers.
    pub(crate) forward: ForwardMode,
    /// FULL-NAT's local addresses, in configuration order.
    pub(crate) local_addresses: Vec<Ipv4Addr>,
    /// The port named for addresses that no network places.
    pub(crate) port: Option<String>,
    /// Whether it was removed and waits for its last connection.
    pub(crate) removed: bool,
    /// Its real servers: those that stand in configuration order, then the removed ones.
    pub(crate) servers: Vec<ServerEntry>,
    /// The port named for the VIP, where no network places it.
    vip_port: Option<String>,
    /// Local addresses in use or given up.
    locals: BTreeMap<Ipv4Addr, Local>,
    /// As workers see it; `None` after an edit.
    published: Option<Arc<service::Service>>,
}

/// A real server of one service, standing or removed with connections left.
#[derive(Debug)]
pub(crate) struct ServerEntry {
    /// Its number, stable for the service's key and the address.
    pub(crate) id: ServerId,
    /// The operator's name for it.
    pub(crate) name: Option<String>,
    /// Its address and port.
    pub(crate) address: SocketAddrV4,
    /// Its share of new connections, while it stands.
    pub(crate) weight: u16,
    /// For a removed one, the first generation of snapshots in which no connection finds it.
    pub(crate) removed_in: Option<u64>,
}

/// A local address of a service.
#[derive(Debug)]
struct Local {
    /// The port named for it, where no network places it.
    port: Option<String>,
    /// As [`ServerEntry::removed_in`].
    removed_in: Option<u64>,
}

/// Why an address should be on one of this machine's interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum AddressKind {
    /// Clients address it.
    Vip,
    /// FULL-NAT sends from it.
    Local,
}

/// An address (a /32) that should be on one of this machine's interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WantedAddress {
    /// The address.
    pub(crate) addr: Ipv4Addr,
    /// What for; a VIP when it is both.
    pub(crate) kind: AddressKind,
    /// The port whose twin it goes on; `None` leaves it to the twins' networks.
    pub(crate) port: Option<String>,
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
            timeouts: Timeouts::default(),
            vips: VipOwner::Managed,
            publisher: Publisher::default(),
        }
    }
}

impl Model {
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
            entry.update(service, place, &mut self.server_ids, &mut edit);
        }
        edit.changes.timeouts = self.timeouts != config.timeouts;
        edit.changes.vip_owner = self.vips != config.addresses.vips;
        let changes = edit.changes;
        self.timeouts = config.timeouts;
        self.vips = config.addresses.vips;
        if !changes.is_empty() {
            self.publisher.changed();
        }
        self.forget_empty_services();
        Ok(changes)
    }

    fn enough_ids(&self, config: &Config) -> Result<(), OutOfIds> {
        let is_new = |service: &config::Service| {
            let known: HashSet<SocketAddrV4> = match self.services.get(&service.key) {
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
    /// `oldest_in_use` is the oldest generation that any worker may still look at
    /// ([`InUse::oldest`](crate::publish::InUse::oldest)): with an older one it could yet open
    /// a connection. `standing` gives the connections of a server, all workers together, as
    /// counted after that was known.
    pub(crate) fn reap(&mut self, oldest_in_use: u64, standing: impl Fn(ServerId) -> u64) -> bool {
        let out_of_reach = |removed_in: Option<u64>| removed_in.is_some_and(|g| g <= oldest_in_use);
        let mut any = false;
        for entry in self.services.values_mut() {
            let gone = |local: &Local| out_of_reach(local.removed_in);
            if entry.locals.values().any(gone) && entry.servers.iter().all(|s| standing(s.id) == 0)
            {
                entry.locals.retain(|_, local| !gone(local));
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

    /// Whether anything removed waits for its last connection, so that [`Model::reap`] may find
    /// something.
    pub(crate) fn has_removed(&self) -> bool {
        self.services.values().any(|entry| {
            entry.servers.iter().any(|s| s.removed_in.is_some())
                || entry.locals.values().any(|l| l.removed_in.is_some())
        })
    }

    /// The addresses that should be on this machine's interfaces, ascending, each once; VIPs
    /// only where Weir holds them.
    pub(crate) fn addresses(&self) -> Vec<WantedAddress> {
        let mut wanted: BTreeMap<Ipv4Addr, WantedAddress> = BTreeMap::new();
        let mut want = |addr: Ipv4Addr, kind: AddressKind, port: &Option<String>| {
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
                if self.vips == VipOwner::Managed && entry.removed == removed {
                    want(entry.key.vip, AddressKind::Vip, &entry.vip_port);
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
        self.publisher.publish(self.timeouts, &mut self.services)
    }
}

/// One edit under way.
struct Edit<'m> {
    changes: Changes,
    /// The first generation that will show it.
    generation: u64,
    publisher: &'m mut Publisher,
}

impl Edit<'_> {
    fn service(&mut self, entry: &ServiceEntry, what: What) {
        self.changes.services.push(ServiceChange {
            id: entry.id,
            name: entry.name.clone(),
            key: entry.key,
            what,
        });
    }

    fn server(&mut self, service: &Arc<str>, server: &ServerEntry, what: What) {
        self.changes.servers.push(ServerChange {
            id: server.id,
            service: service.clone(),
            address: server.address,
            what,
        });
    }
}

impl ServiceEntry {
    /// A service as yet without servers and addresses, which [`ServiceEntry::update`] gives it.
    fn new(id: ServiceId, config: &config::Service) -> ServiceEntry {
        ServiceEntry {
            id,
            key: config.key,
            name: config.name.as_str().into(),
            scheduler: config.scheduler,
            forward: config.forward,
            local_addresses: Vec::new(),
            port: None,
            removed: true,
            servers: Vec::new(),
            vip_port: None,
            locals: BTreeMap::new(),
            published: None,
        }
    }

    fn remove(&mut self, edit: &mut Edit<'_>) {
        if self.removed {
            return;
        }
        self.removed = true;
        self.published = None;
        edit.service(self, What::Removed);
        for server in self.servers.iter_mut().filter(|s| s.removed_in.is_none()) {
            server.removed_in = Some(edit.generation);
            edit.server(&self.name, server, What::Removed);
        }
        for local in self.locals.values_mut() {
            local.removed_in.get_or_insert(edit.generation);
        }
    }

    /// Makes the service what `config` says; `place` gives the port named for an address.
    fn update(
        &mut self,
        config: &config::Service,
        place: impl Fn(Ipv4Addr) -> Option<String>,
        ids: &mut Ids,
        edit: &mut Edit<'_>,
    ) {
        let keys = self.differences(config);
        let changes_before = edit.changes.len();
        let forward_changed = self.forward != config.forward;
        self.name = config.name.as_str().into();
        self.scheduler = config.scheduler;
        self.forward = config.forward;
        self.local_addresses.clone_from(&config.local_addresses);
        self.port.clone_from(&config.port);
        self.vip_port = place(self.key.vip);
        if self.removed {
            self.removed = false;
            edit.service(self, What::Added);
        } else if !keys.is_empty() {
            edit.service(self, What::Changed(keys));
        }
        for local in self.locals.values_mut() {
            local.removed_in.get_or_insert(edit.generation);
        }
        for &addr in &config.local_addresses {
            let local = Local {
                port: place(addr),
                removed_in: None,
            };
            self.locals.insert(addr, local);
        }
        self.update_servers(&config.servers, ids, edit);
        if forward_changed {
            for server in &self.servers {
                edit.publisher.put_server(self.record(server));
            }
        }
        if edit.changes.len() > changes_before {
            self.published = None;
        }
    }

    /// The keys in which the service itself changes.
    fn differences(&self, config: &config::Service) -> Vec<String> {
        let mut keys = Vec::new();
        if *self.name != *config.name {
            keys.push(format!("name {:?} to {:?}", self.name, config.name));
        }
        if self.scheduler != config.scheduler {
            let (old, new) = (self.scheduler.name(), config.scheduler.name());
            keys.push(format!("scheduler {old} to {new}"));
        }
        if self.forward != config.forward {
            let (old, new) = (self.forward.name(), config.forward.name());
            keys.push(format!("forward {old} to {new}"));
        }
        if self.local_addresses != config.local_addresses {
            let added = only_in(&config.local_addresses, &self.local_addresses);
            let removed = only_in(&self.local_addresses, &config.local_addresses);
            keys.push(format!(
                "local_addresses ({added} added, {removed} removed)"
            ));
        }
        if self.port != config.port {
            let (old, new) = (or_none(&self.port), or_none(&config.port));
            keys.push(format!("port {old} to {new}"));
        }
        // Schedulers go through servers in their order, so that it is a change too.
        let wanted: HashSet<_> = config.servers.iter().map(|s| s.address).collect();
        let standing = self.servers.iter().filter(|s| s.removed_in.is_none());
        let kept: Vec<_> = standing
            .map(|s| s.address)
            .filter(|a| wanted.contains(a))
            .collect();
        let known: HashSet<_> = kept.iter().copied().collect();
        let order = config
            .servers
            .iter()
            .map(|s| s.address)
            .filter(|a| known.contains(a));
        if !order.eq(kept) {
            keys.push("order of real servers".to_owned());
        }
        keys
    }

    fn update_servers(&mut self, wanted: &[RealServer], ids: &mut Ids, edit: &mut Edit<'_>) {
        let mut order: Vec<SocketAddrV4> = self.servers.iter().map(|s| s.address).collect();
        let before = std::mem::take(&mut self.servers);
        let mut known: HashMap<_, _> = before.into_iter().map(|s| (s.address, s)).collect();
        for config in wanted {
            let server = match known.remove(&config.address) {
                Some(mut server) => {
                    let what = server.update(config);
                    if let Some(what) = what {
                        edit.server(&self.name, &server, what);
                    }
                    server
                }
                None => {
                    let server = ServerEntry::new(ServerId(ids.take()), config);
                    edit.publisher.put_server(self.record(&server));
                    edit.server(&self.name, &server, What::Added);
                    server
                }
            };
            self.servers.push(server);
        }
        order.retain(|address| known.contains_key(address));
        for mut server in order.iter().filter_map(|address| known.remove(address)) {
            if server.removed_in.is_none() {
                server.removed_in = Some(edit.generation);
                edit.server(&self.name, &server, What::Removed);
            }
            self.servers.push(server);
        }
    }

    /// The server as workers know it.
    fn record(&self, server: &ServerEntry) -> service::Server {
        service::Server {
            id: server.id,
            service: self.id,
            address: server.address,
            forward: self.forward,
        }
    }

    /// Local addresses that the service gave up and connections may still have.
    pub(crate) fn given_up_locals(&self) -> impl Iterator<Item = Ipv4Addr> {
        let given_up = self.locals.iter().filter(|(_, l)| l.removed_in.is_some());
        given_up.map(|(addr, _)| *addr)
    }

    /// The service as workers see it, made when it has changed.
    pub(crate) fn published(&mut self) -> Arc<service::Service> {
        let standing = self.servers.iter().filter(|s| s.removed_in.is_none());
        let candidate = |s: &ServerEntry| service::Candidate {
            id: s.id,
            weight: s.weight.into(),
        };
        let make = || {
            Arc::new(service::Service {
                id: self.id,
                name: self.name.clone(),
                key: self.key,
                scheduler: self.scheduler,
                servers: standing.map(candidate).collect(),
                local_addresses: self.local_addresses.clone(),
            })
        };
        self.published.get_or_insert_with(make).clone()
    }
}

impl ServerEntry {
    fn new(id: ServerId, config: &RealServer) -> ServerEntry {
        ServerEntry {
            id,
            name: config.name.clone(),
            address: config.address,
            weight: config.weight,
            removed_in: None,
        }
    }

    fn update(&mut self, config: &RealServer) -> Option<What> {
        let mut keys = Vec::new();
        if self.weight != config.weight {
            keys.push(format!("weight {} to {}", self.weight, config.weight));
        }
        if self.name != config.name {
            let show = |name: &Option<String>| name.as_deref().unwrap_or("none").to_owned();
            keys.push(format!(
                "name {} to {}",
                show(&self.name),
                show(&config.name)
            ));
        }
        self.weight = config.weight;
        self.name.clone_from(&config.name);
        if self.removed_in.take().is_some() {
            return Some(What::Added);
        }
        (!keys.is_empty()).then_some(What::Changed(keys))
    }
}

fn or_none(name: &Option<String>) -> &str {
    name.as_deref().unwrap_or("none")
}

/// How many of `these` are not in `those`.
fn only_in(these: &[Ipv4Addr], those: &[Ipv4Addr]) -> usize {
    let those: HashSet<&Ipv4Addr> = those.iter().collect();
    these.iter().filter(|a| !those.contains(a)).count()
}
