mod random;
mod turnover;

use super::*;
use crate::config::{Machine, parse};

const PORTS: &str = r#"
[[port]]
name = "wan0"
device = "net_null0"
addresses = ["10.0.0.2/24"]
[[port]]
name = "lan0"
device = "net_null1"
addresses = ["10.1.0.2/24"]
"#;

const WEB: &str = r#"
[[service]]
name = "web"
address = "10.0.0.10:80"
protocol = "tcp"
local_addresses = ["10.1.0.100-10.1.0.101"]
[[service.real_server]]
address = "10.1.0.11:80"
weight = 100
[[service.real_server]]
address = "10.1.0.12:80"
weight = 50
"#;

const DNS: &str = r#"
[[service]]
name = "dns"
address = "10.0.0.10:53"
protocol = "udp"
local_addresses = ["10.1.0.100-10.1.0.101"]
[[service.real_server]]
address = "10.1.0.11:53"
"#;

fn config(text: &str) -> Config {
    let machine = Machine { cores: vec![0] };
    parse("test.toml", &format!("{PORTS}{text}"), &machine).unwrap_or_else(|e| panic!("{e}"))
}

fn apply(model: &mut Model, text: &str) -> Vec<String> {
    let changes = model.apply(&config(text)).unwrap();
    let services = changes.services.iter().map(ToString::to_string);
    services
        .chain(changes.servers.iter().map(ToString::to_string))
        .collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ids(model: &Model) -> Vec<(String, u32, bool)> {
    let servers = model.services().flat_map(|e| &e.servers);
    servers
        .map(|s| (s.address.to_string(), s.id.0, s.removed_in.is_some()))
        .collect()
}

fn wanted(model: &Model) -> Vec<String> {
    let show = |a: &WantedAddress| match &a.port {
        Some(port) => format!("{:?} {} {port}", a.kind, a.addr),
        None => format!("{:?} {}", a.kind, a.addr),
    };
    model.addresses().iter().map(show).collect()
}

#[test]
fn first_configuration() {
    let mut model = Model::default();
    assert_eq!(
        apply(&mut model, &[WEB, DNS].concat()),
        [
            "service \"web\" (10.0.0.10:80/tcp) added",
            "service \"dns\" (10.0.0.10:53/udp) added",
            "service \"web\": real server 10.1.0.11:80 added",
            "service \"web\": real server 10.1.0.12:80 added",
            "service \"dns\": real server 10.1.0.11:53 added",
        ]
    );
    assert_eq!(
        wanted(&model),
        ["Vip 10.0.0.10", "Local 10.1.0.100", "Local 10.1.0.101"]
    );
    let snapshot = model.snapshot();
    assert_eq!(snapshot.generation, 1);
    let key = ServiceKey::Address {
        proto: weir_dataplane::Proto::Tcp,
        vip: ip("10.0.0.10"),
        port: 80,
    };
    let web = snapshot.lookup(&random::asked(&key)).unwrap();
    let weights: Vec<_> = web.servers.iter().map(|c| (c.id.0, c.weight)).collect();
    assert_eq!(weights, [(0, 100), (1, 50)]);
    assert_eq!(
        snapshot.server(ServerId(2)).unwrap().address.to_string(),
        "10.1.0.11:53"
    );
}

#[test]
fn the_same_again_changes_nothing_and_publishes_nothing() {
    let mut model = Model::default();
    apply(&mut model, WEB);
    let first = model.snapshot();
    let changes = model.apply(&config(WEB)).unwrap();
    assert!(changes.is_empty());
    assert_eq!(changes.to_string(), "nothing changed");
    assert!(Arc::ptr_eq(&first, &model.snapshot()));
}

#[test]
fn a_change_is_told_key_by_key() {
    let mut model = Model::default();
    apply(&mut model, &[WEB, DNS].concat());
    let first = model.snapshot();
    let text = WEB
        .replace(
            "\"web\"",
            "\"www\"\nscheduler = \"rr\"\ntimeouts.close = \"1s\"",
        )
        .replace("10.1.0.100-10.1.0.101", "10.1.0.101-10.1.0.103")
        .replace("weight = 50", "weight = 0\nname = \"b\"");
    let edited = config(
        &[
            &text,
            DNS,
            "[timeouts]\nudp = \"9s\"\n[ipvs]\nsecure_tcp = 1",
        ]
        .concat(),
    );
    let changes = model.apply(&edited).unwrap();
    assert_eq!(
        changes.services[0].to_string(),
        "service \"www\" (10.0.0.10:80/tcp) changed: name \"web\" to \"www\", scheduler wrr to \
         rr, local_addresses (2 added, 1 removed), timeouts"
    );
    assert_eq!(
        changes.servers[0].to_string(),
        "service \"www\": real server 10.1.0.12:80 changed: weight 50 to 0, name none to b"
    );
    assert_eq!(
        changes.to_string(),
        "services: 0 added, 1 changed, 0 removed; real servers: 0 added, 1 changed, 0 removed; \
         timeouts changed; ipvs changed"
    );
    let second = model.snapshot();
    assert_eq!((first.generation, second.generation), (1, 2));
    let service = |s: &service::Snapshot, id| std::ptr::from_ref(s.service(ServiceId(id)).unwrap());
    assert_ne!(service(&first, 0), service(&second, 0));
    assert_eq!(
        service(&first, 1),
        service(&second, 1),
        "an unchanged service is shared"
    );
}

#[test]
fn order_of_servers_is_a_change() {
    let mut model = Model::default();
    apply(&mut model, WEB);
    model.snapshot();
    let swapped = WEB
        .replace("0.12:80", "0.x")
        .replace("0.11:80", "0.12:80")
        .replace("0.x", "0.11:80");
    let swapped = swapped
        .replace("= 100", "= x")
        .replace("= 50", "= 100")
        .replace("= x", "= 50");
    let changes = apply(&mut model, &swapped);
    assert_eq!(
        changes,
        ["service \"web\" (10.0.0.10:80/tcp) changed: order of real servers"]
    );
    let snapshot = model.snapshot();
    let web = snapshot.service(ServiceId(0)).unwrap();
    assert_eq!(
        web.servers.iter().map(|c| c.id.0).collect::<Vec<_>>(),
        [1, 0]
    );
}

/// A removed server keeps its record and number while it has connections, and gets them back
/// with its number when it returns.
#[test]
fn a_server_goes_and_comes_back() {
    let mut model = Model::default();
    apply(&mut model, WEB);
    model.snapshot();
    let one = WEB
        .split("[[service.real_server]]\naddress = \"10.1.0.12")
        .next()
        .unwrap();
    let removed = apply(&mut model, one);
    assert_eq!(
        removed,
        ["service \"web\": real server 10.1.0.12:80 removed"]
    );
    let snapshot = model.snapshot();
    assert_eq!(snapshot.generation, 2);
    assert_eq!(snapshot.service(ServiceId(0)).unwrap().servers.len(), 1);
    assert!(
        snapshot.server(ServerId(1)).is_some(),
        "its connections need the record"
    );
    assert!(model.has_removed());
    assert!(
        !model.reap(1, |_| 0),
        "a worker may yet open a connection with generation 1"
    );
    assert!(
        !model.reap(2, |id| u64::from(id == ServerId(1))),
        "one connection stands"
    );

    assert_eq!(
        apply(&mut model, WEB),
        ["service \"web\": real server 10.1.0.12:80 added"]
    );
    let tcp = |n: u8, id| (format!("10.1.0.{n}:80"), id, false);
    assert_eq!(ids(&model), [tcp(11, 0), tcp(12, 1)]);
    assert_eq!(
        model
            .snapshot()
            .service(ServiceId(0))
            .unwrap()
            .servers
            .len(),
        2
    );

    apply(&mut model, one);
    model.snapshot();
    assert!(model.reap(4, |_| 0));
    assert_eq!(ids(&model), [tcp(11, 0)]);
    assert!(!model.has_removed());
    assert!(model.snapshot().server(ServerId(1)).is_none());
    let other = WEB.replace("10.1.0.12", "10.1.0.13");
    apply(&mut model, &other);
    assert_eq!(
        ids(&model),
        [tcp(11, 0), tcp(13, 1)],
        "a number is free after reap"
    );
}

#[test]
fn addresses_of_a_removed_service_stay_until_its_last_connection() {
    let mut model = Model::default();
    let other = WEB
        .replace("\"web\"", "\"other\"")
        .replace("10.0.0.10", "10.0.0.11")
        .replace("10.1.0.100-10.1.0.101", "10.1.0.101-10.1.0.102");
    apply(&mut model, &[WEB, &other].concat());
    model.snapshot();
    apply(&mut model, WEB);
    let all = [
        "Vip 10.0.0.10",
        "Vip 10.0.0.11",
        "Local 10.1.0.100",
        "Local 10.1.0.101",
        "Local 10.1.0.102",
    ];
    assert_eq!(wanted(&model), all);
    let snapshot = model.snapshot();
    assert!(snapshot.address_use(ip("10.0.0.11")).vip);
    assert!(snapshot.address_use(ip("10.1.0.102")).local);
    assert_eq!(snapshot.services().count(), 1);
    assert!(
        model.reap(2, |id| u64::from(id == ServerId(3))),
        "one of two servers is idle"
    );
    assert_eq!(wanted(&model), all);
    assert!(model.reap(2, |_| 0));
    assert_eq!(
        wanted(&model),
        ["Vip 10.0.0.10", "Local 10.1.0.100", "Local 10.1.0.101"]
    );
    assert!(!model.snapshot().address_use(ip("10.0.0.11")).vip);
}

#[test]
fn a_local_address_given_up_stays_until_the_service_is_idle() {
    let mut model = Model::default();
    apply(&mut model, WEB);
    model.snapshot();
    apply(
        &mut model,
        &WEB.replace("10.1.0.100-10.1.0.101", "10.1.0.101"),
    );
    let snapshot = model.snapshot();
    assert_eq!(
        snapshot.service(ServiceId(0)).unwrap().local_addresses,
        [ip("10.1.0.101")].into_iter().collect()
    );
    assert!(snapshot.address_use(ip("10.1.0.100")).local);
    assert!(!model.reap(2, |id| u64::from(id == ServerId(0))));
    assert_eq!(
        wanted(&model),
        ["Vip 10.0.0.10", "Local 10.1.0.100", "Local 10.1.0.101"]
    );
    assert!(model.reap(2, |_| 0));
    assert_eq!(wanted(&model), ["Vip 10.0.0.10", "Local 10.1.0.101"]);
}

#[test]
fn ports_named_for_addresses() {
    let mut model = Model::default();
    let web = WEB
        .replace("10.0.0.10", "192.0.2.10")
        .replace("10.1.0.101\"", "10.1.0.101\", \"192.0.2.100\"");
    let named = web.replace("protocol", "port = \"lan0\"\nprotocol");
    apply(&mut model, &named);
    let mut expected = [
        "Local 10.1.0.100",
        "Local 10.1.0.101",
        "Vip 192.0.2.10 lan0",
        "Local 192.0.2.100 lan0",
    ];
    assert_eq!(wanted(&model), expected);
    let changes = apply(
        &mut model,
        &named.replace("\"lan0\"\nprotocol", "\"wan0\"\nprotocol"),
    );
    assert_eq!(
        changes,
        ["service \"web\" (192.0.2.10:80/tcp) changed: port lan0 to wan0"]
    );
    expected[2] = "Vip 192.0.2.10 wan0";
    expected[3] = "Local 192.0.2.100 wan0";
    assert_eq!(wanted(&model), expected);
    let external = [&named, "[addresses]\nvips = \"external\""].concat();
    model.apply(&config(&external)).unwrap();
    expected[3] = "Local 192.0.2.100 lan0";
    assert_eq!(wanted(&model), [expected[0], expected[1], expected[3]]);
}

#[test]
fn more_servers_than_numbers_change_nothing() {
    let mut model = Model::default();
    apply(&mut model, WEB);
    model.server_ids = Ids::after(ServerId::LIMIT);
    let more = [WEB, DNS].concat();
    let error = model.apply(&config(&more)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "16777217 real servers, those with connections left from before included; at most \
         16777216 have numbers: configure fewer, or wait for connections to end"
    );
    assert_eq!(ids(&model).len(), 2);
    assert_eq!(model.services().count(), 1);
    model.server_ids = Ids::after(ServerId::LIMIT - 1);
    apply(&mut model, &more);
    assert_eq!(ids(&model)[2].1, ServerId::LIMIT - 1);
}

/// A mark's virtual addresses are those of its rules; one that they name no more stays while the
/// service has a connection.
#[test]
fn virtual_addresses_of_a_mark_follow_the_rules() {
    const MARKED: &str = r#"
[[service]]
name = "marked"
fwmark = 7
forward = "nat"
[[service.real_server]]
address = "10.1.0.11:0"

[[mark]]
mark = 7
destination = ["10.0.0.20-10.0.0.21"]
"#;
    let mut model = Model::default();
    assert_eq!(
        apply(&mut model, MARKED),
        [
            "service \"marked\" (fwmark 7) added",
            "service \"marked\": real server 10.1.0.11:0 added",
        ]
    );
    assert_eq!(wanted(&model), ["Vip 10.0.0.20", "Vip 10.0.0.21"]);
    let first = model.snapshot();
    let changes = model
        .apply(&config(&MARKED.replace("10.0.0.20-", "")))
        .unwrap();
    assert_eq!(changes.to_string(), "marking rules changed");
    assert_eq!(wanted(&model), ["Vip 10.0.0.20", "Vip 10.0.0.21"]);
    let second = model.snapshot();
    let asked = random::asked(&ServiceKey::Address {
        proto: weir_dataplane::Proto::Sctp,
        vip: ip("10.0.0.20"),
        port: 1,
    });
    assert!(first.lookup(&asked).is_some() && second.lookup(&asked).is_none());
    assert!(model.has_removed());
    assert!(!model.reap(second.generation, |_| 1), "a connection stands");
    assert!(model.reap(second.generation, |_| 0));
    assert_eq!(wanted(&model), ["Vip 10.0.0.21"]);
    assert!(!model.has_removed());
}

/// A pool of SNAT lives as a service does: its addresses are the director's until the last
/// connection that leaves with one is gone, and a rule that comes back has its numbers.
#[test]
fn a_pool_stays_until_its_connections_are_gone() {
    const OUT: &str = r#"
[[snat]]
name = "out"
source = ["10.1.0.0/24", "2001:db8:1::/64"]
to = ["10.0.0.100-10.0.0.101", "2001:db8::100"]
port = "wan0"
"#;
    let mut model = Model::default();
    assert_eq!(
        apply(&mut model, &[DNS, OUT].concat())[1..3],
        [
            "service \"out\" (snat out) added",
            "service \"out\" (snat out, ipv6) added",
        ]
    );
    let first = model.snapshot();
    assert!(first.has_snat() && first.snat().rules().len() == 1);
    let pool = ids(&model);
    assert!(wanted(&model).contains(&"Local 10.0.0.101".to_owned()));
    assert!(wanted(&model).contains(&"Local 2001:db8::100 wan0".to_owned()));
    let changes = model.apply(&config(DNS)).unwrap();
    let said = "services: 0 added, 0 changed, 2 removed; real servers: 0 added, 0 changed, \
                3 removed; snat rules changed";
    assert_eq!(changes.to_string(), said);
    let second = model.snapshot();
    assert!(second.has_snat(), "its connections go on");
    assert!(second.snat().is_empty());
    assert!(second.address_use(ip("10.0.0.100")).local);
    assert!(!model.reap(u64::MAX, |_| 1));
    apply(&mut model, &[DNS, OUT].concat());
    let again: Vec<_> = ids(&model)
        .into_iter()
        .map(|(at, id, _)| (at, id))
        .collect();
    let before: Vec<_> = pool.into_iter().map(|(at, id, _)| (at, id)).collect();
    assert_eq!(again, before);
    apply(&mut model, DNS);
    assert!(model.reap(u64::MAX, |_| 0));
    assert!(!model.snapshot().has_snat());
    assert!(
        !wanted(&model)
            .iter()
            .any(|address| address.contains("10.0.0.10 "))
    );
    assert!(!model.snapshot().address_use(ip("10.0.0.100")).local);
}

/// Only the rules' order changes: that is a change, and no service's.
#[test]
fn rules_in_another_order() {
    let rule = |name: &str, to: &str| {
        format!("[[snat]]\nname = \"{name}\"\nsource = [\"10.1.0.0/24\"]\nto = {to}\n")
    };
    let (a, b) = (rule("a", "[\"10.0.0.100\"]"), rule("b", "\"none\""));
    let mut model = Model::default();
    apply(&mut model, &format!("{a}{b}"));
    let changes = model.apply(&config(&format!("{b}{a}"))).unwrap();
    assert_eq!(changes.to_string(), "snat rules changed");
    assert!(!changes.is_empty());
}
