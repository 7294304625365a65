//! SCTP by the kernel's one-to-one sockets, which read and write like TCP's: std's `TcpStream`
//! carries them.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_reuseaddr, set_socket_timeout};
use rustix::net::{AddressFamily, SocketType, accept, bind, connect, ipproto, listen, socket};

use crate::families::Family;
use crate::topology::{Lab, Netns};

/// The port of the echo service.
pub(crate) const PORT: u16 = 3868;
/// No step takes longer; a stuck one fails instead of hanging.
const LONGEST: Duration = Duration::from_secs(20);
/// One message; a burst of them is more than one packet.
const MESSAGE: usize = 1200;

/// A socket of the address's family.
fn new_socket(address: IpAddr) -> OwnedFd {
    let family = match address {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    socket(family, SocketType::STREAM, Some(ipproto::SCTP)).expect("the kernel has sctp")
}

/// Sends back what comes in, in one real server.
#[derive(Debug)]
pub(crate) struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Starts it in `netns`, a real server or who plays one, on `address` alone: a socket on all of a server's addresses would
    /// tell them to the client, which would use them past the director.
    pub(crate) fn start(netns: &Netns, address: IpAddr) -> Echo {
        let listener = netns.within(move || {
            let listener = new_socket(address);
            set_socket_reuseaddr(&listener, true).expect("a socket");
            bind(&listener, &SocketAddr::new(address, PORT)).expect("the address is there");
            listen(&listener, 16).expect("a bound socket");
            listener
        });
        let pause = Some(Duration::from_millis(50));
        set_socket_timeout(&listener, Timeout::Recv, pause).expect("a socket");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(association) = accept(&listener) {
                    serve(TcpStream::from(association));
                } // or the pause between two looks at `stopped`
            }
        });
        Echo {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Until the client ends the association, or something breaks it, which the client notices.
fn serve(mut association: TcpStream) {
    let _ = association.set_read_timeout(Some(LONGEST));
    let mut buffer = vec![0; 65_536];
    while let Ok(len @ 1..) = association.read(&mut buffer) {
        if association.write_all(&buffer[..len]).is_err() {
            return;
        }
    }
}

/// The client sends 200 kB, many windows of SCTP's, to the echo service behind the VIP of `family`, and every
/// byte comes back. `title` is for messages.
pub(crate) fn echoes(lab: &Lab, family: Family, title: &str) {
    echoes_from(&lab.client, family.client(), family.vip(), title);
}

/// As [`echoes`], from an address of `netns` to the echo service on or behind `to`.
pub(crate) fn echoes_from(netns: &Netns, from: IpAddr, to: IpAddr, title: &str) {
    let bytes: Vec<u8> = (0..150_000_u32)
        .flat_map(u32::to_be_bytes)
        .skip(7)
        .step_by(3)
        .collect();
    let sent = bytes.clone();
    let back = netns.within(move || echo(from, to, &sent));
    let back = back.unwrap_or_else(|error| panic!("{title}, SCTP to {to}: {error}"));
    assert!(back == bytes, "{title}, SCTP to {to}: other bytes");
    println!("{title}, SCTP to {to}: {} bytes there and back", back.len());
}

/// Sends `bytes` from an address to the echo service on or behind another, in messages; what came
/// back, or what broke and where.
fn echo(from: IpAddr, to: IpAddr, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let fd = new_socket(from);
    bind(&fd, &SocketAddr::new(from, 0)).map_err(|error| format!("bind: {error}"))?;
    set_socket_timeout(&fd, Timeout::Send, Some(LONGEST)).expect("a socket");
    set_socket_timeout(&fd, Timeout::Recv, Some(LONGEST)).expect("a socket");
    connect(&fd, &SocketAddr::new(to, PORT)).map_err(|error| format!("connect: {error}"))?;
    let mut association = TcpStream::from(fd);
    let mut back = vec![0; bytes.len()];
    let mut done = 0;
    // One burst at a time, so that neither side waits with a full window for the other to read.
    for burst in bytes.chunks(16 * MESSAGE) {
        for message in burst.chunks(MESSAGE) {
            let sent = association.write_all(message);
            sent.map_err(|error| format!("send after {done} bytes: {error}"))?;
        }
        let came = association.read_exact(&mut back[done..done + burst.len()]);
        came.map_err(|error| format!("receive after {done} bytes: {error}"))?;
        done += burst.len();
    }
    Ok(back)
}
