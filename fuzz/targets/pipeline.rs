//! Everything behind the door: a director of two workers with services in every mode is sent
//! valid packets, answers, fragments, errors about what it sent, and any bytes, in any order. The
//! books balance after each, what leaves is well-formed, and in the end nothing is left.
#![no_main]

use std::cell::RefCell;
use std::net::SocketAddr;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use weir_dataplane::io::sim::SimPool;
use weir_dataplane::io::{Frame, RxChecksum};
use weir_dataplane::packet::build::Packet;
use weir_dataplane::packet::icmp::{Problem, build_error};
use weir_dataplane::packet::ids::IpIds;
use weir_dataplane::packet::{Parsed, eth, fragment, parse};
use weir_dataplane::replay::{Replay, To};
use weir_dataplane::{CoreId, Proto, Tick};
use weir_fuzz::{
    Kind, LAN, MACS, SENDER, WAN, answer, assert_books, assert_runs_out, assert_well_formed, kinds,
    scene, service_at,
};

#[derive(Debug, Arbitrary)]
enum Step {
    /// A client's packet to a service.
    Ask {
        service: u8,
        client: u8,
        flags: u8,
        seq: u8,
        payload: u16,
        ttl: u8,
        chunk: u8,
    },
    /// The answer to a frame that left.
    Answer { which: u8, flags: u8, payload: u16 },
    /// Parts of a client's packet, in an order.
    Parts {
        service: u8,
        client: u8,
        mtu: u8,
        from: u8,
        payload: u16,
    },
    /// An error about a frame that left.
    Error { which: u8, kind: u8, mtu: u16 },
    /// A frame that left comes back with some bytes changed.
    Mangled {
        which: u8,
        at: [u8; 3],
        by: [u8; 3],
        wan: bool,
    },
    /// Any bytes, behind right MAC addresses or not.
    Bytes {
        wan: bool,
        ours: bool,
        said: u8,
        bytes: Vec<u8>,
    },
    /// Time passes, 1/64 s.
    Time(u16),
}

struct Bench {
    kinds: Vec<Kind>,
    replay: Replay,
    /// Frames that left lately, and the port.
    left: Vec<(To, Vec<u8>)>,
    pool: SimPool,
    ids: IpIds,
}

thread_local! {
    // Making one takes milliseconds; it is empty again after each input.
    static BENCH: RefCell<Bench> = RefCell::new({
        let kinds = kinds();
        let replay = Replay::new(&scene(&kinds, 2), Tick(0)).expect("memory");
        let ids = IpIds::new(CoreId(0), 1, 7);
        Bench { kinds, replay, left: Vec::new(), pool: SimPool::default(), ids }
    });
}

impl Bench {
    fn request(&self, service: u8, client: u8, payload: u16) -> Packet {
        let at = usize::from(service) % self.kinds.len();
        let kind = &self.kinds[at];
        let from: SocketAddr = match kind.vip6 {
            true => format!(
                "[2001:db8:77::{:x}]:{}",
                client & 3,
                4000 + u16::from(client)
            ),
            false => format!("192.0.2.{}:{}", 1 + (client & 3), 4000 + u16::from(client)),
        }
        .parse()
        .expect("an address");
        let to = service_at(at, kind);
        let mut packet = match kind.proto {
            Proto::Tcp => Packet::tcp(from, to, 2),
            Proto::Udp => Packet::udp(from, to),
            Proto::Sctp => Packet::sctp(
                from,
                to,
                &[(1, &[0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1])],
            ),
            Proto::Icmp => unreachable!("no service has it"),
        };
        if kind.proto != Proto::Sctp {
            packet.payload = vec![client; usize::from(payload % 1441)];
        }
        packet.macs(SENDER, MACS[0])
    }

    /// `right`: the frame is as a host would have made it.
    fn feed(&mut self, wan: bool, frame: &[u8], said: RxChecksum, right: bool) {
        let port = if wan { WAN } else { LAN };
        let out = self.replay.feed(port, frame, said);
        assert_books(&self.replay);
        if right {
            for (to, frame) in &out {
                if matches!(to, To::Port(_)) {
                    assert_well_formed(frame);
                }
            }
        }
        self.left.extend(out);
        let old = self.left.len().saturating_sub(16);
        self.left.drain(..old);
    }

    fn left(&self, which: u8) -> Option<(bool, Vec<u8>)> {
        let (to, frame) = self.left.get(usize::from(which) % self.left.len().max(1))?;
        // An answer comes from where the frame went.
        let (To::Port(port) | To::Kernel(port)) = *to;
        Some((port == WAN, frame.clone()))
    }

