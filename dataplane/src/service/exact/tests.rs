use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::Exact;
use crate::types::{Proto, ServiceId};

/// Few enough that some are the same, of both families, with port 0 and address 0.0.0.0 among them.
fn address() -> impl Strategy<Value = (Proto, SocketAddr)> {
    let proto = prop_oneof![Just(Proto::Tcp), Just(Proto::Udp), Just(Proto::Sctp)];
    (proto, any::<bool>(), 0..40u8, 0..6u16).prop_map(|(proto, v6, host, port)| {
        let ip: IpAddr = match v6 {
            false if host == 0 => [0, 0, 0, 0].into(),
            false => [10, 0, 0, host].into(),
            true => [0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()].into(),
        };
        (proto, (ip, port).into())
    })
}

proptest! {
    #[test]
    fn finds_what_a_map_finds(
        services in prop::collection::vec(address(), 0..80),
        asked in prop::collection::vec(address(), 80),
    ) {
        let numbered = || services.iter().zip(0..).map(|(&(proto, at), n)| (proto, at, ServiceId(n)));
        let exact = Exact::new(numbered());
        let map: HashMap<_, _> = numbered().map(|(proto, at, id)| ((proto, at), id)).collect();
        for &(proto, at) in services.iter().chain(&asked) {
            prop_assert_eq!(exact.get(proto, at), map.get(&(proto, at)).copied());
        }
    }
}
