//! What a packet needs of its server, side by side: one look instead of three.
#![forbid(unsafe_code)]

use crate::conn::state::State;
use crate::counters::{ServerCells, ServerTable};
use crate::forward::tun::{Ends, Tunnel};
use crate::route::{NeighbourId, Reach};
use crate::service::Snapshot;
use crate::types::{Proto, ServerId};

/// A server as its packets find it.
#[derive(Debug, Clone)]
pub(crate) struct AtHand {
    /// The next hop there; `None`: to be looked up.
    pub(crate) reach: Option<Reach>,
    /// Its counters.
    pub(crate) cells: Option<ServerCells>,
    /// The tunnel that packets take there, if they do. As fresh as the hop.
    pub(crate) tunnel: Option<(Tunnel, Ends)>,
    /// Whose `reach` it is.
    hop: NeighbourId,
    /// How long connections last without packets in ESTABLISHED and in UDP's state, ticks.
    established: u32,
    udp: u32,
}

impl AtHand {
    /// How long a connection lasts after a packet that keeps it in TCP's ESTABLISHED or in UDP's
    /// state, ticks.
    #[inline(always)]
    pub(crate) fn ticks(&self, proto: Proto) -> u32 {
        match proto {
            Proto::Udp => self.udp,
            _ => self.established,
        }
    }
}

/// All servers of a snapshot, by id.
#[derive(Debug, Default)]
pub(crate) struct Servers(Vec<AtHand>);

impl Servers {
    /// Follows a new snapshot, whose server ids are below `count`. An id may have got another
    /// address, so the ways are looked up anew.
    pub(super) fn follow(&mut self, snapshot: &Snapshot, count: usize, counters: &ServerTable) {
        let ids = (0..count as u32).map(ServerId);
        self.0.clear();
        self.0.extend(ids.map(|id| AtHand {
            reach: None,
            cells: counters.cells(id),
            tunnel: None,
            hop: NeighbourId::NONE,
            established: snapshot.timeouts_of(id).of(State::Established),
            udp: snapshot.timeouts_of(id).of(State::Udp),
        }));
    }

    /// The server of this id.
    #[inline(always)]
    pub(crate) fn get(&self, id: ServerId) -> Option<&AtHand> {
        self.0.get(id.0 as usize)
    }

    /// Keeps the way to a server: its next hop, which is reached so if it is, and its tunnel.
    pub(crate) fn keep(
        &mut self,
        id: ServerId,
        (hop, reach): (NeighbourId, Option<Reach>),
        tunnel: Option<(Tunnel, Ends)>,
    ) {
        if let Some(server) = self.0.get_mut(id.0 as usize) {
            (server.hop, server.reach, server.tunnel) = (hop, reach, tunnel);
        }
    }

    /// Routes or ports have changed: all ways are looked up anew.
    pub(super) fn forget_ways(&mut self) {
        for server in &mut self.0 {
            (server.reach, server.tunnel) = (None, None);
        }
    }

    /// A neighbour has changed: the ways that begin there are looked up anew.
    pub(super) fn forget_neighbour(&mut self, hop: NeighbourId) {
        for server in &mut self.0 {
            if server.hop == hop {
                server.reach = None;
            }
        }
    }
}
