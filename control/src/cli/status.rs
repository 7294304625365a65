//! `weir status`: how the daemon does.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::path::Path;

use super::Output;
use super::number::{bytes, count, duration, grouped};
use super::table::{Align, Table};
use crate::api::client;
use crate::api::documents::{Status, Worker};

/// Shows how the daemon does: its workers and ports
///
/// BUSY is the share of a worker's loop turns since the start that found work; a spinning worker
/// turns millions of times a second, so a small share may be much traffic. RSS says whether a
/// port's own receive-side scaling brings each flow to the worker that owns it (`aligned`) or
/// whether workers hand packets over (`unaligned`). Below the ports stand the members of bonds:
/// STATE is `active`, `backup`, `negotiating` (no LACP with the switch yet) or `down`, LOST how often
/// a member became unfit.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(options: &Options, socket: &Path) -> anyhow::Result<String> {
    let status = client::get::<Status>(socket, "/v1/status")?;
    options.output.text(&status, human)
}

pub(super) fn human(s: &Status) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "weir {}, process {}, up {}",
        s.version,
        s.pid,
        duration(s.uptime_seconds)
    );
    let settled = if s.settled { "" } else { ", being published" };
    let _ = writeln!(
        text,
        "{}, generation {}{settled}: {}, {}, {}",
        s.config_file,
        s.generation,
        count(s.services as u64, "service"),
        count(s.routes as u64, "route"),
        count(s.neighbours as u64, "neighbour"),
    );
    let (standing, room) = (grouped(s.connections), grouped(s.max_connections));
    let _ = writeln!(text, "{standing} of {room} connections\n");
    workers(s, &mut text);
    text.push('\n');
    ports(s, &mut text);
    if s.ports.iter().any(|port| !port.members.is_empty()) {
        text.push('\n');
        members(s, &mut text);
    }
    text
}

fn workers(s: &Status, text: &mut String) {
    let mut table = Table::new([
        ("WORKER", Align::Left),
        ("CPU", Align::Right),
        ("IDLE", Align::Left),
        ("BUSY", Align::Right),
        ("CONNECTIONS", Align::Right),
        ("GENERATION", Align::Right),
    ]);
    for w in &s.workers {
        table.row([
            format!("w{}", w.worker),
            w.cpu.to_string(),
            w.idle.clone(),
            busy(w),
            grouped(w.connections),
            w.generation.to_string(),
        ]);
    }
    table.write_to(text);
}

fn link(up: bool, mbps: Option<u32>) -> String {
    match (up, mbps) {
        (false, _) => "down".to_owned(),
        (true, None) => "up".to_owned(),
        (true, Some(mbps)) => format!("up {mbps} Mbit/s"),
    }
}

/// What bonds are made of.
fn members(s: &Status, text: &mut String) {
    let mut table = Table::new([
        ("BOND", Align::Left),
        ("MEMBER", Align::Left),
        ("STATE", Align::Left),
        ("LINK", Align::Left),
        ("LOST", Align::Right),
        ("RX PACKETS", Align::Right),
        ("TX PACKETS", Align::Right),
    ]);
    for port in &s.ports {
        for member in &port.members {
            table.row([
                port.name.clone(),
                member.device.clone(),
                member.state.clone(),
                link(member.link_up, member.link_mbps),
                grouped(member.lost),
                grouped(member.rx_packets),
                grouped(member.tx_packets),
            ]);
        }
    }
    table.write_to(text);
}

fn busy(w: &Worker) -> String {
    let turns = w.busy_polls + w.idle_polls;
    if turns == 0 {
        return "-".to_owned();
    }
    format!("{:.1}%", 100.0 * w.busy_polls as f64 / turns as f64)
}

fn ports(s: &Status, text: &mut String) {
    let mut table = Table::new([
        ("PORT", Align::Left),
        ("DEVICE", Align::Left),
        ("DRIVER", Align::Left),
        ("MAC", Align::Left),
        ("LINK", Align::Left),
        ("MTU", Align::Right),
        ("RSS", Align::Left),
        ("QUEUES", Align::Right),
        ("RX PACKETS", Align::Right),
        ("RX BYTES", Align::Right),
        ("TX PACKETS", Align::Right),
        ("TX BYTES", Align::Right),
        ("TX FULL", Align::Right),
        ("RX MISSED", Align::Right),
    ]);
    for p in &s.ports {
        table.row([
            p.name.clone(),
            p.device.clone(),
            p.driver.clone(),
            p.mac.clone(),
            link(p.link_up, p.link_mbps),
            p.mtu.to_string(),
            p.alignment.clone(),
            format!("{}/{}", p.rx_queues, p.tx_queues),
            grouped(p.rx_packets),
            bytes(p.rx_bytes),
            grouped(p.tx_packets),
            bytes(p.tx_bytes),
            grouped(p.tx_full),
            grouped(p.rx_missed),
        ]);
    }
    table.write_to(text);
}
