//! Generic UDP encapsulation, version 0 (draft-ietf-intarea-gue 3; Linux's `fou` module).
//!
//! ```text
//!  0     8                             9          10
//!  | UDP | version, C, options' length | protocol | flags
//! ```
//! No option is ever sent: its length and the flags are 0.
#![forbid(unsafe_code)]

use crate::packet::udp;

/// Bytes of the UDP and the GUE header.
pub(super) const LEN: usize = udp::LEN + 4;

/// Writes the GUE header behind the UDP header's place.
pub(super) fn write(payload: &mut [u8], protocol: u8) {
    payload[udp::LEN..LEN].copy_from_slice(&[0, protocol, 0, 0]);
}
