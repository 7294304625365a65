//! What would happen to a packet, and why.
//!
//! Nothing of a packet's way is written here a second time: frames are given to the workers'
//! own code ([`weir_dataplane::replay`]), made of a [`Picture`] of services, routes and
//! neighbours, and what is said is read off what they did: what left, what was counted, which
//! connection stands. So whatever a worker learns to do, `weir explain` knows.
//!
//! ```text
//! picture.rs    what is asked: a daemon's state, or a file's
//! capture.rs    pcap in, pcap out
//! reasons.rs    from what happened to a sentence
//! describe.rs   a frame in one line
//! document.rs   the answer
//! ```
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use weir_dataplane::packet::build::Packet as Made;
use weir_dataplane::packet::icmp::Echo;
use weir_dataplane::packet::{self, eth, sctp, tcp};
use weir_dataplane::replay::{Replay, Standing, To};
use weir_dataplane::route::{Fib, Hop, NeighbourId, NeighbourUpdate};
use weir_dataplane::worker::SetupError;
use weir_dataplane::{Mac, PortId, Proto, Tick};

pub(crate) mod capture;
mod describe;
pub(crate) mod document;
mod picture;
mod reading;
mod reasons;
#[cfg(test)]
pub(crate) mod tests;

use capture::Captured;
use document::{Explained, Left, NextHop, Packet, Verdict};
pub(crate) use picture::{Picture, PicturePort};
use reading::Reading;

/// Packets explained at once: some seconds of a processor's time.
pub(crate) const MAX_PACKETS: usize = 100_000;
/// Bytes of a capture explained at once.
pub(crate) const MAX_BYTES: usize = 64 << 20;

/// How a capture is to be looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// Everything arrives on this port.
    pub(crate) port: Option<String>,
    /// Destination MAC addresses are as they were captured, and decide.
    pub(crate) keep_macs: bool,
    /// The answer holds the bytes of the frames that left.
    pub(crate) frames: bool,
}

/// Why there is no explanation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExplainError {
    /// No such port.
    #[error("no port is named {name:?}; there are {}", there.join(", "))]
    NoPort {
        /// What was asked for.
        name: String,
        /// The names there are.
        there: Vec<String>,
    },
    /// Too much at once.
    #[error(
        "the capture holds {0} packets; {MAX_PACKETS} at most are explained at once: cut it \
         (editcap -c) or filter it (tcpdump -r IN -w OUT host ADDRESS)"
    )]
    TooMany(usize),
    /// The replay could not be made.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

/// The packet that opens a connection from `client` to `service`: TCP's SYN, SCTP's INIT, an empty
/// datagram of UDP.
pub(crate) fn opening(proto: Proto, client: SocketAddr, service: SocketAddr) -> Captured {
    /// Tag, window, streams each way and first TSN (RFC 9260 3.3.2).
    const INIT: [u8; 16] = [0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1];
    let packet = match proto {
        Proto::Tcp => Made::tcp(client, service, tcp::flags::SYN),
        Proto::Udp => Made::udp(client, service),
        Proto::Icmp => {
            let (asks, id) = (true, client.port());
            Made::echo(client.ip(), service.ip(), Echo { asks, id })
        }
        Proto::Sctp => Made {
            seq: 0, // an INIT's verification tag
            ..Made::sctp(client, service, &[(sctp::chunk::INIT, &INIT)])
        },
    };
    let frame = packet.build();
    Captured {
        at: Duration::ZERO,
        length: frame.len() as u32,
        frame,
    }
}

/// What becomes of these packets, one after the other, in a director that is like `picture` and
/// has seen none before.
///
/// # Errors
/// See [`ExplainError`]; that a packet is malformed is an explanation and no error.
pub(crate) fn explain(
    picture: &Picture,
    capture: &[Captured],
    wishes: &Wishes,
) -> Result<Explained, ExplainError> {
    if capture.len() > MAX_PACKETS {
        return Err(ExplainError::TooMany(capture.len()));
    }
    let port = match &wishes.port {
        None => None,
        Some(name) => Some(
            picture
                .port_named(name)
                .ok_or_else(|| ExplainError::NoPort {
                    name: name.clone(),
                    there: picture.ports.iter().map(|port| port.name.clone()).collect(),
                })?,
        ),
    };
    let mut asker = Asker::new(picture, port, wishes)?;
    let began = capture.first().map(|first| first.at).unwrap_or_default();
    let mut packets = Vec::with_capacity(capture.len());
    for (captured, number) in capture.iter().zip(1..) {
        let since = captured.at.saturating_sub(began);
        packets.push(asker.ask(captured, number, since));
    }
    let mut assumed = picture.assumed.clone();
    if asker.readdressed {
        assumed.push(
            "frames for other MAC addresses: taken as sent to the port that they arrive on; \
             --keep-macs drops them, as the port would"
                .to_owned(),
        );
    }
    Ok(Explained {
        source: picture.source.clone(),
        assumed,
        packets,
    })
}

