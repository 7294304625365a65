//! The five-tuple of a flow, packed for comparing and hashing: one type for each family, and
//! [`Key`], what the table and the pipeline need of either.
#![forbid(unsafe_code)]

use std::fmt::Debug;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use super::checksum::{self, Diff};
use super::{eth, ipv4, ipv6, put16};
use crate::steer::Toeplitz;
use crate::types::Proto;

/// The first 96 bits of an IPv4 address among IPv6 addresses (RFC 4291 2.5.5.2), as a word.
const MAPPED: u64 = 0xffff;
/// Time to live and hop limit of what Weir makes.
const HOPS: u8 = 64;

/// A five-tuple of one family, as packets of one direction carry it.
///
/// Sealed: the connection table relies on there being no other addresses than these two kinds.
pub trait Key: sealed::Sealed + Copy + Eq + Hash + Debug + Send + 'static {
    /// Source and destination address.
    type Addrs: Copy + Eq + Debug + Send;

    /// The key of these addresses and ports (source port in the high half).
    fn of(addrs: Self::Addrs, ports: u32, proto: Proto) -> Self;
    /// Source and destination address.
    fn addrs(&self) -> Self::Addrs;
    /// Source port in the high half, destination port in the low half.
    fn ports(&self) -> u32;
    /// TCP, UDP or SCTP.
    fn proto(&self) -> Proto;
    /// The addresses of packets the other way.
    fn swapped(addrs: Self::Addrs) -> Self::Addrs;
    /// Words to hash: different keys give different pairs, after mixing by `fold`.
    fn mixed(&self, secret: &[u64; 4], fold: impl Fn(u64, u64) -> u64) -> u64;
    /// The hash that the ownership function takes (RSS).
    fn toeplitz(&self, toeplitz: &Toeplitz) -> u32;
    /// What replacing `from` by `to` adds to a one's complement sum over the addresses.
    fn diff(from: Self::Addrs, to: Self::Addrs) -> Diff;
    /// Source address and port.
    fn source(&self) -> SocketAddr;
    /// Destination address and port.
    fn destination(&self) -> SocketAddr;

    /// The key of packets from `src` to `dst`; `None` when they do not fit the family.
    fn between(proto: Proto, src: SocketAddr, dst: SocketAddr) -> Option<Self>;

    /// Where the headers of a packet without options end, from the frame's start.
    const HEADERS: usize;
    /// Writes the Ethernet type and an IP header without options for a packet with this key and
    /// `payload` bytes behind the header: 64 hops, not to be fragmented. `frame` has room for
    /// it, filled with zeros.
    fn write_header(&self, frame: &mut [u8], payload: u16);

    /// Source port.
    #[inline]
    fn sport(&self) -> u16 {
        (self.ports() >> 16) as u16
    }

    /// Destination port.
    #[inline]
    fn dport(&self) -> u16 {
        self.ports() as u16
    }

    /// The key of the answers to packets with this key.
    #[inline]
    #[must_use]
    fn reversed(&self) -> Self {
        let ports = self.ports().rotate_left(16);
        Self::of(Self::swapped(self.addrs()), ports, self.proto())
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Key4 {}
    impl Sealed for super::Key6 {}
}

/// The five-tuple of an IPv4 flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key4 {
    /// Source address in the high half, destination address in the low half.
    pub addrs: u64,
    /// Source port in the high half, destination port in the low half.
    pub ports: u32,
    /// The layer-4 protocol.
    pub proto: Proto,
}

impl Key4 {
    /// The key of packets from `src` to `dst`.
    #[must_use]
    pub fn new(proto: Proto, src: SocketAddrV4, dst: SocketAddrV4) -> Key4 {
        Key4 {
            addrs: u64::from(u32::from(*src.ip())) << 32 | u64::from(u32::from(*dst.ip())),
            ports: u32::from(src.port()) << 16 | u32::from(dst.port()),
            proto,
        }
    }

    /// Source address.
    #[inline]
    #[must_use]
    pub fn src(self) -> u32 {
        (self.addrs >> 32) as u32
    }

    /// Destination address.
    #[inline]
    #[must_use]
    pub fn dst(self) -> u32 {
        self.addrs as u32
    }

