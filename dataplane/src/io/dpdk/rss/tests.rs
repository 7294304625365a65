use super::*;
use crate::steer::{MICROSOFT_KEY, spread};

#[test]
fn bigger_tables_repeat_the_map() {
    let map = spread(3);
    for size in [128u16, 256, 512, 2048] {
        let table = table(&map, size, 3).unwrap();
        assert_eq!(table.len(), usize::from(size));
        for hash in 0..4096usize {
            let owner = u16::from(map[hash % BUCKETS].0);
            assert_eq!(table[hash % usize::from(size)], owner, "hash {hash}");
        }
    }
}

#[test]
fn smaller_tables_hold_only_maps_that_repeat_themselves() {
    assert_eq!(table(&spread(2), 64, 2).unwrap().len(), 64);
    assert_eq!(table(&spread(4), 16, 4).unwrap()[..5], [0, 1, 2, 3, 0]);
    assert_eq!(table(&spread(3), 64, 3), None);
    for size in [0, 100, 129] {
        assert_eq!(table(&spread(2), size, 2), None, "{size} entries");
    }
}

#[test]
fn fewer_queues_than_workers_share_what_there_is() {
    let table = table(&spread(3), 128, 2).unwrap();
    assert_eq!(table[..6], [0, 1, 0, 0, 1, 0]);
}

#[test]
fn keys_stretch_to_the_cards_length() {
    let long = stretch(&MICROSOFT_KEY, 52);
    assert_eq!(long.len(), 52);
    assert_eq!(long[..40], MICROSOFT_KEY);
    assert_eq!(long[40..], MICROSOFT_KEY[..12]);
    assert_eq!(stretch(&MICROSOFT_KEY, 0), MICROSOFT_KEY);
}
