//! Headers and options as their specifications write them.

use super::*;

fn at(s: &str) -> std::net::SocketAddr {
    s.parse().unwrap()
}

#[test]
fn proxy_headers_as_the_protocol_has_them() {
    let rows = [
        (
            "255.255.255.255:65535",
            "1.2.3.4:1",
            "PROXY TCP4 255.255.255.255 1.2.3.4 65535 1\r\n",
        ),
        (
            "[2001:db8::1]:10",
            "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:9999",
            "PROXY TCP6 2001:db8:0:0:0:0:0:1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 10 9999\r\n",
        ),
        (
            "0.0.10.100:0",
            "9.99.199.0:10000",
            "PROXY TCP4 0.0.10.100 9.99.199.0 0 10000\r\n",
        ),
    ];
    for (client, service, line) in rows {
        let header = proxy::v1(at(client), at(service));
        assert_eq!(header[..], *line.as_bytes());
        let end = line.find(' ').unwrap() + 5;
        let mut words = line[end..].split_whitespace();
        for expected in [at(client).ip(), at(service).ip()] {
            assert_eq!(words.next().unwrap().parse(), Ok(expected), "std reads it");
        }
    }
    let longest = "[1111:1111:1111:1111:1111:1111:1111:1111]:65535";
    assert_eq!(proxy::v1(at(longest), at(longest)).len(), 104);
    let v2 = proxy::v2(Proto::Tcp, at("192.0.2.7:40000"), at("10.0.0.10:80"));
    assert_eq!(
        v2[..],
        *b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x11\x00\x0c\
           \xc0\x00\x02\x07\x0a\x00\x00\x0a\x9c\x40\x00\x50"
    );
    let v2 = proxy::v2(Proto::Udp, at("[2001:db8::7]:1"), at("[2001:db8::10]:53"));
    assert_eq!((v2.len(), &v2[12..16]), (52, &[0x21, 0x22, 0, 36][..]));
}

#[test]
fn each_carrier_has_its_protocols_and_a_name() {
    let names: Vec<_> = ClientAddress::ALL.iter().map(|c| c.name()).collect();
    assert_eq!(
        names,
        ["none", "toa", "proxy-v1", "proxy-v2", "uoa", "uoa-opp"]
    );
    let of = |proto| {
        let carriers = ClientAddress::ALL.iter().filter(move |c| c.carries(proto));
        carriers.map(|c| c.name()).collect::<Vec<_>>()
    };
    assert_eq!(of(Proto::Tcp), ["none", "toa", "proxy-v1", "proxy-v2"]);
    assert_eq!(of(Proto::Udp), ["none", "proxy-v2", "uoa", "uoa-opp"]);
    assert_eq!(of(Proto::Sctp), ["none"]);
    let with = |mode| {
        let carriers = ClientAddress::ALL.iter().filter(move |c| c.goes_with(mode));
        carriers.map(|c| c.name()).collect::<Vec<_>>()
    };
    assert_eq!(with(ForwardMode::nat), ["none", "proxy-v1", "proxy-v2"]);
    assert_eq!(with(ForwardMode::dr), ["none"]);
    assert_eq!(with(ForwardMode::fullnat).len(), ClientAddress::ALL.len());
}
