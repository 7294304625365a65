//! Virtual services and real servers as the workers see them: an immutable snapshot.
//!
//! Control builds a [`Snapshot`] with [`SnapshotBuilder`], sends it to every worker by ring
//! and frees it when the last worker has sent it back. Workers never change it; what changes
//! while forwarding (what schedulers remember, counters) lives in the worker, by id.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::conn::state::{Rules, TimeoutChanges, TimeoutSets, Timeouts};
use crate::defense::cookie::Cookies;
use crate::forward::ForwardMode;
use crate::forward::carrier::ClientAddress;
use crate::forward::tun::Tunnel;
use crate::sched::Scheduler;
use crate::types::{Proto, ServerId, ServiceId};

mod classifier;
mod exact;
mod key;
mod marks;
mod persistence;
mod policy;
mod quic;
mod ranges;
mod snat;
#[cfg(test)]
mod tests;

pub use classifier::{Classifier, Pattern};
pub use key::{AddressRange, Asked, Mark, PortRange, RuleName, ServiceKey};
pub use marks::{MarkRule, Marks};
pub use persistence::{Engine, Persistence};
pub use policy::{Excess, Limits, Policy, Rates, ServerPolicy, Thresholds};
pub use quic::{Quic, QuicLb, QuicServerId};
pub use snat::{SnatPool, SnatRule, SnatRules};

use exact::Exact;
use ranges::Ranges;

/// A virtual service.
#[derive(Debug, Clone)]
pub struct Service {
    /// Stable number.
    pub id: ServiceId,
    /// The operator's name for it.
    pub name: Arc<str>,
    /// What clients address.
    pub key: ServiceKey,
    /// How a server is chosen for a new connection; made for `servers`.
    pub scheduler: Scheduler,
    /// Servers that new connections may go to, in configuration order; a server with weight 0
    /// drains: it is listed and never chosen.
    pub servers: Vec<Candidate>,
    /// FULL-NAT's local addresses: what servers see as the client.
    pub local_addresses: LocalAddresses,
    /// How its FULL-NAT servers are told the client's address.
    pub client_address: ClientAddress,
    /// What else was asked of it.
    pub policy: Policy,
}

impl Service {
    /// Whether `other` chooses by the same scheduler among the same servers with the same weights.
    #[must_use]
    pub fn chooses_like(&self, other: &Service) -> bool {
        self.scheduler.kind() == other.scheduler.kind() && self.servers == other.servers
    }
}

/// FULL-NAT's local addresses of one service, by family: a connection takes one of its server's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalAddresses {
    /// Towards IPv4 servers.
    pub v4: Vec<Ipv4Addr>,
    /// Towards IPv6 servers.
    pub v6: Vec<Ipv6Addr>,
}

impl LocalAddresses {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let v4 = self.v4.iter().copied().map(IpAddr::V4);
        v4.chain(self.v6.iter().copied().map(IpAddr::V6))
    }
}

impl FromIterator<IpAddr> for LocalAddresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> LocalAddresses {
        let mut local = LocalAddresses::default();
        for address in addresses {
            match address {
                IpAddr::V4(address) => local.v4.push(address),
                IpAddr::V6(address) => local.v6.push(address),
            }
        }
        local
    }
}

/// A real server as a scheduler sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Which server.
    pub id: ServerId,
    /// Its address and port: what hashing schedulers know it by, the same on every node.
    pub address: SocketAddr,
    /// Its share of new connections now; 0 while it drains or is down.
    pub weight: u32,
    /// The weight that hash tables are made with: the configured one, also while the server is
    /// down or starts slowly, so that only its own clients move. 0 leaves it out for good.
    pub hashed: u32,
}

impl Candidate {
    /// A server that is up, at its full weight.
    #[must_use]
    pub fn new(id: ServerId, address: SocketAddr, weight: u32) -> Candidate {
        Candidate {
            id,
            address,
            weight,
            hashed: weight,
        }
    }
}

/// A real server of one service, standing or removed but still holding connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// Stable number.
    pub id: ServerId,
    /// The service it serves.
    pub service: ServiceId,
    /// Its address (RIP) and port.
    pub address: SocketAddr,
    /// How packets reach it.
    pub forward: ForwardMode,
    /// What they travel in, for [`ForwardMode::tun`].
    pub tunnel: Option<Tunnel>,
    /// What else was asked of it.
    pub policy: ServerPolicy,
}

