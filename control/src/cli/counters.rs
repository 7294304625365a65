//! `weir counters`: the books.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::path::Path;

use super::Output;
use super::number::grouped;
use super::table::{Align, Table};
use crate::api::client;
use crate::api::documents::{Balance, Counter, Counters};
use crate::control::counters::reference;

/// Shows every counter and drop reason, and whether the books balance
///
/// Each frame ends in exactly one column: what came in (rx, from kernel, generated) is what went
/// out (tx, to kernel), was dropped for a reason, or is held for a moment. Counters that are
/// zero are left out unless --all is given; the JSON document always has all of them, and each
/// worker's own value.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Show counters that are zero as well
    #[arg(long)]
    all: bool,
    /// Print what each counter and drop reason counts, as a page of documents, and ask nobody
    #[arg(long, conflicts_with_all = ["all", "json"])]
    reference: bool,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(options: &Options, socket: &Path) -> anyhow::Result<String> {
    if options.reference {
        return Ok(reference());
    }
    let counters = client::get::<Counters>(socket, "/v1/counters")?;
    options.output.text(&counters, |c| human(c, options.all))
}

pub(super) fn human(c: &Counters, all: bool) -> String {
    let mut table = Table::new([
        ("COUNTER", Align::Left),
        ("VALUE", Align::Right),
        ("WHAT IT COUNTS", Align::Left),
    ]);
    rows(&mut table, "", &c.workers, all);
    rows(&mut table, "drop.", &c.drops, all);
    for twin in &c.twins {
        let prefix = format!("twin.{}.", twin.port);
        rows(&mut table, &prefix, &twin.counters, all);
    }
    let mut text = String::new();
    table.write_to(&mut text);
    text.push('\n');
    balance(&c.balance, &mut text);
    text
}

fn rows(table: &mut Table<3>, prefix: &str, counters: &[Counter], all: bool) {
    for c in counters.iter().filter(|c| all || c.value != 0) {
        table.row([
            format!("{prefix}{}", c.name),
            grouped(c.value),
            c.help.clone(),
        ]);
    }
}

fn balance(b: &Balance, text: &mut String) {
    let came = b.rx + b.from_kernel + b.generated;
    let went = b.tx + b.to_kernel + b.dropped + b.held;
    let _ = writeln!(
        text,
        "in:  {} = rx {} + from kernel {} + generated {}",
        grouped(came),
        grouped(b.rx),
        grouped(b.from_kernel),
        grouped(b.generated)
    );
    let _ = writeln!(
        text,
        "out: {} = tx {} + to kernel {} + dropped {} + held {}",
        grouped(went),
        grouped(b.tx),
        grouped(b.to_kernel),
        grouped(b.dropped),
        grouped(b.held)
    );
    let _ = match came.abs_diff(went) {
        0 => writeln!(text, "the books balance"),
        off => writeln!(
            text,
            "off by {} (frames moved while this was read)",
            grouped(off)
        ),
    };
}
