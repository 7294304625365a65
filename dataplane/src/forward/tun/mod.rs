//! TUN: the client's packet travels unchanged inside another one to a server that may stand
//! anywhere. The server holds the VIP, unwraps, and answers the client itself.
//!
//! ```text
//!  ipip    | outer IP | packet                            +20, +40 over IPv6
//!  gre     | outer IP | GRE 4 or 8 | packet               +24 or 28, +44 or 48
//!  gue     | outer IP | UDP 8 | GUE 4 | packet            +32, +52
//!  vxlan   | outer IP | UDP 8 | VXLAN 8 | Ethernet 14 | packet   +50, +70
//! ```
//! Both families inside and outside, in all four pairs. What goes into the outer header is what
//! Linux's IPVS puts there (recorded: `tests/data/packets.jsonl.gz`): the TTL and the type of
//! service are copied, "congestion experienced" becomes "ECN capable" outside, the flow label is
//! 0, and DF is copied from an IPv4 packet if path MTU discovery is on.
#![forbid(unsafe_code)]

mod gre;
mod gue;
mod ipip;
mod quoted;
mod vxlan;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;

use crate::counters::DropReason;
use crate::io::Frame;
use crate::packet::header::IpHeader;
use crate::packet::ids::IpIds;
use crate::packet::{be16, checksum, eth, ipv4, ipv6, put16, udp};
use crate::types::Mac;

pub use crate::packet::header::Ends;
pub use quoted::inside;
pub use vxlan::device_mac;

/// How packets are wrapped for a real server; a part of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tunnel {
    /// IP in IP (RFC 2003, 2473, 4213): no header between.
    Ipip,
    /// Generic routing encapsulation (RFC 2784).
    Gre {
        /// With its checksum over everything inside.
        checksum: bool,
    },
    /// Generic UDP encapsulation, version 0 (draft-ietf-intarea-gue; Linux's `fou` module).
    Gue {
        /// Destination UDP port (ipvsadm's `--tun-port`).
        port: u16,
        /// What the outer UDP checksum is.
        checksum: GueChecksum,
    },
    /// VXLAN (RFC 7348) to a device of the server's own.
    Vxlan {
        /// The network's number, 24 bits.
        vni: u32,
        /// Destination UDP port; 4789 is VXLAN's own.
        port: u16,
        /// MAC address of the server's VXLAN device; `None`: the one that [`device_mac`] makes
        /// from the server's address and `scripts/realserver` sets.
        mac: Option<Mac>,
    },
}

/// The outer UDP checksum of a GUE tunnel, named as ipvsadm's options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GueChecksum {
    /// `--tun-nocsum`: zero. Over IPv6 the server's device must accept that (`udp6zerocsumrx`).
    None,
    /// `--tun-csum`: computed over everything inside.
    Full,
    /// `--tun-remcsum`: like `Full`. IPVS adds an option to packets whose own checksum is still
    /// partial, so that the server completes it; Weir completes those at the door, and so has
    /// none to add it to.
    Remote,
}

impl Tunnel {
    /// Bytes that the tunnel adds to a packet for a server at `server`: the MTU it costs.
    #[inline]
    #[must_use]
    pub fn overhead(self, server: IpAddr) -> u16 {
        let outer = match server {
            IpAddr::V4(_) => ipv4::MIN_LEN,
            IpAddr::V6(_) => ipv6::LEN,
        };
        (outer + self.header_len()) as u16
    }

    /// The same between these ends.
    #[inline]
    #[must_use]
    pub fn grows(self, ends: Ends) -> usize {
        ends.header_len() + self.header_len()
    }

    /// Whether its packets have ports, which tell flows apart on the way.
    #[inline]
    #[must_use]
    pub fn has_ports(self) -> bool {
        matches!(self, Tunnel::Gue { .. } | Tunnel::Vxlan { .. })
    }

    /// Bytes between the outer IP header and the packet.
    #[inline]
    fn header_len(self) -> usize {
        match self {
            Tunnel::Ipip => 0,
            Tunnel::Gre { checksum } => gre::len(checksum),
            Tunnel::Gue { .. } => gue::LEN,
            Tunnel::Vxlan { .. } => vxlan::LEN,
        }
    }
}

