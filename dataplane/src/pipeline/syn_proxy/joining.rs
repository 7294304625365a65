//! From the proof on: the server is asked in its client's name, and two handshakes become one
//! connection (`forward/splice.rs` has its numbers, options and windows).
//!
//! ```text
//!              client's packets                server's packets
//!  Waiting     held, or for it to repeat       a SYN-ACK joins, a reset refuses
//!  Joined      as the server understands them  as the client does
//!  Refused     dropped                         dropped
//! ```
#![forbid(unsafe_code)]

use super::Numbers;
use crate::conn::side::SideId;
use crate::conn::state::Direction;
use crate::conn::{ConnId, Hit};
use crate::counters::DropReason;
use crate::defense::cookie::Offer;
use crate::forward::carrier::{ClientAddress, stream, tcp_data_len};
use crate::forward::splice::{self, Segment, Splice, Stage};
use crate::io::{Frame, PortQueue};
use crate::packet::tcp::flags::{ACK, FIN, RST, SYN};
use crate::packet::{Flow, checksum, eth, put16, tcp};
use crate::pipeline::family::Family;
use crate::types::Tick;
use crate::worker::Worker;

impl<Q: PortQueue> Worker<Q> {
    /// A connection was opened by proof: its server is asked in the client's name, and the
    /// client's packet waits.
    pub(in crate::pipeline) fn begin_splice<K: Family>(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        flow: &Flow<K>,
        id: ConnId,
        offer: Offer,
        now: Tick,
    ) {
        self.counters.cookies_valid.add(1);
        self.begin_carrying::<K>(id, SYN, now);
        let conn = K::side_mut(&mut self.sides).conns.get_mut(id);
        if conn.mode().is_one_way() {
            // Answers would go past us: the configuration has none of these.
            self.counters.dropped(DropReason::NoServer);
            self.counters.conns_expired.add(1);
            return self.close::<K>(id);
        }
        let record = match conn.side() {
            Some(record) => Some(record),
            None => self.records.take(ClientAddress::none, now),
        };
        conn.set_side(record);
        let server = conn.server_id();
        let service = self.snapshot.server(server);
        let service = service.and_then(|s| self.snapshot.service(s.service));
        let own_scale = service.map_or(0, |s| s.policy.syn_proxy.window_scale);
        let numbers = Numbers::of(frame.bytes(), flow);
        let slot = match self.proxies.hold.begin(now) {
            Some(slot) => Some(slot),
            None => {
                self.make_hold_room();
                self.proxies.hold.begin(now)
            }
        };
        let (Some(record), Some(slot)) = (record, slot) else {
            self.counters.dropped(DropReason::AwaitingServer);
            self.counters.conns_expired.add(1);
            return self.close::<K>(id);
        };
        let offer = Offer {
            timestamps: numbers.clock,
            ..offer
        };
        self.records.get_mut(record).splice =
            Splice::waiting(offer, own_scale, (numbers.isn, numbers.ack), slot);
        let port = self.lanes[lane].port.id;
        // A slot that has just been taken has room.
        let _ = self.proxies.hold.add(slot, port, frame);
        self.note_held();
        self.send_syn::<K>(flow, id, slot, now);
    }

    /// Sends the server a SYN in the client's name; `flow` is that of the first packet held in
    /// `slot`. Without a buffer for it, it goes the next time.
    pub(super) fn send_syn<K: Family>(&mut self, flow: &Flow<K>, id: ConnId, slot: u16, now: Tick) {
        let conn = K::side(&self.sides).conns.get(id);
        let (Some(record), Some((port, first))) =
            (conn.side(), self.proxies.hold.held(slot).first())
        else {
            return;
        };
        let (port, splice) = (*port, self.records.get_mut(record).splice);
        let headers = usize::from(flow.l4) + tcp::MIN_LEN;
        let Some(mut syn) = self.pool.alloc(headers) else {
            return;
        };
        let window = u32::from(Numbers::of(first.bytes(), flow).window);
        let f = syn.bytes_mut();
        f.copy_from_slice(&first.bytes()[..headers]);
        if eth::ethertype(f) == Ok(eth::IPV4) {
            put16(f, eth::HEADER_LEN + 4, self.ids.next16());
            checksum::set_ipv4(f);
        }
        let offer = &splice.offer;
        let clock = offer.timestamps.map(|(clock, _)| (clock, 0));
        let options = splice::options(Some(offer.mss), offer.sack, clock, offer.window_scale);
        let segment = Segment {
            seq: splice.client_isn,
            ack: 0,
            flags: SYN,
            // A SYN's window is never shifted (RFC 7323 2.2).
            window: (window << offer.window_scale.unwrap_or(0)).min(0xffff) as u16,
            options: &options,
        };
        let mut flow = *flow;
        if segment.write(&mut syn, &mut flow).is_err() {
            return;
        }
        self.counters.generated.add(1);
        let dir = Direction::Inbound;
        let lane = usize::from(port.0);
        self.carried_from_client(lane, syn, &flow, Hit { id, dir }, record, now);
    }

