//! Tests with a real kernel: twins in a network namespace of the test's own, rings in place of
//! workers and a heap in place of a mempool.

use std::net::Ipv6Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use weir_dataplane::io::{Frame, FramePool, RxChecksum};
use weir_dataplane::steer::{KernelEnd, KernelFrame, kernel_rings};
use weir_dataplane::{Mac, PortId};

use super::{Twin, TwinThread};

mod addresses;
mod mirror;

/// The MAC address of the test's port `n`.
pub(super) fn mac(n: u8) -> Mac {
    Mac([0x02, 0x57, 0, 0, 0, n])
}

/// Long enough for a loaded machine; a test that passes never waits for it.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `test` on a thread of its own in a network namespace of its own; skips, with the
/// reason, without root. `tag` is unique to the test.
pub(super) fn in_namespace(tag: &str, test: impl FnOnce() + Send) {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: {tag} makes a network namespace, which needs root");
        return;
    }
    let namespace = Namespace::new(format!("wn{}{tag}", std::process::id()));
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            namespace.enter();
            ip("link set lo up");
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A network namespace that goes with its value.
struct Namespace(String);

impl Namespace {
    fn new(name: String) -> Namespace {
        ip(&format!("netns add {name}"));
        Namespace(name)
    }

    /// Moves the calling thread, and the threads it starts, there.
    fn enter(&self) {
        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
        use std::os::fd::AsFd;
        let link = std::fs::File::open(format!("/run/netns/{}", self.0)).unwrap();
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(link.as_fd(), kind).unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.0));
    }
}

/// Runs `ip` with these arguments in the thread's namespace; what it printed.
pub(super) fn ip(args: &str) -> String {
    let out = Command::new("ip").args(args.split(' ')).output().unwrap();
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "ip {args}: {error}");
    String::from_utf8(out.stdout).unwrap()
}

/// Whether `ip` with these arguments succeeds.
pub(super) fn ip_succeeds(args: &str) -> bool {
    let out = Command::new("ip").args(args.split(' ')).output().unwrap();
    out.status.success()
}

/// A frame on the heap.
#[derive(Debug)]
pub(super) struct HeapFrame(Vec<u8>);

impl Frame for HeapFrame {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
    fn push_front(&mut self, n: usize) -> bool {
        self.0.splice(..0, std::iter::repeat_n(0, n));
        true
    }
    fn pull_front(&mut self, n: usize) {
        self.0.drain(..n);
    }
    fn set_len(&mut self, len: usize) -> bool {
        self.0.resize(len, 0);
        true
    }
    fn rx_checksum(&self) -> RxChecksum {
        RxChecksum::default()
    }
    fn another(&self, len: usize) -> Option<HeapFrame> {
        Some(HeapFrame(vec![0; len]))
    }
}

/// A pool of `left` frames of at most `room` bytes, none of which comes back.
pub(super) struct HeapPool {
    pub(super) left: usize,
    pub(super) room: usize,
}

impl FramePool for HeapPool {
    type Frame = HeapFrame;

    fn alloc(&mut self, len: usize) -> Option<HeapFrame> {
        if len > self.room || self.left == 0 {
            return None;
        }
        self.left -= 1;
        Some(HeapFrame(vec![0; len]))
    }
}

/// A large pool of frames for an MTU of 1,500.
pub(super) const AMPLE: HeapPool = HeapPool {
    left: usize::MAX,
    room: 2048,
};

/// Twins `w0`, `w1` … with carrier, the twin thread, and the rings' other ends.
pub(super) struct Rig {
    pub(super) twins: Vec<Twin>,
    pub(super) thread: TwinThread,
    pub(super) workers: Vec<KernelEnd<HeapFrame>>,
}

impl Rig {
    pub(super) fn new(twins: u8, workers: usize, ring: usize, pool: HeapPool) -> Rig {
        let twins: Vec<Twin> = (0..twins)
            .map(|n| Twin::create(PortId(n), &format!("w{n}"), mac(n), 1500).unwrap())
            .collect();
        let (workers, ends): (Vec<_>, Vec<_>) = (0..workers)
            .map(|_| kernel_rings::<HeapFrame>(ring))
            .unzip();
        let io = twins.iter().map(Twin::io).collect();
        let thread = TwinThread::spawn(io, ends, pool).unwrap();
        for twin in &twins {
            twin.set_carrier(true).unwrap();
        }
        Rig {
            twins,
            thread,
            workers,
        }
    }

    /// Hands the kernel a frame as worker `worker` would.
    pub(super) fn send(&mut self, worker: usize, port: u8, frame: &[u8]) {
        let frame = KernelFrame {
            port: PortId(port),
            frame: HeapFrame(frame.to_vec()),
        };
        self.workers[worker].out.push(frame).unwrap();
    }

    /// The next frame of the kernel at `worker`, if it is there already.
    pub(super) fn poll(&mut self, worker: usize) -> Option<(u8, Vec<u8>)> {
        let KernelFrame { port, frame } = self.workers[worker].into.pop().ok()?;
        Some((port.0, frame.0))
    }

    /// Waits for an ARP frame of the kernel at `worker` that asks for or tells of `addr`.
    pub(super) fn arp(&mut self, worker: usize, addr: [u8; 4]) -> (u8, Vec<u8>) {
        let what = format!("ARP for {addr:?} at worker {worker}");
        wait_for(&what, || {
            let (port, frame) = self.poll(worker)?;
            let is_it = frame[12..14] == [0x08, 0x06] && frame[38..42] == addr;
            is_it.then_some((port, frame))
        })
    }

    /// Waits for neighbour discovery of `kind` for `addr` from the kernel's side.
    pub(super) fn discovery(&mut self, kind: u8, addr: Ipv6Addr) -> (u8, Vec<u8>) {
        wait_for(&format!("ICMPv6 type {kind} for {addr}"), || {
            let (port, frame) = self.poll(0)?;
            (neighbour_discovery(&frame) == Some((kind, addr))).then_some((port, frame))
        })
    }
}

/// What kind of neighbour discovery `frame` is, and for which address: 135 asks, 136 tells
/// (RFC 4861 sections 4.3 and 4.4).
pub(super) fn neighbour_discovery(frame: &[u8]) -> Option<(u8, Ipv6Addr)> {
    let is_icmp = frame.len() >= 78 && frame[12..14] == [0x86, 0xdd] && frame[20] == 58;
    let target: [u8; 16] = frame.get(62..78)?.try_into().unwrap();
    (is_icmp && matches!(frame[54], 135 | 136)).then(|| (frame[54], target.into()))
}

/// Calls `look` until it returns something.
pub(super) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("waited in vain for {what}");
}

/// An ARP frame: `op` 1 asks, 2 answers.
pub(super) fn arp_frame(
    to: Mac,
    op: u8,
    sender: (Mac, [u8; 4]),
    target: (Mac, [u8; 4]),
) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(to.0);
    frame.extend(sender.0.0);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, op]);
    frame.extend(sender.0.0);
    frame.extend(sender.1);
    frame.extend(target.0.0);
    frame.extend(target.1);
    frame
}
