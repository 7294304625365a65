use std::net::IpAddr;

use super::mirror::{block_on, start};
use super::*;
use crate::net::{AddressKind, PortAddress, WantedAddress};

fn wanted(kind: AddressKind, addr: [u8; 4], port: Option<&str>) -> WantedAddress {
    WantedAddress {
        addr: IpAddr::from(addr),
        kind,
        port: port.map(str::to_owned),
    }
}

fn on_port(port: u8, addr: [u8; 4], prefix_len: u8) -> PortAddress {
    PortAddress {
        port: PortId(port),
        addr: IpAddr::from(addr),
        prefix_len,
    }
}

/// The IPv4 addresses of an interface, in the kernel's order.
fn held(interface: &str) -> Vec<String> {
    let shown = ip(&format!("-4 -o address show dev {interface}"));
    let addresses = shown
        .lines()
        .map(|line| line.split_whitespace().nth(3).unwrap().to_owned());
    addresses
        .filter(|address| address != "127.0.0.1/8")
        .collect()
}

#[test]
fn addresses_are_put_where_they_belong_and_taken_away() {
    in_namespace("place", || {
        let rig = Rig::new(2, 1, 1024, AMPLE);
        use AddressKind::{Local, Vip};
        ip("address add 10.9.0.51/32 dev w0"); // found there
        block_on(async {
            let (handle, _events) = start(&rig);
            let ports = vec![on_port(0, [10, 9, 0, 1], 24), on_port(1, [10, 9, 1, 1], 24)];
            handle.set_port_addresses(ports).await.unwrap();
            let all = vec![
                wanted(Vip, [10, 9, 0, 50], None),
                wanted(Vip, [10, 9, 0, 50], None), // of a second service
                wanted(Vip, [10, 9, 0, 51], None),
                wanted(Local, [10, 9, 1, 50], None),
                wanted(Vip, [192, 0, 2, 1], None), // in no network
                wanted(Vip, [192, 0, 2, 2], Some("w1")),
            ];
            handle.set_addresses(all.clone()).await.unwrap();
            assert_eq!(held("w0"), ["10.9.0.51/32", "10.9.0.1/24", "10.9.0.50/32"]);
            assert_eq!(held("w1"), ["10.9.1.1/24", "10.9.1.50/32", "192.0.2.2/32"]);
            assert_eq!(held("lo"), ["192.0.2.1/32"]);
            handle.set_addresses(all).await.unwrap(); // changes nothing
            assert_eq!(held("w1"), ["10.9.1.1/24", "10.9.1.50/32", "192.0.2.2/32"]);

            handle
                .set_addresses(vec![wanted(Vip, [192, 0, 2, 2], None)])
                .await
                .unwrap();
            assert_eq!(held("w0"), ["10.9.0.51/32", "10.9.0.1/24"]);
            assert_eq!(held("w1"), ["10.9.1.1/24"]);
            assert_eq!(held("lo"), ["192.0.2.2/32"]);

            handle.shutdown().await;
            assert_eq!(held("w0"), ["10.9.0.51/32"]);
            assert_eq!(held("w1"), [""; 0]);
            assert_eq!(held("lo"), [""; 0]);
        });
    });
}

