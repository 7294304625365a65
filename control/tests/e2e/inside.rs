//! Scenarios for a kernel that has what this machine's may lack, and the guests that run them.

use std::time::Duration;

use crate::guest::Guest;

mod carry;
mod fullnat;
mod kernel_ipvs;
mod tunnels;

/// What the topology of namespaces itself is made of, and `more`.
macro_rules! modules {
    ($($more:literal),*) => {
        &["tun", "veth", "bridge", $($more),*]
    };
}

/// A guest ends within a minute on a quiet machine.
const AT_MOST: Duration = Duration::from_secs(200);

#[test]
fn fullnat_in_a_guest() {
    let guest = Guest {
        modules: modules!(),
        scenarios: "inside::fullnat::",
        at_most: AT_MOST,
    };
    guest.run();
}

#[test]
fn kernel_ipvs_in_a_guest() {
    let guest = Guest {
        modules: modules!(
            "ipip",
            "sit",
            "ip6_tunnel",
            "ip_gre",
            "ip6_gre",
            "fou",
            "fou6",
            "crc32c_generic",
            "ip_vs",
            "ip_vs_rr"
        ),
        scenarios: "inside::kernel_ipvs::",
        at_most: AT_MOST,
    };
    guest.run();
}
