use super::*;

fn parsed(texts: &[&str]) -> Result<Vec<Device>, EalError> {
    devices(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>())
}

#[test]
fn arguments_without_cards_or_huge_pages() {
    let options = EalOptions {
        log_level: LogLevel::Error,
        ..EalOptions::new(vec![], Memory::Plain { mib: 128 })
    };
    let devices = parsed(&["net_tap0,iface=dt0", "net_null0"]).unwrap();
    assert_eq!(
        args::build(&options, &devices, "0-1", "weir-7"),
        [
            "weir",
            "--lcores=0@(0-1)",
            "--file-prefix=weir-7",
            "--log-level=error",
            "--no-telemetry",
            "--no-shconf",
            "--no-huge",
            "-m128",
            "--vdev=net_tap0,iface=dt0",
            "--vdev=net_null0",
            "--no-pci",
            "--iova-mode=va",
        ]
    );
}

#[test]
fn arguments_with_a_card_and_huge_pages() {
    let options = EalOptions::new(vec![], Memory::HugePages { mib: 512 });
    let devices = [Device::parse("3b:00.0,rxqs=2").unwrap()];
    let args = args::build(&options, &devices, "2,4", "weir-7");
    for wanted in [
        "--in-memory",
        "-m512",
        "--allow=0000:3b:00.0,rxqs=2",
        "--lcores=0@(2,4)",
    ] {
        assert!(args.iter().any(|arg| arg == wanted), "{wanted} in {args:?}");
    }
    for unwanted in ["--no-pci", "--no-huge", "--iova-mode=va"] {
        assert!(!args.iter().any(|arg| arg == unwanted), "{unwanted}");
    }
}

#[test]
fn finds_the_allowed_processors() {
    let status = "Name:\tweir\nCpus_allowed:\t3\nCpus_allowed_list:\t0-1,4\nMems_allowed:\t1\n";
    assert_eq!(args::allowed_processors(status), Some("0-1,4"));
    assert_eq!(args::allowed_processors("Name:\tweir\n"), None);
}

#[test]
fn one_device_makes_one_port() {
    assert_eq!(
        parsed(&["net_ring0", "net_ring0,nodeaction=x"]),
        Err(EalError::DuplicateDevice("net_ring0".into()))
    );
    let error = parsed(&["0000:ff:1f.7"]).unwrap_err().to_string();
    assert_eq!(
        error,
        "device 0000:ff:1f.7: there is no such PCI device; \
         `dpdk-devbind.py --status-dev net` lists the cards"
    );
}

#[test]
fn counts_free_huge_pages_of_every_size() {
    let sysfs = std::env::temp_dir().join(format!("wd-huge-{}", std::process::id()));
    for (size, free) in [("hugepages-2048kB", "3\n"), ("hugepages-1048576kB", "1\n")] {
        std::fs::create_dir_all(sysfs.join(size)).unwrap();
        std::fs::write(sysfs.join(size).join("free_hugepages"), free).unwrap();
    }
    let mut pages = huge_pages_kib(&sysfs);
    pages.sort_unstable();
    assert_eq!(pages, [(2048, 3), (1_048_576, 1)]);
    std::fs::remove_dir_all(&sysfs).unwrap();
    assert_eq!(huge_pages_kib(&sysfs), []);
}

#[test]
fn too_few_huge_pages_is_said_with_the_remedy() {
    let error = check_huge_pages(u32::MAX).unwrap_err().to_string();
    assert!(
        error.starts_with("DPDK needs 4294967295 MiB of huge pages, "),
        "{error}"
    );
    assert!(
        error.ends_with("(echo 2147483648 > /proc/sys/vm/nr_hugepages) or set `hugepages = false`"),
        "{error}"
    );
}
