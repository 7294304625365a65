//! `persistence` of a service.
#![forbid(unsafe_code)]

use weir_dataplane::service::{Engine, Persistence};
use weir_dataplane::{Proto, Tick};

use super::super::reader::{Key, Problems, Section};
use super::super::scalars;
use super::About;

pub(in super::super) const PERSISTENCE: &[Key] = &[
    Key::new("timeout", "\"360s\""),
    Key::new("netmask", "32"),
    Key::new("engine", "\"address\""),
];

/// What `ipvsadm -p` without a number says, seconds.
const DEFAULT_TIMEOUT: u32 = 360;

/// The `persistence` of a service; none without the key.
pub(super) fn persistence(
    p: &mut Problems<'_>,
    of: &Section<'_>,
    about: About,
) -> Option<Persistence> {
    if !of.has("persistence") {
        return None;
    }
    let section = of.table(p, "persistence", PERSISTENCE);
    if section.is_absent() {
        return None; // no table, and reported
    }
    let timeout = section.parsed(p, "timeout", scalars::duration);
    let ticks = timeout.map_or(Tick::seconds(DEFAULT_TIMEOUT), |timeout| {
        (timeout.value.as_millis() * u128::from(Tick::PER_SECOND) / 1000) as u32 // 30 days at most
    });
    let bits = if about.v6 == Some(true) { 128 } else { 32 };
    let netmask = section.integer(p, "netmask", 1..=bits, " leading bits");
    let engines = [("address", Engine::Address), ("sip", Engine::Sip)];
    let engine = section.choice(p, "engine", &engines, &[]);
    let is_sip = engine.as_ref().is_some_and(|e| e.value == Engine::Sip);
    if is_sip && about.protocol != Some(Proto::Udp) {
        let why = "reads Call-IDs of SIP over UDP; for a service with protocol = \"udp\"";
        section.refuse(p, "engine", why);
    }
    Some(Persistence {
        ticks,
        prefix: netmask.map_or(bits, |n| n.value) as u8, // at most 128, checked
        engine: engine.map_or(Engine::Address, |e| e.value),
    })
}
