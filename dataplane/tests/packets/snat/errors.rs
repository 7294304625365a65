//! What does not fit or arrive: fragments, and ICMP errors of others and of Weir's own.

use super::*;

/// Errors find who sent what they quote: from the outside the router that says so is shown, from
/// the inside the pool's address.
#[test]
fn errors_both_ways() {
    for (from, to, router, inner) in [
        (INSIDE4, FAR4, "198.51.100.1", "10.1.0.99"),
        (INSIDE6, FAR6, "2001:db8:9::1", "2001:db8:1::99"),
    ] {
        for (proto, shape) in PROTOS
            .into_iter()
            .flat_map(|p| shapes().into_iter().map(move |s| (p, s)))
        {
            let what = format!("{proto} {from} {shape:?}");
            let v6 = at(from).is_ipv6();
            let mut d = director(&shape);
            let (from, to) = key_ends(proto, from, to);
            let sent = packet(proto, from, to, SYN).build();
            let (_, outside) = only(d.exchange(LAN, &sent));
            let back = reply(&outside, SYN | ACK).build();
            let (_, inside) = only(d.exchange(WAN, &back));
            let (icmp, kinds) = match v6 {
                true => (54, [(2, 0), (1, 4), (3, 0)]),
                false => (34, [(3, 4), (3, 3), (11, 0)]),
            };
            for (kind, mtu) in kinds.into_iter().zip([1400, 0, 0]) {
                let error = error_about(&outside, router, kind, mtu);
                let (left, f) = only(d.exchange(WAN, &error));
                assert_eq!(
                    (left, eth::dst(&f)),
                    (To::Port(LAN), server_mac(11)),
                    "{what}"
                );
                let router: IpAddr = router.parse().unwrap();
                assert_eq!(addresses(&f), (router, from.ip()), "{what}");
                assert!(checksums_right(&f), "{what}");
                assert_eq!(
                    (f[icmp], f[icmp + 1], be16(&f, icmp + 6)),
                    (kind.0, kind.1, mtu),
                    "{what}"
                );
                // What is quoted is what the server sent, but for the hop.
                let mut quoted = [&f[..14], &f[icmp + 8..]].concat();
                let ttl = if v6 { 21 } else { 22 };
                assert_eq!(quoted[ttl], 63, "{what}");
                quoted[ttl] = 64;
                if !v6 {
                    checksum::set_ipv4(&mut quoted);
                }
                assert_eq!(quoted[14..], sent[14..], "{what}");

                let error = error_about(&inside, inner, kind, mtu);
                let (left, f) = only(d.exchange(LAN, &error));
                assert_eq!((left, eth::dst(&f)), (To::Port(WAN), ROUTER_MAC), "{what}");
                let pooled = seen(&outside).1.ip();
                assert_eq!(addresses(&f), (pooled, to.ip()), "{what}");
                assert!(checksums_right(&f), "{what}");
                let quoted = [&f[..14], &f[icmp + 8..]].concat();
                assert_eq!(addresses(&quoted), (to.ip(), pooled), "{what}");
                let l4 = if v6 { 54 } else { 34 };
                assert_eq!(quoted[l4..], back[l4..], "{what}");
            }
            assert_eq!(d.sum(|c| c.icmp_errors.get()), 6, "{what}");
            d.assert_books();
        }
    }
}

/// Datagrams and echoes in parts, in any order, both ways; all parts with one new identification.
#[test]
fn fragments() {
    for (from, to) in [(INSIDE4, FAR4), (INSIDE6, FAR6)] {
        for proto in [Proto::Udp, Proto::Icmp] {
            for (shape, order) in shapes()
                .iter()
                .flat_map(|s| [[0, 1, 2], [2, 0, 1]].map(|o| (s, o)))
            {
                let what = format!("{proto} {from} {order:?} {shape:?}");
                let mut d = director(shape);
                let (from, to) = key_ends(proto, from, to);
                let data: Vec<u8> = (0..4000u32).map(|n| (n * 7) as u8).collect();
                let mut pass = |port: PortId, to: To, whole: &[u8]| {
                    let cut = parts(whole, 1500);
                    let mut got = Vec::new();
                    for (n, part) in order.iter().map(|&n| &cut[n]).enumerate() {
                        d.deliver(port, part, n);
                        d.settle();
                        got.extend(d.collect());
                    }
                    assert!(
                        got.iter().all(|(left, _)| *left == to),
                        "{what}: {got:02x?}"
                    );
                    let got: Vec<_> = got.into_iter().map(|(_, f)| f).collect();
                    let (at, new) = if from.is_ipv4() {
                        (18..20, &got[0][18..20])
                    } else {
                        (58..62, &got[0][58..62])
                    };
                    assert_ne!(*new, cut[0][at], "{what}: a new identification");
                    reassembled(&got).unwrap_or_else(|| panic!("{what}"))
                };
                let sent = packet(proto, from, to, 0).payload(&data).build();
                let outside = pass(LAN, To::Port(WAN), &sent);
                assert!(checksums_right(&outside), "{what}");
                assert_eq!(outside[outside.len() - 4000..], data, "{what}");
                let (_, pooled, far) = seen(&outside);
                assert_eq!(far, to, "{what}");
                assert_ne!(pooled.ip(), from.ip(), "{what}");
                let back = reply(&outside, 0).payload(&data).build();
                let inside = pass(WAN, To::Port(LAN), &back);
                assert!(checksums_right(&inside), "{what}");
                assert_eq!(seen(&inside), (proto, to, from), "{what}");
                assert_eq!(d.sum(|c| c.snat_opened.get()), 1, "{what}");
                d.assert_books();
                d.assert_runs_out();
            }
        }
    }
}

/// A port of the director's that takes less, and the last hop: the server is told.
#[test]
fn too_big_and_too_old() {
    let mut d = director(&Shape::default());
    let (from, to) = (at(INSIDE4), at(FAR4));
    only(d.exchange(LAN, &packet(Proto::Udp, from, to, 0).build()));
    d.tell(|| {
        Command::Port(PortUpdate {
            port: WAN,
            mac: WAN_MAC,
            mtu: 1000,
        })
    });
    let big = packet(Proto::Udp, from, to, 0).payload(&[7; 1200]).build();
    let (left, f) = only(d.exchange(LAN, &big));
    assert_eq!(
        (left, f[34], f[35], be16(&f, 40)),
        (To::Port(LAN), 3, 4, 1000)
    );
    assert_eq!(addresses(&f), ("10.1.0.2".parse().unwrap(), from.ip()));
    assert_eq!(d.drops(DropReason::TooBig), 1);
    for (n, proto) in PROTOS.into_iter().enumerate() {
        let mut last = packet(proto, from, to, SYN);
        last.ttl = 1;
        let (left, f) = only(d.exchange(LAN, &last.build()));
        assert_eq!((left, f[34], f[35]), (To::Port(LAN), 11, 0), "{proto}");
        assert_eq!(d.drops(DropReason::TtlExpired), n as u64 + 1);
    }
    d.assert_books();
}