    /// Source address and port.
    #[must_use]
    pub fn source4(self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::from(self.src()), self.sport())
    }

    /// Destination address and port.
    #[must_use]
    pub fn destination4(self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::from(self.dst()), self.dport())
    }
}

impl Key for Key4 {
    type Addrs = u64;

    #[inline]
    fn of(addrs: u64, ports: u32, proto: Proto) -> Key4 {
        Key4 {
            addrs,
            ports,
            proto,
        }
    }

    #[inline]
    fn addrs(&self) -> u64 {
        self.addrs
    }

    #[inline]
    fn ports(&self) -> u32 {
        self.ports
    }

    #[inline]
    fn proto(&self) -> Proto {
        self.proto
    }

    #[inline]
    fn swapped(addrs: u64) -> u64 {
        addrs.rotate_left(32)
    }

    #[inline]
    fn mixed(&self, [s0, s1, s2, s3]: &[u64; 4], fold: impl Fn(u64, u64) -> u64) -> u64 {
        let low = u64::from(self.ports) | u64::from(self.proto as u8) << 32;
        let h = fold(self.addrs ^ s0, low ^ s1);
        fold(h ^ s2, self.addrs.rotate_left(32) ^ s3)
    }

    #[inline]
    fn toeplitz(&self, toeplitz: &Toeplitz) -> u32 {
        toeplitz.hash4(self.src(), self.dst(), self.sport(), self.dport())
    }

    fn diff(from: u64, to: u64) -> Diff {
        Diff::of(&[
            ((from >> 32) as u32, (to >> 32) as u32),
            (from as u32, to as u32),
        ])
    }

    const HEADERS: usize = ipv4::END;

    fn write_header(&self, frame: &mut [u8], payload: u16) {
        let Some(f) = frame.first_chunk_mut::<{ ipv4::END }>() else {
            return;
        };
        put16(f, 12, eth::IPV4);
        f[eth::HEADER_LEN] = 0x45;
        put16(f, eth::HEADER_LEN + 2, ipv4::MIN_LEN as u16 + payload);
        put16(f, eth::HEADER_LEN + 6, 0x4000); // don't fragment, so the identification may be 0
        f[ipv4::TTL_AT] = HOPS;
        f[ipv4::PROTO_AT] = self.proto as u8;
        f[ipv4::SRC_AT..].copy_from_slice(&self.addrs.to_be_bytes());
        checksum::set_ipv4(f);
    }

    fn source(&self) -> SocketAddr {
        self.source4().into()
    }

    fn destination(&self) -> SocketAddr {
        self.destination4().into()
    }

    fn between(proto: Proto, src: SocketAddr, dst: SocketAddr) -> Option<Key4> {
        match (src, dst) {
            (SocketAddr::V4(src), SocketAddr::V4(dst)) => Some(Key4::new(proto, src, dst)),
            _ => None,
        }
    }
}

/// The five-tuple of an IPv6 flow. An IPv4 address in it (NAT64, NAT46) is IPv4-mapped; no
/// packet carries such an address, so the two never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key6 {
    /// Source address, destination address, each high half first.
    pub addrs: [u64; 4],
    /// Source port in the high half, destination port in the low half.
    pub ports: u32,
    /// The layer-4 protocol.
    pub proto: Proto,
}

impl Key6 {
    /// The key of packets from `src` to `dst`.
    #[must_use]
    pub fn new(proto: Proto, src: SocketAddr, dst: SocketAddr) -> Key6 {
        let halves = |a: SocketAddr| {
            let a = match a.ip() {
                IpAddr::V4(a) => u128::from(a.to_ipv6_mapped()),
                IpAddr::V6(a) => u128::from(a),
            };
            ((a >> 64) as u64, a as u64)
        };
        let ((a, b), (c, d)) = (halves(src), halves(dst));
        Key6 {
            addrs: [a, b, c, d],
            ports: u32::from(src.port()) << 16 | u32::from(dst.port()),
            proto,
        }
    }

    /// Source address.
    #[inline]
    #[must_use]
    pub fn src(&self) -> u128 {
        u128::from(self.addrs[0]) << 64 | u128::from(self.addrs[1])
    }

    /// Destination address.
    #[inline]
    #[must_use]
    pub fn dst(&self) -> u128 {
        u128::from(self.addrs[2]) << 64 | u128::from(self.addrs[3])
    }

