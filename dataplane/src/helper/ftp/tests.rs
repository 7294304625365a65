use proptest::prelude::*;

use super::*;

fn one(data: &[u8], side: Side) -> Option<Announcement> {
    find(data, side, true).announcement
}

fn at(s: &str) -> SocketAddr {
    s.parse().unwrap()
}

#[test]
fn announcements_as_clients_and_servers_write_them() {
    use Form::{Eprt, Extended, Passive, Port};
    type Row = (
        &'static str,
        Side,
        Form,
        Option<&'static str>,
        u16,
        &'static str,
    );
    let rows: [Row; 15] = [
        (
            "PORT 192,0,2,7,156,64\r\n",
            Side::Client,
            Port,
            Some("192.0.2.7"),
            40000,
            "PORT 192,0,2,7,156,64",
        ),
        (
            "port \t192,0,2,7,4,0 \n",
            Side::Client,
            Port,
            Some("192.0.2.7"),
            1024,
            "port \t192,0,2,7,4,0",
        ),
        (
            "NOOP\r\nPort 10,0,0,1,255,255\r\nLIST\r\n",
            Side::Client,
            Port,
            Some("10.0.0.1"),
            65535,
            "Port 10,0,0,1,255,255",
        ),
        (
            "EPRT |1|192.0.2.7|40000|\r\n",
            Side::Client,
            Eprt,
            Some("192.0.2.7"),
            40000,
            "EPRT |1|192.0.2.7|40000|",
        ),
        (
            "eprt |2|2001:db8::7|40000|\r\n",
            Side::Client,
            Eprt,
            Some("2001:db8::7"),
            40000,
            "eprt |2|2001:db8::7|40000|",
        ),
        (
            "EPRT !1!192.0.2.7!80!\r\n",
            Side::Client,
            Eprt,
            Some("192.0.2.7"),
            80,
            "EPRT !1!192.0.2.7!80!",
        ),
        (
            "227 Entering Passive Mode (10,1,0,11,156,64).\r\n",
            Side::Server,
            Passive,
            Some("10.1.0.11"),
            40000,
            "10,1,0,11,156,64",
        ),
        (
            "227 =10,1,0,11,156,64\r\n",
            Side::Server,
            Passive,
            Some("10.1.0.11"),
            40000,
            "10,1,0,11,156,64",
        ),
        (
            "227 3 files, (10,1,0,11,156,64)\r\n",
            Side::Server,
            Passive,
            Some("10.1.0.11"),
            40000,
            "10,1,0,11,156,64",
        ),
        (
            "200 ok\r\n227 (10,1,0,11,0,21)\r\n",
            Side::Server,
            Passive,
            Some("10.1.0.11"),
            21,
            "10,1,0,11,0,21",
        ),
        (
            "229 Entering Extended Passive Mode (|||40000|)\r\n",
            Side::Server,
            Extended,
            None,
            40000,
            "|||40000|",
        ),
        ("229 ok (!!!1!)\n", Side::Server, Extended, None, 1, "!!!1!"),
        (
            "229 ok (|1|10.1.0.11|40000|)\r\n",
            Side::Server,
            Extended,
            Some("10.1.0.11"),
            40000,
            "|1|10.1.0.11|40000|",
        ),
        (
            "229 ok (|2|2001:db8:1::11|40000|)\r\n",
            Side::Server,
            Extended,
            Some("2001:db8:1::11"),
            40000,
            "|2|2001:db8:1::11|40000|",
        ),
        (
            "EPRT |2|::ffff:192.0.2.7|40000|\r\n",
            Side::Client,
            Eprt,
            Some("192.0.2.7"),
            40000,
            "EPRT |2|::ffff:192.0.2.7|40000|",
        ),
    ];
    for (text, side, form, address, port, place) in rows {
        let found = one(text.as_bytes(), side).unwrap_or_else(|| panic!("{text:?}"));
        assert_eq!((found.form, found.port), (form, port), "{text:?}");
        assert_eq!(
            found.address,
            address.map(|a| a.parse().unwrap()),
            "{text:?}"
        );
        assert_eq!(&text[found.place.clone()], place, "{text:?}");
        let line = &text[found.line];
        assert!(
            line.ends_with('\n') && line.contains(place),
            "{text:?}: {line:?}"
        );
        let other = match side {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        };
        assert_eq!(
            one(text.as_bytes(), other),
            None,
            "{text:?} from the other side"
        );
    }
}