/// An IPv6 VIP is usable at once, is preferred by nothing, makes no route, is announced twice and
/// outlives a link that is taken down.
#[test]
fn ipv6_addresses_are_put_announced_and_taken_away() {
    in_namespace("place6", || {
        let rig = Rig::new(2, 1, 1024, AMPLE);
        use AddressKind::{Local, Vip};
        let addr = |text: &str| text.parse::<IpAddr>().unwrap();
        let wanted = |kind, text| WantedAddress {
            addr: addr(text),
            kind,
            port: None,
        };
        let shown = |interface: &str| {
            // "tentative" for a moment after a link came up, though nothing is asked.
            let lines =
                ip(&format!("-6 -o address show dev {interface}")).replace(" tentative", "");
            let kept = |line: &str| {
                let text = line
                    .split_whitespace()
                    .skip(3)
                    .collect::<Vec<_>>()
                    .join(" ");
                (!text.starts_with("fe80") && !text.starts_with("::1"))
                    .then(|| text.split(" \\").next().unwrap_or_default().to_owned())
            };
            let mut all: Vec<String> = lines.lines().filter_map(kept).collect();
            all.sort();
            all
        };
        block_on(async {
            let (handle, mut events) = start(&rig);
            events.recv().await.unwrap(); // the link: its MAC address is known now
            let own = PortAddress {
                port: PortId(0),
                addr: addr("2001:db8:1::1"),
                prefix_len: 64,
            };
            handle.set_port_addresses(vec![own]).await.unwrap();
            let all = vec![
                wanted(Vip, "2001:db8:1::50"),
                wanted(Local, "2001:db8:1::60"),
                wanted(Vip, "2001:db8:9::1"), // in no network
            ];
            handle.set_addresses(all.clone()).await.unwrap();
            let on_w0 = shown("w0");
            assert_eq!(
                on_w0,
                [
                    "2001:db8:1::1/64 scope global",
                    "2001:db8:1::50/128 scope global nodad deprecated noprefixroute",
                    "2001:db8:1::60/128 scope global nodad deprecated noprefixroute",
                ]
            );
            assert_eq!(
                shown("lo"),
                ["2001:db8:9::1/128 scope global nodad deprecated noprefixroute"]
            );
            let heard = |mut rig: Rig| async {
                let vip: std::net::Ipv6Addr = "2001:db8:1::50".parse().unwrap();
                let wait = move || (rig.discovery(136, vip), rig);
                let ((port, frame), rig) = tokio::task::spawn_blocking(wait).await.unwrap();
                assert_eq!(port, 0);
                assert_eq!(frame[..12], [[0x33, 0x33, 0, 0, 0, 1], mac(0).0].concat());
                assert_eq!(frame[21], 255);
                assert_eq!(frame[58], 0x20, "override");
                assert_eq!(frame[78..], [&[2, 1], &mac(0).0[..]].concat());
                rig
            };
            let mut rig = heard(rig).await;
            rig = heard(rig).await; // once more

            ip("link set w0 down");
            ip("link set w0 up");
            assert_eq!(shown("w0"), on_w0);
            handle.set_addresses(all).await.unwrap(); // changes nothing
            assert_eq!(shown("w0"), on_w0);
            handle.shutdown().await;
            assert_eq!(shown("w0"), [""; 0]);
            assert_eq!(shown("lo"), [""; 0]);
            drop(rig);
        });
    });
}

#[test]
fn what_cannot_be_put_is_told_and_the_rest_is_done() {
    in_namespace("cannot", || {
        let rig = Rig::new(1, 1, 1024, AMPLE);
        use AddressKind::{Local, Vip};
        block_on(async {
            let (handle, _events) = start(&rig);
            handle
                .set_port_addresses(vec![on_port(0, [10, 9, 0, 1], 24)])
                .await
                .unwrap();
            let problems = handle
                .set_addresses(vec![
                    wanted(Vip, [10, 9, 0, 50], Some("w7")),
                    wanted(Local, [10, 9, 0, 1], None),
                    wanted(Vip, [10, 9, 0, 51], None),
                    wanted(Vip, [10, 9, 0, 1], None), // a service on the director's own address
                ])
                .await
                .unwrap_err();
            let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
            assert_eq!(
                texts,
                [
                    "virtual address 10.9.0.50: there is no port \"w7\"; name one of the [[port]] \
                     tables",
                    "local address 10.9.0.1 is the director's own address on w0, whose \
                     connections it would disturb; use another one of that network",
                ]
            );
            assert_eq!(held("w0"), ["10.9.0.1/24", "10.9.0.51/32"]);

            ip("link delete w0");
            let vip = vec![wanted(Vip, [10, 9, 0, 52], Some("w0"))];
            let problems = handle.set_addresses(vip).await.unwrap_err();
            let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
            let why = "No such device (os error 19)";
            assert_eq!(
                texts,
                [
                    format!("address 10.9.0.1/24: cannot put it on interface w0: {why}"),
                    format!("address 10.9.0.52/32: cannot put it on interface w0: {why}"),
                ]
            );
        });
    });
}

