//! Round robin: each server in turn. One that is drained or full is passed over.
#![forbid(unsafe_code)]

use super::{Memory, Table, View};
use crate::service::Candidate;

pub(super) struct Rule;

impl super::Rule for Rule {
    /// Goes on behind the server picked last, wherever that is now; where it is gone, behind the
    /// one before it.
    fn adopt(memory: &mut Memory, before: &[Candidate], servers: &[Candidate], _: &Table) {
        if before.is_empty() {
            return;
        }
        let done = before.get(..memory.next as usize).unwrap_or(before);
        let place = |gone: &Candidate| servers.iter().position(|s| s.id == gone.id);
        memory.next = done
            .iter()
            .rev()
            .find_map(place)
            .map_or(0, |at| at as u32 + 1);
    }

    fn pick(view: View<'_>, memory: &mut Memory) -> Option<usize> {
        let n = view.servers.len();
        let next = (memory.next as usize).min(n);
        let at = (next..n).chain(0..next).find(|&at| view.available(at))?;
        memory.next = at as u32 + 1;
        Some(at)
    }
}
