//! The gates before an opening, in this order: the blacklist, the service's access list, and, when
//! memory is short, `drop_packet`; then how much the service and the client may have; what the SYN
//! proxy says; and which server the client's template names.
//!
//! The first four are asked once a packet, however many cores are asked after them. What the first
//! three refuse is dropped without an answer. Where nothing of it is configured it is one branch
//! ([`Snapshot::is_plain`](crate::service::Snapshot::is_plain)).
#![forbid(unsafe_code)]

use std::net::IpAddr;

use super::family::Family;
use super::open::{First, Refusal};
use crate::counters::DropReason;
use crate::defense::pressure::Defense;
use crate::io::PortQueue;
use crate::packet::Flow;
use crate::service::Service;
use crate::steer::Progress;
use crate::types::{ServiceId, Tick};
use crate::worker::Worker;

impl<Q: PortQueue> Worker<Q> {
    /// Takes a packet that would open a connection to this service through the gates. What is known
    /// then.
    #[inline(never)]
    pub(super) fn pass_gates<K: Family>(
        &mut self,
        of: ServiceId,
        first: First<'_>,
        flow: &Flow<K>,
        progress: Progress,
        now: Tick,
    ) -> Result<Progress, Refusal> {
        let service = self.snapshot.service(of).ok_or(DropReason::NoServer)?;
        let client = flow.key.source().ip();
        if progress == Progress::default() {
            self.defense.admit(service, client)?;
            if self.limits.is_on() {
                self.limits.admit(service, client, now)?;
            }
        }
        let sloppy = self.snapshot.rules.sloppy_tcp;
        let proto = flow.key.proto();
        self.proxies.admits(service, proto, flow.says, sloppy)?;
        match service.policy.persistence {
            Some(persistence) => self.persist(first, flow, (of, persistence), progress, now),
            None => Ok(progress),
        }
    }
}

impl Defense {
    /// Whether this client may open a connection to `service`.
    pub(super) fn admit(&mut self, service: &Service, client: IpAddr) -> Result<(), DropReason> {
        if !self.guards() && service.policy.access.is_none() {
            return Ok(());
        }
        if self.blacklist().denies(service.id, client) {
            return Err(DropReason::Blacklisted);
        }
        let access = service.policy.access.as_deref();
        if access.is_some_and(|access| access.denied.denies(client)) {
            return Err(DropReason::AccessDenied);
        }
        match self.drops_this() {
            true => Err(DropReason::DropPacket),
            false => Ok(()),
        }
    }
}