    /// A client's packet on such a connection: as its server understands it, or nothing if it
    /// does not go on.
    pub(in crate::pipeline) fn spliced_in<K: Family>(
        &mut self,
        lane: usize,
        mut frame: Q::Frame,
        flow: &Flow<K>,
        hit: Hit,
        record: SideId,
        now: Tick,
    ) -> Option<Q::Frame> {
        let splice = &self.records.get_mut(record).splice;
        match (splice.stage, splice.held) {
            (Stage::Plain, _) => Some(frame),
            (Stage::Joined, _) => {
                splice.towards_server(frame.bytes_mut(), flow);
                Some(frame)
            }
            (Stage::Waiting, Some(slot)) => {
                self.wait(lane, frame, flow, (hit, record, slot), now);
                None
            }
            (Stage::Refused | Stage::Waiting, _) => {
                self.counters.dropped(DropReason::ServerSilent);
                None
            }
        }
    }

    /// A client's packet before its server has answered.
    fn wait<K: Family>(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        flow: &Flow<K>,
        (hit, record, slot): (Hit, SideId, u16),
        now: Tick,
    ) {
        if flow.says & RST != 0 {
            // It wants nothing any more, and its server had better know.
            let held = self.proxies.hold.end(slot);
            self.give_up_held(held, DropReason::ServerSilent);
            self.records.get_mut(record).splice.held = None;
            self.carried_from_client(lane, frame, flow, hit, record, now);
            self.counters.conns_expired.add(1);
            return self.close::<K>(hit.id);
        }
        let seq = stream::number(frame.bytes(), flow, tcp::SEQ_AT);
        let carries = tcp_data_len(frame.bytes(), flow) > 0 || flow.says & FIN != 0;
        let is_there = self.proxies.hold.held(slot).iter().any(|(_, held)| {
            let held = held.bytes();
            let there = stream::number(held, flow, tcp::SEQ_AT) == seq;
            there && held.len() >= frame.bytes().len()
        });
        if !carries || flow.says & SYN != 0 || is_there {
            return self.counters.dropped(DropReason::AwaitingServer);
        }
        let port = self.lanes[lane].port.id;
        if self.proxies.hold.add(slot, port, frame).is_err() {
            self.counters.dropped(DropReason::AwaitingServer);
        }
        self.note_held();
    }

    /// A server's packet on such a connection. It goes on, or not, from here.
    pub(in crate::pipeline) fn spliced_out<K: Family>(
        &mut self,
        lane: usize,
        mut frame: Q::Frame,
        flow: &Flow<K>,
        hit: Hit,
        record: SideId,
        now: Tick,
    ) {
        let splice = &self.records.get_mut(record).splice;
        let mut flow = *flow;
        let seq = stream::number(frame.bytes(), &flow, tcp::SEQ_AT);
        let is_syn_ack = flow.says & (SYN | RST | ACK) == SYN | ACK;
        match (splice.stage, splice.held) {
            (Stage::Joined, _) if is_syn_ack && splice.joined_by(seq) => {
                let offered = Offer::of(frame.bytes(), &flow);
                splice.make_ack(&mut frame, &mut flow, &offered, true);
            }
            (Stage::Plain, _) => {}
            (Stage::Joined, _) => splice.towards_client(frame.bytes_mut(), &flow),
            (Stage::Waiting, Some(slot)) => {
                return self.syn_answered(lane, frame, &flow, (hit, record, slot), now);
            }
            (Stage::Refused | Stage::Waiting, _) => {
                return self.counters.dropped(DropReason::ServerSilent);
            }
        }
        self.carried_on(lane, frame, &flow, hit, now);
    }

    /// What a server answers to Weir's SYN.
    fn syn_answered<K: Family>(
        &mut self,
        lane: usize,
        mut frame: Q::Frame,
        flow: &Flow<K>,
        (hit, record, slot): (Hit, SideId, u16),
        now: Tick,
    ) {
        let mut flow = *flow;
        let splice = &mut self.records.get_mut(record).splice;
        let seq = stream::number(frame.bytes(), &flow, tcp::SEQ_AT);
        let ack = stream::number(frame.bytes(), &flow, tcp::ACK_AT);
        let is_ours = flow.says & ACK != 0 && ack == splice.client_isn.wrapping_add(1);
        if !splice::is_sound(frame.bytes(), &flow) {
            return self.counters.dropped(DropReason::BadL4Checksum);
        }
        if flow.says & RST != 0 {
            if !is_ours {
                return self.counters.dropped(DropReason::ServerSilent);
            }
            (splice.stage, splice.held) = (Stage::Refused, None);
            splice.make_refusal(&mut frame, &mut flow);
            self.carried_on(lane, frame, &flow, hit, now);
            let held = self.proxies.hold.end(slot);
            self.give_up_held(held, DropReason::ServerSilent);
            return self.note_held();
        }
        if flow.says & SYN == 0 || !is_ours {
            // Of an older connection of that local port: the server is told that it is over, as
            // a client would, and the SYN goes again (RFC 9293 3.5, figure 9).
            return self.reset_back(lane, frame);
        }
        let offered = Offer::of(frame.bytes(), &flow);
        let asked = splice.offer;
        splice.join(seq, &offered);
        let says = flow.says;
        splice.make_ack(&mut frame, &mut flow, &offered, false);
        flow.says = says; // to the state it is what it was
        let server = K::side(&self.sides).conns.get(hit.id).server_id();
        let service = self.snapshot.server(server).map(|s| s.service.0 as usize);
        if let Some(watch) = service.and_then(|at| self.proxies.watches.get_mut(at)) {
            watch.refused.note(&asked, &offered);
        }
        self.carried_on(lane, frame, &flow, hit, now);
        for (port, frame) in self.proxies.hold.end(slot) {
            self.resume(usize::from(port.0), frame, now);
        }
        self.note_held();
    }
}
