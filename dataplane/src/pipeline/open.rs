//! The connection that a packet without one asks for: service, server, keys, entry.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use super::family::Family;
use super::quic::ByCid;
use super::wanted::{bad_source, wanted_service};
use super::{one_packet, quic};
use crate::conn::ConnId;
use crate::conn::entry::{Flags, NewConn};
use crate::counters::DropReason;
use crate::defense::limits::Refused;
use crate::forward::ForwardMode;
use crate::io::{Frame, PortQueue};
use crate::packet::{Flow, Key6};
use crate::sched::{Loads, Memory, Request};
use crate::service::{Candidate, Server, Service};
use crate::steer::{FragmentOf, Keys, Message, Progress};
use crate::types::{CoreId, PortId, ServerId, ServiceId, Tick};
use crate::worker::Worker;

/// Servers tried for one packet when answers of the chosen one cannot be told apart (NAT).
const TRIES: u8 = 3;

/// Why a packet opens no connection here and now.
pub(super) enum Refusal {
    Drop(DropReason),
    /// Not for an address of Weir's.
    Kernel,
    /// For an address of Weir's, but nothing is there.
    NoConnection,
    /// More than a limit allows, and TCP is to be told.
    Reset(DropReason),
    /// The owner of the answers' key has to be asked first: [`Worker::asking`] says what.
    Ask,
    /// Its client is to prove first where it is.
    Challenge(ServiceId),
    /// It proves nothing, and its service wants proof; whether it is answered by a reset.
    Unproven(DropReason, bool),
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Self {
        Refusal::Drop(reason)
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused.resets {
            true => Refusal::Reset(refused.reason),
            false => Refusal::Drop(refused.reason),
        }
    }
}

/// A connection that was opened. The two sides may be of different families, and then it is not
/// among those of the packet's own.
pub(super) enum Opened {
    Same(ConnId),
    Translated(ConnId),
}

/// The packet that asks for a connection, beside its flow.
#[derive(Debug, Clone, Copy)]
pub(super) struct First<'f> {
    /// The port that it arrived on.
    pub(super) port: PortId,
    /// Its frame.
    pub(super) frame: &'f [u8],
    /// The datagram that it is a fragment of, if it is one.
    pub(super) part: Option<FragmentOf>,
}

