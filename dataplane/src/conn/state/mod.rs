//! Connection states: one file per protocol, and how long each state lasts.
//!
//! The tables are IPVS's. They follow what passes by; they are not an endpoint's state machine,
//! and they look at no sequence numbers. Every protocol answers one question with one look into
//! a table: the state after a packet, given the state before, the packet's [`Way`] and what the
//! packet says (TCP flags, an SCTP event).
#![forbid(unsafe_code)]

mod rules;
pub mod sctp;
pub mod tcp;
mod timeouts;
pub mod udp;

#[cfg(test)]
mod tests;

pub use rules::{Rules, Standing};
pub use timeouts::{TimeoutChanges, TimeoutSets, Timeouts};

macro_rules! states {
    ($($(#[doc = $doc:literal])+ $state:ident = $number:literal, $name:literal;)+) => {
        /// A connection's state.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        #[repr(u8)]
        pub enum State { #[default] $($(#[doc = $doc])+ $state = $number,)+ }

        /// Number of states.
        pub const STATES: usize = [$(State::$state),+].len();

        impl State {
            /// All states, by number.
            pub const ALL: [State; STATES] = [$(State::$state),+];

            /// As `ipvsadm -Lnc` prints it. TCP and SCTP both have an ESTABLISHED.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(State::$state => $name,)+ }
            }
        }
    };
}

states! {
    /// Just made, whatever the protocol.
    None = 0, "NONE";
    /// TCP: data flows both ways.
    Established = 1, "ESTABLISHED";
    /// TCP: the server opened (active FTP).
    SynSent = 2, "SYN_SENT";
    /// TCP: the client's SYN passed.
    SynRecv = 3, "SYN_RECV";
    /// TCP: the server closed first; one way, the client did.
    FinWait = 4, "FIN_WAIT";
    /// TCP: both closed.
    TimeWait = 5, "TIME_WAIT";
    /// TCP: reset, or gone.
    Close = 6, "CLOSE";
    /// TCP: the client closed first.
    CloseWait = 7, "CLOSE_WAIT";
    /// TCP: waiting for the last ACK. Only connection sync sets it.
    LastAck = 8, "LAST_ACK";
    /// TCP: only connection sync sets it.
    Listen = 9, "LISTEN";
    /// TCP: both SYNs passed, and with secure_tcp that is not enough.
    SynAck = 10, "SYNACK";
    /// A UDP flow.
    Udp = 11, "UDP";
    /// SCTP: the client's INIT passed.
    SctpInit1 = 12, "INIT1";
    /// SCTP: it passed again.
    SctpInit = 13, "INIT";
    /// SCTP: the server answered with INIT ACK and its cookie.
    SctpCookieSent = 14, "C-SENT";
    /// SCTP: the client brought the cookie back.
    SctpCookieReplied = 15, "C-REPLIED";
    /// SCTP: the server opened, and waits for a cookie.
    SctpCookieWait = 16, "C-WAIT";
    /// SCTP: the client gave its cookie to a server that opened.
    SctpCookie = 17, "COOKIE";
    /// SCTP: the server brought the client's cookie back; one way, the client did its own part.
    SctpCookieEchoed = 18, "C-ECHOED";
    /// SCTP: data flows both ways.
    SctpEstablished = 19, "ESTABLISHED";
    /// SCTP: the server began to close.
    SctpShutdownSent = 20, "S-SENT";
    /// SCTP: the client began to close.
    SctpShutdownReceived = 21, "S-RECEIVED";
    /// SCTP: the server has acknowledged the close.
    SctpShutdownAckSent = 22, "S-ACK-SENT";
    /// SCTP: aborted before it began.
    SctpRejected = 23, "REJECTED";
    /// SCTP: closed or aborted.
    SctpClosed = 24, "CLOSED";
    /// ICMP: a flow of echo requests and replies.
    Icmp = 25, "ICMP";
}

impl State {
    /// Whether IPVS counts it as ActiveConn; UDP flows never are.
    #[inline]
    #[must_use]
    pub fn is_active(self) -> bool {
        const ACTIVE: u32 = 1 << State::Established as u32
            | 1 << State::SynSent as u32
            | 1 << State::SynRecv as u32
            | 1 << State::SynAck as u32
            | 1 << State::SctpEstablished as u32;
        ACTIVE >> self as u32 & 1 != 0
    }

    /// Whether the conversation is over, so that its tuple may be given to a new one.
    #[inline]
    #[must_use]
    pub fn is_closing(self) -> bool {
        matches!(
            self,
            State::TimeWait | State::Close | State::SctpClosed | State::SctpRejected
        )
    }

    /// Whether data flows both ways, by TCP or SCTP.
    #[inline]
    #[must_use]
    pub fn is_established(self) -> bool {
        matches!(self, State::Established | State::SctpEstablished)
    }

    /// Whether the handshake never completed.
    #[inline]
    #[must_use]
    pub fn is_half_open(self) -> bool {
        matches!(
            self,
            State::None
                | State::SynSent
                | State::SynRecv
                | State::SynAck
                | State::SctpInit1
                | State::SctpInit
                | State::SctpCookieSent
                | State::SctpCookieReplied
                | State::SctpCookieWait
                | State::SctpCookie
                | State::SctpCookieEchoed
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

/// Which of a protocol's three tables a packet is looked up in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Way {
    /// From the client, on a connection whose answers pass the director too.
    Input = 0,
    /// From the server.
    Output = 1,
    /// From the client, on a connection whose answers were never seen (IPVS's flag NOOUTPUT):
    /// DR and TUN, until a packet of the server's does come this way.
    InputOnly = 2,
}

impl Way {
    /// The way of a packet in direction `dir`; `one_way`: no answer of the server's was seen
    /// so far, nor is any to be expected.
    #[inline]
    #[must_use]
    pub fn of(dir: Direction, one_way: bool) -> Way {
        match dir {
            Direction::Outbound => Way::Output,
            Direction::Inbound if one_way => Way::InputOnly,
            Direction::Inbound => Way::Input,
        }
    }
}
