//! What can only be said of tables together: duplicates, conflicts, places for addresses.
//!
//! Works on drafts, in which a value that was missing or wrong (and is reported) is `None`, so
//! that one mistake does not hide the others and is not reported twice.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};

use weir_dataplane::Proto;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::service::{AddressRange, ServiceKey};

use super::bond::BondDraft;
use super::defaults::{self, BYTES_PER_CONNECTION, BYTES_PER_CONNECTION6, MAX_DEVICES, MAX_PORTS};
use super::draft::Draft;
use super::forwarding;
use super::machine::{PortDraft, WorkersDraft};
use super::marks;
use super::places::places;
use super::reader::{At, Problems};
use super::scalars::show_size;
use super::services::{ServerDraft, ServiceDraft};
use super::snat;
use super::types::Device;
use super::vips::Vips;
use super::words::{grouped, listed};

/// The kernel has no IPv6 on links that carry less (RFC 8200 section 5).
const IPV6_LEAST_MTU: u16 = 1280;

/// Services of ranges: they are compiled as marking rules are.
const MOST_RANGES: usize = 4096;

/// Adds everything that is wrong between the tables of `draft`.
pub(super) fn check(p: &mut Problems<'_>, draft: &Draft<'_>) {
    memory(p, &draft.workers);
    ports(p, &draft.ports);
    vlans(p, &draft.ports);
    services(p, draft);
    let claims = Claims::of(draft);
    let networks_known = draft.ports.iter().all(|port| port.networks_known);
    let own = |address| match claims.twins.contains_key(&address) {
        false if !networks_known => None,
        known => Some(known),
    };
    for service in &draft.services {
        forwarding::check(p, service, own);
        conflicts(p, &claims, service);
    }
    let names: Vec<&str> = port_names(draft);
    let names = Some(names.as_slice()).filter(|names| names.len() == draft.ports.len());
    marks::check(p, &draft.marks, names, |p, address| claims.twin(p, address));
    let beside = snat::Beside {
        ports: names,
        services: &draft.services,
    };
    snat::check(p, &draft.snat, &beside, |p, address| {
        claims.twin(p, address)
    });
    places(p, draft);
}

fn memory(p: &mut Problems<'_>, workers: &WorkersDraft<'_>) {
    let (v4, v6) = workers.connections();
    let memory = workers.memory.map_or(defaults::MEMORY, |m| m.value);
    let needed = u64::from(v4) * BYTES_PER_CONNECTION + u64::from(v6) * BYTES_PER_CONNECTION6;
    if memory >= needed {
        return;
    }
    let needed = show_size(needed);
    if workers.memory.is_some() {
        let why = format!(
            "too small for max_connections = {} and max_connections6 = {}; use at least \
             \"{needed}\", or fewer connections",
            grouped(v4),
            grouped(v6)
        );
        workers.section.refuse(p, "memory", &why);
    } else if !workers.section.has("memory") {
        let why = format!(
            "too many for the default memory = \"{}\"; add memory = \"{needed}\"",
            show_size(memory)
        );
        let key = match workers.max_connections6.is_some() && v6 > v4 {
            true => "max_connections6",
            false => "max_connections",
        };
        workers.section.refuse(p, key, &why);
    }
}

/// Where things of one kind were first named, to find the second.
#[derive(Debug)]
struct Seen<K>(HashMap<K, usize>);

impl<K: Hash + Eq> Seen<K> {
    fn new() -> Self {
        Seen(HashMap::new())
    }

    /// Notes that `key` stands at `at`; the line of its first mention when this is another.
    fn again(&mut self, p: &Problems<'_>, key: K, at: usize) -> Option<usize> {
        let first = *self.0.entry(key).or_insert(at);
        (first != at).then(|| p.line(first))
    }
}

