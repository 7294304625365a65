//! What lies between a port and its switch: VLANs, bonds.

mod bonds;
mod vlans;
