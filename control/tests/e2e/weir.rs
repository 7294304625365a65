//! The program under test: its configuration, its process, and what its commands say.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::topology::{Cable, DIRECTOR, Lab, Process, VIP, checked, eventually, rip, text};

/// Local addresses of the FULL-NAT services.
pub(crate) const LIPS: &str = "10.1.0.100-10.1.0.103";

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    match std::env::var_os("WEIR_BIN") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env!("CARGO_BIN_EXE_weir")),
    }
}

/// A configuration file with a TCP service on port 80 and a UDP service on port 53.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    workers: usize,
    cable: Cable,
    /// Number (counted from 1) and weight of the real servers.
    servers: Vec<(usize, u16)>,
}

impl Config {
    /// For `workers` workers, without real servers.
    pub(crate) fn new(workers: usize) -> Config {
        Config {
            workers,
            cable: Cable::NetTap,
            servers: Vec::new(),
        }
    }

    /// With the director's ports plugged in by `cable`.
    pub(crate) fn cable(mut self, cable: Cable) -> Config {
        self.cable = cable;
        self
    }

    /// With one real server more, for both services.
    pub(crate) fn server(mut self, number: usize, weight: u16) -> Config {
        self.servers.push((number, weight));
        self
    }

    /// The file's text.
    pub(crate) fn toml(&self) -> String {
        // net_tap with MACs that a restart keeps, as a card's does: its own choice is random, and
        // the servers would talk to the old one until their ARP entries age.
        let (wan, lan, rx_checksum) = match self.cable {
            Cable::NetTap => (
                "net_tap0,iface=weir-wan,mac=02:00:00:00:0b:01",
                "net_tap1,iface=weir-lan,mac=02:00:00:00:0b:02",
                "trust",
            ),
            Cable::AfPacket => (
                "net_af_packet0,iface=weir-wan",
                "net_af_packet1,iface=weir-lan",
                "fill",
            ),
        };
        let workers = self.workers;
        let mut toml = format!(
            "[workers]
count = {workers}
memory = \"256MiB\"
max_connections = 400_000
hugepages = false

[[port]]
name = \"wan0\"
device = \"{wan}\"
addresses = [\"{DIRECTOR}/24\"]
rx_checksum = \"{rx_checksum}\"

[[port]]
name = \"lan0\"
device = \"{lan}\"
addresses = [\"10.1.0.2/24\"]
rx_checksum = \"{rx_checksum}\"
"
        );
        for (name, protocol, port, scheduler) in
            [("web", "tcp", 80, "wrr"), ("dns", "udp", 53, "rr")]
        {
            let _ = write!(
                toml,
                "
[[service]]
name = \"{name}\"
address = \"{VIP}:{port}\"
protocol = \"{protocol}\"
scheduler = \"{scheduler}\"
forward = \"fullnat\"
local_addresses = [\"{LIPS}\"]
"
            );
            for (number, weight) in &self.servers {
                let rip = rip(*number);
                let _ = write!(
                    toml,
                    "
[[service.real_server]]
address = \"{rip}:{port}\"
weight = {weight}
"
                );
            }
        }
        toml
    }
}

/// A running `weir` in the lab's director namespace. Dropped, it gets SIGTERM; when the test
/// fails, its log is printed.
#[derive(Debug)]
pub(crate) struct Director<'lab> {
    lab: &'lab Lab,
    process: Process,
}

impl<'lab> Director<'lab> {
    /// Starts `weir run`, waits until it is ready and plugs the cables in.
    pub(crate) fn start(lab: &'lab Lab, config: &Config) -> Director<'lab> {
        Director::start_with(lab, config, &[])
    }

    /// As [`Director::start`], with these variables in its environment.
    pub(crate) fn start_with(
        lab: &'lab Lab,
        config: &Config,
        variables: &[(&str, &Path)],
    ) -> Director<'lab> {
        std::fs::write(config_path(lab), config.toml()).expect("the lab's directory is ours");
        let log = File::options()
            .create(true)
            .append(true)
            .open(log_path(lab))
            .expect("the lab's directory is ours");
        let mut command = lab.director.command(binary());
        command
            .arg("run")
            .arg("--config")
            .arg(config_path(lab))
            .arg("--socket")
            .arg(socket_path(lab))
            .envs(variables.iter().copied())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log);
        let process = Process::start("weir", &mut command);
        let mut director = Director { lab, process };
        eventually(Duration::from_secs(30), "weir is ready", || {
            assert!(director.process.runs(), "weir ended while starting");
            let status = director.ask(&["status"]);
            status.status.success().then_some(())
        });
        if config.cable == Cable::NetTap {
            lab.plug_in();
        }
        director
    }

    /// Runs `weir ARGS` against this daemon.
    pub(crate) fn ask(&self, args: &[&str]) -> Output {
        let mut command = self.lab.director.command(binary());
        command
            .args(args)
            .arg("--socket")
            .arg(socket_path(self.lab));
        command.output().expect("the binary stands")
    }

    /// Runs `weir ARGS --json`, which must succeed.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let mut command = self.lab.director.command(binary());
        command.args(args).arg("--json");
        command.arg("--socket").arg(socket_path(self.lab));
        let printed = text(checked(&mut command));
        let json = serde_json::from_str(&printed);
        json.unwrap_or_else(|error| panic!("weir {args:?} --json: {error} in\n{printed}"))
    }

    /// Writes `toml` over the configuration file and runs `weir reload`.
    pub(crate) fn reload(&self, toml: &str) -> Output {
        std::fs::write(config_path(self.lab), toml).expect("the lab's directory is ours");
        self.ask(&["reload"])
    }

    /// Whether the daemon still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.process.runs()
    }

    /// Sends `signal`.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for the daemon's end; `None` when a signal ended it.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.process.wait(Duration::from_secs(20))
    }

    /// What the daemon has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(log_path(self.lab)).unwrap_or_default()
    }
}

impl Drop for Director<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- log of weir\n{}---", self.log());
        }
    }
}

/// The configuration file of the lab's director.
pub(crate) fn config_path(lab: &Lab) -> PathBuf {
    lab.dir().join("weir.toml")
}

/// The API socket of the lab's director.
pub(crate) fn socket_path(lab: &Lab) -> PathBuf {
    lab.dir().join("weir.sock")
}

fn log_path(lab: &Lab) -> PathBuf {
    lab.dir().join("weir.log")
}

/// Runs `weir run` with the text `toml`, which it must refuse by itself.
pub(crate) fn run_refused(lab: &Lab, toml: &str) -> Output {
    std::fs::write(config_path(lab), toml).expect("the lab's directory is ours");
    let mut command = lab.director.command(binary());
    command.args(["run", "--config"]).arg(config_path(lab));
    command.arg("--socket").arg(socket_path(lab));
    let mut refused = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the binary stands");
    eventually(Duration::from_secs(20), "weir refuses", || {
        refused.try_wait().expect("our own child")
    });
    refused.wait_with_output().expect("our own child")
}

/// Whether something is at `path`.
pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