/// Why a port or a bond may not have `device`, if so.
fn taken(
    p: &Problems<'_>,
    devices: &mut Seen<String>,
    ports: &[PortDraft<'_>],
    device: &At<Device>,
) -> Option<String> {
    let name = device.value.name();
    if let Some(line) = devices.again(p, name.to_owned(), device.at) {
        return Some(format!(
            "{name} is in use already (line {line}); use it once"
        ));
    }
    let iface = device.value.argument("iface")?;
    let mut twins = ports.iter().filter_map(|port| port.name.as_ref());
    let twin = twins.find(|twin| twin.value == iface)?;
    Some(format!(
        "iface={0} is also the name of the kernel twin of port {0:?} (line {1}); give one of them \
         another name",
        twin.value,
        p.line(twin.at)
    ))
}

/// More devices than DPDK has room for, bonds among them.
fn too_many(p: &mut Problems<'_>, ports: &[PortDraft<'_>]) {
    let of = |port: &PortDraft<'_>| port.bond.as_ref().map_or(1, |b| 1 + b.members.len());
    let cards = ports.iter().filter(|port| port.parent.is_none());
    let devices: usize = cards.map(of).sum();
    if devices > MAX_DEVICES
        && let Some(bond) = ports.iter().rev().find(|port| port.bond.is_some())
    {
        let why = format!(
            "bond: {devices} devices, members and bonds with this one; DPDK has room for \
             {MAX_DEVICES}"
        );
        bond.section.problem(p, bond.section.at, &why);
    }
}

fn ports(p: &mut Problems<'_>, ports: &[PortDraft<'_>]) {
    too_many(p, ports);
    if let Some(port) = ports.get(MAX_PORTS) {
        let why = format!("{} ports; at most {MAX_PORTS} are possible", ports.len());
        port.section.problem(p, port.section.at, &why);
    }
    let (mut names, mut devices, mut addresses) = (Seen::new(), Seen::new(), Seen::new());
    for port in ports {
        let section = &port.section;
        if let Some(name) = &port.name
            && let Some(line) = names.again(p, name.value.as_str(), name.at)
        {
            let why = format!("the name of another port (line {line}); give each its own");
            section.refuse(p, "name", &why);
        }
        if let Some(device) = &port.device
            && let Some(why) = taken(p, &mut devices, ports, device)
        {
            section.refuse(p, "device", &why);
        }
        for (bond, member) in port.bond.iter().flat_map(BondDraft::each) {
            if let Some(why) = taken(p, &mut devices, ports, member) {
                let why = format!("members: \"{}\": {why}", member.value);
                bond.problem(p, member.at, &why);
            }
        }
        for cidr in &port.addresses {
            let address = cidr.value.address;
            let mtu = port.mtu(ports);
            if address.is_ipv6() && mtu < IPV6_LEAST_MTU {
                let why = format!(
                    "addresses: \"{}\": IPv6 needs an mtu of {IPV6_LEAST_MTU} at least, and the \
                     port's is {mtu}; raise it, or remove the address",
                    cidr.value
                );
                section.problem(p, cidr.at, &why);
            }
            if let Some(line) = addresses.again(p, address, cidr.at) {
                let why = format!(
                    "addresses: \"{}\": {address} is given already (line {line}); remove one",
                    cidr.value
                );
                section.problem(p, cidr.at, &why);
            }
        }
    }
}

/// A VLAN is of a card that is there, by a number of its own, and its packets fit.
fn vlans(p: &mut Problems<'_>, ports: &[PortDraft<'_>]) {
    let mut numbers = Seen::new();
    let cards = ports.iter().filter(|port| port.parent.is_none());
    let cards = cards.filter_map(|port| Some(&*port.name.as_ref()?.value));
    let cards = listed(cards);
    for vlan in ports.iter().filter(|port| port.parent.is_some()) {
        let section = &vlan.section;
        let Some(card) = vlan.card(ports).map(|at| &ports[at]) else {
            let why = format!("no such port; use one of {cards}");
            section.refuse(p, "parent", &why);
            continue;
        };
        if card.parent.is_some() {
            let why = format!("a VLAN itself; use one of {cards}");
            section.refuse(p, "parent", &why);
            continue;
        }
        if let (Some(parent), Some(number)) = (&vlan.parent, &vlan.vlan)
            && let Some(line) = numbers.again(p, (&parent.value, number.value), number.at)
        {
            let why = format!("another port's already (line {line}); give each its own");
            section.refuse(p, "vlan", &why);
        }
        let most = card.mtu(ports);
        if vlan.mtu(ports) > most {
            let why = format!("larger than its parent's, {most}; raise that, or lower this");
            section.refuse(p, "mtu", &why);
        }
    }
}

