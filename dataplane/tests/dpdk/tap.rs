//! net_tap: the kernel on the other end, in a network namespace of its own.

use std::net::UdpSocket;
use std::time::Duration;

use weir_dataplane::io::dpdk::{
    Eal, EalOptions, LogLevel, Mbuf, Misfit, OpenPort, Pool, open_ports,
};
use weir_dataplane::io::{Burst, Frame, PortQueue};
use weir_dataplane::steer::Alignment;

use super::{again, is_root, one_port, options, pool, port_options, receive, role};

/// Runs the test `name` in a new namespace; true in the child, which is to do the work.
fn in_namespace(name: &str) -> bool {
    if role().is_some() {
        return true;
    }
    if !is_root() {
        eprintln!("skipped: net_tap and namespaces need root");
        return false;
    }
    let status = again(name, &["unshare", "--net"], "inside")
        .status()
        .unwrap();
    assert!(status.success(), "in the namespace: {status}");
    false
}

/// Runs `ip` and returns what it prints.
fn ip(arguments: &str) -> String {
    let output = std::process::Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    assert!(output.status.success(), "ip {arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// net_tap's interface with an address, and a neighbour that is us.
fn tap(workers: u8) -> (Pool, OpenPort) {
    let (pool, port) = one_port("net_tap0,iface=wdtap0", workers);
    ip("addr add 10.9.8.1/24 dev wdtap0");
    ip("link set wdtap0 up");
    ip("neigh add 10.9.8.2 lladdr 02:00:00:00:00:02 dev wdtap0 nud permanent");
    (pool, port)
}

/// A UDP datagram to port 4242 of our address? Other frames (neighbour discovery) are not ours.
fn is_ours(frame: &Mbuf) -> bool {
    let b = frame.bytes();
    b.len() >= 42 && b[12..14] == [8, 0] && b[23] == 17 && b[36..38] == 4242u16.to_be_bytes()
}

/// Back to the sender: swapping addresses and ports leaves all checksums right.
fn turn_round(frame: &mut Mbuf) {
    let b = frame.bytes_mut();
    for (at, len) in [(0, 6), (26, 4), (34, 2)] {
        let (left, right) = b.split_at_mut(at + len);
        left[at..].swap_with_slice(&mut right[..len]);
    }
}

#[test]
fn a_datagram_travels_from_the_kernel_and_back() {
    if !in_namespace("tap::a_datagram_travels_from_the_kernel_and_back") {
        return;
    }
    let (pool, mut port) = tap(1);
    assert_eq!((port.driver.as_str(), port.mtu), ("net_tap", 1500));
    let link = ip("-o link show wdtap0");
    assert!(link.contains(&format!("link/ether {}", port.mac)), "{link}");
    let idle = pool.in_use();
    let socket = UdpSocket::bind("10.9.8.1:5151").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    socket.send_to(b"over the weir", "10.9.8.2:4242").unwrap();

    let queue = &mut port.queues[0];
    let mut burst = Burst::new();
    while !burst.iter().any(is_ours) {
        burst.clear();
        receive(queue, &mut burst);
        assert!(!burst.is_empty(), "nothing came in two seconds");
    }
    burst.retain(|f| is_ours(f));
    assert_eq!(&burst[0].bytes()[..6], [2, 0, 0, 0, 0, 2]);
    assert_eq!(&burst[0].bytes()[42..], b"over the weir");
    turn_round(&mut burst[0]);
    queue.tx_burst(&mut burst);
    assert!(burst.is_empty());

    let mut answer = [0; 64];
    let (len, from) = socket.recv_from(&mut answer).unwrap();
    assert_eq!(&answer[..len], b"over the weir");
    assert_eq!(from, "10.9.8.2:4242".parse().unwrap());
    assert_eq!(pool.in_use(), idle);
    drop(port);
    assert_eq!(pool.in_use(), 0);
    assert!(!ip("-o link show").contains("wdtap0"), "gone with its port");
}

#[test]
fn flows_spread_over_two_queues_and_none_is_lost() {
    if !in_namespace("tap::flows_spread_over_two_queues_and_none_is_lost") {
        return;
    }
    let (_pool, mut port) = tap(2);
    assert_eq!((port.rx_queues, port.tx_queues), (2, 2));
    assert_eq!(port.alignment, Alignment::Unaligned);
    assert_eq!(port.misfit, Some(Misfit::Software));
    for _ in 0..64 {
        let socket = UdpSocket::bind("10.9.8.1:0").unwrap();
        socket.send_to(b"x", "10.9.8.2:4242").unwrap();
    }
    let mut counts = [0, 0];
    let mut burst = Burst::new();
    for _ in 0..2000 {
        for (queue, count) in port.queues.iter_mut().zip(&mut counts) {
            queue.rx_burst(&mut burst);
            *count += burst.drain(..).filter(is_ours).count();
        }
        if counts[0] + counts[1] == 64 {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(counts[0] + counts[1], 64, "{counts:?}");
    assert!(counts.iter().all(|&n| n > 0), "{counts:?}");
}

#[test]
fn a_healthy_start_and_end_log_no_error() {
    if !in_namespace("tap::a_healthy_start_and_end_log_no_error") {
        return;
    }
    let devices = ["net_tap0,iface=wdtap0"];
    let options = EalOptions {
        log_level: LogLevel::Warning,
        log: Some(|level, line| assert!(level > LogLevel::Warning, "{level:?}: {line}")),
        ..options(&devices)
    };
    let eal = Eal::init(&options).unwrap();
    let ports = [port_options(devices[0], 2)];
    let pool = pool(&eal, &ports);
    drop(open_ports(&eal, &pool, &ports).unwrap());
}
