//! TUN with real tunnel devices: every kind, either family inside, either family outside.

use crate::carry::{SMALL, carries_for_the_client};
use crate::config::Config;
use crate::families::Family::{self, V4, V6};
use crate::realserver::RealServer;
use crate::servers::Nginx;
use crate::streams;
use crate::topology::Lab;
use crate::weir::Director;

/// A kind of tunnel, in the words of everybody who has to know it.
#[derive(Debug)]
pub(super) struct Tunnel {
    /// For messages.
    pub(super) name: &'static str,
    /// `ipvsadm -a -i`'s options; none when IPVS has no such tunnel.
    pub(super) ipvsadm: Option<&'static str>,
    /// `tunnel` in the configuration.
    weir: &'static str,
    /// `scripts/realserver tun`'s options.
    realserver: &'static str,
}

pub(super) const TUNNELS: &[Tunnel] = &[
    Tunnel {
        name: "IPIP",
        ipvsadm: Some("--tun-type ipip"),
        weir: "type = \"ipip\"",
        realserver: "--type ipip",
    },
    Tunnel {
        name: "GRE",
        ipvsadm: Some("--tun-type gre"),
        weir: "type = \"gre\"",
        realserver: "--type gre",
    },
    Tunnel {
        name: "GRE with checksum",
        ipvsadm: Some("--tun-type gre --tun-csum"),
        weir: "type = \"gre\", checksum = \"full\"",
        realserver: "--type gre --checksum",
    },
    Tunnel {
        name: "GUE",
        ipvsadm: Some("--tun-type gue --tun-port 6080 --tun-nocsum"),
        weir: "type = \"gue\", port = 6080, checksum = \"none\"",
        realserver: "--type gue",
    },
    Tunnel {
        name: "GUE with checksum",
        ipvsadm: Some("--tun-type gue --tun-port 6080 --tun-csum"),
        weir: "type = \"gue\", port = 6080, checksum = \"full\"",
        realserver: "--type gue",
    },
    Tunnel {
        name: "GUE with remote checksum",
        ipvsadm: Some("--tun-type gue --tun-port 6080 --tun-remcsum"),
        weir: "type = \"gue\", port = 6080, checksum = \"remote\"",
        realserver: "--type gue",
    },
    Tunnel {
        name: "VXLAN",
        ipvsadm: None,
        weir: "type = \"vxlan\", vni = 77",
        realserver: "--type vxlan --vni 77",
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

    /// The services of both VIPs by this tunnel, to server 1's address of `outer`.
    fn config(&self, outer: Family) -> Config {
        let more = format!("forward = \"tun\"\ntunnel = {{ {} }}", self.weir);
        let config = Config::new(2).service("tcp", (V4, outer), 80, &more);
        config.service("tcp", (V6, outer), 80, &more)
    }
}

/// The whole table, through Weir.
#[test]
#[ignore = "for a guest's kernel; see guest.rs"]
fn every_kind_in_every_family() {
    let Some(lab) = Lab::new(1) else { return };
    lab.let_answers_go_straight();
    let nginx = Nginx::in_all(&lab);
    let weir = Director::start(&lab, &TUNNELS[0].config(V4));
    for tunnel in TUNNELS {
        let _rs = tunnel.set_up(&lab);
        for outer in [V4, V6] {
            weir.reload_to(&tunnel.config(outer));
            for inner in [V4, V6] {
                let title = format!("{} {inner:?} in {outer:?}", tunnel.name);
                carries_for_the_client(&lab, &nginx[0], inner, SMALL, &title);
            }
        }
    }
}

/// iperf3 in each kind of tunnel that a kernel has a device for: TCP, whose segments are clamped to
/// fit, and UDP in datagrams of 8 kB, whose fragments do not fit and are cut once more. Answers come
/// past Weir, so what the client sends is what counts.
#[test]
#[ignore = "for a guest's kernel; see guest.rs"]
fn streams_and_datagrams() {
    let Some(lab) = Lab::new(1) else { return };
    lab.let_answers_go_straight();
    let mut weir: Option<Director<'_>> = None;
    // Each family in one kind at least: a guest is slow.
    for (name, inner) in [("IPIP", V4), ("GRE", V6), ("GUE", V4)] {
        let tunnel = TUNNELS.iter().find(|tunnel| tunnel.name == name);
        let tunnel = tunnel.expect("a kind of TUNNELS");
        let _rs = tunnel.set_up(&lab);
        let more = format!("forward = \"tun\"\ntunnel = {{ {} }}", tunnel.weir);
        let mut config = Config::new(2);
        for protocol in ["tcp", "udp"] {
            config = config.service(protocol, (inner, V4), streams::PORT, &more);
        }
        match &weir {
            Some(weir) => weir.reload_to(&config),
            None => weir = Some(Director::start(&lab, &config)),
        }
        let _iperf3 = streams::iperf3(&lab.servers[0], inner.vip());
        let title = format!("{name}, {inner:?}");
        streams::carries(&lab, inner, streams::SMALL, &[""], &title);
    }
}

/// A server that names no director takes tunnels from anyone, by the kernel's own devices (tunl0,
/// sit0, ip6tnl0, gre0, ip6gre0).
#[test]
#[ignore = "for a guest's kernel; see guest.rs"]
fn from_any_director() {
    let Some(lab) = Lab::new(1) else { return };
    lab.let_answers_go_straight();
    let nginx = Nginx::in_all(&lab);
    let [ipip, gre] = [&TUNNELS[0], &TUNNELS[1]];
    let weir = Director::start(&lab, &ipip.config(V4));
    for tunnel in [ipip, gre] {
        let [vip4, vip6] = [V4, V6].map(Family::vip);
        let args = format!("tun {} --vip {vip4} {vip6}", tunnel.realserver);
        let _rs = RealServer::set_up(&lab.servers[0], &args);
        for outer in [V4, V6] {
            weir.reload_to(&tunnel.config(outer));
            for inner in [V4, V6] {
                let title = format!("{} from anyone, {inner:?} in {outer:?}", tunnel.name);
                carries_for_the_client(&lab, &nginx[0], inner, SMALL, &title);
            }
        }
    }
}
