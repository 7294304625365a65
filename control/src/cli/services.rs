//! `weir services`: what is balanced, and how it is shared out.
#![forbid(unsafe_code)]

use std::path::Path;

use super::Output;
use super::number::{bytes, grouped};
use super::table::{Align, Table};
use crate::api::client;
use crate::api::documents::{Service, Services, Snat, Traffic};

/// Lists virtual services and their real servers
///
/// A service's line sums up its servers'. FORWARD is named as in ipvsadm: Masq is NAT, Route is
/// DR, Tunnel is TUN with what `ipvsadm --tun-info` shows of it. Snat is a rule of `[[snat]]` for what
/// real servers open themselves: its lines are its pool's addresses, and IN is what the servers send.
/// STATE: `active` servers take new connections, `drained`
/// ones (weight 0) keep what they have, `leaving` ones were removed and go with their last
/// connection, `full` ones have as many connections as their threshold allows; a service shows
/// `syn-proxy` while its clients must prove themselves by SYN cookies. ACTIVE and INACT are the
/// connections standing now, counted as IPVS does (ACTIVE:
/// established or opening); CONNS, IN and OUT are totals since the daemon's start, IN from
/// clients. Below follow the thresholds of servers and the limits of services, if there are any:
/// what they allow, and how many connections and packets they refused.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(options: &Options, socket: &Path) -> anyhow::Result<String> {
    let services = client::get::<Services>(socket, "/v1/services")?;
    options.output.text(&services, human)
}

pub(super) fn human(listed: &Services) -> String {
    if listed.services.is_empty() {
        return "no services\n".to_owned();
    }
    let mut table = Table::new([
        ("SERVICE", Align::Left),
        ("ADDRESS", Align::Left),
        ("SCHED", Align::Left),
        ("FORWARD", Align::Left),
        ("WEIGHT", Align::Right),
        ("STATE", Align::Left),
        ("ACTIVE", Align::Right),
        ("INACT", Align::Right),
        ("CONNS", Align::Right),
        ("IN", Align::Right),
        ("OUT", Align::Right),
    ]);
    for service in &listed.services {
        service_rows(service, &mut table);
    }
    let mut text = String::new();
    table.write_to(&mut text);
    write_thresholds(listed, &mut text);
    write_limits(listed, &mut text);
    text
}

/// How many connections servers may have, of those that have thresholds.
fn write_thresholds(listed: &Services, text: &mut String) {
    let mut table = Table::new([
        ("SERVICE", Align::Left),
        ("SERVER", Align::Left),
        ("CONNECTIONS", Align::Right),
        ("UPPER", Align::Right),
        ("LOWER", Align::Right),
    ]);
    let mut any = false;
    for service in &listed.services {
        for server in service.servers.iter().filter(|s| s.upper_threshold > 0) {
            any = true;
            let lower = match server.lower_threshold {
                0 => (u64::from(server.upper_threshold) * 3).div_ceil(4),
                lower => lower.into(),
            };
            table.row([
                service.name.clone(),
                server.address.to_string(),
                grouped(server.traffic.active + server.traffic.inactive),
                grouped(server.upper_threshold.into()),
                grouped(lower),
            ]);
        }
    }
    if any {
        text.push('\n');
        table.write_to(text);
    }
}

/// What services and clients may have, and what was refused.
fn write_limits(listed: &Services, text: &mut String) {
    let mut table = Table::new([
        ("SERVICE", Align::Left),
        ("LIMIT", Align::Left),
        ("OF", Align::Left),
        ("MOST", Align::Right),
        ("NOW", Align::Right),
        ("REFUSED", Align::Right),
    ]);
    let mut any = false;
    for service in &listed.services {
        for limit in &service.limits {
            any = true;
            table.row([
                service.name.clone(),
                limit.limit.clone(),
                if limit.per_client {
                    "client"
                } else {
                    "service"
                }
                .to_owned(),
                grouped(limit.most),
                limit.now.map(grouped).unwrap_or_default(),
                grouped(limit.refused),
            ]);
        }
    }
    if any {
        text.push('\n');
        table.write_to(text);
    }
}

