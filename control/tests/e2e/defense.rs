//! Who is let in, who is shut out, and whom a flood pushes out: by the file, by the command, and
//! by a full table.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, Protocol, SendFlags, SocketType};
use serde_json::Value;
use weir_dataplane::packet::build::Packet;
use weir_dataplane::packet::eth;
use weir_dataplane::packet::tcp::flags::SYN;

use crate::client::{Held, ask_dns, ask_name, ask_names, curl, download};
use crate::config::Config;
use crate::servers::{Nginx, write_noise};
use crate::topology::{CLIENT, Lab, VIP, eventually, eventually_ok};
use crate::weir::Director;
use crate::with_1_2_and_3_workers;

with_1_2_and_3_workers!(an_access_list_changes_in_the_middle_of_a_download);
with_1_2_and_3_workers!(honest_clients_get_through_a_flood);

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);
const SIZE: usize = 200_000_000;

/// The file with this access list as web's.
fn with_access(config: &Config, access: &str) -> String {
    let key = "local_addresses = [";
    let toml = config.toml();
    toml.replacen(key, &format!("access = {access}\n{key}"), 1)
}

/// Whether the client gets no answer: what is refused is dropped.
fn is_refused(lab: &Lab) -> bool {
    let mut curl = curl(lab);
    curl.args(["--connect-timeout", "1"]);
    let output = curl.arg(format!("http://{VIP}/")).output();
    let output = output.expect("curl is installed");
    output.status.code() == Some(28) // timed out
}

fn counter(weir: &Director<'_>, list: &str, name: &str) -> u64 {
    let counters = weir.json(&["counters"]);
    let list = counters[list].as_array().expect("a list");
    let found = list.iter().find(|c| c["name"] == name);
    let value = found.and_then(|c| c["value"].as_u64());
    value.unwrap_or_else(|| panic!("no {name} in {counters:#}"))
}

fn an_access_list_changes_in_the_middle_of_a_download(workers: usize) {
    let Some(lab) = Lab::new(1) else { return };
    let nginx = Nginx::in_all(&lab);
    let sent = write_noise(&nginx[0].files().join("noise"), SIZE, 5);
    let config = Config::new(workers).server(1, 100);
    let weir = Director::start(&lab, &config);
    let reload = |toml: &str| {
        let reload = weir.reload(toml);
        assert!(reload.status.success(), "{reload:?}");
        String::from_utf8_lossy(&reload.stdout).into_owned()
    };
    let client = format!("{CLIENT}/32");
    let mut held = Held::open(&lab);
    assert_eq!(held.ask_name().expect("an answer"), "rs1");
    std::thread::scope(|scope| {
        let download = scope.spawn(|| download(&lab, "/files/noise"));
        let moved = || {
            let services = weir.json(&["services"]);
            services["services"][0]["servers"][0]["out_bytes"].as_u64()
        };
        eventually(PATIENCE, "the download is under way", || {
            (moved()? > 1_000_000).then_some(())
        });
        let denied = with_access(&config, &format!("{{ deny = [\"{client}\"] }}"));
        let said = reload(&denied);
        assert!(said.contains("access none to 1 networks in"), "{said}");
        assert!(is_refused(&lab));
        assert_eq!(held.ask_name().expect("it stands"), "rs1");

        // Half a million networks and the client's, from a file beside the configuration.
        let mut list = String::from("# let in\n10.0.0.0/24\n");
        for n in 0..500_000u32 {
            list += &format!("{}\n", Ipv4Addr::from(0x2000_0000 + n * 512));
        }
        std::fs::write(lab.dir().join("let-in.txt"), list).expect("the lab's directory is ours");
        let allowed = with_access(&config, "{ allow_file = \"let-in.txt\" }");
        let said = reload(&allowed);
        assert!(said.contains("to 500001 networks in"), "{said}");
        assert_eq!(ask_name(&lab), "rs1");
        assert_eq!(held.ask_name().expect("it stands"), "rs1");
        let got = download.join().expect("no panic");
        assert!(got.body == sent);
    });
    assert!(counter(&weir, "drops", "access_denied") > 0);
    assert_eq!(counter(&weir, "workers", "conns_denied"), 0);

    // Whoever is not let in loses what he has, if that is asked for.
    let others = "{ allow = [\"192.0.2.0/24\", \"2001:db8::/32\"], close_denied = true }";
    reload(&with_access(&config, others));
    assert!(is_refused(&lab));
    eventually(PATIENCE, "standing connections are closed", || {
        (counter(&weir, "workers", "conns_denied") > 0).then_some(())
    });
    assert!(held.ask_name().is_err());
    reload(&config.toml());
    assert_eq!(ask_name(&lab), "rs1");
}

