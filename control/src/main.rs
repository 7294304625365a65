//! Weir: a layer-4 load balancer on DPDK. The daemon and the command line.
//!
//! The table of contents: [`cli`] is what a person types, [`run`] assembles the daemon,
//! [`control`] is its loop; [`workers`] are the dataplane's threads, [`net`] the kernel's side,
//! [`config`], [`model`] and [`publish`] the way from a file to what workers see, [`api`] what
//! programs may ask, [`explain`] what would become of a packet.

mod api;
mod cli;
mod config;
mod control;
mod explain;
mod log;
mod model;
mod net;
mod prefix;
mod publish;
mod run;
mod workers;

fn main() -> std::process::ExitCode {
    cli::main()
}
