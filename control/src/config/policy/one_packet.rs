//! `one_packet`: each datagram is scheduled on its own, as with `ipvsadm -o`.
#![forbid(unsafe_code)]

use weir_dataplane::Proto;
use weir_dataplane::Tick;
use weir_dataplane::conn::state::{State, TimeoutChanges};

use super::super::reader::{Problems, Section};
use super::super::services::ServiceDraft;

/// How long an answer is waited for, where the service does not say itself: as long as a resolver
/// waits for its server.
const ANSWER_SECONDS: u32 = 5;

pub(super) fn read(p: &mut Problems<'_>, section: &Section<'_>) -> bool {
    section.boolean(p, "one_packet").is_some_and(|it| it.value)
}

/// Only UDP has datagrams.
pub(super) fn check(p: &mut Problems<'_>, service: &ServiceDraft<'_>) {
    if let Some(proto) = service.protocol.filter(|proto| proto.value != Proto::Udp)
        && service.policy.one_packet
    {
        let why = format!(
            "{} has no datagrams to schedule one by one; remove it, or use protocol = \"udp\" or \
             fwmark",
            proto.value
        );
        service.section.refuse(p, "one_packet", &why);
    }
}

/// The service's timeouts: a datagram's entry waits for its answer alone.
pub(in super::super) fn timeouts(one_packet: bool, mut own: TimeoutChanges) -> TimeoutChanges {
    if one_packet && !own.iter().any(|(state, _)| state == State::Udp) {
        own.set(State::Udp, Tick::seconds(ANSWER_SECONDS));
    }
    own
}
