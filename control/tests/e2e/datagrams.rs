//! UDP: a query goes to a real server, its answer comes back from the VIP.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::servers::Dns;
use crate::topology::{Lab, rip};
use crate::weir::Director;
use crate::{client, with_1_2_and_3_workers};

with_1_2_and_3_workers!(dns_queries_are_answered);

/// 300 client ports, so 300 connections, dealt out by rr. Each worker deals by itself, so every
/// server's share may be off by one for each.
fn dns_queries_are_answered(workers: usize) {
    let Some(lab) = Lab::new(3) else { return };
    let _dns = Dns::in_all(&lab);
    let config = Config::new(workers);
    let config = config.server(1, 100).server(2, 100).server(3, 100);
    let _weir = Director::start(&lab, &config);

    let mut shares = BTreeMap::new();
    for address in client::ask_dns(&lab, 300) {
        *shares.entry(address).or_insert(0_usize) += 1;
    }

    assert_eq!(shares.len(), 3, "{shares:?}");
    for server in 1..=3 {
        let share = shares[&rip(server).octets()];
        assert!(share.abs_diff(100) < workers, "{shares:?}");
    }
}
