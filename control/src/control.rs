//! The control loop: one thread that owns the service model, and everything said to workers.
//!
//! Inputs: requests of the API, news of the kernel's network, signals, and the workers' event
//! rings. The rings cannot wake anybody (a worker makes no system call), so they are looked at
//! every [`TICK`], and every [`FAST_TICK`] while answers are due. After each input comes one
//! [`Control::turn`]: events in, commands out, the rollout one step on. Nothing here waits:
//! what takes time runs as a task of its own and comes back as [`Done`].
//!
//! ```text
//! control.rs      the loop                       reload.rs     the file again, all or nothing
//! link.rs         one worker's rings             rollout.rs    addresses and services, in order
//! neighbours.rs   an index for each neighbour    listing.rs    listings, page by page
//! ports.rs        cards and twins                services.rs   services for listings
//! kernel.rs       asking the kernel              counters.rs   every counter by name
//! pulse.rs        do all workers turn?           systemd.rs    what systemd is told
//! answers.rs      what the API is answered     turnover.rs  slow starts and late ends
//! blacklist.rs    who is shut out
//! drain.rs        a server out of service
//! ```
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use weir_dataplane::defense::blacklist::Blacklist;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::route::{Fib, Hop, Route};

use crate::api::Request;
use crate::config::Config;
use crate::model::{Model, OutOfIds};
use crate::net::{AddressProblem, NetEvent, TwinThreadCounters};

mod answers;
mod blacklist;
pub(crate) mod counters;
mod drain;
mod floods;
pub(crate) mod kernel;
pub(crate) mod link;
mod listing;
pub(crate) mod members;
mod neighbours;
pub(crate) mod ports;
mod pulse;
mod reload;
mod rollout;
mod services;
pub(crate) mod systemd;
#[cfg(test)]
mod tests;
mod turnover;

use blacklist::BlacklistBook;
use floods::{Floods, News};
use kernel::Kernel;
use link::{LinkEvent, WorkerLink};
use listing::{Listings, OfConnections, OfTemplates};
use neighbours::NeighbourBook;
use ports::Port;
use pulse::Pulse;
use reload::Reload;
use rollout::{Rollout, Step};
use services::ServiceBook;
use turnover::Turnovers;

/// How often the workers' rings are looked at: the longest that the first packet to an unknown
/// neighbour waits before the kernel is asked.
const TICK: Duration = Duration::from_millis(5);
/// The same while a worker owes an answer or has just asked for a neighbour; for
/// [`FAST_FOR`] at most after the last such event.
const FAST_TICK: Duration = Duration::from_millis(1);
/// How long after a question of a worker more are expected.
const FAST_FOR: Duration = Duration::from_millis(100);
/// Links, tombstones and the like.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How often workers' turns are compared when systemd's watchdog does not say.
const PULSE: Duration = Duration::from_secs(5);

/// What the daemon was assembled of, for the control loop.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The configuration file, to be read again on reload.
    pub(crate) config_file: PathBuf,
    /// What was read from it at the start.
    pub(crate) config: Config,
    /// The workers, by number.
    pub(crate) workers: Vec<Worker>,
    /// The ports, by index.
    pub(crate) ports: Vec<Port>,
    /// The twin thread's counts, where there is one.
    pub(crate) twins: Option<Arc<TwinThreadCounters>>,
    /// The way to the kernel.
    pub(crate) kernel: Kernel,
    /// Unix time when the workers' ticks began, seconds.
    pub(crate) ticks_began_s: u32,
}

/// A worker as control knows it.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Its rings.
    pub(crate) link: WorkerLink,
    /// The processor it is pinned to.
    pub(crate) cpu: usize,
    /// What it does when there is nothing to do.
    pub(crate) idle: &'static str,
}

/// What wakes the control loop.
#[derive(Debug)]
pub(crate) struct Inputs {
    /// Requests of the API.
    pub(crate) requests: mpsc::Receiver<Request>,
    /// News of the kernel's network.
    pub(crate) net: mpsc::Receiver<NetEvent>,
    /// SIGHUP: reload.
    pub(crate) reload: mpsc::Receiver<()>,
    /// SIGTERM or SIGINT: stop.
    pub(crate) stop: oneshot::Receiver<()>,
}

