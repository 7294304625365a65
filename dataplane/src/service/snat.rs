//! Rules of SNAT: whose own connections leave with which addresses.
//!
//! The rules are asked in their order, and the first that a packet meets says which pool; a rule
//! may name none, which exempts what it meets from those behind it. A pool is a
//! [`Service`](super::Service) with a key of its own ([`ServiceKey::Snat`]): its "servers" are the pool's
//! addresses, so that they have weights, counters and a life after their removal like any other's.
#![forbid(unsafe_code)]

use super::classifier::{Classifier, Pattern};
use super::key::{Asked, PortRange, RuleName, ServiceKey};
use crate::steer::FIRST_PORT;
use crate::types::ServiceId;

/// One rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnatRule {
    /// Which packets; its `arrival` is the port that they would leave by.
    pub pattern: Pattern,
    /// Which pool they get an address of; `None` leaves them as they are.
    pub pool: Option<RuleName>,
}

/// All rules, compiled.
#[derive(Debug, Default)]
pub struct SnatRules {
    rules: Vec<SnatRule>,
    classifier: Option<Classifier>,
}

impl SnatRules {
    /// Most rules that are taken.
    pub const MOST_RULES: usize = 1024;

    /// Compiles `rules`, in their order.
    #[must_use]
    pub fn new(rules: Vec<SnatRule>) -> SnatRules {
        let patterns: Vec<_> = rules.iter().map(|rule| rule.pattern.clone()).collect();
        let classifier = (!rules.is_empty()).then(|| Classifier::new(&patterns));
        SnatRules { rules, classifier }
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &[SnatRule] {
        &self.rules
    }

    /// The rule that this pool is of.
    #[must_use]
    pub fn of_pool(&self, pool: RuleName) -> Option<&SnatRule> {
        self.rules.iter().find(|rule| rule.pool == Some(pool))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rule that a packet meets: its number, from 0.
    #[must_use]
    pub fn first(&self, asked: &Asked) -> Option<usize> {
        self.classifier.as_ref()?.first(asked)
    }
}

/// By the rules; what they compile to follows.
impl PartialEq for SnatRules {
    fn eq(&self, other: &SnatRules) -> bool {
        self.rules == other.rules
    }
}

impl Eq for SnatRules {}

/// For each rule its pools among the services: IPv4's and IPv6's.
pub(super) type Pools = Vec<[Option<ServiceId>; 2]>;

/// The pools of `rules`; `find` knows services by key.
pub(super) fn pools(rules: &SnatRules, find: impl Fn(&ServiceKey) -> Option<ServiceId>) -> Pools {
    let pool = |rule: &SnatRule| {
        [false, true].map(|v6| {
            let rule = rule.pool?;
            find(&ServiceKey::Snat { rule, v6 })
        })
    };
    rules.rules.iter().map(pool).collect()
}

/// What a pool gives beside addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnatPool {
    /// The ports, and echo identifiers, that it takes.
    pub ports: PortRange,
}

impl Default for SnatPool {
    /// All ports that are not well-known.
    fn default() -> Self {
        let ports = PortRange::new(FIRST_PORT, u16::MAX);
        SnatPool {
            ports: ports.unwrap_or(PortRange::ALL),
        }
    }
}
