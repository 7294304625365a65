//! Services for several addresses or ports: the most specific one wins.
//!
//! Fewer addresses are more specific, whatever the ports; of equally many addresses fewer ports
//! are. So a VIP's own services come before those of a network that it is in, and port 0, which
//! is not here, comes last among a VIP's own.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use super::classifier::{Classifier, Pattern};
use super::key::{AddressRange, Asked, PortRange, ServiceKey};
use crate::types::{Proto, ServiceId};

/// What is looked through: a protocol, addresses, ports, and whose they are. Without a service
/// they are virtual addresses of a service that was removed.
type Entry = (AddressRange, PortRange, Option<(Proto, ServiceId)>);

/// Services of ranges.
#[derive(Debug)]
pub(super) struct Ranges {
    entries: Vec<Entry>,
    classifier: Classifier,
}

impl Ranges {
    /// Of the services `keys` and the virtual `kept`; those of `old` where they are the same.
    /// `None` where there is no range.
    pub(super) fn of(
        keys: impl Iterator<Item = (ServiceKey, ServiceId)>,
        kept: &[AddressRange],
        old: Option<&std::sync::Arc<Ranges>>,
    ) -> Option<std::sync::Arc<Ranges>> {
        let mut entries: Vec<Entry> = Vec::new();
        for (key, id) in keys {
            if let ServiceKey::Range { proto, vips, ports } = key {
                entries.push((vips, ports, Some((proto, id))));
            }
        }
        if entries.is_empty() && kept.is_empty() {
            return None;
        }
        entries.extend(kept.iter().map(|vips| (*vips, PortRange::ALL, None)));
        entries.sort_by_key(|(vips, ports, of)| {
            (of.is_none(), vips.steps(), ports.len(), *vips, *ports)
        });
        if let Some(old) = old.filter(|old| old.entries == entries) {
            return Some(old.clone());
        }
        let pattern = |(vips, ports, of): &Entry| Pattern {
            destinations: vec![*vips],
            ports: vec![*ports],
            proto: of.map(|(proto, _)| proto),
            ..Pattern::default()
        };
        let patterns: Vec<_> = entries.iter().map(pattern).collect();
        Some(std::sync::Arc::new(Ranges {
            classifier: Classifier::new(&patterns),
            entries,
        }))
    }

    /// The service that takes the packet, where no service has just its address and port; and
    /// whether it has just its address, so that it comes before one of every port there.
    #[inline]
    pub(super) fn first(&self, asked: &Asked) -> Option<(ServiceId, bool)> {
        let (vips, _, of) = self.entries.get(self.classifier.first(asked)?)?;
        of.map(|(_, id)| (id, vips.steps() == 0))
    }

    /// Whether this is a virtual address.
    #[inline]
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.classifier.leads_to(address)
    }
}
