//! Results as people look at them: tables in Markdown, and one HTML file with plots that needs
//! nothing else. Everything in it comes from the JSON files; nothing is measured here.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;

/// What to make of what.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files that `weir-perf ... --json` wrote, in the order they are to be shown.
    #[arg(required = true)]
    results: Vec<PathBuf>,
    /// Writes the tables here, in Markdown.
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Writes tables and plots here, one file of HTML with SVG in it.
    #[arg(long)]
    html: Option<PathBuf>,
    /// A sentence about the circumstances, put in front.
    #[arg(long, default_value = "")]
    note: String,
}

#[derive(Debug, Deserialize)]
struct Document {
    benchmark: String,
    command: String,
    machine: Value,
    rows: Vec<Value>,
    titles: Vec<String>,
    cells: Vec<Vec<String>>,
}

/// What is plotted of a benchmark: the field of a row (JSON pointer), its name, and how many of
/// the first columns tell rows apart.
fn plotted(benchmark: &str) -> Option<(&'static str, &'static str, usize)> {
    Some(match benchmark {
        "pipeline" => ("/ns_min", "ns a packet, fastest round", 4),
        "connections" => ("/lifecycles_per_second", "lifecycles a second", 2),
        "floods" => ("/ns_median", "ns each, median", 2),
        "memory" => ("/bytes_per_connection", "bytes a connection", 1),
        "link" | "peers" => ("/mpps_median", "Mpps, median", 3),
        "latency" => ("/latency/p99", "p99, ns", 3),
        "scaling" => ("/mpps_max", "Mpps, fastest round", 2),
        _ => return None,
    })
}

/// Reads and writes.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.markdown.is_some() || args.html.is_some(),
        "nothing to write: give --markdown FILE, --html FILE or both"
    );
    let documents = args
        .results
        .iter()
        .map(|file| read(file))
        .collect::<anyhow::Result<Vec<_>>>()?;
    for (file, text) in [
        (&args.markdown, markdown(&documents, &args.note)),
        (&args.html, html(&documents, &args.note)),
    ] {
        if let Some(file) = file {
            std::fs::write(file, text).with_context(|| file.display().to_string())?;
        }
    }
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<Document> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    serde_json::from_str(&text)
        .with_context(|| format!("{}: not what weir-perf --json writes", file.display()))
}

fn machine(document: &Document) -> String {
    let word = |key: &str| match &document.machine[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    format!(
        "{} x {}, {} KiB, kernel {}, {} huge pages free, commit {}",
        word("cores"),
        word("processor"),
        word("memory_kib"),
        word("kernel"),
        word("hugepages_free"),
        word("commit")
    )
}

fn markdown(documents: &[Document], note: &str) -> String {
    let mut out = format!(
        "# Results\n\nWritten by `perf/run-all` from what it ran; nothing in it was not run. {note}\n"
    );
    for d in documents {
        let row = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule = row(&vec!["---".to_owned(); d.titles.len()]);
        let body: String = d.cells.iter().map(|c| row(c)).collect();
        let (name, machine) = (&d.benchmark, machine(d));
        let (command, head) = (&d.command, row(&d.titles));
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "\n## {name}\n\n`weir-perf {command}` on {machine}\n\n{head}{rule}{body}"
        );
    }
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn html(documents: &[Document], note: &str) -> String {
    let mut out = format!(
        "<!doctype html><meta charset=utf-8><title>Weir, measured</title>\n\
         <style>body{{font:15px sans-serif;margin:2em}}td,th{{text-align:right;padding:2px 10px}}\
         text{{font:12px sans-serif}}rect{{fill:#47a}}</style>\n<h1>Weir, measured</h1><p>{}</p>\n",
        escaped(note)
    );
    for d in documents {
        let row = |tag: &str, cells: &[String]| {
            let cells = cells
                .iter()
                .map(|c| format!("<{tag}>{}</{tag}>", escaped(c)));
            format!("<tr>{}</tr>\n", cells.collect::<String>())
        };
        let body: String = d.cells.iter().map(|c| row("td", c)).collect();
        let _ = write!(
            out,
            "<h2>{}</h2><p><code>weir-perf {}</code><br>{}</p>\n{}<table>{}{body}</table>\n",
            escaped(&d.benchmark),
            escaped(&d.command),
            escaped(&machine(d)),
            plot(d).unwrap_or_default(),
            row("th", &d.titles)
        );
    }
    out
}

/// A bar for each row, as long as its value.
fn plot(document: &Document) -> Option<String> {
    const BAR: f64 = 500.0;
    const LABEL: usize = 280;
    const LINE: usize = 20;
    let (field, what, labels) = plotted(&document.benchmark)?;
    let value = |row: &Value| row.pointer(field).and_then(Value::as_f64);
    let values: Vec<f64> = document.rows.iter().filter_map(value).collect();
    let longest = values.iter().copied().fold(0.0, f64::max);
    if values.len() != document.cells.len() || longest <= 0.0 {
        return None;
    }
    let (width, height) = (LABEL + BAR as usize + 120, LINE * (values.len() + 1));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\">\
         <text x=\"{LABEL}\" y=\"14\">{what}</text>\n"
    );
    for (i, (value, cells)) in values.iter().zip(&document.cells).enumerate() {
        let (y, bar) = (LINE * (i + 1), value / longest * BAR);
        let label = escaped(&cells[..labels.min(cells.len())].join(", "));
        let (base, end) = (y + 14, LABEL as f64 + bar + 6.0);
        let (right, thickness) = (LABEL - 8, LINE - 4);
        let _ = writeln!(
            out,
            "<text x=\"{right}\" y=\"{base}\" text-anchor=\"end\">{label}</text>\
             <rect x=\"{LABEL}\" y=\"{y}\" width=\"{bar:.1}\" height=\"{thickness}\"/>\
             <text x=\"{end:.1}\" y=\"{base}\">{value:.1}</text>"
        );
    }
    Some(out + "</svg>\n")
}

#[cfg(test)]
mod tests;