#[test]
fn what_is_none() {
    for text in [
        "",
        "\r\n",
        "PORT\r\n",
        "PORT \r\n",
        "PORT192,0,2,7,156,64\r\n",
        "PORT 192,0,2,7,156\r\n",
        "PORT 192,0,2,7,156,256\r\n",
        "PORT 192,0,2,7,156,64,1\r\n",
        "PORT 192,0,2,7,156,64x\r\n",
        "PORT 192,0,2,,156,64\r\n",
        "PORT 192,0,2,00000007,156,64\r\n",
        "XPORT 192,0,2,7,156,64\r\n",
        "EPRT |1|2001:db8::7|40000|\r\n",
        "EPRT |2|192.0.2.7|40000|\r\n",
        "EPRT |3|192.0.2.7|40000|\r\n",
        "EPRT |1|192.0.2.7|40000\r\n",
        "EPRT |1|192.0.2.7|65536|\r\n",
        "EPRT |1|192.0.2.7|40000|1\r\n",
        "EPRT |1|192.0.2.7|4 0|\r\n",
    ] {
        assert_eq!(one(text.as_bytes(), Side::Client), None, "{text:?}");
    }
    for text in [
        "227\r\n",
        "227-(10,1,0,11,156,64)\r\n",
        "1227 (10,1,0,11,156,64)\r\n",
        "228 (10,1,0,11,156,64)\r\n",
        "227 (10,1,0,11,156)\r\n",
        "227 (10,1,0,311,156,6)\r\n",
        "229 |||40000|\r\n",
        "229 (|||40000)\r\n",
        "229 (||40000|)\r\n",
        "229 (|||400000|)\r\n",
        "229 (|1||40000|)\r\n",
    ] {
        assert_eq!(one(text.as_bytes(), Side::Server), None, "{text:?}");
    }
}

/// An answer that quotes a client's words must not pass for an announcement because a segment
/// begins there.
#[test]
fn the_middle_of_a_line_is_no_line() {
    let text = b"227 (10,1,0,11,156,64)\r\n";
    assert_eq!(find(text, Side::Server, false), Found::default());
    let two = [b"'\r\n".as_slice(), text].concat();
    let found = find(&two, Side::Server, false).announcement.unwrap();
    assert_eq!(found.line, 3..two.len());
}

#[test]
fn cut_lines_are_noticed() {
    for (text, side, is_cut) in [
        ("PORT 192,0,2,7,1", Side::Client, true),
        ("NOOP\r\nep", Side::Client, true),
        ("USER anonymous", Side::Client, false),
        ("227 Entering Passive Mode (10,1,", Side::Server, true),
        ("230 ok\r\n22", Side::Server, true),
        ("226 Transfer", Side::Server, false),
        ("PORT 192,0,2,7,1,1\r\n", Side::Client, false),
    ] {
        assert_eq!(find(text.as_bytes(), side, true).is_cut, is_cut, "{text:?}");
    }
}

