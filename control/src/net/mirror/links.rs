//! The twins as links: MAC address, MTU and whether they are up, as the kernel has them.
#![forbid(unsafe_code)]

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, State as OperState};
use weir_dataplane::{Mac, PortId};

use super::NetEvent;
use crate::net::twin::TwinInfo;

/// What the kernel says of a twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    mac: Mac,
    mtu: u16,
    up: bool,
    /// The kernel's operational state is "up": carrier has arrived at the queue of packets,
    /// which comes a moment after the carrier flag. Before, what is sent is lost.
    operational: bool,
}

/// The twins, and what was last heard of each.
#[derive(Debug)]
pub(super) struct Links {
    twins: Vec<(TwinInfo, Option<State>)>,
}

/// What a link message changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LinkChange {
    /// The news for the control loop, when there is any.
    pub(super) event: Option<NetEvent>,
    /// The port whose twin can send from now on: it is up and operational.
    pub(super) ready: Option<PortId>,
}

impl Links {
    pub(super) fn new(twins: Vec<TwinInfo>) -> Links {
        Links {
            twins: twins.into_iter().map(|twin| (twin, None)).collect(),
        }
    }

    /// The port whose twin has this index; `None` for any other interface.
    pub(super) fn port(&self, ifindex: u32) -> Option<PortId> {
        let (twin, _) = self
            .twins
            .iter()
            .find(|(twin, _)| twin.ifindex == ifindex)?;
        Some(twin.port)
    }

    /// The index of the port's twin.
    pub(super) fn ifindex(&self, port: PortId) -> Option<u32> {
        let (twin, _) = self.twins.iter().find(|(twin, _)| twin.port == port)?;
        Some(twin.ifindex)
    }

    /// The MAC address of the twin with this index, once it is known.
    pub(super) fn mac(&self, ifindex: u32) -> Option<Mac> {
        let (_, state) = self
            .twins
            .iter()
            .find(|(twin, _)| twin.ifindex == ifindex)?;
        Some(state.as_ref()?.mac)
    }

    /// Takes in an RTM_NEWLINK, or an RTM_DELLINK (`deleted`).
    pub(super) fn take(&mut self, message: &LinkMessage, deleted: bool) -> LinkChange {
        let none = LinkChange {
            event: None,
            ready: None,
        };
        // Bridges send messages of their own kind about their ports.
        if message.header.interface_family != AddressFamily::Unspec {
            return none;
        }
        let index = message.header.index;
        let Some((twin, old)) = self
            .twins
            .iter_mut()
            .find(|(twin, _)| twin.ifindex == index)
        else {
            return none;
        };
        let Some(mut new) = read(message) else {
            return none;
        };
        if deleted {
            new.up = false;
            new.operational = false;
        }
        let shown = |s: &State| (s.mac, s.mtu, s.up);
        let can_send = |s: &State| s.up && s.operational;
        let changed = old.as_ref().map(shown) != Some(shown(&new));
        let ready = can_send(&new) && !old.as_ref().is_some_and(can_send);
        *old = Some(new);
        LinkChange {
            event: changed.then_some(NetEvent::Link {
                port: twin.port,
                mac: new.mac,
                mtu: new.mtu,
                up: new.up,
            }),
            ready: ready.then_some(twin.port),
        }
    }
}

fn read(message: &LinkMessage) -> Option<State> {
    let mut mac = None;
    let mut mtu = None;
    let mut operational = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => mac = bytes.as_slice().try_into().ok().map(Mac),
            LinkAttribute::Mtu(bytes) => mtu = Some(u16::try_from(*bytes).unwrap_or(u16::MAX)),
            LinkAttribute::OperState(state) => operational = *state == OperState::Up,
            _ => {}
        }
    }
    Some(State {
        mac: mac?,
        mtu: mtu?,
        up: message.header.flags.contains(LinkFlags::Up),
        operational,
    })
}