#[test]
fn the_blacklist_shuts_out_for_a_while() {
    let Some(lab) = Lab::new(1) else { return };
    let _nginx = Nginx::in_all(&lab);
    let _dns = crate::servers::Dns::in_all(&lab);
    let config = Config::new(2).server(1, 100);
    let weir = Director::start(&lab, &config);
    let say = |args: &[&str]| {
        let said = weir.ask(args);
        assert!(said.status.success(), "{said:?}");
        String::from_utf8_lossy(&said.stdout).into_owned()
    };
    let mut held = Held::open(&lab);
    assert_eq!(held.ask_name().expect("an answer"), "rs1");

    let client = CLIENT.to_string();
    let begin = Instant::now();
    let said = say(&["blacklist", "add", &client, "--for", "4s"]);
    assert_eq!(said, format!("{client}/32 is shut out for 4s\n"));
    assert!(is_refused(&lab));
    assert!(held.ask_name().is_err(), "what stands is closed");
    let list = weir.json(&["blacklist", "list"]);
    assert_eq!(list["entries"][0]["prefix"], format!("{client}/32"));
    assert!(list["entries"][0]["expires_in_seconds"].as_u64() <= Some(4));
    eventually(PATIENCE, "its time is up", || {
        (!is_refused(&lab)).then_some(())
    });
    assert!(begin.elapsed() >= Duration::from_secs(4));
    assert_eq!(say(&["blacklist", "list"]), "nobody is shut out\n");
    assert!(counter(&weir, "drops", "blacklisted") > 0);
    assert!(counter(&weir, "workers", "conns_denied") > 0);

    // Of one service, until it is removed; a reload leaves it.
    say(&["blacklist", "add", "10.0.0.0/24", "--service", "dns"]);
    assert_eq!(ask_name(&lab), "rs1");
    say(&["blacklist", "add", "10.0.0.0/24", "--service", "web"]);
    say(&["blacklist", "remove", "10.0.0.0/24", "--service", "dns"]);
    weir.reload_to(&config);
    assert!(is_refused(&lab));
    ask_dns(&lab, 3);
    say(&["blacklist", "remove", "10.0.0.0/24", "--service", "web"]);
    assert_eq!(ask_name(&lab), "rs1");

    for (args, code, why) in [
        (&["add", "10.0.0.1/8"][..], 2, "has host bits"),
        (
            &["add", "10.0.0.0/8", "--service", "wbe"],
            1,
            "no service is called \"wbe\"",
        ),
        (
            &["remove", "10.0.0.0/8"],
            1,
            "10.0.0.0/8 is not on the blacklist",
        ),
    ] {
        let args: Vec<&str> = ["blacklist"].iter().chain(args).copied().collect();
        let said = weir.ask(&args);
        let stderr = String::from_utf8_lossy(&said.stderr);
        assert_eq!(said.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(why), "{stderr}");
    }
}

/// Packets of a flood, and how many of them in a second: some seconds' worth.
const FLOOD: u32 = 30_000;
const A_SECOND: u32 = 10_000;

/// Sends SYNs to the VIP from addresses that nobody has; within the client's namespace.
fn flood() {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(raw()));
    let socket: OwnedFd = socket.expect("root");
    let vip = SocketAddrV4::new(VIP, 80);
    let begin = Instant::now();
    for n in 0..FLOOD {
        let from = SocketAddrV4::new((0xc612_0000 + n).into(), 1024 + (n % 60_000) as u16);
        let frame = Packet::tcp(from, vip, SYN).build();
        // A full queue is a packet less.
        let packet = &frame[eth::HEADER_LEN..];
        let _ = rustix::net::sendto(&socket, packet, SendFlags::empty(), &SocketAddr::V4(vip));
        if n % 100 == 0 {
            let due = begin + Duration::from_secs(1) * n / A_SECOND;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
}

/// IPPROTO_RAW: the whole IP packet is ours.
fn raw() -> Protocol {
    Protocol::from_raw(std::num::NonZeroU32::new(255).expect("not 0"))
}

/// Ten times as many half-open connections as fit, from addresses that nobody has, and curl in
/// between: no request fails, and everything that was opened is accounted for.
fn honest_clients_get_through_a_flood(workers: usize) {
    let Some(lab) = Lab::new(2) else { return };
    let _nginx = Nginx::in_all(&lab);
    let config = Config::new(workers).server(1, 100).server(2, 100);
    let weir = Director::start(&lab, &config.max_connections(3000));
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| lab.client.within(flood));
        let mut asked = 0;
        while !flood.is_finished() {
            ask_names(&lab, 10);
            asked += 10;
        }
        flood.join().expect("no panic");
        assert!(asked >= 20, "{asked} requests beside the flood");
        println!("{asked} requests beside the flood, {workers} workers");
    });
    let half_open = counter(&weir, "workers", "evicted_half_open");
    assert!(half_open > u64::from(FLOOD) / 2, "{half_open} evicted");
    eventually_ok(PATIENCE, || {
        let counters = weir.json(&["counters"]);
        let of = |name: &str| {
            let list = counters["workers"].as_array().expect("a list");
            let found = list.iter().find(|c| c["name"] == name);
            found.and_then(|c| c["value"].as_u64()).expect(name)
        };
        let kinds = ["half_open", "closing", "udp", "established"];
        let kinds: u64 = kinds
            .iter()
            .map(|kind| of(&format!("evicted_{kind}")))
            .sum();
        let gone = of("conns_evicted") + of("conns_expired") + of("conns_reused");
        let balanced = counters["balance"]["balanced"] == Value::Bool(true);
        let opened = of("conns_opened");
        match balanced && kinds == of("conns_evicted") && opened == gone + of("conns") {
            true => Ok(()),
            false => Err(format!("they do not add up: {counters:#}")),
        }
    });
    assert_eq!(ask_names(&lab, 10).values().sum::<usize>(), 10);
}
