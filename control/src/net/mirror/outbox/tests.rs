use std::net::IpAddr;

use super::*;

fn link(port: u8, mtu: u16) -> NetEvent {
    NetEvent::Link {
        port: PortId(port),
        mac: Mac::default(),
        mtu,
        up: true,
    }
}

fn neighbour(last: u8, mac: Option<u8>) -> NetEvent {
    NetEvent::Neighbour {
        port: PortId(0),
        addr: IpAddr::from([10, 0, 0, last]),
        mac: mac.map(|m| Mac([m; 6])),
    }
}

#[test]
fn each_subject_is_told_once_with_its_latest_state() {
    let mut outbox = Outbox::default();
    assert!(outbox.is_empty());
    for event in [
        neighbour(2, Some(2)),
        neighbour(1, Some(4)),
        NetEvent::Routes(vec![]),
        link(1, 1500),
        neighbour(2, None),
        link(0, 1500),
        link(1, 1400),
    ] {
        outbox.push(event);
    }
    let told: Vec<NetEvent> = std::iter::from_fn(|| outbox.pop()).collect();
    let expected = [
        link(0, 1500),
        link(1, 1400),
        NetEvent::Routes(vec![]),
        neighbour(2, None),
        neighbour(1, Some(4)),
    ];
    assert_eq!(told, expected);
    assert!(outbox.is_empty());
}