/// As ipvsadm shows it: `mh (mh-fallback,mh-port) ops`.
fn scheduler(service: &Service) -> String {
    let flags = service.scheduler_flags.join(",");
    let ops = if service.one_packet { " ops" } else { "" };
    match flags.is_empty() {
        true => format!("{}{ops}", service.scheduler),
        false => format!("{} ({flags}){ops}", service.scheduler),
    }
}

/// As ipvsadm shows it, every port as a star: `tcp 10.0.0.10:*`, `fwm 7`, `fwm 7 ipv6`.
fn address(service: &Service) -> String {
    let written = service.address.as_deref().unwrap_or_default();
    let address = match written.strip_suffix(":0") {
        Some(every_port) => format!("{every_port}:*"),
        None => written.to_owned(),
    };
    if let Some(snat) = &service.snat {
        return snat_rule(service, snat);
    }
    match (&service.protocol, service.fwmark) {
        (_, Some(mark)) if service.family == "ipv6" => format!("fwm {mark} ipv6"),
        (_, Some(mark)) => format!("fwm {mark}"),
        (Some(protocol), None) => format!("{protocol} {address}"),
        (None, None) => address,
    }
}

/// What a rule of SNAT is for: `tcp 10.1.0.0/24 -> 192.0.2.0/24 80,443`.
fn snat_rule(service: &Service, snat: &Snat) -> String {
    let protocol = service.protocol.iter().cloned();
    let mut words: Vec<String> = protocol.chain([snat.source.join(",")]).collect();
    if !snat.destination.is_empty() || !snat.ports.is_empty() {
        words.push("->".to_owned());
    }
    let rest = [&snat.destination, &snat.ports].into_iter();
    words.extend(
        rest.filter(|list| !list.is_empty())
            .map(|list| list.join(",")),
    );
    words.join(" ")
}

/// What there is to say of the service itself: that its clients have to prove themselves.
fn state(service: &Service) -> &'static str {
    match &service.syn_proxy {
        Some(proxy) if proxy.on => "syn-proxy",
        _ => "",
    }
}

fn service_rows(service: &Service, table: &mut Table<11>) {
    let mut sum = Traffic::default();
    for server in &service.servers {
        sum += server.traffic;
    }
    let [active, inactive, conns, received, sent] = traffic(&sum);
    table.row([
        service.name.clone(),
        address(service),
        scheduler(service),
        method(&service.forward, None),
        String::new(),
        state(service).to_owned(),
        active,
        inactive,
        conns,
        received,
        sent,
    ]);
    for server in &service.servers {
        let [active, inactive, conns, received, sent] = traffic(&server.traffic);
        table.row([
            String::new(),
            match &service.snat {
                Some(snat) => format!("  -> {} {}", server.address.ip(), snat.to_ports),
                None => format!("  -> {}", server.address),
            },
            String::new(),
            method(&server.forward, server.tunnel.as_deref()),
            server.weight.to_string(),
            server.state.name().to_owned(),
            active,
            inactive,
            conns,
            received,
            sent,
        ]);
    }
}

/// The forwarding method as ipvsadm names it, and what it adds with `--tun-info`.
fn method(forward: &str, tunnel: Option<&str>) -> String {
    let name = match forward {
        "fullnat" => "FullNat",
        "nat" => "Masq",
        "dr" => "Route",
        "tun" => "Tunnel",
        "local" => "Local",
        "snat" => "Snat",
        other => other, // of a newer daemon
    };
    match tunnel {
        Some(tunnel) => format!("{name} {tunnel}"),
        None => name.to_owned(),
    }
}

fn traffic(t: &Traffic) -> [String; 5] {
    [
        grouped(t.active),
        grouped(t.inactive),
        grouped(t.conns),
        bytes(t.in_bytes),
        bytes(t.out_bytes),
    ]
}
