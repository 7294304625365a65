//! When servers come and go: slow starts, and the end of what removed or drained servers still
//! have. Looked at once a second.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use weir_dataplane::ServerId;

use crate::model::{FULL, Model};

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Turnovers {
    /// Servers that start slowly: since when, and how slowly.
    starts: HashMap<ServerId, (Instant, Duration)>,
    /// Servers whose connections are to end, and when.
    ends: HashMap<ServerId, Instant>,
}

impl Turnovers {
    /// The servers that Weir starts with are equals: none starts slowly.
    pub(super) fn begin(model: &mut Model) -> Turnovers {
        drop(model.came());
        Turnovers::default()
    }

    /// The model was edited. Whether workers have to be told.
    pub(super) fn follow(&mut self, model: &mut Model, now: Instant) -> bool {
        for (id, slow_start) in model.came() {
            self.ends.remove(&id);
            self.starts.insert(id, (now, slow_start));
        }
        for (id, after) in model.leaving() {
            self.starts.remove(&id);
            self.ends.entry(id).or_insert(now + after);
        }
        self.look(model, now)
    }

    /// Has the connections of `id` end after some time, or never.
    pub(super) fn end_after(&mut self, id: ServerId, after: Option<Duration>, now: Instant) {
        self.starts.remove(&id);
        match after {
            Some(after) => drop(self.ends.insert(id, now + after)),
            None => drop(self.ends.remove(&id)),
        }
    }

    /// What is due at `now`. Whether workers have to be told.
    pub(super) fn look(&mut self, model: &mut Model, now: Instant) -> bool {
        let mut changed = false;
        self.starts.retain(|&id, &mut (since, slow_start)| {
            let elapsed = now.saturating_duration_since(since);
            let step = step(elapsed, slow_start);
            changed |= model.ramp(id, step);
            step < FULL
        });
        self.ends.retain(|&id, &mut due| {
            if due > now {
                return true;
            }
            changed |= model.dismiss(id);
            false
        });
        changed
    }
}

/// How many sixteenths of its weight a server has that has been there for `elapsed`.
fn step(elapsed: Duration, slow_start: Duration) -> u8 {
    let passed = elapsed.as_millis() * u128::from(FULL) / slow_start.as_millis().max(1);
    passed.clamp(1, FULL.into()) as u8
}

#[cfg(test)]
mod tests;
