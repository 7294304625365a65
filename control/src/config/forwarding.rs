//! How packets reach real servers: `forward` and `tunnel`, of a service and of a real server of
//! its own, and what goes together.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use weir_dataplane::Mac;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::forward::tun::{GueChecksum, Tunnel};

use super::defaults;
use super::reader::{At, Key, Problems, Section};
use super::scalars;
use super::services::ServiceDraft;
use super::vips::Wanted;
use super::words::alternatives;

pub(super) const TUNNEL: &[Key] = &[
    Key::new("type", "\"gue\""),
    Key::new("port", "6080"),
    Key::new("checksum", "\"none\""),
    Key::new("vni", "7"),
    Key::new("mac", "\"02:57:0a:00:00:07\""),
];

/// The `forward` of a table.
pub(super) fn forward(p: &mut Problems<'_>, section: &Section<'_>) -> Option<ForwardMode> {
    let modes = ForwardMode::ALL.iter();
    let modes: Vec<_> = modes.filter(|m| **m != ForwardMode::snat).collect();
    let mode = section.parsed(p, "forward", |text| {
        let known = modes.iter().find(|mode| mode.name() == text);
        known.map(|mode| **mode).ok_or_else(|| {
            let why = match text {
                "snat" => "what real servers open themselves is [[snat]]'s",
                _ => "not known",
            };
            let all = alternatives(modes.iter().map(|mode| mode.name()));
            format!("{why}; use {all}")
        })
    });
    mode.map(|m| m.value)
}

/// The `tunnel` of a table. What a type has, and what it must have, is as in ipvsadm; VXLAN, which
/// that does not know, must have its network's number.
pub(super) fn tunnel(p: &mut Problems<'_>, of: &Section<'_>) -> Option<Tunnel> {
    if !of.has("tunnel") {
        return None;
    }
    let section = of.table(p, "tunnel", TUNNEL);
    if section.is_absent() {
        return None; // no table, and reported
    }
    let types: [(&str, (&str, &[&str])); 4] = [
        ("ipip", ("ipip", &[])),
        ("gre", ("gre", &["checksum"])),
        ("gue", ("gue", &["port", "checksum"])),
        ("vxlan", ("vxlan", &["port", "vni", "mac"])),
    ];
    if !section.has("type") {
        section.missing(p, "type");
    }
    let (kind, has) = section.choice(p, "type", &types, &[])?.value;
    for key in TUNNEL.iter().map(|key| key.name) {
        if key != "type" && !has.contains(&key) {
            section.refuse(
                p,
                key,
                &format!("a tunnel of type {kind:?} has none; remove it"),
            );
        }
    }
    let checksums = [
        ("none", GueChecksum::None),
        ("full", GueChecksum::Full),
        ("remote", GueChecksum::Remote),
    ];
    let mut port = || {
        section
            .integer(p, "port", 1..=65535, "")
            .map(|port| port.value as u16)
    };
    match kind {
        "ipip" => Some(Tunnel::Ipip),
        "gre" => {
            let checksum = section.choice(p, "checksum", &checksums[..2], &[]);
            let checksum = checksum.is_some_and(|c| c.value == GueChecksum::Full);
            Some(Tunnel::Gre { checksum })
        }
        "gue" => {
            let port = port();
            if !section.has("port") {
                section.missing(p, "port");
            }
            let checksum = section.choice(p, "checksum", &checksums, &[]);
            Some(Tunnel::Gue {
                port: port?,
                checksum: checksum.map_or(GueChecksum::None, |c| c.value),
            })
        }
        _ => {
            let port = port().unwrap_or(defaults::VXLAN_PORT);
            if !section.has("vni") {
                section.missing(p, "vni");
            }
            let vni = section.integer(p, "vni", defaults::VNI_RANGE, "");
            let mac: Option<At<Mac>> = section.parsed(p, "mac", scalars::mac);
            Some(Tunnel::Vxlan {
                vni: vni?.value,
                port,
                mac: mac.map(|mac| mac.value),
            })
        }
    }
}

