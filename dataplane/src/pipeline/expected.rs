//! Data connections, which were announced on another connection (`pipeline/helped.rs`).
//!
//! ```text
//!  passive   client:any -> VIP:port     opens like any other connection, but for whom it goes to
//!  active    server:any -> client:port  (NAT), or LIP:lport (FULL-NAT)
//!            The worker that meets it finds the owner of the client's packets, which are
//!            client:port -> VIP:20, keeps a redirect to it for the server's packets (see
//!            errands.rs), and passes this one there (`Call`); that one opens the connection.
//! ```
//! The first packet binds what is expected to its port: repeated, it is met again, and another one
//! is not. All but the worker that met it forget it.
#![forbid(unsafe_code)]

use super::family::Family;
use super::open::{Opened, Refusal};
use crate::conn::Hit;
use crate::conn::entry::{Flags, NewConn};
use crate::conn::state::Direction;
use crate::counters::DropReason;
use crate::forward::ForwardMode;
use crate::helper::expected::{Expected, Wanted};
use crate::io::{Frame, PortQueue};
use crate::packet::tcp::flags::{ACK, SYN};
use crate::packet::{self, Flow, Key4, Key6, Parsed};
use crate::steer::{Keys, Message, Progress};
use crate::types::{Proto, Tick};
use crate::worker::Worker;

impl<Q: PortQueue> Worker<Q> {
    /// The data connection that a packet without a connection is the first of.
    #[cold]
    pub(super) fn find_expected<K: Family>(
        &mut self,
        flow: &Flow<K>,
        now: Tick,
    ) -> Option<Expected> {
        if flow.key.proto() != Proto::Tcp || flow.says & (SYN | ACK) != SYN {
            return None;
        }
        let wanted = Wanted::by(&flow.key.widened());
        if self.expected.get(&wanted, now).is_none() {
            if self.snapshot.listens(Proto::Tcp, flow.key.destination()) {
                return None;
            }
            // Its announcement may have come while this burst was under way.
            self.take_errands(now);
        }
        let port = flow.key.sport();
        let expected = self.expected.get(&wanted, now)?;
        let bound = expected.from_port;
        if bound != 0 && bound != port {
            return None;
        }
        expected.from_port = port;
        let found = *expected;
        if bound == 0 {
            self.tell_all(Message::Forget(wanted));
        }
        Some(found)
    }

    /// The first packet of a data connection.
    #[cold]
    pub(super) fn meet<K: Family>(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        flow: &Flow<K>,
        expected: &Expected,
        now: Tick,
    ) {
        if !expected.is_active {
            let opened = self.open_passive(flow, expected, now);
            return self.go_on(lane, frame, flow, opened, now);
        }
        let keys = called_keys(flow, expected);
        let owner = self.steer.owner(&keys.inbound);
        if owner == self.steer.me() {
            return self.called(lane, frame, expected, now);
        }
        // Before that one forwards it: what the server says next is answered within microseconds.
        if !self.redirect(keys, owner, now) {
            return self.counters.dropped(DropReason::ReplyKeyTaken);
        }
        let port = self.lanes[lane].port.id;
        self.send_errand(owner, Message::Call(*expected), Some((port, frame)));
    }

    /// Opens the connection of a client to what its server announced.
    fn open_passive<K: Family>(
        &mut self,
        flow: &Flow<K>,
        expected: &Expected,
        now: Tick,
    ) -> Result<Opened, Refusal> {
        let key = &flow.key;
        let server = self.snapshot.server(expected.server).copied();
        let server = server.ok_or(DropReason::NoServer)?;
        let address = expected.target();
        let new = |inbound, outbound| NewConn {
            inbound,
            outbound,
            server_id: server.id,
            mode: server.forward,
            flags: Flags::NONE,
        };
        if server.forward == ForwardMode::fullnat {
            let (steer, proto, local) = (&self.steer, key.proto(), expected.seen_as().ip());
            if address.is_ipv6() == key.source().is_ipv6() {
                let side = K::side_mut(&mut self.sides);
                let leased =
                    side.local_ports
                        .lease_at(steer, &side.conns, proto, server.id, address, local);
                let leased = leased.ok_or(DropReason::LipExhausted)?;
                self.give_up_early::<K>(leased.early);
                return Ok(Opened::Same(self.insert(&new(*key, leased.reply), now)?));
            }
            let side = &mut self.sides.v6;
            let leased =
                side.local_ports
                    .lease_at(steer, &side.conns, proto, server.id, address, local);
            let leased = leased.ok_or(DropReason::LipExhausted)?;
            self.give_up_early::<Key6>(leased.early);
            let conn = NewConn {
                inbound: key.widened(),
                outbound: leased.reply,
                server_id: server.id,
                mode: server.forward,
                flags: Flags::TRANSLATED,
            };
            return Ok(Opened::Translated(self.insert(&conn, now)?));
        }
        if server.forward != ForwardMode::nat {
            return Err(DropReason::NoServer.into()); // its mode changed meanwhile
        }
        let answers = K::between(Proto::Tcp, address, key.source()).ok_or(DropReason::NoServer)?;
        let owner = self.steer.owner(&answers);
        if owner != self.steer.me() {
            // No other one will do, whatever its threshold.
            let progress = Progress {
                server: Some(server.id),
                ..Progress::default()
            };
            return Err(self.ask_for(owner, (key, &answers), server.id, progress));
        }
        let conns = &K::side(&self.sides).conns;
        match conns.lookup(conns.hash(&answers), &answers) {
            None => Ok(Opened::Same(self.insert(&new(*key, answers), now)?)),
            Some(_) => Err(DropReason::ReplyKeyTaken.into()),
        }
    }

