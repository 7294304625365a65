//! Bytes of Weir's own in front of what a TCP client sends, and what that does to its numbers.
//!
//! ```text
//!  the client counts        start                  start + k
//!                           | its data ...
//!  the server counts        start       start + n  start + n + k
//!                           | inserted  | its data ...
//! ```
//! What the client sends gets numbers `n` higher, what the server acknowledges numbers `n` lower;
//! an acknowledgement of a part of the inserted bytes is one of nothing to the client.
#![forbid(unsafe_code)]

use super::{mend, mended, resize, tcp_data_len, tcp_header_len};
use crate::conn::side::Seen;
use crate::counters::DropReason;
use crate::io::Frame;
use crate::packet::checksum::{self, Diff};
use crate::packet::icmp::Quote;
use crate::packet::tcp::flags::{ACK, PSH};
use crate::packet::{Flow, Key, be16, be32, eth, ipv4, put16, put32, tcp};
use crate::types::Proto;

/// Of TCP's options, selective acknowledgement (RFC 2018).
const SACK: u8 = 5;
/// Fast open, and the experiment that it was (RFC 7413).
const FAST_OPEN: [u8; 2] = [34, 254];

/// The number in a segment's header at `at`: [`tcp::SEQ_AT`] or [`tcp::ACK_AT`].
#[inline]
pub(crate) fn number<K: Key>(frame: &[u8], flow: &Flow<K>, at: usize) -> u32 {
    be32(frame, usize::from(flow.l4) + at)
}

/// Adds `n` to the sequence number.
pub(crate) fn shift<K: Key>(frame: &mut [u8], flow: &Flow<K>, n: u8) {
    let seq = number(frame, flow, tcp::SEQ_AT).wrapping_add(u32::from(n));
    mended(frame, flow, |header| put32(header, tcp::SEQ_AT, seq));
}

/// Turns what the server acknowledges, at once and selectively, into the client's numbers: `n`
/// bytes were inserted at `start`, and `seen` says how far the server is.
pub(crate) fn unshift<K: Key>(frame: &mut [u8], flow: &Flow<K>, start: u32, n: u8, seen: Seen) {
    let n = u32::from(n);
    let (acked, early) = (seen.has(Seen::ACKED), !seen.has(Seen::FAR));
    let client = |number: u32| match early && number.wrapping_sub(start) <= n {
        true => start,
        false => number.wrapping_sub(n),
    };
    mended(frame, flow, |header| {
        let ack = be32(header, tcp::ACK_AT);
        // An older packet may come late, from when the server lacked some.
        let has_all = acked && !(early && ack.wrapping_sub(start) < n);
        let ack = match has_all {
            true => client(ack),
            false => start,
        };
        put32(header, tcp::ACK_AT, ack);
        for option in tcp::options(header) {
            if header[option.start] != SACK {
                continue;
            }
            let blocks = &mut header[option.clone()][2..];
            let mut sound = has_all;
            for block in blocks.chunks_exact_mut(8) {
                let (left, right) = (client(be32(block, 0)), client(be32(block, 4)));
                put32(block, 0, left);
                put32(block, 4, right);
                sound &= left != right;
            }
            // The client never sent those bytes, and may not hear of data behind a hole that it
            // cannot see: without blocks it sends again from the start.
            if !sound {
                header[option].fill(tcp::NOP);
            }
        }
    });
}

/// In the quote of an error about a client's segment, which was sent on: the number as the client
/// counts. A SYN's was never changed.
pub(crate) fn unshift_quoted(frame: &mut [u8], quote: &Quote, start: u32, n: u8, seen: Seen) {
    let n = u32::from(n);
    let early = !seen.has(Seen::FAR);
    quoted_number(frame, quote, tcp::SEQ_AT, |seq| {
        match seq.wrapping_sub(start) {
            u32::MAX if early => seq,
            inserted if early && inserted <= n => start,
            _ => seq.wrapping_sub(n),
        }
    });
}

/// In the quote of an error about a server's segment, which was sent on: what it acknowledges, as
/// the server counts.
pub(crate) fn shift_quoted(frame: &mut [u8], quote: &Quote, n: u8, seen: Seen) {
    if seen.has(Seen::ACKED) {
        quoted_number(frame, quote, tcp::ACK_AT, |ack| ack.wrapping_add(n.into()));
    }
}

