use super::*;
use crate::steer::{MICROSOFT_KEY, spread};

fn port(workers: u8) -> PortOptions {
    PortOptions::new("p0", "net_null0", workers, MICROSOFT_KEY, spread(workers))
}

#[test]
fn adds_up_whatever_can_hold_a_buffer() {
    let demand = PoolDemand::new(&[port(3), port(3)], 4000, 500);
    let by_hand = PoolDemand {
        descriptors: 2 * 3 * (1024 + 1024),
        caches: 3 * 384,
        in_hand: 3 * 3 * 32,
        rings: 4000,
        parked: 500,
    };
    assert_eq!(demand, by_hand);
    assert_eq!(demand.total(), 12_288 + 1152 + 288 + 4000 + 500);
    assert_eq!(
        demand.to_string(),
        "12288 for queue descriptors, 1152 for workers' caches, 288 in workers' hands, \
         4000 on rings, 500 parked: 18228 in all"
    );
}

#[test]
fn af_xdp_holds_its_rings_whatever_is_asked_for() {
    let mut port = port(2);
    port.device = "net_af_xdp0,iface=veth0".into();
    port.tx_descriptors = 4096;
    let demand = PoolDemand::new(&[port], 0, 0);
    assert_eq!(demand.descriptors, 2 * (2048 + 4096));
}

#[test]
fn no_port_needs_nothing_but_what_is_said() {
    assert_eq!(PoolDemand::new(&[], 7, 1).total(), 8);
}
