//! Every counter by name, for `GET /v1/counters` and the ports' part of the status.
#![forbid(unsafe_code)]

use weir_dataplane::counters::{Cell, DropReason, Totals, WorkerCounters};

use super::link::WorkerLink;
use crate::api::documents::{Balance, Counter, Counters, TwinCounters};
use crate::net::{self, TwinDrop, TwinThreadCounters};

/// Name, help and cell of every counter of a worker that is not by port, server or reason.
fn cells(counters: &WorkerCounters) -> Vec<(&'static str, &'static str, &Cell)> {
    // No `..`: a new counter does not compile until it is listed here.
    let WorkerCounters {
        rx_packets,
        rx_bytes,
        tx_packets,
        tx_bytes,
        to_kernel,
        from_kernel,
        generated,
        handoff_out,
        handoff_in,
        parked,
        drops: _,
        conns,
        conns_opened,
        conns_expired,
        conns_evicted,
        evicted_half_open,
        evicted_closing,
        evicted_udp,
        evicted_established,
        conns_denied,
        conns_shed,
        conns_reused,
        conns_dismissed,
        limit_untracked,
        templates,
        templates_evicted,
        templates_shed,
        snat_opened,
        lip_early_reuse,
        icmp_errors,
        mss_clamped,
        path_mtus,
        checksums_filled,
        clients_told,
        clients_untold,
        cookies_sent,
        cookies_valid,
        syns_repeated,
        data_expected,
        data_conns,
        helper_refused,
        helper_missed,
        idle_polls,
        busy_polls,
        ports: _,
        servers: _,
        services: _,
        sources: _,
    } = counters;
    vec![
        ("rx_packets", "Frames received from ports.", rx_packets),
        ("rx_bytes", "Bytes received from ports.", rx_bytes),
        (
            "tx_packets",
            "Frames handed to a port's transmit queue.",
            tx_packets,
        ),
        (
            "tx_bytes",
            "Bytes handed to a port's transmit queue.",
            tx_bytes,
        ),
        ("to_kernel", "Frames passed to the kernel twins.", to_kernel),
        (
            "from_kernel",
            "Frames taken from the kernel twins.",
            from_kernel,
        ),
        (
            "generated",
            "Frames that weir made itself: resets, ICMP errors, further parts of what it cut.",
            generated,
        ),
        (
            "handoff_out",
            "Frames put on another worker's ring.",
            handoff_out,
        ),
        (
            "handoff_in",
            "Frames taken from other workers' rings.",
            handoff_in,
        ),
        (
            "parked",
            "Frames waiting now: for a neighbour, or for their datagram's first fragment.",
            parked,
        ),
        ("conns", "Connections standing now.", conns),
        ("conns_opened", "Connections opened.", conns_opened),
        ("conns_expired", "Connections that ran out.", conns_expired),
        (
            "conns_evicted",
            "Connections evicted because the table was full.",
            conns_evicted,
        ),
        (
            "evicted_half_open",
            "Of these, such whose handshake had not completed.",
            evicted_half_open,
        ),
        (
            "evicted_closing",
            "Of these, such that were over, or that one side had closed.",
            evicted_closing,
        ),
        ("evicted_udp", "Of these, UDP flows.", evicted_udp),
        (
            "evicted_established",
            "Of these, established connections.",
            evicted_established,
        ),
        (
            "conns_denied",
            "Connections forgotten because their clients are refused now (blacklist, access).",
            conns_denied,
        ),
        (
            "conns_shed",
            "Connections forgotten by drop_entry.",
            conns_shed,
        ),
        (
            "conns_reused",
            "Closing connections replaced by a new SYN of the same client port.",
            conns_reused,
        ),
        (
            "conns_dismissed",
            "Connections ended because their real server leaves (removal, weir drain --reset-after).",
            conns_dismissed,
        ),
        ("templates", "Persistence templates standing.", templates),
        (
            "templates_evicted",
            "Persistence templates given up because their table was full.",
            templates_evicted,
        ),
        (
            "templates_shed",
            "Persistence templates forgotten by drop_entry: no connection was ever established.",
            templates_shed,
        ),
        (
            "limit_untracked",
            "Connections that no limit for clients was applied to: the table of clients was full.",
            limit_untracked,
        ),
        (
            "snat_opened",
            "Connections of real servers' own opened by [[snat]]; they count among conns_opened too.",
            snat_opened,
        ),
        (
            "lip_early_reuse",
            "Local ports taken early from a connection in TIME_WAIT, under shortage.",
            lip_early_reuse,
        ),
        (
            "icmp_errors",
            "ICMP errors about balanced flows passed on to whom they concern.",
            icmp_errors,
        ),
        (
            "mss_clamped",
            "TCP SYNs whose MSS was lowered so that segments fit a tunnel.",
            mss_clamped,
        ),
        (
            "path_mtus",
            "Times that a tunnel's path MTU was learned from an ICMP error.",
            path_mtus,
        ),
        (
            "checksums_filled",
            "Partial checksums completed (ports with rx_checksum = \"fill\").",
            checksums_filled,
        ),
        (
            "clients_told",
            "Packets that told a real server the client's address (client_address).",
            clients_told,
        ),
        (
            "clients_untold",
            "Packets with no room for the client's address, which went without.",
            clients_untold,
        ),
        (
            "cookies_sent",
            "SYNs answered by a cookie (syn_proxy).",
            cookies_sent,
        ),
        (
            "cookies_valid",
            "Cookies that came back, each opening a connection (syn_proxy).",
            cookies_valid,
        ),
        (
            "syns_repeated",
            "SYNs sent again to real servers that had not answered (syn_proxy).",
            syns_repeated,
        ),
        (
            "data_expected",
            "Data connections announced on control connections (FTP).",
            data_expected,
        ),
        ("data_conns", "Data connections opened.", data_conns),
        (
            "helper_refused",
            "Announcements refused: of another's address (a bounce), or of a port below 1024.",
            helper_refused,
        ),
        (
            "helper_missed",
            "Announcements in pieces over several segments, which could not be read.",
            helper_missed,
        ),
        (
            "idle_polls",
            "Turns of the loop that found nothing to do.",
            idle_polls,
        ),
        (
            "busy_polls",
            "Turns of the loop that found work.",
            busy_polls,
        ),
    ]
}

