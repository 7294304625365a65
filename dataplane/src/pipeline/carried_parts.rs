//! Parts of datagrams, on connections whose servers are told the client's address.
//!
//! ```text
//!  PROXY over UDP  | UDP | first data |, | more |   becomes   | UDP | header | first data |, | more |
//!                  0                     m                    0                              m + n
//! ```
//! A datagram's parts count its bytes in eights, so the header that a datagram in parts gets is
//! filled up to a multiple of eight; then every part keeps its length and moves by as much. All
//! that a part needs to know is in the connection, so parts are still passed on one by one, in any
//! order, and a first part that has become too long is cut once more.
//!
//! TCP's numbers stand in the first part alone, and UOA's option too. Only TOA goes without: it
//! would move what is behind it by no multiple of eight, and another segment tells it as well.
#![forbid(unsafe_code)]

use super::family::Family;
use super::{INBOUND, OUTBOUND};
use crate::conn::Hit;
use crate::conn::state::Direction;
use crate::counters::DropReason;
use crate::forward::Part;
use crate::forward::carrier::{ClientAddress, proxy, toa};
use crate::forward::splice::Stage;
use crate::io::{Frame, PortQueue};
use crate::packet::{Flow, eth};
use crate::types::{Proto, Tick};
use crate::worker::Worker;

impl<Q: PortQueue> Worker<Q> {
    /// A part of a packet of such a connection.
    #[cold]
    pub(super) fn carried_part<K: Family>(
        &mut self,
        lane: usize,
        mut frame: Q::Frame,
        flow: &Flow<K>,
        hit: Hit,
        mut part: Part,
        now: Tick,
    ) {
        let mut flow = *flow;
        let Some(record) = K::side(&self.sides).conns.get(hit.id).side() else {
            return self.counters.dropped(DropReason::NoConnection);
        };
        let known = self.records.get_mut(record);
        if known.splice.stage != Stage::Plain || known.helped {
            // Numbers that change are in a whole header.
            return self.counters.dropped(DropReason::FragmentOfProxied);
        }
        let carrier = known.carrier;
        let (first, proxied) = (part.offset == 0, carrier.is_stream_data());
        match (hit.dir, flow.key.proto()) {
            (Direction::Inbound, Proto::Udp) if proxied => {
                let fits = self.prefix_part::<K>(&mut frame, &mut flow, &mut part, hit, carrier);
                if !fits {
                    return self.counters.dropped(DropReason::TooBig);
                }
            }
            (Direction::Inbound, Proto::Udp) if first => {
                // What becomes too long is cut again.
                self.datagram_in::<K>(&mut frame, &mut flow, hit.id, (record, u16::MAX), false);
            }
            (Direction::Inbound, Proto::Tcp) if first && proxied => {
                match self.proxy_in::<K>(&mut frame, &mut flow, hit.id, record, false, now) {
                    Ok(None) => {}
                    Ok(Some((own, own_flow))) => {
                        self.counters.generated.add(1);
                        self.carried_on(lane, own, &own_flow, hit, now);
                    }
                    Err(reason) => return self.counters.dropped(reason),
                }
            }
            (Direction::Outbound, Proto::Tcp) if first && proxied => {
                self.proxy_out(&mut frame, &flow, record);
            }
            (Direction::Inbound, Proto::Tcp) if first => toa::remove(frame.bytes_mut(), &flow),
            (Direction::Outbound, Proto::Tcp) if first => {
                self.toa_out::<K>(&mut frame, &flow, hit.id, record);
            }
            _ => {}
        }
        let part = Some(part);
        match hit.dir {
            Direction::Inbound => self.pass_on::<K, INBOUND>(lane, frame, &flow, hit, part, now),
            Direction::Outbound => self.pass_on::<K, OUTBOUND>(lane, frame, &flow, hit, part, now),
        }
    }

    /// Puts a PROXY header in front of a datagram's first part, or moves another part by the
    /// header's length. False: the datagram would be longer than one can be, or the buffer has no
    /// room.
    fn prefix_part<K: Family>(
        &mut self,
        frame: &mut Q::Frame,
        flow: &mut Flow<K>,
        part: &mut Part,
        hit: Hit,
        carrier: ClientAddress,
    ) -> bool {
        let conn = K::side(&self.sides).conns.get(hit.id);
        let Some(header) = proxy::of(carrier, conn.client(), conn.virtual_(), Proto::Udp) else {
            return true;
        };
        let header = proxy::filled_up(header);
        let data = (eth::HEADER_LEN as u16 + flow.ip_len).saturating_sub(flow.l4);
        let moved = part.offset.checked_add(header.len() as u16);
        let Some(moved) = moved.filter(|at| at.checked_add(data).is_some()) else {
            return false;
        };
        if part.offset == 0 {
            let told = proxy::prepend(frame, flow, &header);
            self.note_told(told);
            return told;
        }
        part.offset = moved;
        part.place(frame.bytes_mut());
        true
    }
}
