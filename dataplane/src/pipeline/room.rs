//! What fits a tunnel: the far end's path MTU, and the segments that TCP's two ends are told to
//! send.
//!
//! ```text
//!  SYN      client -> director -> server   bounds what the server sends
//!  SYN-ACK  server -> client               bounds what the client sends; it passes by, mostly
//! ```
//! An MSS says what its sender takes. A SYN's is lowered to what fits the tunnel: servers that
//! answer by a tunnel of their own need that. A SYN-ACK's is where servers answer through the
//! director; where they do not, nobody but the server can lower it (`ip route ... advmss`
//! there), and a client's segment that is too long is answered by ICMP with the size that fits, or
//! cut when `[ipvs] pmtu_disc = false`. A SYN without the option stays without: its sender takes
//! 536 bytes, 1,220 over IPv6 (RFC 9293 3.7.1), which fit.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use super::family::Family;
use crate::forward::tun;
use crate::io::{Frame, PortQueue};
use crate::packet::icmp::{self, Quote};
use crate::packet::tcp::flags::SYN;
use crate::packet::{Flow, mss};
use crate::steer::Message;
use crate::types::{CoreId, Proto, ServerId, Tick};
use crate::worker::Worker;

/// The least MSS that is written: Linux's `TCP_MIN_MSS`.
const LEAST: u16 = 88;

impl<Q: PortQueue> Worker<Q> {
    /// Lowers the MSS of a tunnelled connection's SYN or SYN-ACK to what fits the tunnel.
    #[inline]
    pub(super) fn clamp_to_tunnel<K: Family>(
        &self,
        frame: &mut Q::Frame,
        flow: &Flow<K>,
        server: ServerId,
        now: Tick,
    ) {
        if flow.says & SYN == 0 || flow.key.proto() != Proto::Tcp {
            return;
        }
        let Some(room) = self.room_in_tunnel(server, now) else {
            return;
        };
        let fitting = mss::fitting(room, flow.key.source().is_ipv6(), 0).max(LEAST);
        if let Some(segment) = frame.bytes_mut().get_mut(usize::from(flow.l4)..)
            && mss::clamp(segment, fitting)
        {
            self.counters.mss_clamped.add(1);
        }
    }

    /// Longest packet that fits into the tunnel to `server`, bytes.
    fn room_in_tunnel(&self, server: ServerId, now: Tick) -> Option<u16> {
        let record = self.snapshot.server(server)?;
        let (tunnel, to) = (record.tunnelled()?, record.address.ip());
        let way = self.fib.lookup(to)?;
        let link = self.lanes.get(usize::from(way.hop.port.0))?.port.mtu;
        let path = self.path_mtus.bounded(to, link, now);
        Some(path.saturating_sub(tunnel.overhead(to)))
    }

    /// As [`Worker::learn_path_mtu`], where only the outer packet's header is quoted, as RFC 792
    /// asks for no more. Linux takes it at its word too.
    pub(super) fn learn_from_outside(&mut self, frame: &[u8], quote: &Quote, now: Tick) {
        let ends_there = self.snapshot.address_use(quote.dst).tunnel_end;
        let source = || self.fib.lookup(quote.dst).and_then(|way| way.source);
        if ends_there && source() == Some(quote.src) && tun::is_outer(quote.protocol) {
            self.learn_path_mtu(frame, quote, now);
        }
    }

    /// Takes from an error about a tunnel's packet what is too long for its way, and lets the
    /// other workers know.
    pub(super) fn learn_path_mtu(&mut self, frame: &[u8], quote: &Quote, now: Tick) {
        let Some(mtu) = icmp::mtu(frame, quote) else {
            return;
        };
        // What fits was not refused: no router says so.
        let refused = usize::from(mtu) < quote.packet_len(frame);
        if refused && self.path_mtus.learn(quote.dst, mtu, now) {
            self.counters.path_mtus.add(1);
            let to = quote.dst;
            for core in (0..self.steer.workers()).map(CoreId) {
                if core != self.steer.me() {
                    self.send_errand(core, Message::PathMtu { to, mtu }, None);
                }
            }
        }
    }

    /// Another worker has learned that.
    pub(super) fn hear_path_mtu(&mut self, to: IpAddr, mtu: u16, now: Tick) {
        self.path_mtus.learn(to, mtu, now);
    }
}
