//! One DPDK port, as both of our processes open it.
#![forbid(unsafe_code)]

use anyhow::Context;
use weir_dataplane::io::dpdk::{
    Eal, EalOptions, LogLevel, Memory, OpenPort, Pool, PoolDemand, PoolOptions, PortOptions,
    WorkerThread, open_ports,
};
use weir_dataplane::steer::{MICROSOFT_KEY, spread};

use super::wire::MEMORY_MIB;

/// Frames that the generator or the worker may hold besides what its queues hold.
const IN_HAND: u32 = 8192;

/// Starts DPDK with the one device.
///
/// # Errors
/// DPDK's, with their remedies.
pub(crate) fn open(device: &str, prefix: &str, huge: bool) -> anyhow::Result<(Pool, OpenPort)> {
    let mib = MEMORY_MIB;
    let memory = match huge {
        true => Memory::HugePages { mib },
        false => Memory::Plain { mib },
    };
    let eal = Eal::init(&EalOptions {
        log_level: LogLevel::Error,
        file_prefix: Some(prefix.to_owned()),
        ..EalOptions::new(vec![device.to_owned()], memory)
    })?;
    let options = [PortOptions::new(
        "link",
        device,
        1,
        MICROSOFT_KEY,
        spread(1),
    )];
    let demand = PoolDemand::new(&options, IN_HAND, 0);
    let pool = Pool::new(&eal, &PoolOptions::new("frames", demand, 1500))?;
    let port = open_ports(&eal, &pool, &options)?
        .pop()
        .context("DPDK opened no port")?;
    Ok((pool, port))
}

/// Binds the calling thread to `core` and makes it one of DPDK's.
///
/// # Errors
/// The system refuses the core, or DPDK the thread.
pub(crate) fn take_core(core: usize) -> anyhow::Result<WorkerThread> {
    anyhow::ensure!(
        core_affinity::set_for_current(core_affinity::CoreId { id: core }),
        "core {core}: the system does not give it to us; choose others with --cores"
    );
    Ok(WorkerThread::register()?)
}