#[test]
fn new_addresses_are_announced_and_again_when_the_link_comes_up() {
    in_namespace("garp", || {
        let rig = Rig::new(1, 1, 1024, AMPLE);
        block_on(async {
            let (handle, mut events) = start(&rig);
            events.recv().await.unwrap(); // the link: its MAC address is known now
            handle
                .set_port_addresses(vec![on_port(0, [10, 9, 0, 1], 24)])
                .await
                .unwrap();
            let vip = wanted(AddressKind::Vip, [10, 9, 0, 50], None);
            handle.set_addresses(vec![vip]).await.unwrap();
            let announced = arp_frame(
                Mac([0xff; 6]),
                1,
                (mac(0), [10, 9, 0, 50]),
                (Mac([0; 6]), [10, 9, 0, 50]),
            );
            // The runtime must go on meanwhile: where the kernel has not come round to activating
            // the new twin, the first announcement is lost and the mirror repeats it then.
            let heard = |mut rig: Rig| async {
                let wait = move || (rig.arp(0, [10, 9, 0, 50]), rig);
                let (heard, rig) = tokio::task::spawn_blocking(wait).await.unwrap();
                assert_eq!(heard, (0, announced.clone()));
                rig
            };
            let mut rig = heard(rig).await;
            // (Carrier would do as well, but the kernel tells of it up to a second later.)
            ip("link set w0 down");
            while rig.poll(0).is_some() {}
            ip("link set w0 up");
            heard(rig).await;
        });
    });
}

#[test]
fn after_a_crash_the_next_start_knows_its_own_addresses() {
    in_namespace("crash", || {
        use AddressKind::Vip;
        let both = || {
            vec![
                wanted(Vip, [10, 9, 0, 50], None),
                wanted(Vip, [10, 9, 0, 51], None),
                wanted(Vip, [192, 0, 2, 1], None),
                WantedAddress {
                    addr: "2001:db8::50".parse().unwrap(),
                    kind: Vip,
                    port: Some("w0".to_owned()),
                },
            ]
        };
        let held6 = || ip("-6 -o address show dev w0").contains("2001:db8::50/128");
        let rig = Rig::new(1, 1, 1024, AMPLE);
        block_on(async {
            let (handle, _events) = start(&rig);
            handle
                .set_port_addresses(vec![on_port(0, [10, 9, 0, 1], 24)])
                .await
                .unwrap();
            handle.set_addresses(both()).await.unwrap();
        }); // the runtime ends without a shutdown
        drop(rig);
        assert_eq!(held("w0"), ["10.9.0.1/24", "10.9.0.50/32", "10.9.0.51/32"]);
        assert!(held6());

        let rig = Rig::new(1, 1, 1024, AMPLE);
        assert!(rig.twins[0].adopted());
        block_on(async {
            let (handle, _events) = start(&rig);
            handle
                .set_port_addresses(vec![on_port(0, [10, 9, 0, 1], 24)])
                .await
                .unwrap();
            let mut fewer = both();
            fewer.remove(3);
            fewer.remove(1); // the configuration has changed meanwhile
            handle.set_addresses(fewer).await.unwrap();
            assert_eq!(held("w0"), ["10.9.0.1/24", "10.9.0.50/32"]);
            assert!(!held6());
            assert_eq!(held("lo"), ["192.0.2.1/32"]);
            handle.shutdown().await;
            assert_eq!(held("w0"), [""; 0]);
            assert_eq!(held("lo"), [""; 0]);
        });
    });
}
