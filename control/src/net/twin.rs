//! The kernel twin of a port: a TAP interface with the port's name, MAC address and MTU.
//!
//! A twin is persistent: when Weir dies, the interface stays with its addresses and routes, the
//! kernel takes its carrier away, and the next start adopts it. [`Twin::remove`] is the clean
//! end. Whoever made a TAP of the port's name, it is the port's twin from then on.
#![forbid(unsafe_code)]

use std::io;
use std::path::Path;
use std::sync::Arc;

use weir_dataplane::{Mac, PortId};

use super::sys::{Interfaces, Tap};

/// Where the kernel makes TAPs.
const TUN_DEVICE: &str = "/dev/net/tun";

/// What a twin's network is set to (`/proc/sys/net/FAMILY/conf/TWIN/`), and why.
///
/// The kernel takes the greater of `conf/all`'s and each of `arp_ignore`, `arp_announce`,
/// `rp_filter` and `accept_dad`, and sends redirects when either says so.
const SYSCTLS: [(&str, &str, &str); 7] = [
    ("ipv4", "arp_ignore", "1"), // answer for an address only on the twin that has it
    ("ipv4", "arp_announce", "2"), // ask with an address of the asked network, never with a VIP
    ("ipv4", "rp_filter", "2"),  // clients may come in by another port than the route back
    ("ipv4", "send_redirects", "0"), // the director is on purpose not the shortest way
    // Each time a link comes up, duplicate detection would keep the director from asking for
    // its neighbours for seconds. Its addresses come from its configuration or its MAC address.
    ("ipv6", "accept_dad", "0"),
    ("ipv6", "keep_addr_on_down", "1"), // VIPs outlive "ip link set down", as in IPv4
    ("ipv6", "accept_redirects", "0"),  // the mirror does not follow them
];

/// Why a port has no kernel twin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TwinError {
    /// The kernel takes no such name for an interface.
    #[error(
        "port {name:?}: its kernel twin cannot have that name; use 1 to 15 bytes without \
         white space, '/', ':' and '%', and not \"all\" or \"default\""
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// The kernel has no TUN/TAP driver, or a container hides it.
    #[error(
        "port {name:?}: its kernel twin needs {device}, which is missing; load the driver \
         (modprobe tun) or pass the device into the container"
    )]
    NoDriver {
        /// The port.
        name: String,
        /// The device that was looked for.
        device: String,
    },
    /// No CAP_NET_ADMIN.
    #[error(
        "port {name:?}: making its kernel twin needs the capability CAP_NET_ADMIN; run as root \
         or give it to the service"
    )]
    NotPermitted {
        /// The port.
        name: String,
    },
    /// There is an interface of that name, and it is no TAP.
    #[error(
        "port {name:?}: there is an interface {name:?} that is no TAP of one queue, so it cannot \
         be the port's kernel twin; rename the port or the interface"
    )]
    NameTaken {
        /// The port.
        name: String,
    },
    /// Another process has the TAP open.
    #[error(
        "port {name:?}: another process holds the interface {name:?} (does Weir run already?); \
         stop it or rename the port"
    )]
    InUse {
        /// The port.
        name: String,
    },
    /// The kernel refused one of the steps.
    #[error("port {name:?}: cannot {step} its kernel twin: {source}")]
    Refused {
        /// The port.
        name: String,
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A port's kernel twin. Dropping it leaves the interface as a crash would.
#[derive(Debug)]
pub(crate) struct Twin {
    port: PortId,
    name: String,
    ifindex: u32,
    adopted: bool,
    tap: Arc<Tap>,
}

/// What the mirror needs to know of a twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TwinInfo {
    /// The port.
    pub(crate) port: PortId,
    /// The port's name, which is the interface's.
    pub(crate) name: String,
    /// The interface's index.
    pub(crate) ifindex: u32,
}

/// What the twin thread needs of a twin.
#[derive(Debug)]
pub(crate) struct TwinIo {
    /// The port.
    pub(crate) port: PortId,
    /// The port's name, for listings.
    pub(crate) name: String,
    /// The program's end of the interface.
    pub(crate) tap: Arc<Tap>,
}

impl Twin {
    /// Makes the twin of `port`, or adopts the TAP of that name: up, but without carrier until
    /// [`Twin::set_carrier`] says that Weir forwards. `mtu` is the largest IP packet in bytes.
    ///
    /// A sysctl that cannot be set is a warning in the log.
    ///
    /// # Errors
    /// See [`TwinError`]. A twin that was made is taken away again; an adopted one stays.
    pub(crate) fn create(port: PortId, name: &str, mac: Mac, mtu: u16) -> Result<Twin, TwinError> {
        Twin::create_with(Path::new(TUN_DEVICE), port, name, mac, mtu)
    }

