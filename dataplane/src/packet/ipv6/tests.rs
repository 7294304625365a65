use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::*;

fn addr(s: &str) -> u128 {
    u128::from(s.parse::<Ipv6Addr>().unwrap())
}

/// A frame whose payload is `rest`, the first of it a `next`.
fn frame(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut f = vec![0; END];
    f[12..14].copy_from_slice(&eth::IPV6.to_be_bytes());
    f[14] = 0x60;
    f[PAYLOAD_LEN_AT..][..2].copy_from_slice(&(rest.len() as u16).to_be_bytes());
    f[NEXT_AT] = next;
    f[HOP_LIMIT_AT] = 64;
    f[SRC_AT..][..16].copy_from_slice(&addr("2001:db8::1").to_be_bytes());
    f[DST_AT..][..16].copy_from_slice(&addr("2001:db8::2").to_be_bytes());
    f.extend_from_slice(rest);
    f
}

fn checked(f: &[u8]) -> Result<Header, DropReason> {
    check(f.first_chunk().unwrap(), f)
}

/// An extension header of `8 * (more + 1)` bytes of zeros: pads, for options.
fn ext(next: u8, more: u8) -> Vec<u8> {
    let mut h = vec![0; 8 * (usize::from(more) + 1)];
    (h[0], h[1]) = (next, more);
    h
}

fn fragment(next: u8, offset: u16, more: bool) -> Vec<u8> {
    let mut h = vec![next, 0];
    h.extend((offset | u16::from(more)).to_be_bytes());
    h.extend(0x1122_3344u32.to_be_bytes());
    h
}

const UDP: u8 = 17;
const DATAGRAM: [u8; 8] = [0x10, 0, 0, 53, 0, 8, 0, 1];

#[test]
fn a_plain_header_is_read_as_it_is_written() {
    let mut f = frame(UDP, &DATAGRAM);
    f.extend([0xee; 4]); // Ethernet padding
    assert_eq!(
        checked(&f),
        Ok(Header {
            src: addr("2001:db8::1"),
            dst: addr("2001:db8::2"),
            l4: 54,
            total_len: 48,
            protocol: UDP,
            hop_limit: 64,
            fragment: None,
        })
    );
}

/// One row a chain: what stands between the header and UDP, and where UDP is found.
#[test]
fn extension_headers_are_passed() {
    let ah = {
        let mut h = vec![0; 24];
        (h[0], h[1]) = (UDP, 4); // (4 + 2) * 4
        h
    };
    let router_alert = vec![UDP, 0, 5, 2, 0, 0, 1, 0];
    let pad_n = vec![UDP, 0, 1, 4, 0, 0, 0, 0];
    let unknown_skipped = vec![UDP, 0, 0x1e, 4, 0, 0, 0, 0];
    let rows: &[(&str, u8, Vec<u8>)] = &[
        ("hop-by-hop", 0, ext(UDP, 0)),
        ("hop-by-hop, long", 0, ext(UDP, 31)),
        ("router alert", 0, router_alert),
        ("padN", 0, pad_n),
        ("unknown, to be skipped", 0, unknown_skipped),
        ("destination options", 60, ext(UDP, 1)),
        ("routing, none left", 43, ext(UDP, 2)),
        ("authentication", 51, ah),
        ("two", 0, [ext(60, 0), ext(UDP, 0)].concat()),
        ("atomic fragment", 44, fragment(UDP, 0, false)),
        (
            "as many as are walked",
            60,
            [ext(60, 0).repeat(7), ext(UDP, 0)].concat(),
        ),
    ];
    for (what, next, chain) in rows {
        let f = frame(*next, &[&chain[..], &DATAGRAM].concat());
        let h = checked(&f).unwrap_or_else(|e| panic!("{what}: {e:?}"));
        assert_eq!(
            (usize::from(h.l4), h.protocol, h.fragment),
            (END + chain.len(), UDP, None),
            "{what}"
        );
    }
    let none = checked(&frame(NO_NEXT, &[])).unwrap();
    assert_eq!((none.protocol, none.total_len), (NO_NEXT, 40));
    let esp = checked(&frame(60, &[ext(50, 0), vec![1; 20]].concat())).unwrap();
    assert_eq!(
        (esp.protocol, esp.l4),
        (50, 62),
        "what is encrypted is opaque"
    );
}

#[test]
fn fragments_are_read() {
    let first = frame(44, &[&fragment(UDP, 0, true)[..], &DATAGRAM].concat());
    let h = checked(&first).unwrap();
    let expected = Fragment {
        at: 54,
        offset: 0,
        more: true,
        id: 0x1122_3344,
    };
    assert_eq!((h.fragment, h.l4, h.protocol), (Some(expected), 62, UDP));
    // Options behind the fragment header belong to the first fragment, and are walked there.
    let inner = [ext(UDP, 0), DATAGRAM.to_vec()].concat();
    let h = checked(&frame(44, &[fragment(60, 0, true), inner].concat())).unwrap();
    assert_eq!((h.l4, h.protocol), (70, UDP));
    // A later one holds no header, whatever its first bytes look like.
    let later = [
        ext(44, 0),
        fragment(60, 1480, false),
        vec![0x2c, 0xff, 0, 0, 7],
    ]
    .concat();
    let h = checked(&frame(0, &later)).unwrap();
    let expected = Fragment {
        at: 62,
        offset: 1480,
        more: false,
        id: 0x1122_3344,
    };
    assert_eq!((h.fragment, h.l4, h.protocol), (Some(expected), 70, 60));
}

