use std::net::{IpAddr, SocketAddr};

use rtrb::RingBuffer;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::route::NeighbourId;
use weir_dataplane::service::{Server, SnapshotBuilder};
use weir_dataplane::{Mac, PortId, ServerId, ServiceId};

use super::*;

/// A link and the worker's ends of its rings, `room` commands wide.
fn link(room: usize) -> (WorkerLink, Consumer<Command>, Producer<Event>) {
    let (command, commands) = RingBuffer::new(room);
    let (events, event) = RingBuffer::new(8);
    let counters = Arc::new(WorkerCounters::new(1));
    let link = WorkerLink::new(CoreId(0), command, event, counters, 0);
    (link, commands, events)
}

fn snapshot(generation: u64, server: u32) -> Arc<Snapshot> {
    let mut builder = SnapshotBuilder::default();
    builder.server(Server {
        id: ServerId(server),
        service: ServiceId(0),
        address: SocketAddr::new(IpAddr::from([10, 1, 0, 11]), 80),
        forward: ForwardMode::fullnat,
        tunnel: None,
        policy: Default::default(),
    });
    Arc::new(builder.build(generation))
}

fn neighbour(id: u16, mac: u8) -> NeighbourUpdate {
    NeighbourUpdate {
        id: NeighbourId(id),
        port: PortId(0),
        addr: IpAddr::from([10, 0, 0, id as u8]),
        mac: Some(Mac([2, 0, 0, 0, 0, mac])),
    }
}

/// A command, in short.
fn short(command: &Command) -> String {
    match command {
        Command::Snapshot(snapshot) => format!("snapshot {}", snapshot.generation),
        Command::Fib(fib) => format!("fib {}", fib.epoch),
        Command::Blacklist(list) => format!("blacklist {}", list.bytes()),
        Command::Neighbour(update) => {
            format!("neighbour {} {}", update.id.0, update.mac.unwrap().0[5])
        }
        Command::Port(update) => format!("port {} {}", update.port.0, update.mtu),
        Command::ListConns(_) => "list".to_owned(),
        Command::ListTemplates(_) => "templates".to_owned(),
        Command::Stop => "stop".to_owned(),
    }
}

fn taken(commands: &mut Consumer<Command>) -> Vec<String> {
    std::iter::from_fn(|| commands.pop().ok().map(|c| short(&c))).collect()
}

#[test]
fn what_finds_no_room_waits_newest_of_a_kind_and_in_order() {
    let (mut link, mut commands, _events) = link(2);
    let port = |mtu| PortUpdate {
        port: PortId(0),
        mac: Mac([2; 6]),
        mtu,
    };
    link.post_neighbour(neighbour(1, 1));
    link.post_neighbour(neighbour(2, 1));
    assert!(!link.is_behind());
    // The ring is full: from here on everything waits.
    link.post_stop();
    link.post_page(ConnPage::new(CoreId(0), 1));
    for n in 1..=9 {
        link.post_neighbour(neighbour(7, n));
        link.post_neighbour(neighbour(3, n));
        link.post_port(port(1500 + u16::from(n)));
        link.post_fib(Arc::new(Fib::new(n.into(), &[])));
        link.post_snapshot(snapshot(n.into(), 0));
    }
    assert!(link.is_behind());
    assert_eq!(link.generation(), 0);
    let mut order = taken(&mut commands);
    while link.is_behind() {
        link.flush();
        order.extend(taken(&mut commands));
    }
    assert_eq!(
        order,
        [
            "neighbour 1 1",
            "neighbour 2 1",
            "snapshot 9",
            "fib 9",
            "port 0 1509",
            "neighbour 3 9",
            "neighbour 7 9",
            "list",
            "stop",
        ]
    );
}

#[test]
fn a_worker_uses_the_oldest_services_it_has_not_sent_back() {
    let (mut link, mut commands, mut events) = link(8);
    let first = snapshot(1, 300);
    link.post_snapshot(Arc::clone(&first));
    assert!(link.counters().servers.get(ServerId(300)).is_some());
    link.post_snapshot(snapshot(2, 0));
    assert_eq!(link.generation(), 0);
    // The worker takes both, and sends back what it used before.
    let mut used = Snapshot::empty();
    for _ in 0..2 {
        let Ok(Command::Snapshot(new)) = commands.pop() else {
            panic!("no snapshot");
        };
        let old = std::mem::replace(&mut used, new);
        events.push(Event::RetiredSnapshot(old)).unwrap();
        events.push(Event::RetiredFib(Fib::empty())).unwrap();
    }
    let asked = Event::Resolve {
        port: PortId(1),
        addr: IpAddr::from([127, 0, 0, 1]),
    };
    events.push(asked).unwrap();
    assert_eq!(Arc::strong_count(&first), 2);
    let Some(LinkEvent::Resolve { port, addr }) = link.next_event() else {
        panic!("a question");
    };
    assert_eq!((port, addr), (PortId(1), [127, 0, 0, 1].into()));
    assert_eq!(link.generation(), 2);
    assert_eq!(Arc::strong_count(&first), 1, "freed by control");
    assert!(link.next_event().is_none());
}
