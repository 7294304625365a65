//! What runs in a real server: nginx for TCP, a small DNS responder for UDP.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;

use crate::topology::{Lab, Netns, Process, eventually, rip};

/// nginx in one real server. `/` answers with the server's name (`rs1`), `/files/` serves and
/// takes (PUT) documents, `/slow/` serves the same ones at [`SLOW_BYTES_PER_S`].
#[derive(Debug)]
pub(crate) struct Nginx {
    process: Process,
    files: PathBuf,
}

/// What `/slow/` gives one connection in a second, so that a download is still under way when
/// something happens.
pub(crate) const SLOW_BYTES_PER_S: usize = 2 << 20;

impl Nginx {
    /// Starts nginx in each of the lab's real servers and waits until they listen.
    pub(crate) fn in_all(lab: &Lab) -> Vec<Nginx> {
        let servers = (1..=lab.servers.len()).map(|n| Nginx::start(lab, n));
        servers.collect()
    }

    /// Starts nginx in the director itself, named `rs0`.
    pub(crate) fn in_director(lab: &Lab) -> Nginx {
        Nginx::start_in(lab, &lab.director, 0)
    }

    /// Starts nginx in the client's place, named `rs9`.
    pub(crate) fn in_client(lab: &Lab) -> Nginx {
        Nginx::start_in(lab, &lab.client, 9)
    }

    fn start(lab: &Lab, number: usize) -> Nginx {
        Nginx::start_in(lab, &lab.servers[number - 1], number)
    }

    fn start_in(lab: &Lab, netns: &Netns, number: usize) -> Nginx {
        let dir = lab.dir().join(format!("rs{number}"));
        let files = dir.join("files");
        std::fs::create_dir_all(&files).expect("the lab's directory is ours");
        let conf = dir.join("nginx.conf");
        std::fs::write(&conf, nginx_conf(&dir, number)).expect("it is ours");

        let mut command = netns.command("nginx");
        command.arg("-e").arg(dir.join("error.log"));
        let process = Process::start("nginx", command.arg("-c").arg(&conf));
        let listens = format!("nginx in rs{number} listens on port 80");
        eventually(Duration::from_secs(10), &listens, || {
            let found = netns.run("ss -Hltn sport = :80");
            (!found.is_empty()).then_some(())
        });
        Nginx { process, files }
    }

    /// The directory behind `/files/` and `/slow/`.
    pub(crate) fn files(&self) -> &Path {
        &self.files
    }

    /// Kills it without a chance to finish anything; its kernel resets its connections.
    pub(crate) fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait(Duration::from_secs(5));
    }
}

/// One process without a master, so that a kill takes all of it; keep-alive longer than any test.
/// It listens on every address: in DR and TUN a real server is asked on the VIP.
fn nginx_conf(dir: &Path, number: usize) -> String {
    let dir = dir.display();
    format!(
        "daemon off;
master_process off;
pid {dir}/pid;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    default_type application/octet-stream;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    sendfile on;
    keepalive_timeout 600s;
    keepalive_requests 1000000;
    client_max_body_size 0;
    add_header X-Server rs{number} always;
    add_header X-Client $remote_addr always;
    server {{
        listen 80 backlog=4096;
        listen [::]:80 backlog=4096;
        location / {{ return 200 \"rs{number}\\n\"; }}
        location /files/ {{ alias {dir}/files/; dav_methods PUT; }}
        location /slow/ {{ alias {dir}/files/; limit_rate {SLOW_BYTES_PER_S}; }}
    }}
}}
"
    )
}

/// Writes `len` bytes that do not repeat within a packet or a window (SplitMix64 from `seed`), so
/// that a lost, doubled or swapped part shows; what was written.
pub(crate) fn write_noise(path: &Path, len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(len);
    std::fs::write(path, &bytes).expect("the lab's directory has room");
    bytes
}

/// Whether exactly these bytes are in the file.
pub(crate) fn holds(path: &Path, bytes: &[u8]) -> bool {
    std::fs::read(path).is_ok_and(|found| found == bytes)
}

/// A DNS server in one real server: answers each query for an A record with the server's own
/// address, as one datagram.
#[derive(Debug)]
pub(crate) struct Dns {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    /// Starts one in each of the lab's real servers, on port 53.
    pub(crate) fn in_all(lab: &Lab) -> Vec<Dns> {
        let servers = (1..).zip(&lab.servers);
        let start = |(number, netns)| Dns::on(netns, rip(number).into(), rip(number));
        servers.map(start).collect()
    }

    /// Starts one on port 53 of `address`, which answers with `rip`.
    pub(crate) fn on(netns: &Netns, address: IpAddr, rip: Ipv4Addr) -> Dns {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let socket = netns.within(move || UdpSocket::bind((address, 53)).expect("port 53"));
        let thread = std::thread::spawn(move || serve_dns(&socket, rip, &stopped));
        Dns {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve_dns(socket: &UdpSocket, rip: Ipv4Addr, stop: &AtomicBool) {
    let pause = Some(Duration::from_millis(50));
    socket.set_read_timeout(pause).expect("a bound socket");
    let mut query = [0; 512];
    while !stop.load(Ordering::Relaxed) {
        let Ok((len, from)) = socket.recv_from(&mut query) else {
            continue; // the pause between two looks at `stop`
        };
        let _: std::io::Result<usize> = answer_dns(socket, &query[..len], rip, from);
    }
}

/// RFC 1035 section 4.1: the query back with QR and one answer, an A record of 60 s.
fn answer_dns(
    socket: &UdpSocket,
    query: &[u8],
    rip: Ipv4Addr,
    to: SocketAddr,
) -> std::io::Result<usize> {
    let mut reply = query.to_vec();
    reply[2] |= 0x80; // QR: a response
    reply[7] = 1; // ANCOUNT
    reply.extend_from_slice(&[0xc0, 12]); // the name in the question
    reply.extend_from_slice(&[0, 1, 0, 1, 0, 0, 0, 60, 0, 4]); // A, IN, TTL, RDLENGTH
    reply.extend_from_slice(&rip.octets());
    socket.send_to(&reply, to)
}
