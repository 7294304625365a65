//! Connection states of TCP and UDP, and how long each lasts.
//!
//! The TCP table is IPVS's (REFERENCE B1, `ip_vs_proto_tcp.c`): it follows what passes by, it
//! is not an endpoint's state machine. A packet with none of RST, SYN, FIN and ACK goes to
//! CLOSE; where a packet has several, RST wins over SYN over FIN over ACK.
#![forbid(unsafe_code)]

use crate::types::Tick;

/// A connection's state. Names are those of `ipvsadm -Lnc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum State {
    /// Just made.
    #[default]
    None = 0,
    /// Data flows both ways.
    Established = 1,
    /// The server opened (active FTP).
    SynSent = 2,
    /// The client's SYN passed.
    SynRecv = 3,
    /// The server closed first.
    FinWait = 4,
    /// Both closed.
    TimeWait = 5,
    /// Reset, or gone.
    Close = 6,
    /// The client closed first.
    CloseWait = 7,
    /// Waiting for the last ACK.
    LastAck = 8,
    /// Only set by connection sync.
    Listen = 9,
    /// SYN cookies passed (secure_tcp).
    SynAck = 10,
    /// A UDP flow.
    Udp = 11,
}

/// Number of states.
pub const STATES: usize = 12;

impl State {
    /// All states, by number.
    pub const ALL: [State; STATES] = [
        State::None,
        State::Established,
        State::SynSent,
        State::SynRecv,
        State::FinWait,
        State::TimeWait,
        State::Close,
        State::CloseWait,
        State::LastAck,
        State::Listen,
        State::SynAck,
        State::Udp,
    ];

    /// As `ipvsadm -Lnc` prints it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            State::None => "NONE",
            State::Established => "ESTABLISHED",
            State::SynSent => "SYN_SENT",
            State::SynRecv => "SYN_RECV",
            State::FinWait => "FIN_WAIT",
            State::TimeWait => "TIME_WAIT",
            State::Close => "CLOSE",
            State::CloseWait => "CLOSE_WAIT",
            State::LastAck => "LAST_ACK",
            State::Listen => "LISTEN",
            State::SynAck => "SYNACK",
            State::Udp => "UDP",
        }
    }

    /// Whether IPVS counts it as ActiveConn; UDP flows never are.
    #[inline]
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(
            self,
            State::Established | State::SynSent | State::SynRecv | State::SynAck
        )
    }

    /// Whether the conversation is over: its tuple may be given to a new SYN.
    #[inline]
    #[must_use]
    pub fn is_closing(self) -> bool {
        matches!(self, State::TimeWait | State::Close)
    }

    /// Whether the handshake never completed.
    #[inline]
    #[must_use]
    pub fn is_half_open(self) -> bool {
        matches!(
            self,
            State::None | State::SynSent | State::SynRecv | State::SynAck
        )
    }
}

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// Client to real server.
    Inbound = 0,
    /// Real server to client.
    Outbound = 1,
}

use State::{
    Close as CL, CloseWait as CW, Established as ES, FinWait as FW, LastAck as LA, Listen as LI,
    SynRecv as SR, SynSent as SS, TimeWait as TW, Udp as UD,
};

/// Rows of [`TCP`]; the last is for packets with none of the four flags.
const SYN_ROW: u8 = 0;
const FIN_ROW: u8 = 1;
const ACK_ROW: u8 = 2;
const RST_ROW: u8 = 3;
const NONE_ROW: u8 = 4;

/// `TCP[direction][row][state]`; columns NO ES SS SR FW TW CL CW LA LI SA, and UDP, which no
/// TCP packet meets.
#[rustfmt::skip]
const TCP: [[[State; STATES]; 5]; 2] = [
    [
        [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR, UD], // syn
        [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW, UD], // fin
        [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES, UD], // ack
        [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR, UD], // rst
        [CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, UD], // none
    ],
    [
        [SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR, UD],
        [TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW, UD],
        [ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES, UD],
        [CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL, UD],
        [CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, UD],
    ],
];

