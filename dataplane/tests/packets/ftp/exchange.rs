//! Long dialogues over links that lose, repeat and delay: each end gets the lines that the other
//! one sent, once and in order, whatever length they have on the way.

use super::*;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, of: u64) -> u64 {
        let m = 6_364_136_223_846_793_005;
        self.0 = self.0.wrapping_mul(m).wrapping_add(1);
        (self.0 >> 33) % of
    }
}

/// One end: sends its next line until it is acknowledged, and takes what comes in order.
struct End {
    sends: u32,
    expects: u32,
    got: String,
}

impl End {
    fn take(&mut self, s: &Segment) {
        if s.seq == self.expects {
            self.expects = self.expects.wrapping_add(s.data.len() as u32);
            self.got.push_str(&s.data);
        }
    }
}

fn dialogue(seed: u64) {
    let mut dice = Dice(seed);
    let row = ROWS[dice.roll(6) as usize];
    let shape = shapes().remove(dice.roll(4) as usize);
    let besides: Vec<_> = besides(row.0).collect();
    let beside = besides[dice.roll(besides.len() as u64) as usize];
    let mut c = Control::open_beside(&shape, row, beside);
    let mut client = End {
        sends: c.client.0,
        expects: c.client.1,
        got: String::new(),
    };
    let mut server = End {
        sends: c.server.0,
        expects: c.server.1,
        got: String::new(),
    };
    // Frames that may come again, late.
    let mut late: Vec<(weir_dataplane::PortId, Vec<u8>)> = vec![];
    for n in 0..40u16 {
        let by_client = n % 2 == 0;
        let port = 42_000 + dice.roll(3) as u16 * 1000 + n;
        let line = match (by_client, dice.roll(3)) {
            (true, 0) => "NOOP\r\n".to_owned(),
            (true, _) => active(c.client_ip(), port),
            (false, 0) => "200 ok\r\n".to_owned(),
            (false, _) => c.passive(port, port).0,
        };
        let (from, to, wire) = match by_client {
            true => (&mut client, &mut server, WAN),
            false => (&mut server, &mut client, LAN),
        };
        let before = to.got.len();
        let done = from.sends.wrapping_add(line.len() as u32);
        for turn in 0.. {
            assert!(turn < 200, "seed {seed}: line {n} never arrives");
            let frame = |end: &End, data: &str, by_client: bool| {
                let packet = match by_client {
                    true => super::from(row.1, row.2, ACK | PSH, end.sends, end.expects),
                    false => Packet {
                        seq: end.sends,
                        ack: end.expects,
                        ..Packet::tcp(at(row.3), c.local, ACK | PSH)
                    }
                    .macs(server_mac(11), LAN_MAC),
                };
                packet.payload(data.as_bytes()).build()
            };
            let sent = frame(from, &line, by_client);
            if dice.roll(4) == 0 {
                late.push((wire, sent.clone()));
            }
            for (_, frame) in c.d.exchange(wire, &sent) {
                if dice.roll(3) > 0 {
                    to.take(&segment(&frame));
                }
            }
            if dice.roll(4) == 0 && !late.is_empty() {
                let at = dice.roll(late.len() as u64) as usize;
                let (wire, old) = late.swap_remove(at);
                for (_, frame) in c.d.exchange(wire, &old) {
                    let end = if wire == WAN {
                        &mut *if by_client { &mut *to } else { &mut *from }
                    } else {
                        &mut *if by_client { &mut *from } else { &mut *to }
                    };
                    end.take(&segment(&frame));
                }
            }
            // An acknowledgement of what it has.
            let back = frame(to, "", !by_client);
            let other = if by_client { LAN } else { WAN };
            let mut acked = false;
            for (_, frame) in c.d.exchange(other, &back) {
                let ack = segment(&frame).ack;
                assert!(
                    ack == from.sends || ack == done,
                    "seed {seed}: {ack} of line {n}"
                );
                acked = dice.roll(3) > 0 && ack == done;
            }
            if acked {
                break;
            }
        }
        from.sends = done;
        let heard = &to.got[before..];
        assert!(
            heard.ends_with("\r\n") && heard.matches("\r\n").count() == 1,
            "seed {seed}: {heard:?}"
        );
        if row.0 == nat && by_client || line.len() < 10 {
            assert_eq!(heard, line, "seed {seed}");
        } else if by_client {
            assert_eq!(named(heard).ip(), c.local.ip(), "seed {seed}");
        } else {
            assert_eq!(heard, c.passive(port, port).1, "seed {seed}");
        }
    }
    c.d.assert_books();
}

#[test]
fn every_line_arrives_once() {
    for seed in 0..200 {
        dialogue(seed);
    }
}
