//! EAL's argument list.
#![forbid(unsafe_code)]

use super::{Device, EalOptions, LogLevel, Memory};

/// The arguments for `options`; `processors` as in `Cpus_allowed_list`.
pub(super) fn build(
    options: &EalOptions,
    devices: &[Device],
    processors: &str,
    prefix: &str,
) -> Vec<String> {
    let mut args: Vec<String> = vec![
        "weir".into(),
        // One lcore on all processors: workers register their own threads, and EAL would start
        // a sleeping thread for every processor otherwise.
        format!("--lcores=0@({processors})"),
        format!("--file-prefix={prefix}"),
        format!("--log-level={}", level(options.log_level)),
        // No telemetry socket, and nothing in /var/run/dpdk for secondary processes: DPDK
        // refuses those anyway while there are registered threads.
        "--no-telemetry".into(),
        "--no-shconf".into(),
    ];
    match options.memory {
        Memory::HugePages { mib } => {
            args.push("--in-memory".into());
            args.push(format!("-m{mib}"));
        }
        Memory::Plain { mib } => {
            args.push("--no-huge".into());
            args.push(format!("-m{mib}"));
        }
    }
    let mut cards = false;
    for device in devices {
        match device {
            Device::Pci { allow, .. } => {
                cards = true;
                args.push(format!("--allow={allow}"));
            }
            Device::Vdev { spec, .. } => args.push(format!("--vdev={spec}")),
        }
    }
    if !cards {
        // Without cards virtual addresses do, and physical ones need root. With cards EAL
        // chooses: what is bound to UIO needs physical ones.
        args.push("--no-pci".into());
        args.push("--iova-mode=va".into());
    }
    args
}

fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warning => "warning",
        LogLevel::Notice => "notice",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    }
}

/// The processors that a thread may run on, from its `/proc/.../status`.
pub(super) fn allowed_processors(status: &str) -> Option<&str> {
    let mut lines = status.lines();
    lines
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .map(str::trim)
        .filter(|list| !list.is_empty())
}