impl<Q: PortQueue> Worker<Q> {
    /// A packet that arrived on this lane.
    pub(super) fn first<'f>(&self, lane: usize, frame: &'f Q::Frame) -> First<'f> {
        First {
            port: self.lanes[lane].port.id,
            frame: frame.bytes(),
            part: None,
        }
    }

    /// Opens the connection that `flow` asks for, as far as that is not done.
    #[inline(never)]
    pub(super) fn open<K: Family>(
        &mut self,
        first: First<'_>,
        flow: &Flow<K>,
        progress: Progress,
        now: Tick,
    ) -> Result<Opened, Refusal> {
        self.open_here(first, flow, progress, now)
    }

    /// The same, compiled into its caller: where that knows that nothing was asked so far, as of
    /// nearly every packet, what follows need not find out.
    #[inline(always)]
    pub(super) fn open_here<K: Family>(
        &mut self,
        first: First<'_>,
        flow: &Flow<K>,
        mut progress: Progress,
        now: Tick,
    ) -> Result<Opened, Refusal> {
        let opened = self.open_wanted(first, flow, &mut progress, now);
        self.controlled::<K>(&progress, &opened);
        opened
    }

    /// The same, without what a template that names the server is told of it.
    #[inline(always)]
    fn open_wanted<K: Family>(
        &mut self,
        first: First<'_>,
        flow: &Flow<K>,
        progress: &mut Progress,
        now: Tick,
    ) -> Result<Opened, Refusal> {
        let service = match wanted_service(&self.snapshot, first, flow) {
            Ok(service) => service,
            Err(Refusal::Kernel) if self.snapshot.has_snat() => {
                return self.open_outward(first.port, flow, now).map(Opened::Same);
            }
            Err(refusal) => return Err(refusal),
        };
        let k = &flow.key;
        let (from, to) = (k.source(), k.destination());
        if bad_source(from) {
            return Err(DropReason::BadSource.into());
        }
        // What comes from a virtual address never gets here (`find_answered`).
        if from == to {
            return Err(DropReason::Land.into());
        }
        let id = service.id;
        if !self.snapshot.is_plain() || self.defense.guards() {
            *progress = self.pass_gates(id, first, flow, *progress, now)?;
        }
        self.open_to(first, id, flow, progress, now)
    }

    /// Opens a connection of this service.
    #[inline(always)]
    fn open_to<K: Family>(
        &mut self,
        first: First<'_>,
        of: ServiceId,
        flow: &Flow<K>,
        progress: &mut Progress,
        now: Tick,
    ) -> Result<Opened, Refusal> {
        // A template's server is the only one.
        let tries = if progress.server.is_some() { 1 } else { TRIES };
        if progress.tries >= tries {
            return Err(DropReason::ReplyKeyTaken.into());
        }
        let service = self.snapshot.service(of).ok_or(DropReason::NoServer)?;
        let k = &flow.key;
        let (from, to) = (k.source(), k.destination());
        let (flags, by_cid) = match self.snapshot.is_plain() {
            true => (Flags::NONE, ByCid::default()),
            false => self.of_datagrams(service, first, flow),
        };
        let request = Request {
            source: from,
            destination: to.ip(),
            key: by_cid.key,
            now,
        };
        let id = match by_cid.server.or(progress.server) {
            Some(server) => server,
            None => {
                let (loads, memories) = (&mut self.loads, &mut self.memories);
                pick_server(service, &request, loads, memories)?
            }
        };
        let server = self.snapshot.server(id).ok_or(DropReason::NoServer)?;
        let (mode, mut address) = (server.forward, server.address);
        let elsewhere = || service.key.port().is_some_and(|port| port != to.port());
        if address.port() == 0 || self.snapshot.has_ftp() && elsewhere() {
            // A server of an every-port service gets the port that the client asked for; so
            // does FTP's for a data connection.
            address.set_port(to.port());
        }
        let answers = if mode == ForwardMode::fullnat {
            if address.is_ipv6() != from.is_ipv6() {
                let id = self.open_translated(of, k, (id, address), flags, now)?;
                return Ok(Opened::Translated(id));
            }
            let (side, lips) = (K::side_mut(&mut self.sides), &service.local_addresses);
            let (ports, conns) = (&mut side.local_ports, &side.conns);
            let leased = ports.lease(&self.steer, conns, k.proto(), id, address, lips);
            let leased = leased.ok_or(DropReason::LipExhausted)?;
            self.give_up_early::<K>(leased.early);
            leased.reply
        } else {
            answers_of(k, mode, address).ok_or(DropReason::NoServer)?
        };
        if mode == ForwardMode::nat {
            if flags.has(Flags::ONE_PACKET)
                && let Some(id) = self.datagrams_before(k, &answers, id)
            {
                return Ok(Opened::Same(id));
            }
            let owner = self.steer.owner(&answers);
            if owner != self.steer.me() {
                return Err(self.ask_for(owner, (k, &answers), id, *progress));
            }
            let conns = &K::side(&self.sides).conns;
            if conns.lookup(conns.hash(&answers), &answers).is_some() {
                return self.open_another(first, of, flow, progress, now);
            }
        }
        let new = NewConn {
            inbound: *k,
            outbound: answers,
            server_id: id,
            mode,
            flags,
        };
        Ok(Opened::Same(self.insert(&new, now)?))
    }

    /// What a service asks for its datagrams.
    #[inline(never)]
    fn of_datagrams<K: Family>(
        &self,
        service: &Service,
        first: First<'_>,
        flow: &Flow<K>,
    ) -> (Flags, ByCid) {
        let flags = one_packet::flags(service, &flow.key, first.part.is_none());
        let flags = flags.with(quic::flags(service, &flow.key));
        (flags, self.by_cid(service, first.frame, flow))
    }

    /// Tries another server, as answers of the one chosen could not be told apart from another
    /// connection's.
    #[cold]
    #[inline(never)]
    fn open_another<K: Family>(
        &mut self,
        first: First<'_>,
        of: ServiceId,
        flow: &Flow<K>,
        progress: &mut Progress,
        now: Tick,
    ) -> Result<Opened, Refusal> {
        progress.tries += 1;
        self.open_to(first, of, flow, progress, now)
    }

    /// Opens a FULL-NAT connection whose server is of the other family.
    #[inline(never)]
    fn open_translated<K: Family>(
        &mut self,
        service: ServiceId,
        inbound: &K,
        (id, address): (ServerId, SocketAddr),
        flags: Flags,
        now: Tick,
    ) -> Result<ConnId, DropReason> {
        let service = self.snapshot.service(service);
        let lips = &service.ok_or(DropReason::NoServer)?.local_addresses;
        let (ports, conns) = (&mut self.sides.v6.local_ports, &self.sides.v6.conns);
        let leased = ports.lease(&self.steer, conns, inbound.proto(), id, address, lips);
        let leased = leased.ok_or(DropReason::LipExhausted)?;
        self.give_up_early::<Key6>(leased.early);
        let new = NewConn {
            inbound: inbound.widened(),
            outbound: leased.reply,
            server_id: id,
            mode: ForwardMode::fullnat,
            flags: flags.with(Flags::TRANSLATED),
        };
        self.insert(&new, now)
    }

    /// The owner of a NAT connection's answers is to be asked for their key.
    pub(super) fn ask_for<K: Family>(
        &mut self,
        owner: CoreId,
        (inbound, answers): (&K, &K),
        server: ServerId,
        progress: Progress,
    ) -> Refusal {
        let keys = Keys {
            inbound: inbound.widened(),
            outbound: answers.widened(),
        };
        let message = Message::Ask {
            keys,
            server,
            progress,
        };
        self.asking = Some((owner, message));
        Refusal::Ask
    }

    /// Opens the NAT connection for which another worker keeps the answers' key.
    pub(super) fn open_granted<K: Family>(
        &mut self,
        inbound: K,
        outbound: K,
        server: &Server,
        whole: bool,
        progress: Progress,
        now: Tick,
    ) -> Result<ConnId, DropReason> {
        let service = self.snapshot.service(server.service);
        let flags = service.map_or(Flags::NONE, |s| {
            one_packet::flags(s, &inbound, whole).with(quic::flags(s, &inbound))
        });
        if flags.has(Flags::ONE_PACKET)
            && let Some(id) = self.datagrams_before(&inbound, &outbound, server.id)
        {
            return Ok(id);
        }
        // A template's clients come whatever the threshold, as in LVS.
        if progress.server.is_none() && !self.loads.reserve(server.id) {
            return Err(DropReason::ServersFull); // meanwhile; the client tries again
        }
        let new = NewConn {
            inbound,
            outbound,
            server_id: server.id,
            mode: ForwardMode::nat,
            flags: flags.with(Flags::REDIRECTED),
        };
        self.insert(&new, now)
    }
}

