//! Connections whose two keys have two owners (NAT): the owner of the answers' key keeps a
//! *redirect* to the opener.
//!
//! ```text
//!  opener                                  owner of the answers' key
//!    first packet, Ask  ------------------->  key free, or a redirect for the same connection
//!    opens, forwards    <-- Told, packet ---  redirect stands, or another connection has it
//!    now and then       --- Keep ---------->  the redirect lasts on
//!    connection gone    --- Release ------->  the redirect goes
//! ```
//! The first packet is the message: nobody waits, a retransmission asks again, and the answer is
//! the same. A redirect lasts longer than its connection can without a packet; `Keep` is sent
//! when the connection's timer record comes up, so once in a timeout. A message that finds its
//! ring full is lost with the packet, and counted; a lost `Release` costs an entry until its
//! time is up.
#![forbid(unsafe_code)]

use arrayvec::ArrayVec;
use rtrb::PushError;

use super::family::Family;
use super::open::{Opened, Refusal};
use crate::conn::state::Direction;
use crate::conn::templates::{Heard, TemplateRef};
use crate::conn::{ConnId, Hit};
use crate::counters::DropReason;
use crate::forward::ForwardMode;
use crate::io::{BURST, Frame, PortQueue};
use crate::packet::{self, Flow, Key4, Key6, Parsed};
use crate::steer::{Errand, FragmentOf, Keys, Message, Progress};
use crate::types::{CoreId, PortId, ServerId, Tick};
use crate::worker::Worker;

/// What turned up while timers were looked at, at most one of each kind for each record.
#[derive(Default)]
pub(crate) struct Notes {
    /// Connections whose answers another worker passes on, and whether they stand.
    pub(crate) redirected: ArrayVec<(Keys, bool), 128>,
    /// Templates, and what they are told of a connection.
    pub(crate) controlled: ArrayVec<(TemplateRef, Heard), 128>,
}

impl<Q: PortQueue> Worker<Q> {
    /// Takes what other workers say.
    pub(crate) fn take_errands(&mut self, now: Tick) -> usize {
        let mut taken = 0;
        for from in 0..self.links.errands_into.len() {
            let core = CoreId(from as u8);
            for _ in 0..BURST {
                let ring = self.links.errands_into[from].as_mut();
                let Some(Errand { frame, message }) = ring.and_then(|r| r.pop().ok()) else {
                    break;
                };
                taken += 1;
                self.counters.handoff_in.add(u64::from(frame.is_some()));
                self.hear(core, message, frame, now);
            }
        }
        taken
    }

    /// Says something to another worker; with a full ring it is lost, the packet too.
    pub(super) fn send_errand(
        &mut self,
        core: CoreId,
        message: Message,
        frame: Option<(PortId, Q::Frame)>,
    ) {
        let packets = u64::from(frame.is_some());
        if let Some(server) = message.place() {
            self.loads.place_out(server);
        }
        let errand = Errand { frame, message };
        let ring = self.links.errands_out.get_mut(usize::from(core.0));
        let lost = match ring.and_then(Option::as_mut) {
            Some(ring) => ring.push(errand).err().map(|PushError::Full(lost)| lost),
            None => Some(errand),
        };
        match lost {
            None => self.counters.handoff_out.add(packets),
            Some(lost) => {
                self.counters.drops[DropReason::HandoffFull as usize].add(packets);
                self.keep_what_is_lost(&lost.message);
            }
        }
    }

    /// What was on its way for a connection that does not open now.
    #[cold]
    fn keep_what_is_lost(&mut self, message: &Message) {
        if let Some(server) = message.place() {
            self.loads.place_in(server);
        }
        if let Some(progress) = message.progress() {
            self.not_needed(progress);
        }
    }

