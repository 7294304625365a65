//! Services and servers for listings, those that leave included.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use weir_dataplane::ServerId;
use weir_dataplane::counters::ServerCounters;
use weir_dataplane::defense::limits;
use weir_dataplane::defense::syn_proxy::Mode;
use weir_dataplane::service::{AddressRange, PortRange, ServiceKey, Thresholds};

use super::floods::Floods;
use super::link::WorkerLink;
use crate::api::documents::{self, ServerState, Traffic};
use crate::model::{Changes, FULL, Model, Passage, ServiceEntry, What};

/// What listings need beside the model.
#[derive(Debug, Default)]
pub(super) struct ServiceBook {
    /// Each server, and whose it is.
    servers: HashMap<ServerId, Listed>,
    /// What a server's cells had counted when it was added: its number may have been another's.
    zeroes: HashMap<ServerId, Traffic>,
}

/// A server as listings of connections and templates name it.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    /// The name of its service.
    pub(super) service: Arc<str>,
    /// What clients of that address.
    pub(super) key: ServiceKey,
    /// Its address and port.
    pub(super) address: SocketAddr,
}

impl ServiceBook {
    /// The model changed: `changes` is what an edit did to it, where it was an edit.
    pub(super) fn follow(
        &mut self,
        model: &Model,
        changes: Option<&Changes>,
        workers: &[WorkerLink],
    ) {
        self.servers.clear();
        for service in model.services() {
            let listed = |address| Listed {
                service: Arc::clone(&service.name),
                key: service.key,
                address,
            };
            let servers = service.servers.iter();
            self.servers
                .extend(servers.map(|s| (s.id, listed(s.address))));
        }
        let servers = changes.iter().flat_map(|changes| &changes.servers);
        for server in servers.filter(|server| server.what == What::Added) {
            let mut zero = counted(server.id, workers);
            (zero.active, zero.inactive) = (0, 0); // these are not totals
            self.zeroes.insert(server.id, zero);
        }
        self.zeroes.retain(|id, _| self.servers.contains_key(id));
    }

    /// The name of the service that `server` serves, or did.
    pub(super) fn name(&self, server: ServerId) -> Option<&str> {
        self.server(server).map(|server| &*server.service)
    }

    /// A server that stands, or did.
    pub(super) fn server(&self, server: ServerId) -> Option<&Listed> {
        self.servers.get(&server)
    }

    /// The document; standing services in the order of `keys`, removed ones after them.
    pub(super) fn document(
        &self,
        generation: u64,
        model: &Model,
        keys: &[ServiceKey],
        workers: &[WorkerLink],
        floods: &Floods,
    ) -> documents::Services {
        let place: HashMap<&ServiceKey, usize> = keys.iter().zip(0..).collect();
        let mut services: Vec<&ServiceEntry> = model.services().collect();
        services.sort_by_key(|s| place.get(&s.key).copied().unwrap_or(usize::MAX));
        let services = services
            .into_iter()
            .map(|s| self.service(s, model, workers, floods));
        documents::Services {
            generation,
            services: services.collect(),
        }
    }

    fn service(
        &self,
        entry: &ServiceEntry,
        model: &Model,
        workers: &[WorkerLink],
        floods: &Floods,
    ) -> documents::Service {
        let servers = entry.servers.iter().map(|server| documents::Server {
            address: server.address,
            forward: server.forward.name().to_owned(),
            tunnel: server.tunnel.map(|tunnel| tunnel.to_string()),
            weight: server.weight.into(),
            state: match (server.removed_in, server.weight, server.passage) {
                (Some(_), ..) => ServerState::Leaving,
                (None, 0, _) | (_, _, Passage { drained: true, .. }) => ServerState::Drained,
                _ if is_full(server.id, server.policy.thresholds, workers) => ServerState::Full,
                (_, _, Passage { step: 0..FULL, .. }) => ServerState::Starting,
                _ => ServerState::Active,
            },
            upper_threshold: server.policy.thresholds.upper,
            lower_threshold: server.policy.thresholds.lower,
            traffic: self.traffic(server.id, workers),
        });
        let scheduler_flags = entry.scheduler.flags().set_in(entry.options);
        documents::Service {
            name: entry.name.to_string(),
            protocol: match entry.key {
                ServiceKey::Snat { rule, .. } => {
                    let rule = model.snat().of_pool(rule);
                    rule.and_then(|rule| rule.pattern.proto)
                }
                _ => entry.key.proto(),
            }
            .map(|proto| proto.to_string()),
            address: entry.key.address(),
            fwmark: match entry.key {
                ServiceKey::Mark { mark, .. } => Some(mark.get()),
                _ => None,
            },
            snat: snat(entry, model),
            family: match entry.key.is_ipv6() {
                true => "ipv6".to_owned(),
                false => "ipv4".to_owned(),
            },
            one_packet: entry.policy.one_packet,
            scheduler: entry.scheduler.name().to_owned(),
            scheduler_flags: scheduler_flags.map(str::to_owned).collect(),
            forward: entry.forward.name().to_owned(),
            syn_proxy: syn_proxy(entry, floods),
            local_addresses: entry.local_addresses.clone(),
            limits: limits(entry, workers),
            servers: servers.collect(),
        }
    }

