//! A router on a stick: one card, clients in VLAN 100, servers in VLAN 200.

use std::sync::Arc;

use rtrb::RingBuffer;
use weir_dataplane::command::Command;
use weir_dataplane::conn::Pages;
use weir_dataplane::conn::state::Timeouts;
use weir_dataplane::counters::{Totals, WorkerCounters};
use weir_dataplane::io::Frame;
use weir_dataplane::io::sim::{SimPool, SimPort, Spread};
use weir_dataplane::io::vlan::split;
use weir_dataplane::packet::build::checksums_right;
use weir_dataplane::packet::tcp::flags::{ACK, SYN};
use weir_dataplane::packet::{be16, eth};
use weir_dataplane::steer::{
    Alignment, KernelFrame, MICROSOFT_KEY, Steer, Toeplitz, kernel_rings, mesh,
};
use weir_dataplane::worker::{Setup, Worker, WorkerPort};
use weir_dataplane::{CoreId, PortId, ServerId, Tick};

use crate::common::*;

/// The card itself; `WAN` and `LAN` are its VLANs.
const CARD: PortId = PortId(2);

fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &vlan.to_be_bytes(), &frame[12..]].concat()
}

fn untagged(frame: &[u8]) -> (u16, Vec<u8>) {
    assert_eq!(frame[12..14], [0x81, 0]);
    (be16(frame, 14), [&frame[..12], &frame[16..]].concat())
}

#[test]
fn a_connection_goes_from_one_vlan_of_a_card_to_another_and_back() {
    let steer = Steer::new(CoreId(0), 1, Arc::new(Toeplitz::new(MICROSOFT_KEY)));
    let (card, mut ends) = SimPort::new(1, 1, 1, Spread::Anywhere);
    let (trunk, vlans) = split(ends.remove(0), &[100, 200]);
    let queues = vlans.into_iter().chain([trunk]);
    let ids = [(WAN, WAN_MAC), (LAN, LAN_MAC), (CARD, WAN_MAC)];
    let ports = ids
        .into_iter()
        .zip(queues)
        .map(|((id, mac), queue)| WorkerPort {
            id,
            queue,
            mac,
            mtu: 1500,
            alignment: Alignment::Aligned,
            tx_queues: 1,
            fill_checksums: false,
        });
    let counters = Arc::new(WorkerCounters::new(3));
    (0..12).for_each(|id| counters.servers.reserve(ServerId(id)));
    let (kernel, mut twins) = kernel_rings(256);
    let (mut say, commands) = RingBuffer::new(64);
    let (events, _hear) = RingBuffer::new(64);
    let now = Tick(0);
    let mut worker = Worker::new(Setup {
        ports: ports.collect(),
        steer,
        pool: Box::new(SimPool::default()),
        links: mesh(1, 64).remove(0),
        kernel,
        commands,
        events,
        counters: Arc::clone(&counters),
        peers: vec![],
        max_connections: 1000,
        max_connections6: 10,
        pages: Pages::Plain,
        secret: [1, 2, 3, 4],
        snapshot: Arc::new(snapshot(1, Timeouts::default())),
        fib: Arc::new(fib(1)),
        now,
    })
    .unwrap();
    for neighbour in [router(), server_neighbour(11)] {
        say.push(Command::Neighbour(neighbour)).unwrap();
    }
    let pool = SimPool::default();
    let mut exchange = |bytes: &[u8]| -> Vec<Vec<u8>> {
        card.deliver(pool.frame(bytes), 0);
        // The card is polled after its VLANs here, so these have their frames a turn later.
        for _ in 0..4 {
            worker.poll_once(now);
        }
        let sent = std::iter::from_fn(|| card.sent());
        sent.map(|f| f.bytes().to_vec()).collect()
    };

    let syn = to_web(addr("192.0.2.7:40000"), SYN).build();
    let out = exchange(&tagged(&syn, 100));
    let (vlan, at_server) = untagged(&out[0]);
    assert_eq!((out.len(), vlan), (1, 200));
    assert_eq!(
        (eth::src(&at_server), eth::dst(&at_server)),
        (LAN_MAC, server_mac(11))
    );
    assert!(checksums_right(&at_server));
    let out = exchange(&tagged(&answer(&at_server, SYN | ACK).build(), 200));
    let (vlan, at_client) = untagged(&out[0]);
    assert_eq!((out.len(), vlan), (1, 100));
    assert_eq!(eth::dst(&at_client), ROUTER_MAC);
    assert!(checksums_right(&at_client));

    // What the kernel gets, it gets on the twin of the VLAN, or of the card with the tag on.
    let arp = [&[0xff; 6][..], &ROUTER_MAC.0, &[8, 6], &[0; 46]].concat();
    assert!(exchange(&tagged(&arp, 100)).is_empty());
    assert!(exchange(&tagged(&arp, 300)).is_empty());
    for (port, bytes) in [(WAN, arp.clone()), (CARD, tagged(&arp, 300))] {
        let KernelFrame { port: at, frame } = twins.into.pop().unwrap();
        assert_eq!((at, frame.bytes()), (port, &bytes[..]));
    }
    let frame = pool.frame(&arp);
    twins.out.push(KernelFrame { port: LAN, frame }).unwrap();
    assert_eq!(exchange(&[]), [tagged(&arp, 200)]);

    let totals = Totals::of([&*counters]);
    assert!(totals.balanced(), "{totals:?}");
    let rx = |port: PortId| counters.ports[usize::from(port.0)].rx_packets.get();
    assert_eq!((rx(WAN), rx(LAN), rx(CARD)), (2, 1, 2));
    assert_eq!(pool.live(), 0);
}
