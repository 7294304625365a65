//! The Weir daemon and command line.
mod net;

fn main() {}
