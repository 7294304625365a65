//! TOA, PROXY protocol and UOA: whatever options and data both ends send, in whatever order, every
//! packet that leaves is well-formed with right checksums, and what the server reads as the
//! connection's stream, put together by its sequence numbers, never contradicts itself.
#![no_main]

use std::cell::RefCell;
use std::collections::HashMap;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::forward::carrier::ClientAddress;
use weir_dataplane::packet::build::Packet;
use weir_dataplane::packet::checksum;
use weir_dataplane::packet::tcp::flags::{ACK, FIN, PSH, RST, SYN};
use weir_dataplane::packet::{Parsed, be32, parse, put16, tcp};
use weir_dataplane::replay::{Replay, To};
use weir_dataplane::{Proto, Tick};
use weir_fuzz::{
    Kind, LAN, MACS, SENDER, WAN, assert_books, assert_runs_out, assert_well_formed, kinds, scene,
    service_at,
};

const CLIENT_START: u32 = 0xffff_ff00; // wraps soon
const SERVER_START: u32 = 5_000;

#[derive(Debug, Arbitrary)]
struct Input {
    service: u8,
    steps: Vec<Step>,
}

#[derive(Debug, Arbitrary)]
struct Step {
    from_server: bool,
    flags: u8,
    /// Where in its stream the segment begins, and how much of it was heard of the other's.
    seq: u8,
    ack: u8,
    data: u16,
    /// Bytes of TCP's options, wrong ones too.
    options: Vec<u8>,
}

/// What a host sends: SYN, plain and pushed data, FIN, reset.
fn flags(of: u8) -> u8 {
    [SYN, ACK, ACK | PSH, ACK, FIN | ACK, RST][usize::from(of % 6)]
}

/// The byte at `at` of a client's stream.
fn byte(at: u32) -> u8 {
    (at ^ at >> 8) as u8
}

/// A TCP segment with these option bytes.
fn with_options(packet: &Packet, options: &[u8]) -> Vec<u8> {
    let mut options = options[..options.len().min(40)].to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    let data = packet.payload.clone();
    let mut longer = packet.clone();
    longer.payload = [&options[..], &data[..]].concat();
    let mut frame = longer.build();
    let Ok(parsed) = parse(&frame, false) else {
        return frame;
    };
    let (l4, ip_len) = match parsed {
        Parsed::Flow(f) => (usize::from(f.l4), usize::from(f.ip_len)),
        Parsed::Flow6(f) => (usize::from(f.l4), usize::from(f.ip_len)),
        Parsed::Other(_) => return frame,
    };
    frame[l4 + 12] = ((5 + options.len() / 4) as u8) << 4;
    put16(&mut frame, l4 + tcp::CHECKSUM_AT, 0);
    let sum = checksum::l4(&frame, Proto::Tcp, l4, 14 + ip_len);
    put16(&mut frame, l4 + tcp::CHECKSUM_AT, sum);
    frame
}

struct Bench {
    kinds: Vec<Kind>,
    replay: Replay,
    inputs: u16,
}

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::new({
        let carried = |k: &Kind| {
            k.forward == ForwardMode::fullnat && k.client_address != ClientAddress::none
        };
        let kinds: Vec<Kind> = kinds().into_iter().filter(carried).collect();
        let replay = Replay::new(&scene(&kinds, 1), Tick(0)).expect("memory");
        Bench { kinds, replay, inputs: 0 }
    });
}

fuzz_target!(|input: Input| {
    BENCH.with_borrow_mut(|bench| run(bench, &input));
});

