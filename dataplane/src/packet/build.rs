//! A builder of whole frames, for tests, benchmarks and the traffic generator: a row shows only
//! what differs from an ordinary packet.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use super::{Key, Key4, Key6, checksum, eth, icmp, ipv4, ipv6, put16, put32, sctp, tcp, udp};
use crate::types::{Mac, Proto};

/// A TCP, UDP or SCTP packet, or an echo, to be; all checksums right unless said otherwise.
#[derive(Debug, Clone)]
pub struct Packet {
    /// Destination MAC.
    pub eth_dst: Mac,
    /// Source MAC.
    pub eth_src: Mac,
    /// TCP, UDP, SCTP or ICMP's echo.
    pub proto: Proto,
    /// Source address and port.
    pub src: SocketAddr,
    /// Destination address and port.
    pub dst: SocketAddr,
    /// Time to live.
    pub ttl: u8,
    /// TCP flags; of an echo 1 for a request.
    pub flags: u8,
    /// TCP sequence number, or an echo's; SCTP's verification tag.
    pub seq: u32,
    /// TCP acknowledgement number.
    pub ack: u32,
    /// What follows the layer-4 header.
    pub payload: Vec<u8>,
    /// Leave the L4 checksum partial: the pseudo-header's sum only.
    pub partial: bool,
    /// Leave the UDP checksum out.
    pub no_checksum: bool,
}

impl Packet {
    /// A TCP packet with these flags.
    #[must_use]
    pub fn tcp(src: impl Into<SocketAddr>, dst: impl Into<SocketAddr>, flags: u8) -> Packet {
        Packet {
            flags,
            ..Packet::new(Proto::Tcp, src.into(), dst.into())
        }
    }

    /// A UDP packet.
    #[must_use]
    pub fn udp(src: impl Into<SocketAddr>, dst: impl Into<SocketAddr>) -> Packet {
        Packet::new(Proto::Udp, src.into(), dst.into())
    }

    /// An SCTP packet of these chunks: type, and value.
    #[must_use]
    pub fn sctp(
        src: impl Into<SocketAddr>,
        dst: impl Into<SocketAddr>,
        chunks: &[(u8, &[u8])],
    ) -> Packet {
        let mut packet = Packet::new(Proto::Sctp, src.into(), dst.into());
        for (kind, value) in chunks {
            let length = sctp::CHUNK_LEN + value.len();
            packet.payload.extend([*kind, 0]);
            packet.payload.extend((length as u16).to_be_bytes());
            packet.payload.extend(*value);
            let padded = packet.payload.len().next_multiple_of(4);
            packet.payload.resize(padded, 0);
        }
        packet
    }

    /// An echo request of ICMP or ICMPv6, or a reply, with this identifier; its sequence number is
    /// [`Packet::seq`].
    #[must_use]
    pub fn echo(src: IpAddr, dst: IpAddr, echo: icmp::Echo) -> Packet {
        let ports = echo.ports();
        let at = |ip, port| SocketAddr::new(ip, port);
        Packet {
            flags: u8::from(echo.asks),
            ..Packet::new(
                Proto::Icmp,
                at(src, (ports >> 16) as u16),
                at(dst, ports as u16),
            )
        }
    }

    fn new(proto: Proto, src: SocketAddr, dst: SocketAddr) -> Packet {
        Packet {
            eth_dst: Mac::default(),
            eth_src: Mac::default(),
            proto,
            src,
            dst,
            ttl: 64,
            flags: 0,
            seq: 1,
            ack: 0,
            payload: Vec::new(),
            partial: false,
            no_checksum: false,
        }
    }

    /// With these MAC addresses.
    #[must_use]
    pub fn macs(self, eth_src: Mac, eth_dst: Mac) -> Packet {
        Packet {
            eth_src,
            eth_dst,
            ..self
        }
    }

    /// With this payload.
    #[must_use]
    pub fn payload(self, payload: &[u8]) -> Packet {
        Packet {
            payload: payload.to_vec(),
            ..self
        }
    }

