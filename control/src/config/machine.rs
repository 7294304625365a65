//! The tables that say how this machine is used: `[workers]`, `[[port]]`, `[addresses]`,
//! `[log]`.
#![forbid(unsafe_code)]

use toml::de::DeTable;

use super::Machine;
use super::bond::{self, BondDraft};
use super::defaults::{self, MAX_CONNECTIONS_RANGE, MAX_WORKERS, MTU_RANGE, VLAN_RANGE};
use super::reader::{At, Key, Problems, Section};
use super::scalars;
use super::types::{Addresses, Cidr, Cores, Device, Idle, Log, LogFormat, RxChecksum, VipOwner};

pub(super) const WORKERS: &[Key] = &[
    Key::new("cores", "[1, 2]"),
    Key::new("count", "2"),
    Key::new("memory", "\"1GiB\""),
    Key::new("max_connections", "1_000_000"),
    Key::new("max_connections6", "125_000"),
    Key::new("hugepages", "true"),
    Key::new("idle", "\"auto\""),
];
pub(super) const PORT: &[Key] = &[
    Key::new("name", "\"wan0\""),
    Key::new("device", "\"0000:3b:00.0\""),
    Key::new(
        "bond",
        "{ mode = \"802.3ad\", members = [\"0000:3b:00.0\", \"0000:3b:00.1\"] }",
    ),
    Key::new("parent", "\"wan0\""),
    Key::new("vlan", "100"),
    Key::new("addresses", "[\"10.0.0.2/24\"]"),
    Key::new("mtu", "1500"),
    Key::new("rx_checksum", "\"trust\""),
];
pub(super) const ADDRESSES: &[Key] = &[Key::new("vips", "\"managed\"")];
pub(super) const LOG: &[Key] = &[
    Key::new("level", "\"info\""),
    Key::new("format", "\"auto\""),
];

/// `[workers]` as written, defaults not yet filled in: whether `memory` was written decides
/// what a message about it says.
impl WorkersDraft<'_> {
    /// Connections of either kind, set or not: IPv4, IPv6.
    pub(super) fn connections(&self) -> (u32, u32) {
        let v4 = self
            .max_connections
            .map_or(defaults::MAX_CONNECTIONS, |m| m.value);
        let v6 = self.max_connections6.map(|m| m.value);
        (v4, v6.unwrap_or((v4 / defaults::IPV6_PART).max(1024)))
    }
}

#[derive(Debug)]
pub(super) struct WorkersDraft<'t> {
    pub(super) section: Section<'t>,
    pub(super) cores: Cores,
    pub(super) memory: Option<At<u64>>,
    pub(super) max_connections: Option<At<u32>>,
    pub(super) max_connections6: Option<At<u32>>,
    pub(super) hugepages: bool,
    pub(super) idle: Idle,
}

pub(super) fn workers<'t>(
    p: &mut Problems<'_>,
    top: &Section<'t>,
    machine: &Machine,
) -> WorkersDraft<'t> {
    let section = top.table(p, "workers", WORKERS);
    let pinned = cores(p, &section, machine).map(Cores::Pinned);
    let count = section.integer(p, "count", 1..=MAX_WORKERS, "");
    if section.has("cores") && section.has("count") {
        section.refuse(p, "count", "cores says it already; remove one of the two");
    }
    let count = count
        .and_then(|c| u8::try_from(c.value).ok())
        .map(Cores::Count);
    let idle = [
        ("auto", Idle::Auto),
        ("spin", Idle::Spin),
        ("yield", Idle::Yield),
        ("sleep", Idle::Sleep),
    ];
    WorkersDraft {
        cores: pinned.or(count).unwrap_or(defaults::CORES),
        memory: section.parsed(p, "memory", scalars::size),
        max_connections: section.integer(p, "max_connections", MAX_CONNECTIONS_RANGE, ""),
        max_connections6: section.integer(p, "max_connections6", MAX_CONNECTIONS_RANGE, ""),
        hugepages: section
            .boolean(p, "hugepages")
            .map_or(defaults::HUGEPAGES, |h| h.value),
        idle: section
            .choice(p, "idle", &idle, &[])
            .map_or(defaults::IDLE, |i| i.value),
        section,
    }
}

