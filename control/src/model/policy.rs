//! In what the policies of a service or a server differ, for people.
#![forbid(unsafe_code)]

use weir_dataplane::service::{Policy, ServerPolicy};

/// Of a service: a phrase for each key, such as `persistence 300s to none`.
pub(super) fn of_service(_before: &Policy, _after: &Policy) -> Vec<String> {
    Vec::new()
}

/// Of a real server.
pub(super) fn of_server(_before: &ServerPolicy, _after: &ServerPolicy) -> Vec<String> {
    Vec::new()
}
