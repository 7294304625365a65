//! TUN with real tunnel devices: every kind, either family inside, either family outside.

use crate::families::Family::{self, V4, V6};
use crate::realserver::RealServer;
use crate::topology::Lab;

/// A kind of tunnel, in the words of everybody who has to know it.
#[derive(Debug)]
pub(super) struct Tunnel {
    /// For messages.
    pub(super) name: &'static str,
    /// `ipvsadm -a -i`'s options; none when IPVS has no such tunnel.
    pub(super) ipvsadm: Option<&'static str>,
    /// `scripts/realserver tun`'s options.
    realserver: &'static str,
}

pub(super) const TUNNELS: &[Tunnel] = &[
    Tunnel {
        name: "IPIP",
        ipvsadm: Some("--tun-type ipip"),
        realserver: "--type ipip",
    },
    Tunnel {
        name: "GRE",
        ipvsadm: Some("--tun-type gre"),
        realserver: "--type gre",
    },
    Tunnel {
        name: "GRE with checksum",
        ipvsadm: Some("--tun-type gre --tun-csum"),
        realserver: "--type gre --checksum",
    },
    Tunnel {
        name: "GUE",
        ipvsadm: Some("--tun-type gue --tun-port 6080 --tun-nocsum"),
        realserver: "--type gue",
    },
    Tunnel {
        name: "GUE with checksum",
        ipvsadm: Some("--tun-type gue --tun-port 6080 --tun-csum"),
        realserver: "--type gue",
    },
    Tunnel {
        name: "GUE with remote checksum",
        ipvsadm: Some("--tun-type gue --tun-port 6080 --tun-remcsum"),
        realserver: "--type gue",
    },
];

impl Tunnel {
    /// Sets up server 1 to take packets for both VIPs out of tunnels from the director, over both
    /// families.
    pub(super) fn set_up<'lab>(&self, lab: &'lab Lab) -> RealServer<'lab> {
        let [vip4, vip6] = [V4, V6].map(Family::vip);
        let [dip4, dip6] = [V4, V6].map(Family::director_in_lan);
        let options = self.realserver;
        let args = format!("tun {options} --vip {vip4} {vip6} --director {dip4} {dip6}");
        RealServer::set_up(&lab.servers[0], &args)
    }
}
