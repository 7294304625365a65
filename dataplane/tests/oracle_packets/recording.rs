//! The recorded cases as Rust.

use std::io::Read;
use std::net::IpAddr;

use serde_json::Value;

const CASES: &[u8] = include_bytes!("../data/packets.jsonl.gz");

/// One of the director's two interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) mode: String,
    /// Lines for ipvsadm, in order.
    pub(crate) ipvsadm: Vec<String>,
    pub(crate) pmtu_disc: bool,
    /// Of the link to the servers.
    pub(crate) server_mtu: u16,
    pub(crate) client_mtu: u16,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) note: String,
    /// The servers were removed just before.
    pub(crate) servers_removed: bool,
    pub(crate) arrives: Side,
    pub(crate) frame: Vec<u8>,
    /// The frame's L4 checksum is still to be filled in.
    pub(crate) partial: bool,
    pub(crate) out: Vec<(Side, Vec<u8>)>,
}

/// All cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(CASES)
        .read_to_string(&mut text)
        .unwrap();
    let cases: Vec<_> = text.lines().map(case).collect();
    assert_eq!(cases.len(), 214);
    cases
}

fn case(text: &str) -> Case {
    let v: Value = serde_json::from_str(text).unwrap();
    let setup = &v["setup"];
    let mtu = |link| setup["mtu"][link].as_u64().unwrap() as u16;
    Case {
        name: string(&v["case"]),
        mode: string(&v["mode"]),
        ipvsadm: list(&setup["ipvsadm"]).map(string).collect(),
        pmtu_disc: setup["sysctl"]["pmtu_disc"] != 0,
        server_mtu: mtu("server"),
        client_mtu: mtu("client"),
        steps: steps(&v["steps"]),
    }
}

fn steps(v: &Value) -> Vec<Step> {
    let mut removed = false;
    let mut steps = Vec::new();
    for v in list(v) {
        if v.get("in").is_none() {
            assert_eq!(v["event"], "servers removed");
            removed = true;
            continue;
        }
        steps.push(step(v, std::mem::take(&mut removed)));
    }
    steps
}

fn step(v: &Value, servers_removed: bool) -> Step {
    Step {
        servers_removed,
        note: v["note"].as_str().unwrap_or_default().to_owned(),
        arrives: side(&v["in"]["if"]),
        frame: bytes(&v["in"]["frame"]),
        partial: v["in"].get("partial_checksum").is_some(),
        out: list(&v["out"])
            .map(|o| (side(&o["if"]), bytes(&o["frame"])))
            .collect(),
    }
}

fn side(v: &Value) -> Side {
    match v.as_str() {
        Some("client") => Side::Client,
        Some("server") => Side::Server,
        _ => panic!("interface {v}"),
    }
}

fn list(v: &Value) -> impl Iterator<Item = &Value> {
    v.as_array().unwrap().iter()
}

fn string(v: &Value) -> String {
    v.as_str().unwrap().to_owned()
}

fn bytes(v: &Value) -> Vec<u8> {
    let hex = v.as_str().unwrap().as_bytes();
    let digit = |d: u8| (d as char).to_digit(16).unwrap() as u8;
    hex.chunks(2)
        .map(|d| digit(d[0]) << 4 | digit(d[1]))
        .collect()
}

impl Case {
    /// The value of an option of the first line that adds a server.
    pub(crate) fn server_option(&self, option: &str) -> Option<&str> {
        option_of(self.ipvsadm.iter().find(|l| l.starts_with("-a"))?, option)
    }

    /// The address of the first server.
    pub(crate) fn server(&self) -> IpAddr {
        let address = self.server_option("-r").unwrap();
        address.parse::<std::net::SocketAddr>().unwrap().ip()
    }
}

/// The value of an option in a line for ipvsadm.
pub(crate) fn option_of<'a>(line: &'a str, option: &str) -> Option<&'a str> {
    let mut words = line.split_whitespace();
    words.find(|w| *w == option)?;
    words.next()
}
