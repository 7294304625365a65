//! A validated configuration: plain data, nothing of the file's text left in it.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use weir_dataplane::conn::state::{Rules, TimeoutChanges, Timeouts};
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::forward::carrier::ClientAddress;
use weir_dataplane::forward::tun::Tunnel;
use weir_dataplane::io::{BondHash, BondMode};
use weir_dataplane::sched::{Options, SchedulerKind};
use weir_dataplane::service::{AddressRange, Marks, Policy, ServerPolicy, ServiceKey, SnatRules};

use crate::prefix;

/// One file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// `[workers]`: who moves the packets. Fixed for a process's life.
    pub workers: Workers,
    /// `[[port]]`: where packets come and go, 1 to 16 of them: cards, then VLANs, each in the
    /// file's order. Fixed for a process's life.
    pub ports: Vec<Port>,
    /// `[[service]]`: what is balanced, in the file's order; then the pools of `snat`.
    pub services: Vec<Service>,
    /// `[[mark]]`: which packets get which mark, in the file's order; before them, that what is
    /// for the director itself gets none.
    pub marks: Arc<Marks>,
    /// `[[snat]]`: which of the real servers' own packets leave with which addresses, in the
    /// file's order. Their pools are among the services, behind the others.
    pub snat: Arc<SnatRules>,
    /// `[timeouts]`: how long a connection stays in each state.
    pub timeouts: Timeouts,
    /// `[ipvs]`: when connections open and are given up, by LVS's sysctls.
    pub rules: Rules,
    /// `[addresses]`: who puts addresses on the twins.
    pub addresses: Addresses,
    /// `[log]`: what is logged, and how. Fixed for a process's life.
    pub log: Log,
}

/// `[workers]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Workers {
    /// How many, and on which CPUs.
    pub cores: Cores,
    /// Bytes for all tables together.
    pub memory: u64,
    /// IPv4 connections for all workers together.
    pub max_connections: u32,
    /// The same for IPv6, those between families included.
    pub max_connections6: u32,
    /// Whether to use huge pages, where there are any.
    pub hugepages: bool,
    /// What a worker does when there is nothing to do.
    pub idle: Idle,
}

/// How many workers there are, and where they run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cores {
    /// One worker on each of these CPUs, 1 to 128 of them, all different.
    Pinned(Vec<u16>),
    /// So many workers, 1 to 128, on the CPUs that this process may use, in turn.
    Count(u8),
}

impl Cores {
    /// The number of workers.
    #[must_use]
    pub(crate) fn workers(&self) -> u8 {
        match self {
            Cores::Pinned(cores) => cores.len() as u8, // at most 128, checked
            Cores::Count(count) => *count,
        }
    }
}

/// What a worker does when there is nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Idle {
    /// Spin on isolated CPUs, sleep elsewhere.
    Auto,
    /// Poll on: lowest latency, a whole CPU.
    Spin,
    /// Let others run after some empty polls.
    Yield,
    /// Sleep a little after some empty polls: lowest consumption.
    Sleep,
}

/// `[[port]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    /// Its name, which is its kernel twin's too.
    pub name: String,
    /// What DPDK opens; a VLAN's is its card's or bond's.
    pub device: Device,
    /// Which VLAN of which card it is; a card without its VLANs otherwise.
    pub vlan: Option<Vlan>,
    /// Put on the twin at start; empty when the operator manages them.
    pub addresses: Vec<Cidr>,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// What received checksums are worth.
    pub rx_checksum: RxChecksum,
}

/// A VLAN of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vlan {
    /// The card's place among [`Config::ports`].
    pub card: usize,
    /// Its number, 1 to 4094.
    pub id: u16,
}

/// A DPDK device, arguments included, as EAL takes it; or a bond of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Device {
    /// `0000:3b:00.0`, with domain, lower case.
    Pci(String),
    /// `net_tap0,iface=dt0`.
    Vdev(String),
    /// Several of the former.
    Bond(Bond),
}

/// Several devices as one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bond {
    /// How it uses them.
    pub mode: BondMode,
    /// How it shares flows among them, where it does.
    pub hash: BondHash,
    /// Two or more, none of them a bond.
    pub members: Vec<Device>,
    /// The place among them of the one to prefer.
    pub primary: Option<usize>,
    /// How often to look at their links.
    pub monitor: Duration,
}

