//! Configuration files for the program under test.

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::cables::{Cable, MEMBERS};
use crate::families::Family;
use crate::topology::{DIRECTOR, VIP, rip};

/// Local addresses of the FULL-NAT services.
pub(crate) const LIPS: &str = "10.1.0.100-10.1.0.103";

/// The same in IPv6.
pub(crate) const LIPS6: &str = "2001:db8:1::100-2001:db8:1::103";

/// A configuration file: with services of its own in both families, or by FULL-NAT with a TCP
/// service on port 80 and a UDP service on port 53.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    workers: usize,
    cable: Cable,
    /// Number (counted from 1) and weight of the real servers.
    servers: Vec<(usize, u16)>,
    /// `[[service]]` tables; when there are any, the two above are not there.
    services: String,
    /// With port lan0 alone.
    one_armed: bool,
    max_connections: usize,
}

impl Config {
    /// For `workers` workers, without real servers.
    pub(crate) fn new(workers: usize) -> Config {
        Config {
            workers,
            cable: Cable::NetTap,
            servers: Vec::new(),
            services: String::new(),
            one_armed: false,
            max_connections: 400_000,
        }
    }

    /// With the director's ports plugged in by `cable`.
    pub(crate) fn cable(mut self, cable: Cable) -> Config {
        self.cable = cable;
        self
    }

    /// With one real server more, for both services.
    pub(crate) fn server(mut self, number: usize, weight: u16) -> Config {
        self.servers.push((number, weight));
        self
    }

    /// With tables for so many connections, all workers together.
    pub(crate) fn max_connections(mut self, max: usize) -> Config {
        self.max_connections = max;
        self
    }

    /// With the port to the servers as the only one.
    pub(crate) fn one_armed(mut self) -> Config {
        self.one_armed = true;
        self
    }

    /// How the ports are plugged in, and whether there is only the one to the servers.
    pub(crate) fn ports(&self) -> (Cable, bool) {
        (self.cable, self.one_armed)
    }

    /// With a service on the VIP of `vip`, and server 1 by its address of `rip` behind it, both on
    /// `port`. `more` is the rest of the service's keys: how it forwards.
    pub(crate) fn service(
        self,
        protocol: &str,
        (vip, rip): (Family, Family),
        port: u16,
        more: &str,
    ) -> Config {
        let vip = SocketAddr::new(vip.vip(), port);
        self.service_by(protocol, vip, SocketAddr::new(rip.rip(1), port), more)
    }

    /// As [`Config::service`], of any address, by any server.
    pub(crate) fn service_by(
        mut self,
        protocol: &str,
        vip: SocketAddr,
        server: SocketAddr,
        more: &str,
    ) -> Config {
        // A name's characters are letters, digits and few others: no brackets.
        let name = format!("{protocol}-{}-{}", vip.ip(), vip.port());
        let _ = write!(
            self.services,
            "
[[service]]
name = \"{name}\"
address = \"{vip}\"
protocol = \"{protocol}\"
scheduler = \"rr\"
{more}

[[service.real_server]]
address = \"{server}\"
"
        );
        self
    }

    /// With these tables, `[[service]]` among them, as they are.
    pub(crate) fn tables(mut self, toml: &str) -> Config {
        self.services.push_str(toml);
        self
    }

    /// The file's text.
    pub(crate) fn toml(&self) -> String {
        // net_tap with MACs that a restart keeps, as a card's does: its own choice is random, and
        // the servers would talk to the old one until their ARP entries age.
        let (wan, lan, rx_checksum) = match self.cable {
            Cable::NetTap => (
                "net_tap0,iface=weir-wan,mac=02:00:00:00:0b:01",
                "net_tap1,iface=weir-lan,mac=02:00:00:00:0b:02",
                "trust",
            ),
            Cable::AfPacket => (
                "net_af_packet0,iface=weir-wan",
                "net_af_packet1,iface=weir-lan",
                "fill",
            ),
            Cable::Bond(_) => ("", "net_tap2,iface=weir-lan,mac=02:00:00:00:0b:02", "trust"),
            Cable::Trunk | Cable::BondTrunk(_) => ("100", "200", "trust"),
        };
        let (workers, max_connections) = (self.workers, self.max_connections);
        let [wan_more, lan_more] = if self.services.is_empty() {
            [String::new(), String::new()]
        } else {
            let v6 = Family::V6;
            [v6.director(), v6.director_in_lan()].map(|own| format!(", \"{own}/64\""))
        };
        let mut toml = format!(
            "[workers]
count = {workers}
memory = \"256MiB\"
max_connections = {max_connections}
hugepages = false
"
        );
        let card = match self.cable {
            Cable::Trunk => {
                "device = \"net_tap0,iface=weir-card,mac=02:00:00:00:0b:01\"".to_owned()
            }
            Cable::BondTrunk(mode) => bond(mode),
            _ => String::new(),
        };
        if !card.is_empty() {
            let _ = write!(toml, "\n[[port]]\nname = \"card0\"\n{card}\n");
        }
        let wan = (!self.one_armed).then(|| ("wan0", wan, format!("{DIRECTOR}/24"), wan_more));
        let lan = ("lan0", lan, "10.1.0.2/24".to_owned(), lan_more);
        for (name, device, address, more) in wan.into_iter().chain([lan]) {
            let place = match self.cable {
                Cable::Trunk | Cable::BondTrunk(_) => {
                    format!("parent = \"card0\"\nvlan = {device}")
                }
                Cable::Bond(mode) if device.is_empty() => bond(mode),
                _ => format!("device = \"{device}\"\nrx_checksum = \"{rx_checksum}\""),
            };
            let _ = write!(
                toml,
                "
[[port]]
name = \"{name}\"
{place}
addresses = [\"{address}\"{more}]
"
            );
        }
        if !self.services.is_empty() {
            return toml + &self.services;
        }
        for (name, protocol, port, scheduler) in
            [("web", "tcp", 80, "wrr"), ("dns", "udp", 53, "rr")]
        {
            let _ = write!(
                toml,
                "
[[service]]
name = \"{name}\"
address = \"{VIP}:{port}\"
protocol = \"{protocol}\"
scheduler = \"{scheduler}\"
forward = \"fullnat\"
local_addresses = [\"{LIPS}\"]
"
            );
            for (number, weight) in &self.servers {
                let rip = rip(*number);
                let _ = write!(
                    toml,
                    "
[[service.real_server]]
address = \"{rip}:{port}\"
weight = {weight}
"
                );
            }
        }
        toml
    }
}

/// The key that makes a port a bond of two net_tap devices.
fn bond(mode: &str) -> String {
    let [a, b] = MEMBERS;
    format!(
        "bond = {{ mode = \"{mode}\", members = [\"net_tap0,iface={a},mac=02:00:00:00:0b:01\", \
         \"net_tap1,iface={b},mac=02:00:00:00:0b:03\"] }}"
    )
}
