//! Thresholds and limits with real clients: the sum is right on every number of workers, what is
//! too much is refused as the file says, and counted.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::Held;
use crate::config::Config;
use crate::servers::Nginx;
use crate::topology::{Lab, VIP};
use crate::weir::Director;
use crate::with_1_2_and_3_workers;

with_1_2_and_3_workers!(a_full_server_gets_no_more);
with_1_2_and_3_workers!(connections_a_second_are_limited);

/// rs1 takes five connections, and the others go to rs2; with both full nobody else gets in until
/// a place is free.
fn a_full_server_gets_no_more(workers: usize) {
    let Some(lab) = Lab::new(2) else { return };
    let _nginx = Nginx::in_all(&lab);
    let config = Config::new(workers).server(1, 100).server(2, 99);
    let weir = Director::start(&lab, &config);
    let five = config
        .toml()
        .replace("weight = 100", "weight = 100\nupper_threshold = 5");
    reload(&weir, &five);
    let mut held = Held::open_many(&lab, 40);
    let mut of_first = 0;
    for held in &mut held {
        of_first += usize::from(held.ask_name().expect("an answer") == "rs1");
    }
    assert_eq!(of_first, 5);
    let services = weir.json(&["services"]);
    let server = &services["services"][0]["servers"][0];
    assert_eq!(server["state"], "full", "{services:#}");
    assert_eq!(server["upper_threshold"], 5);

    let both = five.replace("weight = 99", "weight = 99\nupper_threshold = 35");
    reload(&weir, &both);
    let refused = connect(&lab, 1, Duration::from_millis(700));
    assert_eq!(refused, [false], "both are full");
    assert!(counted(&weir, "servers_full") > 0);

    reload(&weir, &five);
    let taken = connect(&lab, 1, Duration::from_secs(5));
    assert_eq!(taken, [true], "rs2 has no threshold any more");
}

/// Twenty connections a second for the service: for three seconds many more are tried.
fn connections_a_second_are_limited(workers: usize) {
    let Some(lab) = Lab::new(1) else { return };
    let _nginx = Nginx::in_all(&lab);
    let config = Config::new(workers).server(1, 100);
    let weir = Director::start(&lab, &config);
    let limited = config.toml().replacen(
        "protocol = \"tcp\"",
        "protocol = \"tcp\"\nlimits = { connections_per_second = 20, excess = \"reset\" }",
        1,
    );
    reload(&weir, &limited);
    let begin = Instant::now();
    let (mut opened, mut refused) = (0u64, 0u64);
    while begin.elapsed() < Duration::from_secs(3) {
        for came in connect(&lab, 10, Duration::from_secs(5)) {
            match came {
                true => opened += 1,
                false => refused += 1,
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let seconds = begin.elapsed().as_secs_f64();
    // A second's worth may come at once, 16 at most, and each worker may grant one too early.
    let least = (20.0 * seconds * 0.9) as u64;
    let most = (20.0 * seconds) as u64 + 16 + workers as u64 + 2;
    assert!(
        (least..=most).contains(&opened),
        "{opened} opened and {refused} refused in {seconds} s"
    );
    assert_eq!(counted(&weir, "limit_service_connection_rate"), refused);
    let services = weir.json(&["services"]);
    let limit = &services["services"][0]["limits"][0];
    assert_eq!(limit["limit"], "connections_per_second", "{services:#}");
    assert_eq!(limit["refused"], refused);
}

fn reload(weir: &Director<'_>, toml: &str) {
    let reload = weir.reload(toml);
    assert!(reload.status.success(), "{reload:?}");
    std::thread::sleep(Duration::from_millis(300)); // every worker holds it
}

/// Tries `count` connections to the VIP, each for so long at most: which came.
fn connect(lab: &Lab, count: usize, at_most: Duration) -> Vec<bool> {
    lab.client.within(move || {
        let vip = SocketAddr::from((VIP, 80));
        let came = |_| match TcpStream::connect_timeout(&vip, at_most) {
            Ok(_) => true,
            Err(error) => {
                let known = [
                    ErrorKind::ConnectionRefused,
                    ErrorKind::TimedOut,
                    ErrorKind::WouldBlock,
                    ErrorKind::HostUnreachable,
                ];
                assert!(known.contains(&error.kind()), "{error}");
                false
            }
        };
        (0..count).map(came).collect()
    })
}

/// The number of packets dropped for this reason.
fn counted(weir: &Director<'_>, reason: &str) -> u64 {
    let counters = weir.json(&["counters", "--all"]);
    let drops = counters["drops"].as_array().expect("a list");
    let named = drops
        .iter()
        .find(|counter: &&Value| counter["name"] == reason);
    named.and_then(|c| c["value"].as_u64()).expect("a counter")
}
