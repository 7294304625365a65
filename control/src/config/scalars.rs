//! One written value to one typed value. An error is a clause that follows the quoted value:
//! what is wrong; what to write instead.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use weir_dataplane::Mac;

use super::defaults::{MAX_LOCAL_ADDRESSES, MEMORY_RANGE, TIMEOUT_RANGE};
use super::types::{Cidr, Device};
use crate::prefix;

/// A whole number and its unit: "900s" → (900, "s").
fn quantity(text: &str) -> Option<(u64, &str)> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// Bytes: "512MiB".
pub(super) fn size(text: &str) -> Result<u64, String> {
    let shift = |unit| match unit {
        "KiB" => Some(10),
        "MiB" => Some(20),
        "GiB" => Some(30),
        "TiB" => Some(40),
        _ => None,
    };
    let read = quantity(text).and_then(|(number, unit)| Some((number, shift(unit)?)));
    let Some((number, shift)) = read else {
        let how = r#"a whole number and KiB, MiB, GiB or TiB, like "1GiB""#;
        return Err(format!("not a size; write {how}"));
    };
    let bytes = number.saturating_mul(1 << shift);
    if MEMORY_RANGE.contains(&bytes) {
        return Ok(bytes);
    }
    let (least, most) = (
        show_size(*MEMORY_RANGE.start()),
        show_size(*MEMORY_RANGE.end()),
    );
    Err(format!("out of range; use \"{least}\" to \"{most}\""))
}

/// Bits in a second: "10M"; k, M, G and T are powers of 1000.
pub(super) fn bits(text: &str) -> Result<u64, String> {
    let scale = |unit| match unit {
        "" => Some(1),
        "k" => Some(1_000),
        "M" => Some(1_000_000),
        "G" => Some(1_000_000_000),
        "T" => Some(1_000_000_000_000),
        _ => None,
    };
    let read = quantity(text).and_then(|(number, unit)| Some((number, scale(unit)?)));
    let Some((number, scale)) = read else {
        let how = r#"a whole number and k, M, G or T, like "500M" or "10G""#;
        return Err(format!("not bits a second; write {how}"));
    };
    match number.saturating_mul(scale) {
        bits @ 8_000..=10_000_000_000_000 => Ok(bits),
        _ => Err("out of range; use \"8k\" to \"10T\"".to_owned()),
    }
}

/// Bytes as [`size`] reads them, rounded up to a MiB.
pub(super) fn show_size(bytes: u64) -> String {
    let mib = bytes.div_ceil(1 << 20);
    match mib {
        _ if mib.is_multiple_of(1 << 20) => format!("{}TiB", mib >> 20),
        _ if mib.is_multiple_of(1 << 10) => format!("{}GiB", mib >> 10),
        _ => format!("{mib}MiB"),
    }
}

/// A time: "900s".
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    duration_within(text, &TIMEOUT_RANGE, r#""100ms" to "30d""#)
}

/// As [`duration`], within another range, which `words` say.
pub(super) fn duration_within(
    text: &str,
    range: &RangeInclusive<Duration>,
    words: &str,
) -> Result<Duration, String> {
    let ms_of = |unit| match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let read = quantity(text).and_then(|(number, unit)| Some((number, ms_of(unit)?)));
    let Some((number, unit_ms)) = read else {
        let how = r#"a whole number and ms, s, m, h or d, like "900s""#;
        return Err(format!("not a duration; write {how}"));
    };
    let duration = Duration::from_millis(number.saturating_mul(unit_ms));
    if range.contains(&duration) {
        Ok(duration)
    } else {
        Err(format!("out of range; use {words}"))
    }
}

/// The kernel's list of CPUs: "0-3,8". `None` when it is none.
pub(super) fn cpu_list(text: &str) -> Option<Vec<u16>> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.parse::<u16>().ok()?..=last.parse().ok()?);
    }
    Some(cpus)
}

/// The name of a network interface that Weir makes, as the kernel and its tools take it.
pub(super) fn interface(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if text.is_empty() || text.len() > 15 {
        return Err(format!(
            "an interface name of {} characters; use 1 to 15",
            text.chars().count()
        ));
    }
    if let Some(bad) = text.chars().find(|c| !allowed(*c)) {
        return Err(format!(
            "{bad:?} in an interface name; use letters, digits, '.', '_' and '-'"
        ));
    }
    // "lo" is there already, the others are directories of /proc/sys/net/ipv4/conf or the
    // file system's own.
    if matches!(text, "." | ".." | "lo" | "all" | "default") {
        return Err("taken by the system; choose another name, like \"wan0\"".to_owned());
    }
    Ok(text.to_owned())
}

