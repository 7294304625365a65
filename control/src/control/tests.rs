//! The whole loop: real workers on simulated ports, the kernel's side and the API's played by
//! the tests.

use std::net::SocketAddrV4;

use weir_dataplane::packet::build::Packet;
use weir_dataplane::packet::tcp::flags;
use weir_dataplane::{Mac, PortId};

use super::*;
use crate::api::{ConnectionFilter, Problem};

mod lab;

use lab::{MACS, file};

const VIP_AND_LIP: &str = "10.0.0.10 10.1.0.100";

fn at(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}

/// Lets the loop have a few turns in which nothing is to happen.
async fn some_turns() {
    tokio::time::sleep(4 * TICK).await;
}

#[test]
fn addresses_appear_when_every_worker_holds_the_services() {
    let ended = lab::run(&file(&[11]), async |hands| {
        hands.world.borrow_mut().asleep = vec![1];
        hands.until("the first worker takes them", |_| true).await;
        some_turns().await;
        let status = hands.ask(Request::Status).await;
        assert_eq!((status.generation, status.settled), (1, false));
        let held: Vec<u64> = status.workers.iter().map(|w| w.generation).collect();
        assert_eq!(held, [1, 0]);
        assert!(hands.world.borrow().addresses.is_empty());

        hands.world.borrow_mut().asleep.clear();
        hands
            .until("addresses", |w| w.addresses == [VIP_AND_LIP])
            .await;
        some_turns().await;
        let status = hands.ask(Request::Status).await;
        assert!(status.settled);
        assert_eq!((status.services, status.max_connections), (1, 4096));
        assert_eq!(
            (status.workers[0].cpu, &*status.workers[0].idle),
            (4, "sleep")
        );
        let port = &status.ports[1];
        assert_eq!((&*port.name, &*port.device), ("lan0", "net_sim1"));
        assert_eq!(
            (port.link_up, port.link_mbps, port.rx_missed),
            (true, Some(10_000), 3)
        );
        assert_eq!(
            (&*port.mac, &*port.alignment),
            ("02:00:00:00:00:02", "unaligned")
        );
    });
    assert!(ended.is_none());
}

/// Opens a connection from `client`; the server's SYN, once it is on its way.
async fn open(hands: &lab::Hands, client: &str) {
    hands.send(Packet::tcp(at(client), at("10.0.0.10:80"), flags::SYN));
    let waiting = async {
        while hands.sent(1).is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(30), waiting).await;
    assert!(in_time.is_ok(), "no SYN to the server");
}

/// Routes and services are there, and the servers' neighbours known.
async fn up(hands: &lab::Hands, servers: &[u8]) {
    hands.routes().await;
    hands
        .until("addresses", |w| w.addresses == [VIP_AND_LIP])
        .await;
    for &last in servers {
        let event = NetEvent::Neighbour {
            port: PortId(1),
            addr: IpAddr::from([10, 1, 0, last]),
            mac: Some(Mac([2, 0, 0, 1, 0, last])),
        };
        hands.news(event).await;
    }
    some_turns().await;
}

