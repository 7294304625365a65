//! The link between the two processes: device strings for both ends, cores, memory.
//!
//! ```text
//!  generator, core G [end 0] ---- memif or veth ---- [end 1] device under test, core D
//! ```
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use weir_dataplane::Mac;
use weir_dataplane::io::dpdk::free_huge_pages_mib;

use crate::testbed::{MACS, PEER};

/// MiB that either process takes; testpmd's and ours hold 16,384 buffers in it.
pub(crate) const MEMORY_MIB: u32 = 192;

/// What the link is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Via {
    /// Shared memory between two DPDK programs, one copy: tens of millions of packets a second.
    Memif,
    /// A kernel veth pair with a packet socket on each end: about one million a second.
    #[value(name = "af_packet")]
    AfPacket,
}

/// The CPUs of the two sides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cores {
    pub(crate) generator: usize,
    pub(crate) device: usize,
}

impl std::str::FromStr for Cores {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Cores> {
        let (generator, device) = text
            .split_once(',')
            .with_context(|| format!("cores {text}: use two CPUs, GENERATOR,DEVICE: 0,1"))?;
        Ok(Cores {
            generator: generator.trim().parse()?,
            device: device.trim().parse()?,
        })
    }
}

impl std::fmt::Display for Cores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{},{}", self.generator, self.device)
    }
}

/// A link for one run; what it left in the system goes when it is dropped.
#[derive(Debug)]
pub(crate) struct Wire {
    via: Via,
    directory: tempfile::TempDir,
    veth: Option<String>,
}

impl Wire {
    /// Makes the link.
    ///
    /// # Errors
    /// No temporary directory, or `ip link` refused the veth pair (needs root).
    pub(crate) fn new(via: Via) -> anyhow::Result<Wire> {
        let directory = tempfile::Builder::new().prefix("weir-perf-").tempdir()?;
        let mut wire = Wire {
            via,
            directory,
            veth: None,
        };
        if via == Via::AfPacket {
            let (a, b) = (wire.interface(0), wire.interface(1));
            let text = |Mac(m): Mac| m.map(|b| format!("{b:02x}")).join(":");
            let (peer, device) = (text(PEER), text(MACS[0]));
            ip(&[
                "link", "add", &a, "address", &peer, "type", "veth", "peer", "name", &b, "address",
                &device,
            ])?;
            wire.veth = Some(a.clone());
            ip(&["link", "set", &a, "up"])?;
            ip(&["link", "set", &b, "up"])?;
        }
        Ok(wire)
    }

    fn interface(&self, end: usize) -> String {
        format!("wp{}e{end}", std::process::id())
    }

    /// Where memif's socket is.
    pub(crate) fn socket(&self) -> String {
        path(&self.directory.path().join("memif.sock"))
    }

    /// A name for DPDK's files that no other process uses.
    pub(crate) fn prefix(&self, end: &str) -> String {
        format!("weir-perf-{end}-{}", std::process::id())
    }

    /// The device string of the generator's end, which must be opened first.
    pub(crate) fn generator(&self) -> String {
        self.end(0, "server", PEER)
    }

    /// The device string of the other end.
    pub(crate) fn device(&self) -> String {
        self.end(1, "client", MACS[0])
    }

    fn end(&self, end: usize, role: &str, Mac(mac): Mac) -> String {
        let mac = mac.map(|b| format!("{b:02x}")).join(":");
        match self.via {
            // rsize is a power of two: 2,048 descriptors. The socket's directory is new, so no
            // stale socket can be in the way.
            Via::Memif => format!(
                "net_memif0,role={role},id=0,socket={},socket-abstract=no,rsize=11,bsize=2048,mac={mac}",
                self.socket()
            ),
            Via::AfPacket => format!("net_af_packet0,iface={}", self.interface(end)),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(veth) = &self.veth {
            let _ = ip(&["link", "delete", veth]);
        }
    }
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(args).output().context("ip")?;
    anyhow::ensure!(
        output.status.success(),
        "ip {}: {}; --via af_packet needs root, --via memif does not",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Whether there are huge pages for both processes.
pub(crate) fn huge_pages() -> bool {
    free_huge_pages_mib() >= 2 * MEMORY_MIB
}
