//! In what the policies of a service or a server differ, for people.
#![forbid(unsafe_code)]

use weir_dataplane::Tick;
use weir_dataplane::service::{Engine, Persistence, Policy, QuicServerId, ServerPolicy};

/// Of a service: a phrase for each key, such as `persistence 300s to none`.
pub(super) fn of_service(before: &Policy, after: &Policy) -> Vec<String> {
    let mut keys = Vec::new();
    if before.persistence != after.persistence {
        let (old, new) = (persistence(before), persistence(after));
        keys.push(format!("persistence {old} to {new}"));
    }
    if before.one_packet != after.one_packet {
        keys.push(format!(
            "one_packet {} to {}",
            before.one_packet, after.one_packet
        ));
    }
    if before.quic != after.quic {
        keys.push("quic".to_owned());
    }
    if before.access != after.access {
        let (before, after) = (access(before), access(after));
        keys.push(match before == after {
            true => format!("access ({after}, others)"),
            false => format!("access {before} to {after}"),
        });
    }
    if before.limits != after.limits {
        keys.push("limits".to_owned());
    }
    if before.snat != after.snat {
        let (old, new) = (before.snat.ports, after.snat.ports);
        keys.push(format!("to_ports {old} to {new}"));
    }
    let (old, new) = (&before.syn_proxy, &after.syn_proxy);
    if old.mode != new.mode {
        keys.push(format!(
            "syn_proxy {} to {}",
            old.mode.name(),
            new.mode.name()
        ));
    } else if old != new {
        keys.push("syn_proxy's limits".to_owned());
    }
    if before.helper != after.helper {
        let (before, after) = (before.helper.name(), after.helper.name());
        keys.push(format!("helper {before} to {after}"));
    }
    keys
}

/// An access list by its size.
fn access(policy: &Policy) -> String {
    match &policy.access {
        None => "none".to_owned(),
        Some(access) => {
            let kib = access.denied.bytes().div_ceil(1024);
            let closes = if access.closes { ", closing" } else { "" };
            format!("{} networks in {kib} KiB{closes}", access.prefixes)
        }
    }
}

/// A service's persistence, as listings show it.
pub(crate) fn persistence(policy: &Policy) -> String {
    let Some(Persistence {
        ticks,
        prefix,
        engine,
    }) = policy.persistence
    else {
        return "none".to_owned();
    };
    let engine = match engine {
        Engine::Address => "",
        Engine::Sip => " sip",
    };
    format!("{}s /{prefix}{engine}", ticks / Tick::PER_SECOND)
}

/// Of a real server.
pub(super) fn of_server(before: &ServerPolicy, after: &ServerPolicy) -> Vec<String> {
    let (old, new) = (before.thresholds, after.thresholds);
    let mut keys = Vec::new();
    if before.quic_server_id != after.quic_server_id {
        let show = |id: Option<QuicServerId>| id.map_or("none".to_owned(), |id| id.to_string());
        let (old, new) = (show(before.quic_server_id), show(after.quic_server_id));
        keys.push(format!("quic_server_id {old} to {new}"));
    }
    for (key, old, new) in [
        ("upper_threshold", old.upper, new.upper),
        ("lower_threshold", old.lower, new.lower),
    ] {
        if old != new {
            keys.push(format!("{key} {old} to {new}"));
        }
    }
    keys
}
