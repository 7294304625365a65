//! Services and servers for listings, those that leave included.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::Arc;

use weir_dataplane::counters::ServerCounters;
use weir_dataplane::service::{Server, Service, ServiceKey, Snapshot};
use weir_dataplane::{ServerId, ServiceId};

use super::link::WorkerLink;
use crate::api::documents::{self, ServerState, Traffic};

/// The services that were last published, and what is left of removed ones.
#[derive(Debug)]
pub(super) struct ServiceBook {
    snapshot: Arc<Snapshot>,
    /// Services by id, removed ones as long as they have servers.
    services: HashMap<ServiceId, Service>,
}

impl ServiceBook {
    /// No services.
    pub(super) fn new() -> ServiceBook {
        ServiceBook {
            snapshot: Snapshot::empty(),
            services: HashMap::new(),
        }
    }

    /// These services are published now.
    pub(super) fn publish(&mut self, snapshot: Arc<Snapshot>) {
        for service in snapshot.services() {
            self.services.insert(service.id, service.clone());
        }
        let leaving: std::collections::HashSet<ServiceId> =
            snapshot.servers().map(|server| server.service).collect();
        self.services
            .retain(|id, _| snapshot.service(*id).is_some() || leaving.contains(id));
        self.snapshot = snapshot;
    }

    /// What was published last.
    pub(super) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The name of the service that `server` serves, or did.
    pub(super) fn name(&self, server: ServerId) -> Option<&str> {
        let service = self.snapshot.server(server)?.service;
        self.services.get(&service).map(|service| &*service.name)
    }

    /// The document; services in the order of `keys`, others after them.
    pub(super) fn document(
        &self,
        keys: &[ServiceKey],
        workers: &[WorkerLink],
    ) -> documents::Services {
        let mut servers: HashMap<ServiceId, Vec<&Server>> = HashMap::new();
        for server in self.snapshot.servers() {
            servers.entry(server.service).or_default().push(server);
        }
        let mut services: Vec<&Service> = self.services.values().collect();
        let place: HashMap<&ServiceKey, usize> = keys.iter().zip(0..).collect();
        services.sort_by_key(|service| {
            let removed = self.snapshot.service(service.id).is_none();
            let place = place.get(&service.key).copied().unwrap_or(usize::MAX);
            (removed, place, service.id.0)
        });
        let document = |service: &Service| {
            let servers = servers.remove(&service.id).unwrap_or_default();
            self.service(service, &servers, workers)
        };
        documents::Services {
            generation: self.snapshot.generation,
            services: services.into_iter().map(document).collect(),
        }
    }

    fn service(
        &self,
        service: &Service,
        servers: &[&Server],
        workers: &[WorkerLink],
    ) -> documents::Service {
        let current = self.snapshot.service(service.id);
        let candidates = current.map_or(&[][..], |current| &current.servers);
        let by_id: HashMap<ServerId, (usize, u32)> = candidates
            .iter()
            .zip(0..)
            .map(|(c, place)| (c.id, (place, c.weight)))
            .collect();
        let mut servers = servers.to_vec();
        servers.sort_by_key(|server| {
            let place = by_id.get(&server.id).map(|(place, _)| *place);
            (place.unwrap_or(usize::MAX), server.id.0)
        });
        let forward = servers.first().map_or("", |server| server.forward.name());
        documents::Service {
            name: service.name.to_string(),
            protocol: service.key.proto.to_string(),
            address: std::net::SocketAddrV4::new(service.key.vip, service.key.port),
            scheduler: service.scheduler.name().to_owned(),
            forward: forward.to_owned(),
            local_addresses: service.local_addresses.clone(),
            servers: servers
                .into_iter()
                .map(|server| {
                    let weight = by_id.get(&server.id).map(|(_, weight)| *weight);
                    documents::Server {
                        address: server.address,
                        forward: server.forward.name().to_owned(),
                        weight: weight.unwrap_or(0),
                        state: match weight {
                            None => ServerState::Leaving,
                            Some(0) => ServerState::Drained,
                            Some(_) => ServerState::Active,
                        },
                        traffic: traffic(server.id, workers),
                    }
                })
                .collect(),
        }
    }
}

/// What passed through `server`, over all workers.
pub(super) fn traffic(server: ServerId, workers: &[WorkerLink]) -> Traffic {
    let mut sum = Traffic::default();
    for cells in workers
        .iter()
        .filter_map(|worker| worker.counters().servers.get(server))
    {
        let ServerCounters {
            conns,
            in_packets,
            out_packets,
            in_bytes,
            out_bytes,
            active,
            inactive,
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
