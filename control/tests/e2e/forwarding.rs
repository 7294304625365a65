//! Who answers, and whom a real server sees.

use crate::client::{Held, ask_names, curl};
use crate::config::Config;
use crate::servers::Nginx;
use crate::topology::{Lab, VIP};
use crate::weir::Director;
use crate::with_1_2_and_3_workers;

with_1_2_and_3_workers!(wrr_shares_follow_the_weights);

/// 100 connections over weights 100, 100 and 50, with a server of weight 0 beside them. A round
/// is five connections (2, 2, 1); workers deal by themselves, so each but the one that ends the
/// count may stand within a round, up to two connections off for any server.
fn wrr_shares_follow_the_weights(workers: usize) {
    let Some(lab) = Lab::new(4) else { return };
    let _nginx = Nginx::in_all(&lab);
    let config = Config::new(workers).server(1, 100).server(2, 100);
    let _weir = Director::start(&lab, &config.server(3, 50).server(4, 0));

    let shares = ask_names(&lab, 100);

    let off = 2 * (workers - 1);
    for (server, due) in [("rs1", 40_usize), ("rs2", 40), ("rs3", 20)] {
        let share = shares.get(server).copied().unwrap_or(0);
        assert!(share.abs_diff(due) <= off, "{server}: {shares:?}");
    }
    assert_eq!(shares.get("rs4"), None, "weight 0 takes nothing new");
}

/// A VIP's port without a service: Weir answers with a reset, nobody waits.
#[test]
fn a_port_without_a_service_refuses() {
    let Some(lab) = Lab::new(1) else { return };
    let _weir = Director::start(&lab, &Config::new(2).server(1, 100));

    let asked = curl(&lab).arg(format!("http://{VIP}:81/")).output();
    let asked = asked.expect("curl is installed");

    // curl's code for a connection refused or unreachable; 28 would be a timeout.
    assert_eq!(asked.status.code(), Some(7), "{asked:?}");
    let stderr = String::from_utf8_lossy(&asked.stderr);
    assert!(stderr.contains("port 81"), "{stderr}");
}

/// FULL-NAT: the server's client is one of the local addresses, never the real client.
#[test]
fn a_server_sees_a_local_address() {
    let Some(lab) = Lab::new(1) else { return };
    let _nginx = Nginx::in_all(&lab);
    let _weir = Director::start(&lab, &Config::new(2).server(1, 100));

    for mut held in Held::open_many(&lab, 20) {
        let seen = held.get("/").expect("an answer").client;
        let last = seen.strip_prefix("10.1.0.").and_then(|n| n.parse().ok());
        let local = last.is_some_and(|last: u8| (100..=103).contains(&last));
        assert!(local, "nginx saw the client {seen}");
    }
}
