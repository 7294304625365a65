//! Schedulers: which real server a new connection gets.
//!
//! One file each and one line in `schedulers!`. A scheduler is a pure `pick` over a `View`: the
//! servers, their loads, the packet, and the table that was worked out from the servers where the
//! snapshot was built ([`Scheduler::new`], outside the workers). What it remembers between picks
//! is a [`Memory`], which lives in the worker by service id and survives snapshots. `None` means
//! that no server may take the connection.
//!
//! With one worker the sequence of choices is that of Linux's IPVS, held to recordings of a real
//! kernel (`tests/oracle.rs`, which also lists where Weir differs on purpose). "First" is the
//! order of `servers`; the kernel's is the reverse of the order in which they were added.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use crate::service::Candidate;
use crate::types::Tick;

mod buckets;
mod conhash;
mod destinations;
mod dh;
mod fo;
mod hash;
mod lblc;
mod lblcr;
mod lc;
mod loads;
mod memory;
mod mh;
mod nq;
mod ovf;
mod rr;
mod scheduler;
mod sed;
mod sh;
#[cfg(test)]
mod tests;
mod thresholds;
mod twos;
mod wlc;
mod wrr;

pub use conhash::key_of_connection_id;
pub use loads::{Load, Loads};
pub use memory::Memory;
pub use scheduler::{Options, Rows, Scheduler};

use scheduler::Table;

/// What a new connection's first packet says, as far as schedulers care.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The client's address and port.
    pub source: SocketAddr,
    /// The virtual address that it asks for.
    pub destination: IpAddr,
    /// What schedulers that hash clients take for the client, where it is not its address.
    pub key: Option<u64>,
    /// Now.
    pub now: Tick,
}

/// What a scheduler may look at.
#[derive(Debug, Clone, Copy)]
struct View<'a> {
    /// The service's servers, in configuration order.
    servers: &'a [Candidate],
    /// What was worked out from them.
    table: &'a Table,
    options: Options,
    loads: &'a Loads,
    request: &'a Request,
}

impl View<'_> {
    fn load(&self, at: usize) -> Load {
        self.servers
            .get(at)
            .map_or_else(Load::default, |server| self.loads.of(server.id))
    }

    /// Neither drained nor past its upper threshold.
    #[inline(always)]
    fn available(&self, at: usize) -> bool {
        let server = self.servers.get(at);
        server.is_some_and(|s| s.weight > 0 && !self.loads.overloaded(s.id))
    }

    /// The servers that may take a connection, in order, with their weights.
    fn all_available(&self) -> impl Iterator<Item = (usize, u32)> {
        let open = |(at, server): (usize, &Candidate)| {
            let open = server.weight > 0 && !self.loads.overloaded(server.id);
            open.then_some((at, server.weight))
        };
        self.servers.iter().enumerate().filter_map(open)
    }

    /// Whether a client hashed to server `at`, which may take no connection, is to look for
    /// another: always when it is drained, by the flag when it is full.
    fn may_go_elsewhere(&self, at: usize) -> bool {
        let drained = self.servers.get(at).is_some_and(|s| s.weight == 0);
        drained || self.options.fallback
    }

    /// The client's port, where the flag says that it is hashed.
    fn hashed_port(&self) -> u16 {
        match self.options.port {
            true => self.request.source.port(),
            false => 0,
        }
    }

    fn any_available(&self) -> bool {
        self.all_available().next().is_some()
    }

    /// Of the available servers the first with the least `cost` for its weight.
    fn least(&self, cost: impl Fn(Load) -> u64) -> Option<usize> {
        let mut servers = self.all_available();
        let (mut best, mut least_weight) = servers.next()?;
        let mut least = cost(self.load(best));
        for (at, weight) in servers {
            let own = cost(self.load(at));
            // own / weight < least / least_weight, without dividing.
            if u128::from(least) * u128::from(weight) > u128::from(own) * u128::from(least_weight) {
                (best, least, least_weight) = (at, own, weight);
            }
        }
        Some(best)
    }
}