#[test]
fn the_first_packet_waits_for_the_neighbour_that_it_asks_for() {
    lab::run(&file(&[11]), async |hands| {
        up(hands, &[]).await;
        let server = IpAddr::from([10, 1, 0, 11]);
        assert_eq!(hands.world.borrow().kept, [server]);
        hands.send(Packet::tcp(
            at("10.0.0.7:4000"),
            at("10.0.0.10:80"),
            flags::SYN,
        ));
        let asked = Hop {
            port: PortId(1),
            addr: server,
        };
        hands
            .until("a question", |w| w.resolved.contains(&asked))
            .await;
        assert!(hands.sent(1).is_none());
        let mac = Mac([2, 0, 0, 1, 0, 11]);
        let event = NetEvent::Neighbour {
            port: asked.port,
            addr: asked.addr,
            mac: Some(mac),
        };
        hands.news(event).await;
        let frame = loop {
            match hands.sent(1) {
                Some(frame) => break frame,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        let bytes = weir_dataplane::io::Frame::bytes(&frame);
        assert_eq!((&bytes[..6], &bytes[6..12]), (&mac.0[..], &MACS[1].0[..]));

        hands.until_servers(&["11 active 1+0"]).await;
        let listed = hands
            .ask(|back| Request::Connections(ConnectionFilter::default(), back))
            .await
            .unwrap();
        assert_eq!((listed.connections.len(), listed.more), (1, false));
        let shown = &listed.connections[0];
        assert_eq!(shown.service.as_deref(), Some("web"));
        assert_eq!(
            (&*shown.state, shown.client),
            ("SYN_RECV", at("10.0.0.7:4000").into())
        );
        assert_eq!(shown.server, at("10.1.0.11:80").into());
        let counters = hands.ask(Request::Counters).await;
        assert_eq!((counters.balance.rx, counters.balance.tx), (1, 1));
        assert!(counters.balance.balanced);
    });
}

#[test]
fn a_reload_loses_no_connection_and_forgets_a_server_with_its_last() {
    lab::run(&file(&[11]), async |hands| {
        up(hands, &[11, 12]).await;
        open(hands, "10.0.0.7:4000").await;
        hands.write(&file(&[12]));
        let reloaded = hands.ask(Request::Reload).await.unwrap();
        assert_eq!(reloaded.generation, 2);
        assert_eq!(
            reloaded.changes,
            [
                "service \"web\": real server 10.1.0.12:80 added",
                "service \"web\": real server 10.1.0.11:80 removed",
            ]
        );
        assert_eq!(hands.servers().await, ["12 active 0+0", "11 leaving 1+0"]);
        // Nothing of the addresses changed.
        assert_eq!(hands.world.borrow().addresses, [VIP_AND_LIP]);
        // The standing connection still goes to 11, a new one to 12.
        let client = at("10.0.0.7:4000");
        hands.send(Packet::tcp(client, at("10.0.0.10:80"), flags::ACK));
        open(hands, "10.0.0.7:4001").await;
        hands
            .until_servers(&["12 active 1+0", "11 leaving 1+0"])
            .await;

        // The client resets the first; ten seconds later it is forgotten, and then the server.
        hands.send(Packet::tcp(client, at("10.0.0.10:80"), flags::RST));
        hands
            .until_servers(&["12 active 1+0", "11 leaving 0+1"])
            .await;
        hands.world.borrow_mut().seconds_pass(20);
        hands.until_servers(&["12 active 1+0"]).await;
        let kept = [IpAddr::from([10, 1, 0, 12])];
        hands.until("11 is let go", |w| w.kept == kept).await;
    });
}

#[test]
fn addresses_of_a_removed_service_stay_until_its_last_connection() {
    lab::run(&file(&[11]), async |hands| {
        up(hands, &[11]).await;
        open(hands, "10.0.0.7:4000").await;
        let text = file(&[]);
        let (without, _) = text.split_once("[[service]]").unwrap();
        hands.write(without);
        hands.ask(Request::Reload).await.unwrap();
        assert_eq!(hands.servers().await, ["11 leaving 1+0"]);
        assert_eq!(hands.world.borrow().addresses, [VIP_AND_LIP]);
        for flags in [flags::ACK, flags::RST] {
            hands.send(Packet::tcp(at("10.0.0.7:4000"), at("10.0.0.10:80"), flags));
        }
        hands.until_servers(&["11 leaving 0+1"]).await;
        hands.world.borrow_mut().seconds_pass(20);
        hands
            .until("no addresses", |w| w.addresses == [VIP_AND_LIP, ""])
            .await;
        hands.until_servers(&[]).await;
    });
}

#[test]
fn a_reload_is_applied_as_a_whole_or_not_at_all() {
    lab::run(&file(&[11]), async |hands| {
        up(hands, &[]).await;
        let refusal = async |text: &str| {
            hands.write(text);
            match hands.ask(Request::Reload).await {
                Err(Problem::Refused(reason)) => reason,
                other => panic!("{other:?}"),
            }
        };
        let reason = refusal(&file(&[12]).replace("\"rr\"", "\"fastest\"")).await;
        assert!(reason.contains("weir.toml:"), "{reason}");
        assert!(reason.contains("fastest"), "{reason}");
        let reason = refusal(&file(&[12]).replace("count = 2", "count = 3")).await;
        assert!(reason.contains("[workers] cores"), "{reason}");
        assert_eq!(hands.servers().await, ["11 active 0+0"]);
        assert_eq!(hands.ask(Request::Status).await.generation, 1);

        hands.write(&file(&[11]));
        let same = hands.ask(Request::Reload).await.unwrap();
        assert_eq!((same.generation, &*same.summary), (1, "nothing changed"));
        // SIGHUP does the same, and nobody waits for its answer.
        hands.write(&file(&[11, 12]));
        hands.hangup.send(()).await.unwrap();
        hands
            .until_servers(&["11 active 0+0", "12 active 0+0"])
            .await;
    });
}

#[test]
fn one_reload_at_a_time() {
    lab::run(&file(&[11]), async |hands| {
        up(hands, &[]).await;
        hands.world.borrow_mut().asleep = vec![0];
        hands.write(&file(&[12]));
        let slow = hands.ask(Request::Reload);
        let other = async {
            some_turns().await;
            let refused = hands.ask(Request::Reload).await.unwrap_err();
            assert_eq!(
                refused.to_string(),
                "a start or another reload is under way; try again"
            );
            hands.world.borrow_mut().asleep.clear();
        };
        let (reloaded, ()) = tokio::join!(slow, other);
        assert_eq!(reloaded.unwrap().generation, 2);
    });
}

#[test]
fn the_twins_mtu_and_mac_reach_the_workers_within_what_the_port_takes() {
    lab::run(&file(&[11]), async |hands| {
        up(hands, &[11]).await;
        let mac = Mac([2, 0, 0, 0, 7, 7]);
        let link = |mtu| NetEvent::Link {
            port: PortId(1),
            mac,
            mtu,
            up: true,
        };
        for (mtu, shown) in [(1400, 1400), (9000, 1500)] {
            hands.news(link(mtu)).await;
            some_turns().await;
            let status = hands.ask(Request::Status).await;
            let port = &status.ports[1];
            assert_eq!((port.mtu, &*port.mac), (shown, "02:00:00:00:07:07"));
        }
        hands.send(Packet::tcp(
            at("10.0.0.7:4000"),
            at("10.0.0.10:80"),
            flags::SYN,
        ));
        let frame = loop {
            match hands.sent(1) {
                Some(frame) => break frame,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        assert_eq!(weir_dataplane::io::Frame::bytes(&frame)[6..12], mac.0);
    });
}

#[test]
fn stop_ends_the_loop_and_so_does_the_mirrors_end() {
    let ended = lab::run(&file(&[11]), async |hands| {
        hands.stop.take().unwrap().send(()).unwrap();
        std::future::pending::<()>().await;
    });
    assert!(ended.unwrap().is_ok());
    let ended = lab::run(&file(&[11]), async |hands| {
        hands.net = None;
        std::future::pending::<()>().await;
    });
    assert_eq!(
        ended.unwrap().unwrap_err().to_string(),
        "the kernel's network can be followed no longer"
    );
}

/// `weir explain` sees what the workers have, and counts what they count.
#[test]
fn the_picture_is_the_state_of_now() {
    use crate::explain::document::Verdict;
    use crate::explain::{Wishes, explain, opening};
    let text = file(&[11, 12]).replace("\"rr\"", "\"lc\"");
    lab::run(&text, async |hands| {
        let asked = async |hands: &lab::Hands| {
            let picture = hands.ask(Request::Picture).await;
            let (from, to) = (at("192.0.2.9:999").into(), at("10.0.0.10:80").into());
            let packets = [opening(weir_dataplane::Proto::Tcp, from, to)];
            let explained = explain(&picture, &packets, &Wishes::default()).unwrap();
            explained.packets.into_iter().next().unwrap()
        };
        let first = asked(hands).await;
        assert!(first.why.starts_with("no_route"), "{first:#?}");
        up(hands, &[11, 12]).await;
        let first = asked(hands).await;
        assert_eq!(first.verdict, Verdict::Forwarded, "{first:#?}");
        let server = first.server.unwrap();
        assert_eq!((server.active, server.inactive), (0, 0));
        open(hands, "192.0.2.7:1001").await;
        let wanted = match server.address == at("10.1.0.11:80").into() {
            true => ["11 active 1+0", "12 active 0+0"],
            false => ["11 active 0+0", "12 active 1+0"],
        };
        hands.until_servers(&wanted).await;
        // The least loaded is the other one now.
        let second = asked(hands).await;
        assert_ne!(second.server.unwrap().address, server.address);
    });
}
