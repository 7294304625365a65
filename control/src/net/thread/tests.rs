use std::net::UdpSocket;

use super::*;
use crate::net::tests::{AMPLE, HeapPool, Rig, arp_frame, in_namespace, ip, mac, wait_for};
use weir_dataplane::Mac;

#[test]
fn the_wait_grows_to_two_milliseconds_and_ends_with_work() {
    let mut pace = Pace::default();
    for _ in 0..64 {
        assert_eq!(pace.wait(), Duration::ZERO);
        pace.turned(false);
    }
    let mut waits = Vec::new();
    for _ in 0..8 {
        waits.push(pace.wait().as_micros());
        pace.turned(false);
    }
    assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
    pace.turned(true);
    assert_eq!(pace.wait(), Duration::ZERO);
}

#[test]
fn frames_pass_both_ways_by_port_and_worker() {
    in_namespace("pass", || {
        let mut rig = Rig::new(3, 2, 64, AMPLE);
        for n in 0..3 {
            ip(&format!("address add 10.9.{n}.1/24 dev w{n}"));
        }
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for n in 0..3u8 {
            socket
                .send_to(b"x", (std::net::IpAddr::from([10, 9, n, 9]), 9))
                .unwrap();
            // Port n's frames go to worker n % 2; the kernel asks for the address first.
            let (port, frame) = rig.arp(usize::from(n % 2), [10, 9, n, 9]);
            assert_eq!(port, n);
            let asked = arp_frame(
                Mac([0xff; 6]),
                1,
                (mac(n), [10, 9, n, 1]),
                (Mac([0; 6]), [10, 9, n, 9]),
            );
            assert_eq!(frame, asked);
        }

        // From any worker to any twin: someone asks for 10.9.2.1, the kernel answers.
        let host = Mac([2, 0, 0, 0, 0, 9]);
        let ask = arp_frame(
            Mac([0xff; 6]),
            1,
            (host, [10, 9, 2, 9]),
            (Mac([0; 6]), [10, 9, 2, 1]),
        );
        rig.send(1, 2, &ask);
        let (port, answer) = rig.arp(0, [10, 9, 2, 9]);
        assert_eq!(port, 2);
        let expected = arp_frame(host, 2, (mac(2), [10, 9, 2, 1]), (host, [10, 9, 2, 9]));
        assert_eq!(answer, expected);

        let counters = Arc::clone(rig.thread.counters());
        rig.thread.stop();
        assert_eq!(counters.twins[2].to_kernel_frames.get(), 1);
        assert_eq!(counters.twins[2].to_kernel_bytes.get(), 42);
        assert_eq!(counters.twins[0].to_kernel_frames.get(), 0);
        assert!(counters.twins[1].from_kernel_frames.get() >= 1);
        assert_eq!(counters.twins[1].name.as_str(), "w1");
        for twin in &counters.twins {
            assert!(
                TwinDrop::ALL
                    .iter()
                    .all(|&reason| twin.dropped(reason) == 0),
                "{twin:?}"
            );
        }
    });
}

#[test]
fn every_reason_has_a_name_of_its_own() {
    let mut names: Vec<&str> = TwinDrop::ALL.iter().map(|reason| reason.name()).collect();
    assert!(names.iter().all(|name| name.starts_with("twin_")));
    assert!(
        TwinDrop::ALL
            .iter()
            .enumerate()
            .all(|(at, &reason)| reason as usize == at)
    );
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), TwinDrop::ALL.len());
}

/// Has the kernel broadcast datagrams of `len` bytes out of `w0` until `enough`.
fn flood(len: usize, what: &str, enough: impl Fn() -> bool) {
    let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
    socket.set_broadcast(true).unwrap();
    let payload = vec![0; len];
    wait_for(what, || {
        socket.send_to(&payload, "10.9.0.255:9").unwrap();
        enough().then_some(())
    });
}

fn one_twin(ring: usize, pool: HeapPool) -> (Rig, Arc<TwinThreadCounters>) {
    let rig = Rig::new(1, 1, ring, pool);
    ip("address add 10.9.0.1/24 brd + dev w0");
    let counters = Arc::clone(rig.thread.counters());
    (rig, counters)
}

#[test]
fn a_full_ring_is_a_counted_drop() {
    in_namespace("ring", || {
        let (rig, counters) = one_twin(4, AMPLE);
        let twin = &counters.twins[0];
        flood(100, "a full ring", || twin.dropped(TwinDrop::RingFull) > 0);
        assert_eq!(twin.from_kernel_frames.get(), 4);
        assert_eq!(rig.workers[0].into.slots(), 4);
    });
}

#[test]
fn an_empty_pool_and_a_short_buffer_are_told_apart() {
    in_namespace("pool", || {
        let pool = HeapPool {
            left: 1000,
            room: 200,
        };
        let (_rig, counters) = one_twin(1024, pool);
        let twin = &counters.twins[0];
        flood(1000, "a frame that is too long", || {
            twin.dropped(TwinDrop::TooLong) > 0
        });
        assert_eq!(twin.dropped(TwinDrop::PoolEmpty), 0);
        flood(100, "an empty pool", || {
            twin.dropped(TwinDrop::PoolEmpty) > 0
        });
    });
}

#[test]
fn what_the_kernel_does_not_take_is_counted_by_reason() {
    in_namespace("refuse", || {
        let (mut rig, counters) = one_twin(64, AMPLE);
        let twin = &counters.twins[0];
        let dropped = |reason: TwinDrop| (twin.dropped(reason) == 1).then_some(());
        rig.send(0, 0, &[0; 13]);
        wait_for("a refusal", || dropped(TwinDrop::Refused));
        rig.send(0, 7, &[0; 60]);
        wait_for("a frame without a twin", || {
            (counters.no_twin.get() == 1).then_some(())
        });
        ip("link set w0 down");
        rig.send(0, 0, &[0; 60]);
        wait_for("a twin that is down", || dropped(TwinDrop::TwinDown));
        assert_eq!(twin.to_kernel_frames.get(), 0);
    });
}

#[test]
fn a_removed_interface_does_not_stop_the_others() {
    in_namespace("gone", || {
        let mut rig = Rig::new(2, 1, 64, AMPLE);
        ip("address add 10.9.1.1/24 dev w1");
        ip("link delete w0");
        let counters = Arc::clone(rig.thread.counters());
        rig.send(0, 0, &[0; 60]);
        wait_for("a twin that is gone", || {
            (counters.twins[0].dropped(TwinDrop::TwinDown) == 1).then_some(())
        });
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(b"x", "10.9.1.9:9").unwrap();
        assert_eq!(rig.arp(0, [10, 9, 1, 9]).0, 1);
        let gone = rig.twins.remove(0).set_carrier(true).unwrap_err();
        assert_eq!(
            gone.to_string(),
            "File descriptor in bad state (os error 77)"
        );
    });
}

#[test]
fn stop_gives_the_kernel_what_workers_have_passed() {
    in_namespace("stop", || {
        let (mut rig, counters) = one_twin(1024, AMPLE);
        for _ in 0..1000 {
            rig.send(0, 0, &[0; 60]);
        }
        rig.thread.stop();
        assert_eq!(counters.twins[0].to_kernel_frames.get(), 1000);
        assert_eq!(rig.workers[0].out.slots(), 1024);
    });
}
