//! Sets of addresses given by prefixes: millions of them, a few memory accesses a question.
//!
//! A list of prefixes is resolved when the set is compiled (of those that contain an address the
//! longest decides) into the *edges* at which the answer changes, ascending. An address is in the
//! set when the number of edges at or below it is odd:
//!
//! ```text
//!  in   10.0.0.0/8, 192.0.2.0/25      edges  10.0.0.0  11.0.0.0  192.0.2.0  192.0.2.128
//!  out  10.7.0.0/16                          10.7.0.0  10.8.0.0                (6 in all)
//!
//!  top      [ first edge of each node below, 16 in a node ]            one node
//!  ..       [ ............ ] [ ............ ] ..                       one for 16 below
//!  bottom   [ 16 edges ] [ 16 edges ] [ 16 edges ] ..                  all edges
//! ```
//! Above the edges stands a static B+-tree: 16 keys to a node, which for IPv4 is a cache line,
//! and no pointers, for the children of node n are nodes 16n to 16n + 15. A question takes as
//! many steps as the tree has levels, each of one comparison with 16 keys at once and no branch:
//! 5 for a million edges, of which the upper three stay in the first-level cache.
//!
//! Why not a trie or a table of 2^24: their memory depends on how the prefixes lie, and a list
//! of hosts far apart (which is what a blacklist is) takes a trie of IPv6 some 400 bytes an
//! entry. Edges take at most two numbers a prefix whatever the list, and a sixteenth of that
//! for the tree: 8.5 bytes for IPv4, 34 for IPv6; lists of neighbouring networks take less.
#![forbid(unsafe_code)]

use std::hash::{DefaultHasher, Hash, Hasher};

#[cfg(test)]
mod tests;

/// An address as a number: `u32` for IPv4, `u128` for IPv6.
pub trait Number: Copy + Ord + Hash + std::fmt::Debug {
    /// Its bits: 32 or 128.
    const BITS: u8;
    /// The lowest address.
    const MIN: Self;
    /// The highest address.
    const MAX: Self;

    /// The first address of the network of `len` bits that this one is in, and the last.
    fn network(self, len: u8) -> (Self, Self);
    /// The next address; this is not the highest.
    fn next(self) -> Self;
}

macro_rules! number {
    ($($int:ty),+) => {$(
        impl Number for $int {
            const BITS: u8 = <$int>::BITS as u8;
            const MIN: $int = 0;
            const MAX: $int = <$int>::MAX;

            fn network(self, len: u8) -> ($int, $int) {
                let hosts = <$int>::MAX.checked_shr(len.into()).unwrap_or(0);
                (self & !hosts, self | hosts)
            }

            fn next(self) -> $int {
                self.wrapping_add(1)
            }
        }
    )+};
}

number!(u32, u128);

/// What a list says of the addresses of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<N> {
    /// Any address of it.
    pub network: N,
    /// Its length, bits: 0 to 32 or 128.
    pub len: u8,
    /// Whether its addresses are in the set. Of two entries for one network, in wins.
    pub is_in: bool,
}

/// Keys of a node.
const NODE: usize = 16;

#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Node<N>([N; NODE]);

impl<N: Number> Node<N> {
    /// How many keys are at most `of`.
    #[inline(always)]
    fn rank(&self, of: N) -> usize {
        let at_most = self.0.iter().map(|key| u32::from(*key <= of));
        at_most.sum::<u32>() as usize
    }
}

/// A set of addresses of one family, compiled; it never changes.
#[derive(Debug, Clone)]
pub struct PrefixSet<N> {
    /// All levels, the top first.
    nodes: Box<[Node<N>]>,
    /// Where each level begins among them, the top first.
    levels: Box<[u32]>,
    edges: usize,
    /// Of the edges: sets with the same ones are the same.
    digest: u64,
}

impl<N: Number> Default for PrefixSet<N> {
    fn default() -> Self {
        PrefixSet::of_edges(&[])
    }
}

/// Sets are compared by a 64-bit digest: a reload compares millions of entries at no cost.
impl<N> PartialEq for PrefixSet<N> {
    fn eq(&self, other: &Self) -> bool {
        (self.edges, self.digest) == (other.edges, other.digest)
    }
}

impl<N> Eq for PrefixSet<N> {}

