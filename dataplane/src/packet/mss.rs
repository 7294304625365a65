//! TCP's maximum segment size (RFC 9293 3.7.1), lowered so that segments fit a tunnel or leave
//! room for options without anybody's fragmenting.
//!
//! ```text
//!  0     1     2
//!  | 2   | 4   | MSS      an option of SYN and SYN-ACK, anywhere among the options
//! ```
#![forbid(unsafe_code)]

use super::checksum::Diff;
use super::{be16, ipv4, ipv6, put16, tcp};

/// End of the options.
const END: u8 = 0;
/// One byte of padding.
const NOP: u8 = 1;
/// The option's kind.
const KIND: u8 = 2;
/// The option's length.
const LEN: u8 = 4;

/// The largest segment whose packet fits `mtu` when the director adds `overhead` bytes.
#[inline]
#[must_use]
pub fn fitting(mtu: u16, is_v6: bool, overhead: u16) -> u16 {
    let ip = if is_v6 { ipv6::LEN } else { ipv4::MIN_LEN };
    mtu.saturating_sub(overhead)
        .saturating_sub((ip + tcp::MIN_LEN) as u16)
}

/// Lowers the MSS that a SYN or SYN-ACK announces to `mss`, and mends its checksum, which must
/// not be partial. `segment` begins with a TCP header that was checked. Whether anything changed:
/// not in other segments, nor where less is announced already. Without the option the sender
/// gets 536 bytes a segment (1,220 over IPv6), which fit anything.
pub fn clamp(segment: &mut [u8], mss: u16) -> bool {
    let Some(header) = segment.first_chunk::<{ tcp::MIN_LEN }>() else {
        return false;
    };
    let end = usize::from(header[12] >> 4) * 4;
    if header[tcp::FLAGS_AT] & tcp::flags::SYN == 0 || end > segment.len() {
        return false;
    }
    let Some(at) = find(&segment[..end]) else {
        return false;
    };
    let old = be16(segment, at);
    if old <= mss {
        return false;
    }
    put16(segment, at, mss);
    // A word at an odd place lies across two words of the sum, its halves swapped.
    let word = |value: u16| match at % 2 {
        0 => u32::from(value),
        _ => u32::from(value.swap_bytes()),
    };
    let diff = Diff::of(&[(word(old), word(mss))]);
    let sum = be16(segment, tcp::CHECKSUM_AT);
    put16(segment, tcp::CHECKSUM_AT, diff.apply(sum));
    true
}

/// Offset of the MSS itself in a TCP header. Options end at the first that makes no sense.
fn find(header: &[u8]) -> Option<usize> {
    let mut at = tcp::MIN_LEN;
    // At most 40 bytes of options; each turn takes one at least.
    loop {
        at += match *header.get(at..)? {
            [NOP, ..] => 1,
            [KIND, LEN, _, _, ..] => return Some(at + 2),
            [END | KIND, ..] => return None,
            [_, len, ..] if len >= 2 => usize::from(len),
            _ => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::checksum;

    /// A segment with these options and flags; its checksum, over it alone, is right.
    fn segment(flags: u8, options: &[u8]) -> Vec<u8> {
        let mut s = vec![7; tcp::MIN_LEN];
        s.extend_from_slice(options);
        s.resize(s.len().next_multiple_of(4), END);
        s[12] = (s.len() as u8 / 4) << 4;
        s[tcp::FLAGS_AT] = flags;
        s.extend_from_slice(b"payload");
        put16(&mut s, tcp::CHECKSUM_AT, 0);
        let sum = !checksum::sum(&s);
        put16(&mut s, tcp::CHECKSUM_AT, sum);
        s
    }

    const SYN: u8 = tcp::flags::SYN;
    const OURS: u16 = 1400;

    /// One row the options of a SYN, and where its MSS of 1460 stands; `None`: it has none.
    #[test]
    fn the_option_is_found_wherever_it_is() {
        let mss = [2, 4, 0x05, 0xb4];
        let rows: &[(&str, Vec<u8>, Option<usize>)] = &[
            ("first", mss.to_vec(), Some(22)),
            (
                "behind padding, at an odd place",
                [&[1][..], &mss].concat(),
                Some(23),
            ),
            (
                "behind SACK and timestamps",
                [&[4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0][..], &mss].concat(),
                Some(34),
            ),
            ("none", vec![4, 2, 1, 3, 3, 7], None),
            ("behind the end", [&[0][..], &mss].concat(), None),
            (
                "behind an option of no length",
                [&[99, 0][..], &mss].concat(),
                None,
            ),
            ("of a wrong length", vec![2, 3, 5, 2, 4, 5, 0xb4], None),
            (
                "behind an option that is too long",
                [&[99, 40][..], &mss].concat(),
                None,
            ),
        ];
        for (what, options, at) in rows {
            let mut s = segment(SYN, options);
            assert_eq!(clamp(&mut s, OURS), at.is_some(), "{what}");
            if let Some(at) = at {
                assert_eq!(be16(&s, *at), OURS, "{what}");
            }
            assert_eq!(checksum::sum(&s), 0xffff, "{what}");
        }
    }

    #[test]
    fn nothing_else_changes() {
        let mss = [2, 4, 0x05, 0xb4];
        assert!(clamp(&mut segment(SYN | tcp::flags::ACK, &mss), OURS));
        assert!(!clamp(&mut segment(tcp::flags::ACK, &mss), OURS), "no SYN");
        assert!(!clamp(&mut segment(SYN, &mss), 1460), "fits");
        assert_eq!(fitting(1500, false, 0), 1460);
        assert_eq!(fitting(1500, true, 20), 1420);
        assert_eq!(fitting(60, true, 20), 0);
    }

    proptest! {
        #[test]
        fn any_options_leave_the_checksum_right(
            options in prop::collection::vec(prop_oneof![0u8..6, any::<u8>()], 0..=40), mss: u16,
        ) {
            let mut s = segment(SYN, &options);
            clamp(&mut s, mss);
            prop_assert_eq!(checksum::sum(&s), 0xffff);
            for cut in 0..s.len() {
                clamp(&mut s.clone()[..cut], mss);
            }
        }
    }
}
