//! `quic` and `[[service.quic_lb]]`: servers found by QUIC connection ID; `quic_server_id`.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::Arc;

use weir_dataplane::Proto;
use weir_dataplane::service::{Quic, QuicLb, QuicServerId};

use super::super::reader::{At, Key, Problems, Section};
use super::super::services::ServiceDraft;

pub(in super::super) const QUIC_LB: &[Key] = &[
    Key::new("config", "0"),
    Key::new("server_id_length", "2"),
    Key::new("nonce_length", "6"),
    Key::new("key", "\"8f95f09245765f80256934e50c66207f\""),
];

/// What the service says; `None` when it says nothing of QUIC.
pub(super) fn of_service(p: &mut Problems<'_>, section: &Section<'_>) -> Option<Arc<Quic>> {
    let configs = section.tables(p, "quic_lb", QUIC_LB, |n, _| {
        format!("{}: quic_lb #{n}", section.what)
    });
    let said = section.boolean(p, "quic");
    let mut quic = Quic::default();
    for config in &configs {
        let Some((at, lb)) = config_of(p, config) else {
            continue;
        };
        let place = &mut quic.configs[usize::from(at)];
        if place.is_some() {
            config.refuse(
                p,
                "config",
                "another quic_lb of this service has it; give each its own",
            );
        }
        *place = Some(lb);
    }
    if let Some(no) = said.filter(|said| !said.value && !configs.is_empty()) {
        section.problem(
            p,
            no.at,
            "quic = false: there is a quic_lb; remove one of the two",
        );
    }
    let mut lengths = quic.configs.iter().flatten().map(QuicLb::server_id_len);
    let first = lengths.next();
    if let (Some(first), Some(config)) = (first, configs.last())
        && lengths.any(|length| length != first)
    {
        let why = format!(
            "a real server has one ID in all quic_lb of its service; use {first}, as before"
        );
        config.refuse(p, "server_id_length", &why);
    }
    let asked = said.is_some_and(|said| said.value) || !configs.is_empty();
    asked.then(|| Arc::new(quic))
}

/// One configuration and its codepoint.
fn config_of(p: &mut Problems<'_>, section: &Section<'_>) -> Option<(u8, QuicLb)> {
    for required in ["server_id_length", "nonce_length"] {
        if !section.has(required) {
            section.missing(p, required);
        }
    }
    let at = match section.has("config") {
        true => {
            section
                .integer(p, "config", 0..=6, " (7 means none)")?
                .value
        }
        false => 0,
    };
    let most = QuicServerId::LONGEST as u32;
    let id = section.integer(p, "server_id_length", 1..=most, " octets");
    let most = u32::from(QuicLb::MOST) - 1;
    let nonce = section.integer(
        p,
        "nonce_length",
        QuicLb::LEAST_NONCE.into()..=most,
        " octets",
    );
    let key = match section.has("key") {
        true => Some(section.parsed(p, "key", key)?.value),
        false => None,
    };
    let (id, nonce) = (id?.value as u8, nonce?.value as u8); // as said
    let lb = QuicLb::new(id, nonce, key);
    if lb.is_none() {
        let most = QuicLb::MOST;
        let why = format!("with the server ID of {id} there are {most} octets at most; lower one");
        section.refuse(p, "nonce_length", &why);
    }
    Some((at as u8, lb?))
}

fn key(text: &str) -> Result<[u8; 16], String> {
    let octets = hex(text).and_then(|octets| octets.try_into().ok());
    octets.ok_or_else(|| "not a key; write its 16 octets as 32 hexadecimal digits".to_owned())
}

/// What a real server says.
pub(super) fn of_server(p: &mut Problems<'_>, section: &Section<'_>) -> Option<QuicServerId> {
    let id = section.parsed(p, "quic_server_id", |text| {
        let id = hex(text).and_then(|octets| QuicServerId::new(&octets));
        id.ok_or_else(|| "not a server ID; write 1 to 15 octets like \"a001\"".to_owned())
    });
    id.map(|id: At<QuicServerId>| id.value)
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.len().is_multiple_of(2) && text.chars().all(|c| c.is_ascii_hexdigit());
    let pairs = (0..text.len()).step_by(2).map(|at| text.get(at..at + 2));
    digits.then(|| {
        pairs
            .map(|pair| u8::from_str_radix(pair?, 16).ok())
            .collect()
    })?
}

/// Only UDP carries QUIC; and every real server has an ID of its own, of the right length.
pub(super) fn check(p: &mut Problems<'_>, service: &ServiceDraft<'_>) {
    let section = &service.section;
    let quic = service.policy.quic.as_ref();
    if let Some(proto) = service.protocol.filter(|proto| proto.value != Proto::Udp)
        && quic.is_some()
    {
        let why = format!("QUIC runs over UDP, not {}; remove it", proto.value);
        section.refuse(p, "quic", &why);
        if section.has("quic_lb") {
            section.problem(p, section.at, &format!("quic_lb: {why}"));
        }
        return;
    }
    let length = quic.and_then(|quic| quic.configs.iter().flatten().next());
    let length = length.map(|config| usize::from(config.server_id_len()));
    let mut known = HashMap::new();
    for server in &service.servers {
        let section = &server.section;
        let key = "quic_server_id";
        match (length, server.policy.quic_server_id) {
            (Some(length), Some(id)) if id.octets().len() != length => {
                let why = format!("of another length than server_id_length = {length}; use that");
                section.refuse(p, key, &why);
            }
            (Some(_), Some(id)) => {
                if let Some(line) = known.insert(id, p.line(section.at)) {
                    let why = format!("another real server's (line {line}); give each its own");
                    section.refuse(p, key, &why);
                }
            }
            (Some(_), None) if !section.has(key) => section.missing(p, key),
            (None, Some(_)) => {
                section.refuse(p, key, "the service has no [[service.quic_lb]]; remove it");
            }
            _ => {}
        }
    }
}