    /// The IPv4 key that this one stands for, when both its addresses are IPv4-mapped.
    #[inline]
    #[must_use]
    pub fn unmapped(&self) -> Option<Key4> {
        let [a, b, c, d] = self.addrs;
        let mapped = a == 0 && c == 0 && b >> 32 == MAPPED && d >> 32 == MAPPED;
        mapped.then_some(Key4 {
            addrs: b << 32 | d & 0xffff_ffff,
            ports: self.ports,
            proto: self.proto,
        })
    }
}

impl From<Key4> for Key6 {
    #[inline]
    fn from(key: Key4) -> Key6 {
        Key6 {
            addrs: [
                0,
                MAPPED << 32 | key.addrs >> 32,
                0,
                MAPPED << 32 | key.addrs & 0xffff_ffff,
            ],
            ports: key.ports,
            proto: key.proto,
        }
    }
}

impl Key for Key6 {
    type Addrs = [u64; 4];

    #[inline]
    fn of(addrs: [u64; 4], ports: u32, proto: Proto) -> Key6 {
        Key6 {
            addrs,
            ports,
            proto,
        }
    }

    #[inline]
    fn addrs(&self) -> [u64; 4] {
        self.addrs
    }

    #[inline]
    fn ports(&self) -> u32 {
        self.ports
    }

    #[inline]
    fn proto(&self) -> Proto {
        self.proto
    }

    #[inline]
    fn swapped([a, b, c, d]: [u64; 4]) -> [u64; 4] {
        [c, d, a, b]
    }

    #[inline]
    fn mixed(&self, [s0, s1, s2, s3]: &[u64; 4], fold: impl Fn(u64, u64) -> u64) -> u64 {
        let [a, b, c, d] = self.addrs;
        let low = u64::from(self.ports) | u64::from(self.proto as u8) << 32;
        let h = fold(a ^ s0, b ^ s1) ^ fold(c ^ s2, d ^ s3);
        fold(h ^ s1.rotate_left(32), low ^ s2.rotate_left(32))
    }

    #[inline]
    fn toeplitz(&self, toeplitz: &Toeplitz) -> u32 {
        match self.unmapped() {
            // What travels is an IPv4 packet, and that is what the card hashes.
            Some(key) => key.toeplitz(toeplitz),
            None => toeplitz.hash6(&self.addrs, self.ports),
        }
    }

    /// An IPv4-mapped address adds what the IPv4 address does: 0xffff is another zero in one's
    /// complement. So this holds for translated flows too.
    fn diff(from: [u64; 4], to: [u64; 4]) -> Diff {
        let half = |word: u64, high: bool| (if high { word >> 32 } else { word }) as u32;
        let words: [(u32, u32); 8] = std::array::from_fn(|i| {
            let high = i % 2 == 0;
            (half(from[i / 2], high), half(to[i / 2], high))
        });
        Diff::of(&words)
    }

    const HEADERS: usize = ipv6::END;

    fn write_header(&self, frame: &mut [u8], payload: u16) {
        let Some(f) = frame.first_chunk_mut::<{ ipv6::END }>() else {
            return;
        };
        put16(f, 12, eth::IPV6);
        f[eth::HEADER_LEN] = 0x60;
        put16(f, ipv6::PAYLOAD_LEN_AT, payload);
        f[ipv6::NEXT_AT] = self.proto as u8;
        f[ipv6::HOP_LIMIT_AT] = HOPS;
        for (word, place) in self.addrs.iter().zip(f[ipv6::SRC_AT..].chunks_exact_mut(8)) {
            place.copy_from_slice(&word.to_be_bytes());
        }
    }

    fn source(&self) -> SocketAddr {
        socket(self.src(), self.sport())
    }

    fn destination(&self) -> SocketAddr {
        socket(self.dst(), self.dport())
    }

    fn between(proto: Proto, src: SocketAddr, dst: SocketAddr) -> Option<Key6> {
        Some(Key6::new(proto, src, dst))
    }
}

/// As people read it: an IPv4-mapped address is an IPv4 address.
fn socket(addr: u128, port: u16) -> SocketAddr {
    let addr = Ipv6Addr::from(addr);
    match addr.to_ipv4_mapped() {
        Some(addr) => SocketAddrV4::new(addr, port).into(),
        None => SocketAddrV6::new(addr, port, 0, 0).into(),
    }
}
