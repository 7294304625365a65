use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::packet::{checksum, put16};
use crate::types::Tick;
use DropReason::*;

/// What a frame is to the store: a number.
type Frame = u32;
/// A decision.
type Decision = u64;

struct Rig {
    store: Store<Frame, Decision>,
    now: Tick,
    lost: Vec<DropReason>,
}

impl Rig {
    fn new(datagrams: u16, frames: u16) -> Rig {
        Rig {
            store: Store::new(datagrams, frames, 7),
            now: Tick(u32::MAX - 100), // the clock wraps on the way
            lost: Vec::new(),
        }
    }

    fn arrive(&mut self, piece: Piece, frame: Frame) -> Arrived<Frame, Decision> {
        let lost = &mut |reason| self.lost.push(reason);
        self.store.arrive(&piece, frame, self.now, lost)
    }

    fn decide(&mut self, id: u32, decision: Result<Decision, DropReason>) -> Vec<Frame> {
        let mut out = Vec::new();
        let lost = &mut |reason| self.lost.push(reason);
        let key = key(id);
        self.store
            .decide(&key, decision, self.now, lost, |frame| out.push(frame));
        out
    }

    fn expire(&mut self) -> usize {
        let lost = &mut |reason| self.lost.push(reason);
        self.store.expire(self.now, usize::MAX, lost)
    }

    fn lost(&mut self) -> Vec<DropReason> {
        std::mem::take(&mut self.lost)
    }
}

fn key(id: u32) -> FragKey {
    FragKey {
        src: 1,
        dst: 2,
        id,
        protocol: 17,
    }
}

/// The part `start..end` of datagram `id`.
fn part(id: u32, start: u16, end: u16, more: bool) -> Piece {
    Piece {
        key: key(id),
        offset: start,
        len: end - start,
        more,
        together: false,
    }
}

/// The same of a datagram whose parts go together.
fn joint(id: u32, start: u16, end: u16, more: bool) -> Piece {
    Piece {
        together: start == 0,
        ..part(id, start, end, more)
    }
}

/// In any order: all wait, and the last one brings them all out.
#[test]
fn some_go_together() {
    let parts = [(0, 800, true), (800, 1600, true), (1600, 1700, false)];
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [0, 2, 1]] {
        let mut r = Rig::new(4, 4);
        let mut arrive = |n: usize| {
            let (start, end, more) = parts[n];
            r.arrive(joint(1, start, end, more), n as u32)
        };
        assert_eq!(arrive(order[0]), Arrived::Gone);
        assert_eq!(arrive(order[1]), Arrived::Gone);
        assert_eq!(arrive(order[2]), Arrived::All(order[2] as u32, 1700));
        let mut out = vec![];
        r.store.take(&key(1), |f| out.push(f));
        assert_eq!(out, [order[0] as u32, order[1] as u32]);
        assert_eq!((r.store.held(), r.store.datagrams()), (0, 0));
        assert_eq!(r.lost(), []);
    }
    // What never gets whole runs out, and an overlap ends it as any other.
    let mut r = Rig::new(4, 4);
    assert_eq!(r.arrive(joint(1, 0, 800, true), 1), Arrived::Gone);
    assert_eq!(r.arrive(joint(2, 0, 800, true), 2), Arrived::Gone);
    assert_eq!(r.arrive(joint(2, 400, 1200, true), 3), Arrived::Gone);
    assert_eq!(r.lost(), [FragmentOverlap, FragmentOverlap]);
    r.now = r.now.after(Tick::seconds(31));
    r.expire();
    assert_eq!(r.lost(), [FragmentTimeout]);
    // One part that is all of it.
    assert_eq!(r.arrive(joint(3, 0, 100, false), 4), Arrived::All(4, 100));
    r.store.take(&key(3), |_| panic!("nothing waits"));
    assert_eq!(r.store.datagrams(), 0);
}

#[test]
fn later_ones_follow_the_first() {
    let mut r = Rig::new(4, 4);
    assert_eq!(r.arrive(part(1, 0, 1480, true), 10), Arrived::First(10));
    assert_eq!(r.decide(1, Ok(99)), [0u32; 0]);
    let middle = part(1, 1480, 2960, true);
    assert_eq!(r.arrive(middle, 11), Arrived::Follows(11, 99));
    assert_eq!(r.store.datagrams(), 1);
    let last = part(1, 2960, 3000, false);
    assert_eq!(r.arrive(last, 12), Arrived::Follows(12, 99));
    assert_eq!((r.store.datagrams(), r.lost()), (0, vec![]), "complete");
}

