//! What a port is to be, and how many buffers that may hold.
#![forbid(unsafe_code)]

use crate::steer::{BUCKETS, KEY_LEN};
use crate::types::CoreId;

/// What one port is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortOptions {
    /// The operator's name for it, for error texts.
    pub name: String,
    /// Its device ([`super::super::Device`]); one that [`super::super::Eal::init`] was given.
    pub device: String,
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
            mtu: 1500,
            workers,
            key,
            map,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
        }
    }

    /// Buffers that its queues may hold, one pair for each worker.
    pub(in super::super) fn descriptors(&self) -> u32 {
        let (rx, tx) = held(&self.device, self.rx_descriptors, self.tx_descriptors);
        u32::from(self.workers) * (rx + tx)
    }
}

/// Buffers that a receive queue of `rx` descriptors and a transmit queue of `tx` may hold.
pub(super) fn held(device: &str, rx: u16, tx: u16) -> (u32, u32) {
    /// libxdp's XSK_RING_CONS__DEFAULT_NUM_DESCS: net_af_xdp's rings, whatever is asked for.
    const XDP_RING: u16 = 2048;
    let least = if device.starts_with("net_af_xdp") {
        XDP_RING
    } else {
        0
    };
    (u32::from(rx.max(least)), u32::from(tx.max(least)))
}
