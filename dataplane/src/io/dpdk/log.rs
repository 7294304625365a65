//! DPDK's own log: away from stdout, to the caller's sink, and into our error texts.
//!
//! Control path only; DPDK logs on whatever thread it runs.

use std::collections::VecDeque;
use std::ffi::c_char;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Lines kept for error texts. A failed start logs about five.
const KEPT: usize = 16;

/// From which severity on DPDK logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // the levels of syslog
pub enum LogLevel {
    Error,
    Warning,
    Notice,
    Info,
    Debug,
}

/// What drivers call errors or warnings at every start though nothing is wrong; passed on as
/// [`LogLevel::Debug`].
const HARMLESS: &[&str] = &[
    // net_tap on a kernel without the multiq qdisc: no rte_flow then, which Weir does not use.
    "tap_nl_dump_ext_ack(): Specified qdisc kind is unknown",
    "qdisc_create_multiq(): Could not add multiq qdisc",
    "failed to create multiq qdisc.",
    "Disabling rte flow support: ",
    // There are no secondary processes to talk to.
    "tap_mp_req_on_rxtx(): Failed to send",
    "rte_pmd_memif_probe(): Failed to register mp action callback",
];

/// Where DPDK's lines go.
pub(super) type Sink = fn(LogLevel, &str);

static SINK: OnceLock<Sink> = OnceLock::new();
static RECENT: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Takes DPDK's log over, for the rest of the process.
///
/// # Errors
/// The negative errno of a stream that could not be made.
pub(super) fn capture(sink: Option<Sink>) -> Result<(), i32> {
    if let Some(sink) = sink {
        // A second call is refused by EAL itself; the first sink stays.
        let _ = SINK.set(sink);
    }
    // SAFETY: `on_log` is of the type asked for and lives as long as the program.
    match unsafe { dpdk_sys::weir_log_to(Some(on_log)) } {
        0 => Ok(()),
        code => Err(code),
    }
}

/// The warnings and errors that DPDK logged since the last call, oldest first, as one line;
/// empty when there was none.
pub(super) fn take_recent() -> String {
    let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    let lines: Vec<String> = recent.drain(..).collect();
    lines.join("; ")
}

/// [`take_recent`] as the end of an error text: ` (DPDK: …)`, or nothing.
pub(super) fn recent_in_brackets() -> String {
    match take_recent() {
        lines if lines.is_empty() => lines,
        lines => format!(" (DPDK: {lines})"),
    }
}

/// Called by the C library's stream with a piece of text, nearly always whole lines.
unsafe extern "C" fn on_log(text: *const c_char, len: usize) {
    // SAFETY: the stream hands over `len` bytes that are its own until we return.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let harmless = HARMLESS.iter().any(|known| line.contains(known));
        let level = if harmless { LogLevel::Debug } else { level() };
        if let Some(sink) = SINK.get() {
            sink(level, line);
        }
        if level > LogLevel::Warning {
            continue;
        }
        let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(line.to_owned());
    }
}

/// The level of the line that this thread is logging.
fn level() -> LogLevel {
    // SAFETY: reads a thread-local of DPDK's, set while it logs.
    match unsafe { dpdk_sys::rte_log_cur_msg_loglevel() } as u32 {
        ..=dpdk_sys::RTE_LOG_ERR => LogLevel::Error, // emergency, alert and critical too
        dpdk_sys::RTE_LOG_WARNING => LogLevel::Warning,
        dpdk_sys::RTE_LOG_NOTICE => LogLevel::Notice,
        dpdk_sys::RTE_LOG_INFO => LogLevel::Info,
        _ => LogLevel::Debug,
    }
}
