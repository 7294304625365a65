//! The gate: whether a packet may open anything at all.
//!
//! In this order: the blacklist, the service's access list, and, when memory is short,
//! `drop_packet`. Asked once a packet, however many servers are tried for it. What is refused is
//! dropped without an answer. Where nothing of it is configured it is one branch.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use crate::counters::DropReason;
use crate::defense::pressure::Defense;
use crate::service::Service;

impl Defense {
    /// Whether this client may open a connection to `service`.
    #[inline]
    pub(super) fn admit(&mut self, service: &Service, client: IpAddr) -> Result<(), DropReason> {
        if !self.guards() && service.policy.access.is_none() {
            return Ok(());
        }
        self.judge(service, client)
    }

    #[inline(never)]
    fn judge(&mut self, service: &Service, client: IpAddr) -> Result<(), DropReason> {
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
