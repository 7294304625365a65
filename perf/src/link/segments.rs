//! The packets of a TCP connection's life, each made of the one before it, in its buffer.
//!
//! ```text
//!  client  SYN           ACK  data  FIN        ACK
//!  server       SYN-ACK                  FIN
//! ```
//!
//! The generator keeps nothing of a connection: what comes next, and whose it is, stands in the
//! packet that came. TCP's own numbers say both, and are true: a client's first is its number in the
//! load, a server's is 1. The IP identification, which a balancer leaves alone, carries a tag for
//! whoever counts. So the same packets run through a balancer, behind which a client has another
//! address, and through a program that sends back what it gets.
#![forbid(unsafe_code)]

use weir_dataplane::io::Frame;
use weir_dataplane::packet::build::Packet;
use weir_dataplane::packet::checksum::Diff;
use weir_dataplane::packet::tcp::flags::{ACK, FIN, PSH, SYN};
use weir_dataplane::packet::tcp::{ACK_AT, CHECKSUM_AT, FLAGS_AT, MIN_LEN, SEQ_AT};
use weir_dataplane::packet::{be16, be32, eth, ipv4, put16, put32};

use super::frames::{IPIP, SMALLEST};
use crate::testbed::{MACS, PEER, VIP, client};

/// Packets in a whole life.
pub(crate) const PACKETS: u64 = 7;
/// Bytes of the frame with the data, without FCS; the pipeline's lifecycles send as much.
const LONGEST: usize = 200;
/// Bytes of the data.
const DATA: usize = LONGEST - HEADERS;
const L4: usize = ipv4::END;
/// Where the headers end: all that a packet without data has, before it is padded.
const HEADERS: usize = L4 + MIN_LEN;
/// Version and length of an IPv4 header without options.
const PLAIN: u8 = 0x45;
const ID_AT: usize = eth::HEADER_LEN + 4;

/// A packet's place in its connection's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Syn,
    SynAck,
    Ack,
    Data,
    Fin,
    ServerFin,
    LastAck,
}

impl Step {
    const ALL: [Step; PACKETS as usize] = [
        Step::Syn,
        Step::SynAck,
        Step::Ack,
        Step::Data,
        Step::Fin,
        Step::ServerFin,
        Step::LastAck,
    ];

    /// What follows; nothing after the last.
    #[inline]
    pub(crate) fn next(self) -> Option<Step> {
        Step::ALL.get(self as usize + 1).copied()
    }

    const fn flags(self) -> u8 {
        match self {
            Step::Syn => SYN,
            Step::SynAck => SYN | ACK,
            Step::Ack | Step::LastAck => ACK,
            Step::Data => PSH | ACK,
            Step::Fin | Step::ServerFin => FIN | ACK,
        }
    }

    const fn is_servers(self) -> bool {
        matches!(self, Step::SynAck | Step::ServerFin)
    }

    /// How far the client's numbers are, counted from its first: what its packet begins with, and
    /// what a server's acknowledges.
    const fn client_at(self) -> u32 {
        match self {
            Step::Syn => 0,
            Step::SynAck | Step::Ack | Step::Data => 1,
            Step::Fin => 1 + DATA as u32,
            Step::ServerFin | Step::LastAck => 2 + DATA as u32,
        }
    }

    /// The server's numbers, of which the first is 1.
    const fn server_at(self) -> u32 {
        match self {
            Step::Syn => 0,
            Step::SynAck => 1,
            Step::Ack | Step::Data | Step::Fin | Step::ServerFin => 2,
            Step::LastAck => 3,
        }
    }
}

/// One packet of a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) step: Step,
    /// The client's number in the load, at most 4,000 million.
    pub(crate) client: u32,
    /// Carried from the first packet to the last.
    pub(crate) tag: u16,
}

impl Segment {
    /// Reads a frame; `None` when it is nothing of a life.
    #[inline]
    pub(crate) fn read(frame: &[u8]) -> Option<Segment> {
        const SYN_ACK: u8 = Step::SynAck.flags();
        const PUSH: u8 = Step::Data.flags();
        const FINS: u8 = Step::Fin.flags();
        let frame = frame.first_chunk::<HEADERS>()?;
        let is_tcp = be16(frame, 12) == eth::IPV4
            && frame[eth::HEADER_LEN] == PLAIN
            && frame[ipv4::PROTO_AT] == ipv4::TCP;
        if !is_tcp {
            return None;
        }
        let (seq, ack) = (be32(frame, L4 + SEQ_AT), be32(frame, L4 + ACK_AT));
        let step = match frame[L4 + FLAGS_AT] {
            SYN => Step::Syn,
            SYN_ACK => Step::SynAck,
            PUSH => Step::Data,
            ACK if ack == Step::Ack.server_at() => Step::Ack,
            ACK if ack == Step::LastAck.server_at() => Step::LastAck,
            // A server's acknowledges the data, and so more than 2.
            FINS if ack == Step::Fin.server_at() => Step::Fin,
            FINS => Step::ServerFin,
            _ => return None,
        };
        let clients = if step.is_servers() { ack } else { seq };
        Some(Segment {
            step,
            client: clients.wrapping_sub(step.client_at()),
            tag: be16(frame, ID_AT),
        })
    }
}

