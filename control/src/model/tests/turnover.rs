//! Servers on their way in and out.

use std::time::Duration;

use weir_dataplane::service::Snapshot;

use super::*;
use crate::model::FULL;

const SLOW: &str = r#"
[[service]]
name = "web"
address = "10.0.0.10:80"
protocol = "tcp"
scheduler = "wlc"
slow_start = "32s"
removal = "30s"
local_addresses = ["10.1.0.100"]
[[service.real_server]]
address = "10.1.0.11:80"
weight = 100
"#;

const SECOND: &str = r#"
[[service.real_server]]
address = "10.1.0.12:80"
weight = 50
"#;

/// The weights that workers see, and the weights of hash tables.
fn weights(snapshot: &Snapshot) -> Vec<(u32, u32)> {
    let servers = snapshot.services().flat_map(|s| &s.servers);
    servers.map(|c| (c.weight, c.hashed)).collect()
}

fn id(model: &Model, host: &str) -> ServerId {
    let mut servers = model.services().flat_map(|e| &e.servers);
    servers.find(|s| s.address.to_string() == host).unwrap().id
}

#[test]
fn a_server_that_comes_starts_slowly_where_others_work() {
    let mut model = Model::default();
    apply(&mut model, SLOW);
    assert_eq!(model.came(), [], "it is alone");
    assert_eq!(weights(&model.snapshot()), [(100, 100)]);

    apply(&mut model, &[SLOW, SECOND].concat());
    let second = id(&model, "10.1.0.12:80");
    assert_eq!(model.came(), [(second, Duration::from_secs(32))]);
    assert_eq!(model.came(), [], "once");
    assert!(model.ramp(second, 1));
    assert_eq!(weights(&model.snapshot()), [(1600, 100), (50, 50)]);
    assert!(!model.ramp(second, 1), "nothing new");
    assert!(model.ramp(second, 15));
    assert_eq!(weights(&model.snapshot()), [(1600, 100), (750, 50)]);
    assert!(model.ramp(second, FULL));
    assert_eq!(weights(&model.snapshot()), [(100, 100), (50, 50)]);

    // From weight 0 too.
    let none = SECOND.replace("50", "0");
    apply(&mut model, &[SLOW, &none].concat());
    assert_eq!(model.came(), []);
    apply(&mut model, &[SLOW, SECOND].concat());
    assert_eq!(model.came().len(), 1);
}

#[test]
fn under_a_scheduler_without_proportions_there_are_no_steps() {
    let both = [SLOW, SECOND].concat().replace("wlc", "ovf");
    let mut model = Model::default();
    apply(&mut model, &both);
    let second = id(&model, "10.1.0.12:80");
    model.ramp(second, 1);
    assert_eq!(weights(&model.snapshot()), [(100, 100), (50, 50)]);
}

#[test]
fn a_drained_server_keeps_its_place_in_hash_tables_over_reloads() {
    let both = [SLOW, SECOND].concat();
    let mut model = Model::default();
    apply(&mut model, &both);
    model.came();
    let second: SocketAddr = "10.1.0.12:80".parse().unwrap();
    assert!(model.drain("web", second, true).unwrap().changed);
    assert!(!model.drain("web", second, true).unwrap().changed);
    assert_eq!(weights(&model.snapshot()), [(100, 100), (0, 50)]);
    let heavier = both.replace("weight = 50", "weight = 60");
    apply(&mut model, &heavier);
    assert_eq!(weights(&model.snapshot()), [(100, 100), (0, 60)]);
    assert_eq!(model.came(), []);
    assert!(model.drain("web", second, false).unwrap().changed);
    assert_eq!(weights(&model.snapshot()), [(100, 100), (60, 60)]);
    assert_eq!(model.came().len(), 1);

    let nobody = model.drain("web", "10.1.0.13:80".parse().unwrap(), true);
    assert_eq!(
        nobody.unwrap_err(),
        "service \"web\" has no real server 10.1.0.13:80; it has: 10.1.0.11:80, 10.1.0.12:80"
    );
    let nowhere = model.drain("wbe", second, true);
    assert_eq!(nowhere.unwrap_err(), "no service \"wbe\"; there are: web");
}

#[test]
fn a_removed_server_is_dismissed_when_its_time_is_up() {
    let both = [SLOW, SECOND].concat();
    let mut model = Model::default();
    apply(&mut model, &both);
    let second = id(&model, "10.1.0.12:80");
    let dismissed = |s: &Snapshot| s.server(second).unwrap().policy.dismissed;
    assert!(!dismissed(&model.snapshot()));
    apply(&mut model, SLOW);
    let leaving: Vec<_> = model.leaving().collect();
    assert_eq!(leaving, [(second, Duration::from_secs(30))]);
    assert!(!dismissed(&model.snapshot()));
    assert!(model.dismiss(second));
    assert!(dismissed(&model.snapshot()));
    assert_eq!(model.leaving().count(), 0);
    // It comes back under its number: nobody is dismissed any more.
    apply(&mut model, &both);
    assert!(!dismissed(&model.snapshot()));
    // "now" is now.
    let now = both.replace("30s", "now");
    apply(&mut model, &now);
    apply(&mut model, &SLOW.replace("30s", "now"));
    assert!(dismissed(&model.snapshot()));
}
