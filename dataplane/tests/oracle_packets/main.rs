//! Frames held to the real kernel's: a recording of Debian's 6.1.192 with IPVS in the modes NAT,
//! DR and TUN (`data/packets.jsonl.gz`, 214 cases of 2,875 steps: a frame in, frames out).
#![allow(missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod differences;
mod director;
mod errors;
mod judged;
mod mss;
mod recording;
mod runs;
#[path = "../common/tshark.rs"]
mod tshark;
mod tunnels;
