//! Which port's twin holds an address (DESIGN: "Who holds an address").
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::IpAddr;

use weir_dataplane::service::AddressRange;

use super::draft::Draft;
use super::reader::{At, Problems};
use super::types::{Cidr, Config, Unplaced, VipOwner, longest_network};
use super::words::listed;

/// Every address that Weir puts somewhere must have one place.
pub(super) fn places(p: &mut Problems<'_>, draft: &Draft<'_>) {
    let networks = Networks::of(draft);
    let managed = draft.addresses.vips == VipOwner::Managed;
    let mut chosen: HashMap<IpAddr, At<&str>> = HashMap::new();
    for service in &draft.services {
        let section = &service.section;
        let named = service.port.is_some();
        // Those that only the service's `port` places.
        let mut by_port = Vec::new();
        let mut look = |address: IpAddr, is_vip: bool| {
            let place = networks.place(address);
            if matches!(place, Place::NoNetwork | Place::TwoNetworks) {
                by_port.push(address);
            }
            networks.complaint(address, is_vip, named, place, "service")
        };
        // Those of a larger range are routed here, and on no interface.
        let few = |vips: &AddressRange| vips.steps() < Config::MOST_PLACED;
        let vips = service.address.as_ref().map(|a| a.value.vips);
        let vips = vips.filter(few).filter(|_| managed);
        if let Some(vips) = vips
            && let Some(why) = vips.addresses().find_map(|vip| look(vip, true))
        {
            section.refuse(p, "address", &why);
        }
        for range in &service.local_addresses {
            if let Some(why) = range.value.addresses().find_map(|a| look(a, false)) {
                section.problem(p, range.at, &format!("local_addresses: {why}"));
            }
        }
        let Some(port) = &service.port else {
            continue;
        };
        let elsewhere = by_port.iter().find_map(|address| {
            let here = At {
                at: port.at,
                value: port.value.as_str(),
            };
            let first = *chosen.entry(*address).or_insert(here);
            (first.value != port.value).then_some((address, first))
        });
        if let Some((address, first)) = elsewhere {
            let why = format!(
                "{address} goes on port {:?} by another service (line {}); name the same port",
                first.value,
                p.line(first.at)
            );
            section.refuse(p, "port", &why);
        }
    }
    for rule in &draft.snat {
        let named = rule.port.is_some();
        for range in &rule.to {
            let mut addresses = range.value.addresses();
            let why = addresses.find_map(|address| {
                let place = networks.place(address);
                networks.complaint(address, false, named, place, "rule")
            });
            if let Some(why) = why {
                rule.section.problem(p, range.at, &format!("to: {why}"));
            }
        }
    }
}

/// Where the ports' networks put an address.
#[derive(Debug, Clone, Copy)]
enum Place {
    OneNetwork,
    TwoNetworks,
    NoNetwork,
    /// Nowhere: it is the network's own or broadcast address.
    Reserved {
        what: &'static str,
        network: Cidr,
    },
}

/// The networks that the file gives to ports.
#[derive(Debug)]
struct Networks<'d> {
    ports: Vec<(&'d str, Vec<Cidr>)>,
    /// Whether every port's are in the file; else the twins' real ones decide when Weir runs.
    complete: bool,
}

impl<'d> Networks<'d> {
    fn of(draft: &'d Draft<'_>) -> Networks<'d> {
        let ports = draft.ports.iter().map(|port| {
            let name = port.name.as_ref().map_or("", |n| n.value.as_str());
            (name, port.addresses.iter().map(|a| a.value).collect())
        });
        Networks {
            ports: ports.collect(),
            complete: draft.ports.iter().all(|port| port.networks_known),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Cidr> {
        self.ports.iter().flat_map(|(_, networks)| networks)
    }

    fn place(&self, address: IpAddr) -> Place {
        for &network in self.all() {
            if network.network() == Some(address) {
                return Place::Reserved {
                    what: "own address",
                    network,
                };
            }
            if network.broadcast() == Some(address) {
                return Place::Reserved {
                    what: "broadcast address",
                    network,
                };
            }
        }
        let ports = self
            .ports
            .iter()
            .map(|(name, networks)| (*name, networks.as_slice()));
        match longest_network(ports, address) {
            Ok(_) => Place::OneNetwork,
            Err(Unplaced::Ambiguous) => Place::TwoNetworks,
            Err(Unplaced::Nowhere) => Place::NoNetwork,
        }
    }

    /// What is wrong with an address at this place, for a service, or `whose` it is, that has,
    /// or has not, named a port.
    fn complaint(
        &self,
        address: IpAddr,
        is_vip: bool,
        named: bool,
        place: Place,
        whose: &str,
    ) -> Option<String> {
        let first = self.ports.first().map_or("", |(name, _)| *name);
        match place {
            Place::Reserved { what, network } => Some(format!(
                "{address} is the {what} of the network of {network}; use another"
            )),
            Place::TwoNetworks if !named => Some(format!(
                "{address} is in networks of two ports; add port = {first:?} to the {whose}"
            )),
            // A VIP in no network goes on lo.
            Place::NoNetwork if !named && !is_vip && self.complete => {
                let networks: Vec<String> = self.all().map(Cidr::to_string).collect();
                let networks = listed(networks.iter().map(String::as_str));
                Some(format!(
                    "{address} is in no port's network ({networks}); use an address of one, or \
                     add port = {first:?} to the {whose}"
                ))
            }
            _ => None,
        }
    }
}