    fn traffic(&self, server: ServerId, workers: &[WorkerLink]) -> Traffic {
        let zero = self.zeroes.get(&server).copied().unwrap_or_default();
        counted(server, workers).since(zero)
    }
}

/// What a pool of SNAT is for, while its rule stands.
fn snat(entry: &ServiceEntry, model: &Model) -> Option<documents::Snat> {
    let ServiceKey::Snat { rule, v6 } = entry.key else {
        return None;
    };
    let rule = model.snat().of_pool(rule);
    let pattern = rule.map(|rule| rule.pattern.clone()).unwrap_or_default();
    let of_family = |ranges: &[AddressRange]| {
        let ranges = ranges.iter().filter(|range| range.is_ipv6() == v6);
        ranges.map(AddressRange::to_string).collect()
    };
    Some(documents::Snat {
        source: of_family(&pattern.sources),
        destination: of_family(&pattern.destinations),
        ports: pattern.ports.iter().map(PortRange::to_string).collect(),
        to_ports: entry.policy.snat.ports.to_string(),
    })
}

/// The limits that a service has.
fn limits(entry: &ServiceEntry, workers: &[WorkerLink]) -> Vec<documents::Limit> {
    let cells = || {
        let cells = workers.iter().map(|w| w.counters().services.get(entry.id));
        cells.flatten()
    };
    let listed = limits::listed(&entry.policy.limits).into_iter().enumerate();
    let set = listed.filter(|(_, (_, most))| *most > 0);
    let document = |(at, (key, most)): (usize, (&str, u64))| documents::Limit {
        limit: key.to_owned(),
        per_client: at >= 4,
        most,
        now: match at {
            0 => Some(cells().map(|cells| cells.connections.get()).sum()),
            _ => None,
        },
        refused: cells().map(|cells| cells.refused[at].get()).sum(),
    };
    set.map(document).collect()
}

/// Whether a server gets no connections because of its threshold.
fn is_full(id: ServerId, thresholds: Thresholds, workers: &[WorkerLink]) -> bool {
    let cells = || workers.iter().filter_map(|w| w.counters().servers.get(id));
    let standing: u64 = cells().map(|c| c.active.get() + c.inactive.get()).sum();
    thresholds.are_on()
        && cells().any(|cells| cells.overloaded.get() > 0)
        && !thresholds.are_cleared(standing)
}

/// What a service's SYN proxy does, unless it is off.
fn syn_proxy(entry: &ServiceEntry, floods: &Floods) -> Option<documents::SynProxy> {
    let mode = entry.policy.syn_proxy.mode;
    (mode != Mode::Off).then(|| documents::SynProxy {
        mode: mode.name().to_owned(),
        on: mode == Mode::Always || floods.concern(entry.id),
    })
}

/// What the cells of `server` say, over all workers.
pub(super) fn counted(server: ServerId, workers: &[WorkerLink]) -> Traffic {
    let mut sum = Traffic::default();
    let cells = workers
        .iter()
        .filter_map(|w| w.counters().servers.get(server));
    for cells in cells {
        let ServerCounters {
            conns,
            in_packets,
            out_packets,
            in_bytes,
            out_bytes,
            active,
            inactive,
            announced: _,
            places_out: _,
            places_in: _,
            filled: _,
            cleared: _,
            overloaded: _,
        } = cells;
        sum += Traffic {
            active: active.get(),
            inactive: inactive.get(),
            conns: conns.get(),
            in_packets: in_packets.get(),
            out_packets: out_packets.get(),
            in_bytes: in_bytes.get(),
            out_bytes: out_bytes.get(),
        };
    }
    sum
}
