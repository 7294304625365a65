//! Cookies: what answers a SYN, what proves its client, and what does not.

use super::*;

#[test]
fn a_syn_is_answered_byte_by_byte_and_forgotten() {
    let mut d = director(&Shape::default(), PLAIN);
    let mut syn = with_options(&client_packet(CLIENT4, VIP4, SYN, ISN, 0), &LINUX);
    let clock = (u64::from(d.now.0) * 1000 / 64) as u32;
    let (to, f) = only(d.exchange(WAN, &syn));
    assert_eq!(to, To::Port(WAN));
    // Back to where it came from, though nobody knows that address.
    assert_eq!((eth::dst(&f), eth::src(&f)), (ROUTER_MAC, WAN_MAC));
    assert!(checksums_right(&f));
    assert_eq!(f.len(), 14 + 20 + 40);
    assert_eq!(f[12..24], [8, 0, 0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, 6]);
    assert_eq!(f[26..34], [10, 0, 0, 10, 192, 0, 2, 7]);
    assert_eq!(f[34..38], [0, 80, 0x9c, 0x40]);
    assert_eq!(f[42..46], ISN.wrapping_add(1).to_be_bytes());
    assert_eq!(f[46..48], [0xa0, SYN | ACK]);
    assert_eq!(be16(&f, 48), 4 * 1460, "as much as is held");
    assert_eq!(f[52..54], [0, 0]);
    let clock = clock.to_be_bytes();
    let told = [
        &[2, 4, 5, 180, 4, 2, 8, 10][..],
        &clock,
        &[0, 0, 0x10, 0, 1, 3, 3, 7],
    ];
    assert_eq!(f[54..], told.concat());
    // Of the number: minute, 1460 of the table, scale 9, SACK.
    let cookie = be32(&f, 38);
    assert_eq!(cookie & 0xff, 6 << 5 | 9 << 1 | 1);
    assert_eq!((conns(&d), records(&d)), (0, 0));
    assert_eq!(d.sum(|c| c.cookies_sent.get()), 1);

    // The same SYN the same minute: the same answer.
    assert_eq!(be32(&only(d.exchange(WAN, &syn)).1, 38), cookie);
    // Without options, and with a wrong checksum.
    let plain = client_packet(CLIENT4, VIP4, SYN, ISN, 0).build();
    let f = only(d.exchange(WAN, &plain)).1;
    let s = segment(&f);
    assert_eq!(
        (s.options, s.seq & 0xff),
        (vec![vec![2, 4, 5, 180]], 1 << 5 | 15 << 1)
    );
    syn[50] ^= 1;
    assert_eq!(d.exchange(WAN, &syn), []);
    assert_eq!(d.drops(DropReason::BadL4Checksum), 1);
    d.assert_books();

    let mut d = director(&Shape::default(), Of { vip: VIP6, ..PLAIN });
    let syn = with_options(&client_packet(CLIENT6, VIP6, SYN, ISN, 0), &LINUX);
    let f = only(d.exchange(WAN, &syn)).1;
    assert_eq!((eth::dst(&f), eth::src(&f)), (ROUTER_MAC, WAN_MAC));
    let s = segment(&f);
    assert_eq!((s.flags, s.ack), (SYN | ACK, ISN.wrapping_add(1)));
    assert_eq!(s.options[0], [2, 4, 0x05, 0xa0], "1440");
    assert_eq!(s.seq & 0xff, 6 << 5 | 9 << 1 | 1, "1460 becomes 1440");
    d.assert_books();
}

