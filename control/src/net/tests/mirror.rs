use std::net::{IpAddr, Ipv4Addr};

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

/// Waits until the routes of main but for the connected ones are these.
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
        NetEvent::Routes(routes) => (routes == wanted).then_some(()),
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
            let default = ("0.0.0.0/0", via(0, Some([10, 9, 0, 254]), None));
            routes(&mut events, &[default, wan, lan]).await;
            ip("route add blackhole 10.7.0.0/16");
            let hole = ("10.7.0.0/16", RouteTarget::Reject);
            routes(&mut events, &[default, hole, wan, lan]).await;
            ip("route replace default nexthop via 10.9.1.254 nexthop via 10.9.0.254");
            let default = ("0.0.0.0/0", via(1, Some([10, 9, 1, 254]), None));
            routes(&mut events, &[default, hole, wan, lan]).await;
            ip("route add default via 10.9.0.253 metric 10");
            ip("route del default metric 0");
            let default = ("0.0.0.0/0", via(0, Some([10, 9, 0, 253]), None));
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
