//! Starting and ending: a refused start changes nothing, a stop leaves nothing behind, and a
//! start after a crash takes over what still stands.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::client::{ask_name, ask_names};
use crate::config::Config;
use crate::servers::Nginx;
use crate::topology::{Lab, Netns, VIP, checked, eventually};
use crate::weir::{Director, binary, config_path, exists, run_refused, socket_path};

/// Title, what to replace in a good file, by what, and words that the error must have.
const WRONG: &[(&str, &str, &str, &[&str])] = &[
    ("syntax", "count = 1", "count = ", &["weir.toml:2:"]),
    (
        "unknown key",
        "count = 1",
        "cuont = 1",
        &["weir.toml:2:1", "cuont"],
    ),
    (
        "no workers",
        "count = 1",
        "count = 0",
        &["weir.toml:2:", "0"],
    ),
    (
        "weight too large",
        "weight = 100",
        "weight = 70000",
        &["weir.toml:", "70000", "65535"],
    ),
    (
        "unknown scheduler",
        "\"wrr\"",
        "\"wrrr\"",
        &["weir.toml:", "wrrr", "wrr"],
    ),
    (
        "FULL-NAT without local addresses",
        "local_addresses = [\"10.1.0.100-10.1.0.103\"]\n",
        "",
        &["weir.toml:", "local_addresses"],
    ),
    (
        NO_SUCH_DEVICE,
        "net_tap1,iface=weir-lan,mac=02:00:00:00:0b:02",
        "net_nothing1",
        &["lan0", "net_nothing1"],
    ),
];

const NO_SUCH_DEVICE: &str = "a device that DPDK does not know";

#[test]
fn a_wrong_file_is_refused_and_changes_nothing() {
    let Some(lab) = Lab::new(1) else { return };
    let good = Config::new(1).server(1, 100).toml();
    for (title, from, to, words) in WRONG {
        assert!(good.contains(from), "{title}: the good file has no {from}");
        let refused = run_refused(&lab, &good.replacen(from, to, 1));

        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{title}: {stderr}");
        for word in *words {
            assert!(stderr.contains(word), "{title}: no `{word}` in: {stderr}");
        }
        assert_eq!(lab.director.interfaces(), [""; 0], "{title}");
        assert!(!exists(&socket_path(&lab)), "{title}: a socket is left");

        // `check` says the same of the file; what the machine has, only a start finds out.
        if *title != NO_SUCH_DEVICE {
            let mut check = Command::new(binary());
            let check = check.arg("check").arg(config_path(&lab)).output();
            let check = check.expect("the binary stands");
            assert_eq!(check.status.code(), Some(1), "{title}");
            assert_eq!(String::from_utf8_lossy(&check.stderr), stderr, "{title}");
        }
    }
}

#[test]
fn a_missing_file_is_refused() {
    let Some(lab) = Lab::new(1) else { return };
    let mut command = lab.director.command(binary());
    let missing = lab.dir().join("missing.toml");
    let refused = command.arg("run").arg("--config").arg(&missing).output();
    let refused = refused.expect("the binary stands");

    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("missing.toml"), "{stderr}");
}

#[test]
fn sigterm_stops_and_leaves_nothing_behind() {
    let Some(lab) = Lab::new(1) else { return };
    let _nginx = Nginx::in_all(&lab);
    let mut weir = Director::start(&lab, &Config::new(2).server(1, 100));
    assert_eq!(ask_name(&lab), "rs1");
    let made = lab.director.interfaces();
    assert_eq!(made, ["wan0", "lan0"], "the twins, and nothing else");

    weir.signal(Signal::TERM);

    assert_eq!(weir.wait(), Some(0), "{}", weir.log());
    assert_eq!(lab.director.interfaces(), [""; 0]);
    assert_eq!(lab.client.interfaces(), [""; 0], "the port's far end");
    assert!(!exists(&socket_path(&lab)), "a socket is left");
}

