//! The twin thread: all TAP input and output, so that no worker ever makes a system call and no
//! flood or snapshot compile in control delays a VRRP advert or a health check.
//!
//! ```text
//! worker 0 ──ring──┐                 ┌── TAP wan0
//! worker 1 ──ring──┤── weir-twin ────┤
//!          ◄─rings─┘                 └── TAP lan0
//! ```
//!
//! A frame of the kernel is copied into a buffer of the pool and goes to the worker that
//! transmits for the port (port index modulo workers). Whatever has no room is dropped and
//! counted ([`TwinDrop`]); nothing waits.
#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use weir_dataplane::io::{Frame, FramePool};
use weir_dataplane::steer::{KernelEnd, KernelFrame};

use super::sys::Tap;
use super::twin::TwinIo;

mod counters;
mod pace;
#[cfg(test)]
mod tests;

pub(crate) use counters::{TwinCounters, TwinDrop, TwinThreadCounters};
use pace::Pace;

/// Frames taken from one ring or one TAP before the next has its turn.
const BATCH: usize = 64;
/// The longest frame that a TAP hands out: the greatest MTU the kernel gives it, an Ethernet
/// header and a VLAN tag fit.
const LONGEST: usize = 65_536 + 18;
/// Any pool that is not exhausted has a buffer for this.
const SHORTEST: usize = 60;

/// The running thread. Dropping it stops the thread too.
#[derive(Debug)]
pub(crate) struct TwinThread {
    stop: Arc<AtomicBool>,
    counters: Arc<TwinThreadCounters>,
    thread: Option<JoinHandle<()>>,
}

impl TwinThread {
    /// Starts the thread. `ends` are the twin thread's ends of [`kernel_rings`], by worker
    /// (at least one); `pool` is where frames of the kernel are copied to.
    ///
    /// # Errors
    /// The kernel gave no thread.
    ///
    /// [`kernel_rings`]: weir_dataplane::steer::kernel_rings
    pub(crate) fn spawn<P: FramePool + 'static>(
        twins: Vec<TwinIo>,
        ends: Vec<KernelEnd<P::Frame>>,
        pool: P,
    ) -> io::Result<TwinThread> {
        assert!(
            !ends.is_empty(),
            "a twin thread needs a worker to pass frames to"
        );
        let stop = Arc::new(AtomicBool::new(false));
        let counters = Arc::new(TwinThreadCounters::new(&twins));
        let mover = Mover {
            twins,
            ends,
            pool,
            scratch: vec![0; LONGEST].into_boxed_slice(),
            counters: Arc::clone(&counters),
        };
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("weir-twin".to_owned())
            .spawn(move || mover.run(&stopped))?;
        Ok(TwinThread {
            stop,
            counters,
            thread: Some(thread),
        })
    }

    /// What the thread counts.
    pub(crate) fn counters(&self) -> &Arc<TwinThreadCounters> {
        &self.counters
    }

    /// Writes to the TAPs what workers have passed so far, then ends the thread.
    pub(crate) fn stop(mut self) {
        self.join();
    }

    fn join(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for TwinThread {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.join();
        }
    }
}

/// What the thread owns.
struct Mover<P: FramePool> {
    twins: Vec<TwinIo>,
    ends: Vec<KernelEnd<P::Frame>>,
    pool: P,
    scratch: Box<[u8]>,
    counters: Arc<TwinThreadCounters>,
}

