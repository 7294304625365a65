//! Every counter on one page, for people: `weir counters --reference`, docs/counters.md.
#![forbid(unsafe_code)]

use std::fmt::Write;

use weir_dataplane::counters::{DropReason, WorkerCounters};

use super::{TWIN_FRAMES, cells, drop_help};
use crate::net::TwinDrop;

const HEAD: &str = "\
# Counters

`weir counters` shows those that are not zero, `--all` all of them, `--json` each worker's own
values as well; `GET /v1/counters` is the same document. They count from the start of the process.

**The books.** Every frame is in exactly one column, and `weir counters` adds them up:

```text
rx_packets + from_kernel + generated = tx_packets + to_kernel + all drops + held
```

Held are frames that wait (`parked`) and frames on their way between workers (`handoff_out` less
`handoff_in`). While frames move the sums are read one after another and may differ by a few.

**Connections.** `conns_opened` is the sum of those that stand (`conns`) and all that ended, each
counted once: run out (`conns_expired`), evicted from a full table (`conns_evicted`), replaced by a
new one (`conns_reused`), shut out (`conns_denied`), taken by `drop_entry` (`conns_shed`), dismissed
with their server, or given up early for their local port (`lip_early_reuse`).

*This page is written by `weir counters --reference`; a test holds it to the code.*
";

/// The page.
pub(crate) fn reference() -> String {
    let mut page = HEAD.to_owned();
    let counters = WorkerCounters::new(0);
    section(&mut page, "Workers", "");
    for (name, help, _) in cells(&counters) {
        line(&mut page, name, help);
    }
    let about = "Why a frame was not forwarded: `drop.` and the name in `weir counters`.";
    section(&mut page, "Drops", about);
    for reason in DropReason::ALL {
        line(&mut page, &format!("drop.{}", reason.name()), reason.help());
    }
    let about = "Of each port's kernel twin: `twin.`, the port's name, and the name.";
    section(&mut page, "Kernel twins", about);
    for (name, help) in TWIN_FRAMES {
        line(&mut page, name, help);
    }
    for reason in TwinDrop::ALL {
        line(&mut page, reason.name(), drop_help(reason));
    }
    page
}

fn section(page: &mut String, title: &str, about: &str) {
    let _ = write!(page, "\n## {title}\n\n");
    if !about.is_empty() {
        let _ = write!(page, "{about}\n\n");
    }
    page.push_str("| counter | what it counts |\n|---|---|\n");
}

fn line(page: &mut String, name: &str, help: &str) {
    let help = help.replace('|', "\\|");
    let _ = writeln!(page, "| `{name}` | {help} |");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new counter or drop reason needs its line.
    #[test]
    fn every_counter_has_its_line_in_the_documents() {
        let page = include_str!("../../../../docs/counters.md");
        let reference = reference();
        let missing: Vec<&str> = reference
            .lines()
            .filter(|line| line.starts_with("| `") && !page.contains(*line))
            .collect();
        assert!(
            missing.is_empty(),
            "docs/counters.md is without these lines; `weir counters --reference > \
             docs/counters.md` writes it:\n{}",
            missing.join("\n")
        );
        let known = |line: &&str| !line.starts_with("| `") || reference.contains(*line);
        let stale: Vec<&str> = page.lines().filter(|line| !known(line)).collect();
        assert!(
            stale.is_empty(),
            "docs/counters.md has counters of the past:\n{stale:#?}"
        );
    }
}