fn run(bench: &mut Bench, input: &Input) {
    let at = usize::from(input.service) % bench.kinds.len();
    let kind = bench.kinds[at];
    let service = service_at(at, &kind);
    bench.inputs = bench.inputs.wrapping_add(1);
    let client: std::net::SocketAddr = match kind.vip6 {
        true => "[2001:db8:77::7]:4000",
        false => "192.0.2.7:4000",
    }
    .parse()
    .expect("an address");
    // What the server sees: where the client's packets come from and go to, and the stream.
    let mut seen = None;
    let mut stream: HashMap<u32, u8> = HashMap::new();
    for step in input.steps.iter().take(24) {
        let data = usize::from(step.data % 1461);
        let frame = match (kind.proto, step.from_server) {
            (Proto::Tcp, false) => {
                let mut packet = Packet::tcp(client, service, flags(step.flags));
                let syn = packet.flags & SYN != 0;
                packet.seq = match syn {
                    true => CLIENT_START,
                    false => CLIENT_START.wrapping_add(1 + u32::from(step.seq) * 7),
                };
                packet.ack = SERVER_START.wrapping_add(1 + u32::from(step.ack));
                let first = packet.seq.wrapping_add(u32::from(syn));
                packet.payload = (0..data as u32)
                    .map(|n| byte(first.wrapping_add(n)))
                    .collect();
                with_options(&packet.macs(SENDER, MACS[0]), &step.options)
            }
            (Proto::Tcp, true) => {
                let Some((local, server)) = seen else {
                    continue;
                };
                let mut packet = Packet::tcp(server, local, flags(step.flags));
                let syn = packet.flags & SYN != 0;
                packet.flags |= if syn { ACK } else { 0 };
                packet.seq = SERVER_START + if syn { 0 } else { 1 + u32::from(step.seq) };
                // Of what it has read without a gap, it acknowledges some.
                let read = (0..).map(|n| CLIENT_START.wrapping_add(1 + n));
                let read = read.take_while(|at| stream.contains_key(at)).count() as u32;
                let heard = u32::from(step.ack) * 13 % (read + 1);
                packet.ack = CLIENT_START.wrapping_add(1 + heard);
                packet.payload = vec![9; if syn { 0 } else { data }];
                with_options(&packet.macs(SENDER, MACS[1]), &step.options)
            }
            (_, false) => {
                let packet = Packet::udp(client, service).payload(&vec![7; data]);
                packet.macs(SENDER, MACS[0]).build()
            }
            (_, true) => {
                let Some((local, server)) = seen else {
                    continue;
                };
                let packet = Packet::udp(server, local).payload(&vec![7; data]);
                packet.macs(SENDER, MACS[1]).build()
            }
        };
        if frame.len() > 1514 {
            continue;
        }
        let port = if step.from_server { LAN } else { WAN };
        let out = bench.replay.feed(port, &frame, Default::default());
        assert_books(&bench.replay);
        for (to, frame) in &out {
            if !matches!(to, To::Port(_)) {
                continue;
            }
            assert_well_formed(frame);
            if *to == To::Port(LAN) {
                read(frame, &mut seen, &mut stream);
            }
        }
        // One connection an input: when it is gone, the next has a stream of its own.
        if bench.replay.connections() == 0 {
            seen = None;
            stream.clear();
        }
    }
    assert_runs_out(&mut bench.replay);
}

type Ends = (std::net::SocketAddr, std::net::SocketAddr);

/// The server reads a segment.
fn read(frame: &[u8], seen: &mut Option<Ends>, stream: &mut HashMap<u32, u8>) {
    use weir_dataplane::packet::Key;
    let (l4, ip_len, ends, says) = match parse(frame, false) {
        Ok(Parsed::Flow(f)) => (
            f.l4,
            f.ip_len,
            (f.key.source(), f.key.destination()),
            f.says,
        ),
        Ok(Parsed::Flow6(f)) => (
            f.l4,
            f.ip_len,
            (f.key.source(), f.key.destination()),
            f.says,
        ),
        _ => return,
    };
    if *seen != Some(ends) {
        *seen = Some(ends);
        stream.clear();
    }
    if frame[if frame[12] == 0x86 { 20 } else { 23 }] != 6 {
        return;
    }
    if says & SYN != 0 {
        stream.clear(); // begins anew
        return;
    }
    if says & RST != 0 {
        return; // what it carries is no part of the stream (RFC 9293 3.5.3)
    }
    let (l4, end) = (usize::from(l4), 14 + usize::from(ip_len));
    let data = l4 + usize::from(frame[l4 + 12] >> 4) * 4;
    let seq = be32(frame, l4 + tcp::SEQ_AT);
    for (n, byte) in frame[data..end].iter().enumerate() {
        let at = seq.wrapping_add(n as u32);
        let before = *stream.entry(at).or_insert(*byte);
        assert_eq!(before, *byte, "byte {at} of the stream was another");
    }
}
