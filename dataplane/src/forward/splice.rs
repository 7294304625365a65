//! Two handshakes, one connection: Weir has shaken hands with the client by a cookie, and then,
//! in the client's name, with its server.
//!
//! ```text
//!  client              Weir                    server
//!    SYN  c  ---------->                                      no state
//!         <----------  SYN-ACK  k, c+1, window w              k is the cookie
//!    ACK  c+1, k+1 --->  SYN  c  ----------------->           a connection opens
//!    data c+1, k+1 --->  (held)
//!                        <-------------------  SYN-ACK  s, c+1
//!         <----------  ACK  k+1, c+1 : the server's window
//!                      ACK, data  c+1, s+1  ------>
//! ```
//! From then on the server's numbers grow by `k - s` towards the client and shrink towards the
//! server; its clock differs from the one in the SYN-ACK likewise (RFC 7323); windows are shifted
//! by as many bits as the client was told, whatever the server announced. The client's numbers,
//! and its clock, are its own all along.
#![forbid(unsafe_code)]

use arrayvec::ArrayVec;

use super::carrier::{mended, resize};
use crate::counters::DropReason;
use crate::defense::cookie::{Offer, option};
use crate::io::Frame;
use crate::packet::tcp::flags::{ACK, RST, SYN};
use crate::packet::{Flow, Key, be16, be32, checksum, eth, put16, put32, tcp};
use crate::types::{Mac, Proto};

/// How far a connection's two handshakes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Stage {
    /// There was one only: the client's and the server's own.
    #[default]
    Plain,
    /// The server was sent a SYN and has not answered.
    Waiting,
    /// Both are done.
    Joined,
    /// The server refused.
    Refused,
}

/// What is remembered of such a connection.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Splice {
    pub(crate) stage: Stage,
    /// What the client had offered, to be repeated to the server; of the timestamps both as its
    /// acknowledgement had them.
    pub(crate) offer: Offer,
    /// The shift that the client was told for windows.
    own_scale: u8,
    /// What the server announced for its windows; `None`: it does not shift, nor expects it.
    server_scale: Option<u8>,
    /// The number of the client's SYN.
    pub(crate) client_isn: u32,
    /// The number that the client waits for: the cookie's and one.
    pub(crate) client_waits: u32,
    /// Added to the server's numbers.
    numbers: u32,
    /// Added to the server's clock.
    clock: u32,
    /// Where the client's packets wait.
    pub(crate) held: Option<u16>,
}

impl Splice {
    /// The client has proved what it `offer`ed with these numbers, its own and the one that it
    /// waits for, and was told to take windows shifted by `own_scale`. Its packets are in `slot`.
    pub(crate) fn waiting(
        offer: Offer,
        own_scale: u8,
        (client_isn, client_waits): (u32, u32),
        slot: u16,
    ) -> Splice {
        Splice {
            stage: Stage::Waiting,
            offer,
            own_scale,
            client_isn,
            client_waits,
            held: Some(slot),
            ..Splice::default()
        }
    }

    /// The server's SYN-ACK is there.
    pub(crate) fn join(&mut self, server_isn: u32, offered: &Offer) {
        self.stage = Stage::Joined;
        self.held = None;
        self.numbers = self.client_waits.wrapping_sub(server_isn).wrapping_sub(1);
        self.clock = match (self.offer.timestamps, offered.timestamps) {
            (Some((_, told)), Some((clock, _))) => told.wrapping_sub(clock),
            _ => 0,
        };
        self.server_scale = offered.window_scale;
    }

    /// Whether a SYN-ACK with this number is the one that joined.
    pub(crate) fn joined_by(&self, server_isn: u32) -> bool {
        server_isn.wrapping_add(self.numbers).wrapping_add(1) == self.client_waits
    }

