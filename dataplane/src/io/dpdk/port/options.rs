//! What a port is to be, and how many buffers that may hold.
#![forbid(unsafe_code)]

use crate::steer::{BUCKETS, KEY_LEN};
use crate::types::CoreId;

use super::super::bond::BondOptions;
use crate::io::BondMode;

/// What one port is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortOptions {
    /// The operator's name for it, for error texts.
    pub name: String,
    /// Its device ([`super::super::Device`]); one that [`super::super::Eal::init`] was given. A
    /// bond's own name in DPDK, which is nobody else's.
    pub device: String,
    /// It is a bond of other devices.
    pub bond: Option<BondOptions>,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// How many workers poll it, 1 to 128.
    pub workers: u8,
    /// The ownership function's key, for RSS.
    pub key: [u8; KEY_LEN],
    /// The ownership function's map ([`crate::steer::spread`]), for RSS.
    pub map: [CoreId; BUCKETS],
    /// Descriptors of a receive queue. 1,024 are 0.7 ms of 64-byte frames at 1.5 Mpps a queue:
    /// what a worker may be away without loss. The driver rounds them to what it can.
    pub rx_descriptors: u16,
    /// Descriptors of a transmit queue.
    pub tx_descriptors: u16,
}

impl PortOptions {
    /// A port of MTU 1,500 with queues of 1,024 descriptors.
    #[must_use]
    pub fn new(
        name: &str,
        device: &str,
        workers: u8,
        key: [u8; KEY_LEN],
        map: [CoreId; BUCKETS],
    ) -> PortOptions {
        PortOptions {
            name: name.to_owned(),
            device: device.to_owned(),
            bond: None,
            mtu: 1500,
            workers,
            key,
            map,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
        }
    }

    /// The devices that EAL is to make: its own, or a bond's members.
    #[must_use]
    pub fn devices(&self) -> &[String] {
        match &self.bond {
            Some(bond) => &bond.members,
            None => std::slice::from_ref(&self.device),
        }
    }

    /// DPDK memory that it takes beside the pool, MiB: for each member of an LACP bond the driver
    /// makes a pool of small buffers as long as its transmit queues, and aborts the process when
    /// it cannot.
    #[must_use]
    pub fn memory_mib(&self) -> u32 {
        /// A mempool's header, `struct rte_mbuf` and 262 bytes, so many to a page; generously.
        const BUFFER: u64 = 640;
        let lacp = self.bond.as_ref().filter(|b| b.mode == BondMode::Lacp);
        let Some(bond) = lacp else { return 0 };
        let buffers = u64::from(self.workers) * u64::from(self.tx_descriptors) + 64;
        let bytes = bond.members.len() as u64 * buffers * BUFFER;
        bytes.div_ceil(1 << 20) as u32 + 1
    }

    /// Buffers that its queues may hold, one pair for each worker.
    pub(in super::super) fn descriptors(&self) -> u32 {
        let (rx, tx) = self.held(self.rx_descriptors, self.tx_descriptors);
        u32::from(self.workers) * (rx + tx)
    }

    /// Buffers that a receive queue of `rx` descriptors and a transmit queue of `tx` may hold, on
    /// all its devices together.
    pub(super) fn held(&self, rx: u16, tx: u16) -> (u32, u32) {
        let each = self.devices().iter().map(|device| held(device, rx, tx));
        each.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}

/// Buffers that a receive queue of `rx` descriptors and a transmit queue of `tx` may hold on one
/// device.
fn held(device: &str, rx: u16, tx: u16) -> (u32, u32) {
    /// libxdp's XSK_RING_CONS__DEFAULT_NUM_DESCS: net_af_xdp's rings, whatever is asked for.
    const XDP_RING: u16 = 2048;
    let least = if device.starts_with("net_af_xdp") {
        XDP_RING
    } else {
        0
    };
    (u32::from(rx.max(least)), u32::from(tx.max(least)))
}