fn port_names<'d>(draft: &'d Draft<'_>) -> Vec<&'d str> {
    let names = draft.ports.iter().filter_map(|t| t.name.as_ref());
    names.map(|name| name.value.as_str()).collect()
}

fn services(p: &mut Problems<'_>, draft: &Draft<'_>) {
    let (mut names, mut keys, mut marks) = (Seen::new(), Seen::new(), Seen::new());
    let ports = port_names(draft);
    for service in &draft.services {
        let section = &service.section;
        if let Some(name) = &service.name
            && let Some(line) = names.again(p, name.value.as_str(), name.at)
        {
            let why = format!("the name of another service (line {line}); give each its own");
            section.refuse(p, "name", &why);
        }
        if let (Some(address), Some(protocol)) = (&service.address, &service.protocol)
            && let Some(line) = keys.again(p, (protocol.value, address.value), address.at)
        {
            let why = format!(
                "another service has this {} address (line {line}); join the two",
                protocol.value
            );
            section.refuse(p, "address", &why);
        }
        if let (Some(mark), Some(v6)) = (&service.fwmark, service.v6)
            && let Some(line) = marks.again(p, (mark.value, v6), mark.at)
        {
            let family = if v6 { "IPv6" } else { "IPv4" };
            let why =
                format!("another service has this mark of {family} (line {line}); join the two");
            section.refuse(p, "fwmark", &why);
        }
        if let Some(port) = &service.port
            && ports.len() == draft.ports.len()
            && !ports.contains(&port.value.as_str())
        {
            let why = format!("no such port; use one of {}", listed(ports.iter().copied()));
            section.refuse(p, "port", &why);
        }
        servers(p, service);
    }
    overlaps(p, &draft.services);
}

/// Of two services that can be asked by the same packet one is the more specific.
fn overlaps(p: &mut Problems<'_>, services: &[ServiceDraft<'_>]) {
    // One address and port, or all its ports, lies within whatever it meets.
    let mut ranges: Vec<(At<Vips>, Proto)> = Vec::new();
    for service in services {
        let (Some(address), Some(proto)) = (service.address, service.protocol) else {
            continue;
        };
        let own = address.value;
        if !matches!(own.key(proto.value), ServiceKey::Range { .. }) {
            continue;
        }
        let clash = ranges.iter().find(|(other, of)| {
            let other = other.value;
            let nested = match own.vips == other.vips {
                true => own.ports.covers(&other.ports) || other.ports.covers(&own.ports),
                false => own.vips.covers(&other.vips) || other.vips.covers(&own.vips),
            };
            let meet = own.vips.meets(&other.vips) && own.ports.meets(&other.ports);
            *of == proto.value && meet && !nested
        });
        if let Some((other, _)) = clash {
            let why = format!(
                "overlaps {} (line {}) in part, so neither is the more specific; let one lie \
                 within the other, or apart",
                other.value,
                p.line(other.at)
            );
            service.section.refuse(p, "address", &why);
        }
        ranges.push((address, proto.value));
        if ranges.len() == MOST_RANGES + 1 {
            let why =
                format!("more than {MOST_RANGES} services of ranges; join some, or use fwmark");
            service.section.refuse(p, "address", &why);
        }
    }
}

fn servers(p: &mut Problems<'_>, service: &ServiceDraft<'_>) {
    let (mut names, mut addresses) = (Seen::new(), Seen::new());
    for server in &service.servers {
        let section = &server.section;
        if let Some(name) = &server.name
            && let Some(line) = names.again(p, name.value.as_str(), name.at)
        {
            let why = format!(
                "the name of another real server of this service (line {line}); give each its \
                 own"
            );
            section.refuse(p, "name", &why);
        }
        let Some(address) = &server.address else {
            continue;
        };
        if let Some(line) = addresses.again(p, address.value, address.at) {
            let why = format!(
                "a real server of this service already (line {line}); remove one, and give the \
                 other both weights"
            );
            section.refuse(p, "address", &why);
        }
        let service_port = service.address.and_then(|a| a.value.port());
        if let (0, Some(port)) = (address.value.port(), service_port) {
            let why = format!(
                "port 0 keeps the client's port, under a service for several ports only; use \
                 the port that the server listens on, like \"{}\"",
                SocketAddr::new(address.value.ip(), port)
            );
            section.refuse(p, "address", &why);
        }
    }
}

