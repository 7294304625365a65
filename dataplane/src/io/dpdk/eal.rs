//! Starts DPDK's environment (EAL), once a process, for its life.

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::device::{BadDevice, Device};
use super::log::{self, LogLevel};
use super::{errno_text, port};

mod args;

/// Set by the first attempt to start EAL: DPDK cannot be started twice, whether the first time
/// worked or not.
static STARTED: AtomicBool = AtomicBool::new(false);

/// Where DPDK's memory comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// Huge pages, no mount point needed; grows when more is wanted and there is more.
    HugePages {
        /// MiB to take at start.
        mib: u32,
    },
    /// Ordinary pages: works anywhere, slower. Never grows.
    Plain {
        /// MiB, all there will be.
        mib: u32,
    },
}

impl Memory {
    /// MiB that DPDK itself takes for its heaps, ports and rings, beside the pools.
    pub const BASE_MIB: u32 = 48;
}

/// How to start DPDK.
#[derive(Debug, Clone)]
pub struct EalOptions {
    /// The ports' `device` strings ([`Device`]). Other cards are left alone.
    pub devices: Vec<String>,
    /// Where memory comes from.
    pub memory: Memory,
    /// Names what DPDK leaves in /var/run/dpdk; `None` for `weir-PID`, so that several
    /// processes can run on one machine.
    pub file_prefix: Option<String>,
    /// From which severity on to log.
    pub log_level: LogLevel,
    /// Gets every line that DPDK logs, on whatever thread; nothing goes to stdout or syslog.
    /// Warnings and errors are in the texts of our errors either way.
    pub log: Option<fn(LogLevel, &str)>,
}

impl EalOptions {
    /// Options for `devices` with `memory`; warnings are logged, to nobody.
    #[must_use]
    pub fn new(devices: Vec<String>, memory: Memory) -> EalOptions {
        EalOptions {
            devices,
            memory,
            file_prefix: None,
            log_level: LogLevel::Warning,
            log: None,
        }
    }
}

/// Why DPDK did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EalError {
    /// A `device` string of no known form.
    #[error(transparent)]
    BadDevice(#[from] BadDevice),
    /// Two ports of one device.
    #[error("device {0}: named twice; one port each")]
    DuplicateDevice(String),
    /// The card is absent or the kernel's.
    #[error("device {device}: {obstacle}")]
    Obstacle {
        /// Which.
        device: String,
        /// What is in the way, and how to remove it.
        obstacle: String,
    },
    /// Not enough huge pages.
    #[error(
        "DPDK needs {wanted} MiB of huge pages, {free} MiB are free: reserve some \
         (echo {pages} > /proc/sys/vm/nr_hugepages) or set `hugepages = false`"
    )]
    NoHugePages {
        /// MiB asked for.
        wanted: u32,
        /// MiB free.
        free: u32,
        /// What to write to nr_hugepages.
        pages: u32,
    },
    /// EAL has been started in this process before.
    #[error("DPDK was started in this process before; it can be started once")]
    Twice,
    /// The list of processors in /proc could not be read.
    #[error("/proc/thread-self/status: {0}")]
    Processors(String),
    /// EAL refused.
    #[error("DPDK did not start: {}{log}{}", errno_text(*code), remedy(*code))]
    Refused {
        /// DPDK's errno.
        code: i32,
        /// DPDK's last words, in brackets; may be empty.
        log: String,
    },
    /// EAL started but made no port of a device.
    #[error(
        "device {device}: DPDK made no port of it{log}; check its arguments, and that the \
         driver is installed (Debian: apt-get install librte-meta-net)"
    )]
    NoPort {
        /// Which.
        device: String,
        /// DPDK's last words, in brackets; may be empty.
        log: String,
    },
}

/// The proof that DPDK runs, asked for by all that needs it. It runs until the process ends:
/// its memory is never unmapped, which is what makes frames free of lifetimes. What must be
/// given back (interfaces, queues) is given back by closing ports.
#[derive(Debug, Clone, Copy)]
pub struct Eal(());

impl Eal {
    /// Starts DPDK and probes the devices.
    ///
    /// # Errors
    /// [`EalError`], each with its remedy.
    pub fn init(options: &EalOptions) -> Result<Eal, EalError> {
        let devices = devices(&options.devices)?;
        if let Memory::HugePages { mib } = options.memory {
            check_huge_pages(mib)?;
        }
        if STARTED.swap(true, SeqCst) {
            return Err(EalError::Twice);
        }
        log::capture(options.log).map_err(refused)?;
        let argv = (options.clone(), devices.clone());
        // rte_eal_init pins its caller to DPDK's main lcore: let that be a thread of its own.
        std::thread::Builder::new()
            .name("weir-eal".into())
            .spawn(move || start(&argv.0, &argv.1))
            .map_err(|e| refused(e.raw_os_error().unwrap_or(EAGAIN)))?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let eal = Eal(());
        for device in &devices {
            if port::find(&eal, device).is_none() {
                return Err(EalError::NoPort {
                    device: device.name().to_owned(),
                    log: log::recent_in_brackets(),
                });
            }
        }
        Ok(eal)
    }

