//! Opening ports: queues, alignment, errors, closing.

use weir_dataplane::PortId;
use weir_dataplane::io::dpdk::{
    Misfit, Pool, PoolDemand, PoolOptions, PortOptions, Problem, open_ports,
};
use weir_dataplane::io::{Burst, FramePool, PortQueue};
use weir_dataplane::steer::Alignment;

use super::{eal, one_port, options, pool, port_options};

#[test]
fn one_worker_is_aligned_on_anything() {
    let (_pool, port) = one_port("net_null0", 1);
    assert_eq!((port.id, port.name.as_str()), (PortId(0), "p0"));
    assert_eq!((port.driver.as_str(), port.mtu), ("net_null", 1500));
    assert_eq!((port.rx_queues, port.tx_queues), (1, 1));
    assert_eq!((port.alignment, port.misfit), (Alignment::Aligned, None));
    assert!(!port.mac.is_group());
}

/// net_null takes key and table and reads both back, so what is programmed is right; being no
/// card it is not believed.
#[test]
fn a_software_driver_is_not_believed_whatever_it_reads_back() {
    let (_pool, port) = one_port("net_null0", 2);
    assert_eq!((port.rx_queues, port.tx_queues), (2, 2));
    assert_eq!(port.alignment, Alignment::Unaligned);
    assert_eq!(port.misfit, Some(Misfit::Software));
}

#[test]
fn a_port_without_rss_says_so() {
    let (_pool, port) = one_port("net_ring0", 2);
    assert_eq!(port.alignment, Alignment::Unaligned);
    assert_eq!(port.misfit, Some(Misfit::Hash));
}

#[test]
fn workers_beyond_the_queues_get_none() {
    let (_pool, mut port) = one_port("net_ring0", 18);
    assert_eq!((port.rx_queues, port.tx_queues), (16, 16));
    assert_eq!(port.queues.len(), 18);
    assert_eq!(
        port.misfit,
        Some(Misfit::Queues {
            queues: 16,
            workers: 18
        })
    );
    let ends: Vec<_> = port
        .queues
        .iter()
        .map(|q| (q.has_rx(), q.has_tx()))
        .collect();
    assert_eq!(ends[15..], [(true, true), (false, false), (false, false)]);
    let mut burst = Burst::new();
    port.queues[17].rx_burst(&mut burst);
    assert!(burst.is_empty());
    port.queues[17].tx_burst(&mut burst);
}

#[test]
fn queues_are_apart() {
    let (mut pool, mut port) = one_port("net_ring0", 2);
    let [first, second] = &mut port.queues[..] else {
        panic!("two queues");
    };
    let mut burst = Burst::new();
    burst.push(pool.alloc(60).unwrap());
    second.tx_burst(&mut burst);
    first.rx_burst(&mut burst);
    assert!(burst.is_empty());
    second.rx_burst(&mut burst);
    assert_eq!(burst.len(), 1);
}

#[test]
fn two_ports_are_found_by_name_in_any_order() {
    let eal = eal(&["net_ring0", "net_null1"]);
    let options = [port_options("net_null1", 1), port_options("net_ring0", 1)];
    let pool = pool(&eal, &options);
    let ports = open_ports(&eal, &pool, &options).unwrap();
    let found: Vec<_> = ports.iter().map(|p| (p.id, p.driver.as_str())).collect();
    assert_eq!(found, [(PortId(0), "net_null"), (PortId(1), "net_ring")]);
}

#[test]
fn the_drivers_counters_and_link_are_there_for_control() {
    let (mut pool, mut port) = one_port("net_ring0", 1);
    let mut burst = Burst::new();
    burst.extend((0..3).map(|_| pool.alloc(60).unwrap()));
    port.queues[0].tx_burst(&mut burst);
    port.queues[0].rx_burst(&mut burst);
    let handle = port.handle.clone();
    let control = std::thread::spawn(move || (handle.stats(), handle.link()));
    let (stats, link) = control.join().unwrap();
    assert_eq!((stats.tx_packets, stats.rx_packets), (3, 3));
    assert_eq!(
        (stats.rx_missed, stats.rx_errors, stats.rx_no_buffer),
        (0, 0, 0)
    );
    assert!(link.up);
}

