//! FULL-NAT: both addresses change, so servers answer to the director wherever they stand.
//!
//! ```text
//!  client -> server   CIP:cport -> VIP:vport   becomes   LIP:lport -> RIP:rport
//!  server -> client   RIP:rport -> LIP:lport   becomes   VIP:vport -> CIP:cport
//! ```
//! No byte is added, so the MTU is the link's.
#![forbid(unsafe_code)]

use super::rewrite;
use crate::conn::Conn;
use crate::conn::state::Direction;
use crate::packet::Flow;

/// Rewrites a packet of `conn` that goes in direction `dir`.
#[inline]
pub(crate) fn rewrite(frame: &mut [u8], flow: &Flow, conn: &Conn, dir: Direction) {
    let (addrs, ports) = conn.leaves_as(dir);
    let (l3, l4) = match dir {
        Direction::Inbound => (conn.l3_diff, conn.l4_diff),
        Direction::Outbound => (conn.l3_diff.reversed(), conn.l4_diff.reversed()),
    };
    rewrite::tuple(frame, flow, addrs, ports, l3, l4);
}
