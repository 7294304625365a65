use weir_dataplane::io::sim::{SimFrame, SimPool};
use weir_dataplane::packet::build::checksums_right;
use weir_dataplane::packet::{Parsed, parse};

use super::*;

fn segment(step: Step, client: u32) -> Segment {
    let tag = (client as u16).wrapping_mul(40_503);
    Segment { step, client, tag }
}

/// A life's frames, each made of the one before; `between` is what the device does to each.
fn life(n: u32, mut between: impl FnMut(&mut SimFrame)) -> Vec<Vec<u8>> {
    let segments = Segments::new();
    let mut frame = SimPool::default().frame(&[0x5a; SMALLEST]);
    let (mut step, mut frames) = (Some(Step::Syn), Vec::new());
    while let Some(now) = step {
        assert!(segments.write(&mut frame, segment(now, n)));
        frames.push(frame.bytes().to_vec());
        between(&mut frame);
        let read = Segment::read(frame.bytes()).unwrap();
        assert_eq!(read, segment(now, n));
        step = read.step.next();
    }
    frames
}

/// Ports, sequence and acknowledgement numbers, flags.
fn tcp(frame: &[u8]) -> (u16, u16, u32, u32, u8) {
    let (from, to) = (be16(frame, L4), be16(frame, L4 + 2));
    let (seq, ack) = (be32(frame, L4 + SEQ_AT), be32(frame, L4 + ACK_AT));
    (from, to, seq, ack, frame[L4 + FLAGS_AT])
}

#[test]
fn a_life_has_the_numbers_of_a_real_one() {
    let frames = life(70_001, |_| {});
    let port = client(70_001).port();
    let n = 70_001;
    let said: Vec<_> = frames.iter().map(|f| tcp(f)).collect();
    assert_eq!(
        said,
        [
            (port, 80, n, 0, SYN),
            (80, port, 1, n + 1, SYN | ACK),
            (port, 80, n + 1, 2, ACK),
            (port, 80, n + 1, 2, PSH | ACK),
            (port, 80, n + 147, 2, FIN | ACK),
            (80, port, 2, n + 148, FIN | ACK),
            (port, 80, n + 148, 3, ACK),
        ]
    );
    let lengths: Vec<usize> = frames.iter().map(Vec::len).collect();
    assert_eq!(lengths, [60, 60, 60, 200, 60, 60, 60]);
}

#[test]
fn every_packet_of_any_client_has_right_checksums_and_goes_to_the_device() {
    for n in [0, 1, 59_999, 60_000, 999_999, 99_999_999, 4_000_000_000] {
        for frame in life(n, |_| {}) {
            assert!(checksums_right(&frame), "client {n}: {frame:x?}");
            assert_eq!((eth::dst(&frame), eth::src(&frame)), (MACS[0], PEER));
            let Ok(Parsed::Flow(flow)) = parse(&frame, false) else {
                panic!("no flow");
            };
            let (from, to) = (flow.key.source4(), flow.key.destination4());
            let from_vip = from == VIP;
            let who = if from_vip { to } else { from };
            assert_eq!(who, client(u64::from(n)));
            assert!(from_vip || to == VIP);
        }
    }
}

/// Behind a balancer a client has another address and the packets another TTL: a server answers what
/// it sees.
#[test]
fn a_server_answers_the_address_that_it_sees() {
    let seen = Packet::tcp(
        "10.2.0.1:4242".parse::<std::net::SocketAddr>().unwrap(),
        "10.1.0.11:8080".parse::<std::net::SocketAddr>().unwrap(),
        SYN,
    )
    .macs(MACS[0], PEER);
    let mut bytes = Packet {
        ttl: 63,
        seq: 9,
        ..seen
    }
    .build();
    bytes.resize(SMALLEST, 0);
    let mut frame = SimPool::default().frame(&bytes);
    assert!(Segments::new().write(&mut frame, segment(Step::SynAck, 9)));
    let Ok(Parsed::Flow(flow)) = parse(frame.bytes(), false) else {
        panic!("no flow");
    };
    assert_eq!(flow.key.source4().to_string(), "10.1.0.11:8080");
    assert_eq!(flow.key.destination4().to_string(), "10.2.0.1:4242");
    assert_eq!(tcp(frame.bytes()), (8080, 4242, 1, 10, SYN | ACK));
    assert!(checksums_right(frame.bytes()));
}

#[test]
fn a_tunnels_header_is_taken_off() {
    let frames = life(5, |frame| {
        // Weir does not tunnel Ethernet's padding.
        let end = eth::HEADER_LEN + usize::from(be16(frame.bytes(), 16));
        assert!(frame.set_len(end));
        let outer = frame.bytes()[..ipv4::END].to_vec();
        assert!(frame.push_front(ipv4::MIN_LEN));
        frame.bytes_mut()[..ipv4::END].copy_from_slice(&outer);
        frame.bytes_mut()[ipv4::PROTO_AT] = IPIP;
        assert_eq!(Segment::read(frame.bytes()), None);
        unwrap(frame);
    });
    assert!(frames.iter().all(|f| checksums_right(f)));
}

#[test]
fn what_is_not_of_a_life_is_not_read() {
    assert_eq!(Segment::read(&[0; 53]), None);
    let mut arp = vec![0; SMALLEST];
    put16(&mut arp, 12, eth::ARP);
    assert_eq!(Segment::read(&arp), None);
    let reset = Packet::tcp(client(1), VIP, weir_dataplane::packet::tcp::flags::RST);
    let mut reset = reset.build();
    reset.resize(SMALLEST, 0);
    assert_eq!(Segment::read(&reset), None);
}
