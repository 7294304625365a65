//! Servers on their way in (slow start) and out (drain, dismissal), as far as no clock is needed:
//! when things happen is [`crate::control`]'s.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::Duration;

use weir_dataplane::ServerId;
use weir_dataplane::sched::SchedulerKind;
use weir_dataplane::service::Candidate;

use super::Model;
use super::entry::ServerEntry;
use crate::config::{Removal, Turnover};

/// Steps of a slow start: at the last one a server has its whole weight.
pub(crate) const FULL: u8 = 16;

/// How far a server is on its way in or out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passage {
    /// Sixteenths of its weight that it has now, 1 to [`FULL`].
    pub(crate) step: u8,
    /// It came, and nobody has looked yet whether it is to start slowly.
    pub(crate) came: bool,
    /// The operator drains it: it has no weight, whatever the configuration says.
    pub(crate) drained: bool,
    /// Its connections are to end now.
    pub(crate) dismissed: bool,
}

impl Passage {
    /// A server that comes, or comes back.
    pub(super) fn comes() -> Passage {
        Passage {
            step: FULL,
            came: true,
            drained: false,
            dismissed: false,
        }
    }
}

/// A server that the operator drains, or no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drain {
    /// Which one.
    pub(crate) server: ServerId,
    /// Whether anything changed by it.
    pub(crate) changed: bool,
}

impl Model {
    /// Drains the server at `address` of the service `name`, or takes that back.
    ///
    /// # Errors
    /// There is no such server; the text says which there are.
    pub(crate) fn drain(
        &mut self,
        name: &str,
        address: SocketAddr,
        drained: bool,
    ) -> Result<Drain, String> {
        let mut standing = self.services.values_mut().filter(|e| !e.removed);
        let Some(entry) = standing.find(|e| &*e.name == name) else {
            let names = self.services.values().filter(|e| !e.removed);
            let names: Vec<_> = names.map(|e| e.name.to_string()).collect();
            return Err(format!(
                "no service {name:?}; there are: {}",
                names.join(", ")
            ));
        };
        let mut servers = entry.servers.iter_mut();
        let Some(server) = servers.find(|s| s.address == address) else {
            let all: Vec<_> = entry
                .servers
                .iter()
                .map(|s| s.address.to_string())
                .collect();
            let all = all.join(", ");
            return Err(format!(
                "service {name:?} has no real server {address}; it has: {all}"
            ));
        };
        let passage = &mut server.passage;
        let changed = passage.drained != drained || passage.dismissed && !drained;
        if changed {
            *passage = match drained {
                true => Passage {
                    drained,
                    came: false,
                    ..*passage
                },
                false => Passage::comes(),
            };
        }
        let id = server.id;
        if changed {
            self.passed(id);
        }
        Ok(Drain {
            server: id,
            changed,
        })
    }

    /// Has the connections of a server end. Whether that is new.
    pub(crate) fn dismiss(&mut self, id: ServerId) -> bool {
        self.pass(id, |passage| passage.dismissed = true)
    }

    /// Gives a server so many sixteenths of its weight. Whether that is new.
    pub(crate) fn ramp(&mut self, id: ServerId, step: u8) -> bool {
        self.pass(id, |passage| passage.step = step.clamp(1, FULL))
    }

    /// Whom to start slowly: servers that came since the last call to a service that starts its
    /// servers slowly and has others, and how slowly.
    pub(crate) fn came(&mut self) -> Vec<(ServerId, Duration)> {
        let mut came = Vec::new();
        for entry in self.services.values_mut() {
            let slow_start = entry.turnover.slow_start;
            let works =
                |s: &ServerEntry| s.removed_in.is_none() && s.weight > 0 && !s.passage.drained;
            // All at once are equals among themselves.
            let others = entry.servers.iter().any(|s| works(s) && !s.passage.came);
            for server in &mut entry.servers {
                let starts = std::mem::take(&mut server.passage.came) && server.weight > 0;
                if starts && others && !slow_start.is_zero() && server.removed_in.is_none() {
                    came.push((server.id, slow_start));
                }
            }
        }
        came
    }

    /// Removed servers whose connections are to end some time after: when, from now.
    pub(crate) fn leaving(&self) -> impl Iterator<Item = (ServerId, Duration)> {
        self.services.values().flat_map(|entry| {
            let after = match entry.turnover.removal {
                Removal::After(after) => Some(after),
                Removal::Keep => None,
            };
            let removed = |s: &&ServerEntry| s.removed_in.is_some() && !s.passage.dismissed;
            let removed = entry.servers.iter().filter(removed);
            removed.filter_map(move |s| Some((s.id, after?)))
        })
    }

    fn pass(&mut self, id: ServerId, change: impl Fn(&mut Passage)) -> bool {
        let mut servers = self.services.values_mut().flat_map(|e| &mut e.servers);
        let Some(server) = servers.find(|s| s.id == id) else {
            return false; // it is gone
        };
        let before = server.passage;
        change(&mut server.passage);
        let changed = server.passage != before;
        if changed {
            self.passed(id);
        }
        changed
    }

    /// The next snapshot shows how far server `id` is.
    fn passed(&mut self, id: ServerId) {
        let has = |e: &&mut super::ServiceEntry| e.servers.iter().any(|s| s.id == id);
        let Some(entry) = self.services.values_mut().find(has) else {
            return;
        };
        entry.published = None;
        if let Some(server) = entry.servers.iter().find(|s| s.id == id) {
            self.publisher.put_server(entry.record(server));
        }
        self.publisher.changed();
    }
}

/// The standing servers of a service as its scheduler is to see them. While one of them starts
/// slowly, all weights are sixteen times as large, so that there are steps between 0 and 1.
pub(super) fn candidates<'a>(
    scheduler: SchedulerKind,
    standing: impl Iterator<Item = &'a ServerEntry>,
) -> Vec<Candidate> {
    let standing: Vec<_> = standing.collect();
    let starts = |s: &&ServerEntry| s.passage.step < FULL;
    let finely = scheduler.is_proportional() && standing.iter().any(starts);
    let candidate = |s: &&ServerEntry| {
        let weight = match (s.passage.drained, finely) {
            (true, _) => 0,
            (false, true) => u32::from(s.weight) * u32::from(s.passage.step),
            (false, false) => s.weight.into(),
        };
        Candidate {
            weight,
            ..Candidate::new(s.id, s.address, s.weight.into())
        }
    };
    standing.iter().map(candidate).collect()
}

/// In what two turnovers differ, for people.
pub(super) fn differences(before: Turnover, after: Turnover) -> Vec<String> {
    let mut keys = Vec::new();
    if before.slow_start != after.slow_start {
        let show = |time: Duration| match time.is_zero() {
            true => "none".to_owned(),
            false => format!("{time:?}"),
        };
        let (old, new) = (show(before.slow_start), show(after.slow_start));
        keys.push(format!("slow_start {old} to {new}"));
    }
    if before.removal != after.removal {
        let show = |removal| match removal {
            Removal::Keep => "keep".to_owned(),
            Removal::After(Duration::ZERO) => "now".to_owned(),
            Removal::After(after) => format!("{after:?}"),
        };
        let (old, new) = (show(before.removal), show(after.removal));
        keys.push(format!("removal {old} to {new}"));
    }
    keys
}
