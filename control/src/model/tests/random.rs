//! Random reloads, connections and reaps, against a plain list of what must be there.
//!
//! Two workers hold snapshots of different age, as rings and bursts make them, and open
//! connections from the one they hold. A connection remembers by itself what it was opened on;
//! everything that it needs must be there for as long as it stands.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;
use weir_dataplane::Proto;
use weir_dataplane::conn::state::TimeoutChanges;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::forward::carrier::ClientAddress;
use weir_dataplane::sched::{Options, SchedulerKind};
use weir_dataplane::service::{Asked, Policy, ServerPolicy, Snapshot};

use super::*;
use crate::config::RealServer;

#[derive(Debug, Clone)]
enum Step {
    /// Reload to these services: for each, its servers and local addresses as bits.
    Apply(Vec<(u8, u8, u8)>),
    /// Send the current snapshot to both workers.
    Publish,
    /// This worker takes the next snapshot that it was sent.
    Take(u8),
    /// This worker opens a connection.
    Open(u8, Index),
    /// A connection ends.
    Close(Index),
    Reap,
}

fn step() -> impl Strategy<Value = Step> {
    let services = prop::collection::btree_map(0u8..3, (0u8..16, 1u8..16), 0..3);
    let services = services.prop_map(|m| m.into_iter().map(|(s, (r, l))| (s, r, l)).collect());
    prop_oneof![
        2 => services.prop_map(Step::Apply),
        3 => Just(Step::Publish),
        4 => (0u8..2).prop_map(Step::Take),
        4 => (0u8..2, any::<Index>()).prop_map(|(w, i)| Step::Open(w, i)),
        4 => any::<Index>().prop_map(Step::Close),
        3 => Just(Step::Reap),
    ]
}

fn bits(set: u8) -> impl Iterator<Item = u8> {
    (0..8).filter(move |bit| set & 1 << bit != 0)
}

/// Two of the three services share a VIP; servers and local addresses are shared by all.
fn service(number: u8, servers: u8, locals: u8) -> config::Service {
    let server = |n| RealServer {
        name: None,
        address: SocketAddr::new(IpAddr::from([10, 1, 0, 10 + n]), 80),
        weight: u16::from(n),
        forward: ForwardMode::fullnat,
        tunnel: None,
        policy: ServerPolicy::default(),
    };
    config::Service {
        name: format!("s{number}"),
        key: ServiceKey::Address {
            proto: Proto::Tcp,
            vip: IpAddr::from([10, 0, 0, 10 + number / 2]),
            port: 80 + u16::from(number),
        },
        scheduler: SchedulerKind::rr,
        options: Options::default(),
        forward: ForwardMode::fullnat,
        local_addresses: bits(locals)
            .map(|n| IpAddr::from([10, 1, 0, 100 + n]))
            .collect(),
        port: None,
        client_address: ClientAddress::none,
        timeouts: TimeoutChanges::default(),
        turnover: config::Turnover::default(),
        policy: Policy::default(),
        servers: bits(servers).map(server).collect(),
    }
}

/// What a connection was opened on.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Conn {
    worker: u8,
    id: ServerId,
    key: ServiceKey,
    server: SocketAddr,
    local: IpAddr,
}

type Numbers = BTreeMap<(ServiceKey, SocketAddr), ServerId>;

struct World {
    model: Model,
    base: Config,
    config: Config,
    /// Per worker: what it holds, then what waits on its ring.
    workers: [Vec<Arc<Snapshot>>; 2],
    conns: Vec<Conn>,
    numbers: Numbers,
}

impl World {
    fn new() -> World {
        let mut model = Model::default();
        let base = config("");
        model.apply(&base).unwrap();
        let first = model.snapshot();
        World {
            model,
            config: base.clone(),
            base,
            workers: [vec![first.clone()], vec![first]],
            conns: Vec::new(),
            numbers: Numbers::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Apply(services) => {
                self.config = self.base.clone();
                let services = services.iter().map(|(n, r, l)| service(*n, *r, *l));
                self.config.services = services.collect();
                self.model.apply(&self.config).unwrap();
            }
            Step::Publish => {
                let snapshot = self.model.snapshot();
                for worker in &mut self.workers {
                    if worker.last().unwrap().generation != snapshot.generation {
                        worker.push(snapshot.clone());
                    }
                }
            }
            Step::Take(n) => {
                let worker = &mut self.workers[usize::from(*n)];
                if worker.len() > 1 {
                    worker.remove(0);
                }
            }
            Step::Open(n, which) => {
                let snapshot = &self.workers[usize::from(*n)][0];
                let offers: Vec<Conn> = snapshot
                    .services()
                    .flat_map(|service| {
                        let locals = service.local_addresses.v4.iter();
                        let pairs = service.servers.iter().zip(locals.cycle());
                        pairs.map(|(candidate, local)| Conn {
                            worker: *n,
                            id: candidate.id,
                            key: service.key,
                            server: snapshot.server(candidate.id).unwrap().address,
                            local: (*local).into(),
                        })
                    })
                    .collect();
                if !offers.is_empty() {
                    self.conns.push(offers[which.index(offers.len())]);
                }
            }
            Step::Close(which) => {
                if !self.conns.is_empty() {
                    self.conns.swap_remove(which.index(self.conns.len()));
                }
            }
            Step::Reap => self.reap(),
        }
    }

