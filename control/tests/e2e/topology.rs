//! The network a test plays in: namespaces, cables and processes, all taken away again.
//!
//! ```text
//!   client             director              lan (a bridge)        rs1 rs2 rs3
//!   weir-wan ~~~~~~~~~ port wan0
//!   10.0.0.1           twin 10.0.0.2
//!                      port lan0 ~~~~~~~~~~~ weir-lan --+--------- 10.1.0.11
//!                      twin 10.1.0.2                    +--------- 10.1.0.12
//!                                                       +--------- 10.1.0.13
//! ```
//!
//! `~~~` is a DPDK net_tap port: the driver makes an interface beside the director's own, which
//! [`Lab::plug_in`](crate::cables) moves to the far side. Namespaces are named after the test's process, and a
//! new [`Lab`] first sweeps away what a killed test process left behind.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use crate::cables::Cable;
use crate::families::Family;

/// All namespaces of these tests start so; then come the process id and the role.
const PREFIX: &str = "weir-e2e-";

/// The client's address.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The director's own address on the client side (DIP).
pub(crate) const DIRECTOR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The virtual service's address.
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);

/// The real servers' address, counted from 1.
pub(crate) fn rip(server: usize) -> Ipv4Addr {
    let last = u8::try_from(10 + server).expect("a test has few servers");
    Ipv4Addr::new(10, 1, 0, last)
}

/// The real servers' MAC address, counted from 1.
fn server_mac(server: usize) -> String {
    format!("02:00:00:00:0c:{server:02x}")
}

/// Namespaces for a client, the director, the servers' switch and the real servers.
#[derive(Debug)]
pub(crate) struct Lab {
    /// Where curl and ab run.
    pub(crate) client: Netns,
    /// Where `weir` runs.
    pub(crate) director: Netns,
    /// A bridge between the director and the real servers.
    pub(crate) lan: Netns,
    /// Real servers, [`rip`] 1 first.
    pub(crate) servers: Vec<Netns>,
    /// Configurations, documents, sockets, logs.
    dir: TempDir,
}

impl Lab {
    /// Draws the topology with `servers` real servers on net_tap ports. `None`, with the reason
    /// printed, when this process may not.
    pub(crate) fn new(servers: usize) -> Option<Lab> {
        Lab::with_cable(servers, Cable::NetTap)
    }

    /// As [`Lab::new`], with the director's ports plugged in by `cable`.
    pub(crate) fn with_cable(servers: usize, cable: Cable) -> Option<Lab> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: network namespaces need root; run `sudo scripts/test`");
            return None;
        }
        sweep();
        lift_open_files();
        let lab = Lab {
            client: Netns::new("client"),
            director: Netns::new("director"),
            lan: Netns::new("lan"),
            servers: (1..=servers)
                .map(|n| Netns::new(&format!("rs{n}")))
                .collect(),
            dir: TempDir::with_prefix(PREFIX).expect("a directory in /tmp"),
        };
        for host in lab.servers.iter().chain([&lab.client, &lab.lan]) {
            host.know_everybody();
        }
        lab.lan.ip("link add br0 type bridge");
        lab.lan.ip("link set br0 up");
        for (n, server) in (1..).zip(&lab.servers) {
            let (lan, name) = (&lab.lan, &server.name);
            let mac = server_mac(n);
            lan.ip(&format!(
                "link add rs{n} type veth peer name eth0 address {mac} netns {name}"
            ));
            lan.ip(&format!("link set rs{n} master br0 up"));
            server.set("net/ipv4/conf/eth0/arp_notify", "1");
            server.set("net/ipv6/conf/eth0/ndisc_notify", "1");
            server.ip("link set eth0 up");
            for family in [Family::V4, Family::V6] {
                server.add_address(family.rip(n), family, "eth0");
            }
        }
        if cable == Cable::AfPacket {
            lab.pull_veth();
        }
        Some(lab)
    }

    /// Has the servers tell everybody who they are, as on a link that comes up. The director asked
    /// for them before its cables were plugged in, and would ask again only after a second.
    pub(crate) fn announce_servers(&self) {
        for (n, server) in (1..).zip(&self.servers) {
            // Set anew, though to what it is, it is told.
            server.ip(&format!("link set eth0 address {}", server_mac(n)));
        }
    }

    /// The lab's own directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// A network namespace of this process, deleted when dropped.
#[derive(Debug)]
pub(crate) struct Netns {
    name: String,
}

impl Netns {
    fn new(role: &str) -> Netns {
        let name = format!("{PREFIX}{}-{role}", std::process::id());
        checked(Command::new("ip").args(["netns", "add", &name]));
        let netns = Netns { name };
        netns.ip("link set lo up");
        netns
    }

    /// Its name, as `ip netns` lists it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip ARGS` on this namespace and returns what it printed.
    pub(crate) fn ip(&self, args: &str) -> String {
        let mut ip = Command::new("ip");
        ip.args(["-n", &self.name]).args(args.split_whitespace());
        text(checked(&mut ip))
    }

    /// What hosts do to protect themselves from strangers makes a small network a matter of luck: a
    /// link-local address is tried for up to two seconds, in which nobody is solicited from it, and
    /// only so many ICMP errors are sent to one address.
    fn know_everybody(&self) {
        self.set("net/ipv6/conf/default/accept_dad", "0");
        self.set("net/ipv4/icmp_ratelimit", "0");
        self.set("net/ipv6/icmp/ratelimit", "0");
    }

