//! What one edit of the model did, for the log and for people.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use weir_dataplane::service::ServiceKey;
use weir_dataplane::{ServerId, ServiceId};

/// What happened to a service or server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// It is new, or came back.
    Added,
    /// It takes no new connections, and is forgotten after its last one.
    Removed,
    /// Each key that changed: "weight 100 to 50".
    Changed(Vec<String>),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Added => f.write_str("added"),
            What::Removed => f.write_str("removed"),
            What::Changed(keys) => write!(f, "changed: {}", keys.join(", ")),
        }
    }
}

/// What happened to one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceChange {
    /// Its number.
    pub(crate) id: ServiceId,
    /// Its name, the new one where that changed.
    pub(crate) name: Arc<str>,
    /// What clients address.
    pub(crate) key: ServiceKey,
    /// What happened.
    pub(crate) what: What,
}

impl fmt::Display for ServiceChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, key) = (&self.name, self.key);
        write!(f, "service {name:?} ({key}) {}", self.what)
    }
}

/// What happened to one real server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerChange {
    /// Its number. For one that was added, it may have been another's before: whoever shows
    /// counters by number takes their values of now as the new server's zero.
    pub(crate) id: ServerId,
    /// The name of its service.
    pub(crate) service: Arc<str>,
    /// Its address.
    pub(crate) address: SocketAddr,
    /// What happened.
    pub(crate) what: What,
}

impl fmt::Display for ServerChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ServerChange {
            service,
            address,
            what,
            ..
        } = self;
        write!(f, "service {service:?}: real server {address} {what}")
    }
}

/// Everything that one edit did. Displays as one line of numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// By key; removed ones first.
    pub(crate) services: Vec<ServiceChange>,
    /// By service; those of added and removed services too.
    pub(crate) servers: Vec<ServerChange>,
    /// Whether marking rules changed.
    pub(crate) marks: bool,
    /// Whether rules of SNAT changed, or their order.
    pub(crate) snat: bool,
    /// Whether connection timeouts changed.
    pub(crate) timeouts: bool,
    /// Whether LVS's rules of opening and giving up changed.
    pub(crate) rules: bool,
    /// Whether Weir holds VIPs now and did not, or the other way round.
    pub(crate) vip_owner: bool,
}

impl Changes {
    /// Changed services and servers.
    pub(super) fn len(&self) -> usize {
        self.services.len() + self.servers.len()
    }

    /// Whether the edit did nothing.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Changes::default()
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let services: Vec<&What> = self.services.iter().map(|c| &c.what).collect();
        let servers: Vec<&What> = self.servers.iter().map(|c| &c.what).collect();
        for (kind, changes) in [("services", services), ("real servers", servers)] {
            let added = changes.iter().filter(|w| ***w == What::Added).count();
            let removed = changes.iter().filter(|w| ***w == What::Removed).count();
            let changed = changes.len() - added - removed;
            if !changes.is_empty() {
                parts.push(format!(
                    "{kind}: {added} added, {changed} changed, {removed} removed"
                ));
            }
        }
        if self.marks {
            parts.push("marking rules changed".to_owned());
        }
        if self.snat {
            parts.push("snat rules changed".to_owned());
        }
        if self.timeouts {
            parts.push("timeouts changed".to_owned());
        }
        if self.rules {
            parts.push("ipvs changed".to_owned());
        }
        if self.vip_owner {
            parts.push("the owner of VIPs changed".to_owned());
        }
        match parts.is_empty() {
            true => f.write_str("nothing changed"),
            false => f.write_str(&parts.join("; ")),
        }
    }
}
