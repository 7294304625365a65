//! Weir: the daemon and its command line.
// Until the daemon's rooms use these: they are built apart.
#![allow(dead_code, unused_imports)]

mod config;
mod model;
mod publish;

fn main() {}
