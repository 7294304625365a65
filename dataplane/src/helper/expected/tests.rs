use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn expected(n: u16) -> Expected {
    let from = IpAddr::from([192, 0, 2, n as u8]);
    Expected {
        wanted: Wanted::new(from, SocketAddr::from(([10, 0, 0, 10], 1024 + n))),
        is_active: false,
        from_port: 0,
        leads: bits(IpAddr::from([10, 1, 0, 11])),
        leads_port: n,
        seen: 0,
        seen_port: 0,
        server: ServerId(0),
        control: 0,
    }
}

fn table() -> Expectations {
    let mut t = Expectations::new([1, 2, 3, 4]);
    t.provide(true);
    t
}

#[test]
fn without_a_helper_there_is_no_room_and_no_harm() {
    let mut t = Expectations::new([1, 2, 3, 4]);
    t.provide(false);
    t.put(expected(1), Tick(0));
    t.remove(&expected(1).wanted);
    t.expire(Tick(0));
    assert!(!t.is_on() && t.is_empty());
    assert_eq!(t.get(&expected(1).wanted, Tick(0)), None);
}

#[test]
fn holds_for_two_minutes() {
    let mut t = table();
    let now = Tick(u32::MAX - 5);
    t.put(expected(1), now);
    let late = now.after(HOLDS);
    assert!(
        t.get(&expected(1).wanted, Tick(late.0.wrapping_sub(1)))
            .is_some()
    );
    assert!(t.get(&expected(1).wanted, late).is_none());
    for _ in 0..SETS {
        t.expire(late);
    }
    assert!(t.is_empty());
}

#[test]
fn a_full_table_forgets_the_oldest_of_a_set() {
    let mut t = table();
    for n in 0..20_000 {
        t.put(expected(n), Tick(u32::from(n)));
        assert!(t.get(&expected(n).wanted, Tick(u32::from(n))).is_some());
    }
    assert!(t.live <= SETS * WAYS && t.live > SETS * WAYS / 2);
    assert!(t.get(&expected(0).wanted, Tick(0)).is_none());
}

#[test]
fn workers_hand_out_ports_of_their_own() {
    for workers in [1u8, 3, 128] {
        let mut seen = std::collections::HashSet::new();
        for me in 0..workers {
            let mut t = table();
            for _ in 0..(u16::MAX - 1024) / u16::from(workers) {
                let port = t.next_port(me, workers);
                assert!(port >= 1024 && seen.insert(port), "{port} twice");
            }
        }
    }
}

proptest! {
    #[test]
    fn as_a_map_does(steps in prop::collection::vec((0u16..200, 0u8..3), 0..600)) {
        let (mut t, mut map) = (table(), HashMap::new());
        for (n, what) in steps {
            let mut e = expected(n);
            match what {
                0 => {
                    e.from_port = n;
                    t.put(e, Tick(7));
                    map.insert(n, e);
                }
                1 => {
                    t.remove(&e.wanted);
                    map.remove(&n);
                }
                _ => prop_assert_eq!(t.get(&e.wanted, Tick(7)).copied(), map.get(&n).copied()),
            }
            prop_assert_eq!(t.live, map.len());
        }
    }
}
