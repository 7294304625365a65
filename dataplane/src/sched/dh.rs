//! Destination hashing: the virtual address names one of 256 buckets. For services with many
//! addresses (a transparent cache); elsewhere all connections go to one server.
//!
//! Linux ignores weights here; in Weir shares follow them. With equal weights the two agree.
#![forbid(unsafe_code)]

use super::{Candidate, Memory, Options, Table, View, buckets, hash};

pub(super) struct Rule;

impl super::Rule for Rule {
    fn prepare(servers: &[Candidate], _: Options) -> Table {
        Table::Buckets(buckets::in_turn(servers))
    }

    fn pick(view: View<'_>, _: &mut Memory) -> Option<usize> {
        let Table::Buckets(table) = view.table else {
            return None;
        };
        buckets::pick(view, table, hash::bucket(view.request.destination, 0))
    }
}
