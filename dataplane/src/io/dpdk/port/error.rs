//! Why a port could not be opened, in words for people.
#![forbid(unsafe_code)]

use super::super::device::BadDevice;

/// Why a port could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("port {port}: device {device}: {problem}")]
pub struct PortError {
    /// The operator's name of the port.
    pub port: String,
    /// Its device.
    pub device: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Of no known form.
    #[error(transparent)]
    BadDevice(#[from] BadDevice),
    /// EAL was not given it, or it was closed.
    #[error("DPDK has no port of it; was EAL started with it?")]
    Absent,
    /// A bond without any member.
    #[error("a bond of no device; name its members")]
    NoMembers,
    /// EAL was not given a member, or it was closed.
    #[error("DPDK has no port of its member {0}; was EAL started with it?")]
    NoMember(String),
    /// Another port has it.
    #[error("it is open already; one port each")]
    InUse,
    /// No worker, or too many.
    #[error("{0} workers; use 1 to 128")]
    Workers(u8),
    /// It offers no queue at all.
    #[error("the driver offers {rx} receive and {tx} transmit queues; at least one of each")]
    NoQueues {
        /// Receive queues.
        rx: u16,
        /// Transmit queues.
        tx: u16,
    },
    /// It spreads frames over queues that nobody would poll.
    #[error(
        "it spreads frames over {queues} queues, {workers} workers would poll only theirs; \
         use qpairs={workers} or less"
    )]
    UnpolledQueues {
        /// Queues that get frames.
        queues: u16,
        /// Workers.
        workers: u8,
    },
    /// The device cannot carry such packets.
    #[error("mtu {mtu}: the device takes {min} to {max}")]
    Mtu {
        /// Asked for, bytes.
        mtu: u16,
        /// Least.
        min: u16,
        /// Most.
        max: u16,
    },
    /// The pool was made for smaller packets.
    #[error("mtu {mtu}: the packet buffers hold {max}; make the pool for the largest MTU")]
    Room {
        /// Asked for, bytes.
        mtu: u16,
        /// Most.
        max: u16,
    },
    /// The drivers want more descriptors than the pool was sized for.
    #[error(
        "its queues and those of the ports before it have {descriptors} descriptors; the packet \
         buffers count on {counted}; lower rx_descriptors or tx_descriptors to what the driver \
         takes, or make the pool larger"
    )]
    Descriptors {
        /// Descriptors with this port.
        descriptors: u32,
        /// What the pool counts on.
        counted: u32,
    },
    /// A step that the driver refused.
    #[error("{step}: {reason}{log}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// The driver's errno in words.
        reason: String,
        /// DPDK's last words, in brackets; may be empty.
        log: String,
    },
}
