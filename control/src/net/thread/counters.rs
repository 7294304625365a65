//! What the twin thread counts. It is the single writer; control reads.
#![forbid(unsafe_code)]

use weir_dataplane::counters::Cell;

use crate::net::twin::TwinIo;

/// Why a frame did not get from a worker to the kernel or back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum TwinDrop {
    /// From the kernel: the pool has no buffer left.
    PoolEmpty,
    /// From the kernel: longer than a buffer of the pool.
    TooLong,
    /// From the kernel: the ring to the worker is full.
    RingFull,
    /// To the kernel: the interface is down or gone.
    TwinDown,
    /// To the kernel: it has no memory for the frame.
    KernelBusy,
    /// To the kernel: it takes no such frame (shorter than an Ethernet header).
    Refused,
}

impl TwinDrop {
    /// All reasons, in the order of their numbers.
    pub(crate) const ALL: [TwinDrop; 6] = [
        TwinDrop::PoolEmpty,
        TwinDrop::TooLong,
        TwinDrop::RingFull,
        TwinDrop::TwinDown,
        TwinDrop::KernelBusy,
        TwinDrop::Refused,
    ];

    /// The reason's name in listings and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            TwinDrop::PoolEmpty => "twin_pool_empty",
            TwinDrop::TooLong => "twin_too_long",
            TwinDrop::RingFull => "twin_ring_full",
            TwinDrop::TwinDown => "twin_down",
            TwinDrop::KernelBusy => "twin_kernel_busy",
            TwinDrop::Refused => "twin_refused",
        }
    }
}

/// One twin's count. What a worker's books call `to_kernel` is here
/// `to_kernel_frames` or a drop of the last three kinds.
#[derive(Debug)]
pub(crate) struct TwinCounters {
    /// The port's name.
    pub(crate) name: String,
    /// Frames that the kernel took.
    pub(crate) to_kernel_frames: Cell,
    /// Their bytes, Ethernet headers included.
    pub(crate) to_kernel_bytes: Cell,
    /// Frames of the kernel that went on to a worker.
    pub(crate) from_kernel_frames: Cell,
    /// Their bytes, Ethernet headers included.
    pub(crate) from_kernel_bytes: Cell,
    /// Frames dropped, by reason.
    pub(crate) drops: [Cell; TwinDrop::ALL.len()],
}

impl TwinCounters {
    /// Counts a drop.
    pub(super) fn drop(&self, reason: TwinDrop) {
        self.drops[reason as usize].add(1);
    }

    /// Frames dropped for `reason`.
    pub(crate) fn dropped(&self, reason: TwinDrop) -> u64 {
        self.drops[reason as usize].get()
    }
}

/// The twin thread's count.
#[derive(Debug)]
pub(crate) struct TwinThreadCounters {
    /// By twin, in the order they were given.
    pub(crate) twins: Vec<TwinCounters>,
    /// Frames of workers for a port that has no twin: a fault of ours when not 0.
    pub(crate) no_twin: Cell,
}

impl TwinThreadCounters {
    pub(super) fn new(twins: &[TwinIo]) -> TwinThreadCounters {
        let counters = |twin: &TwinIo| TwinCounters {
            name: twin.name.clone(),
            to_kernel_frames: Cell::default(),
            to_kernel_bytes: Cell::default(),
            from_kernel_frames: Cell::default(),
            from_kernel_bytes: Cell::default(),
            drops: std::array::from_fn(|_| Cell::default()),
        };
        TwinThreadCounters {
            twins: twins.iter().map(counters).collect(),
            no_twin: Cell::default(),
        }
    }
}