impl<N: Number> PrefixSet<N> {
    /// The set that `entries`, in any order, describe: an address is in it when the longest
    /// network that contains it says so, and if none does, when `otherwise` says so.
    #[must_use]
    pub fn new(mut entries: Vec<Entry<N>>, otherwise: bool) -> PrefixSet<N> {
        for entry in &mut entries {
            entry.len = entry.len.min(N::BITS);
            entry.network = entry.network.network(entry.len).0;
        }
        // A network comes before those inside of it.
        entries.sort_unstable_by_key(|e| (e.network, e.len, !e.is_in));
        entries.dedup_by_key(|e| (e.network, e.len));
        let mut edges = Edges::default();
        edges.answer(N::MIN, otherwise);
        // Networks around the place that is looked at, the innermost last: where each ends, and
        // what it says. At most one for each length.
        let mut around: Vec<(N, bool)> = Vec::with_capacity(usize::from(N::BITS) + 1);
        let leave = |around: &mut Vec<(N, bool)>, edges: &mut Edges<N>| {
            let left = around.pop();
            if let Some((end, _)) = left.filter(|(end, _)| *end < N::MAX) {
                edges.answer(end.next(), around.last().map_or(otherwise, |a| a.1));
            }
        };
        for entry in &entries {
            let (first, last) = entry.network.network(entry.len);
            while around.last().is_some_and(|(end, _)| *end < first) {
                leave(&mut around, &mut edges);
            }
            around.push((last, entry.is_in));
            edges.answer(first, entry.is_in);
        }
        while !around.is_empty() {
            leave(&mut around, &mut edges);
        }
        PrefixSet::of_edges(&edges.at)
    }

    /// The set whose answer changes at each of `edges`, which ascend.
    fn of_edges(edges: &[N]) -> PrefixSet<N> {
        // Bottom up first: each level has the first key of every node below.
        let mut levels: Vec<Vec<Node<N>>> = Vec::new();
        let mut keys = edges.to_vec();
        while !keys.is_empty() {
            // What a node has no keys for is above every address but the highest.
            let node = |keys: &[N]| {
                let mut node = Node([N::MAX; NODE]);
                node.0[..keys.len()].copy_from_slice(keys);
                node
            };
            let nodes: Vec<Node<N>> = keys.chunks(NODE).map(node).collect();
            keys = match nodes.len() {
                1 => Vec::new(),
                _ => nodes.iter().map(|node| node.0[0]).collect(),
            };
            levels.push(nodes);
        }
        let mut begins = Vec::with_capacity(levels.len());
        let mut nodes = Vec::with_capacity(levels.iter().map(Vec::len).sum());
        for level in levels.iter().rev() {
            begins.push(nodes.len() as u32); // 2^32 nodes would be 2^36 edges
            nodes.extend_from_slice(level);
        }
        let mut digest = DefaultHasher::new();
        edges.hash(&mut digest);
        PrefixSet {
            nodes: nodes.into(),
            levels: begins.into(),
            edges: edges.len(),
            digest: digest.finish(),
        }
    }

    /// Whether `address` is in the set.
    #[inline]
    #[must_use]
    pub fn contains(&self, address: N) -> bool {
        if address == N::MAX {
            return self.edges % 2 == 1; // every edge is at or below it
        }
        let (mut at, mut rank) = (0, 0);
        for &level in &self.levels {
            let Some(node) = self.nodes.get(level as usize + at) else {
                return false; // the tree has all its nodes
            };
            rank = node.rank(address);
            at = at * NODE + rank.saturating_sub(1);
        }
        rank % 2 == 1 // nodes to the left have 16 edges each
    }

    /// Bytes of memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.nodes) + size_of_val(&*self.levels)
    }

    /// Places where the answer changes.
    #[must_use]
    pub fn edges(&self) -> usize {
        self.edges
    }

    /// Whether no address is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.edges == 0
    }
}

/// Edges as they are found, ascending.
#[derive(Debug)]
struct Edges<N> {
    at: Vec<N>,
    /// The answer behind the last one.
    is_in: bool,
}

impl<N> Default for Edges<N> {
    fn default() -> Self {
        Edges {
            at: Vec::new(),
            is_in: false,
        }
    }
}

impl<N: Number> Edges<N> {
    /// From `at` on this is the answer.
    fn answer(&mut self, at: N, is_in: bool) {
        if is_in != self.is_in {
            self.is_in = is_in;
            match self.at.last() {
                Some(last) if *last == at => drop(self.at.pop()), // twice is not at all
                _ => self.at.push(at),
            }
        }
    }
}
