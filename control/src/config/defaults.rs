//! Defaults and limits of every key, in one place. `configs/weir.reference.toml` shows the
//! defaults to people; a test compares the two.
#![forbid(unsafe_code)]

use std::ops::RangeInclusive;
use std::time::Duration;

use super::types::{Cores, Idle, Log, LogFormat, VipOwner};
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::io::BondHash;
use weir_dataplane::sched::SchedulerKind;

/// Workers: one, so that a forgotten `[workers]` costs no more than one CPU.
pub(super) const CORES: Cores = Cores::Count(1);
/// More workers than CPUs do work, so the limit is the ownership map's: 128 buckets.
pub(super) const MAX_WORKERS: u32 = 128;
pub(super) const HUGEPAGES: bool = true;
pub(super) const IDLE: Idle = Idle::Auto;

pub(super) const MEMORY: u64 = 1 << 30;
/// Below this not even an idle process's tables fit; above it is a typing mistake.
pub(super) const MEMORY_RANGE: RangeInclusive<u64> = 16 << 20..=16 << 40;
pub(super) const MAX_CONNECTIONS: u32 = 1_000_000;
/// At least a few for each of 128 workers; at most what a worker alone can number with 30 bits.
pub(super) const MAX_CONNECTIONS_RANGE: RangeInclusive<u32> = 1024..=1_000_000_000;
/// Beside so many IPv4 connections there is room for one IPv6 connection, unless the file says
/// otherwise.
pub(super) const IPV6_PART: u32 = 8;
/// Bytes that an IPv6 connection takes: its entry is longer by 64.
pub(super) const BYTES_PER_CONNECTION6: u64 = 192;
/// Bytes that a connection takes from `memory`: some 90 of entry, index and timer (the
/// dataplane's `conn`), and room for the index to stay quick.
pub(super) const BYTES_PER_CONNECTION: u64 = 128;

pub(super) const MAX_PORTS: usize = 16;
pub(super) const MTU: u16 = 1500;
/// From what every IPv4 host must take (RFC 791) to jumbo frames with room for a tunnel.
pub(super) const MTU_RANGE: RangeInclusive<u32> = 576..=9600;

/// As many as LACP aggregates actively in other implementations, and DPDK counts ports to 32.
pub(super) const MAX_MEMBERS: usize = 8;
/// DPDK's RTE_MAX_ETHPORTS in Debian: devices, members and bonds.
pub(super) const MAX_DEVICES: usize = 32;
pub(super) const BOND_HASH: BondHash = BondHash::Layer34;
/// Linux's usual `miimon`.
pub(super) const MONITOR: Duration = Duration::from_millis(100);
/// DPDK's own is 10 ms; past a second a link that went is noticed by its users.
pub(super) const MONITOR_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(1);

/// IEEE 802.1Q table 9-2: 0 is no VLAN, 4095 reserved.
pub(super) const VLAN_RANGE: RangeInclusive<u32> = 1..=4094;

pub(super) const SCHEDULER: SchedulerKind = SchedulerKind::wrr;
pub(super) const FORWARD: ForwardMode = ForwardMode::fullnat;
/// 64 million local ports for each server: more is a typing mistake in a range.
pub(super) const MAX_LOCAL_ADDRESSES: usize = 1024;
/// Networks of a service's access list, files included: 0.5 GB compiled, at worst.
pub(super) const MAX_NETWORKS: usize = 16_000_000;
/// Ports below are left to services.
pub(super) const FIRST_SNAT_PORT: u16 = 1024;
/// With fewer, a worker of many would have hardly any.
pub(super) const LEAST_SNAT_PORTS: u32 = 256;
/// A real server keeps its outside address, also when the pool changes.
pub(super) const SNAT_SCHEDULER: SchedulerKind = SchedulerKind::mh;
/// VXLAN's own (RFC 7348 section 8).
pub(super) const VXLAN_PORT: u16 = 4789;
/// 24 bits (RFC 7348 section 5).
pub(super) const VNI_RANGE: RangeInclusive<u32> = 0..=0xff_ffff;
/// As ipvsadm's.
pub(super) const WEIGHT: u16 = 1;
pub(super) const WEIGHT_RANGE: RangeInclusive<u32> = 0..=65535;

/// A tick is 1/64 s; and deadlines must stay far from the clock's wrap after two years.
pub(super) const TIMEOUT_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(30 * 86400);

pub(super) const VIPS: VipOwner = VipOwner::Managed;
pub(super) const LOG: Log = Log {
    level: tracing::Level::INFO,
    format: LogFormat::Auto,
};