impl Server {
    /// What packets travel in to a server that is reached by TUN; IP in IP unless something else
    /// was said, as in ipvsadm.
    #[inline]
    #[must_use]
    pub fn tunnelled(&self) -> Option<Tunnel> {
        let tunnel = self.tunnel.unwrap_or(Tunnel::Ipip);
        (self.forward == ForwardMode::tun).then_some(tunnel)
    }
}

/// Why an address is Weir's: nothing for it is passed to the kernel as TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AddressUse {
    /// A service listens there, or did and still has connections.
    pub vip: bool,
    /// FULL-NAT sends from there.
    pub local: bool,
    /// Not Weir's: tunnels end there.
    pub tunnel_end: bool,
}

const CHUNK: usize = 256;
type Chunk = Arc<[Option<Server>; CHUNK]>;

/// Everything workers know of services at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// Grows by one with each publication.
    pub generation: u64,
    /// A service of port 21 is persistent: its data connections are its own.
    has_ftp: bool,
    /// Connection timeouts, by service.
    pub timeouts: TimeoutSets,
    /// When connections open and are given up.
    pub rules: Rules,
    /// What SYN cookies are made with.
    pub cookies: Cookies,
    services: Vec<Option<Arc<Service>>>,
    by_address: Exact,
    /// Services of marked packets, by mark and whether they are IPv6's.
    by_mark: HashMap<(Mark, bool), ServiceId, RandomState>,
    marks: Arc<Marks>,
    snat: Arc<SnatRules>,
    snat_pools: snat::Pools,
    /// There are connections of SNAT, perhaps: a rule stands, or a pool's address is left.
    has_snat: bool,
    tells_addresses: bool,
    is_plain: bool,
    ranges: Option<Arc<Ranges>>,
    /// Servers by what QUIC connection IDs name them, of services that ask.
    by_quic: HashMap<(ServiceId, QuicServerId), ServerId, RandomState>,
    servers: Vec<Chunk>,
    addresses: HashMap<u128, AddressUse, RandomState>,
    /// A bit for each address in `addresses`, see [`sieve`]: nearly every client is told by it.
    sieve: [u64; SIEVE],
}

/// Words of a snapshot's sieve of addresses.
const SIEVE: usize = 16;

/// The word and the bit of a sieve that stand for an address, and for others too.
#[inline]
fn sieve(addr: u128) -> (usize, u64) {
    let mixed = (addr as u64 ^ (addr >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed >> 60) as usize % SIEVE, 1 << (mixed >> 54 & 63))
}

impl Snapshot {
    /// No service at all.
    #[must_use]
    pub fn empty() -> Arc<Snapshot> {
        Arc::new(SnapshotBuilder::default().build(0))
    }

    /// The service that takes a new connection: of the packet's mark, as in LVS, then the most
    /// specific one of its address: exact port, range of ports, port 0, range of addresses.
    #[inline]
    #[must_use]
    pub fn lookup(&self, asked: &Asked) -> Option<&Service> {
        self.marked(asked).or_else(|| self.addressed(asked))
    }

    /// Whether packets are marked, and a mark has a service.
    #[inline]
    #[must_use]
    pub fn has_marks(&self) -> bool {
        !self.by_mark.is_empty()
    }

    /// The service of the packet's mark.
    #[must_use]
    pub fn marked(&self, asked: &Asked) -> Option<&Service> {
        if !self.has_marks() {
            return None;
        }
        let mark = self.marks.of(asked)?;
        let id = self.by_mark.get(&(mark, asked.destination.is_ipv6()))?;
        self.service(*id)
    }

    /// The service of just the address and port that the packet wants to go to: nearly every
    /// one's, and the first that [`Snapshot::addressed`] would find.
    #[inline(always)]
    #[must_use]
    pub fn addressed_exactly(&self, proto: Proto, at: SocketAddr) -> Option<&Service> {
        self.service(self.by_address.get(proto, at)?)
    }