    fn step(&mut self, step: &Step) {
        let said = RxChecksum::default();
        match step {
            Step::Ask {
                service,
                client,
                flags,
                seq,
                payload,
                ttl,
                chunk,
            } => {
                let mut packet = self.request(*service, *client, *payload);
                packet.flags = *flags & 0x3f;
                packet.seq = u32::from(*seq);
                packet.ttl = (*ttl).max(1);
                if packet.proto == Proto::Sctp && chunk & 0x80 != 0 {
                    packet.payload[0] = chunk & 0x7f;
                }
                self.feed(true, &packet.build(), said, true);
            }
            Step::Answer {
                which,
                flags,
                payload,
            } => {
                let Some((wan, frame)) = self.left(*which) else {
                    return;
                };
                let Some(mut packet) = answer(&frame) else {
                    return;
                };
                packet.flags = *flags & 0x3f;
                if packet.proto != Proto::Sctp {
                    packet.payload = vec![7; usize::from(*payload % 1441)];
                }
                let packet = packet.macs(SENDER, MACS[usize::from(!wan)]);
                self.feed(wan, &packet.build(), said, true);
            }
            Step::Parts {
                service,
                client,
                mtu,
                from,
                payload,
            } => {
                let packet = self.request(*service, *client, *payload).build();
                let mut whole = packet;
                if eth::ethertype(&whole) == Ok(eth::IPV4) {
                    whole[20] = 0; // may be cut
                    weir_dataplane::packet::checksum::set_ipv4(&mut whole);
                }
                let mtu = 300 + 4 * u16::from(*mtu);
                let Ok(parts) = fragment::cut(self.pool.frame(&whole), mtu, &mut self.ids) else {
                    return;
                };
                let parts: Vec<Vec<u8>> = parts.iter().map(|p| p.bytes().to_vec()).collect();
                for n in 0..parts.len() {
                    let part = &parts[(n + usize::from(*from)) % parts.len()];
                    // A part by itself has no checksum that could be looked at.
                    self.feed(true, part, said, false);
                }
            }
            Step::Error { which, kind, mtu } => {
                let Some((wan, frame)) = self.left(*which) else {
                    return;
                };
                let problem = match kind % 3 {
                    0 => Problem::PortUnreachable,
                    1 => Problem::TtlExpired,
                    _ => Problem::TooBig { mtu: *mtu },
                };
                let from = match eth::ethertype(&frame) {
                    Ok(eth::IPV6) => "2001:db8:99::1".parse(),
                    _ => "198.51.100.1".parse(),
                };
                let mut error = self.pool.frame(&frame);
                let from = from.expect("an address");
                if build_error(&mut error, problem, from, &mut self.ids) {
                    let mut bytes = error.bytes().to_vec();
                    eth::set_macs(&mut bytes, MACS[usize::from(!wan)], SENDER);
                    self.feed(wan, &bytes, said, true);
                }
            }
            Step::Mangled { which, at, by, wan } => {
                let Some((_, mut frame)) = self.left(*which) else {
                    return;
                };
                for (at, by) in at.iter().zip(by) {
                    let at = usize::from(*at) % frame.len().max(1);
                    if let Some(byte) = frame.get_mut(at) {
                        *byte ^= by;
                    }
                }
                eth::set_macs(&mut frame, MACS[usize::from(!wan)], SENDER);
                if eth::ethertype(&frame) == Ok(eth::IPV4)
                    && frame.len() >= 34
                    && frame[14] & 15 >= 5
                {
                    let header = 14 + usize::from(frame[14] & 15) * 4;
                    if header <= frame.len() {
                        weir_dataplane::packet::checksum::set_ipv4(&mut frame);
                    }
                }
                self.feed(*wan, &frame, said, false);
            }
            Step::Bytes {
                wan,
                ours,
                said,
                bytes,
            } => {
                let mut frame = bytes.clone();
                frame.truncate(1600);
                if *ours {
                    eth::set_macs(&mut frame, MACS[usize::from(!wan)], SENDER);
                }
                let said = RxChecksum {
                    l3_good: said & 1 != 0,
                    l3_bad: said & 2 != 0,
                    l4_bad: said & 4 != 0,
                    l4_partial: said & 8 != 0,
                };
                let _: Result<Parsed, _> = parse(&frame, true);
                self.feed(*wan, &frame, said, false);
            }
            Step::Time(ticks) => {
                let now = self.replay.now().after(u32::from(*ticks));
                self.replay.at(now);
                let out = self.replay.left();
                self.left.extend(out);
                assert_books(&self.replay);
            }
        }
    }
}

fuzz_target!(|steps: Vec<Step>| {
    BENCH.with_borrow_mut(|bench| {
        for step in steps.iter().take(64) {
            bench.step(step);
        }
        bench.left.clear();
        assert_runs_out(&mut bench.replay);
    });
});
