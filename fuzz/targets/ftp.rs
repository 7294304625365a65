//! The FTP helper. What any bytes are read as lies within them, and what is written for it is read
//! back as meant. On a control connection, whatever both ends say in whatever pieces, every packet
//! that leaves is well-formed with right checksums; each end gets numbers without a gap, and hears
//! its own acknowledged; and what was announced opens.
#![no_main]

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use weir_dataplane::Tick;
use weir_dataplane::helper::ftp::{self, Announcement, Side};
use weir_dataplane::packet::build::Packet;
use weir_dataplane::packet::tcp::flags::{ACK, PSH, SYN};
use weir_dataplane::packet::{Key, Parsed, be32, parse, tcp};
use weir_dataplane::replay::{Replay, To};
use weir_fuzz::{
    Kind, LAN, MACS, SENDER, WAN, answer, assert_books, assert_runs_out, assert_well_formed,
    ftp_kinds, scene, service_at,
};

const CLIENT_START: u32 = 0xffff_ff00; // wraps soon
const SERVER_START: u32 = 5_000;

#[derive(Debug, Arbitrary)]
struct Input {
    service: u8,
    steps: Vec<Step>,
}

#[derive(Debug, Arbitrary)]
enum Step {
    /// A segment of these pieces.
    Says(bool, Vec<Piece>),
    /// A data connection to this port, by the client or by the server.
    Opens(bool, u16),
}

#[derive(Debug, Arbitrary)]
enum Piece {
    Bytes(Vec<u8>),
    Port(u16),
    Eprt(u16),
    Passive(u16),
    Extended(u16),
    /// With another's address.
    Bounce(u16),
    End,
}

/// What one end says, whose address is `own`.
fn words(pieces: &[Piece], own: IpAddr) -> Vec<u8> {
    let six = |port: u16| {
        let commas = own.to_string().replace(['.', ':'], ",");
        format!("{commas},{},{}", port >> 8, port & 255)
    };
    let family = if own.is_ipv4() { 1 } else { 2 };
    let pieces = pieces.iter().map(|piece| match piece {
        Piece::Bytes(bytes) => bytes.clone(),
        Piece::Port(port) => format!("PORT {}\r\n", six(*port)).into_bytes(),
        Piece::Eprt(port) => format!("EPRT |{family}|{own}|{port}|\r\n").into_bytes(),
        Piece::Passive(port) => format!("227 Entering ({})\r\n", six(*port)).into_bytes(),
        Piece::Extended(port) => format!("229 Entering (|||{port}|)\r\n").into_bytes(),
        Piece::Bounce(port) => format!("EPRT |1|198.51.100.1|{port}|\r\n").into_bytes(),
        Piece::End => b"\r\n".to_vec(),
    });
    let mut said = pieces.collect::<Vec<_>>().concat();
    said.truncate(1400);
    said
}

struct Bench {
    kinds: Vec<Kind>,
    replay: Replay,
}

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::new({
        let kinds = ftp_kinds();
        let replay = Replay::new(&scene(&kinds, 2), Tick(0)).expect("memory");
        Bench { kinds, replay }
    });
}

fuzz_target!(|input: Input| {
    BENCH.with_borrow_mut(|bench| run(bench, &input));
});

/// An announcement of `data` is in it, and another one in its place is read as written.
fn read(data: &[u8], side: Side, at_line: bool, to: SocketAddr) {
    let Some(said) = ftp::find(data, side, at_line).announcement else {
        return;
    };
    let Announcement { place, line, .. } = said.clone();
    assert!(line.start <= place.start && place.start < place.end);
    assert!(place.end <= line.end && line.end <= data.len());
    assert_eq!(data[line.end - 1], b'\n');
    if side == Side::Client {
        let mut spoilt = data[line.clone()].to_vec();
        ftp::spoil(&mut spoilt);
        assert_eq!(spoilt.len(), line.len());
        if let Some(left) = ftp::find(&spoilt, side, true).announcement {
            let nobody = left.address.is_none_or(|a| a.is_unspecified());
            assert!(nobody && left.port == 0, "{left:?} of {said:?}");
        }
    }
    let Some(words) = ftp::words(&said, to) else {
        return;
    };
    let written = [
        &data[line.start..place.start],
        &words,
        &data[place.end..line.end],
    ]
    .concat();
    let again = ftp::find(&written, side, true).announcement;
    let again = again.unwrap_or_else(|| panic!("{:?} is not read", written.escape_ascii()));
    assert_eq!(again.port, to.port());
    assert!(again.address.is_none_or(|a| a == to.ip()));
}

/// One end of the control connection.
struct End {
    address: SocketAddr,
    /// Who it talks to, as it sees them.
    peer: SocketAddr,
    sends: u32,
    expects: u32,
}

