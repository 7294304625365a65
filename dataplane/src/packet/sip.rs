//! SIP, as far as persistence needs it: a message's Call-ID (RFC 3261 20.8).
#![forbid(unsafe_code)]

/// Longer Call-IDs are none, as in IPVS.
const LONGEST: usize = 255;

/// The Call-ID of a SIP message, without white space around it; `None` where there is none, or an
/// empty or a very long one. Header names are of any case, and `i` is the short one
/// (RFC 3261 7.3.3); lines end with CR, LF or both.
#[must_use]
pub fn call_id(message: &[u8]) -> Option<&[u8]> {
    let lines = message.split(|b| matches!(b, b'\r' | b'\n'));
    let id = lines.skip(1).find_map(|line| {
        let colon = line.iter().position(|b| *b == b':')?;
        let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        let is_it = name.eq_ignore_ascii_case(b"call-id") || name.eq_ignore_ascii_case(b"i");
        is_it.then_some(value)
    })?;
    (1..=LONGEST).contains(&id.len()).then_some(id)
}

/// A Call-ID as a number, never 0; the same on every node.
#[must_use]
pub fn hashed(call_id: &[u8]) -> u64 {
    // FNV-1a: who makes two calls collide sends them to one server.
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    call_id.iter().fold(0xcbf2_9ce4_8422_2325, fnv).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_ids_are_found_however_they_are_written() {
        for (text, id) in [
            (
                "INVITE sip:b@x SIP/2.0\r\nCall-ID: aaa@1\r\n\r\n",
                Some("aaa@1"),
            ),
            (
                "INVITE sip:b@x SIP/2.0\nVia: x\nCALL-ID :  aaa@1 \n",
                Some("aaa@1"),
            ),
            ("SIP/2.0 200 OK\ri:a", Some("a")),
            ("Call-ID: in the first line\r\n", None),
            ("INVITE\r\nCall-ID:\r\n", None),
            ("INVITE\r\nX-Call-ID: a\r\n", None),
            ("no call id here", None),
            ("", None),
        ] {
            assert_eq!(call_id(text.as_bytes()), id.map(str::as_bytes), "{text:?}");
        }
        let long = |n| format!("INVITE\r\nCall-ID: {}\r\n", "x".repeat(n));
        assert!(call_id(long(255).as_bytes()).is_some());
        assert!(call_id(long(256).as_bytes()).is_none());
        assert_ne!(hashed(b"aaa@1"), hashed(b"aaa@2"));
    }
}
