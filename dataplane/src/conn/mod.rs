//! The connection table of one worker: entries, an index by both directions' keys, timers.
//!
//! Bounded, taken at start, owned by one core. One [`Conn`] of 64 bytes serves both directions
//! of a flow; the index (`index`) finds it by the key of either; the wheel
//! (`wheel`) finds what has run out, lazily: a packet only writes a deadline.
//! All told some 90 bytes a connection (`perf memory` measures it).
#![deny(unsafe_code)]

mod controlled;
pub mod entry;
mod hash;
pub(crate) mod help;
mod index;
#[allow(unsafe_code)]
mod memory;
pub(crate) mod side;
pub mod state;
mod table;
pub mod templates;
#[cfg(test)]
mod tests;
mod wheel;

pub use entry::{Conn, ConnId};
pub(crate) use hash::KeyedHash;
pub use memory::Pages;
pub(crate) use table::Guess;
pub use table::{Class, ConnTable, Eviction, Hit, Inserted, TableFull};
