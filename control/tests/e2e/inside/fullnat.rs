//! FULL-NAT on Debian's stock kernel: what needs nothing special works there as it does here.

use crate::carry::{SMALL, carries};
use crate::config::Config;
use crate::families::Family;
use crate::servers::Nginx;
use crate::topology::Lab;
use crate::weir::Director;

#[test]
#[ignore = "for a guest's kernel; see guest.rs"]
fn megabytes_go_both_ways() {
    let Some(lab) = Lab::new(1) else { return };
    let nginx = Nginx::in_all(&lab);
    let _weir = Director::start(&lab, &Config::new(2).server(1, 100));
    carries(&lab, &nginx[0], Family::V4, SMALL, "FULL-NAT");
}
