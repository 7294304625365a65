//! `weir_dataplane::replay`, and the scene that fuzz targets play in: here it is compiled and
//! played once with every change of the dataplane.
#![allow(missing_docs, dead_code, unreachable_pub)]

#[path = "../../../fuzz/src/lib.rs"]
mod scene;

use scene::{
    LAN, MACS, SENDER, WAN, answer, assert_books, assert_runs_out, assert_well_formed, kinds,
    scene as scene_of, service_at,
};
use weir_dataplane::conn::state::Direction;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::forward::carrier::ClientAddress;
use weir_dataplane::packet::build::Packet;
use weir_dataplane::packet::tcp::flags::{ACK, SYN};
use weir_dataplane::packet::{Parsed, parse};
use weir_dataplane::replay::{Replay, To};
use weir_dataplane::{Proto, Tick};

fn asked(kind: &scene::Kind, at: usize) -> Packet {
    let from: std::net::SocketAddr = match kind.vip6 {
        true => "[2001:db8:77::7]:4000",
        false => "192.0.2.7:4000",
    }
    .parse()
    .unwrap();
    let to = service_at(at, kind);
    let packet = match kind.proto {
        Proto::Tcp => Packet::tcp(from, to, SYN),
        Proto::Udp => Packet::udp(from, to),
        Proto::Sctp => Packet::sctp(from, to, &[(1, &[1; 16])]),
        Proto::Icmp => unreachable!("no service has it"),
    };
    packet.macs(SENDER, MACS[0])
}

fn parsed(frame: &[u8]) -> Parsed {
    parse(frame, false).unwrap()
}

/// Every service of the scene takes a connection, and what stands is found by its packets.
#[test]
fn every_kind_of_service_forwards() {
    for workers in [1, 3] {
        let kinds = kinds();
        let mut replay = Replay::new(&scene_of(&kinds, workers), Tick(0)).unwrap();
        for (at, kind) in kinds.iter().enumerate() {
            let frame = asked(kind, at).build();
            assert_eq!(replay.connection(&parsed(&frame)), None);
            let out = replay.feed(WAN, &frame, Default::default());
            assert_books(&replay);
            assert_eq!(out.len(), 1, "{kind:?}");
            let (to, left) = &out[0];
            let expected = match kind.forward {
                ForwardMode::local => To::Kernel(WAN),
                _ => To::Port(LAN),
            };
            assert_eq!(*to, expected, "{kind:?}");
            assert_well_formed(left);
            let standing = replay.connection(&parsed(&frame)).unwrap();
            assert_eq!(
                (standing.mode, standing.dir),
                (kind.forward, Direction::Inbound)
            );
            assert_eq!(standing.virtual_, service_at(at, kind));
            assert_eq!(replay.owner(&parsed(&frame)), Some(standing.worker));

            if kind.client_address == ClientAddress::uoa_opp {
                continue; // it left as another protocol, which nobody answers
            }
            if matches!(kind.forward, ForwardMode::fullnat | ForwardMode::nat) {
                let mut reply = answer(left).unwrap().macs(SENDER, MACS[1]);
                reply.flags = SYN | ACK;
                let reply = reply.build();
                let back = replay.feed(LAN, &reply, Default::default());
                assert_eq!(back.len(), 1, "{kind:?}");
                assert_eq!(back[0].0, To::Port(WAN), "{kind:?}");
                assert_well_formed(&back[0].1);
                let found = replay.connection(&parsed(&reply)).unwrap();
                assert_eq!(
                    (found.dir, found.client),
                    (Direction::Outbound, standing.client)
                );
            }
        }
        assert_eq!(replay.connections() as usize, kinds.len());
        assert!(replay.unresolved().is_empty());
        assert_runs_out(&mut replay);
    }
}

/// The same scene and the same frames give the same answers, and a frame that no buffer holds
/// does not arrive.
#[test]
fn a_replay_repeats_itself() {
    let kinds = kinds();
    let run = || {
        let mut replay = Replay::new(&scene_of(&kinds, 2), Tick(7)).unwrap();
        let packets = kinds.iter().enumerate().map(|(at, kind)| asked(kind, at));
        let out: Vec<_> = packets
            .map(|packet| replay.feed(WAN, &packet.build(), Default::default()))
            .collect();
        let long = vec![0; replay.frame_room() + 1];
        assert_eq!(replay.feed(WAN, &long, Default::default()), []);
        assert_books(&replay);
        out
    };
    assert_eq!(run(), run());
}
