//! Schedulers: which real server a new connection gets.
//!
//! One file each and one line in `schedulers!`. A scheduler is a pure `pick` over a [`View`];
//! what it remembers between picks is a [`Cursor`], which lives in the worker by service id and
//! survives snapshots. `None` means that no server may take the connection.
#![forbid(unsafe_code)]

use crate::service::Candidate;

mod rr;
#[cfg(test)]
mod tests;
mod wrr;

/// What a scheduler may look at.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The service's servers, in configuration order.
    pub servers: &'a [Candidate],
    /// The snapshot they are from, above 0: what is worked out from the list holds as long as
    /// this stays the same.
    pub generation: u64,
}

/// What a scheduler remembers between picks; all zero at first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    /// One past the position last looked at, or 0 before the first pick.
    pub next: u32,
    /// wrr: the weight level of the current pass.
    pub level: u32,
    /// wrr: the largest weight and the step between levels, as of `generation`.
    pub max: u32,
    /// See `max`.
    pub step: u32,
    /// The snapshot that `max` and `step` were worked out from.
    pub generation: u64,
}

macro_rules! schedulers {
    ($($(#[doc = $doc:literal])+ $sched:ident,)+) => {
        /// A scheduler, by the name that LVS gives it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(non_camel_case_types)]
        pub enum SchedulerKind { $($(#[doc = $doc])+ $sched,)+ }

        impl SchedulerKind {
            /// All schedulers that this build has.
            pub const ALL: &'static [SchedulerKind] = &[$(SchedulerKind::$sched,)+];

            /// The name in the configuration and in listings.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(SchedulerKind::$sched => stringify!($sched),)+ }
            }

            /// One sentence for people.
            #[must_use]
            pub fn help(self) -> &'static str {
                match self { $(SchedulerKind::$sched => concat!($($doc),+).trim_ascii(),)+ }
            }

            /// Chooses a server: its position in `view.servers`.
            #[inline]
            #[must_use]
            pub fn pick(self, view: View<'_>, cursor: &mut Cursor) -> Option<usize> {
                match self { $(SchedulerKind::$sched => $sched::pick(view, cursor),)+ }
            }
        }
    };
}

schedulers! {
    /// Round robin: each server in turn, weights aside (0 still drains).
    rr,
    /// Weighted round robin, interleaved: shares follow weights.
    wrr,
}
