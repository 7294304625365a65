/* Sizes and offsets as the C compiler sees them, for tests/layout.rs.
 *
 * Rust reads these structs' fields by itself on the hot path; bindgen asked libclang for their
 * layout, the C library was built by another compiler, so the two are compared.
 */
#ifndef WEIR_LAYOUT_H
#define WEIR_LAYOUT_H

#include <stddef.h>

struct weir_layout {
	size_t mbuf_size;
	size_t mbuf_align;
	size_t mbuf_buf_addr;
	size_t mbuf_data_off;
	size_t mbuf_refcnt;
	size_t mbuf_nb_segs;
	size_t mbuf_port;
	size_t mbuf_ol_flags;
	size_t mbuf_packet_type;
	size_t mbuf_pkt_len;
	size_t mbuf_data_len;
	size_t mbuf_vlan_tci;
	size_t mbuf_buf_len;
	size_t mbuf_pool;
	size_t mbuf_next;
	size_t mbuf_tx_offload;
	size_t pool_size;
	size_t pool_cache_size;
	size_t pool_local_cache;
	size_t cache_size;
	size_t cache_flushthresh;
	size_t cache_len;
	size_t cache_objs;
	size_t fp_ops_size;
	size_t fp_ops_rx_pkt_burst;
	size_t fp_ops_rxq;
	size_t fp_ops_tx_pkt_burst;
	size_t fp_ops_txq;
	size_t qdata_data;
	size_t qdata_clbk;
};

struct weir_layout weir_layout(void);

#endif
