//! What the director of a storm serves: drawn from the seed, and changed by an operator meanwhile.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use weir_dataplane::conn::state::{Rules, State, Timeouts};
use weir_dataplane::defense::syn_proxy::{Mode, SynProxy};
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::sched::{Options, Scheduler, SchedulerKind};
use weir_dataplane::service::{
    Candidate, Engine, Excess, Limits, Persistence, Policy, Rates, Server, ServerPolicy, Service,
    ServiceKey, Snapshot, SnapshotBuilder, Thresholds,
};
use weir_dataplane::{Proto, ServerId, ServiceId, Tick};

use crate::Rng;
use crate::common::{LIP, VIP, server_addr};

/// Real servers of each service: hosts 11, 12 and 13.
pub(crate) const SERVERS: usize = 3;
pub(crate) const FIRST_HOST: u8 = 11;

/// A real server of one service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Real {
    pub(crate) weight: u32,
    /// It is in the configuration.
    pub(crate) listed: bool,
    /// What it has left is reset.
    pub(crate) dismissed: bool,
}

/// A service.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) proto: Proto,
    pub(crate) port: u16,
    pub(crate) mode: ForwardMode,
    pub(crate) scheduler: SchedulerKind,
    pub(crate) policy: Policy,
    pub(crate) upper: u32,
    pub(crate) servers: [Real; SERVERS],
}

/// All of them, and the rules that change.
#[derive(Debug, Clone)]
pub(crate) struct Plans {
    pub(crate) services: Vec<Plan>,
    pub(crate) rules: Rules,
    pub(crate) timeouts: Timeouts,
    generation: u64,
}

impl Plan {
    fn draw(rng: &mut Rng, n: u16) -> Plan {
        let proto = [Proto::Tcp, Proto::Tcp, Proto::Udp][rng.below(3)];
        let modes = [ForwardMode::fullnat, ForwardMode::nat, ForwardMode::dr];
        let mode = modes[rng.below(3)];
        let mut policy = Policy::default();
        if !rng.one_in(3) {
            policy.persistence = Some(Persistence {
                ticks: Tick::seconds(5 + rng.below(30) as u32),
                prefix: [24, 28, 32][rng.below(3)],
                engine: Engine::Address,
            });
        }
        policy.one_packet = proto == Proto::Udp && rng.one_in(3);
        if proto == Proto::Tcp && mode != ForwardMode::dr && rng.one_in(2) {
            policy.syn_proxy = SynProxy {
                mode: Mode::Always,
                ..SynProxy::default()
            };
        }
        if rng.one_in(2) {
            policy.limits = Limits {
                service: Rates {
                    connections: [0, 10, 30][rng.below(3)],
                    connections_per_second: [0, 20][rng.below(2)],
                    ..Rates::default()
                },
                client: Rates {
                    connections: [0, 4][rng.below(2)],
                    packets_per_second: [0, 40][rng.below(2)],
                    ..Rates::default()
                },
                excess: [Excess::Drop, Excess::Reset][rng.below(2)],
                ..Limits::default()
            };
        }
        let port = 100 + n;
        let kinds = SchedulerKind::ALL;
        let real = || Real {
            weight: 1,
            listed: true,
            dismissed: false,
        };
        Plan {
            proto,
            port,
            mode,
            scheduler: kinds[rng.below(kinds.len())],
            policy,
            upper: [0, 4, 15][rng.below(3)],
            servers: [real(), real(), real()],
        }
    }

    /// Whether a template may go on naming this host.
    pub(crate) fn keeps(&self, host: u8, rules: &Rules) -> bool {
        let real = self.servers[usize::from(host - FIRST_HOST)];
        real.listed && (real.weight > 0 || !rules.expire_quiescent_template)
    }