#[test]
fn written_in_the_form_that_the_other_side_reads() {
    let (v4, v6) = ("10.1.0.100:40001", "[2001:db8:1::64]:40001");
    let rows = [
        (
            "PORT 192,0,2,7,156,64\r\n",
            Side::Client,
            v4,
            Some("PORT 10,1,0,100,156,65"),
        ),
        (
            "PORT 192,0,2,7,156,64\r\n",
            Side::Client,
            v6,
            Some("EPRT |2|2001:db8:1:0:0:0:0:64|40001|"),
        ),
        (
            "EPRT |1|192.0.2.7|40000|\r\n",
            Side::Client,
            v4,
            Some("EPRT |1|10.1.0.100|40001|"),
        ),
        (
            "EPRT |2|2001:db8::7|40000|\r\n",
            Side::Client,
            v4,
            Some("PORT 10,1,0,100,156,65"),
        ),
        (
            "EPRT |2|2001:db8::7|40000|\r\n",
            Side::Client,
            v6,
            Some("EPRT |2|2001:db8:1:0:0:0:0:64|40001|"),
        ),
        (
            "227 (10,1,0,11,156,64)\r\n",
            Side::Server,
            v4,
            Some("10,1,0,100,156,65"),
        ),
        ("227 (10,1,0,11,156,64)\r\n", Side::Server, v6, None),
        ("229 (|||40000|)\r\n", Side::Server, v6, Some("|||40001|")),
    ];
    for (text, side, to, expected) in rows {
        let found = one(text.as_bytes(), side).unwrap();
        let words = words(&found, at(to));
        let words = words.as_deref().map(|w| std::str::from_utf8(w).unwrap());
        assert_eq!(words, expected, "{text:?} to {to}");
    }
}

#[test]
fn a_spoilt_command_names_nobody() {
    for (text, spoilt) in [
        ("PORT 192,0,2,7,156,64\r\n", "PORT 000,0,0,0,000,00\r\n"),
        (
            "EPRT |2|2001:db8::7|40000|\r\n",
            "EPRT |0|0000:000::0|00000|\r\n",
        ),
    ] {
        let mut line = text.as_bytes().to_vec();
        spoil(&mut line);
        assert_eq!(line, spoilt.as_bytes());
        let announced = one(&line, Side::Client);
        assert!(announced.is_none_or(|a| a.port == 0), "{spoilt}");
    }
}

fn socket() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<(u32, u16)>().prop_map(|(a, p)| (Ipv4Addr::from(a), p).into());
    let v6 = any::<([u16; 8], u16)>().prop_map(|(a, p)| (std::net::Ipv6Addr::from(a), p).into());
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn any_bytes_are_read_within_their_bounds(
        data in prop::collection::vec(
            prop_oneof![
                any::<u8>(),
                prop::sample::select(b"PORTEPRT227 229()|,.:0123456789\r\n".to_vec()),
            ],
            0..200,
        ),
        at_line: bool,
    ) {
        for side in [Side::Client, Side::Server] {
            let Some(found) = find(&data, side, at_line).announcement else { continue };
            prop_assert!(found.line.start <= found.place.start);
            prop_assert!(found.place.end < found.line.end && found.line.end <= data.len());
            let mut line = data[found.line.clone()].to_vec();
            spoil(&mut line);
            prop_assert_eq!(line.len(), found.line.len());
        }
    }

    #[test]
    fn what_is_written_is_read_back(to in socket(), from in socket(), form in 0usize..3) {
        let text = match form {
            0 => "PORT 192,0,2,7,156,64\r\n".to_owned(),
            1 => format!("EPRT |{}|{}|1|\r\n", if from.is_ipv4() { 1 } else { 2 }, from.ip()),
            _ => "227 ok (1,2,3,4,5,6) now\r\n".to_owned(),
        };
        let side = if form == 2 { Side::Server } else { Side::Client };
        let said = one(text.as_bytes(), side).unwrap();
        let Some(words) = words(&said, to) else {
            prop_assert!(form == 2 && to.is_ipv6());
            return Ok(());
        };
        let mut new = text.into_bytes();
        new.splice(said.place, words);
        let again = one(&new, side).unwrap();
        prop_assert_eq!((again.address, again.port), (Some(to.ip().to_canonical()), to.port()));
    }
}
