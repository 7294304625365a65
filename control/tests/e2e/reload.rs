//! A reload while connections stand: none is lost, and new ones follow the new file.

use crate::client::{Held, ask_names};
use crate::config::Config;
use crate::servers::Nginx;
use crate::topology::Lab;
use crate::weir::Director;
use crate::with_1_2_and_3_workers;

with_1_2_and_3_workers!(idle_connections_survive_a_reload);

/// 2,000 idle connections to rs1 and rs2; the reload takes rs2 away and adds rs3.
fn idle_connections_survive_a_reload(workers: usize) {
    let Some(lab) = Lab::new(3) else { return };
    let _nginx = Nginx::in_all(&lab);
    let before = Config::new(workers).server(1, 100).server(2, 100);
    let after = Config::new(workers).server(1, 100).server(3, 100);
    let weir = Director::start(&lab, &before);
    let mut held = Held::open_many(&lab, 2000);
    let ask_all = |held: &mut Vec<Held>| -> Vec<String> {
        let answers = held.iter_mut().enumerate();
        let answer = |(n, held): (usize, &mut Held)| {
            let name = held.ask_name();
            name.unwrap_or_else(|error| panic!("connection {n}: {error}"))
        };
        answers.map(answer).collect()
    };
    let first = ask_all(&mut held);
    assert!(first.iter().any(|name| name == "rs2"), "rs2 has a share");

    let reload = weir.reload(&after.toml());
    assert!(reload.status.success(), "{reload:?}");
    let second = ask_all(&mut held);

    assert_eq!(first, second, "each connection kept its server");
    let shares = ask_names(&lab, 20);
    assert_eq!(shares.get("rs2"), None, "{shares:?}");
    assert!(shares.contains_key("rs3"), "{shares:?}");
}

#[test]
fn a_wrong_file_changes_nothing() {
    let Some(lab) = Lab::new(2) else { return };
    let _nginx = Nginx::in_all(&lab);
    let config = Config::new(1).server(1, 100);
    let mut weir = Director::start(&lab, &config);
    let mut held = Held::open(&lab);
    assert_eq!(held.ask_name().expect("an answer"), "rs1");
    let services = weir.json(&["services"]);

    // Right but for the last line: all or nothing means that rs2 does not come either.
    let wrong = config.server(2, 100).toml() + "wieght = 3\n";
    let line = wrong.lines().count();
    let reload = weir.reload(&wrong);

    assert_eq!(reload.status.code(), Some(1), "{reload:?}");
    let stderr = String::from_utf8_lossy(&reload.stderr);
    assert!(stderr.contains("weir.toml"), "which file: {stderr}");
    assert!(
        stderr.contains(&format!(":{line}:")),
        "which line: {stderr}"
    );
    assert!(stderr.contains("wieght"), "what is wrong: {stderr}");
    assert!(weir.runs());
    assert_eq!(held.ask_name().expect("an answer"), "rs1");
    assert_eq!(ask_names(&lab, 4)["rs1"], 4);
    let names = |services: &serde_json::Value| services.to_string().matches("10.1.0.12").count();
    assert_eq!(names(&weir.json(&["services"])), names(&services));
}
