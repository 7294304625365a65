use proptest::prelude::*;

use super::*;

/// A packet of these chunks: type and value.
fn packet(chunks: &[(u8, &[u8])]) -> Vec<u8> {
    let mut p = vec![0; LEN];
    p[..8].copy_from_slice(&[0x30, 0x39, 0x0b, 0x59, 1, 2, 3, 4]);
    for (kind, value) in chunks {
        p.extend([*kind, 0]);
        p.extend((value.len() as u16 + 4).to_be_bytes());
        p.extend(*value);
        p.resize(p.len().next_multiple_of(4), 0);
    }
    set_checksum(&mut p);
    p
}

fn event(chunks: &[(u8, &[u8])]) -> Event {
    check(&packet(chunks)).unwrap().1
}

#[test]
fn chunks_say() {
    assert_eq!(event(&[(chunk::INIT, &[0; 16])]), Event::Init);
    assert_eq!(
        event(&[(10, &[7; 5]), (chunk::DATA, &[1])]),
        Event::CookieEcho
    );
    assert_eq!(event(&[(3, &[0; 12]), (chunk::DATA, &[1])]), Event::Data);
    // SACK says nothing, what comes with it may.
    assert_eq!(event(&[(3, &[0; 12]), (7, &[0; 4])]), Event::Shutdown);
    assert_eq!(event(&[(10, &[7; 6]), (9, &[0; 4])]), Event::CookieEcho);
    assert_eq!(event(&[(10, &[7; 6]), (6, &[])]), Event::Abort);
    // Control chunks come before data: what follows it is data, whatever it looks like.
    assert_eq!(event(&[(chunk::DATA, &[1]), (6, &[])]), Event::Data);
    assert_eq!(event(&[(chunk::I_DATA, &[1]), (6, &[])]), Event::Data);
    assert_eq!(event(&[(192, &[0; 4]), (14, &[])]), Event::ShutdownComplete);
    // The walk is bounded.
    let mut many: Vec<(u8, &[u8])> = vec![(3, &[0; 4]); CHUNKS];
    many.push((6, &[]));
    assert_eq!(event(&many), Event::Data);
    assert_eq!(event(&many[1..]), Event::Abort);
}

#[test]
fn what_is_cut_or_lies_about_its_length() {
    let whole = packet(&[(10, &[7; 8]), (6, &[])]);
    for len in 0..LEN + CHUNK_LEN {
        assert_eq!(
            check(&whole[..len]),
            Err(DropReason::BadSctpHeader),
            "{len}"
        );
    }
    // A whole first chunk header is enough for IPVS, and for us.
    assert_eq!(check(&whole[..LEN + 4]).unwrap().1, Event::CookieEcho);
    assert_eq!(check(&whole).unwrap().1, Event::Abort);
    let mut lies = whole.clone();
    for length in [0u16, 3, 0xffff] {
        lies[LEN + 2..LEN + 4].copy_from_slice(&length.to_be_bytes());
        let want = match length {
            0xffff => Ok(Event::CookieEcho),
            _ => Err(DropReason::BadSctpHeader),
        };
        assert_eq!(check(&lies).map(|c| c.1), want);
    }
}

/// RFC 3720 B.4's vectors, by way of a packet: the checksum's own place counts as zero.
#[test]
fn the_checksum_is_crc32c() {
    assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(crc32c::crc32c(&[0xff; 32]), 0x62a8_ab43);
    let mut p = vec![0; 32];
    p[CHECKSUM_AT..LEN].copy_from_slice(&[9, 9, 9, 9]);
    set_checksum(&mut p);
    assert_eq!(p[CHECKSUM_AT..LEN], [0xaa, 0x36, 0x91, 0x8a]);
    assert_eq!(found_checksum(&p), 0x8a91_36aa);
}

#[test]
fn a_partial_checksum_is_zero() {
    let right = packet(&[(chunk::DATA, b"hello")]);
    let mut p = right.clone();
    assert!(!complete_partial(&mut p));
    p[CHECKSUM_AT..LEN].fill(0);
    assert!(complete_partial(&mut p));
    assert_eq!(p, right);
    assert!(!complete_partial(&mut p[..LEN - 1]));
}

#[test]
fn ports_change_under_the_longest_packets_too() {
    for len in (LEN..2_100).chain(65_500..=65_535) {
        let mut p: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
        set_checksum(&mut p);
        new_ports(&mut p, 0x1234_5678);
        assert_eq!(p[..4], [0x12, 0x34, 0x56, 0x78]);
        assert_eq!(found_checksum(&p), checksum(&p), "{len} bytes");
    }
}

proptest! {
    #[test]
    fn new_ports_mend_the_checksum_and_hide_no_error(
        mut p in prop::collection::vec(any::<u8>(), LEN..300), ports: u32, error: u32,
    ) {
        set_checksum(&mut p);
        let wrong = found_checksum(&p) ^ error;
        p[CHECKSUM_AT..LEN].copy_from_slice(&wrong.to_le_bytes());
        new_ports(&mut p, ports);
        prop_assert_eq!(found_checksum(&p), checksum(&p) ^ error);
        prop_assert_eq!(be32(&p, 0), ports);
    }

    #[test]
    fn check_takes_anything(p in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = check(&p);
        let mut p = p;
        new_ports(&mut p, 7);
        complete_partial(&mut p);
    }
}
