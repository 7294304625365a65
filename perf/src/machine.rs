//! What machine and what commit a result belongs to.

use serde::Serialize;

/// Enough to tell two results apart.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    memory_kib: u64,
    hugepages_free: u64,
    kernel: String,
    commit: String,
}

fn field(file: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|l| l.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

fn number(file: &str, key: &str) -> u64 {
    field(file, key)
        .and_then(|v| v.split(' ').next()?.parse().ok())
        .unwrap_or(0)
}

impl Machine {
    pub(crate) fn here() -> Machine {
        let commit = std::process::Command::new("git")
            .args(["describe", "--always", "--dirty"])
            .output()
            .ok()
            .filter(|o| o.status.success())
            .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_string());
        Machine {
            processor: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_kib: number("/proc/meminfo", "MemTotal"),
            hugepages_free: number("/proc/meminfo", "HugePages_Free"),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| "unknown".into(), |s| s.trim().to_string()),
            commit: commit.unwrap_or_else(|| "unknown".into()),
        }
    }
}
