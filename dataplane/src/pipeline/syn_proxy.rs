//! The SYN proxy: who opens a connection has proved to be where its packets say.
//!
//! A SYN is answered by a cookie (`defense/cookie.rs`) and forgotten. The acknowledgement that
//! brings it back opens the connection, through all that any opening goes through, and Weir
//! repeats the client's handshake towards the server (`forward/splice.rs`). Until the server has
//! answered, a few packets of the client's are held (`defense/hold.rs`), as many as the window in
//! the SYN-ACK lets it send; they follow in order. What does not fit the client repeats.
//!
//! Nothing gets stuck when packets are lost. The first acknowledgement: data that follows proves
//! as much, from the same number. The SYN or its answer: the SYN goes again, once a second; after
//! the fourth the client is reset. What ends the server's handshake: the server repeats its
//! SYN-ACK, and the client is asked for an acknowledgement.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use super::family::Family;
use super::open::{Opened, Refusal};
use super::reset::make_reset;
use crate::command::Event;
use crate::conn::entry::Flags;
use crate::conn::side::SideId;
use crate::conn::state::{Direction, State};
use crate::conn::{Conn, ConnId, Hit};
use crate::counters::DropReason;
use crate::defense::cookie::{Baker, Checked, Offer};
use crate::defense::hold::{HELD_EACH, Held, Hold, SYNS, WAITING_MAX};
use crate::defense::syn_proxy::{Mode, Watch};
use crate::forward::carrier::{ClientAddress, stream, tcp_data_len, toa};
use crate::forward::splice::{self, Segment, Splice, Stage};
use crate::io::{BURST, Frame, PortQueue};
use crate::packet::tcp::flags::{ACK, FIN, RST, SYN};
use crate::packet::{
    self, Flow, Key, Key6, Parsed, be16, checksum, eth, ipv4, ipv6, mss, put16, tcp,
};
use crate::service::{Service, Snapshot};
use crate::types::{Proto, ServiceId, Tick};
use crate::worker::{Lane, Worker};

/// What IPv4 packets grow by on their way to an IPv6 server, bytes.
const TRANSLATION: u16 = (ipv6::LEN - ipv4::MIN_LEN) as u16;

/// What one worker's SYN proxy consists of.
pub(crate) struct SynProxies<F> {
    baker: Baker,
    hold: Hold<F>,
    /// By service id.
    watches: Vec<Watch>,
    /// Whether any service has one that is not off, and any one that is automatic.
    used: bool,
    automatic: bool,
    workers: u32,
    /// What the TCP packet in hand proves, while a connection is opened for it.
    proof: Proof,
    /// When services were judged last.
    judged: Tick,
}

/// What a packet without SYN and without a connection proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// It was not asked.
    Nothing,
    Asked(Checked),
}

impl<F> SynProxies<F> {
    pub(crate) fn new(secret: [u64; 4], workers: u8, now: Tick) -> SynProxies<F> {
        SynProxies {
            baker: Baker::new(secret, now),
            hold: Hold::new(WAITING_MAX),
            watches: Vec::new(),
            used: false,
            automatic: false,
            workers: u32::from(workers).max(1),
            proof: Proof::Nothing,
            judged: now,
        }
    }

    /// Packets held.
    pub(crate) fn frames(&self) -> usize {
        self.hold.frames()
    }

    /// Takes note of a new snapshot. May allocate.
    pub(crate) fn follow(&mut self, old: &Snapshot, new: &Snapshot) {
        self.baker.follow(&new.cookies);
        (self.used, self.automatic) = (false, false);
        for service in new.services() {
            let mode = service.policy.syn_proxy.mode;
            self.used |= mode != Mode::Off;
            self.automatic |= mode == Mode::Auto;
            let id = service.id.0 as usize;
            if self.watches.len() <= id {
                self.watches.resize(id + 1, Watch::default());
            }
            let watch = &mut self.watches[id];
            match old.service(service.id).filter(|old| old.key == service.key) {
                None => *watch = Watch::default(),
                Some(old) if !old.chooses_like(service) => watch.refused = Default::default(),
                Some(_) => {}
            }
            watch.on &= mode == Mode::Auto;
        }
    }

