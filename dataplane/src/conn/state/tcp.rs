//! TCP's states (REFERENCE B1.1; each cell that packets can reach is held to the kernel's by
//! `tests/states`).
//!
//! Where a packet has several flags, RST wins over SYN over FIN over ACK; one with none of the
//! four goes to CLOSE. The *secure* tables (IPVS's `secure_tcp`) believe a client only when the
//! handshake is complete: what a flood leaves behind is SYN_RECV or SYNACK, never ESTABLISHED.
#![forbid(unsafe_code)]

use super::State;
use super::State::{
    Close as CL, CloseWait as CW, Established as ES, FinWait as FW, LastAck as LA, Listen as LI,
    None as NO, SynAck as SA, SynRecv as SR, SynSent as SS, TimeWait as TW,
};
use super::Way;
use crate::packet::tcp::flags::{ACK, FIN, RST, SYN};

/// Columns of a row, a power of two: masking an index to them leaves no bound to check.
const COLUMNS: usize = 16;
type Row = [State; COLUMNS];
/// One row each for SYN, FIN, ACK, RST, and none of them.
type Table = [Row; 5];

/// A row from its eleven columns NO ES SS SR FW TW CL CW LA LI SA; TCP meets no others.
const fn row(states: [State; 11]) -> Row {
    let mut row = [State::Close; COLUMNS];
    let mut i = 0;
    while i < states.len() {
        row[i] = states[i];
        i += 1;
    }
    row
}

const NO_FLAG: Row = row([CL; 11]);

#[rustfmt::skip]
const INPUT: Table = [
    //   NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
    row([SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR]), // SYN
    row([CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW]), // FIN
    row([ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES]), // ACK
    row([CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR]), // RST
    NO_FLAG,
];

#[rustfmt::skip]
const OUTPUT: Table = [
    row([SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR]),
    row([TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW]),
    row([ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES]),
    row([CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL]),
    NO_FLAG,
];

#[rustfmt::skip]
const INPUT_ONLY: Table = [
    row([SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR]),
    row([CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW]),
    row([ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES]),
    row([CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL]),
    NO_FLAG,
];

#[rustfmt::skip]
const SECURE_INPUT: Table = [
    row([SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SA]),
    row([CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, SA]),
    row([ES, ES, SS, SR, FW, TW, CL, CW, CL, LI, SA]),
    row([CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL]),
    NO_FLAG,
];

#[rustfmt::skip]
const SECURE_OUTPUT: Table = [
    row([SS, ES, SS, SA, SS, SS, SS, SS, SS, LI, SA]),
    OUTPUT[1], OUTPUT[2], OUTPUT[3], NO_FLAG,
];

#[rustfmt::skip]
const SECURE_INPUT_ONLY: Table = [
    row([SA, ES, ES, SR, SA, SA, SA, SA, SA, SA, SA]),
    INPUT_ONLY[1], INPUT_ONLY[2], INPUT_ONLY[3], NO_FLAG,
];

/// `TABLES[secure][way]`.
static TABLES: [[Table; 3]; 2] = [
    [INPUT, OUTPUT, INPUT_ONLY],
    [SECURE_INPUT, SECURE_OUTPUT, SECURE_INPUT_ONLY],
];

/// The row for each value of the five lowest flags: the precedence, worked out once.
const ROWS: [u8; 32] = {
    let mut rows = [4; 32];
    let mut flags = 0;
    while flags < 32 {
        let f = flags as u8;
        rows[flags] = if f & RST != 0 {
            3
        } else if f & SYN != 0 {
            0
        } else if f & FIN != 0 {
            1
        } else if f & ACK != 0 {
            2
        } else {
            4
        };
        flags += 1;
    }
    rows
};

/// The state after a packet with `flags` (the header's 14th octet). `secure`: by the tables of
/// `secure_tcp`.
#[inline]
#[must_use]
pub fn next(state: State, way: Way, flags: u8, secure: bool) -> State {
    if state == ES && only_acknowledges(flags) {
        return state; // nearly every packet
    }
    let row = ROWS[usize::from(flags & 0x1f)];
    TABLES[usize::from(secure)][way as usize][usize::from(row)][state as usize % COLUMNS]
}

/// Whether a packet with `flags` leaves ESTABLISHED as it is, by each of the tables.
#[inline]
#[must_use]
pub fn only_acknowledges(flags: u8) -> bool {
    flags & (SYN | FIN | RST | ACK) == ACK
}

const _: () = {
    assert!(NO as usize == 0 && (SA as usize) < COLUMNS);
    let mut secure = 0;
    while secure < 2 {
        let mut way = 0;
        while way < 3 {
            // What `only_acknowledges` takes for granted.
            assert!(matches!(TABLES[secure][way][2][ES as usize], ES));
            way += 1;
        }
        secure += 1;
    }
};

/// Whether a packet opens a connection: anything with SYN and without RST (IPVS takes SYN+ACK
/// and SYN+FIN too); with `sloppy`, anything without RST.
#[inline]
#[must_use]
pub fn opens(flags: u8, sloppy: bool) -> bool {
    flags & RST == 0 && (sloppy || flags & SYN != 0)
}
