//! How much a service and each of its clients may have: `[service.limits]`.
#![forbid(unsafe_code)]

use weir_dataplane::service::{Excess, Limits, Rates};

use super::super::reader::{Key, Problems, Section};
use super::super::scalars;

const LIMITS: &[Key] = &[
    Key::new("connections", "10_000"),
    Key::new("connections_per_second", "1_000"),
    Key::new("packets_per_second", "100_000"),
    Key::new("bits_per_second", "\"10G\""),
    Key::new("excess", "\"drop\""),
    Key::new("per_client", "{ connections = 100 }"),
];
const PER_CLIENT: &[Key] = &[
    Key::new("connections", "100"),
    Key::new("connections_per_second", "10"),
    Key::new("packets_per_second", "1_000"),
    Key::new("bits_per_second", "\"10M\""),
    Key::new("prefix_ipv4", "32"),
    Key::new("prefix_ipv6", "64"),
];

/// The `limits` of a service.
pub(in crate::config) fn limits(p: &mut Problems<'_>, service: &Section<'_>) -> Limits {
    let section = service.table(p, "limits", LIMITS);
    let clients = section.table(p, "per_client", PER_CLIENT);
    let default = Limits::default();
    let excesses = [("drop", Excess::Drop), ("reset", Excess::Reset)];
    let excess = section.choice(p, "excess", &excesses, &[]);
    let mut prefix = |key, most, default| {
        let bits = clients.integer(p, key, 1..=most, " bits");
        bits.map_or(default, |bits| bits.value as u8) // at most 128, checked
    };
    let (prefix4, prefix6) = (
        prefix("prefix_ipv4", 32, default.prefix4),
        prefix("prefix_ipv6", 128, default.prefix6),
    );
    Limits {
        service: rates(p, &section),
        client: rates(p, &clients),
        prefix4,
        prefix6,
        excess: excess.map_or(default.excess, |e| e.value),
    }
}

fn rates(p: &mut Problems<'_>, section: &Section<'_>) -> Rates {
    let mut number = |key, unit| {
        let number = section.integer(p, key, 1..=u32::MAX, unit);
        number.map_or(0, |n| n.value)
    };
    let connections = number("connections", " connections");
    let opened = number("connections_per_second", " connections a second");
    let packets = number("packets_per_second", " packets a second");
    let bits = section.parsed(p, "bits_per_second", scalars::bits);
    Rates {
        connections,
        connections_per_second: opened.into(),
        packets_per_second: packets.into(),
        bits_per_second: bits.map_or(0, |bits| bits.value),
    }
}