/// Links, tunnels and options want smaller segments, and so may the operator.
#[test]
fn what_clients_may_send_fits_the_way_to_the_servers() {
    let mixed: &[&str] = &["10.1.0.11:8080", "[2001:db8:1::11]:8080"];
    let rows: &[(&str, Of<'_>, u16)] = &[
        ("plain", PLAIN, 1460),
        (
            "operator",
            Of {
                proxy: SynProxy {
                    mss: 1300,
                    ..ALWAYS
                },
                ..PLAIN
            },
            1300,
        ),
        (
            "toa",
            Of {
                carrier: ClientAddress::toa,
                ..PLAIN
            },
            1452,
        ),
        (
            "to IPv6",
            Of {
                servers: mixed,
                ..PLAIN
            },
            1440,
        ),
    ];
    for (what, of, mss) in rows {
        let mut d = director(&Shape::default(), *of);
        let client = Client::connects(&mut d, CLIENT4, VIP4, &LINUX);
        assert_eq!(be16(&client.syn_ack.options[0], 2), *mss, "{what}");
    }
}

#[test]
fn what_proves_nothing_is_reset_or_dropped_and_opens_nothing() {
    for resets in [true, false] {
        let proxy = SynProxy { resets, ..ALWAYS };
        let mut d = director(&Shape::default(), Of { proxy, ..PLAIN });
        let mut c = Client::connects(&mut d, CLIENT4, VIP4, &LINUX);
        let good = c.ack;
        let answers = |d: &mut Director, c: &Client<'_>| {
            let out = d.exchange(WAN, &c.packet(ACK, b"data"));
            assert_eq!(out.len(), usize::from(resets));
            for (to, f) in out {
                let s = segment(&f);
                assert_eq!((to, s.seq, s.flags), (To::Port(WAN), c.ack, RST));
            }
        };
        c.ack = good.wrapping_add(1 << 9);
        answers(&mut d, &c);
        c.ack = good ^ 2 << 1; // another scale
        answers(&mut d, &c);
        c.ack = good;
        c.seq = c.seq.wrapping_add(1);
        answers(&mut d, &c);
        c.seq = c.seq.wrapping_sub(1);
        let told = c.told.take(); // without its clock
        answers(&mut d, &c);
        c.told = told;
        assert_eq!(d.drops(DropReason::InvalidCookie), 4);
        // Too late by a little, and by so much that nobody knows any more.
        d.now = d.now.after(Tick::seconds(150));
        answers(&mut d, &c);
        assert_eq!(d.drops(DropReason::ExpiredCookie), 1);
        d.now = d.now.after(Tick::seconds(300));
        answers(&mut d, &c);
        assert_eq!(d.drops(DropReason::InvalidCookie), 5);
        // A reset is answered by nothing, and a SYN-ACK by a reset.
        assert_eq!(d.exchange(WAN, &c.packet(RST, b"")), []);
        let s = segment(&only(d.exchange(WAN, &c.packet(SYN | ACK, b""))).1);
        assert_eq!(s.flags, RST);
        assert_eq!(d.drops(DropReason::NoConnection), 2);
        assert_eq!((conns(&d), d.sum(|c| c.conns_opened.get())), (0, 0));
        d.assert_books();
    }
}

#[test]
fn a_cookie_is_good_for_a_minute_at_least() {
    let mut d = director(&Shape::default(), PLAIN);
    let c = Client::connects(&mut d, CLIENT4, VIP4, &LINUX);
    d.now = d.now.after(Tick::seconds(60));
    let (to, _) = only(d.exchange(WAN, &c.packet(ACK, b"")));
    assert_eq!(to, To::Port(LAN));
}

#[test]
fn a_peer_with_the_same_secret_finishes_the_handshake() {
    let secret = |byte| Cookies {
        secret: Some([byte; 16]),
        tick_zero_s: 1_795_000_000,
    };
    let with = |cookies| director(&Shape::workers(2), Of { cookies, ..PLAIN });
    let mut one = with(secret(7));
    let c = Client::connects(&mut one, CLIENT4, VIP4, &LINUX);
    let mut peer = with(secret(7));
    let (to, syn) = only(peer.exchange(WAN, &c.packet(ACK, b"")));
    assert_eq!((to, segment(&syn).options.len()), (To::Port(LAN), 4));
    for other in [
        secret(8),
        Cookies {
            secret: None,
            ..secret(7)
        },
    ] {
        let mut stranger = with(other);
        let s = segment(&only(stranger.exchange(WAN, &c.packet(ACK, b""))).1);
        assert_eq!(s.flags, RST);
        assert_eq!(stranger.drops(DropReason::InvalidCookie), 1);
    }
    // A minute of clocks apart is too much, a reload with the same secret changes nothing.
    follow(
        &mut one,
        Of {
            cookies: secret(7),
            ..PLAIN
        },
        3,
    );
    assert_eq!(
        only(one.exchange(WAN, &c.packet(ACK, b""))).0,
        To::Port(LAN)
    );
}
