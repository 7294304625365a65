/* What bindgen cannot see of DPDK: inline functions, thread-local variables, stdio streams.
 *
 * bindgen reads this header, so it also says which of DPDK's headers are bound. Nothing here is
 * called for every packet: bursts, frees and allocations are Rust (dataplane/src/io/dpdk), and
 * end here only when a per-thread cache is empty or full, or a buffer is out of the ordinary.
 */
#ifndef WEIR_SHIM_H
#define WEIR_SHIM_H

#include <stddef.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_eth_bond.h>
#include <rte_eth_bond_8023ad.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

/* This thread's rte_errno; a thread-local variable behind a macro. */
int weir_errno(void);

/* This thread's lcore id, or WEIR_LCORE_NONE when it is not registered with EAL. */
#define WEIR_LCORE_NONE UINT32_MAX
unsigned int weir_lcore_id(void);

/* Takes n raw buffers from the pool, through the thread's cache if it has one.
 * 0, or a negative errno and none taken. */
int weir_pool_get(struct rte_mempool *pool, void **objs, unsigned int n);

/* Frees a chain of buffers of any kind: shared, attached, of several segments. */
void weir_mbuf_free(struct rte_mbuf *m);

/* Moves all segments into the first one. 0, or -1 (and nothing changed) when it has no room. */
int weir_mbuf_linearize(struct rte_mbuf *m);

/* A segment for tests that build chains: appends tail to head. 0, or -EOVERFLOW. */
int weir_mbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail);

/* Takes one more reference to a buffer: its next free only gives that back. */
void weir_mbuf_hold(struct rte_mbuf *m);

/* Forgets all references to a buffer but one. */
void weir_mbuf_reclaim(struct rte_mbuf *m);

/* LACP's state of a bond's member (IEEE 802.1AX 6.4.2.3, Actor_State): a byte of flags, or a
 * negative errno where the member is not up. */
#define WEIR_LACP_COLLECTING 0x10
#define WEIR_LACP_DISTRIBUTING 0x20
int weir_lacp_state(uint16_t bond, uint16_t member);

/* Sends everything DPDK logs to fn, a piece of text at a time. 0, or a negative errno. */
typedef void (*weir_log_fn)(const char *text, size_t len);
int weir_log_to(weir_log_fn fn);

#endif