    /// The service of the address that the packet wants to go to.
    #[must_use]
    pub fn addressed(&self, asked: &Asked) -> Option<&Service> {
        let vip = asked.destination.ip();
        let at = |port| self.by_address.get(asked.proto, (vip, port).into());
        let id = at(asked.destination.port());
        let id = id.or_else(|| if self.has_ftp { self.ftp(asked) } else { None });
        let id = id.or_else(
            || match self.ranges.as_ref().and_then(|ranges| ranges.first(asked)) {
                Some((id, true)) => Some(id),
                wider => at(0).or(wider.map(|(id, _)| id)),
            },
        );
        self.service(id?)
    }

    /// The persistent FTP service that a data connection may be of, as IPVS has it: to port 20, or
    /// to one above the privileged ones.
    #[cold]
    fn ftp(&self, asked: &Asked) -> Option<ServiceId> {
        let port = asked.destination.port();
        let is_data = asked.proto == Proto::Tcp && (port == FTP_DATA || port >= 1024);
        let control = (asked.destination.ip(), FTP).into();
        let id = self.by_address.get(Proto::Tcp, control);
        let id = id.filter(|_| is_data)?;
        self.service(id)?.policy.persistence.map(|_| id)
    }

    /// Whether a service of its own has this address and port.
    #[must_use]
    pub fn listens(&self, proto: Proto, at: SocketAddr) -> bool {
        self.by_address.get(proto, at).is_some()
    }

    /// The marking rules.
    #[must_use]
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// The rules of SNAT.
    #[must_use]
    pub fn snat(&self) -> &SnatRules {
        &self.snat
    }

    /// Whether connections of SNAT may stand.
    #[inline]
    #[must_use]
    pub fn has_snat(&self) -> bool {
        self.has_snat
    }

    /// Whether a service tells its servers their clients' addresses.
    #[inline]
    #[must_use]
    pub fn tells_addresses(&self) -> bool {
        self.tells_addresses
    }

    /// Whether a service may take packets to another port than its own: FTP's data connections.
    #[inline]
    #[must_use]
    pub fn has_ftp(&self) -> bool {
        self.has_ftp
    }

    /// Whether all services are ([`Policy::is_plain`]): an opening asks this once, and nothing of
    /// what its service may ask for.
    #[inline]
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// The pool that a packet which leaves the director gets an address of, if a rule says so.
    #[must_use]
    pub fn snat_pool(&self, asked: &Asked) -> Option<&Service> {
        let rule = self.snat.first(asked)?;
        let pools = self.snat_pools.get(rule)?;
        self.service(pools[usize::from(asked.source.is_ipv6())]?)
    }

    /// Whether packets from `source` may be answers of a marked service's servers: a marking
    /// rule leads there.
    #[inline]
    #[must_use]
    pub fn may_answer_marked(&self, source: IpAddr) -> bool {
        self.has_marks() && self.marks.lead_to(source)
    }

    /// The service of this id.
    #[inline]
    #[must_use]
    pub fn service(&self, id: ServiceId) -> Option<&Service> {
        self.services.get(id.0 as usize)?.as_deref()
    }

    /// The server that this service's QUIC connection IDs name so.
    #[inline]
    #[must_use]
    pub fn server_of_quic(&self, service: ServiceId, id: QuicServerId) -> Option<ServerId> {
        self.by_quic.get(&(service, id)).copied()
    }