    /// This worker's part of a service's limit.
    fn limit(&self, service: &Service) -> u32 {
        (service.policy.syn_proxy.half_open / self.workers).max(1)
    }

    /// Whether a packet may open a connection to `service`, as far as its SYN proxy is concerned.
    /// `sloppy`: it may without SYN.
    ///
    /// # Errors
    /// What is to be done with it instead.
    #[inline]
    pub(super) fn admits(
        &mut self,
        service: &Service,
        proto: Proto,
        says: u8,
        sloppy: bool,
    ) -> Result<(), Refusal> {
        let policy = &service.policy.syn_proxy;
        if policy.is_off() || proto != Proto::Tcp {
            return Ok(());
        }
        self.admits_tcp(service, says, sloppy)
    }

    fn admits_tcp(&mut self, service: &Service, says: u8, sloppy: bool) -> Result<(), Refusal> {
        let policy = &service.policy.syn_proxy;
        let (limit, proof) = (self.limit(service), self.proof);
        let Some(watch) = self.watches.get_mut(service.id.0 as usize) else {
            return Ok(());
        };
        let answers = watch.answers(policy.mode, limit);
        if says & SYN != 0 {
            let any_server = || service.servers.iter().any(|c| c.weight > 0);
            return match answers && any_server() {
                false => Ok(()),
                true if says & ACK != 0 => Err(Refusal::NoConnection), // LVS opens for it
                true => Err(Refusal::Challenge(service.id)),
            };
        }
        match proof {
            Proof::Asked(Checked::Valid(_)) => {
                watch.returned();
                Ok(())
            }
            _ if !answers && sloppy => Ok(()),
            _ if !answers => Err(Refusal::NoConnection),
            Proof::Asked(Checked::Expired) => {
                Err(Refusal::Unproven(DropReason::ExpiredCookie, policy.resets))
            }
            _ => Err(Refusal::Unproven(DropReason::InvalidCookie, policy.resets)),
        }
    }

    /// What the packet in hand proves: nothing, or what its client had offered.
    pub(super) fn take_proof(&mut self) -> Option<Offer> {
        match std::mem::replace(&mut self.proof, Proof::Nothing) {
            Proof::Asked(Checked::Valid(offer)) => Some(offer),
            _ => None,
        }
    }

    /// A half-open connection that was counted is so no more.
    #[cold]
    fn settled(&mut self, service: Option<ServiceId>) {
        let watch = service.and_then(|id| self.watches.get_mut(id.0 as usize));
        if let Some(watch) = watch {
            watch.settled();
        }
    }

    /// A connection is gone: it is not half-open any more.
    #[inline]
    pub(crate) fn gone<K: Key>(&mut self, conn: &Conn<K>, snapshot: &Snapshot) {
        if conn.flags().has(Flags::HALF_OPEN) {
            self.settled(snapshot.server(conn.server_id()).map(|s| s.service));
        }
    }
}

/// The numbers that a client's acknowledgement of a SYN-ACK has.
struct Numbers {
    isn: u32,
    ack: u32,
    window: u16,
    clock: Option<(u32, u32)>,
}

impl Numbers {
    fn of<K: Key>(frame: &[u8], flow: &Flow<K>) -> Numbers {
        Numbers {
            isn: stream::number(frame, flow, tcp::SEQ_AT).wrapping_sub(1),
            ack: stream::number(frame, flow, tcp::ACK_AT),
            window: be16(frame, usize::from(flow.l4) + tcp::WINDOW_AT),
            clock: Offer::of(frame, flow).timestamps,
        }
    }
}

/// Whether a packet may be the one that brings a cookie back.
#[inline]
pub(super) fn may_prove(service: &Service, says: u8) -> bool {
    !service.policy.syn_proxy.is_off() && says & (SYN | RST | ACK) == ACK
}

impl<Q: PortQueue> Worker<Q> {
    /// Notes what a packet without a connection proves, before one is opened for it.
    #[inline]
    pub(super) fn note_proof<K: Family>(&mut self, frame: &Q::Frame, flow: &Flow<K>, now: Tick) {
        if self.proxies.used && flow.says & (SYN | RST | ACK) == ACK {
            self.check_proof(frame, flow, now);
        }
    }