/// The key of the packets that `server` answers with; where they do not come this way it only
/// names the server, which may be of the other family then (TUN).
fn answers_of<K: Family>(inbound: &K, mode: ForwardMode, server: SocketAddr) -> Option<K> {
    match K::between(inbound.proto(), server, inbound.source()) {
        None if mode == ForwardMode::tun => Some(inbound.reversed()),
        answers => answers,
    }
}

/// The server for a new connection, with a place under its threshold.
#[inline(always)]
pub(super) fn pick_server(
    service: &Service,
    request: &Request,
    loads: &mut Loads,
    memories: &mut [Memory],
) -> Result<ServerId, DropReason> {
    let memory = memories.get_mut(service.id.0 as usize);
    let memory = memory.ok_or(DropReason::NoServer)?;
    let (servers, scheduler) = (&service.servers, &service.scheduler);
    if loads.guards_any() {
        return pick_with_place(service, request, loads, memory);
    }
    let at = scheduler.pick(servers, loads, request, memory);
    let chosen = at.and_then(|at| servers.get(at));
    Ok(chosen.ok_or(DropReason::NoServer)?.id)
}

/// The same where servers have thresholds.
#[inline(never)]
fn pick_with_place(
    service: &Service,
    request: &Request,
    loads: &mut Loads,
    memory: &mut Memory,
) -> Result<ServerId, DropReason> {
    let servers = &service.servers;
    loads.review_overloaded(servers.iter().map(|candidate| candidate.id));
    // A server without a place is overloaded from then on, so none is chosen twice.
    for _ in 0..=servers.len() {
        let at = service.scheduler.pick(servers, loads, request, memory);
        let Some(chosen) = at.and_then(|at| servers.get(at)) else {
            let is_full = |c: &Candidate| c.weight > 0 && loads.overloaded(c.id);
            return Err(match servers.iter().any(is_full) {
                true => DropReason::ServersFull,
                false => DropReason::NoServer,
            });
        };
        if loads.reserve(chosen.id) {
            return Ok(chosen.id);
        }
    }
    Err(DropReason::ServersFull)
}
