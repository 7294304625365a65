//! Resets: the one that answers TCP without a connection, and the one that ends a connection.
#![forbid(unsafe_code)]

use crate::io::Frame;
use crate::packet::tcp::flags::{ACK, FIN, RST, SYN};
use crate::packet::{Flow, Key, be32, checksum, eth, ipv6, put16, put32, tcp};
use crate::types::{Mac, Proto};

/// Turns a TCP packet into the reset that answers it (RFC 9293 3.10.7.1), back to its source
/// MAC: a spoofed flood resolves nothing.
pub(super) fn make_reset<F: Frame, K: Key>(frame: &mut F, flow: &Flow<K>, mac: Mac) -> bool {
    let bytes = frame.bytes();
    let from = usize::from(flow.l4);
    let (seq, ack) = (
        be32(bytes, from + tcp::SEQ_AT),
        be32(bytes, from + tcp::ACK_AT),
    );
    let data =
        eth::HEADER_LEN + usize::from(flow.ip_len) - from - usize::from(bytes[from + 12] >> 4) * 4;
    let peer = eth::src(bytes);
    let len = data as u32 + u32::from(flow.says & SYN != 0) + u32::from(flow.says & FIN != 0);
    let (back, l4) = (flow.key.reversed(), K::HEADERS);
    if !frame.set_len(l4 + tcp::MIN_LEN) {
        return false;
    }
    let f = frame.bytes_mut();
    eth::set_macs(f, peer, mac);
    f[eth::HEADER_LEN..].fill(0);
    back.write_header(f, tcp::MIN_LEN as u16);
    put32(f, l4, back.ports());
    f[l4 + 12] = 0x50;
    if flow.says & ACK != 0 {
        put32(f, l4 + tcp::SEQ_AT, ack);
        f[l4 + tcp::FLAGS_AT] = RST;
    } else {
        put32(f, l4 + tcp::ACK_AT, seq.wrapping_add(len));
        f[l4 + tcp::FLAGS_AT] = RST | ACK;
    }
    let sum = checksum::l4(f, Proto::Tcp, l4, l4 + tcp::MIN_LEN);
    put16(f, l4 + tcp::CHECKSUM_AT, sum);
    true
}

/// Turns a TCP packet into a reset for the one that it goes to: the headers as they are, with
/// the number that is awaited there, and nothing behind them.
pub(super) fn make_reset_onward<F: Frame, K: Key>(frame: &mut F, flow: &Flow<K>) {
    let l4 = usize::from(flow.l4);
    let end = l4 + tcp::MIN_LEN;
    if !frame.set_len(end) {
        return; // it was as long
    }
    let f = frame.bytes_mut();
    let len = (end - eth::HEADER_LEN) as u16;
    match eth::ethertype(f) {
        Ok(eth::IPV6) => put16(f, eth::HEADER_LEN + 4, len - ipv6::LEN as u16),
        _ => {
            put16(f, eth::HEADER_LEN + 2, len);
            checksum::set_ipv4(f);
        }
    }
    f[l4 + 12] = 0x50;
    f[l4 + tcp::FLAGS_AT] = f[l4 + tcp::FLAGS_AT] & ACK | RST;
    f[l4 + 14..end].fill(0); // window, checksum, urgent pointer
    let sum = checksum::l4(f, Proto::Tcp, l4, end);
    put16(f, l4 + tcp::CHECKSUM_AT, sum);
}
