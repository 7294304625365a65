//! The fragment store against a model that is as simple as can be: every frame comes out once, or
//! is reported lost once; bounds hold; parts that go on together do not overlap.
#![no_main]

use std::collections::{HashMap, HashSet};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use weir_dataplane::Tick;
use weir_dataplane::counters::DropReason;
use weir_dataplane::frag::{Arrived, FragKey, Piece, Store};

const DATAGRAMS: u16 = 6;
const FRAMES: u16 = 5;

#[derive(Debug, Arbitrary)]
enum Step {
    /// A part comes, in units of 8 bytes; its first is decided on at once, or later, or refused.
    Part {
        datagram: u8,
        at: u8,
        len: u8,
        more: bool,
        then: u8,
    },
    /// Any part at all.
    Any {
        datagram: u8,
        at: u16,
        len: u16,
        more: bool,
    },
    /// A first fragment's errand comes back late.
    Decide { datagram: u8, refuse: bool },
    /// Time passes.
    Time(u16),
    /// Some that are too old are forgotten.
    Expire(u8),
}

fn key(datagram: u8) -> FragKey {
    FragKey {
        src: 1,
        dst: 2,
        id: u32::from(datagram % 16),
        protocol: 17,
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let mut store: Store<u32, u8> = Store::new(DATAGRAMS, FRAMES, 7);
    let mut now = Tick(u32::MAX - 500);
    let (mut came, mut lost) = (0u32, 0usize);
    let mut out: HashSet<u32> = HashSet::new();
    let mut decided: HashMap<u32, u8> = HashMap::new();
    let go = |out: &mut HashSet<u32>, frame| assert!(out.insert(frame), "{frame} twice");
    for step in steps.iter().take(400) {
        let mut count = |_: DropReason| lost += 1;
        match *step {
            Step::Part { .. } | Step::Any { .. } => {
                let (datagram, offset, len, more, then) = match *step {
                    Step::Part {
                        datagram,
                        at,
                        len,
                        more,
                        then,
                    } => {
                        let len = 8 * (1 + u16::from(len % 8));
                        (datagram, 8 * u16::from(at % 16), len, more, then)
                    }
                    Step::Any {
                        datagram,
                        at,
                        len,
                        more,
                    } => (datagram, at & !7, len.max(1), more, 0),
                    _ => unreachable!(),
                };
                if u32::from(offset) + u32::from(len) > 0xffff {
                    continue; // `Piece` says no
                }
                let piece = Piece {
                    key: key(datagram),
                    offset,
                    len,
                    more,
                    together: false, // SCTP's alone
                };
                let frame = came;
                came += 1;
                match store.arrive(&piece, frame, now, &mut count) {
                    Arrived::First(first) => {
                        assert_eq!((first, offset), (frame, 0));
                        let verdict = match then % 3 {
                            0 => Ok(then),
                            1 => Err(DropReason::NoServer),
                            _ => {
                                // Travels; what waits goes on waiting.
                                go(&mut out, first);
                                continue;
                            }
                        };
                        go(&mut out, first);
                        if verdict.is_ok() {
                            decided.insert(piece.key.id, then);
                        }
                        store.decide(&piece.key, verdict, now, &mut count, |f| go(&mut out, f));
                    }
                    Arrived::Follows(follows, decision) => {
                        assert_eq!(follows, frame);
                        assert_eq!(decided.get(&piece.key.id), Some(&decision));
                        go(&mut out, follows);
                    }
                    Arrived::All(..) => panic!("nobody asked for them together"),
                    Arrived::Gone => {}
                }
            }
            Step::Decide { datagram, refuse } => {
                let key = key(datagram);
                let verdict = match refuse {
                    true => Err(DropReason::NoServer),
                    false => Ok(datagram),
                };
                if !refuse {
                    decided.insert(key.id, datagram);
                }
                store.decide(&key, verdict, now, &mut count, |f| go(&mut out, f));
            }
            Step::Time(ticks) => now = now.after(u32::from(ticks)),
            Step::Expire(budget) => {
                let expired = store.expire(now, usize::from(budget), &mut count);
                assert!(expired <= usize::from(budget));
            }
        }
        assert!(store.held() <= usize::from(FRAMES));
        assert!(store.datagrams() <= usize::from(DATAGRAMS));
        assert_eq!(
            out.len() + lost + store.held(),
            came as usize,
            "each frame once"
        );
    }
    now = now.after(Tick::seconds(60));
    let mut count = |_: DropReason| lost += 1;
    store.expire(now, usize::from(DATAGRAMS), &mut count);
    assert_eq!((store.held(), store.datagrams()), (0, 0));
    assert_eq!(out.len() + lost, came as usize);
});
