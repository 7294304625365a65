use std::time::Duration;

use super::clock::Moment;
use super::placement::place_on;
use super::*;
use crate::config::{self, Cores};

fn after(ms: u64) -> Moment {
    Moment(Duration::from_millis(ms))
}

/// The rests of `turns` empty turns at `now`, each with how often it came in a row.
fn rests(idler: &mut Idler, turns: usize, now: Moment) -> Vec<(Rest, usize)> {
    let mut runs: Vec<(Rest, usize)> = Vec::new();
    for _ in 0..turns {
        let rest = idler.after(0, now);
        match runs.last_mut() {
            Some((last, times)) if *last == rest => *times += 1,
            _ => runs.push((rest, 1)),
        }
    }
    runs
}

#[test]
fn spin_never_rests() {
    let mut idler = Idler::new(Idle::Spin);
    assert_eq!(rests(&mut idler, 1000, after(0)), [(Rest::Hint, 1000)]);
    assert_eq!(rests(&mut idler, 10, after(60_000)), [(Rest::Hint, 10)]);
}

#[test]
fn yield_lets_others_run_after_200_empty_turns() {
    let mut idler = Idler::new(Idle::Yield);
    let expected = [(Rest::Hint, 200), (Rest::Yield, 300)];
    assert_eq!(rests(&mut idler, 500, after(0)), expected);
    assert_eq!(rests(&mut idler, 9, after(60_000)), [(Rest::Yield, 9)]);
    assert_eq!(idler.after(1, after(60_000)), Rest::Not);
    assert_eq!(rests(&mut idler, 500, after(60_000)), expected);
}

#[test]
fn sleep_naps_longer_and_longer_and_work_wakes_it_fully() {
    let mut idler = Idler::new(Idle::Sleep);
    let awake = [(Rest::Hint, 200), (Rest::Yield, 1)];
    assert_eq!(rests(&mut idler, 201, after(100)), awake);
    assert_eq!(rests(&mut idler, 1, after(104)), [(Rest::Yield, 1)]);
    let nap = |micros| (Rest::Nap(Duration::from_nanos((micros * 1e3) as u64)), 1);
    let naps = [nap(50.0), nap(75.0), nap(112.5), nap(168.75)];
    assert_eq!(rests(&mut idler, 4, after(105)), naps);
    rests(&mut idler, 100, after(106));
    let longest = (Rest::Nap(Duration::from_micros(500)), 3);
    assert_eq!(rests(&mut idler, 3, after(107)), [longest]);

    assert_eq!(idler.after(32, after(108)), Rest::Not);
    assert_eq!(rests(&mut idler, 201, after(200)), awake);
    assert_eq!(rests(&mut idler, 1, after(206)), [nap(50.0)]);
}

#[test]
fn moments_in_ticks() {
    for (nanos, ticks) in [
        (0, 0),
        (15_624_999, 0),
        (15_625_000, 1),
        (999_999_999, 63),
        (1_000_000_000, 64),
        (3_600_000_000_000, 230_400),
        // Past two years and a bit the number wraps.
        ((1 << 32) * 15_625_000 + 15_625_000, 1),
    ] {
        assert_eq!(
            Moment(Duration::from_nanos(nanos)).tick().0,
            ticks,
            "{nanos}"
        );
    }
    let clock = Clock::start();
    let earlier = clock.now();
    std::thread::sleep(Duration::from_millis(20));
    assert!(clock.now().since(earlier) >= Duration::from_millis(10));
    assert_eq!(earlier.since(clock.now()), Duration::ZERO);
}

fn workers(cores: Cores, idle: config::Idle) -> config::Workers {
    config::Workers {
        cores,
        memory: 1 << 30,
        max_connections: 1024,
        max_connections6: 1024,
        hugepages: false,
        idle,
    }
}

#[test]
fn a_count_of_workers_takes_the_allowed_cpus_in_turn() {
    let placed = |count, allowed: &[usize]| {
        let workers = workers(Cores::Count(count), config::Idle::Yield);
        let placed = place_on(&workers, allowed, "");
        assert!(placed.iter().all(|p| p.idle == Idle::Yield));
        placed.iter().map(|p| p.cpu).collect::<Vec<_>>()
    };
    assert_eq!(placed(1, &[0, 1]), [0]);
    assert_eq!(placed(5, &[0, 1]), [0, 1, 0, 1, 0]);
    assert_eq!(placed(2, &[3, 7, 9]), [3, 7]);
    assert_eq!(placed(2, &[]), [0, 0]);
}

#[test]
fn auto_spins_only_where_every_worker_has_an_isolated_cpu() {
    let idle = |cores: &[u16], isolated: &str| {
        let workers = workers(Cores::Pinned(cores.to_vec()), config::Idle::Auto);
        let placed = place_on(&workers, &[0, 1], isolated);
        assert!(
            placed
                .iter()
                .map(|p| p.cpu as u16)
                .eq(cores.iter().copied())
        );
        assert!(placed.iter().all(|p| p.idle == placed[0].idle));
        placed[0].idle
    };
    assert_eq!(idle(&[2, 3], "2-5,8\n"), Idle::Spin);
    assert_eq!(idle(&[8], "2-5,8\n"), Idle::Spin);
    assert_eq!(idle(&[1, 2], "2-5,8\n"), Idle::Sleep);
    assert_eq!(idle(&[6], "2-5,8\n"), Idle::Sleep);
    assert_eq!(idle(&[2], "\n"), Idle::Sleep);
    assert_eq!(idle(&[2], "nonsense"), Idle::Sleep);
    // Two workers on one CPU would spin against each other.
    let two = workers(Cores::Count(2), config::Idle::Auto);
    assert_eq!(place_on(&two, &[4], "4")[0].idle, Idle::Sleep);
    let spin = workers(Cores::Count(2), config::Idle::Spin);
    assert_eq!(place_on(&spin, &[4], "")[0].idle, Idle::Spin);
}

mod threads;
