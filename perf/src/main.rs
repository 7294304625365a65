//! weir-perf
fn main() {}