fn cores(p: &mut Problems<'_>, section: &Section<'_>, machine: &Machine) -> Option<Vec<u16>> {
    let has = spans(&machine.cores);
    let cores = section.array(p, "cores", |value| {
        let Some(number) = value.as_integer() else {
            return Err("not a CPU's number; write cores = [1, 2]".to_owned());
        };
        let core = u16::from_str_radix(number.as_str(), number.radix());
        let core = core.ok().filter(|c| machine.cores.contains(c));
        core.ok_or(format!("no such CPU; this machine has {has}"))
    })?;
    let mut seen = Vec::new();
    for core in &cores {
        if seen.contains(&core.value) {
            let why = format!(
                "cores: {}: named twice; give each worker its own CPU",
                core.value
            );
            section.problem(p, core.at, &why);
        }
        seen.push(core.value);
    }
    if section.refused_empty(p, "cores", "no CPU; name at least one, or write count = 1") {
        return None;
    }
    if seen.len() > MAX_WORKERS as usize {
        let why = format!("{} CPUs; at most {MAX_WORKERS} workers", seen.len());
        section.refuse(p, "cores", &why);
    }
    Some(seen)
}

/// "0-3, 8".
fn spans(cores: &[u16]) -> String {
    let mut spans: Vec<(u16, u16)> = Vec::new();
    for &core in cores {
        match spans.last_mut() {
            Some((_, last)) if *last + 1 == core => *last = core,
            _ => spans.push((core, core)),
        }
    }
    let show = |(first, last): &(u16, u16)| match first == last {
        true => format!("{first}"),
        false => format!("{first}-{last}"),
    };
    spans.iter().map(show).collect::<Vec<_>>().join(", ")
}

/// One `[[port]]` as written; `None` is what is missing or wrong, and reported.
#[derive(Debug)]
pub(super) struct PortDraft<'t> {
    pub(super) section: Section<'t>,
    pub(super) name: Option<At<String>>,
    pub(super) device: Option<At<Device>>,
    pub(super) bond: Option<BondDraft<'t>>,
    /// The port of the card that it is a VLAN of, and its number.
    pub(super) parent: Option<At<String>>,
    pub(super) vlan: Option<At<u32>>,
    pub(super) addresses: Vec<At<Cidr>>,
    /// Whether `addresses` are there and all right, so that the port's networks are known.
    pub(super) networks_known: bool,
    pub(super) mtu: Option<At<u32>>,
    pub(super) rx_checksum: RxChecksum,
}

pub(super) fn ports<'t>(p: &mut Problems<'_>, top: &Section<'t>) -> Vec<PortDraft<'t>> {
    let none = "no [[port]]; add one for each network card, with a name and a device";
    if !top.has("port") {
        p.add(0, none);
    }
    top.refused_empty(p, "port", none);
    let sections = top.tables(p, "port", PORT, |n, table| named("port", n, table));
    sections
        .into_iter()
        .map(|section| port(p, section))
        .collect()
}

/// `port "wan0"`, or `port #1` while it has no name that can be shown.
pub(super) fn named(kind: &str, number: usize, table: &DeTable<'_>) -> String {
    match table.get("name").and_then(|n| n.get_ref().as_str()) {
        Some(name) if (1..=64).contains(&name.len()) => format!("{kind} {name:?}"),
        _ => format!("{kind} #{number}"),
    }
}