    /// The frame, without FCS, not padded.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let l4_len = match self.proto {
            Proto::Tcp => tcp::MIN_LEN,
            Proto::Udp => udp::LEN,
            Proto::Sctp => sctp::LEN,
            Proto::Icmp => icmp::LEN,
        };
        let key4 = Key4::between(self.proto, self.src, self.dst);
        let l4 = match key4 {
            Some(_) => Key4::HEADERS,
            None => Key6::HEADERS,
        };
        let mut f = vec![0u8; l4 + l4_len];
        f.extend_from_slice(&self.payload);
        let end = f.len();
        eth::set_macs(&mut f, self.eth_dst, self.eth_src);
        match key4 {
            Some(key) => {
                key.write_header(&mut f, (end - l4) as u16);
                f[ipv4::TTL_AT] = self.ttl;
                checksum::set_ipv4(&mut f);
            }
            None => {
                let key = Key6::new(self.proto, self.src, self.dst);
                key.write_header(&mut f, (end - l4) as u16);
                f[ipv6::HOP_LIMIT_AT] = self.ttl;
            }
        }
        if self.proto == Proto::Icmp {
            self.write_echo(&mut f, l4);
            return f;
        }
        put16(&mut f, l4, self.src.port());
        put16(&mut f, l4 + 2, self.dst.port());
        match self.proto {
            Proto::Tcp => {
                put32(&mut f, l4 + tcp::SEQ_AT, self.seq);
                put32(&mut f, l4 + tcp::ACK_AT, self.ack);
                f[l4 + 12] = 0x50;
                f[l4 + tcp::FLAGS_AT] = self.flags;
                put16(&mut f, l4 + 14, 0xffff);
            }
            Proto::Udp => put16(&mut f, l4 + 4, (end - l4) as u16),
            Proto::Sctp => {
                put32(&mut f, l4 + sctp::TAG_AT, self.seq);
                if !self.partial {
                    sctp::set_checksum(&mut f[l4..]);
                }
                return f;
            }
            Proto::Icmp => {}
        }
        let at = l4 + checksum::l4_at(self.proto);
        let sum = checksum::l4(&f, self.proto, l4, end);
        match (self.no_checksum, self.partial) {
            (true, _) => {}
            (false, false) => put16(&mut f, at, sum),
            (false, true) => {
                let value = checksum::pseudo(&f, self.proto, (end - l4) as u16);
                put16(&mut f, at, value);
            }
        }
        f
    }

    /// The ICMP header at `l4`.
    fn write_echo(&self, f: &mut [u8], l4: usize) {
        f[l4] = match (l4 == Key4::HEADERS, self.flags) {
            (true, 0) => icmp::v4::ECHO_REPLY,
            (true, _) => icmp::v4::ECHO,
            (false, 0) => icmp::v6::ECHO_REPLY,
            (false, _) => icmp::v6::ECHO,
        };
        if l4 == Key4::HEADERS {
            f[ipv4::PROTO_AT] = ipv4::ICMP;
            checksum::set_ipv4(f);
        }
        put16(f, l4 + icmp::WORD_AT, self.src.port() | self.dst.port());
        put16(f, l4 + icmp::WORD_AT + 2, self.seq as u16);
        icmp::set_checksum(f, l4);
    }
}

/// Whether every checksum in a TCP, UDP, SCTP or ICMP frame is right, from scratch.
#[must_use]
pub fn checksums_right(frame: &[u8]) -> bool {
    let (proto, l4, ip_len) = match super::parse(frame, false) {
        Ok(super::Parsed::Flow(flow)) => (flow.key.proto, flow.l4, flow.ip_len),
        Ok(super::Parsed::Flow6(flow)) => (flow.key.proto, flow.l4, flow.ip_len),
        Ok(super::Parsed::Other(super::Kind::Icmp4 | super::Kind::Icmp6)) => {
            let mut again = frame.to_vec();
            let Ok((at, end)) = super::upper_at(frame) else {
                return false;
            };
            again.truncate(end);
            icmp::set_checksum(&mut again, at);
            return again[at..] == frame[at..end];
        }
        _ => return false,
    };
    let (l4, end) = (usize::from(l4), eth::HEADER_LEN + usize::from(ip_len));
    if proto == Proto::Sctp {
        let packet = &frame[l4..end];
        return sctp::found_checksum(packet) == sctp::checksum(packet);
    }
    let found = super::be16(frame, l4 + checksum::l4_at(proto));
    let may_do_without = proto == Proto::Udp && super::be16(frame, 12) == eth::IPV4;
    (may_do_without && found == 0) || found == checksum::l4(frame, proto, l4, end)
}
