//! Persistence templates of one worker: which server a client's connections to a service go to.
//!
//! A template lives at its *home*, the worker that owns a hash of what it is for, and each new
//! connection of the client asks there first: see `pipeline/persist.rs`. It lasts its service's
//! timeout from the last new connection on, and, as in LVS, longer while it *controls* one: past
//! its time it is armed again for [`REARMED`] seconds until none is left. Time is looked at when
//! somebody asks; a hand goes round and gives slots back.
//!
//! A count can be wrong by a message that was lost with its packet. Connections speak up about
//! once in their timeout, so a template past its time from which nothing is heard for longer than
//! any connection is silent, is let go.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use super::memory::{HugeArray, Pages};
use crate::types::{CoreId, ServerId, ServiceId, Tick};

#[cfg(test)]
mod tests;

/// For how long LVS arms a template again that still controls a connection, seconds.
pub const REARMED: u32 = 60;
/// Slots looked at to find one to give up in a full table.
const LOOKED_AT: u32 = 32;

/// What a template is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TemplateKey {
    /// The service, be it of a mark or of every port.
    pub service: ServiceId,
    /// The client's address and netmask, IPv4-mapped for IPv4.
    pub client: u128,
    /// What a persistence engine has read from the packet, hashed; 0 without.
    pub engine: u64,
}

impl TemplateKey {
    /// The key of clients that share the first `prefix` bits of `client`.
    #[must_use]
    pub fn new(service: ServiceId, client: IpAddr, prefix: u8, engine: u64) -> TemplateKey {
        let (bits, prefix) = match client {
            IpAddr::V4(client) => (0xffff << 32 | u128::from(u32::from(client)), 96 + prefix),
            IpAddr::V6(client) => (u128::from(client), prefix),
        };
        let mask = u128::MAX
            .checked_shl(128 - u32::from(prefix.min(128)))
            .unwrap_or(0);
        TemplateKey {
            service,
            client: bits & mask,
            engine,
        }
    }

    /// The client's network.
    #[must_use]
    pub fn client(&self) -> IpAddr {
        match self.client >> 32 == 0xffff {
            true => IpAddr::V4((self.client as u32).into()),
            false => IpAddr::V6(self.client.into()),
        }
    }
}

/// A template, as the connections that it controls know it: its home and its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TemplateRef {
    /// Where it lives.
    pub home: CoreId,
    /// Below 2^31.
    slot: u32,
    /// 24 bits, never 0: the slot may have been another template's.
    tag: u32,
    /// The template is assured, or is told so by this connection. See [`Heard`].
    pub(crate) assured: bool,
}

impl TemplateRef {
    /// As two words, not both 0.
    pub(super) fn packed(self) -> [u32; 2] {
        let assured = u32::from(self.assured) << 31;
        [self.slot | assured, u32::from(self.home.0) << 24 | self.tag]
    }

    pub(super) fn unpacked([slot, rest]: [u32; 2]) -> Option<TemplateRef> {
        (rest != 0).then_some(TemplateRef {
            home: CoreId((rest >> 24) as u8),
            slot: slot & !(1 << 31),
            tag: rest & TAG,
            assured: slot >> 31 != 0,
        })
    }
}

const TAG: u32 = 0xff_ffff;

/// What a connection lets its template know. With it goes whether the template is *assured* (IPVS's
/// word): a connection of its own was established, or in UDP answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It stands.
    Stands,
    /// It is gone.
    Gone,
    /// `drop_entry` took it: the last one of a template that is not assured takes that along.
    Shed,
    /// It did not open: a template that never had another goes with its last.
    Unused,
}

impl Heard {
    /// Of a connection whose timer record came up.
    #[must_use]
    pub fn stands(stands: bool) -> Heard {
        match stands {
            true => Heard::Stands,
            false => Heard::Gone,
        }
    }
}

/// One template.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Template {
    client: u128,
    engine: u64,
    service: u32,
    server: u32,
    /// Connections that it controls.
    controls: u32,
    /// 0 while the slot is free.
    tag: u32,
    deadline: Tick,
    /// When anything was last heard of what it controls.
    heard: Tick,
    /// The next of its bucket, or of the free ones.
    next: u32,
    /// How many bits of the client's address count.
    prefix: u8,
    assured: bool,
    /// A connection of its own was heard of.
    used: bool,
}

impl Template {
    fn is(&self, key: &TemplateKey) -> bool {
        self.client == key.client && self.engine == key.engine && self.service == key.service.0
    }

    /// Ticks until it runs out, or until it is armed again for what it controls.
    fn left(&self, now: Tick) -> u32 {
        match self.deadline.reached(now) {
            false => self.deadline.since(now),
            true => {
                let rearmed = Tick::seconds(REARMED);
                rearmed - now.since(self.deadline) % rearmed
            }
        }
    }

    fn stands(&self, silence: u32, now: Tick) -> bool {
        !self.deadline.reached(now) || self.controls > 0 && now.since(self.heard) <= silence
    }
}

