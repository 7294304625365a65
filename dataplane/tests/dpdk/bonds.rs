//! Bonds of virtual devices: what each mode does with frames, and what is said of members. With
//! cables, switches and failing links they are in `control/tests/e2e/bonds.rs`.

use std::time::{Duration, Instant};

use weir_dataplane::io::dpdk::{BondOptions, MemberState, OpenPort, Pool, PortOptions, open_ports};
use weir_dataplane::io::{BondHash, BondMode, Burst, Frame, FramePool, PortQueue};

use super::{eal, pool, port_options};

const NULLS: [&str; 2] = ["net_null0", "net_null1"];

fn bond(mode: BondMode, members: &[&str], workers: u8) -> PortOptions {
    PortOptions {
        bond: Some(BondOptions {
            mode,
            hash: BondHash::Layer34,
            members: members.iter().map(|m| (*m).to_owned()).collect(),
            primary: None,
            monitor_ms: 10,
        }),
        ..port_options("net_bonding_p0", workers)
    }
}

/// A bond of two `net_null` devices, once both its members' links were seen.
fn open(mode: BondMode, workers: u8) -> (Pool, OpenPort) {
    let options = [bond(mode, &NULLS, workers)];
    let (eal, options) = (eal(&NULLS), options);
    let pool = pool(&eal, &options);
    let port = open_ports(&eal, &pool, &options).unwrap().remove(0);
    let deadline = Instant::now() + Duration::from_secs(5);
    while port
        .handle
        .members()
        .iter()
        .any(|m| m.state == MemberState::Down)
    {
        assert!(Instant::now() < deadline, "{:?}", port.handle.members());
        std::thread::sleep(Duration::from_millis(5));
    }
    (pool, port)
}

/// A UDP datagram of another flow for each `n`.
fn frame(pool: &mut Pool, n: u8) -> weir_dataplane::io::dpdk::Mbuf {
    let mut frame = pool.alloc(64).unwrap();
    let bytes = frame.bytes_mut();
    bytes.fill(0);
    bytes[12..14].copy_from_slice(&[8, 0]);
    bytes[14] = 0x45;
    bytes[17] = 50;
    bytes[23] = 17;
    bytes[26..34].copy_from_slice(&[10, 0, 0, 9, 10, 0, 1, 1]);
    bytes[34..38].copy_from_slice(&[4, n, 0, 53]);
    frame
}

/// Sends 32 flows; the frames that each member sent.
fn sent(mode: BondMode) -> [u64; 2] {
    let (mut pool, mut port) = open(mode, 1);
    let mut burst: Burst<_> = (0..32).map(|n| frame(&mut pool, n)).collect();
    port.queues[0].tx_burst(&mut burst);
    assert!(burst.is_empty());
    let members = port.handle.members();
    assert_eq!(pool.in_use(), 0, "net_null frees what it is given");
    [members[0].packets[1], members[1].packets[1]]
}

fn states(port: &OpenPort) -> Vec<MemberState> {
    port.handle.members().iter().map(|m| m.state).collect()
}

#[test]
fn active_backup_sends_on_one_member() {
    assert_eq!(sent(BondMode::ActiveBackup), [32, 0]);
}

#[test]
fn xor_sends_every_flow_on_one_of_all_members() {
    let [first, second] = sent(BondMode::Xor);
    assert_eq!(first + second, 32);
    assert!(first.abs_diff(second) < 20, "{first} and {second}");
}

#[test]
fn round_robin_sends_half_on_each() {
    assert_eq!(sent(BondMode::RoundRobin), [16, 16]);
}

#[test]
fn broadcast_sends_everything_on_all_members() {
    assert_eq!(sent(BondMode::Broadcast), [32, 32]);
}

#[test]
fn balance_tlb_sends() {
    let [first, second] = sent(BondMode::Tlb);
    assert_eq!(first + second, 32);
}

#[test]
fn lacp_without_a_partner_is_no_link() {
    let (mut pool, mut port) = open(BondMode::Lacp, 2);
    assert_eq!(states(&port), [MemberState::Negotiating; 2]);
    assert!(!port.handle.link().up);
    let mut burst = Burst::new();
    burst.push(frame(&mut pool, 1));
    port.queues[0].tx_burst(&mut burst);
    assert_eq!(burst.len(), 1, "nobody to send it to");
    // The protocol's own frames leave in bursts that only receive.
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut out = Burst::new();
    let say = |port: &OpenPort| port.handle.members().iter().all(|m| m.packets[1] > 1);
    while !say(&port) {
        assert!(Instant::now() < deadline, "{:?}", port.handle.members());
        port.queues[0].rx_burst(&mut out);
        out.clear();
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_member_is_active_or_its_backup() {
    let (_pool, port) = open(BondMode::ActiveBackup, 1);
    assert_eq!(states(&port), [MemberState::Active, MemberState::Backup]);
    assert_eq!(port.driver, "net_bonding");
    assert!(port.handle.link().up);
    let members = port.handle.members();
    assert_eq!(members[1].device, "net_null1");
    assert!(members.iter().all(|m| m.link.up));
}

#[test]
fn the_primary_is_preferred() {
    let eal = eal(&NULLS);
    let mut options = [bond(BondMode::ActiveBackup, &NULLS, 1)];
    options[0].bond.as_mut().unwrap().primary = Some(1);
    let pool = pool(&eal, &options);
    let port = open_ports(&eal, &pool, &options).unwrap().remove(0);
    let deadline = Instant::now() + Duration::from_secs(5);
    while states(&port) != [MemberState::Backup, MemberState::Active] {
        assert!(Instant::now() < deadline, "{:?}", port.handle.members());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_bond_closes_with_its_members_and_its_buffers_come_home() {
    let (pool, mut port) = open(BondMode::Xor, 2);
    let mut queue = port.queues.remove(0);
    drop(port);
    let mut burst = Burst::new();
    queue.rx_burst(&mut burst);
    assert_eq!(burst.len(), 32, "still open: net_null receives without end");
    drop(queue);
    drop(burst);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn its_members_are_devices_that_dpdk_made() {
    let eal = eal(&NULLS);
    let options = [bond(BondMode::Xor, &["net_null0", "net_null7"], 1)];
    let pool = pool(&eal, &options);
    let error = open_ports(&eal, &pool, &options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "port p0: device net_bonding_p0: DPDK has no port of its member net_null7; was EAL \
         started with it?"
    );
}

#[test]
fn the_pool_has_buffers_for_all_members() {
    let one = port_options("net_null0", 2);
    let two = bond(BondMode::Xor, &NULLS, 2);
    let demand = |options| weir_dataplane::io::dpdk::PoolDemand::new(&[options], 0, 0).descriptors;
    assert_eq!(demand(two.clone()), 2 * demand(one));
    assert_eq!(two.memory_mib(), 0);
    let lacp = bond(BondMode::Lacp, &NULLS, 2);
    assert_eq!(
        lacp.memory_mib(),
        2,
        "2 members of 2 queues of 256 small buffers: 0.7 MiB"
    );
}
