//! iperf3 and dig through the ways of forwarding: 100 MB each way on one TCP connection, UDP in
//! datagrams of 8 kB, which travel in six fragments, and small questions with small answers.

use std::net::IpAddr;
use std::time::Duration;

use crate::config::Config;
use crate::families::Family::{self, V4, V6};
use crate::modes::fullnat;
use crate::realserver::RealServer;
use crate::servers::Dns;
use crate::topology::{Lab, Netns, Process, checked, eventually, find_program, rip, text};
use crate::weir::Director;
use crate::with_1_2_and_3_workers;

/// iperf3's port, for its control connection and for what is measured.
pub(crate) const PORT: u16 = 5201;
/// Of hundred datagrams, so many may get lost on a busy machine: net_tap's queues are short.
const LOSSES: f64 = 10.0;

/// iperf3 in a real server, on one address.
pub(crate) fn iperf3(netns: &Netns, address: IpAddr) -> Process {
    let mut command = netns.command("iperf3");
    command.args(["--server", "--bind", &address.to_string()]);
    command.stdout(std::process::Stdio::null());
    let process = Process::start("iperf3", &mut command);
    let of = if address.is_ipv6() { "-6" } else { "-4" };
    eventually(Duration::from_secs(10), "iperf3 listens", || {
        let found = netns.run(&format!("ss -Hltn {of} sport = :{PORT}"));
        (!found.is_empty()).then_some(())
    });
    process
}

/// What iperf3 says at its end, from the client's side.
fn measured(lab: &Lab, vip: IpAddr, args: &str, title: &str) -> serde_json::Value {
    let mut command = lab.client.command("iperf3");
    command.args([
        "--client",
        &vip.to_string(),
        "--json",
        "--connect-timeout",
        "10000",
    ]);
    command.args(args.split_whitespace());
    let said = command.output().expect("iperf3 is installed");
    let json: serde_json::Value = serde_json::from_slice(&said.stdout).expect("as asked for");
    assert!(said.status.success(), "{title} {args}: {}", json["error"]);
    json["end"].clone()
}

/// How much is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amount {
    /// MiB by TCP.
    tcp: u64,
    /// MiB that must have arrived at the end: what is under way when the last byte is sent is not
    /// always counted.
    arrived: u64,
    /// Mbit/s by UDP for a second, in datagrams of 8 kB.
    udp: u64,
}

/// On this machine.
const LARGE: Amount = Amount {
    tcp: 100,
    arrived: 90,
    udp: 40,
};
/// In a guest.
pub(crate) const SMALL: Amount = Amount {
    tcp: 8,
    arrived: 5,
    udp: 4,
};

/// TCP and UDP through the VIP of `family`, in the directions that `ways` say by iperf3's options.
pub(crate) fn carries(lab: &Lab, family: Family, amount: Amount, ways: &[&str], title: &str) {
    let vip = family.vip();
    let Amount { tcp, arrived, udp } = amount;
    for way in ways {
        let end = measured(lab, vip, &format!("--bytes {tcp}M {way}"), title);
        let got = end["sum_received"]["bytes"].as_u64().expect("a number");
        assert!(got > arrived << 20, "{title}, TCP {way}: {got} bytes");

        let args = format!("--udp --length 8000 --bitrate {udp}M --time 1 {way}");
        let end = measured(lab, vip, &args, title);
        let (packets, lost) = (&end["sum"]["packets"], &end["sum"]["lost_percent"]);
        let (packets, lost) = (
            packets.as_u64().unwrap_or(0),
            lost.as_f64().unwrap_or(100.0),
        );
        // Half of what was asked for: iperf3 starts late on a busy machine.
        let least = udp * 1_000_000 / 8 / 8000 / 2;
        assert!(
            packets > least && lost < LOSSES,
            "{title}, UDP {way}: {end}"
        );
        println!("{title}, UDP {way}: {packets} datagrams of 8 kB, {lost:.1} % lost");
    }
}

/// What dig makes of an answer.
fn digs(lab: &Lab, family: Family, title: &str) {
    let vip = family.vip();
    let ask = format!("dig @{vip} example.org A +short +noedns +tries=2 +time=5");
    let answer = text(checked(&mut lab.client.words(&ask)));
    assert_eq!(answer.trim_end(), rip(1).to_string(), "{title}");
}

/// Services for all of it in both families, forwarded as `more` says.
fn services(mut config: Config, more: impl Fn(Family) -> String) -> Config {
    for family in [V4, V6] {
        for (protocol, port) in [("tcp", PORT), ("udp", PORT), ("udp", 53)] {
            config = config.service(protocol, (family, family), port, &more(family));
        }
    }
    config
}

/// Everything through a director by `config`; servers listen on the addresses that `on` says.
fn goes(lab: &Lab, config: &Config, on: fn(Family) -> IpAddr, title: &str) {
    for program in ["iperf3", "dig"] {
        if find_program(program).is_none() {
            return println!("skipped: no {program}; run `sudo scripts/test`, which installs it");
        }
    }
    let server = &lab.servers[0];
    let _dns = [V4, V6].map(|family| Dns::on(server, on(family), rip(1)));
    let _weir = Director::start(lab, config);
    for family in [V4, V6] {
        let _iperf3 = iperf3(server, on(family));
        let title = format!("{title}, {family:?}");
        digs(lab, family, &title);
        carries(lab, family, LARGE, &["", "--reverse"], &title);
    }
}

with_1_2_and_3_workers!(fullnat_streams_and_datagrams);

fn fullnat_streams_and_datagrams(workers: usize) {
    let Some(lab) = Lab::new(1) else { return };
    let config = services(Config::new(workers), fullnat);
    goes(
        &lab,
        &config,
        |f| f.rip(1),
        &format!("FULL-NAT, {workers} workers"),
    );
}

#[test]
fn nat_streams_and_datagrams() {
    let Some(lab) = Lab::new(1) else { return };
    let [dip4, dip6] = [V4, V6].map(Family::director_in_lan);
    let _rs = RealServer::set_up(&lab.servers[0], &format!("nat --gateway {dip4} {dip6}"));
    let config = services(Config::new(3), |_| "forward = \"nat\"".to_owned());
    goes(&lab, &config, |f| f.rip(1), "NAT");
}

#[test]
fn dr_streams_and_datagrams() {
    let Some(lab) = Lab::new(1) else { return };
    lab.let_answers_go_straight();
    let [vip4, vip6] = [V4, V6].map(Family::vip);
    let _rs = RealServer::set_up(&lab.servers[0], &format!("dr --vip {vip4} {vip6}"));
    let config = services(Config::new(3), |_| "forward = \"dr\"".to_owned());
    goes(&lab, &config, Family::vip, "DR");
}

/// VXLAN, the tunnel that every kernel has.
#[test]
fn tun_streams_and_datagrams() {
    let Some(lab) = Lab::new(1) else { return };
    lab.let_answers_go_straight();
    let [vip4, vip6] = [V4, V6].map(Family::vip);
    let [dip4, dip6] = [V4, V6].map(Family::director_in_lan);
    let args = format!("tun --type vxlan --vni 77 --vip {vip4} {vip6} --director {dip4} {dip6}");
    let _rs = RealServer::set_up(&lab.servers[0], &args);
    let more = "forward = \"tun\"\ntunnel = { type = \"vxlan\", vni = 77 }";
    let config = services(Config::new(3), |_| more.to_owned());
    goes(&lab, &config, Family::vip, "VXLAN");
}
