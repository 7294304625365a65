use super::*;

#[test]
fn every_worker_gets_room_for_its_part_of_the_flows() {
    let toeplitz = Arc::new(Toeplitz::new(MICROSOFT_KEY));
    for workers in [1, 2, 3, 7, 128] {
        let shares = (0..workers).map(|core| {
            let steer = Steer::new(CoreId(core), workers, Arc::clone(&toeplitz));
            share(1_000_000, &steer)
        });
        let shares: Vec<u32> = shares.collect();
        let all: u32 = shares.iter().sum();
        assert!(
            (1_000_000..=1_000_000 + u32::from(workers)).contains(&all),
            "{shares:?}"
        );
    }
    let steer = Steer::new(CoreId(0), 3, toeplitz);
    assert_eq!(share(128_000, &steer), 43_000); // 43 of 128 buckets
    assert_eq!(share(1_000_000_000, &steer), 335_937_500);
}

#[test]
fn handoff_rings_of_many_workers_are_small() {
    for (workers, room) in [(1, 1024), (2, 1024), (3, 682), (16, 128), (128, 64)] {
        assert_eq!(handoff_ring(workers), room);
    }
}

#[test]
fn secrets_differ() {
    assert_ne!(secret().unwrap(), secret().unwrap());
}
