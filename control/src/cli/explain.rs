//! `weir explain`: what would happen to this packet, and why?
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use weir_dataplane::Proto;

use super::Output;
use super::address::address;
use super::conns;
use super::number::{clock, count};
use super::table::{Align, Table};
use crate::api::client;
use crate::api::documents::{Connection, Connections};
use crate::explain::document::{Explained, Packet, Verdict};
use crate::explain::{MAX_BYTES, Picture, Wishes, capture, explain, opening};

/// Says what would happen to a packet, and why
///
/// Asks the workers' own code: the packet goes through a copy of the running Weir, made of its
/// services, routes, neighbours and connection counts, and nothing of it reaches the network.
/// Named are the service, the scheduler's choice as a new connection would get it now, the
/// worker, the local address, the next hop and the packet as it leaves, or the drop reason; and
/// the connection that takes the packet in truth, where one stands already.
///
/// With --pcap every packet of a capture is asked about, one after the other and in its time, so
/// that connections open, answer and close. With --config nothing but a configuration file is
/// asked; no Weir need run.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    weir explain tcp 192.0.2.7:40000 10.0.0.10:80\n  \
    weir explain --config /etc/weir/weir.toml udp '[2001:db8::7]:5353' '[2001:db8::64]:53'\n  \
    weir explain --pcap in.pcap --out out.pcap\n\n\
    A packet that is dropped is explained as well as another: the exit code is 0.")]
pub(super) struct Options {
    /// tcp (a SYN), udp (an empty datagram), sctp (an INIT) or icmp (an echo request: the client's
    /// port is its identifier)
    #[arg(
        value_name = "PROTO",
        value_parser = protocol,
        required_unless_present = "pcap",
        conflicts_with = "pcap",
        requires = "service"
    )]
    protocol: Option<Proto>,
    // Not a doc comment: rustdoc takes the brackets for a link.
    #[arg(
        value_name = "CIP:PORT",
        value_parser = address,
        conflicts_with = "pcap",
        help = "Where the packet comes from: 192.0.2.7:40000, [2001:db8::7]:40000"
    )]
    client: Option<SocketAddr>,
    /// Where it goes to
    #[arg(value_name = "VIP:PORT", value_parser = address, conflicts_with = "pcap")]
    service: Option<SocketAddr>,
    /// Ask about every packet of this capture (pcap or pcapng, Ethernet)
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Write the frames that would leave the ports to this file, as pcap
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Ask this configuration file, and no running Weir
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Everything arrives on this port; else on the one with the frame's destination MAC, or
    /// towards its source
    #[arg(long, value_name = "NAME")]
    port: Option<String>,
    /// Take destination MAC addresses as they were captured: frames for others are dropped
    #[arg(long, conflicts_with = "protocol")]
    keep_macs: bool,
    #[command(flatten)]
    output: Output,
}

fn protocol(text: &str) -> Result<Proto, String> {
    let all = [Proto::Tcp, Proto::Udp, Proto::Sctp, Proto::Icmp];
    let known = all
        .into_iter()
        .find(|p| p.name().eq_ignore_ascii_case(text));
    known.ok_or_else(|| "use tcp, udp, sctp or icmp".to_owned())
}

pub(super) fn run(options: &Options, socket: &Path) -> anyhow::Result<String> {
    let wishes = Wishes {
        port: options.port.clone(),
        keep_macs: options.keep_macs,
        frames: options.out.is_some(),
    };
    let file = capture_of(options)?;
    let mut explained = match &options.config {
        Some(config) => {
            let picture = Picture::of_config(config, &crate::config::load(config)?)?;
            let packets = capture::read(&file).map_err(|e| of_file(options, &e))?;
            explain(&picture, &packets, &wishes)?
        }
        None => {
            let mut explained: Explained = client::post_bytes(socket, &target(&wishes), file)?;
            for listing in listings(options) {
                attach(
                    &mut explained,
                    client::get::<Connections>(socket, &listing)?,
                );
            }
            explained
        }
    };
    if let Some(out) = &options.out {
        write_out(out, &mut explained)?;
    }
    let one = options.pcap.is_none();
    options.output.text(&explained, |e| match one {
        true => human(e),
        false => listed(e),
    })
}

