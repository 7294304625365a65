//! The kernel twins: what is not load-balanced is Linux's, with Linux's tools.

use std::process::Stdio;
use std::time::Duration;

use crate::client;
use crate::config::Config;
use crate::servers::Nginx;
use crate::topology::{DIRECTOR, Lab, Process, VIP, eventually};
use crate::weir::Director;

#[test]
fn director_and_vip_answer_pings_and_arp() {
    let Some(lab) = Lab::new(1) else { return };
    let _weir = Director::start(&lab, &Config::new(2).server(1, 100));

    for address in [DIRECTOR, VIP] {
        let ping = lab
            .client
            .run(&format!("ping -n -c 3 -i 0.2 -W 5 {address}"));
        assert!(ping.contains("3 received"), "{ping}");
    }

    let link = lab.director.ip("-j link show wan0");
    let link: serde_json::Value = serde_json::from_str(&link).expect("ip prints JSON");
    let mac = link[0]["address"].as_str().expect("the twin has a MAC");
    for address in [DIRECTOR, VIP] {
        let neighbour = lab.client.ip(&format!("neigh show {address} dev weir-wan"));
        assert!(neighbour.contains(&format!("lladdr {mac}")), "{neighbour}");
    }
}

/// tcpdump on the twin shows the slow path, and only that: no packet of a connection.
#[test]
fn tcpdump_on_the_twin_shows_the_slow_path() {
    let Some(lab) = Lab::new(1) else { return };
    let _nginx = Nginx::in_all(&lab);
    let _weir = Director::start(&lab, &Config::new(2).server(1, 100));
    let shown = lab.dir().join("tcpdump.txt");
    let notes = lab.dir().join("tcpdump.log");
    let mut command = lab.director.words("tcpdump -n -l -i wan0");
    command
        .stdout(std::fs::File::create(&shown).expect("ours"))
        .stderr(std::fs::File::create(&notes).expect("ours"))
        .stdin(Stdio::null());
    let _tcpdump = Process::start("tcpdump", &mut command);
    eventually(Duration::from_secs(10), "tcpdump listens", || {
        let notes = std::fs::read_to_string(&notes).expect("UTF-8");
        notes.contains("listening on").then_some(())
    });

    assert_eq!(client::ask_name(&lab), "rs1");
    lab.client.run(&format!("ping -n -c 1 -W 5 {DIRECTOR}"));

    let shown = eventually(Duration::from_secs(10), "tcpdump shows the ping", || {
        let shown = std::fs::read_to_string(&shown).expect("UTF-8");
        shown.contains("ICMP echo reply").then_some(shown)
    });
    assert!(shown.contains("ARP, Request who-has"), "{shown}");
    assert!(shown.contains("ICMP echo request"), "{shown}");
    assert!(!shown.contains(&format!("{VIP}.80")), "{shown}");
}
