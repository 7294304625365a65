//! One virtual service of the model with its real servers, and how an edit changes it.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use weir_dataplane::conn::state::TimeoutChanges;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::forward::carrier::ClientAddress;
use weir_dataplane::forward::tun::Tunnel;
use weir_dataplane::sched::{Options, Scheduler, SchedulerKind};
use weir_dataplane::service::{self, Policy, ServerPolicy, ServiceKey};
use weir_dataplane::{ServerId, ServiceId};

use super::changes::{Changes, ServerChange, ServiceChange, What};
use super::ids::Ids;
use super::policy;
use super::turnover::{self, Passage};
use crate::config::{self, RealServer, Removal, Turnover};
use crate::publish::Publisher;

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
    /// The scheduler's flags and sizes.
    pub(crate) options: Options,
    /// How packets reach the servers that say nothing of their own.
    pub(crate) forward: ForwardMode,
    /// FULL-NAT's local addresses, in configuration order.
    pub(crate) local_addresses: Vec<IpAddr>,
    /// The port named for addresses that no network places.
    pub(crate) port: Option<String>,
    /// How its servers are told the client's address.
    pub(crate) client_address: ClientAddress,
    /// The timeouts that it sets for its connections.
    pub(crate) timeouts: TimeoutChanges,
    /// How its servers come and go.
    pub(crate) turnover: Turnover,
    /// What else was asked of it.
    pub(crate) policy: Policy,
    /// Whether it was removed and waits for its last connection.
    pub(crate) removed: bool,
    /// Its real servers: those that stand in configuration order, then the removed ones.
    pub(crate) servers: Vec<ServerEntry>,
    /// Virtual addresses for interfaces, in use or given up.
    pub(super) vips: BTreeMap<IpAddr, Local>,
    /// Local addresses in use or given up.
    pub(super) locals: BTreeMap<IpAddr, Local>,
    /// As workers see it; `None` after an edit.
    pub(super) published: Option<Arc<service::Service>>,
    /// The scheduler as it was published last, with its tables: renewed only where it changes.
    prepared: Option<Scheduler>,
}

/// A real server of one service, standing or removed with connections left.
#[derive(Debug)]
pub(crate) struct ServerEntry {
    /// Its number, stable for the service's key and the address.
    pub(crate) id: ServerId,
    /// The operator's name for it.
    pub(crate) name: Option<String>,
    /// Its address and port.
    pub(crate) address: SocketAddr,
    /// Its share of new connections, while it stands.
    pub(crate) weight: u16,
    /// How packets reach it.
    pub(crate) forward: ForwardMode,
    /// What they travel in, for [`ForwardMode::tun`].
    pub(crate) tunnel: Option<Tunnel>,
    /// What else was asked of it.
    pub(crate) policy: ServerPolicy,
    /// How far it is on its way in or out.
    pub(crate) passage: Passage,
    /// For a removed one, the first generation of snapshots in which no connection finds it.
    pub(crate) removed_in: Option<u64>,
}

/// A local or virtual address of a service.
#[derive(Debug)]
pub(super) struct Local {
    /// The port named for it, where no network places it.
    pub(super) port: Option<String>,
    /// As [`ServerEntry::removed_in`].
    pub(super) removed_in: Option<u64>,
}