    /// All services, by id.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.iter().filter_map(Option::as_deref)
    }

    /// The server of this id, removed ones with connections included.
    #[inline]
    #[must_use]
    pub fn server(&self, id: ServerId) -> Option<&Server> {
        self.servers.get(id.0 as usize / CHUNK)?[id.0 as usize % CHUNK].as_ref()
    }

    /// How long the connections of this server last. Each packet asks: where all services last
    /// alike, no server is looked up.
    #[inline(always)]
    #[must_use]
    pub fn timeouts_of(&self, server: ServerId) -> &Timeouts {
        match self.timeouts.any_own() {
            false => self.timeouts.global(),
            true => self.own_timeouts_of(server),
        }
    }

    #[inline(never)]
    fn own_timeouts_of(&self, server: ServerId) -> &Timeouts {
        match self.server(server) {
            Some(server) => self.timeouts.of(server.service),
            None => self.timeouts.global(),
        }
    }

    /// All servers, by id, removed ones with connections included.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().flat_map(|chunk| chunk.iter().flatten())
    }

    /// What Weir uses `addr` for.
    #[inline]
    #[must_use]
    pub fn address_use(&self, addr: IpAddr) -> AddressUse {
        let (word, bit) = sieve(bits(addr));
        match self.sieve[word] & bit == 0 && self.ranges.is_none() {
            true => AddressUse::default(),
            false => self.look_up_use(addr),
        }
    }

    #[inline(never)]
    fn look_up_use(&self, addr: IpAddr) -> AddressUse {
        let used = self.addresses.get(&bits(addr)).copied();
        let used = used.unwrap_or_default();
        match &self.ranges {
            None => used,
            Some(ranges) => AddressUse {
                vip: used.vip || ranges.has(addr),
                ..used
            },
        }
    }
}

/// FTP's ports, of control and of active data connections.
const FTP: u16 = 21;
const FTP_DATA: u16 = 20;

/// Collects services and servers into a [`Snapshot`].
#[derive(Debug, Default)]
pub struct SnapshotBuilder {
    timeouts: Timeouts,
    own_timeouts: Vec<(ServiceId, TimeoutChanges)>,
    rules: Rules,
    cookies: Cookies,
    services: Vec<Option<Arc<Service>>>,
    marks: Arc<Marks>,
    snat: Arc<SnatRules>,
    old_ranges: Option<Arc<Ranges>>,
    kept: Vec<AddressRange>,
    servers: Vec<Chunk>,
    addresses: HashMap<u128, AddressUse, RandomState>,
}

impl SnapshotBuilder {
    /// Sets the connection timeouts.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Sets when connections open and are given up.
    #[must_use]
    pub fn rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// Sets the marking rules.
    #[must_use]
    pub fn marks(mut self, marks: Arc<Marks>) -> Self {
        self.marks = marks;
        self
    }

    /// Sets the rules of SNAT. Their pools are services.
    #[must_use]
    pub fn snat(mut self, snat: Arc<SnatRules>) -> Self {
        self.snat = snat;
        self
    }

    /// Sets what SYN cookies are made with.
    #[must_use]
    pub fn cookies(mut self, cookies: Cookies) -> Self {
        self.cookies = cookies;
        self
    }

    /// Gives a service, standing or removed, timeouts of its own.
    pub fn timeouts_of(&mut self, service: ServiceId, changes: &TimeoutChanges) {
        if !changes.is_empty() {
            self.own_timeouts.push((service, *changes));
        }
    }

    /// Adds a service; its VIPs and local addresses become Weir's. Of one for marked packets
    /// just these packets are.
    pub fn service(&mut self, service: Arc<Service>) {
        if let ServiceKey::Address { vip, .. } = service.key {
            self.vip(vip);
        }
        for lip in service.local_addresses.iter() {
            self.local(lip);
        }
        let at = service.id.0 as usize;
        if self.services.len() <= at {
            self.services.resize(at + 1, None);
        }
        self.services[at] = Some(service);
    }

    /// Adds a real server; also one that was removed and still has connections.
    pub fn server(&mut self, server: Server) {
        let (chunk, slot) = (server.id.0 as usize / CHUNK, server.id.0 as usize % CHUNK);
        while self.servers.len() <= chunk {
            self.servers.push(Arc::new([None; CHUNK]));
        }
        Arc::make_mut(&mut self.servers[chunk])[slot] = Some(server);
    }

    /// Keeps `addr` as a virtual address, though no service may listen there any more.
    pub fn vip(&mut self, addr: IpAddr) {
        self.addresses.entry(bits(addr)).or_default().vip = true;
    }

    /// The same for all virtual addresses of a service that was removed.
    pub fn vips_of(&mut self, removed: &ServiceKey) {
        match *removed {
            ServiceKey::Address { vip, .. } => self.vip(vip),
            ServiceKey::Range { vips, .. } => self.kept.push(vips),
            ServiceKey::Mark { .. } | ServiceKey::Snat { .. } => {}
        }
    }

