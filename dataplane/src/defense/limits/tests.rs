use super::account::{Account, Share};
use super::sources::Sources;
use super::stamp;
use crate::types::Tick;

/// splitmix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % n
    }
}

/// Workers that keep one rate, and where the traffic lands.
struct Crowd {
    accounts: Vec<Account>,
    shares: Vec<Share>,
    rule: (u64, u64),
    granted: Vec<u64>,
}

impl Crowd {
    fn new(workers: usize, rule: (u64, u64)) -> Crowd {
        Crowd {
            accounts: (0..workers).map(|_| Account::default()).collect(),
            shares: vec![Share::default(); workers],
            rule,
            granted: vec![0; workers],
        }
    }

    fn ask(&mut self, worker: usize, cost: u64, now: Tick) -> bool {
        let peers = self.accounts.iter().enumerate();
        let peers = peers.filter(|(n, _)| *n != worker).map(|(_, a)| a);
        let share = &mut self.shares[worker];
        let may = self.accounts[worker].may(share, peers, self.rule, cost, now);
        self.granted[worker] += u64::from(may) * cost;
        may
    }

    fn sum(&self) -> u64 {
        self.granted.iter().sum()
    }
}

/// How demand spreads over workers: evenly, on one, unevenly, or moving about.
fn lands_on(shape: u64, workers: u64, tick: u32, rng: &mut Rng) -> usize {
    let at = match shape {
        0 => rng.below(workers),
        1 => 0,
        2 => rng.below(workers).min(rng.below(workers)),
        _ => u64::from(tick / 40) % workers,
    };
    at as usize
}

/// Whatever the rate, the number of workers and where traffic lands: over ten seconds the sum is
/// the rate, within 2 %, and a burst.
#[test]
fn the_sum_is_the_rate_on_any_number_of_workers() {
    for workers in [1, 2, 3, 8, 16] {
        for shape in 0..4 {
            for per_second in [5u64, 100, 1_000, 20_000] {
                let at_once = per_second.min(16);
                let mut crowd = Crowd::new(workers as usize, (per_second, at_once));
                let mut rng = Rng(workers << 32 | shape << 16 | per_second);
                let begin = u32::MAX - 500; // time wraps meanwhile
                let demand = per_second * 3 / 64 + 3;
                let mut at_first = 0;
                for tick in 0..64 * 11 {
                    for _ in 0..demand {
                        let worker = lands_on(shape, workers, tick, &mut rng);
                        crowd.ask(worker, 1, Tick(begin.wrapping_add(tick)));
                    }
                    if tick == 63 {
                        at_first = crowd.sum();
                    }
                }
                let burst = (per_second / 8).max(at_once);
                let more = at_first as i64 - per_second as i64;
                assert!(
                    more <= (burst + workers) as i64,
                    "{workers} workers, shape {shape}: {at_first} of {per_second} at first"
                );
                let (ten, got) = (10 * per_second, crowd.sum() - at_first);
                let off = got.abs_diff(ten);
                assert!(
                    off <= ten / 50 + workers,
                    "{workers} workers, shape {shape}: {got} in ten seconds of {per_second}"
                );
            }
        }
    }
}

/// Bits are granted a packet at a time, large beside what a tick brings.
#[test]
fn bits_of_large_packets() {
    for workers in [1, 4, 16] {
        let (per_second, packet) = (10_000_000, 12_000);
        let mut crowd = Crowd::new(workers as usize, (per_second, 8 * 65_536));
        let mut rng = Rng(workers);
        for tick in 1..=64 * 10 {
            for _ in 0..40 {
                crowd.ask(rng.below(workers) as usize, packet, Tick(tick));
            }
        }
        let off = crowd.sum().abs_diff(10 * per_second);
        assert!(off <= 1_250_000 + workers * packet, "{workers}: {off} off");
    }
}

/// A demand below the rate is never refused, wherever it lands and moves.
#[test]
fn less_than_the_rate_passes() {
    for workers in [1, 3, 16] {
        let mut crowd = Crowd::new(workers as usize, (6_400, 16));
        let mut rng = Rng(7);
        for tick in 1..=64 * 20 {
            for _ in 0..80 {
                let worker = lands_on(3, workers, tick, &mut rng);
                assert!(crowd.ask(worker, 1, Tick(tick)), "{workers}, tick {tick}");
            }
        }
    }
}

/// Workers that ask all the time get their part of the rate, and none starves: also after one
/// was quiet for long and another used everything meanwhile.
#[test]
fn no_worker_starves() {
    let mut crowd = Crowd::new(4, (10_000, 16));
    for tick in 1..=64 * 5 {
        for _ in 0..400 {
            crowd.ask(0, 1, Tick(tick));
        }
    }
    crowd.granted.fill(0);
    for tick in 64 * 5 + 1..=64 * 15 {
        for n in 0..400 {
            crowd.ask(n % 4, 1, Tick(tick));
        }
    }
    for granted in &crowd.granted {
        assert!(
            granted.abs_diff(25_000) < 1_500,
            "a quarter each: {:?}",
            crowd.granted
        );
    }
}

#[test]
fn a_client_keeps_its_place_and_the_quietest_gives_way() {
    let sources = Sources::default();
    let key = |n: u64| n << 40 | 1; // all in one line
    for n in 0..8 {
        let (at, is_new) = sources.place(key(n), Tick(n as u32)).unwrap();
        assert!(is_new);
        assert_eq!(sources.place(key(n), Tick(n as u32)), Some((at, false)));
        assert_eq!(sources.find(key(n)).unwrap().0, at);
    }
    let now = Tick(Tick::seconds(8) - 1);
    assert_eq!(sources.place(key(9), now), None, "nobody is quiet yet");
    assert!(sources.find(key(9)).is_none());
    let (at, source) = sources.find(key(0)).unwrap();
    source.connections.add(1);
    let now = Tick(Tick::seconds(8) + 1);
    let (other, is_new) = sources.place(key(9), now).unwrap();
    assert!(is_new);
    assert_ne!(other, at, "it has a connection");
    assert!(sources.find(key(1)).is_none(), "the quietest of the others");
    let source = sources.get(other).unwrap();
    assert_eq!(source.connections.get(), 0);
    assert_eq!(source.touched.get(), stamp(now));
    let now = Tick(Tick::seconds(3600) + 1);
    assert_eq!(sources.place(key(10), now), Some((at, true)), "an hour");
}
