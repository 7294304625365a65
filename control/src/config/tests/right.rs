//! What values become, and mistakes that only a built file can show.

use weir_dataplane::Tick;
use weir_dataplane::conn::Eviction;
use weir_dataplane::conn::state::{Rules, State, Timeouts};

use super::super::types::Device;
use super::super::{scalars, words};
use super::*;

#[test]
fn values_become_what_they_say() {
    let text = BASE
        .replace("count = 2", "cores = [5, 0x1]")
        .replace(
            "udp = \"30s\"",
            "udp = \"1500ms\"\nestablished = \"2h\"\nsctp_cookie_echoed = \"5s\"",
        )
        .replace(
            "[addresses]",
            "[ipvs]\nsloppy_tcp = true\nsloppy_sctp = true\nsecure_tcp = 3\n\
             conn_reuse_mode = 0\nexpire_nodest_conn = true\npmtu_disc = false\n\
             drop_entry = 1\ndrop_packet = 3\nam_droprate = 7\namemthresh = 2000\n\
             [defense]\neviction = \"idle-first\"\n\
             cookie_secret = \"000102030405060708090a0b0c0d0eFf\"\n[addresses]",
        )
        .replace(
            "name = \"web\"",
            "name = \"web\"\ntimeouts = { established = \"90s\", close = \"1s\" }",
        )
        .replace("0000:3b:00.0", "3B:00.1,rxq_cqe_comp_en=0")
        .replace("vips = \"managed\"", "vips = \"external\"")
        .replace("level = \"info\"", "level = \"debug\"\nformat = \"json\"")
        .replace("10.0.0.10:53", "10.0.0.10:0")
        .replace("10.1.0.11:53", "10.1.0.11:0");
    let config = right(&text);
    assert_eq!(config.workers.cores, Cores::Pinned(vec![5, 1]));
    assert_eq!(config.workers.cores.workers(), 2);
    assert_eq!(config.timeouts.of(State::Udp), 96); // 1.5 s of 64 ticks
    assert_eq!(config.timeouts.of(State::Established), 7200 * 64);
    assert_eq!(
        config.timeouts.of(State::Close),
        Timeouts::default().of(State::Close)
    );
    let sctp = Tick::seconds(5);
    assert_eq!(config.timeouts.of(State::SctpCookieEchoed), sctp);
    assert_eq!(
        config.rules,
        Rules {
            sloppy_tcp: true,
            sloppy_sctp: true,
            secure_tcp: 3,
            conn_reuse_mode: 0,
            expire_nodest_conn: true,
            pmtu_disc: false,
            drop_entry: 1,
            drop_packet: 3,
            am_droprate: 7,
            amemthresh: 2000,
            eviction: Eviction::IdleFirst,
            expire_quiescent_template: false,
            cookie_secret: Some([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]),
        }
    );
    let own: Vec<_> = config.services[0].timeouts.iter().collect();
    let seconds = Tick::seconds;
    assert_eq!(own, [(State::Established, seconds(90)), (State::Close, 64)]);
    assert!(config.services[1].timeouts.is_empty());
    let device = Device::Pci("0000:3b:00.1,rxq_cqe_comp_en=0".to_owned());
    assert_eq!(config.ports[0].device, device);
    assert_eq!(device.name(), "0000:3b:00.1");
    assert_eq!(device.argument("rxq_cqe_comp_en"), Some("0"));
    assert_eq!(config.addresses.vips, VipOwner::External);
    assert_eq!(
        (config.log.level, config.log.format),
        (tracing::Level::DEBUG, LogFormat::Json)
    );
    assert_eq!(config.services[1].servers[0].address, at("10.1.0.11:0"));
}

/// One run shows everything, in the file's order, whatever found it.
#[test]
fn all_mistakes_at_once_in_order() {
    let text = BASE
        .replace("idle = \"auto\"", "idle = \"busy\"")
        .replace("mtu = 1500", "mtu = 1")
        .replace("10.0.0.10:80", "10.0.0.2:80")
        .replace("weight = 100", "weigth = 100")
        .replace("name = \"dns\"", "name = \"web\"")
        .replace("udp = \"30s\"", "udp = 30");
    let expected = [
        r#"weir.toml:6:8: [workers]: idle = "busy": not known; use "auto", "spin", "yield" or "sleep""#,
        r#"weir.toml:12:7: port "wan0": mtu = 1: out of range; use 576 to 9600 bytes"#,
        r#"weir.toml:21:11: service "web": address = "10.0.0.2:80": 10.0.0.2 is the own address of port "wan0" (line 11); use another for the service"#,
        r#"weir.toml:30:1: service "web": real server 10.1.0.11:80: unknown key "weigth"; did you mean "weight"?"#,
        r#"weir.toml:36:8: service "web": name = "web": the name of another service (line 20); give each its own"#,
        r#"weir.toml:45:7: [timeouts]: udp = 30: an integer, not a string; write udp = "300s""#,
    ];
    assert_eq!(wrong(&text), expected.join("\n"));
}

