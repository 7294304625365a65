use std::net::IpAddr;

use weir_dataplane::service::SnapshotBuilder;

use super::*;
use crate::net::AddressKind;

fn snapshot(generation: u64) -> Arc<Snapshot> {
    Arc::new(SnapshotBuilder::default().build(generation))
}

fn addresses(last: &[u8]) -> Vec<WantedAddress> {
    let address = |last: &u8| WantedAddress {
        addr: IpAddr::from([10, 0, 0, *last]),
        kind: AddressKind::Vip,
        port: None,
    };
    last.iter().map(address).collect()
}

/// A step, in short.
fn short(step: Option<Step>) -> String {
    match step {
        None => "nothing".to_owned(),
        Some(Step::Settled) => "settled".to_owned(),
        Some(Step::Spread(snapshot)) => format!("spread {}", snapshot.generation),
        Some(Step::SetAddresses(addresses)) => {
            let last =
                |a: &WantedAddress| a.addr.to_string().rsplit('.').next().unwrap().to_owned();
            format!(
                "set [{}]",
                addresses.iter().map(last).collect::<Vec<_>>().join(", ")
            )
        }
    }
}

fn start(rollout: &mut Rollout, generation: u64, wanted: &[u8]) -> String {
    short(Some(rollout.start(snapshot(generation), addresses(wanted))))
}

#[test]
fn addresses_leave_before_and_come_after() {
    let mut rollout = Rollout::default();
    assert!(rollout.is_settled());
    // The first: nothing leaves.
    assert_eq!(start(&mut rollout, 1, &[10, 11]), "spread 1");
    assert!(!rollout.is_settled());
    assert_eq!(short(rollout.addresses_set()), "nothing");
    assert_eq!(short(rollout.workers_hold(0)), "nothing");
    assert_eq!(short(rollout.workers_hold(1)), "set [10, 11]");
    assert_eq!(short(rollout.workers_hold(1)), "nothing");
    assert_eq!(short(rollout.addresses_set()), "settled");
    assert!(rollout.is_settled());
    // 10 leaves, 12 comes.
    assert_eq!(start(&mut rollout, 2, &[11, 12]), "set [11]");
    assert_eq!(short(rollout.workers_hold(1)), "nothing");
    assert_eq!(short(rollout.addresses_set()), "spread 2");
    assert_eq!(short(rollout.workers_hold(2)), "set [11, 12]");
    assert_eq!(short(rollout.addresses_set()), "settled");
    // Only servers change.
    assert_eq!(start(&mut rollout, 3, &[11, 12]), "spread 3");
    assert_eq!(short(rollout.workers_hold(4)), "settled");
    // All leave.
    assert_eq!(start(&mut rollout, 5, &[]), "set []");
    assert_eq!(short(rollout.addresses_set()), "spread 5");
    assert_eq!(short(rollout.workers_hold(5)), "settled");
    assert_eq!(short(rollout.workers_hold(5)), "nothing");
    assert_eq!(short(rollout.addresses_set()), "nothing");
}