    /// A server's first packet, at the owner of its client's packets.
    pub(super) fn called(&mut self, lane: usize, frame: Q::Frame, expected: &Expected, now: Tick) {
        match packet::parse(frame.bytes(), true) {
            Ok(Parsed::Flow(flow)) => match called_keys(&flow, expected).inbound.unmapped() {
                Some(inbound) => self.called_in::<Key4>(lane, frame, &flow, inbound, expected, now),
                None => {
                    let (flow, keys) = (
                        flow.with_key(flow.key.widened()),
                        called_keys(&flow, expected),
                    );
                    self.called_in::<Key6>(lane, frame, &flow, keys.inbound, expected, now);
                }
            },
            Ok(Parsed::Flow6(flow)) => {
                let inbound = called_keys(&flow, expected).inbound;
                self.called_in::<Key6>(lane, frame, &flow, inbound, expected, now);
            }
            _ => self.counters.dropped(DropReason::NoConnection), // it was one when it was met
        }
    }

    fn called_in<K: Family>(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        flow: &Flow<K>,
        inbound: K,
        expected: &Expected,
        now: Tick,
    ) {
        match self.open_active(inbound, flow.key, expected, now) {
            Ok(hit) => self.carry_on(lane, frame, flow, hit, now),
            Err(reason) => {
                self.counters.dropped(reason);
                if self.steer.owner(&flow.key) != self.steer.me() {
                    self.release(called_keys(flow, expected));
                }
            }
        }
    }

    /// Opens the connection of a server to where its client waits; the packet may be repeated.
    fn open_active<K: Family>(
        &mut self,
        inbound: K,
        outbound: K,
        expected: &Expected,
        now: Tick,
    ) -> Result<Hit, DropReason> {
        let conns = &K::side(&self.sides).conns;
        let [had, known] = [inbound, outbound].map(|key| conns.lookup(conns.hash(&key), &key));
        if let Some(hit) = known.filter(|hit| conns.get(hit.id).key(Direction::Inbound) == inbound)
        {
            return Ok(hit);
        }
        // Whoever had one of the two keys before must have no use for it any more.
        let is_over = |hit: &Hit| conns.get(hit.id).state().is_closing();
        if !known.iter().chain(&had).all(is_over) {
            return Err(DropReason::ReplyKeyTaken);
        }
        self.give_up_early::<K>(known.map(|hit| hit.id));
        if let Some(old) = had {
            self.give_up::<K>(old.id);
        }
        let server = self.snapshot.server(expected.server).copied();
        let server = server.ok_or(DropReason::NoServer)?;
        let mut flags = match self.steer.owner(&outbound) == self.steer.me() {
            true => Flags::NONE,
            false => Flags::REDIRECTED,
        };
        let rip = outbound.source().ip().to_canonical();
        if expected.target().is_ipv6() != rip.is_ipv6() {
            flags = flags.with(Flags::TRANSLATED);
        }
        let new = NewConn {
            inbound,
            outbound,
            server_id: server.id,
            mode: server.forward,
            flags,
        };
        let id = self.insert(&new, now)?;
        let conn = K::side_mut(&mut self.sides).conns.get_mut(id);
        conn.belongs_to(expected.control);
        self.counters.data_conns.add(1);
        let dir = Direction::Outbound;
        Ok(Hit { id, dir })
    }
}

/// The keys of the connection that a server's first packet opens.
fn called_keys<K: Family>(flow: &Flow<K>, expected: &Expected) -> Keys {
    Keys {
        inbound: Key6::new(Proto::Tcp, expected.target(), expected.seen_as()),
        outbound: flow.key.widened(),
    }
}
