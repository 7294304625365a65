use super::*;
use crate::io::sim::{SimPool, SimPort, SimQueue, Spread};

/// A frame of this EtherType, under these tags, with a payload that tells it from others.
fn frame(tags: &[u16], ethertype: u16, n: u8) -> Vec<u8> {
    let mut bytes = vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    for tag in tags {
        bytes.extend(TAG.to_be_bytes());
        bytes.extend(tag.to_be_bytes());
    }
    bytes.extend(ethertype.to_be_bytes());
    bytes.extend([n; 50]);
    bytes
}

/// A card, its trunk and its VLANs 100 and 200.
fn rig() -> (
    SimPool,
    SimPort,
    VlanQueue<SimQueue>,
    Vec<VlanQueue<SimQueue>>,
) {
    let (port, mut ends) = SimPort::new(1, 1, 1, Spread::Anywhere);
    let (trunk, vlans) = split(ends.remove(0), &[100, 200]);
    (SimPool::default(), port, trunk, vlans)
}

fn received(queue: &mut VlanQueue<SimQueue>) -> Vec<Vec<u8>> {
    let mut burst = Burst::new();
    queue.rx_burst(&mut burst);
    burst.iter().map(|f| f.bytes().to_vec()).collect()
}

fn sent(port: &SimPort) -> Vec<Vec<u8>> {
    let frames = std::iter::from_fn(|| port.sent());
    frames.map(|f| f.bytes().to_vec()).collect()
}

#[test]
fn frames_are_sorted_by_their_tags_which_stay_behind() {
    let (pool, port, mut trunk, mut vlans) = rig();
    let runt = frame(&[100], 0x0800, 0)[..15].to_vec();
    for bytes in [
        frame(&[], 0x0800, 1),
        frame(&[100], 0x0800, 2),
        frame(&[0xb000 | 200], 0x86dd, 3), // with a priority
        frame(&[300], 0x0800, 4),
        frame(&[0x2000], 0x0806, 5), // a priority alone
        frame(&[100, 7], 0x0800, 6),
        frame(&[100], 0x0806, 7),
        runt.clone(),
        vec![1, 2, 3],
    ] {
        port.deliver(pool.frame(&bytes), 0);
    }
    let untagged = [
        frame(&[], 0x0800, 1),
        frame(&[300], 0x0800, 4), // nobody's: the twin's kernel may know
        frame(&[], 0x0806, 5),
        runt,
        vec![1, 2, 3],
    ];
    assert_eq!(received(&mut trunk), untagged);
    let in_100 = [
        frame(&[], 0x0800, 2),
        frame(&[7], 0x0800, 6),
        frame(&[], 0x0806, 7),
    ];
    assert_eq!(received(&mut vlans[0]), in_100);
    assert_eq!(received(&mut vlans[1]), [frame(&[], 0x86dd, 3)]);
    assert_eq!(received(&mut vlans[1]), [[0u8; 0]; 0]);
    assert_eq!(pool.live(), 0);
}

#[test]
fn a_vlan_that_nobody_polls_keeps_a_burst_and_no_frame_is_lost() {
    let (pool, port, mut trunk, mut vlans) = rig();
    for n in 0..2 * BURST {
        port.deliver(pool.frame(&frame(&[100], 0x0800, n as u8)), 0);
    }
    assert_eq!(received(&mut trunk).len(), 0);
    let rest = received(&mut trunk);
    assert_eq!(rest.len(), BURST);
    assert_eq!(rest[0], frame(&[100], 0x0800, BURST as u8), "as it came");
    assert_eq!(received(&mut vlans[0]).len(), BURST);
}

#[test]
fn sent_frames_get_their_tag_and_leave_with_the_trunk() {
    let (pool, port, mut trunk, mut vlans) = rig();
    let send = |queue: &mut VlanQueue<SimQueue>, n| {
        let mut burst = Burst::new();
        burst.push(pool.frame(&frame(&[], 0x0800, n)));
        queue.tx_burst(&mut burst);
        assert!(burst.is_empty());
    };
    send(&mut vlans[1], 1);
    send(&mut vlans[0], 2);
    send(&mut trunk, 3);
    assert_eq!(sent(&port), [frame(&[], 0x0800, 3)]);
    received(&mut trunk);
    let tagged = [frame(&[100], 0x0800, 2), frame(&[200], 0x0800, 1)];
    assert_eq!(sent(&port), tagged);
    assert_eq!(pool.live(), 0);
}

#[test]
fn a_card_without_room_makes_them_wait_and_a_full_ring_refuses() {
    let (port, mut ends) = SimPort::new(1, 1, 1, Spread::Anywhere);
    let pool = SimPool::default();
    let mut end = ends.remove(0);
    end.tx_room = 5;
    let (mut trunk, mut vlans) = split(end, &[100]);
    let mut refused = 0;
    for n in 0..TX_RING + 3 {
        let mut burst = Burst::new();
        burst.push(pool.frame(&frame(&[], 0x0800, n as u8)));
        vlans[0].tx_burst(&mut burst);
        refused += burst.len();
    }
    assert_eq!(refused, 3);
    received(&mut trunk);
    let VlanQueue::Trunk(inner) = &mut trunk else {
        panic!("a trunk")
    };
    assert_eq!(inner.queue.tx_room, 0);
    inner.queue.tx_room = usize::MAX;
    received(&mut trunk);
    let all = sent(&port);
    assert_eq!(all.len(), TX_RING);
    for (n, bytes) in all.iter().enumerate() {
        assert_eq!(*bytes, frame(&[100], 0x0800, n as u8), "in their order");
    }
}

#[test]
fn a_frame_without_room_for_a_tag_stays() {
    let (pool, _port, _trunk, mut vlans) = rig();
    let mut full = pool.frame(&frame(&[], 0x0800, 1));
    while full.push_front(1) {}
    let mut burst: Burst<_> = [full, pool.frame(&frame(&[], 0x0800, 2))]
        .into_iter()
        .collect();
    vlans[0].tx_burst(&mut burst);
    assert_eq!(burst.len(), 1);
}

#[test]
fn queues_say_what_their_card_has_and_a_whole_one_is_left_alone() {
    let (port, ends) = SimPort::new(2, 1, 2, Spread::Anywhere);
    let mut ends = ends.into_iter();
    let (mut whole, none) = split(ends.next().unwrap(), &[]);
    assert!(none.is_empty());
    let pool = SimPool::default();
    port.deliver(pool.frame(&frame(&[100], 0x0800, 1)), 0);
    assert_eq!(received(&mut whole), [frame(&[100], 0x0800, 1)]);
    let (trunk, vlans) = split(ends.next().unwrap(), &[100]);
    for queue in [&trunk, &vlans[0]] {
        assert_eq!((queue.has_rx(), queue.has_tx()), (false, true));
    }
}
