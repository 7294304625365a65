//! What an operator may ask of a service or a real server beside how it chooses and forwards: a
//! file for each concept, and nothing of it by default.
#![forbid(unsafe_code)]

use weir_dataplane::service::{Policy, ServerPolicy};

use super::reader::{Problems, Section};

/// Of a `[[service]]`.
pub(super) fn of_service(_: &mut Problems<'_>, _: &Section<'_>) -> Policy {
    Policy::default()
}

/// Of a `[[service.real_server]]`.
pub(super) fn of_server(_: &mut Problems<'_>, _: &Section<'_>) -> ServerPolicy {
    ServerPolicy::default()
}