#[test]
fn those_before_the_first_wait_for_it() {
    let mut r = Rig::new(4, 4);
    assert_eq!(r.arrive(part(1, 2960, 3000, false), 12), Arrived::Gone);
    assert_eq!(r.arrive(part(1, 1480, 2960, true), 11), Arrived::Gone);
    assert_eq!(r.store.held(), 2);
    assert_eq!(r.arrive(part(1, 0, 1480, true), 10), Arrived::First(10));
    assert_eq!(r.decide(1, Ok(99)), [12, 11]);
    assert_eq!((r.store.held(), r.store.datagrams()), (0, 0));
    assert_eq!(r.lost(), []);
}

#[test]
fn what_the_first_is_refused_for_the_others_are() {
    let mut r = Rig::new(4, 4);
    r.arrive(part(1, 1480, 2960, true), 11);
    assert_eq!(r.arrive(part(1, 0, 1480, true), 10), Arrived::First(10));
    assert_eq!(r.decide(1, Err(NoConnection)), [0u32; 0]);
    assert_eq!(r.lost(), [NoConnection]);
    assert_eq!(r.arrive(part(1, 2960, 3000, false), 12), Arrived::Gone);
    assert_eq!(r.lost(), [NoConnection]);
}

/// One row what comes after 0..1480 (more) and 1480..2960 (the last): each ends the datagram.
#[test]
fn overlaps_end_their_datagram() {
    for (start, end, more) in [
        (0, 8, true),        // inside the first
        (8, 1488, true),     // across two
        (1472, 2952, true),  // the same
        (0, 2960, false),    // around all
        (2960, 2968, true),  // past the end
        (2960, 2968, false), // a second end
        (2952, 2960, true),  // up to the end, which is none then
    ] {
        let mut r = Rig::new(4, 4);
        r.arrive(part(1, 0, 1480, true), 10);
        r.decide(1, Ok(99));
        // Not the last yet, so that the datagram stays open: a hole at 1480.
        r.arrive(part(1, 1488, 2960, false), 11);
        assert_eq!(r.lost(), []);
        let what = format!("{start}..{end} {more}");
        assert_eq!(
            r.arrive(part(1, start, end, more), 12),
            Arrived::Gone,
            "{what}"
        );
        assert_eq!(r.lost(), [FragmentOverlap], "{what}");
        assert_eq!(r.arrive(part(1, 1480, 1488, true), 13), Arrived::Gone);
        assert_eq!(
            r.lost(),
            [FragmentOverlap],
            "{what}: what is right by itself too"
        );
    }
    // Those that wait go with it.
    let mut r = Rig::new(4, 4);
    r.arrive(part(1, 1480, 2960, true), 11);
    r.arrive(part(1, 2952, 3000, true), 12);
    assert_eq!(r.lost(), [FragmentOverlap, FragmentOverlap]);
    assert_eq!(r.store.held(), 0);
}

#[test]
fn a_duplicate_is_dropped_and_ends_nothing() {
    let mut r = Rig::new(4, 4);
    r.arrive(part(1, 1480, 2960, true), 11);
    assert_eq!(r.arrive(part(1, 1480, 2960, true), 12), Arrived::Gone);
    assert_eq!(r.lost(), [FragmentDuplicate]);
    r.arrive(part(1, 0, 1480, true), 10);
    assert_eq!(r.decide(1, Ok(99)), [11]);
}