/// A template as listings show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TemplateView {
    /// What it is for.
    pub key: TemplateKey,
    /// The server.
    pub server: ServerId,
    /// Ticks until it runs out, unless a connection comes; while it controls one, until it is
    /// armed again.
    pub expires: u32,
    /// Connections that it controls.
    pub controls: u32,
    /// How many bits of the client's address count.
    pub prefix: u8,
    /// One of its connections was established or answered.
    pub assured: bool,
}

/// The templates of one worker.
pub struct Templates {
    me: CoreId,
    slots: HugeArray<Template>,
    buckets: HugeArray<u32>,
    secret: [u64; 2],
    free: u32,
    fresh: u32,
    used: u32,
    /// Slots are looked at from here on when time has passed.
    hand: u32,
    /// And from here on by `drop_entry`.
    shed_at: u32,
    /// What the next template is tagged with.
    tag: u32,
    /// Longer than a connection is silent, ticks.
    pub(crate) silence: u32,
    /// Now, as the turn has it.
    pub(crate) now: Tick,
}

impl Templates {
    /// Room for `max` templates of worker `me`.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn new(me: CoreId, max: u32, secret: [u64; 2]) -> std::io::Result<Templates> {
        Ok(Templates {
            me,
            // Memory that is never used is never touched.
            slots: HugeArray::new(max.max(1) as usize, Pages::Plain)?,
            buckets: HugeArray::new((max.max(2) as usize).next_power_of_two(), Pages::Plain)?,
            secret,
            free: 0,
            fresh: 0,
            used: 0,
            hand: 0,
            shed_at: 0,
            tag: 1,
            silence: u32::MAX,
            now: Tick(0),
        })
    }

    /// Templates that stand, and such whose time nobody has looked at.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.used
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    fn bucket(&self, key: &TemplateKey) -> usize {
        let fold = |a: u64, b: u64| {
            let product = u128::from(a) * u128::from(b);
            (product >> 64) as u64 ^ product as u64
        };
        let (high, low) = ((key.client >> 64) as u64, key.client as u64);
        let client = fold(high ^ self.secret[0], low ^ self.secret[1]);
        let rest = u64::from(key.service.0) << 32 ^ key.engine ^ self.secret[1];
        fold(client ^ self.secret[0], rest | 1) as usize & (self.buckets.len() - 1)
    }

    /// Links hold a slot's number plus one: 0, as fresh memory has it, is none.
    fn link(slot: u32) -> u32 {
        slot + 1
    }

    /// The server that the client's template names, and the template; it is not asked whether
    /// that server may be used.
    pub fn find(&mut self, key: &TemplateKey) -> Option<(TemplateId, ServerId)> {
        let mut at = self.buckets[self.bucket(key)];
        while at != 0 {
            let slot = at - 1;
            let template = &self.slots[slot as usize];
            if template.is(key) {
                if template.stands(self.silence, self.now) {
                    return Some((TemplateId(slot), ServerId(template.server)));
                }
                self.remove(slot);
                return None;
            }
            at = template.next;
        }
        None
    }

    /// A new template for clients of `prefix` bits, in the place of another one if the table is
    /// full: then that one is the second of the answer's.
    pub fn insert(
        &mut self,
        key: &TemplateKey,
        prefix: u8,
        server: ServerId,
    ) -> (TemplateId, bool) {
        let evicted = self.free == 0 && self.fresh as usize == self.slots.len();
        if evicted {
            self.evict();
        }
        let slot = match self.free {
            0 => {
                self.fresh += 1;
                self.fresh - 1
            }
            free => {
                self.free = self.slots[free as usize - 1].next;
                free - 1
            }
        };
        let bucket = self.bucket(key);
        self.slots[slot as usize] = Template {
            client: key.client,
            engine: key.engine,
            service: key.service.0,
            server: server.0,
            controls: 0,
            tag: self.tag,
            deadline: self.now,
            heard: self.now,
            next: self.buckets[bucket],
            prefix,
            assured: false,
            used: false,
        };
        self.tag = match self.tag {
            TAG => 1,
            tag => tag + 1,
        };
        self.buckets[bucket] = Self::link(slot);
        self.used += 1;
        (TemplateId(slot), evicted)
    }

    /// A new connection goes by this template: it counts it, and lasts `ticks` from now.
    pub fn control(&mut self, TemplateId(slot): TemplateId, ticks: u32) -> TemplateRef {
        let now = self.now;
        let template = &mut self.slots[slot as usize];
        template.controls += 1;
        template.deadline = now.after(ticks);
        template.heard = now;
        TemplateRef {
            home: self.me,
            slot,
            tag: template.tag,
            assured: template.assured,
        }
    }

    /// Clients are masked to `prefix` bits from now on; this template's are those that share its
    /// network of that size.
    pub fn masks(&mut self, TemplateId(slot): TemplateId, prefix: u8) {
        self.slots[slot as usize].prefix = prefix;
    }

    /// Forgets a template; what it controlled goes on by itself.
    pub fn forget(&mut self, TemplateId(slot): TemplateId) {
        self.remove(slot);
    }

    /// What a connection that it controls lets it know; whether that was the template's end.
    pub fn hear(&mut self, of: TemplateRef, heard: Heard) -> bool {
        let now = self.now;
        let Some(template) = self.slots.get_mut(of.slot as usize) else {
            return false;
        };
        if template.tag != of.tag || of.home != self.me {
            return false; // long gone
        }
        template.heard = now;
        template.assured |= of.assured;
        template.used |= heard != Heard::Unused;
        if heard == Heard::Stands || template.controls == 0 {
            return false;
        }
        template.controls -= 1;
        if template.controls > 0 {
            return false;
        }
        let ends = match heard {
            Heard::Shed => !template.assured,
            Heard::Unused => !template.used,
            Heard::Stands | Heard::Gone => false,
        };
        if ends {
            self.remove(of.slot);
            return true;
        }
        if template.deadline.reached(now) {
            // Armed again each time that its time was up; the last time lasts on.
            let rearmed = Tick::seconds(REARMED);
            let over = now.since(template.deadline);
            let times = over / rearmed + 1;
            template.deadline = template.deadline.after(times * rearmed);
        }
        false
    }

    /// Gives slots back whose templates have run out, looking at `budget` of them.
    pub fn expire(&mut self, budget: u32) {
        for _ in 0..budget.min(self.fresh) {
            self.hand = if self.hand + 1 < self.fresh {
                self.hand + 1
            } else {
                0
            };
            let template = &self.slots[self.hand as usize];
            if template.tag != 0 && !template.stands(self.silence, self.now) {
                self.remove(self.hand);
            }
        }
    }

    /// `drop_entry`: forgets, among the next `slots`, those that control nothing and are not
    /// assured, and that `may_go`; how many. Each slot comes up once in a round.
    pub fn shed(&mut self, slots: u32, may_go: impl Fn(ServiceId) -> bool) -> u32 {
        let mut shed = 0;
        for _ in 0..slots.min(self.fresh) {
            self.shed_at = if self.shed_at + 1 < self.fresh {
                self.shed_at + 1
            } else {
                0
            };
            let template = &self.slots[self.shed_at as usize];
            let lazy = template.tag != 0 && template.controls == 0 && !template.assured;
            if lazy && may_go(ServiceId(template.service)) {
                self.remove(self.shed_at);
                shed += 1;
            }
        }
        shed
    }

    /// Slots that were ever used: what a whole round has.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.fresh
    }

    /// Gives up the one that would run out first, of some that control nothing, or of some.
    fn evict(&mut self) {
        let mut worst: Option<(bool, u32, u32)> = None;
        for _ in 0..LOOKED_AT {
            self.hand = if self.hand + 1 < self.fresh {
                self.hand + 1
            } else {
                0
            };
            let template = &self.slots[self.hand as usize];
            if template.tag != 0 {
                let rank = (
                    template.controls > 0,
                    template.deadline.since(self.now),
                    self.hand,
                );
                worst = Some(worst.map_or(rank, |worst| worst.min(rank)));
            }
        }
        if let Some((_, _, slot)) = worst {
            self.remove(slot);
        }
    }

    fn remove(&mut self, slot: u32) {
        let template = self.slots[slot as usize];
        let key = TemplateKey {
            service: ServiceId(template.service),
            client: template.client,
            engine: template.engine,
        };
        let bucket = self.bucket(&key);
        if self.buckets[bucket] == Self::link(slot) {
            self.buckets[bucket] = template.next;
        } else {
            let mut at = self.buckets[bucket];
            while at != 0 {
                let before = &mut self.slots[at as usize - 1];
                if before.next == Self::link(slot) {
                    before.next = template.next;
                    break;
                }
                at = before.next;
            }
        }
        let freed = &mut self.slots[slot as usize];
        (freed.tag, freed.next) = (0, self.free);
        self.free = Self::link(slot);
        self.used -= 1;
    }

    /// Templates among the `scan` slots from `cursor` on, and where to go on; `None` when that was
    /// the last.
    pub fn page(
        &self,
        cursor: u32,
        scan: u32,
        mut each: impl FnMut(TemplateView) -> bool,
    ) -> Option<u32> {
        let end = cursor.saturating_add(scan).min(self.fresh);
        for at in cursor..end {
            let t = &self.slots[at as usize];
            if t.tag == 0 || !t.stands(self.silence, self.now) {
                continue;
            }
            let view = TemplateView {
                key: TemplateKey {
                    service: ServiceId(t.service),
                    client: t.client,
                    engine: t.engine,
                },
                server: ServerId(t.server),
                expires: t.left(self.now),
                controls: t.controls,
                prefix: t.prefix,
                assured: t.assured,
            };
            if !each(view) {
                return Some(at);
            }
        }
        (end < self.fresh).then_some(end)
    }
}

/// A template's place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TemplateId(u32);
