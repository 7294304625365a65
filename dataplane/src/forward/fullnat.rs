//! FULL-NAT, NAT and SNAT: new addresses and ports, in place.
//!
//! ```text
//!  FULL-NAT  client -> server   CIP:cport -> VIP:vport   becomes   LIP:lport -> RIP:rport
//!            server -> client   RIP:rport -> LIP:lport   becomes   VIP:vport -> CIP:cport
//!  NAT       client -> server   CIP:cport -> VIP:vport   becomes   CIP:cport -> RIP:rport
//!            server -> client   RIP:rport -> CIP:cport   becomes   VIP:vport -> CIP:cport
//!  SNAT      who opens -> far   CIP:cport -> RIP:rport   becomes   LIP:lport -> RIP:rport
//!            far -> who opened  RIP:rport -> LIP:lport   becomes   RIP:rport -> CIP:cport
//! ```
//! With FULL-NAT servers answer to the director wherever they stand; with NAT they must route
//! their answers through it. No byte is added, so the MTU is the link's.
#![forbid(unsafe_code)]

use super::{Part, rewrite};
use crate::conn::Conn;
use crate::conn::state::Direction;
use crate::packet::checksum::Diff;
use crate::packet::{Flow, Key4, Key6, common};
use crate::types::Proto;

/// Rewrites an IPv4 packet of `conn` that goes in direction `dir`.
#[inline(always)]
pub(crate) fn rewrite4(frame: &mut [u8], flow: &Flow<Key4>, conn: &Conn<Key4>, dir: Direction) {
    let (addrs, ports) = conn.leaves_as(dir);
    let (l3, l4) = diffs(conn, dir);
    rewrite::tuple4(frame, flow, addrs, ports, l3, l4);
}

/// As [`rewrite4`], the headers of a common TCP or UDP packet.
#[inline(always)]
pub(crate) fn rewrite_common4(
    headers: &mut [u8; common::LEN],
    proto: Proto,
    conn: &Conn<Key4>,
    dir: Direction,
) {
    common::rewrite(headers, proto, conn.leaves_as(dir), diffs(conn, dir));
}

/// What the rewrite of packets in direction `dir` adds to the checksums of IPv4 and of what it
/// carries.
#[inline(always)]
fn diffs(conn: &Conn<Key4>, dir: Direction) -> (Diff, Diff) {
    match dir {
        Direction::Inbound => (conn.l3_diff, conn.l4_diff),
        Direction::Outbound => (conn.l3_diff.reversed(), conn.l4_diff.reversed()),
    }
}

/// As [`rewrite4`], an IPv6 packet.
#[inline(always)]
pub(crate) fn rewrite6(frame: &mut [u8], flow: &Flow<Key6>, conn: &Conn<Key6>, dir: Direction) {
    let (addrs, ports) = conn.leaves_as(dir);
    let l4 = match dir {
        Direction::Inbound => conn.l4_diff,
        Direction::Outbound => conn.l4_diff.reversed(),
    };
    rewrite::tuple6(frame, flow, addrs, ports, l4);
}

/// As [`rewrite4`], a part of a datagram: only the first has ports. With FULL-NAT and
/// SNAT it gets the datagram's new identification.
pub(crate) fn rewrite_part4(
    frame: &mut [u8],
    flow: &Flow<Key4>,
    conn: &Conn<Key4>,
    dir: Direction,
    part: &Part,
) {
    if part.offset == 0 {
        rewrite4(frame, &part.whole_flow(flow), conn, dir);
    } else {
        rewrite::addrs4(frame, flow.ttl, conn.leaves_as(dir).0);
    }
    if conn.mode().shares_addresses() {
        rewrite::identify4(frame, part.id as u16);
    }
}

/// As [`rewrite_part4`], of IPv6.
pub(crate) fn rewrite_part6(
    frame: &mut [u8],
    flow: &Flow<Key6>,
    conn: &Conn<Key6>,
    dir: Direction,
    part: &Part,
) {
    if part.offset == 0 {
        rewrite6(frame, &part.whole_flow(flow), conn, dir);
    } else {
        rewrite::addrs6(frame, flow.ttl, conn.leaves_as(dir).0);
    }
    if conn.mode().shares_addresses() {
        rewrite::identify6(frame, part);
    }
}
