//! Connections whose servers are told the client's address: which packets carry it.
//!
//! **TOA** rides in the client's packets from the one that completes the handshake until one that
//! acknowledges the server's first data; then the connection needs nothing more.
//!
//! **PROXY over TCP** is stream data that the client never sent, `n` bytes at the start, so all
//! numbers differ by `n` for as long as the connection stands. The header rides in the very
//! acknowledgement that completes the handshake: both arrive or neither does, and the server's
//! repeated SYN-ACK brings both again, so a client that waits for the server to speak loses
//! nothing. Everything after rests on TCP's own repetition: until the server acknowledges the
//! header, what the client repeats from the stream's start brings the header again (with data, in
//! a segment of Weir's own in front of it), and the client hears of no data behind it.
//!
//! **UDP**: PROXY in front of every datagram, as readers without a state per flow (dnsdist,
//! go-mmproxy) want it; UOA in the first few datagrams.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use super::aside::may_be_cut;
use super::family::Family;
use super::{INBOUND, OUTBOUND};
use crate::conn::entry::Flags;
use crate::conn::side::{Seen, SideId};
use crate::conn::state::Direction;
use crate::conn::{ConnId, Hit};
use crate::counters::DropReason;
use crate::forward::carrier::{self, ClientAddress, opp, proxy, stream, toa, uoa};
use crate::forward::splice::Stage;
use crate::io::{Frame, PortQueue};
use crate::packet::tcp::flags::{ACK, FIN, RST, SYN};
use crate::packet::{Flow, ipv4, ipv6, mss, tcp};
use crate::types::{Proto, Tick};
use crate::worker::Worker;

/// Datagrams of a flow that carry UOA (DPVS's `uoa_max_trail`).
const UOA_DATAGRAMS: u8 = 3;
/// After so long a header that was not acknowledged is taken for lost: 125 ms, shorter than
/// anybody's retransmission timeout (200 ms in Linux), longer than the way to a server.
const TAKEN_FOR_LOST: u32 = Tick::seconds(1) / 8;

/// What a packet grows by from IPv4 to IPv6, bytes.
const TRANSLATION: u16 = (ipv6::LEN - ipv4::MIN_LEN) as u16;
/// After so many bytes no acknowledgement of the inserted ones can still be under way.
const FAR: u32 = 1 << 24;

/// A segment of Weir's own.
type Own<F, K> = (F, Flow<K>);

impl<Q: PortQueue> Worker<Q> {
    /// Sees to it that the server of a new connection is told its client's address, if its
    /// service wants that. `says`: the first packet's flags.
    #[inline(always)]
    pub(super) fn begin_carrying<K: Family>(&mut self, id: ConnId, says: u8, now: Tick) {
        if self.expected.is_on() && self.begin_helping::<K>(id, says, now) {
            return; // a data connection: no more than its files
        }
        if self.snapshot.tells_addresses() {
            self.begin_telling::<K>(id, says, now);
        }
    }

    #[inline(never)]
    fn begin_telling<K: Family>(&mut self, id: ConnId, says: u8, now: Tick) {
        let conn = K::side_mut(&mut self.sides).conns.get_mut(id);
        let server = self.snapshot.server(conn.server_id());
        let service = server.and_then(|s| self.snapshot.service(s.service));
        let carrier = service.map_or(ClientAddress::none, |s| s.client_address);
        // Picked up in the middle, a stream has no start to put anything at.
        let begins = conn.proto() != Proto::Tcp || says & (SYN | ACK) == SYN;
        if carrier == ClientAddress::none
            || !carrier.goes_with(conn.mode())
            || !carrier.carries(conn.proto())
            || !begins
        {
            return;
        }
        // As many records as connections: there is one. A helper may have taken it.
        let record = conn.side().or_else(|| self.records.take(carrier, now));
        debug_assert!(record.is_some());
        conn.set_side(record);
        if let Some(record) = record
            && conn.proto() == Proto::Tcp
        {
            self.records.get_mut(record).carrier = carrier;
            let header = proxy::of(carrier, conn.client(), conn.virtual_(), Proto::Tcp);
            self.records.get_mut(record).inserted = header.map_or(0, |h| h.len() as u8);
        }
    }