#[test]
fn the_oldest_give_way() {
    let mut r = Rig::new(3, 2);
    // Frames: the third that waits takes the place of the first.
    for id in 1..=3 {
        r.arrive(part(id, 8, 16, true), id);
        r.now = r.now.after(1);
    }
    assert_eq!((r.lost(), r.store.held()), (vec![FragmentsFull], 2));
    r.arrive(part(1, 0, 8, true), 10);
    assert_eq!(r.decide(1, Ok(99)), [0u32; 0], "forgotten");
    // Datagrams: a fourth takes the place of the oldest.
    assert_eq!(r.arrive(part(4, 0, 8, true), 40), Arrived::First(40));
    assert_eq!((r.lost(), r.store.datagrams()), (vec![FragmentsFull], 3));
    assert_eq!(r.decide(2, Ok(99)), [0u32; 0], "it was the oldest");
    // A datagram that fills the store alone gives itself up.
    let mut r = Rig::new(3, 2);
    for (n, start) in [8, 16, 24].into_iter().enumerate() {
        r.arrive(part(1, start, start + 8, true), n as u32);
    }
    assert_eq!((r.lost(), r.store.held()), (vec![FragmentsFull; 3], 0));
    assert_eq!(r.arrive(part(1, 0, 8, true), 9), Arrived::Gone);
    assert_eq!(r.lost(), [FragmentsFull]);
}

#[test]
fn nothing_waits_longer_than_30_seconds() {
    let mut r = Rig::new(4, 4);
    r.arrive(part(1, 8, 16, true), 1);
    r.arrive(part(2, 0, 8, true), 2);
    r.now = r.now.after(Tick::seconds(1));
    r.decide(2, Ok(5));
    r.now = r.now.after(Tick::seconds(29) - 1);
    assert_eq!(r.expire(), 0);
    r.now = r.now.after(1);
    assert_eq!((r.expire(), r.lost()), (1, vec![FragmentTimeout]));
    assert_eq!(r.arrive(part(2, 8, 16, true), 3), Arrived::Follows(3, 5));
    // Found too old before anybody looked for such.
    r.now = r.now.after(Tick::seconds(30));
    assert_eq!(r.arrive(part(2, 16, 24, true), 4), Arrived::Gone);
    assert_eq!((r.store.held(), r.store.datagrams()), (1, 1));
    r.now = r.now.after(Tick::seconds(30));
    assert_eq!((r.expire(), r.lost()), (1, vec![FragmentTimeout]));
    assert_eq!(r.store.datagrams(), 0);
}

#[test]
fn a_datagram_has_so_many_parts_and_no_more() {
    let mut r = Rig::new(4, 4);
    r.arrive(part(1, 0, 8, true), 0);
    r.decide(1, Ok(5));
    for n in 1..64 {
        let piece = part(1, n * 16, n * 16 + 8, true);
        assert_eq!(r.arrive(piece, u32::from(n)), Arrived::Follows(n.into(), 5));
    }
    assert_eq!(r.arrive(part(1, 2000, 2008, true), 64), Arrived::Gone);
    assert_eq!(r.lost(), [FragmentLimit]);
}