    /// Keeps `addr` as a local address, though no service may use it any more.
    pub fn local(&mut self, addr: IpAddr) {
        self.addresses.entry(bits(addr)).or_default().local = true;
    }

    /// Starts from the servers of `old`, sharing the chunks that do not change, and what was
    /// worked out for it where that still holds.
    pub fn servers_of(&mut self, old: &Snapshot) {
        self.servers.clone_from(&old.servers);
        self.old_ranges.clone_from(&old.ranges);
    }

    /// Forgets a server whose last connection is gone.
    pub fn forget_server(&mut self, id: ServerId) {
        let (chunk, slot) = (id.0 as usize / CHUNK, id.0 as usize % CHUNK);
        if let Some(chunk) = self.servers.get_mut(chunk) {
            Arc::make_mut(chunk)[slot] = None;
        }
    }

    /// The snapshot, numbered `generation`.
    #[must_use]
    pub fn build(mut self, generation: u64) -> Snapshot {
        let servers = self.servers.iter().flat_map(|chunk| chunk.iter().flatten());
        let mut has_snat = !self.snat.is_empty();
        for end in servers {
            has_snat |= end.forward == ForwardMode::snat;
            if end.tunnelled().is_none() {
                continue;
            }
            let used = self.addresses.entry(bits(end.address.ip())).or_default();
            used.tunnel_end = true;
        }
        let exact = self.services.iter().flatten().filter_map(|s| match s.key {
            ServiceKey::Address { proto, vip, port } => Some((proto, (vip, port).into(), s.id)),
            _ => None,
        });
        let marked = self.services.iter().flatten().filter_map(|s| match s.key {
            ServiceKey::Mark { mark, v6 } => Some(((mark, v6), s.id)),
            _ => None,
        });
        let (by_address, by_mark) = (Exact::new(exact), marked.collect());
        let pools = self.services.iter().flatten();
        let pools = pools.filter(|s| matches!(s.key, ServiceKey::Snat { .. }));
        let pools: HashMap<_, _> = pools.map(|s| (s.key, s.id)).collect();
        let snat_pools = snat::pools(&self.snat, |key| pools.get(key).copied());
        let mut by_quic = HashMap::default();
        let of_quic = self.services.iter().flatten();
        for service in of_quic.filter(|s| s.policy.quic.is_some()) {
            for candidate in &service.servers {
                let (chunk, slot) = (
                    candidate.id.0 as usize / CHUNK,
                    candidate.id.0 as usize % CHUNK,
                );
                let server = self
                    .servers
                    .get(chunk)
                    .and_then(|chunk| chunk[slot].as_ref());
                if let Some(id) = server.and_then(|s| s.policy.quic_server_id) {
                    by_quic.insert((service.id, id), candidate.id);
                }
            }
        }
        let keys = self.services.iter().flatten().map(|s| (s.key, s.id));
        let ranges = Ranges::of(keys, &self.kept, self.old_ranges.as_ref());
        let mut services = self.services.iter().flatten();
        let has_ftp = services.any(|s| s.policy.persistence.is_some() && s.key.port() == Some(FTP));
        let mut services = self.services.iter().flatten();
        let tells_addresses = services.any(|s| s.client_address != ClientAddress::none);
        let is_plain = self.services.iter().flatten().all(|s| s.policy.is_plain());
        let mut sieve = [0; SIEVE];
        for &addr in self.addresses.keys() {
            let (word, bit) = self::sieve(addr);
            sieve[word] |= bit;
        }
        Snapshot {
            has_ftp,
            generation,
            timeouts: TimeoutSets::new(self.timeouts, &self.own_timeouts),
            rules: self.rules,
            cookies: self.cookies,
            services: self.services,
            by_address,
            by_mark,
            marks: self.marks,
            snat: self.snat,
            snat_pools,
            has_snat,
            tells_addresses,
            is_plain,
            ranges,
            by_quic,
            servers: self.servers,
            addresses: self.addresses,
            sieve,
        }
    }
}

/// An address as one number to hash, an IPv4 one IPv4-mapped: some ns cheaper than an enum.
#[inline]
fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => 0xffff << 32 | u128::from(u32::from(addr)),
        IpAddr::V6(addr) => u128::from(addr),
    }
}
