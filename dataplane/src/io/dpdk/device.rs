//! A port's `device` string: a PCI address or a DPDK virtual device. No I/O but sysfs.
#![forbid(unsafe_code)]

use std::path::Path;

/// A device as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// A card: `0000:3b:00.0`, the domain `0000:` may be left out; driver arguments may follow
    /// a comma.
    Pci {
        /// The full address, with its domain: also the name of DPDK's device.
        address: String,
        /// What DPDK's `-a` takes: the address and any arguments.
        allow: String,
    },
    /// A virtual device: `net_tap0,iface=dt0`.
    Vdev {
        /// The part before the comma: also the name of DPDK's device.
        name: String,
        /// What DPDK's `--vdev` takes: the whole string.
        spec: String,
    },
}

/// A `device` string that is neither a PCI address nor a virtual device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "device \"{0}\": neither a PCI address (0000:3b:00.0) nor a DPDK virtual device \
     (net_tap0,iface=dt0; names start with \"net_\")"
)]
pub struct BadDevice(pub String);

impl Device {
    /// Reads a `device` string. Looks at its form only, not at the machine.
    ///
    /// # Errors
    /// [`BadDevice`] when it has neither form.
    pub fn parse(text: &str) -> Result<Device, BadDevice> {
        let bad = || BadDevice(text.to_owned());
        let (name, arguments) = match text.split_once(',') {
            Some((name, arguments)) => (name, Some(arguments)),
            None => (text, None),
        };
        if let Some(address) = pci_address(name) {
            let allow = match arguments {
                Some(arguments) => format!("{address},{arguments}"),
                None => address.clone(),
            };
            return Ok(Device::Pci { address, allow });
        }
        // 63: RTE_DEV_NAME_MAX_LEN without the terminating zero.
        let named = name.len() > "net_".len() && name.len() <= 63 && name.starts_with("net_");
        let plain = name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
        let printable = text.bytes().all(|c| c.is_ascii_graphic());
        if !(named && plain && printable) {
            return Err(bad());
        }
        Ok(Device::Vdev {
            name: name.to_owned(),
            spec: text.to_owned(),
        })
    }

    /// What DPDK calls the device.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Device::Pci { address, .. } => address,
            Device::Vdev { name, .. } => name,
        }
    }

    /// What this machine's sysfs says against the device, before DPDK is asked: a PCI card that
    /// is absent or bound to a kernel driver. `sysfs` is `/sys/bus/pci/devices`.
    pub(super) fn obstacle(&self, sysfs: &Path) -> Option<String> {
        let Device::Pci { address, .. } = self else {
            return None;
        };
        let card = sysfs.join(address);
        if !card.exists() {
            let text =
                "there is no such PCI device; `dpdk-devbind.py --status-dev net` lists the cards";
            return Some(text.into());
        }
        let driver = std::fs::read_link(card.join("driver")).ok();
        let driver = driver.as_deref().and_then(Path::file_name);
        match driver.and_then(std::ffi::OsStr::to_str) {
            // mlx5 and mlx4 share the card with the kernel's driver.
            Some("vfio-pci" | "uio_pci_generic" | "igb_uio" | "mlx5_core" | "mlx4_core") => None,
            other => Some(format!(
                "it is bound to {}; take it from the kernel: modprobe vfio-pci && \
                 dpdk-devbind.py -b vfio-pci {address}",
                other.unwrap_or("no driver"),
            )),
        }
    }
}

/// `[dddd:]bb:dd.f` in hexadecimal, completed with domain 0.
fn pci_address(text: &str) -> Option<String> {
    let hex =
        |part: &str, len: usize| part.len() == len && part.bytes().all(|c| c.is_ascii_hexdigit());
    let (slot, function) = text.rsplit_once('.')?;
    let mut parts = slot.rsplit(':');
    let (device, bus) = (parts.next()?, parts.next()?);
    let domain = parts.next().unwrap_or("0000");
    let right = parts.next().is_none()
        && hex(domain, 4)
        && hex(bus, 2)
        && hex(device, 2)
        && matches!(function.as_bytes(), [b'0'..=b'7']);
    right.then(|| format!("{domain}:{bus}:{device}.{function}").to_ascii_lowercase())
}

#[cfg(test)]
mod tests;
