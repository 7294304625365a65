//! Where a packet goes next: what was kept of the way there, the look-up where nothing was, and the
//! wait for a MAC address.
#![forbid(unsafe_code)]

use super::family::Family;
use super::{INBOUND, OUTBOUND};
use crate::command::Event;
use crate::conn::{Conn, ConnId};
use crate::counters::DropReason;
use crate::forward::ForwardMode;
use crate::forward::tun::Ends;
use crate::io::{Frame, PortQueue};
use crate::route::{Fib, Hop, Neighbours, Reach, Way};
use crate::service::Server;
use crate::types::Tick;
use crate::worker::Worker;

/// Where a rewritten packet goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Next {
    /// To a neighbour whose MAC is known.
    Known(Reach),
    /// To a neighbour whose MAC has to be asked for.
    Ask(Hop),
}

impl<Q: PortQueue> Worker<Q> {
    /// The next hop towards the server or the client, if it is known where the last packet left
    /// it.
    #[inline(always)]
    pub(super) fn reach<K: Family, const DIR: bool>(&self, id: ConnId) -> Option<Reach> {
        let conn = K::side(&self.sides).conns.get(id);
        match DIR {
            INBOUND => self.servers.get(conn.server_id())?.reach,
            OUTBOUND => client_reach(conn, &self.neighbours, &self.fib),
        }
    }

    /// As [`Worker::reach`], looked up where it is not.
    pub(super) fn next_hop<K: Family, const DIR: bool>(
        &mut self,
        id: ConnId,
    ) -> Result<Next, DropReason> {
        match self.reach::<K, DIR>(id) {
            Some(reach) => Ok(Next::Known(reach)),
            None => self.find_hop::<K, DIR>(id),
        }
    }

    /// Largest IP packet that fits the link to `next`, bytes.
    pub(super) fn mtu(&self, next: Next) -> u16 {
        match next {
            Next::Known(reach) => reach.mtu(),
            Next::Ask(hop) => self.lanes[usize::from(hop.port.0)].port.mtu,
        }
    }

    /// Sends a finished packet, which fits the link, to its next hop.
    pub(super) fn send_to(&mut self, next: Next, frame: Q::Frame, now: Tick) {
        match next {
            Next::Known(reach) => self.emit(reach, frame),
            Next::Ask(hop) => self.park(hop, frame, now),
        }
    }

    /// Sends a finished packet, which fits the link, to a neighbour.
    #[inline(always)]
    pub(super) fn emit(&mut self, reach: Reach, mut frame: Q::Frame) {
        reach.address(frame.bytes_mut());
        self.transmit(usize::from(reach.port().0), frame);
    }

    /// As [`Worker::reach`], of a first packet: looked up.
    #[cold]
    pub(super) fn find_reach<K: Family, const DIR: bool>(&mut self, id: ConnId) -> Option<Reach> {
        if DIR == OUTBOUND {
            let way = self.way_to_client::<K>(id)?;
            return self.keep_client_hop::<K>(id, way.hop);
        }
        match self.find_hop::<K, DIR>(id) {
            Ok(Next::Known(reach)) => Some(reach),
            _ => None,
        }
    }

    /// What the routes say of the way to a connection's client.
    #[inline]
    fn way_to_client<K: Family>(&self, id: ConnId) -> Option<Way> {
        self.fib
            .lookup(K::side(&self.sides).conns.get(id).client().ip())
    }

    /// Keeps the next hop towards a client in its connection. If it is known, and its MAC is, that.
    #[inline]
    fn keep_client_hop<K: Family>(&mut self, id: ConnId, hop: Hop) -> Option<Reach> {
        let hop = self.neighbours.find(hop)?;
        let conn = K::side_mut(&mut self.sides).conns.get_mut(id);
        (conn.client_hop, conn.route_epoch) = (hop, self.fib.epoch);
        self.neighbours.get(hop)
    }

    /// Looks the next hop up, and keeps it where the next packet looks first.
    #[cold]
    pub(super) fn find_hop<K: Family, const DIR: bool>(
        &mut self,
        id: ConnId,
    ) -> Result<Next, DropReason> {
        if DIR == OUTBOUND {
            let way = self.way_to_client::<K>(id).ok_or(DropReason::NoRoute)?;
            let reach = self.keep_client_hop::<K>(id, way.hop);
            return Ok(reach.map_or(Next::Ask(way.hop), Next::Known));
        }
        let conn = K::side(&self.sides).conns.get(id);
        if conn.mode() == ForwardMode::snat {
            return self.find_far_hop::<K>(id);
        }
        let towards = match self.snapshot.server(conn.server_id()) {
            Some(server) => server.address.ip(), // of a tunnel, its far end
            None => conn.server().ip(),
        };
        let way = self.fib.lookup(towards).ok_or(DropReason::NoRoute)?;
        let Some(hop) = self.neighbours.find(way.hop) else {
            return Ok(Next::Ask(way.hop));
        };
        let reach = self.neighbours.get(hop);
        let server = conn.server_id();
        let tunnel = self.snapshot.server(server).and_then(Server::tunnelled);
        let ends = way.source.and_then(|from| Ends::new(from, towards));
        self.servers.keep(server, (hop, reach), tunnel.zip(ends));
        Ok(match reach {
            Some(reach) => Next::Known(reach),
            None => Next::Ask(way.hop),
        })
    }

    /// Lets a finished frame wait for its next hop's MAC, and has control ask for it.
    #[cold]
    fn park(&mut self, hop: Hop, frame: Q::Frame, now: Tick) {
        match self.parking.park(frame, hop, now) {
            Ok(first) => {
                self.note_held();
                if first {
                    self.tell(Event::Resolve {
                        port: hop.port,
                        addr: hop.addr,
                    });
                }
            }
            Err(_) => self.counters.dropped(DropReason::NeighbourQueueFull),
        }
    }
}

/// The next hop towards a connection's client, if it is known where the last packet left it.
#[inline(always)]
pub(super) fn client_reach<K: Family>(
    conn: &Conn<K>,
    neighbours: &Neighbours,
    fib: &Fib,
) -> Option<Reach> {
    match conn.route_epoch == fib.epoch {
        true => neighbours.get(conn.client_hop),
        false => None,
    }
}
