//! lblc's and lblcr's memory against a plain map, and their sets as they grow and settle.

use std::collections::HashMap;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::sched::destinations::{Destinations, adopt};

const DAY: u32 = Tick::seconds(86_400);

#[derive(Debug, Clone)]
enum Op {
    Add(u8, usize),
    Remove(u8, usize),
    Clear(u8),
    /// The list is rotated, and servers from this position on are missing.
    Servers(usize, usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..4u8, 0..6usize).prop_map(|(a, at)| Op::Add(a, at)),
        2 => (0..4u8, 0..6usize).prop_map(|(a, at)| Op::Remove(a, at)),
        1 => (0..4u8).prop_map(Op::Clear),
        1 => (0..6usize, 1..=6usize).prop_map(|(by, n)| Op::Servers(by, n)),
    ]
}

fn address(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, n).into()
}

proptest! {
    #[test]
    fn sets_are_a_plain_maps(ops in prop::collection::vec(op(), 1..200)) {
        let all = candidates(&[1; 6]);
        let mut servers = all.clone();
        let mut cache = None;
        adopt(&mut cache, &servers);
        let mut model: HashMap<u8, Vec<ServerId>> = HashMap::new();
        for (op, now) in ops.into_iter().zip(0..).map(|(op, n)| (op, Tick(n))) {
            let entry = |cache: &mut Destinations, a: u8| {
                cache.find(address(a), now).unwrap_or_else(|| cache.make(address(a), now))
            };
            let table = cache.as_deref_mut().unwrap();
            match op {
                Op::Add(a, at) => {
                    let id = entry(table, a);
                    table.add(id, at, &servers, now);
                    let set = model.entry(a).or_default();
                    if let Some(server) = servers.get(at)
                        && !set.contains(&server.id)
                    {
                        set.insert(0, server.id);
                    }
                }
                Op::Remove(a, at) => {
                    let id = entry(table, a);
                    table.remove(id, at, now);
                    let gone = servers.get(at).map(|s| s.id);
                    model.entry(a).or_default().retain(|id| Some(*id) != gone);
                }
                Op::Clear(a) => {
                    let id = entry(table, a);
                    table.clear(id);
                    model.entry(a).or_default().clear();
                }
                Op::Servers(by, n) => {
                    servers = all.clone();
                    servers.rotate_left(by);
                    servers.truncate(n);
                    adopt(&mut cache, &servers);
                }
            }
            let table = cache.as_deref_mut().unwrap();
            for (a, set) in &model {
                let known = table.find(address(*a), now);
                let got: Vec<_> = known.map_or(vec![], |id| table.servers(id).collect());
                let place = |id: &ServerId| servers.iter().position(|s| s.id == *id);
                let want: Vec<_> = set.iter().filter_map(place).collect();
                prop_assert_eq!(got, want);
            }
        }
    }
}

/// More addresses than there is room for: the ones used last are there, and nothing leaks.
#[test]
fn the_address_unused_for_longest_goes() {
    let servers = candidates(&[1; 2]);
    let mut cache = None;
    adopt(&mut cache, &servers);
    let cache = cache.as_deref_mut().unwrap();
    for n in 0..20_000u32 {
        let address = Ipv4Addr::from(0x0a00_0000 + n).into();
        assert!(cache.find(address, Tick(n)).is_none());
        let id = cache.make(address, Tick(n));
        cache.add(id, 0, &servers, Tick(n));
        cache.add(id, 1, &servers, Tick(n));
        assert!(cache.servers(id).next().is_some());
        let id = cache.find(address, Tick(n)).unwrap();
        assert!(cache.servers(id).next().is_some());
    }
}

#[test]
fn an_address_unused_for_a_day_is_forgotten() {
    let servers = candidates(&[1]);
    let mut cache = None;
    adopt(&mut cache, &servers);
    let cache = cache.as_deref_mut().unwrap();
    cache.make(address(1), Tick(0));
    assert!(cache.find(address(1), Tick(DAY)).is_some());
    assert!(cache.find(address(1), Tick(2 * DAY + 1)).is_none());
}

/// lblcr: a set grows while its servers are overloaded, and a day later loses its most loaded one.
#[test]
fn a_set_grows_under_load_and_shrinks_a_day_later() {
    let mut service = Service::new(SchedulerKind::lblcr, &candidates(&[4, 4, 4]));
    let mut at = |now: u32| {
        let Service {
            scheduler,
            servers,
            memory,
            loads,
            counters,
        } = &mut service;
        let request = Request {
            key: None,
            now: Tick(now),
            ..request(0)
        };
        let at = scheduler.pick(servers, loads, &request, memory).unwrap();
        counters.servers.get(servers[at].id).unwrap().active.add(1);
        at
    };
    let first: Vec<_> = (0..8).map(|_| at(0)).collect();
    assert_eq!(
        first,
        [0, 0, 0, 0, 0, 1, 1, 1],
        "overloaded at weight + 1; then the two balance"
    );
    assert_eq!((at(DAY / 2), at(DAY / 2)), (1, 1));
    for id in 0..2 {
        let active = &service.counters.servers.get(ServerId(id)).unwrap().active;
        active.set(2 - u64::from(id));
    }
    let mut pick = |now: u32| {
        let Service {
            scheduler,
            servers,
            memory,
            loads,
            ..
        } = &mut service;
        let request = Request {
            key: None,
            now: Tick(now),
            ..request(0)
        };
        scheduler.pick(servers, loads, &request, memory)
    };
    assert_eq!(pick(DAY + 1), Some(1));
    service
        .counters
        .servers
        .get(ServerId(1))
        .unwrap()
        .active
        .set(3);
    let Service {
        scheduler,
        servers,
        memory,
        loads,
        ..
    } = &mut service;
    let request = Request {
        key: None,
        now: Tick(DAY + 2),
        ..request(0)
    };
    let now = scheduler.pick(servers, loads, &request, memory);
    assert_eq!(
        now,
        Some(1),
        "server 0, the more loaded one, has left the set"
    );
}
