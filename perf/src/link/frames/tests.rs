use weir_dataplane::packet::build::checksums_right;

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

/// A handshake through a balancer that changes nothing: SYN, SYN-ACK, ACK, open.
#[test]
fn the_world_completes_handshakes() {
    let Reaction::Answer(syn_ack) = react(&syn(70_001), false) else {
        panic!("no SYN-ACK");
    };
    assert!(checksums_right(&syn_ack));
    let Reaction::Answer(ack) = react(&syn_ack, false) else {
        panic!("no ACK");
    };
    assert!(checksums_right(&ack));
    let Ok(Parsed::Flow(flow)) = parse(&ack, false) else {
        panic!("no flow");
    };
    assert_eq!(flow.key.source4(), client(70_001));
    assert_eq!(react(&ack, false), Reaction::Open(70_001));
}

/// Where answers go past the device, its client's ACK follows the SYN; and what it wraps is found
/// inside.
#[test]
fn the_world_answers_past_a_one_way_device() {
    let wrapped = |frame: &[u8]| {
        let mut f = frame[..14].to_vec();
        f.extend_from_slice(&frame[14..34]);
        f[23] = 4;
        f.extend_from_slice(&frame[14..]);
        f
    };
    for seen in [syn(7), wrapped(&syn(7))] {
        let Reaction::Answer(ack) = react(&seen, true) else {
            panic!("no ACK");
        };
        assert!(checksums_right(&ack) && counts(&ack) && counts(&wrapped(&ack)));
        for seen in [&ack, &wrapped(&ack)] {
            assert_eq!(react(seen, true), Reaction::Open(7));
        }
        assert_eq!(age(&ack, 5), age(&wrapped(&ack), 5));
    }
}

#[test]
fn the_gateway_answers_arp() {
    let mut request = vec![0xff; 6];
    request.extend([2, 0, 0, 0, 0x0d, 0, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    request.extend([2, 0, 0, 0, 0x0d, 0, 10, 0, 0, 2]);
    request.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
    let Reaction::Answer(answer) = react(&request, false) else {
        panic!("no answer");
    };
    assert_eq!(answer[..12], [2, 0, 0, 0, 0x0d, 0, 2, 0, 0, 0, 1, 1]);
    assert_eq!(answer[20..22], [0, 2]);
    assert_eq!(answer[22..32], [2, 0, 0, 0, 1, 1, 10, 0, 0, 1]);
    assert_eq!(answer[32..42], [2, 0, 0, 0, 0x0d, 0, 10, 0, 0, 2]);
}
