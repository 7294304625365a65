//! The reset that answers TCP without a connection.
#![forbid(unsafe_code)]

use crate::io::Frame;
use crate::packet::tcp::flags::{ACK, FIN, RST, SYN};
use crate::packet::{Flow, be32, checksum, eth, ipv4, put16, put32, tcp};
use crate::types::{Mac, Proto};

/// Turns a TCP packet into the reset that answers it (RFC 9293 3.10.7.1), back to its source
/// MAC: a spoofed flood resolves nothing.
pub(super) fn make_reset<F: Frame>(frame: &mut F, flow: &Flow, mac: Mac) -> bool {
    let l4 = eth::HEADER_LEN + ipv4::MIN_LEN;
    let bytes = frame.bytes();
    let from = usize::from(flow.l4);
    let (seq, ack) = (
        be32(bytes, from + tcp::SEQ_AT),
        be32(bytes, from + tcp::ACK_AT),
    );
    let data =
        eth::HEADER_LEN + usize::from(flow.ip_len) - from - usize::from(bytes[from + 12] >> 4) * 4;
    let peer = eth::src(bytes);
    let len =
        data as u32 + u32::from(flow.tcp_flags & SYN != 0) + u32::from(flow.tcp_flags & FIN != 0);
    if !frame.set_len(l4 + tcp::MIN_LEN) {
        return false;
    }
    let f = frame.bytes_mut();
    eth::set_macs(f, peer, mac);
    f[eth::HEADER_LEN..].fill(0);
    f[eth::HEADER_LEN] = 0x45;
    put16(
        f,
        eth::HEADER_LEN + 2,
        (ipv4::MIN_LEN + tcp::MIN_LEN) as u16,
    );
    put16(f, eth::HEADER_LEN + 6, 0x4000); // don't fragment, so the identification may be 0
    f[ipv4::TTL_AT] = 64;
    f[ipv4::PROTO_AT] = ipv4::TCP;
    let back = flow.key.reversed();
    put32(f, ipv4::SRC_AT, back.src());
    put32(f, ipv4::DST_AT, back.dst());
    checksum::set_ipv4(f);
    put16(f, l4, back.sport());
    put16(f, l4 + 2, back.dport());
    f[l4 + 12] = 0x50;
    if flow.tcp_flags & ACK != 0 {
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