    fn create_with(
        device: &Path,
        port: PortId,
        name: &str,
        mac: Mac,
        mtu: u16,
    ) -> Result<Twin, TwinError> {
        let refused = |step| {
            move |source| TwinError::Refused {
                name: name.to_owned(),
                step,
                source,
            }
        };
        if !valid_name(name) {
            let name = name.to_owned();
            return Err(TwinError::BadName { name });
        }
        let interfaces = Interfaces::open().map_err(refused("look for"))?;
        let adopted = interfaces
            .index(name)
            .map_err(refused("look for"))?
            .is_some();
        let tap = Tap::attach(device, name).map_err(|e| attach_error(e, device, name))?;
        // Not persistent yet: on an early return the kernel takes back what it just made.
        tap.set_carrier(false)
            .map_err(refused("set the carrier of"))?;
        let ifindex = interfaces
            .index(name)
            .and_then(|index| index.ok_or_else(|| io::ErrorKind::NotFound.into()))
            .map_err(refused("find"))?;
        interfaces
            .set_mac(name, mac)
            .map_err(refused("set the MAC address of"))?;
        interfaces
            .set_mtu(name, mtu)
            .map_err(refused("set the MTU of"))?;
        set_sysctls(name);
        interfaces.set_up(name).map_err(refused("set up"))?;
        tap.set_persistent(true).map_err(refused("keep"))?;
        let word = if adopted { "adopted" } else { "made" };
        tracing::info!(port = name, ifindex, %mac, mtu, "kernel twin {word}");
        Ok(Twin {
            port,
            name: name.to_owned(),
            ifindex,
            adopted,
            tap: Arc::new(tap),
        })
    }

    /// Whether the interface was there before.
    pub(crate) fn adopted(&self) -> bool {
        self.adopted
    }

    /// What the mirror needs of this twin.
    pub(crate) fn info(&self) -> TwinInfo {
        TwinInfo {
            port: self.port,
            name: self.name.clone(),
            ifindex: self.ifindex,
        }
    }

    /// What the twin thread needs of this twin.
    pub(crate) fn io(&self) -> TwinIo {
        TwinIo {
            port: self.port,
            name: self.name.clone(),
            tap: Arc::clone(&self.tap),
        }
    }

    /// Carrier on while Weir forwards and the port's link is up. Without it the kernel sends
    /// nothing out of the twin, and routing daemons withdraw what goes through it.
    ///
    /// # Errors
    /// The kernel's, when someone removed the interface.
    pub(crate) fn set_carrier(&self, up: bool) -> io::Result<()> {
        self.tap.set_carrier(up)
    }

    /// Takes the interface away, with its addresses and routes. It goes when the last
    /// descriptor closes, so stop the twin thread first.
    ///
    /// # Errors
    /// The kernel's, when someone removed the interface already.
    pub(crate) fn remove(self) -> io::Result<()> {
        self.tap.set_persistent(false)
    }
}

/// Whether the kernel makes an interface of exactly this name: '%' would be a pattern, and
/// "all" and "default" are folders of its sysctls.
fn valid_name(name: &str) -> bool {
    let refused = |b: u8| b.is_ascii_whitespace() || matches!(b, 0 | 0x0b | b'/' | b':' | b'%');
    (1..=15).contains(&name.len())
        && !matches!(name, "." | ".." | "all" | "default")
        && !name.bytes().any(refused)
}

fn attach_error(source: io::Error, device: &Path, name: &str) -> TwinError {
    use rustix::io::Errno;
    let name = name.to_owned();
    match Errno::from_io_error(&source) {
        Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => TwinError::NoDriver {
            name,
            device: device.display().to_string(),
        },
        Some(Errno::PERM | Errno::ACCESS) => TwinError::NotPermitted { name },
        Some(Errno::INVAL) => TwinError::NameTaken { name },
        Some(Errno::BUSY) => TwinError::InUse { name },
        _ => TwinError::Refused {
            name,
            step: "make",
            source,
        },
    }
}

fn set_sysctls(name: &str) {
    // A kernel booted with ipv6.disable=1 has none of that family's.
    let has = |family: &str| Path::new("/proc/sys/net").join(family).is_dir();
    for (family, key, value) in SYSCTLS.into_iter().filter(|(family, ..)| has(family)) {
        let path = format!("/proc/sys/net/{family}/conf/{name}/{key}");
        if let Err(error) = std::fs::write(&path, value) {
            tracing::warn!(
                port = name,
                "cannot set {path} to {value}: {error}; set it yourself"
            );
        }
    }
}

#[cfg(test)]
mod tests;
