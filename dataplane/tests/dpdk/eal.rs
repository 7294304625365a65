//! Starting DPDK, and what it says when it does not.

use std::sync::Mutex;

use weir_dataplane::io::dpdk::{
    BadDevice, Eal, EalError, EalOptions, LogLevel, Memory, Pool, PoolDemand, PoolError,
    PoolOptions, ThreadError, WorkerThread, free_huge_pages_mib,
};

use super::{eal, options, pool};

#[test]
fn starts_without_pinning_the_caller() {
    let processors = || {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find(|l| l.starts_with("Cpus_allowed_list"));
        line.unwrap().to_owned()
    };
    let before = processors();
    let eal = eal(&["net_null0"]);
    assert_eq!(processors(), before);
    assert!(eal.version().starts_with("DPDK 2"), "{}", eal.version());
    let left = format!("/var/run/dpdk/weir-{}", std::process::id());
    assert!(!std::path::Path::new(&left).exists(), "{left} is left");
}

#[test]
fn starts_once_a_process() {
    eal(&[]);
    assert_eq!(Eal::init(&options(&[])).unwrap_err(), EalError::Twice);
}

#[test]
fn a_device_that_is_none_is_refused_before_dpdk_starts() {
    let error = Eal::init(&options(&["eth0"])).unwrap_err();
    assert_eq!(error, EalError::BadDevice(BadDevice("eth0".into())));
    eal(&["net_null0"]); // so a corrected list can still start it
}

#[test]
fn an_unknown_driver_is_named_with_what_dpdk_said() {
    let error = Eal::init(&options(&["net_nosuch0"])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "DPDK did not start: No such device (DPDK: EAL: failed to parse device \"net_nosuch0\"; \
         EAL: Unable to parse device 'net_nosuch0'); check the devices' names and arguments, and \
         that their drivers are installed (Debian: apt-get install librte-meta-net)"
    );
}

#[test]
fn a_device_that_no_driver_takes_is_named_with_what_dpdk_said() {
    if !super::is_root() {
        eprintln!("skipped: AF_PACKET needs root");
        return;
    }
    let error = Eal::init(&options(&["net_af_packet0,iface=wd-nosuch"])).unwrap_err();
    let error = error.to_string();
    assert!(
        error.starts_with(
            "device net_af_packet0: DPDK made no port of it (DPDK: rte_pmd_init_internals(): \
             net_af_packet0: ioctl failed (SIOCGIFINDEX):No such device; "
        ),
        "{error}"
    );
}

#[test]
fn dpdks_log_goes_to_the_sink_with_its_levels() {
    static LINES: Mutex<Vec<(LogLevel, String)>> = Mutex::new(Vec::new());
    let options = EalOptions {
        log_level: LogLevel::Info,
        log: Some(|level, line| LINES.lock().unwrap().push((level, line.to_owned()))),
        ..options(&["net_nosuch0"])
    };
    Eal::init(&options).unwrap_err();
    let lines = LINES.lock().unwrap();
    for (level, text) in [
        (LogLevel::Info, "EAL: Detected shared linkage of DPDK"),
        (
            LogLevel::Error,
            "EAL: failed to parse device \"net_nosuch0\"",
        ),
    ] {
        assert!(lines.contains(&(level, text.to_owned())), "{lines:?}");
    }
}

#[test]
fn huge_pages_that_are_not_there_are_asked_for() {
    let mib = free_huge_pages_mib() + 2;
    let options = EalOptions::new(vec![], Memory::HugePages { mib });
    let error = Eal::init(&options).unwrap_err().to_string();
    let (free, pages) = (mib - 2, mib.div_ceil(2));
    assert_eq!(
        error,
        format!(
            "DPDK needs {mib} MiB of huge pages, {free} MiB are free: reserve some \
             (echo {pages} > /proc/sys/vm/nr_hugepages) or set `hugepages = false`"
        )
    );
}

#[test]
fn runs_on_huge_pages_where_there_are_any() {
    if free_huge_pages_mib() < 64 {
        eprintln!("skipped: fewer than 64 MiB of huge pages are free");
        return;
    }
    let options = EalOptions::new(vec!["net_null0".into()], Memory::HugePages { mib: 32 });
    let eal = Eal::init(&options).unwrap();
    let pool = pool(&eal, &[]);
    assert_eq!((pool.capacity(), pool.in_use()), (512, 0));
}

#[test]
fn a_pool_that_does_not_fit_says_what_it_wanted() {
    let eal = eal(&[]);
    let demand = PoolDemand {
        rings: 100_000,
        ..PoolDemand::default()
    };
    let options = PoolOptions::new("big", demand, 1500);
    let error = Pool::new(&eal, &options).unwrap_err();
    assert!(
        matches!(
            &error,
            PoolError::NoMemory {
                count: 100_000,
                room: 2176,
                mib: 245,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("Cannot allocate memory"),
        "{error}"
    );
}

#[test]
fn memory_for_a_pool_is_what_its_options_say() {
    let demand = PoolDemand {
        rings: 30_000,
        ..PoolDemand::default()
    };
    let pool = PoolOptions::new("exact", demand, 1500);
    let mib = pool.memory_mib() + Memory::BASE_MIB;
    let eal = Eal::init(&EalOptions::new(vec![], Memory::Plain { mib })).unwrap();
    assert_eq!(Pool::new(&eal, &pool).unwrap().capacity(), 30_000);
}

#[test]
fn pools_have_names_of_their_own() {
    let eal = eal(&[]);
    let options = |name| PoolOptions::new(name, PoolDemand::default(), 1500);
    Pool::new(&eal, &options("one")).unwrap();
    let refused = |name| Pool::new(&eal, &options(name)).unwrap_err();
    assert_eq!(refused("one"), PoolError::NameTaken("one".into()));
    for name in ["o\0ne", "abcdefghijklmnopqrstuvwxyz"] {
        assert_eq!(refused(name), PoolError::BadName(name.into()));
    }
}

#[test]
fn a_pool_below_its_demand_is_refused_with_the_sum() {
    let eal = eal(&[]);
    let demand = PoolDemand {
        rings: 4000,
        parked: 96,
        ..PoolDemand::default()
    };
    let options = PoolOptions {
        count: Some(2048),
        ..PoolOptions::new("small", demand, 1500)
    };
    assert_eq!(
        Pool::new(&eal, &options).unwrap_err().to_string(),
        "2048 packet buffers are too few: 0 for queue descriptors, 0 for workers' caches, \
         0 in workers' hands, 4000 on rings, 96 parked: 4096 in all; \
         raise or leave out the number"
    );
}

#[test]
fn threads_register_once_and_give_their_number_back() {
    assert!(matches!(
        WorkerThread::register().unwrap_err(),
        ThreadError::Refused(_)
    ));
    eal(&[]);
    let worker = WorkerThread::register().unwrap();
    let number = worker.lcore();
    assert_eq!(WorkerThread::register().unwrap_err(), ThreadError::Twice);
    let other = std::thread::spawn(|| WorkerThread::register().unwrap().lcore());
    assert_ne!(other.join().unwrap(), number);
    drop(worker);
    assert_eq!(WorkerThread::register().unwrap().lcore(), number);
}
