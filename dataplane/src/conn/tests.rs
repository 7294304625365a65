//! The table against a plain map: random openings, packets, removals and time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use proptest::prelude::*;

use super::entry::{Flags, NewConn};
use super::state::{Direction, State};
use super::*;
use crate::forward::ForwardMode;
use crate::packet::{Key, Key4, Key6};
use crate::types::{CoreId, Proto, ServerId, Tick};

fn new(n: u32) -> NewConn {
    let proto = if n.is_multiple_of(3) {
        Proto::Udp
    } else {
        Proto::Tcp
    };
    let addr = |net: u32, port: u32| {
        std::net::SocketAddrV4::new((net | n >> 8).into(), (port + n % 256) as u16)
    };
    let parse = |a: &str| a.parse().unwrap();
    NewConn {
        inbound: Key4::new(proto, addr(0xc000_0000, 1000), parse("10.0.0.10:80")),
        outbound: Key4::new(proto, parse("10.1.0.11:8080"), addr(0x0a01_0000, 2000)),
        server_id: ServerId(n % 0xff_ffff),
        mode: ForwardMode::fullnat,
        flags: Flags::NONE,
    }
}

fn table(max: u32) -> ConnTable {
    ConnTable::new(max, Pages::Plain, [11, 22, 33, 44], Tick(100)).unwrap()
}

fn find(t: &ConnTable, c: &NewConn, dir: Direction) -> Option<Hit> {
    let key = if dir == Direction::Inbound {
        c.inbound
    } else {
        c.outbound
    };
    t.lookup(t.hash(&key), &key)
}

#[test]
fn both_directions_find_one_entry_and_say_which_way() {
    let mut t = table(8);
    let id = t.insert(&new(5), 64, Tick(100)).unwrap().0;
    for dir in [Direction::Inbound, Direction::Outbound] {
        assert_eq!(find(&t, &new(5), dir), Some(Hit { id, dir }));
    }
    let c = t.get(id);
    let NewConn {
        inbound, outbound, ..
    } = new(5);
    assert_eq!(
        (c.client(), c.virtual_()),
        (inbound.source(), inbound.destination())
    );
    assert_eq!(
        (c.server(), c.local()),
        (outbound.source(), outbound.destination())
    );
    assert_eq!(c.leaves_as(Direction::Inbound), {
        let k = outbound.reversed();
        (k.addrs, k.ports)
    });
    assert!(t.remove(id).is_some());
    assert!(t.remove(id).is_none());
    assert_eq!(find(&t, &new(5), Direction::Inbound), None);
}

/// Modes whose answers do not pass are found by the client's key alone; a redirect by the
/// answers' alone, and it is no connection.
#[test]
fn what_is_not_looked_for_is_not_found() {
    let mut t = table(8);
    let one_way = NewConn {
        mode: ForwardMode::dr,
        ..new(5)
    };
    let id = t.insert(&one_way, 64, Tick(100)).unwrap().0;
    let dir = Direction::Inbound;
    assert_eq!(find(&t, &one_way, dir), Some(Hit { id, dir }));
    assert_eq!(find(&t, &one_way, Direction::Outbound), None);
    assert!(t.get(id).flags().has(Flags::ONE_WAY));

    let keys = (new(6).inbound, new(6).outbound);
    let redirect = t.insert_redirect(keys, CoreId(3), 64, Tick(100)).unwrap().0;
    let hit = find(&t, &new(6), Direction::Outbound).unwrap();
    assert_eq!((hit.id, hit.dir), (redirect, Direction::Outbound));
    assert_eq!(find(&t, &new(6), Direction::Inbound), None);
    assert_eq!(t.get(redirect).redirected_to(), Some(CoreId(3)));
    assert_eq!((t.len(), t.redirects()), (1, 1));
    let mut listed = Vec::new();
    assert_eq!(
        t.page(0, 50, |id, _| {
            listed.push(id);
            true
        }),
        None
    );
    assert_eq!(listed, [id]);
    let mut gone = 0;
    while t.expire(Tick(300), 64, |_| gone += 1, |_| {}) > 0 {}
    assert_eq!((gone, t.len(), t.redirects()), (2, 0, 0));
}

