//! The one byte-for-byte difference of a tunnelled SYN: Weir lowers its MSS to what fits.

use weir_dataplane::packet::build::checksums_right;

use crate::common::To;
use crate::runs::unwrapped;
use crate::tunnels::word;

pub(crate) const REASON: &str = "the MSS of a SYN is lowered to what fits the tunnel";

/// Whether two frames differ in the MSS of the TCP packet inside, ours lower, and in the checksums
/// over it, which are right.
pub(crate) fn lowered(ours: &[(To, Vec<u8>)], theirs: &[(To, Vec<u8>)]) -> bool {
    let ([(to, a)], [(other, b)]) = (ours, theirs) else {
        return false;
    };
    let (Some(x), Some(y)) = (unwrapped(a), unwrapped(b)) else {
        return false;
    };
    let (Some(&at4), Some(&at6)) = (x.get(23), x.get(20)) else {
        return false; // what unwrapping left is no packet
    };
    let (ip, protocol) = match word(&x, 12) {
        0x0800 => (20, at4),
        _ => (40, at6),
    };
    let tcp = 14 + ip;
    // The recorded SYNs have the option first.
    let mss = tcp + 20;
    if to != other
        || a.len() != b.len()
        || protocol != 6
        || x.len() < mss + 4
        || x[tcp + 13] & 2 == 0
    {
        return false;
    }
    let room = a.len() - (x.len() - 14);
    let fits = 1500 + 14 - (room as u16) - ip as u16 - 20;
    let same_inside = [(0, tcp + 16), (tcp + 18, mss + 2), (mss + 4, x.len())]
        .iter()
        .all(|&(from, to)| x[from..to] == y[from..to]);
    // Outside, GRE's and UDP's checksums cover what is inside.
    let outer = if word(a, 12) == 0x0800 { 34 } else { 54 };
    x[mss] == 2
        && word(&x, mss + 2) == fits
        && word(&x, mss + 2) < word(&y, mss + 2)
        && same_inside
        && checksums_right(&x)
        && a[..outer] == b[..outer]
}
