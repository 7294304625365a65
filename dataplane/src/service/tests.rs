use super::*;
use crate::sched::{Options, SchedulerKind};

fn service(id: u32, vip: [u8; 4], port: u16) -> Arc<Service> {
    Arc::new(Service {
        id: ServiceId(id),
        name: "s".into(),
        key: ServiceKey {
            proto: Proto::Tcp,
            vip: vip.into(),
            port,
        },
        scheduler: Scheduler::new(SchedulerKind::rr, Options::default(), &[]),
        servers: vec![],
        local_addresses: [IpAddr::from([10, 1, 0, 100])].into_iter().collect(),
        client_address: Default::default(),
        policy: Default::default(),
    })
}

#[test]
fn exact_wins_over_port_zero() {
    let mut b = SnapshotBuilder::default();
    b.service(service(3, [10, 0, 0, 1], 0));
    b.service(service(5, [10, 0, 0, 1], 80));
    let s = b.build(1);
    let id = |port, proto| {
        s.lookup(ServiceKey {
            proto,
            vip: [10, 0, 0, 1].into(),
            port,
        })
        .map(|s| s.id.0)
    };
    assert_eq!(id(80, Proto::Tcp), Some(5));
    assert_eq!(id(81, Proto::Tcp), Some(3));
    assert_eq!(id(80, Proto::Udp), None);
    assert!(s.address_use([10, 0, 0, 1].into()).vip);
    assert!(s.address_use([10, 1, 0, 100].into()).local);
    assert_eq!(s.address_use([10, 1, 0, 101].into()), AddressUse::default());
}

#[test]
fn a_changed_server_copies_one_chunk_and_shares_the_rest() {
    let server = |id| Server {
        id: ServerId(id),
        service: ServiceId(0),
        address: SocketAddr::new(Ipv4Addr::from(id).into(), 80),
        forward: ForwardMode::fullnat,
        tunnel: None,
        policy: Default::default(),
    };
    let mut b = SnapshotBuilder::default();
    for id in 0..600 {
        b.server(server(id));
    }
    let old = b.build(1);
    let mut b = SnapshotBuilder::default();
    b.servers_of(&old);
    b.forget_server(ServerId(300));
    let new = b.build(2);
    assert!(old.server(ServerId(300)).is_some() && new.server(ServerId(300)).is_none());
    assert!(Arc::ptr_eq(&old.servers[0], &new.servers[0]));
    assert!(!Arc::ptr_eq(&old.servers[1], &new.servers[1]));
    assert_eq!(new.servers().count(), 599);
    assert!(new.server(ServerId(70_000)).is_none());
}
