//! Raw bindings to DPDK, and nothing else: what they mean is for `weir-dataplane`'s `io/dpdk/`,
//! the only room that may import this crate.
//!
//! `build.rs` lists every function, type and constant that is bound; `shim.{h,c}` covers what
//! bindgen cannot see. Constants are re-exported in [`flags`] as `u64`, because bindgen gives
//! each the smallest type its value fits.

#[allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    rustdoc::all,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

pub use bindings::*;

/// Flags of mbufs and ports, all of the width of the fields they go into.
pub mod flags {
    use super::bindings as b;

    macro_rules! flags {
        ($($(#[$doc:meta])+ $name:ident = $raw:ident;)+) => {
            $($(#[$doc])+ pub const $name: u64 = b::$raw as u64;)+
        };
    }

    flags! {
        /// `ol_flags`: which bits speak of the received IPv4 header checksum.
        RX_IP_CKSUM_MASK = RTE_MBUF_F_RX_IP_CKSUM_MASK;
        /// `ol_flags`: the IPv4 header checksum was found right.
        RX_IP_CKSUM_GOOD = RTE_MBUF_F_RX_IP_CKSUM_GOOD;
        /// `ol_flags`: the IPv4 header checksum was found wrong.
        RX_IP_CKSUM_BAD = RTE_MBUF_F_RX_IP_CKSUM_BAD;
        /// `ol_flags`: which bits speak of the received L4 checksum.
        RX_L4_CKSUM_MASK = RTE_MBUF_F_RX_L4_CKSUM_MASK;
        /// `ol_flags`: the L4 checksum was found wrong.
        RX_L4_CKSUM_BAD = RTE_MBUF_F_RX_L4_CKSUM_BAD;
        /// `ol_flags`: the L4 checksum in the packet is not right, but the data is sound.
        RX_L4_CKSUM_NONE = RTE_MBUF_F_RX_L4_CKSUM_NONE;
        /// `ol_flags`: the data is another mbuf's.
        INDIRECT = RTE_MBUF_F_INDIRECT;
        /// `ol_flags`: the data is in memory that is no mbuf's.
        EXTERNAL = RTE_MBUF_F_EXTERNAL;
        /// Rx offload: verify IPv4 header checksums.
        RX_OFFLOAD_IPV4_CKSUM = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
        /// Rx offload: verify UDP checksums.
        RX_OFFLOAD_UDP_CKSUM = RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
        /// Rx offload: verify TCP checksums.
        RX_OFFLOAD_TCP_CKSUM = RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
        /// RSS: hash TCP over IPv4 by addresses and ports.
        RSS_IPV4_TCP = RTE_ETH_RSS_NONFRAG_IPV4_TCP;
        /// RSS: hash UDP over IPv4 by addresses and ports.
        RSS_IPV4_UDP = RTE_ETH_RSS_NONFRAG_IPV4_UDP;
        /// RSS: hash SCTP over IPv4 by addresses and ports.
        RSS_IPV4_SCTP = RTE_ETH_RSS_NONFRAG_IPV4_SCTP;
        /// RSS: hash other IPv4 packets by addresses.
        RSS_IPV4 = RTE_ETH_RSS_IPV4;
        /// RSS: hash IPv4 fragments by addresses.
        RSS_FRAG_IPV4 = RTE_ETH_RSS_FRAG_IPV4;
    }
}
