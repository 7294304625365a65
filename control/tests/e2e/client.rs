//! The client's side: curl for whole requests, plain sockets where a test must hold a connection.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::topology::{Lab, VIP, checked, text};

/// No request of these tests takes longer; a stuck one fails instead of hanging.
const LONGEST: Duration = Duration::from_secs(60);

/// curl in the client's namespace: quiet but for errors, an HTTP error is an error.
pub(crate) fn curl(lab: &Lab) -> Command {
    let mut curl = lab.client.command("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--fail",
        "--connect-timeout",
        "10",
        "--max-time",
    ])
    .arg(LONGEST.as_secs().to_string());
    curl
}

/// Asks `GET /` of the VIP once; the answer is the name of the server that gave it.
pub(crate) fn ask_name(lab: &Lab) -> String {
    let answer = text(checked(curl(lab).arg(format!("http://{VIP}/"))));
    answer.trim_end().to_owned()
}

/// Asks `GET /` of the VIP `times` times, each on a connection of its own, one after another.
/// How often each server answered.
pub(crate) fn ask_names(lab: &Lab, times: usize) -> BTreeMap<String, usize> {
    let mut command = curl(lab);
    command.args(["-H", "Connection: close"]);
    let answers = text(checked(command.arg(format!("http://{VIP}/[1-{times}]"))));
    let mut counts = BTreeMap::new();
    for name in answers.lines() {
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    assert_eq!(counts.values().sum::<usize>(), times, "{counts:?}");
    counts
}

/// Downloads `path` of the VIP.
pub(crate) fn download(lab: &Lab, path: &str) -> Got {
    download_from(lab, VIP.into(), path)
}

/// What a download came to.
pub(crate) struct Got {
    /// What arrived.
    pub(crate) body: Vec<u8>,
    /// Bytes a second.
    pub(crate) speed: u64,
    /// Whom the server took for its client.
    pub(crate) seen: String,
}

/// As [`download`], from a virtual address of either family.
pub(crate) fn download_from(lab: &Lab, vip: IpAddr, path: &str) -> Got {
    let vip = SocketAddr::new(vip, 80);
    let mut command = curl(lab);
    command
        .args([
            "--write-out",
            "%{stderr}%{speed_download} %header{x-client}",
        ])
        .arg(format!("http://{vip}{path}"));
    let curl = command.output().expect("curl is installed");
    let said = String::from_utf8_lossy(&curl.stderr).into_owned();
    assert!(curl.status.success(), "curl: {said}");
    let (speed, seen) = said.trim().split_once(' ').expect("as asked for");
    Got {
        body: curl.stdout,
        speed: speed.parse().expect("curl prints bytes a second"),
        seen: seen.to_owned(),
    }
}

/// Uploads `file` to `path` of the VIP by PUT; bytes a second.
pub(crate) fn upload(lab: &Lab, file: &Path, path: &str) -> u64 {
    upload_to(lab, VIP.into(), file, path)
}

/// As [`upload`], to a virtual address of either family.
pub(crate) fn upload_to(lab: &Lab, vip: IpAddr, file: &Path, path: &str) -> u64 {
    let vip = SocketAddr::new(vip, 80);
    let mut command = curl(lab);
    command
        .args(["--write-out", "%{speed_upload}", "--upload-file"])
        .arg(file)
        .arg(format!("http://{vip}{path}"));
    let speed = text(checked(&mut command));
    speed.trim().parse().expect("curl prints bytes a second")
}

/// A connection to the VIP on which the client keeps asking.
#[derive(Debug)]
pub(crate) struct Held {
    stream: BufReader<TcpStream>,
}

impl Held {
    /// Connects from the client's namespace.
    pub(crate) fn open(lab: &Lab) -> Held {
        Held::open_many(lab, 1).pop().expect("one")
    }

    /// Connects `count` times from the client's namespace.
    pub(crate) fn open_many(lab: &Lab, count: usize) -> Vec<Held> {
        let vip = SocketAddr::from((VIP, 80));
        let open = move || (0..count).map(|_| Held::connect(vip)).collect();
        lab.client.within(open)
    }

    /// Connects to `vip` from the client's namespace.
    pub(crate) fn open_to(lab: &Lab, vip: SocketAddr) -> Held {
        lab.client.within(move || Held::connect(vip))
    }

    fn connect(vip: SocketAddr) -> Held {
        let stream = TcpStream::connect_timeout(&vip, Duration::from_secs(10));
        let stream = stream.unwrap_or_else(|error| panic!("connecting to {vip}: {error}"));
        stream.set_read_timeout(Some(LONGEST)).expect("a timeout");
        Held {
            stream: BufReader::new(stream),
        }
    }

    /// Asks `GET /`; the name of the server that answered.
    ///
    /// # Errors
    /// The connection is dead.
    pub(crate) fn ask_name(&mut self) -> std::io::Result<String> {
        let length = self.get("/")?.length;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(String::from_utf8_lossy(&body).trim_end().to_owned())
    }

    /// Sends a GET for `path` and reads the answer's head.
    ///
    /// # Errors
    /// The connection is dead, or ended within the head.
    pub(crate) fn get(&mut self, path: &str) -> std::io::Result<Head> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {VIP}\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut head = Head::default();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let Some((key, value)) = line.trim_end().split_once(": ") else {
                if line == "\r\n" {
                    return Ok(head);
                }
                continue; // the status line
            };
            match key {
                "Content-Length" => head.length = value.parse().expect("nginx sends a number"),
                "X-Server" => head.server = value.to_owned(),
                "X-Client" => head.client = value.to_owned(),
                _ => {}
            }
        }
    }

    /// Reads `length` bytes of a body and returns those that came before the connection ended.
    pub(crate) fn read_body(&mut self, length: usize) -> Vec<u8> {
        let mut body = Vec::with_capacity(length);
        let limit = u64::try_from(length).expect("it fits memory");
        // An error after some bytes leaves those in `body`: the length tells the story.
        let _ = self.stream.by_ref().take(limit).read_to_end(&mut body);
        body
    }
}

