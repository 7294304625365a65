use weir_dataplane::packet::be16;
use weir_dataplane::packet::build::checksums_right;

use super::*;

const L4: usize = ipv4::END;

fn numbers(frame: &[u8]) -> (u32, u32, u8) {
    let (seq, ack) = (be32(frame, L4 + SEQ_AT), be32(frame, L4 + ACK_AT));
    (seq, ack, frame[L4 + 13])
}

/// Without a director between them.
#[test]
fn a_handshake_of_two_linux_ends() {
    let first = syn(3);
    assert_eq!(first.len(), 74);
    assert_eq!(first[54..], OPENING);
    let (isn, _, _) = numbers(&first);
    let (side, second) = reply(Side::Server, &first).unwrap();
    assert_eq!(side, Side::Server);
    assert_eq!(
        numbers(&second),
        (0x5e4e_0001, isn.wrapping_add(1), SYN | ACK)
    );
    // MSS, SACK, timestamps with the client's clock, scale.
    assert_eq!(second[54..60], OPENING[..6]);
    assert_eq!(second[66..70], [0, 0, 0x10, 0]);
    let (side, third) = reply(Side::Client, &second).unwrap();
    assert_eq!(side, Side::Client);
    assert_eq!(numbers(&third), (isn.wrapping_add(1), 0x5e4e_0002, ACK));
    assert_eq!(third[54..], [1, 1, 8, 10, 0, 0, 0x10, 1, 0, 0, 0x10, 0]);
    assert_eq!(reply(Side::Server, &third), None);
    for frame in [first, second, third, ack(3)] {
        assert!(checksums_right(&frame));
        assert_eq!(usize::from(be16(&frame, 16)), frame.len() - 14);
    }
}