/// Name, help and value of every counter of a worker that is not by port, server or reason.
pub(crate) fn named(counters: &WorkerCounters) -> Vec<(&'static str, &'static str, u64)> {
    let cells = cells(counters).into_iter();
    cells
        .map(|(name, help, cell)| (name, help, cell.get()))
        .collect()
}

/// The document.
pub(super) fn document(workers: &[WorkerLink], twins: Option<&TwinThreadCounters>) -> Counters {
    let totals = Totals::of(workers.iter().map(WorkerLink::counters));
    Counters {
        workers: worker_counters(workers),
        drops: drops(workers),
        twins: twins.map(twin_counters).unwrap_or_default(),
        balance: balance(&totals),
    }
}

fn worker_counters(workers: &[WorkerLink]) -> Vec<Counter> {
    let mut sums: Vec<Counter> = Vec::new();
    for worker in workers {
        let cells = cells(worker.counters());
        if sums.is_empty() {
            sums = cells
                .iter()
                .map(|(name, help, _)| counter(name, help))
                .collect();
        }
        for (sum, (_, _, cell)) in sums.iter_mut().zip(cells) {
            add(sum, cell.get());
        }
    }
    sums
}

fn drops(workers: &[WorkerLink]) -> Vec<Counter> {
    let by_reason = DropReason::ALL.iter().map(|reason| {
        let mut sum = counter(reason.name(), reason.help());
        for worker in workers {
            add(&mut sum, worker.counters().drops[*reason as usize].get());
        }
        sum
    });
    by_reason.collect()
}

fn counter(name: &str, help: &str) -> Counter {
    Counter {
        name: name.to_owned(),
        help: help.to_owned(),
        value: 0,
        per_worker: Vec::new(),
    }
}

fn add(sum: &mut Counter, value: u64) {
    sum.value = sum.value.wrapping_add(value);
    sum.per_worker.push(value);
}

fn twin_counters(thread: &TwinThreadCounters) -> Vec<TwinCounters> {
    let one = |name: &str, help: &str, value: u64| Counter {
        value,
        ..counter(name, help)
    };
    let twin = |twin: &net::TwinCounters| {
        let cells = [
            &twin.to_kernel_frames,
            &twin.to_kernel_bytes,
            &twin.from_kernel_frames,
            &twin.from_kernel_bytes,
        ];
        let frames = TWIN_FRAMES.iter().zip(cells);
        let frames = frames.map(|((name, help), cell)| one(name, help, cell.get()));
        let drops =
            TwinDrop::ALL.map(|reason| one(reason.name(), drop_help(reason), twin.dropped(reason)));
        TwinCounters {
            port: twin.name.clone(),
            counters: frames.into_iter().chain(drops).collect(),
        }
    };
    thread.twins.iter().map(twin).collect()
}

/// What a twin's frames are counted as.
const TWIN_FRAMES: [(&str, &str); 4] = [
    ("to_kernel_frames", "Frames that the kernel took."),
    (
        "to_kernel_bytes",
        "Bytes of the frames that the kernel took.",
    ),
    (
        "from_kernel_frames",
        "Frames of the kernel that went on to a worker.",
    ),
    (
        "from_kernel_bytes",
        "Bytes of the frames that went on to a worker.",
    ),
];

fn drop_help(reason: TwinDrop) -> &'static str {
    match reason {
        TwinDrop::PoolEmpty => "Frames of the kernel lost: no packet buffer was left.",
        TwinDrop::TooLong => "Frames of the kernel lost: longer than a packet buffer.",
        TwinDrop::RingFull => "Frames of the kernel lost: the ring to the worker was full.",
        TwinDrop::TwinDown => "Frames for the kernel lost: the twin was down or gone.",
        TwinDrop::KernelBusy => "Frames for the kernel lost: it had no memory for them.",
        TwinDrop::Refused => "Frames that the kernel does not take.",
    }
}

fn balance(totals: &Totals) -> Balance {
    Balance {
        rx: totals.rx,
        from_kernel: totals.from_kernel,
        generated: totals.generated,
        tx: totals.tx,
        to_kernel: totals.to_kernel,
        dropped: totals.dropped,
        held: totals.held,
        balanced: totals.balanced(),
    }
}

mod reference;
#[cfg(test)]
mod tests;

pub(crate) use reference::reference;
