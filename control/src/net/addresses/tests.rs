use super::*;

const LO: u32 = 1;
const ETH0: u32 = 2;
const WAN: u32 = 10;
const LAN: u32 = 11;

fn book() -> AddressBook {
    let twin = |n: u8, name: &str, ifindex| TwinInfo {
        port: PortId(n),
        name: name.to_owned(),
        ifindex,
    };
    AddressBook::new(vec![twin(0, "wan0", WAN), twin(1, "lan0", LAN)], LO)
}

fn place(ifindex: u32, prefix: &str) -> Place {
    let (addr, len) = prefix.split_once('/').unwrap();
    Place {
        ifindex,
        addr: addr.parse().unwrap(),
        prefix_len: len.parse().unwrap(),
    }
}

fn found(ifindex: u32, prefix: &str) -> Present {
    Present {
        place: place(ifindex, prefix),
        marked: false,
    }
}

fn marked(ifindex: u32, prefix: &str) -> Present {
    Present {
        place: place(ifindex, prefix),
        marked: true,
    }
}

fn vip(addr: &str, port: Option<&str>) -> WantedAddress {
    WantedAddress {
        addr: addr.parse().unwrap(),
        kind: AddressKind::Vip,
        port: port.map(str::to_owned),
    }
}

#[test]
fn the_longest_network_that_contains_an_address_has_it() {
    let mut book = book();
    book.want(vec![
        vip("10.0.0.50", None),
        vip("10.0.1.50", None),
        vip("10.1.0.50", None),
        vip("10.1.0.51", Some("wan0")),
    ]);
    let present = [
        found(LO, "127.0.0.1/8"),
        found(ETH0, "10.1.0.9/24"), // no twin's network
        found(WAN, "10.0.0.1/16"),
        found(LAN, "10.0.1.1/24"),
        found(LAN, "10.1.0.50/31"), // contains and is it
    ];
    let plan = book.plan(&present);
    let expected = [
        place(WAN, "10.0.0.50/32"),
        place(LAN, "10.0.1.50/32"),
        place(WAN, "10.1.0.51/32"),
    ];
    assert_eq!(plan.add, expected);
    assert!(plan.remove.is_empty() && plan.problems.is_empty());
    assert!(place(WAN, "0.0.0.0/0").network_contains([255; 4].into()));
    assert!(!place(WAN, "10.0.0.1/32").network_contains("10.0.0.1".parse().unwrap()));
}

#[test]
fn what_is_there_is_left_and_what_is_ours_goes_when_nobody_wants_it() {
    let mut book = book();
    book.want_on_ports(vec![PortAddress {
        port: PortId(0),
        addr: "10.0.0.1".parse().unwrap(),
        prefix_len: 24,
    }]);
    book.want(vec![
        vip("10.0.0.50", None),
        vip("192.0.2.1", None),
        vip("10.0.0.51", None),
    ]);
    let present = [
        found(WAN, "10.0.0.1/24"),   // wanted on the port: adopted
        found(ETH0, "10.0.0.50/32"), // a VIP that someone holds elsewhere: adopted
        marked(WAN, "10.0.0.51/32"), // ours from before a crash
        marked(LO, "192.0.2.1/32"),  // the same
        marked(LAN, "10.1.0.77/32"), // ours, and nobody wants it any more
        marked(LO, "192.0.2.77/32"), // perhaps another Weir's
        found(WAN, "10.0.0.78/32"),  // nothing to us
    ];
    let plan = book.plan(&present);
    assert_eq!(plan.add, []);
    assert_eq!(plan.remove, [place(LAN, "10.1.0.77/32")]);
    let ours = HashSet::from([place(WAN, "10.0.0.51/32"), place(LO, "192.0.2.1/32")]);
    assert_eq!(plan.ours, ours);
}

#[test]
fn an_address_moves_with_its_port_and_its_network() {
    let mut book = book();
    book.ours.insert(place(LO, "10.0.0.50/32")); // put there before wan0 had the network
    book.ours.insert(place(LAN, "10.0.0.51/32"));
    book.want(vec![vip("10.0.0.50", None), vip("10.0.0.51", Some("wan0"))]);
    let present = [
        found(WAN, "10.0.0.1/24"),
        marked(LO, "10.0.0.50/32"),
        found(LAN, "10.0.0.51/32"), // by a kernel that forgets the mark
    ];
    let plan = book.plan(&present);
    assert_eq!(
        plan.add,
        [place(WAN, "10.0.0.50/32"), place(WAN, "10.0.0.51/32")]
    );
    assert_eq!(
        plan.remove,
        [place(LO, "10.0.0.50/32"), place(LAN, "10.0.0.51/32")]
    );
}
