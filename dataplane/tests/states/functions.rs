//! The rows against the state functions alone: one connection, its packets in order.

use weir_dataplane::Tick;
use weir_dataplane::conn::state::{Direction, Standing, State, Timeouts, Way, sctp, tcp, udp};
use weir_dataplane::packet::sctp::Event;
use weir_dataplane::packet::tcp::flags::SYN;

use crate::oracle::{Packet, Row, Seen, What, on_purpose_unlike_lvs, rows};

/// A connection as far as its state goes.
#[derive(Debug, Clone, Copy)]
struct Conn {
    state: State,
    one_way: bool,
}

/// What the pipeline does with a packet, without the packets: whether the connection was made
/// by it, and the connection after it.
fn step(row: &Row, conn: Option<Conn>, packet: Packet, server: Standing) -> (bool, Option<Conn>) {
    let inbound = packet.dir == Direction::Inbound;
    let (starts, opens) = match packet.what {
        What::Flags(f) => (f & SYN != 0, tcp::opens(f, row.rules.sloppy_tcp)),
        What::Datagram => (false, true),
        What::Chunk(..) => {
            let event = packet.what.event();
            let sloppy = row.rules.sloppy_sctp;
            (event == Event::Init, sctp::opens(event, sloppy))
        }
    };
    let kept = conn.filter(|c| !inbound || !row.rules.gives_up(c.state, c.one_way, server, starts));
    let (new, mut conn) = match kept {
        Some(conn) => (false, conn),
        None if inbound && opens => {
            let conn = Conn {
                state: State::None,
                one_way: row.one_way,
            };
            (true, conn)
        }
        None => return (false, None),
    };
    conn.one_way &= inbound;
    let way = Way::of(packet.dir, conn.one_way);
    conn.state = match packet.what {
        What::Flags(f) => tcp::next(conn.state, way, f, row.rules.secure(false)),
        What::Datagram => udp::next(),
        What::Chunk(..) => sctp::next(conn.state, way, packet.what.event()),
    };
    (new, Some(conn))
}

fn agrees(seen: Option<Seen>, conn: Option<Conn>) -> bool {
    let (seen, conn) = match (seen, conn) {
        (Some(seen), Some(conn)) => (seen, conn),
        (seen, conn) => return seen.is_none() && conn.is_none(),
    };
    let ticks = Timeouts::default().of(conn.state);
    seen.state == conn.state
        && seen.timeout.is_none_or(|t| Tick::seconds(t) == ticks)
        && seen
            .active
            .is_none_or(|active| active == conn.state.is_active())
}

fn run(row: &Row) -> Result<(), String> {
    let mut conn = row.synced.map(|state| Conn {
        state,
        one_way: row.one_way,
    });
    for packet in &row.path {
        conn = step(row, conn, *packet, Standing::Up).1;
    }
    if !agrees(row.from, conn) && !row.is(MISREAD) {
        return Err(format!("{}\n  before it: {conn:?}", row.text));
    }
    let server = row.standing();
    let (new, after) = step(row, conn, row.packet, server);
    match agrees(row.to, after) && row.new.is_none_or(|n| n == new) {
        true => Ok(()),
        false => Err(format!("{}\n  after it: {after:?}, new {new}", row.text)),
    }
}

/// The one row whose `from` was read before the kernel's listing had the connection.
pub(crate) const MISREAD: &str =
    r#""af":6,"sysctl":{},"path":[["in","S"],["in","F"],["out","S"]],"from":null"#;

#[test]
fn every_row_of_the_kernel() {
    let (mut on_purpose, mut failures) = (0, Vec::new());
    for row in rows() {
        match (run(&row), on_purpose_unlike_lvs(&row)) {
            (Ok(()), _) => {}
            (Err(_), true) => on_purpose += 1,
            (Err(failure), false) => failures.push(failure),
        }
    }
    let shown = failures.iter().take(20).cloned().collect::<Vec<_>>();
    assert!(
        failures.is_empty(),
        "{} rows differ:\n{}",
        failures.len(),
        shown.join("\n")
    );
    assert_eq!(on_purpose, 32, "rows that differ on purpose");
}
