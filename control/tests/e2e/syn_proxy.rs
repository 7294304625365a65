//! The SYN proxy with real kernels at both ends: transfers with and without what TCP may offer,
//! servers that are not there, and curl in the middle of a flood.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
use weir_dataplane::packet::build::Packet;
use weir_dataplane::packet::tcp::flags::SYN;

use crate::books::counter;
use crate::carry::{LARGE, carries, carries_for_the_client};
use crate::client::curl;
use crate::config::Config;
use crate::families::Family::{self, V4, V6};
use crate::modes::fullnat;
use crate::realserver::RealServer;
use crate::servers::Nginx;
use crate::topology::{Lab, Netns, VIP, checked, eventually, text};
use crate::weir::Director;
use crate::with_1_2_and_3_workers;

/// A configuration whose service's clients must prove themselves.
fn proxied(workers: usize, (vip, rip): (Family, Family), more: &str) -> Config {
    let more = format!("{}\nsyn_proxy = \"always\"\n{more}", fullnat(rip));
    Config::new(workers).service("tcp", (vip, rip), 80, &more)
}

with_1_2_and_3_workers!(every_byte_arrives_in_and_between_families);

fn every_byte_arrives_in_and_between_families(workers: usize) {
    for pair in [(V4, V4), (V6, V6), (V6, V4), (V4, V6)] {
        let Some(lab) = Lab::new(1) else { return };
        let nginx = Nginx::in_all(&lab);
        let weir = Director::start(&lab, &proxied(workers, pair, ""));
        let title = format!("SYN proxy {pair:?}, {workers} workers");
        carries(&lab, &nginx[0], pair.0, LARGE, &title);
        proved(&weir);
    }
}

with_1_2_and_3_workers!(nat_through_redirects);

fn nat_through_redirects(workers: usize) {
    let Some(lab) = Lab::new(1) else { return };
    let nginx = Nginx::in_all(&lab);
    let [dip4, dip6] = [V4, V6].map(Family::director_in_lan);
    let more = "forward = \"nat\"\nsyn_proxy = \"always\"";
    let config = Config::new(workers).service("tcp", (V4, V4), 80, more);
    let config = config.service("tcp", (V6, V6), 80, more);
    let weir = Director::start(&lab, &config);
    let _rs = RealServer::set_up(&lab.servers[0], &format!("nat --gateway {dip4} {dip6}"));
    for family in [V4, V6] {
        let title = format!("SYN proxy, NAT {family:?}, {workers} workers");
        carries_for_the_client(&lab, &nginx[0], family, LARGE, &title);
    }
    proved(&weir);
}

/// All connections so far were opened by a cookie.
fn proved(weir: &Director<'_>) {
    let counters = weir.json(&["counters"]);
    let [opened, valid] =
        ["conns_opened", "cookies_valid"].map(|c| counter(&counters["workers"], c));
    assert!(
        opened > 0 && opened == valid,
        "{opened} opened, {valid} by a cookie"
    );
    assert_eq!(counter(&counters["drops"], "invalid_cookie"), 0);
}

/// What either end has switched off, by its sysctls: the other one, and Weir between them, get
/// along without it.
#[test]
fn ends_without_timestamps_sack_or_window_scaling() {
    let off = |netns: &Netns, keys: &[&str]| {
        for key in keys {
            netns.run(&format!("sysctl -q -w net.ipv4.tcp_{key}=0"));
        }
    };
    let all = ["timestamps", "sack", "window_scaling"];
    let rows: [(&[&str], &[&str]); 7] = [
        (&["timestamps"], &[]),
        (&["sack", "window_scaling"], &[]),
        (&all, &[]),
        (&[], &["timestamps"]),
        (&[], &["window_scaling"]),
        (&[], &all),
        (&["timestamps"], &["sack", "window_scaling"]),
    ];
    for (at_client, at_server) in rows {
        let Some(lab) = Lab::new(1) else { return };
        off(&lab.client, at_client);
        off(&lab.servers[0], at_server);
        let nginx = Nginx::in_all(&lab);
        let weir = Director::start(&lab, &proxied(2, (V4, V4), ""));
        let title =
            format!("SYN proxy, client without {at_client:?}, server without {at_server:?}");
        carries(&lab, &nginx[0], V4, LARGE / 4, &title);
        proved(&weir);
    }
}