fn port<'t>(p: &mut Problems<'_>, section: Section<'t>) -> PortDraft<'t> {
    let required: &[&str] = match section.has("parent") || section.has("vlan") {
        true => &["name", "parent", "vlan"],
        false if section.has("bond") => &["name"],
        false => &["name", "device"],
    };
    for key in required {
        if !section.has(key) {
            section.missing(p, key);
        }
    }
    if section.has("parent") {
        section.refuse(
            p,
            "device",
            "a VLAN's is its parent's; remove device or parent",
        );
        section.refuse(p, "bond", "a VLAN's is its parent's; remove bond or parent");
        section.refuse(p, "rx_checksum", "a VLAN's is its parent's; remove it");
    } else if section.has("bond") {
        let why = "a bond's devices are its members; remove device or bond";
        section.refuse(p, "device", why);
    }
    let bond = bond::bond(p, &section);
    let device = section.parsed(p, "device", scalars::device);
    let rx_checksums = [("trust", RxChecksum::Trust), ("fill", RxChecksum::Fill)];
    let rx_checksum = section.choice(p, "rx_checksum", &rx_checksums, &[]);
    let members = bond.iter().flat_map(|bond| &bond.members);
    let devices = device.iter().chain(members).map(|d| &d.value);
    let by_device = default_rx_checksum(devices);
    let mtu = section.integer(p, "mtu", MTU_RANGE, " bytes");
    let addresses = section
        .texts(p, "addresses", scalars::cidr)
        .unwrap_or_default();
    PortDraft {
        name: section.parsed(p, "name", scalars::interface),
        networks_known: !addresses.is_empty() && addresses.len() == section.elements("addresses"),
        addresses,
        mtu,
        parent: section.parsed(p, "parent", scalars::interface),
        vlan: section.integer(p, "vlan", VLAN_RANGE, ""),
        rx_checksum: rx_checksum.map_or(by_device, |r| r.value),
        device,
        bond,
        section,
    }
}

impl PortDraft<'_> {
    /// Its MTU; of a VLAN that says none, its card's.
    pub(super) fn mtu(&self, ports: &[PortDraft<'_>]) -> u16 {
        let own = |port: &PortDraft<'_>| port.mtu.map(|mtu| mtu.value as u16); // at most 9600
        let card = || self.card(ports).and_then(|at| own(&ports[at]));
        own(self).or_else(card).unwrap_or(defaults::MTU)
    }

    /// The place of a VLAN's card among the ports.
    pub(super) fn card(&self, ports: &[PortDraft<'_>]) -> Option<usize> {
        let parent = &self.parent.as_ref()?.value;
        let is_it = |p: &PortDraft<'_>| p.name.as_ref().is_some_and(|n| n.value == *parent);
        ports.iter().position(is_it)
    }
}

/// The kernel's packet sockets hand over partial checksums of local senders without a mark
/// (PLATFORM section 4); everything else says what it hands over.
fn default_rx_checksum<'d>(mut devices: impl Iterator<Item = &'d Device>) -> RxChecksum {
    let unmarked = |d: &Device| d.is_of("net_af_packet") || d.is_of("net_af_xdp");
    match devices.any(unmarked) {
        true => RxChecksum::Fill,
        false => RxChecksum::Trust,
    }
}

pub(super) fn addresses(p: &mut Problems<'_>, top: &Section<'_>) -> Addresses {
    let section = top.table(p, "addresses", ADDRESSES);
    let owners = [
        ("managed", VipOwner::Managed),
        ("external", VipOwner::External),
    ];
    let vips = section.choice(p, "vips", &owners, &[]);
    Addresses {
        vips: vips.map_or(defaults::VIPS, |v| v.value),
    }
}

pub(super) fn log(p: &mut Problems<'_>, top: &Section<'_>) -> Log {
    let section = top.table(p, "log", LOG);
    let levels = [
        ("error", tracing::Level::ERROR),
        ("warn", tracing::Level::WARN),
        ("info", tracing::Level::INFO),
        ("debug", tracing::Level::DEBUG),
        ("trace", tracing::Level::TRACE),
    ];
    let formats = [
        ("auto", LogFormat::Auto),
        ("human", LogFormat::Human),
        ("json", LogFormat::Json),
    ];
    Log {
        level: section
            .choice(p, "level", &levels, &[])
            .map_or(defaults::LOG.level, |l| l.value),
        format: section
            .choice(p, "format", &formats, &[])
            .map_or(defaults::LOG.format, |f| f.value),
    }
}
