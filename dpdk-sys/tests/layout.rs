//! The fields that Rust reads by itself are where C has them.

use std::mem::{align_of, offset_of, size_of};

use dpdk_sys::{rte_eth_fp_ops, rte_ethdev_qdata, rte_mbuf, rte_mempool, rte_mempool_cache};

#[test]
fn rust_and_c_agree_on_every_layout_of_the_hot_path() {
    // SAFETY: a pure function of no arguments.
    let c = unsafe { dpdk_sys::weir_layout() };
    for (what, rust, c) in [
        ("mbuf size", size_of::<rte_mbuf>(), c.mbuf_size),
        ("mbuf align", align_of::<rte_mbuf>(), c.mbuf_align),
        ("buf_addr", offset_of!(rte_mbuf, buf_addr), c.mbuf_buf_addr),
        ("data_off", offset_of!(rte_mbuf, data_off), c.mbuf_data_off),
        ("refcnt", offset_of!(rte_mbuf, refcnt), c.mbuf_refcnt),
        ("nb_segs", offset_of!(rte_mbuf, nb_segs), c.mbuf_nb_segs),
        ("port", offset_of!(rte_mbuf, port), c.mbuf_port),
        ("ol_flags", offset_of!(rte_mbuf, ol_flags), c.mbuf_ol_flags),
        ("pkt_len", offset_of!(rte_mbuf, pkt_len), c.mbuf_pkt_len),
        ("data_len", offset_of!(rte_mbuf, data_len), c.mbuf_data_len),
        ("vlan_tci", offset_of!(rte_mbuf, vlan_tci), c.mbuf_vlan_tci),
        ("buf_len", offset_of!(rte_mbuf, buf_len), c.mbuf_buf_len),
        ("pool", offset_of!(rte_mbuf, pool), c.mbuf_pool),
        ("next", offset_of!(rte_mbuf, next), c.mbuf_next),
        ("pool size", size_of::<rte_mempool>(), c.pool_size),
        (
            "pool cache_size",
            offset_of!(rte_mempool, cache_size),
            c.pool_cache_size,
        ),
        (
            "pool local_cache",
            offset_of!(rte_mempool, local_cache),
            c.pool_local_cache,
        ),
        ("cache size", size_of::<rte_mempool_cache>(), c.cache_size),
        (
            "cache flushthresh",
            offset_of!(rte_mempool_cache, flushthresh),
            c.cache_flushthresh,
        ),
        ("cache len", offset_of!(rte_mempool_cache, len), c.cache_len),
        (
            "cache objs",
            offset_of!(rte_mempool_cache, objs),
            c.cache_objs,
        ),
        ("fp_ops size", size_of::<rte_eth_fp_ops>(), c.fp_ops_size),
        (
            "rx_pkt_burst",
            offset_of!(rte_eth_fp_ops, rx_pkt_burst),
            c.fp_ops_rx_pkt_burst,
        ),
        ("rxq", offset_of!(rte_eth_fp_ops, rxq), c.fp_ops_rxq),
        (
            "tx_pkt_burst",
            offset_of!(rte_eth_fp_ops, tx_pkt_burst),
            c.fp_ops_tx_pkt_burst,
        ),
        ("txq", offset_of!(rte_eth_fp_ops, txq), c.fp_ops_txq),
        (
            "qdata data",
            offset_of!(rte_ethdev_qdata, data),
            c.qdata_data,
        ),
        (
            "qdata clbk",
            offset_of!(rte_ethdev_qdata, clbk),
            c.qdata_clbk,
        ),
    ] {
        assert_eq!(rust, c, "{what}");
    }
    // The unions have no names in Rust; their places show by their neighbours.
    assert_eq!(c.mbuf_packet_type, c.mbuf_ol_flags + 8);
    assert_eq!(c.mbuf_tx_offload, c.mbuf_next + 8);
}

#[test]
fn flags_have_dpdks_values() {
    use dpdk_sys::flags::*;
    assert_eq!(RX_IP_CKSUM_MASK, 1 << 4 | 1 << 7);
    assert_eq!(RX_L4_CKSUM_MASK, 1 << 3 | 1 << 8);
    assert_eq!(RX_L4_CKSUM_NONE, RX_L4_CKSUM_MASK);
    assert_eq!((EXTERNAL, INDIRECT), (1 << 61, 1 << 62));
    assert_eq!(RX_OFFLOAD_IPV4_CKSUM, 1 << 1);
    assert_eq!(RX_OFFLOAD_UDP_CKSUM, 1 << 2);
    assert_eq!(RX_OFFLOAD_TCP_CKSUM, 1 << 3);
    assert_eq!(RSS_IPV4_TCP | RSS_IPV4_UDP, 1 << 4 | 1 << 5);
    assert_eq!(RSS_IPV4_SCTP, 1 << 6);
}
