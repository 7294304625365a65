//! SCTP through Weir: its checksum covers the ports, so every mode that changes them mends a CRC.

use std::net::SocketAddr;

use crate::config::Config;
use crate::families::Family::{self, V4, V6};
use crate::modes::fullnat;
use crate::realserver::RealServer;
use crate::sctp::{Echo, PORT, echoes, echoes_from};
use crate::snat;
use crate::topology::Lab;
use crate::weir::Director;

/// One service by `more` from the VIP of `vip` to server 1 by its address of `rip`.
fn config(vip: Family, rip: Family, more: &str) -> Config {
    Config::new(2).service("sctp", (vip, rip), PORT, more)
}

#[test]
#[ignore = "for a guest's kernel; see guest.rs"]
fn fullnat_in_and_between_families() {
    let Some(lab) = Lab::new(1) else { return };
    let weir = Director::start(&lab, &config(V4, V4, &fullnat(V4)));
    for (vip, rip) in [(V4, V4), (V6, V6), (V6, V4), (V4, V6)] {
        weir.reload_to(&config(vip, rip, &fullnat(rip)));
        let _echo = Echo::start(&lab.servers[0], rip.rip(1));
        echoes(&lab, vip, &format!("FULL-NAT to {rip:?}"));
    }
}

#[test]
#[ignore = "for a guest's kernel; see guest.rs"]
fn nat() {
    let Some(lab) = Lab::new(1) else { return };
    let weir = Director::start(&lab, &config(V4, V4, "forward = \"nat\""));
    for family in [V4, V6] {
        weir.reload_to(&config(family, family, "forward = \"nat\""));
        let args = format!("nat --gateway {}", family.director_in_lan());
        let _rs = RealServer::set_up(&lab.servers[0], &args);
        let _echo = Echo::start(&lab.servers[0], family.rip(1));
        echoes(&lab, family, "NAT");
    }
}

#[test]
#[ignore = "for a guest's kernel; see guest.rs"]
fn dr_and_tun() {
    let Some(lab) = Lab::new(1) else { return };
    lab.let_answers_go_straight();
    let rs1 = &lab.servers[0];
    let weir = Director::start(&lab, &config(V4, V4, "forward = \"dr\""));
    for family in [V4, V6] {
        weir.reload_to(&config(family, family, "forward = \"dr\""));
        let _rs = RealServer::set_up(rs1, &format!("dr --vip {}", family.vip()));
        let _echo = Echo::start(rs1, family.vip());
        echoes(&lab, family, "DR");
    }
    for family in [V4, V6] {
        let tunnel = "forward = \"tun\"\ntunnel = { type = \"ipip\" }";
        weir.reload_to(&config(family, family, tunnel));
        let (vip, director) = (family.vip(), family.director_in_lan());
        let args = format!("tun --type ipip --vip {vip} --director {director}");
        let _rs = RealServer::set_up(rs1, &args);
        let _echo = Echo::start(rs1, family.vip());
        echoes(&lab, family, "IPIP");
    }
}

/// What a server opens itself leaves with an address of the pool.
#[test]
#[ignore = "for a guest's kernel; see guest.rs"]
fn snat() {
    let Some(lab) = Lab::new(1) else { return };
    let weir = Director::start(&lab, &snat::config(2));
    let server = &lab.servers[0];
    let [dip4, dip6] = [V4, V6].map(Family::director_in_lan);
    let _rs = RealServer::set_up(server, &format!("nat --gateway {dip4} {dip6}"));
    for family in [V4, V6] {
        let (from, to) = (family.rip(1), family.client());
        let _echo = Echo::start(&lab.client, to);
        echoes_from(server, from, to, "SNAT");
    }
    let listed = weir.json(&["conns", "--service", "out"]);
    let conns = listed["connections"].as_array().expect("a list");
    for family in [V4, V6] {
        let far = SocketAddr::new(family.client(), PORT).to_string();
        let is_ours = |conn: &&serde_json::Value| {
            conn["protocol"] == "sctp" && conn["virtual"] == far.as_str()
        };
        let conn = conns
            .iter()
            .find(is_ours)
            .unwrap_or_else(|| panic!("{listed:#}"));
        let local = conn["local"].as_str().and_then(|at| at.parse().ok());
        let local: SocketAddr = local.expect("an address");
        assert!(snat::pool(family).contains(&local.ip()), "{conn:#}");
    }
}
