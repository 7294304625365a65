use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::sync::mpsc::Receiver;
use weir_dataplane::route::{Route, RouteTarget};

use super::*;
use crate::net::{Mirror, NetEvent, NetHandle};

/// Runs `test` in a runtime of the thread.
pub(super) fn block_on(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(test);
}

pub(super) fn start(rig: &Rig) -> (NetHandle, Receiver<NetEvent>) {
    Mirror::start(rig.twins.iter().map(Twin::info).collect()).unwrap()
}

/// Waits for an event that `wanted` makes something of.
async fn event<T>(
    events: &mut Receiver<NetEvent>,
    what: &str,
    mut wanted: impl FnMut(NetEvent) -> Option<T>,
) -> T {
    let wait = async {
        loop {
            if let Some(found) = wanted(events.recv().await.unwrap()) {
                return found;
            }
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    waited.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Waits until the routes of main but for the connected ones are these, the director's own
/// addresses aside.
async fn routes(events: &mut Receiver<NetEvent>, wanted: &[(&str, RouteTarget)]) {
    let wanted: Vec<Route> = wanted
        .iter()
        .map(|(prefix, target)| {
            let (addr, len) = prefix.split_once('/').unwrap();
            Route {
                prefix: addr.parse().unwrap(),
                len: len.parse().unwrap(),
                target: *target,
            }
        })
        .collect();
    event(events, &format!("{wanted:?}"), |event| match event {
        NetEvent::Routes(mut routes) => {
            routes.retain(|route| route.target != RouteTarget::Own);
            (routes == wanted).then_some(())
        }
        _ => None,
    })
    .await;
}

fn via(port: u8, gateway: Option<[u8; 4]>, source: Option<[u8; 4]>) -> RouteTarget {
    RouteTarget::Port {
        port: PortId(port),
        gateway: gateway.map(IpAddr::from),
        source: source.map(IpAddr::from),
    }
}

#[test]
fn routes_follow_the_kernel() {
    in_namespace("routes", || {
        let rig = Rig::new(2, 1, 1024, AMPLE);
        ip("address add 10.9.0.1/24 dev w0");
        block_on(async {
            let (_handle, mut events) = start(&rig);
            let wan = ("10.9.0.0/24", via(0, None, Some([10, 9, 0, 1])));
            routes(&mut events, &[wan]).await;
            ip("address add 10.9.1.1/24 dev w1");
            let lan = ("10.9.1.0/24", via(1, None, Some([10, 9, 1, 1])));
            routes(&mut events, &[wan, lan]).await;
            ip("route add default via 10.9.0.254");
            let default = (
                "0.0.0.0/0",
                via(0, Some([10, 9, 0, 254]), Some([10, 9, 0, 1])),
            );
            routes(&mut events, &[default, wan, lan]).await;
            ip("route add blackhole 10.7.0.0/16");
            let hole = ("10.7.0.0/16", RouteTarget::Reject);
            routes(&mut events, &[default, hole, wan, lan]).await;
            ip("route replace default nexthop via 10.9.1.254 nexthop via 10.9.0.254");
            let default = (
                "0.0.0.0/0",
                via(1, Some([10, 9, 1, 254]), Some([10, 9, 1, 1])),
            );
            routes(&mut events, &[default, hole, wan, lan]).await;
            ip("route add default via 10.9.0.253 metric 10");
            ip("route del default metric 0");
            let default = (
                "0.0.0.0/0",
                via(0, Some([10, 9, 0, 253]), Some([10, 9, 0, 1])),
            );
            routes(&mut events, &[default, hole, wan, lan]).await;
            // The kernel tells nothing of the routes that go with a link.
            ip("link set w0 down");
            routes(&mut events, &[hole, lan]).await;
            // A route of another table is not for us; a longer one that is not through a twin
            // hides.
            ip("route add 10.6.0.0/16 via 10.9.1.9 table 77");
            ip("route add 10.9.1.128/25 dev lo");
            let hidden = ("10.9.1.128/25", RouteTarget::Reject);
            routes(&mut events, &[hole, lan, hidden]).await;
        });
    });
}

#[test]
fn ipv6_routes_follow_the_kernel_and_say_where_packets_come_from() {
    in_namespace("routes6", || {
        let rig = Rig::new(2, 1, 1024, AMPLE);
        ip("address add 2001:db8:1::1/64 dev w0");
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        let via = |port, gateway: Option<&str>, source: &str| RouteTarget::Port {
            port: PortId(port),
            gateway: gateway.map(at),
            source: Some(at(source)),
        };
        block_on(async {
            let (handle, mut events) = start(&rig);
            let wan = ("2001:db8:1::/64", via(0, None, "2001:db8:1::1"));
            routes(&mut events, &[wan]).await;
            ip("-6 route add default via fe80::1 dev w0");
            let default = ("::/0", via(0, Some("fe80::1"), "2001:db8:1::1"));
            routes(&mut events, &[default, wan]).await;
            // An address of the way out is nearer than one of another interface.
            ip("address add 2001:db8:2::1/64 dev w1");
            let lan = ("2001:db8:2::/64", via(1, None, "2001:db8:2::1"));
            routes(&mut events, &[default, wan, lan]).await;
            ip("-6 route replace default via fe80::2 dev w1 src 2001:db8:1::1");
            let default = ("::/0", via(1, Some("fe80::2"), "2001:db8:1::1"));
            routes(&mut events, &[default, wan, lan]).await;
            ip("-6 route replace default nexthop via fe80::1 dev w0 nexthop via fe80::2 dev w1");
            let default = ("::/0", via(0, Some("fe80::1"), "2001:db8:1::1"));
            routes(&mut events, &[default, wan, lan]).await;
            ip("-6 route add unreachable 2001:db8:3::/48");
            let none = ("2001:db8:3::/48", RouteTarget::Reject);
            routes(&mut events, &[default, wan, lan, none]).await;
            // IPv4 through an IPv6 neighbour, from an address of the other interface's.
            ip("address add 10.9.1.1/24 dev w1");
            ip("route add 192.0.2.0/24 via inet6 fe80::1 dev w0");
            let lan4 = ("10.9.1.0/24", via(1, None, "10.9.1.1"));
            let rfc8950 = ("192.0.2.0/24", via(0, Some("fe80::1"), "10.9.1.1"));
            routes(&mut events, &[lan4, rfc8950, default, wan, lan, none]).await;
            // A VIP makes no route, and nothing is sent from it.
            let vip = crate::net::WantedAddress {
                addr: at("2001:db8:1::50"),
                kind: crate::net::AddressKind::Vip,
                port: None,
            };
            handle.set_addresses(vec![vip]).await.unwrap();
            ip("address del 2001:db8:1::1/64 dev w0");
            let default = ("::/0", via(0, Some("fe80::1"), "2001:db8:2::1"));
            routes(&mut events, &[lan4, rfc8950, default, lan, none]).await;
        });
    });
}

fn neighbour(event: NetEvent) -> Option<(u8, IpAddr, Option<Mac>)> {
    match event {
        NetEvent::Neighbour { port, addr, mac } => Some((port.0, addr, mac)),
        _ => None,
    }
}

#[test]
fn a_neighbour_is_asked_for_learned_changed_and_lost() {
    in_namespace("neigh", || {
        let mut rig = Rig::new(1, 1, 1024, AMPLE);
        ip("address add 10.9.0.1/24 dev w0");
        let (server, other) = (Mac([2, 0, 0, 0, 0, 9]), Mac([2, 0, 0, 0, 0, 8]));
        let addr = IpAddr::from([10, 9, 0, 9]);
        block_on(async {
            let (handle, mut events) = start(&rig);
            handle.resolve(PortId(0), addr).await;
            // Ends when the kernel has asked; the runtime must go on meanwhile.
            let asked = tokio::task::spawn_blocking(move || {
                let (_, frame) = rig.arp(0, [10, 9, 0, 9]);
                (rig, frame)
            });
            let (mut rig, frame) = asked.await.unwrap();
            let own = (mac(0), [10, 9, 0, 1]);
            assert_eq!(
                frame,
                arp_frame(Mac([0xff; 6]), 1, own, (Mac([0; 6]), [10, 9, 0, 9]))
            );
            rig.send(0, 0, &arp_frame(mac(0), 2, (server, [10, 9, 0, 9]), own));
            let learned = event(&mut events, "an answer", neighbour).await;
            assert_eq!(learned, (0, addr, Some(server)));

            ip(&format!(
                "neigh replace 10.9.0.9 lladdr {other} dev w0 nud stale"
            ));
            let changed = event(&mut events, "a change", neighbour).await;
            assert_eq!(changed, (0, addr, Some(other)));
            ip("neigh del 10.9.0.9 dev w0");
            let lost = event(&mut events, "a loss", neighbour).await;
            assert_eq!(lost, (0, addr, None));
        });
    });
}

/// A neighbour advertisement of `addr` at `from` to the one who asked (RFC 4861 section 4.4).
fn advertisement(asked: &[u8], from: Mac, addr: Ipv6Addr) -> Vec<u8> {
    use weir_dataplane::packet::{checksum, ipv6};
    let mut message = vec![136, 0, 0, 0, 0x60, 0, 0, 0]; // solicited, override
    message.extend(addr.octets());
    message.extend([2, 1]);
    message.extend(from.0);
    let mut addrs = [0; 32];
    addrs[..16].copy_from_slice(&addr.octets());
    addrs[16..].copy_from_slice(&asked[22..38]);
    let pseudo = u32::from(ipv6::pseudo(&addrs, 58, 32));
    let sum = checksum::fold(pseudo + u32::from(checksum::sum(&message)));
    message[2..4].copy_from_slice(&(!sum).to_be_bytes());
    let mut frame = [
        &asked[6..12],
        &from.0,
        &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255],
    ]
    .concat();
    frame.extend(addrs);
    frame.extend(message);
    frame
}

#[test]
fn an_ipv6_neighbour_is_asked_for_learned_and_kept_be_it_of_one_link_only() {
    in_namespace("neigh6", || {
        let rig = Rig::new(1, 1, 1024, AMPLE);
        ip("address add 2001:db8:1::1/64 dev w0");
        let server = Mac([2, 0, 0, 0, 0, 9]);
        block_on(async {
            let (handle, mut events) = start(&rig);
            let mut rig = rig;
            for text in ["2001:db8:1::9", "fe80::9"] {
                let addr: Ipv6Addr = text.parse().unwrap();
                handle.keep(PortId(0), addr.into()).await;
                let asked = tokio::task::spawn_blocking(move || {
                    let (_, frame) = rig.discovery(135, addr);
                    (rig, frame)
                });
                let asked = asked.await.unwrap();
                rig = asked.0;
                // To the solicited-node group, whose MAC address the port lets in.
                assert_eq!(asked.1[..6], [0x33, 0x33, 0xff, 0, 0, 9]);
                rig.send(0, 0, &advertisement(&asked.1, server, addr));
                let learned = event(&mut events, "an answer", neighbour).await;
                assert_eq!(learned, (0, addr.into(), Some(server)));
                let shown = ip(&format!("-6 neigh show to {text}"));
                assert!(shown.contains("managed extern_learn"), "{shown}");
            }
            ip("-6 neigh replace fe80::9 lladdr 02:00:00:00:00:08 dev w0 nud stale");
            let changed = event(&mut events, "a change", neighbour).await;
            let fe80_9 = "fe80::9".parse().unwrap();
            assert_eq!(changed, (0, fe80_9, Some(Mac([2, 0, 0, 0, 0, 8]))));
            ip("-6 neigh del fe80::9 dev w0");
            let lost = event(&mut events, "a loss", neighbour).await;
            assert_eq!(lost, (0, fe80_9, None));
        });
    });
}

#[test]
fn kept_neighbours_are_managed_until_released_and_come_back_with_the_link() {
    in_namespace("keep", || {
        let rig = Rig::new(1, 1, 1024, AMPLE);
        ip("address add 10.9.0.1/24 dev w0");
        let addr = IpAddr::from([10, 9, 0, 9]);
        let shows = |flags: &'static str| async move {
            for _ in 0..PATIENCE.as_millis() / 10 {
                if ip("neigh show to 10.9.0.9").contains(flags) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("no {flags:?} in {}", ip("neigh show to 10.9.0.9"));
        };
        block_on(async {
            let (handle, _events) = start(&rig);
            handle.keep(PortId(0), addr).await;
            shows("managed extern_learn").await;
            handle.resolve(PortId(0), addr).await; // leaves the flags
            handle
                .resolve(PortId(0), IpAddr::from([10, 9, 0, 10]))
                .await;
            for _ in 0..2000 {
                if !ip("neigh show to 10.9.0.10").is_empty() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            shows("managed extern_learn").await;
            ip("link set w0 down");
            assert_eq!(ip("neigh show to 10.9.0.9"), "");
            ip("link set w0 up");
            shows("managed extern_learn").await;
            handle.release(PortId(0), addr).await;
            shows("dev w0 INCOMPLETE").await;
        });
    });
}

#[test]
fn links_are_told_at_the_start_and_when_they_change() {
    in_namespace("links", || {
        let rig = Rig::new(1, 1, 1024, AMPLE);
        block_on(async {
            let (handle, mut events) = start(&rig);
            let mut next = async |what: &str| {
                event(&mut events, what, |event| {
                    matches!(event, NetEvent::Link { .. }).then_some(event)
                })
                .await
            };
            let link = |mac, mtu, up| NetEvent::Link {
                port: PortId(0),
                mac,
                mtu,
                up,
            };
            assert_eq!(next("the start").await, link(mac(0), 1500, true));
            ip("link set w0 mtu 1300");
            assert_eq!(next("an MTU").await, link(mac(0), 1300, true));
            ip("link set w0 address 02:00:00:00:00:05");
            let new = Mac([2, 0, 0, 0, 0, 5]);
            assert_eq!(next("a MAC address").await, link(new, 1300, true));
            rig.twins[0].set_carrier(false).unwrap(); // Weir's own doing is not told
            ip("link set w0 down");
            assert_eq!(next("down").await, link(new, 1300, false));
            handle.shutdown().await;
            assert_eq!(events.recv().await, None);
        });
    });
}

#[test]
fn lost_notifications_are_made_up_for() {
    in_namespace("lost", || {
        let rig = Rig::new(1, 1, 1024, AMPLE);
        ip("address add 10.9.0.1/16 dev w0");
        ip("neigh add 10.9.0.9 lladdr 02:00:00:00:00:09 dev w0 nud permanent");
        let batch = |verb: &str, lladdr: &str| {
            let hosts = (0..60_000u32).map(|n| Ipv4Addr::from(0x0a09_1000 + n));
            let lines = hosts.map(|host| format!("neigh {verb} {host} {lladdr}dev w0\n"));
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), lines.collect::<String>()).unwrap();
            ip(&format!("-batch {}", file.path().display()));
        };
        block_on(async {
            let (_handle, mut events) = start(&rig);
            let known = event(&mut events, "the start", neighbour).await;
            assert_eq!(
                known,
                (
                    0,
                    IpAddr::from([10, 9, 0, 9]),
                    Some(Mac([2, 0, 0, 0, 0, 9]))
                )
            );
            // The thread of the runtime is ours: while we make changes nobody listens, and far
            // more is told than the socket's buffer holds.
            ip("neigh del 10.9.0.9 dev w0");
            batch("add", "lladdr 02:00:00:00:00:07 nud permanent ");
            batch("del", "");
            ip("neigh add 10.9.0.10 lladdr 02:00:00:00:00:10 dev w0 nud permanent");
            let mut left = std::collections::HashMap::new();
            left.extend(known.2.map(|mac| (known.1, mac)));
            event(&mut events, "what is left", |event| {
                let (_, addr, mac) = neighbour(event)?;
                match mac {
                    Some(mac) => left.insert(addr, mac),
                    None => left.remove(&addr),
                };
                (left.len() == 1 && left.contains_key(&IpAddr::from([10, 9, 0, 10]))).then_some(())
            })
            .await;
        });
    });
}
