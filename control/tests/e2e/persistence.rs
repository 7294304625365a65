//! Persistence with real clients of several addresses: each keeps its server, and so do neighbours
//! where the netmask makes them one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::client::curl;
use crate::config::Config;
use crate::servers::Nginx;
use crate::topology::{Lab, VIP, checked, text};
use crate::weir::Director;
use crate::with_1_2_and_3_workers;

with_1_2_and_3_workers!(each_client_keeps_its_server);

/// The client's addresses: two networks of 28 bits in its network of 24.
fn clients() -> impl Iterator<Item = Ipv4Addr> {
    let last = (32..38).chain(64..70);
    last.map(|n| Ipv4Addr::new(10, 0, 0, n))
}

/// Who answers `times` requests from `client`.
fn answers(lab: &Lab, client: Ipv4Addr, times: usize) -> BTreeSet<String> {
    let mut curl = curl(lab);
    curl.args([
        "-H",
        "Connection: close",
        "--interface",
        &client.to_string(),
    ]);
    let answers = text(checked(curl.arg(format!("http://{VIP}/[1-{times}]"))));
    answers.lines().map(str::to_owned).collect()
}

fn each_client_keeps_its_server(workers: usize) {
    let Some(lab) = Lab::new(3) else { return };
    let _nginx = Nginx::in_all(&lab);
    let config = Config::new(workers).server(1, 1).server(2, 1).server(3, 1);
    let with = |persistence: &str| {
        let key = "local_addresses = [";
        let keys = format!("persistence = {persistence}\n{key}");
        config.toml().replacen(key, &keys, 1)
    };
    let weir = Director::start(&lab, &config);
    let device = lab.client.interfaces();
    let device = device.first().expect("a link to the director");
    for client in clients() {
        lab.client.ip(&format!("addr add {client}/24 dev {device}"));
    }
    let apply = |toml: &str| {
        let reload = weir.reload(toml);
        assert!(reload.status.success(), "{reload:?}");
    };
    // Without it, one client's requests go all over.
    assert_eq!(answers(&lab, Ipv4Addr::new(10, 0, 0, 32), 6).len(), 3);

    apply(&with("{ timeout = \"60s\" }"));
    let mut servers: BTreeMap<Ipv4Addr, String> = BTreeMap::new();
    for _ in 0..2 {
        for client in clients() {
            let mut said = answers(&lab, client, 8);
            assert_eq!(said.len(), 1, "{client}: {said:?}");
            let name = said.pop_first().expect("one");
            let kept = servers.entry(client).or_insert_with(|| name.clone());
            assert_eq!(*kept, name, "{client}");
        }
    }
    let used: BTreeSet<_> = servers.values().collect();
    assert!(used.len() > 1, "twelve clients on one server: {servers:?}");

    apply(&with("{ timeout = \"60s\", netmask = 28 }"));
    let mut said: BTreeMap<u8, BTreeSet<String>> = BTreeMap::new();
    for client in clients() {
        let network = client.octets()[3] >> 4;
        said.entry(network)
            .or_default()
            .append(&mut answers(&lab, client, 4));
    }
    for (network, said) in &said {
        assert_eq!(said.len(), 1, "network {network}: {said:?}");
    }

    shown(&weir, &servers_of(&said));

    // A drained server keeps its clients; with expire_quiescent_template it does not.
    let keeps = said[&2].first().expect("one").clone();
    let rip = format!("10.1.0.1{}:80", &keeps[2..]);
    let drained = with("{ timeout = \"60s\", netmask = 28 }").replacen(
        &format!("address = \"{rip}\"\nweight = 1"),
        &format!("address = \"{rip}\"\nweight = 0"),
        1,
    );
    apply(&drained);
    let client = Ipv4Addr::new(10, 0, 0, 32);
    assert_eq!(answers(&lab, client, 3), BTreeSet::from([keeps.clone()]));
    apply(&(drained + "\n[ipvs]\nexpire_quiescent_template = true\n"));
    let moved = answers(&lab, client, 3);
    assert!(
        moved.len() == 1 && !moved.contains(&keeps),
        "{keeps}, then {moved:?}"
    );
}

/// The one server of each network.
fn servers_of(said: &BTreeMap<u8, BTreeSet<String>>) -> BTreeMap<String, String> {
    let one = |(network, said): (&u8, &BTreeSet<String>)| {
        let name = said.first().expect("one");
        let network = format!("10.0.0.{}/28", network << 4);
        (network, format!("10.1.0.1{}:80", &name[2..]))
    };
    said.iter().map(one).collect()
}

/// `weir templates` says so too, whichever worker it is that knows.
fn shown(weir: &Director<'_>, wanted: &BTreeMap<String, String>) {
    let listed = weir.json(&["templates", "--service", "web", "--limit", "100"]);
    let templates = listed["templates"].as_array().expect("a list");
    let by_network = |t: &&serde_json::Value| t["client"].as_str().unwrap_or("").ends_with("/28");
    let mut got = BTreeMap::new();
    for t in templates.iter().filter(by_network) {
        let text = |key: &str| t[key].as_str().expect("a text").to_owned();
        let (state, to) = (text("state"), text("virtual"));
        assert_eq!((state.as_str(), to), ("ASSURED", format!("{VIP}:80")));
        assert!(t["connections"].as_u64() > Some(0), "{t}");
        let left = t["expires_seconds"].as_u64().expect("seconds");
        assert!((30..=60).contains(&left), "{t}");
        assert_eq!(got.insert(text("client"), text("server")), None);
    }
    assert_eq!(got, *wanted);
    let one = weir.json(&["templates", "--client", "10.0.0.33"]);
    let all = one["templates"].as_array().expect("a list").iter();
    let clients: BTreeSet<_> = all.filter_map(|t| t["client"].as_str()).collect();
    assert_eq!(clients, BTreeSet::from(["10.0.0.33/32", "10.0.0.32/28"]));
    let table = text(weir.ask(&["templates"]));
    assert!(table.starts_with("PRO  EXPIRES  STATE"), "{table}");
}
