//! What differs between IPv4 and IPv6 on a packet's way: the pipeline is compiled for each.
#![forbid(unsafe_code)]

use crate::conn::state::{Direction, Rules};
use crate::conn::{Conn, ConnTable};
use crate::forward::{Part, fullnat};
use crate::lip::LocalPorts;
use crate::packet::{Flow, Key, Key4, Key6};
use crate::route::Reach;

/// One worker's connections of one kind of key, and the local ports for new ones.
pub(crate) struct Side<K: Key> {
    pub(crate) conns: ConnTable<K>,
    pub(crate) local_ports: LocalPorts<K>,
}

/// All connections of one worker.
pub(crate) struct Sides {
    pub(crate) v4: Side<Key4>,
    /// IPv6, and those with one side in either family.
    pub(crate) v6: Side<Key6>,
}

impl Sides {
    /// Whether either table is nearly full.
    #[inline]
    pub(crate) fn are_short(&self, rules: &Rules, workers: u8) -> bool {
        let short = |capacity, free| free < rules.enough_free(capacity, workers);
        let (v4, v6) = (&self.v4.conns, &self.v6.conns);
        short(v4.capacity(), v4.free()) || short(v6.capacity(), v6.free())
    }

    /// The entries of both tables; then, of the one that is nearer to being full, how many are
    /// free and how many would be enough.
    pub(crate) fn memory(&self, rules: &Rules, workers: u8) -> (u32, u32, u32) {
        let of = |capacity, free| (free, rules.enough_free(capacity, workers));
        let (v4, v6) = (&self.v4.conns, &self.v6.conns);
        let sides = [of(v4.capacity(), v4.free()), of(v6.capacity(), v6.free())];
        let lacking = |(free, enough): &(u32, u32)| i64::from(*enough) - i64::from(*free);
        let (free, enough) = match lacking(&sides[0]) >= lacking(&sides[1]) {
            true => sides[0],
            false => sides[1],
        };
        (v4.capacity() + v6.capacity(), free, enough)
    }

    /// Connections standing.
    pub(crate) fn len(&self) -> u64 {
        u64::from(self.v4.conns.len()) + u64::from(self.v6.conns.len())
    }
}

/// A family as the pipeline sees it.
pub(crate) trait Family: Key {
    /// Its connections.
    fn side(sides: &Sides) -> &Side<Self>;
    /// Its connections, to be changed.
    fn side_mut(sides: &mut Sides) -> &mut Side<Self>;
    /// New addresses and ports for a packet of `conn` that goes in direction `dir`.
    fn rewrite(frame: &mut [u8], flow: &Flow<Self>, conn: &Conn<Self>, dir: Direction);
    /// The same for a TCP or UDP packet whose headers are where they nearly always are, and both
    /// MAC addresses; false, and nothing changed, where they are not.
    fn rewrite_common(
        frame: &mut [u8],
        flow: &Flow<Self>,
        conn: &Conn<Self>,
        dir: Direction,
        reach: Reach,
    ) -> bool;
    /// The same for a part of a datagram.
    fn rewrite_part(
        frame: &mut [u8],
        flow: &Flow<Self>,
        conn: &Conn<Self>,
        dir: Direction,
        part: &Part,
    );
    /// The key among the IPv6 ones.
    fn widened(&self) -> Key6;
    /// The key of this family that `key` stands for.
    fn narrowed(key: &Key6) -> Option<Self>;
}

impl Family for Key4 {
    #[inline]
    fn side(sides: &Sides) -> &Side<Key4> {
        &sides.v4
    }

    #[inline]
    fn side_mut(sides: &mut Sides) -> &mut Side<Key4> {
        &mut sides.v4
    }

    #[inline(always)]
    fn rewrite(frame: &mut [u8], flow: &Flow<Key4>, conn: &Conn<Key4>, dir: Direction) {
        fullnat::rewrite4(frame, flow, conn, dir);
    }

    #[inline(always)]
    fn rewrite_common(
        frame: &mut [u8],
        flow: &Flow<Key4>,
        conn: &Conn<Key4>,
        dir: Direction,
        reach: Reach,
    ) -> bool {
        let Some(headers) = frame.first_chunk_mut() else {
            return false;
        };
        reach.address(headers);
        fullnat::rewrite_common4(headers, flow.key.proto(), conn, dir);
        true
    }

    fn rewrite_part(
        frame: &mut [u8],
        flow: &Flow<Key4>,
        conn: &Conn<Key4>,
        dir: Direction,
        part: &Part,
    ) {
        fullnat::rewrite_part4(frame, flow, conn, dir, part);
    }

    fn widened(&self) -> Key6 {
        (*self).into()
    }

    fn narrowed(key: &Key6) -> Option<Key4> {
        key.unmapped()
    }
}

impl Family for Key6 {
    #[inline]
    fn side(sides: &Sides) -> &Side<Key6> {
        &sides.v6
    }

    #[inline]
    fn side_mut(sides: &mut Sides) -> &mut Side<Key6> {
        &mut sides.v6
    }

    #[inline(always)]
    fn rewrite(frame: &mut [u8], flow: &Flow<Key6>, conn: &Conn<Key6>, dir: Direction) {
        fullnat::rewrite6(frame, flow, conn, dir);
    }

    #[inline(always)]
    fn rewrite_common(
        frame: &mut [u8],
        flow: &Flow<Key6>,
        conn: &Conn<Key6>,
        dir: Direction,
        reach: Reach,
    ) -> bool {
        reach.address(frame);
        fullnat::rewrite6(frame, flow, conn, dir);
        true
    }

    fn rewrite_part(
        frame: &mut [u8],
        flow: &Flow<Key6>,
        conn: &Conn<Key6>,
        dir: Direction,
        part: &Part,
    ) {
        fullnat::rewrite_part6(frame, flow, conn, dir, part);
    }

    fn widened(&self) -> Key6 {
        *self
    }

    fn narrowed(key: &Key6) -> Option<Key6> {
        Some(*key)
    }
}