/// A replay that is asked one packet after the other.
struct Asker<'a> {
    picture: &'a Picture,
    wishes: &'a Wishes,
    /// Where everything arrives, when that was said.
    port: Option<PortId>,
    fib: Arc<Fib>,
    replay: Replay,
    neighbours: HashMap<Hop, Mac>,
    /// A frame was given another destination MAC.
    readdressed: bool,
}

impl<'a> Asker<'a> {
    fn new(
        picture: &'a Picture,
        port: Option<PortId>,
        wishes: &'a Wishes,
    ) -> Result<Asker<'a>, ExplainError> {
        let fib = Arc::new(Fib::new(1, &picture.routes));
        let known = picture.neighbours.iter().filter_map(|n| {
            let hop = Hop {
                port: n.port,
                addr: n.addr,
            };
            Some((hop, n.mac?))
        });
        let mut replay = Replay::new(&picture.scene(&fib), Tick(0))?;
        replay.shut_out(&picture.blacklist);
        Ok(Asker {
            picture,
            wishes,
            port,
            replay,
            neighbours: known.collect(),
            fib,
            readdressed: false,
        })
    }

    fn ask(&mut self, captured: &Captured, number: u64, since: Duration) -> Packet {
        let (port, frame) = self.arriving(captured);
        let mut answer = Packet {
            number,
            at_us: since.as_micros().try_into().unwrap_or(u64::MAX),
            port: self.picture.name(port),
            packet: describe::frame(&frame),
            protocol: None,
            source: None,
            destination: None,
            verdict: Verdict::LeftOut,
            why: String::new(),
            owner: None,
            service: None,
            server: None,
            connection: None,
            existing: None,
            next_hop: None,
            out: Vec::new(),
            drops: Vec::new(),
            counters: Vec::new(),
        };
        let parsed = packet::parse(&frame, false).ok();
        if let Some((proto, source, destination)) = parsed.as_ref().and_then(describe::ends) {
            answer.protocol = Some(proto.to_string());
            (answer.source, answer.destination) = (Some(source), Some(destination));
        }
        if let Some(why) = self.left_out(captured, &frame) {
            answer.why = why;
            return answer;
        }
        let now = Tick(0).after((since.as_secs_f64() * f64::from(Tick::PER_SECOND)) as u32);
        if self.replay.now().reached(now) {
            self.replay.at(now); // a capture's clock may go back
        }
        let _ = self.replay.left(); // what time let go
        let before = Reading::of(self.replay.counters());
        let mut out = self.replay.feed(port, &frame, Default::default());
        let unresolved = self.replay.unresolved();
        if self.picture.all_answer {
            out.extend(self.introduce(&unresolved));
        }
        let changed = Reading::of(self.replay.counters()).since(&before);

        answer.owner = parsed
            .as_ref()
            .and_then(|p| self.replay.owner(p))
            .map(|c| c.0);
        let standing = parsed.as_ref().and_then(|p| self.replay.connection(p));
        let opened = changed.of_name("conns_opened") > 0;
        answer.connection = standing.map(|s| document::Standing {
            opened,
            direction: reasons::direction(s.dir).to_owned(),
            client: s.client,
            virtual_: s.virtual_,
            local: s.local,
            server: s.server,
            state: s.state.name().to_owned(),
            worker: s.worker.0,
        });
        answer.service = self.service(parsed.as_ref(), port, standing.as_ref());
        answer.server = standing.as_ref().map(|s| self.server(s, opened));
        answer.next_hop = standing.as_ref().and_then(|s| self.next_hop(s));
        answer.out = out
            .iter()
            .map(|(to, frame)| self.left(*to, frame))
            .collect();
        let missing = match self.picture.all_answer {
            true => &[],
            false => &*unresolved,
        };
        let happened = reasons::Happened {
            picture: self.picture,
            frame: &frame,
            standing: standing.as_ref(),
            changed: &changed,
            unresolved: missing,
        };
        (answer.verdict, answer.why) = happened.verdict(&answer);
        answer.drops = changed.drops();
        answer.counters = changed.others();
        answer
    }

    /// Where a captured frame arrives, and as what.
    fn arriving(&mut self, captured: &Captured) -> (PortId, Vec<u8>) {
        let mut frame = captured.frame.clone();
        let to = eth::dst(&frame);
        let by_route = || {
            let (source, _) = describe::addresses(&frame)?;
            self.fib.lookup(source).map(|way| way.hop.port)
        };
        let said = self.port.or_else(|| self.picture.port_with(to));
        let port = said.or_else(by_route).unwrap_or(PortId(0));
        let at = self.picture.ports.get(usize::from(port.0));
        if let Some(own) = at.map(|port| port.scene.mac)
            && to != own
            && !to.is_group()
            && !self.wishes.keep_macs
            && frame.len() >= eth::HEADER_LEN
        {
            // A question asked by addresses alone has no MACs, and comes the way that answers go.
            let asked = eth::src(&frame) == Mac::default() && to == Mac::default();
            self.readdressed |= !asked;
            let from = match asked {
                true => self.router_of(&frame),
                false => eth::src(&frame),
            };
            eth::set_macs(&mut frame, own, from);
        }
        (port, frame)
    }

    /// The MAC address of whoever is next on the way to a frame's source, where it is known.
    fn router_of(&self, frame: &[u8]) -> Mac {
        let source = describe::addresses(frame).map(|(source, _)| source);
        let way = source.and_then(|source| self.fib.lookup(source));
        let known = way.and_then(|way| self.neighbours.get(&way.hop));
        known.copied().unwrap_or_default()
    }

    /// Why a captured frame cannot arrive.
    fn left_out(&self, captured: &Captured, frame: &[u8]) -> Option<String> {
        let (held, length) = (captured.frame.len(), captured.length as usize);
        if held < length {
            return Some(format!(
                "the capture holds {held} of its {length} bytes; capture whole packets \
                 (tcpdump -s 0)"
            ));
        }
        let longest = self.picture.longest_frame();
        if frame.len() > longest {
            return Some(format!(
                "{} bytes, and no port takes more than {longest}; captured before the card cut \
                 it: switch segmentation offloads off where you capture (ethtool -K)",
                frame.len()
            ));
        }
        let sender = self.picture.port_with(eth::src(frame))?;
        Some(format!(
            "sent by weir itself, out of {}",
            self.picture.name(sender)
        ))
    }

    /// Lets neighbours answer that were asked for; what they let go.
    fn introduce(&mut self, unresolved: &[Hop]) -> Vec<(To, Vec<u8>)> {
        for hop in unresolved {
            let at = self.neighbours.len() as u16;
            let [high, low] = at.to_be_bytes();
            let mac = Mac([2, 0, 0, 0xff, high, low]);
            if at == NeighbourId::NONE.0 || self.neighbours.insert(*hop, mac).is_some() {
                continue;
            }
            self.replay.learn(NeighbourUpdate {
                id: NeighbourId(at),
                port: hop.port,
                addr: hop.addr,
                mac: Some(mac),
            });
        }
        self.replay.left()
    }

    fn left(&self, to: To, frame: &[u8]) -> Left {
        let (port, to_kernel) = match to {
            To::Port(port) => (port, false),
            To::Kernel(port) => (port, true),
        };
        Left {
            port: self.picture.name(port),
            to_kernel,
            packet: describe::frame(frame),
            length: frame.len(),
            mac: eth::dst(frame).to_string(),
            frame: match self.wishes.frames {
                true => frame.iter().map(|byte| format!("{byte:02x}")).collect(),
                false => String::new(),
            },
        }
    }

    fn service(
        &self,
        parsed: Option<&packet::Parsed>,
        port: PortId,
        standing: Option<&Standing>,
    ) -> Option<document::Service> {
        let snapshot = &self.picture.snapshot;
        let of_server = standing
            .and_then(|s| snapshot.server(s.server_id))
            .and_then(|server| snapshot.service(server.service));
        let service = match of_server {
            Some(service) => service,
            None => reasons::service_for(snapshot, &self.fib, parsed?, port)?,
        };
        let kind = service.scheduler.kind();
        let available = service.servers.iter().filter(|s| s.weight > 0).count();
        Some(document::Service {
            name: service.name.to_string(),
            takes: match (service.key.proto(), service.key.address()) {
                (Some(proto), Some(address)) => format!("{proto} {address}"),
                _ => service.key.to_string(),
            },
            scheduler: kind.name().to_owned(),
            choice: reasons::choice(kind).to_owned(),
            servers: service.servers.len(),
            available,
        })
    }

    fn server(&self, standing: &Standing, opened: bool) -> document::Server {
        let snapshot = &self.picture.snapshot;
        let record = snapshot.server(standing.server_id);
        let service = record.and_then(|server| snapshot.service(server.service));
        let candidate = service
            .into_iter()
            .flat_map(|service| &service.servers)
            .find(|candidate| candidate.id == standing.server_id);
        let (mut active, mut inactive) = (0u64, 0u64);
        for counters in self.replay.counters().iter().chain(&self.picture.live) {
            if let Some(cells) = counters.servers.get(standing.server_id) {
                active = active.wrapping_add(cells.active.get());
                inactive = inactive.wrapping_add(cells.inactive.get());
            }
        }
        if opened {
            // Itself it had not when it was chosen.
            match standing.state.is_active() {
                true => active = active.saturating_sub(1),
                false => inactive = inactive.saturating_sub(1),
            }
        }
        document::Server {
            address: record.map_or(standing.server, |server| server.address),
            forward: standing.mode.name().to_owned(),
            tunnel: record.and_then(|s| s.tunnelled()).map(|t| t.to_string()),
            weight: candidate.map(|candidate| candidate.weight),
            active,
            inactive,
        }
    }

    /// As the pipeline looks it up: towards the server's record inbound, the client outbound.
    fn next_hop(&self, standing: &Standing) -> Option<NextHop> {
        let towards = reasons::towards(&self.picture.snapshot, standing)?;
        let way = self.fib.lookup(towards);
        let mac = way.and_then(|way| self.neighbours.get(&way.hop));
        Some(NextHop {
            towards,
            port: way.map(|way| self.picture.name(way.hop.port)),
            address: way.map(|way| way.hop.addr),
            mac: mac.map(Mac::to_string),
        })
    }
}
