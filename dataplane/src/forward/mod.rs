//! Forwarding methods: one file per mode over one shared `rewrite`.
#![forbid(unsafe_code)]

use crate::packet::{Flow, Key, be16, checksum, eth, ipv4, put16};

pub mod carrier;
pub(crate) mod dr;
pub(crate) mod fullnat;
mod rewrite;
pub(crate) mod splice;
pub mod tun;
pub(crate) mod xlat;

/// Where a fragment belongs in its datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Where its data begins, bytes.
    pub(crate) offset: u16,
    /// Others follow behind it.
    pub(crate) more: bool,
    /// A new identification for the datagram, the same for all its parts.
    pub(crate) id: u32,
    /// Offset of an IPv6 fragment header from the frame's start.
    pub(crate) header_at: u16,
    /// Of an SCTP packet: its bytes without the IP header, which its checksum covers.
    pub(crate) whole: u16,
}

impl Part {
    /// The flags and offset of an IPv4 header.
    fn word4(self) -> u16 {
        self.offset >> 3 | if self.more { ipv4::MF } else { 0 }
    }

    /// The flow that a first part is of, as if all of its packet were here.
    fn whole_flow<K: Key>(self, flow: &Flow<K>) -> Flow<K> {
        let behind = flow.l4.saturating_sub(eth::HEADER_LEN as u16);
        Flow {
            ip_len: match self.whole {
                0 => flow.ip_len,
                len => behind.saturating_add(len),
            },
            ..*flow
        }
    }

    /// Writes where it belongs into its frame.
    pub(crate) fn place(self, frame: &mut [u8]) {
        match usize::from(self.header_at) {
            0 => {
                const AT: usize = eth::HEADER_LEN + 6;
                let df = be16(frame, AT) & ipv4::DF;
                put16(frame, AT, df | self.word4());
                checksum::set_ipv4(frame);
            }
            at => put16(frame, at + 2, self.word6()),
        }
    }

    /// The same of an IPv6 fragment header.
    fn word6(self) -> u16 {
        self.offset | u16::from(self.more)
    }
}

macro_rules! modes {
    ($($(#[doc = $doc:literal])+ $mode:ident,)+) => {
        /// How packets reach a real server.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(non_camel_case_types)]
        #[repr(u8)]
        pub enum ForwardMode { $($(#[doc = $doc])+ $mode,)+ }

        impl ForwardMode {
            /// All modes that this build has.
            pub const ALL: &'static [ForwardMode] = &[$(ForwardMode::$mode,)+];

            /// The mode's name in the configuration and in listings.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(ForwardMode::$mode => stringify!($mode),)+ }
            }

            /// The mode of this number; of others the first.
            #[inline]
            pub(crate) fn from_number(number: u8) -> ForwardMode {
                match ForwardMode::ALL.get(usize::from(number)) {
                    Some(mode) => *mode,
                    None => ForwardMode::ALL[0],
                }
            }
        }
    };
}

modes! {
    /// FULL-NAT: source becomes a local address, destination the server. Servers need no
    /// set-up, and answers come back to the worker that opened the connection.
    fullnat,
    /// NAT: destination becomes the server, the client's address stays. Servers route back
    /// through the director.
    nat,
    /// DR: the packet stays as it is and goes to the server's MAC address. Servers are on the
    /// director's link, hold the VIP on a silent interface and answer clients directly.
    dr,
    /// TUN: the packet stays as it is and travels inside another to the server. Servers may
    /// stand anywhere, hold the VIP and answer clients directly.
    tun,
    /// The director itself serves: the packet goes up to its kernel.
    local,
    /// SNAT: what real servers open themselves. The source becomes an address of a pool, the
    /// destination stays; the one who opens is the client here, whoever it asks the server.
    snat,
}

impl ForwardMode {
    /// Whether the servers' answers do not come through the director as a rule.
    #[inline]
    #[must_use]
    pub fn is_one_way(self) -> bool {
        match self {
            ForwardMode::fullnat | ForwardMode::nat | ForwardMode::snat => false,
            ForwardMode::dr | ForwardMode::tun | ForwardMode::local => true,
        }
    }

    /// Whether several clients share an address behind the director: what tells their datagrams
    /// and their past connections apart must be the director's own.
    #[inline]
    #[must_use]
    pub(crate) fn shares_addresses(self) -> bool {
        matches!(self, ForwardMode::fullnat | ForwardMode::snat)
    }

    /// Whether a server may listen on another port than the service's.
    #[must_use]
    pub fn maps_ports(self) -> bool {
        !self.is_one_way()
    }
}