impl fmt::Display for Tunnel {
    /// As `ipvsadm --tun-info` writes it: `gue:6080:+c`; and so for VXLAN, with its network.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Tunnel::Ipip => f.write_str("ipip"),
            Tunnel::Gre { checksum: false } => f.write_str("gre:-c"),
            Tunnel::Gre { checksum: true } => f.write_str("gre:+c"),
            Tunnel::Gue { port, checksum } => {
                let checksum = match checksum {
                    GueChecksum::None => "-c",
                    GueChecksum::Full => "+c",
                    GueChecksum::Remote => "r+c",
                };
                write!(f, "gue:{port}:{checksum}")
            }
            Tunnel::Vxlan { vni, port, .. } => write!(f, "vxlan:{port}:{vni}"),
        }
    }
}

/// Whether the outer packets of a tunnel have this protocol.
#[must_use]
pub(crate) fn is_outer(protocol: u8) -> bool {
    matches!(
        protocol,
        ipip::IPV4 | ipip::IPV6 | gre::PROTOCOL | ipv4::UDP
    )
}

/// What the outer header takes from the packet.
struct Inner {
    v6: bool,
    /// Bytes of the packet, without Ethernet padding.
    len: usize,
    /// Type of service, or traffic class.
    tos: u8,
    ttl: u8,
    /// Set on IPv4 packets only.
    df: bool,
}

impl Inner {
    #[inline]
    fn read(frame: &[u8]) -> Result<Inner, DropReason> {
        let Some(h) = frame.first_chunk::<{ ipv4::END }>() else {
            return Err(DropReason::BadIpHeader);
        };
        const AT: usize = eth::HEADER_LEN;
        Ok(match be16(h, 12) {
            eth::IPV4 => Inner {
                v6: false,
                len: usize::from(be16(h, AT + 2)),
                tos: h[AT + 1],
                ttl: h[ipv4::TTL_AT],
                df: h[AT + 6] & 0x40 != 0,
            },
            eth::IPV6 => Inner {
                v6: true,
                len: ipv6::LEN + usize::from(be16(h, ipv6::PAYLOAD_LEN_AT)),
                tos: h[AT] << 4 | h[AT + 1] >> 4,
                ttl: h[ipv6::HOP_LIMIT_AT],
                df: false,
            },
            _ => return Err(DropReason::BadIpHeader),
        })
    }

    /// The protocol number of a packet directly inside IP.
    fn protocol(&self) -> u8 {
        match self.v6 {
            false => ipip::IPV4,
            true => ipip::IPV6,
        }
    }

    fn ethertype(&self) -> u16 {
        match self.v6 {
            false => eth::IPV4,
            true => eth::IPV6,
        }
    }
}

/// Wraps the packet in `frame`, which was checked at the door and whose TTL has been lowered
/// already. The frame grows at its front by [`Tunnel::overhead`]; its MAC addresses are then
/// still to be written. `hash` is of the flow and spreads tunnels with UDP over source ports;
/// `pmtu_disc` is the IPVS setting of that name.
///
/// # Errors
/// [`DropReason::TooBig`]: the buffer has no room, or the packet would be longer than 65,535
/// bytes; [`DropReason::BadIpHeader`]: no IP packet. Nothing was changed.
#[inline]
pub fn encapsulate<F: Frame>(
    frame: &mut F,
    tunnel: Tunnel,
    ends: Ends,
    hash: u32,
    pmtu_disc: bool,
    ids: &mut IpIds,
) -> Result<(), DropReason> {
    match (tunnel, ends) {
        // The commonest, compiled for itself: 610 -> 542 instructions a packet.
        (Tunnel::Ipip, Ends::V4 { src, dst }) => {
            let ends = Ends::V4 { src, dst };
            wrap(frame, Tunnel::Ipip, ends, hash, pmtu_disc, ids)
        }
        _ => wrap_any(frame, tunnel, ends, hash, pmtu_disc, ids),
    }
}

