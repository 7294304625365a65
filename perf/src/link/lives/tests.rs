use weir_dataplane::io::sim::SimPool;

use super::super::mirror::Mirror;
use super::*;

/// Clients in order, up to a number, and who ended.
struct UpTo {
    next: u32,
    end: u32,
    ended: Vec<u32>,
}

impl UpTo {
    fn new(end: u32) -> UpTo {
        UpTo {
            next: 0,
            end,
            ended: Vec::new(),
        }
    }
}

impl Clients for UpTo {
    fn next(&mut self) -> Option<u32> {
        let n = self.next;
        (n < self.end).then(|| {
            self.next += 1;
            n
        })
    }

    fn ended(&mut self, client: u32) {
        self.ended.push(client);
    }
}

#[test]
fn every_connection_takes_its_course_and_never_more_live_than_may() {
    for (course, packets) in [
        (Course::Whole, 7),
        (Course::Open, 3),
        (Course::OpenOneWay, 2),
    ] {
        let (mut mirror, mut pool) = (Mirror::new(|_| false), SimPool::default());
        let mut clients = UpTo::new(1_000);
        let mut lives = Lives::new(course, 100);
        while lives.poll(&mut mirror, &mut pool, &mut clients) {
            assert!(lives.living() <= 100);
        }
        let expected = Counts {
            ended: 1_000,
            received: 1_000 * packets,
            ..Counts::default()
        };
        assert_eq!(lives.counts(), expected, "{course:?}");
        assert_eq!(lives.living(), 0);
        clients.ended.sort_unstable();
        assert!(clients.ended.iter().copied().eq(0..1_000));
    }
}

#[test]
fn what_the_device_loses_is_counted_and_replaced() {
    let (mut mirror, mut pool) = (Mirror::new(|n| n % 100 == 0), SimPool::default());
    let mut clients = UpTo::new(10_000);
    let mut lives = Lives::new(Course::Whole, 64);
    let mut turns = 0;
    while lives.living() > 0 || clients.next < clients.end {
        // When all that lived are lost nothing moves until the clock does.
        if !lives.poll(&mut mirror, &mut pool, &mut clients) {
            lives.tick();
            turns += 1;
        }
        assert!(turns < 100_000);
    }
    let counts = lives.counts();
    assert_eq!(counts.lost, mirror.seen / 100);
    assert_eq!(counts.ended + counts.lost, 10_000);
    assert_eq!((counts.late, counts.strange, counts.wrong), (0, 0, 0));
}

/// A frame that was given up and comes all the same, or an end that comes twice, changes nothing.
#[test]
fn late_frames_are_only_counted() {
    let (mut mirror, mut pool) = (Mirror::new(|_| false), SimPool::default());
    let mut clients = UpTo::new(1);
    let mut lives = Lives::new(Course::Whole, 1);
    assert!(lives.poll(&mut mirror, &mut pool, &mut clients));
    for _ in 0..PATIENCE {
        lives.tick();
    }
    assert_eq!((lives.living(), lives.counts().lost), (0, 1));
    lives.poll(&mut mirror, &mut pool, &mut clients);
    assert_eq!((lives.counts().late, lives.counts().ended), (1, 0));
    assert!(mirror.frames.is_empty());

    let mut clients = UpTo::new(1);
    let mut lives = Lives::new(Course::OpenOneWay, 1);
    lives.poll(&mut mirror, &mut pool, &mut clients);
    lives.poll(&mut mirror, &mut pool, &mut clients);
    let again = pool.frame(mirror.frames[0].bytes());
    mirror.frames.push_back(again);
    lives.poll(&mut mirror, &mut pool, &mut clients);
    assert_eq!((lives.counts().late, lives.counts().ended), (1, 1));
    assert_eq!(lives.living(), 0);
}

#[test]
fn a_link_that_pushes_back_loses_nothing() {
    let (mut mirror, mut pool) = (Mirror::new(|_| false), SimPool::default());
    mirror.takes = 3;
    let mut clients = UpTo::new(500);
    let mut lives = Lives::new(Course::Whole, 64);
    while lives.poll(&mut mirror, &mut pool, &mut clients) {}
    assert_eq!(lives.counts().ended, 500);
}

#[test]
fn wrong_checksums_and_strangers_show() {
    let (mut mirror, mut pool) = (Mirror::new(|_| false), SimPool::default());
    let mut clients = UpTo::new(20_000);
    let mut lives = Lives::new(Course::OpenOneWay, 32);
    mirror.frames.push_back(pool.frame(&[0; SMALLEST]));
    while lives.poll(&mut mirror, &mut pool, &mut clients) {
        for frame in &mut mirror.frames {
            frame.bytes_mut()[50] ^= 0x10; // the TCP checksum
        }
    }
    assert_eq!(lives.counts().strange, 1);
    assert_eq!(lives.counts().wrong, 40_001 / CHECKED);
}
