//! The ports as control sees them: what they are, their link, and what passed.
#![forbid(unsafe_code)]

use std::io;
use std::rc::Rc;

use weir_dataplane::command::PortUpdate;
use weir_dataplane::io::dpdk::Member;
use weir_dataplane::steer::Alignment;
use weir_dataplane::{Mac, PortId};

use super::link::WorkerLink;
use super::members::Members;
use crate::api::documents;

/// The outside of a port: its card and its kernel twin.
pub(crate) trait Outside: std::fmt::Debug {
    /// Whether there is a link, and its speed in Mbit/s where it is known.
    fn link(&self) -> (bool, Option<u32>);
    /// A bond's members as they are now; none of other ports.
    fn members(&self) -> Vec<Member> {
        Vec::new()
    }
    /// Frames that the card itself lost on receipt, since the start.
    fn rx_missed(&self) -> u64;
    /// Shows the kernel a cable, plugged in or not.
    ///
    /// # Errors
    /// The kernel's, when someone removed the twin.
    fn set_carrier(&self, up: bool) -> io::Result<()>;
}

/// One port.
#[derive(Debug)]
pub(crate) struct Port {
    /// Its index.
    pub(crate) id: PortId,
    /// Its name, and its twin's.
    pub(crate) name: String,
    /// The DPDK device.
    pub(crate) device: String,
    /// The DPDK driver.
    pub(crate) driver: String,
    /// The MAC address, as the twin has it now.
    pub(crate) mac: Mac,
    /// Largest IP packet as the twin has it now, bytes.
    pub(crate) mtu: u16,
    /// Largest IP packet that the port was opened for, bytes.
    pub(crate) mtu_limit: u16,
    /// Whether its RSS agrees with the ownership function.
    pub(crate) alignment: Alignment,
    /// Receive queues.
    pub(crate) rx_queues: u8,
    /// Transmit queues.
    pub(crate) tx_queues: u8,
    /// Card and twin.
    pub(crate) outside: Rc<dyn Outside>,
    /// Whether the twin shows a cable.
    pub(crate) carrier: bool,
    /// A bond's members.
    pub(crate) members: Members,
}

impl Port {
    /// Makes the twin's carrier what the card's link is. Whether others of a bond's members carry
    /// its frames than before.
    pub(super) fn follow_link(&mut self) -> bool {
        let moved = self.members.follow(&self.name, self.outside.members());
        let (up, _) = self.outside.link();
        if up == self.carrier {
            return moved;
        }
        match self.outside.set_carrier(up) {
            Ok(()) => {
                let word = if up { "up" } else { "down" };
                tracing::info!(port = self.name, "link {word}");
                self.carrier = up;
            }
            Err(error) => {
                tracing::warn!(port = self.name, "cannot set the twin's carrier: {error}")
            }
        }
        moved
    }

    /// Takes what the kernel says of the twin; what the workers are to be told, if anything.
    pub(super) fn follow_twin(&mut self, mac: Mac, mtu: u16) -> Option<PortUpdate> {
        let limit = self.mtu_limit;
        if mtu > limit {
            tracing::warn!(
                port = self.name,
                "the twin's MTU is {mtu}, the port was opened for {limit}, which stays; set \
                 `mtu` in the configuration and restart"
            );
        }
        let mtu = mtu.min(limit);
        if (mac, mtu) == (self.mac, self.mtu) {
            return None;
        }
        tracing::info!(port = self.name, %mac, mtu, "the twin changed");
        (self.mac, self.mtu) = (mac, mtu);
        Some(PortUpdate {
            port: self.id,
            mac,
            mtu,
        })
    }

    /// The port's part of the status.
    pub(super) fn document(&self, workers: &[WorkerLink]) -> documents::Port {
        let (link_up, link_mbps) = self.outside.link();
        let mut document = documents::Port {
            name: self.name.clone(),
            device: self.device.clone(),
            driver: self.driver.clone(),
            mac: self.mac.to_string(),
            mtu: self.mtu,
            link_up,
            link_mbps,
            alignment: match self.alignment {
                Alignment::Aligned => "aligned",
                Alignment::Unaligned => "unaligned",
            }
            .to_owned(),
            rx_queues: self.rx_queues.into(),
            tx_queues: self.tx_queues.into(),
            rx_packets: 0,
            rx_bytes: 0,
            tx_packets: 0,
            tx_bytes: 0,
            tx_full: 0,
            rx_missed: self.outside.rx_missed(),
            members: self.members.documents(),
        };
        for cells in workers.iter().filter_map(|w| w.counters().port(self.id)) {
            document.rx_packets += cells.rx_packets.get();
            document.rx_bytes += cells.rx_bytes.get();
            document.tx_packets += cells.tx_packets.get();
            document.tx_bytes += cells.tx_bytes.get();
            document.tx_full += cells.tx_full.get();
        }
        document
    }
}