    /// A packet of such a connection. Between the client's numbers and the server's, what Weir's
    /// own handshakes changed (`pipeline/syn_proxy.rs`) comes next to the client, what a helper
    /// does (`pipeline/helped.rs`) next to the server, and the carrier between them.
    pub(super) fn carried<K: Family>(
        &mut self,
        lane: usize,
        mut frame: Q::Frame,
        flow: &Flow<K>,
        hit: Hit,
        now: Tick,
    ) {
        let conn = K::side(&self.sides).conns.get(hit.id);
        let Some(record) = conn.side() else {
            return self.counters.dropped(DropReason::NoConnection);
        };
        if hit.dir == Direction::Inbound {
            if let Some(frame) = self.spliced_in(lane, frame, flow, hit, record, now) {
                self.carried_from_client(lane, frame, flow, hit, record, now);
            }
            return;
        }
        let mut flow = *flow;
        if flow.key.proto() == Proto::Tcp {
            let known = self.records.get_mut(record);
            let carrier = known.carrier;
            if known.helped {
                self.help(&mut frame, &mut flow, hit, record, now);
            }
            match carrier {
                ClientAddress::toa => self.toa_out::<K>(&mut frame, &flow, hit.id, record),
                ClientAddress::none => {}
                _ => self.proxy_out(&mut frame, &flow, record),
            }
        }
        self.spliced_out(lane, frame, &flow, hit, record, now);
    }

    /// A client's packet, in its own numbers and its server's.
    pub(super) fn carried_from_client<K: Family>(
        &mut self,
        lane: usize,
        mut frame: Q::Frame,
        flow: &Flow<K>,
        hit: Hit,
        record: SideId,
        now: Tick,
    ) {
        let mut flow = *flow;
        let carrier = self.records.get_mut(record).carrier;
        match (carrier, flow.key.proto() == Proto::Tcp) {
            (ClientAddress::none, _) => {}
            (ClientAddress::toa, true) => {
                self.toa_in::<K>(&mut frame, &mut flow, hit.id, record);
            }
            (_, true) => {
                match self.proxy_in::<K>(&mut frame, &mut flow, hit.id, record, true, now) {
                    Ok(None) => {}
                    Ok(Some((own, own_flow))) => {
                        self.counters.generated.add(1);
                        self.carried_on(lane, own, &own_flow, hit, now);
                    }
                    Err(reason) => return self.counters.dropped(reason),
                }
            }
            (_, false) => {
                let room = self.room_towards_server::<K>(hit.id);
                let known = (record, room);
                if let Some(fits) =
                    self.datagram_in::<K>(&mut frame, &mut flow, hit.id, known, true)
                {
                    return self.too_big(lane, frame, fits, now);
                }
            }
        }
        self.carried_on(lane, frame, &flow, hit, now);
    }

    /// The packet as it is now goes the way that it would have gone without a carrier.
    pub(super) fn carried_on<K: Family>(
        &mut self,
        lane: usize,
        frame: Q::Frame,
        flow: &Flow<K>,
        hit: Hit,
        now: Tick,
    ) {
        match hit.dir {
            Direction::Inbound => {
                let (mut frame, mut flow) = (frame, *flow);
                if let Some(record) = self.is_helped::<K>(hit.id) {
                    self.help(&mut frame, &mut flow, hit, record, now);
                }
                self.pass_on::<K, INBOUND>(lane, frame, &flow, hit, None, now);
            }
            Direction::Outbound => self.pass_on::<K, OUTBOUND>(lane, frame, flow, hit, None, now),
        }
    }

    fn toa_in<K: Family>(
        &mut self,
        frame: &mut Q::Frame,
        flow: &mut Flow<K>,
        id: ConnId,
        record: SideId,
    ) {
        toa::remove(frame.bytes_mut(), flow);
        let known = self.records.get_mut(record);
        if flow.says & (SYN | RST | ACK) != ACK || !known.seen.has(Seen::SYN_ACK) {
            return;
        }
        if stream::number(frame.bytes(), flow, tcp::ACK_AT) != known.server_start {
            // The server has spoken, and the client has heard it: nothing more to tell.
            known.carrier = ClientAddress::none;
            if known.splice.stage == Stage::Plain && !known.helped {
                let conn = K::side_mut(&mut self.sides).conns.get_mut(id);
                conn.set_side(None);
                self.records.give_back(record);
            }
            return;
        }
        let client = K::side(&self.sides).conns.get(id).client();
        let room = self.room_towards_server::<K>(id);
        let told = toa::insert(frame, flow, &toa::option(client), room);
        self.note_told(told);
    }

