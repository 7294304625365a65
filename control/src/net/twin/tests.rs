use std::path::Path;

use super::*;
use crate::net::tests::{in_namespace, ip, ip_succeeds, mac};

fn refusal(device: &str, name: &str) -> String {
    let twin = Twin::create_with(Path::new(device), PortId(0), name, mac(0), 1500);
    twin.map(|_| ()).unwrap_err().to_string()
}

#[test]
fn names_that_the_kernel_takes_for_something_else_are_refused() {
    for name in [
        "",
        "sixteen-bytes-ab",
        "a/b",
        "a b",
        "a:1",
        "tun%d",
        ".",
        "..",
        "all",
        "default",
    ] {
        assert_eq!(
            refusal(TUN_DEVICE, name),
            format!(
                "port {name:?}: its kernel twin cannot have that name; use 1 to 15 bytes without \
                 white space, '/', ':' and '%', and not \"all\" or \"default\""
            )
        );
    }
    assert!(valid_name("fifteen-bytes-a") && valid_name("wan0.100") && valid_name("lan_ü"));
}

#[test]
fn a_missing_driver_is_named() {
    assert_eq!(
        refusal("/nowhere/tun", "wan0"),
        "port \"wan0\": its kernel twin needs /nowhere/tun, which is missing; load the driver \
         (modprobe tun) or pass the device into the container"
    );
}

#[test]
fn a_twin_has_the_ports_name_mac_mtu_and_sysctls() {
    in_namespace("make", || {
        let twin = Twin::create(PortId(3), "wan0", mac(7), 1400).unwrap();
        assert!(!twin.adopted());
        let shown = ip("-d link show wan0");
        for part in [
            "<NO-CARRIER,BROADCAST,MULTICAST,UP>",
            "mtu 1400",
            "link/ether 02:57:00:00:00:07",
            "tun type tap pi off vnet_hdr off persist on",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        for (family, key, value) in SYSCTLS {
            let path = format!("/proc/sys/net/{family}/conf/wan0/{key}");
            assert_eq!(
                std::fs::read_to_string(&path).unwrap().trim(),
                value,
                "{path}"
            );
        }
        twin.set_carrier(true).unwrap();
        assert!(ip("link show wan0").contains("<BROADCAST,MULTICAST,UP,LOWER_UP>"));
        let info = twin.info();
        assert_eq!((info.port, info.name.as_str()), (PortId(3), "wan0"));
        assert!(ip("-o link show wan0").starts_with(&format!("{}: ", info.ifindex)));

        twin.remove().unwrap();
        assert!(!ip_succeeds("link show wan0"));
    });
}

#[test]
fn a_crash_leaves_the_twin_without_carrier_and_the_next_start_adopts_it() {
    in_namespace("adopt", || {
        let twin = Twin::create(PortId(0), "wan0", mac(1), 1500).unwrap();
        twin.set_carrier(true).unwrap();
        let ifindex = twin.info().ifindex;
        ip("address add 10.9.0.1/24 dev wan0");
        ip("route add 10.8.0.0/16 via 10.9.0.2");
        drop(twin);
        assert!(ip("link show wan0").contains("<NO-CARRIER,BROADCAST,MULTICAST,UP>"));

        let twin = Twin::create(PortId(0), "wan0", mac(2), 1500).unwrap();
        twin.set_carrier(true).unwrap();
        assert!(twin.adopted());
        assert_eq!(twin.info().ifindex, ifindex);
        assert!(ip("link show wan0").contains("link/ether 02:57:00:00:00:02"));
        assert!(ip("address show wan0").contains("inet 10.9.0.1/24"));
        assert!(ip("route show").contains("10.8.0.0/16 via 10.9.0.2 dev wan0"));
        twin.remove().unwrap();
        assert!(!ip_succeeds("link show wan0"));
    });
}

#[test]
fn what_is_no_twin_of_ours_is_refused_and_stays_as_it_is() {
    in_namespace("taken", || {
        ip("link add wan0 type veth peer name far0");
        let before = ip("link show wan0");
        assert_eq!(
            refusal(TUN_DEVICE, "wan0"),
            "port \"wan0\": there is an interface \"wan0\" that is no TAP of one queue, so it \
             cannot be the port's kernel twin; rename the port or the interface"
        );
        assert_eq!(ip("link show wan0"), before);

        let _held = Twin::create(PortId(0), "lan0", mac(0), 1500).unwrap();
        assert_eq!(
            refusal(TUN_DEVICE, "lan0"),
            "port \"lan0\": another process holds the interface \"lan0\" (does Weir run \
             already?); stop it or rename the port"
        );
        let too_large = Twin::create(PortId(0), "lan1", mac(0), u16::MAX).unwrap_err();
        assert_eq!(
            too_large.to_string(),
            "port \"lan1\": cannot set the MTU of its kernel twin: Invalid argument (os error 22)"
        );
        assert!(!ip_succeeds("link show lan1"));
    });
}

#[test]
fn without_net_admin_the_capability_is_named() {
    in_namespace("rights", || {
        use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
        let mut sets = capabilities(None).unwrap();
        sets.effective -= CapabilitySet::NET_ADMIN;
        set_capabilities(None, sets).unwrap(); // of this thread only
        assert_eq!(
            refusal(TUN_DEVICE, "wan0"),
            "port \"wan0\": making its kernel twin needs the capability CAP_NET_ADMIN; run as \
             root or give it to the service"
        );
    });
}