/// The row for each value of the five lowest flags: the precedence, worked out once.
const ROWS: [u8; 32] = {
    use crate::packet::tcp::flags::{ACK, FIN, RST, SYN};
    let mut rows = [NONE_ROW; 32];
    let mut flags = 0;
    while flags < 32 {
        let f = flags as u8;
        rows[flags] = if f & RST != 0 {
            RST_ROW
        } else if f & SYN != 0 {
            SYN_ROW
        } else if f & FIN != 0 {
            FIN_ROW
        } else if f & ACK != 0 {
            ACK_ROW
        } else {
            NONE_ROW
        };
        flags += 1;
    }
    rows
};

/// The state after a TCP packet with `flags` (the header's 14th octet) in direction `dir`.
#[inline]
#[must_use]
pub fn tcp_next(state: State, dir: Direction, flags: u8) -> State {
    use crate::packet::tcp::flags::{ACK, FIN, RST, SYN};
    if state == State::Established && flags & (SYN | FIN | RST | ACK) == ACK {
        return state; // nearly every packet; the same in the table
    }
    let row = ROWS[usize::from(flags & 0x1f)];
    TCP[dir as usize][usize::from(row)][state as usize]
}

/// How long a connection stays in each state, ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts([u32; STATES]);

impl Default for Timeouts {
    /// IPVS's defaults (REFERENCE B1.1, B1.2).
    fn default() -> Self {
        let mut t = Timeouts([0; STATES]);
        for (state, seconds) in [
            (State::None, 2),
            (State::Established, 900),
            (State::SynSent, 120),
            (State::SynRecv, 60),
            (State::FinWait, 120),
            (State::TimeWait, 120),
            (State::Close, 10),
            (State::CloseWait, 60),
            (State::LastAck, 30),
            (State::Listen, 120),
            (State::SynAck, 120),
            (State::Udp, 300),
        ] {
            t.set(state, Tick::seconds(seconds));
        }
        t
    }
}

impl Timeouts {
    /// Ticks that a connection without packets stays in `state`.
    #[inline]
    #[must_use]
    pub fn of(&self, state: State) -> u32 {
        self.0[state as usize]
    }

    /// Sets `state`'s timeout, ticks; at least one.
    pub fn set(&mut self, state: State, ticks: u32) {
        self.0[state as usize] = ticks.max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tcp::flags::{ACK, FIN, RST, SYN};
    use Direction::{Inbound, Outbound};

    /// A client's whole life through FULL-NAT, both ways of closing.
    #[test]
    fn a_life() {
        let run = |steps: &[(Direction, u8)]| {
            steps
                .iter()
                .fold(State::None, |s, (dir, f)| tcp_next(s, *dir, *f))
        };
        let open = [(Inbound, SYN), (Outbound, SYN | ACK), (Inbound, ACK)];
        assert_eq!(run(&open[..1]), State::SynRecv);
        assert_eq!(run(&open[..2]), State::SynRecv);
        assert_eq!(run(&open), State::Established);
        let with = |tail: &[(Direction, u8)]| run(&[&open[..], tail].concat());
        assert_eq!(with(&[(Inbound, FIN | ACK)]), State::CloseWait);
        assert_eq!(
            with(&[(Inbound, FIN | ACK), (Outbound, FIN | ACK)]),
            State::TimeWait
        );
        assert_eq!(with(&[(Outbound, FIN | ACK)]), State::FinWait);
        assert_eq!(
            with(&[(Outbound, FIN | ACK), (Inbound, FIN | ACK)]),
            State::TimeWait
        );
        assert_eq!(with(&[(Inbound, RST)]), State::Close);
        assert_eq!(with(&[(Inbound, 0)]), State::Close);
    }

    #[test]
    fn precedence_is_rst_syn_fin_ack() {
        let all = RST | SYN | FIN | ACK;
        assert_eq!(tcp_next(State::Established, Inbound, all), State::Close);
        assert_eq!(
            tcp_next(State::FinWait, Inbound, SYN | FIN | ACK),
            State::SynRecv
        );
        assert_eq!(
            tcp_next(State::Established, Inbound, FIN | ACK),
            State::CloseWait
        );
    }
}
