//! One run of QEMU: from power-on to power-off, and what was said on the two serial lines.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::topology::Process;

/// What a guest printed.
#[derive(Debug)]
pub(super) struct Told {
    /// From the scenarios: libtest's lines, and ours that begin with `guest: `.
    scenarios: String,
    /// From the kernel and QEMU.
    console: String,
    /// Whether it powered itself off in time.
    ended: bool,
}

/// Boots `vmlinuz` with `initramfs` and waits for the guest's end, `at_most` so long.
pub(super) fn boot(dir: &Path, vmlinuz: &Path, initramfs: &Path, at_most: Duration) -> Told {
    let [console, scenarios] = ["console", "scenarios"].map(|name| dir.join(name));
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
        .args(["-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-smp", "2"])
        .args([
            "-m",
            "2048",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
        ])
        .arg("-no-reboot") // a panic ends QEMU, too
        .arg("-kernel")
        .arg(vmlinuz)
        .arg("-initrd")
        .arg(initramfs)
        .args([
            "-append",
            "console=ttyS0 loglevel=5 panic=1 mitigations=off nokaslr",
        ])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .arg("-serial")
        .arg(format!("file:{}", scenarios.display()))
        .stdin(std::process::Stdio::null());
    let mut qemu = Process::start("qemu", &mut command);
    let ended = qemu.ends(at_most);
    drop(qemu);
    let read = |path: &Path| {
        let bytes = fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    };
    Told {
        scenarios: read(&scenarios),
        console: read(&console),
        ended,
    }
}

impl Told {
    /// Prints what the guest said, and panics when a scenario failed, none ran, or the guest did
    /// not reach its end; then the kernel's log is printed, too.
    pub(super) fn demand_success(&self) {
        println!("--- the guest\n{}---", self.scenarios);
        let none = self.scenarios.contains("test result: ok. 0 passed");
        let exited = self.scenarios.lines().any(|line| line == "guest: exit 0");
        if self.ended && exited && !none {
            return;
        }
        println!("--- the guest's kernel\n{}---", self.console);
        assert!(self.ended, "the guest did not end in time and was killed");
        assert!(exited, "scenarios failed in the guest");
        panic!("no scenario ran in the guest");
    }
}
