use std::sync::Arc;

use rtrb::RingBuffer;
use weir_dataplane::counters::WorkerCounters;

use super::*;

#[test]
fn a_worker_that_stands_still_between_two_looks_is_stuck() {
    let (links, counters): (Vec<_>, Vec<_>) = (0..2)
        .map(|core| {
            let counters = Arc::new(WorkerCounters::new(0));
            let (command, _) = RingBuffer::new(1);
            let (_, event) = RingBuffer::new(1);
            let link = WorkerLink::new(CoreId(core), command, event, Arc::clone(&counters), 0);
            (link, counters)
        })
        .unzip();
    let mut pulse = Pulse::default();
    assert_eq!(
        pulse.stuck(&links),
        [],
        "the first look compares with nothing"
    );
    counters[0].idle_polls.add(1);
    assert_eq!(pulse.stuck(&links), [CoreId(1)]);
    counters[1].busy_polls.add(1);
    assert_eq!(pulse.stuck(&links), [CoreId(0)]);
    counters[0].busy_polls.add(1);
    counters[1].idle_polls.add(1);
    assert_eq!(pulse.stuck(&links), []);
}