/// An IPv4 fragment with this protocol, flags and offset, and upper bytes.
fn frame_v4(protocol: u8, word: u16, upper: &[u8]) -> Vec<u8> {
    let mut f = vec![2; 12];
    f.extend([8, 0, 0x45, 0]);
    f.extend((20 + upper.len() as u16).to_be_bytes());
    f.extend([0x12, 0x34]);
    f.extend(word.to_be_bytes());
    f.extend([60, protocol, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    f.extend_from_slice(upper);
    checksum::set_ipv4(&mut f);
    f
}

fn piece_v4(protocol: u8, word: u16, upper: &[u8]) -> Result<Piece, DropReason> {
    let f = frame_v4(protocol, word, upper);
    let ip = ipv4::check(f.first_chunk().unwrap(), &f, false).unwrap();
    assert!(ip.fragment);
    Piece::v4(&f, &ip)
}

#[test]
fn parts_are_read_and_impossible_ones_named() {
    let mapped = |s: &str| u128::from(s.parse::<Ipv4Addr>().unwrap().to_ipv6_mapped());
    let piece = piece_v4(17, ipv4::MF | 185, &[0; 16]).unwrap();
    assert_eq!((piece.offset, piece.len, piece.more), (1480, 16, true));
    assert_eq!((piece.key.id, piece.key.protocol), (0x1234, 17));
    let ends = (piece.key.src, piece.key.dst);
    assert_eq!(ends, (mapped("192.0.2.1"), mapped("192.0.2.2")));
    let mut tcp = [0; 24];
    tcp[12] = 0x60;
    type Row<'a> = (&'a str, u8, u16, &'a [u8], Option<DropReason>);
    let rows: &[Row<'_>] = &[
        ("last, of any length", 17, 185, &[0; 5], None),
        (
            "no multiple of 8",
            17,
            ipv4::MF | 185,
            &[0; 12],
            Some(BadFragment),
        ),
        ("no data", 17, 185, &[], Some(BadFragment)),
        ("up to the end", 17, 0x1fff, &[0; 7], None),
        ("past the end", 17, 0x1fff, &[0; 8], Some(BadFragment)),
        ("whole UDP header", 17, ipv4::MF, &[0; 8], None),
        ("whole TCP header", 6, ipv4::MF, &tcp, None),
        (
            "TCP options cut off",
            6,
            ipv4::MF,
            &[0xf0; 24],
            Some(TinyFragment),
        ),
        (
            "TCP header cut off",
            6,
            ipv4::MF,
            &[0; 16],
            Some(TinyFragment),
        ),
        ("inside the TCP header", 6, 1, &[0; 8], Some(TinyFragment)),
        ("inside the TCP header", 6, 2, &[0; 8], Some(TinyFragment)),
        ("behind the TCP header", 6, 3, &[0; 8], None),
        (
            "SCTP header cut off",
            132,
            ipv4::MF,
            &[0; 8],
            Some(TinyFragment),
        ),
        ("GRE", 47, ipv4::MF, &[0; 8], None),
    ];
    for (what, protocol, word, upper, reason) in rows {
        assert_eq!(piece_v4(*protocol, *word, upper).err(), *reason, "{what}");
    }
}

#[test]
fn parts_of_ipv6_are_read() {
    let mut f = vec![2; 12];
    f.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 44, 60]);
    f.extend([0x20; 32]);
    f.extend([17, 0, 0x05, 0xc9, 0, 0, 0, 9]); // 1480, more
    f.extend([0; 16]);
    let read = |f: &[u8]| {
        let ip = ipv6::check(f.first_chunk().unwrap(), f).unwrap();
        Piece::v6(f, &ip)
    };
    let piece = read(&f).unwrap().unwrap();
    assert_eq!((piece.offset, piece.len, piece.more), (1480, 16, true));
    assert_eq!((piece.key.id, piece.key.protocol), (9, 0));
    put16(&mut f, 56, 0); // atomic
    assert_eq!(read(&f), None);
    put16(&mut f, 56, 1);
    put16(&mut f, 18, 16);
    f[54] = 6;
    assert_eq!(read(&f), Some(Err(TinyFragment)), "8 bytes of TCP");
}

/// A store as anybody would write it who need not care for time or memory.
#[derive(Default)]
struct Model {
    datagrams: HashMap<u32, Known>,
}

#[derive(Default)]
struct Known {
    decided: Option<Result<Decision, DropReason>>,
    bytes: HashMap<u16, (u16, u16)>,
    end: Option<u16>,
    held: Vec<Frame>,
}

impl Model {
    fn arrive(
        &mut self,
        id: u32,
        piece: &Piece,
        frame: Frame,
        lost: &mut Vec<DropReason>,
    ) -> Arrived<Frame, Decision> {
        let (start, end) = (piece.offset, piece.offset + piece.len);
        let known = self.datagrams.entry(id).or_default();
        if let Some(Err(reason)) = known.decided {
            lost.push(reason);
            return Arrived::Gone;
        }
        if known.bytes.values().any(|&p| p == (start, end)) {
            lost.push(FragmentDuplicate);
            return Arrived::Gone;
        }
        let furthest = known.bytes.values().map(|&(_, b)| b).max().unwrap_or(0);
        let bad_end = match known.end {
            Some(known) => !piece.more || end >= known,
            None => !piece.more && end < furthest,
        };
        if bad_end || (start..end).any(|at| known.bytes.contains_key(&at)) {
            lost.extend(vec![FragmentOverlap; known.held.len() + 1]);
            known.held.clear();
            known.decided = Some(Err(FragmentOverlap));
            return Arrived::Gone;
        }
        known
            .bytes
            .extend((start..end).map(|at| (at, (start, end))));
        if !piece.more {
            known.end = Some(end);
        }
        match known.decided {
            Some(Ok(decision)) => {
                self.complete(id);
                Arrived::Follows(frame, decision)
            }
            _ if start == 0 => Arrived::First(frame),
            _ => {
                known.held.push(frame);
                Arrived::Gone
            }
        }
    }