    fn check_proof<K: Family>(&mut self, frame: &Q::Frame, flow: &Flow<K>, now: Tick) {
        if flow.key.proto() != Proto::Tcp {
            return;
        }
        let numbers = Numbers::of(frame.bytes(), flow);
        let checked = self.proxies.baker.check(
            &flow.key.widened(),
            numbers.isn,
            numbers.ack.wrapping_sub(1),
            numbers.clock.is_some(),
            now,
        );
        let sound = checked == Checked::Invalid || splice::is_sound(frame.bytes(), flow);
        self.proxies.proof = match sound {
            true => Proof::Asked(checked),
            false => Proof::Nothing,
        };
    }

    /// Answers a SYN by a cookie, and forgets it.
    pub(super) fn challenge<K: Family>(
        &mut self,
        lane: usize,
        mut frame: Q::Frame,
        flow: &Flow<K>,
        service: ServiceId,
        now: Tick,
    ) {
        if !splice::is_sound(frame.bytes(), flow) {
            return self.counters.dropped(DropReason::BadL4Checksum);
        }
        let (Some(service), Some(watch)) = (
            self.snapshot.service(service),
            self.proxies.watches.get_mut(service.0 as usize),
        ) else {
            return self.counters.dropped(DropReason::NoConnection);
        };
        watch.sent();
        let asked = Offer::of(frame.bytes(), flow);
        // What both ends will use: as the client wishes, unless its servers are known not to.
        let agreed = Offer {
            mss: asked.mss,
            ..watch.refused.out_of(asked)
        };
        let policy = &service.policy.syn_proxy;
        let clock = self.proxies.baker.clock_ms(now);
        let fits = fitting(&self.lanes, service, flow.key.source());
        let own = watch.refused.out_of(Offer {
            mss: fits.min(policy.mss),
            window_scale: agreed.window_scale.map(|_| policy.window_scale),
            sack: agreed.sack,
            timestamps: agreed.timestamps.map(|(theirs, _)| (clock, theirs)),
        });
        let isn = stream::number(frame.bytes(), flow, tcp::SEQ_AT);
        let key = flow.key.widened();
        let cookie = self.proxies.baker.bake(&key, isn, &agreed, now);
        // The first acknowledgement, and what this lets follow, is all held.
        let window = u32::from(own.mss) * (HELD_EACH as u32 - 1);
        let window = window.min(0xffff) as u16;
        let mac = self.lanes[lane].port.mac;
        if splice::make_syn_ack(&mut frame, flow, (cookie, window), &own, mac) {
            self.counters.cookies_sent.add(1);
            self.transmit(lane, frame);
        } else {
            self.counters.dropped(DropReason::NoBuffer);
        }
    }

    /// A packet that proves nothing, to a service that wants proof.
    pub(super) fn disbelieve<K: Family>(
        &mut self,
        lane: usize,
        mut frame: Q::Frame,
        flow: &Flow<K>,
        (reason, resets): (DropReason, bool),
        now: Tick,
    ) {
        self.counters.dropped(reason);
        if resets && self.answers.admit(now) {
            let mac = self.lanes[lane].port.mac;
            if make_reset(&mut frame, flow, mac) {
                self.counters.generated.add(1);
                self.transmit(lane, frame);
            }
        }
    }

    /// As [`Worker::go_on`], for a packet that has proved what its client had offered.
    pub(super) fn go_on_proven<K: Family>(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        flow: &Flow<K>,
        opened: Result<Opened, Refusal>,
        offer: Offer,
        now: Tick,
    ) {
        match opened {
            Ok(Opened::Same(id)) => self.begin_splice(lane, frame, flow, id, offer, now),
            Ok(Opened::Translated(id)) => {
                let flow = flow.with_key(flow.key.widened());
                self.begin_splice(lane, frame, &flow, id, offer, now);
            }
            // To its client the connection stands: an ICMP error would not end it.
            Err(Refusal::Drop(DropReason::NoServer)) => {
                self.disbelieve(lane, frame, flow, (DropReason::NoServer, true), now);
            }
            other => self.go_on(lane, frame, flow, other, now),
        }
    }

