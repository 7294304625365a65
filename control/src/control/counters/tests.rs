use std::collections::HashSet;
use std::sync::Arc;

use rtrb::RingBuffer;
use weir_dataplane::CoreId;

use super::*;

fn worker(core: u8, ports: usize) -> (WorkerLink, Arc<WorkerCounters>) {
    let counters = Arc::new(WorkerCounters::new(ports));
    let (command, _) = RingBuffer::new(1);
    let (_, event) = RingBuffer::new(1);
    let link = WorkerLink::new(CoreId(core), command, event, Arc::clone(&counters), 0);
    (link, counters)
}

#[test]
fn sums_values_and_the_books() {
    let (first, a) = worker(0, 1);
    let (second, b) = worker(1, 1);
    a.rx_packets.add(10);
    b.rx_packets.add(5);
    a.tx_packets.add(7);
    b.from_kernel.add(2);
    a.handoff_out.add(4);
    b.handoff_in.add(3);
    a.parked.set(2);
    a.drops[DropReason::NoRoute as usize].add(6);
    b.drops[DropReason::NoRoute as usize].add(1);
    let document = document(&[first, second], None);
    let find = |list: &[Counter], name: &str| list.iter().find(|c| c.name == name).unwrap().clone();
    let rx = find(&document.workers, "rx_packets");
    assert_eq!((rx.value, rx.per_worker), (15, vec![10, 5]));
    let no_route = find(&document.drops, "no_route");
    assert_eq!(no_route.help, "No route to the next hop.");
    assert_eq!((no_route.value, no_route.per_worker), (7, vec![6, 1]));
    assert_eq!(document.drops.len(), DropReason::ALL.len());
    assert!(document.twins.is_empty());
    let balance = Balance {
        rx: 15,
        from_kernel: 2,
        generated: 0,
        tx: 7,
        to_kernel: 0,
        dropped: 7,
        held: 3,
        balanced: true,
    };
    assert_eq!(document.balance, balance);
}

#[test]
fn every_counter_has_a_name_of_its_own_and_a_sentence() {
    let counters = WorkerCounters::new(0);
    let cells = cells(&counters);
    let names: HashSet<_> = cells.iter().map(|(name, ..)| name).collect();
    assert_eq!(names.len(), cells.len());
    let addresses: HashSet<_> = cells
        .iter()
        .map(|(_, _, cell)| std::ptr::from_ref(*cell))
        .collect();
    assert_eq!(addresses.len(), cells.len());
    for (name, help, _) in cells {
        assert!(help.ends_with('.'), "{name}: {help}");
    }
}