#[inline(never)]
fn wrap_any<F: Frame>(
    frame: &mut F,
    tunnel: Tunnel,
    ends: Ends,
    hash: u32,
    pmtu_disc: bool,
    ids: &mut IpIds,
) -> Result<(), DropReason> {
    wrap(frame, tunnel, ends, hash, pmtu_disc, ids)
}

#[inline(always)]
fn wrap<F: Frame>(
    frame: &mut F,
    tunnel: Tunnel,
    ends: Ends,
    hash: u32,
    pmtu_disc: bool,
    ids: &mut IpIds,
) -> Result<(), DropReason> {
    let inner = Inner::read(frame.bytes())?;
    let (ip_len, header_len) = (ends.header_len(), tunnel.header_len());
    let grows = ip_len + header_len;
    let total = u16::try_from(inner.len + grows).map_err(|_| DropReason::TooBig)?;
    if eth::HEADER_LEN + inner.len > frame.bytes().len() {
        return Err(DropReason::BadIpHeader);
    }
    if !frame.push_front(grows) {
        return Err(DropReason::TooBig);
    }
    // Ethernet padding would travel as data. A frame always shrinks.
    let _ = frame.set_len(eth::HEADER_LEN + usize::from(total));
    let (head, payload) = frame.bytes_mut().split_at_mut(eth::HEADER_LEN + ip_len);
    let sport = source_port(hash);
    let protocol = match tunnel {
        Tunnel::Ipip => inner.protocol(),
        Tunnel::Gre { checksum } => gre::write(payload, inner.ethertype(), checksum),
        Tunnel::Gue { port, checksum } => {
            gue::write(payload, inner.protocol());
            write_udp(
                payload,
                sport,
                port,
                match checksum {
                    GueChecksum::None => None,
                    GueChecksum::Full | GueChecksum::Remote => Some(ends),
                },
            )
        }
        Tunnel::Vxlan { vni, port, mac } => {
            vxlan::write(payload, vni, inner.ethertype(), ends, mac);
            write_udp(
                payload,
                sport,
                port,
                match ends {
                    Ends::V4 { .. } => None, // RFC 7348 5
                    // Linux's device refuses a checksum of zero over IPv6 unless told otherwise.
                    Ends::V6 { .. } => Some(ends),
                },
            )
        }
    };
    // RFC 3168 9.1.1, full functionality: CE is not copied out, or a mark of the outer path could
    // not be told from it.
    let tos = match inner.tos & 3 {
        3 => inner.tos & !1,
        _ => inner.tos,
    };
    let df = inner.df && pmtu_disc;
    let id = match ends {
        Ends::V4 { .. } if !df => ids.next16(),
        _ => 0, // RFC 6864 4.1
    };
    put16(head, 12, ends.ethertype());
    let header = IpHeader {
        ends,
        tos,
        ttl: inner.ttl,
        protocol,
        id,
        df,
    };
    header.write(&mut head[eth::HEADER_LEN..], total - ip_len as u16);
    Ok(())
}

/// The UDP source port that tells flows apart on the way: RFC 7348 5, RFC 6335's dynamic ports.
#[inline]
fn source_port(hash: u32) -> u16 {
    0xc000 | (hash ^ hash >> 16) as u16
}

/// Writes the UDP header at the front of `datagram`, with a checksum if its pseudo-header is
/// given. Gives UDP's protocol number.
fn write_udp(datagram: &mut [u8], sport: u16, dport: u16, checksummed: Option<Ends>) -> u8 {
    let len = datagram.len() as u16;
    put16(datagram, 0, sport);
    put16(datagram, 2, dport);
    put16(datagram, 4, len);
    put16(datagram, udp::CHECKSUM_AT, 0);
    if let Some(ends) = checksummed {
        let sum = u32::from(ends.pseudo(ipv4::UDP, len)) + u32::from(checksum::sum(datagram));
        let sum = !checksum::fold(sum);
        put16(
            datagram,
            udp::CHECKSUM_AT,
            if sum == 0 { 0xffff } else { sum },
        );
    }
    ipv4::UDP
}
