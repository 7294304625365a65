//! What the generator does with [`Lives`]: opens so many connections, or measures how many whole ones
//! a second the device takes.
#![forbid(unsafe_code)]

use std::ops::Range;

use serde::{Deserialize, Serialize};
use weir_dataplane::io::{FramePool, PortQueue};

use super::lives::{Clients, Counts, Course, Lives};
use crate::clock::{cycles, cycles_per_ns};

/// A turn of the lives' clock. What takes 20 of them is lost: far more than a lifecycle waits in
/// full rings, or while the machine runs something else.
const TURN_MS: f64 = 5.0;
/// How long nothing may end before that is an error.
const SILENCE_MS: f64 = if cfg!(test) { 500.0 } else { 5_000.0 };
/// Handshakes at once: a quarter of the link's ring.
const OPENING: u32 = 512;

/// Lifecycles of a stage.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Turned {
    /// How long it was.
    pub(crate) seconds: f64,
    /// Lifecycles that completed.
    pub(crate) completed: u64,
    /// Such that the device lost a frame of.
    pub(crate) lost: u64,
    /// Share of the time in which nothing had come and nothing was to be sent: the generator waited
    /// for the device.
    pub(crate) idle: f64,
}

/// Completes the handshakes of clients `0..flows`, again where something was lost. Returns the seconds
/// since the first one had: until then the device may still be making its tables.
///
/// # Errors
/// The device lets none pass for five seconds.
pub(crate) fn open<Q, P>(queue: &mut Q, pool: P, flows: u32, one_way: bool) -> anyhow::Result<f64>
where
    Q: PortQueue,
    P: FramePool<Frame = Q::Frame>,
{
    let course = match one_way {
        true => Course::OpenOneWay,
        false => Course::Open,
    };
    let mut driver = Driver::new(queue, pool, Lives::new(course, OPENING));
    let mut clients = Missing::new(flows);
    let mut first = None;
    while clients.left > 0 {
        clients.at = 0;
        driver
            .drive(&mut clients, |lives, clients, now| {
                if first.is_none() && lives.counts().ended > 0 {
                    first = Some(now);
                }
                clients.at == clients.open.len() && lives.living() == 0
            })
            .map_err(|error| error.context(format!("{} of {flows} not open", clients.left)))?;
    }
    let since = cycles() - first.unwrap_or_else(cycles);
    Ok(since as f64 / driver.per_ms / 1e3)
}

/// Lifecycles without end.
pub(crate) struct Lifecycles<'a, Q: PortQueue, P> {
    driver: Driver<'a, Q, P>,
    clients: Round,
}

impl<'a, Q, P> Lifecycles<'a, Q, P>
where
    Q: PortQueue,
    P: FramePool<Frame = Q::Frame>,
{
    /// `window` at once, of `clients`, who come round again.
    pub(crate) fn new(
        queue: &'a mut Q,
        pool: P,
        window: u32,
        clients: Range<u32>,
    ) -> Lifecycles<'a, Q, P> {
        let lives = Lives::new(Course::Whole, window);
        Lifecycles {
            driver: Driver::new(queue, pool, lives),
            clients: Round {
                next: clients.start,
                clients,
            },
        }
    }

    /// Goes on for `seconds`.
    ///
    /// # Errors
    /// The device lets none pass for five seconds, or spoils checksums.
    pub(crate) fn run(&mut self, seconds: f64) -> anyhow::Result<Turned> {
        let per_second = self.driver.per_ms * 1e3;
        let (before, start) = (self.driver.lives.counts(), cycles());
        let end = start + (seconds * per_second) as u64;
        let (all, idle) = self
            .driver
            .drive(&mut self.clients, |_, _, now| now >= end)?;
        let after = self.driver.lives.counts();
        anyhow::ensure!(
            after.wrong == 0,
            "{} frames came with wrong checksums, of some {} that were looked at",
            after.wrong,
            after.checked()
        );
        Ok(Turned {
            seconds: all as f64 / per_second,
            completed: after.ended - before.ended,
            lost: after.lost - before.lost,
            idle: idle as f64 / all as f64,
        })
    }

    /// Begins no more and waits until those that live have ended or are lost.
    pub(crate) fn settle(&mut self) -> anyhow::Result<Counts> {
        self.driver
            .drive(&mut Nobody, |lives, _, _| lives.living() == 0)?;
        Ok(self.driver.lives.counts())
    }
}

