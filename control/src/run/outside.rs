//! Each port's card and kernel twin, and the twins' end.
#![forbid(unsafe_code)]

use std::io;
use std::rc::Rc;

use weir_dataplane::io::dpdk::{Member, PortHandle};

use super::ports::Opened;
use crate::control::ports::Outside;
use crate::net::{Twin, TwinError, TwinInfo, TwinIo};

/// Drivers that look for their interface by name in this network namespace. Where it was
/// moved into another one (PLATFORM.md section 4) they report no link, though frames pass.
const BLIND: &[&str] = &["net_tap"];

/// A port's card and its kernel twin.
#[derive(Debug)]
pub(super) struct CardAndTwin {
    card: PortHandle,
    blind: bool,
    /// What the card counts is not this VLAN's alone.
    is_vlan: bool,
    twin: Twin,
}

impl Outside for CardAndTwin {
    fn link(&self) -> (bool, Option<u32>) {
        if self.blind {
            return (true, None);
        }
        let link = self.card.link();
        (link.up, link.speed_mbps)
    }

    fn members(&self) -> Vec<Member> {
        match self.is_vlan {
            true => Vec::new(), // its card's port lists them
            false => self.card.members(),
        }
    }

    fn rx_missed(&self) -> u64 {
        if self.is_vlan {
            return 0;
        }
        let stats = self.card.stats();
        stats.rx_missed + stats.rx_errors + stats.rx_no_buffer + stats.multi_segment_dropped
    }

    fn set_carrier(&self, up: bool) -> io::Result<()> {
        self.twin.set_carrier(up)
    }
}

/// All ports' outsides. Dropping it takes away the twins that were made, and leaves those that
/// were adopted: a start that failed changes nothing.
#[derive(Debug)]
pub(super) struct Outsides {
    pairs: Vec<Rc<CardAndTwin>>,
    adopted_too: bool,
}

impl Outsides {
    /// Makes or adopts the twins of `ports`.
    ///
    /// # Errors
    /// The first twin that could not be had.
    pub(super) fn create(ports: &[Opened]) -> Result<Outsides, TwinError> {
        let mut outsides = Outsides {
            pairs: Vec::with_capacity(ports.len()),
            adopted_too: false,
        };
        for port in ports {
            let twin = Twin::create(port.id, &port.name, port.mac, port.mtu)?;
            outsides.pairs.push(Rc::new(CardAndTwin {
                card: port.card.clone(),
                is_vlan: port.is_vlan,
                blind: BLIND.contains(&port.driver.as_str()),
                twin,
            }));
        }
        Ok(outsides)
    }

    /// The outside of each port, by index.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Rc<CardAndTwin>> {
        self.pairs.iter()
    }

    /// What the mirror needs of the twins.
    pub(super) fn infos(&self) -> Vec<TwinInfo> {
        self.pairs.iter().map(|pair| pair.twin.info()).collect()
    }

    /// What the twin thread needs of the twins.
    pub(super) fn ios(&self) -> Vec<TwinIo> {
        self.pairs.iter().map(|pair| pair.twin.io()).collect()
    }

    /// A clean stop: all twins go, whoever made them. The last of them that hold the ports,
    /// too, so the ports close.
    pub(super) fn remove(mut self) {
        self.adopted_too = true;
    }
}

impl Drop for Outsides {
    fn drop(&mut self) {
        for pair in self.pairs.drain(..) {
            // Control has ended by now; were it not so, the twin would stay as after a crash.
            let Some(pair) = Rc::into_inner(pair) else {
                continue;
            };
            if pair.twin.adopted() && !self.adopted_too {
                continue;
            }
            let name = pair.twin.info().name;
            if let Err(error) = pair.twin.remove() {
                tracing::warn!(port = name, "cannot remove the kernel twin: {error}");
            }
        }
    }
}
