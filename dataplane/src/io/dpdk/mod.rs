//! Ports on DPDK: the only room that imports `dpdk-sys`.
//!
//! ```text
//! eal.rs      starts DPDK once a process        eal/args.rs     its argument list
//! device.rs   PCI addresses and vdev strings    log.rs          DPDK's own log
//! demand.rs   how many buffers are enough       pool.rs         the buffers
//! mbuf.rs     one frame: `Mbuf`                 cache.rs        a thread's store of buffers
//! port.rs     opens ports                       port/handle.rs  a port as control sees it
//! bond.rs     several cards as one port
//! rss.rs      key and table, read back          queue.rs        a worker's end: `DpdkQueue`
//! thread.rs   worker threads known to DPDK
//! ```
//!
//! In order: [`Eal::init`], [`Pool::new`], [`open_ports`]; on each worker's thread, once it is
//! pinned, [`WorkerThread::register`].
//!
//! What keeps memory alive, and so makes the safe functions of this room safe:
//! - EAL and pools live until the process ends. An [`Mbuf`] may therefore be dropped on any
//!   thread at any time, and needs no lifetime.
//! - A port lives as long as any of its [`DpdkQueue`]s or [`PortHandle`]s: the last one to go
//!   stops and closes it, so no burst can meet a closed port.
//! - A [`DpdkQueue`] is not `Clone` and its bursts take `&mut self`: one thread at a time.
//!
//! Frames on the hot path are handled here in Rust, inlined into the worker; DPDK is entered by
//! the driver's burst functions only (PLATFORM.md section 2 has the measurements).

mod bond;
mod cache;
mod demand;
mod device;
mod eal;
mod log;
mod mbuf;
mod pool;
mod port;
mod queue;
mod rss;
mod thread;

pub use bond::{BondOptions, Member, MemberState};
pub use demand::{CACHE, PoolDemand};
pub use device::{BadDevice, Device};
pub use eal::{Eal, EalError, EalOptions, Memory, free_huge_pages_mib};
pub use log::LogLevel;
pub use mbuf::Mbuf;
pub use pool::{Pool, PoolError, PoolOptions, data_room};
pub use port::{
    Link, OpenPort, PortError, PortHandle, PortOptions, PortStats, Problem, open_ports,
};
pub use queue::{DpdkQueue, QueueCounters};
pub use rss::Misfit;
pub use thread::{ThreadError, WorkerThread};

use std::ffi::CStr;

/// What DPDK calls the errno `code`, of either sign.
fn errno_text(code: i32) -> String {
    // SAFETY: returns a string of static or of thread-local storage, copied at once.
    unsafe { CStr::from_ptr(dpdk_sys::rte_strerror(code.abs())) }
        .to_string_lossy()
        .into_owned()
}
