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
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) note: String,
    pub(crate) arrives: Side,
    pub(crate) frame: Vec<u8>,
    /// The frame's L4 checksum is still to be filled in.
    pub(crate) partial: bool,
    pub(crate) out: Vec<(Side, Vec<u8>)>,
}

/// All cases; events between the steps (servers removed) are left out.
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
    Case {
        name: string(&v["case"]),
        mode: string(&v["mode"]),
        ipvsadm: list(&setup["ipvsadm"]).map(string).collect(),
        pmtu_disc: setup["sysctl"]["pmtu_disc"] != 0,
        server_mtu: setup["mtu"]["server"].as_u64().unwrap() as u16,
        steps: list(&v["steps"])
            .filter(|s| s.get("in").is_some())
            .map(step)
            .collect(),
    }
}

fn step(v: &Value) -> Step {
    Step {
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
        let line = self.ipvsadm.iter().find(|l| l.starts_with("-a"))?;
        let mut words = line.split_whitespace();
        words.find(|w| *w == option)?;
        words.next()
    }

    /// The address of the first server.
    pub(crate) fn server(&self) -> IpAddr {
        let address = self.server_option("-r").unwrap();
        address.parse::<std::net::SocketAddr>().unwrap().ip()
    }
}
