//! Marking rules: what netfilter's MARK target does in front of IPVS, here by Weir's own rules.
//!
//! The rules are asked in their order and the first that a packet meets gives its mark (like
//! an access list; a chain of MARK targets would let the last one win). A rule may give none,
//! which exempts what it meets from those behind it. Only packets without a connection are
//! classified.
#![forbid(unsafe_code)]

use super::classifier::{Classifier, Pattern};
use super::key::{Asked, Mark};
use std::net::IpAddr;

/// One marking rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MarkRule {
    /// Which packets.
    pub pattern: Pattern,
    /// What they get; `None` leaves them without a mark.
    pub mark: Option<Mark>,
}

/// All marking rules, compiled.
#[derive(Debug)]
pub struct Marks {
    rules: Vec<MarkRule>,
    classifier: Classifier,
}

impl Marks {
    /// Most rules that are taken: a row of bits is a kilobyte then.
    pub const MOST_RULES: usize = 8192;

    /// Compiles `rules`, in their order. Takes milliseconds for thousands.
    #[must_use]
    pub fn new(rules: Vec<MarkRule>) -> Marks {
        let patterns: Vec<_> = rules.iter().map(|rule| rule.pattern.clone()).collect();
        Marks {
            rules,
            classifier: Classifier::new(&patterns),
        }
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &[MarkRule] {
        &self.rules
    }

    /// The mark of a packet.
    #[inline]
    #[must_use]
    pub fn of(&self, asked: &Asked) -> Option<Mark> {
        let rule = self.classifier.first(asked)?;
        self.rules.get(rule)?.mark
    }

    /// Whether any rule takes this destination.
    #[inline]
    #[must_use]
    pub fn lead_to(&self, destination: IpAddr) -> bool {
        self.classifier.leads_to(destination)
    }

    /// Bytes of memory that the compiled rules take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.classifier.bytes()
    }
}

impl Default for Marks {
    /// No rule.
    fn default() -> Marks {
        Marks::new(Vec::new())
    }
}

/// By the rules; what they compile to follows.
impl PartialEq for Marks {
    fn eq(&self, other: &Marks) -> bool {
        self.rules == other.rules
    }
}

impl Eq for Marks {}
