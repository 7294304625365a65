//! A port as control sees it, and what keeps it open.

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, PoisonError};

use std::time::Duration;

use crate::counters::Cell;

use super::super::bond::{Bond, Member};
use super::super::queue::{DpdkQueue, QueueCounters};

/// An open port; dropping the last reference stops and closes it. Queues and handles share it,
/// so that no burst can meet a closed port.
#[derive(Debug)]
pub(in super::super) struct Claim {
    id: u16,
    bond: Option<Bond>,
    /// DPDK's control functions of a port are not for two threads at once.
    control: Mutex<()>,
}

/// The ports that are claimed: each once, or two would poll one queue.
static CLAIMED: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

impl Claim {
    /// Claims the port `id`, and its members if it is a bond; `None` when one of them is claimed
    /// already.
    pub(super) fn new(id: u16, bond: Option<Bond>) -> Option<Claim> {
        let claim = Claim {
            id,
            bond,
            control: Mutex::new(()),
        };
        let mut claimed = CLAIMED.lock().unwrap_or_else(PoisonError::into_inner);
        if claim.ids().any(|id| claimed.contains(&id)) {
            drop(claimed);
            std::mem::forget(claim); // it closes nothing of the other's
            return None;
        }
        claimed.extend(claim.ids());
        drop(claimed);
        Some(claim)
    }

    /// The bond that it is.
    pub(in super::super) fn bond(&self) -> Option<&Bond> {
        self.bond.as_ref()
    }

    /// The port, and after it a bond's members.
    fn ids(&self) -> impl Iterator<Item = u16> {
        let members = self.bond.iter().flat_map(Bond::ids);
        std::iter::once(self.id).chain(members)
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
        unsafe { dpdk_sys::rte_eth_dev_stop(self.id) };
        if let Some(bond) = &self.bond {
            // A look at the members' links is due within this time on DPDK's interrupt thread. It
            // finds the bond stopped and is the last, but must not find it closed.
            std::thread::sleep(Duration::from_millis(u64::from(bond.monitor_ms) + 10));
        }
        for id in self.ids() {
            // SAFETY: as above; a bond lets its members go when it closes.
            unsafe { dpdk_sys::rte_eth_dev_close(id) };
        }
        let mut claimed = CLAIMED.lock().unwrap_or_else(PoisonError::into_inner);
        for id in self.ids() {
            claimed.remove(&id);
        }
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
        let link = link_of(self.claim.id);
        match self.claim.bond() {
            Some(bond) => Link {
                up: bond.is_up(),
                ..link
            },
            None => link,
        }
    }

    /// A bond's members as they are now, in the order of its options; none of other ports.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let _one = self.control();
        self.claim.bond().map(Bond::members).unwrap_or_default()
    }

    /// The port's counters since it started; zeroes when the driver cannot say.
    #[must_use]
    pub fn stats(&self) -> PortStats {
        let _one = self.control();
        let raw = raw_stats(self.claim.id);
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

/// The link of the open port `id`; down when the driver cannot say.
pub(in super::super) fn link_of(id: u16) -> Link {
    // SAFETY: a plain C struct of integers.
    let mut link: dpdk_sys::rte_eth_link = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: DPDK checks the number; `link` lives during the call.
    let code = unsafe { dpdk_sys::rte_eth_link_get_nowait(id, &raw mut link) };
    if code != 0 {
        return Link::default();
    }
    let speed = link.link_speed;
    Link {
        up: u32::from(link.link_status()) == dpdk_sys::RTE_ETH_LINK_UP,
        speed_mbps: (speed != 0 && speed != dpdk_sys::RTE_ETH_SPEED_NUM_UNKNOWN).then_some(speed),
    }
}

/// What the driver of the open port `id` counted; zeroes when it cannot say.
pub(in super::super) fn raw_stats(id: u16) -> dpdk_sys::rte_eth_stats {
    // SAFETY: a plain C struct of integers.
    let mut raw: dpdk_sys::rte_eth_stats = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: DPDK checks the number; `raw` lives during the call, and stays zero when it fails.
    unsafe { dpdk_sys::rte_eth_stats_get(id, &raw mut raw) };
    raw
}
