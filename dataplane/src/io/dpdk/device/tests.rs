use super::*;

#[test]
fn reads_pci_addresses_with_and_without_domain_and_arguments() {
    for (text, address, allow) in [
        ("0000:3b:00.0", "0000:3b:00.0", "0000:3b:00.0"),
        ("3B:0a.7", "0000:3b:0a.7", "0000:3b:0a.7"),
        (
            "0001:3b:00.1,mprq_en=1,rxqs=2",
            "0001:3b:00.1",
            "0001:3b:00.1,mprq_en=1,rxqs=2",
        ),
    ] {
        let device = Device::parse(text).unwrap();
        assert_eq!(device.name(), address);
        let (address, allow) = (address.into(), allow.into());
        assert_eq!(device, Device::Pci { address, allow });
    }
}

#[test]
fn reads_virtual_devices() {
    let device = Device::parse("net_memif0,role=client,socket=/run/m.sock").unwrap();
    assert_eq!(device.name(), "net_memif0");
    assert!(matches!(device, Device::Vdev { spec, .. } if spec.ends_with("/run/m.sock")));
    assert_eq!(Device::parse("net_null0").unwrap().name(), "net_null0");
}

#[test]
fn refuses_everything_else_and_says_what_to_write() {
    for text in [
        "",
        "eth0",
        "net_",
        "net_tap0 ,iface=x",
        "net-tap0",
        "net_tap0,iface=a b",
        "0000:3b:00",
        "0000:3b:00.8",
        "0000:3b:00.0.0",
        "00:0000:3b:00.0",
        "0000:3g:00.0",
        "crypto_null0",
    ] {
        assert_eq!(Device::parse(text), Err(BadDevice(text.into())), "{text}");
    }
    assert_eq!(
        BadDevice("eth0".into()).to_string(),
        "device \"eth0\": neither a PCI address (0000:3b:00.0) nor a DPDK virtual device \
         (net_tap0,iface=dt0; names start with \"net_\")"
    );
}

#[test]
fn says_what_stands_in_a_cards_way() {
    let sysfs = std::env::temp_dir().join(format!("wd-sysfs-{}", std::process::id()));
    let card = |address: &str, driver: Option<&str>| {
        let dir = sysfs.join(address);
        std::fs::create_dir_all(&dir).unwrap();
        if let Some(driver) = driver {
            std::os::unix::fs::symlink(format!("../drivers/{driver}"), dir.join("driver")).unwrap();
        }
    };
    card("0000:01:00.0", Some("vfio-pci"));
    card("0000:02:00.0", Some("ixgbe"));
    card("0000:03:00.0", None);
    let obstacle = |text: &str| Device::parse(text).unwrap().obstacle(&sysfs);
    assert_eq!(obstacle("0000:01:00.0"), None);
    assert_eq!(obstacle("net_null0"), None);
    assert_eq!(
        obstacle("0000:02:00.0").unwrap(),
        "it is bound to ixgbe; take it from the kernel: modprobe vfio-pci && \
         dpdk-devbind.py -b vfio-pci 0000:02:00.0"
    );
    assert!(
        obstacle("03:00.0")
            .unwrap()
            .starts_with("it is bound to no driver;")
    );
    assert!(
        obstacle("04:00.0")
            .unwrap()
            .starts_with("there is no such PCI device;")
    );
    std::fs::remove_dir_all(&sysfs).unwrap();
}
