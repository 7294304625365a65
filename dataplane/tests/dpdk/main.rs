//! Frames, buffers and ports on DPDK's virtual devices. EAL starts once a process, so these run
//! with `cargo nextest` (a process for each test). No huge pages are needed; tests that need
//! root say so and pass without it.
#![cfg(feature = "dpdk")]
#![allow(clippy::print_stderr)] // a test that skips says why

mod bonds;
mod eal;
mod frames;
mod memif;
mod ports;
mod tap;

use std::process::Command;

use weir_dataplane::io::dpdk::{
    Eal, EalOptions, LogLevel, Memory, OpenPort, Pool, PoolDemand, PoolOptions, PortOptions,
    open_ports,
};
use weir_dataplane::io::{Burst, PortQueue};
use weir_dataplane::steer::{MICROSOFT_KEY, spread};

/// EAL with `devices` on 128 MiB of ordinary memory.
fn eal(devices: &[&str]) -> Eal {
    Eal::init(&options(devices)).unwrap()
}

fn options(devices: &[&str]) -> EalOptions {
    let devices = devices.iter().map(|d| (*d).to_owned()).collect();
    EalOptions {
        log_level: LogLevel::Error,
        ..EalOptions::new(devices, Memory::Plain { mib: 128 })
    }
}

fn port_options(device: &str, workers: u8) -> PortOptions {
    PortOptions {
        rx_descriptors: 256,
        tx_descriptors: 256,
        ..PortOptions::new("p0", device, workers, MICROSOFT_KEY, spread(workers))
    }
}

/// A pool for `ports` and 512 frames in the test's hands.
fn pool(eal: &Eal, ports: &[PortOptions]) -> Pool {
    let mtu = ports.iter().map(|p| p.mtu).max().unwrap_or(1500);
    let demand = PoolDemand::new(ports, 512, 0);
    Pool::new(eal, &PoolOptions::new("test", demand, mtu)).unwrap()
}

/// EAL, a pool and one port of `device`, for tests that want nothing special.
fn one_port(device: &str, workers: u8) -> (Pool, OpenPort) {
    let eal = eal(&[device]);
    let options = [port_options(device, workers)];
    let pool = pool(&eal, &options);
    let port = open_ports(&eal, &pool, &options).unwrap().remove(0);
    (pool, port)
}

/// Polls until something arrives, for at most two seconds.
fn receive<Q: PortQueue>(queue: &mut Q, out: &mut Burst<Q::Frame>) {
    let before = out.len();
    for _ in 0..2000 {
        queue.rx_burst(out);
        if out.len() > before {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Runs the calling test `name` again as a child: under `wrapper`, with `role` in WD_ROLE.
fn again(name: &str, wrapper: &[&str], role: &str) -> Command {
    let exe = std::env::current_exe().unwrap();
    let mut command = match wrapper {
        [] => Command::new(exe),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(exe);
            command
        }
    };
    command.args(["--exact", name, "--nocapture"]);
    command.env("WD_ROLE", role);
    command
}

/// Which part a child plays, if this is one.
fn role() -> Option<String> {
    std::env::var("WD_ROLE").ok()
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout == b"0\n"
}
