use proptest::prelude::*;

use super::*;

/// The answer as the words have it: of the networks that contain `address` the longest decides.
fn naive<N: Number>(entries: &[Entry<N>], otherwise: bool, address: N) -> bool {
    let containing = entries.iter().filter(|e| {
        let (first, last) = e.network.network(e.len);
        (first..=last).contains(&address)
    });
    let longest = containing.max_by_key(|e| (e.len, e.is_in));
    longest.map_or(otherwise, |e| e.is_in)
}

/// Every place where an answer can change, with its neighbours.
fn places<N: Number>(entries: &[Entry<N>]) -> Vec<N> {
    let mut places = vec![N::MIN, N::MAX];
    for entry in entries {
        let (first, last) = entry.network.network(entry.len);
        places.extend([first, last]);
        if last < N::MAX {
            places.push(last.next());
        }
        // The one before: the last of the network before, whatever its length.
        let before = entries.iter().map(|e| e.network.network(e.len).1);
        places.extend(before.filter(|b| *b < first));
    }
    places
}

fn agree<N: Number>(entries: &[Entry<N>], otherwise: bool, others: &[N]) {
    let set = PrefixSet::new(entries.to_vec(), otherwise);
    for address in places(entries).iter().chain(others) {
        let wanted = naive(entries, otherwise, *address);
        assert_eq!(set.contains(*address), wanted, "{address:x?} {entries:x?}");
    }
}

/// Networks that are near each other, so that they nest and touch.
fn entries4() -> impl Strategy<Value = Vec<Entry<u32>>> {
    let near = prop_oneof![any::<u32>(), 0u32..1024, (0u32..1024).prop_map(|n| !n)];
    let len = prop_oneof![0u8..=32, 22u8..=32];
    let entry = (near, len, any::<bool>());
    let entry = entry.prop_map(|(network, len, is_in)| Entry {
        network,
        len,
        is_in,
    });
    prop::collection::vec(entry, 0..60)
}

fn entries6() -> impl Strategy<Value = Vec<Entry<u128>>> {
    let near = prop_oneof![any::<u128>(), 0u128..1024, (0u128..1024).prop_map(|n| !n)];
    let len = prop_oneof![0u8..=128, 118u8..=128, 32u8..=64];
    let entry = (near, len, any::<bool>());
    let entry = entry.prop_map(|(network, len, is_in)| Entry {
        network,
        len,
        is_in,
    });
    prop::collection::vec(entry, 0..60)
}

proptest! {
    #[test]
    fn ipv4_as_the_longest_prefix_says(
        entries in entries4(),
        otherwise: bool,
        others in prop::collection::vec(any::<u32>(), 50),
    ) {
        agree(&entries, otherwise, &others);
    }

    #[test]
    fn ipv6_as_the_longest_prefix_says(
        entries in entries6(),
        otherwise: bool,
        others in prop::collection::vec(any::<u128>(), 50),
    ) {
        agree(&entries, otherwise, &others);
    }

    /// Enough of them for a tree of four levels.
    #[test]
    fn thousands(seed: u32, step in 2u32..900_000, in_at: bool) {
        let host = |n: u32| Entry { network: seed.wrapping_add(n.wrapping_mul(step)), len: 32, is_in: !in_at };
        let entries: Vec<_> = (0..4500).map(host).collect();
        let set = PrefixSet::new(entries.clone(), in_at);
        let hosts: std::collections::HashSet<u32> = entries.iter().map(|e| e.network).collect();
        for host in &hosts {
            for address in [host.wrapping_sub(1), *host, host.wrapping_add(1)] {
                prop_assert_eq!(set.contains(address), hosts.contains(&address) != in_at);
            }
        }
    }
}

#[test]
fn the_ends_of_the_address_space() {
    let all = |is_in| Entry {
        network: 7u32,
        len: 0,
        is_in,
    };
    for (entries, otherwise, wanted) in [
        (vec![], false, false),
        (vec![], true, true),
        (vec![all(true)], false, true),
        (vec![all(false)], true, false),
        (vec![all(false), all(true)], false, true), // in wins
    ] {
        let set = PrefixSet::new(entries, otherwise);
        for address in [0, 1, u32::MAX - 1, u32::MAX] {
            assert_eq!(set.contains(address), wanted);
        }
    }
    let highest = Entry {
        network: u128::MAX,
        len: 128,
        is_in: true,
    };
    let set = PrefixSet::new(vec![highest], false);
    assert!(set.contains(u128::MAX) && !set.contains(u128::MAX - 1));
    assert!(PrefixSet::<u32>::default().is_empty());
}

/// Neighbours that say the same are one: a list of hosts that fill networks costs next to
/// nothing, and a list of hosts apart no more than 8.5 bytes each.
#[test]
fn memory_is_bounded_whatever_the_list() {
    let list = |step: u32| -> Vec<Entry<u32>> {
        let host = |n| Entry {
            network: n * step,
            len: 32,
            is_in: true,
        };
        (0..100_000).map(host).collect()
    };
    assert_eq!(PrefixSet::new(list(1), false).edges(), 2);
    let apart = PrefixSet::new(list(40_000), false);
    assert_eq!(apart.edges(), 200_000);
    assert!(apart.bytes() <= 860_000, "{}", apart.bytes());
    let list6 = list(40_000).into_iter().map(|e| Entry {
        network: u128::from(e.network) << 64,
        len: 128,
        is_in: true,
    });
    let apart = PrefixSet::new(list6.collect(), false);
    assert!(apart.bytes() <= 3_440_000, "{}", apart.bytes());
}

#[test]
fn sets_are_equal_when_their_answers_are() {
    let net = |network, len| Entry {
        network,
        len,
        is_in: true,
    };
    let whole = PrefixSet::new(vec![net(0x0a00_0000u32, 8)], false);
    let halves = PrefixSet::new(vec![net(0x0a80_0000, 9), net(0x0a00_0000, 9)], false);
    assert_eq!(whole, halves);
    assert_ne!(whole, PrefixSet::new(vec![net(0x0b00_0000u32, 8)], false));
}
