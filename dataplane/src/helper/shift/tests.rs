use proptest::prelude::*;

use super::*;

#[test]
fn the_last_change_and_the_ones_before_it() {
    let start = u32::MAX - 50; // numbers wrap
    let n = |k: u32| start.wrapping_add(k);
    let mut s = Shift::new(start);
    assert!(s.is_none());
    s.note(n(10), n(30), 7);
    assert_eq!(
        [n(0), n(10), n(30), n(40)].map(|k| s.there(k)),
        [n(0), n(10), n(37), n(47)]
    );
    s.note(n(10), n(30), 7); // repeated
    assert_eq!(s.there(n(30)), n(37));
    s.note(n(60), n(90), -5);
    assert_eq!(
        [n(40), n(60), n(90)].map(|k| s.there(k)),
        [n(47), n(67), n(92)]
    );
    // Acknowledged: before the line, in the middle of what is there for it, behind it.
    assert_eq!(
        [n(67), n(80), n(91), n(92)].map(|k| s.back(k)),
        [n(60), n(60), n(60), n(90)]
    );
    assert_eq!(s.block(n(92), n(95)), Some((n(90), n(93))));
    assert_eq!(
        s.block(n(70), n(95)),
        Some((n(90), n(93))),
        "half a line is not had"
    );
    assert_eq!(s.block(n(67), n(80)), None);
}

proptest! {
    /// Whatever lines change by, numbers of whole segments around the last two lines go there and
    /// come back the same.
    #[test]
    fn there_and_back(
        start: u32,
        lines in prop::collection::vec((0u32..200, 1u32..60, 1u32..60), 1..8),
    ) {
        let mut s = Shift::new(start);
        let (mut at, mut offset) = (start, 0i32);
        for (gap, old, new) in lines {
            let from = at.wrapping_add(gap);
            let to = from.wrapping_add(old);
            s.note(from, to, new as i32 - old as i32);
            for number in [at, from] {
                prop_assert_eq!(s.there(number), number.wrapping_add_signed(offset));
                prop_assert_eq!(s.back(s.there(number)), number);
            }
            offset += new as i32 - old as i32;
            for number in [to, to.wrapping_add(100)] {
                prop_assert_eq!(s.there(number), number.wrapping_add_signed(offset));
                prop_assert_eq!(s.back(s.there(number)), number);
            }
            at = to;
        }
    }
}
