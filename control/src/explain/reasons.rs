//! From what happened to a sentence.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use weir_dataplane::PortId;
use weir_dataplane::conn::state::Direction;
use weir_dataplane::counters::DropReason;
use weir_dataplane::forward::ForwardMode;
use weir_dataplane::packet::{self, Kind, Parsed};
use weir_dataplane::replay::Standing;
use weir_dataplane::route::{Fib, Hop};
use weir_dataplane::sched::SchedulerKind;
use weir_dataplane::service::{Asked, Service, Snapshot};

use super::document::{Packet, Verdict};
use super::reading::Reading;
use super::{Picture, describe};

/// The service that a packet which arrives on `port` asks for, or the pool of SNAT that it would
/// leave with an address of.
pub(super) fn service_for<'a>(
    snapshot: &'a Snapshot,
    fib: &Fib,
    packet: &Parsed,
    port: PortId,
) -> Option<&'a Service> {
    let (proto, from, destination) = describe::ends(packet)?;
    let asked = |port| Asked {
        proto,
        source: from.ip(),
        destination,
        port,
    };
    let used = snapshot.address_use(destination.ip());
    let leaves = || {
        let ours = used.vip || used.local || fib.is_own(destination.ip());
        let way = fib.lookup(destination.ip()).filter(|_| !ours)?;
        snapshot.snat_pool(&asked(way.hop.port))
    };
    snapshot.lookup(&asked(port)).or_else(leaves)
}

/// Where a connection's packet goes in the end.
pub(super) fn towards(snapshot: &Snapshot, standing: &Standing) -> Option<IpAddr> {
    match (standing.dir, standing.mode) {
        (Direction::Outbound, _) => Some(standing.client.ip()),
        (Direction::Inbound, ForwardMode::local) => None,
        (Direction::Inbound, ForwardMode::snat) => Some(standing.server.ip()),
        (Direction::Inbound, _) => Some(match snapshot.server(standing.server_id) {
            Some(server) => server.address.ip(), // of a tunnel, its far end
            None => standing.server.ip(),
        }),
    }
}

/// A direction's name in documents.
pub(super) fn direction(dir: Direction) -> &'static str {
    match dir {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}

/// What a scheduler's choice here says of the next connection.
pub(super) fn choice(kind: SchedulerKind) -> &'static str {
    use SchedulerKind::{
        conhash, dh, fo, lblc, lblcr, lc, mh, nq, ovf, rr, sed, sh, twos, wlc, wrr,
    };
    match kind {
        rr | wrr => "takes turns; whose turn it is each worker knows alone, so this is one of them",
        lc | wlc | sed | nq => "looks at the connections that servers have now",
        ovf => "fills the first server up to its weight; looks at the connections of now",
        fo => "takes the server with the highest weight",
        sh | mh | conhash => "chooses by the client: it gets this one while servers stay",
        dh => "chooses by the virtual address: everybody gets this one",
        lblc | lblcr => "remembers a server for the virtual address, which a worker knows alone",
        twos => "draws two servers by lot and takes the less loaded, so this is one of them",
    }
}

/// What was seen of one packet.
pub(super) struct Happened<'a> {
    pub(super) picture: &'a Picture,
    pub(super) frame: &'a [u8],
    pub(super) standing: Option<&'a Standing>,
    pub(super) changed: &'a Reading,
    /// Neighbours that were asked for and did not answer.
    pub(super) unresolved: &'a [Hop],
}

