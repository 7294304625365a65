//! SYN cookies: all that Weir must know of a client when its handshake ends, in the sequence
//! number that it was given when the handshake began.
//!
//! ```text
//!  31                             9  8      7 6 5   4 3 2 1       0
//!  | hash of everything, 23 bits  | minute | MSS   | win. scale | SACK |
//! ```
//! The hash is SipHash-2-4 over both addresses and ports, the client's first number, the minute,
//! the options below it and whether there are timestamps. Of the minute one bit travels: it says
//! which of the last two is meant, so a cookie is good for one to two minutes and costs one hash
//! to check. A forged acknowledgement passes once in 8.4 million tries (2^23).
//!
//! Linux keeps the options in the low bits of its timestamps, and so loses them with clients that
//! send none (Windows). Here they are in the number itself, hashed, for everybody: whoever forges
//! takes the form without timestamps anyway, so bits of those would make nothing safer. That
//! timestamps were agreed on shows in the client's own packets.
#![forbid(unsafe_code)]

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use crate::packet::{Flow, Key, Key6, be32, tcp};
use crate::types::Tick;

/// Sizes that a client's MSS is rounded down to, IPv4: what is least possible, old defaults,
/// tunnels of many kinds, PPPoE, Ethernet, jumbo frames.
const MSS4: [u16; 8] = [216, 536, 1300, 1360, 1400, 1440, 1460, 8960];
/// The same for IPv6; 1220 is what every link takes.
const MSS6: [u16; 8] = [216, 536, 1220, 1340, 1380, 1420, 1440, 8940];
/// Of a SYN without the option (RFC 9293 3.7.1).
const MSS4_UNSAID: u16 = 536;
const MSS6_UNSAID: u16 = 1220;

/// No window scale was offered.
const NO_SCALE: u8 = 15;
/// The largest (RFC 7323 2.3).
pub(crate) const LARGEST_SCALE: u8 = 14;
/// Where the hash begins.
const HASH_SHIFT: u32 = 9;
const MINUTE_BIT: u32 = 1 << 8;
/// Minutes before the last that is accepted which are still told from forgeries.
const LATELY: u32 = 2;

/// Of TCP's options, by kind.
pub(crate) mod option {
    pub(crate) const MSS: u8 = 2;
    pub(crate) const WINDOW_SCALE: u8 = 3;
    pub(crate) const SACK_PERMITTED: u8 = 4;
    pub(crate) const SACK: u8 = 5;
    pub(crate) const TIMESTAMPS: u8 = 8;
}

/// Bytes of a secret.
pub const SECRET_LEN: usize = 16;

/// What directors need to finish each other's handshakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cookies {
    /// What cookies are hashed with; one of the worker's own where there is none.
    pub secret: Option<[u8; SECRET_LEN]>,
    /// Unix time when [`Tick`] was 0, seconds: all directors count the same minutes.
    pub tick_zero_s: u32,
}

/// What the two ends of a handshake offer each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Offer {
    /// The largest segment, bytes.
    pub(crate) mss: u16,
    /// By how many bits windows are shifted.
    pub(crate) window_scale: Option<u8>,
    /// Selective acknowledgement is understood.
    pub(crate) sack: bool,
    /// The sender's clock, and what it echoes of the other's.
    pub(crate) timestamps: Option<(u32, u32)>,
}

impl Offer {
    /// What the options of a segment say; its header was checked at the door.
    pub(crate) fn of<K: Key>(frame: &[u8], flow: &Flow<K>) -> Offer {
        let mut offer = Offer {
            mss: match flow.key.source().is_ipv6() {
                true => MSS6_UNSAID,
                false => MSS4_UNSAID,
            },
            window_scale: None,
            sack: false,
            timestamps: None,
        };
        let l4 = usize::from(flow.l4);
        let segment = frame.get(l4..).unwrap_or_default();
        let end = segment
            .get(12)
            .map_or(0, |offset| usize::from(offset >> 4) * 4);
        let header = segment.get(..end).unwrap_or_default();
        for found in tcp::options(header) {
            match header[found] {
                [option::MSS, 4, a, b] => offer.mss = u16::from_be_bytes([a, b]),
                // RFC 7323 2.3: more than 14 is taken for 14.
                [option::WINDOW_SCALE, 3, scale] => {
                    offer.window_scale = Some(scale.min(LARGEST_SCALE));
                }
                [option::SACK_PERMITTED, 2] => offer.sack = true,
                [option::TIMESTAMPS, 10, ref both @ ..] => {
                    offer.timestamps = Some((be32(both, 0), be32(both, 4)));
                }
                _ => {}
            }
        }
        offer
    }

    /// The eight bits that a cookie has for it.
    fn packed(&self, v6: bool) -> u8 {
        let sizes = if v6 { MSS6 } else { MSS4 };
        let fits = sizes.iter().rposition(|size| *size <= self.mss);
        let scale = self.window_scale.map_or(NO_SCALE, |s| s.min(LARGEST_SCALE));
        (fits.unwrap_or(0) as u8) << 5 | scale << 1 | u8::from(self.sack)
    }

