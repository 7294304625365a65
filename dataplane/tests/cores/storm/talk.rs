//! The two ends of a storm's connections: clients that remember where they are, and servers that
//! remember nothing, because every packet says all that an answer needs.

use std::net::SocketAddrV4;

use weir_dataplane::packet::build::Packet;
use weir_dataplane::packet::tcp::flags::{ACK, FIN, PSH, RST, SYN};
use weir_dataplane::packet::{self, Parsed, eth};
use weir_dataplane::{Proto, Tick, packet::Key as _};

use crate::common::*;
use crate::{Rng, storm::plan::Plan};

/// What is in a packet of either end: the talk's number, and the server's host (0 from clients).
const PAYLOAD: usize = 8;
/// Numbers of one talk: its number is in what is above them.
const NUMBERS: u32 = 12;

/// A frame, read.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) from: SocketAddrV4,
    pub(crate) to: SocketAddrV4,
    pub(crate) proto: Proto,
    pub(crate) flags: u8,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) payload: Option<(usize, u8)>,
}

/// Reads a frame; `None` for what is no flow (ICMP).
pub(crate) fn read(frame: &[u8]) -> Option<Segment> {
    let Ok(Parsed::Flow(flow)) = packet::parse(frame, false) else {
        return None;
    };
    let l4 = usize::from(flow.l4);
    let end = eth::HEADER_LEN + usize::from(flow.ip_len);
    let tcp = flow.key.proto() == Proto::Tcp;
    let header = match tcp {
        true => usize::from(frame[l4 + 12] >> 4) * 4,
        false => 8,
    };
    let payload = &frame[l4 + header..end];
    let number = |at| match tcp {
        true => packet::be32(frame, l4 + at),
        false => 0,
    };
    Some(Segment {
        from: flow.key.source4(),
        to: flow.key.destination4(),
        proto: flow.key.proto(),
        flags: if tcp { frame[l4 + 13] } else { 0 },
        seq: number(4),
        ack: number(8),
        payload: (payload.len() == PAYLOAD)
            .then(|| (packet::be32(payload, 0) as usize, payload[7])),
    })
}

impl Segment {
    /// The talk that it says it is of, by its number or by what is in it.
    pub(crate) fn talk(&self) -> Option<usize> {
        match self.proto {
            Proto::Tcp if self.flags & SYN != 0 || self.payload.is_some() => {
                (self.seq >> NUMBERS).checked_sub(1).map(|n| n as usize)
            }
            Proto::Tcp => None,
            _ => self.payload.map(|(n, _)| n),
        }
    }

    /// What the server on `host` answers.
    pub(crate) fn answered(&self, frame: &[u8], host: u8) -> Option<Vec<u8>> {
        let (flags, seq, taken) = match (self.proto, self.flags, self.payload) {
            (Proto::Tcp, f, _) if f & RST != 0 => return None,
            (Proto::Tcp, f, _) if f & SYN != 0 => (SYN | ACK, self.seq.wrapping_mul(77), 1),
            (Proto::Tcp, f, _) if f & FIN != 0 => (FIN | ACK, self.ack, 1),
            (Proto::Tcp, _, Some(_)) => (ACK | PSH, self.ack, PAYLOAD as u32),
            (Proto::Tcp, _, None) => return None,
            _ => (0, 0, 0),
        };
        let mut reply = answer(frame, flags);
        (reply.seq, reply.ack) = (seq, self.seq.wrapping_add(taken));
        if let Some((n, _)) = self.payload.filter(|_| flags & FIN == 0) {
            reply.payload = said(n, host);
        }
        Some(reply.build())
    }
}

fn said(n: usize, host: u8) -> Vec<u8> {
    [(n as u32).to_be_bytes(), u32::from(host).to_be_bytes()].concat()
}

/// How a client's part ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Fin,
    Reset,
    /// It says nothing more.
    Silence,
}

/// A client's connection, or its datagrams from one port.
#[derive(Debug)]
pub(crate) struct Talk {
    n: usize,
    pub(crate) service: usize,
    pub(crate) client: SocketAddrV4,
    proto: Proto,
    vip_port: u16,
    /// What it asks before it ends.
    requests: u32,
    /// Requests answered; TCP: one is the handshake.
    step: u32,
    /// The server's next number.
    next: u32,
    tries: u8,
    waits: bool,
    ends: Ends,
    pub(crate) done: bool,
    /// Where it was opened last.
    pub(crate) server: Option<u8>,
    /// And when.
    pub(crate) opened: Tick,
}