impl Happened<'_> {
    /// What became of the packet, and why; `answer` says already what left.
    pub(super) fn verdict(&self, answer: &Packet) -> (Verdict, String) {
        let generated = self.changed.of_name("generated");
        let sent = answer.out.iter().filter(|left| !left.to_kernel);
        if let Some(reason) = self.changed.reason() {
            let why = self.dropped(reason, answer);
            // Parts of what was cut and the like are made, too; then something else left.
            return match generated > 0 && sent.clone().count() as u64 == generated {
                true => (Verdict::Answered, format!("{why}; {}", leaves(answer))),
                false => (Verdict::Dropped, why),
            };
        }
        if let Some(hop) = self.unresolved.first() {
            return (Verdict::Held, self.waits_for(hop));
        }
        if answer.out.iter().any(|left| left.to_kernel) {
            return (Verdict::Kernel, self.kernels());
        }
        if sent.clone().next().is_some() {
            let answers = self.standing.is_none() && sent.count() as u64 == generated;
            return match answers {
                true => (Verdict::Answered, leaves(answer)),
                false => (Verdict::Forwarded, leaves(answer)),
            };
        }
        let waits = "waits: a fragment, and its datagram's first one has not come";
        (Verdict::Held, waits.to_owned())
    }

    fn dropped(&self, reason: DropReason, answer: &Packet) -> String {
        let help = reason.help().trim_end_matches('.');
        let mut why = format!("{} ({help})", reason.name());
        match reason {
            DropReason::NoConnection => why += &self.no_connection(answer),
            DropReason::NoServer => {
                if let Some(service) = &answer.service {
                    why += &format!(
                        ": {} of {:?}'s {} have a weight above 0",
                        service.available, service.name, service.servers
                    );
                }
            }
            DropReason::NoRoute => {
                let towards = answer.next_hop.as_ref().map(|hop| hop.towards);
                if let Some(towards) = towards {
                    why += &format!(": the kernel has none to {towards} through weir's ports");
                }
            }
            DropReason::LipExhausted => {
                why += ": of the service's local addresses, none is of the server's family or \
                        has a port left";
            }
            _ => {}
        }
        why
    }

    /// Nothing is there: or is it only that this packet opens nothing?
    fn no_connection(&self, answer: &Packet) -> String {
        match (&answer.service, answer.protocol.as_deref()) {
            (Some(service), Some("tcp")) => {
                format!(
                    ": {:?} is there, and only a SYN opens a connection",
                    service.name
                )
            }
            (Some(service), Some("sctp")) => {
                format!(": {:?} is there, and only an INIT opens one", service.name)
            }
            (None, Some(protocol)) => match answer.destination {
                Some(to) => format!(": no {protocol} service has {to}"),
                None => String::new(),
            },
            _ => String::new(),
        }
    }

    fn waits_for(&self, hop: &Hop) -> String {
        let port = self.picture.name(hop.port);
        format!(
            "waits for the MAC address of {addr} behind {port}, which the kernel is asked for; \
             dropped as neighbour_unresolved if none comes (ip neigh show {addr} dev {port})",
            addr = hop.addr
        )
    }

    fn kernels(&self) -> String {
        if self.standing.is_some() {
            return "the director itself is the real server: its kernel gets it".to_owned();
        }
        let to = describe::addresses(self.frame).map(|(_, to)| to);
        let used = to.map(|to| self.picture.snapshot.address_use(to));
        let ours = used.is_some_and(|used| used.vip || used.local);
        match (packet::parse(self.frame, true), to) {
            (_, None) => "no IP packet: the kernel's".to_owned(),
            (Ok(Parsed::Other(Kind::Icmp4 | Kind::Icmp6)), _) => {
                "ICMP about nothing that is balanced: the kernel's".to_owned()
            }
            (_, Some(to)) if !ours => {
                format!("{to} is no virtual or local address of weir's: the kernel's")
            }
            (Ok(Parsed::Other(_)), _) => "neither TCP, UDP nor SCTP: the kernel's".to_owned(),
            _ => "the kernel's".to_owned(),
        }
    }
}

/// What left, and where.
fn leaves(answer: &Packet) -> String {
    let mut left = answer.out.iter().filter(|left| !left.to_kernel);
    let Some(first) = left.next() else {
        return String::new();
    };
    let mut text = format!("leaves {} as {} to {}", first.port, first.packet, first.mac);
    match left.count() {
        0 => {}
        more => text += &format!(", and {more} more"),
    }
    text
}
