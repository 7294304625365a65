//! A port as control sees it, and what keeps it open.

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, PoisonError};

use crate::counters::Cell;

use super::super::queue::{DpdkQueue, QueueCounters};

/// An open port; dropping the last reference stops and closes it. Queues and handles share it,
/// so that no burst can meet a closed port.
#[derive(Debug)]
pub(in super::super) struct Claim {
    id: u16,
    /// DPDK's control functions of a port are not for two threads at once.
    control: Mutex<()>,
}

/// The ports that are claimed: each once, or two would poll one queue.
static CLAIMED: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

impl Claim {
    /// Claims the port `id`; `None` when it is claimed already.
    pub(super) fn new(id: u16) -> Option<Claim> {
        let mut claimed = CLAIMED.lock().unwrap_or_else(PoisonError::into_inner);
        claimed.insert(id).then(|| Claim {
            id,
            control: Mutex::new(()),
        })
    }

    /// DPDK's number of the port.
    pub(in super::super) fn id(&self) -> u16 {
        self.id
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // SAFETY: the port is ours and nobody uses it any more: queues and handles hold an Arc
        // of us. Closing wants it stopped; stopping a port that never started does nothing.
        unsafe {
            dpdk_sys::rte_eth_dev_stop(self.id);
            dpdk_sys::rte_eth_dev_close(self.id);
        }
        let mut claimed = CLAIMED.lock().unwrap_or_else(PoisonError::into_inner);
        claimed.remove(&self.id);
    }
}

/// A port for control: link and counters. Clones are the same port.
#[derive(Debug, Clone)]
pub struct PortHandle {
    claim: Arc<Claim>,
    queues: Vec<Arc<QueueCounters>>,
}

/// A port's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    /// Whether it carries.
    pub up: bool,
    /// Mbit/s, when the driver knows.
    pub speed_mbps: Option<u32>,
}

/// A port's own counters, as the driver keeps them; what a driver does not count stays 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortStats {
    /// Frames received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames lost because the receive queues were full: the workers are too slow.
    pub rx_missed: u64,
    /// Frames received with errors.
    pub rx_errors: u64,
    /// Frames lost for want of a buffer: the pool is too small.
    pub rx_no_buffer: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
    /// Frames that came in several segments and were made linear.
    pub linearized: u64,
    /// Frames that came in several segments and fit no buffer.
    pub multi_segment_dropped: u64,
}

impl PortHandle {
    pub(super) fn new(claim: Arc<Claim>, queues: &[DpdkQueue]) -> PortHandle {
        PortHandle {
            claim,
            queues: queues.iter().map(DpdkQueue::counters).collect(),
        }
    }

    /// The link as it is now; down when the driver cannot say.
    #[must_use]
    pub fn link(&self) -> Link {
        let _one = self.control();
        // SAFETY: a plain C struct of integers.
        let mut link: dpdk_sys::rte_eth_link = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: the port is open while `claim` lives; `link` lives during the call.
        let code = unsafe { dpdk_sys::rte_eth_link_get_nowait(self.claim.id, &raw mut link) };
        if code != 0 {
            return Link::default();
        }
        let speed = link.link_speed;
        Link {
            up: u32::from(link.link_status()) == dpdk_sys::RTE_ETH_LINK_UP,
            speed_mbps: (speed != 0 && speed != dpdk_sys::RTE_ETH_SPEED_NUM_UNKNOWN)
                .then_some(speed),
        }
    }

    /// The port's counters since it started; zeroes when the driver cannot say.
    #[must_use]
    pub fn stats(&self) -> PortStats {
        let _one = self.control();
        // SAFETY: a plain C struct of integers.
        let mut raw: dpdk_sys::rte_eth_stats = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: the port is open while `claim` lives; `raw` lives during the call, and stays
        // zero when it fails.
        unsafe { dpdk_sys::rte_eth_stats_get(self.claim.id, &raw mut raw) };
        let sum = |cell: fn(&QueueCounters) -> &Cell| {
            self.queues.iter().map(|queue| cell(queue).get()).sum()
        };
        PortStats {
            rx_packets: raw.ipackets,
            rx_bytes: raw.ibytes,
            tx_packets: raw.opackets,
            tx_bytes: raw.obytes,
            rx_missed: raw.imissed,
            rx_errors: raw.ierrors,
            rx_no_buffer: raw.rx_nombuf,
            tx_errors: raw.oerrors,
            linearized: sum(|queue| &queue.linearized),
            multi_segment_dropped: sum(|queue| &queue.multi_segment_dropped),
        }
    }

    fn control(&self) -> std::sync::MutexGuard<'_, ()> {
        self.claim
            .control
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