impl Device {
    /// What EAL is to open: itself, or a bond's members.
    #[must_use]
    pub(crate) fn parts(&self) -> &[Device] {
        match self {
            Device::Bond(bond) => &bond.members,
            device => std::slice::from_ref(device),
        }
    }

    /// The name by which DPDK knows the opened port: what stands before the first comma. A bond
    /// has one of its port's.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        match self {
            Device::Pci(device) | Device::Vdev(device) => {
                device.split(',').next().unwrap_or_default()
            }
            Device::Bond(_) => "bond",
        }
    }

    /// The value of one argument, like `iface`.
    #[must_use]
    pub(crate) fn argument(&self, name: &str) -> Option<&str> {
        let (Device::Pci(device) | Device::Vdev(device)) = self else {
            return None;
        };
        let mut arguments = device.split(',').skip(1);
        arguments.find_map(|a| a.strip_prefix(name)?.strip_prefix('='))
    }

    /// Whether it is one of DPDK's virtual devices made by `driver`.
    #[must_use]
    pub(crate) fn is_of(&self, driver: &str) -> bool {
        matches!(self, Device::Vdev(device) if device.starts_with(driver))
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Device::Pci(device) | Device::Vdev(device) => f.write_str(device),
            Device::Bond(bond) => bond.fmt(f),
        }
    }
}

/// What received checksums are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RxChecksum {
    /// They are complete, or the port says that they are not.
    Trust,
    /// They may be partial without a mark (`net_af_packet`, `net_af_xdp` on veth): complete
    /// those that are.
    Fill,
}

/// An address with its network: `10.0.0.2/24`, `2001:db8::2/64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Cidr {
    /// The host's address.
    pub address: IpAddr,
    /// The network's length in bits, 1 to 32 or 128.
    pub prefix: u8,
}

impl Cidr {
    /// Whether `other` is in this network.
    #[must_use]
    pub(crate) fn contains(&self, other: IpAddr) -> bool {
        prefix::contains(self.address, self.prefix, other)
    }

    /// The network's own address, no host's: in IPv6 it is every router's (RFC 4291 section
    /// 2.6.1). Networks of two addresses and of one have none (RFC 3021, RFC 6164).
    #[must_use]
    pub(crate) fn network(&self) -> Option<IpAddr> {
        let has_one = self.prefix + 2 <= prefix::bits(self.address);
        has_one.then(|| prefix::network(self.address, self.prefix))
    }

    /// The network's broadcast address: IPv4's alone, up to /30 (RFC 3021).
    #[must_use]
    pub(crate) fn broadcast(&self) -> Option<IpAddr> {
        let IpAddr::V4(address) = self.address else {
            return None;
        };
        let broadcast = u32::from(address) | u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
        (self.prefix <= 30).then(|| Ipv4Addr::from(broadcast).into())
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// `[[service]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// The operator's name for it; no other service has it.
    pub name: String,
    /// What clients address; no other service has it.
    pub key: ServiceKey,
    /// How a server is chosen.
    pub scheduler: SchedulerKind,
    /// The scheduler's flags and sizes.
    pub options: Options,
    /// How packets reach the servers that say nothing of their own.
    pub forward: ForwardMode,
    /// FULL-NAT's local addresses, ranges spread out, in the file's order; at most 1024.
    pub local_addresses: Vec<IpAddr>,
    /// The twin for those of its addresses that no port's network places
    /// ([`Config::network_of`]).
    pub port: Option<String>,
    /// How its servers are told the client's address.
    pub client_address: ClientAddress,
    /// How long its connections last, where that is not as in `[timeouts]`.
    pub timeouts: TimeoutChanges,
    /// How its servers come and go.
    pub turnover: Turnover,
    /// What else was asked of it.
    pub policy: Policy,
    /// Its real servers, in the file's order; may be empty.
    pub servers: Vec<RealServer>,
}

/// How the servers of a service come and go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Turnover {
    /// How long a server that comes (back) takes to reach its weight; zero: at once.
    pub slow_start: Duration,
    /// What becomes of the connections of a server that is removed.
    pub removal: Removal,
}

/// What becomes of the connections of a server that is removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Removal {
    /// They go on until they end.
    #[default]
    Keep,
    /// Those that are left after so long are reset; zero: all at once.
    After(Duration),
}

