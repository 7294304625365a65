//! Many short connections at once: none fails.

use crate::config::Config;
use crate::servers::Nginx;
use crate::topology::{Lab, VIP, checked, text};
use crate::weir::Director;
use crate::with_1_2_and_3_workers;

with_1_2_and_3_workers!(ab_with_1000_at_once_fails_no_request);

fn ab_with_1000_at_once_fails_no_request(workers: usize) {
    let Some(lab) = Lab::new(3) else { return };
    let _nginx = Nginx::in_all(&lab);
    let config = Config::new(workers);
    let config = config.server(1, 100).server(2, 100).server(3, 50);
    let _weir = Director::start(&lab, &config);

    let mut ab = lab.client.command("ab");
    ab.args(["-q", "-c", "1000", "-n", "100000"]);
    let report = text(checked(ab.arg(format!("http://{VIP}/"))));

    assert_eq!(ab_says(&report, "Complete requests:"), "100000", "{report}");
    assert_eq!(ab_says(&report, "Failed requests:"), "0", "{report}");
    assert!(!report.contains("Non-2xx"), "{report}");
    let rate = ab_says(&report, "Requests per second:");
    println!("ab, {workers} workers: {rate} requests/s");
}

/// The first word after `label` in ab's report.
fn ab_says<'report>(report: &'report str, label: &str) -> &'report str {
    let line = report.lines().find_map(|line| line.strip_prefix(label));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.unwrap_or_else(|| panic!("ab printed no `{label}`:\n{report}"))
}
