//! An error about a tunnel, as one about what was inside.
//!
//! ```text
//!  arrives  router -> director   quotes  outer IP | tunnel | CIP:cport -> VIP:vport
//!  leaves   VIP    -> CIP        quotes                      CIP:cport -> VIP:vport
//! ```
#![forbid(unsafe_code)]

use std::net::IpAddr;

use super::build::{TTL, finish, own_tos};
use super::map::{self, Head};
use super::{Quote, head, mtu, tos_ttl, v4, v6};
use crate::counters::DropReason;
use crate::io::Frame;
use crate::packet::header::Ends;
use crate::packet::ids::IpIds;
use crate::packet::{be16, ipv4};

/// Rewrites the error in `frame`: `error` is its quote, of the tunnel's packet, `inner` what was
/// found inside that. It goes from `src` to the sender of the inner packet. `overhead`: what the
/// tunnel adds, bytes. The MAC addresses are still to be written.
///
/// # Errors
/// [`DropReason::IcmpUntranslatable`]: it would mean nothing to the client: a bad field of the
/// outer header, a packet too big that the director may cut, or `src` of the wrong family.
/// [`DropReason::TooBig`]: no room in the buffer.
#[cold]
pub fn relay<F: Frame>(
    frame: &mut F,
    error: &Quote,
    inner: &Quote,
    src: IpAddr,
    overhead: u16,
    ids: &mut IpIds,
) -> Result<(), DropReason> {
    let f = frame.bytes();
    let fits = mtu(f, error).map(|mtu| mtu.saturating_sub(overhead));
    let ip = usize::from(inner.ip);
    let may_cut = inner.src.is_ipv4() && be16(f, ip + 6) & ipv4::DF == 0;
    if fits.is_some() && may_cut {
        return Err(DropReason::IcmpUntranslatable);
    }
    let head = about_inside(head(f, usize::from(error.icmp)), error, inner, fits);
    let head = head.ok_or(DropReason::IcmpUntranslatable)?;
    let ends = Ends::new(src, inner.src).ok_or(DropReason::IcmpUntranslatable)?;
    let tos = own_tos(ends, tos_ttl(f, ip).0);
    let end = usize::from(inner.end);
    finish(frame, ip, end, ends, tos, TTL, head, ids)
}

/// The error's head in the inner packet's family.
fn about_inside(head: Head, error: &Quote, inner: &Quote, fits: Option<u16>) -> Option<Head> {
    let (kind, code, _) = head;
    match (error.src, inner.src) {
        (IpAddr::V4(_), _) if kind == v4::PARAMETER => None,
        (IpAddr::V6(_), _) if kind == v6::PARAMETER => None,
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
            Some((kind, code, fits.map_or(0, u32::from)))
        }
        (IpAddr::V4(_), IpAddr::V6(_)) => map::to_v6(head, fits),
        (IpAddr::V6(_), IpAddr::V4(_)) => map::to_v4(head, fits),
    }
}
