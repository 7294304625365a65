//! What a worker does about floods: whom it shuts out, and what gives way when memory is short.
//!
//! LVS's defence strategies, by their sysctls ([`Rules`]): looked at once a second, as there.
//! Memory is the connection table's: that is what a flood takes here. Nothing is drawn by lot:
//! one in n is every n-th, so that a seed replays everything.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::blacklist::Blacklist;
use crate::conn::state::{Rules, State};
use crate::types::Tick;

/// Between two looks at the memory.
const LOOK: u32 = Tick::seconds(1);
/// `drop_entry` goes round the table in so many looks.
const ROUND: u32 = 32;
/// An established connection is dropped by `drop_entry` after so much silence at least ...
const SILENCE: u32 = Tick::seconds(60);
/// ... and if it had no more packets than this from its client.
const FEW_PACKETS: usize = 8;

/// One worker's defence.
#[derive(Debug)]
pub(crate) struct Defense {
    blacklist: Arc<Blacklist>,
    /// Every so-many-th packet is dropped; 0 is none. And when the next is due.
    drop_rate: u32,
    until_drop: u32,
    /// Whether an opening has more to ask than its service's own list.
    guards: bool,
    next_look: Tick,
    /// Standing connections that are refused now are being looked for: the place, and whether to
    /// begin again after it.
    pub(crate) weeding: Option<Place>,
    pub(crate) weed_again: bool,
    /// Where `drop_entry` goes on, and how many entries it has still to look at.
    pub(crate) shed_at: Place,
    pub(crate) shed_left: u32,
    /// And how many templates.
    pub(crate) templates_left: u32,
    /// For each number of packets: connections seen since one was dropped.
    spared: [u8; FEW_PACKETS + 1],
}

/// A place in a worker's two tables of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    V4(u32),
    V6(u32),
}

impl Place {
    /// The beginning.
    pub(crate) const FIRST: Place = Place::V4(0);
}

impl Defense {
    pub(crate) fn new(now: Tick) -> Defense {
        Defense {
            blacklist: Blacklist::empty(),
            drop_rate: 0,
            until_drop: 0,
            guards: false,
            next_look: now,
            weeding: None,
            weed_again: false,
            shed_at: Place::FIRST,
            shed_left: 0,
            templates_left: 0,
            spared: [0; FEW_PACKETS + 1],
        }
    }

    /// Whether something is to be done at `now`.
    #[inline]
    pub(crate) fn is_due(&self, now: Tick) -> bool {
        self.next_look.reached(now) || self.weeding.is_some() || self.sheds()
    }

    /// Looks at the memory, if it is time: of a table with `entries` places `free` are left, and
    /// fewer than `enough` are few. Beside it there are `templates`.
    pub(crate) fn look(
        &mut self,
        rules: &Rules,
        (entries, free, enough): (u32, u32, u32),
        templates: u32,
        now: Tick,
    ) {
        if !self.next_look.reached(now) {
            return;
        }
        self.next_look = now.after(LOOK);
        let rate = rules.drop_rate(free, enough);
        if rate != self.drop_rate {
            (self.drop_rate, self.until_drop) = (rate, rate);
        }
        self.note_guards();
        if rules.drops_entries(free < enough) {
            self.shed_left = (entries / ROUND).max(1);
            self.templates_left = templates.div_ceil(ROUND);
        }
    }

    /// Whether `drop_entry` has entries or templates to look at.
    #[inline]
    pub(crate) fn sheds(&self) -> bool {
        self.shed_left > 0 || self.templates_left > 0
    }

    /// Has the next turn look at the memory: the rules have changed.
    pub(crate) fn look_soon(&mut self, now: Tick) {
        self.next_look = now;
    }

    /// Uses another blacklist; the old one is to be freed by control.
    pub(crate) fn use_blacklist(&mut self, blacklist: Arc<Blacklist>) -> Arc<Blacklist> {
        if !blacklist.is_empty() && *blacklist != *self.blacklist {
            self.weed();
        }
        let old = std::mem::replace(&mut self.blacklist, blacklist);
        self.note_guards();
        old
    }