impl<P: FramePool> Mover<P> {
    fn run(mut self, stop: &AtomicBool) {
        let taps: Vec<Arc<Tap>> = self.twins.iter().map(|t| Arc::clone(&t.tap)).collect();
        let mut watched: Vec<usize> = (0..taps.len()).collect();
        let mut fds: Vec<PollFd<'_>> = taps
            .iter()
            .map(|tap| PollFd::new(&**tap, PollFlags::IN))
            .collect();
        let mut pace = Pace::default();
        while !stop.load(Relaxed) {
            let any_readable = wait(&mut fds, pace.wait());
            let mut moved = self.serve_workers();
            let mut gone = None;
            let readable = |i: &usize| any_readable && !fds[*i].revents().is_empty();
            for i in (0..fds.len()).filter(readable) {
                match self.serve_twin(watched[i]) {
                    Ok(frames) => moved += frames,
                    Err(Removed) => gone = Some(i),
                }
            }
            if let Some(i) = gone {
                // It would end every wait at once.
                watched.remove(i);
                fds.remove(i);
            }
            pace.turned(moved != 0);
        }
        // Workers have stopped or will: what they have passed so far is still the kernel's.
        let backlog = self
            .ends
            .iter()
            .map(|end| end.into.slots())
            .max()
            .unwrap_or(0);
        for _ in 0..backlog.div_ceil(BATCH) {
            self.serve_workers();
        }
    }

    /// Writes what workers pass to the kernel, at most a batch of each; how many frames.
    fn serve_workers(&mut self) -> usize {
        let mut taken = 0;
        for end in &mut self.ends {
            for _ in 0..BATCH {
                let Ok(KernelFrame { port, frame }) = end.into.pop() else {
                    break;
                };
                taken += 1;
                let Some(at) = self.twins.iter().position(|t| t.port == port) else {
                    self.counters.no_twin.add(1);
                    continue;
                };
                let counters = &self.counters.twins[at];
                match self.twins[at].tap.write(frame.bytes()) {
                    Ok(()) => {
                        counters.to_kernel_frames.add(1);
                        counters.to_kernel_bytes.add(frame.bytes().len() as u64);
                    }
                    Err(error) => counters.drop(write_failure(error)),
                }
            }
        }
        taken
    }

    /// Reads what the kernel sends out of a twin, at most a batch; how many frames.
    fn serve_twin(&mut self, at: usize) -> Result<usize, Removed> {
        for taken in 0..BATCH {
            let len = match self.twins[at].tap.read(&mut self.scratch) {
                Ok(len) => len,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(taken),
                Err(error) => {
                    tracing::error!(
                        port = self.twins[at].name,
                        "the kernel twin cannot be read: {error}; was the interface removed? \
                         Restart Weir to make it again"
                    );
                    return Err(Removed);
                }
            };
            match self.pass_on(at, len) {
                Ok(()) => {
                    let counters = &self.counters.twins[at];
                    counters.from_kernel_frames.add(1);
                    counters.from_kernel_bytes.add(len as u64);
                }
                Err(reason) => self.counters.twins[at].drop(reason),
            }
        }
        Ok(BATCH)
    }

    /// Gives the first `len` bytes of the scratch buffer to the twin's worker.
    fn pass_on(&mut self, at: usize, len: usize) -> Result<(), TwinDrop> {
        let Some(mut frame) = self.pool.alloc(len) else {
            // The pool does not say why; a short buffer tells.
            return Err(match self.pool.alloc(SHORTEST) {
                Some(_) => TwinDrop::TooLong,
                None => TwinDrop::PoolEmpty,
            });
        };
        frame.bytes_mut().copy_from_slice(&self.scratch[..len]);
        let port = self.twins[at].port;
        let worker = usize::from(port.0) % self.ends.len();
        let out = &mut self.ends[worker].out;
        out.push(KernelFrame { port, frame })
            .map_err(|_full| TwinDrop::RingFull)
    }
}

/// A twin whose interface someone deleted.
struct Removed;

/// Waits until a TAP can be read, at most for `timeout` (below a second); whether one can.
fn wait(fds: &mut [PollFd<'_>], timeout: Duration) -> bool {
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(timeout.subsec_nanos()),
    };
    // An error is an interruption or a lack of kernel memory: a turn without reading.
    poll(fds, Some(&timeout)).is_ok_and(|readable| readable > 0)
}

/// Why the kernel did not take a frame.
fn write_failure(error: Errno) -> TwinDrop {
    match error {
        Errno::IO | Errno::BADFD => TwinDrop::TwinDown,
        Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM => TwinDrop::KernelBusy,
        _ => TwinDrop::Refused,
    }
}