#[test]
fn ipv6_connections_take_two_lines_and_are_found_by_both_keys() {
    let mut t = ConnTable::<Key6>::new(8, Pages::Plain, [11, 22, 33, 44], Tick(100)).unwrap();
    let addr = |a: &str| a.parse().unwrap();
    let inbound = Key6::new(
        Proto::Tcp,
        addr("[2001:db8::7]:40000"),
        addr("[2001:db8::64]:80"),
    );
    // NAT64: the server's side is IPv4.
    let outbound = Key6::new(Proto::Tcp, addr("10.1.0.11:8080"), addr("10.1.0.100:2000"));
    let new = NewConn {
        inbound,
        outbound,
        server_id: ServerId(9),
        mode: ForwardMode::fullnat,
        flags: Flags::TRANSLATED,
    };
    let id = t.insert(&new, 64, Tick(100)).unwrap().0;
    for (key, dir) in [
        (inbound, Direction::Inbound),
        (outbound, Direction::Outbound),
    ] {
        assert_eq!(t.lookup(t.hash(&key), &key), Some(Hit { id, dir }));
    }
    let c = t.get(id);
    assert_eq!(c.server(), addr("10.1.0.11:8080"));
    assert_eq!(c.local(), addr("10.1.0.100:2000"));
    assert_eq!(c.virtual_(), addr("[2001:db8::64]:80"));
    let (addrs, ports) = c.leaves_as(Direction::Inbound);
    let leaves = Key6::of(addrs, ports, Proto::Tcp).unmapped().unwrap();
    assert_eq!(leaves.destination(), addr("10.1.0.11:8080"));
}

#[test]
fn it_holds_what_it_promises_and_refuses_the_next() {
    let mut t = table(10_000);
    for n in 0..10_000 {
        t.insert(&new(n), 64, Tick(100))
            .unwrap_or_else(|_| panic!("{n} of 10000"));
    }
    assert_eq!(t.insert(&new(10_000), 64, Tick(100)), Err(TableFull));
    for n in 0..10_000 {
        assert!(find(&t, &new(n), Direction::Inbound).is_some(), "{n}");
        assert!(find(&t, &new(n), Direction::Outbound).is_some(), "{n}");
    }
    assert!(
        t.bytes() as u32 / 10_000 < 140,
        "{} bytes (small tables pay for slots)",
        t.bytes()
    );
}

#[test]
fn entry_index_and_timers_take_less_than_96_bytes_each() {
    let t = table(1_000_000);
    assert!(t.bytes() < 96_000_000, "{}", t.bytes());
}

/// How long a connection with a timeout of 640 ticks was silent.
fn silent(now: Tick) -> impl Fn(&Conn<Key4>) -> u32 {
    move |conn| 640 - conn.deadline().since(now)
}

#[test]
fn the_full_table_gives_up_the_oldest_half_open_first_and_never_an_established_one() {
    let mut t = table(3);
    let ids: Vec<_> = (0..3)
        .map(|n| t.insert(&new(n * 3 + 1), 640, Tick(100 + n)).unwrap().0)
        .collect();
    t.touch(ids[0], State::Established, 640, Tick(103));
    t.touch(ids[1], State::SynRecv, 640, Tick(103));
    t.touch(ids[2], State::SynRecv, 640, Tick(103));
    let now = Tick(105);
    let victim = |t: &mut ConnTable| t.victim(Eviction::NeverEstablished, now, silent(now));
    assert_eq!(victim(&mut t), Some(ids[1]));
    t.touch(ids[1], State::TimeWait, 640, Tick(104));
    assert_eq!(victim(&mut t), Some(ids[2]));
    t.touch(ids[2], State::Established, 640, Tick(104));
    assert_eq!(victim(&mut t), Some(ids[1]));
    t.touch(ids[1], State::Established, 640, Tick(104));
    assert_eq!(victim(&mut t), None);
}

/// Kind after kind, and of each kind the one that was silent for longest; or silence alone.
#[test]
fn who_gives_way_first() {
    use State::{CloseWait, Established, SynRecv, TimeWait, Udp};
    // In this order by `closing-first`; the number is when the last packet came.
    let order = [
        (SynRecv, 109),
        (TimeWait, 104),
        (TimeWait, 108),
        (Udp, 105),
        (CloseWait, 107),
        (Established, 103),
        (Established, 106),
    ];
    let evicted = |eviction| {
        let mut t = table(order.len() as u32);
        let now = Tick(110);
        // Not in that order in the table.
        for n in [3, 0, 6, 4, 1, 5, 2] {
            let id = t.insert(&new(n * 3 + 1), 640, Tick(100)).unwrap().0;
            let (state, at) = order[n as usize];
            t.touch(id, state, 640, Tick(at));
        }
        let mut gone = Vec::new();
        while let Some(id) = t.victim(eviction, now, silent(now)) {
            let conn = t.remove(id).unwrap();
            gone.push((conn.state(), 110 - silent(now)(&conn)));
        }
        gone
    };
    assert_eq!(evicted(Eviction::ClosingFirst), order);
    assert_eq!(evicted(Eviction::NeverEstablished), order[..5]);
    let mut by_silence = order[1..].to_vec();
    by_silence.sort_by_key(|(_, at)| *at);
    assert_eq!(evicted(Eviction::IdleFirst)[1..], by_silence);
}

