//! The kernel's side of Weir: Linux is the control plane of the network.
//!
//! Every port has a [`Twin`], a TAP interface with the port's name and MAC address. What Weir
//! does not balance goes to the twin, and what the kernel sends out of it goes out of the port
//! ([`TwinThread`]). Addresses, routes and neighbours are the kernel's, configured with the
//! tools everyone knows; the [`Mirror`] follows them over rtnetlink and tells the control loop
//! ([`NetEvent`]), and through its [`NetHandle`] the kernel is asked to resolve next hops and
//! to hold virtual and local addresses ([`addresses`]).
//!
//! [`addresses`]: self::addresses

pub(crate) mod addresses;
mod announce;
mod mirror;
mod sys;
mod thread;
mod twin;

#[cfg(test)]
mod tests;

pub(crate) use addresses::{AddressKind, AddressProblem, PortAddress, WantedAddress};
pub(crate) use mirror::{Mirror, NetEvent, NetHandle};
pub(crate) use thread::{TwinCounters, TwinDrop, TwinThread, TwinThreadCounters};
pub(crate) use twin::{Twin, TwinError, TwinInfo, TwinIo};
