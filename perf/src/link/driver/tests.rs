use weir_dataplane::io::sim::SimPool;

use super::super::mirror::Mirror;
use super::*;

#[test]
fn all_are_opened_though_some_frames_are_lost() {
    let mut mirror = Mirror::new(|n| n % 1_000 == 0);
    open(&mut mirror, SimPool::default(), 5_000, false).unwrap();
    // Three packets each, and those that had to be sent again.
    assert!((15_000..15_100).contains(&mirror.seen), "{}", mirror.seen);
}

#[test]
fn a_device_that_forwards_nothing_is_an_error_that_says_so() {
    let mut mirror = Mirror::new(|_| true);
    let error = open(&mut mirror, SimPool::default(), 10, true).unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.starts_with("10 of 10 not open: no connection got through"),
        "{text}"
    );
    assert!(mirror.seen >= 20, "tried again: {}", mirror.seen);
}

#[test]
fn lifecycles_are_counted_for_as_long_as_asked() {
    let mut mirror = Mirror::new(|n| n % 10_000 == 0);
    let mut lives = Lifecycles::new(&mut mirror, SimPool::default(), 64, 100..300);
    let turned = lives.run(0.3).unwrap();
    assert!(
        turned.seconds > 0.299 && turned.completed > 1_000,
        "{turned:?}"
    );
    assert!((0.0..1.0).contains(&turned.idle));
    let counts = lives.settle().unwrap();
    assert!(counts.ended >= turned.completed && counts.lost >= turned.lost);
    assert!(counts.lost > 0 && counts.wrong == 0, "{counts:?}");
}

#[test]
fn clients_come_round_again() {
    let mut round = Round {
        clients: 5..8,
        next: 5,
    };
    let seen: Vec<_> = (0..7).filter_map(|_| round.next()).collect();
    assert_eq!(seen, [5, 6, 7, 5, 6, 7, 5]);
}
