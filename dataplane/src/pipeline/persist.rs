//! Persistence: a new connection asks the home of its client's template which server it gets.
//!
//! ```text
//!  opener                                        home of (client & netmask, service)
//!    first packet, Template(question)  ------->    template stands: its server
//!                                                  none: the scheduler's, and a template
//!    opens to that server        <------- Named
//!    now and then                --- Controlled ->  heard of
//!    connection gone             --- Controlled ->  one fewer; the template may run out
//! ```
//! A client whose connections land on different cores so gets one server, and the scheduler is
//! asked once. Where home is here nothing travels. A retransmission that asks again is answered
//! the same, and what it does not need is given back.
//!
//! A client of a template's comes whatever its server's threshold, as in LVS. The connection that
//! it is made for needs a place, which travels with the packet to whoever opens it. A template of
//! which nothing opened goes: else who was refused could pass the threshold from then on.
#![forbid(unsafe_code)]

use super::family::Family;
use super::open::{First, Opened, Refusal, pick_server};
use crate::command::TemplatePage;
use crate::conn::ConnId;
use crate::conn::state::Standing;
use crate::conn::templates::{Heard, TemplateKey, TemplateRef};
use crate::counters::DropReason;
use crate::io::{Frame, PortQueue};
use crate::packet::{self, Flow, Key, Key6, Parsed, eth, sip, udp};
use crate::sched::Request;
use crate::service::{Engine, Persistence};
use crate::steer::{FragmentOf, Message, Progress, Question};
use crate::types::{CoreId, Proto, ServerId, ServiceId, Tick};
use crate::worker::Worker;

/// Template slots looked at in one turn for such that have run out.
const LOOKED_AT_A_TURN: u32 = 4;

/// The Call-ID of a UDP packet, hashed; 0 without one.
#[cold]
fn call_id<K: Key>(frame: &[u8], flow: &Flow<K>) -> u64 {
    let end = eth::HEADER_LEN + usize::from(flow.ip_len);
    let payload = frame.get(usize::from(flow.l4) + udp::LEN..end);
    match (flow.key.proto(), payload.and_then(sip::call_id)) {
        (Proto::Udp, Some(id)) => sip::hashed(id),
        _ => 0,
    }
}

impl<Q: PortQueue> Worker<Q> {
    /// Finds out which server the client's template names, or has its home asked. What is known
    /// then.
    #[inline(never)]
    pub(super) fn persist<K: Family>(
        &mut self,
        first: First<'_>,
        flow: &Flow<K>,
        (service, persistence): (ServiceId, Persistence),
        mut progress: Progress,
        now: Tick,
    ) -> Result<Progress, Refusal> {
        if progress.server.is_some() {
            return Ok(progress);
        }
        if let Some(reason) = progress.refused {
            return Err(reason.into());
        }
        let client = flow.key.source().ip();
        let engine = match persistence.engine {
            Engine::Address => 0,
            Engine::Sip => match call_id(first.frame, flow) {
                0 => return Err(DropReason::NoCallId.into()),
                call_id => call_id,
            },
        };
        let key = TemplateKey::new(service, client, persistence.prefix, engine);
        let home = self.home_of(&key);
        if home == self.steer.me() {
            let (from, to) = (flow.key.source(), flow.key.destination());
            let request = Request {
                source: from,
                destination: to.ip(),
                key: None,
                now,
            };
            self.name(persistence, &key, &request, &mut progress)?;
            return Ok(progress);
        }
        let of = first.part.unwrap_or(FragmentOf::Flow {
            key: flow.key.widened(),
            says: flow.says,
            id: 0,
            len: 0,
        });
        let question = Question { of, key };
        self.asking = Some((home, Message::Template(question, progress)));
        Err(Refusal::Ask)
    }

