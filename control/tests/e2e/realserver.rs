//! `scripts/realserver`, which sets up a real server the way users do; and that it keeps its word:
//! done once, done twice, undone.

use std::process::{Command, Output};

use crate::topology::{Lab, Netns, checked, repository, text};

/// What `scripts/realserver ARGS` did in a real server; undone when dropped.
#[derive(Debug)]
pub(crate) struct RealServer<'lab> {
    netns: &'lab Netns,
}

impl<'lab> RealServer<'lab> {
    /// Sets up `netns`; it must succeed.
    pub(crate) fn set_up(netns: &'lab Netns, args: &str) -> RealServer<'lab> {
        checked(&mut script(netns, args));
        RealServer { netns }
    }
}

impl Drop for RealServer<'_> {
    fn drop(&mut self) {
        // Also while a test panics; the namespace goes anyway, and this leaves no file behind.
        let undone = script(self.netns, "--undo").output();
        if !undone.as_ref().is_ok_and(|undone| undone.status.success()) {
            println!("scripts/realserver --undo: {undone:?}");
        }
    }
}

/// `scripts/realserver ARGS` for `netns`.
fn script(netns: &Netns, args: &str) -> Command {
    let mut command = Command::new(repository().join("scripts/realserver"));
    command.args(args.split_whitespace());
    command.args(["--netns", netns.name()]);
    command
}

/// Everything that the script may change, as the kernel shows it.
fn state(netns: &Netns) -> String {
    let mut state = String::new();
    for show in [
        "addr show dev lo",
        "link show dev lo",
        "-4 route",
        "-6 route show default",
    ] {
        state.push_str(&netns.ip(show));
    }
    for key in ["arp_ignore", "arp_announce"] {
        for device in ["all", "eth0"] {
            state.push_str(&netns.run(&format!("sysctl net.ipv4.conf.{device}.{key}")));
        }
    }
    let interfaces = netns.interfaces();
    format!("{state}{interfaces:?}")
}

/// Every mode whose devices the running kernel surely has.
const MODES: &[&str] = &[
    "dr --vip 10.0.0.10 10.0.0.11 2001:db8::10",
    "tun --type vxlan --vip 10.0.0.10 --vni 77 --mac 02:00:00:00:77:01",
    "tun --type vxlan --vip 2001:db8::10 --director 10.1.0.2 2001:db8:1::2",
    "nat --gateway 10.1.0.2 2001:db8:1::2",
    "fullnat",
];

#[test]
fn every_mode_is_idempotent_and_undone() {
    let Some(lab) = Lab::new(1) else { return };
    let netns = &lab.servers[0];
    netns.ip("route add default via 10.1.0.1");
    for mode in MODES {
        let before = state(netns);

        let shown = text(checked(script(netns, mode).arg("--show")));
        assert_eq!(state(netns), before, "{mode}: --show changes nothing");
        let done = text(checked(&mut script(netns, mode)));
        let after = state(netns);
        let again = text(checked(&mut script(netns, mode)));

        for line in commands(&shown) {
            assert!(
                commands(&done).contains(&line),
                "{mode}: {line} not in {done}"
            );
        }
        assert_eq!(commands(&again), [""; 0], "{mode}");
        assert_eq!(state(netns), after, "{mode}: a second time");
        assert_eq!(after == before, *mode == "fullnat", "{mode}: {after}");

        checked(&mut script(netns, "--undo"));
        assert_eq!(state(netns), before, "{mode}: undone");
        let nothing = text(checked(&mut script(netns, "--undo")));
        assert!(nothing.contains("Nothing to undo"), "{mode}: {nothing}");
    }
}

/// The commands among what the script printed.
fn commands(printed: &str) -> Vec<&str> {
    let lines = printed.lines();
    lines
        .filter(|line| line.starts_with("  ip netns exec"))
        .collect()
}

/// Arguments, exit code, and words that the error must have.
const WRONG: &[(&str, i32, &[&str])] = &[
    ("", 2, &["which mode", "Usage"]),
    ("dr", 2, &["dr needs --vip"]),
    ("dr nat --vip 10.0.0.10", 2, &["one mode"]),
    ("dr --vip 10.0.0.300", 2, &["10.0.0.300"]),
    ("dr --vip 10.0.0.10 --interface eth7", 1, &["eth7"]),
    ("tun --vip 10.0.0.10", 2, &["--type"]),
    ("tun --vip 10.0.0.10 --type ipop", 2, &["ipop", "vxlan"]),
    (
        "tun --vip 10.0.0.10 --type gue --port 0",
        2,
        &["--port", "65535"],
    ),
    (
        "tun --vip 10.0.0.10 --type gre --checksum",
        2,
        &["--director"],
    ),
    ("nat", 2, &["nat needs --gateway"]),
    ("dr --undo", 2, &["--undo"]),
    ("dr --vpi 10.0.0.10", 2, &["--vpi"]),
];

#[test]
fn wrong_arguments_are_named_and_change_nothing() {
    let Some(lab) = Lab::new(1) else { return };
    let netns = &lab.servers[0];
    let before = state(netns);
    for (args, code, words) in WRONG {
        demand_refused(
            &script(netns, args).output().expect("it stands"),
            args,
            *code,
            words,
        );
        assert_eq!(state(netns), before, "{args}");
    }
}

/// On a kernel without ipip (PLATFORM.md, section 10). One that has it makes the tunnel in a
/// guest's scenarios.
#[test]
fn a_kernel_without_the_tunnel_is_named() {
    let Some(lab) = Lab::new(1) else { return };
    let netns = &lab.servers[0];
    let probe = netns
        .words("ip link add probe type ipip remote 10.1.0.2")
        .status();
    if probe.expect("ip is installed").success() {
        println!("skipped: this kernel has ipip");
        return;
    }
    let before = state(netns);
    let args = "tun --vip 10.0.0.10 --type ipip --director 10.1.0.2";
    let refused = script(netns, args).output().expect("it stands");
    demand_refused(&refused, args, 1, &["lacks ipip", "nothing was changed"]);
    assert_eq!(state(netns), before);
}

fn demand_refused(refused: &Output, args: &str, code: i32, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(code), "{args}: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "{args}: no `{word}` in: {stderr}");
    }
}
