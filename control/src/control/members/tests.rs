use weir_dataplane::io::dpdk::Link;

use super::*;

fn member(device: &str, state: MemberState, packets: u64) -> Member {
    Member {
        device: device.to_owned(),
        link: Link {
            up: state != MemberState::Down,
            speed_mbps: Some(25_000),
        },
        state,
        packets: [packets, 2 * packets],
    }
}

#[test]
fn a_member_is_lost_when_it_ceases_to_be_fit() {
    use MemberState::{Active, Backup, Down, Negotiating};
    let mut members = Members::default();
    let mut before = None;
    // At the start a member may wait for its link: nothing was lost.
    let turns = [
        (Down, Negotiating, [0, 0]),
        (Active, Negotiating, [0, 0]),
        (Down, Active, [1, 0]),
        (Down, Active, [1, 0]),
        (Backup, Active, [1, 0]),
        (Active, Backup, [1, 0]), // a change of roles is no loss
        (Negotiating, Down, [2, 1]),
    ];
    for (first, second, lost) in turns {
        let moved = members.follow("wan0", vec![member("a", first, 0), member("b", second, 0)]);
        let active = [first == Active, second == Active];
        assert_eq!(
            moved,
            before.replace(active).is_some_and(|was| was != active)
        );
        let listed: Vec<u64> = members.documents().iter().map(|m| m.lost).collect();
        assert_eq!(listed, lost, "{first:?} {second:?}");
    }
}

#[test]
fn the_listing_is_what_was_seen_last() {
    let mut members = Members::default();
    members.follow("wan0", vec![member("0000:3b:00.0", MemberState::Active, 7)]);
    members.follow("wan0", vec![member("0000:3b:00.0", MemberState::Active, 8)]);
    let listed = members.documents();
    let expected = documents::Member {
        device: "0000:3b:00.0".to_owned(),
        state: "active".to_owned(),
        link_up: true,
        link_mbps: Some(25_000),
        lost: 0,
        rx_packets: 8,
        tx_packets: 16,
    };
    assert_eq!(listed, [expected]);
    assert!(Members::default().documents().is_empty());
}
