//! A second opinion on frames: Wireshark's dissectors, as `tshark`.
// Each test binary uses its own part.
#![allow(dead_code)]

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};

/// Severities from "warning" on (`_ws.expert.severity`).
const WARNING: u32 = 0x60_0000;

/// What tshark finds wrong with each of these Ethernet frames by itself: malformed, a checksum, or
/// any remark from warning on. One line each, with the frame's place. `None`, and said so, where
/// there is no tshark.
pub(crate) fn complaints(frames: &[Vec<u8>]) -> Option<Vec<String>> {
    // Every checksum is looked at; a frame is judged alone, not as a part of a TCP stream.
    let options = [
        "ip.check_checksum:TRUE",
        "tcp.check_checksum:TRUE",
        "udp.check_checksum:TRUE",
        "sctp.checksum:CRC 32c",
        "tcp.analyze_sequence_numbers:FALSE",
        "ip.defragment:TRUE",
        "ipv6.defragment:TRUE",
        "tcp.desegment_tcp_streams:FALSE",
    ];
    // What the payload would be is not the balancer's to say.
    let payloads = ["http", "dns", "mdns", "data-text-lines"];
    let fields = [
        "frame.number",
        "_ws.expert.severity",
        "_ws.expert.message",
        "_ws.malformed",
        "icmp.checksum.status",
        "icmpv6.checksum.status",
    ];
    let mut command = Command::new("tshark");
    command.args(["-n", "-r", "-", "-T", "fields", "-E", "aggregator=|"]);
    command.args(options.iter().flat_map(|o| ["-o", o]));
    command.args(payloads.iter().flat_map(|p| ["--disable-protocol", p]));
    command.args(fields.iter().flat_map(|f| ["-e", f]));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) => {
            println!("no tshark ({e}): nothing is judged; apt-get install tshark");
            return None;
        }
    };
    let mut stdin = child.stdin.take().unwrap();
    let file = pcap(frames);
    let feeder = std::thread::spawn(move || stdin.write_all(&file));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tshark: {errors}");
    assert_eq!(said.lines().count(), frames.len(), "tshark: {errors}");
    Some(
        said.lines()
            .filter_map(|line| complaint(line, frames))
            .collect(),
    )
}

fn complaint(line: &str, frames: &[Vec<u8>]) -> Option<String> {
    let mut fields = line.split('\t');
    let mut next = || fields.next().unwrap_or_default();
    let (number, severities, messages, malformed) = (next(), next(), next(), next());
    let at = number.parse::<usize>().unwrap() - 1;
    let icmp = [next(), next()].concat();
    let severities = severities.split('|').filter_map(|s| s.parse::<u32>().ok());
    let wrong: Vec<&str> = severities
        .zip(messages.split('|'))
        .filter(|(severity, _)| *severity >= WARNING)
        .map(|(_, message)| message)
        // Of an error the ICMP checksum counts: what it quotes is cut off anywhere, and tshark
        // computes checksums and lengths of that all the same.
        .filter(|_| icmp.is_empty())
        .filter(|message| !is_in_order(message, &frames[at]))
        .chain((!malformed.is_empty()).then_some("malformed"))
        .chain((icmp.starts_with('0')).then_some("bad ICMP checksum"))
        .collect();
    (!wrong.is_empty()).then(|| {
        let head = &frames[at][..frames[at].len().min(120)];
        format!("{at}: {}: {head:02x?}", wrong.join("; "))
    })
}

/// What tshark remarks on, and is as it should be.
fn is_in_order(message: &str, frame: &[u8]) -> bool {
    match message {
        "Connection reset (RST)" => true,
        // Tunnels over IPv6 may go without (RFC 6935), and ipvsadm's `--tun-nocsum` asks for it.
        "Illegal checksum value (0)" => frame[56..58] == 6080u16.to_be_bytes(),
        _ => false,
    }
}

fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let header = PcapHeader {
        datalink: DataLink::ETHERNET,
        ..PcapHeader::default()
    };
    let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
    for frame in frames {
        let packet = PcapPacket::new(Duration::ZERO, frame.len() as u32, frame);
        writer.write_packet(&packet).unwrap();
    }
    writer.into_writer()
}

/// Asserts that tshark finds nothing wrong with any of these frames.
pub(crate) fn assert_content(frames: &[Vec<u8>]) {
    for frame in frames {
        let parsed = weir_dataplane::packet::parse(frame, false);
        assert!(parsed.is_ok(), "{parsed:?}: {frame:02x?}");
    }
    if let Some(wrong) = complaints(frames) {
        for wrong in &wrong {
            println!("{wrong}");
        }
        assert_eq!(wrong.len(), 0, "of {} frames", frames.len());
        println!("tshark is content with {} frames", frames.len());
    }
}
