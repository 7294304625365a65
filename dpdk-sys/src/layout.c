#include "layout.h"

#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

struct weir_layout weir_layout(void)
{
#define MBUF(field) .mbuf_##field = offsetof(struct rte_mbuf, field)
#define CACHE(field) .cache_##field = offsetof(struct rte_mempool_cache, field)
#define FP_OPS(field) .fp_ops_##field = offsetof(struct rte_eth_fp_ops, field)
	return (struct weir_layout){
		.mbuf_size = sizeof(struct rte_mbuf),
		.mbuf_align = _Alignof(struct rte_mbuf),
		MBUF(buf_addr),
		MBUF(data_off),
		MBUF(refcnt),
		MBUF(nb_segs),
		MBUF(port),
		MBUF(ol_flags),
		MBUF(packet_type),
		MBUF(pkt_len),
		MBUF(data_len),
		MBUF(vlan_tci),
		MBUF(buf_len),
		MBUF(pool),
		MBUF(next),
		MBUF(tx_offload),
		.pool_size = sizeof(struct rte_mempool),
		.pool_cache_size = offsetof(struct rte_mempool, cache_size),
		.pool_local_cache = offsetof(struct rte_mempool, local_cache),
		.cache_size = sizeof(struct rte_mempool_cache),
		CACHE(flushthresh),
		CACHE(len),
		CACHE(objs),
		.fp_ops_size = sizeof(struct rte_eth_fp_ops),
		FP_OPS(rx_pkt_burst),
		FP_OPS(rxq),
		FP_OPS(tx_pkt_burst),
		FP_OPS(txq),
		.qdata_data = offsetof(struct rte_ethdev_qdata, data),
		.qdata_clbk = offsetof(struct rte_ethdev_qdata, clbk),
	};
}