/// The capture to ask about: the file's, or one packet.
fn capture_of(options: &Options) -> anyhow::Result<Vec<u8>> {
    if let Some(path) = &options.pcap {
        let file = std::fs::read(path).with_context(|| path.display().to_string())?;
        anyhow::ensure!(
            file.len() <= MAX_BYTES,
            "{}: {} MiB; {} MiB at most are explained at once: cut it (editcap -c) or filter it",
            path.display(),
            file.len() >> 20,
            MAX_BYTES >> 20,
        );
        return Ok(file);
    }
    let (Some(proto), Some(client), Some(service)) =
        (options.protocol, options.client, options.service)
    else {
        anyhow::bail!("say PROTO CIP:PORT VIP:PORT, or --pcap FILE");
    };
    anyhow::ensure!(
        client.is_ipv4() == service.is_ipv4(),
        "{client} and {service} are of two families, and no packet is from one to the other"
    );
    let packet = opening(proto, client, service);
    Ok(capture::write([(packet.at, &*packet.frame)]))
}

fn of_file(options: &Options, problem: &dyn std::fmt::Display) -> anyhow::Error {
    let path = options.pcap.as_deref().unwrap_or(Path::new("packet"));
    anyhow::anyhow!("{} {problem}", path.display())
}

/// The request's path and query.
fn target(wishes: &Wishes) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some(port) = &wishes.port {
        query.append_pair("port", port);
    }
    query.append_pair("keep_macs", &wishes.keep_macs.to_string());
    query.append_pair("frames", &wishes.frames.to_string());
    format!("/v1/explain?{}", query.finish())
}

/// What to ask for the connections that may take the packets; who is asked about may be a client
/// or a server.
fn listings(options: &Options) -> Vec<String> {
    match options.client {
        Some(from) => vec![conns::of("client", from), conns::of("server", from)],
        None => vec![conns::all()],
    }
}

/// Notes which packets a connection of the running daemon takes.
pub(super) fn attach(explained: &mut Explained, standing: Connections) {
    if standing.more {
        let n = standing.connections.len();
        let note = format!("of the daemon's connections, only the first {n} were looked at");
        explained.assumed.push(note);
    }
    // Each under the two five-tuples of its packets.
    let mut by_ends: HashMap<(String, SocketAddr, SocketAddr), Connection> = HashMap::new();
    for c in standing.connections {
        by_ends.insert((c.protocol.clone(), c.server, c.local), c.clone());
        by_ends.insert((c.protocol.clone(), c.client, c.virtual_), c);
    }
    for packet in &mut explained.packets {
        let (Some(proto), Some(source), Some(destination)) =
            (&packet.protocol, packet.source, packet.destination)
        else {
            continue;
        };
        let ends = (proto.clone(), source, destination);
        if let Some(connection) = by_ends.get(&ends) {
            packet.existing = Some(connection.clone());
        }
    }
}

/// Writes what left the ports, and takes the bytes out of the answer again.
fn write_out(path: &Path, explained: &mut Explained) -> anyhow::Result<()> {
    let mut frames = Vec::new();
    for packet in &mut explained.packets {
        let at = Duration::from_micros(packet.at_us);
        for left in packet.out.iter_mut() {
            let digits = std::mem::take(&mut left.frame);
            if !left.to_kernel {
                frames.push((at, from_hex(&digits)?));
            }
        }
    }
    let file = capture::write(frames.iter().map(|(at, frame)| (*at, &**frame)));
    std::fs::write(path, file).with_context(|| path.display().to_string())
}

fn from_hex(digits: &str) -> anyhow::Result<Vec<u8>> {
    let bytes = digits.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair)?;
        Ok(u8::from_str_radix(pair, 16)?)
    });
    bytes.collect()
}

/// One packet, a line for each thing that is said of it.
pub(super) fn human(explained: &Explained) -> String {
    let mut text = String::new();
    for packet in &explained.packets {
        for (what, said) in lines(packet) {
            text += &format!("{what:<10}  {said}\n");
        }
    }
    text + &footnotes(explained)
}