/// One row a malformed packet, and the reason it dies of.
#[test]
fn malformed_packets_are_named() {
    use DropReason::*;
    let with = |next, parts: &[&[u8]]| frame(next, &parts.concat());
    let routed = {
        let mut h = ext(UDP, 2);
        h[3] = 1;
        h
    };
    let rows: &[(&str, Vec<u8>, DropReason)] = &[
        (
            "version 4",
            {
                let mut f = frame(UDP, &DATAGRAM);
                f[14] = 0x45;
                f
            },
            BadIp6Header,
        ),
        (
            "payload past the frame",
            {
                let mut f = frame(UDP, &DATAGRAM);
                f[PAYLOAD_LEN_AT + 1] += 1;
                f
            },
            BadIp6Header,
        ),
        ("extension cut", with(0, &[&[UDP, 0, 0]]), BadIp6Extension),
        (
            "extension longer than the packet",
            with(60, &[&[UDP, 1, 0, 0, 0, 0, 0, 0], &DATAGRAM[..7]]),
            BadIp6Extension,
        ),
        (
            "hop-by-hop in second place",
            with(60, &[&ext(0, 0), &ext(UDP, 0), &DATAGRAM]),
            BadIp6Extension,
        ),
        (
            "one more than are walked",
            with(60, &[&ext(60, 0).repeat(8), &ext(UDP, 0), &DATAGRAM]),
            BadIp6Extension,
        ),
        (
            "option that asks for a drop",
            with(0, &[&[UDP, 0, 0x5e, 4, 0, 0, 0, 0], &DATAGRAM]),
            BadIp6Extension,
        ),
        (
            "jumbo payload",
            with(0, &[&[UDP, 0, 0xc2, 4, 0, 1, 0, 0], &DATAGRAM]),
            BadIp6Extension,
        ),
        (
            "option past its header",
            with(0, &[&[UDP, 0, 1, 5, 0, 0, 0, 0], &DATAGRAM]),
            BadIp6Extension,
        ),
        (
            "fragment in a fragment",
            with(
                44,
                &[&fragment(44, 0, false), &fragment(UDP, 0, false), &DATAGRAM],
            ),
            BadIp6Extension,
        ),
        ("routed on", with(43, &[&routed, &DATAGRAM]), SourceRouted),
        (
            "part of no multiple of 8",
            with(44, &[&fragment(UDP, 0, true), &DATAGRAM[..7]]),
            BadFragment,
        ),
        (
            "empty part",
            with(44, &[&fragment(UDP, 8, true)]),
            BadFragment,
        ),
        (
            "past the largest datagram",
            with(44, &[&fragment(UDP, 0xfff8, false), &DATAGRAM]),
            BadFragment,
        ),
        (
            "headers cut by the fragment",
            with(44, &[&fragment(60, 0, true), &[UDP, 1, 0, 0, 0, 0, 0, 0]]),
            TinyFragment,
        ),
    ];
    for (what, f, reason) in rows {
        assert_eq!(checked(f), Err(*reason), "{what}");
    }
}

#[test]
fn impossible_sources_are_known() {
    for bad in ["::", "::1", "ff02::1", "ff0e::1:2", "::ffff:192.0.2.1"] {
        assert!(bad_source(addr(bad)), "{bad}");
    }
    for good in ["2001:db8::1", "fe80::1", "fd00::1", "64:ff9b::c000:201"] {
        assert!(!bad_source(addr(good)), "{good}");
    }
}

/// A datagram that a real stack sent (oracle, DR-v6-udp-lengths "3 bytes") sums to 0xffff.
#[test]
fn the_pseudo_header_is_summed() {
    let addrs: [u8; 32] = [
        addr("2001:db8:77::7").to_be_bytes(),
        addr("2001:db8:100::1").to_be_bytes(),
    ]
    .concat()
    .try_into()
    .unwrap();
    let datagram = [
        0x4f, 0x11, 0x00, 0x35, 0x00, 0x0b, 0x43, 0x99, 0x01, 0x08, 0x0f,
    ];
    let sum = u32::from(pseudo(&addrs, UDP, 11)) + u32::from(checksum::sum(&datagram));
    assert_eq!(checksum::fold(sum), 0xffff);
}

proptest! {
    #[test]
    fn any_bytes_are_checked_without_panic(
        next in prop::sample::select(vec![0u8, 43, 44, 51, 60, 17]),
        mut bytes in prop::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..96),
        nexts in prop::collection::vec(prop::sample::select(vec![0u8, 43, 44, 51, 60, 17]), 12),
    ) {
        for (i, n) in nexts.iter().enumerate() {
            if let Some(b) = bytes.get_mut(i * 8) {
                *b = *n;
            }
        }
        let f = frame(next, &bytes);
        if let Ok(h) = checked(&f) {
            prop_assert!(usize::from(h.l4) <= f.len());
        }
    }
}
