//! Frames and buffers: what a worker and the twin thread do with them.

use weir_dataplane::io::dpdk::{Mbuf, Pool, WorkerThread};
use weir_dataplane::io::{BURST, Burst, Frame, FramePool, PortQueue, RxChecksum};

use super::{eal, one_port, pool};

fn bytes(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u8).wrapping_mul(31) ^ seed)
        .collect()
}

fn frame(pool: &mut Pool, content: &[u8]) -> Mbuf {
    let mut frame = pool.alloc(content.len()).unwrap();
    frame.bytes_mut().copy_from_slice(content);
    frame
}

#[test]
fn a_frame_grows_and_shrinks_at_both_ends() {
    let eal = eal(&[]);
    let mut pool = pool(&eal, &[]);
    let mut f = frame(&mut pool, b"payload");
    assert!(f.push_front(20));
    assert_eq!(f.bytes().len(), 27);
    f.bytes_mut()[..20].fill(7);
    assert_eq!(&f.bytes()[18..], b"\x07\x07payload");
    f.pull_front(22);
    assert_eq!(f.bytes(), b"yload");
    assert!(f.set_len(2));
    assert_eq!(f.bytes(), b"yl");

    // 128 bytes of headroom, 2 of which lie in front after taking off 22 of 20 pushed.
    assert!(!f.push_front(131));
    assert_eq!(f.bytes(), b"yl");
    assert!(f.push_front(130));
    assert!(!f.push_front(1));
    assert!(!f.set_len(2177));
    assert_eq!(f.bytes().len(), 132);
    assert!(f.set_len(2176));
    f.pull_front(2176);
    assert_eq!(f.bytes(), b"");
    assert_eq!(f.rx_checksum(), RxChecksum::default());
}

#[test]
#[should_panic(expected = "pull_front past the end")]
fn a_frame_does_not_shrink_below_nothing() {
    let eal = eal(&[]);
    frame(&mut pool(&eal, &[]), b"ab").pull_front(3);
}