    /// A connection was opened by proof: its server is asked in the client's name, and the
    /// client's packet waits.
    pub(super) fn begin_splice<K: Family>(
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
    fn send_syn<K: Family>(&mut self, flow: &Flow<K>, id: ConnId, slot: u16, now: Tick) {
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
    pub(super) fn spliced_in<K: Family>(
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
    pub(super) fn spliced_out<K: Family>(
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

    /// A packet that was held goes on as if it came now.
    fn resume(&mut self, lane: usize, frame: Q::Frame, now: Tick) {
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
    fn make_hold_room(&mut self) {
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
            Some(Waiting::V4(_, hit)) => self.close::<packet::Key4>(hit.id),
            Some(Waiting::V6(_, hit)) => self.close::<Key6>(hit.id),
            None => {}
        }
    }

    fn give_up_held(&self, held: Held<Q::Frame>, reason: DropReason) {
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
    fn reset_back(&mut self, lane: usize, mut frame: Q::Frame) {
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

    /// Counts a connection that was opened without proof, for services that watch for floods.
    #[inline]
    pub(super) fn note_opened<K: Family>(&mut self, id: ConnId) {
        if self.proxies.automatic {
            self.count_half_open::<K>(id);
        }
    }

    fn count_half_open<K: Family>(&mut self, id: ConnId) {
        let conn = K::side_mut(&mut self.sides).conns.get_mut(id);
        let service = self.snapshot.server(conn.server_id());
        let service = service.and_then(|s| self.snapshot.service(s.service));
        let Some(service) = service.filter(|s| s.policy.syn_proxy.mode == Mode::Auto) else {
            return;
        };
        if let Some(watch) = self.proxies.watches.get_mut(service.id.0 as usize)
            && conn.proto() == Proto::Tcp
            && conn.state().is_half_open()
        {
            watch.opened();
            conn.set_half_open(true);
        }
    }

    /// A connection that was counted as half-open has left that state.
    #[cold]
    pub(super) fn settle<K: Family>(&mut self, id: ConnId) {
        let conn = K::side_mut(&mut self.sides).conns.get_mut(id);
        conn.set_half_open(false);
        let server = self.snapshot.server(conn.server_id());
        self.proxies.settled(server.map(|s| s.service));
    }

    /// Once a second, judges whether services need cookies still, and tells control.
    #[inline]
    pub(crate) fn judge_floods(&mut self, now: Tick) {
        if self.proxies.automatic && now.since(self.proxies.judged) >= Tick::seconds(1) {
            self.judge(now);
        }
    }

    #[cold]
    fn judge(&mut self, now: Tick) {
        self.proxies.judged = now;
        for id in (0..self.proxies.watches.len() as u32).map(ServiceId) {
            let service = self.snapshot.service(id);
            let Some(service) = service.filter(|s| s.policy.syn_proxy.mode == Mode::Auto) else {
                continue;
            };
            let limit = self.proxies.limit(service);
            let syn_recv = self.snapshot.timeouts.of(id).of(State::SynRecv);
            let watch = &mut self.proxies.watches[id.0 as usize];
            let before = watch.on;
            watch.each_second(limit, syn_recv);
            let on = watch.on;
            if before || on {
                // Said again each second while it is on: one that is lost matters little.
                self.tell(Event::SynProxy { service: id, on });
            }
        }
    }
}

/// A held packet's flow, as its connection is kept, and where that is.
enum Waiting {
    V4(Flow, Hit),
    V6(Flow<Key6>, Hit),
}

/// The largest segment of a client's whose packet fits every link, with what is added to it on
/// the way to servers.
fn fitting<Q: PortQueue>(lanes: &[Lane<Q>], service: &Service, client: SocketAddr) -> u16 {
    let least = lanes.iter().map(|lane| lane.port.mtu).min().unwrap_or(0);
    let option = match service.client_address {
        ClientAddress::toa => toa::len(client),
        _ => 0,
    };
    let crosses = client.is_ipv4() && service.servers.iter().any(|s| s.address.is_ipv6());
    let translation = if crosses { TRANSLATION } else { 0 };
    mss::fitting(least, client.is_ipv6(), option + translation)
}
