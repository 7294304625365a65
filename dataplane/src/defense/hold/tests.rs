use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Begin,
    Add(usize),
    End(usize),
    Later(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Begin),
        (0..8usize).prop_map(Step::Add),
        (0..8usize).prop_map(Step::End),
        (0..100u32).prop_map(Step::Later),
    ]
}

proptest! {
    /// Against a plain queue of (slot, due, how often, packets).
    #[test]
    fn a_queue_with_slots(steps in prop::collection::vec(step(), 0..200)) {
        let mut hold = Hold::new(6);
        let mut model: VecDeque<(u16, Tick, u8, Vec<u32>)> = VecDeque::new();
        let (mut now, mut packets) = (Tick(u32::MAX - 50), 0);
        for step in steps {
            match step {
                Step::Begin => {
                    let slot = hold.begin(now);
                    prop_assert_eq!(slot.is_some(), model.len() < 6);
                    if let Some(at) = slot {
                        prop_assert!(model.iter().all(|m| m.0 != at));
                        model.push_back((at, now.after(REPEAT), 1, vec![]));
                    }
                }
                Step::Add(n) if n < model.len() => {
                    packets += 1;
                    let m = &mut model[n];
                    let added = hold.add(m.0, PortId(0), packets);
                    prop_assert_eq!(added.is_ok(), m.3.len() < HELD_EACH);
                    match added {
                        Ok(()) => m.3.push(packets),
                        Err(back) => prop_assert_eq!(back, packets),
                    }
                }
                Step::End(n) if n < model.len() => {
                    let m = model.remove(n).unwrap();
                    let held: Vec<u32> = hold.end(m.0).into_iter().map(|(_, f)| f).collect();
                    prop_assert_eq!(held, m.3);
                }
                Step::Later(ticks) => {
                    now = now.after(ticks);
                    while let Some((at, went)) = hold.due(now) {
                        let mut m = model.pop_front().unwrap();
                        prop_assert_eq!((at, went), (m.0, m.2));
                        prop_assert!(m.1.reached(now));
                        (m.1, m.2) = (now.after(REPEAT), m.2 + 1);
                        model.push_back(m);
                    }
                    prop_assert!(model.front().is_none_or(|m| !m.1.reached(now)));
                }
                _ => {}
            }
            prop_assert_eq!(hold.oldest(), model.front().map(|m| m.0));
            prop_assert_eq!(hold.frames(), model.iter().map(|m| m.3.len()).sum::<usize>());
        }
    }
}
