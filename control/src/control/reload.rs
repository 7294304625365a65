//! Reload: the whole new file, or nothing of it.
#![forbid(unsafe_code)]

use std::time::Instant;

use tokio::sync::oneshot;

use super::{Control, Done, systemd};
use crate::api::Problem;
use crate::api::documents::Reloaded;
use crate::config::{self, Config};
use crate::model::{Changes, ServerChange, ServiceChange};
use crate::net::AddressProblem;

/// Where the answer goes.
type Back = oneshot::Sender<Result<Reloaded, Problem>>;

/// The reload under way, if any.
#[derive(Debug, Default)]
pub(super) struct Reload {
    job: Option<Job>,
    /// SIGHUP came while one was under way: the file may have changed after it was read.
    again: bool,
}

#[derive(Debug)]
struct Job {
    /// Who waits; nobody after SIGHUP.
    back: Option<Back>,
    /// What changes; `None` until the file is read.
    changes: Option<Changes>,
    /// Addresses that the kernel did not take.
    warnings: Vec<String>,
}

impl Control {
    /// Starts to read the file again, beside the loop.
    pub(super) fn reload_asked(&mut self, back: Option<Back>) {
        if self.reload.job.is_some() || !self.ready {
            match back {
                Some(back) => {
                    let busy = "a start or another reload is under way; try again";
                    let _ = back.send(Err(Problem::Refused(busy.to_owned()))); // may have gone
                }
                None => self.reload.again = true,
            }
            return;
        }
        tracing::info!("reading {} again", self.config_file.display());
        systemd::reloading();
        self.reload.job = Some(Job {
            back,
            changes: None,
            warnings: Vec::new(),
        });
        let (file, done) = (self.config_file.clone(), self.done.clone());
        tokio::task::spawn_blocking(move || {
            let loaded = config::load(&file).map_err(|report| report.to_string());
            let _ = done.blocking_send(Done::Loaded(Box::new(loaded))); // the loop may have ended
        });
    }

    /// The file was read: applies it, or refuses.
    pub(super) fn reload_loaded(&mut self, loaded: Result<Config, String>) {
        let file = self.config_file.display();
        let applied = loaded.and_then(|new| match config::restart_needed(&self.config, &new) {
            Some(reason) => Err(format!("{file}: {reason}")),
            None => match self.model.apply(&new) {
                Ok(changes) => Ok((new, changes)),
                Err(problem) => Err(format!("{file}: {problem}")),
            },
        });
        let (new, changes) = match applied {
            Ok(applied) => applied,
            Err(reason) => {
                tracing::error!("reload refused, nothing changed: {reason}");
                self.reload_over(Err(Problem::Refused(reason)));
                return;
            }
        };
        for surprise in config::surprises(&new) {
            tracing::warn!("reload: {surprise}");
        }
        self.config = new;
        tracing::info!("reload: {changes}");
        if changes.is_empty() {
            self.reload_over(Ok(reloaded(self.generation, &changes, Vec::new())));
            return;
        }
        for line in lines(&changes) {
            tracing::debug!("reload: {line}");
        }
        self.services
            .follow(&self.model, Some(&changes), &self.links);
        self.turnovers.follow(&mut self.model, Instant::now());
        self.blacklist.services_changed();
        if let Some(job) = &mut self.reload.job {
            job.changes = Some(changes);
        }
        self.changed = true;
    }

    /// The kernel did not take some addresses.
    pub(super) fn reload_problems(&mut self, problems: &[AddressProblem]) {
        if let Some(job) = &mut self.reload.job {
            job.warnings
                .extend(problems.iter().map(AddressProblem::to_string));
        }
    }

    /// Everything that had changed is rolled out.
    pub(super) fn reload_settled(&mut self) {
        let Some(job) = &mut self.reload.job else {
            return self.reload_once_more();
        };
        let Some(changes) = job.changes.take() else {
            return; // the file is still being read; this was another rollout
        };
        let warnings = std::mem::take(&mut job.warnings);
        tracing::info!(generation = self.generation, "reload applied");
        self.reload_over(Ok(reloaded(self.generation, &changes, warnings)));
    }

    fn reload_over(&mut self, outcome: Result<Reloaded, Problem>) {
        systemd::ready();
        if let Some(Job {
            back: Some(back), ..
        }) = self.reload.job.take()
        {
            let _ = back.send(outcome); // who asked may have gone
        }
        self.reload_once_more();
    }

    fn reload_once_more(&mut self) {
        if std::mem::take(&mut self.reload.again) {
            self.reload_asked(None);
        }
    }
}

fn reloaded(generation: u64, changes: &Changes, warnings: Vec<String>) -> Reloaded {
    Reloaded {
        generation,
        summary: changes.to_string(),
        changes: lines(changes),
        warnings,
    }
}

fn lines(changes: &Changes) -> Vec<String> {
    let services = changes.services.iter().map(ServiceChange::to_string);
    let servers = changes.servers.iter().map(ServerChange::to_string);
    services.chain(servers).collect()
}
