//! The rows as Rust, with the packets' names resolved.

use std::io::Read;

use serde_json::Value;
use weir_dataplane::conn::state::{Direction, Rules, Standing, State};
use weir_dataplane::packet::sctp::Event;
use weir_dataplane::packet::tcp::flags;

const ROWS: &[u8] = include_bytes!("../data/tcp_states.jsonl.gz");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proto {
    Tcp,
    Udp,
    Sctp,
}

#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// As recorded; what a failure shows.
    pub(crate) text: String,
    /// NAT: answers pass the director. DR and TUN: they do only if the row says so.
    pub(crate) one_way: bool,
    pub(crate) rules: Rules,
    /// Instead of a path: the state that a sync message set.
    pub(crate) synced: Option<State>,
    pub(crate) path: Vec<Packet>,
    pub(crate) from: Option<Seen>,
    pub(crate) packet: Packet,
    pub(crate) to: Option<Seen>,
    /// Whether the packet made a connection. `None` for four rows, during which the machine
    /// that was recorded counted others' connections too.
    pub(crate) new: Option<bool>,
    /// How the packet left; and, of the reuse rows with a server weighted 0 or removed, what
    /// the same packet did once more, and once more with the server back.
    pub(crate) out: Out,
    pub(crate) again: Vec<(Out, Option<Seen>)>,
    server: Option<String>,
}

/// Where a packet went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Out {
    /// Nowhere.
    Nowhere,
    /// To the server of this number.
    Server(u64),
    /// To the client, from the virtual address.
    Client,
    /// To the client as the server sent it: there was no connection to translate it by.
    Untranslated,
    /// The client got a TCP reset, or word that nobody speaks the protocol.
    Refused,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet {
    pub(crate) dir: Direction,
    pub(crate) what: What,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum What {
    Flags(u8),
    Datagram,
    /// Of an SCTP packet: its first chunk's type, and whether DATA follows in the same packet.
    Chunk(u8, bool),
}

/// A connection as the kernel showed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) state: State,
    /// Seconds; `None` where the recording could not tell.
    pub(crate) timeout: Option<u32>,
    /// `None` where it was not looked at.
    pub(crate) active: Option<bool>,
    /// Its server, where there are two.
    pub(crate) rs: Option<u64>,
}

pub(crate) fn rows() -> Vec<Row> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(ROWS)
        .read_to_string(&mut text)
        .unwrap();
    let rows: Vec<_> = text.lines().map(row).collect();
    assert_eq!(rows.len(), 4_443);
    rows
}

fn row(text: &str) -> Row {
    let v: Value = serde_json::from_str(text).unwrap();
    let path = v["path"].as_array().unwrap();
    let sctp = v["test"] == "sctp";
    let proto = match v["test"].as_str().unwrap() {
        "tcp" | "reuse" => Proto::Tcp,
        "udp" => Proto::Udp,
        "sctp" => Proto::Sctp,
        test => panic!("unknown test {test}"),
    };
    let synced = path.iter().find(|step| step[0] == "sync");
    let packet = |dir: &Value, name: &Value| Packet {
        dir: match dir.as_str() {
            Some("in") => Direction::Inbound,
            Some("out") => Direction::Outbound,
            _ => panic!("direction {dir}"),
        },
        what: what(proto, name.as_str().unwrap()),
    };
    Row {
        text: text.to_owned(),
        one_way: v["mode"] != "NAT",
        rules: rules(&v["sysctl"]),
        synced: synced.map(|step| state(sctp, &step[1])),
        path: match synced {
            Some(_) => Vec::new(),
            None => path.iter().map(|s| packet(&s[0], &s[1])).collect(),
        },
        from: seen(sctp, &v["from"]),
        packet: packet(&v["dir"], &v["pkt"]),
        to: seen(sctp, &v["to"]),
        new: match v["new_conns"].as_i64().unwrap() {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        },
        out: out(&v["out"]),
        again: match v.get("out2") {
            Some(out2) => vec![
                (out(out2), seen(sctp, &v["to2"])),
                (out(&v["out3_after_restore"]), seen(sctp, &v["to3"])),
            ],
            None => Vec::new(),
        },
        server: v["server"].as_str().map(str::to_owned),
    }
}

fn rules(sysctl: &Value) -> Rules {
    let mut rules = Rules::default();
    for (name, value) in sysctl.as_object().unwrap() {
        let n = value.as_u64().unwrap() as u8;
        match name.as_str() {
            "sloppy_tcp" => rules.sloppy_tcp = n != 0,
            "sloppy_sctp" => rules.sloppy_sctp = n != 0,
            "secure_tcp" => rules.secure_tcp = n,
            "conn_reuse_mode" => rules.conn_reuse_mode = n,
            "expire_nodest_conn" => rules.expire_nodest_conn = n != 0,
            _ => panic!("unknown sysctl {name}"),
        }
    }
    rules
}