struct Driver<'a, Q: PortQueue, P> {
    queue: &'a mut Q,
    pool: P,
    lives: Lives<Q::Frame>,
    /// Cycles.
    per_ms: f64,
    /// How many had ended when last some had, and when that was.
    ended: u64,
    heard: u64,
}

impl<'a, Q, P> Driver<'a, Q, P>
where
    Q: PortQueue,
    P: FramePool<Frame = Q::Frame>,
{
    fn new(queue: &'a mut Q, pool: P, lives: Lives<Q::Frame>) -> Driver<'a, Q, P> {
        Driver {
            queue,
            pool,
            lives,
            per_ms: cycles_per_ns() * 1e6,
            ended: 0,
            heard: cycles(),
        }
    }

    /// Polls until `done`, which is told the time. Returns the cycles that it took, and how many of
    /// them were of polls without work.
    fn drive<C: Clients>(
        &mut self,
        clients: &mut C,
        mut done: impl FnMut(&Lives<Q::Frame>, &C, u64) -> bool,
    ) -> anyhow::Result<(u64, u64)> {
        let turn = (TURN_MS * self.per_ms) as u64;
        let silence = (SILENCE_MS * self.per_ms) as u64;
        let start = cycles();
        let (mut now, mut idle) = (start, 0);
        let mut tick = start + turn;
        while !done(&self.lives, clients, now) {
            let work = self.lives.poll(self.queue, &mut self.pool, clients);
            let after = cycles();
            if !work {
                idle += after - now;
                rest();
            }
            // At most one turn a poll: a generator that was held up calls nothing lost for it.
            if after >= tick {
                self.lives.tick();
                tick = after + turn;
                if self.lives.counts().ended > self.ended {
                    (self.heard, self.ended) = (after, self.lives.counts().ended);
                }
                anyhow::ensure!(
                    after - self.heard < silence,
                    "no connection got through for {} s: the device under test does not forward \
                     them ({:?})",
                    SILENCE_MS / 1e3,
                    self.lives.counts()
                );
            }
            now = after;
        }
        Ok((now - start, idle))
    }
}

/// Waits some hundred nanoseconds without asking for anything. The device writes the cache lines that are
/// asked, and may share the core's execution units with us: it took 6 % more lifecycles for this.
#[inline]
fn rest() {
    for _ in 0..8 {
        std::hint::spin_loop();
    }
}

/// Clients in turn.
struct Round {
    clients: Range<u32>,
    next: u32,
}

impl Clients for Round {
    #[inline]
    fn next(&mut self) -> Option<u32> {
        let n = self.next;
        self.next = match n + 1 < self.clients.end {
            true => n + 1,
            false => self.clients.start,
        };
        Some(n)
    }

    #[inline]
    fn ended(&mut self, _: u32) {}
}

/// Clients that have no connection yet.
struct Missing {
    open: Vec<bool>,
    left: usize,
    /// The next to look at.
    at: usize,
}

impl Missing {
    fn new(flows: u32) -> Missing {
        Missing {
            open: vec![false; flows as usize],
            left: flows as usize,
            at: 0,
        }
    }
}

impl Clients for Missing {
    fn next(&mut self) -> Option<u32> {
        let ahead = self.open.get(self.at..)?;
        let found = ahead.iter().position(|open| !open);
        let client = found.map(|more| self.at + more);
        self.at = client.map_or(self.open.len(), |client| client + 1);
        client.map(|client| client as u32)
    }

    fn ended(&mut self, client: u32) {
        if let Some(open) = self.open.get_mut(client as usize)
            && !std::mem::replace(open, true)
        {
            self.left -= 1;
        }
    }
}

/// No more clients.
struct Nobody;

impl Clients for Nobody {
    fn next(&mut self) -> Option<u32> {
        None
    }

    fn ended(&mut self, _: u32) {}
}

#[cfg(test)]
mod tests;