    pub(super) fn toa_out<K: Family>(
        &mut self,
        frame: &mut Q::Frame,
        flow: &Flow<K>,
        id: ConnId,
        record: SideId,
    ) {
        if flow.says & (SYN | ACK) != SYN | ACK {
            return;
        }
        let known = self.records.get_mut(record);
        known.seen.set(Seen::SYN_ACK);
        let seq = stream::number(frame.bytes(), flow, tcp::SEQ_AT);
        known.server_start = seq.wrapping_add(1);
        // What the client sends is to fit with the option in it.
        let option = toa::len(K::side(&self.sides).conns.get(id).client());
        let is_v6 = flow.key.source().is_ipv6();
        let fitting = mss::fitting(self.mtu_towards_server::<K>(id), is_v6, option);
        if let Some(segment) = frame.bytes_mut().get_mut(usize::from(flow.l4)..) {
            mss::clamp(segment, fitting);
        }
    }

    /// A client's packet, whole or the first part of one: its new number, and the segment with the
    /// header that goes in front of it, if any.
    pub(super) fn proxy_in<K: Family>(
        &mut self,
        frame: &mut Q::Frame,
        flow: &mut Flow<K>,
        id: ConnId,
        record: SideId,
        whole: bool,
        now: Tick,
    ) -> Result<Option<Own<Q::Frame, K>>, DropReason> {
        let known = self.records.get_mut(record);
        let seq = stream::number(frame.bytes(), flow, tcp::SEQ_AT);
        if flow.says & SYN != 0 {
            if !whole {
                return Err(DropReason::FragmentOfProxied); // data, which a SYN may not bring
            }
            stream::bare_syn(frame, flow);
            if !known.seen.has(Seen::SENT) {
                known.client_start = seq.wrapping_add(1);
            }
            return Ok(None);
        }
        let n = known.inserted;
        if known.seen.has(Seen::ACKED) {
            stream::shift(frame.bytes_mut(), flow, n);
            return Ok(None);
        }
        if flow.says & RST != 0 {
            // It must have exactly the number that the server waits for (RFC 5961 3.2): that
            // behind the header, unless the server has said that it lacks it.
            if known.seen.has(Seen::SENT) && !known.seen.has(Seen::LACKING) {
                stream::shift(frame.bytes_mut(), flow, n);
            }
            return Ok(None);
        }
        if seq != known.client_start || flow.says & ACK == 0 || !known.seen.has(Seen::SYN_ACK) {
            stream::shift(frame.bytes_mut(), flow, n);
            return Ok(None);
        }
        // From the stream's start. Data behind a header that has just been sent need not repeat
        // it; data that comes again does.
        let ends = !whole || carrier::tcp_data_len(frame.bytes(), flow) > 0 || flow.says & FIN != 0;
        let again = ends && known.seen.has(Seen::DATA);
        let recent = known.seen.has(Seen::SENT) && now.since(known.sent_at) < TAKEN_FOR_LOST;
        if ends {
            known.seen.set(Seen::DATA);
        }
        if recent && !again {
            stream::shift(frame.bytes_mut(), flow, n);
            return Ok(None);
        }
        let conn = K::side(&self.sides).conns.get(id);
        let header = proxy::of(known.carrier, conn.client(), conn.virtual_(), Proto::Tcp);
        let header = header.ok_or(DropReason::NoConnection)?;
        let own = if ends {
            if !whole && flow.key.source().is_ipv6() {
                return Err(DropReason::FragmentOfProxied);
            }
            let own = stream::segment(frame, flow, &header, self.ids.next16())?;
            stream::shift(frame.bytes_mut(), flow, n);
            Some(own)
        } else if stream::fill(frame, flow, &header) {
            None
        } else {
            return Err(DropReason::NoBuffer);
        };
        known.seen.set(Seen::SENT);
        known.seen.clear(Seen::LACKING);
        known.sent_at = now;
        self.note_told(true);
        Ok(own)
    }

