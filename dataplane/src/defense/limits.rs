//! How much a service, and each of its clients, may have: connections, new connections, packets
//! and bits a second, all workers together.
//!
//! Workers ask nobody. What is limited for a while is an [`Account`] in each worker's own cells,
//! and its rule makes the sum right (see there). Standing connections are counted in a cell: a
//! worker adds one, looks at all workers' cells and takes it back when that is too many, as
//! thresholds do (`sched/thresholds.rs`). A client's cells are found by its address in a
//! [`Sources`] table, the same place in each worker's.
//!
//! Openings ask here after their service is found. Packets of connections ask only where the
//! service limits packets or bits: such connections are marked ([`Flags::METERED`]) and go aside,
//! so the others' way is what it was.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{Ordering::SeqCst, fence};

use crate::conn::Conn;
use crate::conn::entry::Flags;
use crate::counters::{Cell, DropReason, WorkerCounters};
use crate::packet::Key;
use crate::service::{Excess, Limits, Rates, Service, Snapshot};
use crate::types::{ServerId, ServiceId, Tick};

mod account;
mod sources;
#[cfg(test)]
mod tests;

pub use account::Account;
pub use sources::{ServiceCells, ServiceTable, Sources};

use account::Share;
use sources::Source;

/// What is limited for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Opening = 0,
    Packet = 1,
    Bit = 2,
}

impl Kind {
    fn per_second(self, of: &Rates) -> u64 {
        match self {
            Kind::Opening => of.connections_per_second,
            Kind::Packet => of.packets_per_second,
            Kind::Bit => of.bits_per_second,
        }
    }

    /// What may come at once where an eighth of a second's worth is less: what a browser opens, a
    /// window of packets, the longest packet.
    /// Of a small number, all of a second's.
    fn at_once(self, per_second: u64) -> u64 {
        match self {
            Kind::Opening => per_second.min(16),
            Kind::Packet => per_second.min(128),
            Kind::Bit => 8 * 65_536,
        }
    }
}

/// Whose limit was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Service = 0,
    Client = 4,
}

/// The limits of a service and of its clients by their keys in the configuration, in the order of
/// [`REASONS`]; 0 for none.
#[must_use]
pub fn listed(limits: &Limits) -> [(&'static str, u64); 8] {
    let of = |rates: &Rates| {
        [
            ("connections", rates.connections.into()),
            ("connections_per_second", rates.connections_per_second),
            ("packets_per_second", rates.packets_per_second),
            ("bits_per_second", rates.bits_per_second),
        ]
    };
    let ([a, b, c, d], [e, f, g, h]) = (of(&limits.service), of(&limits.client));
    [a, b, c, d, e, f, g, h]
}

/// Reasons to refuse, in the order of [`ServiceCells::refused`].
pub const REASONS: [DropReason; 8] = [
    DropReason::ServiceConnections,
    DropReason::ServiceConnectionRate,
    DropReason::ServicePacketRate,
    DropReason::ServiceBitRate,
    DropReason::ClientConnections,
    DropReason::ClientConnectionRate,
    DropReason::ClientPacketRate,
    DropReason::ClientBitRate,
];

/// Why a connection is not to be, and what its sender hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) reason: DropReason,
    pub(crate) resets: bool,
}

/// One worker's part in all limits.
#[derive(Debug)]
pub(crate) struct Limiter {
    own: Arc<WorkerCounters>,
    peers: Vec<Arc<WorkerCounters>>,
    seed: u64,
    /// By service id, and by place in the table of sources.
    shares: Vec<[Share; 3]>,
    source_shares: Vec<[Share; 3]>,
    is_on: bool,
}

impl Limiter {
    /// Of a worker that counts in `own`, whose other workers count in `peers`. All have the same
    /// `seed`, or a client would be in another place with each.
    pub(crate) fn new(
        own: Arc<WorkerCounters>,
        peers: Vec<Arc<WorkerCounters>>,
        seed: u64,
    ) -> Limiter {
        Limiter {
            own,
            peers,
            seed,
            shares: Vec::new(),
            source_shares: Vec::new(),
            is_on: false,
        }
    }