/// A flood of evictions leaves its timer records behind; they must not fill the wheel, though
/// each half-open connection has one for its first two seconds and one for the next minute.
#[test]
fn evicting_for_ever_never_runs_out_of_timer_records() {
    for a_tick in [1, 5, 50] {
        let mut t = table(64);
        let mut now = Tick(100);
        for n in 0..20_000u32 {
            now = now.after(u32::from(n % a_tick == 0));
            let inserted = t.insert(&new(n), 128, now).or_else(|full| {
                let victim = t.victim(Eviction::default(), now, |_| 0);
                t.remove(victim.ok_or(full)?);
                t.insert(&new(n), 128, now)
            });
            let id = inserted.expect("room after an eviction").0;
            t.touch(id, State::SynRecv, 3840, now);
            t.expire(now, 64, |_| {}, |_| {});
        }
        assert_eq!(t.len(), 64);
    }
}

#[derive(Debug, Clone)]
enum Op {
    Open(u32, u32),
    Packet(u32, State, u32),
    Remove(u32),
    LetGo(u32),
    Wait(u32),
}

fn op() -> impl Strategy<Value = Op> {
    let ticks = prop_oneof![
        1..200u32,
        500..2000u32,
        60_000..70_000u32,
        3_000_000..5_000_000u32
    ];
    let state = prop_oneof![
        Just(State::Established),
        Just(State::SynRecv),
        Just(State::TimeWait),
        Just(State::Close)
    ];
    prop_oneof![
        4 => (0..600u32, ticks.clone()).prop_map(|(n, t)| Op::Open(n, t)),
        4 => (0..600u32, state, ticks).prop_map(|(n, s, t)| Op::Packet(n, s, t)),
        1 => (0..600u32).prop_map(Op::Remove),
        1 => (0..600u32).prop_map(Op::LetGo),
        2 => prop_oneof![0..100u32, 1000..5000u32, 60_000..200_000u32].prop_map(Op::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn the_table_does_what_a_map_does(ops in proptest::collection::vec(op(), 1..400)) {
        let mut t = table(300);
        // Start close to the wrap, so that every run crosses it.
        let mut now = Tick(u32::MAX - 100_000);
        let mut t2 = ConnTable::new(300, Pages::Plain, [5, 6, 7, 8], now).unwrap();
        std::mem::swap(&mut t, &mut t2);
        // number -> (deadline, moment of the last change of state: until then records may be late)
        let mut model: HashMap<u32, Tick> = HashMap::new();
        // those that only keep their outbound key
        let mut resting: HashMap<u32, Tick> = HashMap::new();
        for op in ops {
            match op {
                Op::Open(n, _) if resting.contains_key(&n) => {}
                Op::Open(n, ticks) => if let Entry::Vacant(free) = model.entry(n) {
                    match t.insert(&new(n), ticks, now) {
                        Ok(_) => { free.insert(now.after(ticks)); }
                        Err(TableFull) => prop_assert_eq!(model.len() + resting.len(), 300),
                    }
                },
                Op::LetGo(n) => if let Some(deadline) = model.remove(&n) {
                    t.let_go(find(&t, &new(n), Direction::Inbound).unwrap().id);
                    resting.insert(n, deadline);
                },
                Op::Packet(n, state, ticks) => if let Some(deadline) = model.get_mut(&n) {
                    let id = find(&t, &new(n), Direction::Inbound).unwrap().id;
                    // A packet in the same state never shortens (its timeout is the same).
                    let same = t.get(id).state() == state;
                    let ticks = if same { ticks.max(deadline.since(now)) } else { ticks };
                    t.touch(id, state, ticks, now);
                    *deadline = now.after(ticks);
                },
                Op::Remove(n) => if model.remove(&n).is_some() {
                    let id = find(&t, &new(n), Direction::Outbound).unwrap().id;
                    prop_assert_eq!(t.remove(id).unwrap().client(), new(n).inbound.source());
                },
                Op::Wait(ticks) => {
                    now = now.after(ticks);
                    let mut gone = Vec::new();
                    let mut note = |c: &Conn| gone.push(c.key(Direction::Outbound));
                    while t.expire(now, 7, &mut note, |_| {}) > 0 {}
                    for key in gone {
                        let n = (0..600).find(|n| new(*n).outbound == key).unwrap();
                        let deadline = model.remove(&n).or_else(|| resting.remove(&n));
                        prop_assert!(deadline.is_some_and(|d| d.reached(now)), "{n} early");
                    }
                    let mut left = model.values().chain(resting.values());
                    prop_assert!(left.all(|d| !d.reached(now)), "one is late");
                }
            }
            prop_assert_eq!(t.len() as usize, model.len());
        }
        for n in 0..600 {
            for dir in [Direction::Inbound, Direction::Outbound] {
                let rests = dir == Direction::Outbound && resting.contains_key(&n);
                prop_assert_eq!(find(&t, &new(n), dir).is_some(), model.contains_key(&n) || rests);
            }
        }
        let mut listed = 0;
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            cursor = t.page(at, 50, |_, _| { listed += 1; true });
        }
        prop_assert_eq!(listed, model.len());
    }
}