    /// Where the template lives.
    fn home_of(&self, key: &TemplateKey) -> CoreId {
        // Any key that is the same on every worker will do, as long as all of it counts.
        let (high, low) = ((key.engine >> 32) as u32, key.engine as u32);
        let about = key.service.0.rotate_left(8) ^ high ^ low;
        let client = std::net::SocketAddr::new(key.client(), (about >> 16) as u16);
        let nobody = std::net::SocketAddr::new(key.client(), about as u16);
        self.steer.owner(&Key6::new(Proto::Tcp, client, nobody))
    }

    /// Notes the server that the template of `key` names, which lives here, and counts the
    /// connection. Where there is none, or its server takes no connections any more, there is a new
    /// one, to a server with a place.
    fn name(
        &mut self,
        persistence: Persistence,
        key: &TemplateKey,
        request: &Request,
        progress: &mut Progress,
    ) -> Result<(), DropReason> {
        let ticks = persistence.ticks;
        if let Some((id, server)) = self.templates.find(key) {
            if self.may_keep(key.service, server) {
                self.templates.masks(id, persistence.prefix);
                progress.server = Some(server);
                progress.template = Some(self.templates.control(id, ticks));
                return Ok(());
            }
            self.templates.forget(id);
        }
        // What had run out is gone, whether there will be a new one or not.
        self.counters.templates.set(self.templates.len().into());
        let service = self.snapshot.service(key.service);
        let service = service.ok_or(DropReason::NoServer)?;
        let (loads, memories) = (&mut self.loads, &mut self.memories);
        let server = pick_server(service, request, loads, memories)?;
        let (id, evicted) = self.templates.insert(key, persistence.prefix, server);
        self.counters.templates_evicted.add(evicted.into());
        self.counters.templates.set(self.templates.len().into());
        progress.server = Some(server);
        progress.template = Some(self.templates.control(id, ticks));
        progress.placed = self.loads.are_guarded(server);
        Ok(())
    }

    /// Whether a template may go on naming this server (IPVS's `ip_vs_check_template`).
    fn may_keep(&self, service: ServiceId, server: ServerId) -> bool {
        let standing = self.standings.get(server.0 as usize);
        let served = self.snapshot.server(server).map(|s| s.service);
        served == Some(service)
            && match standing {
                Some(Standing::Up) => true,
                Some(Standing::Drained) => !self.snapshot.rules.expire_quiescent_template,
                Some(Standing::Gone) | None => false,
            }
    }

    /// Answers a question for a template that lives here.
    pub(super) fn name_server(
        &mut self,
        question: &Question,
        mut progress: Progress,
        now: Tick,
    ) -> Message {
        let service = self.snapshot.service(question.key.service);
        let persistence = service.and_then(|service| service.policy.persistence);
        if let (Some(persistence), FragmentOf::Flow { key, .. }) = (persistence, question.of) {
            let (source, destination) = match key.unmapped() {
                Some(key) => (key.source(), key.destination()),
                None => (key.source(), key.destination()),
            };
            let request = Request {
                source,
                destination: destination.ip(),
                key: None,
                now,
            };
            let named = self.name(persistence, &question.key, &request, &mut progress);
            progress.refused = named.err();
        } else {
            progress.refused = Some(DropReason::NoServer); // its persistence is gone meanwhile
        }
        Message::Named(question.of, progress)
    }

    /// The packet is back, and its server named.
    pub(super) fn server_named(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        of: FragmentOf,
        progress: Progress,
        now: Tick,
    ) {
        match packet::parse(frame.bytes(), true) {
            Ok(Parsed::Flow(flow)) => self.go_on_named(lane, frame, &flow, progress, now),
            Ok(Parsed::Flow6(flow)) => self.go_on_named(lane, frame, &flow, progress, now),
            _ => self.part_named(lane, frame, of, progress, now),
        }
    }

