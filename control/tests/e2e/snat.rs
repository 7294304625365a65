//! What a real server of a NAT service opens itself leaves with an address of the director's pool,
//! while the service is in use. The client's namespace plays the outside: a web server, a DNS
//! responder, somebody to ping.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use crate::carry::LARGE;
use crate::client::{self, download_from};
use crate::config::Config;
use crate::families::Family::{self, V4, V6};
use crate::realserver::RealServer;
use crate::servers::{Dns, Nginx, write_noise};
use crate::topology::{Lab, Process, checked, eventually, find_program, rip, text};
use crate::weir::Director;
use crate::with_1_2_and_3_workers;

/// The pool: two addresses of each family.
const TO: &str = r#"to = ["10.0.0.100-10.0.0.101", "2001:db8::100-2001:db8::101"]"#;

pub(crate) fn pool(family: Family) -> [IpAddr; 2] {
    let of = match family {
        V4 => ["10.0.0.100", "10.0.0.101"],
        V6 => ["2001:db8::100", "2001:db8::101"],
    };
    of.map(|address| address.parse().expect("an address"))
}

/// NAT services of both families, and a rule for all that their server opens.
pub(crate) fn config(workers: usize) -> Config {
    let mut config = Config::new(workers);
    for family in [V4, V6] {
        config = config.service("tcp", (family, family), 80, "forward = \"nat\"");
    }
    config.tables(&format!(
        "
[[snat]]
name = \"out\"
source = [\"10.1.0.0/24\", \"2001:db8:1::/64\"]
out = \"wan0\"
{TO}
"
    ))
}

/// What curl in the server makes of a document of the outside's, and from whom the outside was
/// asked.
fn fetch(lab: &Lab, from: IpAddr, path: &str) -> (Vec<u8>, IpAddr) {
    let at = SocketAddr::new(from, 80);
    let body = lab.dir().join("fetched");
    let mut curl = lab.servers[0].command("curl");
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "60"]);
    curl.args(["--write-out", "%header{x-client}", "--output"]);
    let seen = text(checked(curl.arg(&body).arg(format!("http://{at}{path}"))));
    let body = std::fs::read(&body).expect("curl wrote it");
    (body, seen.parse().expect("an address"))
}

/// Listens for anything from the servers' network on the outside's link.
fn listen(lab: &Lab, file: &Path) -> Option<Process> {
    if find_program("tcpdump").is_none() {
        println!("no tcpdump: nobody looks for inside addresses outside");
        return None;
    }
    let line = format!(
        "tcpdump -n -U -i weir-wan -w {} src net 10.1.0.0/24 or src net 2001:db8:1::/64",
        file.display()
    );
    let mut command = lab.client.words(&line);
    command.stderr(std::process::Stdio::null());
    let process = Process::start("tcpdump", &mut command);
    eventually(Duration::from_secs(10), "tcpdump listens", || {
        file.exists().then_some(())
    });
    Some(process)
}

with_1_2_and_3_workers!(a_server_of_a_service_is_a_client_too);

