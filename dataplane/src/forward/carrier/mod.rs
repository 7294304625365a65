//! The client's address, told to servers that see a local address as their client.
//!
//! ```text
//!  toa       TCP   an option in the client's packets until the server's first data is acknowledged
//!  proxy-v1  TCP   a line of text in front of the client's data
//!  proxy-v2  TCP   a binary header in front of the client's data
//!            UDP   the same in front of every datagram
//!  uoa       UDP   an IPv4 option in the first datagrams of a flow
//!  uoa-opp   UDP   a header between IP and UDP in the first datagrams of a flow
//! ```
//! A carrier changes a packet as it came in, as if the client had sent it so: everything behind
//! (new addresses, another family, the MTU) need not know. Which packets are changed is
//! `pipeline/carried.rs`'s to say; here are the bytes. All checksums are mended by what changed,
//! so one that was wrong stays wrong.
#![forbid(unsafe_code)]

pub(crate) mod opp;
pub(crate) mod proxy;
pub(crate) mod stream;
#[cfg(test)]
mod tests;
pub(crate) mod toa;
pub(crate) mod uoa;

use super::ForwardMode;
use crate::io::Frame;
use crate::packet::checksum::{self, Diff};
use crate::packet::{Flow, Key, be16, eth, ipv4, ipv6, put16, tcp};
use crate::types::Proto;

macro_rules! carriers {
    ($($(#[doc = $doc:literal])+ $carrier:ident => $name:literal,)+) => {
        /// How servers are told the client's address.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        #[allow(non_camel_case_types)]
        #[repr(u8)]
        pub enum ClientAddress {
            #[default]
            $($(#[doc = $doc])+ $carrier,)+
        }

        impl ClientAddress {
            /// All of them.
            pub const ALL: &'static [ClientAddress] = &[$(ClientAddress::$carrier,)+];

            /// The name in the configuration and in listings.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(ClientAddress::$carrier => $name,)+ }
            }
        }
    };
}

carriers! {
    /// Not at all.
    none => "none",
    /// An option of TCP (kind 254), for the TOA modules of Linux kernels.
    toa => "toa",
    /// PROXY protocol version 1, text.
    proxy_v1 => "proxy-v1",
    /// PROXY protocol version 2, binary.
    proxy_v2 => "proxy-v2",
    /// An option of IPv4 (31), for the UOA module of DPVS.
    uoa => "uoa",
    /// A protocol of its own (248) between IP and UDP, for the same module.
    uoa_opp => "uoa-opp",
}

impl ClientAddress {
    /// Whether it is made for this protocol.
    #[must_use]
    pub fn carries(self, proto: Proto) -> bool {
        use ClientAddress::{none, proxy_v1, proxy_v2, toa, uoa, uoa_opp};
        match self {
            none => true,
            toa | proxy_v1 => proto == Proto::Tcp,
            proxy_v2 => matches!(proto, Proto::Tcp | Proto::Udp),
            uoa | uoa_opp => proto == Proto::Udp,
        }
    }

    /// Whether servers that are reached so have any use for it: those of NAT see the client's
    /// address, but may be set up to read a PROXY header and nothing else; what DR and TUN servers
    /// get is the client's own packet.
    #[must_use]
    pub fn goes_with(self, mode: ForwardMode) -> bool {
        match mode {
            ForwardMode::fullnat => true,
            ForwardMode::nat => self == ClientAddress::none || self.is_stream_data(),
            ForwardMode::dr | ForwardMode::tun | ForwardMode::local | ForwardMode::snat => {
                self == ClientAddress::none
            }
        }
    }

    /// Whether it is bytes in front of what the client sends.
    #[must_use]
    pub(crate) fn is_stream_data(self) -> bool {
        matches!(self, ClientAddress::proxy_v1 | ClientAddress::proxy_v2)
    }
}

/// Bytes of TCP's header.
#[inline]
pub(crate) fn tcp_header_len<K: Key>(frame: &[u8], flow: &Flow<K>) -> usize {
    usize::from(frame[usize::from(flow.l4) + 12] >> 4) * 4
}

/// Bytes of data in a TCP segment.
#[inline]
pub(crate) fn tcp_data_len<K: Key>(frame: &[u8], flow: &Flow<K>) -> usize {
    let headers = usize::from(flow.l4) + tcp_header_len(frame, flow);
    (eth::HEADER_LEN + usize::from(flow.ip_len)).saturating_sub(headers)
}

/// Gives an IP packet another length, in its header and in `flow`; what that adds to the sum over
/// TCP's or UDP's pseudo-header.
pub(crate) fn resize<K: Key>(frame: &mut [u8], flow: &mut Flow<K>, ip_len: u16) -> Diff {
    const TOTAL_LEN_AT: usize = eth::HEADER_LEN + 2;
    let old = flow.ip_len;
    let diff = Diff::of(&[(u32::from(old), u32::from(ip_len))]);
    flow.ip_len = ip_len;
    match eth::ethertype(frame) {
        Ok(eth::IPV6) => put16(frame, ipv6::PAYLOAD_LEN_AT, ip_len - ipv6::LEN as u16),
        _ => {
            put16(frame, TOTAL_LEN_AT, ip_len);
            let sum = be16(frame, ipv4::CHECKSUM_AT);
            put16(frame, ipv4::CHECKSUM_AT, diff.apply(sum));
        }
    }
    diff
}

/// Changes a TCP header in place and mends its checksum by what changed.
pub(crate) fn mended<K: Key>(frame: &mut [u8], flow: &Flow<K>, change: impl FnOnce(&mut [u8])) {
    let len = tcp_header_len(frame, flow);
    let Some(header) = frame
        .get_mut(usize::from(flow.l4)..)
        .and_then(|s| s.get_mut(..len))
    else {
        return;
    };
    let before = checksum::sum(header);
    change(header);
    let diff = Diff::adding(!before).plus(Diff::adding(checksum::sum(header)));
    mend(header, diff);
}

pub(crate) fn mend(tcp_header: &mut [u8], diff: Diff) {
    let sum = be16(tcp_header, tcp::CHECKSUM_AT);
    put16(tcp_header, tcp::CHECKSUM_AT, diff.apply(sum));
}

/// Makes room for `n` bytes at `at`, by moving what is in front of it; the room holds anything.
fn open_gap<F: Frame>(frame: &mut F, at: usize, n: usize) -> bool {
    if !frame.push_front(n) {
        return false;
    }
    frame.bytes_mut().copy_within(n..n + at, 0);
    true
}
