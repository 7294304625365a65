//! A bond's members: their states followed, told to the log when they change, and listed.
#![forbid(unsafe_code)]

use weir_dataplane::io::dpdk::{Member, MemberState};

use crate::api::documents;

/// What was last seen of a port's members, in the configuration's order; nothing of other ports.
#[derive(Debug, Default)]
pub(crate) struct Members {
    seen: Vec<Seen>,
}

#[derive(Debug)]
struct Seen {
    member: Member,
    /// How often it ceased to carry frames, or to stand by to.
    lost: u64,
}

impl Members {
    /// Takes the members of `port` as they are now; whether others are active than before.
    pub(super) fn follow(&mut self, port: &str, now: Vec<Member>) -> bool {
        let mut moved = false;
        for (at, member) in now.into_iter().enumerate() {
            let Some(seen) = self.seen.get_mut(at) else {
                tell(port, &member);
                self.seen.push(Seen { member, lost: 0 });
                continue;
            };
            if seen.member.state != member.state {
                moved |= [seen.member.state, member.state].contains(&MemberState::Active);
                seen.lost += u64::from(is_fit(seen.member.state) && !is_fit(member.state));
                tell(port, &member);
            }
            seen.member = member;
        }
        moved
    }

    /// As the status lists them.
    pub(super) fn documents(&self) -> Vec<documents::Member> {
        let document = |seen: &Seen| documents::Member {
            device: seen.member.device.clone(),
            state: name(seen.member.state).to_owned(),
            link_up: seen.member.link.up,
            link_mbps: seen.member.link.speed_mbps,
            lost: seen.lost,
            rx_packets: seen.member.packets[0],
            tx_packets: seen.member.packets[1],
        };
        self.seen.iter().map(document).collect()
    }
}

/// Whether the bond counts on it.
fn is_fit(state: MemberState) -> bool {
    matches!(state, MemberState::Active | MemberState::Backup)
}

fn name(state: MemberState) -> &'static str {
    match state {
        MemberState::Active => "active",
        MemberState::Backup => "backup",
        MemberState::Negotiating => "negotiating",
        MemberState::Down => "down",
    }
}

fn tell(port: &str, member: &Member) {
    let device = &member.device;
    match member.state {
        MemberState::Active => tracing::info!(port, "bond member {device} is active"),
        MemberState::Backup => tracing::info!(port, "bond member {device} is a backup"),
        MemberState::Negotiating => {
            tracing::info!(port, "bond member {device} waits for the switch's LACP");
        }
        MemberState::Down => tracing::warn!(port, "bond member {device} is down"),
    }
}

#[cfg(test)]
mod tests;
