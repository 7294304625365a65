//! A port that is a bond: real transfers in every mode, and cables that are pulled. Against a switch's
//! LACP it is in `inside/bonds.rs`, for which a kernel needs bonding.

use std::time::Duration;

use crate::cables::{Cable, FAR_MEMBERS};
use crate::carry::carries;
use crate::client::{ask_name, curl};
use crate::config::{Config, LIPS, LIPS6};
use crate::families::Family::{V4, V6};
use crate::servers::{Nginx, holds, write_noise};
use crate::topology::{Lab, eventually};
use crate::weir::Director;
use crate::with_1_2_and_3_workers;

/// Bytes each way.
const SIZE: usize = 20_000_000;

/// Web services in both families, through a bond in `mode`.
pub(crate) fn config(workers: usize, cable: Cable) -> Config {
    let mut config = Config::new(workers).cable(cable);
    for (family, lips) in [(V4, LIPS), (V6, LIPS6)] {
        let more = format!("forward = \"fullnat\"\nlocal_addresses = [\"{lips}\"]");
        config = config.service("tcp", (family, family), 80, &more);
    }
    config
}

/// The states of the bond's members, as `weir status` has them.
pub(crate) fn states(weir: &Director<'_>) -> Vec<String> {
    let status = weir.json(&["status"]);
    let ports = status["ports"].as_array().expect("ports");
    let members = ports.iter().filter_map(|port| port["members"].as_array());
    let states = members.flatten().map(|member| member["state"].as_str());
    states.map(|s| s.expect("a state").to_owned()).collect()
}

/// Waits until the bond's members are in these states.
pub(crate) fn become_so(weir: &Director<'_>, wanted: [&str; 2]) {
    eventually(
        Duration::from_secs(40),
        &format!("members {wanted:?}"),
        || (states(weir) == wanted).then_some(()),
    );
}

with_1_2_and_3_workers!(active_backup_goes_on_when_a_cable_is_pulled);

fn active_backup_goes_on_when_a_cable_is_pulled(workers: usize) {
    let cable = Cable::Bond("active-backup");
    let Some(lab) = Lab::with_cable(1, cable) else {
        return;
    };
    let nginx = Nginx::in_all(&lab);
    let weir = Director::start(&lab, &config(workers, cable));
    become_so(&weir, ["active", "backup"]);
    for family in [V4, V6] {
        carries(&lab, &nginx[0], family, SIZE, "active-backup");
    }
    let noise = nginx[0].files().join("noise");
    let sent = write_noise(&noise, SIZE, 3);
    let got = lab.dir().join("got");
    // A transfer of some seconds, in whose middle the cable goes.
    let download = curl(&lab)
        .args(["--limit-rate", "5M", "--output"])
        .arg(&got)
        .arg(format!("http://{}/files/noise", V4.vip()))
        .spawn()
        .expect("curl is installed");
    eventually(Duration::from_secs(20), "the download runs", || {
        let len = got.metadata().map_or(0, |file| file.len());
        (len > 2_000_000).then_some(())
    });
    lab.set_cable(0, "down");
    become_so(&weir, ["down", "active"]);
    let done = download.wait_with_output().expect("our own child");
    assert!(done.status.success(), "{done:?}");
    assert!(holds(&got, &sent));
    let log = weir.log();
    assert!(log.contains("bond member net_tap0 is down"), "{log}");
    assert!(log.contains("bond member net_tap1 is active"), "{log}");
    let members = weir.json(&["status"])["ports"][0]["members"].clone();
    assert_eq!(
        (&members[0]["lost"], &members[1]["lost"]),
        (&1.into(), &0.into())
    );

    // And back, without the first cable, and with neither: then the port is down as well.
    lab.set_cable(0, "up");
    become_so(&weir, ["backup", "active"]);
    lab.set_cable(1, "down");
    become_so(&weir, ["active", "down"]);
    assert_eq!(ask_name(&lab), "rs1");
    lab.set_cable(0, "down");
    become_so(&weir, ["down", "down"]);
    let ports = weir.json(&["status"])["ports"].clone();
    assert_eq!(ports[0]["link_up"], false);
    lab.set_cable(0, "up");
    become_so(&weir, ["active", "down"]);
    eventually(Duration::from_secs(20), "clients are served again", || {
        curl(&lab)
            .arg(format!("http://{}/", V4.vip()))
            .output()
            .ok()?
            .status
            .success()
            .then_some(())
    });
    let shown = lab.director.ip("-br link show wan0");
    assert!(
        shown.contains("UP"),
        "the twin has its carrier again: {shown}"
    );
}

/// Modes that use both members at once. The cables end in a bridge, which knows of no group of
/// ports; so each member's link is seen alone as well.
#[test]
fn every_mode_carries() {
    for mode in ["balance-xor", "balance-tlb", "balance-rr", "broadcast"] {
        let cable = Cable::Bond(mode);
        let Some(lab) = Lab::with_cable(1, cable) else {
            return;
        };
        let nginx = Nginx::in_all(&lab);
        let weir = Director::start(&lab, &config(2, cable));
        let second = if mode == "balance-tlb" {
            "backup"
        } else {
            "active"
        };
        become_so(&weir, ["active", second]);
        for pulled in [None, Some(0), Some(1)] {
            if let Some(member) = pulled {
                lab.set_cable(member, "down");
                let states = match member {
                    0 => ["down", "active"],
                    _ => ["active", "down"],
                };
                become_so(&weir, states);
            }
            // Both at once: what the bridge floods comes twice, and is looked at twice.
            carries(
                &lab,
                &nginx[0],
                V4,
                SIZE / 10,
                &format!("{mode}, pulled {pulled:?}"),
            );
            if let Some(member) = pulled {
                lab.set_cable(member, "up");
                eventually(Duration::from_secs(20), "the member is back", || {
                    (!states(&weir).contains(&"down".to_owned())).then_some(())
                });
            }
        }
        let sent = FAR_MEMBERS.map(|far| lab.client.packets(far)[0]);
        assert!(
            sent.iter().all(|packets| *packets > 100),
            "{mode}: {sent:?}"
        );
    }
}
