//! ICMP errors about packets in which Weir changed more than addresses and ports: what they quote
//! is put back as its sender sent it, or the sender takes the error for a forgery (TCP looks
//! whether the quoted number is one that it sent: RFC 5927 4.1).
//!
//! ```text
//!  about a client's segment    its number is n lower than quoted     (PROXY over TCP)
//!  about a server's segment    what it acknowledges is n higher
//!  about a client's datagram   n bytes less, and no header in it     (PROXY over UDP)
//!  about either's segment      its number as before lines changed    (a helper)
//! ```
//! Options that Weir put into a packet (TOA, UOA) stay in the quote; nobody reads them there.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use crate::conn::side::SideId;
use crate::conn::state::Direction;
use crate::forward::carrier::{ClientAddress, opp, proxy, stream, toa, uoa};
use crate::io::{Frame, PortQueue};
use crate::packet::icmp::Quote;
use crate::packet::{ipv4, udp};
use crate::types::Proto;
use crate::worker::Worker;

impl<Q: PortQueue> Worker<Q> {
    /// Puts the quote of an error back that is about a packet of a connection with a record in
    /// the side table: `dir` is the error's own, `ends` are the client and the virtual address.
    /// Gives the bytes that Weir adds to packets which go the quoted one's way.
    #[cold]
    pub(super) fn put_back(
        &mut self,
        frame: &mut Q::Frame,
        quote: &mut Quote,
        (record, dir): (SideId, Direction),
        ends: (SocketAddr, SocketAddr),
    ) -> u16 {
        let known = *self.records.get_mut(record);
        let tcp = quote.protocol == ipv4::TCP;
        if known.helped {
            // Next to the server: of a client's number it changed what the carrier had made of it.
            let quoted = self.records.help(record).shifts[1 - dir as usize];
            quoted.put_back(frame.bytes_mut(), quote);
        }
        match (dir, known.carrier, tcp) {
            (Direction::Outbound, ClientAddress::toa, true) => toa::len(ends.0),
            (Direction::Outbound, ClientAddress::uoa, false) => uoa::LEN as u16,
            (Direction::Outbound, ClientAddress::uoa_opp, false) => opp::len(ends.0),
            (Direction::Outbound, carrier, true) if carrier.is_stream_data() => {
                let (start, n) = (known.client_start, known.inserted);
                stream::unshift_quoted(frame.bytes_mut(), quote, start, n, known.seen);
                0
            }
            (Direction::Inbound, carrier, true) if carrier.is_stream_data() => {
                stream::shift_quoted(frame.bytes_mut(), quote, known.inserted, known.seen);
                0
            }
            (Direction::Outbound, carrier, false) => {
                let Some(header) = proxy::of(carrier, ends.0, ends.1, Proto::Udp) else {
                    return 0;
                };
                let header = match quote.is_part(frame.bytes()) {
                    true => proxy::filled_up(header),
                    false => header,
                };
                proxy::take_off_quoted(frame, quote, &header);
                header.len() as u16
            }
            _ => 0,
        }
    }
}

const _: () = assert!(udp::LEN == 8, "a quote with ports has the whole header");
