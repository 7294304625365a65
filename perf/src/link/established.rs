//! Packets of connections that stand, as fast as the link takes them or at a rate, and how many come
//! back how soon.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use weir_dataplane::io::dpdk::{DpdkQueue, Mbuf, Pool};
use weir_dataplane::io::{BURST, Burst, Frame, PortQueue};

use super::frames::{Data, SMALLEST, age, answer_arp, counts};
use crate::clock::{cycles, cycles_per_ns};
use crate::testbed::Rng;

/// One stage's result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Stage {
    /// Mpps asked for; 0 for as fast as it can.
    pub(crate) rate: f64,
    /// Frames sent while it counted.
    pub(crate) sent: u64,
    /// Frames that came back, those in flight at the end included.
    pub(crate) received: u64,
    /// Frames that came back a second, millions, in flight not included.
    pub(crate) mpps: f64,
    /// Time from sending to receiving, of each eighth frame.
    pub(crate) latency: Option<Latency>,
}

/// Nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the percentiles' names say it
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
    pub(crate) samples: u64,
}

/// The load.
pub(crate) struct Established<'a> {
    queue: &'a mut DpdkQueue,
    pool: Pool,
    data: Data,
    flows: u64,
    seconds: f64,
    per_ns: f64,
    rng: Rng,
    /// Frames written and not yet taken by the link.
    out: Burst<Mbuf>,
    /// Buffers of frames that came back, to be written again: cheaper than the pool, and the
    /// generator must not be what limits the link.
    stock: Vec<Mbuf>,
}

/// Buffers kept to be written again: two bursts.
const STOCK: usize = 2 * BURST;

impl<'a> Established<'a> {
    /// Packets of `len` bytes of clients `0..flows`, `seconds` a stage.
    ///
    /// # Errors
    /// A length that no frame has.
    pub(crate) fn new(
        queue: &'a mut DpdkQueue,
        pool: Pool,
        flows: u64,
        len: usize,
        seconds: f64,
    ) -> anyhow::Result<Established<'a>> {
        anyhow::ensure!(
            (SMALLEST..=1514).contains(&len),
            "len {len}: use {SMALLEST} to 1514"
        );
        Ok(Established {
            queue,
            pool,
            data: Data::new(len),
            flows,
            seconds,
            per_ns: cycles_per_ns(),
            rng: Rng(42),
            out: Burst::new(),
            stock: Vec::with_capacity(STOCK),
        })
    }

    /// Fills caches before anything counts, and leaves nothing on its way.
    pub(crate) fn warm_up(&mut self, rate: f64) {
        let seconds = (self.seconds / 4.0).min(0.5);
        self.load(rate, seconds, &mut None);
        self.settle();
    }

    /// Sends at `rate` Mpps, 0 for as fast as it can.
    pub(crate) fn stage(&mut self, rate: f64) -> Stage {
        // Up to 10 s, three digits. Only where a rate is given: at the limit latency is that of
        // full rings.
        let histogram = || Histogram::new_with_bounds(1, 100_000_000_000, 3).ok();
        let mut ages = if rate > 0.0 { histogram() } else { None };
        let (sent, received, seconds) = self.load(rate, self.seconds, &mut ages);
        let in_flight = self.settle();
        let per_ns = self.per_ns;
        let ns = |cycles: u64| cycles as f64 / per_ns;
        Stage {
            rate,
            sent,
            received: received + in_flight,
            mpps: received as f64 / seconds / 1e6,
            latency: ages.map(|h| Latency {
                p50: ns(h.value_at_quantile(0.5)),
                p99: ns(h.value_at_quantile(0.99)),
                p999: ns(h.value_at_quantile(0.999)),
                max: ns(h.max()),
                samples: h.len(),
            }),
        }
    }

    /// Sends and receives for `seconds`: frames sent, received, and the seconds it took.
    fn load(
        &mut self,
        rate: f64,
        seconds: f64,
        ages: &mut Option<Histogram<u64>>,
    ) -> (u64, u64, f64) {
        let start = cycles();
        let end = start + (seconds * 1e9 * self.per_ns) as u64;
        // Frames a cycle, as a fraction of 2^32: no division and no floating point in the loop.
        let per_cycle = (rate * 1e-3 / self.per_ns * f64::from(u32::MAX)) as u128;
        let (mut written, mut sent, mut received) = (0u64, 0u64, 0u64);
        let mut now = start;
        while now < end {
            let due = match rate > 0.0 {
                true => ((u128::from(now - start) * per_cycle) >> 32) as u64 - written,
                false => BURST as u64,
            };
            written += self.fill(due as usize, now);
            let before = self.out.len();
            self.queue.tx_burst(&mut self.out);
            sent += (before - self.out.len()) as u64;
            received += self.receive(ages, received);
            now = cycles();
        }
        (sent, received, (now - start) as f64 / self.per_ns / 1e9)
    }

    /// Writes up to `due` frames into the burst's free places.
    #[inline]
    fn fill(&mut self, due: usize, stamp: u64) -> u64 {
        let (first, n) = (self.out.len(), due.min(self.out.remaining_capacity()));
        let again = n.min(self.stock.len());
        self.out
            .extend(self.stock.drain(self.stock.len() - again..));
        // Without buffers the loop comes round again when some have come back.
        let _ = self
            .pool
            .alloc_burst(n - again, self.data.len(), &mut self.out);
        for new in &mut self.out[first + again..] {
            new.bytes_mut()[SMALLEST..].fill(0);
        }
        for frame in &mut self.out[first..] {
            let n = self.rng.quick(self.flows);
            self.data.write(frame.bytes_mut(), n, stamp);
        }
        (self.out.len() - first) as u64
    }

    /// Takes what came, twice a burst at most: more than was sent, or the rings fill up.
    #[inline]
    fn receive(&mut self, ages: &mut Option<Histogram<u64>>, so_far: u64) -> u64 {
        let mut counted = 0;
        for _ in 0..2 {
            let mut burst = Burst::new();
            self.queue.rx_burst(&mut burst);
            if burst.is_empty() {
                break;
            }
            let now = ages.as_ref().map(|_| cycles());
            for mut frame in burst {
                if !counts(frame.bytes()) {
                    self.other(frame);
                    continue;
                }
                let bytes = frame.bytes();
                counted += 1;
                if let (Some(ages), Some(now)) = (ages.as_mut(), now)
                    && (so_far + counted).is_multiple_of(8)
                {
                    ages.saturating_record(age(bytes, now));
                }
                let as_sent = bytes.len() == self.data.len();
                if self.stock.len() < STOCK && as_sent && frame.set_len(self.data.len()) {
                    self.stock.push(frame);
                }
            }
        }
        counted
    }

    #[cold]
    fn other(&mut self, mut frame: Mbuf) {
        if !self.out.is_full() && answer_arp(frame.bytes_mut()) {
            self.out.push(frame);
        }
    }

    /// Sends nothing more and takes what is still on its way.
    fn settle(&mut self) -> u64 {
        let (mut received, mut heard) = (0, Instant::now());
        while heard.elapsed() < Duration::from_millis(20) {
            let n = self.receive(&mut None, 0);
            if n > 0 {
                (received, heard) = (received + n, Instant::now());
            }
        }
        received
    }
}
