//! Every benchmark runs: short, with nothing said about speed, so that none can rot unseen.
#![allow(clippy::print_stderr, missing_docs)] // a test that skips says why

use std::process::Command;

use serde_json::Value;

/// The rows that `weir-perf ARGS --json` prints.
fn rows(args: &[&str]) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_weir-perf"))
        .args(args)
        .arg("--json")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "weir-perf {args:?}: {stderr}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["benchmark"], args[0]);
    assert!(document["machine"]["processor"].is_string());
    assert_eq!(document["command"], format!("{} --json", args.join(" ")));
    document["rows"].as_array().unwrap().clone()
}

fn number(row: &Value, field: &str) -> f64 {
    row[field]
        .as_f64()
        .unwrap_or_else(|| panic!("{field} in {row}"))
}

#[test]
fn pipeline_allocates_nothing_on_a_packets_way() {
    let rows = rows(&[
        "pipeline", "--flows", "100", "--sizes", "64,imix", "--rounds", "2",
    ]);
    assert_eq!(rows.len(), 6); // in, both, new; two sizes each
    for row in rows {
        assert_eq!(number(&row, "allocations_per_packet"), 0.0, "{row}");
        assert!(number(&row, "ns_min") > 0.0);
    }
}

#[test]
fn connections_come_and_go() {
    let args = [
        "connections",
        "--rate",
        "20000",
        "--seconds",
        "1",
        "--standing",
        "500",
    ];
    let rows = rows(&args);
    assert_eq!(rows.len(), 1);
    // A second's lifecycles and those that stand; all others are forgotten.
    let in_table = number(&rows[0], "in_table");
    assert!((500.0..60_000.0).contains(&in_table), "{in_table}");
}

/// With a SYN proxy a flood opens nothing, and who means it is through.
#[test]
fn floods_come_and_clients_get_through() {
    let rows = rows(&["floods", "--connections", "20000", "--rounds", "2"]);
    let of = |kind: &str, proxy: &str| -> &Value {
        let is = |row: &&Value| row["kind"] == kind && row["syn_proxy"] == proxy;
        rows.iter().find(is).unwrap()
    };
    assert_eq!(rows.len(), 6);
    for row in &rows {
        assert_eq!(number(row, "allocations_per_frame"), 0.0, "{row}");
        assert!(number(row, "ns_min") > 0.0, "{row}");
    }
    let opened = |kind, proxy| number(of(kind, proxy), "in_table");
    let frames = |kind, proxy| {
        let row = of(kind, proxy);
        (number(row, "frames_in"), number(row, "frames_out"))
    };
    assert_eq!(opened("syn", "off"), 20_000.0);
    assert_eq!(opened("syn", "always"), 0.0);
    assert_eq!(frames("syn", "always"), (1.0, 1.0));
    assert_eq!(opened("ack", "off") + opened("ack", "always"), 0.0);
    // Two timed rounds and four before of 256.
    assert_eq!(opened("handshake", "off"), 6.0 * 256.0);
    assert_eq!(opened("handshake", "always"), 6.0 * 256.0);
    assert_eq!(
        number(of("handshake", "always"), "cookies_valid"),
        6.0 * 256.0
    );
    assert_eq!(frames("handshake", "off"), (3.0, 3.0));
    assert_eq!(frames("handshake", "always"), (3.0, 4.0));
}

#[test]
fn memory_is_counted() {
    let rows = rows(&["memory", "--connections", "100000", "--fill"]);
    assert_eq!(rows.len(), 1);
    let bytes = number(&rows[0], "bytes_per_connection");
    assert!((64.0..200.0).contains(&bytes), "{bytes}");
}

#[test]
fn workers_hand_over_what_is_not_theirs() {
    let cores = std::thread::available_parallelism().unwrap().get();
    if cores < 2 {
        eprintln!("skipped: two workers need two CPUs, this machine has {cores}");
        return;
    }
    let rows = rows(&["scaling", "--flows", "1000", "--rounds", "3"]);
    let handed: Vec<f64> = rows.iter().map(|r| number(r, "handed_over")).collect();
    assert_eq!(handed[..3], [0.0, 0.0, 0.0]);
    assert!((0.4..0.6).contains(&handed[3]), "{handed:?}");
}

