//! `weir explain` beside a running daemon: it says what then happens, and it is right.

use std::process::Stdio;
use std::time::Duration;

use crate::client::{self, Held};
use crate::config::Config;
use crate::servers::Nginx;
use crate::topology::{CLIENT, Lab, Process, VIP, eventually, find_program, rip};
use crate::weir::Director;
use crate::with_1_2_and_3_workers;

with_1_2_and_3_workers!(what_is_said_is_what_happens);

fn what_is_said_is_what_happens(workers: usize) {
    let Some(lab) = Lab::new(2) else { return };
    let _nginx = Nginx::in_all(&lab);
    // A new connection goes to rs2 while rs1 drains.
    let config = Config::new(workers).server(1, 0).server(2, 100);
    let weir = Director::start(&lab, &config);
    let mut held = Held::open(&lab);
    assert_eq!(held.ask_name().expect("an answer"), "rs2");

    let vip = format!("{VIP}:80");
    let new = weir.json(&["explain", "tcp", "10.0.0.1:9", &vip]);
    let packet = &new["packets"][0];
    assert_eq!(packet["verdict"], "forwarded", "{packet:#}");
    assert_eq!(packet["port"], "wan0");
    assert_eq!(packet["service"]["available"], 1);
    let server = &packet["server"];
    assert_eq!(server["address"], format!("{}:80", rip(2)));
    // The held connection is among those that the scheduler sees.
    assert_eq!(server["active"], 1, "{packet:#}");
    // The MAC address is the one that the kernel knows.
    let mac = packet["next_hop"]["mac"].as_str().expect("known");
    let neighbours = lab.director.run(&format!("ip neigh show {}", rip(2)));
    assert!(neighbours.contains(mac), "{mac}: {neighbours}");
    assert_eq!(packet["existing"], serde_json::Value::Null);

    // Of a connection that stands, it says so, by whichever worker has it.
    let standing = &weir.json(&["conns"])["connections"][0];
    let at = standing["client"].as_str().expect("an address");
    let taken = weir.json(&["explain", "tcp", at, &vip]);
    let existing = &taken["packets"][0]["existing"];
    assert_eq!(existing["worker"], standing["worker"], "{taken:#}");
    assert_eq!(existing["local"], standing["local"]);
    assert_eq!(taken["packets"][0]["owner"], standing["worker"]);
    let text = weir.ask(&["explain", "tcp", at, &vip]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("existing    the connection "), "{text}");

    // Nothing of it reached the network or the daemon's books.
    assert_eq!(weir.json(&["status"])["connections"], 1);
    assert_eq!(held.ask_name().expect("an answer"), "rs2");

    let refused = weir.ask(&["explain", "--port", "dmz0", "udp", "10.0.0.1:9", &vip]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(
        said,
        "weir: no port is named \"dmz0\"; there are wan0, lan0\n"
    );
}

/// A real capture of a client's, through the copy of the daemon that the client talked to.
#[test]
fn a_capture_of_the_client_is_explained() {
    let Some(lab) = Lab::new(1) else { return };
    if find_program("tcpdump").is_none() {
        println!("no tcpdump: nothing is captured");
        return;
    }
    let _nginx = Nginx::in_all(&lab);
    let weir = Director::start(&lab, &Config::new(2).server(1, 100));
    let path = |name: &str| lab.dir().join(name);
    let file = path("in.pcap");
    let line = format!("tcpdump -n -U -i weir-wan -w {}", file.display());
    let notes = path("tcpdump.log");
    let mut command = lab.client.words(&line);
    command
        .stderr(std::fs::File::create(&notes).expect("ours"))
        .stdin(Stdio::null());
    let mut tcpdump = Process::start("tcpdump", &mut command);
    eventually(Duration::from_secs(10), "tcpdump listens", || {
        let notes = std::fs::read_to_string(&notes).expect("UTF-8");
        notes.contains("listening on").then_some(())
    });
    assert_eq!(client::ask_name(&lab), "rs1");
    // It writes what it hears a moment later: when nothing more comes, that was all.
    let mut heard = 0;
    eventually(Duration::from_secs(10), "tcpdump has written all", || {
        std::thread::sleep(Duration::from_millis(300));
        let length = std::fs::metadata(&file).map_or(0, |file| file.len());
        let all = length > 500 && length == std::mem::replace(&mut heard, length);
        all.then_some(())
    });
    tcpdump.signal(rustix::process::Signal::INT);
    assert!(tcpdump.ends(Duration::from_secs(10)));

    let (input, output) = (path("in.pcap"), path("out.pcap"));
    let (input, output) = (
        input.to_str().expect("UTF-8"),
        output.to_str().expect("UTF-8"),
    );
    let explained = weir.json(&["explain", "--pcap", input, "--out", output]);
    let packets = explained["packets"].as_array().expect("a list");
    let of = |from: &str, to: &str| -> Vec<&serde_json::Value> {
        let ends = |p: &serde_json::Value| {
            let end = |key: &str| p[key].as_str().unwrap_or_default().to_owned();
            end("source").starts_with(from) && end("destination").starts_with(to)
        };
        packets.iter().filter(|p| ends(p)).collect()
    };
    let (client, vip) = (format!("{CLIENT}:"), format!("{VIP}:80"));
    let asked = of(&client, &vip);
    assert!(asked.len() >= 4, "{explained:#}");
    for packet in &asked {
        assert_eq!(packet["verdict"], "forwarded", "{packet:#}");
        assert_eq!(packet["existing"]["state"], "TIME_WAIT", "{packet:#}");
    }
    assert_eq!(asked[0]["connection"]["opened"], true);
    // What the daemon itself had sent is left out.
    let answered = of(&vip, &client);
    assert!(!answered.is_empty());
    assert!(
        answered.iter().all(|p| p["verdict"] == "left_out"),
        "{answered:#?}"
    );
    let left = std::fs::metadata(output).expect("written").len();
    assert!(left > 24 + 16 * asked.len() as u64, "{left} bytes");
}
