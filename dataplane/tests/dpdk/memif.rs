//! net_memif between two processes: two EALs on one machine, as the benchmarks run.

use weir_dataplane::io::dpdk::{OpenPort, Pool, open_ports};
use weir_dataplane::io::{Burst, Frame, FramePool, PortQueue};

use super::{again, eal, pool, port_options, receive, role};

const NAME: &str = "memif::two_processes_exchange_frames";
/// Frames exchanged, in bursts of 32.
const FRAMES: usize = 320;

/// One end of the link; the server's must be open before the client's is.
fn memif(role: &str, socket: &str) -> (Pool, OpenPort) {
    let device = format!(
        "net_memif0,role={role},id=0,socket={socket},socket-abstract=no,rsize=10,bsize=2048"
    );
    let eal = eal(&[&device]);
    let options = [port_options(&device, 1)];
    let pool = pool(&eal, &options);
    let port = open_ports(&eal, &pool, &options).unwrap().remove(0);
    (pool, port)
}

fn wait_for_peer(port: &OpenPort) {
    for _ in 0..5000 {
        if port.handle.link().up {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("the peer did not connect in five seconds");
}

/// Sends back what comes, until all has come.
fn echo(socket: &str) {
    let (pool, mut port) = memif("client", socket);
    wait_for_peer(&port);
    let queue = &mut port.queues[0];
    let mut burst = Burst::new();
    let mut seen = 0;
    while seen < FRAMES {
        receive(queue, &mut burst);
        assert!(!burst.is_empty(), "nothing came in two seconds");
        seen += burst.len();
        for frame in &mut burst {
            frame.bytes_mut()[0] ^= 0xff;
        }
        while !burst.is_empty() {
            queue.tx_burst(&mut burst);
        }
    }
    // The peer hangs up when it has everything: memif does not like it the other way round.
    while port.handle.link().up {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    drop(port);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn two_processes_exchange_frames() {
    if let Some(socket) = role() {
        return echo(&socket);
    }
    let socket = std::env::temp_dir().join(format!("wd-memif-{}.sock", std::process::id()));
    let socket = socket.to_str().unwrap();
    let _ = std::fs::remove_file(socket);
    let (mut pool, mut port) = memif("server", socket);
    let mut child = again(NAME, &[], socket).spawn().unwrap();
    wait_for_peer(&port);
    let queue = &mut port.queues[0];
    let mut out = Burst::new();
    let mut back = Vec::new();
    for round in 0..FRAMES / 32 {
        for i in 0..32 {
            let mut frame = pool.alloc(60 + round * 100).unwrap();
            frame.bytes_mut().fill(i);
            out.push(frame);
        }
        while !out.is_empty() {
            queue.tx_burst(&mut out);
        }
        while back.len() < (round + 1) * 32 {
            let mut burst = Burst::new();
            receive(queue, &mut burst);
            assert!(!burst.is_empty(), "nothing came in two seconds");
            back.extend(burst.iter().map(|frame| frame.bytes().to_vec()));
        }
    }
    drop(port);
    assert!(child.wait().unwrap().success());
    let _ = std::fs::remove_file(socket);
    for (n, frame) in back.iter().enumerate() {
        let i = (n % 32) as u8;
        assert_eq!(frame.len(), 60 + n / 32 * 100);
        assert_eq!(frame[0], i ^ 0xff);
        assert!(frame[1..].iter().all(|&b| b == i), "frame {n}");
    }
    assert_eq!(pool.in_use(), 0);
}