    /// A client's packet, as its server understands it: which numbers and which clock of the
    /// server's it answers, and its window.
    pub(crate) fn towards_server<K: Key>(&self, frame: &mut [u8], flow: &Flow<K>) {
        mended(frame, flow, |header| {
            if header[tcp::FLAGS_AT] & ACK != 0 {
                let ack = be32(header, tcp::ACK_AT).wrapping_sub(self.numbers);
                put32(header, tcp::ACK_AT, ack);
            }
            // Without the option from both ends, both take windows as they are (RFC 7323 2.2).
            if let (None, Some(scale)) = (self.server_scale, self.offer.window_scale) {
                let window = u32::from(be16(header, tcp::WINDOW_AT)) << scale;
                put16(header, tcp::WINDOW_AT, window.min(0xffff) as u16);
            }
            for found in tcp::options(header) {
                let [kind, _, values @ ..] = &mut header[found] else {
                    continue;
                };
                match *kind {
                    option::TIMESTAMPS if values.len() == 8 => {
                        let echo = be32(values, 4).wrapping_sub(self.clock);
                        put32(values, 4, echo);
                    }
                    option::SACK => {
                        for edge in values.chunks_exact_mut(4) {
                            let number = be32(edge, 0).wrapping_sub(self.numbers);
                            put32(edge, 0, number);
                        }
                    }
                    _ => {}
                }
            }
        });
    }

    /// A server's packet, as its client understands it.
    pub(crate) fn towards_client<K: Key>(&self, frame: &mut [u8], flow: &Flow<K>) {
        mended(frame, flow, |header| {
            let seq = be32(header, tcp::SEQ_AT).wrapping_add(self.numbers);
            put32(header, tcp::SEQ_AT, seq);
            let window = be16(header, tcp::WINDOW_AT);
            let shift = match header[tcp::FLAGS_AT] & SYN {
                0 => self.server_scale.unwrap_or(0),
                _ => 0,
            };
            put16(header, tcp::WINDOW_AT, self.rescaled(window, shift));
            for found in tcp::options(header) {
                if let [option::TIMESTAMPS, 10, values @ ..] = &mut header[found] {
                    let clock = be32(values, 0).wrapping_add(self.clock);
                    put32(values, 0, clock);
                }
            }
        });
    }

    /// A window of the server's, in the units that the client was told; never more than it is.
    fn rescaled(&self, window: u16, shift: u8) -> u16 {
        if self.offer.window_scale.is_none() {
            return window;
        }
        let bytes = u32::from(window) << shift;
        (bytes >> self.own_scale).min(0xffff) as u16
    }

    /// Makes a server's SYN-ACK, with the options of `offered`, an acknowledgement for a client
    /// that had its SYN-ACK long ago: the server's window, and nothing else. `probe`: one that
    /// the client answers (RFC 9293 3.10.7.4), for a server which repeats itself.
    pub(crate) fn make_ack<F: Frame, K: Key>(
        &self,
        frame: &mut F,
        flow: &mut Flow<K>,
        offered: &Offer,
        probe: bool,
    ) {
        let l4 = usize::from(flow.l4);
        let f = frame.bytes();
        let (ack, window) = (be32(f, l4 + tcp::ACK_AT), be16(f, l4 + tcp::WINDOW_AT));
        let clock = offered
            .timestamps
            .filter(|_| self.offer.timestamps.is_some());
        let clock = clock.map(|(clock, echo)| (clock.wrapping_add(self.clock), echo));
        let options = options(None, false, clock, None);
        let seq = self.client_waits.wrapping_sub(u32::from(probe));
        let segment = Segment {
            seq,
            ack,
            flags: ACK,
            window: self.rescaled(window, 0),
            options: &options,
        };
        // It gets no longer than it was.
        let _ = segment.write(frame, flow);
    }

    /// Makes a server's refusal one that its client believes (RFC 5961 3.2).
    pub(crate) fn make_refusal<F: Frame, K: Key>(&self, frame: &mut F, flow: &mut Flow<K>) {
        let segment = Segment {
            seq: self.client_waits,
            ack: self.client_isn.wrapping_add(1),
            flags: RST | ACK,
            window: 0,
            options: &[],
        };
        let _ = segment.write(frame, flow); // as above
    }
}

/// A segment without data, as it is to be.
pub(crate) struct Segment<'a> {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) options: &'a [u8],
}