#[test]
fn a_port_closes_with_its_last_user_and_its_buffers_come_home() {
    let (pool, mut port) = one_port("net_null0", 1);
    let mut queue = port.queues.remove(0);
    drop(port);
    let mut burst = Burst::new();
    queue.rx_burst(&mut burst);
    assert_eq!(burst.len(), 32, "still open: net_null receives without end");
    drop(queue);
    drop(burst);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn wrong_options_are_refused_with_their_reasons() {
    let eal = eal(&["net_null0"]);
    let good = port_options("net_null0", 1);
    let pool = pool(&eal, std::slice::from_ref(&good));
    let refused =
        |options: PortOptions| open_ports(&eal, &pool, &[options]).unwrap_err().to_string();
    let port = |device: &str| port_options(device, 1);
    for (options, text) in [
        (
            port("eth7"),
            "port p0: device eth7: device \"eth7\": neither a PCI address (0000:3b:00.0) nor a \
             DPDK virtual device (net_tap0,iface=dt0; names start with \"net_\")",
        ),
        (
            port("net_null7"),
            "port p0: device net_null7: DPDK has no port of it; was EAL started with it?",
        ),
        (
            PortOptions {
                workers: 0,
                ..good.clone()
            },
            "port p0: device net_null0: 0 workers; use 1 to 128",
        ),
        (
            PortOptions {
                mtu: 9000,
                ..good.clone()
            },
            "port p0: device net_null0: mtu 9000: the packet buffers hold 2026; \
             make the pool for the largest MTU",
        ),
        (
            PortOptions {
                mtu: 60,
                ..good.clone()
            },
            "port p0: device net_null0: mtu 60: the device takes 68 to 65535",
        ),
        (
            PortOptions {
                rx_descriptors: 512,
                ..good.clone()
            },
            "port p0: device net_null0: its queues and those of the ports before it have 768 \
             descriptors; the packet buffers count on 512; lower rx_descriptors or \
             tx_descriptors to what the driver takes, or make the pool larger",
        ),
    ] {
        assert_eq!(refused(options), text);
    }
    // Nothing of that has spoilt the port.
    assert_eq!(open_ports(&eal, &pool, &[good]).unwrap().len(), 1);
}

#[test]
fn a_device_is_one_port() {
    let eal = eal(&["net_ring0"]);
    let options = [port_options("net_ring0", 1), port_options("net_ring0", 1)];
    let mut pool = pool(&eal, &options);
    let mut open = open_ports(&eal, &pool, &options[..1]).unwrap();
    let error = open_ports(&eal, &pool, &options[..1]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "port p0: device net_ring0: it is open already; one port each"
    );
    let mut burst = Burst::new();
    burst.push(pool.alloc(60).unwrap());
    open[0].queues[0].tx_burst(&mut burst);
    open[0].queues[0].rx_burst(&mut burst);
    assert_eq!(burst.len(), 1, "the first is as it was");
}

#[test]
fn a_failed_port_closes_those_before_it() {
    let eal = eal(&["net_null0", "net_null1"]);
    let options = [
        port_options("net_null0", 1),
        PortOptions {
            mtu: 9000,
            ..port_options("net_null1", 1)
        },
    ];
    let pool = Pool::new(
        &eal,
        &PoolOptions::new("small", PoolDemand::new(&options, 512, 0), 1500),
    )
    .unwrap();
    let error = open_ports(&eal, &pool, &options).unwrap_err();
    assert_eq!(
        error.problem,
        Problem::Room {
            mtu: 9000,
            max: 2026
        }
    );
    assert_eq!(pool.in_use(), 0);
    let error = open_ports(&eal, &pool, &options[..1]).unwrap_err();
    assert_eq!(error.problem, Problem::Absent, "it was closed");
}

#[test]
fn jumbo_frames_fit_one_buffer() {
    let eal = eal(&["net_ring0"]);
    let options = [PortOptions {
        mtu: 9000,
        ..port_options("net_ring0", 1)
    }];
    let mut pool = pool(&eal, &options);
    let mut port = open_ports(&eal, &pool, &options).unwrap().remove(0);
    assert_eq!(port.mtu, 9000);
    let mut burst = Burst::new();
    burst.push(pool.alloc(9014).unwrap());
    port.queues[0].tx_burst(&mut burst);
    port.queues[0].rx_burst(&mut burst);
    assert_eq!(weir_dataplane::io::Frame::bytes(&burst[0]).len(), 9014);
}

#[test]
fn af_packet_queues_that_nobody_polls_are_refused() {
    if !super::is_root() {
        eprintln!("skipped: AF_PACKET needs root");
        return;
    }
    let device = "net_af_packet0,iface=lo,qpairs=2";
    let eal = weir_dataplane::io::dpdk::Eal::init(&options(&[device])).unwrap();
    let options = [port_options(device, 1)];
    let pool = pool(&eal, &options);
    let error = open_ports(&eal, &pool, &options).unwrap_err();
    assert_eq!(
        error.problem,
        Problem::UnpolledQueues {
            queues: 2,
            workers: 1
        }
    );
}