impl Talk {
    pub(crate) fn new(n: usize, service: usize, plan: &Plan, rng: &mut Rng) -> Talk {
        // Some networks of 28 and of 24 bits.
        let ip = [192, 0, 2 + rng.below(2) as u8, (rng.below(6) * 7) as u8];
        let ends = [Ends::Fin, Ends::Fin, Ends::Reset, Ends::Silence];
        Talk {
            n,
            service,
            client: SocketAddrV4::new(ip.into(), 1024 + n as u16),
            proto: plan.proto,
            vip_port: plan.port,
            // Some are half a handshake.
            requests: if rng.one_in(6) {
                0
            } else {
                1 + rng.below(5) as u32
            },
            step: 0,
            next: 0,
            tries: 0,
            waits: false,
            ends: ends[rng.below(4)],
            done: false,
            server: None,
            opened: Tick(0),
        }
    }

    fn isn(&self) -> u32 {
        (self.n as u32 + 1) << NUMBERS
    }

    /// What is sent next, if it is not waiting; or again.
    pub(crate) fn send(&mut self, rng: &mut Rng) -> Option<Vec<u8>> {
        if self.done || self.waits && !rng.one_in(12) {
            return None;
        }
        self.tries = if self.waits { self.tries + 1 } else { 0 };
        if self.tries > 6 {
            self.done = true;
            return None;
        }
        self.waits = true;
        let vip = SocketAddrV4::new(VIP, self.vip_port);
        let payload = said(self.n, 0);
        if self.proto == Proto::Udp {
            let datagram = Packet::udp(self.client, vip).macs(ROUTER_MAC, WAN_MAC);
            return Some(datagram.payload(&payload).build());
        }
        let (flags, payload) = match self.step {
            0 => (SYN, None),
            step if step <= self.requests => (ACK | PSH, Some(payload)),
            _ => match self.ends {
                Ends::Fin => (FIN | ACK, None),
                Ends::Reset => (RST | ACK, None),
                Ends::Silence => {
                    self.done = true;
                    return None;
                }
            },
        };
        if self.step == 0 && self.requests == 0 || flags & RST != 0 {
            self.done = true; // half a handshake
        }
        let mut p = Packet::tcp(self.client, vip, flags).macs(ROUTER_MAC, WAN_MAC);
        let sent = self.step.saturating_sub(1) * PAYLOAD as u32 + u32::from(self.step > 0);
        p.seq = self.isn() + sent;
        p.ack = if flags & SYN == 0 { self.next } else { 0 };
        p.payload = payload.unwrap_or_default();
        Some(p.build())
    }

    /// An answer came. Says whose it is, so that the wrong one is found out.
    pub(crate) fn hear(&mut self, s: &Segment, what: &str) {
        if let Some((n, host)) = s.payload {
            assert_eq!(n, self.n, "{what}: what another client was told");
            if self.proto == Proto::Tcp {
                assert_eq!(Some(host), self.server, "{what}: from another server");
            }
        }
        if self.proto == Proto::Udp {
            self.step += u32::from(self.waits);
            self.waits = false;
            self.done |= self.step > self.requests;
            return;
        }
        if s.flags & RST != 0 {
            self.done = true;
            return;
        }
        let wanted = self.isn() + 1 + self.step * PAYLOAD as u32;
        match (self.step, s.flags & SYN != 0, s.flags & FIN != 0) {
            (0, true, _) => {
                assert_eq!(s.ack, self.isn() + 1, "{what}: a SYN-ACK for somebody else");
                self.next = s.seq.wrapping_add(1);
            }
            (1.., false, true) => self.done = true,
            // Its answer, once.
            (1.., false, false) if s.payload.is_some() && s.ack == wanted && s.seq == self.next => {
                self.next = s.seq.wrapping_add(PAYLOAD as u32);
            }
            _ => return,
        }
        self.step += 1;
        self.waits = false;
    }
}
