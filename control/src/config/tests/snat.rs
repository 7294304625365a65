//! Right rules of SNAT.

use weir_dataplane::conn::state::State;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::sched::SchedulerKind;
use weir_dataplane::service::{PortRange, SnatPool, SnatRule};
use weir_dataplane::{PortId, Proto};

use super::*;

/// Rules of SNAT, and their pools as services.
#[test]
fn snat_rules_and_pools() {
    let text = BASE.replace(
        "[timeouts]",
        r#"
[[snat]]
name = "inner"
source = ["10.1.0.0/24"]
destination = ["10.9.0.0/16", "10.1.0.0/24"]
to = "none"

[[snat]]
name = "mail"
source = ["10.1.0.11"]
ports = [25, "465-587"]
protocol = "tcp"
to = ["10.0.0.99"]

[[snat]]
name = "out"
source = ["10.1.0.0/24", "2001:db8:1::/64"]
out = "wan0"
to = ["10.0.0.10", "10.0.0.100-10.0.0.101", "2001:db8::100"]
to_ports = "32768-60999"
scheduler = "rr"
port = "wan0"
timeouts = { udp = "60s", icmp = "10s" }
limits = { per_client = { connections = 100 } }

[timeouts]"#,
    );
    let config = right(&text);
    let rules = config.snat.rules();
    let named = |rule: &SnatRule| rule.pool.map(|pool| pool.to_string());
    let names: Vec<_> = rules.iter().map(named).collect();
    assert_eq!(
        names,
        [None, Some("mail".to_owned()), Some("out".to_owned())]
    );
    assert_eq!(rules[0].pattern.destinations.len(), 2);
    assert_eq!(rules[1].pattern.proto, Some(Proto::Tcp));
    assert_eq!(rules[2].pattern.arrival, Some(PortId(0)));
    let pools: Vec<_> = config.services[2..].iter().collect();
    let shown: Vec<_> = pools.iter().map(|pool| pool.key.to_string()).collect();
    assert_eq!(shown, ["snat mail", "snat out", "snat out, ipv6"]);
    let [mail, out, out6] = pools[..] else {
        panic!("{shown:?}")
    };
    assert_eq!(mail.policy.snat, SnatPool::default());
    assert_eq!(mail.scheduler, SchedulerKind::mh);
    assert_eq!(
        out.policy.snat.ports,
        PortRange::new(32_768, 60_999).unwrap()
    );
    assert_eq!(out.policy.limits.client.connections, 100);
    assert_eq!(out.local_addresses.len(), 3);
    let servers: Vec<_> = out.servers.iter().map(|s| s.address.to_string()).collect();
    assert_eq!(servers, ["10.0.0.10:0", "10.0.0.100:0", "10.0.0.101:0"]);
    assert!(out.servers.iter().all(|s| s.forward == ForwardMode::snat));
    assert_eq!(out6.local_addresses, [ip("2001:db8::100")]);
    assert_eq!(out6.scheduler, SchedulerKind::rr);
    let own: Vec<_> = out6.timeouts.iter().collect();
    assert_eq!(own, [(State::Udp, 60 * 64), (State::Icmp, 10 * 64)]);
    assert!(config.placed_vips(out).is_empty());
    assert_eq!(surprises(&config), Vec::<String>::new());
}
