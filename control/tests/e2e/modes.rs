//! Every way of forwarding that needs nothing special of this machine's kernel, with real servers
//! set up by `scripts/realserver` as users do. What needs more is in `inside/`.

use std::net::SocketAddr;

use crate::carry::{LARGE, carries, carries_for_the_client};
use crate::config::{Config, LIPS, LIPS6};
use crate::families::Family::{self, V4, V6};
use crate::realserver::RealServer;
use crate::servers::Nginx;
use crate::topology::Lab;
use crate::weir::Director;
use crate::with_1_2_and_3_workers;

/// The keys of a FULL-NAT service with local addresses of the servers' family.
pub(crate) fn fullnat(rip: Family) -> String {
    let lips = match rip {
        V4 => LIPS,
        V6 => LIPS6,
    };
    format!("forward = \"fullnat\"\nlocal_addresses = [\"{lips}\"]")
}

with_1_2_and_3_workers!(fullnat_in_and_between_families);

/// FULL-NAT over IPv6, NAT64 and NAT46.
fn fullnat_in_and_between_families(workers: usize) {
    for (vip, rip) in [(V6, V6), (V6, V4), (V4, V6)] {
        let Some(lab) = Lab::new(1) else { return };
        let nginx = Nginx::in_all(&lab);
        let config = Config::new(workers).service("tcp", (vip, rip), 80, &fullnat(rip));
        let _weir = Director::start(&lab, &config);
        let title = format!("FULL-NAT {vip:?} to {rip:?}, {workers} workers");
        carries(&lab, &nginx[0], vip, LARGE, &title);
    }
}

with_1_2_and_3_workers!(nat);

/// Answers go back through the director, which is the servers' default route.
fn nat(workers: usize) {
    let Some(lab) = Lab::new(1) else { return };
    let nginx = Nginx::in_all(&lab);
    let [dip4, dip6] = [V4, V6].map(Family::director_in_lan);
    let config = both("forward = \"nat\"", Config::new(workers));
    let _weir = Director::start(&lab, &config);
    let _rs = RealServer::set_up(&lab.servers[0], &format!("nat --gateway {dip4} {dip6}"));
    for family in [V4, V6] {
        let title = format!("NAT {family:?}, {workers} workers");
        carries_for_the_client(&lab, &nginx[0], family, LARGE, &title);
    }
}

with_1_2_and_3_workers!(dr);

/// Answers go straight from the server to the client.
fn dr(workers: usize) {
    let Some(lab) = Lab::new(1) else { return };
    lab.let_answers_go_straight();
    let nginx = Nginx::in_all(&lab);
    let [vip4, vip6] = [V4, V6].map(Family::vip);
    let _rs = RealServer::set_up(&lab.servers[0], &format!("dr --vip {vip4} {vip6}"));
    let config = both("forward = \"dr\"", Config::new(workers));
    let _weir = Director::start(&lab, &config);
    for family in [V4, V6] {
        let title = format!("DR {family:?}, {workers} workers");
        carries_for_the_client(&lab, &nginx[0], family, LARGE, &title);
    }
}

/// The director itself serves: packets for the VIP go up to its kernel, where nginx listens.
#[test]
fn local() {
    let Some(lab) = Lab::new(1) else { return };
    let nginx = Nginx::in_director(&lab);
    let mut config = Config::new(2);
    for family in [V4, V6] {
        let vip = SocketAddr::new(family.vip(), 80);
        config = config.service_by("tcp", vip, vip, "forward = \"local\"");
    }
    let _weir = Director::start(&lab, &config);
    for family in [V4, V6] {
        let title = format!("local, {family:?}");
        carries_for_the_client(&lab, &nginx, family, LARGE / 10, &title);
    }
}

/// VXLAN, the one tunnel that every kernel has: either family inside, either outside.
#[test]
fn vxlan() {
    for outer in [V4, V6] {
        let Some(lab) = Lab::new(1) else { return };
        lab.let_answers_go_straight();
        let nginx = Nginx::in_all(&lab);
        let [vip4, vip6] = [V4, V6].map(Family::vip);
        let director = outer.director_in_lan();
        let args = format!("tun --type vxlan --vni 77 --vip {vip4} {vip6} --director {director}");
        let _rs = RealServer::set_up(&lab.servers[0], &args);
        let more = "forward = \"tun\"\ntunnel = { type = \"vxlan\", vni = 77 }";
        let config = Config::new(2).service("tcp", (V4, outer), 80, more);
        let config = config.service("tcp", (V6, outer), 80, more);
        let _weir = Director::start(&lab, &config);
        for inner in [V4, V6] {
            let title = format!("VXLAN {inner:?} in {outer:?}");
            carries_for_the_client(&lab, &nginx[0], inner, LARGE, &title);
        }
    }
}

/// One port for clients and servers alike.
#[test]
fn one_armed_fullnat() {
    let config = Config::new(2).service("tcp", (V4, V4), 80, &fullnat(V4));
    one_armed(&config.service("tcp", (V6, V6), 80, &fullnat(V6)), None);
}

#[test]
fn one_armed_nat() {
    let [dip4, dip6] = [V4, V6].map(Family::director_in_lan);
    let args = format!("nat --gateway {dip4} {dip6}");
    one_armed(&both("forward = \"nat\"", Config::new(2)), Some(&args));
}

#[test]
fn one_armed_dr() {
    let [vip4, vip6] = [V4, V6].map(Family::vip);
    let args = format!("dr --vip {vip4} {vip6}");
    one_armed(&both("forward = \"dr\"", Config::new(2)), Some(&args));
}

/// `real_server` is what `scripts/realserver` is told; without it, servers see local addresses.
fn one_armed(config: &Config, real_server: Option<&str>) {
    let Some(lab) = Lab::new(1) else { return };
    lab.let_answers_go_straight();
    let nginx = Nginx::in_all(&lab);
    let _rs = real_server.map(|args| RealServer::set_up(&lab.servers[0], args));
    let _weir = Director::start(&lab, &config.clone().one_armed());
    for family in [V4, V6] {
        let title = format!("one-armed, {family:?}");
        if real_server.is_some() {
            carries_for_the_client(&lab, &nginx[0], family, LARGE, &title);
        } else {
            carries(&lab, &nginx[0], family, LARGE, &title);
        }
    }
}

/// A service for each family, with servers of the same.
fn both(more: &str, config: Config) -> Config {
    let config = config.service("tcp", (V4, V4), 80, more);
    config.service("tcp", (V6, V6), 80, more)
}