    /// DPDK's version: "DPDK 22.11.11".
    #[must_use]
    pub fn version(&self) -> String {
        // SAFETY: returns a static string.
        unsafe { CStr::from_ptr(dpdk_sys::rte_version()) }
            .to_string_lossy()
            .into_owned()
    }
}

/// Reads the device strings and looks at what can be seen without DPDK.
fn devices(texts: &[String]) -> Result<Vec<Device>, EalError> {
    let mut seen = HashSet::new();
    let mut devices = Vec::with_capacity(texts.len());
    for text in texts {
        let device = Device::parse(text)?;
        if !seen.insert(device.name().to_owned()) {
            return Err(EalError::DuplicateDevice(device.name().to_owned()));
        }
        if let Some(obstacle) = device.obstacle(Path::new("/sys/bus/pci/devices")) {
            return Err(EalError::Obstacle {
                device: device.name().to_owned(),
                obstacle,
            });
        }
        devices.push(device);
    }
    Ok(devices)
}

/// Calls rte_eal_init with `devices`, on the thread that is to be DPDK's main lcore.
fn start(options: &EalOptions, devices: &[Device]) -> Result<(), EalError> {
    let status = std::fs::read_to_string("/proc/thread-self/status")
        .map_err(|e| EalError::Processors(e.to_string()))?;
    let processors = args::allowed_processors(&status)
        .ok_or_else(|| EalError::Processors("no Cpus_allowed_list".into()))?;
    let prefix = options.file_prefix.clone();
    let prefix = prefix.unwrap_or_else(|| format!("weir-{}", std::process::id()));
    let args = args::build(options, devices, processors, &prefix);
    let args: Result<Vec<CString>, _> = args.into_iter().map(CString::new).collect();
    let args = args.map_err(|_| refused(EINVAL))?; // a zero byte in the file prefix
    // EAL keeps pointers into its arguments: a few hundred bytes, leaked once a process.
    let mut argv: Vec<*mut c_char> = args.into_iter().map(CString::into_raw).collect();
    let argc = argv.len() as i32;
    argv.push(std::ptr::null_mut());
    // SAFETY: argc strings and a null; none is freed; the array itself lives during the call.
    let code = unsafe { dpdk_sys::rte_eal_init(argc, argv.as_mut_ptr()) };
    // SAFETY: reads a thread-local of DPDK's.
    let errno = unsafe { dpdk_sys::weir_errno() };
    remove_runtime_directory();
    if code >= 0 {
        Ok(())
    } else {
        Err(refused(errno))
    }
}

/// EAL makes a directory for this process under /var/run/dpdk, and with our arguments puts
/// nothing into it: without this every run would leave one behind.
fn remove_runtime_directory() {
    // SAFETY: returns a static string, written by rte_eal_init.
    let path = unsafe { CStr::from_ptr(dpdk_sys::rte_eal_get_runtime_dir()) };
    // Not there, or not empty after all: no harm.
    let _ = std::fs::remove_dir(OsStr::from_bytes(path.to_bytes()));
}

/// EAL's refusal with errno `code`, and what it logged.
fn refused(code: i32) -> EalError {
    EalError::Refused {
        code,
        log: log::recent_in_brackets(),
    }
}

// Linux's numbers.
const EPERM: i32 = 1;
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const EACCES: i32 = 13;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;

/// What usually helps against EAL's errno `code`, as the end of a sentence.
fn remedy(code: i32) -> &'static str {
    match code {
        EPERM | EACCES => "; run as root, or give this user the devices and huge pages",
        ENOMEM => "; free memory or huge pages, or ask for less",
        ENODEV => {
            "; check the devices' names and arguments, and that their drivers are installed \
             (Debian: apt-get install librte-meta-net)"
        }
        _ => "",
    }
}

/// Huge pages free on this machine, MiB, of all sizes and nodes.
#[must_use]
pub fn free_huge_pages_mib() -> u32 {
    huge_pages_kib(Path::new("/sys/kernel/mm/hugepages"))
        .iter()
        .map(|(size_kib, free)| size_kib * free / 1024)
        .sum::<u64>() as u32
}

/// Each page size under `sysfs`, KiB, and how many pages of it are free.
fn huge_pages_kib(sysfs: &Path) -> Vec<(u64, u64)> {
    let Ok(sizes) = std::fs::read_dir(sysfs) else {
        return Vec::new();
    };
    sizes
        .flatten()
        .filter_map(|size| {
            let name = size.file_name();
            let kib = name.to_str()?.strip_prefix("hugepages-")?;
            let kib = kib.strip_suffix("kB")?.parse().ok()?;
            let free = std::fs::read_to_string(size.path().join("free_hugepages")).ok()?;
            Some((kib, free.trim().parse().ok()?))
        })
        .collect()
}

fn check_huge_pages(wanted: u32) -> Result<(), EalError> {
    let free = free_huge_pages_mib();
    if free >= wanted && free > 0 {
        return Ok(());
    }
    Err(EalError::NoHugePages {
        wanted,
        free,
        pages: wanted.div_ceil(2).max(1), // nr_hugepages counts pages of 2 MiB
    })
}

#[cfg(test)]
mod tests;