/// `[[service.real_server]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RealServer {
    /// The operator's name for it, where there is one.
    pub name: Option<String>,
    /// Its address; port 0, only under a service for every port, keeps the client's choice.
    pub address: SocketAddr,
    /// Its share of new connections; 0 drains.
    pub weight: u16,
    /// How packets reach it.
    pub forward: ForwardMode,
    /// What they travel in; for [`ForwardMode::tun`] alone.
    pub tunnel: Option<Tunnel>,
    /// What else was asked of it.
    pub policy: ServerPolicy,
}

/// `[addresses]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// Who puts VIPs on an interface.
    pub vips: VipOwner,
}

/// Who puts VIPs on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VipOwner {
    /// Weir does.
    Managed,
    /// keepalived, a router or the operator does.
    External,
}

/// `[log]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Log {
    /// Least serious level that is logged.
    pub level: tracing::Level,
    /// For whom.
    pub format: LogFormat,
}

/// For whom the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// People at a terminal, programs elsewhere.
    Auto,
    /// People.
    Human,
    /// Programs: one JSON object a line.
    Json,
}

impl Config {
    /// The most virtual addresses of one range that Weir puts on an interface: those of a /24.
    /// A larger one is a routed network, which needs none.
    pub(crate) const MOST_PLACED: u128 = 256;

    /// The virtual addresses of a service that Weir puts on interfaces, ascending; they are
    /// Weir's to put where [`VipOwner::Managed`] says so.
    #[must_use]
    pub(crate) fn placed_vips(&self, service: &Service) -> Vec<IpAddr> {
        let few = |vips: &&AddressRange| vips.steps() < Self::MOST_PLACED;
        let ServiceKey::Mark { .. } = service.key else {
            let vips = service.key.vips();
            let vips = vips.iter().filter(few);
            return vips.flat_map(AddressRange::addresses).collect();
        };
        let ranges = self.marked_for(&service.key);
        let vips: BTreeSet<_> = ranges
            .iter()
            .filter(few)
            .flat_map(AddressRange::addresses)
            .collect();
        // A rule may speak of addresses that others have.
        let taken = |address: IpAddr| {
            let own = self.ports.iter().flat_map(|port| &port.addresses);
            own.into_iter().any(|cidr| {
                cidr.address == address
                    || cidr.network() == Some(address)
                    || cidr.broadcast() == Some(address)
            })
        };
        let servers = self.services.iter().flat_map(|s| &s.servers);
        let servers = servers.filter(|s| s.forward != ForwardMode::local);
        let servers: BTreeSet<_> = servers.map(|s| s.address.ip()).collect();
        let locals = self.services.iter().flat_map(|s| &s.local_addresses);
        let locals: BTreeSet<_> = locals.copied().collect();
        let free = |a: &IpAddr| !taken(*a) && !servers.contains(a) && !locals.contains(a);
        vips.into_iter().filter(free).collect()
    }

    /// The destinations of the rules that mark packets for this service.
    #[must_use]
    pub(crate) fn marked_for(&self, key: &ServiceKey) -> Vec<AddressRange> {
        let ServiceKey::Mark { mark, v6 } = key else {
            return Vec::new();
        };
        let rules = self.marks.rules().iter().filter(|r| r.mark == Some(*mark));
        let ranges = rules.flat_map(|rule| &rule.pattern.destinations);
        ranges
            .filter(|range| range.is_ipv6() == *v6)
            .copied()
            .collect()
    }

    /// The port whose network places `address`: the longest network of the `addresses` keys
    /// that contains it. `None` when there is none, or two ports have networks of that length.
    #[must_use]
    pub(crate) fn network_of(&self, address: IpAddr) -> Option<&Port> {
        let ports = self.ports.iter();
        longest_network(ports.map(|port| (port, port.addresses.as_slice())), address).ok()
    }
}

/// Why no port's network places an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unplaced {
    /// No port has a network that contains it.
    Nowhere,
    /// Two ports have, equally long.
    Ambiguous,
}

/// The one of `ports` with the longest network that contains `address`.
pub(super) fn longest_network<'a, P: Copy>(
    ports: impl Iterator<Item = (P, &'a [Cidr])>,
    address: IpAddr,
) -> Result<P, Unplaced> {
    let mut best = Err(Unplaced::Nowhere);
    let mut length = 0;
    for (port, networks) in ports {
        let fitting = networks.iter().filter(|n| n.contains(address));
        match fitting.map(|n| n.prefix).max() {
            Some(prefix) if prefix > length => (best, length) = (Ok(port), prefix),
            Some(prefix) if prefix == length => best = Err(Unplaced::Ambiguous),
            _ => {}
        }
    }
    best
}
