//! The cables of the [`Lab`]: what the director's ports are plugged into, and the ways past it.

use crate::families::Family;
use crate::topology::{Lab, Netns};

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
    /// The clients' port is a bond of two net_tap devices in this mode; what its cables end in is
    /// a switch, or for 802.3ad the kernel's own bond.
    Bond(&'static str),
    /// One port, a bond in this mode, that is a trunk as above.
    BondTrunk(&'static str),
}

/// The interfaces of a bond's members in the director's namespace, where their driver looks for
/// their links.
pub(crate) const MEMBERS: [&str; 2] = ["weir-a", "weir-b"];
/// The other ends of the members' cables.
pub(crate) const FAR_MEMBERS: [&str; 2] = ["far-a", "far-b"];

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

    /// Plugs in the members of `weir`'s bond, after each start of it.
    ///
    /// ```text
    ///                  ┌── far-a ══ near-a ── weir-a ~~┐
    ///   client weir-wan                                 ~~ wan0 director
    ///                  └── far-b ══ near-b ── weir-b ~~┘
    /// ```
    /// Members stay where `weir` runs; `tc` passes every frame from one interface to the other, as
    /// a wire does. The client's end is a bridge, or by LACP the kernel's bond.
    pub(crate) fn plug_in_bond(&self, mode: &str) {
        let (client, director, lan) = (&self.client, &self.director, &self.lan);
        director.ip(&format!("link set weir-lan netns {}", lan.name()));
        lan.ip(&format!("link set weir-lan address {FAR_MAC_LAN}"));
        self.wire_members(client, "weir-wan", mode);
        self.raise_far_ends();
    }

    /// As [`Lab::plug_in_bond`], of a bond that is a trunk: VLANs as in [`Lab::plug_in_trunk`].
    pub(crate) fn plug_in_bond_trunk(&self, mode: &str) {
        let (client, lan) = (&self.client, &self.lan);
        self.wire_members(lan, "weir-card", mode);
        for (vlan, name) in [(100, "weir-wan"), (200, "weir-lan")] {
            lan.ip(&format!(
                "link add link weir-card name {name} type vlan id {vlan}"
            ));
        }
        lan.ip(&format!("link set weir-wan netns {}", client.name()));
        self.raise_far_ends();
    }

    /// Pulls the members' cables to `far`, where `switch` joins them.
    fn wire_members(&self, far: &Netns, switch: &str, mode: &str) {
        let director = &self.director;
        let kind = match mode {
            "802.3ad" => "bond mode 802.3ad miimon 50 lacp_rate fast xmit_hash_policy layer3+4",
            _ => "bridge",
        };
        // Not of its ports: these are what the director's end has.
        far.ip(&format!(
            "link add {switch} address {FAR_MAC_WAN} type {kind}"
        ));
        for (member, far_end) in MEMBERS.iter().zip(FAR_MEMBERS) {
            let near = member.replace("weir", "near");
            director.ip(&format!(
                "link add {near} type veth peer name {far_end} netns {}",
                far.name()
            ));
            director.ip(&format!("link set {near} up"));
            for (from, to) in [(*member, near.as_str()), (near.as_str(), *member)] {
                director.run(&format!("tc qdisc add dev {from} clsact"));
                director.run(&format!(
                    "tc filter add dev {from} ingress protocol all u32 match u32 0 0 action \
                     mirred egress redirect dev {to}"
                ));
            }
            far.ip(&format!("link set {far_end} master {switch}"));
            far.ip(&format!("link set {far_end} up"));
        }
        far.ip(&format!("link set {switch} up"));
    }

    /// Pulls the cable of a bond's member out, at both ends, or plugs it in again.
    pub(crate) fn set_cable(&self, member: usize, state: &str) {
        self.director
            .ip(&format!("link set {} {state}", MEMBERS[member]));
        self.client
            .ip(&format!("link set {} {state}", FAR_MEMBERS[member]));
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
        self.announce_servers();
    }

    /// Addresses and raises the interfaces at the far ends of the director's ports.
    fn raise_far_ends(&self) {
        self.client.ip("link set weir-wan up");
        for family in [Family::V4, Family::V6] {
            self.client.add_address(family.client(), family, "weir-wan");
        }
        self.lan.ip("link set weir-lan master br0 up");
        self.announce_servers();
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
