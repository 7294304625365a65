//! What every version of QUIC shows of a packet: its connection ID (RFC 8999).
//!
//! ```text
//!  long   1vvvvvvv | version (4) | len | destination CID (len) | len | source CID ..
//!  short  0vvvvvvv | destination CID, as long as who reads it knows | ..
//! ```
//! Only what versions have in common is looked at: the first bit and these fields.
#![forbid(unsafe_code)]

/// The longest connection ID of QUIC versions 1 and 2 (RFC 9000 17.2).
pub const LONGEST: usize = 20;
/// Where a long header's destination CID begins: behind the first byte, version and length.
const LONG_CID_AT: usize = 6;

/// The connection ID that a packet is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination<'a> {
    /// Of a long header: the whole of it. A client chooses the first one itself.
    Long(&'a [u8]),
    /// Of a short header: what begins with it, [`LONGEST`] bytes at most. The server chose it.
    Short(&'a [u8]),
}

impl<'a> Destination<'a> {
    /// Reads a datagram's first packet; `None` when it is too short to be one.
    #[must_use]
    pub fn of(datagram: &'a [u8]) -> Option<Destination<'a>> {
        let (first, rest) = datagram.split_first()?;
        if first & 0x80 == 0 {
            return Some(Destination::Short(&rest[..rest.len().min(LONGEST)]));
        }
        let len = usize::from(*datagram.get(LONG_CID_AT - 1)?);
        let cid = datagram.get(LONG_CID_AT..LONG_CID_AT + len)?;
        Some(Destination::Long(cid))
    }

    /// The bytes that begin with the connection ID.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        match self {
            Destination::Long(cid) | Destination::Short(cid) => cid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_forms() {
        let mut initial = vec![0xc3, 0, 0, 0, 1, 8];
        initial.extend([1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 9]);
        assert_eq!(
            Destination::of(&initial),
            Some(Destination::Long(&[1, 2, 3, 4, 5, 6, 7, 8]))
        );
        assert_eq!(Destination::of(&initial[..14]), Destination::of(&initial));
        assert_eq!(Destination::of(&initial[..13]), None, "cut in the ID");
        assert_eq!(Destination::of(&initial[..5]), None);
        let short: Vec<u8> = (0x40..0x60).collect();
        assert_eq!(
            Destination::of(&short),
            Some(Destination::Short(&short[1..21]))
        );
        assert_eq!(Destination::of(&[0x40]), Some(Destination::Short(&[])));
        assert_eq!(Destination::of(&[]), None);
    }

    proptest! {
        #[test]
        fn any_bytes(datagram in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(to) = Destination::of(&datagram) {
                prop_assert!(to.bytes().len() <= 255);
            }
        }
    }
}
