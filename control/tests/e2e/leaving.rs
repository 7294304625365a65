//! Servers that leave while they are used: drained, and removed with what they have left.

use std::time::{Duration, Instant};

use crate::client::{Held, ask_names, download};
use crate::config::Config;
use crate::servers::{Nginx, write_noise};
use crate::topology::{Lab, eventually, rip};
use crate::weir::Director;
use crate::with_1_2_and_3_workers;

with_1_2_and_3_workers!(a_drain_in_the_middle_of_a_download_loses_nothing);
with_1_2_and_3_workers!(what_a_removed_server_has_left_is_reset_in_time);

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

const SIZE: usize = 300_000_000;

/// Closing connections go soon, so that a test needs no minutes.
const SOON: &str = "
[timeouts]
time_wait = \"1s\"
fin_wait = \"1s\"
close = \"1s\"
close_wait = \"1s\"
last_ack = \"1s\"
";

fn toml(config: &Config, more: &str) -> String {
    let service = "local_addresses = [";
    let keys = format!("{more}\n{service}");
    config.toml().replacen(service, &keys, 1) + SOON
}

fn a_drain_in_the_middle_of_a_download_loses_nothing(workers: usize) {
    let Some(lab) = Lab::new(2) else { return };
    let nginx = Nginx::in_all(&lab);
    let sent = write_noise(&nginx[0].files().join("noise"), SIZE, 3);
    let config = Config::new(workers).server(1, 100);
    let weir = Director::start(&lab, &config);
    let reload = weir.reload(&toml(&config, ""));
    assert!(reload.status.success(), "{reload:?}");
    let rs1 = format!("{}:80", rip(1));
    let both = toml(&config.clone().server(2, 100), "");
    std::thread::scope(|scope| {
        let download = scope.spawn(|| download(&lab, "/files/noise"));
        let servers = || weir.json(&["services"])["services"][0]["servers"].clone();
        eventually(PATIENCE, "the download is under way", || {
            (servers()[0]["out_bytes"].as_u64()? > 1_000_000).then_some(())
        });
        let reload = weir.reload(&both);
        assert!(reload.status.success(), "{reload:?}");
        let drained = weir.json(&["drain", "web", &rs1, "--no-wait"]);
        assert_eq!(
            (drained["active"].as_u64(), drained["safe"].as_bool()),
            (Some(1), Some(false)),
            "{drained}"
        );
        let late = weir.ask(&["drain", "web", &rs1, "--timeout", "1"]);
        assert!(
            download.is_finished() || late.status.code() == Some(1),
            "{late:?}"
        );
        assert_eq!(ask_names(&lab, 10)["rs2"], 10, "new ones go elsewhere");
        assert_eq!(servers()[0]["state"], "drained");
        // A reload does not end it.
        let reload = weir.reload(&both.replace("weight = 100", "weight = 99"));
        assert!(reload.status.success(), "{reload:?}");
        assert_eq!(ask_names(&lab, 10)["rs2"], 10);

        let got = download.join().expect("no panic");
        assert!(got.body == sent);
    });
    let safe = weir.ask(&["drain", "web", &rs1, "--timeout", "20"]);
    assert!(safe.status.success(), "{safe:?}");
    let said = String::from_utf8_lossy(&safe.stdout).into_owned();
    assert!(said.contains("safe to switch it off"), "{said}");
    assert!(weir.ask(&["drain", "web", &rs1, "--undo"]).status.success());
    // Each worker takes its turns by itself.
    let back = ask_names(&lab, 20)["rs1"];
    assert!((5..=15).contains(&back), "{back} of 20");

    let wrong = weir.ask(&["drain", "web", "10.9.9.9:80"]);
    assert_eq!(wrong.status.code(), Some(1));
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(
        said.contains("has no real server 10.9.9.9:80; it has: "),
        "{said}"
    );
}

fn what_a_removed_server_has_left_is_reset_in_time(workers: usize) {
    let Some(lab) = Lab::new(2) else { return };
    let _nginx = Nginx::in_all(&lab);
    let first = Config::new(workers).server(1, 100);
    let weir = Director::start(&lab, &first);
    let reload = weir.reload(&toml(&first, "removal = \"1s\""));
    assert!(reload.status.success(), "{reload:?}");
    let mut held = Held::open_many(&lab, 200);
    for held in &mut held {
        assert_eq!(held.ask_name().expect("an answer"), "rs1");
    }
    let standing = || {
        let line = "ss --no-header --tcp state established sport = :80";
        lab.servers[0].run(line).lines().count()
    };
    assert_eq!(standing(), 200);

    let second = Config::new(workers).server(2, 100);
    let reload = weir.reload(&toml(&second, "removal = \"1s\""));
    assert!(reload.status.success(), "{reload:?}");
    assert_eq!(standing(), 200, "a second is not over");
    let begin = Instant::now();
    for held in &mut held {
        // Nothing is asked: the reset comes by itself.
        assert!(held.read_body(1).is_empty());
    }
    assert!(
        begin.elapsed() < Duration::from_secs(30),
        "{:?}",
        begin.elapsed()
    );
    eventually(PATIENCE, "the server knows too", || {
        (standing() == 0).then_some(())
    });
    let counters = weir.json(&["counters"]).to_string();
    assert!(counters.contains("conns_dismissed"), "{counters}");
    assert_eq!(ask_names(&lab, 5)["rs2"], 5);
    eventually(PATIENCE, "the removed server is gone", || {
        let services = weir.json(&["services"]);
        (services["services"][0]["servers"].as_array()?.len() == 1).then_some(())
    });
}