fn out(v: &Value) -> Out {
    match v {
        Value::Null => Out::Nowhere,
        Value::Number(n) => Out::Server(n.as_u64().unwrap()),
        Value::String(text) => match text.as_str() {
            "rst" | "icmp3/2" => Out::Refused,
            "to-client from 10.0.100.1" | "to-client from 2001:db8:100::1" => Out::Client,
            "to-client from 10.0.2.1" | "to-client from 2001:db8:2::1" => Out::Untranslated,
            _ => panic!("out {text}"),
        },
        _ => panic!("out {v}"),
    }
}

fn seen(sctp: bool, v: &Value) -> Option<Seen> {
    (!v.is_null()).then(|| Seen {
        state: state(sctp, &v["state"]),
        timeout: v["timeout"].as_u64().map(|t| t as u32),
        active: v["active"].as_u64().map(|a| a == 1),
        rs: v["rs"].as_u64(),
    })
}

fn state(sctp: bool, name: &Value) -> State {
    let named = |s: &State| name == s.name();
    // Both TCP and SCTP have an ESTABLISHED; TCP's comes first.
    let found = match sctp {
        true => State::ALL.into_iter().rfind(named),
        false => State::ALL.into_iter().find(named),
    };
    found.unwrap_or_else(|| panic!("unknown state {name}"))
}

fn what(proto: Proto, name: &str) -> What {
    match proto {
        Proto::Tcp => What::Flags(name.chars().fold(0, |all, c| {
            all | match c {
                'S' => flags::SYN,
                'F' => flags::FIN,
                'R' => flags::RST,
                'A' => flags::ACK,
                'P' => flags::PSH,
                '-' => 0,
                _ => panic!("flags {name}"),
            }
        })),
        Proto::Udp => What::Datagram,
        Proto::Sctp => {
            let (first, data) = match name.split_once('+') {
                Some((first, "DATA")) => (first, true),
                Some(_) => panic!("chunks {name}"),
                None => (name, false),
            };
            What::Chunk(chunk(first), data)
        }
    }
}

/// A chunk type's number (RFC 9260 3.2).
fn chunk(name: &str) -> u8 {
    match name {
        "DATA" => 0,
        "INIT" => 1,
        "INIT_ACK" => 2,
        "SACK" => 3,
        "HEARTBEAT" => 4,
        "ABORT" => 6,
        "SHUTDOWN" => 7,
        "SHUTDOWN_ACK" => 8,
        "ERROR" => 9,
        "COOKIE_ECHO" => 10,
        "COOKIE_ACK" => 11,
        "SHUTDOWN_COMPLETE" => 14,
        _ => panic!("chunk {name}"),
    }
}

/// Where Weir differs on purpose.
///
/// | case | why |
/// |---|---|
/// | client's packet, server removed, `expire_nodest_conn` 0 | LVS drops it without a word and keeps the connection as it is. In Weir a removed server's connections go on until they are done: that is how a reload loses none. With `expire_nodest_conn` 1 both do the same. |
/// | client's packet, server removed, `expire_nodest_conn` 1, DR | Where LVS has forgotten the connection and its host answers with a reset, that reset may catch the dying entry and revive it as CLOSE: the recording calls it a race. Weir forgets it for good. |
/// | SCTP without an association | The recording's host does not speak SCTP and answers with ICMP. Weir does as RFC 9260 8.4 says: ABORT, SHUTDOWN COMPLETE to SHUTDOWN ACK, and silence to ABORT, COOKIE ACK and SHUTDOWN COMPLETE. |
pub(crate) fn on_purpose_unlike_lvs(row: &Row) -> bool {
    if let (What::Chunk(6 | 11 | 14, _), None, None) = (row.packet.what, row.from, row.to) {
        return true;
    }
    let removed = row.standing() == Standing::Gone && row.packet.dir == Direction::Inbound;
    removed && (!row.rules.expire_nodest_conn || row.one_way && row.is(r#""out":"rst""#))
}

impl Row {
    /// Whether the recording has `text`.
    pub(crate) fn is(&self, text: &str) -> bool {
        self.text.contains(text)
    }

    /// What became of the connection's server between the path and the packet.
    pub(crate) fn standing(&self) -> Standing {
        match self.server.as_deref() {
            Some("weight0") => Standing::Drained,
            Some("removed") => Standing::Gone,
            _ => Standing::Up,
        }
    }
}

impl What {
    pub(crate) fn event(self) -> Event {
        match self {
            What::Chunk(chunk, _) => Event::of_chunk(chunk),
            _ => Event::Data,
        }
    }
}
