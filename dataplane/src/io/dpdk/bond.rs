//! Bonds: several cards as one port, by DPDK's bonding driver (librte_net_bond).
//!
//! ```text
//!                         ┌── member 0000:3b:00.0 ── cable ──┐
//!   a worker's queue ── bond                                 switch
//!                         └── member 0000:3b:00.1 ── cable ──┘
//! ```
//! EAL makes the members as it makes any port; the bond is made of them here, because only then
//! each step can say what is wrong with it. After that a bond is a port: it configures and starts
//! its members, its bursts are theirs, and it follows their links on DPDK's interrupt thread. What
//! it leaves to its user is here and in [`super::queue`]:
//!
//! - **LACP frames go out when the worker sends**, and an idle one does not: the first worker's
//!   queue sends nothing, literally, before each burst that it receives. Workers nap for half a
//!   millisecond at most, so the driver's 100 ms are never near.
//! - **net_tap promises to tell of its link and never does**: the promise is taken back, and the
//!   driver looks for itself, as at any member that promises nothing ([`look_yourself`]).
//! - **LACP's members keep their own MAC address**, for the protocol, and their cards would drop
//!   what is for the bond's ([`Bond::hear_the_bond`]).
//! - **Broadcast frees a burst that no member takes** and says that it is still its sender's;
//!   the queue holds a reference of its own meanwhile.
//! - balance-alb is not offered: its peers send to the members' own addresses, which a port does
//!   not listen to, and the driver's burst reads past its array when it is cut short.

use std::ffi::{CStr, CString};

use dpdk_sys as sys;

use super::device::Device;
use super::eal::Eal;
use super::log;
use super::port::{Link, Problem, find, info, link_of};
use crate::io::{BondHash, BondMode};

impl BondMode {
    fn number(self) -> u8 {
        let mode = match self {
            BondMode::RoundRobin => sys::BONDING_MODE_ROUND_ROBIN,
            BondMode::ActiveBackup => sys::BONDING_MODE_ACTIVE_BACKUP,
            BondMode::Xor => sys::BONDING_MODE_BALANCE,
            BondMode::Broadcast => sys::BONDING_MODE_BROADCAST,
            BondMode::Lacp => sys::BONDING_MODE_8023AD,
            BondMode::Tlb => sys::BONDING_MODE_TLB,
        };
        mode as u8 // 0 to 5
    }
}

impl BondHash {
    fn number(self) -> u8 {
        let policy = match self {
            BondHash::Layer2 => sys::BALANCE_XMIT_POLICY_LAYER2,
            BondHash::Layer23 => sys::BALANCE_XMIT_POLICY_LAYER23,
            BondHash::Layer34 => sys::BALANCE_XMIT_POLICY_LAYER34,
        };
        policy as u8 // 0 to 2
    }
}

/// What a bond is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BondOptions {
    /// How it uses its members.
    pub mode: BondMode,
    /// How it shares flows among them, where it does.
    pub hash: BondHash,
    /// Their devices ([`Device`]); ones that [`Eal::init`] was given. The first gives the bond
    /// its MAC address, unless there is a primary.
    pub members: Vec<String>,
    /// The place among `members` of the one to prefer while its link is up.
    pub primary: Option<usize>,
    /// How often to look at the links of members that do not tell, milliseconds.
    pub monitor_ms: u32,
}

/// A member of an open bond.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its device, without arguments: `0000:3b:00.0`, `net_tap0`.
    pub device: String,
    /// Its own link.
    pub link: Link,
    /// What the bond does with it.
    pub state: MemberState,
    /// Frames that it received and sent.
    pub packets: [u64; 2],
}

/// What a bond does with a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    /// It carries frames.
    Active,
    /// It would, if the active one's link went.
    Backup,
    /// Its link is up, and the switch has not agreed to it by LACP.
    Negotiating,
    /// Its link is down.
    Down,
}

/// A bond and its members, by DPDK's numbers.
#[derive(Debug)]
pub(super) struct Bond {
    id: u16,
    pub(super) mode: BondMode,
    pub(super) monitor_ms: u32,
    members: Vec<(u16, String)>,
}

impl Bond {
    /// Makes a bond called `name` of members that EAL has made.
    ///
    /// # Errors
    /// The step that failed. DPDK keeps what was made until the process ends: this is for giving
    /// up.
    pub(super) fn make(eal: &Eal, name: &str, options: &BondOptions) -> Result<Bond, Problem> {
        let member = |text: &String| {
            let device = Device::parse(text)?;
            let id = find(eal, &device).ok_or_else(|| Problem::NoMember(text.clone()))?;
            Ok((id, device.name().to_owned()))
        };
        let members: Vec<_> = options
            .members
            .iter()
            .map(member)
            .collect::<Result<_, Problem>>()?;
        let first = members.first().ok_or(Problem::NoMembers)?.0;
        let cname = CString::new(name).map_err(|_| Problem::NoMembers)?;
        // SAFETY: a number.
        let socket = unsafe { sys::rte_eth_dev_socket_id(first) };
        let socket = u8::try_from(socket).unwrap_or(0); // -1: none, any will do
        // SAFETY: the name is copied.
        let id = unsafe { sys::rte_eth_bond_create(cname.as_ptr(), options.mode.number(), socket) };
        step("making the bond", id)?;
        let id = id as u16; // not negative: a port's number
        // SAFETY: numbers; the bond is there.
        let code = unsafe { sys::rte_eth_bond_xmit_policy_set(id, options.hash.number()) };
        step("choosing what decides the member", code)?;
        // SAFETY: as above.
        let code = unsafe { sys::rte_eth_bond_link_monitoring_set(id, options.monitor_ms) };
        step("watching the members' links", code)?;
        for (member, _) in &members {
            look_yourself(*member)?;
            // SAFETY: as above; the driver checks both.
            let code = unsafe { sys::rte_eth_bond_slave_add(id, *member) };
            step("taking a member in", code)?;
        }
        if let Some((primary, _)) = options.primary.and_then(|at| members.get(at)) {
            // SAFETY: as above.
            let code = unsafe { sys::rte_eth_bond_primary_set(id, *primary) };
            step("choosing the primary member", code)?;
        }
        Ok(Bond {
            id,
            mode: options.mode,
            monitor_ms: options.monitor_ms,
            members,
        })
    }