#[test]
fn buffers_come_back_from_any_thread() {
    let eal = eal(&[]);
    let pool = pool(&eal, &[]);
    assert_eq!((pool.capacity(), pool.in_use()), (512, 0));
    let mut twin = pool.clone();
    assert!(twin.alloc(2049).is_none(), "larger than a buffer");
    let held: Vec<Mbuf> = std::iter::from_fn(|| twin.alloc(60)).collect();
    assert_eq!(held.len(), 512);
    assert_eq!(pool.in_use(), 512);
    let worker = std::thread::spawn(move || {
        let _registered = WorkerThread::register().unwrap();
        drop(held);
    });
    worker.join().unwrap();
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn bursts_are_allocated_whole_or_not_at_all() {
    let eal = eal(&[]);
    let pool = pool(&eal, &[]);
    let _worker = WorkerThread::register().unwrap();
    let mut burst = Burst::new();
    assert!(pool.alloc_burst(20, 60, &mut burst));
    assert!(!pool.alloc_burst(13, 60, &mut burst), "no room for 13 more");
    assert!(
        !pool.alloc_burst(1, 5000, &mut burst),
        "larger than a buffer"
    );
    assert!(pool.alloc_burst(12, 60, &mut burst));
    assert_eq!((burst.len(), pool.in_use()), (BURST, 32));
    let addresses: std::collections::HashSet<_> =
        burst.iter().map(|f| f.bytes().as_ptr()).collect();
    assert_eq!(addresses.len(), 32, "no buffer twice");

    let mut all: Vec<Burst<Mbuf>> = vec![std::mem::take(&mut burst)];
    while pool.alloc_burst(32, 60, &mut burst) {
        all.push(std::mem::take(&mut burst));
    }
    assert_eq!((all.len(), burst.len(), pool.in_use()), (16, 0, 512));
    drop(all);
    assert_eq!(pool.in_use(), 0);
}

/// 64 sets of 64 bytes: buffers on pages of their own would have all headers in one set.
#[test]
fn a_frame_gives_others_of_its_pool() {
    let eal = eal(&[]);
    let mut pool = pool(&eal, &[]);
    let _worker = WorkerThread::register().unwrap();
    let mut one = frame(&mut pool, &bytes(60, 1));
    let mut other = one.another(1500).unwrap();
    assert_eq!((other.bytes().len(), pool.in_use()), (1500, 2));
    assert!(other.push_front(100), "the usual headroom");
    other.bytes_mut().fill(9);
    assert_eq!(one.bytes(), bytes(60, 1));
    assert!(one.another(5000).is_none(), "larger than a buffer");
    let mut all = Vec::new();
    while let Some(frame) = one.another(60) {
        all.push(frame);
    }
    assert_eq!(pool.in_use(), pool.capacity());
    one.bytes_mut()[0] = 7;
    drop((all, one, other));
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_burst_spreads_over_the_first_level_cache() {
    let eal = eal(&[]);
    let pool = pool(&eal, &[]);
    let mut burst = Burst::new();
    assert!(pool.alloc_burst(32, 60, &mut burst));
    let sets: std::collections::HashSet<_> = burst
        .iter()
        .map(|f| f.bytes().as_ptr() as usize % 4096 / 64)
        .collect();
    assert!(sets.len() >= 24, "{} sets for 32 frames", sets.len());
}

#[test]
fn a_recycled_buffer_is_like_new() {
    let eal = eal(&[]);
    let mut pool = pool(&eal, &[]);
    let _worker = WorkerThread::register().unwrap();
    let mut f = frame(&mut pool, b"first");
    let place = f.bytes().as_ptr();
    assert!(f.push_front(100));
    drop(f);
    let f = pool.alloc(3).unwrap();
    assert_eq!(
        (f.bytes().as_ptr(), f.bytes().len()),
        (place, 3),
        "last in, first out"
    );
}

#[test]
fn frames_round_the_ring_keep_their_bytes_and_their_order() {
    let (mut pool, mut port) = one_port("net_ring0", 1);
    let idle = pool.in_use();
    let queue = &mut port.queues[0];
    assert!(queue.has_rx() && queue.has_tx());
    let mut burst = Burst::new();
    for len in [0, 1, 60, 1514, 2048] {
        burst.push(frame(&mut pool, &bytes(len, len as u8)));
    }
    queue.tx_burst(&mut burst);
    assert!(burst.is_empty());
    queue.rx_burst(&mut burst);
    let lens: Vec<_> = burst.iter().map(|f| f.bytes().len()).collect();
    assert_eq!(lens, [0, 1, 60, 1514, 2048]);
    for f in &burst {
        assert_eq!(f.bytes(), bytes(f.bytes().len(), f.bytes().len() as u8));
    }
    drop(burst);
    assert_eq!(pool.in_use(), idle);
}

#[test]
fn receiving_fills_what_room_there_is_behind_what_is_there() {
    let (mut pool, mut port) = one_port("net_ring0", 1);
    let queue = &mut port.queues[0];
    let mut burst: Burst<Mbuf> = (0..32).map(|i| frame(&mut pool, &[i])).collect();
    queue.tx_burst(&mut burst);
    let mut out: Burst<Mbuf> = (100..130).map(|i| frame(&mut pool, &[i])).collect();
    queue.rx_burst(&mut out);
    let mut content = out.iter().map(|f| f.bytes()[0]);
    assert!(content.by_ref().take(30).eq(100..130));
    assert!(content.eq(0..2));
    queue.rx_burst(&mut out);
    assert_eq!(out.len(), 32, "a full burst takes nothing");
    out.clear();
    queue.rx_burst(&mut out);
    assert!(out.iter().map(|f| f.bytes()[0]).eq(2..32));
}

#[test]
fn what_the_port_had_no_room_for_stays_in_order() {
    // net_ring's rings hold 1,023 frames.
    let eal = eal(&["net_ring0"]);
    let options = [super::port_options("net_ring0", 1)];
    let demand = weir_dataplane::io::dpdk::PoolDemand::new(&options, 1200, 0);
    let pool_options = weir_dataplane::io::dpdk::PoolOptions::new("test", demand, 1500);
    let mut pool = Pool::new(&eal, &pool_options).unwrap();
    let mut port = weir_dataplane::io::dpdk::open_ports(&eal, &pool, &options)
        .unwrap()
        .remove(0);
    let queue = &mut port.queues[0];
    let mut sent = 0usize;
    let mut burst = Burst::new();
    while burst.is_empty() {
        burst.extend((0..32).map(|i| frame(&mut pool, &(sent + i).to_be_bytes())));
        queue.tx_burst(&mut burst);
        sent += 32 - burst.len();
    }
    let number = |f: &Mbuf| usize::from_be_bytes(f.bytes().try_into().unwrap());
    assert!(burst.iter().map(number).eq(sent..sent + burst.len()));
    let mut out = Burst::new();
    let mut next = 0;
    loop {
        queue.rx_burst(&mut out);
        if out.is_empty() {
            break;
        }
        for f in out.drain(..) {
            assert_eq!(number(&f), next);
            next += 1;
        }
    }
    assert_eq!(next, sent);
    drop(burst);
    assert_eq!(pool.in_use(), 0);
}

/// Chains `tail` behind `head`, as a driver that scatters does; the result is not what `Mbuf`
/// promises, and goes straight into a transmit queue.
fn chain(head: Mbuf, tail: Mbuf) -> Mbuf {
    // SAFETY: an `Mbuf` is a pointer to a buffer that it owns; `head` then owns `tail`'s.
    unsafe {
        let head = std::mem::transmute::<Mbuf, *mut dpdk_sys::rte_mbuf>(head);
        let tail = std::mem::transmute::<Mbuf, *mut dpdk_sys::rte_mbuf>(tail);
        assert_eq!(dpdk_sys::weir_mbuf_chain(head, tail), 0);
        std::mem::transmute::<*mut dpdk_sys::rte_mbuf, Mbuf>(head)
    }
}

#[test]
fn frames_in_segments_are_made_linear_or_dropped_and_counted() {
    let (mut pool, mut port) = one_port("net_ring0", 1);
    let idle = pool.in_use();
    let queue = &mut port.queues[0];
    let (a, b, c) = (bytes(1000, 1), bytes(900, 2), bytes(1500, 3));
    let mut burst = Burst::new();
    burst.push(frame(&mut pool, b"before"));
    burst.push(chain(frame(&mut pool, &a), frame(&mut pool, &b)));
    burst.push(chain(frame(&mut pool, &a), frame(&mut pool, &c)));
    burst.push(chain(
        frame(&mut pool, &a),
        chain(frame(&mut pool, &b), frame(&mut pool, b"!")),
    ));
    burst.push(frame(&mut pool, b"after"));
    queue.tx_burst(&mut burst);
    queue.rx_burst(&mut burst);
    let got: Vec<&[u8]> = burst.iter().map(Frame::bytes).collect();
    let two = [a.clone(), b.clone()].concat();
    let three = [two.clone(), b"!".to_vec()].concat();
    assert_eq!(got, [b"before".as_slice(), &two, &three, b"after"]);
    drop(burst);
    assert_eq!(pool.in_use(), idle);
    let stats = port.handle.stats();
    assert_eq!((stats.linearized, stats.multi_segment_dropped), (2, 1));
}

#[test]
fn verdicts_on_received_checksums_are_read_and_do_not_travel_on() {
    use dpdk_sys::flags;
    let (mut pool, mut port) = one_port("net_ring0", 1);
    let queue = &mut port.queues[0];
    let good = RxChecksum::default();
    for (set, said) in [
        (0, good),
        (
            flags::RX_IP_CKSUM_GOOD,
            RxChecksum {
                l3_good: true,
                ..good
            },
        ),
        (
            flags::RX_IP_CKSUM_BAD,
            RxChecksum {
                l3_bad: true,
                ..good
            },
        ),
        (flags::RX_IP_CKSUM_MASK, good),
        (
            flags::RX_L4_CKSUM_BAD,
            RxChecksum {
                l4_bad: true,
                ..good
            },
        ),
        (
            flags::RX_L4_CKSUM_NONE,
            RxChecksum {
                l4_partial: true,
                ..good
            },
        ),
        (1 << 8, good), // L4 good
    ] {
        let mut f = frame(&mut pool, b"x");
        // SAFETY: an `Mbuf` is a pointer to a buffer that it owns.
        unsafe {
            let raw: *mut dpdk_sys::rte_mbuf = std::mem::transmute_copy(&f);
            (*raw).ol_flags = set;
        }
        assert_eq!(f.rx_checksum(), said, "{set:#x}");
        assert!(f.push_front(1));
        let mut burst = Burst::new();
        burst.push(f);
        queue.tx_burst(&mut burst);
        queue.rx_burst(&mut burst);
        assert_eq!(burst[0].rx_checksum(), good, "{set:#x} after sending");
        // SAFETY: as above.
        let left = unsafe {
            let raw: *mut dpdk_sys::rte_mbuf = std::mem::transmute_copy(&burst[0]);
            (*raw).ol_flags
        };
        assert_eq!(left, 0, "{set:#x} after sending");
    }
}
