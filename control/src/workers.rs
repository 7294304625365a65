//! The workers' threads: one each, pinned, known to DPDK, politely idle.
//!
//! ```text
//! loop:  read the clock  ->  Worker::poll_once  ->  nothing to do? rest as the idle mode says
//! ```
#![forbid(unsafe_code)]

use std::io;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

use weir_dataplane::CoreId;
use weir_dataplane::io::PortQueue;
use weir_dataplane::worker::{Setup, SetupError, Worker};

mod clock;
mod idle;
mod placement;

pub(crate) use clock::Clock;
pub(crate) use idle::Idle;
use idle::{Idler, Rest};
pub(crate) use placement::{Placement, place};

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The kernel gave no thread.
    #[error("worker {}: no thread: {source}", core.0)]
    Thread {
        /// Which worker.
        core: CoreId,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel does not let it run where it should.
    #[error(
        "worker {}: cannot run on CPU {cpu}; is it online and in this process's cpuset? See \
         [workers] cores",
        core.0
    )]
    Pin {
        /// Which worker.
        core: CoreId,
        /// The CPU.
        cpu: usize,
    },
    /// DPDK does not take the thread.
    #[error("worker {}: {reason}", core.0)]
    Register {
        /// Which worker.
        core: CoreId,
        /// What it said.
        reason: String,
    },
    /// Its tables could not be made.
    #[error("worker {}: {source}", core.0)]
    Setup {
        /// Which worker.
        core: CoreId,
        /// What is wrong.
        source: SetupError,
    },
}

/// The running threads. They end when control tells each worker to stop.
#[derive(Debug)]
pub(crate) struct WorkerThreads {
    threads: Vec<JoinHandle<()>>,
}

impl WorkerThreads {
    /// Starts one thread for each of `setups`, where `placements` says. `register` makes a
    /// pinned thread known to DPDK; its guard lives as long as the thread's worker.
    ///
    /// Returns when all workers turn.
    ///
    /// # Errors
    /// The first worker that did not start; the threads of the others go on until the process
    /// ends, so this is for giving up.
    pub(crate) fn start<Q, R, G>(
        setups: Vec<Setup<Q>>,
        placements: &[Placement],
        clock: Clock,
        register: R,
    ) -> Result<WorkerThreads, StartError>
    where
        Q: PortQueue + 'static,
        R: Fn() -> Result<G, String> + Copy + Send + 'static,
    {
        let mut threads = Vec::with_capacity(setups.len());
        let (started, starts) = mpsc::channel();
        for (setup, placement) in setups.into_iter().zip(placements) {
            let (core, placement, started) = (setup.steer.me(), *placement, started.clone());
            let thread = Builder::new()
                .name(format!("weir-w{}", core.0))
                .spawn(move || {
                    let guard = match pin(core, placement.cpu).and_then(|()| {
                        register().map_err(|reason| StartError::Register { core, reason })
                    }) {
                        Ok(guard) => guard,
                        Err(error) => return drop(started.send(Err(error))),
                    };
                    // Made here, so that its memory is the CPU's own.
                    match Worker::new(setup) {
                        Ok(worker) => {
                            drop(started.send(Ok(())));
                            turn(worker, clock, placement.idle);
                        }
                        Err(source) => {
                            drop(started.send(Err(StartError::Setup { core, source })));
                        }
                    }
                    drop(guard); // after the worker: its last frames go back to the thread's cache
                })
                .map_err(|source| StartError::Thread { core, source })?;
            threads.push(thread);
        }
        for start in starts.iter().take(threads.len()) {
            start?;
        }
        Ok(WorkerThreads { threads })
    }

    /// Whether all threads have ended.
    pub(crate) fn ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits for all threads to end.
    pub(crate) fn join(self) {
        for thread in self.threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

fn pin(core: CoreId, cpu: usize) -> Result<(), StartError> {
    /// CPUs that a `cpu_set_t` has bits for; core_affinity panics past them.
    const CPU_SETSIZE: usize = 1024;
    let cpu_id = core_affinity::CoreId { id: cpu };
    match cpu < CPU_SETSIZE && core_affinity::set_for_current(cpu_id) {
        true => Ok(()),
        false => Err(StartError::Pin { core, cpu }),
    }
}

/// The worker's life.
fn turn<Q: PortQueue>(mut worker: Worker<Q>, clock: Clock, idle: Idle) {
    let mut idler = Idler::new(idle);
    while !worker.stopped() {
        let now = clock.now();
        let work = worker.poll_once(now.tick());
        match idler.after(work, now) {
            Rest::Not => {}
            Rest::Hint => std::hint::spin_loop(),
            Rest::Yield => std::thread::yield_now(),
            Rest::Nap(nap) => std::thread::sleep(nap),
        }
    }
}

#[cfg(test)]
mod tests;
