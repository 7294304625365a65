//! Local ports sorted by what they add to the low bits of the RSS hash: their *class*.
//!
//! One list for each family, the same for all workers: `lip` finds in it the ports whose answers
//! come back to the worker that asks.
#![forbid(unsafe_code)]

use super::BUCKETS;

/// First local port; those below are left to well-known services.
pub const FIRST_PORT: u16 = 1024;

/// The RSS key cannot steer: no local port leads to some bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "RSS key: no local port reaches bucket class {class}; use another key (the low 7 bits of the \
     ports' hashes must take all 128 values)"
)]
pub struct UselessKey {
    /// The class without a port.
    pub class: usize,
}

/// Ports sorted by class; class `c` is `ports[starts[c]..starts[c + 1]]`.
#[derive(Debug)]
pub(super) struct Classes {
    ports: Box<[u16]>,
    /// The same, each class ascending: for those that may take some only.
    ascending: Box<[u16]>,
    starts: [u32; BUCKETS + 1],
}

impl Classes {
    /// Sorts all local ports by the low bits of their `part` of the hash.
    pub(super) fn new(part: impl Fn(u16) -> u32) -> Classes {
        let class = |port: &u16| part(*port) as usize % BUCKETS;
        let mut ports: Vec<u16> = (FIRST_PORT..=u16::MAX).collect();
        ports.sort_by_key(|p| (class(p), p.wrapping_mul(40_503))); // neighbours far apart
        let mut starts = [0u32; BUCKETS + 1];
        for port in &ports {
            starts[class(port) + 1] += 1;
        }
        for c in 0..BUCKETS {
            starts[c + 1] += starts[c];
        }
        let mut ascending = ports.clone();
        ascending.sort_by_key(|p| (class(p), *p));
        Classes {
            ports: ports.into(),
            ascending: ascending.into(),
            starts,
        }
    }

    /// Whether every class has a port.
    pub(super) fn check(&self) -> Result<(), UselessKey> {
        match (0..BUCKETS).find(|&class| self.ports(class).is_empty()) {
            Some(class) => Err(UselessKey { class }),
            None => Ok(()),
        }
    }

    #[inline]
    pub(super) fn ports(&self, class: usize) -> &[u16] {
        &self.ports[self.starts[class] as usize..self.starts[class + 1] as usize]
    }

    /// Those from `first` to `last`.
    pub(super) fn within(&self, class: usize, first: u16, last: u16) -> &[u16] {
        let all = &self.ascending[self.starts[class] as usize..self.starts[class + 1] as usize];
        let from = all.partition_point(|port| *port < first);
        let to = all.partition_point(|port| *port <= last);
        all.get(from..to).unwrap_or_default()
    }
}