    fn service(&self, id: u32) -> (Service, Vec<Server>) {
        let ids = (id * SERVERS as u32..).map(ServerId);
        let hosts = (FIRST_HOST..).zip(&self.servers).zip(ids);
        let (mut candidates, mut records) = (Vec::new(), Vec::new());
        for ((host, real), id_of) in hosts {
            let address = server_addr(host, self.port).into();
            if real.listed {
                candidates.push(Candidate::new(id_of, address, real.weight));
            }
            // A server that was removed stays known: it may have connections.
            records.push(Server {
                id: id_of,
                service: ServiceId(id),
                address,
                forward: self.mode,
                tunnel: None,
                policy: ServerPolicy {
                    dismissed: real.dismissed,
                    thresholds: Thresholds {
                        upper: self.upper,
                        lower: 0,
                    },
                    ..ServerPolicy::default()
                },
            });
        }
        let service = Service {
            id: ServiceId(id),
            name: format!("s{id}").as_str().into(),
            key: ServiceKey::Address {
                proto: self.proto,
                vip: VIP.into(),
                port: self.port,
            },
            scheduler: Scheduler::new(self.scheduler, Options::default(), &candidates),
            servers: candidates,
            client_address: Default::default(),
            policy: self.policy.clone(),
            local_addresses: [LIP, Ipv4Addr::new(10, 1, 0, 101)]
                .map(IpAddr::V4)
                .into_iter()
                .collect(),
        };
        (service, records)
    }
}

impl Plans {
    pub(crate) fn draw(rng: &mut Rng) -> Plans {
        let mut timeouts = Timeouts::default();
        // Short, so that connections come to their ends in the storm.
        for state in State::ALL {
            let seconds = match state {
                State::Established => 90,
                State::Udp => 8,
                State::SynRecv => 20,
                _ => 10,
            };
            timeouts.set(state, Tick::seconds(seconds));
        }
        Plans {
            services: (0..3 + rng.below(4) as u16)
                .map(|n| Plan::draw(rng, n))
                .collect(),
            rules: Rules {
                drop_entry: 3 * u8::from(rng.one_in(4)),
                expire_nodest_conn: rng.one_in(2),
                ..Rules::default()
            },
            timeouts,
            generation: 1,
        }
    }

    /// An operator's change: weights, servers that leave and come back, LVS's sysctls.
    pub(crate) fn change(&mut self, rng: &mut Rng) {
        let at = rng.below(self.services.len());
        let real = &mut self.services[at].servers[rng.below(SERVERS)];
        match rng.below(6) {
            0 | 1 => real.weight = rng.below(4) as u32,
            2 => real.listed = !real.listed,
            3 => {
                real.dismissed = !real.dismissed;
                real.weight = u32::from(!real.dismissed);
            }
            4 => self.rules.drop_entry = 3 - self.rules.drop_entry,
            _ => {
                let rules = &mut self.rules;
                rules.expire_quiescent_template = !rules.expire_quiescent_template;
            }
        }
    }

    pub(crate) fn snapshot(&mut self) -> Snapshot {
        self.generation += 1;
        let mut b = SnapshotBuilder::default()
            .timeouts(self.timeouts)
            .rules(self.rules);
        for (id, plan) in (0..).zip(&self.services) {
            let (service, servers) = plan.service(id);
            servers.into_iter().for_each(|server| b.server(server));
            b.service(Arc::new(service));
        }
        b.build(self.generation)
    }

    /// All servers: id, and whether its service has no template that lets clients pass its
    /// threshold.
    pub(crate) fn thresholds(&self) -> impl Iterator<Item = (ServerId, u32)> {
        let strict = |plan: &Plan| plan.policy.persistence.is_none() && plan.upper > 0;
        let plans = (0u32..).zip(&self.services);
        plans.filter(move |(_, p)| strict(p)).flat_map(|(n, p)| {
            let first = n * SERVERS as u32;
            (first..first + SERVERS as u32).map(|id| (ServerId(id), p.upper))
        })
    }
}