    /// Takes note of a new snapshot's limits. May allocate.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot) {
        let limited = || snapshot.services().filter(|s| s.policy.limits.are_on());
        let services = limited().map(|s| s.id.0 as usize + 1).max().unwrap_or(0);
        if self.shares.len() < services {
            self.shares.resize(services, Default::default());
        }
        let of_clients = limited().any(|s| s.policy.limits.client.are_on());
        if of_clients && self.source_shares.is_empty() {
            let places = self.own.sources.get().map_or(0, Sources::places);
            self.source_shares = vec![Default::default(); places];
        }
        self.is_on = services > 0;
    }

    /// Whether any service has limits.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether a client at `client` may open a connection to `service` now. A client that has
    /// what it may have takes nothing of what the service may have.
    #[inline(never)]
    pub(crate) fn admit(
        &mut self,
        service: &Service,
        client: IpAddr,
        now: Tick,
    ) -> Result<(), Refused> {
        let limits = &service.policy.limits;
        if !limits.are_on() {
            return Ok(());
        }
        let own = Arc::clone(&self.own);
        if limits.client.are_on() {
            let key = self.key(service.id, client, limits);
            match own.sources.get().and_then(|s| s.place(key, now)) {
                Some((at, is_new)) => {
                    if is_new && let Some(shares) = self.source_shares.get_mut(at) {
                        *shares = Default::default();
                    }
                    let most = u64::from(limits.client.connections);
                    if most > 0 && self.connections_of(at, key) >= most {
                        return Err(self.refuse(service, Whose::Client, 0));
                    }
                    if !self.source_may(at, key, Kind::Opening, &limits.client, 1, now) {
                        return Err(self.refuse(service, Whose::Client, 1));
                    }
                }
                None => own.limit_untracked.add(1),
            }
        }
        let most = u64::from(limits.service.connections);
        if most > 0 && self.connections(service.id) >= most {
            return Err(self.refuse(service, Whose::Service, 0));
        }
        match self.service_may(service.id, Kind::Opening, &limits.service, 1, now) {
            true => Ok(()),
            false => Err(self.refuse(service, Whose::Service, 1)),
        }
    }

    /// Counts a connection that is about to open, and says how it is marked.
    #[inline(never)]
    pub(crate) fn take_place(
        &mut self,
        snapshot: &Snapshot,
        server: ServerId,
        client: IpAddr,
    ) -> Result<Flags, DropReason> {
        let Some(service) = service_of(snapshot, server) else {
            return Ok(Flags::NONE);
        };
        let limits = &service.policy.limits;
        let own = Arc::clone(&self.own);
        let Some(cells) = own.services.get(service.id).filter(|_| limits.are_on()) else {
            return Ok(Flags::NONE);
        };
        let mut flags = Flags::LIMITED;
        if limits.meter_packets() {
            flags = flags.with(Flags::METERED);
        }
        cells.connections.add(1);
        fence(SeqCst); // as for thresholds
        let most = u64::from(limits.service.connections);
        if most > 0 && self.connections(service.id) > most {
            cells.connections.sub(1);
            return Err(self.refuse(service, Whose::Service, 0).reason);
        }
        if limits.client.are_on() {
            let key = self.key(service.id, client, limits);
            if let Some((at, source)) = own.sources.get().and_then(|s| s.find(key)) {
                source.connections.add(1);
                flags = flags.with(Flags::TRACKED);
                fence(SeqCst);
                let most = u64::from(limits.client.connections);
                if most > 0 && self.connections_of(at, key) > most {
                    source.connections.sub(1);
                    cells.connections.sub(1);
                    return Err(self.refuse(service, Whose::Client, 0).reason);
                }
            }
        }
        Ok(flags)
    }

    /// A connection is gone, or did not come to be after all.
    #[inline]
    pub(crate) fn gone<K: Key>(&self, snapshot: &Snapshot, conn: &Conn<K>) {
        if conn.flags().has(Flags::LIMITED) {
            let client = conn.client().ip();
            self.give_place_back(snapshot, conn.server_id(), client, conn.flags());
        }
    }

    #[inline(never)]
    pub(crate) fn give_place_back(
        &self,
        snapshot: &Snapshot,
        server: ServerId,
        client: IpAddr,
        flags: Flags,
    ) {
        // The service may have been removed meanwhile: its cells are still its own.
        let Some(id) = snapshot.server(server).map(|s| s.service) else {
            return;
        };
        if let Some(cells) = self.own.services.get(id) {
            take_one(&cells.connections);
        }
        if let Some(service) = snapshot.service(id)
            && flags.has(Flags::TRACKED)
            && let Some(sources) = self.own.sources.get()
        {
            let key = self.key(id, client, &service.policy.limits);
            if let Some((_, source)) = sources.find(key) {
                take_one(&source.connections);
            }
        }
    }

    /// Why a packet of a connection to `server` is more than may pass now, if it is.
    #[inline(never)]
    pub(crate) fn meter(
        &mut self,
        snapshot: &Snapshot,
        server: ServerId,
        client: IpAddr,
        ip_len: u16,
        now: Tick,
    ) -> Option<DropReason> {
        let service = service_of(snapshot, server)?;
        let limits = &service.policy.limits;
        let bits = 8 * u64::from(ip_len);
        if limits.client.meter_packets() {
            let key = self.key(service.id, client, limits);
            let own = Arc::clone(&self.own);
            if let Some((at, source)) = own.sources.get().and_then(|s| s.find(key)) {
                source.touched.set(stamp(now));
                for (kind, cost) in [(Kind::Packet, 1), (Kind::Bit, bits)] {
                    if !self.source_may(at, key, kind, &limits.client, cost, now) {
                        let refused = self.refuse(service, Whose::Client, kind as usize + 1);
                        return Some(refused.reason);
                    }
                }
            }
        }
        for (kind, cost) in [(Kind::Packet, 1), (Kind::Bit, bits)] {
            if !self.service_may(service.id, kind, &limits.service, cost, now) {
                let refused = self.refuse(service, Whose::Service, kind as usize + 1);
                return Some(refused.reason);
            }
        }
        None
    }

    fn service_may(
        &mut self,
        id: ServiceId,
        kind: Kind,
        rates: &Rates,
        cost: u64,
        now: Tick,
    ) -> bool {
        let per_second = kind.per_second(rates);
        let (own, peers) = (&self.own, &self.peers);
        let cells = own.services.get(id);
        let (Some(cells), Some(shares)) = (cells, self.shares.get_mut(id.0 as usize)) else {
            return true;
        };
        if per_second == 0 {
            return true;
        }
        let at = kind as usize;
        let peers = peers.iter().filter_map(|p| p.services.get(id));
        let peers = peers.map(|cells| &cells.accounts[at]);
        let rule = (per_second, kind.at_once(per_second));
        cells.accounts[at].may(&mut shares[at], peers, rule, cost, now)
    }

    fn source_may(
        &mut self,
        at: usize,
        key: u64,
        kind: Kind,
        rates: &Rates,
        cost: u64,
        now: Tick,
    ) -> bool {
        let per_second = kind.per_second(rates);
        let (own, peers) = (&self.own, &self.peers);
        let source = own.sources.get().and_then(|s| s.get(at));
        let (Some(source), Some(shares)) = (source, self.source_shares.get_mut(at)) else {
            return true;
        };
        if per_second == 0 {
            return true;
        }
        let n = kind as usize;
        let peers = peers.iter().filter_map(|p| p.sources.get()?.find(key));
        let peers = peers.map(|(_, source)| &source.accounts[n]);
        let rule = (per_second, kind.at_once(per_second));
        source.accounts[n].may(&mut shares[n], peers, rule, cost, now)
    }

    /// Connections of a service, over all workers.
    fn connections(&self, id: ServiceId) -> u64 {
        let all = std::iter::once(&self.own).chain(&self.peers);
        let cells = all.filter_map(|worker| worker.services.get(id));
        cells.map(|cells| cells.connections.get()).sum()
    }

    /// Connections of the client at place `at`, over all workers.
    fn connections_of(&self, at: usize, key: u64) -> u64 {
        let own = self.own.sources.get().and_then(|s| s.get(at));
        let peers = self.peers.iter();
        let peers = peers.filter_map(|p| p.sources.get()?.find(key));
        let all = own.into_iter().chain(peers.map(|(_, source)| source));
        all.map(|source: &Source| source.connections.get()).sum()
    }

    fn refuse(&self, service: &Service, whose: Whose, what: usize) -> Refused {
        let at = whose as usize + what;
        if let Some(cells) = self.own.services.get(service.id) {
            cells.refused[at].add(1);
        }
        Refused {
            reason: REASONS[at],
            resets: service.policy.limits.excess == Excess::Reset,
        }
    }

    /// The name of a client of a service in tables of sources, never 0: its network, hashed with
    /// a secret so that nobody outside can aim at a place.
    fn key(&self, service: ServiceId, client: IpAddr, limits: &Limits) -> u64 {
        let (bits, from) = match client.to_canonical() {
            IpAddr::V4(at) => {
                let network = u32::MAX.checked_shl(32 - u32::from(limits.prefix4));
                (u128::from(u32::from(at) & network.unwrap_or(0)), 4)
            }
            IpAddr::V6(at) => {
                let network = u128::MAX.checked_shl(128 - u32::from(limits.prefix6));
                (u128::from(at) & network.unwrap_or(0), 6)
            }
        };
        let one = mixed(bits as u64 ^ self.seed, from ^ 0xa076_1d64_78bd_642f);
        let two = mixed((bits >> 64) as u64 ^ one, 0xe703_7ed1_a0b4_28db);
        mixed(
            u64::from(service.0) ^ two,
            0x8ebc_6af0_9c88_c6e3 ^ self.seed,
        ) | 1
    }
}

fn service_of(snapshot: &Snapshot, server: ServerId) -> Option<&Service> {
    snapshot.service(snapshot.server(server)?.service)
}

fn take_one(gauge: &Cell) {
    gauge.set(gauge.get().saturating_sub(1));
}

/// A moment in a cell, where 0 is never.
fn stamp(now: Tick) -> u64 {
    1 << 32 | u64::from(now.0)
}

/// Two words' product, folded (the scheme of wyhash).
fn mixed(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    wide as u64 ^ (wide >> 64) as u64 ^ a.rotate_left(32)
}
