//! VLANs (802.1Q) on one card: its trunk's far end is the kernel's own 8021q.

use crate::cables::Cable;
use crate::carry::{SMALL, carries};
use crate::config::{Config, LIPS, LIPS6};
use crate::families::Family::{V4, V6};
use crate::servers::Nginx;
use crate::topology::Lab;
use crate::weir::Director;

#[test]
#[ignore = "for a guest's kernel; see guest.rs"]
fn megabytes_go_from_one_vlan_to_another_and_back() {
    let Some(lab) = Lab::with_cable(1, Cable::Trunk) else {
        return;
    };
    let nginx = Nginx::in_all(&lab);
    let mut config = Config::new(2).cable(Cable::Trunk);
    for (family, lips) in [(V4, LIPS), (V6, LIPS6)] {
        let more = format!("forward = \"fullnat\"\nlocal_addresses = [\"{lips}\"]");
        config = config.service("tcp", (family, family), 80, &more);
    }
    let _weir = Director::start(&lab, &config);
    for family in [V4, V6] {
        carries(
            &lab,
            &nginx[0],
            family,
            SMALL,
            &format!("VLANs, {family:?}"),
        );
    }
    let tagged = lab.lan.packets("weir-lan");
    assert!(tagged.iter().all(|packets| *packets > 100), "{tagged:?}");
}