#[test]
fn columns_are_characters_and_long_values_are_cut() {
    let text = MINIMAL
        .replace("\"web\"", "\"ü\"")
        .replace("name = \"wan0\"", "'name' = 'wañ'");
    assert_eq!(
        wrong(&text),
        "weir.toml:3:10: port \"wañ\": name = 'wañ': 'ñ' in an interface name; use letters, \
         digits, '.', '_' and '-'\n\
         weir.toml:6:8: service \"ü\": name = \"ü\": 'ü' in a name; use letters, digits, '.', \
         '_', ':', '/' and '-'"
    );
    let long = MINIMAL.replace("0000:3b:00.0", &"x".repeat(100));
    let cut = format!("device = \"{}…: not a device;", "x".repeat(59));
    assert!(wrong(&long).contains(&cut), "{}", wrong(&long));
}

#[test]
fn limits_on_numbers_of_things() {
    assert_eq!(
        wrong(""),
        "weir.toml:1:1: no [[port]]; add one for each network card, with a name and a device"
    );
    assert_eq!(
        wrong("port = []"),
        "weir.toml:1:8: port = []: no [[port]]; add one for each network card, with a name and a \
         device"
    );
    assert_eq!(
        wrong("[port]\nname = \"wan0\""),
        "weir.toml:1:1: port: there may be several; write [[port]] with double brackets"
    );
    let port = |n| format!("[[port]]\nname = \"p{n}\"\ndevice = \"net_null{n}\"\n");
    let ports: String = (0..17).map(port).collect();
    assert_eq!(
        wrong(&ports),
        "weir.toml:49:1: port \"p16\": 17 ports; at most 16 are possible"
    );

    let cores: Vec<String> = (0..129).map(|n| n.to_string()).collect();
    let text = format!("[workers]\ncores = [{}]\n{}", cores.join(", "), port(0));
    let large = Machine {
        cores: (0..200).collect(),
    };
    let report = parse("weir.toml", &text, &large).unwrap_err().to_string();
    assert!(
        report.starts_with("weir.toml:2:9: [workers]: cores = [0, 1, 2, "),
        "{report}"
    );
    assert!(
        report.ends_with("…: 129 CPUs; at most 128 workers"),
        "{report}"
    );

    let locals = r#"["10.20.0.64-10.20.0.71", "10.20.4.0-10.20.7.254"]"#;
    let text = MINIMAL.replace(r#"["10.20.0.64-10.20.0.71"]"#, locals);
    assert_eq!(
        wrong(&text),
        "weir.toml:9:45: service \"web\": local_addresses: 1031 addresses up to here; a service \
         takes at most 1024"
    );
}

#[test]
fn unreadable_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weir.toml");
    let name = path.display();
    let report = load(&path).unwrap_err().to_string();
    let text = "cannot be read: No such file or directory (os error 2); check the path";
    assert_eq!(report, format!("{name}: {text}"));
    std::fs::write(&path, b"[workers]\n# caf\xe9\n").unwrap();
    let report = load(&path).unwrap_err().to_string();
    assert_eq!(
        report,
        format!("{name}:2:6: byte 0xe9 is not UTF-8; save the file as UTF-8")
    );
    std::fs::write(&path, MINIMAL).unwrap();
    assert_eq!(load(&path).unwrap(), right(MINIMAL));
}

#[test]
fn this_machine_has_a_cpu() {
    assert!(!Machine::this().cores.is_empty());
    assert_eq!(scalars::cpu_list("0-2,5"), Some(vec![0, 1, 2, 5]));
    assert_eq!(scalars::cpu_list("0"), Some(vec![0]));
    assert_eq!(scalars::cpu_list(""), None);
}

#[test]
fn nearest_key() {
    let keys = ["cores", "count", "memory"];
    assert_eq!(words::nearest("core", keys), Some("cores"));
    assert_eq!(words::nearest("cuont", keys), Some("count"));
    assert_eq!(words::nearest("memori", keys), Some("memory"));
    assert_eq!(words::nearest("threads", keys), None);
}