/// One edit under way.
pub(super) struct Edit<'m> {
    pub(super) changes: Changes,
    /// The first generation that will show it.
    pub(super) generation: u64,
    pub(super) publisher: &'m mut Publisher,
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
    pub(super) fn new(id: ServiceId, config: &config::Service) -> ServiceEntry {
        ServiceEntry {
            id,
            key: config.key,
            name: config.name.as_str().into(),
            scheduler: config.scheduler,
            options: config.options,
            forward: config.forward,
            local_addresses: Vec::new(),
            port: None,
            client_address: ClientAddress::none,
            timeouts: TimeoutChanges::default(),
            turnover: Turnover::default(),
            policy: Policy::default(),
            removed: true,
            servers: Vec::new(),
            vips: BTreeMap::new(),
            locals: BTreeMap::new(),
            published: None,
            prepared: None,
        }
    }

    pub(super) fn remove(&mut self, edit: &mut Edit<'_>) {
        if self.removed {
            return;
        }
        self.removed = true;
        self.published = None;
        edit.service(self, What::Removed);
        let mut servers = std::mem::take(&mut self.servers);
        for server in servers.iter_mut().filter(|s| s.removed_in.is_none()) {
            self.remove_server(server, edit);
        }
        self.servers = servers;
        for local in self.locals.values_mut() {
            local.removed_in.get_or_insert(edit.generation);
        }
    }

    /// Makes the service what `config` says, with `vips` on interfaces; `place` gives the port
    /// named for an address.
    pub(super) fn update(
        &mut self,
        config: &config::Service,
        vips: &[IpAddr],
        place: impl Fn(IpAddr) -> Option<String>,
        ids: &mut Ids,
        edit: &mut Edit<'_>,
    ) {
        let keys = self.differences(config);
        let changes_before = edit.changes.len();
        self.name = config.name.as_str().into();
        self.scheduler = config.scheduler;
        self.options = config.options;
        self.forward = config.forward;
        self.local_addresses.clone_from(&config.local_addresses);
        self.port.clone_from(&config.port);
        self.timeouts = config.timeouts;
        self.turnover = config.turnover;
        self.policy.clone_from(&config.policy);
        self.client_address = config.client_address;
        if self.removed {
            self.removed = false;
            edit.service(self, What::Added);
        } else if !keys.is_empty() {
            edit.service(self, What::Changed(keys));
        }
        let generation = edit.generation;
        for (held, wanted) in [
            (&mut self.locals, config.local_addresses.as_slice()),
            (&mut self.vips, vips),
        ] {
            for address in held.values_mut() {
                address.removed_in.get_or_insert(generation);
            }
            for &addr in wanted {
                let address = Local {
                    port: place(addr),
                    removed_in: None,
                };
                held.insert(addr, address);
            }
        }
        self.update_servers(&config.servers, ids, edit);
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
        if self.options != config.options {
            let set = |kind: SchedulerKind, options| {
                let flags: Vec<_> = kind.flags().set_in(options).collect();
                format!("[{}], {} rows", flags.join(","), options.rows.get())
            };
            let old = set(self.scheduler, self.options);
            let new = set(config.scheduler, config.options);
            keys.push(format!("scheduler options {old} to {new}"));
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
        if self.client_address != config.client_address {
            let (old, new) = (self.client_address.name(), config.client_address.name());
            keys.push(format!("client_address {old} to {new}"));
        }
        if self.timeouts != config.timeouts {
            keys.push("timeouts".to_owned());
        }
        keys.extend(turnover::differences(self.turnover, config.turnover));
        keys.extend(policy::of_service(&self.policy, &config.policy));
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
        let mut order: Vec<SocketAddr> = self.servers.iter().map(|s| s.address).collect();
        let before = std::mem::take(&mut self.servers);
        let mut known: HashMap<_, _> = before.into_iter().map(|s| (s.address, s)).collect();
        for config in wanted {
            let server = match known.remove(&config.address) {
                Some(mut server) => {
                    let before = self.record(&server);
                    let what = server.update(config);
                    let record = self.record(&server);
                    if record != before {
                        edit.publisher.put_server(record);
                    }
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
                self.remove_server(&mut server, edit);
            }
            self.servers.push(server);
        }
    }

    fn remove_server(&self, server: &mut ServerEntry, edit: &mut Edit<'_>) {
        server.removed_in = Some(edit.generation);
        if self.turnover.removal == Removal::After(Duration::ZERO) {
            server.passage.dismissed = true;
            edit.publisher.put_server(self.record(server));
        }
        edit.server(&self.name, server, What::Removed);
    }

    /// The server as workers know it.
    pub(super) fn record(&self, server: &ServerEntry) -> service::Server {
        service::Server {
            id: server.id,
            service: self.id,
            address: server.address,
            forward: server.forward,
            tunnel: server.tunnel,
            policy: server.policy_now(),
        }
    }

    /// Local addresses that the service gave up and connections may still have.
    pub(crate) fn given_up_locals(&self) -> impl Iterator<Item = IpAddr> {
        let given_up = self.locals.iter().filter(|(_, l)| l.removed_in.is_some());
        given_up.map(|(addr, _)| *addr)
    }

    /// The service as workers see it, made when it has changed.
    pub(crate) fn published(&mut self) -> Arc<service::Service> {
        let standing = self.servers.iter().filter(|s| s.removed_in.is_none());
        if let Some(published) = &self.published {
            return published.clone();
        }
        let servers = turnover::candidates(self.scheduler, standing);
        let scheduler = match &self.prepared {
            Some(before) => before.renewed(self.scheduler, self.options, &servers),
            None => Scheduler::new(self.scheduler, self.options, &servers),
        };
        self.prepared = Some(scheduler.clone());
        let service = service::Service {
            id: self.id,
            name: self.name.clone(),
            key: self.key,
            scheduler,
            servers,
            local_addresses: self.local_addresses.iter().copied().collect(),
            client_address: self.client_address,
            policy: self.policy.clone(),
        };
        self.published.insert(Arc::new(service)).clone()
    }
}

impl ServerEntry {
    fn new(id: ServerId, config: &RealServer) -> ServerEntry {
        ServerEntry {
            id,
            name: config.name.clone(),
            address: config.address,
            weight: config.weight,
            forward: config.forward,
            tunnel: config.tunnel,
            policy: config.policy,
            passage: Passage::comes(),
            removed_in: None,
        }
    }

    /// What was asked of it, by the configuration and since.
    fn policy_now(&self) -> ServerPolicy {
        let mut policy = self.policy;
        policy.dismissed = self.passage.dismissed;
        policy
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
        if self.forward != config.forward {
            let (old, new) = (self.forward.name(), config.forward.name());
            keys.push(format!("forward {old} to {new}"));
        }
        if self.tunnel != config.tunnel {
            let show = |t: &Option<Tunnel>| t.map_or("none".to_owned(), |t| t.to_string());
            let (old, new) = (show(&self.tunnel), show(&config.tunnel));
            keys.push(format!("tunnel {old} to {new}"));
        }
        if self.weight == 0 && config.weight > 0 || self.removed_in.is_some() {
            self.passage = Passage::comes();
        }
        self.weight = config.weight;
        self.forward = config.forward;
        keys.extend(policy::of_server(&self.policy, &config.policy));
        self.tunnel = config.tunnel;
        self.policy = config.policy;
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
fn only_in(these: &[IpAddr], those: &[IpAddr]) -> usize {
    let those: HashSet<&IpAddr> = those.iter().collect();
    these.iter().filter(|a| !those.contains(a)).count()
}
