//! The Weir daemon and command line.
#[allow(
    dead_code,
    unused_imports,
    reason = "the control loop that uses it is built beside it"
)]
mod net;

fn main() {}
