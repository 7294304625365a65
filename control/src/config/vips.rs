//! Addresses and ports as services and marking rules name them: one of each, or many.
//!
//! `10.0.0.10:80`, `10.0.0.10:8000-8999`, `10.0.0.16/28:80`, `10.0.0.10-10.0.0.20:443`,
//! `[2001:db8::/120]:80`; port 0 is every port.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use weir_dataplane::Proto;
use weir_dataplane::service::{AddressRange, PortRange, ServiceKey};

use super::scalars;
use crate::prefix;

/// What a service's `address` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Vips {
    pub(super) vips: AddressRange,
    pub(super) ports: PortRange,
}

impl Vips {
    /// The service's key.
    pub(super) fn key(&self, proto: Proto) -> ServiceKey {
        let Vips { vips, ports } = *self;
        let (vip, one) = (vips.first(), vips.steps() == 0);
        match ports {
            PortRange::ALL if one => ServiceKey::Address {
                proto,
                vip,
                port: 0,
            },
            ports if one && ports.len() == 1 => ServiceKey::Address {
                proto,
                vip,
                port: ports.first(),
            },
            ports => ServiceKey::Range { proto, vips, ports },
        }
    }

    /// The one port, where it is one.
    pub(super) fn port(&self) -> Option<u16> {
        Some(self.ports.first()).filter(|_| self.ports.len() == 1)
    }
}

impl std::fmt::Display for Vips {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.key(Proto::Tcp).address().unwrap_or_default())
    }
}

/// A service's `address`.
pub(super) fn vips(text: &str) -> Result<Vips, String> {
    let (hosts, ports) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:").unwrap_or(("", "")),
        None => text.rsplit_once(':').unwrap_or(("", "")),
    };
    let many = |text: &str| text.contains(['-', '/']);
    if !many(hosts) && !many(ports) {
        let at = scalars::endpoint(text)?;
        return Ok(Vips {
            vips: AddressRange::one(at.ip()),
            ports: match at.port() {
                0 => PortRange::ALL,
                port => PortRange::one(port),
            },
        });
    }
    let vips = addresses(hosts)?;
    scalars::unicast(vips.first()).and_then(|_| scalars::unicast(vips.last()))?;
    if vips.is_ipv6() != text.starts_with('[') {
        return Err(match vips.is_ipv6() {
            true => "IPv6 addresses go in brackets, like \"[2001:db8::/120]:80\"".to_owned(),
            false => "brackets are for IPv6; write it like \"10.0.0.16/28:80\"".to_owned(),
        });
    }
    let ports = match ports {
        "0" => PortRange::ALL,
        ports => self::ports(ports)?,
    };
    Ok(Vips { vips, ports })
}

/// An address, a network, or addresses from the first to the last.
pub(super) fn addresses(text: &str) -> Result<AddressRange, String> {
    if let Some((address, len)) = text.split_once('/') {
        let address = scalars::ip_of_any_kind(address)?;
        let most = prefix::bits(address);
        let len: Option<u8> = len.parse().ok().filter(|len| *len <= most);
        let len =
            len.ok_or_else(|| format!("{text:?} is not a network; use a length up to {most}"))?;
        let network = AddressRange::network(address, len);
        if network.first() != address {
            return Err(format!(
                "{address} is inside that network; write \"{}/{len}\" for all of it, or \"{address}\"",
                network.first()
            ));
        }
        return Ok(network);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let first = scalars::ip_of_any_kind(first.trim())?;
    let last = scalars::ip_of_any_kind(last.trim())?;
    if first.is_ipv4() != last.is_ipv4() {
        return Err("from one family to the other; write two".to_owned());
    }
    AddressRange::new(first, last)
        .ok_or_else(|| format!("the range runs backwards; write \"{last}-{first}\""))
}

/// A port, or ports from the first to the last.
pub(super) fn ports(text: &str) -> Result<PortRange, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| {
        let digits = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
        match text.parse::<u16>() {
            Ok(port) if digits && port > 0 => Ok(port),
            _ if digits => Err(format!("port {text} is out of range; use 1 to 65535")),
            _ => Err(format!("{text:?} is not a port number; use 1 to 65535")),
        }
    };
    let (first, last) = (port(first.trim())?, port(last.trim())?);
    PortRange::new(first, last)
        .ok_or_else(|| format!("the ports run backwards; write \"{last}-{first}\""))
}

/// What a service's clients ask for, as far as its real servers care.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// Whether they speak IPv6.
    pub(super) v6: bool,
    /// Their one port; `None` where they choose.
    pub(super) port: Option<u16>,
    /// The virtual addresses, where the service says them.
    pub(super) vips: Option<AddressRange>,
}

impl Wanted {
    /// An address and port to show for a server: the service's own where it has one.
    pub(super) fn example(&self, address: IpAddr) -> SocketAddr {
        SocketAddr::new(address, self.port.unwrap_or(0))
    }
}