    fn unpacked(bits: u8, v6: bool) -> Offer {
        let sizes = if v6 { MSS6 } else { MSS4 };
        let scale = bits >> 1 & 15;
        Offer {
            mss: sizes[usize::from(bits >> 5)],
            window_scale: (scale != NO_SCALE).then_some(scale),
            sack: bits & 1 != 0,
            timestamps: None,
        }
    }
}

/// What a number turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checked {
    /// One of our cookies: what the client had offered, but for its clock.
    Valid(Offer),
    /// It was one, two to four minutes ago.
    Expired,
    /// No cookie of ours, nor of a director with the same secret.
    Invalid,
}

/// Makes and checks the cookies of one worker.
#[derive(Debug, Clone)]
pub(crate) struct Baker {
    own: [u8; SECRET_LEN],
    secret: [u8; SECRET_LEN],
    tick_zero_s: u32,
    /// Ticks that have passed, without wrapping.
    ticks: u64,
    last: Tick,
}

impl Baker {
    /// With a secret of its own, made of the worker's, until it is told another.
    pub(crate) fn new([a, b, c, d]: [u64; 4], now: Tick) -> Baker {
        let mut own = [0; SECRET_LEN];
        for (n, place) in (0u8..).zip(own.chunks_exact_mut(8)) {
            let mut hasher = SipHasher24::new_with_keys(a, b);
            hasher.write_u64(c);
            hasher.write_u64(d);
            hasher.write_u8(n);
            place.copy_from_slice(&hasher.finish().to_be_bytes());
        }
        Baker {
            own,
            secret: own,
            tick_zero_s: 0,
            ticks: u64::from(now.0),
            last: now,
        }
    }

    /// From now on by these.
    pub(crate) fn follow(&mut self, cookies: &Cookies) {
        self.secret = cookies.secret.unwrap_or(self.own);
        self.tick_zero_s = cookies.tick_zero_s;
    }

    /// The minute now, counted from 1970.
    pub(crate) fn minute(&mut self, now: Tick) -> u32 {
        self.ticks += u64::from(now.since(self.last));
        self.last = now;
        let seconds = u64::from(self.tick_zero_s) + self.ticks / u64::from(Tick::PER_SECOND);
        (seconds / 60) as u32
    }

    /// Milliseconds, for timestamps.
    pub(crate) fn clock_ms(&self, now: Tick) -> u32 {
        (u64::from(now.0) * 1000 / u64::from(Tick::PER_SECOND)) as u32
    }

    /// The number that a client which begins at `isn` with this offer is given. `key` is that of
    /// its packets, as they are among the IPv6 ones.
    pub(crate) fn bake(&mut self, key: &Key6, isn: u32, offer: &Offer, now: Tick) -> u32 {
        let minute = self.minute(now);
        let v6 = key.unmapped().is_none();
        let (bits, timed) = (offer.packed(v6), offer.timestamps.is_some());
        self.hash(key, isn, minute, bits, timed) << HASH_SHIFT
            | if minute & 1 == 1 { MINUTE_BIT } else { 0 }
            | u32::from(bits)
    }

    /// Whether `cookie` is what a client which began at `isn` was given. `timed`: its packets
    /// have timestamps.
    pub(crate) fn check(
        &mut self,
        key: &Key6,
        isn: u32,
        cookie: u32,
        timed: bool,
        now: Tick,
    ) -> Checked {
        let minute = self.minute(now);
        let bits = cookie as u8;
        // This minute or the one before: whichever has that bit.
        let odd = cookie & MINUTE_BIT != 0;
        let baked = minute.wrapping_sub(u32::from((minute & 1 == 1) != odd));
        let is_of = |minute| self.hash(key, isn, minute, bits, timed) == cookie >> HASH_SHIFT;
        if is_of(baked) {
            return Checked::Valid(Offer::unpacked(bits, key.unmapped().is_none()));
        }
        match is_of(baked.wrapping_sub(LATELY)) {
            true => Checked::Expired,
            false => Checked::Invalid,
        }
    }

    /// 23 bits.
    fn hash(&self, key: &Key6, isn: u32, minute: u32, bits: u8, timed: bool) -> u32 {
        let mut text = [0; 48];
        for (word, place) in key.addrs.iter().zip(text.chunks_exact_mut(8)) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        text[32..36].copy_from_slice(&key.ports.to_be_bytes());
        text[36..40].copy_from_slice(&isn.to_be_bytes());
        text[40..44].copy_from_slice(&minute.to_be_bytes());
        (text[44], text[45]) = (bits, u8::from(timed));
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        hasher.write(&text);
        (hasher.finish() >> (64 - 32 + HASH_SHIFT)) as u32
    }
}

#[cfg(test)]
mod tests;
