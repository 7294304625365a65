//! SCTP's states (derived from the recorded behaviour of the kernel; each cell that packets can
//! reach is held to it by `tests/states`).
//!
//! A packet carries several chunks; [`Event`] is what they say, all told. Read a state as the
//! server's: C-SENT is a server that answered with its cookie, S-SENT one that
//! began to close.
#![forbid(unsafe_code)]

use super::State;
use super::State::{
    None as NO, SctpClosed as CL, SctpCookie as CO, SctpCookieEchoed as CE,
    SctpCookieReplied as CR, SctpCookieSent as CS, SctpCookieWait as CW, SctpEstablished as ES,
    SctpInit as IN, SctpInit1 as I1, SctpRejected as RJ, SctpShutdownAckSent as SA,
    SctpShutdownReceived as SR, SctpShutdownSent as SS,
};
use super::Way;
pub use crate::packet::sctp::Event;

/// Columns of a row, a power of two: masking an index to them leaves no bound to check.
const COLUMNS: usize = 16;
type Row = [State; COLUMNS];
type Table = [Row; Event::ALL.len()];

/// A row from its fourteen columns NO I1 IN CS CR CW CO CE ES SS SR SA RJ CL.
const fn row(states: [State; 14]) -> Row {
    let mut row = [CL; COLUMNS];
    let mut i = 0;
    while i < states.len() {
        row[i] = states[i];
        i += 1;
    }
    row
}

#[rustfmt::skip]
const INPUT: Table = [
    //   NO  I1  IN  CS  CR  CW  CO  CE  ES  SS  SR  SA  RJ  CL
    row([ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]), // data
    row([I1, IN, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, IN, IN]), // INIT
    row([CW, CW, CW, CS, CR, CO, CO, CE, ES, SS, SR, SA, RJ, CL]), // INIT ACK
    row([CR, IN, IN, CR, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]), // COOKIE ECHO
    row([ES, I1, IN, CS, CR, CW, CO, ES, ES, SS, SR, SA, RJ, CL]), // COOKIE ACK
    row([SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL]), // SHUTDOWN
    row([CL, IN, IN, CS, CR, CW, CO, CE, ES, CL, SR, CL, RJ, CL]), // SHUTDOWN ACK
    row([CL, CL, CL, CS, CR, CW, CO, CE, ES, SS, SR, CL, RJ, CL]), // SHUTDOWN COMPLETE
    row([CL, I1, IN, CS, CR, CW, CO, CL, ES, SS, SR, SA, RJ, CL]), // ERROR
    row([CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL]), // ABORT
];

#[rustfmt::skip]
const OUTPUT: Table = [
    row([ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
    row([CW, CW, CW, CW, CW, CW, CW, CW, ES, CW, CW, CW, CW, CW]),
    row([CS, CS, CS, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
    row([CE, CE, CE, CE, CE, CE, CE, CE, ES, SS, SR, SA, RJ, CL]),
    row([ES, ES, ES, ES, ES, ES, ES, ES, ES, SS, SR, SA, RJ, CL]),
    row([SS, SS, SS, SS, SS, SS, SS, SS, SS, SS, SR, SA, RJ, CL]),
    row([SA, SA, SA, SA, SA, CW, CO, CE, ES, SA, SA, SA, RJ, CL]),
    row([CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
    row([CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
    row([CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL]),
];

/// What the client sends is all there is to see. States that it can't bring about alone (C-SENT,
/// C-REPLIED, C-WAIT, COOKIE, S-SENT, S-ACK-SENT, REJECTED) are left as by `INPUT`.
#[rustfmt::skip]
const INPUT_ONLY: Table = [
    row([ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
    row([I1, IN, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, IN, IN]),
    row([CE, CE, CE, CS, CR, CO, CO, CE, ES, SS, SR, SA, RJ, CL]),
    row([ES, ES, ES, CR, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
    row([ES, I1, IN, CS, CR, CW, CO, ES, ES, SS, SR, SA, RJ, CL]),
    row([SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL]),
    row([CL, IN, IN, CS, CR, CW, CO, CE, CL, CL, SR, CL, RJ, CL]),
    row([CL, CL, CL, CS, CR, CW, CO, CE, ES, SS, CL, CL, RJ, CL]),
    row([CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
    row([CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL]),
];

/// `TABLES[way][event]`.
static TABLES: [Table; 3] = [INPUT, OUTPUT, INPUT_ONLY];

/// One before the first of SCTP's own states: NONE, which it shares, is column 0.
const BASE: u8 = I1 as u8 - 1;

/// The state after a packet whose chunks say `event`.
#[inline(never)] // rare beside TCP and UDP
#[must_use]
pub fn next(state: State, way: Way, event: Event) -> State {
    if state == ES && matches!(event, Event::Data) {
        return state; // nearly every packet; the same in each of the tables
    }
    let column = usize::from((state as u8).saturating_sub(BASE));
    TABLES[way as usize][event as usize][column % COLUMNS]
}

const _: () = {
    assert!((CL as u8 - BASE) as usize == 13 && (CL as u8 - BASE) < COLUMNS as u8);
    assert!(NO as u8 == 0);
    let mut way = 0;
    while way < 3 {
        // What the shortcut in `next` takes for granted.
        assert!(matches!(TABLES[way][0][(ES as u8 - BASE) as usize], ES));
        way += 1;
    }
};

/// Whether a packet opens a connection: an INIT; with `sloppy`, anything but an ABORT.
#[inline]
#[must_use]
pub fn opens(event: Event, sloppy: bool) -> bool {
    match event {
        Event::Init => true,
        Event::Abort => false,
        _ => sloppy,
    }
}
