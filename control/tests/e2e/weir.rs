//! The program under test: its process, and what its commands say.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::cables::Cable;
use crate::config::Config;
use crate::topology::{Lab, Process, checked, eventually, text};

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    match std::env::var_os("WEIR_BIN") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env!("CARGO_BIN_EXE_weir")),
    }
}

/// A running `weir` in the lab's director namespace. Dropped, it gets SIGTERM; when the test
/// fails, its log and its counters are printed.
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
        match config.ports() {
            (_, true) => lab.plug_in_one_arm(),
            (Cable::NetTap, false) => lab.plug_in(),
            (Cable::Trunk, false) => lab.plug_in_trunk(),
            (Cable::Bond(mode), false) => lab.plug_in_bond(mode),
            (Cable::BondTrunk(mode), false) => lab.plug_in_bond_trunk(mode),
            (Cable::AfPacket, false) => {}
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

    /// As [`Director::reload`], and it must be taken.
    pub(crate) fn reload_to(&self, config: &Config) {
        let reloaded = self.reload(&config.toml());
        assert!(reloaded.status.success(), "{reloaded:?}");
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
            for args in [["counters"], ["status"]] {
                let said = self.ask(&args);
                println!("{}---", String::from_utf8_lossy(&said.stdout));
            }
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