    pub(crate) fn blacklist(&self) -> &Blacklist {
        &self.blacklist
    }

    /// Has standing connections looked at, from the first on.
    pub(crate) fn weed(&mut self) {
        match self.weeding {
            None => self.weeding = Some(Place::FIRST),
            Some(_) => self.weed_again = true,
        }
    }

    fn note_guards(&mut self) {
        self.guards = self.drop_rate != 0 || !self.blacklist.is_empty();
    }

    #[inline]
    pub(crate) fn guards(&self) -> bool {
        self.guards
    }

    /// Whether `drop_packet` takes this one.
    pub(crate) fn drops_this(&mut self) -> bool {
        if self.drop_rate == 0 {
            return false;
        }
        self.until_drop = self.until_drop.saturating_sub(1);
        let due = self.until_drop == 0;
        if due {
            self.until_drop = self.drop_rate;
        }
        due
    }

    /// Whether `drop_entry` takes a connection in `state` that was `silent` for so many ticks and
    /// had `packets` from its client. Half-open ones go; others go rarely, the rarer the more
    /// packets they had: one in n of those with n.
    pub(crate) fn drops_entry(&mut self, state: State, silent: u32, packets: u16) -> bool {
        match state {
            State::SynRecv | State::SynAck | State::SctpInit | State::SctpInit1 => true,
            State::Established | State::SctpEstablished | State::Udp | State::Icmp => {
                let rate = usize::from(packets);
                let Some(spared) = self.spared.get_mut(rate).filter(|_| rate > 0) else {
                    return false;
                };
                if silent < SILENCE {
                    return false;
                }
                *spared += 1;
                let due = usize::from(*spared) >= rate;
                if due {
                    *spared = 0;
                }
                due
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_n_is_every_nth() {
        let mut d = Defense::new(Tick(0));
        let rules = Rules {
            drop_packet: 3,
            am_droprate: 10,
            ..Rules::default()
        };
        d.look(&rules, (1000, 1000, 125), 0, Tick(0));
        assert!(d.guards());
        let dropped: Vec<u32> = (1..=30).filter(|_| d.drops_this()).collect();
        assert_eq!(dropped, [10, 20, 30]);
    }

    /// amemthresh / (amemthresh - available), and nothing while there is enough.
    #[test]
    fn the_fewer_places_the_more_is_dropped() {
        let rules = Rules {
            drop_packet: 1,
            ..Rules::default()
        };
        let enough = rules.enough_free(8000, 4);
        assert_eq!(enough, 1000);
        for (free, rate) in [
            (1000, 0),
            (999, 1000),
            (900, 10),
            (750, 4),
            (500, 2),
            (0, 2), // LVS would drop all
        ] {
            assert_eq!(rules.drop_rate(free, enough), rate, "{free} free");
        }
        let own = Rules {
            amemthresh: 800,
            ..rules
        };
        assert_eq!(own.enough_free(8000, 4), 200);
    }

    #[test]
    fn the_modes_of_lvs() {
        for (mode, plenty, short) in [
            (0, false, false),
            (1, false, true),
            (2, false, true),
            (3, true, true),
        ] {
            let rules = Rules {
                secure_tcp: mode,
                drop_entry: mode,
                ..Rules::default()
            };
            assert_eq!((rules.secure(false), rules.secure(true)), (plenty, short));
            let drops = (rules.drops_entries(false), rules.drops_entries(true));
            assert_eq!(drops, (plenty, short));
        }
    }

    #[test]
    fn entries_with_many_packets_stay_and_those_with_few_go_rarely() {
        let mut d = Defense::new(Tick(0));
        assert!(d.drops_entry(State::SynRecv, 0, 1));
        for (packets, dropped) in [(0, 0), (1, 40), (2, 20), (8, 5), (9, 0)] {
            let n = (0..40).filter(|_| d.drops_entry(State::Established, SILENCE, packets));
            assert_eq!(n.count(), dropped, "{packets} packets");
        }
        assert!(!d.drops_entry(State::Established, SILENCE - 1, 1));
        assert!(!d.drops_entry(State::TimeWait, SILENCE, 1));
    }
}
