//! `weir drain`: a server out of service, and how many connections it still has.
#![forbid(unsafe_code)]

use std::time::Instant;

use super::{Control, services};
use crate::api::documents::Draining;
use crate::api::{DrainRequest, Problem};

impl Control {
    /// Drains a server, or takes that back, and says what it has left. To ask again changes
    /// nothing.
    pub(super) fn drain(&mut self, wanted: &DrainRequest) -> Result<Draining, Problem> {
        let DrainRequest {
            service,
            server: address,
            undo,
            reset_after,
        } = wanted;
        let drained = self.model.drain(service, *address, !undo);
        let drained = drained.map_err(Problem::BadRequest)?;
        if drained.changed {
            let now = Instant::now();
            match undo {
                true => {
                    tracing::info!("service {service:?}: real server {address} is back");
                    self.turnovers.end_after(drained.server, None, now);
                    self.turnovers.follow(&mut self.model, now);
                }
                false => {
                    tracing::info!("service {service:?}: real server {address} drains");
                    self.turnovers.end_after(drained.server, *reset_after, now);
                    self.turnovers.look(&mut self.model, now);
                }
            }
            self.changed = true;
        }
        let counted = services::counted(drained.server, &self.links);
        let spread = self.rollout.is_settled() && !self.changed;
        Ok(Draining {
            service: service.clone(),
            server: *address,
            active: counted.active,
            inactive: counted.inactive,
            safe: !undo && spread && counted.active + counted.inactive == 0,
        })
    }
}
