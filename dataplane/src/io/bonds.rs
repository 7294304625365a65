//! What a bond may be asked for (`dpdk/bond.rs` makes it). Words only: they are here without DPDK too,
//! for those who read configurations.
#![forbid(unsafe_code)]

/// How a bond uses its members, by the names of Linux's bonding driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BondMode {
    /// `balance-rr`: each burst in turn; a flow's packets overtake each other.
    RoundRobin,
    /// `active-backup`: one member, another when its link goes.
    ActiveBackup,
    /// `balance-xor`: each flow on one member, by [`BondHash`]. The switch must have a static
    /// group of these ports.
    Xor,
    /// `broadcast`: everything on every member.
    Broadcast,
    /// `802.3ad`: as `balance-xor`, on the members that the switch agrees to by LACP (IEEE
    /// 802.1AX).
    Lacp,
    /// `balance-tlb`: sends on the least busy member, receives on one.
    Tlb,
}

/// What of a frame decides which member sends it, by the names of Linux's `xmit_hash_policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BondHash {
    /// `layer2`: MAC addresses.
    Layer2,
    /// `layer2+3`: those and IP addresses.
    Layer23,
    /// `layer3+4`: IP addresses and ports.
    Layer34,
}