/// What a task of the loop's own has finished.
#[derive(Debug)]
enum Done {
    /// The configuration file was read.
    Loaded(Box<Result<Config, String>>),
    /// The blacklist was compiled.
    Blacklist(Arc<Blacklist>),
    /// The kernel holds the addresses, but for these problems.
    AddressesSet(Vec<AddressProblem>),
}

/// The control loop's state.
#[derive(Debug)]
pub(crate) struct Control {
    config_file: PathBuf,
    config: Config,
    model: Model,
    links: Vec<WorkerLink>,
    /// CPU and idle mode, by worker.
    placement: Vec<(usize, &'static str)>,
    ports: Vec<Port>,
    twins: Option<Arc<TwinThreadCounters>>,
    kernel: Kernel,
    services: ServiceBook,
    /// The generation that was published last; 0 before the first.
    generation: u64,
    /// The addresses of all servers that were published last.
    servers: Vec<IpAddr>,
    neighbours: NeighbourBook,
    /// Neighbours found no index: said once until there is room again.
    neighbours_full: bool,
    routes: Vec<Route>,
    /// The epoch of the last FIB. It wraps: a connection would have to sleep through exactly
    /// 65,536 changes of routes to keep a stale next hop.
    epoch: u16,
    listings: Listings<OfConnections>,
    template_listings: Listings<OfTemplates>,
    rollout: Rollout,
    /// The model changed and no rollout has taken it up.
    changed: bool,
    reload: Reload,
    blacklist: BlacklistBook,
    turnovers: Turnovers,
    floods: Floods,
    pulse: Pulse,
    started: Instant,
    /// Everything was rolled out once.
    ready: bool,
    fast_until: Instant,
    done: mpsc::Sender<Done>,
    finished: mpsc::Receiver<Done>,
}

impl Control {
    /// A loop that begins with a rollout of `parts.config`; the workers hold no services yet.
    ///
    /// # Errors
    /// More real servers than there are numbers for.
    pub(crate) fn new(parts: Parts) -> Result<Control, OutOfIds> {
        let mut model = Model::default();
        model.ticks_began(parts.ticks_began_s);
        model.apply(&parts.config)?;
        let placement = parts.workers.iter().map(|w| (w.cpu, w.idle)).collect();
        let links: Vec<WorkerLink> = parts.workers.into_iter().map(|w| w.link).collect();
        let (done, finished) = mpsc::channel(8);
        let now = Instant::now();
        let mut services = ServiceBook::default();
        services.follow(&model, None, &links);
        let turnovers = Turnovers::begin(&mut model);
        Ok(Control {
            turnovers,
            floods: Floods::default(),
            config_file: parts.config_file,
            config: parts.config,
            model,
            listings: Listings::new(links.len()),
            template_listings: Listings::new(links.len()),
            links,
            placement,
            ports: parts.ports,
            twins: parts.twins,
            kernel: parts.kernel,
            services,
            generation: 0,
            servers: Vec::new(),
            neighbours: NeighbourBook::default(),
            neighbours_full: false,
            routes: Vec::new(),
            epoch: 0,
            rollout: Rollout::default(),
            changed: true,
            reload: Reload::default(),
            blacklist: BlacklistBook::default(),
            pulse: Pulse::default(),
            started: now,
            ready: false,
            fast_until: now,
            done,
            finished,
        })
    }

