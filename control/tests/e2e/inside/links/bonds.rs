//! LACP (802.3ad) between Weir's bond and a switch that is the kernel's own bond.

use std::thread::sleep;
use std::time::Duration;

use crate::bonds::{become_so, config};
use crate::cables::{Cable, FAR_MEMBERS};
use crate::carry::{SMALL, carries};
use crate::client::ask_name;
use crate::families::Family::{V4, V6};
use crate::servers::Nginx;
use crate::topology::{Lab, eventually};
use crate::weir::Director;

/// What the kernel's bond says of its partner: its MAC address, and how many ports agree.
fn partner(lab: &Lab) -> (String, u64) {
    let links = lab.client.ip("-j -d link show weir-wan");
    let links: serde_json::Value = serde_json::from_str(&links).expect("ip prints JSON");
    let info = &links[0]["linkinfo"]["info_data"]["ad_info"];
    let mac = info["partner_mac"].as_str().unwrap_or_default();
    (mac.to_owned(), info["num_ports"].as_u64().unwrap_or(0))
}

/// The switch agrees to both members and keeps to it while nobody sends anything; flows go over
/// both, and over one when the other's cable is pulled.
#[test]
#[ignore = "for a guest's kernel; see guest.rs"]
fn lacp_with_the_kernels_bond() {
    let cable = Cable::Bond("802.3ad");
    let Some(lab) = Lab::with_cable(1, cable) else {
        return;
    };
    let nginx = Nginx::in_all(&lab);
    let weir = Director::start(&lab, &config(2, cable));
    become_so(&weir, ["active", "active"]);
    let both = ("02:00:00:00:0b:01".to_owned(), 2);
    eventually(Duration::from_secs(20), "the kernel agrees", || {
        (partner(&lab) == both).then_some(())
    });
    for family in [V4, V6] {
        carries(&lab, &nginx[0], family, SMALL, "802.3ad");
    }

    // Workers nap all this time; LACP frames go out every second or so, as the kernel asks.
    let [before, after] = [(), ()].map(|()| {
        sleep(Duration::from_secs(3));
        FAR_MEMBERS.map(|far| lab.client.packets(far)[0])
    });
    for (member, (before, after)) in before.iter().zip(after).enumerate() {
        assert!(after > before + 1, "member {member}: {before} to {after}");
    }
    assert_eq!(partner(&lab), both);

    let before = FAR_MEMBERS.map(|far| lab.client.packets(far));
    // Each from another port, and so by another hash.
    for _ in 0..16 {
        assert_eq!(ask_name(&lab), "rs1");
    }
    let after = FAR_MEMBERS.map(|far| lab.client.packets(far));
    for member in [0, 1] {
        for way in [0, 1] {
            let packets = after[member][way] - before[member][way];
            assert!(packets > 5, "member {member}: {before:?} to {after:?}");
        }
    }

    lab.set_cable(1, "down");
    become_so(&weir, ["active", "down"]);
    carries(&lab, &nginx[0], V4, SMALL, "802.3ad, one cable");
    lab.set_cable(1, "up");
    become_so(&weir, ["active", "active"]);
    eventually(Duration::from_secs(20), "the kernel agrees again", || {
        (partner(&lab) == both).then_some(())
    });
    carries(&lab, &nginx[0], V4, SMALL, "802.3ad, both cables again");
    let members = weir.json(&["status"])["ports"][0]["members"].clone();
    assert_eq!(members[0]["lost"], 0, "{members}");
}

/// A trunk of VLANs on a bond.
#[test]
#[ignore = "for a guest's kernel; see guest.rs"]
fn vlans_on_a_bond() {
    let cable = Cable::BondTrunk("802.3ad");
    let Some(lab) = Lab::with_cable(1, cable) else {
        return;
    };
    let nginx = Nginx::in_all(&lab);
    let weir = Director::start(&lab, &config(2, cable));
    become_so(&weir, ["active", "active"]);
    carries(&lab, &nginx[0], V4, SMALL, "VLANs on a bond");
}
