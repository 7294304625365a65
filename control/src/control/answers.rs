//! What the API is answered.
#![forbid(unsafe_code)]

use std::sync::Arc;

use weir_dataplane::replay::ScenePort;
use weir_dataplane::route::RouteTarget;
use weir_dataplane::service::ServiceKey;

use super::{Control, counters};
use crate::api::documents::Status;
use crate::api::{Request, documents};
use crate::config::RxChecksum;
use crate::explain::{Picture, PicturePort};

impl Control {
    /// Answers, or sees to it that the answer comes. Whoever asked may have gone: then it is
    /// dropped.
    pub(super) fn request(&mut self, request: Request) {
        match request {
            Request::Status(back) => drop(back.send(self.status())),
            Request::Services(back) => drop(back.send(self.service_document())),
            Request::Counters(back) => {
                drop(back.send(counters::document(&self.links, self.twins.as_deref())));
            }
            Request::Connections(filter, back) => self.listings.ask(filter, back),
            Request::Templates(filter, back) => self.template_listings.ask(filter, back),
            Request::Reload(back) => self.reload_asked(Some(back)),
            Request::Blacklist(wanted, back) => self.blacklist_asked(wanted, back),
            Request::Drain(what, back) => drop(back.send(self.drain(&what))),
            Request::Picture(back) => drop(back.send(self.picture())),
        }
    }

    /// The state of now, for `weir explain`.
    fn picture(&mut self) -> Picture {
        let snapshot = self.model.snapshot();
        let ports = self.ports.iter().zip(&self.config.ports);
        let ports = ports.map(|(port, config)| PicturePort {
            name: port.name.clone(),
            scene: ScenePort {
                mac: port.mac,
                mtu: port.mtu,
                alignment: port.alignment,
                tx_queues: port.tx_queues,
                fill_checksums: config.rx_checksum == RxChecksum::Fill,
            },
        });
        Picture {
            source: format!(
                "weir {}, generation {}",
                std::process::id(),
                self.generation
            ),
            assumed: vec![
                "what a worker remembers is its own (turns of schedulers, clients' servers, local \
                 ports in use): what is shown is a new worker's choice"
                    .to_owned(),
            ],
            workers: self.links.len() as u8, // at most 128
            ports: ports.collect(),
            snapshot,
            routes: self.routes.clone(),
            neighbours: self.neighbours.known().collect(),
            all_answer: false,
            blacklist: Arc::clone(&self.blacklist.compiled),
            live: self.links.iter().map(|link| link.cells()).collect(),
        }
    }

    fn service_document(&self) -> documents::Services {
        let keys: Vec<_> = self.config.services.iter().map(|s| s.key).collect();
        self.services.document(
            self.generation,
            &self.model,
            &keys,
            &self.links,
            &self.floods,
        )
    }

    fn status(&self) -> Status {
        let workers = self.links.iter().zip(&self.placement);
        let workers = workers.map(|(link, (cpu, idle))| {
            let counters = link.counters();
            documents::Worker {
                worker: link.core().0,
                cpu: *cpu,
                idle: (*idle).to_owned(),
                idle_polls: counters.idle_polls.get(),
                busy_polls: counters.busy_polls.get(),
                connections: counters.conns.get(),
                generation: link.generation(),
            }
        });
        let workers: Vec<_> = workers.collect();
        let ports = self.ports.iter().map(|port| port.document(&self.links));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            generation: self.generation,
            settled: self.rollout.is_settled() && !self.changed,
            config_file: self.config_file.display().to_string(),
            services: {
                let is_pool = |key: &ServiceKey| matches!(key, ServiceKey::Snat { .. });
                let services = self.config.services.iter();
                services.filter(|service| !is_pool(&service.key)).count()
            },
            routes: {
                let routes = self.routes.iter();
                routes
                    .filter(|route| route.target != RouteTarget::Own)
                    .count()
            },
            neighbours: self.neighbours.len(),
            connections: workers.iter().map(|worker| worker.connections).sum(),
            max_connections: self.config.workers.max_connections.into(),
            workers,
            ports: ports.collect(),
        }
    }
}
