use super::*;
use crate::packet::sctp::Event;
use crate::packet::tcp::flags::{ACK, FIN, RST, SYN};
use crate::types::{ServiceId, Tick};
use Direction::{Inbound, Outbound};

fn next(state: State, dir: Direction, flags: u8) -> State {
    tcp::next(state, Way::of(dir, false), flags, false)
}

/// A client's whole life through FULL-NAT, both ways of closing.
#[test]
fn a_life() {
    let run = |steps: &[(Direction, u8)]| {
        steps
            .iter()
            .fold(State::None, |s, (dir, f)| next(s, *dir, *f))
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
    assert_eq!(next(State::Established, Inbound, all), State::Close);
    assert_eq!(
        next(State::FinWait, Inbound, SYN | FIN | ACK),
        State::SynRecv
    );
    assert_eq!(
        next(State::Established, Inbound, FIN | ACK),
        State::CloseWait
    );
}

/// Whatever the packets, a connection stays within its protocol's own states, and each of them
/// has a timeout.
#[test]
fn tables_stay_within_their_protocol() {
    let ways = [Way::Input, Way::Output, Way::InputOnly];
    let tcp_states = &State::ALL[..=State::SynAck as usize];
    let sctp_states = &State::ALL[State::SctpInit1 as usize..=State::SctpClosed as usize];
    for way in ways {
        for &state in tcp_states {
            for flags in 0..=u8::MAX {
                for secure in [false, true] {
                    assert!(tcp_states.contains(&tcp::next(state, way, flags, secure)));
                }
            }
        }
        for &state in sctp_states.iter().chain([&State::None]) {
            for chunk in 0..=u8::MAX {
                let event = Event::of_chunk(chunk);
                let next = sctp::next(state, way, event);
                assert!(sctp_states.contains(&next));
                assert_eq!(Event::from_u8(event as u8), event);
            }
        }
    }
    let timeouts = Timeouts::default();
    assert!(State::ALL.iter().all(|s| timeouts.of(*s) > 0));
    assert!(State::ALL.iter().enumerate().all(|(i, s)| *s as usize == i));
}

#[test]
fn secure_tables_only_believe_a_completed_handshake() {
    let run = |secure, way: &[(Way, u8)]| {
        way.iter()
            .fold(State::None, |s, (way, f)| tcp::next(s, *way, *f, secure))
    };
    let flood = [(Way::Input, SYN), (Way::Input, ACK)];
    assert_eq!(run(false, &flood), State::Established);
    assert_eq!(run(true, &flood), State::SynRecv);
    let honest = [
        (Way::Input, SYN),
        (Way::Output, SYN | ACK),
        (Way::Output, ACK),
    ];
    assert_eq!(run(true, &honest[..2]), State::SynAck);
    assert_eq!(run(true, &honest), State::Established);
    assert_eq!(run(true, &[(Way::InputOnly, SYN)]), State::SynAck);
}

#[test]
fn a_services_own_timeouts_go_before_the_global_ones() {
    let mut changes = TimeoutChanges::default();
    assert!(changes.is_empty());
    changes.set(State::Established, 640);
    changes.set(State::Udp, 0); // at least a tick
    let own = Timeouts::default().with(&changes);
    assert_eq!((own.of(State::Established), own.of(State::Udp)), (640, 1));
    assert_eq!(own.of(State::Close), Tick::seconds(10));
    assert_eq!(changes.iter().count(), 2);
}

#[test]
fn services_without_timeouts_of_their_own_share_the_global_ones() {
    let mut changes = TimeoutChanges::default();
    changes.set(State::Udp, 64);
    let sets = TimeoutSets::new(Timeouts::default(), &[(ServiceId(3), changes)]);
    assert!(sets.any_own());
    for (service, ticks) in [(0, 300 * 64), (3, 64), (4, 300 * 64), (1 << 30, 300 * 64)] {
        let own = sets.of(ServiceId(service));
        assert_eq!(own.of(State::Udp), ticks, "service {service}");
        assert_eq!(own.of(State::Close), 640);
    }
}

#[test]
fn what_reopens() {
    let mode = |conn_reuse_mode, expire_nodest_conn| Rules {
        conn_reuse_mode,
        expire_nodest_conn,
        ..Rules::default()
    };
    let up = Standing::Up;
    for state in State::ALL {
        let over = matches!(state, State::TimeWait | State::Close | State::SctpClosed);
        assert_eq!(mode(1, false).gives_up(state, true, up, true), over);
        assert!(!mode(0, true).gives_up(state, true, up, true));
        assert!(!mode(3, false).gives_up(state, true, Standing::Gone, false));
        assert!(mode(0, true).gives_up(state, true, Standing::Gone, false));
        assert!(mode(0, true).gives_up(state, true, Standing::Drained, true));
        assert!(!mode(3, true).gives_up(State::Established, true, up, true));
    }
    assert!(mode(2, false).gives_up(State::FinWait, true, up, true));
    assert!(!mode(2, false).gives_up(State::FinWait, false, up, true));
    assert!(!mode(1, false).gives_up(State::FinWait, true, up, true));
}
