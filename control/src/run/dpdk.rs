//! DPDK as the configuration wants it: environment, packet buffers, ports.
#![forbid(unsafe_code)]

use weir_dataplane::CoreId;
use weir_dataplane::defense::HELD_MAX;
use weir_dataplane::frag::FRAGMENTS_HELD;
use weir_dataplane::io::dpdk::{
    BondOptions, Eal, EalError, EalOptions, LogLevel, Memory, Pool, PoolDemand, PoolOptions,
    PortOptions, free_huge_pages_mib, open_ports,
};
use weir_dataplane::route::PARKED_MAX;
use weir_dataplane::steer::{BUCKETS, KEY_LEN, spread};

use super::ports::Opened;
use crate::config::{Config, Device, Port};

/// What DPDK gives.
#[derive(Debug)]
pub(super) struct Dataplane {
    /// The packet buffers.
    pub(super) pool: Pool,
    /// The ports, in configuration order.
    pub(super) ports: Vec<Opened>,
}

/// Starts DPDK, makes buffers for everything that can hold one (`rings` is the capacity of all
/// rings of frames together), and opens the ports with RSS key `key`.
///
/// # Errors
/// The first step that failed, with its remedy.
pub(super) fn open(config: &Config, key: [u8; KEY_LEN], rings: usize) -> anyhow::Result<Dataplane> {
    let workers = config.workers.cores.workers();
    let map: [CoreId; BUCKETS] = spread(workers);
    let cards = config.ports.iter().filter(|port| port.vlan.is_none());
    let ports: Vec<PortOptions> = cards
        .map(|port| PortOptions {
            mtu: port.mtu,
            bond: bond(&port.device),
            ..PortOptions::new(&port.name, &device(port), workers, key, map)
        })
        .collect();
    let parked = (PARKED_MAX + FRAGMENTS_HELD + HELD_MAX) * usize::from(workers);
    let demand = PoolDemand::new(&ports, rings as u32, parked as u32);
    let mtu = ports.iter().map(|port| port.mtu).max().unwrap_or_default();
    let pool = PoolOptions::new("weir", demand, mtu);
    let devices = ports.iter().flat_map(PortOptions::devices);
    let devices = devices.cloned().collect();
    let mib = pool.memory_mib() + ports.iter().map(PortOptions::memory_mib).sum::<u32>();
    let eal = Eal::init(&EalOptions {
        log: Some(log),
        ..EalOptions::new(devices, memory(config.workers.hugepages, mib))
    })
    .map_err(|error| with_port(error, config))?;
    let pool = Pool::new(&eal, &pool)?;
    let ports = open_ports(&eal, &pool, &ports)?;
    tracing::info!(
        version = eal.version(),
        buffers = pool.capacity(),
        buffer_bytes = pool.room(),
        "DPDK runs"
    );
    for port in &ports {
        tracing::info!(
            port = port.name,
            driver = port.driver,
            mac = %port.mac,
            mtu = port.mtu,
            rx_queues = port.rx_queues,
            tx_queues = port.tx_queues,
            "port open"
        );
        if let Some(misfit) = port.misfit.as_ref().filter(|_| workers > 1) {
            tracing::info!(port = port.name, "workers hand packets over: {misfit}");
        }
    }
    let ports = super::ports::ports(config, ports);
    Ok(Dataplane { pool, ports })
}

/// The name of a port's device in DPDK, with its arguments; a bond's is made of its port's.
fn device(port: &Port) -> String {
    match &port.device {
        Device::Bond(_) => format!("net_bonding_{}", port.name),
        device => device.to_string(),
    }
}

/// What DPDK is to make of several devices.
fn bond(device: &Device) -> Option<BondOptions> {
    let Device::Bond(bond) = device else {
        return None;
    };
    Some(BondOptions {
        mode: bond.mode,
        hash: bond.hash,
        members: bond.members.iter().map(ToString::to_string).collect(),
        primary: bond.primary,
        monitor_ms: bond.monitor.as_millis() as u32, // at most 1,000
    })
}

/// DPDK knows devices, people know ports: says which port a device in the text is.
fn with_port(error: EalError, config: &Config) -> anyhow::Error {
    let text = error.to_string();
    // net_tap10 contains net_tap1.
    let named = |port: &&Port| {
        let names = port.device.parts().iter().map(Device::name);
        names.filter(|name| text.contains(name)).map(str::len).max()
    };
    match config
        .ports
        .iter()
        .filter(|p| named(p).is_some())
        .max_by_key(named)
    {
        Some(port) => anyhow::Error::new(error).context(format!("port {}", port.name)),
        None => error.into(),
    }
}

/// What DPDK says, in our log.
fn log(level: LogLevel, line: &str) {
    match level {
        LogLevel::Error => tracing::error!(target: "dpdk", "{line}"),
        LogLevel::Warning => tracing::warn!(target: "dpdk", "{line}"),
        LogLevel::Notice | LogLevel::Info => tracing::info!(target: "dpdk", "{line}"),
        LogLevel::Debug => tracing::debug!(target: "dpdk", "{line}"),
    }
}

/// `mib` beside what DPDK always takes: huge pages when they are wanted and there are enough, else
/// ordinary ones.
fn memory(hugepages: bool, mib: u32) -> Memory {
    let mib = mib + Memory::BASE_MIB;
    if !hugepages {
        return Memory::Plain { mib };
    }
    let free = free_huge_pages_mib();
    if free >= mib {
        return Memory::HugePages { mib };
    }
    tracing::info!(
        "{free} MiB of huge pages are free, DPDK wants {mib}: it uses ordinary pages, which are \
         slower; reserve huge pages (vm.nr_hugepages) or set `hugepages = false`"
    );
    Memory::Plain { mib }
}