/// Changes a number in a quoted header, and what is quoted of its checksum.
pub(crate) fn quoted_number(
    frame: &mut [u8],
    quote: &Quote,
    at: usize,
    change: impl FnOnce(u32) -> u32,
) {
    let quoted = frame.get_mut(usize::from(quote.l4)..usize::from(quote.end));
    let Some(header) = quoted.filter(|quoted| quoted.len() >= at + 4) else {
        return;
    };
    let old = be32(header, at);
    let new = change(old);
    put32(header, at, new);
    if header.len() >= tcp::CHECKSUM_AT + 2 {
        mend(header, Diff::of(&[(old, new)]));
    }
}

/// Takes data and fast open out of a SYN: nothing may reach the server before the inserted bytes.
/// The client sends the data again after the handshake (RFC 7413 4.1.1).
pub(crate) fn bare_syn<F: Frame, K: Key>(frame: &mut F, flow: &mut Flow<K>) {
    mended(frame.bytes_mut(), flow, |header| {
        for option in tcp::options(header) {
            if FAST_OPEN.contains(&header[option.start]) {
                header[option].fill(tcp::NOP);
            }
        }
    });
    let data = tcp_data_len(frame.bytes(), flow);
    let end = eth::HEADER_LEN + usize::from(flow.ip_len) - data;
    if data == 0 {
        return;
    }
    let gone = checksum::sum(&frame.bytes()[end..end + data]);
    let shorter = resize(frame.bytes_mut(), flow, (end - eth::HEADER_LEN) as u16);
    mend(
        &mut frame.bytes_mut()[usize::from(flow.l4)..],
        shorter.plus(Diff::adding(!gone)),
    );
    // Shorter always fits.
    let _ = frame.set_len(end);
}

/// Makes `data` what a segment without data carries; false, and nothing changed, without room.
pub(crate) fn fill<F: Frame, K: Key>(frame: &mut F, flow: &mut Flow<K>, data: &[u8]) -> bool {
    let end = eth::HEADER_LEN + usize::from(flow.ip_len);
    let Ok(ip_len) = u16::try_from(usize::from(flow.ip_len) + data.len()) else {
        return false;
    };
    if !frame.set_len(end + data.len()) {
        return false;
    }
    let f = frame.bytes_mut();
    f[end..].copy_from_slice(data);
    let longer = resize(f, flow, ip_len);
    let l4 = usize::from(flow.l4);
    mend(&mut f[l4..], longer.plus(Diff::adding(checksum::sum(data))));
    mended(f, flow, |header| header[tcp::FLAGS_AT] |= PSH);
    true
}

/// A segment of Weir's own with `data` alone, otherwise as `frame`, which is one of the client's
/// from the stream's start, or over IPv4 the first part of one. `id` identifies it if it is an
/// IPv4 packet.
///
/// # Errors
/// [`DropReason::NoBuffer`].
pub(crate) fn segment<F: Frame, K: Key>(
    frame: &F,
    flow: &Flow<K>,
    data: &[u8],
    id: u16,
) -> Result<(F, Flow<K>), DropReason> {
    let l4 = usize::from(flow.l4);
    let headers = l4 + tcp_header_len(frame.bytes(), flow);
    let end = headers + data.len();
    let mut own = frame.another(end).ok_or(DropReason::NoBuffer)?;
    let f = own.bytes_mut();
    f[..headers].copy_from_slice(&frame.bytes()[..headers]);
    f[headers..].copy_from_slice(data);
    let mut flow = *flow;
    resize(f, &mut flow, (end - eth::HEADER_LEN) as u16);
    flow.says = ACK | PSH;
    f[l4 + tcp::FLAGS_AT] = flow.says;
    if eth::ethertype(f) == Ok(eth::IPV4) {
        put16(f, eth::HEADER_LEN + 4, id);
        // Whole, though the client's may be the first of several parts.
        let df = be16(f, eth::HEADER_LEN + 6) & ipv4::DF;
        put16(f, eth::HEADER_LEN + 6, df);
        checksum::set_ipv4(f);
    }
    let sum = checksum::l4(f, Proto::Tcp, l4, end);
    put16(f, l4 + tcp::CHECKSUM_AT, sum);
    Ok((own, flow))
}
