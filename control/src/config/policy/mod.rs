//! What an operator may ask of a service or a real server beside how it chooses and forwards: a
//! file for each concept, and nothing of it by default.
#![forbid(unsafe_code)]

pub(super) mod access;
mod helper;
pub(super) mod limits;
mod one_packet;
mod quic;
pub(super) mod syn_proxy;
mod thresholds;

pub(super) use helper::helper;
use weir_dataplane::Proto;
use weir_dataplane::helper::Helper;
use weir_dataplane::service::{Policy, ServerPolicy, SnatPool};

use super::reader::{Problems, Section};
use super::services::ServiceDraft;

pub(super) use one_packet::timeouts;
#[cfg(test)]
pub(super) use quic::QUIC_LB;

pub(super) mod persistence;

/// What else is known of a service when its policy is read; `None` where that is missing or wrong.
#[derive(Debug, Clone, Copy)]
pub(super) struct About {
    /// Whether its clients speak IPv6.
    pub(super) v6: Option<bool>,
    /// Its protocol; none with `fwmark`.
    pub(super) protocol: Option<Proto>,
}

/// Of a `[[service]]`.
pub(super) fn of_service(p: &mut Problems<'_>, section: &Section<'_>, about: About) -> Policy {
    Policy {
        persistence: persistence::persistence(p, section, about),
        one_packet: one_packet::read(p, section),
        quic: quic::of_service(p, section),
        access: None, // resolved when all of the file is read
        limits: limits::limits(p, section),
        syn_proxy: syn_proxy::syn_proxy(p, section),
        snat: SnatPool::default(),
        helper: Helper::none, // depends on the servers: see `helper`
    }
}

/// Of a `[[service.real_server]]`.
pub(super) fn of_server(p: &mut Problems<'_>, section: &Section<'_>) -> ServerPolicy {
    ServerPolicy {
        thresholds: thresholds::thresholds(p, section),
        quic_server_id: quic::of_server(p, section),
        ..ServerPolicy::default()
    }
}

/// What goes together with the rest of the service.
pub(super) fn check(p: &mut Problems<'_>, service: &ServiceDraft<'_>) {
    one_packet::check(p, service);
    quic::check(p, service);
}
