use super::*;

fn document() -> Document {
    serde_json::from_value(serde_json::json!({
        "benchmark": "memory", "command": "memory --json",
        "machine": {"processor": "P<1>", "cores": 2, "memory_kib": 1, "kernel": "6",
                    "hugepages_free": 0, "commit": "abc"},
        "rows": [{"bytes_per_connection": 50.0}, {"bytes_per_connection": 100.0}],
        "titles": ["connections", "bytes/conn"],
        "cells": [["1.00 M", "50.0"], ["10.00 M", "100.0"]],
    }))
    .unwrap()
}

#[test]
fn markdown_has_command_machine_and_every_cell() {
    let text = markdown(&[document()], "Quiet.");
    assert!(text.contains("## memory\n\n`weir-perf memory --json` on 2 x P<1>, 1 KiB"));
    assert!(text.contains(
        "| connections | bytes/conn |\n| --- | --- |\n| 1.00 M | 50.0 |\n| 10.00 M | 100.0 |\n"
    ));
}

#[test]
fn html_is_escaped_and_bars_are_as_long_as_their_values() {
    let text = html(&[document()], "");
    assert!(text.contains("P&lt;1>"));
    assert!(text.contains("width=\"250.0\"") && text.contains("width=\"500.0\""));
}