    /// Sets `/proc/sys/KEY` of this namespace.
    pub(crate) fn set(&self, key: &str, value: &'static str) {
        let path = Path::new("/proc/sys").join(key);
        self.within(move || {
            std::fs::write(&path, value)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        });
    }

    /// Puts `address` on `device`, with the laboratory's prefix.
    pub(crate) fn add_address(&self, address: IpAddr, family: Family, device: &str) {
        let prefix = family.prefix();
        // Nobody else has it, so nobody waits a second to find that out.
        let nodad = if family == Family::V6 { "nodad" } else { "" };
        self.ip(&format!("addr add {address}/{prefix} dev {device} {nodad}"));
    }

    /// Runs a command line without quotes inside; it must succeed. Returns what it printed.
    pub(crate) fn run(&self, line: &str) -> String {
        text(checked(&mut self.words(line)))
    }

    /// `line`, split at blanks, as a command inside the namespace.
    pub(crate) fn words(&self, line: &str) -> Command {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().expect("a program"));
        command.args(words);
        command
    }

    /// `program` as a command inside the namespace. It is killed when the test's thread ends,
    /// however that ends.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.name])
            .args(["setpriv", "--pdeathsig", "KILL"])
            .arg(program.as_ref())
            .stdin(Stdio::null());
        command
    }

    /// Starts a thread inside the namespace: sockets it makes belong there.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let path = PathBuf::from("/run/netns").join(&self.name);
        thread::spawn(move || {
            let netns = std::fs::File::open(&path).expect("the namespace stands");
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(netns.as_fd(), kind).expect("root may enter it");
            work()
        })
    }

    /// Runs `work` inside the namespace and waits for it.
    pub(crate) fn within<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self.spawn(work).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// What the kernel counted on `interface`: packets received and sent.
    pub(crate) fn packets(&self, interface: &str) -> [u64; 2] {
        let links = self.ip(&format!("-j -s link show {interface}"));
        let links: serde_json::Value = serde_json::from_str(&links).expect("ip prints JSON");
        ["rx", "tx"].map(|way| {
            let packets = &links[0]["stats64"][way]["packets"];
            packets.as_u64().expect("every interface counts")
        })
    }

    /// Names of the interfaces here, `lo` left out.
    pub(crate) fn interfaces(&self) -> Vec<String> {
        let links: serde_json::Value =
            serde_json::from_str(&self.ip("-j link show")).expect("ip prints JSON");
        let links = links.as_array().expect("a list of interfaces").iter();
        links
            .filter_map(|link| link["ifname"].as_str())
            .filter(|name| *name != "lo")
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // Also while a test panics, so a failure here must not hide that one.
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// A process in a namespace, ended when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    name: &'static str,
}

impl Process {
    /// Starts `command`; `name` is for messages.
    pub(crate) fn start(name: &'static str, command: &mut Command) -> Process {
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Process { child, name }
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_none()
    }

    /// Sends `signal`.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap_or_else(|error| panic!("signal {}: {error}", self.name));
    }

    /// Whether it ends by itself within `at_most`.
    pub(crate) fn ends(&mut self, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        while self.runs() {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(50));
        }
        true
    }

    /// Waits until it ends by itself or by a signal sent before; its exit code, or `None` when a
    /// signal ended it.
    pub(crate) fn wait(&mut self, at_most: Duration) -> Option<i32> {
        let name = self.name;
        eventually(at_most, &format!("{name} ends"), || {
            self.child.try_wait().expect("our own child")
        })
        .code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGTERM first: `weir` then takes its twins away, tcpdump flushes its file.
        if self.runs() {
            self.signal(Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(5);
            while self.runs() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again and again until `probe` has an answer.
///
/// # Panics
/// After `at_most`, saying that `what` did not come to pass. A bound, not a measurement.
pub(crate) fn eventually<T>(
    at_most: Duration,
    what: &str,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    eventually_ok(at_most, || probe().ok_or(what))
}

/// As [`eventually`], with the last error in the message.
pub(crate) fn eventually_ok<T, E: std::fmt::Display>(
    at_most: Duration,
    mut probe: impl FnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + at_most;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(error) if Instant::now() >= deadline => panic!("not within {at_most:?}: {error}"),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Runs `command` and demands success.
pub(crate) fn checked(command: &mut Command) -> Output {
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// What a command printed on stdout.
pub(crate) fn text(output: Output) -> String {
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Where `name` is installed, if it is.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let dirs = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let paths = dirs.iter().map(|dir| Path::new(dir).join(name));
    paths.into_iter().find(|path| path.exists())
}

/// The root of this repository.
pub(crate) fn repository() -> &'static Path {
    let control = Path::new(env!("CARGO_MANIFEST_DIR"));
    control.parent().expect("control is a directory in it")
}

/// Thousands of connections need as many descriptors, here and in what we start.
fn lift_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("up to the maximum anyone may");
}

/// Removes namespaces of test processes that no longer run, and what still runs inside.
fn sweep() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else {
        return; // no namespace was ever made here
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(PREFIX).and_then(|n| n.split('-').next()) else {
            continue;
        };
        if Path::new("/proc").join(pid).exists() {
            continue;
        }
        let inside = Command::new("ip").args(["netns", "pids", &name]).output();
        for pid in inside.map(text).unwrap_or_default().split_whitespace() {
            if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = Command::new("ip").args(["netns", "del", &name]).status();
    }
}
