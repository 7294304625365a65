//! What a right file may mean that its writer does not expect, and what a reload cannot do.

use super::super::restart_needed;
use super::*;

#[test]
fn what_may_surprise_is_said() {
    let of = |scheduler: &str, weights: [u16; 2]| {
        let text = BASE
            .replace(
                "scheduler = \"wrr\"",
                &format!("scheduler = \"{scheduler}\""),
            )
            .replace("weight = 100", &format!("weight = {}", weights[0]))
            .replace("12:80\"", &format!("12:80\"\nweight = {}", weights[1]));
        surprises(&right(&text))
    };
    for quiet in ["wrr", "wlc", "sed", "nq", "twos", "mh", "conhash", "sh"] {
        assert_eq!(of(quiet, [64, 64]), Vec::<String>::new(), "{quiet}");
    }
    for (scheduler, said) in [
        ("rr", "rr ignores weights (only 0 drains); wrr follows them"),
        ("lc", "lc ignores weights (only 0 drains); wlc follows them"),
        (
            "dh",
            "dh chooses by the virtual address, and this service has one: all connections go to \
             one server",
        ),
        (
            "lblcr",
            "lblcr chooses by the virtual address, and this service has one: a server gets no \
             connection until another has more active ones than its weight",
        ),
        (
            "ovf",
            "ovf takes weights as numbers of active connections: with 122 it refuses more",
        ),
    ] {
        let want = format!("service \"web\": scheduler {said}");
        assert_eq!(of(scheduler, [100, 20]), [want]);
    }
    let fo = "service \"web\": scheduler fo sends everything to the first server of the highest \
              weight, and several have 7";
    assert_eq!(of("fo", [7, 7]), [fo]);
    assert!(of("fo", [7, 6]).is_empty());
    let part = |server: &str, got: &str| {
        format!(
            "service \"web\": scheduler sh gives real server {server} {got} of the clients, where \
             its weight asks for 50.0 %"
        )
    };
    let want = [
        part("10.1.0.11:80", "97.6 %"),
        part("10.1.0.12:80", "2.3 %"),
    ];
    assert_eq!(of("sh", [250, 250]), want);
}

#[test]
fn uoa_that_reaches_nobody_is_said() {
    let of = |carrier: &str, vip: &str, server: &str| {
        let (front, dns) = BASE.split_once("name = \"dns\"").unwrap();
        let dns = dns
            .replace("10.0.0.10:53", vip)
            .replace("10.1.0.11:53", server)
            .replace("\"10.1.0.100-10.1.0.103\"", "\"10.1.0.100\", \"fd00::100\"");
        let says = format!("name = \"dns\"\nport = \"lan0\"\nclient_address = \"{carrier}\"");
        surprises(&right(&[front, &says, &dns].concat()))
    };
    let (v4, v6) = (
        ("10.0.0.10:53", "10.1.0.11:53"),
        ("[fd00::10]:53", "[fd00::11]:53"),
    );
    assert_eq!(of("uoa", v4.0, v4.1), Vec::<String>::new());
    assert_eq!(of("uoa-opp", v6.0, v6.1), Vec::<String>::new());
    let said = of("uoa", v6.0, v6.1);
    assert_eq!(
        said,
        [
            "service \"dns\": client_address uoa is an option of IPv4, so servers are told nothing; \
          uoa-opp goes with both families"
        ]
    );
    for carrier in ["uoa", "uoa-opp"] {
        let said = of(carrier, v4.0, v6.1);
        let want = format!(
            "service \"dns\": client_address {carrier} does not pass between families: servers of \
             the other one are told nothing; proxy-v2 does"
        );
        assert_eq!(said, [want]);
    }
}

#[test]
fn a_reload_cannot_change_the_machine() {
    let old = right(BASE);
    let hot = BASE
        .replace("weight = 100", "weight = 50")
        .replace("udp = \"30s\"", "udp = \"31s\"")
        .replace("\"managed\"", "\"external\"");
    assert_eq!(restart_needed(&old, &right(&hot)), None);
    let cold = BASE
        .replace("count = 2", "cores = [1, 2, 5]")
        .replace("256MiB", "1GiB")
        .replace("200_000", "100_000")
        .replace("\"auto\"", "\"spin\"")
        .replace("mtu = 1500", "mtu = 9000")
        .replace("10.1.0.2/24", "10.1.0.3/24")
        .replace("\"info\"", "\"warn\"");
    assert_eq!(
        restart_needed(&old, &right(&cold)).unwrap(),
        "a reload cannot change [workers] cores (count = 2 running, [1, 2, 5] in the file); \
         [workers] memory (\"256MiB\" running, \"1GiB\" in the file); [workers] max_connections \
         (200_000 running, 100_000 in the file); [workers] max_connections6 (25000 running, \
         12500 in the file); [workers] idle (auto running, spin in the file); \
         port \"wan0\" mtu (1500 running, 9000 in the file); port \"lan0\" addresses \
         ([\"10.1.0.2/24\"] running, [\"10.1.0.3/24\"] in the file); [log] level (info running, \
         warn in the file); restart Weir to use this file, or put the running values back"
    );
    let renamed = BASE.replace("name = \"lan0\"", "name = \"lan1\"");
    assert_eq!(
        restart_needed(&old, &right(&renamed)).unwrap(),
        "a reload cannot change [[port]] name (wan0, lan0 running, wan0, lan1 in the file); \
         restart Weir to use this file, or put the running values back"
    );
}