    fn go_on_named<K: Family>(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        flow: &Flow<K>,
        progress: Progress,
        now: Tick,
    ) {
        let conns = &K::side(&self.sides).conns;
        if let Some(hit) = conns.lookup(conns.hash(&flow.key), &flow.key) {
            // A retransmission was first.
            self.not_needed(&progress);
            return self.carry_on(lane, frame, flow, hit, now);
        }
        if let Some((flow, hit)) = self.find_translated(flow) {
            self.not_needed(&progress);
            return self.carry_on(lane, frame, &flow, hit, now);
        }
        self.note_proof(&frame, flow, now);
        let opened = self.open(self.first(lane, &frame), flow, progress, now);
        self.go_on(lane, frame, flow, opened, now);
    }

    /// Gives back what was counted for a connection that is not opened. Its place, if it has one,
    /// is this worker's by now, for its next connection there.
    pub(super) fn not_needed(&mut self, progress: &Progress) {
        if let Some(template) = progress.template {
            self.tell_template(template, Heard::Unused);
        }
    }

    /// Notes on a connection which template controls it, or gives back what was counted for none:
    /// nothing was opened, or (one-packet scheduling) a connection that is counted already. With a
    /// further question the template travels on.
    #[inline(always)]
    pub(super) fn controlled<K: Family>(
        &mut self,
        progress: &Progress,
        opened: &Result<Opened, Refusal>,
    ) {
        if progress.template.is_some() {
            self.note_template::<K>(*progress, opened);
        }
    }

    fn note_template<K: Family>(&mut self, progress: Progress, opened: &Result<Opened, Refusal>) {
        let template = progress.template;
        let before = match opened {
            Ok(Opened::Same(id)) => {
                let conns = &mut K::side_mut(&mut self.sides).conns;
                conns.get_mut(*id).set_template(template)
            }
            Ok(Opened::Translated(id)) => self.sides.v6.conns.get_mut(*id).set_template(template),
            Err(Refusal::Ask) => None,
            Err(_) => return self.not_needed(&progress),
        };
        if let Some(before) = before {
            self.tell_template(before, Heard::Gone);
        }
    }

    /// Tells a template of a connection of its own.
    pub(crate) fn tell_template(&mut self, template: TemplateRef, heard: Heard) {
        if template.home == self.steer.me() {
            self.hear_controlled(template, heard);
        } else {
            let message = Message::Controlled(template, heard);
            self.send_errand(template.home, message, None);
        }
    }

    /// What a connection on any worker lets a template know that lives here.
    pub(super) fn hear_controlled(&mut self, template: TemplateRef, heard: Heard) {
        if self.templates.hear(template, heard) {
            let shed = heard == Heard::Shed;
            self.counters.templates_shed.add(shed.into());
            self.counters.templates.set(self.templates.len().into());
        }
    }

    /// A connection is established, or answered: its template is assured from now on (IPVS's
    /// `ip_vs_control_assure_ct`).
    #[cold]
    pub(super) fn assure<K: Family>(&mut self, id: ConnId) {
        let conn = K::side_mut(&mut self.sides).conns.get_mut(id);
        if let Some(template) = conn.assure() {
            self.tell_template(template, Heard::Stands);
        }
    }

    /// Fills a page of the templates that live here.
    #[cold]
    pub(crate) fn list_templates(&self, page: &mut TemplatePage) {
        page.core = self.steer.me();
        let found = &mut page.found;
        let next = self.templates.page(page.cursor, page.scan, |template| {
            let room = found.len() < found.capacity();
            if room {
                found.push(template);
            }
            room
        });
        page.done = next.is_none();
        page.cursor = next.unwrap_or(page.cursor);
    }

    /// Lets templates run out, a few at a time.
    #[inline]
    pub(crate) fn expire_templates(&mut self, now: Tick) {
        self.templates.now = now;
        if !self.templates.is_empty() {
            self.templates.expire(LOOKED_AT_A_TURN);
            self.counters.templates.set(self.templates.len().into());
        }
    }
}
