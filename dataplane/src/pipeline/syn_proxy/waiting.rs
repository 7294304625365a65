//! Clients whose server has not answered yet: their packets go on, or their SYN goes again, or they
//! are given up.
#![forbid(unsafe_code)]

use crate::conn::Hit;
use crate::counters::DropReason;
use crate::defense::hold::{Held, SYNS};
use crate::io::{BURST, Frame, PortQueue};
use crate::packet::{self, Flow, Key4, Key6, Parsed};
use crate::pipeline::reset::make_reset;
use crate::types::Tick;
use crate::worker::Worker;

/// A held packet's flow, as its connection is kept, and where that is.
enum Waiting {
    V4(Flow, Hit),
    V6(Flow<Key6>, Hit),
}

impl<Q: PortQueue> Worker<Q> {
    /// A packet that was held goes on as if it came now.
    pub(super) fn resume(&mut self, lane: usize, frame: Q::Frame, now: Tick) {
        match self.waiting_for(&frame) {
            Some(Waiting::V4(flow, hit)) => self.carry_on(lane, frame, &flow, hit, now),
            Some(Waiting::V6(flow, hit)) => self.carry_on(lane, frame, &flow, hit, now),
            None => self.counters.dropped(DropReason::ServerSilent),
        }
    }

    /// The connection of a packet that was held.
    fn waiting_for(&self, frame: &Q::Frame) -> Option<Waiting> {
        match packet::parse(frame.bytes(), true) {
            Ok(Parsed::Flow(flow)) => {
                let conns = &self.sides.v4.conns;
                if let Some(hit) = conns.lookup(conns.hash(&flow.key), &flow.key) {
                    return Some(Waiting::V4(flow, hit));
                }
                let (flow, hit) = self.find_translated(&flow)?;
                Some(Waiting::V6(flow, hit))
            }
            Ok(Parsed::Flow6(flow)) => {
                let conns = &self.sides.v6.conns;
                let hit = conns.lookup(conns.hash(&flow.key), &flow.key)?;
                Some(Waiting::V6(flow, hit))
            }
            _ => None,
        }
    }

    /// Of the first packet held in `slot`, its connection, if that still waits for it.
    fn still_waiting(&mut self, slot: u16) -> Option<Waiting> {
        let (_, first) = self.proxies.hold.held(slot).first()?;
        let waiting = self.waiting_for(first)?;
        let record = match &waiting {
            Waiting::V4(_, hit) => self.sides.v4.conns.get(hit.id).side(),
            Waiting::V6(_, hit) => self.sides.v6.conns.get(hit.id).side(),
        };
        let splice = &self.records.get_mut(record?).splice;
        (splice.held == Some(slot)).then_some(waiting)
    }

    /// Repeats SYNs that were not answered, and gives up those that will not be: how many.
    pub(crate) fn repeat_syns(&mut self, now: Tick) -> usize {
        for n in 0..BURST {
            let Some((slot, went)) = self.proxies.hold.due(now) else {
                return n;
            };
            match self.still_waiting(slot) {
                Some(Waiting::V4(flow, hit)) if went < SYNS => {
                    self.counters.syns_repeated.add(1);
                    self.send_syn(&flow, hit.id, slot, now);
                }
                Some(Waiting::V6(flow, hit)) if went < SYNS => {
                    self.counters.syns_repeated.add(1);
                    self.send_syn(&flow, hit.id, slot, now);
                }
                waiting => {
                    let mut held = self.proxies.hold.end(slot);
                    if waiting.is_some() {
                        let (port, first) = held.remove(0);
                        self.reset_back(usize::from(port.0), first);
                    }
                    self.give_up_held(held, DropReason::ServerSilent);
                    self.counters.conns_expired.add(waiting.is_some().into());
                    self.close_waiting(waiting);
                }
            }
        }
        BURST
    }

    /// The client whose turn is next gives its slot up. It hears nothing of that: what it sends
    /// again proves it again.
    #[cold]
    pub(super) fn make_hold_room(&mut self) {
        if let Some(slot) = self.proxies.hold.oldest() {
            let waiting = self.still_waiting(slot);
            let held = self.proxies.hold.end(slot);
            self.give_up_held(held, DropReason::AwaitingServer);
            self.counters.conns_evicted.add(waiting.is_some().into());
            self.close_waiting(waiting);
        }
    }

    fn close_waiting(&mut self, waiting: Option<Waiting>) {
        match waiting {
            Some(Waiting::V4(_, hit)) => self.close::<Key4>(hit.id),
            Some(Waiting::V6(_, hit)) => self.close::<Key6>(hit.id),
            None => {}
        }
    }

    pub(super) fn give_up_held(&self, held: Held<Q::Frame>, reason: DropReason) {
        self.counters.drops[reason as usize].add(held.len() as u64);
    }

    /// Drops all that is held: the worker stops.
    pub(crate) fn drop_held(&mut self) {
        while let Some(slot) = self.proxies.hold.oldest() {
            let held = self.proxies.hold.end(slot);
            self.give_up_held(held, DropReason::ServerSilent);
        }
    }

    /// Turns a packet into the reset that answers it, and sends it.
    pub(super) fn reset_back(&mut self, lane: usize, mut frame: Q::Frame) {
        let mac = self.lanes[lane].port.mac;
        let made = match packet::parse(frame.bytes(), true) {
            Ok(Parsed::Flow(flow)) => make_reset(&mut frame, &flow, mac),
            Ok(Parsed::Flow6(flow)) => make_reset(&mut frame, &flow, mac),
            _ => false,
        };
        match made {
            true => self.transmit(lane, frame),
            false => self.counters.dropped(DropReason::NoBuffer),
        }
    }
}
