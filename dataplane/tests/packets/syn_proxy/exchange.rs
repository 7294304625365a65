//! Whole TCP exchanges through the SYN proxy, handshakes included, by two small models of TCP
//! over links that lose, repeat and reorder: each end reads exactly what the other sent, numbers
//! and clocks are always its own, and who is not connected is told so.

use super::*;
use crate::carriers::exchange::{Dice, End, MSS, WINDOW};

/// How an exchange ended.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    Done,
    /// The server could not be reached in four tries, and the client was reset.
    GivenUp,
}

/// One end's clock: it began there, and runs.
struct Clock {
    began: u32,
    runs: u32,
}

impl Clock {
    fn now(&self) -> u32 {
        self.began.wrapping_add(self.runs)
    }

    /// What comes back of it is something that it showed.
    fn check(&self, echoed: u32) {
        assert!(
            echoed.wrapping_sub(self.began) <= self.runs,
            "{echoed} of {}",
            self.now()
        );
    }
}

fn exchange(seed: u64, carrier: ClientAddress) -> Ending {
    let mut dice = Dice(seed);
    let (family, client_addr, vip, server_addr) = FAMILIES[dice.roll(4) as usize];
    let what = format!("seed {seed} {} {family}", carrier.name());
    let servers: &[&str] = &[server_addr];
    let proxy = SynProxy {
        resets: false, // data that overtakes all that proves it is not an attack here
        ..ALWAYS
    };
    let of = Of {
        vip,
        servers,
        carrier,
        proxy,
        ..PLAIN
    };
    let mut d = director(&Shape::default(), of);
    let loss = dice.roll(4); // of ten
    let timed = dice.roll(2) == 0;
    let (isn, server_isn) = (dice.roll(1 << 33) as u32, dice.roll(1 << 33) as u32);
    let mut clocks_ = [dice.roll(1 << 33), dice.roll(1 << 33)].map(|began| Clock {
        began: began as u32,
        runs: 0,
    });
    let text = |d: &mut Dice, most| {
        (0..d.roll(most))
            .map(|_| d.roll(256) as u8)
            .collect::<Vec<_>>()
    };
    let (request, response) = (text(&mut dice, 2000), text(&mut dice, 2000));
    let h = match carrier {
        ClientAddress::none => vec![],
        _ => header(carrier, client_addr, vip),
    };
    // Until the handshake is over at its end, an end is `None`.
    let (mut client, mut server): (Option<End>, Option<End>) = (None, None);
    let mut syn_seen: Option<Vec<u8>> = None;
    // What each end was last told of the other's clock.
    let mut told = [0u32; 2];
    let mut wires: Vec<(bool, Vec<u8>)> = vec![];
    let times = |clock: &Clock, told| {
        if timed {
            clocks(clock.now(), told)
        } else {
            vec![]
        }
    };
    for turn in 0..6000 {
        if let (Some(c), Some(s)) = (&client, &server) {
            let done = s.got.len() == h.len() + request.len()
                && c.got.len() == response.len()
                && c.acked == request.len()
                && s.acked == response.len();
            if done {
                assert_eq!(s.got[..h.len()], h[..], "{what}");
                assert_eq!(s.got[h.len()..], request[..], "{what}");
                assert_eq!(c.got, response, "{what}");
                d.assert_books();
                return Ending::Done;
            }
        }
        let ticks = 1 + dice.roll(6) as u32;
        d.now = d.now.after(ticks);
        clocks_.iter_mut().for_each(|c| c.runs += ticks);
        let from_client = |flags, seq, ack| client_packet(client_addr, vip, flags, seq, ack);
        match (turn % 2, &mut client, &mut server, &syn_seen) {
            (0, None, ..) => {
                let options = [vec![2, 4, 5, 180], times(&clocks_[0], 0), vec![1, 1, 4, 2]];
                let syn = with_options(&from_client(SYN, isn, 0), &options.concat());
                wires.push((true, syn));
            }
            (0, Some(c), ..) => {
                let at = match dice.roll(3) {
                    0 => c.acked,
                    _ => c.sent.min(c.acked + WINDOW).min(request.len()),
                };
                let end = (at + MSS).min(request.len());
                c.sent = c.sent.max(end);
                let seq = c.start.wrapping_add(at as u32);
                let p = from_client(ACK, seq, c.ack()).payload(&c.out[at..end]);
                let options = [times(&clocks_[0], told[0]), c.sack()].concat();
                wires.push((true, with_options(&p, &options)));
            }
            (_, _, Some(s), Some(syn)) => {
                let at = match dice.roll(3) {
                    0 => s.acked,
                    _ => s.sent.min(s.acked + WINDOW).min(response.len()),
                };
                let end = (at + MSS).min(response.len());
                s.sent = s.sent.max(end);
                let seq = s.start.wrapping_add(at as u32);
                let p = server_packet(syn, ACK, seq, s.ack()).payload(&s.out[at..end]);
                let options = [times(&clocks_[1], told[1]), s.sack()].concat();
                wires.push((false, with_options(&p, &options)));
            }
            (_, _, None, Some(syn)) if turn % 16 == 1 => {
                let p = server_packet(syn, SYN | ACK, server_isn, isn.wrapping_add(1));
                let options = [
                    vec![2, 4, 5, 180],
                    times(&clocks_[1], told[1]),
                    vec![1, 1, 4, 2],
                ];
                wires.push((false, with_options(&p, &options.concat())));
            }
            _ => {}
        }
        let mut arrived = vec![];
        if !wires.is_empty() && dice.roll(3) > 0 {
            let at = dice.roll(wires.len() as u64) as usize;
            let (to_wan, frame) = wires.swap_remove(at);
            if dice.roll(10) >= loss {
                if dice.roll(10) == 0 {
                    wires.push((to_wan, frame.clone()));
                }
                arrived = d.exchange(if to_wan { WAN } else { LAN }, &frame);
            }
        } else {
            d.settle();
            arrived = d.collect();
        }
        for (to, frame) in arrived {
            if dice.roll(10) < loss {
                continue;
            }
            let s = segment(&frame);
            let mine = usize::from(to == To::Port(LAN));
            let repeated = mine == 0 && s.flags & SYN != 0 && client.is_some();
            if timed && !repeated && s.flags & RST == 0 && !(s.data == h && s.options.is_empty()) {
                let (clock, echo) = clocks_of(&s);
                if s.flags & SYN == 0 || mine == 0 {
                    clocks_[mine].check(echo);
                }
                let first = client.is_none() || mine == 1 && server.is_none();
                if first || clock.wrapping_sub(told[mine]) < 1 << 31 {
                    told[mine] = clock;
                }
            }
            if to == To::Port(LAN) {
                if s.flags & SYN != 0 {
                    assert_eq!((s.seq, s.flags), (isn, SYN), "{what}");
                    syn_seen.get_or_insert(frame);
                    continue;
                }
                assert!(syn_seen.is_some() && s.flags & RST == 0, "{what}: {s:?}");
                let end = server.get_or_insert_with(|| End::new(response.clone(), server_isn, isn));
                end.take(&s);
                continue;
            }
            if s.flags & RST != 0 {
                let c = client.as_ref().expect("a client that is connected");
                assert_eq!(s.seq, c.ack(), "{what}: a reset that it believes");
                assert_eq!(
                    (c.got.len(), d.sum(|c| c.syns_repeated.get())),
                    (0, 3),
                    "{what}"
                );
                return Ending::GivenUp;
            }
            if s.flags & SYN != 0 {
                assert_eq!(s.ack, isn.wrapping_add(1), "{what}");
                client.get_or_insert_with(|| End::new(request.clone(), isn, s.seq));
                continue;
            }
            let c = client.as_mut().expect("a client that is connected");
            if s.data.is_empty() && s.seq.wrapping_add(1) == c.ack() {
                // Outside of its window: it says where it is.
                let seq = c.start.wrapping_add(c.sent as u32);
                let p = client_packet(client_addr, vip, ACK, seq, c.ack());
                wires.push((true, with_options(&p, &times(&clocks_[0], told[0]))));
            }
            c.take(&s);
        }
    }
    panic!("{what}: never done");
}

#[test]
fn every_byte_arrives_once_whatever_is_lost() {
    let seeds = std::env::var("WEIR_SEEDS")
        .ok()
        .and_then(|s| s.parse().ok());
    let seeds = seeds.unwrap_or(200);
    let carriers = [ClientAddress::none, ClientAddress::proxy_v2];
    let mut given_up = 0;
    for seed in 0..seeds {
        for carrier in carriers {
            given_up += u64::from(exchange(seed, carrier) == Ending::GivenUp);
        }
    }
    assert!(
        given_up * 10 <= seeds,
        "{given_up} of {} given up",
        2 * seeds
    );
}