fn lines(p: &Packet) -> Vec<(&'static str, String)> {
    let mut lines = vec![("packet", format!("{}, arrives on {}", p.packet, p.port))];
    lines.push((
        "verdict",
        match p.verdict {
            Verdict::Forwarded => "forwarded".to_owned(), // how it leaves stands below
            other => format!("{}: {}", other.name(), p.why),
        },
    ));
    if let Some(c) = &p.existing {
        lines.push((
            "existing",
            format!(
                "the connection {} -> {} at {} takes it: {}, worker w{}, {} left; the rest is what \
                 a new one would get",
                c.client,
                c.virtual_,
                c.server,
                c.state,
                c.worker,
                clock(c.expires_seconds)
            ),
        ));
    }
    if let Some(s) = &p.service {
        lines.push((
            "service",
            format!(
                "{}: {}, {} ({} of them available)",
                s.name,
                s.takes,
                count(s.servers as u64, "real server"),
                s.available
            ),
        ));
        lines.push(("scheduler", format!("{}: {}", s.scheduler, s.choice)));
    } else if p.verdict == Verdict::Kernel {
        lines.push(("service", "none".to_owned()));
    }
    if let Some(s) = &p.server {
        let weight = s
            .weight
            .map_or("leaving".to_owned(), |w| format!("weight {w}"));
        let tunnel = s.tunnel.as_ref().map_or(String::new(), |t| format!(" {t}"));
        lines.push((
            "server",
            format!(
                "{} by {}{tunnel}, {weight}, {} active and {} other connections now",
                s.address, s.forward, s.active, s.inactive
            ),
        ));
    }
    if let Some(worker) = p.owner {
        lines.push(("worker", format!("w{worker} owns the flow")));
    }
    if let Some(c) = &p.connection {
        let opened = if c.opened { "new" } else { "of this capture" };
        let local = match c.local == c.client {
            true => "the server sees the client".to_owned(),
            false => format!("the server sees {}", c.local),
        };
        lines.push((
            "connection",
            format!(
                "{opened}: {} -> {} at {}, {local}; {}, worker w{}",
                c.client, c.virtual_, c.server, c.state, c.worker
            ),
        ));
    }
    if let Some(hop) = &p.next_hop {
        lines.push((
            "next hop",
            match (&hop.port, hop.address, &hop.mac) {
                (Some(port), Some(address), Some(mac)) => {
                    format!("{address} ({mac}) behind {port}, towards {}", hop.towards)
                }
                (Some(port), Some(address), None) => format!(
                    "{address} behind {port}, towards {}; its MAC address is not known",
                    hop.towards
                ),
                _ => format!("no route towards {}", hop.towards),
            },
        ));
    }
    for left in &p.out {
        let to = if left.to_kernel {
            "to the kernel's"
        } else {
            "out of"
        };
        lines.push((
            "leaves",
            format!(
                "{to} {}, to {}, {} bytes: {}",
                left.port, left.mac, left.length, left.packet
            ),
        ));
    }
    for counter in &p.counters {
        let help = counter.help.trim_end_matches('.');
        lines.push((
            "counted",
            format!("{} + {} ({help})", counter.name, counter.value),
        ));
    }
    lines
}

/// A capture, a row for each packet.
pub(super) fn listed(explained: &Explained) -> String {
    let mut table = Table::new([
        ("NO", Align::Right),
        ("SECONDS", Align::Right),
        ("PORT", Align::Left),
        ("PACKET", Align::Left),
        ("VERDICT", Align::Left),
        ("SERVER", Align::Left),
        ("WHY", Align::Left),
    ]);
    let mut verdicts: BTreeMap<Verdict, u64> = BTreeMap::new();
    for p in &explained.packets {
        *verdicts.entry(p.verdict).or_default() += 1;
        let existing = match &p.existing {
            Some(c) => format!(
                "w{}'s connection at {} takes it; without: ",
                c.worker, c.server
            ),
            None => String::new(),
        };
        let server = p.server.as_ref().map(|s| s.address.to_string());
        table.row([
            p.number.to_string(),
            format!("{:.6}", p.at_us as f64 / 1e6),
            p.port.clone(),
            p.packet.clone(),
            p.verdict.name().to_owned(),
            server.unwrap_or_else(|| "-".to_owned()),
            format!("{existing}{}", p.why),
        ]);
    }
    let mut text = String::new();
    table.write_to(&mut text);
    let sums = verdicts.iter().map(|(v, n)| format!("{n} {}", v.name()));
    let sums: Vec<String> = sums.collect();
    let packets = count(explained.packets.len() as u64, "packet");
    text += &format!("{packets}: {}\n", sums.join(", "));
    text + &footnotes(explained)
}

/// Who was asked, and what was taken for granted.
fn footnotes(explained: &Explained) -> String {
    let mut text = format!("\nasked: {}\n", explained.source);
    for assumed in &explained.assumed {
        text += &format!("note: {assumed}\n");
    }
    text
}

#[cfg(test)]
mod tests;
