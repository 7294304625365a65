//! Round robin: each server in turn. A server with weight 0 is passed over.
#![forbid(unsafe_code)]

use super::{Cursor, View};

pub(super) fn pick(view: View<'_>, cursor: &mut Cursor) -> Option<usize> {
    let n = view.servers.len();
    let start = cursor.next as usize;
    let at = (0..n)
        .map(|i| (start + i) % n)
        .find(|&at| view.servers[at].weight > 0)?;
    cursor.next = (at + 1) as u32;
    Some(at)
}