/// A label for people and metrics.
pub(super) fn label(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
    if text.is_empty() || text.chars().count() > 64 {
        return Err(format!(
            "a name of {} characters; use 1 to 64",
            text.chars().count()
        ));
    }
    match text.chars().find(|c| !allowed(*c)) {
        Some(bad) => {
            let set = "letters, digits, '.', '_', ':', '/' and '-'";
            Err(format!("{bad:?} in a name; use {set}"))
        }
        None => Ok(text.to_owned()),
    }
}

/// A machine's Ethernet address: "02:57:0a:00:00:07".
pub(super) fn mac(text: &str) -> Result<Mac, String> {
    let byte = |part: &str| {
        let hex = part.len() == 2 && part.chars().all(|c| c.is_ascii_hexdigit());
        hex.then(|| u8::from_str_radix(part, 16).ok())?
    };
    let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
    let mac = bytes.and_then(|bytes| bytes.try_into().ok()).map(Mac);
    match mac {
        Some(mac) if mac.is_group() => Err(format!("{text} is a group's; use one machine's")),
        Some(Mac([0, 0, 0, 0, 0, 0])) => Err("nobody's; use one machine's".to_owned()),
        Some(mac) => Ok(mac),
        None => Err("not a MAC address; write one like \"02:57:0a:00:00:07\"".to_owned()),
    }
}

/// A PCI address or a DPDK virtual device, arguments included.
pub(super) fn device(text: &str) -> Result<Device, String> {
    let (name, arguments) = match text.split_once(',') {
        Some((name, arguments)) => (name, Some(arguments)),
        None => (text, None),
    };
    let bad = arguments.into_iter().flat_map(|a| a.split(',')).find(|a| {
        let (key, value) = a.split_once('=').unwrap_or((a, "-"));
        key.is_empty() || value.is_empty() || a.contains(char::is_whitespace)
    });
    if let Some(bad) = bad {
        return Err(format!(
            "{bad:?} is not a device argument; write key=value, without blanks"
        ));
    }
    if let Some(pci) = pci_address(name) {
        let tail = arguments.map(|a| format!(",{a}")).unwrap_or_default();
        return Ok(Device::Pci(pci + &tail));
    }
    let driver = name.strip_prefix("net_").unwrap_or_default();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if driver.starts_with(|c: char| c.is_ascii_lowercase()) && driver.chars().all(plain) {
        return Ok(Device::Vdev(text.to_owned()));
    }
    let pci = r#"a PCI address like "0000:3b:00.0""#;
    let vdev = r#"a DPDK virtual device like "net_tap0,iface=dt0""#;
    Err(format!("not a device; write {pci} or {vdev}"))
}

/// "3b:00.0" or "0000:3B:00.0" → "0000:3b:00.0", as EAL names it.
fn pci_address(text: &str) -> Option<String> {
    let number = |text: &str, digits: usize| {
        let hex = text.len() == digits && text.chars().all(|c| c.is_ascii_hexdigit());
        hex.then(|| u32::from_str_radix(text, 16).ok())?
    };
    let (rest, function) = text.rsplit_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0000", rest));
    let domain = number(domain, 4)?;
    let bus = number(bus, 2)?;
    let device = number(device, 2).filter(|d| *d < 32)?;
    let function = number(function, 1).filter(|f| *f < 8)?;
    Some(format!("{domain:04x}:{bus:02x}:{device:02x}.{function:x}"))
}

/// An address that one host can have and others can reach.
pub(super) fn unicast(address: IpAddr) -> Result<IpAddr, String> {
    let kind = match address {
        IpAddr::V4(v4) => match v4.octets()[0] {
            0 => "of \"this\" network",
            127 => "a loopback address",
            224..=239 => "a multicast address",
            240..=255 => "reserved or broadcast",
            _ => return Ok(address),
        },
        IpAddr::V6(v6) if v6.is_unspecified() => "the unspecified address",
        IpAddr::V6(v6) if v6.is_loopback() => "a loopback address",
        IpAddr::V6(v6) if v6.is_multicast() => "a multicast address",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => "of one link only",
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => return Err(format!("{address} is an IPv4 address; write \"{v4}\"")),
            None => return Ok(address),
        },
    };
    Err(format!("{address} is {kind}; use a unicast address"))
}

fn ip(text: &str) -> Result<IpAddr, String> {
    unicast(ip_of_any_kind(text)?)
}

