use std::net::IpAddr;

use weir_dataplane::PortId;

use super::*;

fn hop(port: u8, last: u8) -> Hop {
    Hop {
        port: PortId(port),
        addr: IpAddr::from([10, 0, 0, last]),
    }
}

fn mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, last])
}

fn told(id: u16, hop: Hop, mac: Option<Mac>, reused: bool) -> Result<Option<Learned>, Full> {
    let update = NeighbourUpdate {
        id: NeighbourId(id),
        port: hop.port,
        addr: hop.addr,
        mac,
    };
    Ok(Some(Learned { update, reused }))
}

#[test]
fn a_neighbour_keeps_its_index_and_only_news_is_told() {
    let mut book = NeighbourBook::default();
    let (a, b) = (hop(0, 1), hop(1, 1)); // one address behind two ports: two neighbours
    assert_eq!(book.learn(a, None), Ok(None));
    assert_eq!(book.len(), 0);
    assert_eq!(book.learn(a, Some(mac(1))), told(0, a, Some(mac(1)), false));
    assert_eq!(book.learn(b, Some(mac(2))), told(1, b, Some(mac(2)), false));
    assert_eq!(book.learn(a, Some(mac(1))), Ok(None));
    assert_eq!(book.learn(a, Some(mac(3))), told(0, a, Some(mac(3)), false));
    assert_eq!(book.len(), 2);
    assert_eq!(
        book.find(a).map(|u| (u.id.0, u.mac)),
        Some((0, Some(mac(3))))
    );

    assert_eq!(book.learn(a, None), told(0, a, None, false));
    assert_eq!(book.learn(a, None), Ok(None));
    assert_eq!((book.len(), book.find(a)), (1, None));
    assert_eq!(book.learn(a, Some(mac(4))), told(0, a, Some(mac(4)), false));
    assert_eq!(book.find(hop(0, 9)), None);
}

#[test]
fn when_all_are_taken_the_longest_lost_gives_way() {
    let mut book = NeighbourBook::with_limit(3);
    for n in 0..3 {
        let known = book.learn(hop(0, n), Some(mac(n)));
        assert_eq!(known, told(n.into(), hop(0, n), Some(mac(n)), false));
    }
    assert_eq!(book.learn(hop(0, 3), Some(mac(3))), Err(Full(3)));
    assert_eq!(
        Full(3).to_string(),
        "3 neighbours are known, as many as weir can tell apart; packets for more of them are \
         dropped (drop reason neighbour_unresolved)"
    );
    // 2 is lost before 0, and 1 comes back in time.
    for n in [1, 2, 0] {
        book.learn(hop(0, n), None).unwrap();
    }
    book.learn(hop(0, 1), Some(mac(1))).unwrap();
    let new = hop(0, 3);
    assert_eq!(
        book.learn(new, Some(mac(3))),
        told(2, new, Some(mac(3)), true)
    );
    // 2 is nobody now; its loss is no news and its return takes the next index.
    let old = hop(0, 2);
    assert_eq!(book.learn(old, None), Ok(None));
    assert_eq!(
        book.learn(old, Some(mac(2))),
        told(0, old, Some(mac(2)), true)
    );
    assert_eq!(book.learn(hop(0, 0), Some(mac(0))), Err(Full(3)));
    assert_eq!(book.len(), 3);
}

/// Against a plain map: whatever happens, an index means one neighbour, and what the workers
/// were told is what the book says.
#[test]
fn random_changes_keep_indices_unique() {
    use proptest::prelude::*;
    let change = (0u8..12, proptest::option::of(0u8..4));
    proptest!(|(changes in proptest::collection::vec(change, 0..200))| {
        let mut book = NeighbourBook::with_limit(5);
        let mut workers: HashMap<u16, (Hop, Option<Mac>)> = HashMap::new();
        for (last, new) in changes {
            let (hop, mac) = (hop(0, last), new.map(mac));
            match book.learn(hop, mac) {
                Ok(Some(learned)) => {
                    let update = learned.update;
                    let before = workers.insert(update.id.0, (hop, mac));
                    let other = before.is_some_and(|(before, _)| before != hop);
                    prop_assert_eq!(other, learned.reused);
                }
                Ok(None) => {
                    let known = workers.values().find(|(at, _)| *at == hop);
                    prop_assert_eq!(known.and_then(|(_, mac)| *mac), mac);
                }
                Err(Full(limit)) => {
                    prop_assert_eq!(limit, 5);
                    prop_assert!(workers.len() == 5 && workers.values().all(|(_, m)| m.is_some()));
                }
            }
            let mut hops: Vec<_> = workers.values().map(|(hop, _)| hop.addr).collect();
            hops.sort();
            hops.dedup();
            prop_assert_eq!(hops.len(), workers.len());
            let known = workers.values().filter(|(_, mac)| mac.is_some()).count();
            prop_assert_eq!(book.len(), known);
        }
    });
}
