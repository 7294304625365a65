//! The laboratory with the kernel's own IPVS as director: shows that `scripts/realserver` and the
//! cables are right, so that a scenario which fails with Weir fails because of Weir.

use std::net::SocketAddr;

use super::tunnels::TUNNELS;
use crate::carry::{SMALL, carries_for_the_client};
use crate::families::Family::{self, V4, V6};
use crate::realserver::RealServer;
use crate::sctp;
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

/// `ipvsadm` with the VIP of `vip` and server 1 by its address of `rip`, for HTTP.
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
        carries_for_the_client(
            &lab,
            &nginx[0],
            family,
            SMALL,
            &format!("IPVS, NAT {family:?}"),
        );
    }
    lab.let_answers_go_straight();
    for family in [V4, V6] {
        serve(&lab, family, family, "-g");
        let _rs = RealServer::set_up(rs1, &format!("dr --vip {}", family.vip()));
        carries_for_the_client(
            &lab,
            &nginx[0],
            family,
            SMALL,
            &format!("IPVS, DR {family:?}"),
        );
    }
}

/// SCTP by NAT and by DR: an echo there and back.
#[test]
#[ignore = "for a guest's kernel; see guest.rs"]
fn sctp_by_nat_and_dr() {
    let Some((lab, _nginx)) = lab() else { return };
    let rs1 = &lab.servers[0];
    let serve = |family: Family, options| {
        let [vip, rip] = [family.vip(), family.rip(1)].map(|ip| SocketAddr::new(ip, sctp::PORT));
        lab.director.run("ipvsadm --clear");
        let add = format!("ipvsadm -A --sctp-service {vip} -s rr");
        lab.director.run(&add);
        let add = format!("ipvsadm -a --sctp-service {vip} -r {rip} {options}");
        lab.director.run(&add);
    };
    for family in [V4, V6] {
        serve(family, "-m");
        let args = format!("nat --gateway {}", family.director_in_lan());
        let _rs = RealServer::set_up(rs1, &args);
        let _echo = sctp::Echo::start(rs1, family.rip(1));
        sctp::echoes(&lab, family, "IPVS, NAT");
    }
    lab.let_answers_go_straight();
    for family in [V4, V6] {
        serve(family, "-g");
        let _rs = RealServer::set_up(rs1, &format!("dr --vip {}", family.vip()));
        let _echo = sctp::Echo::start(rs1, family.vip());
        sctp::echoes(&lab, family, "IPVS, DR");
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
            carries_for_the_client(&lab, &nginx[0], inner, SMALL, &title);
        }
    }
}
