//! A QEMU guest with Debian's stock kernel, for what this machine's kernel may lack: tunnel
//! devices, VLANs, SCTP, real IPVS.
//!
//! What runs inside is this very test binary: its scenarios (`inside/`) are ordinary tests, marked
//! `ignore`, which use the same [`topology`](crate::topology) of namespaces as all others. A
//! machine whose own kernel has everything runs them without a guest:
//! `cargo nextest run -p weir --test e2e --run-ignored only`.
//!
//! ```text
//!   test ── image: initramfs of busybox, modules, weir, DPDK, this binary ──► QEMU (TCG)
//!        ◄── serial 1: what the binary prints, then "guest: exit CODE" ──────┤
//!        ◄── serial 0: the kernel's log, shown when something failed ────────┘
//! ```
//!
//! TCG, because it works wherever QEMU does (PLATFORM.md, section 10). Nothing of the host is
//! touched: no root is needed, no network is shared, the kernel package is unpacked by
//! `scripts/guest-kernel` and never installed. Each guest is bounded in time and killed by its pid.

mod image;
mod qemu;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::topology::find_program;

/// A guest: what its kernel loads, and which scenarios it runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guest {
    /// Kernel modules by groups, in the order of loading; what they depend on comes first by
    /// itself.
    pub(crate) modules: &'static [&'static str],
    /// The start of the scenarios' names, such as `inside::tunnels::`.
    pub(crate) scenarios: &'static str,
    /// A guest that runs for longer is killed, and its test fails.
    pub(crate) at_most: Duration,
}

impl Guest {
    /// Boots the guest and demands that every one of its scenarios passes. Says so and returns
    /// when this machine has no QEMU or no kernel for it.
    ///
    /// # Panics
    /// When a scenario fails or the guest does not end by itself, with all that it printed.
    pub(crate) fn run(self) {
        if let Err(reason) = self.try_run() {
            println!("skipped: {reason}");
        }
    }

    fn try_run(self) -> Result<(), String> {
        let kernel = Kernel::find()?;
        for program in ["qemu-system-x86_64", "cpio", "busybox", "strip", "ldd"] {
            find_program(program).ok_or_else(|| {
                format!("no {program}; run `sudo scripts/test`, which installs it")
            })?;
        }
        let dir = tempfile::TempDir::with_prefix("weir-guest-").expect("a directory in /tmp");
        let initramfs = image::build(dir.path(), &kernel, self.modules, self.scenarios);
        let told = qemu::boot(dir.path(), &kernel.vmlinuz(), &initramfs, self.at_most);
        told.demand_success();
        Ok(())
    }
}

/// Debian's kernel as `scripts/guest-kernel` left it.
#[derive(Debug)]
struct Kernel {
    dir: PathBuf,
}

impl Kernel {
    fn find() -> Result<Kernel, String> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
        let dir = target.expect("a directory in target").join("guest/kernel");
        let kernel = Kernel { dir };
        if kernel.vmlinuz().exists() {
            Ok(kernel)
        } else {
            let dir = kernel.dir.display();
            Err(format!("no kernel in {dir}; run scripts/guest-kernel"))
        }
    }

    fn vmlinuz(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// The files behind `modules`, each after those it depends on, as paths relative to
    /// [`Kernel::modules_dir`].
    fn with_dependencies(&self, modules: &[&str]) -> Vec<String> {
        let index = std::fs::read_to_string(self.modules_dir().join("modules.dep"));
        let index = index.expect("scripts/guest-kernel runs depmod");
        let mut files: Vec<String> = Vec::new();
        for module in modules.iter().flat_map(|group| group.split(' ')) {
            // `kernel/net/ipv4/ipip.ko: A B`, where A needs B: load from the end.
            let line = index.lines().find_map(|line| {
                let (file, needs) = line.split_once(':')?;
                let name = Path::new(file).file_stem()?.to_str()?;
                (name == module).then(|| (file, needs.trim()))
            });
            let (file, needs) = line.unwrap_or_else(|| panic!("the kernel has no {module}.ko"));
            for needed in needs.split_whitespace().rev().chain([file]) {
                if !files.iter().any(|have| have == needed) {
                    files.push(needed.to_owned());
                }
            }
        }
        files
    }

    fn modules_dir(&self) -> PathBuf {
        self.dir.join("modules")
    }
}
