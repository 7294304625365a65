//! The laboratory with the kernel's own IPVS as director: shows that `scripts/realserver` and the
//! cables are right, so that a scenario which fails with Weir fails because of Weir.

use std::net::SocketAddr;

use super::carry::carries_both_ways;
use super::tunnels::TUNNELS;
use crate::families::Family::{self, V4, V6};
use crate::realserver::RealServer;
use crate::servers::Nginx;
use crate::topology::Lab;

/// The laboratory with a director of wan0, lan0 and both VIPs, and nginx in one real server.
fn lab() -> Option<(Lab, Vec<Nginx>)> {
    let lab = Lab::new(1)?;
    lab.pull_kernel_cables();
    let director = &lab.director;
    director.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    for family in [V4, V6] {
        director.add_address(family.vip(), family, "wan0");
    }
    let nginx = Nginx::in_all(&lab);
    Some((lab, nginx))
}

/// `ipvsadm` with the VIP of `vip` and server 1 by its address of `rip`.
fn serve(lab: &Lab, vip: Family, rip: Family, options: &str) {
    let vip = SocketAddr::new(vip.vip(), 80);
    let rip = SocketAddr::new(rip.rip(1), 80);
    lab.director.run("ipvsadm --clear");
    lab.director.run(&format!("ipvsadm -A -t {vip} -s rr"));
    lab.director
        .run(&format!("ipvsadm -a -t {vip} -r {rip} {options}"));
}

#[test]
#[ignore = "for a guest's kernel; see guest.rs"]
fn nat_and_dr() {
    let Some((lab, nginx)) = lab() else { return };
    let rs1 = &lab.servers[0];
    for family in [V4, V6] {
        serve(&lab, family, family, "-m");
        let args = format!("nat --gateway {}", family.director_in_lan());
        let _rs = RealServer::set_up(rs1, &args);
        carries_both_ways(&lab, &nginx[0], family, &format!("IPVS, NAT {family:?}"));
    }
    lab.let_answers_go_straight();
    for family in [V4, V6] {
        serve(&lab, family, family, "-g");
        let _rs = RealServer::set_up(rs1, &format!("dr --vip {}", family.vip()));
        carries_both_ways(&lab, &nginx[0], family, &format!("IPVS, DR {family:?}"));
    }
}

/// Every tunnel that IPVS has, in each family through each family.
#[test]
#[ignore = "for a guest's kernel; see guest.rs"]
fn tunnels() {
    let Some((lab, nginx)) = lab() else { return };
    lab.let_answers_go_straight();
    for tunnel in TUNNELS {
        let Some(options) = tunnel.ipvsadm else {
            continue;
        };
        let _rs = tunnel.set_up(&lab);
        for (inner, outer) in [(V4, V4), (V6, V4), (V4, V6), (V6, V6)] {
            serve(&lab, inner, outer, &format!("-i {options}"));
            let title = format!("IPVS, {} {inner:?} in {outer:?}", tunnel.name);
            carries_both_ways(&lab, &nginx[0], inner, &title);
        }
    }
}