    fn reap(&mut self) {
        let World {
            model,
            conns,
            workers,
            ..
        } = self;
        let oldest = workers.iter().map(|w| w[0].generation).min().unwrap();
        let standing = |id| conns.iter().filter(|c| c.id == id).count() as u64;
        let removed = |model: &Model| {
            let servers = model.services().flat_map(|e| &e.servers);
            let removed = servers.filter_map(|s| Some((s.id, s.removed_in?)));
            removed.collect::<Vec<_>>()
        };
        let stays = |(id, removed_in): &(ServerId, u64)| standing(*id) > 0 || *removed_in > oldest;
        let expected: Vec<_> = removed(model).into_iter().filter(stays).collect();
        model.reap(oldest, standing);
        assert_eq!(
            removed(model),
            expected,
            "removed servers stay with their connections only"
        );
        assert!(!model.reap(oldest, standing), "once is enough");
    }

    fn check(&mut self) {
        let numbers: Numbers = self
            .model
            .services()
            .flat_map(|e| e.servers.iter().map(|s| ((e.key, s.address), s.id)))
            .collect();
        for (server, id) in &numbers {
            if let Some(before) = self.numbers.get(server) {
                assert_eq!(before, id, "{server:?} has another number");
            }
        }
        let different: HashSet<ServerId> = numbers.values().copied().collect();
        assert_eq!(
            different.len(),
            numbers.len(),
            "two servers have one number"
        );
        self.numbers = numbers;

        let addresses: HashSet<IpAddr> = self.model.addresses().iter().map(|a| a.addr).collect();
        let snapshot = self.model.snapshot();
        for conn in &self.conns {
            assert_eq!(self.numbers.get(&(conn.key, conn.server)), Some(&conn.id));
            assert!(addresses.contains(&vip_of(&conn.key)) && addresses.contains(&conn.local));
            // What its worker looks at, and is going to.
            for held in self.workers[usize::from(conn.worker)]
                .iter()
                .chain([&snapshot])
            {
                assert_eq!(
                    held.server(conn.id).expect("its server").address,
                    conn.server
                );
                assert!(held.address_use(vip_of(&conn.key)).vip);
                assert!(held.address_use(conn.local).local);
            }
        }
        self.check_snapshot(&snapshot, &addresses);
    }

    /// The snapshot says what the configuration and the model say, and nothing else.
    fn check_snapshot(&self, snapshot: &Snapshot, addresses: &HashSet<IpAddr>) {
        assert_eq!(snapshot.services().count(), self.config.services.len());
        for config in &self.config.services {
            let service = snapshot
                .lookup(&asked(&config.key))
                .expect("a configured service");
            assert_eq!(*service.name, *config.name);
            assert!(
                service
                    .local_addresses
                    .iter()
                    .eq(config.local_addresses.iter().copied())
            );
            let server =
                |c: &service::Candidate| (snapshot.server(c.id).unwrap().address, c.weight as u16);
            let found: Vec<_> = service.servers.iter().map(server).collect();
            let wanted: Vec<_> = config
                .servers
                .iter()
                .map(|s| (s.address, s.weight))
                .collect();
            assert_eq!(found, wanted);
        }
        let found: Numbers = snapshot
            .servers()
            .map(|s| {
                let entry = self.model.services().find(|e| e.id == s.service).unwrap();
                ((entry.key, s.address), s.id)
            })
            .collect();
        assert_eq!(found, self.numbers);
        for last in 0..=255 {
            for addr in [
                IpAddr::from([10, 0, 0, last]),
                IpAddr::from([10, 1, 0, last]),
            ] {
                let usage = snapshot.address_use(addr);
                assert_eq!(
                    usage.vip || usage.local,
                    addresses.contains(&addr),
                    "{addr}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn numbers_addresses_and_snapshots_outlive_connections(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.check();
        }
        // Everything ends: nothing removed is left.
        world.conns.clear();
        world.step(&Step::Publish);
        for n in [0, 1] {
            while world.workers[n].len() > 1 {
                world.step(&Step::Take(n as u8));
            }
        }
        world.step(&Step::Reap);
        prop_assert!(!world.model.has_removed());
        world.check();
        let standing: usize = world.config.services.iter().map(|s| s.servers.len()).sum();
        prop_assert_eq!(world.numbers.len(), standing);
    }
}

fn vip_of(key: &ServiceKey) -> IpAddr {
    key.vips().unwrap().first()
}

/// What a client's packet for this service says.
pub(super) fn asked(key: &ServiceKey) -> Asked {
    Asked {
        proto: key.proto().unwrap(),
        source: ip("192.0.2.1"),
        destination: SocketAddr::new(vip_of(key), key.port().unwrap_or(1)),
        port: weir_dataplane::PortId(0),
    }
}