fn run(bench: &mut Bench, input: &Input) {
    let at = usize::from(input.service) % bench.kinds.len();
    let service = service_at(at, &bench.kinds[at]);
    let client: SocketAddr = match service.is_ipv6() {
        true => "[2001:db8:77::7]:4000",
        false => "192.0.2.7:4000",
    }
    .parse()
    .expect("an address");
    let syn = Packet {
        seq: CLIENT_START,
        ..Packet::tcp(client, service, SYN).macs(SENDER, MACS[0])
    };
    let Some((_, seen)) = feed(&mut bench.replay, true, &syn.build()) else {
        return; // of another input's: it rests
    };
    let reply = answer(&seen).expect("it was TCP");
    let (local, server) = (reply.dst, reply.src);
    let reply = Packet {
        seq: SERVER_START,
        ack: CLIENT_START.wrapping_add(1),
        flags: SYN | ACK,
        ..reply.macs(SENDER, MACS[1])
    };
    feed(&mut bench.replay, false, &reply.build()).expect("the client hears of it");
    let (c, s) = (CLIENT_START.wrapping_add(1), SERVER_START + 1);
    let mut ends = [
        End {
            address: client,
            peer: service,
            sends: c,
            expects: s,
        },
        End {
            address: server,
            peer: local,
            sends: s,
            expects: c,
        },
    ];
    for step in input.steps.iter().take(16) {
        match step {
            Step::Says(by_client, pieces) => {
                let said = words(pieces, ends[usize::from(!by_client)].address.ip());
                let side = if *by_client {
                    Side::Client
                } else {
                    Side::Server
                };
                read(&said, side, true, ends[0].peer);
                read(&said, side, false, ends[1].peer);
                says(&mut bench.replay, &mut ends, *by_client, &said);
            }
            Step::Opens(by_client, port) => {
                let own = &ends[usize::from(!by_client)];
                let from = SocketAddr::new(own.address.ip(), 20_000);
                let to = SocketAddr::new(own.peer.ip(), *port);
                let mac = MACS[usize::from(!by_client)];
                let syn = Packet::tcp(from, to, SYN).macs(SENDER, mac).build();
                let lane = if *by_client { WAN } else { LAN };
                for (out, frame) in bench.replay.feed(lane, &syn, Default::default()) {
                    if matches!(out, To::Port(_)) {
                        assert_well_formed(&frame);
                    }
                }
            }
        }
        assert_books(&bench.replay);
    }
    assert_runs_out(&mut bench.replay);
}

/// One end says something, and the other one gets it behind what it had, hears its own
/// acknowledged, and acknowledges it.
fn says(replay: &mut Replay, ends: &mut [End; 2], by_client: bool, said: &[u8]) {
    let (from, to) = (usize::from(!by_client), usize::from(by_client));
    let mac = MACS[from];
    let packet = Packet {
        seq: ends[from].sends,
        ack: ends[from].expects,
        ..Packet::tcp(ends[from].address, ends[from].peer, ACK | PSH).macs(SENDER, mac)
    };
    let packet = packet.payload(said);
    let Some((l4, got)) = feed(replay, by_client, &packet.build()) else {
        return; // too long for the link, with a longer line
    };
    let data = l4 + usize::from(got[l4 + 12] >> 4) * 4;
    let end = match got[12] {
        0x86 => 54 + usize::from(u16::from_be_bytes([got[18], got[19]])),
        _ => 14 + usize::from(u16::from_be_bytes([got[16], got[17]])),
    };
    assert_eq!(be32(&got, l4 + tcp::SEQ_AT), ends[to].expects, "a gap");
    assert_eq!(be32(&got, l4 + tcp::ACK_AT), ends[to].sends, "not heard");
    ends[from].sends = ends[from].sends.wrapping_add(said.len() as u32);
    ends[to].expects = ends[to].expects.wrapping_add((end - data) as u32);
}

/// A packet goes in, and one comes out on the other side, if one does; where its TCP begins.
fn feed(replay: &mut Replay, from_client: bool, frame: &[u8]) -> Option<(usize, Vec<u8>)> {
    let (lane, other) = if from_client { (WAN, LAN) } else { (LAN, WAN) };
    let out = replay.feed(lane, frame, Default::default());
    assert_books(replay);
    let (to, frame) = out.into_iter().next()?;
    assert_well_formed(&frame);
    if to != To::Port(other) {
        return None;
    }
    match parse(&frame, false) {
        Ok(Parsed::Flow(f)) => Some((f.l4.into(), frame)),
        Ok(Parsed::Flow6(f)) => Some((f.l4.into(), frame)),
        _ => None,
    }
}
