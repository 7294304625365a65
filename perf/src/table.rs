//! Tables for people, JSON for machines: the same rows.

use serde::Serialize;

use crate::machine::Machine;

/// Something with columns.
pub(crate) trait Row: Serialize {
    /// Column titles.
    const TITLES: &'static [&'static str];
    /// The cells, as many as there are titles.
    fn cells(&self) -> Vec<String>;
}

#[derive(Serialize)]
struct Document<'a, R> {
    benchmark: &'a str,
    command: String,
    machine: Machine,
    rows: &'a [R],
    /// The same rows as people read them: `weir-perf report` makes its tables of these.
    titles: &'static [&'static str],
    cells: Vec<Vec<String>>,
}

/// Prints `rows` of `benchmark`.
pub(crate) fn print<R: Row>(benchmark: &str, rows: &[R], json: bool) -> anyhow::Result<()> {
    let machine = Machine::here();
    if json {
        let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        let document = Document {
            benchmark,
            command,
            machine,
            rows,
            titles: R::TITLES,
            cells: rows.iter().map(Row::cells).collect(),
        };
        println!("{}", serde_json::to_string_pretty(&document)?);
        return Ok(());
    }
    let cells: Vec<Vec<String>> = rows.iter().map(Row::cells).collect();
    let widths: Vec<usize> = R::TITLES
        .iter()
        .enumerate()
        .map(|(i, t)| {
            cells
                .iter()
                .map(|c| c[i].len())
                .chain([t.len()])
                .max()
                .unwrap_or(0)
        })
        .collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(c, w)| format!("{c:>w$}"));
        println!("{}", padded.collect::<Vec<_>>().join("  "));
    };
    println!("{benchmark}: {machine:?}");
    line(
        &R::TITLES
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
    );
    cells.iter().for_each(|c| line(c));
    Ok(())
}

/// A line on stderr, so that a long run shows that it lives.
#[cfg(feature = "dpdk")]
pub(crate) fn progress(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "  {line}");
}

/// 1234567 as "1.23 M".
pub(crate) fn count(n: f64) -> String {
    match n {
        n if n >= 1e9 => format!("{:.2} G", n / 1e9),
        n if n >= 1e6 => format!("{:.2} M", n / 1e6),
        n if n >= 1e3 => format!("{:.0} k", n / 1e3),
        n => format!("{n:.0}"),
    }
}