/// What an HTTP answer's head says.
#[derive(Debug, Default)]
pub(crate) struct Head {
    /// Content-Length, bytes.
    pub(crate) length: usize,
    /// X-Server: which real server answered.
    pub(crate) server: String,
    /// X-Client: whom that server took for its client.
    pub(crate) client: String,
}

/// First client port of DNS queries. The kernel's own choice repeats itself by chance, and a
/// query from a port that was used before belongs to the connection that still stands.
const DNS_CLIENT_PORTS: u16 = 20_000;

/// Sends `queries` DNS queries for an A record, each from a client port of its own; the address
/// in each answer, after checking that the answer is to this query and comes from the VIP.
pub(crate) fn ask_dns(lab: &Lab, queries: u16) -> Vec<[u8; 4]> {
    lab.client
        .within(move || (0..queries).map(ask_dns_once).collect())
}

/// As [`ask_dns`], all from one client port.
pub(crate) fn ask_dns_from_one_port(lab: &Lab, queries: u16) -> Vec<[u8; 4]> {
    lab.client.within(move || {
        let socket = dns_socket(0);
        (0..queries).map(|id| ask_dns_by(&socket, id)).collect()
    })
}

fn ask_dns_once(id: u16) -> [u8; 4] {
    ask_dns_by(&dns_socket(id), id)
}

fn dns_socket(number: u16) -> UdpSocket {
    let socket = UdpSocket::bind(("0.0.0.0", DNS_CLIENT_PORTS + number)).expect("a client port");
    // Connected: the kernel drops what does not come from the VIP's port 53.
    socket.connect((VIP, 53)).expect("a route to the VIP");
    let wait = Some(Duration::from_secs(10));
    socket.set_read_timeout(wait).expect("a timeout");
    socket
}

fn ask_dns_by(socket: &UdpSocket, id: u16) -> [u8; 4] {
    // RFC 1035 section 4.1: recursion desired, one question: example.org IN A.
    let mut query = id.to_be_bytes().to_vec();
    query.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    query.extend_from_slice(b"\x07example\x03org\0\0\x01\0\x01");
    socket.send(&query).expect("room in the socket");

    let mut reply = [0; 512];
    let len = socket.recv(&mut reply);
    let len = len.unwrap_or_else(|error| panic!("query {id} has no answer: {error}"));
    assert_eq!(reply[..2], query[..2], "the answer's id");
    assert_eq!(reply[2] & 0x80, 0x80, "QR");
    assert_eq!(reply[12..query.len()], query[12..], "the question");
    reply[len - 4..len].try_into().expect("four bytes")
}
