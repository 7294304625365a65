//! What a few connections need beside their entry: who the client is, told to its server; what
//! their two handshakes, or a helper, do to TCP's numbers.
//!
//! A record is taken when such a connection opens and given back when its work is done, or with
//! the connection. There are as many as connections, so there is always one; memory that was
//! never used was never touched.
#![forbid(unsafe_code)]

use super::help::HelpRecord;
use super::memory::{HugeArray, Pages};
use crate::forward::carrier::ClientAddress;
use crate::forward::splice::Splice;
use crate::types::Tick;

/// A record's place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SideId(pub(super) u32);

/// What is remembered of one connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    /// How its server is told the client's address.
    pub(crate) carrier: ClientAddress,
    /// What has happened so far.
    pub(crate) seen: Seen,
    /// Bytes put in front of what the client sends: what its numbers grow by.
    pub(crate) inserted: u8,
    /// UDP: datagrams that carried the address.
    pub(crate) told: u8,
    /// TCP: the number of the client's first byte, as it counts.
    pub(crate) client_start: u32,
    /// TCP: the number of the server's first byte.
    pub(crate) server_start: u32,
    /// When the inserted bytes were sent last.
    pub(crate) sent_at: Tick,
    /// TCP: where its two handshakes differ, if it had two.
    pub(crate) splice: Splice,
    /// TCP: a helper reads it (FTP); see [`SideTable::help`].
    pub(crate) helped: bool,
    /// The next free one, while this one is free.
    next: u32,
}

/// What has happened on a connection that carries its client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Seen(u8);

impl Seen {
    /// The server's SYN-ACK.
    pub(crate) const SYN_ACK: Seen = Seen(1);
    /// The inserted bytes went out.
    pub(crate) const SENT: Seen = Seen(2);
    /// The client's first data.
    pub(crate) const DATA: Seen = Seen(4);
    /// The server acknowledged something since, but not the inserted bytes.
    pub(crate) const LACKING: Seen = Seen(8);
    /// The server has all of the inserted bytes.
    pub(crate) const ACKED: Seen = Seen(16);
    /// The stream is so far on that the numbers of the inserted bytes may come again.
    pub(crate) const FAR: Seen = Seen(32);

    #[inline]
    pub(crate) fn has(self, other: Seen) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) fn set(&mut self, other: Seen) {
        self.0 |= other.0;
    }

    pub(crate) fn clear(&mut self, other: Seen) {
        self.0 &= !other.0;
    }
}

const NIL: u32 = u32::MAX;

/// The records of one worker.
pub(crate) struct SideTable {
    records: HugeArray<Record>,
    /// Beside each, for those that a helper reads: three times as large, and few.
    helps: HugeArray<HelpRecord>,
    free: u32,
    fresh: u32,
    used: u32,
}

impl SideTable {
    /// A table of `max` records.
    pub(crate) fn new(max: u32) -> std::io::Result<SideTable> {
        Ok(SideTable {
            // Never from the reserved huge pages: few of them may ever be used.
            records: HugeArray::new(max as usize, Pages::Plain)?,
            helps: HugeArray::new(max as usize, Pages::Plain)?,
            free: NIL,
            fresh: 0,
            used: 0,
        })
    }

    /// A new record, and where it is; `None` when all are taken.
    pub(crate) fn take(&mut self, carrier: ClientAddress, now: Tick) -> Option<SideId> {
        let at = match self.free {
            NIL if (self.fresh as usize) < self.records.len() => {
                self.fresh += 1;
                self.fresh - 1
            }
            NIL => return None,
            free => {
                self.free = self.records[free as usize].next;
                free
            }
        };
        self.used += 1;
        self.records[at as usize] = Record {
            carrier,
            seen: Seen::default(),
            inserted: 0,
            told: 0,
            client_start: 0,
            server_start: 0,
            sent_at: now,
            splice: Splice::default(),
            helped: false,
            next: NIL,
        };
        Some(SideId(at))
    }

    /// Takes a record back; its connection must no longer name it.
    pub(crate) fn give_back(&mut self, id: SideId) {
        let record = &mut self.records[id.0 as usize];
        record.splice = Splice::default(); // what waits for its connection waits for nobody
        record.next = self.free;
        self.free = id.0;
        self.used -= 1;
    }

    /// Records in use.
    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    /// The record.
    #[inline]
    pub(crate) fn get_mut(&mut self, id: SideId) -> &mut Record {
        &mut self.records[id.0 as usize]
    }

    /// Has a helper read the connection from now on.
    pub(crate) fn be_helped(&mut self, id: SideId) {
        self.records[id.0 as usize].helped = true;
        self.helps[id.0 as usize] = HelpRecord::default();
    }

    /// What its helper remembers.
    pub(crate) fn help(&mut self, id: SideId) -> &mut HelpRecord {
        &mut self.helps[id.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_asked_for_and_each_once() {
        let mut t = SideTable::new(3).unwrap();
        let take = |t: &mut SideTable| t.take(ClientAddress::toa, Tick(0));
        let all: Vec<_> = (0..3).map(|_| take(&mut t).unwrap()).collect();
        assert_eq!(all, [SideId(0), SideId(1), SideId(2)]);
        assert_eq!((take(&mut t), t.used()), (None, 3));
        t.get_mut(SideId(1)).seen.set(Seen::ACKED);
        t.give_back(SideId(1));
        t.give_back(SideId(0));
        assert_eq!(take(&mut t), Some(SideId(0)));
        assert_eq!(take(&mut t), Some(SideId(1)));
        assert_eq!(
            t.get_mut(SideId(1)).seen,
            Seen::default(),
            "nothing is left"
        );
        assert_eq!((take(&mut t), t.used()), (None, 3));
    }
}