/// Takes off what a tunnel put around a packet (IP in IP); a frame without is left as it is.
#[inline]
pub(crate) fn unwrap<F: Frame>(frame: &mut F) {
    let bytes = frame.bytes();
    let wrapped = bytes.len() >= ipv4::MIN_LEN + HEADERS
        && be16(bytes, 12) == eth::IPV4
        && bytes[ipv4::PROTO_AT] == IPIP;
    if wrapped {
        frame.pull_front(ipv4::MIN_LEN);
        put16(frame.bytes_mut(), 12, eth::IPV4);
    }
}

/// Writes segments: a client's by a copy and some stores, a server's by turning round what it answers.
#[derive(Debug)]
pub(crate) struct Segments {
    /// Client 0's, by step; those of servers are never used.
    templates: [[u8; LONGEST]; PACKETS as usize],
    source: (u32, u16),
}

impl Segments {
    pub(crate) fn new() -> Segments {
        let from = client(0);
        let template = |step: Step| {
            let mut packet = Packet::tcp(from, VIP, step.flags()).macs(PEER, MACS[0]);
            (packet.seq, packet.ack) = (step.client_at(), step.server_at());
            let data = [0; DATA];
            let frame = match step {
                Step::Data => packet.payload(&data).build(),
                _ => packet.build(),
            };
            std::array::from_fn(|i| frame.get(i).copied().unwrap_or(0))
        };
        Segments {
            templates: Step::ALL.map(template),
            source: (u32::from(*from.ip()), from.port()),
        }
    }

    /// Makes `frame` this segment. A server's must be made in the buffer of the one that it answers:
    /// only that has the addresses. False when the buffer is too small.
    #[inline]
    #[must_use]
    pub(crate) fn write<F: Frame>(&self, frame: &mut F, segment: Segment) -> bool {
        match segment.step {
            step if step.is_servers() => turn_round(frame.bytes_mut(), step, segment.client),
            _ => self.of_client(frame, segment),
        }
    }

    #[inline]
    fn of_client<F: Frame>(&self, frame: &mut F, segment: Segment) -> bool {
        let Segment {
            step,
            client: n,
            tag,
        } = segment;
        let template = &self.templates[step as usize];
        let len = match step {
            Step::Data => LONGEST,
            _ => SMALLEST,
        };
        if !frame.set_len(len) {
            return false;
        }
        // Fixed lengths: moves instead of calls, and no check of bounds below.
        let bytes = frame.bytes_mut();
        if let (Some(whole), Step::Data) = (bytes.first_chunk_mut(), step) {
            *whole = *template;
        }
        let (Some(bytes), Some(headers)) = (
            bytes.first_chunk_mut::<SMALLEST>(),
            template.first_chunk::<SMALLEST>(),
        ) else {
            return false;
        };
        *bytes = *headers;
        let from = client(u64::from(n));
        let (address, port) = (u32::from(*from.ip()), from.port());
        let seq = n.wrapping_add(step.client_at());
        put16(bytes, ID_AT, tag);
        put32(bytes, ipv4::SRC_AT, address);
        put16(bytes, L4, port);
        put32(bytes, L4 + SEQ_AT, seq);
        let address = (self.source.0, address);
        let id = be16(headers, ID_AT);
        let ip = Diff::of(&[address, (u32::from(id), u32::from(tag))]);
        let port = (u32::from(self.source.1), u32::from(port));
        let tcp = Diff::of(&[address, port, (step.client_at(), seq)]);
        let sum = be16(headers, ipv4::CHECKSUM_AT);
        put16(bytes, ipv4::CHECKSUM_AT, ip.apply(sum));
        let sum = be16(headers, L4 + CHECKSUM_AT);
        put16(bytes, L4 + CHECKSUM_AT, tcp.apply(sum));
        true
    }
}

/// Makes of a client's packet the server's answer to `client`'s. Addresses and ports that change places
/// leave both checksums as they are.
#[inline]
fn turn_round(frame: &mut [u8], step: Step, client: u32) -> bool {
    let Some(frame) = frame.first_chunk_mut::<HEADERS>() else {
        return false;
    };
    let (src, dst) = (be32(frame, ipv4::SRC_AT), be32(frame, ipv4::DST_AT));
    let ports = be32(frame, L4);
    // Length of the header, flags, window.
    const WORD_AT: usize = L4 + FLAGS_AT - 1;
    let old = [L4 + SEQ_AT, L4 + ACK_AT, WORD_AT].map(|at| be32(frame, at));
    let word = old[2] & 0xff00_ffff | u32::from(step.flags()) << 16;
    let new = [
        step.server_at(),
        client.wrapping_add(step.client_at()),
        word,
    ];
    let tcp = Diff::of(&[(old[0], new[0]), (old[1], new[1]), (old[2], new[2])]);
    let sum = tcp.apply(be16(frame, L4 + CHECKSUM_AT));
    eth::set_macs(frame, MACS[0], PEER);
    put32(frame, ipv4::SRC_AT, dst);
    put32(frame, ipv4::DST_AT, src);
    put32(frame, L4, ports.rotate_left(16));
    put32(frame, L4 + SEQ_AT, new[0]);
    put32(frame, L4 + ACK_AT, new[1]);
    put32(frame, WORD_AT, new[2]);
    put16(frame, L4 + CHECKSUM_AT, sum);
    true
}

#[cfg(test)]
mod tests;
