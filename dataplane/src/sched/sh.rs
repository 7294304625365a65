//! Source hashing: the client's address, and with sh-port its port, names one of 256 buckets.
#![forbid(unsafe_code)]

use super::{Candidate, Flags, Memory, Options, Table, View, buckets, hash};

pub(super) struct Rule;

impl super::Rule for Rule {
    const FLAGS: Flags = Flags {
        port: Some("sh-port"),
        fallback: Some("sh-fallback"),
    };

    fn prepare(servers: &[Candidate], _: Options) -> Table {
        Table::Buckets(buckets::in_rows(servers))
    }

    fn pick(view: View<'_>, _: &mut Memory) -> Option<usize> {
        let Table::Buckets(table) = view.table else {
            return None;
        };
        let bucket = hash::bucket(view.request.source.ip(), view.hashed_port());
        buckets::pick(view, table, bucket)
    }
}