/// Why nothing can be run over a link here, if so.
#[cfg(feature = "dpdk")]
fn no_link() -> bool {
    let cores = std::thread::available_parallelism().unwrap().get();
    if cores < 2 {
        eprintln!("skipped: a link needs two CPUs, this machine has {cores}");
    }
    cores < 2
}

#[cfg(feature = "dpdk")]
fn no_testpmd() -> bool {
    let missing = Command::new("dpdk-testpmd")
        .arg("--version")
        .output()
        .is_err();
    if missing {
        eprintln!("skipped: no dpdk-testpmd here (Debian: apt-get install dpdk)");
    }
    missing
}

#[cfg(feature = "dpdk")]
#[test]
fn weir_forwards_over_memif() {
    if no_link() {
        return;
    }
    let args = [
        "link",
        "--alone",
        "--runs",
        "1",
        "--flows",
        "100",
        "--seconds",
        "0.2",
        "--modes",
        "fullnat,tun",
    ];
    let rows = rows(&args);
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert!(number(&row, "mpps_median") > 0.0);
        assert!(number(&row, "cycles") > 0.0);
        assert!(number(&row, "opened_per_second") > 0.0);
        assert!(row["ratio"].is_null(), "nothing to compare with: {row}");
    }
}

#[cfg(feature = "dpdk")]
#[test]
fn lifecycles_complete_over_memif() {
    if no_link() {
        return;
    }
    // Few at once, so that a table for so few a second has room whatever the machine.
    let args = [
        "connections",
        "--via",
        "memif",
        "--alone",
        "--runs",
        "1",
        "--seconds",
        "1",
        "--window",
        "2",
        "--rate",
        "1000000",
        "--standing",
        "500",
    ];
    let rows = rows(&args);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["device"], "weir");
    assert!(number(&rows[0], "lifecycles_per_second") > 0.0);
    assert!(number(&rows[0], "cycles_per_lifecycle") > 0.0);
    // A second's lifecycles and those that stand.
    assert!(number(&rows[0], "in_table") > 500.0);
    assert_eq!(rows[0]["drops"], serde_json::json!({}));
}

#[cfg(feature = "dpdk")]
#[test]
fn testpmd_is_beside_weir_in_ratio_and_latency() {
    if no_link() || no_testpmd() {
        return;
    }
    let args = ["link", "--runs", "1", "--flows", "100", "--seconds", "0.2"];
    let link = rows(&args);
    assert_eq!(link[0]["device"], "weir");
    assert_eq!(link[1]["device"], "testpmd macswap");
    assert_eq!(number(&link[1], "ratio"), 1.0);
    let args = [
        "latency",
        "--runs",
        "1",
        "--flows",
        "100",
        "--seconds",
        "0.2",
    ];
    let latency = rows(&args);
    assert_eq!(latency.len(), 6); // three rates, two devices
    for row in latency {
        assert!(number(&row["latency"], "p50") > 0.0, "{row}");
    }
    let args = [
        "connections",
        "--via",
        "memif",
        "--runs",
        "1",
        "--seconds",
        "1",
        "--window",
        "2",
        "--rate",
        "1000000",
    ];
    let lifecycles = rows(&args);
    assert_eq!(lifecycles[1]["device"], "testpmd macswap");
    assert_eq!(number(&lifecycles[1], "ratio"), 1.0);
    assert!(number(&lifecycles[1], "lifecycles_per_second") > 0.0);
}

#[cfg(feature = "dpdk")]
#[test]
fn a_peer_is_started_from_its_file() {
    if no_link() || no_testpmd() {
        return;
    }
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/testpmd-mac.toml");
    let args = [
        "peers",
        file,
        "--runs",
        "1",
        "--flows",
        "100",
        "--seconds",
        "0.2",
    ];
    let names: Vec<Value> = rows(&args).iter().map(|r| r["device"].clone()).collect();
    assert_eq!(names, ["weir", "testpmd mac", "testpmd macswap"]);
}
