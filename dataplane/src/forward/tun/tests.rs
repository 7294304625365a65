use std::net::SocketAddr;

use super::*;
use crate::io::sim::{SimFrame, SimPool};
use crate::packet::build::Packet;
use crate::packet::{ids::IpIds, tcp::flags};
use crate::types::CoreId;

fn ids() -> IpIds {
    IpIds::new(CoreId(0), 1, 0)
}

fn over_v4() -> Ends {
    Ends::new([10, 0, 2, 254].into(), [10, 0, 2, 1].into()).unwrap()
}

fn over_v6() -> Ends {
    let v6 = |s: &str| IpAddr::V6(s.parse().unwrap());
    Ends::new(v6("2001:db8:2::fe"), v6("2001:db8:2::1")).unwrap()
}

fn syn() -> Vec<u8> {
    let addr = |s: &str| s.parse::<SocketAddr>().unwrap();
    Packet::tcp(addr("192.0.2.1:4000"), addr("10.0.0.10:80"), flags::SYN).build()
}

fn wrapped(tunnel: Tunnel, ends: Ends) -> SimFrame {
    let mut frame = SimPool::default().frame(&syn());
    encapsulate(&mut frame, tunnel, ends, 7, true, &mut ids()).unwrap();
    frame
}

const VXLAN: Tunnel = Tunnel::Vxlan {
    vni: 0xabc_def,
    port: 4789,
    mac: None,
};

#[test]
fn vxlan_over_ipv4() {
    let frame = wrapped(VXLAN, over_v4());
    let (f, inner) = (frame.bytes(), syn());
    assert_eq!(f.len(), inner.len() + 50);
    assert_eq!(be16(f, 16), inner.len() as u16 - 14 + 50);
    assert_eq!((f[23], checksum::sum(&f[14..34])), (ipv4::UDP, 0xffff));
    assert_eq!((be16(f, 34) >> 14, be16(f, 36)), (3, 4789));
    assert_eq!((be16(f, 38), be16(f, 40)), (inner.len() as u16 + 16, 0));
    assert_eq!(f[42..50], [8, 0, 0, 0, 0xab, 0xcd, 0xef, 0]);
    assert_eq!(f[50..56], [2, 0x57, 10, 0, 2, 1]);
    assert_eq!(f[56..62], [2, 0x57, 10, 0, 2, 254]);
    assert_eq!(f[62..], inner[12..]);
}

#[test]
fn vxlan_over_ipv6_is_checksummed() {
    let mac = Mac([2, 0, 0, 0, 0, 9]);
    let tunnel = Tunnel::Vxlan {
        vni: 1,
        port: 8472,
        mac: Some(mac),
    };
    let frame = wrapped(tunnel, over_v6());
    let f = frame.bytes();
    assert_eq!(eth::dst(&f[70..]), mac);
    let addrs = f[ipv6::SRC_AT..].first_chunk().unwrap();
    let sum = ipv6::pseudo(addrs, ipv4::UDP, (f.len() - 54) as u32);
    let sum = u32::from(sum) + u32::from(checksum::sum(&f[54..]));
    assert_eq!(checksum::fold(sum), 0xffff);
}

#[test]
fn flows_spread_over_source_ports() {
    let mut seen = std::collections::HashSet::new();
    for hash in 0..10_000u32 {
        let port = source_port(hash.wrapping_mul(0x9e37_79b9));
        assert!(port >= 0xc000);
        seen.insert(port);
    }
    assert!(seen.len() > 7_000, "{} ports", seen.len());
}

#[test]
fn what_does_not_fit_is_left_as_it_was() {
    let mut frame = SimPool::default().frame(&syn());
    assert!(frame.push_front(100)); // headroom is 128
    frame.bytes_mut().copy_within(100.., 0);
    assert!(frame.set_len(syn().len()));
    let result = encapsulate(&mut frame, VXLAN, over_v4(), 7, true, &mut ids());
    assert_eq!(result, Err(DropReason::TooBig));
    assert_eq!(frame.bytes(), syn());
    // A length field that the frame does not hold never gets here; it must not panic either.
    let mut lies = syn();
    put16(&mut lies, 16, 0xffff);
    let mut frame = SimPool::default().frame(&lies);
    let result = encapsulate(&mut frame, Tunnel::Ipip, over_v4(), 7, true, &mut ids());
    assert_eq!(result, Err(DropReason::TooBig));
    let mut arp = SimPool::default().frame(&[8; 60]);
    let result = encapsulate(&mut arp, Tunnel::Ipip, over_v4(), 7, true, &mut ids());
    assert_eq!(result, Err(DropReason::BadIpHeader));
}

#[test]
fn a_tunnel_is_small() {
    assert!(size_of::<Tunnel>() <= 16);
    assert_eq!(
        Ends::new([10, 0, 0, 1].into(), "::1".parse().unwrap()),
        None
    );
}
