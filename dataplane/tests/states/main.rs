//! Connection states held to the real kernel's: every row of a recording of Debian's 6.1.192
//! (`data/tcp_states.jsonl.gz`, 4,443 rows: the state, full timeout and activity after every
//! packet in every state that packets can reach, for TCP, UDP and SCTP, NAT, DR and TUN).
#![allow(missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod functions;
mod oracle;
mod random;
mod workers;