    fn hear(
        &mut self,
        from: CoreId,
        message: Message,
        frame: Option<(PortId, Q::Frame)>,
        now: Tick,
    ) {
        if let Some(server) = message.place() {
            self.loads.place_in(server);
        }
        match message {
            Message::Ask {
                keys,
                server,
                progress,
            } => {
                let granted = self.redirect(keys, from, now);
                let told = Message::Told {
                    keys,
                    server,
                    progress,
                    granted,
                };
                self.send_errand(from, told, frame);
            }
            Message::Told {
                keys,
                server,
                progress,
                granted,
            } => {
                if let Some((port, frame)) = frame {
                    let lane = usize::from(port.0);
                    self.told(lane, frame, keys, server, (progress, granted), now);
                }
            }
            Message::Template(question, progress) => {
                let named = self.name_server(&question, progress, now);
                self.send_errand(from, named, frame);
            }
            Message::Named(of, progress) => {
                if let Some((port, frame)) = frame {
                    self.server_named(usize::from(port.0), frame, of, progress, now);
                }
            }
            Message::Controlled(template, heard) => self.hear_controlled(template, heard),
            Message::Fragment(of) => {
                if let Some((port, frame)) = frame {
                    self.fragment_of(usize::from(port.0), frame, of, now);
                }
            }
            Message::Keep(keys) => {
                self.redirect(keys, from, now);
            }
            Message::Expect(expected) => self.expected.put(expected, now),
            Message::Forget(wanted) => self.expected.remove(&wanted),
            Message::Call(expected) => {
                if let Some((port, frame)) = frame {
                    self.called(usize::from(port.0), frame, &expected, now);
                }
            }
            Message::Linger(control) => self.go_on_lingering(&control, now),
            Message::PathMtu { to, mtu } => self.hear_path_mtu(to, mtu, now),
            Message::Release(keys) => match keys.outbound.unmapped() {
                Some(outbound) => self.end_redirect::<Key4>(&outbound, keys, from),
                None => self.end_redirect::<Key6>(&keys.outbound, keys, from),
            },
        }
    }

    /// Passes answers of a connection on to `opener` from now on, if their key is free.
    pub(super) fn redirect(&mut self, keys: Keys, opener: CoreId, now: Tick) -> bool {
        match (keys.inbound.unmapped(), keys.outbound.unmapped()) {
            (Some(inbound), Some(outbound)) => {
                self.redirect_in::<Key4>((inbound, outbound), opener, now)
            }
            _ => self.redirect_in::<Key6>((keys.inbound, keys.outbound), opener, now),
        }
    }

    fn redirect_in<K: Family>(&mut self, keys: (K, K), opener: CoreId, now: Tick) -> bool {
        let conns = &K::side(&self.sides).conns;
        if let Some(Hit { id, .. }) = conns.lookup(conns.hash(&keys.1), &keys.1) {
            let known = conns.get(id);
            let same =
                known.redirected_to() == Some(opener) && known.key(Direction::Inbound) == keys.0;
            if same {
                self.keep_redirect::<K>(id, now);
            }
            return same;
        }
        let ticks = self.redirect_ticks;
        for _ in 0..2 {
            let conns = &mut K::side_mut(&mut self.sides).conns;
            if conns.insert_redirect(keys, opener, ticks, now).is_ok() {
                return true;
            }
            if self.make_room::<K>(now).is_err() {
                return false;
            }
        }
        false
    }

    /// An answer passed, or the opener says so: the redirect lasts on.
    pub(super) fn keep_redirect<K: Family>(&mut self, id: ConnId, now: Tick) {
        let ticks = self.redirect_ticks;
        K::side_mut(&mut self.sides)
            .conns
            .get_mut(id)
            .lasts(ticks, now);
    }

    fn end_redirect<K: Family>(&mut self, outbound: &K, keys: Keys, opener: CoreId) {
        let conns = &mut K::side_mut(&mut self.sides).conns;
        if let Some(Hit { id, .. }) = conns.lookup(conns.hash(outbound), outbound) {
            let known = conns.get(id);
            if known.redirected_to() == Some(opener)
                && known.key(Direction::Inbound).widened() == keys.inbound
            {
                conns.remove(id);
            }
        }
    }

    /// The packet is back with its answer.
    fn told(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        keys: Keys,
        server: ServerId,
        told: (Progress, bool),
        now: Tick,
    ) {
        match packet::parse(frame.bytes(), true) {
            Ok(Parsed::Flow(flow)) => self.told_in(lane, frame, &flow, keys, server, told, now),
            Ok(Parsed::Flow6(flow)) => self.told_in(lane, frame, &flow, keys, server, told, now),
            // A fragment other than the first asked: the first one's connection will do.
            _ => match keys.inbound.unmapped() {
                Some(inbound) => self.told_part(lane, frame, inbound, keys, (server, told), now),
                None => self.told_part(lane, frame, keys.inbound, keys, (server, told), now),
            },
        }
    }

