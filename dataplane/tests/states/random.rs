//! Any packets in any order, with time passing, servers coming and going and rules changing:
//! nothing panics, no connection leaves its protocol's states, gauges and counters are exact.

use proptest::prelude::*;
use weir_dataplane::Proto;
use weir_dataplane::conn::state::{Direction, Rules, Standing, State};
use weir_dataplane::forward::ForwardMode;

use crate::oracle::{Packet, What};
use crate::workers::{Lab, Talk, V4};

const MODES: &[ForwardMode] = &[ForwardMode::fullnat, ForwardMode::nat, ForwardMode::dr];

#[derive(Debug, Clone)]
enum Step {
    /// A packet of this client's connection.
    Packet(usize, bool, What),
    /// Ticks pass.
    Wait(u32),
    Servers([Standing; 2]),
    Rules(Rules),
}

fn step() -> impl Strategy<Value = Step> {
    let standing = prop_oneof![
        2 => Just(Standing::Up),
        1 => Just(Standing::Drained),
        1 => Just(Standing::Gone),
    ];
    let rules = (any::<bool>(), any::<bool>(), 0..4u8, 0..4u8, any::<bool>());
    let rules = rules.prop_map(|(sloppy_tcp, sloppy_sctp, secure, reuse, expire)| Rules {
        sloppy_tcp,
        sloppy_sctp,
        secure_tcp: secure,
        conn_reuse_mode: reuse,
        expire_nodest_conn: expire,
        ..Rules::default()
    });
    let what = prop_oneof![
        4 => any::<u8>().prop_map(What::Flags),
        1 => Just(What::Datagram),
        4 => (0..20u8, any::<bool>()).prop_map(|(chunk, data)| What::Chunk(chunk, data)),
    ];
    prop_oneof![
        30 => (0..6usize, any::<bool>(), what).prop_map(|(c, i, w)| Step::Packet(c, i, w)),
        3 => (0..9_000u32).prop_map(Step::Wait),
        1 => [standing.clone(), standing].prop_map(Step::Servers),
        1 => rules.prop_map(Step::Rules),
    ]
}

/// Each server's gauges are what a count of the table gives, and every state is its protocol's.
fn assert_exact(lab: &mut Lab) {
    let conns = lab.listing();
    for id in lab.servers() {
        let of = |active| {
            let its = conns.iter().filter(|c| c.server_id == id);
            its.filter(|c| c.state.is_active() == active).count() as u64
        };
        assert_eq!(lab.gauges_of(id), (of(true), of(false)), "{id:?}");
    }
    assert_eq!(lab.director.counters[0].conns.get(), conns.len() as u64);
    for c in &conns {
        let its_own = match c.proto {
            Proto::Tcp => c.state < State::Udp,
            Proto::Udp => matches!(c.state, State::Udp | State::None),
            Proto::Sctp => c.state > State::Udp || c.state == State::None,
            Proto::Icmp => unreachable!("no service has it"),
        };
        assert!(its_own, "{c:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_packets_in_any_order(
        mode in prop::sample::select(MODES),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut lab = Lab::new(V4, mode, Rules::default(), true);
        let mut talks: Vec<Talk> = (0..6).map(|_| lab.talk()).collect();
        for step in steps {
            match step {
                Step::Packet(client, inbound, what) => {
                    let dir = if inbound { Direction::Inbound } else { Direction::Outbound };
                    lab.send(&mut talks[client], Packet { dir, what });
                }
                Step::Wait(ticks) => {
                    lab.director.now = lab.director.now.after(ticks);
                    lab.director.settle();
                }
                Step::Servers(standings) => lab.stand(standings),
                Step::Rules(rules) => lab.rule(rules),
            }
            assert_exact(&mut lab);
        }
        lab.director.assert_books();
        lab.stand([Standing::Up; 2]);
        lab.director.assert_runs_out();
    }
}
