//! Whole TCP exchanges through a director that inserts PROXY headers, by two small models of TCP
//! over links that lose, repeat and reorder: the server reads the header once and then exactly
//! what the client sent, and the client reads exactly what the server sent.

use super::*;

/// Bytes a segment carries at most.
pub(crate) const MSS: usize = 100;
/// Bytes under way at most.
pub(crate) const WINDOW: usize = 600;

/// One end of a connection: cumulative and selective acknowledgements, go-back on a timer.
pub(crate) struct End {
    /// What it sends, and the number of the first byte of it.
    pub(crate) out: Vec<u8>,
    pub(crate) start: u32,
    /// How much of it the other end has.
    pub(crate) acked: usize,
    /// How much was ever sent.
    pub(crate) sent: usize,
    /// What it has received in order, and the number of the first byte of that.
    pub(crate) got: Vec<u8>,
    peer_start: u32,
    /// What came ahead of its turn.
    ahead: std::collections::BTreeMap<usize, Vec<u8>>,
}

impl End {
    pub(crate) fn new(out: Vec<u8>, isn: u32, peer_isn: u32) -> End {
        End {
            out,
            start: isn.wrapping_add(1),
            acked: 0,
            sent: 0,
            got: vec![],
            peer_start: peer_isn.wrapping_add(1),
            ahead: Default::default(),
        }
    }

    pub(crate) fn ack(&self) -> u32 {
        self.peer_start.wrapping_add(self.got.len() as u32)
    }

    pub(crate) fn sack(&self) -> Vec<u8> {
        let mut o = vec![];
        if let Some((at, data)) = self.ahead.iter().next() {
            let left = self.peer_start.wrapping_add(*at as u32);
            o.extend([1, 1, 5, 10]);
            o.extend(left.to_be_bytes());
            o.extend(left.wrapping_add(data.len() as u32).to_be_bytes());
        }
        o
    }

    /// Takes a segment; its numbers must be such as the other end may send.
    pub(crate) fn take(&mut self, s: &Segment) {
        let acked = s.ack.wrapping_sub(self.start) as usize;
        assert!(
            acked <= self.sent,
            "acknowledges {acked} of {} sent",
            self.sent
        );
        self.acked = self.acked.max(acked);
        for option in s.options.iter().filter(|o| o[0] == 5) {
            for block in option[2..].chunks(8) {
                let edge = |at| be32(block, at).wrapping_sub(self.start) as usize;
                let (left, right) = (edge(0), edge(4));
                assert!(
                    acked < left && left < right && right <= self.sent,
                    "block {left}-{right} beside {acked} of {} sent",
                    self.sent
                );
            }
        }
        let at = s.seq.wrapping_sub(self.peer_start) as usize;
        if s.data.is_empty() || at > 1 << 20 {
            return;
        }
        self.ahead.insert(at, s.data.clone());
        while let Some((&at, _)) = self.ahead.iter().next()
            && at <= self.got.len()
        {
            let data = self.ahead.remove(&at).unwrap();
            if let Some(new) = data.get(self.got.len() - at..) {
                self.got.extend(new);
            }
        }
    }

    /// A segment with what comes at `at`, and the packet's options.
    fn packet(&mut self, base: Packet, at: usize) -> Vec<u8> {
        let end = (at + MSS).min(self.out.len());
        self.sent = self.sent.max(end);
        let p = Packet {
            seq: self.start.wrapping_add(at as u32),
            ack: self.ack(),
            flags: ACK,
            ..base
        };
        with_options(&p.payload(&self.out[at..end]), &self.sack())
    }
}

/// A small generator, so that a seed replays everything.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, of: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % of
    }
}

fn exchange(seed: u64, carrier: ClientAddress) {
    let what = format!("seed {seed} {}", carrier.name());
    let mut dice = Dice(seed);
    let (_, client_addr, vip, server_addr) = FAMILIES[dice.roll(4) as usize];
    let mut d = telling(&Shape::default(), vip, server_addr, carrier);
    let loss = dice.roll(4); // of ten
    let (isn, server_isn) = (dice.roll(1 << 33) as u32, dice.roll(1 << 33) as u32);
    let text = |d: &mut Dice, most| {
        (0..d.roll(most))
            .map(|_| d.roll(256) as u8)
            .collect::<Vec<_>>()
    };
    let (request, response) = (text(&mut dice, 3000), text(&mut dice, 3000));
    let mut client = End::new(request.clone(), isn, server_isn);
    let mut server = End::new(response.clone(), server_isn, isn);
    let h = header(carrier, client_addr, vip);

    // The handshake, until both ends have passed it.
    let from_client = |flags| client_packet(client_addr, vip, flags, isn, 0);
    let syn = only(d.exchange(WAN, &from_client(SYN).build())).1;
    let base = server_packet(&syn, ACK, 0, 0);
    let syn_ack = server_packet(&syn, SYN | ACK, server_isn, isn.wrapping_add(1)).build();
    let mut established = false;
    only(d.exchange(LAN, &syn_ack));
    // Frames under way to the director, by the port that they will come in on.
    let mut wires: Vec<(bool, Vec<u8>)> = vec![];
    for turn in 0..4000 {
        let done = server.got.len() == h.len() + request.len()
            && client.got.len() == response.len()
            && client.acked == request.len()
            && server.acked == response.len();
        if done {
            break;
        }
        assert!(
            turn < 3999,
            "{what}: never done: {} of {}, {} of {}",
            server.got.len(),
            request.len(),
            client.got.len(),
            response.len()
        );
        d.now = d.now.after(1 + dice.roll(6) as u32);
        // Either end now and then sends from where it believes the other to be, or ahead.
        if turn % 2 == 0 {
            let room = client.sent.min(client.acked + WINDOW);
            let at = match dice.roll(3) {
                0 => client.acked,
                _ => room,
            };
            let at = at.min(request.len());
            let b = client_packet(client_addr, vip, ACK, 0, 0);
            wires.push((true, client.packet(b, at)));
        } else if established {
            let at = match dice.roll(3) {
                0 => server.acked,
                _ => server.sent.min(server.acked + WINDOW),
            };
            let at = at.min(response.len());
            wires.push((false, server.packet(base.clone(), at)));
        } else if turn % 16 == 1 {
            wires.push((false, syn_ack.clone()));
        }
        if wires.is_empty() || dice.roll(3) == 0 {
            continue;
        }
        let at = dice.roll(wires.len() as u64) as usize;
        let (to_wan, frame) = wires.swap_remove(at);
        if dice.roll(10) < loss {
            continue;
        }
        if dice.roll(10) == 0 {
            wires.push((to_wan, frame.clone()));
        }
        let port = if to_wan { WAN } else { LAN };
        for (to, frame) in d.exchange(port, &frame) {
            if dice.roll(10) < loss {
                continue;
            }
            let s = segment(&frame);
            match to {
                To::Port(LAN) => {
                    established = true;
                    // The server's numbers include the header.
                    server.take(&s);
                }
                To::Port(_) if s.flags & SYN != 0 => {}
                _ => client.take(&s),
            }
        }
    }
    assert_eq!(server.got[..h.len()], h[..], "{what}");
    assert_eq!(server.got[h.len()..], request[..], "{what}");
    assert_eq!(client.got, response, "{what}");
    d.assert_books();
}

#[test]
fn every_byte_arrives_once_whatever_is_lost() {
    let seeds = std::env::var("WEIR_SEEDS")
        .ok()
        .and_then(|s| s.parse().ok());
    for seed in 0..seeds.unwrap_or(150) {
        for carrier in PROXIES {
            exchange(seed, carrier);
        }
    }
}
