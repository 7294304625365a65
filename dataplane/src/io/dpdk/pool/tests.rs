use super::*;

#[test]
fn buffers_hold_their_mtu_in_kibibytes_behind_the_headroom() {
    for (mtu, room) in [
        (64, 128 + 2048),
        (1500, 128 + 2048),
        (1962, 128 + 2048),
        (1963, 128 + 3072),
        (9000, 128 + 9216),
        (u16::MAX, u16::MAX),
    ] {
        assert_eq!(data_room(mtu), room, "mtu {mtu}");
    }
    for mtu in [64, 1500, 1963, 9000] {
        assert!(largest_mtu(data_room(mtu)) >= mtu, "mtu {mtu}");
    }
    assert!(largest_mtu(data_room(u16::MAX)) < u16::MAX);
}

#[test]
fn memory_is_what_the_buffers_take() {
    let demand = PoolDemand {
        rings: 10_000,
        ..PoolDemand::default()
    };
    let mut options = PoolOptions::new("p", demand, 1500);
    assert_eq!(options.buffers(), 10_000);
    assert_eq!(options.memory_mib(), 25); // 10,000 * 2560 / 2^20 = 24.4
    options.count = Some(20_000);
    assert_eq!(options.memory_mib(), 49);
    options.demand.rings = 3;
    options.count = None;
    assert_eq!(options.buffers(), 512, "DPDK's least for caches of 256");
}
