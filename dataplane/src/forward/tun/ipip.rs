//! IP in IP: the outer header's protocol says which version is inside.
#![forbid(unsafe_code)]

/// An IPv4 packet inside (RFC 2003).
pub(super) const IPV4: u8 = 4;
/// An IPv6 packet inside (RFC 4213).
pub(super) const IPV6: u8 = 41;