    fn decide(
        &mut self,
        id: u32,
        decision: Result<Decision, DropReason>,
        lost: &mut Vec<DropReason>,
    ) -> Vec<Frame> {
        let Some(known) = self.datagrams.get_mut(&id) else {
            return Vec::new();
        };
        known.decided = Some(decision);
        let held = std::mem::take(&mut known.held);
        match decision {
            Ok(_) => {
                self.complete(id);
                held
            }
            Err(reason) => {
                lost.extend(vec![reason; held.len()]);
                Vec::new()
            }
        }
    }

    fn complete(&mut self, id: u32) {
        let known = &self.datagrams[&id];
        if known
            .end
            .is_some_and(|end| known.bytes.len() == usize::from(end))
        {
            self.datagrams.remove(&id);
        }
    }
}

proptest! {
    /// Any parts of any datagrams in any order: the store does what the model does, and every
    /// frame comes out or is reported lost.
    #[test]
    fn the_store_does_what_a_map_does(
        steps in prop::collection::vec((0u32..6, 0u16..12, 1u16..4, any::<bool>(), 0u8..8), 1..300),
    ) {
        let mut r = Rig::new(6, 300);
        let mut model = Model::default();
        let (mut out, mut lost) = (0, 0);
        for (n, &(id, start, len, more, decision)) in steps.iter().enumerate() {
            let piece = part(id, start * 8, (start + len) * 8, more);
            let mut expected_lost = Vec::new();
            let got = r.arrive(piece, n as u32);
            prop_assert_eq!(&got, &model.arrive(id, &piece, n as u32, &mut expected_lost));
            match got {
                Arrived::First(_) => {
                    out += 1;
                    let decision = match decision {
                        0 => Err(NoConnection),
                        d => Ok(u64::from(d)),
                    };
                    let released = r.decide(id, decision);
                    prop_assert_eq!(&released, &model.decide(id, decision, &mut expected_lost));
                    out += released.len();
                }
                Arrived::Follows(..) => out += 1,
                Arrived::Gone => {}
                Arrived::All(..) => unreachable!("none goes together"),
            }
            lost += expected_lost.len();
            prop_assert_eq!(r.lost(), expected_lost);
            let held: usize = model.datagrams.values().map(|k| k.held.len()).sum();
            prop_assert_eq!(r.store.held(), held);
            prop_assert_eq!(r.store.datagrams(), model.datagrams.len());
            prop_assert_eq!(out + lost + held, n + 1);
        }
    }

    /// With little room and time that passes: no frame is lost without a word.
    #[test]
    fn every_frame_is_accounted_for(
        datagrams in 1u16..5, frames in 1u16..5,
        steps in prop::collection::vec((0u32..9, 0u16..6, any::<bool>(), 0u32..700, 0u8..4), 1..300),
    ) {
        let mut r = Rig::new(datagrams, frames);
        let mut out = 0;
        let mut lost = 0;
        for (n, &(id, start, more, wait, decision)) in steps.iter().enumerate() {
            r.now = r.now.after(wait);
            if wait > 600 {
                r.expire();
            }
            match r.arrive(part(id, start * 8, start * 8 + 8, more), n as u32) {
                Arrived::First(_) => {
                    out += 1;
                    if decision != 1 {
                        out += r.decide(id, if decision == 0 { Err(NoServer) } else { Ok(1) }).len();
                    }
                }
                Arrived::Follows(..) => out += 1,
                Arrived::Gone => {}
                Arrived::All(..) => unreachable!("none goes together"),
            }
            lost += r.lost().len();
            prop_assert_eq!(out + lost + r.store.held(), n + 1);
            prop_assert!(r.store.held() <= usize::from(frames));
            prop_assert!(r.store.datagrams() <= usize::from(datagrams));
        }
        r.now = r.now.after(Tick::seconds(40));
        r.expire();
        prop_assert_eq!((r.store.held(), r.store.datagrams()), (0, 0));
    }
}
