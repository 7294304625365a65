//! The cables of the [`Lab`]: what the director's ports are plugged into, and the ways past it.

use crate::families::Family;
use crate::topology::Lab;

/// MAC addresses for the far ends of net_tap ports: the driver gives its interface the port's own
/// address, and two ends with one address cannot talk.
const FAR_MAC_WAN: &str = "02:00:00:00:0a:01";
const FAR_MAC_LAN: &str = "02:00:00:00:0a:02";

/// How a port of the director is plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cable {
    /// DPDK's net_tap; the interface appears when `weir` starts.
    NetTap,
    /// DPDK's net_af_packet on a veth pair that stands before `weir` starts. The kernel leaves
    /// TCP and UDP checksums on it partial.
    AfPacket,
    /// One net_tap port, a trunk: clients are in VLAN 100, servers in VLAN 200.
    Trunk,
}

impl Lab {
    /// Plugs in the far ends of `weir`'s net_tap ports, after each start of it.
    pub(crate) fn plug_in(&self) {
        let director = &self.director;
        for (port, mac, to) in [
            ("weir-wan", FAR_MAC_WAN, &self.client),
            ("weir-lan", FAR_MAC_LAN, &self.lan),
        ] {
            director.ip(&format!("link set {port} netns {}", to.name()));
            to.ip(&format!("link set {port} address {mac}"));
        }
        self.raise_far_ends();
    }

    /// Plugs in the far end of `weir`'s trunk, after each start of it.
    ///
    /// ```text
    ///   client weir-wan (VLAN 100) ──┐
    ///                                ├── weir-card ~~~~~ card0 (wan0: 100, lan0: 200) director
    ///   servers ── br0 (VLAN 200) ───┘
    /// ```
    pub(crate) fn plug_in_trunk(&self) {
        let (client, lan) = (&self.client, &self.lan);
        let director = &self.director;
        director.ip(&format!("link set weir-card netns {}", lan.name()));
        lan.ip(&format!("link set weir-card address {FAR_MAC_LAN} up"));
        for (vlan, name) in [(100, "weir-wan"), (200, "weir-lan")] {
            lan.ip(&format!(
                "link add link weir-card name {name} type vlan id {vlan}"
            ));
        }
        lan.ip(&format!("link set weir-wan netns {}", client.name()));
        self.raise_far_ends();
    }

    /// Plugs in the one port of a one-armed `weir`, after its start: clients come through the
    /// servers' network, by the cable that [`Lab::let_answers_go_straight`] pulls.
    ///
    /// ```text
    ///   client ── straight ── lan ── servers
    ///                          └── lan0 director
    /// ```
    pub(crate) fn plug_in_one_arm(&self) {
        let (client, director, lan) = (&self.client, &self.director, &self.lan);
        director.ip(&format!("link set weir-lan netns {}", lan.name()));
        lan.ip(&format!("link set weir-lan address {FAR_MAC_LAN}"));
        lan.ip("link set weir-lan master br0 up");
        for family in [Family::V4, Family::V6] {
            let [own, vip, dip] = [family.client(), family.vip(), family.director_in_lan()];
            client.add_address(own, family, "lo");
            client.ip(&format!("route add {vip} via {dip} src {own}"));
            let back = family.client_in_lan();
            director.ip(&format!("route add {own} via {back} dev lan0"));
        }
    }

    /// Addresses and raises the interfaces at the far ends of the director's ports.
    fn raise_far_ends(&self) {
        self.client.ip("link set weir-wan up");
        for family in [Family::V4, Family::V6] {
            self.client.add_address(family.client(), family, "weir-wan");
        }
        self.lan.ip("link set weir-lan master br0 up");
    }

    /// Pulls a cable from the client to the servers' network and makes it their way to the
    /// client, past the director: how answers go in DR and TUN.
    ///
    /// ```text
    ///   client ─────────── director ──── lan ── servers
    ///     └── straight 10.1.0.1 ──────────┘
    /// ```
    pub(crate) fn let_answers_go_straight(&self) {
        let (client, lan) = (&self.client, &self.lan);
        lan.ip(&format!(
            "link add client type veth peer name straight netns {}",
            client.name()
        ));
        lan.ip("link set client master br0 up");
        client.ip("link set straight up");
        for family in [Family::V4, Family::V6] {
            let gateway = family.client_in_lan();
            client.add_address(gateway, family, "straight");
            for server in &self.servers {
                server.ip(&format!("route add default via {gateway}"));
            }
        }
    }

    /// Pulls veth cables `wan0` and `lan0` for a director that is the kernel itself.
    pub(crate) fn pull_kernel_cables(&self) {
        let director = &self.director;
        for (near, far, to) in [
            ("wan0", "weir-wan", &self.client),
            ("lan0", "weir-lan", &self.lan),
        ] {
            director.ip(&format!(
                "link add {near} type veth peer name {far} netns {}",
                to.name()
            ));
            director.ip(&format!("link set {near} up"));
        }
        for family in [Family::V4, Family::V6] {
            director.add_address(family.director(), family, "wan0");
            director.add_address(family.director_in_lan(), family, "lan0");
        }
        self.raise_far_ends();
    }

    /// Pulls veth cables for AF_PACKET ports. AF_PACKET only listens in: the director's kernel
    /// gets the same frames, and would reset connections to a VIP that its twin holds. A strict
    /// source check drops them there, since the twin is the way back to every sender.
    pub(crate) fn pull_veth(&self) {
        for (port, mac, to) in [
            ("weir-wan", FAR_MAC_WAN, &self.client),
            ("weir-lan", FAR_MAC_LAN, &self.lan),
        ] {
            let far = to.name();
            let director = &self.director;
            director.ip(&format!(
                "link add {port} type veth peer name {port} address {mac} netns {far}"
            ));
            director.run(&format!(
                "sysctl -qw net.ipv4.conf.{port}.rp_filter=1 net.ipv4.conf.{port}.arp_ignore=1"
            ));
            director.ip(&format!("link set {port} up"));
            // Frames of at most the MTU, as on a wire; their checksums stay partial.
            to.run(&format!("ethtool -K {port} tso off"));
        }
        self.raise_far_ends();
    }
}