    /// DPDK's number of the bond.
    pub(super) fn id(&self) -> u16 {
        self.id
    }

    /// Those of its members.
    pub(super) fn ids(&self) -> impl Iterator<Item = u16> {
        self.members.iter().map(|(id, _)| *id)
    }

    /// Its members as they are now.
    pub(super) fn members(&self) -> Vec<Member> {
        let active = self.active();
        let member = |(id, device): &(u16, String)| {
            let link = link_of(*id);
            Member {
                device: device.clone(),
                link,
                state: self.state(*id, &active),
                packets: packets(*id),
            }
        };
        self.members.iter().map(member).collect()
    }

    /// The members that the bond counts on: their links are up.
    fn active(&self) -> Vec<u16> {
        let mut ids = vec![0; sys::RTE_MAX_ETHPORTS as usize];
        let len = ids.len() as u16; // a few dozen
        // SAFETY: there is room for as many as DPDK has ports.
        let n = unsafe { sys::rte_eth_bond_active_slaves_get(self.id, ids.as_mut_ptr(), len) };
        ids.truncate(usize::try_from(n).unwrap_or(0));
        ids
    }

    fn state(&self, member: u16, active: &[u16]) -> MemberState {
        /// It takes the switch's frames, and sends to it.
        const CARRIES: u32 = sys::WEIR_LACP_COLLECTING | sys::WEIR_LACP_DISTRIBUTING;
        if !active.contains(&member) {
            return MemberState::Down;
        }
        let carries = match self.mode {
            BondMode::RoundRobin | BondMode::Xor | BondMode::Broadcast => true,
            // SAFETY: a number.
            BondMode::ActiveBackup | BondMode::Tlb => unsafe {
                sys::rte_eth_bond_primary_get(self.id) == i32::from(member)
            },
            BondMode::Lacp => {
                // SAFETY: numbers; the driver looks whether the member is active.
                let state = unsafe { sys::weir_lacp_state(self.id, member) };
                u32::try_from(state).is_ok_and(|flags| flags & CARRIES == CARRIES)
            }
        };
        match (carries, self.mode) {
            (true, _) => MemberState::Active,
            (false, BondMode::Lacp) => MemberState::Negotiating,
            (false, _) => MemberState::Backup,
        }
    }

    /// Whether any member carries frames: the bond's link. The driver's own answer calls an LACP
    /// bond up before the switch takes a single frame.
    pub(super) fn is_up(&self) -> bool {
        let active = self.active();
        let carries = |id: u16| self.state(id, &active) == MemberState::Active;
        self.ids().any(carries)
    }

    /// Lets the members of a started LACP bond hear what is for the bond's MAC address: by one more
    /// address where the card takes one, else by listening to everything.
    pub(super) fn hear_the_bond(&self, mac: [u8; 6]) -> Result<(), Problem> {
        if self.mode != BondMode::Lacp {
            return Ok(()); // the driver gives them the bond's address, or needs no other
        }
        for member in self.ids() {
            let mut address = sys::rte_ether_addr { addr_bytes: mac };
            // SAFETY: a number, and the address lives during the call.
            let added = unsafe { sys::rte_eth_dev_mac_addr_add(member, &raw mut address, 0) };
            if added == 0 {
                continue;
            }
            // SAFETY: a number.
            let code = unsafe { sys::rte_eth_promiscuous_enable(member) };
            super::port::optional("hearing the bond's MAC address", code)?;
        }
        Ok(())
    }
}

/// Makes the bonding driver look at the link of a member that would let it wait for an interrupt
/// which does not come: net_tap takes the kernel's notification, and tells nobody.
fn look_yourself(member: u16) -> Result<(), Problem> {
    let info = info(member)?;
    // SAFETY: the driver's name is a static string.
    let driver = unsafe { CStr::from_ptr(info.driver_name) };
    if driver != c"net_tap" || info.dev_flags.is_null() {
        return Ok(());
    }
    // SAFETY: it points to the flags in DPDK's own record of the port, which lives as long as the
    // port and which nobody reads at this time: the port is not configured yet, and no bond's
    // member. DPDK gives it out as const, but the record is not.
    unsafe { *info.dev_flags.cast_mut() &= !sys::RTE_ETH_DEV_INTR_LSC };
    Ok(())
}

/// Frames that port `id` received and sent.
fn packets(id: u16) -> [u64; 2] {
    let stats = super::port::raw_stats(id);
    [stats.ipackets, stats.opackets]
}

/// The outcome of a step of the bonding driver, whose only error is -1: the reason is in its log.
pub(super) fn step(step: &'static str, code: i32) -> Result<(), Problem> {
    if code >= 0 {
        return Ok(());
    }
    Err(Problem::Refused {
        step,
        reason: "the bonding driver refuses".to_owned(),
        log: log::recent_in_brackets(),
    })
}
