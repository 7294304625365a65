use proptest::prelude::*;

use super::*;
use crate::io::sim::{SimFrame, SimPool};
use crate::types::CoreId;

fn ids() -> IpIds {
    IpIds::new(CoreId(0), 1, 41)
}

/// An IPv4 packet with `options` (a multiple of 4 bytes) and bytes that count up.
fn v4(options: &[u8], word: u16, payload: usize) -> Vec<u8> {
    let mut f = vec![2; 12];
    f.extend([8, 0, 0x45 + options.len() as u8 / 4, 0]);
    f.extend(((20 + options.len() + payload) as u16).to_be_bytes());
    f.extend([0x12, 0x34]);
    f.extend(word.to_be_bytes());
    f.extend([60, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    f.extend_from_slice(options);
    f.extend((0..payload).map(|i| (i * 7) as u8));
    checksum::set_ipv4(&mut f);
    f
}

fn v6(next: u8, payload: usize) -> Vec<u8> {
    let mut f = vec![2; 12];
    f.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    f.extend((payload as u16).to_be_bytes());
    f.extend([next, 60]);
    f.extend([0x20; 32]);
    f.extend((0..payload).map(|i| (i * 7) as u8));
    f
}

fn cut_all(pool: &SimPool, packet: &[u8], mtu: u16) -> Result<Vec<SimFrame>, DropReason> {
    cut(pool.frame(packet), mtu, &mut ids()).map(|pieces| pieces.into_iter().collect())
}

#[test]
fn options_that_are_not_copied_stay_with_the_first_piece() {
    let pool = SimPool::default();
    // Record route (7, not copied), a pad, and a security option (130, copied).
    let options = [7, 3, 4, 1, 130, 4, 9, 9];
    let pieces = cut_all(&pool, &v4(&options, 0, 100), 92).unwrap();
    let [first, second] = &pieces[..] else {
        panic!("{} pieces", pieces.len())
    };
    assert_eq!(first.bytes()[34..42], options);
    assert_eq!(second.bytes()[34..42], [1, 1, 1, 1, 130, 4, 9, 9]);
    assert_eq!(first.bytes().len(), 14 + 28 + 64);
}

#[test]
fn a_part_is_cut_in_its_place() {
    let pool = SimPool::default();
    let pieces = cut_all(&pool, &v4(&[], ipv4::MF | 100, 64), 60).unwrap();
    let words: Vec<_> = pieces.iter().map(|p| be16(p.bytes(), 20)).collect();
    assert_eq!(words, [ipv4::MF | 100, ipv4::MF | 105]);
    let pieces = cut_all(&pool, &v4(&[], 100, 64), 60).unwrap();
    let words: Vec<_> = pieces.iter().map(|p| be16(p.bytes(), 20)).collect();
    assert_eq!(words, [ipv4::MF | 100, 105]);
}

#[test]
fn a_part_over_ipv6_is_cut_in_its_place() {
    let pool = SimPool::default();
    for more in [0, 1] {
        let mut part = v6(44, 8 + 64);
        part[54..62].copy_from_slice(&[17, 0, 3, 0x20 | more, 0, 0, 0, 9]);
        let data = part[62..].to_vec();
        let pieces = cut_all(&pool, &part, 88).unwrap();
        let [first, second] = &pieces[..] else {
            panic!("{} pieces", pieces.len())
        };
        assert_eq!(first.bytes()[54..62], [17, 0, 3, 0x21, 0, 0, 0, 9]);
        assert_eq!(second.bytes()[54..62], [17, 0, 3, 0x48 | more, 0, 0, 0, 9]);
        for (piece, len) in [(first, 40), (second, 24)] {
            let f = piece.bytes();
            assert_eq!((be16(f, 18), f.len()), (8 + len, 62 + usize::from(len)));
            assert_eq!(f[..18], part[..18]);
        }
        let whole = [&first.bytes()[62..], &second.bytes()[62..]].concat();
        assert_eq!(whole, data);
    }
}

#[test]
fn what_must_not_be_cut_is_dropped() {
    let pool = SimPool::default();
    let too_big = |packet: &[u8], mtu| {
        let result = cut_all(&pool, packet, mtu).map(|p| p.len());
        assert_eq!(result, Err(DropReason::TooBig));
    };
    too_big(&v4(&[], ipv4::DF, 100), 60);
    too_big(&v4(&[], 0, 100), 27);
    too_big(&v4(&[], 0, 1000), 50); // 24 bytes each: 42 pieces
    too_big(&v6(0, 100), 100);
    too_big(&v6(44, 100), 100);
    assert_eq!(cut_all(&pool, &v6(17, 60), 100).unwrap().len(), 1);
    assert_eq!(
        cut_all(&pool, &v4(&[], 0, 100)[..80], 60).map(|p| p.len()),
        Err(DropReason::BadIpHeader)
    );
    assert_eq!(pool.live(), 0);
}

proptest! {
    /// Put together again the pieces are the packet, and each fits.
    #[test]
    fn pieces_make_the_packet(is_v6: bool, payload in 1usize..1900, mtu in 100u16..1600) {
        let pool = SimPool::default();
        let (packet, headers, frag) = match is_v6 {
            true => (v6(4, payload), 54, 8),
            false => (v4(&[], 0, payload), 34, 0),
        };
        let mut padded = packet.clone();
        padded.extend([0xee; 6]);
        let Ok(pieces) = cut_all(&pool, &padded, mtu) else {
            prop_assert!(payload / ((usize::from(mtu) - 48) & !7) >= BURST - 2);
            return Ok(());
        };
        if packet.len() - 14 <= usize::from(mtu) {
            prop_assert_eq!(pieces.len(), 1);
            prop_assert_eq!(pieces[0].bytes(), &packet[..]);
            return Ok(());
        }
        let mut whole = packet[..headers].to_vec();
        for (i, piece) in pieces.iter().enumerate() {
            let f = piece.bytes();
            let more = i + 1 < pieces.len();
            prop_assert!(f.len() - 14 <= usize::from(mtu));
            prop_assert_eq!(f.len() - 14, match is_v6 {
                false => usize::from(be16(f, 16)),
                true => 40 + usize::from(be16(f, 18)),
            });
            prop_assert_eq!(&f[..14], &packet[..14]);
            let at = whole.len() - headers;
            match is_v6 {
                false => {
                    prop_assert_eq!(be16(f, 20), if more { ipv4::MF } else { 0 } | (at / 8) as u16);
                    prop_assert_eq!(be16(f, 18), 0x1234);
                    prop_assert_eq!(checksum::sum(&f[14..34]), 0xffff);
                }
                true => {
                    let ip = ipv6::check(f.first_chunk().unwrap(), f).unwrap();
                    let expected = ipv6::Fragment { at: 54, offset: at as u16, more, id: 42 };
                    prop_assert_eq!(ip.fragment, Some(expected));
                    prop_assert_eq!(ip.protocol, 4);
                }
            }
            whole.extend_from_slice(&f[headers + frag..]);
        }
        prop_assert_eq!(&whole[headers..], &packet[headers..]);
        drop(pieces);
        prop_assert_eq!(pool.live(), 0);
    }
}
