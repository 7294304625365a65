//! Where Weir differs from the kernel: on purpose, each with its reason.

use crate::recording::{Case, Step};

/// A difference on purpose.
pub(crate) struct Difference {
    /// Cases whose name contains this; all for "".
    cases: &'static str,
    /// Steps whose note contains this.
    note: &'static str,
    pub(crate) reason: &'static str,
}

const fn differs(cases: &'static str, note: &'static str, reason: &'static str) -> Difference {
    Difference {
        cases,
        note,
        reason,
    }
}

pub(crate) const ON_PURPOSE: &[Difference] = &[
    differs(
        "",
        "UDP length field longer than the packet",
        "a datagram that claims more than it has is dropped as bad_udp_header",
    ),
    differs(
        "NAT-v6",
        "UDP checksum 0",
        "no checksum stays none; IPVS adds the rewrite to the 0, and the server drops the packet",
    ),
    differs(
        "v6-ip-options",
        "atomic fragment",
        "the fragment header stays as the client sent it",
    ),
    differs(
        "server-removed",
        "",
        "a removed server keeps its connections until they end; new ones are refused at once",
    ),
    differs(
        "v6-not-a-service",
        "UDP to port 54",
        "the VIP itself says that nothing listens there (RFC 4443 2.2), checksum or none",
    ),
    differs(
        "v6-no-server",
        "service without a server",
        "the VIP itself says so (RFC 4443 2.2)",
    ),
    differs(
        "icmp-error-from-client-side",
        "type 12",
        "a parameter problem is an error about the server's packet and reaches the server",
    ),
    differs(
        "NAT-v6-fragments-mtu1400",
        "server fragments",
        "a fragment of no multiple of 8 bytes is dropped; IPVS passes it on as it is",
    ),
    differs(
        "not-a-service",
        "SCTP to the VIP",
        "an association that nothing takes is aborted; the kernel that was recorded had no SCTP",
    ),
    differs(
        "schedule-icmp",
        "",
        "schedule_icmp: an error opens no connection",
    ),
    differs(
        "v6-icmp-error-about-tunnel",
        "quoting the tunnelled",
        "errors about an IPv6 tunnel are relayed to the client as those about an IPv4 one",
    ),
    differs(
        "v6-icmp-error-about-tunnel",
        "after the too big",
        "an IPv6 tunnel's path MTU is remembered as an IPv4 one's is",
    ),
    differs(
        "DR-v4-replies-through-director",
        "server SA from the VIP, ttl 1",
        "IPVS sends its error to the VIP, and so to itself, once more",
    ),
    differs(
        "DR-v4-replies-through-director",
        "1450, DF",
        "IPVS sends its error to the VIP, and so to itself, once more",
    ),
];

/// Not built yet: each of these goes away with what it waits for.
pub(crate) const NOT_YET: &[Difference] = &[];

/// The first of `differences` that a step is.
pub(crate) fn find<'a>(
    differences: &'a [Difference],
    case: &Case,
    step: &Step,
) -> Option<&'a Difference> {
    differences
        .iter()
        .find(|d| case.name.contains(d.cases) && step.note.contains(d.note))
}
