//! Real servers' own connections on many cores: all come back translated, no two share a port
//! towards one far end, and nothing is left of them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use weir_dataplane::command::Command;
use weir_dataplane::packet::be32;
use weir_dataplane::packet::build::{Packet, checksums_right};
use weir_dataplane::packet::tcp::flags::{ACK, FIN, PSH, SYN};
use weir_dataplane::service::{PortRange, SnapshotBuilder, SnatRules};
use weir_dataplane::{Proto, Tick};

use crate::common::snat::{add_pool, packet, reply, rule, seen};
use crate::common::*;
use crate::{Rng, seeds, shape_of};

/// What a server sends; each is answered but TCP's last.
const TCP: [u8; 5] = [SYN, ACK | PSH, ACK | PSH, FIN | ACK, ACK];
const OTHERS: usize = 3;
const TALKERS: usize = 60;
const POOL: [&str; 4] = ["10.0.0.100", "10.0.0.101", "2001:db8::100", "2001:db8::101"];

/// A server's program in the middle of its script.
struct Talker {
    proto: Proto,
    from: SocketAddr,
    to: SocketAddr,
    step: usize,
    waiting: bool,
}

impl Talker {
    fn nth(n: usize, rng: &mut Rng) -> Talker {
        let proto = [Proto::Tcp, Proto::Udp, Proto::Icmp][rng.below(3)];
        let (host, far) = (11 + n % 3, rng.below(2));
        // Servers like the same ports, and the same far ends.
        let port = 2000 + (n / 3) as u16;
        let (from, mut to): (SocketAddr, SocketAddr) = match rng.one_in(2) {
            true => (
                format!("10.1.0.{host}:{port}").parse().unwrap(),
                format!("198.51.100.{far}:443").parse().unwrap(),
            ),
            false => (
                format!("[2001:db8:1::{host}]:{port}").parse().unwrap(),
                format!("[2001:db8:f::{far}]:443").parse().unwrap(),
            ),
        };
        if proto == Proto::Icmp {
            to.set_port(0);
        }
        Talker {
            proto,
            from,
            to,
            step: 0,
            waiting: false,
        }
    }

    fn steps(&self) -> usize {
        match self.proto {
            Proto::Tcp => TCP.len(),
            _ => OTHERS,
        }
    }

    fn next(&self, n: usize) -> Packet {
        let flags = TCP[self.step % TCP.len()];
        let host = (11 + n % 3) as u8;
        packet(self.proto, self.from, self.to, flags)
            .payload(&(n as u32).to_be_bytes())
            .macs(server_mac(host), LAN_MAC)
    }
}

fn simulate(seed: u64) {
    let mut rng = Rng(seed);
    let shape = shape_of(&mut rng);
    let mut d = Director::new(&shape);
    let rules = Arc::new(SnatRules::new(vec![rule(Some("out"))]));
    // Half of the time there are few ports.
    let ports = match rng.one_in(2) {
        true => PortRange::new(40_000, 41_023).unwrap(),
        false => PortRange::new(1024, u16::MAX).unwrap(),
    };
    let snapshot = |generation, rules: &Arc<SnatRules>| {
        let mut b = SnapshotBuilder::default();
        add_pool(&mut b, "out", &POOL, ports, (1, 3));
        b.snat(Arc::clone(rules)).build(generation)
    };
    d.publish(snapshot(2, &rules));
    d.settle();
    let mut talkers: Vec<_> = (0..TALKERS).map(|n| Talker::nth(n, &mut rng)).collect();
    let mut known: HashMap<(Proto, SocketAddr, SocketAddr), usize> = HashMap::new();
    for turn in 0.. {
        if talkers.iter().all(|t| t.step == t.steps()) {
            break;
        }
        assert!(turn < 4000, "seed {seed}: not done");
        for (n, t) in talkers.iter_mut().enumerate() {
            if t.waiting || t.step == t.steps() || !rng.one_in(3) {
                continue;
            }
            let bytes = t.next(n).build();
            for _ in 0..=usize::from(rng.one_in(10)) {
                d.deliver(LAN, &bytes, rng.below(8)); // sometimes twice, on any queue
            }
            t.waiting = t.proto != Proto::Tcp || t.step + 1 < t.steps();
            t.step += usize::from(!t.waiting);
        }
        for _ in 0..rng.below(3 * usize::from(shape.workers)) {
            let worker = rng.below(usize::from(shape.workers));
            d.poll(worker);
        }
        if rng.one_in(60) {
            let next = snapshot(turn + 3, &rules);
            d.publish(next);
            let routes = Arc::new(fib(turn as u16));
            d.tell(|| Command::Fib(Arc::clone(&routes)));
            d.now = d.now.after(1);
            d.settle();
        }
        for (to, frame) in d.collect() {
            assert!(checksums_right(&frame), "seed {seed}");
            let (proto, from, towards) = seen(&frame);
            let n = be32(&frame, frame.len() - 4) as usize;
            let t = &mut talkers[n];
            match to {
                To::Port(WAN) => {
                    let pooled = POOL.iter().any(|a| a.parse() == Ok(from.ip()));
                    assert!(pooled && ports.contains(from.port()), "seed {seed}: {from}");
                    assert_eq!((proto, towards), (t.proto, t.to), "seed {seed}");
                    let first = *known.entry((proto, from, towards)).or_insert(n);
                    assert_eq!(first, n, "seed {seed}: {proto} {from} -> {towards} is two");
                    let flags = if proto == Proto::Tcp {
                        frame_flags(&frame)
                    } else {
                        0
                    };
                    let back = match flags {
                        ACK => continue,
                        SYN => SYN | ACK,
                        f if f & FIN != 0 => FIN | ACK,
                        _ => ACK | PSH,
                    };
                    let back = reply(&frame, back).payload(&(n as u32).to_be_bytes());
                    d.deliver(WAN, &back.build(), rng.below(8));
                }
                To::Port(_) => {
                    assert_eq!(
                        (proto, from, towards),
                        (t.proto, t.to, t.from),
                        "seed {seed}"
                    );
                    t.step += usize::from(t.waiting);
                    t.waiting = false;
                }
                To::Kernel(_) => panic!("seed {seed}: a flow went to the kernel"),
            }
        }
        d.events.clear();
    }
    d.settle();
    let _ = d.collect();
    d.assert_books();
    assert_eq!(d.totals().dropped, 0, "seed {seed}");
    assert_eq!(
        d.sum(|c| c.snat_opened.get()),
        TALKERS as u64,
        "seed {seed}"
    );
    assert_eq!(d.listing().len(), TALKERS, "seed {seed}");
    d.now = d.now.after(Tick::seconds(1000));
    d.settle();
    assert!(d.listing().is_empty(), "seed {seed}");
    d.assert_runs_out();
    d.assert_books();
}

fn frame_flags(frame: &[u8]) -> u8 {
    let l4 = if frame[12..14] == [8, 0] { 34 } else { 54 };
    frame[l4 + 13]
}

#[test]
fn servers_own_connections_come_home_on_any_number_of_cores() {
    for seed in seeds(300) {
        simulate(seed);
    }
}