/// After a crash the twins stand with their addresses, the operator's own one included; the next
/// start takes them over.
#[test]
fn a_start_after_a_crash_adopts_the_twins() {
    let Some(lab) = Lab::new(1) else { return };
    let _nginx = Nginx::in_all(&lab);
    let config = Config::new(2).server(1, 100);
    let mut weir = Director::start(&lab, &config);
    assert_eq!(ask_name(&lab), "rs1");
    lab.director.ip("addr add 192.0.2.1/32 dev wan0");
    let index = ifindex(&lab.director, "wan0");

    weir.signal(Signal::KILL);
    assert_eq!(weir.wait(), None, "killed");
    assert_eq!(ifindex(&lab.director, "wan0"), index);
    let _weir = Director::start(&lab, &config);

    assert_eq!(ask_name(&lab), "rs1");
    assert_eq!(
        ifindex(&lab.director, "wan0"),
        index,
        "adopted, not made anew"
    );
    let addresses = lab.director.ip("addr show dev wan0");
    assert!(addresses.contains("192.0.2.1/32"), "{addresses}");
    assert!(addresses.contains(&format!("{VIP}/32")), "{addresses}");
}

#[test]
fn sighup_reloads() {
    let Some(lab) = Lab::new(2) else { return };
    let _nginx = Nginx::in_all(&lab);
    let weir = Director::start(&lab, &Config::new(1).server(1, 100));
    assert_eq!(ask_name(&lab), "rs1");

    let after = Config::new(1).server(2, 100).toml();
    std::fs::write(config_path(&lab), after).expect("ours");
    weir.signal(Signal::HUP);

    eventually(Duration::from_secs(10), "rs2 alone is asked", || {
        (ask_name(&lab) == "rs2").then_some(())
    });
}

/// A start beside a running one is refused, and the running one does not notice.
#[test]
fn a_second_start_is_refused() {
    let Some(lab) = Lab::new(1) else { return };
    let _nginx = Nginx::in_all(&lab);
    let config = Config::new(1).server(1, 100);
    let mut weir = Director::start(&lab, &config);

    let refused = run_refused(&lab, &config.toml());

    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("weir.sock"), "{stderr}");
    assert!(weir.runs());
    assert_eq!(ask_names(&lab, 3)["rs1"], 3);
    assert!(weir.ask(&["status"]).status.success());
}

/// systemd's readiness protocol: a datagram with the line `READY=1` to NOTIFY_SOCKET.
#[test]
fn systemd_is_told_when_ready() {
    let Some(lab) = Lab::new(1) else { return };
    let path = lab.dir().join("notify");
    let notify = UnixDatagram::bind(&path).expect("the lab's directory is ours");
    let patience = Some(Duration::from_secs(30));
    notify.set_read_timeout(patience).expect("a timeout");

    let config = Config::new(1).server(1, 100);
    let _weir = Director::start_with(&lab, &config, &[("NOTIFY_SOCKET", &path)]);

    let mut told = Vec::new();
    while !told.contains(&"READY=1".to_owned()) {
        let mut message = [0; 256];
        let len = notify.recv(&mut message);
        let len = len.unwrap_or_else(|error| panic!("{error}, after {told:?}"));
        let message = String::from_utf8_lossy(&message[..len]);
        told.extend(message.lines().map(str::to_owned));
    }
}

#[test]
fn commands_without_a_daemon_say_so() {
    let Some(lab) = Lab::new(1) else { return };
    for command in ["status", "services", "conns", "counters", "reload"] {
        let mut weir = lab.director.command(binary());
        weir.arg(command).arg("--socket").arg(socket_path(&lab));
        let output = weir.output().expect("the binary stands");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command}: {stderr}");
        assert!(stderr.contains("weir.sock"), "{command}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{command}: {stderr}");
    }
    let help = checked(lab.director.command(binary()).arg("--help"));
    assert!(String::from_utf8_lossy(&help.stdout).contains("reload"));
}

fn ifindex(netns: &Netns, name: &str) -> u64 {
    let link = netns.ip(&format!("-j link show {name}"));
    let link: serde_json::Value = serde_json::from_str(&link).expect("ip prints JSON");
    link[0]["ifindex"]
        .as_u64()
        .expect("every interface has one")
}