impl Segment<'_> {
    /// Writes it in the place of the one that `frame` has behind its IP header.
    ///
    /// # Errors
    /// [`DropReason::NoBuffer`]: there is no room.
    pub(crate) fn write<F: Frame, K: Key>(
        &self,
        frame: &mut F,
        flow: &mut Flow<K>,
    ) -> Result<(), DropReason> {
        let l4 = usize::from(flow.l4);
        let header = tcp::MIN_LEN + self.options.len();
        let end = l4 + header;
        if !frame.set_len(end) {
            return Err(DropReason::NoBuffer);
        }
        let f = frame.bytes_mut();
        resize(f, flow, (end - eth::HEADER_LEN) as u16);
        flow.says = self.flags;
        let tcp = &mut f[l4..];
        put32(tcp, tcp::SEQ_AT, self.seq);
        put32(tcp, tcp::ACK_AT, self.ack);
        tcp[12] = (header as u8 / 4) << 4;
        tcp[tcp::FLAGS_AT] = self.flags;
        put16(tcp, tcp::WINDOW_AT, self.window);
        put32(tcp, tcp::CHECKSUM_AT, 0); // and no urgent pointer
        tcp[tcp::MIN_LEN..].copy_from_slice(self.options);
        let sum = checksum::l4(f, Proto::Tcp, l4, end);
        put16(f, l4 + tcp::CHECKSUM_AT, sum);
        Ok(())
    }
}

/// Turns a client's SYN into the SYN-ACK that answers it, back to the MAC address that it came
/// from: a flood of made-up sources has Weir ask for no neighbour. False: the buffer has no room.
pub(crate) fn make_syn_ack<F: Frame, K: Key>(
    frame: &mut F,
    flow: &Flow<K>,
    (cookie, window): (u32, u16),
    offer: &Offer,
    mac: Mac,
) -> bool {
    let isn = be32(frame.bytes(), usize::from(flow.l4) + tcp::SEQ_AT);
    let peer = eth::src(frame.bytes());
    let options = options(
        Some(offer.mss),
        offer.sack,
        offer.timestamps,
        offer.window_scale,
    );
    let (back, l4) = (flow.key.reversed(), K::HEADERS);
    let len = tcp::MIN_LEN + options.len();
    if !frame.set_len(l4 + len) {
        return false;
    }
    let f = frame.bytes_mut();
    eth::set_macs(f, peer, mac);
    f[eth::HEADER_LEN..].fill(0);
    back.write_header(f, len as u16);
    put32(f, l4, back.ports());
    let mut flow = Flow {
        key: back,
        l4: l4 as u16,
        ip_len: (l4 + len - eth::HEADER_LEN) as u16,
        ..*flow
    };
    let segment = Segment {
        seq: cookie,
        ack: isn.wrapping_add(1),
        flags: SYN | ACK,
        window,
        options: &options,
    };
    segment.write(frame, &mut flow).is_ok()
}

/// Options in the order, and with the padding, that Linux gives them: a multiple of four bytes.
pub(crate) fn options(
    mss: Option<u16>,
    sack: bool,
    timestamps: Option<(u32, u32)>,
    scale: Option<u8>,
) -> ArrayVec<u8, 20> {
    const NOP: u8 = tcp::NOP;
    let mut o = ArrayVec::new();
    // At most 4 + 2 + 10 + 4 bytes.
    let mut put = |bytes: &[u8]| o.extend(bytes.iter().copied());
    if let Some(mss) = mss {
        put(&[option::MSS, 4]);
        put(&mss.to_be_bytes());
    }
    match (sack, timestamps) {
        (true, Some(_)) => put(&[option::SACK_PERMITTED, 2]),
        (true, None) => put(&[NOP, NOP, option::SACK_PERMITTED, 2]),
        (false, Some(_)) => put(&[NOP, NOP]),
        (false, None) => {}
    }
    if let Some((clock, echo)) = timestamps {
        put(&[option::TIMESTAMPS, 10]);
        put(&clock.to_be_bytes());
        put(&echo.to_be_bytes());
    }
    if let Some(scale) = scale {
        put(&[NOP, option::WINDOW_SCALE, 3, scale]);
    }
    o
}

/// Whether a segment's checksum is right: what Weir answers itself, it must have read rightly.
pub(crate) fn is_sound<K: Key>(frame: &[u8], flow: &Flow<K>) -> bool {
    let (l4, end) = (
        usize::from(flow.l4),
        eth::HEADER_LEN + usize::from(flow.ip_len),
    );
    let there = be16(frame, l4 + tcp::CHECKSUM_AT);
    let right = checksum::l4(frame, Proto::Tcp, l4, end);
    right == there || right == !there && matches!(there, 0 | 0xffff) // one zero and the other
}
