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
//!
//! Here is what comes before a connection: SYN, cookie and proof. `joining` has what its opening
//! begins, `waiting` the clients whose server has not answered, `floods` when cookies are needed.
#![forbid(unsafe_code)]

mod floods;
mod joining;
mod waiting;

use std::net::SocketAddr;

use super::family::Family;
use super::open::{Opened, Refusal};
use super::reset::make_reset;
use crate::counters::DropReason;
use crate::defense::cookie::{Baker, Checked, Offer};
use crate::defense::hold::{HELD_EACH, Hold, WAITING_MAX};
use crate::defense::syn_proxy::{Mode, Watch};
use crate::forward::carrier::{ClientAddress, stream, toa};
use crate::forward::splice;
use crate::io::{Frame, PortQueue};
use crate::packet::tcp::flags::{ACK, RST, SYN};
use crate::packet::{Flow, Key, be16, ipv4, ipv6, mss, tcp};
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

    /// Whether the packet in hand was asked what it proves.
    #[inline]
    pub(super) fn has_proof(&self) -> bool {
        self.proof != Proof::Nothing
    }

    /// What the packet in hand proves: nothing, or what its client had offered.
    pub(super) fn take_proof(&mut self) -> Option<Offer> {
        match std::mem::replace(&mut self.proof, Proof::Nothing) {
            Proof::Asked(Checked::Valid(offer)) => Some(offer),
            _ => None,
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
    #[inline(always)]
    pub(super) fn note_proof<K: Family>(&mut self, frame: &Q::Frame, flow: &Flow<K>, now: Tick) {
        if self.proxies.used && flow.says & (SYN | RST | ACK) == ACK {
            self.check_proof(frame, flow, now);
        }
    }

    #[inline(never)]
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
