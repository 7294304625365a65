use weir_dataplane::packet::build::checksums_right;
use weir_dataplane::packet::{Parsed, parse};

use super::*;

#[test]
fn data_of_any_client_has_right_checksums_and_carries_its_stamp() {
    for len in [60, 61, 1514] {
        let data = Data::new(len);
        let mut frame = vec![0; data.len()];
        for n in [0u64, 1, 59_999, 60_000, 999_999, 9_999_999] {
            let stamp = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            data.write(&mut frame, n, stamp);
            assert_eq!(frame.len(), len);
            assert!(checksums_right(&frame), "client {n}, {len} bytes");
            assert!(counts(&frame));
            assert_eq!(age(&frame, stamp.wrapping_add(77)), 77);
            let Ok(Parsed::Flow(flow)) = parse(&frame, false) else {
                panic!("no flow");
            };
            assert_eq!(flow.key.source4(), client(n));
            assert_eq!(flow.key.destination4(), VIP);
        }
    }
}

/// What a tunnel wrapped counts as what is inside.
#[test]
fn data_in_a_tunnel_counts() {
    let mut frame = vec![0; SMALLEST];
    Data::new(SMALLEST).write(&mut frame, 7, 1_000);
    let mut wrapped = frame[..eth::HEADER_LEN].to_vec();
    wrapped.extend_from_slice(&frame[eth::HEADER_LEN..ipv4::END]);
    wrapped[ipv4::PROTO_AT] = IPIP;
    wrapped.extend_from_slice(&frame[eth::HEADER_LEN..]);
    assert!(counts(&wrapped));
    assert_eq!(age(&wrapped, 1_005), 5);
}

#[test]
fn the_gateway_answers_arp() {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0x0d, 0, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend([2, 0, 0, 0, 0x0d, 0, 10, 0, 0, 2]);
    frame.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
    frame.resize(SMALLEST, 0);
    assert!(answer_arp(&mut frame));
    assert_eq!(frame[..12], [2, 0, 0, 0, 0x0d, 0, 2, 0, 0, 0, 1, 1]);
    assert_eq!(frame[20..22], [0, 2]);
    assert_eq!(frame[22..32], [2, 0, 0, 0, 1, 1, 10, 0, 0, 1]);
    assert_eq!(frame[32..42], [2, 0, 0, 0, 0x0d, 0, 10, 0, 0, 2]);
    let answer = frame.clone();
    assert!(!answer_arp(&mut frame), "an answer is not answered");
    assert_eq!(frame, answer);
}
