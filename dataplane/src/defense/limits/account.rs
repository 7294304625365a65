//! One rate that several workers keep together, each in cells of its own.
//!
//! All that was ever used is a sum of the workers' `used`. What may ever have been used by now is
//! a number as well, `until`: it grows with time at the rate, and is never further ahead of what
//! was used than a burst. So what is left is `until - used`, read at any moment by anybody; what
//! one worker used too much, because it had not seen what another did, is missing from the next
//! tick for all. Nothing is lent or sent, so nothing is lost, and over a time the sum is the rate
//! exactly.
//!
//! A worker reads the others a few times a tick (1/64 s) at most, takes the newest `until` of all,
//! and of what is left the part that its own demand was of all demand since it read last, or an
//! equal part if that is more: credit follows the traffic, also when that moves. It takes one at
//! least when anything is left, so that a rate of a few a second is not split into nothing.
#![forbid(unsafe_code)]

use super::stamp;
use crate::counters::Cell;
use crate::types::Tick;

/// Parts that amounts are kept in, so that a rate adds a whole number of them each tick.
const PARTS: u64 = Tick::PER_SECOND as u64;
/// How often a worker reads the others in one tick: what is refused costs no more than that.
const LOOKS: u8 = 4;
/// Longest time that is added up at once, ticks: an hour. A burst is long full by then.
const LONGEST: u32 = Tick::seconds(3600);

/// One worker's cells: it alone writes them, all read them. Sums wrap.
#[derive(Debug, Default)]
pub struct Account {
    /// What was asked for, granted or not.
    asked: Cell,
    /// What was granted.
    used: Cell,
    /// What may have been used by all workers, in parts, at the moment `at`.
    until: Cell,
    at: Cell,
}

/// What the worker itself remembers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Share {
    /// Parts that it may use without looking.
    left: i64,
    /// When it last looked, and how often since that tick began.
    at: u64,
    looks: u8,
    /// What had been asked then: of it, and of all.
    asked: u64,
    asked_of_all: u64,
}

impl Account {
    /// Whether `cost` more may be used at `now`. `rule`: how much a second, and how much at once
    /// where an eighth of that is less.
    #[inline]
    pub(super) fn may<'a>(
        &'a self,
        share: &mut Share,
        peers: impl Iterator<Item = &'a Account>,
        rule: (u64, u64),
        cost: u64,
        now: Tick,
    ) -> bool {
        self.asked.add(cost);
        if share.at != stamp(now) {
            share.looks = 0;
            self.look(share, peers, rule, now);
        } else if share.left <= 0 && (1..LOOKS).contains(&share.looks) {
            self.look(share, peers, rule, now);
        }
        let may = share.left > 0;
        if may {
            share.left -= (cost * PARTS) as i64;
            self.used.add(cost);
        }
        may
    }

    /// Counts from 0 again.
    pub(super) fn forget(&self) {
        for cell in [&self.asked, &self.used, &self.until, &self.at] {
            cell.set(0);
        }
    }

    #[inline(never)]
    fn look<'a>(
        &'a self,
        share: &mut Share,
        peers: impl Iterator<Item = &'a Account>,
        (per_second, at_once): (u64, u64),
        now: Tick,
    ) {
        let (mut used, mut asked) = (self.used.get(), self.asked.get());
        let (mut until, mut at) = (self.until.get(), self.at.get());
        let mut workers = 1;
        for peer in peers {
            workers += 1;
            used = used.wrapping_add(peer.used.get());
            asked = asked.wrapping_add(peer.asked.get());
            let theirs = (peer.until.get(), peer.at.get());
            let is_ahead = || theirs.0.wrapping_sub(until) as i64 > 0;
            if is_newer(theirs.1, at) || theirs.1 == at && is_ahead() {
                (until, at) = theirs;
            }
        }
        let spent = used.wrapping_mul(PARTS);
        let burst = (per_second / 8).max(at_once);
        let burst = burst.saturating_mul(PARTS) as i64;
        let left = match at {
            0 => burst,
            at => {
                let elapsed = now.since(Tick(at as u32)).min(LONGEST);
                let more = per_second.saturating_mul(elapsed.into()).min(1 << 62) as i64;
                let ahead = until.wrapping_sub(spent) as i64;
                ahead.max(-4 * burst).saturating_add(more).min(burst)
            }
        };
        self.until.set(spent.wrapping_add(left as u64));
        self.at.set(stamp(now));
        // A peer that forgot a client counts from 0 again.
        let ours = self.asked.get().wrapping_sub(share.asked).max(1);
        let all = asked.wrapping_sub(share.asked_of_all);
        let all = if all as i64 > 0 { all.max(ours) } else { ours };
        share.left = match left {
            ..=0 => 0,
            left => {
                let part = i128::from(left) * i128::from(ours) / i128::from(all);
                (part as i64).max(left / workers).max(1)
            }
        };
        // With nothing left, nothing comes before the next tick.
        share.looks = if left > 0 { share.looks + 1 } else { 0 };
        share.at = stamp(now);
        (share.asked, share.asked_of_all) = (self.asked.get(), asked);
    }
}

fn is_newer(one: u64, other: u64) -> bool {
    one != 0 && (other == 0 || Tick(one as u32).since(Tick(other as u32)) > 0)
}