/// Who says that an address is whose, and where.
#[derive(Debug)]
struct Claims<'d> {
    twins: HashMap<IpAddr, At<&'d str>>,
    vips: Vec<(AddressRange, At<&'d str>)>,
    locals: HashMap<IpAddr, At<&'d str>>,
}

impl<'d> Claims<'d> {
    fn of(draft: &'d Draft<'_>) -> Claims<'d> {
        let (mut twins, mut vips, mut locals) = (HashMap::new(), Vec::new(), HashMap::new());
        for port in &draft.ports {
            for cidr in &port.addresses {
                let by = cidr.with(port.section.what.as_str());
                twins.entry(cidr.value.address).or_insert(by);
            }
        }
        for service in &draft.services {
            let what = service.section.what.as_str();
            if let Some(vip) = &service.address {
                vips.push((vip.value.vips, vip.with(what)));
            }
            for range in &service.local_addresses {
                for address in range.value.addresses() {
                    locals.entry(address).or_insert(range.with(what));
                }
            }
        }
        Claims {
            twins,
            vips,
            locals,
        }
    }

    fn twin(&self, p: &Problems<'_>, address: IpAddr) -> Option<String> {
        let by = self.twins.get(&address)?;
        Some(format!(
            "{address} is the own address of {} (line {})",
            by.value,
            p.line(by.at)
        ))
    }

    /// The first own address of a port's among these.
    fn twin_in(&self, p: &Problems<'_>, vips: AddressRange) -> Option<String> {
        let own = self.twins.keys().filter(|address| vips.contains(**address));
        self.twin(p, *own.min()?)
    }

    fn vip(&self, p: &Problems<'_>, address: IpAddr) -> Option<String> {
        let (_, by) = self.vips.iter().find(|(vips, _)| vips.contains(address))?;
        Some(format!(
            "{address} is the virtual address of {} (line {})",
            by.value,
            p.line(by.at)
        ))
    }

    fn local(&self, p: &Problems<'_>, address: IpAddr) -> Option<String> {
        let by = self.locals.get(&address)?;
        Some(format!(
            "{address} is a local address of {} (line {})",
            by.value,
            p.line(by.at)
        ))
    }
}

/// An address has one meaning: a port's own, virtual, local, or a real server's.
fn conflicts(p: &mut Problems<'_>, claims: &Claims<'_>, service: &ServiceDraft<'_>) {
    let section = &service.section;
    if let Some(vip) = &service.address
        && let Some(is) = claims.twin_in(p, vip.value.vips)
    {
        section.refuse(p, "address", &format!("{is}; use another for the service"));
    }
    let mut own = HashMap::new();
    for range in &service.local_addresses {
        let conflict = range.value.addresses().find_map(|a| {
            let again = own
                .insert(a, range.at)
                .map(|first| format!("{a} is given already (line {})", p.line(first)));
            again
                .or_else(|| claims.twin(p, a))
                .or_else(|| claims.vip(p, a))
        });
        if let Some(is) = conflict {
            section.problem(p, range.at, &format!("local_addresses: {is}; leave it out"));
        }
    }
    // A real server that is the director itself has an address of the director's.
    let elsewhere = |s: &&ServerDraft<'_>| service.mode_of(s) != ForwardMode::local;
    for ServerDraft {
        section, address, ..
    } in service.servers.iter().filter(elsewhere)
    {
        let Some(address) = address.as_ref().map(|a| a.value.ip()) else {
            continue;
        };
        let twin = claims.twin(p, address);
        let other = twin
            .or_else(|| claims.vip(p, address))
            .or_else(|| claims.local(p, address));
        if let Some(is) = other {
            let why = format!("{is}; a real server is another machine, with its own address");
            section.refuse(p, "address", &why);
        }
    }
}
