//! Ports as workers have them: cards that DPDK opened, and their VLANs.
#![forbid(unsafe_code)]

use weir_dataplane::io::dpdk::{DpdkQueue, OpenPort, PortHandle};
use weir_dataplane::io::vlan::{VlanQueue, split};
use weir_dataplane::steer::Alignment;
use weir_dataplane::{Mac, PortId};

use crate::config::{Config, Device, Port, RxChecksum};

/// A card, or a VLAN of one.
#[derive(Debug)]
pub(super) struct Opened {
    /// Its place among the ports of the configuration.
    pub(super) id: PortId,
    pub(super) name: String,
    /// The DPDK device, and the VLAN.
    pub(super) device: String,
    pub(super) driver: String,
    pub(super) mac: Mac,
    pub(super) mtu: u16,
    pub(super) alignment: Alignment,
    pub(super) rx_queues: u8,
    pub(super) tx_queues: u8,
    pub(super) fill_checksums: bool,
    pub(super) is_vlan: bool,
    /// One for each worker, in their order.
    pub(super) queues: Vec<VlanQueue<DpdkQueue>>,
    /// The card.
    pub(super) card: PortHandle,
}

/// All ports of `config` on its open `cards`, both in the configuration's order.
pub(super) fn ports(config: &Config, cards: Vec<OpenPort>) -> Vec<Opened> {
    let vlans_of = |card: usize| {
        let vlans = config.ports.iter().zip(0..);
        vlans.filter_map(move |(port, id)| {
            let vlan = port.vlan.filter(|vlan| vlan.card == card)?;
            Some((port, PortId(id), vlan.id))
        })
    };
    let mut opened = Vec::new();
    for (at, card) in cards.into_iter().enumerate() {
        let numbers: Vec<u16> = vlans_of(at).map(|(_, _, number)| number).collect();
        let mut trunk = Vec::new();
        let mut tagged: Vec<Vec<_>> = numbers.iter().map(|_| Vec::new()).collect();
        for queue in card.queues {
            let (whole, vlans) = split(queue, &numbers);
            trunk.push(whole);
            tagged
                .iter_mut()
                .zip(vlans)
                .for_each(|(queues, q)| queues.push(q));
        }
        let port = |port: &Port, id, device, mtu, queues| Opened {
            id,
            name: port.name.clone(),
            device,
            driver: card.driver.clone(),
            mac: card.mac,
            mtu,
            alignment: card.alignment,
            rx_queues: card.rx_queues,
            tx_queues: card.tx_queues,
            fill_checksums: port.rx_checksum == RxChecksum::Fill,
            is_vlan: port.vlan.is_some(),
            queues,
            card: card.handle.clone(),
        };
        let device = match &config.ports[at].device {
            Device::Bond(bond) => format!("{} bond", bond.mode_name()),
            device => device.to_string(),
        };
        let of_card = port(&config.ports[at], card.id, device.clone(), card.mtu, trunk);
        opened.push(of_card);
        for ((vlan, id, number), queues) in vlans_of(at).zip(tagged) {
            let device = format!("{device} vlan {number}");
            opened.push(port(vlan, id, device, vlan.mtu.min(card.mtu), queues));
        }
    }
    opened.sort_by_key(|port| port.id);
    opened
}