/// Any address that can be written.
pub(super) fn ip_of_any_kind(text: &str) -> Result<IpAddr, String> {
    match text.parse() {
        Ok(address) => Ok(address),
        Err(_) => Err(format!(
            "{text:?} is not an IP address; write one like \"10.0.0.10\" or \"2001:db8::10\""
        )),
    }
}

/// Address and port: `10.0.0.10:80`, `[2001:db8::10]:80`.
pub(super) fn endpoint(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        let example = SocketAddr::new(unicast(address)?, 80);
        return Err(match address {
            IpAddr::V4(_) => format!("no port; write address and port, like \"{example}\""),
            IpAddr::V6(_) => format!(
                "no port; write the IPv6 address in brackets and the port, like \"{example}\""
            ),
        });
    }
    let (address, port) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let parts = bracketed.split_once("]:");
            let (address, port) = parts
                .ok_or("not an IPv6 address and port; write them like \"[2001:db8::10]:80\"")?;
            if address.parse::<Ipv6Addr>().is_err() {
                return Err(format!(
                    "{address:?} is not an IPv6 address; write one like \"[2001:db8::10]:80\""
                ));
            }
            (address, port)
        }
        None => text
            .rsplit_once(':')
            .ok_or("not an address and port; write them like \"10.0.0.10:80\"")?,
    };
    let address = ip(address)?;
    let digits = !port.is_empty() && port.chars().all(|c| c.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(port) if digits => Ok(SocketAddr::new(address, port)),
        _ if digits => Err(format!("port {port} is out of range; use 0 to 65535")),
        _ => Err(format!("{port:?} is not a port number; use 0 to 65535")),
    }
}

/// A host's address in its network: "10.0.0.2/24", "2001:db8::2/64".
pub(super) fn cidr(text: &str) -> Result<Cidr, String> {
    let Some((address, prefix)) = text.split_once('/') else {
        let address = ip(text)?;
        let usual = if address.is_ipv4() { 24 } else { 64 };
        return Err(format!(
            "no prefix length; write \"{address}/{usual}\" for a /{usual} network"
        ));
    };
    let address = ip(address)?;
    let most = prefix::bits(address);
    let length = prefix.parse().ok().filter(|n| (1..=most).contains(n));
    let Some(length) = length else {
        return Err(format!(
            "{prefix:?} is not a prefix length; use 1 to {most}"
        ));
    };
    let cidr = Cidr {
        address,
        prefix: length,
    };
    let special = |what| {
        let network = prefix::network(address, length);
        let example = prefix::address(prefix::number(network) + 1, address);
        Err(format!(
            "{address} is the network's {what}; write a host's, like \"{example}/{length}\""
        ))
    };
    if cidr.network() == Some(address) {
        special("own address")
    } else if cidr.broadcast() == Some(address) {
        special("broadcast address")
    } else {
        Ok(cidr)
    }
}

/// Addresses of one family from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    first: IpAddr,
    last: IpAddr,
}

impl Range {
    /// At most [`MAX_LOCAL_ADDRESSES`].
    pub(super) fn len(&self) -> usize {
        (prefix::number(self.last) - prefix::number(self.first)) as usize + 1
    }

    pub(super) fn is_ipv4(&self) -> bool {
        self.first.is_ipv4()
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let family = self.first;
        let numbers = prefix::number(self.first)..=prefix::number(self.last);
        numbers.map(move |n| prefix::address(n, family))
    }
}

/// One address, or a range of them: "10.1.0.100-10.1.0.103".
pub(super) fn range(text: &str) -> Result<Range, String> {
    let Some((first, last)) = text.split_once('-') else {
        if text.contains('/') {
            let how = r#"a range, like "10.1.0.100-10.1.0.103""#;
            return Err(format!("networks are not taken here; write {how}"));
        }
        let address = ip(text)?;
        return Ok(Range {
            first: address,
            last: address,
        });
    };
    let (first, last) = (ip(first.trim())?, ip(last.trim())?);
    if first.is_ipv4() != last.is_ipv4() {
        return Err("from one family to the other; write two entries".to_owned());
    }
    let steps = prefix::number(last).checked_sub(prefix::number(first));
    let Some(steps) = steps else {
        return Err(format!(
            "the range runs backwards; write \"{last}-{first}\""
        ));
    };
    if steps >= MAX_LOCAL_ADDRESSES as u128 {
        let len = steps.saturating_add(1);
        return Err(format!(
            "{len} addresses; a service takes at most {MAX_LOCAL_ADDRESSES}"
        ));
    }
    Ok(Range { first, last })
}
