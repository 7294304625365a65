//! Scenarios for a kernel that has what this machine's may lack, and the guests that run them.

use std::time::Duration;

use crate::guest::Guest;

mod fullnat;
mod kernel_ipvs;
mod links;
mod sctp;
mod tunnels;

/// What guests load; a module's own dependencies come by themselves.
const MODULES: &[&str] = &[
    // The namespaces' cables.
    "tun veth bridge",
    // Tunnels.
    "ipip sit ip6_tunnel ip_gre ip6_gre fou fou6 vxlan",
    // The kernel's IPVS, which asks for the checksum without saying so.
    "crc32c_generic ip_vs ip_vs_rr",
    "sctp",
    // The far ends of a trunk and of a bond, and the wires to the latter.
    "8021q",
    "bonding",
    "sch_ingress cls_u32 act_mirred",
];

/// A guest ends within one minute or two on a quiet machine; a busy one takes three times as long.
const AT_MOST: Duration = Duration::from_secs(450);

/// Boots a guest for the scenarios whose names begin with `scenarios`.
fn boot(scenarios: &'static str) {
    let guest = Guest {
        modules: MODULES,
        scenarios,
        at_most: AT_MOST,
    };
    guest.run();
}

#[test]
fn fullnat_in_a_guest() {
    boot("inside::fullnat::");
}

#[test]
fn kernel_ipvs_in_a_guest() {
    boot("inside::kernel_ipvs::");
}

#[test]
fn tunnels_in_a_guest() {
    boot("inside::tunnels::");
}

#[test]
fn sctp_in_a_guest() {
    boot("inside::sctp::");
}

#[test]
fn links_in_a_guest() {
    boot("inside::links::");
}
