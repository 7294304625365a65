//! Bytes a connection, all told: entry, index, timers (a lease takes none).

use serde::Serialize;
use weir_dataplane::Tick;
use weir_dataplane::conn::{ConnTable, Pages};
use weir_dataplane::packet::Key4;

use crate::table::{self, Row, count};
use crate::testbed::Testbed;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Connections, one row each.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000_000, 10_000_000])]
    connections: Vec<u32>,
    /// Open them all, and measure the process too (some 2 s a million).
    #[arg(long)]
    fill: bool,
}

#[derive(Debug, Serialize)]
struct Measured {
    connections: u32,
    table_bytes: usize,
    bytes_per_connection: f64,
    /// Growth of the process's resident memory while they were opened.
    resident_per_connection: Option<f64>,
}

impl Row for Measured {
    const TITLES: &'static [&'static str] = &[
        "connections",
        "table MiB",
        "bytes/conn",
        "resident bytes/conn",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            count(f64::from(self.connections)),
            (self.table_bytes >> 20).to_string(),
            format!("{:.1}", self.bytes_per_connection),
            self.resident_per_connection
                .map_or("-".into(), |r| format!("{r:.1}")),
        ]
    }
}

fn resident() -> anyhow::Result<f64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = statm.split(' ').nth(1).unwrap_or("0").parse()?;
    Ok(pages * 4096.0)
}

pub(crate) fn run(args: &Args, json: bool) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for &connections in &args.connections {
        let table = ConnTable::<Key4>::new(connections, Pages::Plain, [1, 2, 3, 4], Tick(0))?;
        let table_bytes = table.bytes();
        drop(table);
        let resident_per_connection = if args.fill {
            let before = resident()?;
            let mut bed = Testbed::new(connections, 120)?;
            let opened = bed.open(u64::from(connections))?;
            // The benchmark's own list of keys is not the product's.
            let own = (opened.len() * size_of::<(u64, u32)>()) as f64;
            Some((resident()? - before - own) / f64::from(connections))
        } else {
            None
        };
        let bytes_per_connection = table_bytes as f64 / f64::from(connections);
        rows.push(Measured {
            connections,
            table_bytes,
            bytes_per_connection,
            resident_per_connection,
        });
    }
    table::print("memory", &rows, json)
}
