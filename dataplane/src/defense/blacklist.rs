//! Clients that an operator shuts out for a while.
//!
//! The entries with their ends of time are control's; workers get the addresses, compiled anew
//! at each change: tens of thousands of entries take milliseconds, and services' lists of
//! millions are not touched.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::sync::Arc;

use super::access::Denied;
use crate::types::ServiceId;

/// All of it at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blacklist {
    /// Shut out of every service.
    pub everywhere: Denied,
    /// Shut out of one service, ascending by id.
    pub services: Vec<(ServiceId, Denied)>,
}

impl Blacklist {
    /// Nobody is shut out.
    #[must_use]
    pub fn empty() -> Arc<Blacklist> {
        Arc::new(Blacklist::default())
    }

    /// Whether nobody is shut out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.everywhere.is_empty() && self.services.is_empty()
    }

    /// Whether this client may open nothing to `service`.
    #[must_use]
    pub fn denies(&self, service: ServiceId, client: IpAddr) -> bool {
        if self.everywhere.denies(client) {
            return true;
        }
        let own = self.services.binary_search_by_key(&service, |(id, _)| *id);
        own.is_ok_and(|at| self.services[at].1.denies(client))
    }

    /// Bytes of memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let own = self.services.iter().map(|(_, denied)| denied.bytes());
        self.everywhere.bytes() + own.sum::<usize>()
    }
}