/// What modes ask of a service and its real servers; `own` says whether an address is a port's,
/// as far as the file tells.
pub(super) fn check(
    p: &mut Problems<'_>,
    service: &ServiceDraft<'_>,
    own: impl Fn(IpAddr) -> Option<bool>,
) {
    let uses = |mode| match service.servers.is_empty() {
        true => service.forward == mode,
        false => service.servers.iter().any(|s| service.mode_of(s) == mode),
    };
    local_addresses(p, service, uses(ForwardMode::fullnat));
    if service.tunnel.is_some() && !uses(ForwardMode::tun) {
        service.section.refuse(p, "tunnel", NO_TUNNEL);
    }
    for server in &service.servers {
        let mode = service.mode_of(server);
        if server.tunnel.is_some() && mode != ForwardMode::tun {
            server.section.refuse(p, "tunnel", NO_TUNNEL);
        }
        let (Some(wanted), Some(address)) = (service.wanted(), &server.address) else {
            continue;
        };
        if let Err(why) = reaches(service, mode, wanted, address.value, &own) {
            server.section.refuse(p, "address", &why);
        }
    }
}

const NO_TUNNEL: &str = "only forward = \"tun\" sends packets through one; remove it";

/// FULL-NAT needs them, the others cannot use them.
fn local_addresses(p: &mut Problems<'_>, service: &ServiceDraft<'_>, needed: bool) {
    const KEY: &str = "local_addresses";
    let section = &service.section;
    if !needed {
        if section.elements(KEY) > 0 {
            section.refuse(p, KEY, "only forward = \"fullnat\" uses them; remove them");
        }
        return;
    }
    let wants = "FULL-NAT needs at least one";
    if !section.has(KEY) {
        let example = "local_addresses = [\"10.1.0.100-10.1.0.103\"]";
        let why = format!("{KEY} is missing; {wants}: add {example}");
        section.problem(p, section.at, &why);
    }
    section.refused_empty(p, KEY, &format!("no address; {wants}"));
}

/// Whether the packets that clients send can reach the server at `address` by this mode.
///
/// # Errors
/// Why not, and what to write instead.
fn reaches(
    service: &ServiceDraft<'_>,
    mode: ForwardMode,
    wanted: Wanted,
    address: SocketAddr,
    own: impl Fn(IpAddr) -> Option<bool>,
) -> Result<(), String> {
    let name = mode.name();
    let family = |v6: bool| if v6 { "IPv6" } else { "IPv4" };
    let same_family = wanted.v6 == address.is_ipv6();
    match mode {
        ForwardMode::fullnat => {
            // A server is spoken to from a local address of its own family.
            let locals = &service.local_addresses;
            let none = locals
                .iter()
                .all(|r| r.value.is_ipv4() != address.is_ipv4());
            if none && !locals.is_empty() {
                return Err(format!(
                    "FULL-NAT reaches it from a local address of its family; add an {} address to \
                     the service's local_addresses",
                    family(address.is_ipv6())
                ));
            }
        }
        ForwardMode::tun | ForwardMode::snat => {}
        ForwardMode::local => {
            // Marking rules may lead anything here.
            if let Some(vips) = wanted.vips
                && !vips.contains(address.ip())
                && own(address.ip()) == Some(false)
            {
                return Err(format!(
                    "forward = \"local\" is this machine itself; use the service's address, \
                     \"{}\", or a port's own",
                    wanted.example(vips.first())
                ));
            }
        }
        ForwardMode::nat | ForwardMode::dr if !same_family => {
            return Err(format!(
                "forward = {name:?} has one family on both sides; use an {} real server, or \
                 \"fullnat\" or \"tun\" for this one",
                family(wanted.v6)
            ));
        }
        ForwardMode::nat | ForwardMode::dr => {}
    }
    let right = wanted.example(address.ip());
    if !mode.maps_ports() && address != right {
        return Err(format!(
            "forward = {name:?} leaves the port as it is; use the service's, \"{right}\", or \
             \"fullnat\" or \"nat\" for this one"
        ));
    }
    Ok(())
}
