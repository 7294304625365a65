//! Which service a packet without a connection wants, and whether one may begin with it.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use super::open::{First, Refusal};
use super::syn_proxy::may_prove;
use crate::conn::state::{sctp, tcp};
use crate::packet::{Flow, Key, ipv4, ipv6};
use crate::service::{Asked, Service, Snapshot};
use crate::types::{PortId, Proto};

/// Whether no packet may come from there.
pub(super) fn bad_source(from: SocketAddr) -> bool {
    match from {
        SocketAddr::V4(from) => ipv4::bad_source(u32::from(*from.ip())),
        SocketAddr::V6(from) => ipv6::bad_source(u128::from(*from.ip())),
    }
}

/// The service that a packet without a connection may open one to.
#[inline(always)]
pub(super) fn wanted_service<'a, K: Key>(
    snapshot: &'a Snapshot,
    first: First<'_>,
    flow: &Flow<K>,
) -> Result<&'a Service, Refusal> {
    let exact = match snapshot.has_marks() {
        true => None,
        false => snapshot.addressed_exactly(flow.key.proto(), flow.key.destination()),
    };
    let service = match exact {
        Some(service) => service,
        None => wanted_otherwise(snapshot, first.port, &flow.key)?,
    };
    let proves = || flow.key.proto() == Proto::Tcp && may_prove(service, flow.says);
    if may_open(snapshot, flow) || proves() {
        Ok(service)
    } else {
        Err(Refusal::NoConnection)
    }
}

/// The same where a mark may lead to one, or a part of the address.
#[inline(never)]
fn wanted_otherwise<'a, K: Key>(
    snapshot: &'a Snapshot,
    port: PortId,
    key: &K,
) -> Result<&'a Service, Refusal> {
    let to = key.destination();
    let asked = Asked {
        proto: key.proto(),
        source: key.source().ip(),
        destination: to,
        port,
    };
    let exact = || snapshot.addressed_exactly(key.proto(), to);
    if let Some(service) = snapshot.marked(&asked).or_else(exact) {
        return Ok(service);
    }
    let used = snapshot.address_use(to.ip());
    if !used.vip && !used.local {
        return Err(Refusal::Kernel);
    }
    snapshot.addressed(&asked).ok_or(Refusal::NoConnection)
}

/// Whether a packet is one that a conversation begins with.
pub(super) fn may_open<K: Key>(snapshot: &Snapshot, flow: &Flow<K>) -> bool {
    let rules = &snapshot.rules;
    match flow.key.proto() {
        Proto::Tcp => tcp::opens(flow.says, rules.sloppy_tcp),
        Proto::Udp | Proto::Icmp => true,
        Proto::Sctp => sctp::opens(sctp::Event::of_says(flow.says), rules.sloppy_sctp),
    }
}
