//! A whole file as written, and the plain data that it becomes when nothing was wrong.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use weir_dataplane::conn::state::{Rules, Timeouts};
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::forward::tun::Tunnel;
use weir_dataplane::service::ServiceKey;

use super::defaults;
use super::machine::{PortDraft, WorkersDraft};
use super::marks::{self, MarkDraft};
use super::policy;
use super::reader::At;
use super::services::{ServerDraft, ServiceDraft};
use super::snat::{self, SnatDraft};
use super::types::{Addresses, Config, Device, Log, Port, RealServer, Service, Vlan, Workers};

/// A whole file as written.
#[derive(Debug)]
pub(super) struct Draft<'t> {
    pub(super) workers: WorkersDraft<'t>,
    pub(super) ports: Vec<PortDraft<'t>>,
    pub(super) services: Vec<ServiceDraft<'t>>,
    pub(super) marks: Vec<MarkDraft<'t>>,
    pub(super) snat: Vec<SnatDraft<'t>>,
    pub(super) timeouts: Timeouts,
    pub(super) rules: Rules,
    pub(super) addresses: Addresses,
    pub(super) log: Log,
}

impl Draft<'_> {
    /// The plain data. Only for a draft in which nothing was wrong.
    pub(super) fn finish(self) -> Config {
        let workers = self.workers;
        let ports = finish_ports(&self.ports);
        let (snat, pools) = snat::finish(&self.snat, &ports);
        let services = self.services.into_iter().map(finish_service);
        let services: Vec<_> = services.chain(pools).collect();
        let own = ports.iter().flat_map(|port| &port.addresses);
        let locals = services.iter().flat_map(|s: &Service| &s.local_addresses);
        let exempt = own.map(|cidr| cidr.address).chain(locals.copied());
        let exempt = exempt.collect::<BTreeSet<_>>().into_iter().collect();
        let (max_connections, max_connections6) = workers.connections();
        Config {
            workers: Workers {
                cores: workers.cores,
                memory: workers.memory.map_or(defaults::MEMORY, |m| m.value),
                max_connections,
                max_connections6,
                hugepages: workers.hugepages,
                idle: workers.idle,
            },
            marks: marks::finish(&self.marks, &ports, exempt),
            snat,
            ports,
            services,
            timeouts: self.timeouts,
            rules: self.rules,
            addresses: self.addresses,
            log: self.log,
        }
    }
}

/// A value whose absence was reported, so that no draft without it comes here.
fn given<T>(value: Option<At<T>>) -> T {
    value
        .expect("a missing value was reported as a problem")
        .value
}

/// Cards, then VLANs: workers poll a card before its VLANs.
fn finish_ports(drafts: &[PortDraft<'_>]) -> Vec<Port> {
    let (cards, vlans): (Vec<_>, Vec<_>) = drafts.iter().partition(|p| p.parent.is_none());
    let port = |port: &&PortDraft<'_>| {
        let of_card = port.card(drafts).map_or(*port, |at| &drafts[at]);
        let vlan = port.vlan.as_ref().map(|id| Vlan {
            card: cards
                .iter()
                .position(|c| std::ptr::eq(*c, of_card))
                .unwrap_or_default(),
            id: id.value as u16, // at most 4094
        });
        Port {
            name: given(port.name.clone()),
            device: match &of_card.bond {
                Some(bond) => Device::Bond(bond.finish()),
                None => given(of_card.device.clone()),
            },
            vlan,
            addresses: port.addresses.iter().map(|a| a.value).collect(),
            mtu: port.mtu(drafts),
            rx_checksum: of_card.rx_checksum,
        }
    };
    cards.iter().chain(&vlans).map(port).collect()
}

fn finish_service(service: ServiceDraft<'_>) -> Service {
    let key = match (service.fwmark, service.address) {
        (Some(mark), _) => ServiceKey::Mark {
            mark: mark.value,
            v6: service.v6.unwrap_or_default(),
        },
        (None, address) => given(address).key(given(service.protocol)),
    };
    let ranges = service.local_addresses.iter();
    let server = |s: ServerDraft<'_>| {
        let forward = s.forward.unwrap_or(service.forward);
        let tunnel = s.tunnel.or(service.tunnel).unwrap_or(Tunnel::Ipip);
        RealServer {
            name: s.name.map(|n| n.value),
            address: given(s.address),
            weight: s.weight,
            forward,
            tunnel: (forward == ForwardMode::tun).then_some(tunnel),
            policy: s.policy,
        }
    };
    Service {
        name: given(service.name),
        key,
        scheduler: service.scheduler,
        options: service.options,
        forward: service.forward,
        local_addresses: ranges.flat_map(|r| r.value.addresses()).collect(),
        port: service.port.map(|t| t.value),
        client_address: service.client_address,
        timeouts: policy::timeouts(service.policy.one_packet, service.timeouts),
        turnover: service.turnover,
        policy: service.policy,
        servers: service.servers.into_iter().map(server).collect(),
    }
}
