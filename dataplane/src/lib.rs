//! Weir's dataplane: everything a packet touches.
//!
//! Read [`worker`] first (the run-to-completion loop), then [`pipeline`] (a packet's way, top
//! to bottom). The rooms do the work: [`packet`] parses once at the door, [`service`] says what
//! is balanced, [`conn`] remembers flows, [`sched`] chooses servers, [`lip`] finds local ports,
//! [`forward`] rewrites, [`steer`] says which core owns a flow, [`route`] where a frame goes
//! next, [`io`] moves frames in and out.
//!
//! Invariants, mostly absences: on a packet's way there is no lock, no atomic
//! read-modify-write, no allocation, no system call, no formatting and no panic on bad input;
//! a flow has one owner core; every packet ends in exactly one column of the books
//! ([`counters::Totals`]).
#![deny(unsafe_code)]

pub mod command;
pub mod conn;
pub mod counters;
mod cpu;
pub mod defense;
pub mod forward;
pub mod frag;
pub mod helper;
pub mod io;
pub mod lip;
pub mod packet;
pub mod pipeline;
pub mod replay;
pub mod route;
pub mod sched;
pub mod service;
pub mod steer;
pub mod types;
pub mod worker;

pub use types::{CoreId, Mac, PortId, Proto, ServerId, ServiceId, Tick};