/// What the file of a scheduler says.
trait Rule {
    /// It looks at how many connections servers have.
    const COUNTS: bool = false;
    /// The names of the flags that it knows: to hash the port too, and to look for another server
    /// when the one hashed to may take no connection.
    const FLAGS: Flags = Flags {
        port: None,
        fallback: None,
    };

    /// Works out what depends on the servers alone. May take milliseconds: it never runs in a
    /// worker.
    fn prepare(_servers: &[Candidate], _options: Options) -> Table {
        Table::Nothing
    }

    /// Takes note that `servers`, not `before`, are from now on the service's. May allocate.
    fn adopt(_memory: &mut Memory, _before: &[Candidate], _servers: &[Candidate], _table: &Table) {}

    /// Chooses a server: its position in `view.servers`.
    fn pick(view: View<'_>, memory: &mut Memory) -> Option<usize>;
}

/// The flags of a scheduler, by the names that ipvsadm gives them; `None` where it has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// Hashes the client's port beside its address ([`Options::port`]).
    pub port: Option<&'static str>,
    /// Another server, where the one hashed to is drained or full ([`Options::fallback`]).
    pub fallback: Option<&'static str>,
}

impl Flags {
    /// The names, in the order of ipvsadm's listings.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        [self.fallback, self.port].into_iter().flatten()
    }

    /// The names of those that `options` sets, in that order.
    pub fn set_in(self, options: Options) -> impl Iterator<Item = &'static str> {
        let fallback = self.fallback.filter(|_| options.fallback);
        let port = self.port.filter(|_| options.port);
        [fallback, port].into_iter().flatten()
    }
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

            /// Whether it looks at how many connections servers have, on all cores.
            #[must_use]
            pub fn counts(self) -> bool {
                match self { $(SchedulerKind::$sched => $sched::Rule::COUNTS,)+ }
            }

            /// Whether servers get new connections in proportion to their weights, so that equal
            /// multiples of all of them mean the same.
            #[must_use]
            pub fn is_proportional(self) -> bool {
                use SchedulerKind::{nq, sed, twos, wlc, wrr};
                matches!(self, wrr | wlc | sed | nq | twos)
            }

            /// The flags that it knows.
            #[must_use]
            pub fn flags(self) -> Flags {
                match self { $(SchedulerKind::$sched => $sched::Rule::FLAGS,)+ }
            }

            fn prepare(self, servers: &[Candidate], options: Options) -> Table {
                match self { $(SchedulerKind::$sched => $sched::Rule::prepare(servers, options),)+ }
            }

            fn adopt(
                self,
                memory: &mut Memory,
                before: &[Candidate],
                servers: &[Candidate],
                table: &Table,
            ) {
                match self { $(SchedulerKind::$sched => {
                    $sched::Rule::adopt(memory, before, servers, table)
                })+ }
            }

            #[inline]
            fn pick(self, view: View<'_>, memory: &mut Memory) -> Option<usize> {
                match self { $(SchedulerKind::$sched => $sched::Rule::pick(view, memory),)+ }
            }
        }
    };
}

schedulers! {
    /// Round robin: each server in turn, weights aside (0 still drains).
    rr,
    /// Weighted round robin, interleaved: shares follow weights.
    wrr,
    /// Least connections, weights aside.
    lc,
    /// Weighted least connections: the fewest for its weight.
    wlc,
    /// Locality: a virtual address stays with its server until that is overloaded.
    lblc,
    /// Locality with replication: a virtual address has a set of servers that grows under load.
    lblcr,
    /// Hashes the virtual address over 256 buckets.
    dh,
    /// Hashes the client's address (flag sh-port: and port) over 256 buckets.
    sh,
    /// Shortest expected delay: the fewest active connections, the new one included, for its weight.
    sed,
    /// Never queue: an idle server if there is one, else as sed.
    nq,
    /// Failover: the available server of the highest weight takes everything.
    fo,
    /// Overflow: the highest weight takes as many active connections as its weight, then the next.
    ovf,
    /// Maglev: a consistent hash of the client's address (flag mh-port: and port).
    mh,
    /// Power of two choices: two servers drawn by weight, the less loaded one wins.
    twos,
    /// Ketama: a consistent hash of the client's address on a ring.
    conhash,
}
