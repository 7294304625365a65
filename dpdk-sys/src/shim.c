#define _GNU_SOURCE /* fopencookie */
#include <errno.h>
#include <stdio.h>

#include <rte_log.h>

#include "shim.h"

int weir_errno(void)
{
	return rte_errno;
}

unsigned int weir_lcore_id(void)
{
	_Static_assert(WEIR_LCORE_NONE == LCORE_ID_ANY, "EAL's mark for no lcore");
	return rte_lcore_id();
}

int weir_pool_get(struct rte_mempool *pool, void **objs, unsigned int n)
{
	return rte_mempool_get_bulk(pool, objs, n);
}

void weir_mbuf_free(struct rte_mbuf *m)
{
	rte_pktmbuf_free(m);
}

int weir_mbuf_linearize(struct rte_mbuf *m)
{
	return rte_pktmbuf_linearize(m);
}

int weir_mbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail)
{
	return rte_pktmbuf_chain(head, tail);
}

void weir_mbuf_hold(struct rte_mbuf *m)
{
	rte_mbuf_refcnt_update(m, 1);
}

void weir_mbuf_reclaim(struct rte_mbuf *m)
{
	rte_mbuf_refcnt_set(m, 1);
}

int weir_lacp_state(uint16_t bond, uint16_t member)
{
	_Static_assert(WEIR_LACP_COLLECTING == STATE_COLLECTING, "LACP's flags");
	_Static_assert(WEIR_LACP_DISTRIBUTING == STATE_DISTRIBUTING, "LACP's flags");
	struct rte_eth_bond_8023ad_slave_info info;
	int code = rte_eth_bond_8023ad_slave_info(bond, member, &info);

	return code == 0 ? info.actor_state : code;
}

static weir_log_fn log_fn;

static ssize_t write_log(void *cookie, const char *text, size_t len)
{
	(void)cookie;
	log_fn(text, len);
	return (ssize_t)len;
}

int weir_log_to(weir_log_fn fn)
{
	cookie_io_functions_t io = { .write = write_log };
	FILE *stream = fopencookie(NULL, "w", io);

	if (stream == NULL)
		return -errno;
	log_fn = fn;
	setvbuf(stream, NULL, _IOLBF, 0);
	return rte_openlog_stream(stream);
}
