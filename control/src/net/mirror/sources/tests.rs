use super::*;

fn source(ifindex: u32, text: &str) -> Source {
    let (addr, len) = text.split_once('/').unwrap();
    Source {
        ifindex,
        addr: addr.parse().unwrap(),
        prefix_len: len.parse().unwrap(),
    }
}

#[test]
fn an_address_near_the_next_hop_then_of_the_interface_then_of_any() {
    let sources = Sources(vec![
        source(1, "192.0.2.9/32"),
        source(10, "10.0.0.1/32"),
        source(10, "10.0.0.2/24"),
        source(10, "10.0.1.2/24"),
        source(11, "2001:db8:1::2/64"),
        source(11, "2001:db8:2::2/64"),
    ]);
    let pick = |ifindex, near: &str| {
        let picked = sources.pick(ifindex, near.parse().unwrap());
        picked.map_or("none".to_owned(), |addr| addr.to_string())
    };
    assert_eq!(pick(10, "10.0.1.254"), "10.0.1.2");
    assert_eq!(pick(10, "203.0.113.0"), "10.0.0.2"); // an on-link route without preferred source
    assert_eq!(pick(11, "2001:db8:2::1"), "2001:db8:2::2");
    assert_eq!(pick(11, "fe80::1"), "2001:db8:1::2");
    assert_eq!(pick(11, "10.9.0.0"), "10.0.0.2"); // IPv4 over an interface without
    assert_eq!(pick(10, "2001:db8:2::1"), "2001:db8:2::2");
    assert_eq!(
        Sources::default().pick(10, "10.0.0.9".parse().unwrap()),
        None
    );
}

#[test]
fn each_is_the_directors_own_once() {
    let sources = Sources(vec![
        source(10, "10.0.0.1/32"),
        source(11, "2001:db8:1::2/64"),
        source(12, "10.0.0.1/24"),
    ]);
    let own: Vec<_> = sources
        .routes()
        .map(|r| (r.prefix, r.len, r.target))
        .collect();
    let at = |text: &str, len| (text.parse().unwrap(), len, RouteTarget::Own);
    assert_eq!(own, [at("10.0.0.1", 32), at("2001:db8:1::2", 128)]);
}