/// A server that speaks first, and one that is not there.
#[test]
fn who_waits_for_the_server_is_greeted_or_told() {
    let Some(lab) = Lab::new(1) else { return };
    let at = SocketAddr::new(V4.rip(1), 80);
    let listener = lab.servers[0].within(move || TcpListener::bind(at).expect("port 80"));
    let _weir = Director::start(&lab, &proxied(2, (V4, V4), ""));
    let greeter = std::thread::spawn(move || {
        for _ in 0..20 {
            let (mut stream, _) = listener.accept().expect("a connection");
            let _ = stream.write_all(b"220 hello\r\n");
        }
    });
    let ask = move || {
        let vip = SocketAddr::from((VIP, 80));
        let mut stream = TcpStream::connect_timeout(&vip, Duration::from_secs(10))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut said = String::new();
        stream.read_to_string(&mut said).map(|_| said)
    };
    for _ in 0..20 {
        let said = lab.client.within(ask).expect("a greeting");
        assert_eq!(said, "220 hello\r\n");
    }
    greeter.join().expect("each was greeted"); // and it listens no more

    let refused = lab.client.within(ask).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionReset, "{refused}");
    lab.servers[0].ip("link set eth0 down");
    let begun = Instant::now();
    let silent = lab.client.within(ask).expect_err("nobody is there");
    assert_eq!(silent.kind(), ErrorKind::ConnectionReset, "{silent}");
    let took = begun.elapsed();
    assert!(
        (3..8).contains(&took.as_secs()),
        "four tries in four seconds: {took:?}"
    );
}

/// Sends SYNs to the VIP from addresses all over 172.16.0.0/12 until `stop`, at most `most` of
/// them and for at most 30 seconds; how many.
fn flood(most: u32, stop: &AtomicBool) -> u32 {
    let raw = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW));
    let raw = raw.expect("root may");
    let (begun, mut dice) = (Instant::now(), 7u64);
    for n in 0..most {
        if stop.load(Relaxed) || begun.elapsed() > Duration::from_secs(30) {
            return n;
        }
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let from = Ipv4Addr::from(0xac10_0001 + ((dice >> 40) as u32 & 0x000f_fffe));
        let from = SocketAddrV4::new(from, (dice >> 20) as u16 | 1024);
        let packet = Packet {
            seq: n.wrapping_mul(2_654_435_761),
            ..Packet::tcp(from, SocketAddrV4::new(VIP, 80), SYN)
        };
        let to = SocketAddrV4::new(VIP, 0);
        // A full queue is no reason to stop.
        let _ = sendto(&raw, &packet.build()[14..], SendFlags::empty(), &to);
    }
    most
}

with_1_2_and_3_workers!(curl_succeeds_in_a_flood);

fn curl_succeeds_in_a_flood(workers: usize) {
    let Some(lab) = Lab::new(3) else { return };
    let _nginx = Nginx::in_all(&lab);
    let config = Config::new(workers);
    let config = config.server(1, 100).server(2, 100).server(3, 50);
    let toml = config.toml().replace(
        "name = \"web\"",
        "name = \"web\"
syn_proxy = { mode = \"auto\", half_open = 300 }
timeouts = { syn_recv = \"3s\", syn_sent = \"3s\" }",
    );
    let weir = Director::start(&lab, &config);
    let reloaded = weir.reload(&toml);
    assert!(reloaded.status.success(), "{reloaded:?}");

    let is_on = |weir: &Director<'_>| {
        let services = weir.json(&["services"]);
        let on = services["services"][0]["syn_proxy"]["on"].as_bool();
        on.expect("it is automatic")
    };
    let ask = |times: u32| {
        let mut curl = curl(&lab);
        curl.args(["-H", "Connection: close", "--parallel-max", "1"]);
        let answers = text(checked(curl.arg(format!("http://{VIP}/[1-{times}]"))));
        assert_eq!(answers.lines().count(), times as usize);
    };
    ask(10);
    assert!(!is_on(&weir), "in peace nobody proves anything");

    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let flooder = lab.client.spawn(move || flood(2_000_000, &stopped));
    eventually(Duration::from_secs(10), "cookies are sent", || {
        let sent = counter(&weir.json(&["counters"])["workers"], "cookies_sent");
        (sent > 0).then_some(())
    });
    let begun = Instant::now();
    ask(300);
    let took = begun.elapsed();
    // Workers say it once a second.
    let said = || is_on(&weir).then_some(());
    eventually(Duration::from_secs(5), "the listing says so", said);
    stop.store(true, Relaxed);
    let sent = flooder.join().expect("it only sends");

    let counters = weir.json(&["counters"]);
    let workers_say = |name| counter(&counters["workers"], name);
    let (cookies, valid) = (workers_say("cookies_sent"), workers_say("cookies_valid"));
    assert!(valid >= 300, "{valid} proved");
    assert_eq!(workers_say("conns_evicted"), 0);
    let status = weir.json(&["status"]);
    let standing = status["connections"].as_u64().expect("a count");
    assert!(standing < 1500, "{standing} connections stand");
    assert!(weir.log().contains("SYN flood"), "{}", weir.log());
    println!(
        "{workers} workers: {sent} SYNs, {cookies} cookies, 300 requests in {} ms",
        took.as_millis()
    );
    eventually(Duration::from_secs(40), "the flood is over", || {
        (!is_on(&weir) && weir.log().contains("the SYN flood is over")).then_some(())
    });
    ask(10);
    // Nothing was opened by those ten but at once.
    let after = weir.json(&["counters"]);
    assert_eq!(counter(&after["workers"], "cookies_valid"), valid);
}