fn a_server_of_a_service_is_a_client_too(workers: usize) {
    let Some(lab) = Lab::new(1) else { return };
    let inside = Nginx::in_all(&lab);
    let outside = Nginx::in_client(&lab);
    let weir = Director::start(&lab, &config(workers));
    let _dns = Dns::on(&lab.client, V4.client(), rip(7));
    let [dip4, dip6] = [V4, V6].map(Family::director_in_lan);
    let _rs = RealServer::set_up(&lab.servers[0], &format!("nat --gateway {dip4} {dip6}"));
    let capture = lab.dir().join("inside.pcap");
    let tcpdump = listen(&lab, &capture);

    // The service and the server's own, both at once and both ways round.
    let [served, fetched] = [(&inside[0], 5), (&outside, 6)]
        .map(|(nginx, seed)| write_noise(&nginx.files().join("noise"), LARGE, seed));
    let server = &lab.servers[0];
    for family in [V4, V6] {
        let title = format!("{family:?}, {workers} workers");
        std::thread::scope(|scope| {
            let used = scope.spawn(|| download_from(&lab, family.vip(), "/files/noise"));
            let (got, seen) = fetch(&lab, family.client(), "/files/noise");
            assert!(got == fetched, "{title}");
            assert!(pool(family).contains(&seen), "{title}: seen as {seen}");
            let used = used.join().expect("the service's client");
            assert!(used.body == served, "{title}");
            assert_eq!(used.seen, family.client().to_string(), "{title}");
        });
        // A server keeps its outside address.
        let names: Vec<_> = (0..5)
            .map(|_| fetch(&lab, family.client(), "/").1)
            .collect();
        assert!(
            names.iter().all(|seen| *seen == names[0]),
            "{title}: {names:?}"
        );
        // Small, and in four fragments.
        for size in [56, 5000] {
            let of = family.client();
            let said = server.run(&format!("ping -n -c 3 -i 0.2 -W 5 -s {size} {of}"));
            assert!(said.contains(" 0% packet loss"), "{title}: {said}");
        }
    }
    if find_program("dig").is_some() {
        let ask = format!("dig @{} example.org A +short +noedns", V4.client());
        assert_eq!(server.run(&ask).trim_end(), rip(7).to_string());
    }
    // A port where nothing listens: the outside's kernel says so, and the server hears it.
    let refused = server.within(|| {
        let at = SocketAddr::new(V4.client(), 9);
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.connect(at).expect("an address");
        let wait = Some(Duration::from_secs(5));
        socket.set_read_timeout(wait).expect("a timeout");
        socket.send(b"anybody?").expect("sent");
        socket.recv(&mut [0; 16]).expect_err("nobody").kind()
    });
    assert_eq!(refused, std::io::ErrorKind::ConnectionRefused);
    // The director itself is reached as before.
    server.run(&format!("ping -n -c 1 -W 5 {dip4}"));

    let services = weir.json(&["services"]);
    let services = services["services"].as_array().expect("a list");
    let pools: Vec<_> = services.iter().filter(|s| s["forward"] == "snat").collect();
    assert_eq!(pools.len(), 2, "one for each family");
    for service in pools {
        assert_eq!(service["name"], "out");
        let servers = service["servers"].as_array().expect("a list");
        let of = |key: &str| -> u64 {
            let numbers = servers.iter().map(|s| s[key].as_u64().expect("a number"));
            numbers.sum()
        };
        assert!(of("conns") >= 7, "{service:#}");
        assert!(of("out_bytes") > LARGE as u64, "{service:#}");
    }
    let conns = weir.json(&["conns", "--service", "out"]);
    let conns = conns["connections"].as_array().expect("a list");
    assert!(conns.iter().any(|c| c["protocol"] == "icmp"), "{conns:#?}");
    let asked = SocketAddr::new(V4.client(), 80).to_string();
    let said = weir.json(&["explain", "tcp", "10.1.0.11:5", &asked]);
    let packet = &said["packets"][0];
    assert_eq!(packet["verdict"], "forwarded", "{packet:#}");
    assert_eq!(packet["service"]["name"], "out");
    assert_eq!(packet["out"][0]["port"], "wan0");

    // The rule goes: what stands goes on, the rest is the kernel's, which forwards nothing here.
    let rule_gone = config(workers).toml();
    let (without, _) = rule_gone.split_once("[[snat]]").expect("it is there");
    let reloaded = weir.reload(without);
    assert!(reloaded.status.success(), "{reloaded:?}");
    let gone = server
        .command("curl")
        .args(["--max-time", "2", "--silent"])
        .arg(format!("http://{asked}/"))
        .status();
    assert!(!gone.expect("curl is installed").success());
    assert_eq!(client::ask_name(&lab), "rs1", "the service stays");

    if let Some(mut tcpdump) = tcpdump {
        tcpdump.signal(rustix::process::Signal::INT);
        assert!(tcpdump.ends(Duration::from_secs(10)));
        let heard = std::fs::metadata(&capture).expect("written").len();
        assert_eq!(
            heard, 24,
            "nothing but a capture's header: no inside address outside"
        );
    }
}