    fn told_part<K: Family>(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        inbound: K,
        keys: Keys,
        (server, (progress, granted)): (ServerId, (Progress, bool)),
        now: Tick,
    ) {
        let conns = &K::side(&self.sides).conns;
        let known = conns.lookup(conns.hash(&inbound), &inbound);
        if let (None, true, Some(outbound)) = (known, granted, K::narrowed(&keys.outbound)) {
            let chosen = self.snapshot.server(server).copied();
            let chosen = chosen.filter(|s| s.forward == ForwardMode::nat);
            let opened =
                chosen.map(|s| self.open_granted(inbound, outbound, &s, false, progress, now));
            let opened = opened.unwrap_or(Err(DropReason::NoServer));
            if opened.is_err() {
                self.release(keys);
            }
            let opened = opened.map(Opened::Same).map_err(Refusal::Drop);
            self.controlled::<K>(&progress, &opened);
        } else if let (Some(hit), true) = (known, granted) {
            let stands = conns.get(hit.id).key(Direction::Outbound).widened();
            if stands != keys.outbound {
                self.release(keys);
            }
            self.not_needed(&progress);
        } else {
            self.not_needed(&progress);
        }
        let conns = &K::side(&self.sides).conns;
        match conns.lookup(conns.hash(&inbound), &inbound) {
            Some(_) => {
                let (key, says, id) = (keys.inbound, 0, self.ids.next32());
                let len = 0; // no SCTP: its associations open by whole packets
                let of = FragmentOf::Flow { key, says, id, len };
                self.fragment_of(lane, frame, of, now);
            }
            None => self.counters.dropped(DropReason::ReplyKeyTaken),
        }
    }

    #[expect(clippy::too_many_arguments)]
    fn told_in<K: Family>(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        flow: &Flow<K>,
        keys: Keys,
        server: ServerId,
        (progress, granted): (Progress, bool),
        now: Tick,
    ) {
        let conns = &K::side(&self.sides).conns;
        if let Some(hit) = conns.lookup(conns.hash(&flow.key), &flow.key) {
            // A retransmission was first. Its connection may have got another server meanwhile.
            let stands = conns.get(hit.id).key(Direction::Outbound).widened() == keys.outbound;
            if granted && !stands {
                self.release(keys);
            }
            self.not_needed(&progress);
            return self.carry_on(lane, frame, flow, hit, now);
        }
        self.note_proof(&frame, flow, now);
        let opened = match (
            granted,
            self.snapshot.server(server),
            K::narrowed(&keys.outbound),
        ) {
            (true, Some(chosen), Some(outbound)) if chosen.forward == ForwardMode::nat => {
                let chosen = *chosen;
                let id = self.open_granted(flow.key, outbound, &chosen, true, progress, now);
                if id.is_err() {
                    self.release(keys);
                }
                let opened = id.map(Opened::Same).map_err(Refusal::Drop);
                self.controlled::<K>(&progress, &opened);
                opened
            }
            (true, ..) => {
                self.release(keys);
                self.open(self.first(lane, &frame), flow, progress, now)
            }
            (false, ..) => {
                let progress = Progress {
                    tries: progress.tries + 1,
                    ..progress
                };
                self.open(self.first(lane, &frame), flow, progress, now)
            }
        };
        self.go_on(lane, frame, flow, opened, now);
    }

    /// Says that a redirect is needed no more.
    pub(crate) fn release(&mut self, keys: Keys) {
        let owner = self.steer.owner(&keys.outbound);
        self.send_errand(owner, Message::Release(keys), None);
    }

    /// Tells the owners of answers' keys what the timers turned up: connections that go on
    /// (`true`) and such that are gone.
    pub(crate) fn pass_notes(&mut self, notes: &Notes) {
        for &(template, heard) in &notes.controlled {
            self.tell_template(template, heard);
        }
        for &(keys, stands) in &notes.redirected {
            let owner = self.steer.owner(&keys.outbound);
            let message = match stands {
                true => Message::Keep(keys),
                false => Message::Release(keys),
            };
            self.send_errand(owner, message, None);
        }
    }
}