    /// Runs until told to stop. Workers and addresses are as they were: taking them down is
    /// the caller's.
    ///
    /// # Errors
    /// The mirror of the kernel's network ended: without routes and neighbours there is no
    /// going on.
    pub(crate) async fn run(&mut self, inputs: &mut Inputs) -> anyhow::Result<()> {
        let watchdog = systemd::watchdog();
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        let pulse_every = watchdog.unwrap_or(PULSE);
        let mut pulse = tokio::time::interval_at(
            tokio::time::Instant::now() + pulse_every, // READY=1 goes before WATCHDOG=1
            pulse_every,
        );
        for interval in [&mut housekeeping, &mut pulse] {
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        }
        loop {
            self.turn();
            let pause = self.pause();
            tokio::select! {
                _ = &mut inputs.stop => return Ok(()),
                Some(request) = inputs.requests.recv() => self.request(request),
                event = inputs.net.recv() => match event {
                    Some(event) => self.net_event(event),
                    None => anyhow::bail!("the kernel's network can be followed no longer"),
                },
                Some(()) = inputs.reload.recv() => self.reload_asked(None),
                Some(done) = self.finished.recv() => self.done(done),
                _ = housekeeping.tick() => self.keep_house(),
                _ = pulse.tick() => self.feel_pulse(watchdog.is_some()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Ends every worker; see [`Control::turn`] for when they know.
    pub(crate) fn stop_workers(&mut self) {
        for link in &mut self.links {
            link.post_stop();
        }
    }

    /// Events in, commands out, the rollout one step on.
    pub(crate) fn turn(&mut self) {
        for worker in 0..self.links.len() {
            while let Some(event) = self.links[worker].next_event() {
                match event {
                    LinkEvent::Resolve { port, addr } => self.resolve(worker, Hop { port, addr }),
                    LinkEvent::Conns(page) => self.listings.take(page, &self.services),
                    LinkEvent::Templates(page) => {
                        self.template_listings.take(page, &self.services);
                    }
                    LinkEvent::SynProxy { service, on } => {
                        let core = self.links[worker].core();
                        let news = self.floods.heard(core, service, on, Instant::now());
                        self.flood_news(news);
                    }
                }
            }
        }
        for link in &mut self.links {
            if let Some(page) = self.listings.page_for(link.core()) {
                link.post_page(page);
            }
            if let Some(page) = self.template_listings.page_for(link.core()) {
                link.post_template_page(page);
            }
            link.flush();
        }
        self.turn_blacklist();
        if self.rollout.is_settled() && self.changed {
            self.changed = false;
            let addresses = self.model.addresses();
            let step = self.rollout.start(self.model.snapshot(), addresses);
            self.step(step);
        } else if let Some(step) = self.rollout.workers_hold(self.held_generation()) {
            self.step(step);
        }
    }

    /// How long nothing may happen before the next turn.
    fn pause(&self) -> Duration {
        let owed = self.listings.is_busy()
            || self.template_listings.is_busy()
            || self.owes_blacklist()
            || !self.rollout.is_settled()
            || self.links.iter().any(WorkerLink::is_behind);
        if owed || Instant::now() < self.fast_until {
            FAST_TICK
        } else {
            TICK
        }
    }

    /// The generation that every worker holds at least.
    fn held_generation(&self) -> u64 {
        let held = self.links.iter().map(WorkerLink::generation);
        held.min().unwrap_or(u64::MAX)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::SetAddresses(addresses) => {
                let answer = self.kernel.set_addresses(addresses);
                let done = self.done.clone();
                tokio::spawn(async move {
                    let problems = answer.await.unwrap_or_default();
                    let _ = done.send(Done::AddressesSet(problems)).await; // the loop may have ended
                });
            }
            Step::Spread(snapshot) => {
                tracing::debug!(generation = snapshot.generation, "publishing services");
                self.generation = snapshot.generation;
                // A pool's addresses are the director's own, with no hop to them.
                let servers = snapshot.servers();
                let servers = servers.filter(|s| s.forward != ForwardMode::snat);
                self.servers = servers.map(|s| s.address.ip()).collect();
                // All counters before the first worker: it may tell another one of a new server
                // that has yet to take these services.
                for link in &self.links {
                    link.counters().reserve(&snapshot);
                }
                for link in &mut self.links {
                    link.post_snapshot(Arc::clone(&snapshot));
                }
                self.keep_servers();
            }
            Step::Settled => self.settled(),
        }
    }

    /// A rollout is complete.
    fn settled(&mut self) {
        tracing::debug!(
            generation = self.generation,
            "every worker holds the services"
        );
        if !self.ready {
            self.ready = true;
            self.started = Instant::now();
            let services = self.config.services.len();
            tracing::info!(services, workers = self.links.len(), "weir is ready");
            systemd::ready();
        }
        if !self.changed {
            self.reload_settled();
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Blacklist(compiled) => self.blacklist_compiled(compiled),
            Done::Loaded(loaded) => self.reload_loaded(*loaded),
            Done::AddressesSet(problems) => {
                for problem in &problems {
                    tracing::error!("{problem}");
                }
                self.reload_problems(&problems);
                if let Some(step) = self.rollout.addresses_set() {
                    self.step(step);
                }
            }
        }
    }

    /// A worker asks for a MAC address. It may have asked before the answer to another's
    /// question reached it.
    fn resolve(&mut self, worker: usize, hop: Hop) {
        self.fast_until = Instant::now() + FAST_FOR;
        match self.neighbours.find(hop) {
            Some(update) => self.links[worker].post_neighbour(update),
            None => self.kernel.resolve(hop),
        }
    }

    fn flood_news(&self, news: impl IntoIterator<Item = News>) {
        for news in news {
            let (News::Began(service) | News::Ended(service, _)) = news;
            let entry = self.model.services().find(|s| s.id == service);
            floods::log(news, entry.map_or("removed", |s| &s.name));
        }
    }

    fn net_event(&mut self, event: NetEvent) {
        match event {
            NetEvent::Routes(routes) => {
                tracing::debug!(routes = routes.len(), "the kernel's routes changed");
                self.routes = routes;
                self.publish_fib();
                self.keep_servers();
            }
            NetEvent::Neighbour { port, addr, mac } => self.neighbour(Hop { port, addr }, mac),
            NetEvent::Link {
                port, mac, mtu, up, ..
            } => {
                let Some(at) = self.ports.iter_mut().find(|p| p.id == port) else {
                    return;
                };
                if !up {
                    tracing::warn!(
                        port = at.name,
                        "the twin is down: ip link set {} up",
                        at.name
                    );
                }
                if let Some(update) = at.follow_twin(mac, mtu) {
                    for link in &mut self.links {
                        link.post_port(update);
                    }
                }
            }
        }
    }

    fn neighbour(&mut self, hop: Hop, mac: Option<weir_dataplane::Mac>) {
        let learned = match self.neighbours.learn(hop, mac) {
            Ok(learned) => learned,
            Err(full) => {
                if !std::mem::replace(&mut self.neighbours_full, true) {
                    tracing::warn!("{full}");
                }
                return;
            }
        };
        self.neighbours_full = false;
        let Some(learned) = learned else { return };
        if learned.reused {
            self.publish_fib();
        }
        for link in &mut self.links {
            link.post_neighbour(learned.update);
        }
    }

    /// A new epoch: connections look their next hop up again.
    fn publish_fib(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        let fib = Arc::new(Fib::new(self.epoch, &self.routes));
        for link in &mut self.links {
            link.post_fib(Arc::clone(&fib));
        }
    }

    /// Has the kernel look after the next hops of all servers.
    fn keep_servers(&self) {
        let fib = Fib::new(self.epoch, &self.routes);
        let ways = self.servers.iter().filter_map(|addr| fib.lookup(*addr));
        self.kernel.keep(ways.map(|way| way.hop).collect());
    }

    /// Makes the twins' carrier what the cards' links are. Where a bond goes on over another
    /// member, the switches are told by what they listen to, an announcement of every address.
    pub(crate) fn follow_links(&mut self) {
        let mut moved = false;
        for port in &mut self.ports {
            moved |= port.follow_link();
        }
        if moved {
            // Of all ports: a bond's VLANs are ports of their own.
            self.ports
                .iter()
                .for_each(|port| self.kernel.announce(port.id));
        }
    }

    fn keep_house(&mut self) {
        self.follow_links();
        self.changed |= self.turnovers.look(&mut self.model, Instant::now());
        let news = self.floods.look(Instant::now());
        self.flood_news(news);
        if !self.model.has_removed() {
            return;
        }
        // First which services workers may still look at, then what their connections are.
        let oldest = self.held_generation();
        let links = &self.links;
        let gone = self.model.reap(oldest, |server| {
            let counted = services::counted(server, links);
            counted.active.wrapping_add(counted.inactive)
        });
        if gone {
            self.services.follow(&self.model, None, &self.links);
            self.blacklist.services_changed();
            self.changed = true;
        }
    }

    /// Looks whether all workers turn; `watched`: systemd wants to know.
    fn feel_pulse(&mut self, watched: bool) {
        let stuck = self.pulse.stuck(&self.links);
        for core in &stuck {
            tracing::error!("worker {} does not turn any more", core.0);
        }
        if stuck.is_empty() && watched {
            systemd::alive();
        }
    }
}