    /// A server's packet: what it acknowledges, in the client's numbers.
    pub(super) fn proxy_out<K: Family>(
        &mut self,
        frame: &mut Q::Frame,
        flow: &Flow<K>,
        record: SideId,
    ) {
        let known = self.records.get_mut(record);
        if flow.says & ACK == 0 {
            return;
        }
        if flow.says & SYN != 0 {
            // First or again: the header goes, or goes again, with what the client answers.
            known.seen.set(Seen::SYN_ACK);
            known.seen.clear(Seen::SENT);
            return;
        }
        let n = u32::from(known.inserted);
        let ack = stream::number(frame.bytes(), flow, tcp::ACK_AT);
        let got = ack.wrapping_sub(known.client_start);
        if known.seen.has(Seen::SENT) && !known.seen.has(Seen::ACKED) {
            let all = got >= n && got < 1 << 31;
            known
                .seen
                .set(if all { Seen::ACKED } else { Seen::LACKING });
        }
        if known.seen.has(Seen::ACKED) && (FAR..1 << 31).contains(&got) {
            known.seen.set(Seen::FAR);
        }
        let (start, inserted) = (known.client_start, known.inserted);
        stream::unshift(frame.bytes_mut(), flow, start, inserted, known.seen);
    }

    /// A client's datagram, `whole` or the first part of one, which may be of `room` bytes then.
    /// `Some`: it cannot go, because every one needs its header and only so many bytes fit beside
    /// that.
    pub(super) fn datagram_in<K: Family>(
        &mut self,
        frame: &mut Q::Frame,
        flow: &mut Flow<K>,
        id: ConnId,
        (record, room): (SideId, u16),
        whole: bool,
    ) -> Option<u16> {
        let known = self.records.get_mut(record);
        let conn = K::side_mut(&mut self.sides).conns.get_mut(id);
        let client = conn.client();
        if let Some(header) = proxy::of(known.carrier, client, conn.virtual_(), Proto::Udp) {
            let fits = room.saturating_sub(header.len() as u16);
            let goes = flow.ip_len <= fits || may_be_cut(frame.bytes(), false);
            let told = goes && proxy::prepend(frame, flow, &header);
            self.note_told(told);
            return (!told).then_some(fits);
        }
        // The option would be lost on the way to the other family, and is of IPv4 alone.
        let room = match conn.flags().has(Flags::TRANSLATED) {
            true => 0,
            false => room,
        };
        let carrier = known.carrier;
        known.told += 1;
        if known.told >= UOA_DATAGRAMS {
            conn.set_side(None);
            self.records.give_back(record);
        }
        let told = match carrier {
            ClientAddress::uoa_opp => whole && opp::insert(frame, flow, client, room),
            _ => uoa::insert(frame, flow, client, room),
        };
        self.note_told(told);
        None
    }

    pub(super) fn note_told(&self, told: bool) {
        match told {
            true => self.counters.clients_told.add(1),
            false => self.counters.clients_untold.add(1),
        }
    }

    /// The longest packet of the client's that still fits the link to its server.
    fn room_towards_server<K: Family>(&self, id: ConnId) -> u16 {
        let mtu = self.mtu_towards_server::<K>(id);
        let conn = K::side(&self.sides).conns.get(id);
        match (conn.client(), conn.server()) {
            (SocketAddr::V4(_), SocketAddr::V6(_)) => mtu.saturating_sub(TRANSLATION),
            (SocketAddr::V6(_), SocketAddr::V4(_)) => mtu.saturating_add(TRANSLATION),
            _ => mtu,
        }
    }

    /// Largest IP packet on the link to a connection's server, bytes; 0 without a route.
    fn mtu_towards_server<K: Family>(&self, id: ConnId) -> u16 {
        let server = K::side(&self.sides).conns.get(id).server();
        let way = self.fib.lookup(server.ip());
        let lane = way.and_then(|way| self.lanes.get(usize::from(way.hop.port.0)));
        lane.map_or(0, |lane| lane.port.mtu)
    }
}
